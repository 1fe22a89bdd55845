"""One batch: loss and gradients, in one process and in two."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dits_adapter.adapters import DITSAdapter
from dits_adapter.encoders import load_encoder
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training._losses import contrastive_loss
from dits_adapter.training.joint._model import JointModel, initial_model
from dits_adapter.video._pooling import mean_pool
from dits_adapter.xpool import XPoolScores, xpool_scores
from tests.training.joint.blocks import recipe, small_batch, small_model


def half_a_batch(rank: int, folder, clip_folder) -> None:
    """Run one of two processes: loss and gradients of its share of the batch."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    clip = load_encoder(clip_folder, device="cpu")
    model = torch.nn.parallel.DistributedDataParallel(small_model(clip), find_unused_parameters=True)
    batch = {name: tensor[4 * rank : 4 * rank + 4] for name, tensor in small_batch(clip).items()}
    loss = model(**batch)["loss"]
    loss.backward()
    gradients = {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
    torch.save({"loss": loss.detach(), **gradients}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_loss_and_gradients_of_one_with_the_whole_batch(tiny_clip, tmp_path):
    torch.multiprocessing.start_processes(half_a_batch, (tmp_path, tiny_clip), nprocs=2, start_method="spawn")
    clip = load_encoder(tiny_clip, device="cpu")
    model = small_model(clip)
    loss = model(**small_batch(clip))["loss"]
    loss.backward()
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found.pop("loss"), loss.detach(), rtol=1e-10, atol=0)
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-12)


def test_the_loss_is_that_of_the_score_matrix(tiny_clip):
    clip = load_encoder(tiny_clip, device="cpu")
    model, batch = small_model(clip), small_batch(clip)
    with torch.no_grad():
        text = clip.model.get_text_features(batch["input_ids"]).pooler_output
        scores = XPoolScores(model.xpool, model.adapter(text), text, model.embed_clips(batch["pixels"]))
        expected = contrastive_loss(torch.tensor(scores[:]).double(), clip.model.logit_scale.exp(), batch["video"])
        torch.testing.assert_close(model(**batch)["loss"], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("loss", ["index", "both"])
def test_the_loss_of_an_index_is_that_of_its_score_matrix(loss, tiny_clip):
    clip = load_encoder(tiny_clip, device="cpu")
    batch, under_xpool = small_batch(clip), small_model(clip)
    model = JointModel(clip, under_xpool.xpool, under_xpool.adapter, loss).double().eval()
    with torch.no_grad():
        text = clip.model.get_text_features(batch["input_ids"]).pooler_output
        video = mean_pool(model.embed_clips(batch["pixels"]).numpy())
        scores = torch.from_numpy(model.adapter.adapt(text).numpy() @ video.T)
        losses = [contrastive_loss(scores.double(), clip.model.logit_scale.exp(), batch["video"])]
        if loss == "both":
            losses.append(under_xpool(**batch)["loss"])
        torch.testing.assert_close(model(**batch)["loss"], torch.stack(losses).mean(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("condition", ["video", "both"])
def test_the_loss_of_an_adapter_that_sees_the_video_is_that_of_its_pairs(condition, tiny_clip):
    clip = load_encoder(tiny_clip, device="cpu")
    batch, plain = small_batch(clip), small_model(clip)
    adapter = DITSAdapter(SamplerConfig(width=32, depth=1, steps=2, input="raw", condition=condition))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = JointModel(clip, plain.xpool, adapter).double().eval()
    with torch.no_grad():
        text = clip.model.get_text_features(batch["input_ids"]).pooler_output
        frames = model.embed_clips(batch["pixels"])
        scores = torch.zeros(8, 8, dtype=torch.float64)
        for i in range(8):
            for j in range(8):
                pooled = model.xpool(text[i : i + 1], frames[j : j + 1])[0]
                scores[i, j] = F.cosine_similarity(adapter(text[i : i + 1], pooled), pooled)
        expected = contrastive_loss(scores, clip.model.logit_scale.exp(), batch["video"])
        torch.testing.assert_close(model(**batch)["loss"], expected, rtol=1e-6, atol=0)
        matrix = xpool_scores(model.xpool, adapter, text.numpy(), frames)
        np.testing.assert_allclose(matrix[:], scores, atol=1e-6)


def test_the_order_of_the_batch_and_the_names_of_videos_do_not_matter(tiny_clip):
    clip = load_encoder(tiny_clip, device="cpu")
    model, batch = small_model(clip), small_batch(clip)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = model(**batch)["loss"]
        shuffled = model(**{name: tensor[order] for name, tensor in batch.items()})["loss"]
        renamed = model(**{**batch, "video": 99 - batch["video"]})["loss"]
        unmasked = model(**{**batch, "video": torch.arange(8)})["loss"]
    torch.testing.assert_close(shuffled, loss)
    assert renamed == loss
    assert unmasked > loss


def test_gradient_checkpointing_changes_no_gradient(tiny_clip):
    gradients = []
    for on in (False, True):
        clip = load_encoder(tiny_clip, device="cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of names that transformers will drop
            initial_model(clip, recipe(gradient_checkpointing=on))
        assert clip.model.is_gradient_checkpointing == on
        model = small_model(clip)
        model.clip.train()
        model(**small_batch(clip))["loss"].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
