"""An adapter that is defined here alone, through everything that ours pass through."""

from __future__ import annotations

import copy
import shutil
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import nn

from dits_adapter import DITSQueryEncoder, EmbeddingSpace
from dits_adapter.adapters import (
    Adapter,
    AdapterEntry,
    adapter_entry,
    fresh_adapter,
    register_adapter,
    register_entry,
    registry,
)
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends import _onnx_export
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.evaluation.comparison import Comparison
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.training._loop import evaluate
from dits_adapter.training.compare import compare
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.distill import distill
from dits_adapter.training.run import fit, train_artifact

pytestmark = pytest.mark.filterwarnings("ignore:the .* test videos fix R@1")
QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=1e-3)
TEXTS = ["a red circle rises", "a green square falls"]


class GateConfig(BaseModel):
    """Definition of `GateAdapter`."""

    width: int
    hidden: int = Field(default=8, ge=1)


class GateAdapter(Adapter):
    """The unit text plus a gated correction, zero at first."""

    kind: ClassVar[str] = "gate"
    Config: ClassVar[type[BaseModel]] = GateConfig
    config: GateConfig

    def __init__(self, config: GateConfig) -> None:
        super().__init__()
        self.config = config
        self.inner = nn.Linear(config.width, config.hidden)
        self.outer = nn.Linear(config.hidden, config.width)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        x = F.normalize(text, dim=1)
        return x + self.outer(F.gelu(self.inner(F.layer_norm(x, x.shape[-1:])), approximate="tanh"))


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    register_adapter(GateAdapter)


@pytest.fixture(scope="module")
def space():
    return EmbeddingSpace.of(load_encoder("demo-clip"))


@pytest.fixture(scope="module")
def pairs(space):
    """Texts of one's own beside videos that a shift keeps apart from them."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(400, space.video.width))
    text = video + 0.3 * rng.normal(size=video.shape) + 1
    unit = video / np.linalg.norm(video, axis=1, keepdims=True)
    return Pairs(text.astype(np.float32), unit.astype(np.float32), np.arange(400), space)


@pytest.fixture(scope="module")
def shifted(pairs):
    """The same, so far apart that plain cosine finds little."""
    return Pairs(pairs.text + 12, pairs.video, pairs.labels, pairs.space)


@pytest.fixture(scope="module")
def cache(pairs, tmp_path_factory):
    file = tmp_path_factory.mktemp("own") / "pairs.safetensors"
    pairs.save(file)
    return file


@pytest.fixture
def trained(pairs, tmp_path):
    recipe = Recipe(adapter="gate", options={"hidden": 16}, training=QUICK)
    return train_artifact(pairs, recipe, tmp_path / "gate", dataset="made up", progress=False)


def test_it_trains_and_comes_back_from_disk_as_it_was(trained, pairs):
    assert [epoch.number for epoch in trained.history] == [0, 1, 2]
    assert trained.history[2].loss < trained.history[1].loss
    loaded = Artifact.load(trained.written).adapter
    assert isinstance(loaded, GateAdapter)
    assert loaded.config.hidden == 16
    assert np.array_equal(loaded.adapt(pairs.text), trained.artifact.adapter.adapt(pairs.text))


def test_the_command_trains_it(cache, tmp_path):
    settings = ["adapter=gate", "options.hidden=4", "training.epochs=1", "training.batch_size=64"]
    sets = [word for setting in settings for word in ("--set", setting)]
    assert main(["train", str(cache), "--out", str(tmp_path / "a"), *sets]) == 0
    assert Artifact.load(tmp_path / "a").adapter.config == GateConfig(width=128, hidden=4)


def test_its_options_are_checked_by_its_config(cache, tmp_path, capsys):
    sets = ["--set", "adapter=gate", "--set", "options.hidden=0"]
    assert main(["train", str(cache), "--out", str(tmp_path / "a"), *sets]) == 1
    error = capsys.readouterr().err
    assert "options of gate" in error
    assert "hidden" in error
    with pytest.raises(InputError, match="width cannot be chosen"):
        Recipe(adapter="gate", options={"width": 3}).build_adapter(128)


def test_a_misspelt_option_is_refused_though_its_config_would_pass_over_it():
    with pytest.raises(InputError, match="options of gate: there is no 'hiden'; there are hidden"):
        fresh_adapter("gate", 8, {"hiden": 4})
    assert fresh_adapter("gate", 8, {"hidden": 4}).config.hidden == 4


def test_a_comparison_has_its_row_where_it_is_asked_for(pairs, cache, tmp_path, capsys):
    rest, test = pairs.split(0.2, 0)
    kept, validation = rest.split(0.2, 0)
    rows = {"identity": Recipe(adapter="identity"), "mine": Recipe(adapter="gate", training=QUICK)}
    table = compare(kept, validation, test, rows=rows, out=tmp_path / "api", progress=False)
    assert table["mine"].family == "network"
    assert table["mine"].weights == sum(p.numel() for p in GateAdapter(GateConfig(width=128)).parameters())
    out = tmp_path / "cli"
    only = ["--rows", "gate", "--epochs", "1", "--out", str(out)]
    assert main(["compare", str(cache), *only]) == 0
    assert [row.name for row in Comparison.from_json((out / "comparison.json").read_bytes()).rows] == [
        "identity",
        "gate",
    ]
    assert "| gate " in capsys.readouterr().out


def test_it_searches_with_demo_clip_in_torch_and_onnx(trained, pairs, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason='needs pip install "dits-adapter[export]"')
    encoder = DITSQueryEncoder.from_pretrained(trained.written, backend="torch", device="cpu")
    queries = encoder.encode_query(TEXTS)
    text = encoder.encode_document(TEXTS)
    np.testing.assert_allclose(queries, trained.artifact.adapter.adapt(text), atol=1e-5)
    exported = encoder.export_onnx(tmp_path / "float32")
    onnx = DITSQueryEncoder.from_pretrained(exported, backend="onnx")
    np.testing.assert_allclose(onnx.encode_query(TEXTS), queries, atol=1e-4)
    held = pairs.of_videos(np.arange(120))

    def same_tower(encoder, files):
        for file in (exported / "onnx").glob("t*"):
            shutil.copy(file, files)

    monkeypatch.setattr(_onnx_export, "export_tower", same_tower)
    smaller = DITSQueryEncoder.from_pretrained(encoder.export_onnx(tmp_path / "int8", int8=held), backend="onnx")
    assert np.sum(smaller.encode_query(TEXTS) * queries, axis=1).min() > 0.99


def test_it_is_refused_by_name_where_it_cannot(trained, pairs, tmp_path):
    with pytest.raises(InputError, match="kind gate has none"):
        DITSQueryEncoder.from_pretrained(trained.written, steps=2)
    encoder = DITSQueryEncoder.from_pretrained(trained.written, backend="torch", device="cpu")
    with pytest.raises(InputError, match="kind gate has no trajectory"):
        encoder.adapt(pairs.text[:2], return_trajectory=True)
    with pytest.raises(InputError, match="kind gate has no steps to save"):
        distill(trained.artifact, pairs, tmp_path / "student", dataset="made up")


def test_capabilities_are_asked_of_the_class(pairs, space, tmp_path, monkeypatch):
    monkeypatch.setattr(GateAdapter, "exportable", False)
    monkeypatch.setattr(GateAdapter, "needs_norm", True)
    recipe = Recipe(adapter="gate", training=QUICK)
    folder = Artifact(recipe.build_adapter(128).eval(), space).save(tmp_path / "gate")
    encoder = DITSQueryEncoder.from_pretrained(folder, backend="torch", device="cpu")
    with pytest.raises(InputError, match="kind gate serves for comparisons and is not exported"):
        encoder.export_onnx(tmp_path / "onnx")
    flat = Pairs(pairs.text / np.linalg.norm(pairs.text, axis=1, keepdims=True), pairs.video, pairs.labels, space)
    with pytest.raises(InputError, match="the texts have unit norm"):
        train_artifact(flat, recipe, tmp_path / "a", dataset="made up")


def test_it_begins_where_it_says(shifted, monkeypatch):
    begun = []

    def begin(self, initializer):
        self.outer.bias.data.copy_(initializer.closed_form().bias)
        begun.append(copy.deepcopy(self))

    monkeypatch.setattr(GateAdapter, "initialize", begin)
    kept, validation = shifted.split(0.2, 0)
    _, history = fit(Recipe(adapter="gate", training=QUICK), kept, validation, progress=False)
    assert begun[0].outer.bias.abs().max() > 0
    assert history[0].validation == RetrievalMetrics.from_ranks(evaluate(begun[0], validation))


def test_a_closed_form_of_ones_own_takes_part_by_its_name(shifted):
    def half_and_whole(pairs):
        text, video = pairs.text[:], pairs.video[:]
        candidates = []
        for strength in (0.0, 1.0):
            adapter = GateAdapter(GateConfig(width=text.shape[1]))
            unit = text / np.linalg.norm(text, axis=1, keepdims=True)
            adapter.outer.bias.data = torch.tensor(strength * (video - unit).mean(0), dtype=torch.float32)
            candidates.append(adapter.eval())
        return candidates

    register_entry(AdapterEntry("gate-shift", GateAdapter, closed_form=half_and_whole, compared=True))
    kept, validation = shifted.split(0.2, 0)
    adapter, history = fit(Recipe(adapter="gate-shift"), kept, validation)
    assert history == []
    assert adapter.outer.bias.abs().max() > 0  # the validation pairs chose the whole shift
    with pytest.raises(InputError, match=r"'gate-shift' is fitted in closed form; trained are .*gate"):
        Recipe(adapter="gate-shift").build_adapter(128)


def test_an_installed_package_brings_adapters_by_its_entry_points(tmp_path, monkeypatch):
    (tmp_path / "own_adapters.py").write_text(
        "from dits_adapter.adapters import AdapterEntry, LowRankAdapter, register_entry\n"
        'register_entry(AdapterEntry("rank-4", LowRankAdapter, {"rank": 4}))\n'
    )
    info = tmp_path / "own_adapters-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-adapters\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dits_adapter.adapters]\nown = own_adapters\n")
    with pytest.raises(InputError, match=r"'rank-4' is unknown; registered are .*ridge.*gate"):
        Recipe(adapter="rank-4").build_adapter(16)
    registry._load_installed.cache_clear()
    monkeypatch.syspath_prepend(str(tmp_path))
    adapter = Recipe(adapter="rank-4").build_adapter(16)
    assert adapter.config.rank == 4
    with pytest.raises(InputError, match="rank cannot be chosen"):
        Recipe(adapter="rank-4", options={"rank": 5}).build_adapter(16)
    registry._load_installed.cache_clear()
    sys.modules.pop("own_adapters")


def test_a_name_or_kind_that_is_taken_is_refused():
    class Other(GateAdapter):
        kind: ClassVar[str] = "ridge"

    with pytest.raises(InputError, match="has the name or kind of AffineAdapter"):
        register_adapter(Other)
    Other.kind = "gate"
    with pytest.raises(InputError, match="has the name or kind of GateAdapter"):
        register_entry(AdapterEntry("another-gate", Other))
    register_adapter(GateAdapter)  # as a notebook cell that runs again
    assert adapter_entry("gate").adapter is GateAdapter


def test_an_artifact_of_an_adapter_that_is_not_registered_is_refused(trained, monkeypatch):
    monkeypatch.delitem(registry._entries, "gate")
    with pytest.raises(ArtifactError, match="adapter 'gate' is unknown; registered are"):
        Artifact.load(trained.written)
