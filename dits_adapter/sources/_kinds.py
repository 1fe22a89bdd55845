"""Kinds of texts that people wrote: the source of each, and how likely it describes what is to be seen."""

from __future__ import annotations

from typing import Literal

from dits_adapter.sources.base import FoundText

__all__ = ["Kind", "of_kind"]

Kind = Literal["caption", "title", "description", "tags", "chapter", "name", "subtitles", "field"]

_KINDS: dict[Kind, tuple[str, float]] = {
    "caption": ("sidecar", 0.9),
    "title": ("title", 0.6),
    "description": ("title", 0.5),
    "tags": ("title", 0.5),
    "chapter": ("title", 0.5),
    "name": ("title", 0.4),
    "subtitles": ("subtitles", 0.3),
    "field": ("field", 0.6),
}
"""Source and confidence of each kind.

The confidences are estimates of ours, of which only the order is sure: a caption was written for the video, a
title to be clicked on, and what is said is seldom what is seen.
"""


def of_kind(kind: Kind, text: str, start: float | None = None, end: float | None = None) -> FoundText:
    """Return a text with the source and the confidence of its kind."""
    source, confidence = _KINDS[kind]
    return FoundText(text, source, confidence, start, end)
