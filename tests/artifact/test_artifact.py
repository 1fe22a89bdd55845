"""Save and load: bit for bit, all or nothing, and each kind of damage refused with its own sentence."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dits_adapter._files import sha256
from dits_adapter.adapters import DITSAdapter, MLPAdapter, MLPConfig, mean_shift
from dits_adapter.artifact._config import ArtifactConfig
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace


@pytest.fixture(scope="module")
def space(tiny_clip):
    return EmbeddingSpace.of(load_encoder(tiny_clip))


def random_adapter(width: int = 32) -> DITSAdapter:
    adapter = DITSAdapter(SamplerConfig(width=width, depth=1, steps=3))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return adapter.eval()


@pytest.fixture
def saved(space, tmp_path):
    return Artifact(random_adapter(), space, training={"dataset": "none"}, metrics={"r1": 1.0}).save(
        tmp_path / "adapter"
    )


def resign(folder):
    """Make checksums right again after a deliberate change, to reach the checks behind them."""
    config = json.loads((folder / "config.json").read_text())
    config["weights_sha256"] = sha256(folder / "adapter.safetensors")
    parsed = ArtifactConfig.model_validate(config)
    parsed.checksum = parsed.expected_checksum()
    (folder / "config.json").write_text(parsed.model_dump_json())


def change_config(folder, **fields):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def random_mlp_from_a_map():
    adapter = MLPAdapter(MLPConfig(width=32, depth=1, start="affine")).eval()
    with torch.no_grad():
        adapter.start.weight.normal_(generator=torch.Generator().manual_seed(0))
    return adapter


def test_an_mlp_of_before_there_was_a_start_is_read(space, tmp_path):
    folder = Artifact(MLPAdapter(MLPConfig(width=32, depth=1)), space).save(tmp_path / "saved")
    change_config(folder, config={"width": 32, "depth": 1, "mlp_ratio": 4.0})
    resign(folder)
    assert Artifact.load(folder).adapter.start is None


@pytest.mark.parametrize("kind", ["dits", "mlp", "mlp from a map", "affine"])
def test_same_vectors_bit_for_bit(kind, space, tmp_path):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(9, 32)).astype(np.float32)
    adapter = {
        "dits": random_adapter,
        "mlp": lambda: MLPAdapter(MLPConfig(width=32, depth=1)).eval(),
        "mlp from a map": random_mlp_from_a_map,
        "affine": lambda: mean_shift(vectors, rng.normal(size=(9, 32))),
    }[kind]()
    loaded = Artifact.load(Artifact(adapter, space).save(tmp_path / "saved"))
    assert loaded.space == space
    assert loaded.adapter.config == adapter.config
    assert np.array_equal(loaded.adapter.adapt(vectors), adapter.adapt(vectors))


def test_carries_training_and_metrics(saved):
    loaded = Artifact.load(saved)
    assert (loaded.training, loaded.metrics, loaded.kind) == ({"dataset": "none"}, {"r1": 1.0}, "frozen")
    card = (saved / "README.md").read_text()
    assert "library_name: dits_adapter" in card
    assert "dataset: none" in card


def test_saving_twice_replaces_and_leaves_no_scraps(saved, space):
    Artifact(random_adapter(), space, training={"dataset": "other"}).save(saved)
    assert Artifact.load(saved).training == {"dataset": "other"}
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]


def test_a_failed_save_keeps_what_was_there(saved, space, monkeypatch):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Artifact(random_adapter(), space).save(saved)
    monkeypatch.undo()
    assert Artifact.load(saved).training == {"dataset": "none"}
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]


def test_other_folders_are_not_overwritten(tmp_path, space):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ArtifactError, match="not empty"):
        Artifact(random_adapter(), space).save(tmp_path)


def test_a_place_that_may_not_be_written_is_refused_before_anything_is_made(tmp_path, space):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: cannot be written, .* Choose another place"):
        Artifact(random_adapter(), space).save(tmp_path / "file" / "adapter")


@pytest.mark.parametrize("name", ["adapter.safetensors", "config.json"])
def test_every_changed_byte_is_refused(saved, name):
    original = (saved / name).read_bytes()
    positions = np.random.default_rng(0).choice(len(original), 60, replace=False)
    for position in positions:
        changed = bytearray(original)
        changed[position] ^= 1
        (saved / name).write_bytes(changed)
        try:
            loaded = Artifact.load(saved)
        except ArtifactError as error:
            assert name in str(error) or "adapter" in str(error)  # noqa: PT017
        else:  # a byte outside the content, white space between JSON tokens for one
            (saved / name).write_bytes(original)
            reference = Artifact.load(saved)
            assert loaded.space == reference.space
            assert loaded.adapter.config == reference.adapter.config
            assert name == "config.json"
            assert json.loads(bytes(changed)) == json.loads(original)


def test_truncated_weights(saved):
    weights = saved / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="no intact safetensors file"):
        Artifact.load(saved)


def test_pickle(saved):
    (saved / "adapter.safetensors").rename(saved / "adapter.bin")
    with pytest.raises(ArtifactError, match=r"adapter\.bin is pickled"):
        Artifact.load(saved)


def test_missing_tensor(saved):
    weights = load_file(saved / "adapter.safetensors")
    del weights["sampler.network.x_embedder.bias"]
    save_file(weights, saved / "adapter.safetensors")
    resign(saved)
    with pytest.raises(
        ArtifactError, match=r"1 tensors are missing, the first is sampler\.network\.x_embedder\.bias"
    ):
        Artifact.load(saved)


def test_extra_tensor(saved):
    weights = load_file(saved / "adapter.safetensors")
    save_file({**weights, "stowaway": torch.zeros(1)}, saved / "adapter.safetensors")
    resign(saved)
    with pytest.raises(ArtifactError, match="1 tensors are unknown, the first is stowaway"):
        Artifact.load(saved)


def test_wrong_shape(saved):
    weights = load_file(saved / "adapter.safetensors")
    weights["sampler.network.x_embedder.bias"] = torch.zeros(31)
    save_file(weights, saved / "adapter.safetensors")
    resign(saved)
    with pytest.raises(ArtifactError, match=r"has shape \(31,\), the config says \(32,\)"):
        Artifact.load(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format_version": 99}, r"format version 99.*pip install -U dits-adapter"),
        ({"format": "something"}, "not the config of an adapter"),
        ({"surprise": 1}, "surprise"),
        ({"metrics": {"r1": 100.0}}, "was changed or damaged"),
    ],
)
def test_bad_configs_each_have_their_sentence(saved, fields, message):
    change_config(saved, **fields)
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(saved)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"adapter": "oracle"}, "adapter 'oracle' is unknown; registered are .*dits"),
        ({"config": {"width": 32, "typo": 1}}, "config is invalid"),
        ({"config": {"width": 32, "depth": 400_000}}, "config is invalid"),
        ({"config": {"width": 32, "timesteps": 10**8}}, "config is invalid"),
        ({"config": {"width": 2**40}}, "config is invalid"),
        (
            {"config": {"width": 2**16, "depth": 256, "mlp_ratio": 64}},
            r"\d{4} tensors are missing, the first is sampler",
        ),
        (
            {"config": {"width": 2**15, "depth": 1, "steps": 3}},
            r"has shape \(32, 32\), the config says \(32768, ",
        ),
        ({"adapter": "mlp", "config": {"width": 32, "depth": 400_000}}, "config is invalid"),
        ({"adapter": "query-bank", "config": {"width": 32, "size": 10**12, "sharpness": 1}}, "config is invalid"),
        (
            {"adapter": "query-bank", "config": {"width": 2**16, "size": 2**22, "sharpness": 1}},
            "the first is bank",
        ),
    ],
)
def test_claims_are_checked_before_anything_is_built(saved, fields, message, monkeypatch):
    change_config(saved, **fields)
    with pytest.raises(ArtifactError, match="was changed or damaged"):
        Artifact.load(saved)
    resign(saved)
    monkeypatch.setattr("dits_adapter.artifact.artifact.load_weights", lambda *_: pytest.fail("was built"))
    with pytest.raises(ArtifactError, match=message):
        Artifact.load(saved)


@pytest.mark.parametrize("content", ['{"format": ' + "[" * 200_000, "\ufeff{", "{}" + "\0"])
def test_a_config_that_breaks_parsers_is_named(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Artifact.load(saved)


def test_a_config_that_an_editor_saved_with_a_mark_is_read(saved):
    content = (saved / "config.json").read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        (saved / "config.json").write_bytes(content.replace("\n", "\r\n").encode(encoding))
        assert Artifact.load(saved).kind == "frozen"


def test_an_adapter_that_cannot_be_described_without_memory_is_loaded(space, tmp_path, monkeypatch):
    folder = Artifact(MLPAdapter(MLPConfig(width=32, depth=1)), space).save(tmp_path / "saved")
    init = MLPAdapter.__init__

    def computing(self, config):
        init(self, config)
        assert np.isfinite(next(self.parameters()).detach().numpy()).all()  # which "meta" tensors have not

    monkeypatch.setattr(MLPAdapter, "__init__", computing)
    assert Artifact.load(folder).adapter.kind == "mlp"


def test_config_that_is_no_json(saved):
    (saved / "config.json").write_text("{")
    with pytest.raises(ArtifactError, match="is not JSON"):
        Artifact.load(saved)


def test_folder_without_an_adapter(tmp_path, tiny_clip):
    with pytest.raises(ArtifactError, match="not a saved adapter"):
        Artifact.load(tmp_path)
    with pytest.raises(ArtifactError, match="not a saved adapter"):
        Artifact.load(tiny_clip)


def test_width_that_is_not_its_space(space, tmp_path):
    folder = Artifact(random_adapter(16), space).save(tmp_path / "narrow")
    with pytest.raises(ArtifactError, match="from width 16 to 16, but its texts and videos have 32 and 32"):
        Artifact.load(folder)


def test_whoever_may_read_other_new_files_may_read_the_artifact(space, tmp_path):
    previous = os.umask(0o022)
    try:
        folder = Artifact(random_adapter(), space).save(tmp_path / "adapter")
    finally:
        os.umask(previous)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
