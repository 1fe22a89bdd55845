"""Files from which no frames can be had, or not all: cut off, damaged, no video."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dits_adapter.errors import VideoError
from dits_adapter.video.decode import Video, decode_frames, probe
from tests.video.clips import number_of, picture, write_clip
from tests.video.conftest import PICTURES


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("half_long_gop.mp4", "cut off before its end"),
        ("half_fast_start.mp4", r"truncated: 4.00 s long by its header, data for 0\.\d\d s"),
        ("half_vp9.webm", "truncated: 4.00 s"),
        ("half_mpeg4.avi", "truncated: 4.00 s"),
        ("half_closed.mkv", "truncated: 4.00 s"),
        ("empty.mp4", r"is empty \(0 bytes\)"),
        ("text.mp4", "is not a video"),
        ("long.txt", "is no video"),
        ("noise.mp4", "is not a video"),
        ("folder.mp4", "is a directory"),
        ("list.ffconcat", "is no video"),
        ("still.png", "is no video"),
        ("sound.m4a", "holds no video stream"),
        ("cover.mp4", "holds no video stream"),
        ("nowhere.mp4", "no such file"),
        ("null\0byte.mp4", "null"),
    ],
)
@pytest.mark.parametrize("read", [decode_frames, probe])
def test_one_clear_error_that_names_the_file(bad_files, name, reason, read, decoder):
    path = os.path.join(bad_files, name)
    with pytest.raises(VideoError, match=reason) as caught:
        read(path, decoder=decoder)
    assert caught.value.path == path
    assert str(caught.value).startswith(path + ": ")
    assert "\n" not in str(caught.value)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="a device or a pipe"):
        decode_frames(tmp_path / "pipe.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(clips, tmp_path):
    path = Path(shutil.copy(clips / "one.mp4", tmp_path))
    path.chmod(0)
    with pytest.raises(VideoError, match="permission denied"):
        decode_frames(path)


@pytest.mark.parametrize("name", ["vp9.webm", "fast_start.mp4"])
def test_a_little_missing_at_the_end_is_no_reason_to_refuse(clips, tmp_path, name):
    content = (clips / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) * 97 // 100])
    with Video(path) as video:
        assert 3.5 < video.duration < 4.0
        got = video.frames(100)
    assert [number_of(frame) for frame in got.frames] == [round(time * 25) for time in got.timestamps]


def test_sound_that_ends_after_the_picture_is_not_a_truncated_picture(tmp_path):
    path = write_clip(tmp_path / "fades.mkv", PICTURES[:25], audio_seconds=6.0)
    assert probe(path).duration == pytest.approx(1.0, abs=0.05)
    cut_off = tmp_path / "cut.mkv"
    content = path.read_bytes()
    cut_off.write_bytes(content[: len(content) // 3])
    with pytest.raises(VideoError, match="truncated: 6"):
        probe(cut_off)


@pytest.mark.parametrize(
    "name", ["fast_start.mp4", "closed.mkv", "stream.ts", "mpeg4.avi", "vp9.webm", "ten_bit.mp4"]
)
def test_damage_anywhere_gives_frames_or_a_video_error(clips, tmp_path, name):
    content = (clips / name).read_bytes()
    rng = np.random.default_rng(0)
    for attempt in range(12):
        damaged = bytearray(content)
        for place in rng.integers(len(damaged), size=2 + len(damaged) // 500 * (attempt % 2)):
            damaged[place] = rng.integers(256)
        path = tmp_path / f"{attempt}_{name}"
        path.write_bytes(damaged)
        with suppress(VideoError):
            assert len(decode_frames(path, 6).frames) == 6


@pytest.fixture
def noisy(tmp_path):
    """A clip of 60 frames, a keyframe every 12, with so much noise that every packet is long."""
    noise = np.random.default_rng(0).integers(0, 60, (60, 64, 96, 3))
    frames = [(frame // 2 + grain).astype(np.uint8) for frame, grain in zip(PICTURES, noise, strict=False)]
    return write_clip(tmp_path / "noisy.mp4", frames, options={"g": "12"})


def blot(path: Path, number: int) -> None:
    """Zero the second half of the packet of a frame."""
    with av.open(str(path)) as container:
        packets = {packet.pts: bytes(packet) for packet in container.demux(video=0) if packet.size}
    packet = packets[sorted(packets)[number]]
    content = path.read_bytes()
    assert content.count(packet) == 1
    path.write_bytes(content.replace(packet, packet[: len(packet) // 2] + bytes(len(packet) - len(packet) // 2)))


def test_a_damaged_frame_is_refused_whatever_a_decoder_makes_up_for_it(noisy):
    blot(noisy, 30)
    with pytest.raises(VideoError, match=r"is damaged at 1\.20 s"):
        decode_frames(noisy, 1, 1.2, 1.24)
    got = decode_frames(noisy, 12, 1.44, 2.4)
    np.testing.assert_allclose(got.timestamps, np.arange(37, 60, 2) / 25)


@pytest.mark.parametrize("name", ["closed.mp4", "stream.ts", "mpeg4.avi"])
def test_damage_behind_a_keyframe_does_not_reach_the_next(clips, tmp_path, name):
    path = Path(shutil.copy(clips / name, tmp_path))
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + 200] = bytes(200)
    path.write_bytes(content)
    with Video(path) as video:
        assert [number_of(frame) for frame in video.frames(4, 3.2, 4.0).frames] == [82, 87, 92, 97]


def test_frames_that_change_size(tmp_path):
    path = tmp_path / "grows.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p"
        for number in range(20):
            size = (64, 96) if number < 10 else (128, 192)
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.height, encoder.width = size
            encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            for packet in encoder.encode(frame):
                packet.stream, packet.time_base = stream, Fraction(1, 25)
                container.mux(packet)
    assert decode_frames(path, 5, 0, 0.4).frames.shape == (5, 64, 96, 3)
    with pytest.raises(VideoError, match="change size"):
        decode_frames(path)
