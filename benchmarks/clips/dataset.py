"""Clips on disk: `make_split("test", folder)` writes the videos of a split and their captions."""

from __future__ import annotations

import json
import multiprocessing
import os
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from benchmarks.clips.captions import video_captions
from benchmarks.clips.scenes import Scene, render, scenes
from dits_adapter._files import write_atomically
from dits_adapter._progress import progress_bar

__all__ = ["DatasetItem", "item_of", "make_split", "write_clip"]


@dataclass(frozen=True)
class DatasetItem:
    """Generated video with its captions.

    Attributes:
        video: file name inside the split's folder.
        captions: five sentences (`captions.WORDINGS`).
        key: facts that all of them state, e.g. "meadow: blue star cross, red ring chase".
    """

    video: str
    captions: tuple[str, ...]
    key: str


def make_split(split: str, root: str | os.PathLike[str], workers: int | None = None) -> list[DatasetItem]:
    """Write `root/split/*.mp4`, and `pairs.jsonl` beside them for `dits-adapter embed`.

    Every file appears whole or not at all, so a killed call is simply made again.

    Args:
        split: "train", "val" or "test".
        root: folder that holds the splits.
        workers: processes that draw and encode; all CPUs by default.

    Returns:
        The items, in the order of `scenes(split)`.
    """
    folder = Path(root) / split
    folder.mkdir(parents=True, exist_ok=True)
    drawn = scenes(split)
    items = [item_of(scene) for scene in drawn]
    missing = [s for s, item in zip(drawn, items, strict=True) if not (folder / item.video).exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            written = pool.imap_unordered(partial(_write_into, folder), missing, chunksize=4)
            for _ in progress_bar(written, total=len(missing), desc=f"making {split} clips", unit="clip"):
                pass
    lines = "".join(json.dumps({"video": r.video, "text": r.captions, "key": r.key}) + "\n" for r in items)
    with write_atomically(folder / "pairs.jsonl") as part:
        part.write_text(lines, encoding="utf-8")
    return items


def item_of(scene: Scene) -> DatasetItem:
    """Return the captions and the key of a scene, with the name of its file."""
    ground, things = scene.key
    listing = ", ".join(" ".join(thing) for thing in sorted(things))
    return DatasetItem(f"{scene.name}.mp4", tuple(video_captions(scene)), f"{ground}: {listing}")


def _write_into(folder: Path, scene: Scene) -> None:
    write_clip(scene, folder / f"{scene.name}.mp4")


def write_clip(scene: Scene, path: str | os.PathLike[str]) -> None:
    """Draw and encode a scene as H.264 in an mp4 file, which appears when it is complete.

    Frame i is the scene at (i + 1/2) / fps seconds: a decoder that shows it from i / fps on shows its middle.
    """
    import av

    with write_atomically(Path(path)) as part, av.open(str(part), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=scene.fps, options={"preset": "ultrafast", "crf": "22"})
        stream.width, stream.height, stream.pix_fmt = scene.width, scene.height, "yuv420p"
        stream.time_base = Fraction(1, scene.fps)
        stream.codec_context.thread_count = 1  # the workers are the parallelism
        for index in range(scene.frames):
            frame = av.VideoFrame.from_ndarray(render(scene, (index + 0.5) / scene.fps), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
