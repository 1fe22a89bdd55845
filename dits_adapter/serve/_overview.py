"""`Overview`: a collection's files, failures, gap and hubs, read in the background and kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from dits_adapter._wording import without_password
from dits_adapter.serve._answers import About
from dits_adapter.serve._background import Background, Progress, State
from dits_adapter.serve._hubs import GapAndHubs, measure_hubs
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import INGESTED
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.ranking import OURS
from dits_adapter.stores.requests import Hit, ReadRequest
from dits_adapter.stores.rows import FailureRow

__all__ = [
    "CollectionFacts",
    "FailedFile",
    "FailurePage",
    "FilePage",
    "HubsState",
    "Listing",
    "Overview",
    "StoredFile",
    "read_listing",
]

_MOST_SEGMENTS = 200_000
"""Segments that are read to list files; of a larger collection these are a sample."""

_SAMPLE = 4096
"""Segments by which gap and hubs are measured."""

_EVERY = 500


class StoredFile(BaseModel):
    """Video of the collection.

    Attributes:
        name: its title, path or id.
        video: URL of the file, as in `SearchResult`.
        seconds: duration; None where the collection does not say.
        segments: segments that were read.
        expected: segments that it has; None where the collection does not say.
    """

    video_id: str
    name: str
    video: str | None
    seconds: float | None
    segments: int
    expected: int | None


class FailedFile(BaseModel):
    """File that gave no frames, and the reason."""

    path: str
    reason: str


class FilePage(BaseModel):
    """Page of the videos of the collection, by name.

    Attributes:
        total: number of videos whose name has the words.
    """

    total: int
    files: list[StoredFile]


class FailurePage(BaseModel):
    """Page of the files that failed, by path.

    Attributes:
        total: number of them whose path has the words.
    """

    total: int
    failures: list[FailedFile]


class CollectionFacts(BaseModel):
    """Facts of a collection, and how far reading it is.

    Attributes:
        about: the collection that is searched, and the adapter.
        adapter_name: folder, bundled name or hub id of the adapter.
        store: place of the collection.
        tenant: whose videos these are; None in a collection that keeps no tenants apart.
        videos: number of whole videos.
        cut: how videos are cut into segments; None in a collection of another program.
        frames: True where the store keeps frame vectors.
        bias: weight of the score bias; None in a collection without.
        bias_fits: True where searches by the adapter use it.
        texts: True where texts lie beside segments.
        working: True while the collection is read.
        done: segments that were read so far, of `about.segments`.
        error: the reason why it cannot be read; "" where it can.
        at: time at which it was read.
        read: segments that were read; fewer than the collection has where it is large, so that files are a sample.
        seconds: duration of all videos, in a sample estimated; None before it is known.
        incomplete: number of videos whose segments are not all there; None in a sample.
        failures: number of files that failed; None before it is known.
    """

    about: About
    adapter_name: str | None
    store: str
    tenant: str | None
    videos: int
    cut: str | None
    frames: bool
    bias: float | None
    bias_fits: bool
    texts: bool
    working: bool
    done: int
    error: str
    at: datetime | None
    read: int
    seconds: float | None = None
    incomplete: int | None = None
    failures: int | None = None


class HubsState(BaseModel):
    """State of gap and hubs.

    Attributes:
        working: True while it is measured.
        done, total: how far that is.
        error: the reason why it cannot be measured; "" where it can.
        at: time at which it was measured.
        measured: None before that is done.
    """

    working: bool
    done: int
    total: int
    error: str
    at: datetime | None
    measured: GapAndHubs | None


@dataclass(frozen=True)
class Listing:
    """Files and failures of a collection.

    Attributes:
        files: videos by name; in a sample those whose last segment was read, which says how many they have.
        failures: files that failed, by path.
        read: number of segments that were read.
        whole: True where that was all.
        sample: ids of some segments, drawn by a seed.
    """

    files: list[StoredFile]
    failures: list[FailureRow]
    read: int
    whole: bool
    sample: list[str | int] = field(repr=False)

    def seconds(self, videos: int) -> float | None:
        """Return the duration of all videos, by the mean of those that are known."""
        known = [file.seconds for file in self.files if file.seconds is not None]
        return sum(known) / len(known) * videos if known else None


class Overview:
    """Overview of the collection that is searched; what it reads is read in threads that no search waits for.

    Args:
        serving: keeper of the searcher in use.
        feedback: file of feedback, whose queries hubs are measured with; None where none is kept.
    """

    def __init__(self, serving: Reloader, feedback: Path | None) -> None:
        self._serving = serving
        self._feedback = feedback
        self._listing = Background(lambda progress: read_listing(serving.searcher.store, progress), "listing")
        self._hubs = Background(self._measure, "hubness")

    def close(self) -> None:
        """End what is being read."""
        self._listing.close()
        self._hubs.close()

    def facts(self) -> CollectionFacts:
        """Return the facts; what has to be read for them is begun to be read.

        Raises:
            StoreError: the collection cannot be reached.
        """
        searcher = self._serving.searcher
        store, about = searcher.store, searcher.about()
        metadata = store.metadata()
        videos = store.count_videos()
        state = self._listed(about.segments)
        facts = CollectionFacts(
            about=about,
            adapter_name=searcher.encoder.name_or_path,
            store=without_password(store.location),
            tenant=store.tenant,
            videos=videos,
            cut=None if metadata is None or metadata.layout else metadata.segments_in_words,
            frames=store.capabilities.frames,
            bias=None if metadata is None or metadata.bias_in_use is None else metadata.bias_in_use.weight,
            bias_fits=bool(searcher.as_searched()[1]),
            texts=metadata is not None and metadata.texts is not None,
            working=state.working,
            done=state.done,
            error=state.error,
            at=_time(state),
            read=0 if state.value is None else state.value.read,
        )
        if (listing := state.value) is None:
            return facts
        missing = sum(file.expected not in (None, file.segments) for file in listing.files)
        return facts.model_copy(
            update={
                "seconds": listing.seconds(videos),
                "incomplete": missing if listing.whole else None,
                "failures": len(listing.failures),
            }
        )

    def files(self, words: str, offset: int, limit: int) -> FilePage:
        """Return a page of the videos that are known so far."""
        listing = self._known()
        chosen = [] if listing is None else _with_words(listing.files, words, lambda file: file.name)
        return FilePage(total=len(chosen), files=chosen[offset : offset + limit])

    def failures(self, words: str, offset: int, limit: int) -> FailurePage:
        """Return a page of the files that failed."""
        listing = self._known()
        chosen = [] if listing is None else _with_words(listing.failures, words, lambda failure: failure.path)
        page = [FailedFile(path=each.path, reason=each.reason) for each in chosen[offset : offset + limit]]
        return FailurePage(total=len(chosen), failures=page)

    def hubs(self) -> HubsState:
        """Return the state of gap and hubs, which begin to be measured once the files are listed."""
        listed = self._listed(self._serving.searcher.store.count())
        if listed.value is None:
            return HubsState(working=listed.working, done=0, total=0, error=listed.error, at=None, measured=None)
        searcher = self._serving.searcher
        state = self._hubs.look((searcher.store.collection, searcher.encoder.artifact.digest), listed.at)
        return HubsState(
            working=state.working,
            done=state.done,
            total=state.total,
            error=state.error,
            at=_time(state),
            measured=state.value,
        )

    def _listed(self, segments: int) -> State[Listing]:
        return self._listing.look(self._serving.searcher.store.collection, segments)

    def _known(self) -> Listing | None:
        return self._listed(self._serving.searcher.store.count()).value

    def _measure(self, progress: Progress) -> GapAndHubs:
        listing = self._known()
        ids = [] if listing is None else listing.sample
        return measure_hubs(self._serving.searcher, ids, self._feedback, progress)


def read_listing(store: VideoStore, progress: Callable[[int, int], None]) -> Listing:
    """Read the payloads of a collection, of a large one some, and gather its files.

    Raises:
        StoreError: the collection cannot be read.
    """
    total = store.count()
    metadata = store.metadata()
    ours = metadata is not None and metadata.layout is None
    layout = (metadata and metadata.layout) or OURS
    files: dict[str, StoredFile] = {}
    ids: list[str | int] = []
    for segment in store.read(ReadRequest(limit=_MOST_SEGMENTS)):
        if len(ids) % _EVERY == 0:
            progress(len(ids), total)
        ids.append(segment.id)
        hit = Hit.of(segment.id, segment.payload, 0.0, video_id=layout.video_of(segment.payload), layout=layout)
        file = files.get(hit.video_id) or files.setdefault(hit.video_id, _file(hit))
        file.segments += 1
        file.expected = file.expected or _number(segment.payload.get("segments"))
    whole = total <= _MOST_SEGMENTS
    kept = [file for file in files.values() if whole or not ours or file.expected]
    if not whole:
        for file in kept:
            file.segments = file.expected or file.segments
    return Listing(
        files=sorted(kept, key=lambda file: (file.name, file.video_id)),
        failures=sorted(store.failures(), key=lambda failure: failure.path) if ours else [],
        read=len(ids),
        whole=whole,
        sample=_draw(ids),
    )


def _file(hit: Hit) -> StoredFile:
    seconds: Any = hit.payload.get("duration")
    return StoredFile(
        video_id=hit.video_id,
        name=hit.title or hit.path or hit.video_id,
        video=f"api/videos/{hit.video_id}" if INGESTED in hit.payload else None,
        seconds=seconds if isinstance(seconds, float | int) and seconds > 0 else None,
        segments=0,
        expected=None,
    )


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _draw(ids: list[str | int]) -> list[str | int]:
    """Draw some ids by a seed, whatever order they were read in."""
    ordered = sorted(ids, key=str)
    if len(ordered) <= _SAMPLE:
        return ordered
    return [ordered[row] for row in np.random.default_rng(0).choice(len(ordered), _SAMPLE, replace=False)]


def _with_words(items: list[Any], words: str, text: Callable[[Any], str]) -> list[Any]:
    wanted = words.casefold().split()
    return [item for item in items if all(word in text(item).casefold() for word in wanted)]


def _time(state: State[Any]) -> datetime | None:
    return None if state.at is None else datetime.fromtimestamp(state.at, timezone.utc)
