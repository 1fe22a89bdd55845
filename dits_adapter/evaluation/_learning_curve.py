"""Learning curve: R@1 of some rows against the number of pairs that they were made of."""

from __future__ import annotations

from dataclasses import dataclass

from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import Difference

__all__ = ["CurvePoint", "LearningCurve"]


@dataclass(frozen=True)
class CurvePoint:
    """Figures with a number of pairs.

    Attributes:
        pairs: texts that were learnt from or chosen by.
        videos: their videos.
        r1: R@1 on the test pairs, by row.
        over_plain: R@1 over plain CLIP with its 95 % interval, by row.
        recommendation: row that would be recommended with as many pairs.
    """

    pairs: int
    videos: int
    r1: dict[str, float]
    over_plain: dict[str, Difference]
    recommendation: str


@dataclass(frozen=True)
class LearningCurve:
    """Figures with several numbers of pairs, all on the same test pairs, and what they say.

    Attributes:
        points: from few pairs to all.
        row: row that the question for more pairs is about: the recommended one, or the best but plain CLIP.
        doubling: mean reciprocal rank of that row with all pairs minus with half of them, with its 95 % interval.
    """

    points: tuple[CurvePoint, ...]
    row: str
    doubling: Difference

    @property
    def more_would_help(self) -> bool:
        """True where the second half of the pairs helped by more than noise."""
        return self.doubling.low > 0

    def markdown(self) -> str:
        """Write the curve as a table, and what would be recommended with half of the pairs."""
        rows = [
            [
                f"{point.pairs:,} ({point.videos:,})",
                *(f"{point.r1[name]:.1f}" for name in point.r1),
                point.recommendation,
            ]
            for point in self.points
        ]
        gain = "MRR {:+.3f} [{:+.3f}, {:+.3f}]".format(*self.doubling)
        verdict = "More pairs would help" if self.more_would_help else "No sign that more pairs would help"
        half = self.points[-2].recommendation
        return "\n\n".join(
            [
                "**R@1 against the number of pairs** (and of their videos):",
                markdown_table(["pairs", *self.points[-1].r1, "recommended"], rows),
                f"With half of the pairs: {half}. {verdict}: {self.row} gained {gain} from the second half.",
            ]
        )
