"""VATEX with the splits of HGR: ten English captions a video, every one a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from benchmarks.datasets.reading import UserFileError, entries, json_records, read_json
from dits_adapter.data._ids import did_you_mean, match_id

__all__ = ["VATEX"]

# GRAM's copy of the test captions names its fields otherwise and holds no other split.
_GRAM = "GRAM_descs_ret_test.json"


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    listing = files[f"{split}_list.txt"]
    (path,) = (path for name, path in files.items() if name.endswith(".json"))
    fields = {"video_id": str, "desc": list} if path.name == _GRAM else {"videoID": str, "enCap": list}
    captions: dict[str, list[str]] = dict(json_records(path, read_json(path), **fields))
    for number, name in entries(listing):
        video_id = match_id(name, captions)
        if video_id is None:
            reason = f"{name} has no captions in {path.name}{did_you_mean(name, captions)}"
            raise UserFileError(listing, number, reason)
        for caption in captions[video_id]:
            yield Query(caption, video_id)


_OFFICIAL = "VATEX download page, Xin Wang et al.: eric-xw.github.io/vatex-website/download.html"
_HGR = "splits of HGR (cshizhe/hgr_v2t on GitHub) as text lists, e.g. in danieljf24/hybrid_space on GitHub"

VATEX = Dataset(
    name="vatex",
    title="VATEX v1.0, HGR split",
    owner="Xin Wang et al., UC Santa Barbara and ByteDance AI Lab",
    url="https://eric-xw.github.io/vatex-website/",
    license="annotation CC BY 4.0; the clips are YouTube's uploaders'",
    citation="""
@inproceedings{wang2019vatex,
  title = {VATEX: A Large-Scale, High-Quality Multilingual Dataset for Video-and-Language Research},
  author = {Wang, Xin and Wu, Jiawei and Chen, Junkun and Li, Lei and Wang, Yuan-Fang and Wang, William Yang},
  booktitle = {ICCV},
  year = {2019}
}""",
    text="`enCap`, the English captions",
    captions="ten a video, each a query; from video to text the best of the ten counts",
    videos="from YouTube or Kinetics-600 by id and time; files <YouTube id>_<start>_<end>.mp4",
    files={
        "train_list.txt": File(
            source=_HGR, sha256="4434a6863540f638cd5c62b7497f9ac13ea5ab84da72b7928e507ee0c5f46f22"
        ),
        "val_list.txt": File(
            source=_HGR, sha256="223d6d6b0b8c88f093ac1942e1165ae6d21a982362252ba574059e1a27083066"
        ),
        "test_list.txt": File(
            source=_HGR, sha256="652fd9bbfe53d53935b292b0e4127bc8e41cae6846b3c9faa4f502d96f160a42"
        ),
        "vatex_training_v1.0.json": File(source=_OFFICIAL),
        "vatex_validation_v1.0.json": File(source=_OFFICIAL),
        _GRAM: File(
            source="descs_ret_test.json of GRAM's VATEX annotation, under this name",
            sha256="b6f4bc1be5b5ee83acee01a520ff47afcbbb790db10f9400b5c44d74a5882ba5",
        ),
    },
    splits={
        "train": Split(
            layouts=(Layout(files=("train_list.txt", "vatex_training_v1.0.json"), queries=259_910, videos=25_991),)
        ),
        "val": Split(
            layouts=(Layout(files=("val_list.txt", "vatex_validation_v1.0.json"), queries=15_000, videos=1_500),)
        ),
        "test": Split(
            layouts=tuple(
                Layout(files=("test_list.txt", captions), queries=15_000, videos=1_500)
                for captions in ("vatex_validation_v1.0.json", _GRAM)
            ),
            note="test1k5_sec_list.txt, which is about too, names 1,500 other videos and moves R@1 by 4 points",
        ),
    },
    read=_read,
)
