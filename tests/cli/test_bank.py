"""`dits-adapter bank` from a file of queries to a search, and the files that it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.clips.captions import video_captions
from benchmarks.clips.scenes import scenes
from dits_adapter import Artifact, DITSQueryEncoder, EmbeddingSpace, fit_query_bank, load_encoder
from dits_adapter._files import sha256
from dits_adapter.cli import main

TEXTS = [text for scene in scenes("train")[:12] for text in video_captions(scene)[:2]]


@pytest.fixture
def queries(tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text("\n".join(["", *TEXTS, f"  {TEXTS[0]} ", "", *TEXTS[:5]]) + "\r\n", "utf-8-sig")
    return path


@pytest.fixture
def no_encoder(monkeypatch):
    """Fail where an encoder or adapter is loaded."""

    def load(*args, **kwargs):
        raise AssertionError("was loaded")

    monkeypatch.setattr(DITSQueryEncoder, "from_pretrained", load)


def test_from_a_file_of_queries_to_queries(queries, tmp_path, capsys, recwarn):
    assert main(["bank", str(queries), "--adapter", "demo-clip", "--out", str(tmp_path / "bank")]) == 0
    assert f"a bank of {len(TEXTS)} of {len(TEXTS)} queries" in capsys.readouterr().out
    assert not [w for w in recwarn if "without an adapter" in str(w.message)]
    artifact = Artifact.load(tmp_path / "bank")
    assert artifact.adapter.kind == "query-bank"
    assert artifact.space == EmbeddingSpace.of(load_encoder("demo-clip"), frames=None)
    assert artifact.calibration is None
    assert artifact.training["sha256"] == sha256(queries)
    assert artifact.training["queries"] == artifact.training["bank"] == len(TEXTS)
    encoder = DITSQueryEncoder.from_pretrained(tmp_path / "bank")
    expected = fit_query_bank(encoder.embed(TEXTS)).adapt(encoder.embed("a red circle")[None])[0]
    np.testing.assert_allclose(encoder.encode_query("a red circle"), expected, atol=1e-5)
    halfway = DITSQueryEncoder.from_pretrained(tmp_path / "bank", strength=0.5).encode_query("a red circle")
    assert 1 > halfway @ expected > encoder.encode_document("a red circle") @ expected


def test_behind_a_trained_adapter(queries, tmp_path):
    options = ["--adapter", "demo-linear", "--size", "15", "--weight", "0.25"]
    assert main(["bank", str(queries), *options, "--out", str(tmp_path / "bank")]) == 0
    artifact, inner = Artifact.load(tmp_path / "bank"), Artifact.load("demo-linear")
    assert artifact.adapter.config.inner.kind == inner.adapter.kind
    assert (artifact.adapter.config.size, artifact.adapter.config.weight) == (15, 0.25)
    assert artifact.training["inner"] == inner.training
    assert artifact.metrics == {}
    assert artifact.calibration is None


def test_from_vectors(tmp_path):
    vectors = DITSQueryEncoder.from_pretrained("demo-linear").embed(TEXTS)
    np.save(tmp_path / "texts.npy", vectors)
    command = ["bank", str(tmp_path / "texts.npy"), "--adapter", "demo-linear", "--out", str(tmp_path / "bank")]
    assert main(command) == 0
    expected = fit_query_bank(vectors, inner=Artifact.load("demo-linear").adapter)
    assert np.array_equal(Artifact.load(tmp_path / "bank").adapter.adapt(vectors), expected.adapt(vectors))


@pytest.mark.usefixtures("no_encoder")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds 0 distinct queries; a bank needs at least 10"),
        (b"\n\n  \n", "holds 0 distinct queries"),
        (b"a dog\n", "holds 1 distinct query"),
        (b"a dog\n  a dog\n" * 50, "holds 1 distinct query"),
        ("\n".join([*TEXTS, "clips/a.mp4"]).encode(), "is the name of a video file ('clips/a.mp4')"),
        ("\n".join([*TEXTS, "été"]).encode("latin-1"), f"line {len(TEXTS) + 1}: its byte 1 (0xe9) is no UTF-8"),
        (b'{"video": "a.mp4", "text": "a dog"}\n' * 20, "line 1: is a JSON object; plain text is expected"),
        (None, "cannot be read"),
    ],
)
def test_texts_that_make_no_bank_are_refused_before_a_model_is_loaded(content, message, tmp_path, capsys):
    path = tmp_path / "queries.txt"
    if content is not None:
        path.write_bytes(content)
    assert main(["bank", str(path), "--adapter", "demo-clip", "--out", str(tmp_path / "bank")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bank").exists()


@pytest.mark.usefixtures("no_encoder")
def test_a_file_of_pairs_makes_no_bank(tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"video": "a.mp4", "text": "a dog"}\n' * 20)
    assert main(["bank", str(path), "--adapter", "demo-clip", "--out", str(tmp_path / "bank")]) == 1
    assert f"Learn from pairs: dits-adapter embed {path} --encoder ID" in capsys.readouterr().err


def spoiled(row):
    vectors = np.random.default_rng(0).normal(size=(30, 128)).astype(np.float32)
    vectors[7] = row
    return vectors


@pytest.mark.usefixtures("no_encoder")
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (spoiled(np.nan), "texts.npy: row 7 holds NaN"),
        (spoiled(0), "texts.npy: row 7 is the zero vector"),
        (np.zeros(128), "holds no array (n, d)"),
        (np.ones((30, 128), int), "expected floating-point vectors"),
        (spoiled(1)[:3], "holds 3 distinct queries"),
        (np.array([{"pickled": "object"}]), "is no .npy array of numbers"),
        (b"not numpy at all", "is no .npy array of numbers"),
    ],
)
def test_vectors_that_make_no_bank_are_refused_before_a_model_is_loaded(vectors, message, tmp_path, capsys):
    path = tmp_path / "texts.npy"
    if isinstance(vectors, bytes):
        path.write_bytes(vectors)
    else:
        np.save(path, vectors, allow_pickle=True)
    assert main(["bank", str(path), "--adapter", "demo-clip", "--out", str(tmp_path / "bank")]) == 1
    assert message in capsys.readouterr().err


def test_vectors_of_another_width(tmp_path, capsys):
    np.save(tmp_path / "texts.npy", spoiled(1)[:, :64])
    command = ["bank", str(tmp_path / "texts.npy"), "--adapter", "demo-linear", "--out", str(tmp_path / "bank")]
    assert main(command) == 1
    assert "holds vectors of width 64; demo-linear has 128" in capsys.readouterr().err


@pytest.mark.usefixtures("no_encoder")
@pytest.mark.parametrize(
    ("options", "message"),
    [(["--size", "3"], "size is 3"), (["--weight", "1"], "weight is 1.0"), (["--weight", "nan"], "weight is nan")],
)
def test_options_out_of_range(options, message, queries, tmp_path, capsys):
    assert main(["bank", str(queries), "--adapter", "demo-clip", "--out", str(tmp_path / "bank"), *options]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_encoder")
def test_a_folder_of_something_else_is_left_alone(queries, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    assert main(["bank", str(queries), "--adapter", "demo-clip", "--out", str(tmp_path / "mine")]) == 1
    assert "holds no adapter" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_a_comparison_is_told_where_banks_come_from(tmp_path):
    from dits_adapter.adapters import Matches, adapter_entry
    from dits_adapter.errors import InputError

    with pytest.raises(InputError, match="dits-adapter bank QUERIES"):
        adapter_entry("query-bank").closed_form(Matches(np.eye(3), np.eye(3)))
