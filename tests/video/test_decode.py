"""Which frames come out of which files, through every decoder."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dits_adapter.errors import DITSError, InputError, MissingExtraError, VideoError
from dits_adapter.video import decode, readers
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
def test_no_backend_returns_other_frames_than_asked(clips, name, decoder):
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


def test_backends_agree_pixel_by_pixel(clips, real_clips, tmp_path, decoder):
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


# --- Files that give no frames ------------------------------------------------------------------------------


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


def test_frames_of_a_program_stream_taken_one_by_one(tmp_path):
    """Its timestamps change after a seek."""
    frames = [picture(number) for number in range(250)]
    path = write_clip(tmp_path / "long.mpg", frames, "mpeg2video", options={"g": "12", "bf": "2"})
    _, times = read_all(path)
    for number in range(3, 250, 8):
        got = decode_frames(path, 1, times[number], times[number] + 0.02)
        assert number_of(got.frames[0]) == number


def test_sparse_frames_cost_little_decoding(clips, monkeypatch):
    decoded = 0

    class Counting(readers._PyAVReader):
        def __setattr__(self, name, value):
            super().__setattr__(name, self.count(value) if name == "_frames" else value)

        def count(self, frames):
            nonlocal decoded
            for frame in frames:
                decoded += 1
                yield frame

    monkeypatch.setitem(decode.READERS, "pyav", Counting)
    decode_frames(clips / "long_gop.mp4", 50)
    assert decoded <= 100  # each frame once: there is no keyframe to seek to
    decoded = 0
    for name in ("closed.mp4", "stream.ts"):
        decode_frames(clips / name, 3)
    assert decoded <= 3 * 12 + 3 * 24 + 3  # from the last keyframe; a transport stream may land late once a seek


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


def test_tags_in_another_encoding_are_no_damage(tmp_path):
    path = write_clip(tmp_path / "tags.mp4", PICTURES[:10], metadata={"title": "xxTITLExx"})
    path.write_bytes(path.read_bytes().replace(b"xxTITLExx", "Café\xa0ööß".encode("latin-1")))
    assert len(decode_frames(path, 3).frames) == 3


@pytest.mark.parametrize("name", ["a:b.mp4", "-i.mp4", "héllo 日本 %d.mp4", "file:x.mp4"])
def test_odd_names_of_files(clips, tmp_path, monkeypatch, name, decoder):
    monkeypatch.chdir(tmp_path)
    shutil.copy(clips / "one.mp4", name)
    assert decode_frames(name, 2, decoder=decoder).frames.shape[0] == 2


# --- Wrong arguments, missing and failing decoders ----------------------------------------------------------


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


def test_frames_that_nobody_needs_are_not_decoded(tmp_path, monkeypatch):
    drawn = [picture(number) for number in range(96)]
    b_frames = {"x264-params": "keyint=96:bframes=3:b-adapt=0:b-pyramid=none"}
    path = write_clip(tmp_path / "b.mp4", drawn, options=b_frames)
    shown = []
    real = readers._PyAVReader._decoded

    def counted(reader):
        for frame in real(reader):
            shown.append(frame)
            yield frame

    monkeypatch.setattr(readers._PyAVReader, "_decoded", counted)
    with Video(path, "pyav") as video:
        sparse = video.frames(4)
        assert 4 < len(shown) < 48
        everything = video.frames_at(np.arange(96) / 25)  # among them those that were left out a moment ago
    assert [number_of(frame) for frame in sparse.frames] == [12, 36, 60, 84]
    assert [number_of(frame) for frame in everything.frames] == list(range(96))
    assert np.array_equal(sparse.frames, everything.frames[12::24])


class BrokenReader:
    def __init__(self, path, index):
        pass

    def expect(self, numbers):
        pass

    def frame(self, number):
        raise RuntimeError("out of order\nstack follows")

    def close(self):
        pass


def test_a_failing_backend_gives_way_to_the_next(clips, monkeypatch):
    whole = decode_frames(clips / "closed.mp4")
    monkeypatch.setitem(decode.READERS, "pyav", BrokenReader)
    got = decode_frames(clips / "closed.mp4")
    assert got.decoder == "decord"
    np.testing.assert_allclose(got.frames.astype(int), whole.frames, atol=2)
    assert probe(clips / "closed.mp4").decoder == "decord"


def test_when_all_fail_one_error_says_what_each_said(clips, monkeypatch):
    for name in list(decode.READERS):
        monkeypatch.setitem(decode.READERS, name, BrokenReader)
    with pytest.raises(
        VideoError, match=r"\(pyav: out of order; decord: out of order; torchcodec: out of order\)"
    ):
        decode_frames(clips / "closed.mp4")


def test_a_backend_that_is_not_installed(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(MissingExtraError, match="decord2"):
        decode_frames(clips / "one.mp4", decoder="decord")
    assert decode_frames(clips / "one.mp4").decoder == "pyav"
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(decode.READERS, "pyav", BrokenReader)
    with pytest.raises(VideoError, match=r"cannot be decoded \(pyav: out of order\)$"):
        decode_frames(clips / "one.mp4")


def test_a_backend_that_is_installed_but_does_not_load(clips, monkeypatch, tmp_path):
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libavutil.so.56: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchcodec", raising=False)
    monkeypatch.delitem(sys.modules, "torchcodec.decoders", raising=False)
    with pytest.raises(DITSError, match=r"torchcodec is installed but does not load \(libavutil.so.56"):
        decode_frames(clips / "one.mp4", decoder="torchcodec")
    assert decode_frames(clips / "one.mp4").decoder == "pyav"


def test_pictures_are_read_as_they_were_drawn():
    assert [number_of(picture(number)) for number in range(256)] == list(range(256))
    assert number_of(picture(7)[::-1]) == -1
    assert number_of(picture(7)[:, ::-1]) == -1
