"""Tasks as functions: what they return, what they leave alone, and the plain form of their reports."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from dits_adapter import (
    Artifact,
    DITSQueryEncoder,
    InputError,
    Pairs,
    TimedText,
    calibrate_artifact,
    compare_adapters,
    evaluate_scores,
    fit_query_bank,
    make_bank,
    mean_shift,
    measure_gap,
    read_queries,
    timed_texts,
)
from dits_adapter._reports import plain_report
from dits_adapter.evaluation.metrics import Difference
from tests.spaces import made_up_space

COLORS, SHAPES = ("red", "blue", "green", "white"), ("circle", "square", "box")
TEXTS = [f"a {color} {shape}" for color in COLORS for shape in SHAPES]


@pytest.fixture(scope="module")
def pairs():
    """Two texts of each of 40 videos, and a gap between the two."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(40, 32)).astype(np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    labels = np.repeat(np.arange(40), 2)
    text = (video[labels] + 0.1 * rng.normal(size=(80, 32)) + 0.5).astype(np.float32)
    return Pairs(text, video, labels, made_up_space(32))


@pytest.fixture(scope="module")
def shift(pairs):
    return Artifact(mean_shift(pairs.text, pairs.video[pairs.labels]), pairs.space)


def as_json(report):
    return json.loads(json.dumps(plain_report(report), allow_nan=False))


def test_a_plain_report_is_what_the_repr_shows():
    @dataclass
    class Report:
        gain: Difference
        loss: float
        folder: Path
        counts: np.ndarray
        model: object = field(repr=False)

    made = Report(Difference(1.0, -math.inf, math.nan), math.nan, Path("a/b"), np.arange(2), object())
    assert as_json(made) == {
        "gain": {"difference": 1.0, "low": None, "high": None},
        "loss": None,
        "folder": "a/b",
        "counts": [0, 1],
    }


def test_the_gap_without_pictures(pairs, shift, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = measure_gap(shift, pairs)
    assert report.statistics["adapted"].means_apart < 0.3 * report.statistics["plain CLIP"].means_apart
    assert "80 pairs" in str(report)
    assert as_json(report)["statistics"]["adapted"]["cosine"] == report.statistics["adapted"].cosine
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_measured_is_refused(pairs, shift, tmp_path):
    for options, message in (
        ({"most_videos": 1}, "1 video to measure on: it takes 2 or more"),
        ({"noise": 1.0}, "noise 1: expected a factor of at least 0, and an adapter of kind dits"),
    ):
        with pytest.raises(InputError, match=message):
            measure_gap(shift, pairs, tmp_path / "out", **options)
    with pytest.raises(InputError, match="pairs is a int; it is pairs, or the path of their cache"):
        compare_adapters(3)
    with pytest.raises(InputError, match="budget is 0; it is a number of seconds above 0"):
        compare_adapters(pairs, budget=0)
    with pytest.raises(InputError, match="seed is -1"):
        compare_adapters(pairs, seed=-1)


def test_texts_of_one_file_or_of_several(tmp_path):
    file, texts = tmp_path / "pairs.jsonl", '["a dog", "a cat"]'
    file.write_text(
        f'{{"video": "a.mp4", "start": 1, "end": 2, "text": {texts}}}\n{{"video": "b", "text": "x"}}\n'
    )
    expected = [TimedText("a.mp4", "a dog", 1.0, 2.0), TimedText("a.mp4", "a cat", 1.0, 2.0), TimedText("b", "x")]
    assert list(timed_texts(file)) == expected
    assert list(timed_texts([str(file), file])) == 2 * expected


def test_a_calibration_is_written_where_it_is_asked_for(pairs, shift, tmp_path):
    report = calibrate_artifact(shift, pairs)
    assert report.written is None
    assert shift.calibration is None
    assert report.artifact.calibration == report.fit.calibration
    again = calibrate_artifact(shift, pairs, tmp_path / "out")
    assert Artifact.load(tmp_path / "out").calibration == again.fit.calibration == report.fit.calibration
    assert as_json(report)["fit"]["calibration"]["queries"] == 80
    assert as_json(report)["biased"] is None


def test_a_calibration_with_queries_that_nothing_fits(pairs, shift):
    """Queries that look like noise are told from those that have a video better than made ones."""
    noise = np.random.default_rng(1).normal(size=(60, 32)).astype(np.float32)
    given = calibrate_artifact(shift, pairs, unanswerable=noise).fit.calibration.answer
    assert given.auroc > calibrate_artifact(shift, pairs).fit.calibration.answer.auroc
    for queries, message in (
        (noise[:, :8], "unanswerable: holds vectors of width 8; the adapter has 32"),
        (["a dog"], "holds texts, which an artifact cannot embed"),
        (noise[:0], "unanswerable: holds no queries"),
    ):
        with pytest.raises(InputError, match=message):
            calibrate_artifact(shift, pairs, unanswerable=queries)


def test_a_bank_of_texts_and_of_their_vectors(tmp_path):
    encoder = DITSQueryEncoder.from_pretrained("demo-linear", backend="torch")
    vectors = encoder.embed(TEXTS)
    of_texts, of_vectors = make_bank([*TEXTS, TEXTS[0]], encoder), make_bank(vectors, encoder.artifact)
    expected = fit_query_bank(vectors, inner=encoder.artifact.adapter).adapt(vectors)
    for report in (of_texts, of_vectors):
        np.testing.assert_allclose(report.artifact.adapter.adapt(vectors), expected, atol=1e-6)
        assert (report.queries, report.written) == (len(TEXTS), None)
    (tmp_path / "queries.txt").write_text("\n".join(TEXTS))
    written = make_bank(tmp_path / "queries.txt", "demo-linear", tmp_path / "bank")
    assert Artifact.load(tmp_path / "bank").training["dataset"] == "queries.txt"
    assert as_json(written) == {
        "queries": 12,
        "size": 12,
        "sharpness": written.sharpness,
        "weight": 0.5,
        "behind": "demo-linear",
        "written": str(tmp_path / "bank"),
    }
    with pytest.raises(InputError, match="holds texts, which an artifact cannot embed"):
        make_bank(TEXTS, encoder.artifact)
    with pytest.raises(InputError, match="text 12 is the name of a video file"):
        make_bank([*TEXTS, "a.mp4"], encoder)
    with pytest.raises(InputError, match="holds 2 distinct queries"):
        make_bank(TEXTS[:2], "no-such-model")


def test_queries_of_a_file(tmp_path):
    (tmp_path / "queries.txt").write_text("a dog\n\n  a dog \na cat\n")
    assert read_queries(tmp_path / "queries.txt") == ["a dog", "a cat"]
    (tmp_path / "pairs.jsonl").write_text('{"video": "a.mp4", "text": "a dog"}\n')
    with pytest.raises(InputError, match="looks like a file of pairs"):
        read_queries(tmp_path / "pairs.jsonl")


def test_a_matrix_is_evaluated_in_both_directions():
    report = evaluate_scores([[1, 0], [1, 0], [0, 1.0]], [0, 0, 1])
    forward, backward = as_json(report)["text_to_video"], as_json(report)["video_to_text"]
    assert (forward["metrics"]["n"], backward["metrics"]["n"]) == (3, 2)
    assert forward["metrics"]["r1"] == backward["metrics"]["r1"] == 100
    assert "ranks" not in forward
    assert str(report).count("100.0 [100.0, 100.0]") == 6
