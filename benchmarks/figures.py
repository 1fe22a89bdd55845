"""Pictures of benchmark results. They need matplotlib (the extra `figures`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dits_adapter.evaluation._figures import new_axes
from dits_adapter.evaluation.comparison import Comparison

COLORS = {"plain": "#777777", "bank": "#4a8f29", "linear": "#1f6f8b", "network": "#c2571a", "paired": "#8a5aa8"}


def recall(comparison: Comparison, quoted: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw R@1 of every adapter, both directions, with its 95 % interval; quoted figures as crosses below.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = comparison.rows
    figure, axes = new_axes(1, 2, (10, 1.2 + 0.32 * (len(rows) + len(quoted))), sharey=True)
    names = [row.name for row in rows]
    for axis, direction in zip(axes.flat, ("text_to_video", "video_to_text"), strict=True):
        for place, row in enumerate(rows):
            retrieval = getattr(row, direction)
            value, interval = retrieval.metrics.r1, retrieval.intervals["r1"]
            axis.plot(interval, (place, place), color=COLORS[row.family], linewidth=2)
            axis.plot(value, place, "o", color=COLORS[row.family])
        axis.set(xlabel="R@1, %", title=direction.replace("_", " "))
        axis.grid(axis="x", alpha=0.3)
    for place, (name, values) in enumerate(quoted.items(), start=len(rows)):
        axes[0, 0].plot(values[0], place, "x", color="black")
        names.append(name)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
