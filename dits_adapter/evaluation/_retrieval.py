"""Retrieval in one direction: metrics, intervals and ranks; without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import shown_repr
from dits_adapter.evaluation.metrics import Interval, RetrievalMetrics, bootstrap

__all__ = ["Retrieval"]


@dataclass(frozen=True)
class Retrieval:
    """Retrieval on the test pairs in one direction.

    Attributes:
        metrics: the metrics that papers report.
        intervals: 95 % bootstrap interval of each metric; captions of one video are drawn together.
        ranks: rank of each query's right answer, below wrong answers of the same score.
    """

    metrics: RetrievalMetrics
    intervals: dict[str, Interval]
    ranks: tuple[float, ...] = field(repr=False)

    __repr__ = shown_repr

    @classmethod
    def of(cls, ranks: NDArray[np.floating], groups: NDArray[np.int64] | None = None) -> Retrieval:
        """Summarize (n,) ranks; queries of one group are drawn together, as for `bootstrap`."""
        return cls(RetrievalMetrics.from_ranks(ranks), bootstrap(ranks, groups), tuple(ranks.tolist()))

    def cells(self) -> list[str]:
        """Write R@1, R@5 and R@10 with their intervals, MdR and MnR, for tables."""
        recalls = [
            f"{getattr(self.metrics, name):.1f} [{self.intervals[name].low:.1f}, {self.intervals[name].high:.1f}]"
            for name in ("r1", "r5", "r10")
        ]
        return [*recalls, f"{self.metrics.mdr:g}", f"{self.metrics.mnr:.1f}"]
