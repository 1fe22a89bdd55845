"""Files that lie, crash decoders or cost too much: each is one error that says why, or right frames."""

from __future__ import annotations

import os
import signal
import struct
import time
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from dits_adapter.errors import InputError, VideoError
from dits_adapter.video import decode
from dits_adapter.video._child import call_in_child
from dits_adapter.video._frames import segment_spans
from dits_adapter.video.decode import Video, decode_frames, probe
from dits_adapter.video.limits import DecodeLimits
from tests.video.clips import number_of, picture, write_clip
from tests.video.conftest import PICTURES


def numbers(path: Path, n: int = 100) -> list[int]:
    return [number_of(frame) for frame in decode_frames(path, n).frames]


def patched(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    content = source.read_bytes()
    assert old in content
    target.write_bytes(content.replace(old, new))
    return target


# One file never ends the run


def test_an_unknown_codec(clips, tmp_path):
    path = patched(clips / "mpeg4.avi", tmp_path / "unknown.avi", b"FMP4", b"QQQQ")
    with pytest.raises(VideoError, match="is in a video codec that is not known here"):
        decode_frames(path)


@pytest.mark.parametrize(
    "error", [AttributeError("has_b_frames"), IndexError("list index"), MemoryError(), RecursionError("deep")]
)
def test_whatever_reading_the_packets_raises_is_the_files_error(clips, monkeypatch, error):
    def fail(path, limits):
        raise error

    monkeypatch.setattr(decode, "read_frame_index", fail)
    with pytest.raises(VideoError, match=rf"cannot be read \({type(error).__name__}") as caught:
        probe(clips / "one.mp4")
    assert caught.value.path == str(clips / "one.mp4")


def kill_yourself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_decoder_that_kills_its_process_costs_one_call():
    with pytest.raises(RuntimeError, match=r"crashes \(SIGKILL\)"):
        call_in_child(20, kill_yourself)
    assert call_in_child(20, abs, -3) == 3


def test_a_decoder_that_hangs_is_ended():
    with pytest.raises(RuntimeError, match=r"takes more than 1 s"):
        call_in_child(1, time.sleep, 60)
    assert call_in_child(20, abs, -3) == 3


def leave(*_):
    os._exit(1)


def test_a_decoder_that_leaves_is_not_said_to_hang():
    with pytest.raises(RuntimeError, match=r"ends its process \(exit code 1\)"):
        call_in_child(20, leave)


def test_errors_of_a_child_are_those_of_the_function():
    with pytest.raises(InputError, match="at least one frame"):
        call_in_child(20, decode.interval_middles, 0.0, 1.0, 0)
    with pytest.raises(RuntimeError, match="bad operand"):
        call_in_child(20, abs, "x")


class DyingReader:
    def __init__(self, path, index, limits):
        kill_yourself()


def test_a_crash_of_a_fallback_is_the_files_error(clips, monkeypatch):
    decoders = dict(decode.READERS)
    child = decoders["decord"].func
    monkeypatch.setitem(decode.READERS, "decord", lambda *file: child("decord", DyingReader, *file))
    with pytest.raises(VideoError, match=r"cannot be decoded \(decord: crashes \(SIGKILL\)"):
        decode_frames(clips / "closed.mp4", decoder="decord")
    monkeypatch.undo()
    assert len(decode_frames(clips / "closed.mp4", 3, decoder="decord").frames) == 3


# What a file may cost


def test_more_frames_than_bytes(clips, tmp_path):
    content = bytearray((clips / "one.mp4").read_bytes())
    place = content.index(b"stts") + 8
    struct.pack_into(">II", content, place + 4, 5_000_000, 1)
    sizes = content.index(b"stsz") + 8
    struct.pack_into(">II", content, sizes, 1, 5_000_000)
    path = tmp_path / "many.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError, match=r"claims 5,000,000 frames in [\d,]+ bytes"):
        decode_frames(path)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (DecodeLimits(pixels=96 * 64 - 1), "has frames of 96 × 64 pixels, more than the 6,143 allowed"),
        (DecodeLimits(frames=99), "lists 100 frames, more than the 99 allowed"),
        (DecodeLimits(memory=12 * 96 * 64 * 3 - 1), "its 12 frames take 0.0 GB, more than the limit allows"),
        (DecodeLimits(seconds=1e-9), "takes more than 0 s|timed out"),
    ],
)
def test_a_limit_is_a_limit(clips, limits, reason):
    with pytest.raises(VideoError, match=reason):
        decode_frames(clips / "closed.mp4", limits=limits)


def test_at_the_limit(clips):
    limits = DecodeLimits(pixels=96 * 64, frames=100, memory=12 * 96 * 64 * 3)
    assert len(decode_frames(clips / "closed.mp4", limits=limits).frames) == 12


@pytest.mark.parametrize("name", ["pixels", "frames", "seconds", "memory"])
def test_limits_are_positive(name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        DecodeLimits(**{name: 0})


def test_spans_take_as_long_as_there_are_frames():
    starts = np.array([0.0, 3.0, 25.0, 2.6e10 - 5.0])
    spans = list(segment_spans(2.6e10, 10.0, starts=starts))
    assert spans == [(0.0, 10.0), (20.0, 30.0), (2.6e10 - 10.0, 2.6e10)]
    assert list(segment_spans(100.0, 10.0, 4.0, starts=np.array([50.0]))) == [(42.0, 52.0), (48.0, 58.0)]


def set_lengths(path: Path, *runs: tuple[int, int]) -> None:
    """Rewrite the index at the end of an mp4 to list runs of (frames, milliseconds each)."""
    content = bytearray(path.read_bytes())
    table = content.index(b"stts") + 8
    (old,) = struct.unpack_from(">I", content, table)
    content[table : table + 4 + 8 * old] = struct.pack(f">{1 + 2 * len(runs)}I", len(runs), *sum(runs, ()))
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        place = content.index(box) - 4
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + 8 * (len(runs) - old))
    path.write_bytes(content)


@pytest.mark.parametrize("claim", [130_000_000, 70_000])
def test_a_last_frame_that_claims_to_last_for_weeks(tmp_path, claim):
    times = [40 * n for n in range(12)]
    path = write_clip(tmp_path / "long.mp4", PICTURES[:12], "mjpeg", pix_fmt="yuvj420p", milliseconds=times)
    set_lengths(path, (11, 40 * 16), (1, claim * 16))  # the muxer's unit is a 16th of a millisecond
    with Video(path) as video:
        assert video.duration == pytest.approx(0.48)
        assert len(list(video.spans(10.0))) == 1
    assert numbers(path, 12) == list(range(12))


# The clock


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".ts", "libx264", {"g": "12"}),
        (".mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        (".ts", "mpeg2video", {"g": "12"}),
    ],
)
def test_recordings_joined_byte_by_byte(tmp_path, suffix, codec, options):
    parts = [
        write_clip(
            tmp_path / f"{start}{suffix}", PICTURES[start : start + 50], codec, options=options
        ).read_bytes()
        for start in (0, 50)
    ]
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(b"".join(parts))
    info = probe(path)
    assert info.duration == pytest.approx(4.0, abs=0.05)
    assert "its clock starts again (1 ×)" in info.remark
    assert numbers(path) == list(range(100))


def test_a_jump_of_ten_hours(tmp_path):
    times = [40 * n + (36_000_000 if n >= 50 else 0) for n in range(100)]
    path = write_clip(tmp_path / "gap.mkv", PICTURES, milliseconds=times)
    with Video(path) as video:
        spans = list(video.spans(10.0))
        assert "nothing was recorded for 36000 s" in video.remark
        assert spans[0] == (0.0, 10.0)
        assert spans[-1][1] == pytest.approx(36004.0)
        assert len(spans) == 2
        assert numbers(path, 10) == [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]
        for start, end in spans:
            shown = video.frames(12, start, end).timestamps
            assert start <= shown.min() <= shown.max() < end


def test_frames_that_share_one_time(tmp_path):
    path = write_clip(tmp_path / "a.mkv", PICTURES[:20], "mpeg4", options={"g": "99"})
    content = path.read_bytes()
    for number in range(1, 20):
        block, same = (struct.pack(">Bh", 0x81, ms) + b"\0\0\0\1\xb6" for ms in (40 * number, 0))
        assert content.count(block) == 1
        content = content.replace(block, same)
    path.write_bytes(content)
    assert "share their times" in probe(path).remark
    assert numbers(path, 20) == list(range(20))


def test_frames_without_a_length(tmp_path):
    path = write_clip(tmp_path / "a.mp4", PICTURES[:20], "mjpeg", pix_fmt="yuvj420p")
    set_lengths(path, (20, 0))
    assert numbers(path, 20) == list(range(20))


def test_an_avi_that_ends_in_dropped_frames_is_not_truncated(clips, tmp_path):
    content = bytearray((clips / "mpeg4.avi").read_bytes())
    movi, index = content.index(b"movi"), content.rindex(b"idx1")
    chunks, place = [], movi + 4
    while content[place : place + 4] == b"00dc":
        chunks.append(place)
        size = struct.unpack_from("<I", content, place + 4)[0]
        place += 8 + size + size % 2
    for number in range(60, 100):
        content[chunks[number] : chunks[number] + 4] = b"JUNK"
        struct.pack_into("<I", content, index + 8 + 16 * number + 12, 0)
    path = tmp_path / "dropped.avi"
    path.write_bytes(content)
    assert numbers(path, 4)[0] == 7


def test_the_clock_of_ordinary_files_is_believed(clips):
    assert {path.name: probe(path).remark for path in clips.iterdir() if probe(path).remark} == {}


# The sentence


def test_a_raw_stream(tmp_path):
    path = write_clip(tmp_path / "raw.h264", PICTURES)
    with pytest.raises(VideoError, match="is a raw h264 stream without times; put it into a container: ffmpeg -i"):
        decode_frames(path)


def test_an_encrypted_file(tmp_path):
    key = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
    path = write_clip(tmp_path / "secret.mp4", PICTURES, container_options=key)
    with pytest.raises(VideoError, match="is encrypted"):
        decode_frames(path)


def test_a_zip_of_pictures(tmp_path):
    path = tmp_path / "pictures.mp4"
    still = write_clip(tmp_path / "still.jpg", [picture(1)], "mjpeg", pix_fmt="yuvj420p")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(still)
    with pytest.raises(VideoError, match="is a zip archive, not a video"):
        decode_frames(path)


def test_a_still_beside_a_video_is_not_the_video(tmp_path):
    path = tmp_path / "motion.mp4"
    with av.open(str(path), "w") as container:
        tracks = []
        for frames, codec, pixels in ((1, "mjpeg", "yuvj420p"), (50, "mpeg4", "yuv420p")):
            stream = container.add_stream(codec, rate=25)
            scale = 4 if frames == 1 else 1
            stream.height, stream.width, stream.pix_fmt = 64 * scale, 96 * scale, pixels
            tracks.append((stream, [picture(n, 64 * scale, 96 * scale) for n in range(frames)]))
        for stream, pictures in tracks:
            for number, pixels in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    assert numbers(path, 50) == list(range(50))
