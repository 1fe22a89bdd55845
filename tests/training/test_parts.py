"""Parts of the pairs of a training: no video is in two of them, and what is measured on is bounded."""

from __future__ import annotations

import pytest

from dits_adapter.data.pairs import Pairs
from dits_adapter.training._parts import Parts
from dits_adapter.training.config import TrainingConfig
from tests.training.test_frozen import gap_pairs

CONFIG = TrainingConfig(validation=0.25, most_held_out=12, seed=3)


def seen(pairs: Pairs) -> set[bytes]:
    """Return the videos of pairs."""
    return {row.tobytes() for row in pairs.video}


def test_the_parts_have_no_video_in_common():
    whole = gap_pairs(40, 2)
    parts = Parts.open(whole, CONFIG, test=None, test_fraction=0.2, dataset="mine")
    split = parts.train, parts.validation, parts.test
    assert [len(part.video) for part in split] == [24, 8, 8]
    assert set.union(*map(seen, split)) == seen(whole)
    assert parts.record()["videos"] == {"train": 24, "validation": 8, "test": 8}
    assert parts.record()["pairs"] == {"train": 48, "validation": 16, "test": 16}
    assert (parts.record()["dataset"], parts.record()["held_out"]["fraction"]) == ("mine", 0.2)


def test_pairs_to_measure_on_that_are_given_are_bounded_too():
    whole, test = gap_pairs(40), gap_pairs(20, seed=1)
    with pytest.warns(UserWarning, match="of 20 videos to measure on 12 are drawn"):
        parts = Parts.open(whole, CONFIG, test=test, test_fraction=0.2, dataset=None)
    assert len(parts.test.video) == 12
    assert seen(parts.test) < seen(test)
    assert seen(parts.train) | seen(parts.validation) == seen(whole)
