"""`Overview`: a collection's files, failures, gap and hubs, read in the background and kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from dits_adapter._wording import without_password
from dits_adapter.serve._answers import About
from dits_adapter.serve._background import Background, Progress, State
from dits_adapter.serve._hubs import GapAndHubs, measure_hubs
from dits_adapter.serve._listing import Listing, StoredFile, read_listing
from dits_adapter.serve._reload import Reloader

__all__ = [
    "CollectionFacts",
    "FailedFile",
    "FailurePage",
    "FilePage",
    "HubsState",
    "Overview",
]


class FailedFile(BaseModel):
    """File that gave no frames, and the reason."""

    path: str
    reason: str


class FilePage(BaseModel):
    """Page of the videos of the collection, by name.

    Attributes:
        total: number of videos whose name has the words; None before the collection is read.
    """

    total: int | None
    files: list[StoredFile]


class FailurePage(BaseModel):
    """Page of the files that failed, by path.

    Attributes:
        total: number of them whose path has the words; None before the collection is read.
    """

    total: int | None
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
        done, total: how far that is; a total of 0 is not known.
        error: the reason why it cannot be read; "" where it can.
        at: time at which it was read.
        sample: True where the files that are listed are a sample, as the collection is too large.
        seconds: duration of all videos, in a sample estimated; None before it is known.
        incomplete: number of videos whose segments are not all there; None where there are more than 200,000
            segments, which are not all read.
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
    total: int
    error: str
    at: datetime | None
    sample: bool = False
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
            total=state.total,
            error=state.error,
            at=_time(state),
        )
        if (listing := state.value) is None:
            return facts
        missing = sum(file.expected not in (None, file.segments) for file in listing.files)
        return facts.model_copy(
            update={
                "sample": not listing.whole,
                "seconds": listing.seconds(videos),
                "incomplete": missing if listing.counted else None,
                "failures": len(listing.failures),
            }
        )

    def files(self, words: str, offset: int, limit: int) -> FilePage:
        """Return a page of the videos that are known so far."""
        if (listing := self._known()) is None:
            return FilePage(total=None, files=[])
        chosen = _with_words(listing.files, words, lambda file: file.name)
        return FilePage(total=len(chosen), files=[file.stored() for file in chosen[offset : offset + limit]])

    def failures(self, words: str, offset: int, limit: int) -> FailurePage:
        """Return a page of the files that failed."""
        if (listing := self._known()) is None:
            return FailurePage(total=None, failures=[])
        chosen = _with_words(listing.failures, words, lambda failure: failure.path)
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


def _with_words(items: list[Any], words: str, text: Callable[[Any], str]) -> list[Any]:
    wanted = words.casefold().split()
    return [item for item in items if all(word in text(item).casefold() for word in wanted)]


def _time(state: State[Any]) -> datetime | None:
    return None if state.at is None else datetime.fromtimestamp(state.at, timezone.utc)
