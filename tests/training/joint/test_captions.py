"""Captions of video files."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.data._splits import split_videos
from dits_adapter.training.joint.captions import Captions


def captions(videos: int, texts: int = 1) -> Captions:
    return Captions.of((f"v{i}", f"text {j} of {i}") for j in range(texts) for i in range(videos))


def test_captions_of_a_file(tmp_path):
    lines = [{"video": "b.mp4", "text": ["one", "two"]}, {"video": "a.mp4", "text": "three"}]
    lines += [{"video": "b.mp4", "text": "four"}]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    read = Captions.read(tmp_path / "pairs.jsonl")
    assert read.videos == (str(tmp_path / "b.mp4"), str(tmp_path / "a.mp4"))
    assert read.texts == ("one", "two", "three", "four")
    assert read.labels.tolist() == [0, 0, 1, 0]


def test_copies_of_a_file_are_one_video(tmp_path):
    for name, content in {"a.mp4": b"one", "b.mp4": b"two", "copy.mp4": b"one", "empty.mp4": b""}.items():
        (tmp_path / name).write_bytes(content)
    lines = [{"video": f"{name}.mp4", "text": f"of {name}"} for name in ("b", "a", "gone", "copy", "empty")]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.warns(UserWarning, match="of its 5 videos 1 is a copy"):
        read = Captions.read(tmp_path / "pairs.jsonl")
    assert [os.path.basename(video) for video in read.videos] == ["b.mp4", "a.mp4", "gone.mp4", "empty.mp4"]
    assert [(read.texts[n], int(label)) for n, label in enumerate(read.labels)] == [
        ("of b", 0),
        ("of a", 1),
        ("of gone", 2),
        ("of copy", 1),
        ("of empty", 3),
    ]


def test_videos_with_the_same_texts_are_on_one_side_of_a_split():
    pairs = [(f"{take}{n}", f"{'Shot' if take == 'a' else 'shot '} {n}") for n in range(10) for take in "ab"]
    pairs += [(f"{take}{n}", "music") for n in range(10) for take in "ab"]  # which joins none of them
    for seed in range(5):
        kept, held = Captions.of(pairs).split(0.3, seed)
        assert len(held.videos) == 6
        assert not {video[1:] for video in kept.videos} & {video[1:] for video in held.videos}


@given(videos=st.integers(2, 12), texts=st.integers(1, 3), seed=st.integers(0, 99))
def test_a_split_is_the_one_of_cached_pairs_and_keeps_texts_with_their_videos(videos, texts, seed):
    whole = captions(videos, texts)
    kept, held = whole.split(0.3, seed)
    rows = split_videos(videos, 0.3, seed)
    assert [sorted(part.videos) for part in (kept, held)] == [sorted(f"v{i}" for i in part) for part in rows]
    for part in (kept, held):
        assert all(
            text.endswith(f" {part.videos[row][1:]}") for text, row in zip(part.texts, part.labels, strict=True)
        )
    assert len(kept.texts) + len(held.texts) == len(whole.texts)


def test_the_digest_is_of_texts_and_grouping():
    base = captions(3)
    moved = Captions(("x", "y", "z"), base.texts, base.labels)
    assert moved.digest() == base.digest()
    assert Captions(base.videos, base.texts, base.labels[::-1]).digest() != base.digest()
