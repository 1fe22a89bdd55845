"""DiDeMo as paragraph retrieval: all descriptions of a video joined to one text, its first 31 seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from benchmarks.datasets.reading import UserFileError, csv_rows, entries, json_records, read_json

__all__ = ["DIDEMO"]


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    labels = files.get(f"didemo_{split}_label.csv")
    if labels is not None:
        for _, (path, text) in csv_rows(labels, "video_path", "text"):
            yield Query(text, _video_id(path.rpartition("/")[2]))
        return
    listing, annotation = files[f"{split}_list.txt"], files[f"{split}_data.json"]
    descriptions: dict[str, list[str]] = {}
    for video, description in json_records(annotation, read_json(annotation), video=str, description=str):
        descriptions.setdefault(video, []).append(description)
    without = {_video_id(video): video for video in descriptions}
    listed = set()
    for number, name in entries(listing):
        video = name if name in descriptions else without.get(_video_id(name))
        if video is None:
            raise UserFileError(listing, number, f"{name} has no description in {annotation.name}")
        listed.add(video)
    for video, parts in descriptions.items():
        if video in listed:
            yield Query(" ".join(parts), _video_id(video))


def _video_id(file_name: str) -> str:
    """Drop the suffix: people keep the videos as they came, or all as .mp4."""
    return file_name.rpartition(".")[0] or file_name


def _layouts(split: str, listed: int, labeled: int) -> tuple[Layout, ...]:
    return (
        Layout(files=(f"{split}_list.txt", f"{split}_data.json"), queries=listed, videos=listed),
        Layout(files=(f"didemo_{split}_label.csv",), queries=labeled, videos=labeled),
    )


_DATA = "folder data of LisaAnne/LocalizingMoments on GitHub"
_LISTS = "folder misc/datasets/didemo of albanie/collaborative-experts on GitHub"
_LABELS = "folder data/Didemo of Jiamian-Wang/T-MASS-text-video-retrieval on GitHub"

DIDEMO = Dataset(
    name="didemo",
    title="DiDeMo (Distinct Describable Moments)",
    owner="Lisa Anne Hendricks et al., UC Berkeley and Adobe Research",
    url="https://github.com/LisaAnne/LocalizingMoments",
    license="annotation BSD 2-Clause; videos from Flickr, each under its own Creative Commons license",
    citation="""
@inproceedings{hendricks2017didemo,
  title = {Localizing Moments in Video with Natural Language},
  author = {Hendricks, Lisa Anne and Wang, Oliver and Shechtman, Eli and Sivic, Josef and Darrell, Trevor
            and Russell, Bryan},
  booktitle = {ICCV},
  year = {2017}
}""",
    text='`description`s of a video joined with " " as the file has them; up to 91 words, CLIP reads 77 tokens',
    captions="one paragraph a video",
    span=(0, 31),
    videos="links in folder data of LisaAnne/LocalizingMoments on GitHub; files as listed, or .mp4",
    files={
        "train_list.txt": File(
            source=_LISTS, sha256="ed8fb2e66ef4ff73caec80167836dc7965d5b1dc8982990952f47bb28f68e507"
        ),
        "val_list.txt": File(
            source=_LISTS, sha256="992923d0c9d0fcea8eb9b3ed5ba16a2f41b8c422872c92be824f1cd0a371b93e"
        ),
        "test_list.txt": File(
            source=_LISTS, sha256="371f608f2c4984caa794ccfa40276069e209c2a0ea26a78acdad0613f4f61a2c"
        ),
        "train_data.json": File(source=_DATA),
        "val_data.json": File(
            source=_DATA, sha256="b0364cc256553332feb19d46bcc4cd2b09774949fe6c0b25e7ed0ff3c6aefebb"
        ),
        "test_data.json": File(
            source=_DATA, sha256="1891c04ec48b3d364c739594b2b6413806b74bd9027c092d896e7ebb930ff1cd"
        ),
        "didemo_train_label.csv": File(
            source=_LABELS, sha256="f128b7ef306066e0001a921a853e3f709da80b3bc8652aea2315babc79887abf"
        ),
        "didemo_val_label.csv": File(
            source=_LABELS, sha256="0127e4f1f8c0721f827dcf540e30fde170580e9dbe1ba98c76aeb83cff1e93ee"
        ),
        "didemo_test_label.csv": File(
            source=_LABELS, sha256="84d56a359986649495d89ff8b2ecfddd479189dfd486c3559df672a66bad2164"
        ),
    },
    splits={
        "train": Split(layouts=_layouts("train", 8_392, 8_362)),
        "val": Split(layouts=_layouts("val", 1_065, 1_062)),
        "test": Split(layouts=_layouts("test", 1_004, 1_004)),
    },
    read=_read,
)
