"""Generated clips of `benchmarks.clips`, made where no folder is given: the dataset that anybody can have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.clips.captions import WORDINGS
from benchmarks.clips.dataset import make_split
from benchmarks.clips.scenes import SPLIT_SIZES
from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from dits_adapter.data.pairs_file import PairsFile

__all__ = ["DEMO"]


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    pairs = PairsFile(files[_listing(split)])
    ids = [Path(video.id).stem for video in pairs.iter_videos()]
    for text, number, *_ in pairs.iter_texts():
        yield Query(text, ids[number])


def _listing(split: str) -> str:
    return f"{split}/pairs.jsonl"


DEMO = Dataset(
    name="demo",
    title="generated clips (not real video)",
    owner="benchmarks/clips of this repository",
    license="Apache-2.0, as the code that makes them",
    text="five sentences about what moves, how, and over which background",
    captions="five a video, each a query; from video to text the best of the five counts",
    videos="made together with the sentences",
    files={_listing(split): File(source="made where no --root is given") for split in SPLIT_SIZES},
    splits={
        split: Split(layouts=(Layout(files=(_listing(split),), queries=WORDINGS * size, videos=size),))
        for split, size in SPLIT_SIZES.items()
    },
    read=_read,
    make=make_split,
)
