"""How many videos are held out, and that measuring takes no more."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.data._splits import split_videos
from dits_adapter.data.pairs import Pairs, held_out, record_split
from tests.spaces import made_up_space


def made_up(videos: int, texts: int = 2) -> Pairs:
    rng = np.random.default_rng(0)
    video = rng.normal(size=(videos, 4)).astype(np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    labels = rng.permutation(np.repeat(np.arange(videos), texts))
    return Pairs(rng.normal(size=(len(labels), 4)).astype(np.float32), video, labels, made_up_space(4))


def test_a_tenth_of_a_million_videos_would_be_too_many():
    train, held = split_videos(1_000_000, 0.1, 0)
    assert (len(train), len(held)) == (990_000, 10_000)  # what is not held out is learnt from
    assert not np.intersect1d(train, held).size


def test_the_cap_is_recorded_so_that_the_same_videos_are_found_again():
    pairs = made_up(60)
    _, held = pairs.split(0.5, 3, most=7)
    with pytest.warns(UserWarning, match="14 texts of 7 videos"):
        again = held_out(pairs, {"held_out": record_split(pairs, 0.5, 3, most=7)})
    np.testing.assert_array_equal(again.video, held.video)


def test_a_draw_keeps_all_texts_of_its_videos_and_says_so():
    pairs = made_up(60)
    assert pairs.at_most(60, 0) is pairs
    with pytest.warns(UserWarning, match="of 60 videos to measure on 9 are drawn"):
        part = pairs.at_most(9, 0)
    assert (len(part.video), len(part)) == (9, 18)
    for text, label in zip(part.text, part.labels, strict=True):
        whole = int(np.flatnonzero((pairs.text == text).all(1))[0])
        np.testing.assert_array_equal(part.video[label], pairs.video[pairs.labels[whole]])


def test_matches_are_the_texts_and_their_videos_in_memory_as_in_shards():
    pairs = made_up(60)
    rows = np.array([5, 0, 99, 5])
    np.testing.assert_array_equal(pairs.matches.text[rows], pairs.text[rows])
    np.testing.assert_array_equal(pairs.matches.video[rows], pairs.video[pairs.labels[rows]])
    np.testing.assert_array_equal(pairs.matches.video[3:50], pairs.video[pairs.labels[3:50]])
