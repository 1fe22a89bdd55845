"""Number of videos in a collection of another program, which may take reading all of its segments."""

from __future__ import annotations

__all__ = ["VideoCount"]

_TOLERANCE = 0.01
"""Share by which the number of segments may change before videos are counted anew."""


class VideoCount:
    """Number of videos, kept for as long as the number of segments stays the same within 1 %.

    Searches ask for it every few seconds, and a collection that grows meanwhile is not read through for each.
    """

    def __init__(self) -> None:
        self._kept: tuple[int, int] | None = None

    def of(self, segments: int) -> int | None:
        """Return the number of videos for this number of segments; None where they have to be counted."""
        if self._kept is None or abs(segments - self._kept[0]) > _TOLERANCE * self._kept[0]:
            return None
        return self._kept[1]

    def keep(self, segments: int, videos: int) -> int:
        """Keep, and return, the number of videos that was counted among this number of segments."""
        self._kept = segments, videos
        return videos
