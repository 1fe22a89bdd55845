"""Vectors of videos in a store, read by the ids of texts' videos."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dits_adapter.data._ids import (
    ambiguous_stems,
    did_you_mean,
    id_digest,
    number_ids,
    unambiguous_stem,
    without_suffix,
)
from dits_adapter.data._vector_source import BLOCK_ROWS, TextSource, VideoBlock
from dits_adapter.errors import InputError, StoreError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import PointLayout, StoredSegment, payload_value

__all__ = ["StoreVideos", "StoredVideo", "StoredVideos"]

_IDS_A_REQUEST = 256

_NAMES = 1000
"""Segments that are looked at to say which fields there are, and which id may have been meant."""


class StoredVideo(NamedTuple):
    """Video of a store.

    Attributes:
        vector: (d,) float32 of unit norm; None where `reason` says why there is none.
        frames: (k, d) float32 of unit norm; None where they are not read.
        reason: one clause.
    """

    vector: NDArray[np.float32] | None = None
    frames: NDArray[np.float32] | None = None
    reason: str = ""


class StoredVideos:
    """Reader of the videos that ids name in a store.

    A video of several segments has the mean of their vectors, scaled to unit norm, which a warning says once.

    Args:
        store: the collection.
        id_field: payload field that an id is a value of; "" for the segments' own ids; None to find it.
        label: source of the ids, for messages.
        names: function that reads all ids, each once.
        stem: returns an id without the suffix of a video file, where that can mean no other one.

    Attributes:
        frames: frame vectors of each video; 0 where the store keeps none.

    Raises:
        StoreError, SpaceMismatchError: as `VideoStore.open`.
    """

    def __init__(
        self,
        store: VideoStore,
        id_field: str | None,
        *,
        label: str,
        names: Callable[[], Iterator[str]],
        stem: Callable[[str], str | None],
    ) -> None:
        videos = store.open().video
        self._store, self._id_field = store, id_field
        self._label, self._names, self._stem = label, names, stem
        self._where = f"the collection {store.collection!r}"
        self.frames = (videos.frames or 0) if store.capabilities.frames and videos.pooling == "mean" else 0
        self._remarked = False

    @cached_property
    def field(self) -> str:
        """Payload field that the ids are values of, that of the most where none was given.

        Raises:
            InputError: none of the ids is in the collection, with what it has instead.
            StoreError: the database cannot be reached.
        """
        fields = self._candidates()
        names = self._names()
        while part := list(islice(names, _IDS_A_REQUEST)):
            counts = {}
            for field in fields:
                counts[field] = len(self._read(field, part))
                if counts[field] == len(part):
                    break
            best = max(counts, key=lambda field: counts[field])
            if counts[best]:
                return best
        raise self._none_there()

    def require_some(self) -> None:
        """Refuse ids of which none is in the collection; errors as `field`."""
        _ = self.field

    def _candidates(self) -> list[str]:
        """Return the fields whose values the ids may be."""
        if self._id_field is not None:
            return [self._id_field]
        metadata = self._store.metadata()
        if metadata is not None and metadata.layout is None:
            return ["video_id", "path", ""]
        layout = (metadata and metadata.layout) or PointLayout()
        names = {
            name: None
            for segment in self._store.read(ReadRequest(limit=_NAMES))
            for name, value in segment.payload.items()
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
        described = [layout.video] if layout.video else []
        return list(dict.fromkeys([*described, "", layout.path, *filter(None, [layout.title]), *names]))

    def fetch(self, ids: Sequence[str]) -> Iterator[StoredVideo]:
        """Read the videos with these ids, in their order.

        Raises:
            InputError: as `field`.
            StoreError: the database cannot be reached.
        """
        for start in range(0, len(ids), _IDS_A_REQUEST):
            part = ids[start : start + _IDS_A_REQUEST]
            try:
                segments = self._read(self.field, part, vectors=True)
            except StoreError as error:
                raise StoreError(f"{error} What is written stays; the same command goes on from there.") from error
            for name in part:
                yield self._video(name, segments.get(name, []))

    def _read(self, field: str, ids: Sequence[str], *, vectors: bool = False) -> dict[str, list[StoredSegment]]:
        """Read the segments of some videos by their ids; an id without segments is left out."""
        segments = self._exactly(field, ids, vectors)
        others = (name for name in ids if name not in segments)
        stems = {name: stem for name in others if (stem := self._stem(name)) is not None}
        if stems:
            by_stem = self._exactly(field, list(stems.values()), vectors)
            segments |= {name: by_stem[stem] for name, stem in stems.items() if stem in by_stem}
        return segments

    def _exactly(self, field: str, values: Sequence[str], vectors: bool) -> dict[str, list[StoredSegment]]:
        request = ReadRequest(field=field, values=values, vectors=vectors, frames=vectors and self.frames > 0)
        groups: dict[str, list[StoredSegment]] = {}
        for segment in self._store.read(request):
            groups.setdefault(_name(segment, field), []).append(segment)
        return groups

    def _video(self, name: str, segments: Sequence[StoredSegment]) -> StoredVideo:
        if not segments:
            return StoredVideo(reason="the collection has no such video")
        if len(segments) > 1 and not self._remarked:
            self._remarked = True
            warnings.warn(
                f"{self._where} has several segments of a video, such as {len(segments)} of {name!r}: the mean of "
                "their vectors is taken. Name segments by their own ids, with id_field '', to describe each.",
                stacklevel=2,
            )
        segments = sorted(segments, key=lambda segment: payload_value(segment.payload, "start") or 0)
        vectors = [segment.vector for segment in segments if segment.vector is not None]
        if not vectors:
            return StoredVideo(reason="its segment lacks a vector")
        vector = _direction(np.stack(vectors))
        if vector is None:
            return StoredVideo(reason="its vector is zero, or holds NaN or infinite values")
        if not self.frames:
            return StoredVideo(vector)
        frames = [segment.frame_vectors for segment in segments]
        if any(of_frames is None for of_frames in frames):
            return StoredVideo(reason="its segment lacks a vector")
        every = np.concatenate([of_frames for of_frames in frames if of_frames is not None])
        if len(every) != self.frames * len(segments):
            n = len(every) // len(segments)
            return StoredVideo(reason=f"its segment has {n} frame vectors, others have {self.frames}")
        return StoredVideo(vector, every[len(segments) // 2 :: len(segments)])  # at equal distances

    def _none_there(self) -> InputError:
        """Return the refusal of a field that the collection lacks, or whose values are none of the ids."""
        segments = list(self._store.read(ReadRequest(limit=_NAMES)))
        fields = sorted({name for segment in segments for name in segment.payload})
        field = self._id_field
        if field and segments and field not in fields:
            return InputError(
                f"{self._where} has no payload field {field!r}{did_you_mean(field, fields) or ';'} it "
                f"has {', '.join(fields) or 'none'}. Choose one with --id-field, or leave the option out."
            )
        first = next(self._names())
        shown = self._candidates()[0] if field is None else field
        names = list(dict.fromkeys(_name(segment, shown) for segment in segments))
        examples = ", ".join(map(repr, names[:3])) or "none"
        tried = f"now {field!r}" if field is not None else f"tried: {', '.join(map(repr, self._candidates()))}"
        return InputError(
            f"{self._label}: not one of its ids is in {self._where}. The first is {first!r}"
            f"{did_you_mean(first, names) or ';'} the collection has {examples}. Check the ids, and --id-field "
            f"({tried})."
        )


def _name(segment: StoredSegment, field: str) -> str:
    return str(payload_value(segment.payload, field) if field else segment.id)


def _direction(vectors: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return the mean of the directions of vectors (n, d), of unit norm; None where it has none."""
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and norms.all()):
        return None
    mean = (exact / norms).mean(axis=0)
    norm = np.linalg.norm(mean)
    return (mean / norm).astype(np.float32) if norm > 0 else None


class StoreVideos:
    """A `VideoSource` of the videos in a store that texts describe.

    Args:
        store: the collection.
        texts: the texts, which name their videos.
        width: dimensions; None for those of the collection.
        id_field: as for `StoredVideos`.

    Raises:
        InputError: the texts do not name their videos, none of these is there, or the collection is of another
            width.
        StoreError, SpaceMismatchError: as `VideoStore.open`.
    """

    def __init__(self, store: VideoStore, texts: TextSource, width: int | None, id_field: str | None) -> None:
        self.width = store.open().video.width
        self.label = f"the collection {store.collection!r}"
        if width is not None and width != self.width:
            raise InputError(f"{self.label} has vectors of width {self.width}; {width} is expected.")
        self._texts = texts
        names, stems = bytearray(), bytearray()
        for name in texts.names():
            names += id_digest(name)
            stems += id_digest(without_suffix(name) or name)
        self._numbers = number_ids(names)
        self.count = int(self._numbers.max()) + 1
        alike = ambiguous_stems(stems, self._numbers)
        self._videos = StoredVideos(
            store,
            id_field,
            label=texts.label,
            names=self.ids,
            stem=lambda name: unambiguous_stem(name, alike),
        )
        self.frames = self._videos.frames
        self._videos.require_some()

    @property
    def digests(self) -> list[str]:
        return []

    def ids(self) -> Iterator[str]:
        seen = 0
        for number, name in zip(map(int, self._numbers), self._texts.names(), strict=True):
            if number == seen:
                yield name
                seen += 1

    def blocks(self, first: int = 0) -> Iterator[VideoBlock]:
        ids = islice(self.ids(), first, None)
        while part := list(islice(ids, BLOCK_ROWS)):
            vectors = np.zeros((len(part), self.width), np.float32)
            frames = np.zeros((len(part), self.frames, self.width), np.float32)
            reasons = np.full(len(part), "", object)
            for row, video in enumerate(self._videos.fetch(part)):
                if video.vector is None:
                    reasons[row] = video.reason
                else:
                    vectors[row] = video.vector
                    if video.frames is not None:
                        frames[row] = video.frames
            yield VideoBlock(np.array(part, object), vectors, frames, reasons)
