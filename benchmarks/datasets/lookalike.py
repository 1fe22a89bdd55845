"""Small datasets in each dataset's exact file format: `python -m benchmarks.datasets.lookalike msrvtt DIR`.

They exercise readers, video decoding and the whole run where the real data may not go: in CI, on a laptop. The
command fills them with generated clips.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.clips.captions import video_captions
from benchmarks.clips.dataset import write_clip
from benchmarks.clips.scenes import sample_scene
from benchmarks.datasets.lsmdc import SKIPPED_CLIP

__all__ = ["CaptionedClip", "main", "make_clips", "write_lookalike"]

SIZES = {"train": 40, "val": 8, "test": 12}
SHORT = {"width": 64, "height": 48, "fps": 12, "frames": 12}


class CaptionedClip(NamedTuple):
    """Video file with its captions, the one that is used alone first."""

    path: Path
    captions: Sequence[str]


Clips = Mapping[str, Sequence[CaptionedClip]]
"""Clips by split: `train`, `val` and `test`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Write a look-alike of generated clips."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.datasets.lookalike", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("dataset", choices=_WRITERS)
    parser.add_argument("root", type=Path, metavar="DIR", help="folder to write into")
    parser.add_argument(
        "--clips",
        type=int,
        nargs=3,
        default=tuple(SIZES.values()),
        metavar="N",
        help="of train, val and test (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        clips = make_clips(Path(scratch), dict(zip(SIZES, args.clips, strict=True)))
        write_lookalike(args.dataset, args.root, clips)
    print(f"{args.dataset}, a look-alike of {sum(args.clips)} generated clips: {args.root}")
    return 0


def make_clips(folder: Path, sizes: Mapping[str, int]) -> Clips:
    """Draw one-second clips of 64 × 48 pixels with five captions each, into an existing folder.

    Args:
        folder: gets the files.
        sizes: number of clips by split.
    """
    clips: dict[str, list[CaptionedClip]] = {}
    for split, size in sizes.items():
        for number in range(size):
            scene = dataclasses.replace(sample_scene(f"{split} {number}"), **SHORT)
            path = folder / f"{split}{number}.mp4"
            write_clip(scene, path)
            clips.setdefault(split, []).append(CaptionedClip(path, video_captions(scene)))
    return clips


def write_lookalike(name: str, root: Path, clips: Clips) -> None:
    """Write annotation files and videos as the dataset's community lays them out.

    MSR-VTT and Charades have no validation split: `clips["val"]` is left out there. The first test clip of
    MSR-VTT gets the source video of a training clip, and that of LSMDC the id which X-Pool skips, so that the
    de-duplicated and the 999 split differ from the full one here too.

    Args:
        name: a dataset of `DATASETS`.
        root: folder to write into; created.
        clips: at least one clip with one caption for each of `train`, `val` and `test`.
    """
    root.mkdir(parents=True, exist_ok=True)
    _WRITERS[name](root, clips)


def _msrvtt(root: Path, clips: Clips) -> None:
    videos: list[dict[str, Any]] = []
    sentences: list[dict[str, Any]] = []
    ids: dict[str, list[str]] = {}
    for split in ("train", "test"):
        for position, clip in enumerate(clips[split]):
            number = len(videos)
            source = 0 if split == "test" and position == 0 else number
            videos.append(
                {
                    "category": 0,
                    "url": f"https://www.youtube.com/watch?v=lookalike{source:02d}",
                    "video_id": f"video{number}",
                    "start time": 0.0,
                    "end time": 5.0,
                    "split": split,
                    "id": number,
                }
            )
            for caption in clip.captions:
                sentences.append({"caption": caption, "video_id": f"video{number}", "sen_id": len(sentences)})
            ids.setdefault(split, []).append(f"video{number}")
            _place(clip, root / "MSRVTT_Videos" / f"video{number}.mp4")
    _write_json(root / "MSRVTT_data.json", {"info": {}, "videos": videos, "sentences": sentences})
    for size in ("7k", "9k"):
        _write_csv(root / f"MSRVTT_train.{size}.csv", ["video_id"], [[i] for i in ids["train"]])
    tests = [
        [f"ret{n}", i.replace("video", "msr"), i, clip.captions[0]]
        for n, (i, clip) in enumerate(zip(ids["test"], clips["test"], strict=True))
    ]
    _write_csv(root / "MSRVTT_JSFUSION_test.csv", ["key", "vid_key", "video_id", "sentence"], tests)


def _lsmdc(root: Path, clips: Clips) -> None:
    names = {
        "train": "LSMDC16_annos_training.csv",
        "val": "LSMDC16_annos_val.csv",
        "test": "LSMDC16_challenge_1000_publictect.csv",
    }
    for movie, (split, name) in enumerate(names.items()):
        rows = []
        for position, clip in enumerate(clips[split]):
            start, end = f"00.{position:02d}.00.000", f"00.{position:02d}.05.000"
            clip_id = f"{movie:04d}_Lookalike_{start}-{end}"
            if split == "test" and position == 0:
                clip_id = SKIPPED_CLIP
            for caption in clip.captions if split == "train" else clip.captions[:1]:
                rows.append("\t".join([clip_id, start, end, start, end, caption]) + "\n")
            folder = clip_id.split(".")[0][:-3]  # the movie, before "_<hours>"
            _place(clip, root / "LSMDC_Videos" / folder / f"{clip_id}.avi")
        (root / name).write_text("".join(rows), encoding="utf-8")


def _didemo(root: Path, clips: Clips) -> None:
    for owner, split in enumerate(("train", "val", "test")):
        listed: list[str] = []
        records: list[dict[str, Any]] = []
        for position, clip in enumerate(clips[split]):
            video = f"{10000000 + owner}@N00_{position}_lookalike.mp4"
            listed.append(f"{video}\n")
            for caption in clip.captions:
                records.append(
                    {
                        "num_segments": 6,
                        "description": caption,
                        "dl_link": f"https://www.flickr.com/video_download.gne?id={position}",
                        "times": [[0, 0], [0, 1]],
                        "video": video,
                        "annotation_id": len(records),
                    }
                )
            _place(clip, root / "DiDeMo_Videos" / video)
        (root / f"{split}_list.txt").write_text("".join(listed), encoding="utf-8")
        _write_json(root / f"{split}_data.json", records)


def _vatex(root: Path, clips: Clips) -> None:
    records: dict[str, list[dict[str, Any]]] = {}
    for split in ("train", "val", "test"):
        listed = []
        for position, clip in enumerate(clips[split]):
            video = f"{split}{position}_000000_000010"
            listed.append(f"{video}\n")
            annotation = "vatex_training_v1.0.json" if split == "train" else "vatex_validation_v1.0.json"
            captions = list(clip.captions)
            records.setdefault(annotation, []).append({"videoID": video, "enCap": captions, "chCap": captions})
            _place(clip, root / "VATEX_Videos" / f"{video}.mp4")
        (root / f"{split}_list.txt").write_text("".join(listed), encoding="utf-8")
    for annotation, listed_records in records.items():
        _write_json(root / annotation, listed_records)


def _charades(root: Path, clips: Clips) -> None:
    header = ["id", "subject", "scene", "quality", "relevance", "verified", "script", "objects", "descriptions"]
    header += ["actions", "length"]
    for split in ("train", "test"):
        rows = []
        for position, clip in enumerate(clips[split]):
            video = f"{split[:2].upper()}{position:03d}"
            script, *more = (caption.replace(";", ",") for caption in clip.captions)
            descriptions = ";".join(more or [script])
            rows.append(
                [video, "LOOK", "Canvas", "7", "7", "Yes", script, "", descriptions, "c000 0.00 1.00", "5.00"]
            )
            _place(clip, root / "Charades_v1_480" / f"{video}.mp4")
        _write_csv(root / f"Charades_v1_{split}.csv", header, rows)


def _demo(root: Path, clips: Clips) -> None:
    for split in ("train", "val", "test"):
        lines = []
        for position, clip in enumerate(clips[split]):
            _place(clip, root / split / f"{split}-{position}.mp4")
            lines.append(json.dumps({"video": f"{split}-{position}.mp4", "text": list(clip.captions)}) + "\n")
        (root / split / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")


_WRITERS: dict[str, Callable[[Path, Clips], None]] = {
    "msrvtt": _msrvtt,
    "lsmdc": _lsmdc,
    "didemo": _didemo,
    "vatex": _vatex,
    "charades": _charades,
    "demo": _demo,
}


def _place(clip: CaptionedClip, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(clip.path, path)  # decoders go by the content: an .mp4 called .avi is fine


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    sys.exit(main())
