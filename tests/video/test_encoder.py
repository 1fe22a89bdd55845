"""VideoEncoder on real files, through a CLIP of random weights."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dits_adapter import VideoEncoder
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.encoders.dual import DualEncoder
from dits_adapter.errors import ArtifactError, InputError, SpaceMismatchError, VideoError
from dits_adapter.video import _child
from dits_adapter.video import _suspect as suspect
from dits_adapter.video._frames import segment_spans
from dits_adapter.video.decode import decode_frames
from tests.conftest import embed_images
from tests.video.clips import write_clip
from tests.video.conftest import PICTURES
from tests.waiting import wait_until

NAMES = ["closed.mp4", "uneven.webm", "turned_90.mp4", "odd.mp4", "one.mp4", "narrow.mp4", "open.mkv"]


@pytest.fixture(scope="module")
def encoder(tiny_clip):
    return VideoEncoder.from_pretrained(tiny_clip)


@pytest.fixture(scope="module")
def paths(clips):
    return [clips / name for name in NAMES]


@pytest.fixture
def broken(clips, tmp_path):
    """A clip of 4 s whose last second is lost: its packets are zeroed."""
    content = bytearray((clips / "fast_start.mp4").read_bytes())
    start = content.index(b"mdat") + 8
    end = content.index(b"moov") if content.index(b"moov") > start else len(content)
    content[start + (end - start) * 4 // 5 : end] = bytes(end - start - (end - start) * 4 // 5)
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    return path


def keys(segments):
    return [(segment.path, segment.start, segment.end) for segment in segments]


def test_vectors_are_those_of_the_sampled_frames(encoder, tiny_clip, paths):
    clip = load_encoder(tiny_clip)
    encoded = encoder.encode_video(paths)
    assert [segment.path for segment in encoded] == [str(path) for path in paths]
    for path, segment in zip(paths, encoded, strict=True):
        decoded = decode_frames(path, 12)
        raw = embed_images(clip, list(decoded.frames))
        frame_vectors = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        mean = frame_vectors.mean(axis=0)
        np.testing.assert_allclose(segment.frame_vectors, frame_vectors, atol=1e-5)
        np.testing.assert_allclose(segment.vector, mean / np.linalg.norm(mean), atol=1e-5)
        np.testing.assert_array_equal(segment.timestamps, decoded.timestamps)
        assert segment.vector.shape == (32,)
        assert segment.vector.dtype == segment.frame_vectors.dtype == np.float32
        assert (segment.start, segment.end, segment.decoder) == (0, segment.duration, "pyav")
    assert encoded[0].fps == 25
    assert encoded[0].duration == 4


def test_one_path_gives_one_record(encoder, clips):
    for path in (clips / "closed.mp4", str(clips / "closed.mp4")):
        segment = encoder.encode_video(path)
        assert segment.path == str(path)
        np.testing.assert_array_equal(segment.vector, encoder.encode_video([path])[0].vector)
    assert encoder.encode_video([]) == []


def test_alone_or_in_a_batch(encoder, paths):
    together = encoder.encode_video(paths, batch_frames=1000)
    for batch_frames in (1, 13, 24):
        for one, other in zip(encoder.encode_video(paths, batch_frames=batch_frames), together, strict=True):
            np.testing.assert_allclose(one.frame_vectors, other.frame_vectors, atol=1e-5)
            np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


def test_the_number_of_workers_changes_nothing(encoder, paths):
    options = {"segment_seconds": 0.4, "overlap": 0.1, "batch_frames": 30}
    reference = list(encoder.iter_segments(paths, workers=1, **options))
    assert len(reference) > 50
    for workers in (2, 5):
        segments = list(encoder.iter_segments(paths, workers=workers, **options))
        assert keys(segments) == keys(reference)
        for one, other in zip(segments, reference, strict=True):
            np.testing.assert_array_equal(one.frame_vectors, other.frame_vectors)
            np.testing.assert_array_equal(one.vector, other.vector)


def test_first_segments_can_be_left_out(encoder, clips):
    path = clips / "closed.mp4"
    whole = list(encoder.iter_segments([path], segment_seconds=1.0))
    rest = list(encoder.iter_segments([path], segment_seconds=1.0, skip=lambda path: 3))
    assert keys(rest) == keys(whole)[3:]
    np.testing.assert_array_equal(rest[0].vector, whole[3].vector)


def kill_yourself(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_suspect_is_read_in_another_process_first(encoder, clips, monkeypatch):
    paths = [str(clips / name) for name in ("closed.mp4", "one.mp4")]
    assert len(list(encoder.iter_segments(paths, suspect=lambda path: True))) == 2
    monkeypatch.setattr(suspect, "_read_through", kill_yourself)
    errors = []
    segments = list(encoder.iter_segments(paths, suspect=paths[0].__eq__, on_error=errors.append))
    assert [segment.path for segment in segments] == paths[1:]
    assert [str(error) for error in errors] == [
        f"{paths[0]}: cannot be decoded: in a process of its own, a decoder crashes (SIGKILL)"
    ]


def sleep(*_):
    time.sleep(600)


def test_an_interruption_does_not_wait_for_a_suspect(encoder, clips, monkeypatch, request):
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by the background jobs of a shell
    request.addfinalizer(partial(signal.signal, signal.SIGINT, usual))
    ended = []

    def interrupted(*call, **options):
        time.sleep(0.2)  # until the main thread has started this one, and waits for it
        os.kill(os.getpid(), signal.SIGINT)
        try:
            return _child.call_in_child(*call, **options)
        except RuntimeError as error:
            ended.append(str(error))
            raise

    monkeypatch.setattr(suspect, "_read_through", sleep)
    monkeypatch.setattr(suspect, "call_in_child", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(encoder.iter_segments(clips / "one.mp4", suspect=lambda path: True))
    wait_until(lambda: ended)
    assert ended == ["was stopped"]


def test_segments_of_a_long_video(encoder, clips):
    path = clips / "uneven.mp4"
    segments = list(encoder.iter_segments([path], segment_seconds=1.0, overlap=0.25))
    assert [(segment.start, segment.end) for segment in segments] == list(
        segment_spans(segments[0].duration, 1.0, 0.25)
    )
    for segment in segments[::4]:
        alone = decode_frames(path, 12, segment.start, segment.end)
        np.testing.assert_array_equal(segment.timestamps, alone.timestamps)
        vectors = embed_images(encoder.encoder, list(alone.frames))
        np.testing.assert_allclose(
            segment.frame_vectors, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-5
        )


def test_only_the_first_seconds_count(encoder, clips):
    path = clips / "closed.mp4"
    first = VideoEncoder(encoder.encoder, frames=encoder.frames, limit=2.0)
    whole = VideoEncoder(encoder.encoder, frames=encoder.frames, limit=1000.0)
    cut = first.encode_video(path)
    expected = next(encoder.iter_segments(path, segment_seconds=2.0))
    assert (cut.start, cut.end, cut.duration) == (0.0, 2.0, expected.duration)
    assert np.array_equal(cut.vector, expected.vector)
    assert np.array_equal(whole.encode_video(path).vector, encoder.encode_video(path).vector)
    with pytest.raises(InputError, match="limit is 0"):
        VideoEncoder(encoder.encoder, limit=0)


def test_bad_files_are_reported_in_their_turn_and_the_others_encoded(encoder, clips, bad_files):
    good = [str(clips / name) for name in ("closed.mp4", "one.mp4")]
    bad = sorted(str(path) for path in bad_files.iterdir() if path.name != "part")
    events: list[str] = []
    errors: list[VideoError] = []

    def note(error: VideoError) -> None:
        errors.append(error)
        events.append(error.path)

    for segment in encoder.iter_segments([good[0], *bad, good[1], "nowhere.mp4"], workers=3, on_error=note):
        events.append(segment.path)
    assert events == [good[0], *bad, good[1], "nowhere.mp4"]
    assert all(error.reason for error in errors)
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file"):
        encoder.encode_video(["nowhere.mp4", good[0]])


@pytest.mark.parametrize("batch_frames", [12, 500])
def test_a_file_that_breaks_off_gives_its_first_segments_and_one_error(encoder, clips, broken, batch_frames):
    whole = list(encoder.iter_segments([clips / "fast_start.mp4"], segment_seconds=0.3))
    events: list[object] = []
    for segment in encoder.iter_segments(
        [broken, clips / "one.mp4"], segment_seconds=0.3, batch_frames=batch_frames, on_error=events.append
    ):
        events.append(segment)
    error = next(event for event in events if isinstance(event, VideoError))
    place = events.index(error)
    assert 4 <= place < len(whole)
    assert error.path == str(broken)
    assert [event.path for event in events[place + 1 :]] == [str(clips / "one.mp4")]
    for segment, intact in zip(events[:place], whole, strict=False):
        np.testing.assert_allclose(segment.vector, intact.vector, atol=1e-5)


def test_paths_are_read_as_needed(encoder, clips):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield clips / "one.mp4"

    segments = encoder.iter_segments(endless(), batch_frames=24, workers=2)
    assert taken == 0
    for _ in range(10):
        next(segments)
    assert taken < 30
    segments.close()


def test_errors_do_not_wait_for_a_batch(encoder, bad_files):
    taken = 0

    def bad():
        nonlocal taken
        for _ in range(500):
            taken += 1
            yield bad_files / "noise.mp4"

    def stop(error: VideoError) -> None:
        raise KeyError(error.path)

    with pytest.raises(KeyError, match="noise"):
        list(encoder.iter_segments(bad(), workers=2, on_error=stop))
    assert taken < 50


def test_batches_go_across_videos_and_stay_in_their_bound(encoder, clips):
    sizes = []

    class Recording(DualEncoder):
        def embed_pixels(self, pixels):
            sizes.append(len(pixels))
            return super().embed_pixels(pixels)

    recording = VideoEncoder(Recording(**vars(encoder.encoder)), frames=10)
    assert len(recording.encode_video([clips / "one.mp4"] * 7, batch_frames=25)) == 7
    assert sizes == [20, 20, 20, 10]
    sizes.clear()
    recording.encode_video(clips / "one.mp4", batch_frames=4)
    assert sizes == [4, 4, 2]


def test_stopping_early_leaves_no_thread_behind(encoder, clips):
    before = set(threading.enumerate())
    segments = encoder.iter_segments([clips / "uneven.mp4"] * 20, segment_seconds=0.5, workers=3)
    next(segments)
    assert set(threading.enumerate()) > before
    segments.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment_seconds": 0}, "segment length"),
        ({"segment_seconds": 2, "overlap": 2}, "overlap"),
        ({"batch_frames": 0}, "batch_frames"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_options_are_refused_at_once(encoder, options, message):
    with pytest.raises(InputError, match=message):
        encoder.iter_segments([], **options)


def test_frames_and_decoder(tiny_clip, clips):
    encoder = VideoEncoder.from_pretrained(tiny_clip, frames=5, decoder="decord")
    segment = encoder.encode_video(clips / "closed.mp4")
    assert segment.frame_vectors.shape == (5, 32)
    assert segment.decoder == "decord"
    assert encoder.space.video.frames == 5
    with pytest.raises(VideoError, match=r"open.mp4: cannot be decoded.*\(decord: "):
        encoder.encode_video(clips / "open.mp4")
    with pytest.raises(InputError, match="at least one frame"):
        VideoEncoder.from_pretrained(tiny_clip, frames=0)


def test_still_frames_at_high_resolution(encoder, tmp_path):
    big = [np.kron(picture, np.ones((8, 8, 1), np.uint8)) for picture in PICTURES[:2]]
    path = write_clip(tmp_path / "big.mp4", big)
    assert encoder.encode_video(path).vector.shape == (32,)


@pytest.fixture
def adapter(encoder, tiny_clip, tmp_path):
    """Folder of an adapter trained with 5 frames, its CLIP beside it."""
    space = VideoEncoder(encoder.encoder, frames=5).space
    rng = np.random.default_rng(0)
    texts, videos = (rng.normal(size=(20, 32)).astype(np.float32) for _ in range(2))
    shutil.copytree(tiny_clip, tmp_path / tiny_clip.name)
    return Artifact(mean_shift(texts, videos), space).save(tmp_path / "adapter")


def test_an_adapter_brings_its_encoder_and_its_frames(adapter, tiny_clip, clips):
    encoder = VideoEncoder.from_pretrained(adapter)
    assert encoder.frames == 5
    assert encoder.space == Artifact.load(adapter).space
    same = VideoEncoder.from_pretrained(tiny_clip, frames=5)
    np.testing.assert_array_equal(
        encoder.encode_video(clips / "one.mp4").vector, same.encode_video(clips / "one.mp4").vector
    )


def test_another_encoder_of_the_same_width_is_refused(adapter, tiny_clip, other_clip):
    assert VideoEncoder.from_pretrained(adapter).frames == 5
    assert VideoEncoder.from_pretrained(adapter, frames=12).frames == 12  # which its texts find as well
    shutil.rmtree(adapter.parent / tiny_clip.name)
    shutil.copytree(other_clip, adapter.parent / tiny_clip.name)
    with pytest.raises(SpaceMismatchError, match="embed the same test"):
        VideoEncoder.from_pretrained(adapter)


def test_what_is_neither_a_clip_nor_an_adapter(tmp_path):
    with pytest.raises(ArtifactError, match=str(tmp_path)):
        VideoEncoder.from_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="no such folder"):
        VideoEncoder.from_pretrained(Path("/nowhere/at/all"))
