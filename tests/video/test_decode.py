"""Frames that come out of files, through every decoder."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dits_adapter.errors import InputError, VideoError
from dits_adapter.video import decode
from dits_adapter.video.decode import Video, decode_frames, probe
from tests.video.clips import number_of, picture, read_all, set_display_matrix, write_clip
from tests.video.conftest import CLIPS, PICTURES, UNEVEN, WIDE

FIRST = {"one.mp4": 5, "one.webm": 5, "trimmed.mp4": 30}
LENGTH = {"one.mp4": 1, "one.webm": 1, "trimmed.mp4": 38}

REFUSED_BY_DECORD = [
    *("open.mp4", "open.mkv", "ten_bit.mp4", "b_frames.avi", "untimed.avi"),
    *("stream.ts", "program.mpg", "windows.wmv", "trimmed.mp4"),
]
MAY_REFUSE = {
    "pyav": [],
    "decord": REFUSED_BY_DECORD,
    "torchcodec": ["b_frames.avi", "untimed.avi", "stream.ts", "program.mpg", "trimmed.mp4"],
}


def shown(times: np.ndarray, moment: float) -> int:
    """The number of the frame on screen at a moment, by looking at one after the other."""
    number = 0
    for later, time in enumerate(times):
        if time <= moment + 1e-6:
            number = later
    return number


def middles(start: float, end: float, n: int) -> list[float]:
    return [start + (end - start) * (2 * k + 1) / (2 * n) for k in range(n)]


def assert_right(path: Path, got: decode.DecodedFrames, moments: list[float]) -> None:
    if path.name.startswith("uneven"):
        times = np.array(UNEVEN) / 1000
    else:
        times = np.arange(LENGTH.get(path.name, 100)) / 25
    wanted = [shown(times, moment) for moment in moments]
    numbers = [number_of(frame) for frame in got.frames]
    assert numbers == [number + FIRST.get(path.name, 0) for number in wanted]
    np.testing.assert_allclose(got.timestamps, times[wanted], atol=0.0011)


@pytest.mark.parametrize("name", CLIPS)
def test_the_frames_in_the_middle_of_equal_intervals(clips, name):
    path = clips / name
    info = probe(path)
    got = decode_frames(path)
    assert got.frames.shape == (12, info.height, info.width, 3)
    assert got.frames.dtype == np.uint8
    assert got.timestamps.dtype == np.float64
    assert got.decoder == "pyav"
    assert_right(path, got, middles(0, info.duration, 12))


@pytest.mark.parametrize("name", CLIPS)
def test_no_decoder_returns_other_frames_than_asked(clips, name, decoder):
    path = clips / name
    duration = probe(path).duration
    with suppress(VideoError) if name in MAY_REFUSE[decoder] else nullcontext(), Video(path, decoder) as video:
        for start, end, n in ((0.3, 0.9, 5), (0.2, 1.0, 12), (0, 1.5, 2), (0.7, 0.71, 1)):
            if start < duration:
                got = video.frames(n, start, end)
                assert got.decoder == decoder
                assert_right(path, got, middles(start, min(end, duration), n))


@pytest.mark.parametrize("name", REFUSED_BY_DECORD)
def test_decord_is_not_used_where_it_returns_other_frames(clips, name):
    with pytest.raises(VideoError, match="decord: it does not find the right frames"):
        decode_frames(clips / name, decoder="decord")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 10), length=st.floats(0.01, 11), n=st.integers(1, 20), data=st.data())
def test_any_span_of_an_uneven_clip(clips, start, length, n, data):
    path = clips / data.draw(st.sampled_from(["uneven.mp4", "uneven.webm"]))
    with Video(path) as video:
        got = video.frames(n, start, start + length)
    assert_right(path, got, middles(start, min(start + length, video.duration), n))


def test_decoders_agree_pixel_by_pixel(clips, real_clips, tmp_path, decoder):
    deep = write_clip(tmp_path / "deep.mp4", PICTURES, pix_fmt="yuv420p10le")
    for path in (*real_clips, clips / "odd.webm", clips / "turned_90.mp4", clips / "narrow.mp4", deep):
        reference, got = decode_frames(path, decoder="pyav"), decode_frames(path, decoder=decoder)
        np.testing.assert_array_equal(got.timestamps, reference.timestamps)
        difference = np.abs(got.frames.astype(int) - reference.frames)
        assert difference.mean() < 1 if path == deep else difference.max() <= 2, path.name


def test_real_clips_give_the_frames_of_a_decoder_that_reads_on_from_the_start(real_clips):
    assert len(real_clips) == 4
    for path in real_clips:
        frames, times = read_all(path)
        got = decode_frames(path, 7, 1.0, 4.0)
        wanted = [shown(times, moment) for moment in middles(1.0, 4.0, 7)]
        np.testing.assert_allclose(got.timestamps, times[wanted], atol=1e-9)
        np.testing.assert_allclose(got.frames.astype(int), [frames[number] for number in wanted], atol=2)


def test_av1_where_it_can_be_encoded(tmp_path, decoder):
    try:
        path = write_clip(tmp_path / "av1.mp4", WIDE, "libsvtav1", options={"g": "24"})
    except ValueError as error:
        pytest.skip(f"no AV1 encoder here: {error}")
    assert_right(path, decode_frames(path, decoder=decoder), middles(0, 4.0, 12))


@pytest.mark.parametrize(
    ("matrix", "store"),
    [
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda frame: frame[::-1, ::-1].transpose(1, 0, 2)),
    ],
)
def test_mirrored_videos_come_upright(tmp_path, matrix, store):
    frames = [np.ascontiguousarray(store(frame)) for frame in PICTURES[:20]]
    path = set_display_matrix(write_clip(tmp_path / "mirrored.mp4", frames), *matrix)
    assert [number_of(frame) for frame in decode_frames(path, 20).frames] == list(range(20))


@pytest.mark.parametrize(
    ("name", "duration", "fps", "size"),
    [
        ("closed.mp4", 4.0, 25, (96, 64)),
        ("sound.mp4", 4.0, 25, (96, 64)),
        ("turned_90.mp4", 4.0, 25, (96, 64)),
        ("odd.webm", 4.0, 25, (97, 65)),
        ("one.mp4", 0.04, 25, (96, 64)),
        ("late.mkv", 4.0, 25, (96, 64)),
        ("trimmed.mp4", 1.52, 25, (96, 64)),
        ("uneven.webm", UNEVEN[-1] / 1000 + 0.04, 100 / (UNEVEN[-1] / 1000 + 0.04), (96, 64)),
    ],
)
def test_probe(clips, name, duration, fps, size):
    info = probe(clips / name)
    assert info.path == str(clips / name)
    assert info.duration == pytest.approx(duration, abs=1e-6)
    assert info.fps == pytest.approx(fps)
    assert (info.width, info.height) == size
    assert info.decoder == "pyav"


def test_one_frame_is_on_screen_the_whole_time(clips):
    got = decode_frames(clips / "one.mp4")
    assert [number_of(frame) for frame in got.frames] == [5] * 12
    assert got.timestamps.tolist() == [0] * 12


def test_a_clip_of_one_frame_takes_more_than_one(tmp_path):
    path = write_clip(tmp_path / "two.mp4", PICTURES[:2])
    assert [number_of(frame) for frame in decode_frames(path, 4).frames] == [0, 0, 1, 1]


def test_a_time_past_the_end_is_the_end(clips):
    np.testing.assert_array_equal(
        decode_frames(clips / "closed.mp4", end=99.0).frames, decode_frames(clips / "closed.mp4").frames
    )


def test_a_transform_sees_each_frame_once(clips):
    seen = []

    def mean(frame):
        seen.append(number_of(frame))
        return frame.mean(axis=(0, 1))

    with Video(clips / "one.mp4") as video:
        assert video.frames(12, transform=mean).frames.shape == (12, 3)
    assert seen == [5]
    with Video(clips / "closed.mp4") as video, pytest.raises(ZeroDivisionError):
        video.frames(3, transform=lambda frame: frame / (1 // 0))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files by /proc")
def test_no_file_stays_open(clips, bad_files, decoder):
    decode_frames(clips / "closed.mp4", 3, decoder=decoder)  # the process of the decoder stays
    before = os.listdir("/proc/self/fd")
    for path in (
        clips / "closed.mp4",
        clips / "trimmed.mp4",
        bad_files / "half_vp9.webm",
        bad_files / "noise.mp4",
    ):
        with suppress(VideoError):
            decode_frames(path, 3, decoder=decoder)
    assert os.listdir("/proc/self/fd") == before


def test_frames_of_a_program_stream_taken_one_by_one(tmp_path):
    """Its timestamps change after a seek."""
    frames = [picture(number) for number in range(250)]
    path = write_clip(tmp_path / "long.mpg", frames, "mpeg2video", options={"g": "12", "bf": "2"})
    _, times = read_all(path)
    for number in range(3, 250, 8):
        got = decode_frames(path, 1, times[number], times[number] + 0.02)
        assert number_of(got.frames[0]) == number


def test_tags_in_another_encoding_are_no_damage(tmp_path):
    path = write_clip(tmp_path / "tags.mp4", PICTURES[:10], metadata={"title": "xxTITLExx"})
    path.write_bytes(path.read_bytes().replace(b"xxTITLExx", "Café\xa0ööß".encode("latin-1")))
    assert len(decode_frames(path, 3).frames) == 3


@pytest.mark.parametrize("name", ["a:b.mp4", "-i.mp4", "héllo 日本 %d.mp4", "file:x.mp4"])
def test_odd_names_of_files(clips, tmp_path, monkeypatch, name, decoder):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "one.mp4", name)
    assert decode_frames(name, 2, decoder=decoder).frames.shape[0] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "at least one frame"),
        ({"start": 0.03, "end": 0.01}, "start < end"),
        ({"start": -1.0}, "0 <= start"),
        ({"decoder": "opencv"}, "auto, pyav, decord, torchcodec"),
    ],
)
def test_wrong_arguments(clips, options, message):
    with pytest.raises(InputError, match=message):
        decode_frames(clips / "one.mp4", **options)


def test_a_span_behind_the_end(clips):
    with pytest.raises(VideoError, match=r"lasts 4.00 s, nothing to see from 4.50 s on"):
        decode_frames(clips / "closed.mp4", start=4.5)


def test_pictures_are_read_as_they_were_drawn():
    assert [number_of(picture(number)) for number in range(256)] == list(range(256))
    assert number_of(picture(7)[::-1]) == -1
    assert number_of(picture(7)[:, ::-1]) == -1
