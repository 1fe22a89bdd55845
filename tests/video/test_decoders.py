"""Decoders: how much they decode, and what happens when one fails or is not installed."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from dits_adapter.errors import DITSError, MissingExtraError, VideoError
from dits_adapter.video import _child, decode
from dits_adapter.video.decode import Video, decode_frames, probe
from tests.video.clips import number_of, picture, write_clip


def test_sparse_frames_cost_little_decoding(clips, monkeypatch):
    decoded = 0

    class Counting(decode.READERS["pyav"]):
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


def test_frames_that_nobody_needs_are_not_decoded(tmp_path, monkeypatch):
    drawn = [picture(number) for number in range(96)]
    b_frames = {"x264-params": "keyint=96:bframes=3:b-adapt=0:b-pyramid=none"}
    path = write_clip(tmp_path / "b.mp4", drawn, options=b_frames)
    shown = []
    reader = decode.READERS["pyav"]
    real = reader._decoded

    def counted(open_file):
        for frame in real(open_file):
            shown.append(frame)
            yield frame

    monkeypatch.setattr(reader, "_decoded", counted)
    with Video(path, "pyav") as video:
        sparse = video.frames(4)
        assert 4 < len(shown) < 48
        everything = video.frames_at(np.arange(96) / 25)  # among them those that were left out a moment ago
    assert [number_of(frame) for frame in sparse.frames] == [12, 36, 60, 84]
    assert [number_of(frame) for frame in everything.frames] == list(range(96))
    assert np.array_equal(sparse.frames, everything.frames[12::24])


class BrokenReader:
    def __init__(self, path, index, limits):
        pass

    def expect(self, numbers):
        pass

    def frame(self, number):
        raise RuntimeError("out of order\nstack follows")

    def close(self):
        pass


def test_a_failing_decoder_gives_way_to_the_next(clips, monkeypatch):
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


def test_a_decoder_that_is_not_installed(clips, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(MissingExtraError, match="decord2"):
        decode_frames(clips / "one.mp4", decoder="decord")
    assert decode_frames(clips / "one.mp4").decoder == "pyav"
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    monkeypatch.setitem(decode.READERS, "pyav", BrokenReader)
    with pytest.raises(VideoError, match=r"cannot be decoded.*\(pyav: out of order\)$"):
        decode_frames(clips / "one.mp4")


def forget_torchcodec(monkeypatch):
    """Forget torchcodec, so that the next import looks for it; the end of the test undoes it."""
    for module in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, module, None)
        del sys.modules[module]


def test_a_decoder_that_is_installed_but_does_not_load(clips, monkeypatch, tmp_path):
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libavutil.so.56: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    forget_torchcodec(monkeypatch)
    with pytest.raises(DITSError, match=r"torchcodec is installed but does not load \(libavutil.so.56"):
        decode_frames(clips / "one.mp4", decoder="torchcodec")
    assert decode_frames(clips / "one.mp4").decoder == "pyav"


STAND_IN = """
import os
import av
from types import SimpleNamespace

class Data:
    def __init__(self, pixels):
        self.numpy = lambda: pixels

class VideoDecoder:
    def __init__(self, path, stream_index, seek_mode, num_ffmpeg_threads, dimension_order):
        assert (seek_mode, dimension_order) == ("exact", "NHWC")
        if "crash" in path:
            os.abort()
        with av.open(path) as container:
            self.frames = list(container.decode(container.streams[stream_index]))
        self.late = 1 if "late" in path else 0

    def get_frame_at(self, number):
        frame = self.frames[number + self.late]
        return SimpleNamespace(pts_seconds=frame.time, data=Data(frame.to_ndarray(format="rgb24")))
"""
"""torchcodec's interface, as far as it is used, on PyAV."""


def test_torchcodec_in_its_child(clips, tmp_path, monkeypatch):
    package = tmp_path / "torchcodec"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "decoders.py").write_text(STAND_IN)
    forget_torchcodec(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(_child, "_idle", [])  # children know the path of their start
    for name in ("crash", "late"):
        shutil.copy(clips / "closed.mp4", tmp_path / f"{name}.mp4")
    whole = decode_frames(clips / "closed.mp4", 5)
    got = decode_frames(clips / "closed.mp4", 5, decoder="torchcodec")
    assert got.decoder == "torchcodec"
    np.testing.assert_allclose(got.frames.astype(int), whole.frames, atol=2)
    np.testing.assert_array_equal(got.timestamps, whole.timestamps)
    with pytest.raises(VideoError, match=r"\(torchcodec: crashes \(SIGABRT\)\)"):
        decode_frames(tmp_path / "crash.mp4", decoder="torchcodec")
    with pytest.raises(VideoError, match=r"\(torchcodec: returned the frame of 0.440 s for that of 0.400 s\)"):
        decode_frames(tmp_path / "late.mp4", 5, decoder="torchcodec")
    for child in _child._idle:
        child.end()
