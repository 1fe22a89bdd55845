"""Cheap checks come before expensive work: what can be refused at once is refused before a model is loaded."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import numpy as np
import pytest

from dits_adapter.cli import main

EXPENSIVE = (
    "dits_adapter.encoders.base.EncoderSource.load",
    "dits_adapter.encoder.DITSQueryEncoder.from_pretrained",
    "dits_adapter.artifact.artifact.Artifact.load",
    "dits_adapter.stores.open.open_store",
)
"""Functions that load a model or open a store."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with files to read and a folder `foreign` that is no place to write to."""
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.eye(4, dtype=np.float32))
    (tmp_path / "clip.mp4").touch()
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"video": "clip.mp4", "text": "a dog"}))
    (tmp_path / "queries.txt").write_text("a dog\n")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("embed pairs.jsonl --encoder demo-clip --out foreign", "foreign: holds no cache but thesis.txt."),
        (
            "embed pairs.jsonl --encoder demo-clip --out foreign --store s",
            "foreign: holds no cache but thesis.txt.",
        ),
        ("embed pairs.jsonl --encoder demo-clip --out v.npy", "v.npy: cannot be written"),
        ("import v.npy v.npy --encoder demo-clip --out foreign", "foreign: holds no cache but thesis.txt."),
        (
            "import v.npy --encoder demo-clip --out foreign --store s --trust-foreign",
            "foreign: holds no cache but",
        ),
        ("ingest nowhere --store s", "nowhere: no such file or folder."),
        ("ingest clip.mp4 nowhere --store s", "nowhere: no such file or folder."),
        ("rebuild nowhere --store http://127.0.0.1:1", "nowhere: no such file or folder."),
        ("search dog --limit 0", "limit is 0,"),
        ("search dog --offset -1", "offset is -1;"),
        ("search dog --per-video 0", "per_video is 0"),
        ("search dog --bias 2", "2"),
        ("search dog --rerank xpool --candidates 1", "candidates is 1;"),
        ("search dog --rerank maxsim --lanes said", "--rerank: orders by what is seen alone;"),
        ("search dog --rerank maxsim --min-probability 0.5", "leave out --rerank."),
        ("search dog --lanes said --min-probability 0.5", "leave out --lanes."),
        ("search dog --plain --min-probability 0.5", "leave out --plain."),
        ("search --vectors v.npy --limit 0", "limit is 0,"),
        ("recall queries.txt --limit 0", "limit is 0;"),
        ("gap queries.txt demo-dits --noise nan", "noise nan: expected a factor"),
        ("gap nowhere demo-dits --out v.npy", "v.npy: cannot be written"),
        ("bank queries.txt --adapter demo-clip --out foreign", "foreign: is not empty and holds no adapter."),
        ("export demo-dits --out foreign", "foreign: is not empty and holds no adapter."),
        ("train nowhere --out foreign", "foreign: is not empty and holds no adapter."),
        ("distill nowhere demo-dits --out foreign", "foreign: is not empty and holds no adapter."),
        ("calibrate nowhere demo-dits --out foreign", "foreign: is not empty and holds no adapter."),
    ],
)
def test_what_is_refused_loads_nothing(folder, monkeypatch, capsys, line, sentence):
    def load(*_, **__):
        pytest.fail("a model is loaded, or a store opened, before the command is refused")

    for name in EXPENSIVE:
        monkeypatch.setattr(name, load)
    before = sorted(folder.rglob("*"))
    assert main(line.split()) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(folder.rglob("*")) == before


def test_other_pairs_than_those_of_a_cache_load_nothing(folder, monkeypatch, capsys):
    from dits_adapter.data.cache_writer import CacheWriter
    from dits_adapter.space import EmbeddingSpace

    writer = CacheWriter(
        "cache", space=EmbeddingSpace.declare("a/b@1", 4), source="0" * 64, texts=1, videos=1, frames=0, id_bytes=1
    )
    with writer:
        pass
    monkeypatch.setattr(EXPENSIVE[0], lambda *_: pytest.fail("a model is loaded"))
    assert main(["embed", "pairs.jsonl", "--encoder", "demo-clip", "--out", "cache"]) == 1
    assert "cache: was begun from other pairs or vectors than these." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train nowhere --out out", "nowhere: no such file or folder. `dits-adapter embed` writes a cache"),
        ("train queries.txt --test nowhere --out out", "nowhere: no such file or folder."),
        ("train nowhere --out foreign", "foreign: is not empty and holds no adapter."),
        ("compare foreign", "foreign: holds no index.json"),
        ("compare nowhere --out v.npy", "v.npy: cannot be written"),
        ("distill nowhere demo-dits --out out", "nowhere: no such file or folder."),
        ("distill queries.txt demo-dits --test nowhere --out out", "nowhere: no such file or folder."),
        ("distill queries.txt gone --out out", "gone: no such folder."),
        ("calibrate nowhere demo-dits --out out", "nowhere: no such file or folder."),
        ("gap nowhere demo-dits", "nowhere: no such file or folder."),
        ("gap queries.txt demo-dits --against queries.txt gone", "gone: no such folder."),
    ],
)
def test_training_and_its_measurements_are_refused_before_their_imports(
    folder, monkeypatch, capsys, line, sentence
):
    for module in ("pairs", "_named"):  # both import torch, which is here already
        monkeypatch.setitem(sys.modules, f"dits_adapter.data.{module}", None)
    for module in ("config", "run", "distill", "compare"):
        monkeypatch.setitem(sys.modules, f"dits_adapter.training.{module}", None)
    assert main(line.split()) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("train-joint nowhere --encoder demo-clip --out out", "nowhere: cannot be read"),
        ("train-joint queries.txt --encoder demo-clip --out out", "queries.txt"),
        ("train-joint pairs.jsonl --encoder demo-clip --out out --validation nowhere", "nowhere: cannot be read"),
        ("train-joint pairs.jsonl --encoder nowhere --out out", "nowhere: no such folder. Give a folder"),
        (
            "train-joint pairs.jsonl --encoder demo-clip --out foreign",
            "foreign: is not empty and holds no adapter.",
        ),
    ],
)
def test_joint_training_is_refused_before_its_imports(folder, monkeypatch, capsys, line, sentence):
    for module in ("torch.distributed", "dits_adapter.training.config", "dits_adapter.training.joint.train"):
        monkeypatch.setitem(sys.modules, module, None)
    assert main(line.split()) == 1
    assert sentence in capsys.readouterr().err


def test_the_inputs_of_joint_training_are_opened_without_torch(folder):
    script = (
        "import sys; from dits_adapter.cli import main; "
        "code = main('train-joint pairs.jsonl --encoder nowhere --out out'.split()); "
        "sys.exit(5 if {'torch', 'transformers'} & sys.modules.keys() else code)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr


@pytest.mark.parametrize("buffering", [0, 8192])
@pytest.mark.parametrize("line", ["--help", "search --help", "evaluate --similarity v.npy --json"])
def test_output_that_cannot_be_written_in_a_stream_of_any_buffer(folder, monkeypatch, capsys, line, buffering):
    with (
        open("/dev/full", "wb", buffering=buffering) as raw,
        io.TextIOWrapper(raw, encoding="utf-8", write_through=not buffering) as stream,
    ):
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(line.split()) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == "dits-adapter: the output cannot be written: the disk is full.\n"


def test_a_report_that_is_larger_than_the_buffer(monkeypatch, capsys):
    from dits_adapter.cli._entry import guard, show

    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert guard("name", lambda: show("x" * 100_000) or 0) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == "name: the output cannot be written: the disk is full.\n"
