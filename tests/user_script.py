"""A user's script, which mypy checks with the package: names, results, and mistakes that have to be seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from typing_extensions import assert_type

import dits_adapter
from dits_adapter import (
    Answer,
    Calibration,
    Comparison,
    DITSQueryEncoder,
    Hit,
    IngestReport,
    JointReport,
    Recipe,
    RetrievalMetrics,
    SearchRequest,
    TrainingReport,
    VideoEncoder,
    VideoSearch,
    VideoStore,
    calibrate_artifact,
    compare_adapters,
    evaluate_scores,
    export_artifact,
    ingest,
    make_bank,
    open_store,
    train_artifact,
    train_joint,
)


def best(answer: Answer) -> Hit | None:
    return answer.matches[0].hit if answer.matches else None


def search(store: VideoStore) -> None:
    encoder = VideoEncoder.from_pretrained("demo-clip")
    assert_type(ingest(store, "my-videos", encoder, segment_seconds=2.0), IngestReport)
    videos = VideoSearch(DITSQueryEncoder.from_pretrained("demo-dits"), store)
    assert_type(best(videos.search("a dog", SearchRequest(limit=1))), Hit | None)
    assert_type(videos.search("a dog", limit=3).probability_of_any, float | None)


def train(cache: Path) -> None:
    assert_type(train_artifact(cache, "best", "out"), TrainingReport)
    assert_type(train_joint("pairs.jsonl", "deterministic", "joint", encoder="demo-clip"), JointReport)
    comparison = compare_adapters(cache, rows=["ridge"])
    assert_type(comparison, Comparison)
    assert_type(comparison["ridge"].text_to_video.metrics, RetrievalMetrics)
    assert_type(calibrate_artifact("out", cache).fit.calibration, Calibration)
    assert_type(make_bank(["a dog"], "demo-clip").written, Path | None)
    assert_type(export_artifact("out", "fast").sizes, dict[str, int])
    assert_type(Recipe.read("best"), Recipe)
    assert_type(evaluate_scores(np.eye(3)).text_to_video.intervals["r1"].low, float)


def mistakes() -> None:
    train_artifact("cache", 3, "out")  # type: ignore[arg-type]
    open_store("folder").search(np.ones(3), limits=3)  # type: ignore[call-arg]
    dits_adapter.train_artefact  # type: ignore[attr-defined]  # noqa: B018
