"""Datasets of the paper and of the demo, each a validated object: `DATASETS["msrvtt"].load(root, "test")`."""

from __future__ import annotations

from benchmarks.datasets.charades import CHARADES
from benchmarks.datasets.dataset import Dataset, Query, RetrievalSplit, find_videos
from benchmarks.datasets.demo import DEMO
from benchmarks.datasets.didemo import DIDEMO
from benchmarks.datasets.lsmdc import LSMDC
from benchmarks.datasets.msrvtt import MSRVTT
from benchmarks.datasets.reading import UserFileError
from benchmarks.datasets.vatex import VATEX

__all__ = ["DATASETS", "Dataset", "Query", "RetrievalSplit", "UserFileError", "find_videos"]

DATASETS = {dataset.name: dataset for dataset in (MSRVTT, LSMDC, DIDEMO, VATEX, CHARADES, DEMO)}
