"""One batch: loss and gradients, in one process and in two."""

from __future__ import annotations

import torch

from dits_adapter.encoders import load_encoder
from dits_adapter.training._losses import contrastive_loss
from dits_adapter.xpool import XPoolScores
from tests.training.joint.blocks import small_batch, small_model


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
        if on:
            clip.model.gradient_checkpointing_enable({"use_reentrant": False})
        model = small_model(clip)
        model.clip.train()
        model(**small_batch(clip))["loss"].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
