"""The clips on disk: real mp4 files that show their scenes, made once, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks.clips import dataset
from benchmarks.clips.dataset import make_split, write_clip
from benchmarks.clips.scenes import SPLIT_SIZES, Scene, render, scenes


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> list[Scene]:
    monkeypatch.setitem(SPLIT_SIZES, "val", 3)
    return scenes("val")


@pytest.mark.parametrize("index", range(4))
def test_a_clip_plays_its_scene(tmp_path: Path, index: int) -> None:
    scene = scenes("test")[index]
    write_clip(scene, tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == scene.fps
        assert float(stream.duration * stream.time_base) == pytest.approx(scene.seconds)
    assert len(frames) == scene.frames
    for i, frame in enumerate(frames):
        assert frame.time == pytest.approx(i / scene.fps)
        shown, drawn = frame.to_ndarray(format="rgb24"), render(scene, (i + 0.5) / scene.fps)
        assert shown.shape == drawn.shape
        assert np.abs(shown.astype(float) - drawn).mean() < 6  # of 255: what the codec's chroma costs


def test_the_same_scene_gives_the_same_file(tmp_path: Path) -> None:
    for name, index in (("a", 0), ("other", 1), ("b", 0)):
        write_clip(scenes("test")[index], tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_split_is_made_once_and_resumed(tmp_path: Path, three: list[Scene]) -> None:
    records = make_split("val", tmp_path, workers=1)
    folder = tmp_path / "val"
    assert [record.video for record in records] == [f"{scene.name}.mp4" for scene in three]
    stored = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    assert [line["text"] for line in stored] == [list(record.captions) for record in records]
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}
    assert len(times) == 3

    lost = folder / records[1].video
    content = lost.read_bytes()
    lost.unlink()
    lost.with_name(f"{lost.name}.part").write_bytes(content[:1000])  # what a killed call leaves
    assert make_split("val", tmp_path, workers=1) == records
    assert lost.read_bytes() == content
    again = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.mp4")}
    assert {name for name in times if times[name] != again[name]} == {lost.name}
    assert not list(folder.glob("*.part"))


def test_a_clip_that_cannot_be_finished_does_not_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes("test")[0]

    def broken(scene: Scene, seconds: float) -> np.ndarray:
        if seconds > 1.0:
            raise MemoryError
        return render(scene, seconds)

    monkeypatch.setattr(dataset, "render", broken)
    with pytest.raises(MemoryError):
        write_clip(scene, tmp_path / "clip.mp4")
    assert not (tmp_path / "clip.mp4").exists()


def test_no_two_videos_of_the_test_split_share_a_key() -> None:
    keys = [dataset.item_of(scene).key for scene in scenes("test")]
    assert len(set(keys)) == len(keys)
