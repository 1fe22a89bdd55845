"""Copy of a collection from any store to any other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np

from dits_adapter._progress import progress_bar
from dits_adapter._wording import counted
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores._copied import begin_records, same_value, unfinished, write_records
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import BIAS
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import SegmentRow, StoredSegment, VideoRecord
from dits_adapter.stores.text_lane import SAID

if TYPE_CHECKING:
    from dits_adapter.stores.qdrant.store import QdrantStore

__all__ = ["CopyReport", "copy_collection"]

T = TypeVar("T")

_PAGE, _BATCH = 500, 64
"""Segments whose payloads, and whose vectors, are in memory at a time."""

_QDRANT = "dits_adapter.stores.qdrant.store"
"""Module of Qdrant's store, whose client an installation may lack."""


@dataclass(frozen=True)
class CopyReport:
    """Report of a copy that is complete.

    Attributes:
        store, collection: place and name of the destination.
        written: number of segments that were written.
        present: number of segments that the destination had already.
        failures: number of files that failed, which the copy remembers as well.
    """

    store: str
    collection: str
    written: int
    present: int
    failures: int

    def __str__(self) -> str:
        present = f", {counted(self.present, 'was', 'were')} there already" if self.present else ""
        return f"copied {counted(self.written, 'segment')}{present}; {self.collection} in {self.store} is complete"


def copy_collection(source: VideoStore, destination: VideoStore, *, progress: bool = True) -> CopyReport:
    """Copy segments, vectors, failures and metadata from any store to any other; nothing is embedded anew.

    The destination is made if it is missing. Segments that it has already are compared and left; so a copy that
    was interrupted is completed by the next one, and one that is repeated brings what has changed. Until it is
    complete, searches of it do without the score bias. Some hundred payloads and a few vectors are in memory.

    Between two places of Qdrant it is a copy of all tenants, with the options, the payload indexes and the payload
    fields of your own; shards and replicas are taken over from server to server. Otherwise, and for stores that
    were opened with a tenant, the segments of that tenant are copied. Frame vectors, the score bias and texts are
    left out where the destination keeps none.

    Args:
        source: a collection made by this package, to which nothing is written meanwhile.
        destination: another collection, of the same space and segments if it is there.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: both are the same collection, in one folder of Qdrant, or of two tenants.
        SpaceMismatchError: the destination is of another space.
        StoreError: the source is missing or foreign; the destination is cut otherwise, or has segments that the
            source has not; either fails on the way, or the numbers of segments differ at the end.
    """
    if source.tenant != destination.tenant:
        raise InputError(
            f"source and destination are of two tenants, {source.tenant!r} and {destination.tenant!r}."
        )
    if source.tenant is None and _is_qdrant(source) and _is_qdrant(destination):
        from dits_adapter.stores.qdrant._copy import copy_points

        counts = copy_points(source, destination, progress=progress)
    else:
        counts = _copy_segments(source, destination, progress=progress)
    return CopyReport(destination.location, destination.collection, *counts)


def _is_qdrant(store: VideoStore) -> TypeGuard[QdrantStore]:
    if not any(kind.__module__ == _QDRANT for kind in type(store).__mro__):
        return False
    from dits_adapter.stores.qdrant.store import QdrantStore

    return isinstance(store, QdrantStore)


def _copy_segments(source: VideoStore, destination: VideoStore, *, progress: bool) -> tuple[int, int, int]:
    """Copy in terms of all stores; return the segments written and present, and the failures."""
    if (source.place, source.collection) == (destination.place, destination.collection):
        raise InputError(f"source and destination are both {source.collection!r} in {source.location}.")
    metadata = source.metadata()
    if metadata is None or metadata.layout is not None:
        raise StoreError(
            f"the collection {source.name!r} was made by something else than dits_adapter; copy it with that."
        )
    source.open()
    able = destination.capabilities
    without = {name: None for name, keeps in (("bias", able.bias), ("texts", able.texts)) if not keeps}
    kept = metadata.model_copy(update=without)
    names = _FIELDS if able.bias else _FIELDS - {BIAS}
    destination.create(unfinished(kept))
    _require_no_others(source, destination)
    begin_records(destination, kept)
    written, present = 0, 0
    with (
        destination.bulk_load(progress=progress),
        progress_bar(total=source.count(), unit="segment", desc=destination.collection, progress=progress) as bar,
    ):
        for page in _pages(source.read(ReadRequest()), _PAGE):
            copied = {s.id: s.payload for s in destination.read(ReadRequest(ids=[s.id for s in page]))}
            facts = {id_: _facts(payload, names) for id_, payload in copied.items()}
            missing = [s.id for s in page if not same_value(_facts(s.payload, names), facts.get(s.id))]
            present += len(page) - len(missing)
            bar.update(len(page) - len(missing))
            for ids in _pages(missing, _BATCH):
                stored = source.read(ReadRequest(ids=ids, vectors=True, frames=True))
                rows = [_row(segment, names) for segment in stored]
                destination.write(rows)
                written += len(rows)
                bar.update(len(rows))
            if kept.texts is not None:
                has = {id_: copied[id_].get(SAID) for id_ in copied.keys() - set(missing)}
                texts = {s.id: s.payload.get(SAID) for s in page}
                destination.write_texts({id_: text for id_, text in texts.items() if text != has.get(id_)})
    failures = _copy_failures(source, destination)
    write_records(destination, kept)
    destination.finish()
    counts = source.count(), destination.count()
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy is not complete: {source.collection!r} has {counts[0]:,} segments and "
            f"{destination.collection!r} has {counts[1]:,}. Was something written meanwhile? Copy again."
        )
    return written, present, failures


def _require_no_others(source: VideoStore, destination: VideoStore) -> None:
    for page in _pages(destination.read(ReadRequest()), _PAGE):
        ids = {segment.id for segment in page}
        if others := ids - {segment.id for segment in source.read(ReadRequest(ids=list(ids)))}:
            raise StoreError(
                f"the collection {destination.collection!r} has segments that {source.collection!r} has not, such "
                f"as {min(map(str, others))}. Copy to another name (--to), or delete that collection first."
            )


def _copy_failures(source: VideoStore, destination: VideoStore) -> int:
    """Write the files that failed, and forget others, which the source reads by now; return their number."""
    failures = source.failures()
    paths = {each.path for each in failures}
    gone = [each for each in destination.failures() if each.path not in paths]
    if gone:
        destination.delete([VideoRecord(f.path, f.size, f.mtime_ns, failure=f.reason) for f in gone])
    if failures:
        destination.write_failures(failures)
    return len(failures)


def _pages(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while page := list(islice(iterator, size)):
        yield page


_FIELDS = frozenset(f.name for f in fields(SegmentRow)) - {"id", "vector", "frame_vectors", "bias"} | {BIAS}
"""Payload fields of segments that every store keeps."""


def _facts(payload: Mapping[str, Any], kept: Set[str]) -> dict[str, Any]:
    """Return those of the fields that a payload has."""
    return {name: payload[name] for name in kept if payload.get(name) is not None}


def _row(segment: StoredSegment, kept: Set[str]) -> SegmentRow:
    facts = _facts(segment.payload, kept)
    vector = segment.vector
    assert vector is not None
    frames = segment.frame_vectors
    return SegmentRow(
        id=str(segment.id),
        vector=vector,
        frame_vectors=np.empty((0, len(vector)), np.float32) if frames is None else frames,
        timestamps=tuple(facts.pop("timestamps")),
        segments=facts.pop("segments", None),
        bias=facts.pop(BIAS, None),
        **facts,
    )
