"""Joint training: several processes equal one, a killed run equals a whole one, and it learns."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, DITSError, InputError, SpaceMismatchError, VideoError
from dits_adapter.evaluation.metrics import ranks
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint import model as module
from dits_adapter.training.joint.clips import Captions
from dits_adapter.training.joint.model import JointModel
from dits_adapter.training.joint.train import train_joint
from dits_adapter.training.losses import contrastive_loss
from dits_adapter.xpool import XPool, XPoolScores
from tests.conftest import embed_images
from tests.video.clips import write_clip

WORDS = (
    "red",
    "green",
    "blue",
    "star",
    "ring",
    "dog",
    "cat",
    "meadow",
    "river",
    "sky",
    "runs",
    "jumps",
    "old",
    "big",
)
FAST = {
    "frames": "2",
    "batch_size": "8",
    "workers": "0",
    "sampler.depth": "1",
    "learning_rate": "1e-3",
    "clip_learning_rate": "1e-3",
}


def recipe(**settings):
    dotted = {name.replace("__", "."): str(value) for name, value in settings.items()}
    return JointRecipe.read("deterministic", settings={**FAST, **dotted})


class Clips:
    """Videos as arrays: each three frames of colored blocks, no two alike."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(0)
        blocks = rng.integers(0, 256, (count, 1, 4, 5, 3)) + rng.integers(-20, 20, (count, 3, 4, 5, 3))
        self.frames = np.kron(blocks.clip(0, 255), np.ones((1, 1, 8, 8, 1))).astype(np.uint8)
        sentences = [" ".join(rng.choice(WORDS, 5)) for _ in range(count)]
        self.captions = Captions.of((str(i), sentence) for i, sentence in enumerate(sentences))
        self.reads = 0

    def read(self, video, frames, transform):
        self.reads += 1
        return np.stack([transform(frame) for frame in self.frames[int(video)][:frames]])


def train(clips, out, tiny_clip, *, read=None, held_out=None, **settings):
    return train_joint(
        clips.captions,
        recipe(**settings),
        out,
        encoder=tiny_clip,
        dataset="blocks",
        validation=held_out,
        read=read or clips.read,
        progress=False,
    )


def weights(artifact):
    return {
        f"{path.relative_to(artifact)} {name}": tensor
        for path in sorted(artifact.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- One batch ----------------------------------------------------------------------------------------------


def small_model(clip) -> JointModel:
    torch.manual_seed(0)
    model = JointModel(clip.model, XPool(32), DITSAdapter(SamplerConfig(width=32, depth=1, steps=2, input="raw")))
    for parameter in [*model.xpool.parameters(), *model.adapter.parameters()]:
        torch.nn.init.normal_(parameter, std=0.1)
    return model.double().requires_grad_(True).eval()  # without dropout and noise


def small_batch(clip) -> dict[str, torch.Tensor]:
    """Eight pairs in double precision; videos 3 and 5 occur twice, in different halves and in one."""
    generator = torch.Generator().manual_seed(0)
    tokens = clip.tokenizer([" ".join(WORDS[i : i + 3]) for i in range(8)], padding=True, return_tensors="pt")
    pixels = torch.randn(8, 3, 3, 32, 32, generator=generator, dtype=torch.float64)
    return {**tokens, "pixels": pixels, "video": torch.tensor([0, 3, 1, 2, 3, 5, 4, 5])}


def half_a_batch(rank: int, folder, clip_folder) -> None:
    """What one of two processes does."""
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


@pytest.mark.slow
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
        text = clip.model.get_text_features(batch["input_ids"], batch["attention_mask"]).pooler_output
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


# --- Whole runs ---------------------------------------------------------------------------------------------


def found_first(clips, clip, adapter, head) -> float:
    """Share of the texts whose own clip, seen as a whole, is found first."""
    text = clip.embed_texts(clips.captions.texts)
    frames = torch.from_numpy(np.stack([embed_images(clip, list(video[:2])) for video in clips.frames]))
    scores = XPoolScores(head, adapter.adapt(text) if adapter else text, text, frames)
    return float((ranks(scores, clips.captions.labels) == 1).mean())


def test_it_learns_32_pairs_by_heart(tiny_clip, tmp_path):
    clips = Clips(32)
    settings = {"batch_size": 32, "epochs": 120, "checkpoint_steps": 40, "clip_learning_rate": 3e-3, "dropout": 0}
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
    assert artifact.space.encoder == "mine"
    assert artifact.space.frames == 2
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

    with pytest.warns(UserWarning, match="2 of 20 videos cannot be decoded and are left out:\n3: is trunc"):
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


# --- Files, processes and the command -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """PAIRS.jsonl of sixteen video files with two texts each, and one file that is no video."""
    folder, clips = tmp_path_factory.mktemp("films"), Clips(16)
    (folder / "broken.mp4").write_bytes(b"no video")
    lines = [{"video": "broken.mp4", "text": "a red dog"}]
    for i, frames in enumerate(clips.frames):
        write_clip(folder / f"{i}.mp4", [*frames, *frames])
        lines.append({"video": f"{i}.mp4", "text": [clips.captions.texts[i], f"{WORDS[i % 14]} {i}"]})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "pairs.jsonl"


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_with_the_weights_of_one(pairs, tiny_clip, tmp_path):
    settings = {"dropout": 0, "epochs": 4, "validation": 0.2}
    given = [f"--set={name}={value}" for name, value in {**FAST, **settings}.items()]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    module = ["dits_adapter.training.joint", str(pairs), "--encoder", str(tiny_clip), *given]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    said = tmp_path / "said"

    def start() -> subprocess.Popen:
        with said.open("wb") as file:
            arguments = [*torchrun, *module, "--out", str(tmp_path / "two")]
            return subprocess.Popen(arguments, env=environment, stdout=file, stderr=file, start_new_session=True)

    process = start()
    try:
        deadline = time.monotonic() + 120
        while not [*(tmp_path / "two.checkpoints").glob("checkpoint-*/trainer_state.json")]:
            assert process.poll() is None, said.read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        kill_all(process)
    assert not (tmp_path / "two").exists()
    process = start()
    try:
        assert process.wait(120) == 0, said.read_text()[-3000:]
    finally:
        kill_all(process)
    assert "1 of 17 videos cannot be decoded and are left out" in said.read_text()
    assert said.read_text().count("written to") == 1

    options = {"encoder": tiny_clip, "dataset": "films", "progress": False}
    with pytest.warns(UserWarning, match="1 of 17 videos"):
        train_joint(Captions.read(pairs), recipe(**settings), tmp_path / "one", **options)
    found, expected = weights(tmp_path / "two"), weights(tmp_path / "one")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


def kill_all(process: subprocess.Popen) -> None:
    """Kill a launcher, and what it started: its workers are sessions of their own."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    workers = children.read_text().split() if children.exists() else []
    for pid in [process.pid, *map(int, workers)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def test_an_index_of_the_original_space_is_refused_one_of_the_new_is_searched(pairs, tiny_clip, tmp_path):
    captions = Captions.read(pairs)
    films, original = pairs.parent / "0.mp4", VideoEncoder.from_pretrained(tiny_clip, frames=2)
    options = {"encoder": tiny_clip, "dataset": "films", "progress": False}
    with pytest.warns(UserWarning, match="1 of 17 videos"):
        out = train_joint(captions, recipe(epochs=2, workers=1), tmp_path / "mine", **options)
    queries = DITSQueryEncoder.from_pretrained(out)
    with QdrantStore(":memory:", "old") as store:
        store.ingest([films], original)
        with pytest.raises(SpaceMismatchError, match="the adapter belongs to the embedding space mine"):
            queries.check(store.client, "old")
    with QdrantStore(":memory:", "new", space=queries.space) as store:
        store.ingest([films], VideoEncoder.from_pretrained(out))
        queries.check(store.client, "new")
        assert store.search(queries.encode_query(captions.texts[0]))[0].path == str(films)


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
