"""Representations of public objects: one line that says what they are, without arrays and passwords."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dits_adapter as da
from tests.spaces import made_up_space

SPACE = made_up_space(32)
ARRAYS = re.compile(r"NDArray|FloatArray|Floats|Tensor|Rows|Canaries|Queries")
"""Annotations of fields with many numbers."""

TORCH = {"AlignmentNetwork", "FoldedSampler", "TruncatedSampler", "XPool"}
"""Parts of a network, which are shown as torch shows its modules."""


def pairs(count: int = 40) -> da.Pairs:
    video = np.random.default_rng(0).normal(size=(count, 32)).astype(np.float32)
    return da.Pairs(2 * video, video / np.linalg.norm(video, axis=1, keepdims=True), np.arange(count), SPACE)


def report() -> Any:
    found = da.IngestReport(videos=2, segments=9)
    found.failed = {f"{number}.mp4": "is damaged" for number in range(1000)}
    return found


def shift() -> da.Artifact:
    some = pairs()
    return da.Artifact(da.mean_shift(some.text, some.video), SPACE, {"dataset": "x" * 10_000})


def calibration() -> Any:
    return da.calibrate_artifact(shift(), pairs())


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "AffineAdapter": (lambda: shift().adapter, "AffineAdapter(width=32, method='mean-shift', weights=1056)"),
    "Answer": (
        lambda: da.Answer(tuple(da.Match(hit(), 0.5) for _ in range(30)), 30, None),
        "Answer(matches=<30 items>, found=30, probability_of_any=None)",
    ),
    "Artifact": (
        shift,
        f"Artifact({shift().adapter!r}, kind='frozen', space='{SPACE}', calibrated='no')",
    ),
    "AsyncQdrantStore": (
        lambda: da.AsyncQdrantStore("http://localhost:1", "clips"),
        "AsyncQdrantStore('clips', location='http://localhost:1')",
    ),
    "BiasBank": (bank := lambda: da.BiasBank(np.eye(32, dtype=np.float32), SPACE, ((0.5,) * 32,)), ""),
    "CalibrationReport": (calibration, ""),
    "CollectionMetadata": (lambda: da.CollectionMetadata(space=SPACE), ""),
    "Comparison": (lambda: comparison(), "Comparison(rows='identity', recommendation='identity', queries=8)"),
    "DITSAdapter": (
        lambda: da.DITSAdapter(da.SamplerConfig(width=32, depth=1)),
        "DITSAdapter(width=32, depth=1, weights=",
    ),
    "DITSQueryEncoder": (
        lambda: da.DITSQueryEncoder.from_pretrained("demo-linear", strength=0.5),
        "DITSQueryEncoder('demo-linear', space='demo-clip [",
    ),
    "DotProducts": (lambda: da.DotProducts(np.eye(3), np.eye(3)), "DotProducts(shape=(3, 3))"),
    "EmbeddedClips": (lambda: da.EmbeddedClips(np.eye(3)), "EmbeddedClips(pooled=<(3, 3) float64>, frames=None)"),
    "EmbeddingSpace": (lambda: SPACE, f"EmbeddingSpace({SPACE})"),
    "EmbedVideos": (lambda: da.EmbedVideos("demo-clip"), "EmbedVideos('demo-clip', column='path')"),
    "GapReport": (lambda: da.measure_gap(shift(), pairs()), "GapReport(pairs=40, statistics={'plain CLIP': Gap"),
    "IngestReport": (report, "IngestReport(videos=2, segments=9, present=0, "),
    "Matches": (lambda: pairs().matches, "Matches(text=<(40, 32) float32>, video=<(40, 32) float32>, "),
    "MemoryStore": (lambda: da.MemoryStore("clips"), "MemoryStore('clips', location="),
    "NoiseSchedule": (lambda: da.NoiseSchedule.linear(10, 0.1, 0.2), "NoiseSchedule(beta=<(10,) float64>, "),
    "Pairs": (pairs, f"Pairs(texts=40, videos=40, space='{SPACE}')"),
    "PgVectorStore": (
        lambda: da.PgVectorStore("postgresql://me:secret@host/db?password=secret", "clips"),
        "PgVectorStore('clips', location='postgresql://me@host/db",
    ),
    "QdrantStore": (lambda: da.QdrantStore(":memory:", "clips"), "QdrantStore('clips', location="),
    "Reliability": (lambda: calibration().fit.hits, "Reliability(confidence=<("),
    "ScoreBias": (lambda: bank().record(pairs().video), "ScoreBias(bank='"),
    "SpeechFinder": (lambda: da.SpeechFinder(Recognizer()), "SpeechFinder(model='r')"),
    "StoredSegment": (
        lambda: da.StoredSegment("a", {}, np.ones(4)),
        "StoredSegment(id='a', payload={}, vector=<(4,)",
    ),
    "VideoEncoder": (
        lambda: da.VideoEncoder.from_pretrained("demo-clip"),
        "VideoEncoder('demo-clip', frames=12, decoder='auto')",
    ),
    "VideoSearch": (
        lambda: da.VideoSearch("demo-dits", "postgresql://me:secret@host/db", "clips"),
        "VideoSearch('demo-dits', 'postgresql://me@host/db', collection='clips')",
    ),
    "VideoTexts": (lambda: da.VideoTexts(), "VideoTexts(names=False)"),
}


class Recognizer:
    identity = "r"


def hit() -> da.Hit:
    return da.Hit("1", "v", "a.mp4", 0.0, 4.0, 0.3, None, {"path": "a.mp4"})


def comparison() -> da.Comparison:
    train, test = pairs().split(0.2, 0)
    return da.compare(*train.split(0.2, 0), test, rows={"identity": da.Recipe(adapter="identity")}, progress=False)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_representation_is_one_line_without_numbers_of_arrays_and_passwords(name: str) -> None:
    make, expected = CASES[name]
    shown = repr(make())
    assert shown.startswith(expected or f"{name}(")
    assert "\n" not in shown
    assert len(shown) < 1200
    for unwanted in ("array(", "tensor(", "secret", "xxxxxxxxxx" * 10):
        assert unwanted not in shown


def test_every_public_class_has_one() -> None:
    """Representations are Python's for a dataclass or a model without arrays, and ours elsewhere."""
    for name in da.__all__:
        kind = getattr(da, name)
        if not inspect.isclass(kind) or issubclass(kind, Exception) or name in TORCH:
            continue
        shows: Any = kind.__repr__
        ours = getattr(shows, "__module__", None) or ""
        if ours.startswith("dits_adapter.") and not hasattr(shows, "__wrapped__"):  # a dataclass wraps its own
            continue
        if getattr(kind, "_is_protocol", False):
            continue
        if dataclasses.is_dataclass(kind):
            shown = {field.name: str(field.type) for field in dataclasses.fields(kind) if field.repr}
        else:
            assert hasattr(kind, "model_fields"), f"{name} has the representation of object"
            shown = {field: str(each.annotation) for field, each in kind.model_fields.items() if each.repr}
        for field, annotation in shown.items():
            assert not ARRAYS.search(annotation), f"{name}.{field}: __repr__ = shown_repr, or field(repr=False)"
