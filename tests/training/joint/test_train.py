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
from dits_adapter.training.joint import _model as module
from dits_adapter.training.joint import train as joint
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
    settings = {"batch_size": 32, "epochs": 60, "checkpoint_steps": 20, "clip_learning_rate": 3e-3, "dropout": 0}
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
    assert {"xpool_r1", "mean_r1"} <= artifact.metrics["validation"].keys()
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


def test_a_killed_run_goes_on_to_the_weights_of_a_whole_one(tiny_clip, tmp_path):
    settings = {"epochs": 3, "checkpoint_steps": 2, "sampler__noise_scale": 0.1, "validation": 0.2}
    clips = Clips(30)  # 24 to train on: 3 steps an epoch, checkpoints in the middle of epochs
    whole = train(clips, tmp_path / "whole", tiny_clip, **settings)
    total = clips.reads

    class Killed(Exception):
        pass

    def dies(video, frames, transform):
        if clips.reads == total * 2 // 3:
            raise Killed
        return clips.read(video, frames, transform)

    clips.reads = 0
    with pytest.raises(Killed):
        train(clips, tmp_path / "killed", tiny_clip, read=dies, **settings)
    checkpoints = tmp_path / "killed.checkpoints"
    last = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    assert last.name == "checkpoint-4"
    # A checkpoint that was being written when the process died is passed over.
    (checkpoints / "checkpoint-6").mkdir()
    (checkpoints / "checkpoint-6" / "trainer_state.json").write_text('{"global')
    resumed = train(clips, tmp_path / "killed", tiny_clip, **settings)
    assert same(weights(whole), weights(resumed))
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

    with pytest.warns(UserWarning, match="2 of 20 videos cannot be decoded and are left out: 3: is trunc"):
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


@pytest.mark.parametrize("settings", [{"adapter": "diffusion-pretrained"}, {"sampler__condition": "video"}])
def test_adapters_that_are_for_frozen_mode(settings, tiny_clip, tmp_path):
    with pytest.raises(InputError, match="is for frozen mode"):
        train(Clips(20), tmp_path / "out", tiny_clip, **settings)


def test_an_encoder_that_is_no_clip(tmp_path, monkeypatch):
    options = {}
    monkeypatch.setattr(
        joint, "load_encoder", lambda *_, **given: options.update(given) or SimpleNamespace(name="some-siglip")
    )
    with pytest.raises(InputError, match=r"some-siglip cannot be trained jointly: .* clip, metaclip_2"):
        train(Clips(20), tmp_path / "out", "some-siglip", text_cleaning="clip")
    assert options["text_cleaning"] == "clip"
