"""Texts put beside the segments of a collection by the time that they are of, and taken away."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath
from typing import Any

from dits_adapter._progress import progress_bar
from dits_adapter._reprs import shown_repr
from dits_adapter._wording import counted
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores._terms import check_language
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import PointLayout, payload_value
from dits_adapter.stores.ranking import OURS
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment
from dits_adapter.stores.text_lane import SAID, UNFINISHED, TextLane, TextStatistics

__all__ = ["TextReport", "TimedText", "attach_texts", "remove_texts"]

_BATCH = 256
"""Segments whose texts are written at a time."""

_LISTED = 5
"""Videos that a report names."""


@dataclass(frozen=True)
class TimedText:
    """Text that is said in a video, or written about it.

    Attributes:
        video: file of the video, the end of the path under which it is stored, or its id.
        text: the text.
        start, end: seconds that the text is of; None for the whole video.
    """

    video: str
    text: str
    start: float | None = None
    end: float | None = None


@dataclass
class TextReport:
    """Report of texts that were put beside segments.

    Attributes:
        written, removed, unchanged: segments whose texts were written, removed, or as they should be already.
        missing: videos of texts that the collection has not.
        outside: videos with a text of a time at which they have no segment, and how many of these texts.
    """

    written: int = 0
    removed: int = 0
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    outside: dict[str, int] = field(default_factory=dict)

    __repr__ = shown_repr

    def __str__(self) -> str:
        lines = [f"{counted(self.written, 'segment')} got texts, {self.unchanged:,} had them already"]
        if self.removed:
            lines.append(f"{counted(self.removed, 'segment has', 'segments have')} no text any more")
        if self.missing:
            lines.append(f"not in the collection: {_some(self.missing)}")
        if self.outside:
            number = counted(sum(self.outside.values()), "text is", "texts are")
            lines.append(f"{number} of a time outside of the video: {_some(list(self.outside))}")
        return "\n".join(lines)


def attach_texts(
    store: VideoStore, texts: Iterable[TimedText], *, language: str | None = "english", progress: bool = True
) -> TextReport:
    """Put texts beside the segments that they are of, so that searches find what is said.

    A text with a time goes to each segment that it shares some of it with, one without to all segments of its
    video. The segments of a video then have these texts, in the order of their times, in the place of any from
    before; those of videos that are not named stay. Interrupted, the same call goes on where it ended; called
    again, it adds the texts of segments that were stored since. All texts are in memory. Where the collection
    keeps tenants apart, the segments are those of the store's tenant.

    Args:
        store: the collection.
        texts: the texts.
        language: language whose endings do not matter when words are compared, by its name in English; None for
            words as they are. Texts that are there already keep theirs.
        progress: show progress bars on a terminal.

    Raises:
        InputError: a store that keeps no texts, an unknown language or another one than that of the texts that are
            there, no texts, none of a video in the collection, or a video that is the end of two stored paths.
        StoreError: as `VideoStore.open`; or the collection is of another program and was not adopted.
    """
    _require_able(store)
    check_language(language)
    store.open()
    metadata = store.metadata()
    if metadata is None:
        raise StoreError(
            f"the collection {store.name!r} is of another program; describe it first (dits-adapter adopt)."
        )
    lane = metadata.texts
    if lane is not None and lane.language != language:
        raise InputError(
            f"the texts of the collection {store.name!r} are compared in the language {lane.language or 'none'}, "
            f"not {language or 'none'}. Give that one, or take the texts away first (dits-adapter texts --remove)."
        )
    named = _Named(texts)
    report, changes, statistics = _compared(store, named, lane, language, progress)
    if named.join_names():
        report, changes, statistics = _compared(store, named, lane, language, progress)
    report.missing, report.outside = named.missing(), named.outside()
    if len(report.missing) == len(named):
        raise InputError(
            f"of {counted(len(named), 'video')} with texts none is in the collection {store.name!r}, such as "
            f"{report.missing[0]}; a video is named by its file, the end of its stored path, or its id."
        )
    if lane is None:
        average, information = statistics.average, statistics.information
        if not average:
            raise InputError("there is no word in the texts that belong to a segment.")
        lane = TextLane(language=language, average=average, information=information, revision=UNFINISHED)
        store.set_texts(None)  # texts of a record that is gone
    if not changes and lane.revision != UNFINISHED:
        return report
    store.set_texts(lane.model_copy(update={"revision": UNFINISHED}))
    queue = iter(changes.items())
    with _bar(store, len(changes), "texts", progress) as bar:
        while batch := dict(islice(queue, _BATCH)):
            store.write_texts(batch)
            report.written += sum(text is not None for text in batch.values())
            report.removed += sum(text is None for text in batch.values())
            bar.update(len(batch))
    information = statistics.information or lane.information  # where the last text was taken away
    store.set_texts(lane.model_copy(update={"information": information, "revision": uuid.uuid4().hex}))
    store.finish()
    return report


def _compared(
    store: VideoStore, named: _Named, lane: TextLane | None, language: str | None, progress: bool
) -> tuple[TextReport, dict[str | int, str | None], TextStatistics]:
    """Compare the texts of stored segments with those that they should have; return what is to be changed."""
    metadata = store.metadata()
    layout = (metadata and metadata.layout) or OURS
    report, changes, statistics = TextReport(), dict[str | int, str | None](), TextStatistics(language)
    with _bar(store, store.count(), "read", progress) as bar:
        for segment in store.read(ReadRequest()):
            bar.update()
            existing = (segment.payload.get(SAID) if lane is not None else None) or ""
            wanted = named.text_of(segment, layout)
            statistics.add(existing if wanted is None else wanted)
            if wanted is None:
                continue
            if existing == wanted:
                report.unchanged += bool(wanted)
            else:
                changes[segment.id] = wanted or None
    return report, changes, statistics


def remove_texts(store: VideoStore) -> bool:
    """Remove all texts from a collection, those of all tenants; return whether there were any.

    Raises:
        InputError: a store that keeps no texts.
        StoreError: as `VideoStore.open`.
    """
    _require_able(store)
    store.open()
    metadata = store.metadata()
    there_were = metadata is not None and metadata.texts is not None
    if metadata is not None:
        store.set_texts(None)
    return there_were


class _Named:
    """Texts by the names of their videos, and the segments that were found for them."""

    def __init__(self, texts: Iterable[TimedText]) -> None:
        self._texts: dict[str, list[TimedText]] = {}
        for text in texts:
            self._texts.setdefault(text.video, []).append(text)
        if not self._texts:
            raise InputError("there are no texts.")
        self._ends: dict[str, list[str]] = {}
        for name in self._texts:
            self._ends.setdefault(PurePath(name).as_posix(), []).append(name)
        self._also: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._placed: dict[str, set[int]] = {}
        self._paths: dict[str, str] = {}
        self._others: dict[str, dict[str, str]] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def text_of(self, segment: StoredSegment, layout: PointLayout) -> str | None:
        """Return the texts of a segment, a line each; None where its video has none at all."""
        names = self._names_of(segment, layout)
        if not names:
            return None
        start, end = (payload_value(segment.payload, of) for of in (layout.start, layout.end))
        found: list[TimedText] = []
        for name in names:
            placed = self._placed.setdefault(name, set())
            for number, text in enumerate(self._texts[name]):
                if _overlap(text, start, end):
                    placed.add(number)
                    found.append(text)
        found.sort(key=lambda text: -1.0 if text.start is None else text.start)
        return "\n".join(dict.fromkeys(" ".join(text.text.split()) for text in found))

    def missing(self) -> list[str]:
        """List the videos of which no segment was seen."""
        return [name for name in self._texts if name not in self._placed]

    def outside(self) -> dict[str, int]:
        """Count the texts of no segment, by video."""
        left = {name: len(self._texts[name]) - len(placed) for name, placed in self._placed.items()}
        return {name: number for name, number in left.items() if number}

    def join_names(self) -> bool:
        """Give videos the texts of their other names from now on; return whether there are such names.

        A name that is the best one of some video is of that alone: `a.mp4` beside `films/a.mp4` may be another
        file. So what are other names is known once all segments were seen, which then begins anew.

        Raises:
            InputError: another name of several videos.
        """
        others = {name: of for name, of in self._others.items() if name not in self._placed}
        for name, of in others.items():
            if len(of) > 1:
                raise _ambiguous(name, *sorted(of.values())[:2])
        if others:
            self._also = set(others)
            self._forget()
        return bool(others)

    def _names_of(self, segment: StoredSegment, layout: PointLayout) -> list[str]:
        """Return the name that says most of a segment's video, and its other names once they are known."""
        path = payload_value(segment.payload, layout.path)
        exact = [str(name) for name in (path, layout.video_of(segment.payload), segment.id) if name is not None]
        parts = PurePath(path).parts if isinstance(path, str) else ()
        ends = [name for first in range(len(parts)) for name in self._ends.get("/".join(parts[first:]), ())]
        names = list(dict.fromkeys(name for name in [*exact, *ends] if name in self._texts))
        if not names:
            return []
        best, *others = names
        described = str(path or segment.id)
        if best not in exact and (first := self._paths.setdefault(best, described)) != described:
            raise _ambiguous(best, first, described)
        for name in others:
            self._others.setdefault(name, {})[best] = described
        return [best, *(name for name in others if name in self._also)]


def _ambiguous(name: str, *paths: str) -> InputError:
    return InputError(
        f"both {' and '.join(paths)} are stored and end in {name!r}. Give as much of the paths as tells them "
        "apart."
    )


def _overlap(text: TimedText, start: Any, end: Any) -> bool:
    if text.start is None or text.end is None or not isinstance(start, float | int):
        return True
    if not isinstance(end, float | int) or end <= start:  # a video that was put in as a vector alone
        return True
    return text.start < end and (text.end > start or text.start == text.end >= start)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def _bar(store: VideoStore, total: int, what: str, progress: bool) -> Any:
    return progress_bar(total=total, unit="segment", desc=f"{store.collection}: {what}", progress=progress)


def _require_able(store: VideoStore) -> None:
    if not store.capabilities.texts:
        raise InputError(f"the store at {store.location} keeps no texts.")
