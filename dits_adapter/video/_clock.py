"""Clock of a video: its frames' times, where the file's own cannot be believed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Clock", "Gaps", "find_gaps", "read_clock"]

_Ticks = npt.NDArray[np.int64]

_DISTINCT = 0.9
"""Share of the frames that must have a time of their own; with fewer, times are no order."""

_PAUSE = 60.0
"""Seconds for which a frame may stay on screen in any video; longer where that is the video's pace."""

_PACES = 100
"""How many times longer than half of all frames a frame may stay on screen."""

_RESET = 0.5
"""Seconds by which decoding times must fall back for a reset of the clock."""

_RESET_UNSURE = 2.0
"""The same in a file that leaves out some decoding times: presentation times stand in for those."""


class Gaps(NamedTuple):
    """Stretches in which nothing was recorded, in seconds: (g,) starts and ends, ascending."""

    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]

    def moments(self, elapsed: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the times at which so many seconds were recorded."""
        lengths = self.ends - self.starts
        reached = self.starts - (np.cumsum(lengths) - lengths)
        return (
            elapsed + np.concatenate([[0.0], np.cumsum(lengths)])[np.searchsorted(reached, elapsed, side="right")]
        )

    def elapsed(self, time: float) -> float:
        """Return how many seconds were recorded up to a time."""
        return time - float(np.clip(time - self.starts, 0.0, self.ends - self.starts).sum())


class Clock(NamedTuple):
    """Presentation times of frames.

    Attributes:
        shown: (m,) presentation times in decoding order, repaired where the file's own are no order.
        ordered: True where they are the file's own, so that a decoder's frames can be told by them.
        remark: what was repaired; empty where nothing was.
    """

    shown: _Ticks
    ordered: bool
    remark: str


def read_clock(shown: _Ticks, decoded: _Ticks, *, frame: float, unit: float, timed: bool) -> Clock:
    """Find resets and repeated times in the times of a file's frames, and mend them.

    A recording that was joined from several starts its clock again at each; the parts are set one behind the
    other. Where frames share their times, they follow each other in decoding order.

    Args:
        shown: (m,) presentation times in decoding order.
        decoded: (m,) decoding times.
        frame: units that a frame usually lasts.
        unit: seconds a unit.
        timed: True if every packet states its decoding time.
    """
    back = np.flatnonzero(np.diff(decoded) * unit < -(_RESET if timed else _RESET_UNSURE)) + 1
    remark = ""
    if len(back):
        parts = np.split(shown, back)
        end = parts[0].max()
        for number, part in enumerate(parts[1:], 1):
            parts[number] = part - part.min() + end + max(1, round(frame))
            end = parts[number].max()
        shown = np.concatenate(parts)
        remark = f"its clock starts again ({len(back)} ×): the parts are set one behind the other"
    if len(np.unique(shown)) < _DISTINCT * len(shown):
        shown = np.round(np.arange(len(shown)) * max(1.0, frame)).astype(np.int64)
        return Clock(shown, False, "its frames share their times: they are taken in decoding order")
    return Clock(shown, not remark, remark)


def find_gaps(times: npt.NDArray[np.float64], end: float) -> tuple[Gaps, float, str]:
    """Return the gaps between ascending times of frames, the end of the last or a likelier one, and a remark."""
    if len(times) < 2:
        return Gaps(times[:0], times[:0]), end, ""
    lengths = np.diff(times)
    pace = float(np.median(lengths))
    longest = max(_PAUSE, _PACES * pace)
    after = np.flatnonzero(lengths > longest)
    gaps = Gaps(times[after] + pace, times[after + 1])
    remarks = (
        [f"nothing was recorded for {float((gaps.ends - gaps.starts).sum()):.0f} s of it"] if len(after) else []
    )
    if end - times[-1] > longest:
        remarks.append(
            f"its last frame claims to last for {end - times[-1]:,.0f} s: it is given the length of the others"
        )
        end = float(times[-1]) + pace
    return gaps, end, "; ".join(remarks)
