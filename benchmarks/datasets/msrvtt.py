"""MSR-VTT with the splits of JSFusion (1k-A): 9,000 or 7,010 training videos, 1,000 test pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.datasets.dataset import Dataset, File, Layout, Query, Split
from benchmarks.datasets.reading import UserFileError, csv_rows, json_records, read_json
from dits_adapter.data._ids import did_you_mean, match_id

__all__ = ["MSRVTT"]

_TEST = "MSRVTT_JSFUSION_test.csv"
_TRAIN = {"train": "MSRVTT_train.9k.csv", "train-7k": "MSRVTT_train.7k.csv"}
# The same captions in one file, as CLIP4Clip and X-Pool have them, or in two, as the challenge published them.
_CAPTIONS = (
    ("MSRVTT_data.json",),
    ("train_val_annotation.zip", "test_videodatainfo.json.zip"),
    ("train_val_videodatainfo.json", "test_videodatainfo.json"),
)


def _read(split: str, files: Mapping[str, Path]) -> Iterator[Query]:
    if split == "test":
        yield from _test_pairs(files)
    elif split in _TRAIN:
        yield from _training_pairs(files, _TRAIN[split])
    else:
        training = list(_training_pairs(files, _TRAIN["train"]))
        captions, train_ids = {query.text for query in training}, {query.video_id for query in training}
        test = list(_test_pairs(files))
        urls = dict(_records(files, "videos", "video_id", "url"))
        ids = {name: match_id(name, urls) for name in (*train_ids, *(query.video_id for query in test))}
        for name, video_id in ids.items():
            if video_id is None:
                raise UserFileError(
                    files[_TEST], None, f"{name} has no url in the annotation{did_you_mean(name, urls)}"
                )
        url_of = {name: urls[str(video_id)] for name, video_id in ids.items()}
        sources = {url_of[name] for name in train_ids}
        yield from (
            query for query in test if query.text not in captions and url_of[query.video_id] not in sources
        )


def _test_pairs(files: Mapping[str, Path]) -> Iterator[Query]:
    for _, (video_id, text) in csv_rows(files[_TEST], "video_id", "sentence"):
        yield Query(text, video_id)


def _training_pairs(files: Mapping[str, Path], listing: str) -> Iterator[Query]:
    captions: dict[str, list[str]] = {}
    for video_id, caption in _records(files, "sentences", "video_id", "caption"):
        captions.setdefault(video_id, []).append(caption)
    for line, (name,) in csv_rows(files[listing], "video_id"):
        video_id = match_id(name, captions)
        if video_id is None:
            reason = f"{name} has no caption in the annotation{did_you_mean(name, captions)}"
            raise UserFileError(files[listing], line, reason)
        for caption in captions[video_id]:
            yield Query(caption, video_id)


def _records(files: Mapping[str, Path], table: str, *fields: str) -> Iterator[list[str]]:
    """Yield fields of every record of a table, over all caption files."""
    for path in files.values():
        if path.suffix == ".csv":
            continue
        annotation = read_json(path)
        if not isinstance(annotation, dict) or table not in annotation:
            raise UserFileError(path, None, f"no {table!r} in it, as MSR-VTT's annotation has")
        yield from json_records(path, annotation[table], **dict.fromkeys(fields, str))


def _layouts(*listings: str, queries: int, videos: int) -> tuple[Layout, ...]:
    return tuple(Layout(files=(*listings, *captions), queries=queries, videos=videos) for captions in _CAPTIONS)


_CLIP4CLIP = "msrvtt_data.zip, a release of ArrowLuo/CLIP4Clip on GitHub"
_CHALLENGE = "MSR-VTT challenge 2016/2017, Microsoft: ms-multimedia-challenge.com/2017/dataset"

MSRVTT = Dataset(
    name="msrvtt",
    title="MSR-VTT",
    owner="Microsoft Research",
    url="https://www.microsoft.com/en-us/research/publication/msr-vtt-a-large-video-description-dataset-for-bridging-video-and-language/",
    license="none stated by its owner; the clips are YouTube's uploaders'. For research.",
    citation="""
@inproceedings{xu2016msrvtt,
  title = {MSR-VTT: A Large Video Description Dataset for Bridging Video and Language},
  author = {Xu, Jun and Mei, Tao and Yao, Ting and Rui, Yong},
  booktitle = {CVPR},
  year = {2016}
}""",
    text="`sentence` of the test list, `caption` of the annotation",
    captions="20 a video in training, each a text of its own; one a video in the test",
    videos="MSRVTT.zip, the project page of Frozen in Time (VGG, University of Oxford); files video0.mp4 …",
    files={
        _TEST: File(source=_CLIP4CLIP, sha256="e61144b312c8a2fc2126f96504c981f8c23c05b3ba9655a56e2af50ac8a4b16a"),
        "MSRVTT_train.9k.csv": File(
            source=_CLIP4CLIP, sha256="0a7ece2418e1f7ac5680555a04ddfef8950293ac3c4bdd6584fb0fa6cc0ff7d3"
        ),
        "MSRVTT_train.7k.csv": File(
            source=_CLIP4CLIP, sha256="ca0d04c34310168b620c90c67eaec702b37398943965f5e1f9f44af8f193da7d"
        ),
        "MSRVTT_data.json": File(source=_CLIP4CLIP),
        "train_val_annotation.zip": File(
            source=_CHALLENGE, sha256="ce2d97dd82d03e018c6f9ee69c96eb784397d1c83f734fdb8c17aafa5e27da31"
        ),
        "test_videodatainfo.json.zip": File(
            source=_CHALLENGE, sha256="0871bbe19dc9c13edeef4af5d7be39600a2e2b7d967e0206bb5911d633af24a0"
        ),
        "train_val_videodatainfo.json": File(
            source=_CHALLENGE, sha256="542997a95196eb7983c16860ad416c7b32c6c07236bcf189cbfae904ea2e8335"
        ),
        "test_videodatainfo.json": File(
            source=_CHALLENGE, sha256="1d09999f3d32311063889e8a5f351988a116d58b9dc3c1ed5a5ce90a4ff8d95d"
        ),
    },
    splits={
        "train": Split(layouts=_layouts(_TRAIN["train"], queries=180_000, videos=9_000)),
        "train-7k": Split(layouts=_layouts(_TRAIN["train-7k"], queries=140_200, videos=7_010)),
        "test": Split(layouts=(Layout(files=(_TEST,), queries=1_000, videos=1_000),)),
        "test-deduplicated": Split(
            layouts=_layouts(_TEST, _TRAIN["train"], queries=562, videos=562),
            note="without test clips cut from a source video of the 9,000 training clips, or with one of their "
            "captions; fewer candidates make it easier, so compare rows within it only",
        ),
    },
    read=_read,
)
