"""Whole runs of joint training: it learns, and a killed run equals a whole one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, DITSError, InputError, VideoError
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint import _callbacks
from dits_adapter.training.joint import _model as module
from dits_adapter.training.joint import train as joint
from dits_adapter.video._pooling import mean_pool
from dits_adapter.xpool import XPool, XPoolScores
from tests.conftest import embed_images
from tests.training.joint.blocks import Clips, same, train, weights


def found_first(clips, clip, adapter, head) -> float:
    """Share of the texts whose own clip, seen as a whole, is found first."""
    text = clip.embed_texts(clips.captions.texts)
    frames = torch.from_numpy(np.stack([embed_images(clip, list(video[:2])) for video in clips.frames]))
    scores = XPoolScores(head, adapter.adapt(text) if adapter else text, text, frames)
    return float((ranks(scores, clips.captions.labels) == 1).mean())


def test_it_learns_32_pairs_by_heart(tiny_clip, tmp_path):
    clips = Clips(32)
    settings = {
        "batch_size": 32,
        "epochs": 60,
        "checkpoint_steps": 20,
        "clip_learning_rate": 3e-3,
        "dropout": 0,
        "select": "xpool",
    }
    assert found_first(clips, load_encoder(tiny_clip), None, XPool(32)) < 0.5
    out = train(clips, tmp_path / "out", tiny_clip, held_out=clips.captions, flip=False, **settings)
    artifact = Artifact.load(out)
    assert artifact.metrics["validation"]["xpool_r1"] == 100
    assert (artifact.calibration.videos, artifact.calibration.queries) == (32, 32)
    assert found_first(clips, load_encoder(artifact.encoder), artifact.adapter, artifact.xpool) == 1


def test_everything_is_trained_and_the_space_is_another(tiny_clip, tmp_path):
    clips = Clips(20)
    with pytest.warns(UserWarning, match="gets no probabilities: 2 held-out videos are too few"):
        out = train(clips, tmp_path / "mine", tiny_clip, epochs=1)
    artifact = Artifact.load(out)
    assert artifact.calibration is None
    assert artifact.kind == "joint"
    assert artifact.space.video.encoder == "mine"
    assert artifact.space.video.frames == 2
    fresh = XPool(32).state_dict()
    assert not any(torch.equal(value, fresh[name]) for name, value in artifact.xpool.state_dict().items())
    original, trained = load_encoder(tiny_clip), load_encoder(artifact.encoder)
    changed = {
        name: not torch.equal(value, trained.model.state_dict()[name])
        for name, value in original.model.named_parameters()
    }
    assert all(changed[name] for name in ("logit_scale", "text_projection.weight", "visual_projection.weight"))
    assert trained.model.logit_scale.exp() <= 100.001
    assert artifact.training["pairs"] == {"train": 18, "validation": 2}
    assert {"xpool_r1", "index_r1"} <= artifact.metrics["validation"].keys()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_seed_decides_everything(tiny_clip, tmp_path):
    clips = Clips(20)
    runs = [
        train(clips, tmp_path / name, tiny_clip, epochs=2, seed=seed, sampler__noise_scale=1.0)
        for name, seed in (("one", 1), ("again", 1), ("two", 2))
    ]
    one, again, two = (weights(run) for run in runs)
    assert same(one, again)
    assert not same(one, two)


def test_a_killed_run_goes_on_to_the_weights_of_a_whole_one(tiny_clip, tmp_path, monkeypatch):
    settings = {"epochs": 3, "sampler__noise_scale": 0.1, "validation": 0.2}
    clips = Clips(30)  # 24 to train on: 3 steps an epoch, and a validation after each
    whole = train(clips, tmp_path / "whole", tiny_clip, **settings)
    total = clips.reads

    class Killed(Exception):
        pass

    def dies(video, frames, transform):
        if clips.reads == total * 2 // 3:
            raise Killed
        return clips.read(video, frames, transform)

    clips.reads = 0
    monkeypatch.setattr(_callbacks, "_PAUSE", 0)  # a checkpoint after every step,
    monkeypatch.setattr(_callbacks, "_SHARE", np.inf)  # however long it takes
    with pytest.raises(Killed):
        train(clips, tmp_path / "killed", tiny_clip, read=dies, **settings)
    checkpoints = tmp_path / "killed.checkpoints"
    last = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert last.name == "checkpoint-4"
    # A checkpoint that was being written when the process died is passed over.
    (checkpoints / "checkpoint-6").mkdir()
    (checkpoints / "checkpoint-6" / "trainer_state.json").write_text('{"global')

    def fails(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(joint, "_save", fails)
        with pytest.raises(Killed):
            train(clips, tmp_path / "killed", tiny_clip, **settings)
    # The last one stays beside the best, so that nothing is trained again.
    assert {"checkpoint-3", "checkpoint-9"} <= {path.name for path in checkpoints.iterdir()}
    resumed = train(clips, tmp_path / "killed", tiny_clip, **settings)
    assert same(weights(whole), weights(resumed))
    assert Artifact.load(resumed).training["best_step"] == 3
    assert not checkpoints.exists()


def test_checkpoints_of_another_run_are_refused(tiny_clip, tmp_path):
    checkpoints = tmp_path / "out.checkpoints"
    checkpoints.mkdir()
    (checkpoints / "run.json").write_text(json.dumps({"recipe": "another"}))
    with pytest.raises(DITSError, match=r"out\.checkpoints: holds checkpoints of a run with another recipe, enc"):
        train(Clips(20), tmp_path / "out", tiny_clip)


def test_a_folder_of_somebody_else_is_refused_before_the_work(tiny_clip, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    clips = Clips(20)
    with pytest.raises(ArtifactError, match="not empty"):
        train(clips, tmp_path / "out", tiny_clip)
    assert clips.reads == 0


def test_broken_videos_are_named_and_left_out(tiny_clip, tmp_path):
    clips = Clips(20)

    def read(video, frames, transform):
        if video in ("3", "7"):
            raise VideoError(video, "is truncated")
        return clips.read(video, frames, transform)

    with pytest.warns(UserWarning, match="without 2 of 20 videos, which cannot be decoded: 3: is trunc"):
        out = train(clips, tmp_path / "out", tiny_clip, epochs=1, read=read)
    assert sum(Artifact.load(out).training["pairs"].values()) == 18


def test_a_loss_that_is_no_number_is_said(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "contrastive_loss", lambda similarity, *_: similarity.sum() * torch.nan)
    with pytest.raises(DITSError, match="the loss became nan before step 1; lower"):
        train(Clips(20), tmp_path / "out", tiny_clip)


def test_too_few_pairs(tiny_clip, tmp_path):
    with pytest.raises(InputError, match="7 training pairs are fewer than a batch of 8"):
        train(Clips(8), tmp_path / "out", tiny_clip)


def test_several_gpus_want_torchrun(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(InputError, match="torchrun --nproc-per-node 4"):
        train(Clips(20), tmp_path / "out", tiny_clip)


def test_bfloat16_and_plain_xpool(tiny_clip, tmp_path):
    """With T' = 0 there is no alignment network to train: X-Pool itself, the paper's baseline."""
    out = train(Clips(20), tmp_path / "out", tiny_clip, epochs=1, bf16=True, sampler__steps=0)
    assert Artifact.load(out).adapter.config.steps == 0


def test_presets():
    paper, xpool = JointRecipe.presets["paper"], JointRecipe.presets["xpool"]
    assert (paper.clip_learning_rate, xpool.clip_learning_rate) == (1e-5, 1e-6)
    for preset in (paper, xpool):
        assert (preset.learning_rate, preset.batch_size, preset.epochs, preset.seed) == (3e-5, 32, 5, 24)
        assert preset.sampler_config(512).noise_scale == 1.0
        assert preset.sampler_config(512).input == "raw"
        assert (preset.loss, preset.select) == ("xpool", "xpool")
    assert JointRecipe().select == "index"


def test_the_other_adapters_train_jointly_too(tiny_clip, tmp_path):
    clips = Clips(20)
    out = train(
        clips,
        tmp_path / "prior",
        tiny_clip,
        epochs=1,
        adapter="fixed-prior",
        options__variance=0.5,
        validation=0.2,
    )
    assert Artifact.load(out).adapter.config.variance == 0.5


def scripted(monkeypatch, *measured):
    """Give a training these reciprocal ranks, (index, X-Pool): before it, at each checkpoint, at the end."""
    values = iter(measured)

    def retrieval(self):
        index, xpool = next(values)
        self.cosines = np.eye(len(self.validation.texts))
        return {"index_mrr": index, "xpool_mrr": xpool, "index_r1": 1.0, "xpool_r1": 2.0}

    monkeypatch.setattr(joint.JointTrainer, "retrieval", retrieval)


@pytest.mark.parametrize(("select", "best"), [("index", 1), ("xpool", 2)])
def test_the_checkpoint_is_chosen_by_what_the_user_will_run(select, best, tiny_clip, tmp_path, monkeypatch):
    scripted(monkeypatch, (0.1, 0.1), (0.5, 0.2), (0.3, 0.4), (0.6, 0.6))
    out = train(Clips(20), tmp_path / "out", tiny_clip, epochs=1, checkpoint_steps=1, select=select)
    assert Artifact.load(out).training["best_step"] == best


def test_either_way_to_search_that_is_no_better_is_named(tiny_clip, tmp_path, monkeypatch):
    scripted(monkeypatch, (0.1, 0.5), (0.2, 0.4), (0.2, 0.4))
    said = r"by X-Pool's scores of all videos, the kept checkpoint \(chosen by what an index finds\) is no better"
    with pytest.warns(UserWarning, match=said):
        train(Clips(20), tmp_path / "out", tiny_clip, epochs=1)


def test_training_for_an_index_keeps_no_head(tiny_clip, tmp_path):
    out = train(Clips(20), tmp_path / "out", tiny_clip, epochs=1, loss="index")
    artifact = Artifact.load(out)
    assert artifact.xpool is None
    assert "index_r1" in artifact.metrics["validation"]
    assert "xpool_r1" not in artifact.metrics["validation"]
    with pytest.raises(InputError, match="loss index trains no X-Pool head that select xpool could choose by"):
        train(Clips(20), tmp_path / "other", tiny_clip, loss="index", select="xpool")


def test_an_adapter_is_pre_trained_on_the_vectors_of_the_untrained_clip(tiny_clip, tmp_path, monkeypatch):
    clips, calls = Clips(20), []

    def initialize(adapter, pairs, validation, config, *, device, progress):
        calls.append((pairs, validation, config.epochs))
        torch.nn.init.constant_(adapter.network.final_layer.linear.weight, 0.5)

    monkeypatch.setattr(joint, "initialize", initialize)
    still = {"learning_rate": 1e-12, "clip_learning_rate": 0, "weight_decay": 0}
    settings = {"adapter": "diffusion", "options__depth": 1, "pretraining__epochs": 7, **still}
    out = train(clips, tmp_path / "out", tiny_clip, epochs=1, validation=0.2, **settings)
    weight = Artifact.load(out).adapter.network.final_layer.linear.weight.detach()
    assert float(weight.mean()) == pytest.approx(0.5, abs=1e-5)
    ((pairs, validation, epochs),) = calls
    assert epochs == 7
    clip, (kept, held_out) = load_encoder(tiny_clip), clips.captions.split(0.2, JointRecipe().seed)
    for split, captions in ((pairs, kept), (validation, held_out)):
        np.testing.assert_allclose(split.text, clip.embed_texts(captions.texts), atol=1e-5)
        frames = [embed_images(clip, list(clips.frames[int(video)][:2])) for video in captions.videos]
        np.testing.assert_allclose(split.video, mean_pool(np.stack(frames)), atol=1e-5)
        np.testing.assert_array_equal(split.labels, captions.labels)


@pytest.mark.parametrize("settings", [{"sampler__condition": "video"}, {"adapter": "dits-of-videos"}])
def test_adapters_that_see_the_pooled_video_train_too(settings, tiny_clip, tmp_path):
    artifact = Artifact.load(train(Clips(20), tmp_path / "out", tiny_clip, epochs=1, sampler__steps=1, **settings))
    assert artifact.adapter.needs_video
    assert artifact.calibration is None
    assert artifact.adapter.sampler.network.final_layer.linear.weight.abs().max() > 1e-6
    with pytest.raises(InputError, match="loss both: an adapter that sees the video searches no index"):
        train(Clips(20), tmp_path / "other", tiny_clip, loss="both", **settings)


def test_an_adapter_that_is_for_frozen_mode(tiny_clip, tmp_path):
    with pytest.raises(InputError, match="is for frozen mode"):
        train(Clips(20), tmp_path / "out", tiny_clip, adapter="diffusion-pretrained")


def test_an_encoder_that_is_no_clip(tmp_path, monkeypatch):
    options = {}
    monkeypatch.setattr(
        module, "load_encoder", lambda *_, **given: options.update(given) or SimpleNamespace(name="some-siglip")
    )
    with pytest.raises(InputError, match=r"some-siglip cannot be trained jointly: .* clip, metaclip_2"):
        train(Clips(20), tmp_path / "out", "some-siglip", text_cleaning="clip")
    assert options["text_cleaning"] == "clip"
