"""Charades: the script that people acted out is the query for the video that they made of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from benchmarks.datasets.reading import csv_rows

__all__ = ["CHARADES"]


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    (path,) = files.values()
    if not split.endswith("-descriptions"):
        for _, (video_id, text) in csv_rows(path, "id", "script"):
            yield Query(text, video_id)
        return
    for _, (video_id, texts) in csv_rows(path, "id", "descriptions"):
        for text in filter(None, map(str.strip, texts.split(";"))):
            yield Query(text, video_id)


_TRAIN, _TEST = "Charades_v1_train.csv", "Charades_v1_test.csv"
_SOURCE = "Charades.zip, PRIOR at the Allen Institute for AI: prior.allenai.org/projects/charades"

CHARADES = Dataset(
    name="charades",
    title="Charades v1",
    owner="Gunnar Sigurdsson et al., Allen Institute for AI",
    url="https://prior.allenai.org/projects/charades",
    license="non-commercial, see its license.txt",
    citation="""
@inproceedings{sigurdsson2016hollywood,
  title = {Hollywood in Homes: Crowdsourcing Data Collection for Activity Understanding},
  author = {Sigurdsson, Gunnar A. and Varol, G{\\"u}l and Wang, Xiaolong and Farhadi, Ali and Laptev, Ivan
            and Gupta, Abhinav},
  booktitle = {ECCV},
  year = {2016}
}""",
    text="`script`; the splits called -descriptions take `descriptions`, separated by semicolons",
    captions="one script a video; one or more descriptions",
    videos="Charades_v1.zip or Charades_v1_480.zip from the same page; files <id>.mp4",
    files={
        _TRAIN: File(source=_SOURCE, sha256="59273c6dc2139ec7eb95b980fd26bc8529774b1ede0602f6ca90b546ed12f0fc"),
        _TEST: File(source=_SOURCE, sha256="8b8b207b55fb95b949018027f69d83bd46cd844d15834f8f592ee8e7446173eb"),
    },
    splits={
        "train": Split(layouts=(Layout(files=(_TRAIN,), queries=7_985, videos=7_985),)),
        "test": Split(layouts=(Layout(files=(_TEST,), queries=1_863, videos=1_863),)),
        "train-descriptions": Split(layouts=(Layout(files=(_TRAIN,), queries=11_593, videos=7_985),)),
        "test-descriptions": Split(layouts=(Layout(files=(_TEST,), queries=4_537, videos=1_863),)),
    },
    read=_read,
)
