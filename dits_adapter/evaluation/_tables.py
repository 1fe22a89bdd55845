"""Tables in Markdown that also line up as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dits_adapter.evaluation.metrics import Difference

__all__ = ["duration", "durations", "markdown_table", "signed"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table that also lines up as plain text: first column to the left, others to the right.

    >>> print(markdown_table(["name", "R@1"], [["ridge", "9.5"], ["dits-10", "10.0"]]))
    | name    |  R@1 |
    |:--------|-----:|
    | ridge   |  9.5 |
    | dits-10 | 10.0 |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def signed(difference: Difference) -> str:
    """Write a difference in points with its interval.

    >>> signed(Difference(1.25, -0.5, 3.0))
    '+1.2 [-0.5, +3.0]'
    """
    return f"{difference.difference:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def duration(seconds: float) -> str:
    """Write a time in two digits or so.

    >>> duration(0.2), duration(45), duration(300), duration(9000)
    ('1 s', '45 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def durations(seconds: Mapping[str, float]) -> str:
    """Write times by name.

    >>> durations({"ridge": 2, "dits-10": 9000})
    'ridge (2 s), dits-10 (2.5 h)'
    """
    return ", ".join(f"{name} ({duration(time)})" for name, time in seconds.items())
