"""Text finders: the base class of every way from a video file to texts that describe it, and what they return."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from dits_adapter._reprs import short_repr

__all__ = ["Findings", "FoundText", "TextFinder"]


@dataclass(frozen=True)
class FoundText:
    """Text that was found for a video, or for a span of it.

    Attributes:
        text: the text; runs of white space count as one blank.
        source: where it comes from, as the line of the pairs file says: `subtitles`, `sidecar`, `title`, `field`,
            `speech`, `caption`, `query` or `feedback`.
        confidence: how likely the text is right for the video, above 0, at most 1; of a model's text, how sure it
            was of the words.
        start, end: the span in seconds, both or neither; without it the text is of the whole video.
    """

    text: str
    source: str
    confidence: float = 1.0
    start: float | None = None
    end: float | None = None


@dataclass
class Findings:
    """Texts of one video, and what was not taken.

    Attributes:
        texts: the texts.
        left_out: number of texts that were left out, by reason: a clause such as "repeats another text".
        failed: files that could not be read, and why; texts of other files were found nevertheless.
    """

    texts: list[FoundText] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)


class TextFinder(ABC):
    """Way from a video file to texts that describe it.

    Attributes:
        name: name of the way, as `--from` has it.
        sources: words that the `source` of its texts can be, and of no other way's: by them its lines are known.
        settings: options that change what is found, by name; with others all videos are done anew.
    """

    name: str
    sources: frozenset[str]
    settings: Mapping[str, str | float | bool | None]

    def __repr__(self) -> str:
        return short_repr(self, **self.settings)

    def files(self, path: str) -> Iterable[str]:
        """Name the files that are read for a video, itself first; when one changes the video is done anew."""
        return (path,)

    def state(self, path: str) -> str:
        """Return what tells whether a video's texts may have changed: sizes and times of its files."""
        parts = []
        for file in self.files(path):
            try:
                status = os.stat(file)
            except OSError:
                continue
            parts.append(f"{os.path.basename(file)} {status.st_size} {status.st_mtime_ns}")
        return "; ".join(parts)

    def begin(self, places: Collection[str]) -> None:  # noqa: B027 - most ways look at each file alone
        """Remember the folders and files that are searched, as absolute paths, before the first video."""

    def leftovers(self) -> Findings:
        """Return what belongs to no video, once all videos were gone through; without texts."""
        return Findings()

    @abstractmethod
    def find(self, path: str) -> Findings:
        """Find the texts of a video.

        Raises:
            VideoError, InputError: nothing can be read at all; the video is reported as failed, the rest goes on.
        """
