"""Parts of the pairs of one training: to learn from, to choose by and to measure on."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from dits_adapter._wording import counted
from dits_adapter.data._named import PairsSource, named_pairs
from dits_adapter.data.pairs import Pairs, record_split
from dits_adapter.training._notes import sources_of, split_notes
from dits_adapter.training.config import TrainingConfig

__all__ = ["Parts", "warn_if_few"]

_MAX_ERROR = 5.0
"""Half-width of the 95 % interval, in points of R@1, above which a test split is too small to compare adapters."""


@dataclass(frozen=True)
class Parts:
    """Pairs of three sets of videos that have none in common.

    Attributes:
        train: pairs to learn from.
        validation: pairs to choose by.
        test: pairs to measure on.
        dataset: name of the pairs, for records.
        held_out: record of what was held out to measure on (`record_split`).
    """

    train: Pairs
    validation: Pairs
    test: Pairs
    dataset: str
    held_out: dict[str, Any]

    @classmethod
    def open(
        cls,
        pairs: PairsSource,
        config: TrainingConfig,
        *,
        test: PairsSource | None,
        test_fraction: float,
        dataset: str | None,
    ) -> Parts:
        """Load pairs and part them.

        Args:
            pairs: all pairs, or those to train on where `test` is given; or the path of their cache.
            config: seed, share of the validation videos, and most videos to hold out.
            test: held-out pairs of other videos, or the path of their cache.
            test_fraction: share of the videos to hold out where `test` is not given.
            dataset: name of the pairs; by default that of their cache.

        Raises:
            DITSError: no such cache, or a damaged one.
            InputError: too few videos, or a share outside (0, 1).
            SpaceMismatchError: test pairs of another space.
        """
        pairs, dataset = named_pairs(pairs, dataset)
        seed, most = config.seed, config.most_held_out
        record = record_split(pairs, test_fraction if test is None else None, seed, most)
        if test is None:
            rest, held_out = pairs.split(test_fraction, seed, most)
        else:
            rest, held_out = pairs, named_pairs(test)[0]
            pairs.space.require(held_out.space, mine="the training pairs", theirs="the test pairs")
        return cls(*rest.split(config.validation, seed, most), held_out.at_most(most, seed), dataset, record)

    def record(self) -> dict[str, Any]:
        """Return what an artifact records of the pairs: name, split, sizes, and what is to be known of them."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        split = self.train, self.validation, self.test
        known = {"sources": sources_of(split), "notes": list(split_notes([split]))}
        return {
            "dataset": self.dataset,
            "held_out": self.held_out,
            "pairs": {name: len(part) for name, part in parts.items()},
            "videos": {name: len(part.video) for name, part in parts.items()},
            **{name: value for name, value in known.items() if value},
        }


def warn_if_few(test: Pairs, advice: str, doubts: list[str] | None = None) -> None:
    """Warn where a test split is too small to compare adapters; `advice` ends the message, `doubts` gets it."""
    error = 196 * math.sqrt(0.25 / len(test.video))
    if error > _MAX_ERROR:
        fix = counted(len(test.video), "test video fixes", "test videos fix")
        message = f"the {fix} R@1 to about ± {error:.0f} points only; {advice}"
        warnings.warn(message, stacklevel=3)
        if doubts is not None:
            doubts.append(message)
