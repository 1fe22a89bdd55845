"""Bank behind an adapter that is trained: texts of its pairs, each adapted by one that has not seen its video."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dits_adapter.adapters import Adapter, QueryBankAdapter, fit_query_bank
from dits_adapter.data.pairs import Pairs

__all__ = ["trainings", "with_bank"]

_FOLDS = 5

_CROSS_VALIDATED = 1000
"""Texts up to which each fold is adapted by an adapter of its own; of more, one part of about as many is."""


def trainings(texts: int) -> int:
    """Return the number of trainings on parts that the bank takes."""
    return _FOLDS if texts <= _CROSS_VALIDATED else 1


def with_bank(adapter: Adapter, pairs: Pairs, train: Callable[[Pairs], Adapter]) -> QueryBankAdapter:
    """Put a bank of the texts of the pairs behind an adapter.

    Args:
        adapter: trained on all pairs.
        pairs: the pairs.
        train: trains an adapter of the same kind on a part of them, `trainings` times.
    """
    count = max(_FOLDS, len(pairs) // _CROSS_VALIDATED)
    groups = pairs.groups.whole if len(pairs.groups) >= count else np.arange(len(pairs.video))
    part_of = (np.random.default_rng(0).permutation(int(groups.max()) + 1) % count)[groups]
    texts, adapted = [], []
    for part in range(trainings(len(pairs))):
        held = pairs.of_videos(np.flatnonzero(part_of == part))
        texts.append(held.text)
        adapted.append(train(pairs.of_videos(np.flatnonzero(part_of != part))).for_inference().adapt(held.text))
    return fit_query_bank(np.concatenate(texts), inner=adapter, adapted=np.concatenate(adapted))
