"""Files that lie, crash decoders or cost too much: each is one error that says why, or right frames."""

from __future__ import annotations

import math
import os
import shutil
import signal
import struct
import time
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest

from dits_adapter.errors import InputError, VideoError
from dits_adapter.video import _child, decode
from dits_adapter.video._child import call_in_child
from dits_adapter.video._frames import segment_spans
from dits_adapter.video._packages import error_line
from dits_adapter.video.decode import Video, decode_frames, probe
from dits_adapter.video.limits import DecodeLimits
from tests.video.clips import cut, number_of, picture, write_clip
from tests.video.conftest import PICTURES
from tests.video.hostile import (
    add_stream_midway,
    claim_frames,
    end_in_null_chunks,
    patched,
    set_lengths,
    shift_clock,
    write_equal_times,
    write_joined,
    write_motion_photo,
)
from tests.waiting import PATIENCE


def numbers(path: Path, n: int = 100) -> list[int]:
    return [number_of(frame) for frame in decode_frames(path, n).frames]


# One file never ends the run


def test_an_unknown_codec(clips, tmp_path):
    path = patched(clips / "mpeg4.avi", tmp_path / "unknown.avi", b"FMP4", b"QQQQ")
    with pytest.raises(VideoError, match="is in a video codec that is not known here"):
        decode_frames(path)


def test_a_stream_that_appears_midway(clips, tmp_path):
    path = Path(shutil.copy(clips / "stream.ts", tmp_path))
    add_stream_midway(path)
    with pytest.raises(VideoError, match=r"gains a stream on its way.*ffmpeg -i stream.ts -map 0:v -c copy"):
        decode_frames(path)


@pytest.mark.parametrize(
    "error", [AttributeError("has_b_frames"), IndexError("list index"), MemoryError(), RecursionError("deep")]
)
def test_whatever_reading_the_packets_raises_is_the_files_error(clips, monkeypatch, error):
    def fail(path, limits):
        raise error

    monkeypatch.setattr(decode, "read_frame_index", fail)
    with pytest.raises(VideoError, match=r"cannot be read: it is damaged.*\(FFmpeg \w+") as caught:
        probe(clips / "one.mp4")
    assert caught.value.path == str(clips / "one.mp4")
    assert type(error).__name__ not in caught.value.reason


def kill_yourself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_decoder_that_kills_its_process_costs_one_call():
    with pytest.raises(RuntimeError, match=r"crashes \(SIGKILL\)"):
        call_in_child(PATIENCE, kill_yourself)
    assert call_in_child(PATIENCE, abs, -3) == 3


def test_a_decoder_that_hangs_is_ended():
    with pytest.raises(RuntimeError, match=r"takes more than 1 s"):
        call_in_child(1, time.sleep, 600)
    assert call_in_child(PATIENCE, abs, -3) == 3


def leave(*_):
    os._exit(1)


def test_a_decoder_that_leaves_is_not_said_to_hang():
    with pytest.raises(RuntimeError, match=r"ends its process \(exit code 1\)"):
        call_in_child(PATIENCE, leave)


def test_errors_of_a_child_are_those_of_the_function():
    with pytest.raises(InputError, match="at least one frame"):
        call_in_child(PATIENCE, decode.interval_middles, 0.0, 1.0, 0)
    with pytest.raises(RuntimeError, match="does not know what to make of it"):
        call_in_child(PATIENCE, abs, "x")


def grow(size):
    block = bytearray(size)
    block[::4096] = b"x" * len(range(0, size, 4096))
    time.sleep(600)


def test_a_decoder_that_takes_all_memory_is_ended(monkeypatch):
    monkeypatch.setattr(_child, "_LIBRARIES", 0)
    with pytest.raises(RuntimeError, match=r"takes more than 0\.2 GB of memory"):
        call_in_child(PATIENCE, grow, 400_000_000, memory=2e8)
    assert call_in_child(PATIENCE, abs, -3, memory=2e8) == 3


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("first\nsecond", "first"),
        ("", "fails without saying why"),
        ("[19:53:36] /project/src/video_reader.cc:285: [/tmp/m.webm] broken metadata.", "broken metadata."),
        ("Check failed: send(ctx.get()) >= 0 (-1094995529 vs. 0) Error sending packet.", "Error sending packet."),
    ],
)
def test_a_decoders_words_without_its_source(message, line):
    assert error_line(RuntimeError(message)) == line


class DyingReader:
    def __init__(self, path, index, limits):
        kill_yourself()


def test_a_crash_of_a_fallback_is_the_files_error(clips, monkeypatch):
    decoders = dict(decode.READERS)
    child = decoders["decord"].func
    monkeypatch.setitem(decode.READERS, "decord", lambda *file: child("decord", DyingReader, *file))
    with pytest.raises(VideoError, match=r"cannot be decoded.*\(decord: crashes \(SIGKILL\)"):
        decode_frames(clips / "closed.mp4", decoder="decord")
    monkeypatch.undo()
    assert len(decode_frames(clips / "closed.mp4", 3, decoder="decord").frames) == 3


# What a file may cost


def test_more_frames_than_bytes(clips, tmp_path):
    path = Path(shutil.copy(clips / "one.mp4", tmp_path))
    claim_frames(path, 5_000_000)
    with pytest.raises(VideoError, match=r"claims 5,000,000 frames in [\d,]+ bytes"):
        decode_frames(path)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (DecodeLimits(pixels=96 * 64 - 1), "has frames of 96 × 64 pixels, more than the 6,143 allowed"),
        (DecodeLimits(frames=99), "lists 100 frames, more than the 99 allowed"),
        (DecodeLimits(memory=12 * 96 * 64 * 3 - 1), "its 12 frames take 0.0 GB, more than the limit allows"),
        (DecodeLimits(memory=96 * 64 * 32 - 1), r"of which a decoder may keep 0\.0002 GB, more than the 0\.0002"),
        (DecodeLimits(seconds=1e-9), "takes more than 0 s|timed out"),
    ],
)
def test_a_limit_is_a_limit(clips, limits, reason):
    with pytest.raises(VideoError, match=reason):
        decode_frames(clips / "closed.mp4", limits=limits)


def test_at_the_limit(clips):
    limits = DecodeLimits(pixels=96 * 64, frames=100, memory=12 * 96 * 64 * 3)
    got = decode_frames(clips / "closed.mp4", limits=limits)
    assert (len(got.frames), got.decoder) == (12, "pyav")


@pytest.mark.parametrize("name", ["pixels", "frames", "seconds", "memory"])
@pytest.mark.parametrize("value", [0, math.inf, math.nan])
def test_limits_are_positive(name, value):
    with pytest.raises(InputError, match=f"{name} is {value}"):
        DecodeLimits(**{name: value})


def test_a_film_of_ten_hours_in_4k_passes(tmp_path):
    hours = [0, 18_000_000, 36_000_000]
    pictures = [picture(n, 2160, 4096) for n in range(3)]
    film = write_clip(tmp_path / "film.mkv", pictures, "mjpeg", pix_fmt="yuvj420p", milliseconds=hours)
    assert numbers(film, 2) == [0, 1]
    limits = DecodeLimits()
    assert limits.frames > 10 * 3600 * 60
    assert limits.seconds_for(200 * 10**9) > 3600  # a disk reads it in less


def test_spans_take_as_long_as_there_are_frames():
    starts = np.array([0.0, 3.0, 25.0, 2.6e10 - 5.0])
    spans = list(segment_spans(2.6e10, 10.0, starts=starts))
    assert spans == [(0.0, 10.0), (20.0, 30.0), (2.6e10 - 10.0, 2.6e10)]
    assert list(segment_spans(100.0, 10.0, 4.0, starts=np.array([50.0]))) == [(42.0, 52.0), (48.0, 58.0)]


@pytest.mark.parametrize("claim", [130_000_000, 70_000])
def test_a_last_frame_that_claims_to_last_for_weeks(tmp_path, claim):
    times = [40 * n for n in range(12)]
    path = write_clip(tmp_path / "long.mp4", PICTURES[:12], "mjpeg", pix_fmt="yuvj420p", milliseconds=times)
    set_lengths(path, (11, 40 * 16), (1, claim * 16))  # the muxer's unit is a 16th of a millisecond
    with Video(path) as video:
        assert video.duration == pytest.approx(0.48)
        assert len(list(video.spans(10.0))) == 1
        assert video.remark.startswith(f"its last frame claims to last for {claim / 1000:,.0f} s")
    assert numbers(path, 12) == list(range(12))


def test_a_lone_frame_that_claims_to_last_for_weeks(tmp_path):
    path = write_clip(tmp_path / "long.mp4", PICTURES[:1], "mjpeg", pix_fmt="yuvj420p", milliseconds=[0])
    set_lengths(path, (1, 2_147_483_000))
    with Video(path) as video:
        assert list(video.spans(10.0)) == [(0.0, 10.0)]


def test_a_duration_of_centuries(tmp_path):
    times = [2_600_000_000_000 * n for n in range(11)]
    path = write_clip(tmp_path / "long.mkv", PICTURES[:11], "mjpeg", pix_fmt="yuvj420p", milliseconds=times)
    with Video(path) as video:
        assert video.duration == pytest.approx(2.6e10)
        spans = list(video.spans(10.0))
        assert len(spans) == 11
        assert [number_of(video.frames(2, *span).frames[1]) for span in spans[:10]] == list(range(10))


def test_a_header_that_promises_centuries(tmp_path):
    path = write_clip(tmp_path / "long.mkv", PICTURES[:10], "mpeg4")
    claim = b"\x44\x89\x88" + struct.pack(">d", 400.0)
    patched(path, path, claim, b"\x44\x89\x88" + struct.pack(">d", 2.6e13))
    with pytest.raises(VideoError, match=r"is truncated: 26000000000.00 s long by its header, data for 0.40 s"):
        probe(path)


# The clock


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".ts", "libx264", {"g": "12"}),
        (".mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        (".vob", "mpeg2video", {"g": "12", "bf": "2"}),
        (".ts", "mpeg2video", {"g": "12"}),
    ],
)
def test_recordings_joined_byte_by_byte(tmp_path, suffix, codec, options):
    path = write_joined(tmp_path / f"joined{suffix}", codec, options)
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
    path = write_equal_times(tmp_path / "a.mkv")
    assert "share their times" in probe(path).remark
    assert numbers(path, 20) == list(range(20))


def test_frames_without_a_length(tmp_path):
    path = write_clip(tmp_path / "a.mp4", PICTURES[:20], "mjpeg", pix_fmt="yuvj420p")
    set_lengths(path, (20, 0))
    assert numbers(path, 20) == list(range(20))


def test_an_avi_that_ends_in_null_chunks_is_not_truncated(clips, tmp_path):
    path = Path(shutil.copy(clips / "mpeg4.avi", tmp_path))
    end_in_null_chunks(path)
    assert numbers(path, 4)[0] == 7
    content = path.read_bytes()
    movi = content.index(b"movi")
    path.write_bytes(content[: (movi + content.index(b"00dc" + bytes(4), movi)) // 2])
    with pytest.raises(VideoError, match=r"truncated: 4.00 s long by its header"):
        decode_frames(path)


@pytest.mark.parametrize("after", [0.1, 2.0, 3.9])
def test_a_clock_that_wraps_soon_after_the_start(clips, tmp_path, after):
    path = Path(shutil.copy(clips / "stream.ts", tmp_path))
    with av.open(str(path)) as container:
        first = container.start_time / av.time_base
    shift_clock(path, (1 << 33) / 90000 - first - after)
    assert probe(path).remark == ""
    assert probe(path).duration == pytest.approx(4.0)
    assert numbers(path) == list(range(100))


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mkv", "mpeg4"), (".flv", "flv"), (".wmv", "wmv2"), (".mp4", "mpeg4")]
)
@pytest.mark.parametrize("seconds", [3, 60])
def test_a_late_start_hides_no_truncation(tmp_path, suffix, codec, seconds):
    times = [1000 * seconds + 40 * n for n in range(100)]
    fast = {"movflags": "faststart"} if suffix == ".mp4" else {}
    path = write_clip(
        tmp_path / f"late{suffix}",
        PICTURES,
        codec,
        milliseconds=times,
        container_options=fast,
        options={"g": "12"},
    )
    assert probe(path).duration == pytest.approx(4.0, abs=0.05)
    for share in (0.4, 0.7):
        with pytest.raises(VideoError, match=r"is truncated: (4\.0|3\.9|\d+,\d)\d* [bs]\w* long by its header"):
            probe(cut(path, share, f"cut{suffix}"))


def test_a_late_mp4_whose_duration_counts_from_zero_is_whole(tmp_path):
    times = [3000 + 40 * n for n in range(100)]
    path = write_clip(tmp_path / "late.mp4", PICTURES, "mpeg4", milliseconds=times)
    content = bytearray(path.read_bytes())
    struct.pack_into(">I", content, content.index(b"mvhd") + 20, 7000)
    path.write_bytes(content)
    assert probe(path).duration == pytest.approx(4.0)


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


@pytest.mark.parametrize("cover", [False, True])
def test_a_still_beside_a_video_is_not_the_video(tmp_path, cover):
    assert numbers(write_motion_photo(tmp_path / "motion.mp4", cover), 50) == list(range(50))
