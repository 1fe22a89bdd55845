"""Copy of a collection from any store to any other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from dits_adapter._progress import progress_bar
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import SegmentRow, StoredSegment
from dits_adapter.stores.text_lane import SAID, UNFINISHED

__all__ = ["copy_segments"]

T = TypeVar("T")

_PAGE, _BATCH = 500, 64
"""Segments whose payloads, and whose vectors, are in memory at a time."""


def copy_segments(source: VideoStore, destination: VideoStore, *, progress: bool = True) -> int:
    """Copy segments, failures and metadata from any store to any other; nothing is embedded anew.

    The destination is made if it is missing. Segments that it has already are compared and left; so a copy that
    was interrupted is completed by the next one. Of a collection that keeps tenants apart, those of the stores'
    tenant are copied. Frame vectors, the score bias and texts are left out where the destination keeps none.

    Args:
        source: a collection made by this package, to which nothing is written meanwhile.
        destination: another collection, of the same space and segments if it is there.
        progress: show a progress bar on a terminal.

    Returns:
        How many segments were written.

    Raises:
        InputError: both are the same collection, or of two tenants.
        SpaceMismatchError: the destination is of another space.
        StoreError: the source is missing or foreign; the destination is cut otherwise, or has segments that the
            source has not; either fails on the way, or the numbers of segments differ at the end.
    """
    if (source.location, source.collection) == (destination.location, destination.collection):
        raise InputError(f"source and destination are both {source.collection!r} in {source.location}.")
    if source.tenant != destination.tenant:
        raise InputError(
            f"source and destination are of two tenants, {source.tenant!r} and {destination.tenant!r}."
        )
    metadata = source.metadata()
    if metadata is None or metadata.layout is not None:
        raise StoreError(
            f"the collection {source.name!r} was made by something else than dits_adapter; copy it with that."
        )
    source.open()
    able = destination.capabilities
    without = {name: None for name, keeps in (("bias", able.bias), ("texts", able.texts)) if not keeps}
    kept = metadata.model_copy(update=without)
    begun = kept
    if kept.texts is not None:  # whose revision says that all of them are there
        begun = kept.model_copy(update={"texts": kept.texts.model_copy(update={"revision": UNFINISHED})})
    destination.create(begun)
    _require_no_others(source, destination)
    existing = destination.metadata() or begun
    if existing.bias != kept.bias:
        destination.set_bias(kept.bias)
    if existing.texts != kept.texts:
        destination.set_texts(begun.texts)
    written = 0
    total = source.count()
    with (
        destination.bulk_load(progress=progress),
        progress_bar(total=total, unit="segment", desc=destination.collection, progress=progress) as bar,
    ):
        for page in _pages(source.read(ReadRequest()), _PAGE):
            copied = {s.id: s.payload for s in destination.read(ReadRequest(ids=[s.id for s in page]))}
            missing = [
                s.id for s in page if s.id not in copied or not _same(_facts(s.payload), _facts(copied[s.id]))
            ]
            bar.update(len(page) - len(missing))
            for ids in _pages(missing, _BATCH):
                rows = list(map(_row, source.read(ReadRequest(ids=ids, vectors=True, frames=True))))
                destination.write(rows)
                written += len(rows)
                bar.update(len(rows))
            if kept.texts is not None:
                has = {id_: copied[id_].get(SAID) for id_ in copied.keys() - set(missing)}
                texts = {s.id: s.payload.get(SAID) for s in page}
                destination.write_texts({id_: text for id_, text in texts.items() if text != has.get(id_)})
    if existing.texts != kept.texts:
        destination.set_texts(kept.texts)
    if failures := source.failures():
        destination.write_failures(failures)
    destination.finish()
    counts = source.count(), destination.count()
    if counts[0] != counts[1]:
        raise StoreError(
            f"the copy is not complete: {source.collection!r} has {counts[0]:,} segments and "
            f"{destination.collection!r} has {counts[1]:,}. Was something written meanwhile? Copy again."
        )
    return written


def _require_no_others(source: VideoStore, destination: VideoStore) -> None:
    for page in _pages(destination.read(ReadRequest()), _PAGE):
        ids = {segment.id for segment in page}
        if others := ids - {segment.id for segment in source.read(ReadRequest(ids=list(ids)))}:
            raise StoreError(
                f"the collection {destination.collection!r} has segments that {source.collection!r} has not, such "
                f"as {min(map(str, others))}. Copy to another name (--to), or delete that collection first."
            )


def _pages(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while page := list(islice(iterator, size)):
        yield page


_FIELDS = (
    "video_id",
    "path",
    "start",
    "end",
    "timestamps",
    "duration",
    "fps",
    "decoder",
    "size",
    "mtime_ns",
    "segments",
    "score_bias",
)


def _facts(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that every store keeps."""
    return {name: payload[name] for name in _FIELDS if payload.get(name) is not None}


def _same(first: Any, second: Any) -> bool:
    """Compare values; a database may read a decimal number back as the next float to it."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_same(value, second[key]) for key, value in first.items())
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(_same, first, second))
    if isinstance(first, float) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-12)
    return bool(first == second)


def _row(segment: StoredSegment) -> SegmentRow:
    facts = _facts(segment.payload)
    vector = segment.vector
    assert vector is not None
    frames = segment.frame_vectors
    return SegmentRow(
        id=str(segment.id),
        vector=vector,
        frame_vectors=np.empty((0, len(vector)), np.float32) if frames is None else frames,
        timestamps=tuple(facts.pop("timestamps")),
        segments=facts.pop("segments", None),
        bias=facts.pop("score_bias", None),
        **facts,
    )
