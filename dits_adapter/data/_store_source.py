"""Vectors of videos in a store, read by the ids of texts' videos."""

from __future__ import annotations

import hashlib
import uuid
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import PurePath
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
from dits_adapter.stores.metadata import PointLayout, payload_fields, payload_value
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment

__all__ = ["StoreVideos", "StoredVideo", "StoredVideos"]

_IDS_A_REQUEST = 256

_NAMES = 1000
"""Segments that are looked at to say which fields there are, and which id may have been meant."""


_Span = tuple[float, float]

_PROBED = 4 * _NAMES
"""Segments that are read to learn whether a field holds the ids; one that holds a category has millions."""


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
    Names of video files that are values of no field stand for the paths that end in them: `a/1.mp4` for
    `/films/a/1.mp4`.

    Args:
        store: the collection.
        id_field: payload field that an id is a value of; "" for the segments' own ids; None to find it.
        label: source of the ids, for messages.
        names: function that reads all ids, each as often as there are spans of it.
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
        self._paths: dict[str, str] = {}

    @cached_property
    def field(self) -> str:
        """Payload field that the ids are values of: where none was given, the one that has the most of some ids.

        Raises:
            InputError: none of the ids is in the collection, with what it has instead; two fields have about as
                many, of different segments; or two paths end in a name.
            StoreError: the database cannot be reached.
        """
        described, others = self._candidates()
        names = self._names()
        while part := list(dict.fromkeys(islice(names, _IDS_A_REQUEST))):
            found: dict[str, dict[str, set[str | int]]] = {}
            for field in [*described, *others]:
                try:
                    segments = self._read(field, part, most=_PROBED)
                except StoreError:
                    if not found:
                        raise
                    continue  # some servers refuse a search by a field that is not indexed
                found[field] = {name: {segment.id for segment in several} for name, several in segments.items()}
                if field in described and 2 * len(segments) > len(part):
                    return field
            best = max(found, key=lambda field: len(found[field]))
            rivals = [field for field in found if 2 * len(found[field]) > len(found[best]) > 0]
            if any(found[field] != found[best] for field in rivals):
                fields = " and of ".join(map(_shown, rivals))
                raise InputError(
                    f"{self._label}: in {self._where} its ids are values of {fields}, which are of different "
                    "segments. Choose one with --id-field."
                )
            if found[best]:
                return best
        if (path := self._layout.path) in {*described, *others}:
            self._paths = self._endings(path)
            if self._paths:
                return path
        raise self._none_there()

    def require_some(self) -> None:
        """Refuse ids of which none is in the collection; errors as `field`."""
        _ = self.field

    @cached_property
    def _layout(self) -> PointLayout:
        metadata = self._store.metadata()
        return (metadata and metadata.layout) or PointLayout()

    def _endings(self, field: str) -> dict[str, str]:
        """Return the path that ends in an id, for each id that is the name of a video file; reads all payloads.

        Raises:
            InputError: an id is the end of two paths.
        """
        named = {PurePath(name).as_posix(): name for name in self._names() if without_suffix(name)}
        paths: dict[str, str] = {}
        for segment in self._store.read(ReadRequest()) if named else ():
            path = str(payload_value(segment.payload, field))
            parts = PurePath(path).parts
            for depth in range(1, len(parts)):
                name = named.get("/".join(parts[-depth:]))
                if name is not None and (other := paths.setdefault(name, path)) != path:
                    raise InputError(
                        f"{self._label}: in {self._where} both {other} and {path} end in {name!r}. Give as much "
                        "of the paths as tells them apart."
                    )
        return paths

    def _candidates(self) -> tuple[list[str], list[str]]:
        """Return the fields that are said to hold ids of videos, and others that may."""
        if self._id_field is not None:
            return [self._id_field], []
        metadata = self._store.metadata()
        if metadata is not None and metadata.layout is None:
            return ["video_id", "path", ""], []
        layout = self._layout
        names = {
            name: None
            for segment in self._store.read(ReadRequest(limit=_NAMES))
            for name, value in payload_fields(segment.payload)
            if isinstance(value, str | int) and not isinstance(value, bool)
        }
        described = [layout.video] if layout.video else []
        others = ["", layout.path, *filter(None, [layout.title]), *names]
        return described, [name for name in dict.fromkeys(others) if name not in described]

    def fetch(self, wanted: Sequence[tuple[str, _Span | None]]) -> Iterator[StoredVideo]:
        """Read the videos with these ids, or spans of them in seconds, in their order.

        Raises:
            InputError: as `field`.
            StoreError: the database cannot be reached.
        """
        for start in range(0, len(wanted), _IDS_A_REQUEST):
            part = wanted[start : start + _IDS_A_REQUEST]
            names = list(dict.fromkeys(name for name, _ in part))
            try:
                segments = self._read(self.field, names, vectors=True)
            except StoreError as error:
                raise StoreError(f"{error} What is written stays; the same command goes on from there.") from error
            for name, span in part:
                yield self._video(name, segments.get(name, []), span)

    def _read(
        self, field: str, ids: Sequence[str], *, vectors: bool = False, most: int | None = None
    ) -> dict[str, list[StoredSegment]]:
        """Read the segments of some videos by their ids, in other spellings too; an id without any is left out."""
        segments = self._exactly(field, ids, vectors, most)
        for spelling in (self._paths.get, self._stem, _canonical_uuid):
            others = (name for name in ids if name not in segments)
            spelled = {name: other for name in others if (other := spelling(name)) is not None}
            if spelled:
                again = self._exactly(field, list(spelled.values()), vectors, most)
                segments |= {name: again[other] for name, other in spelled.items() if other in again}
        return segments

    def _exactly(
        self, field: str, values: Sequence[str], vectors: bool, most: int | None
    ) -> dict[str, list[StoredSegment]]:
        request = ReadRequest(field=field, values=values, vectors=vectors, frames=vectors and self.frames > 0)
        groups: dict[str, list[StoredSegment]] = {name: [] for name in values}
        for segment in islice(self._store.read(request), most):
            if (several := groups.get(_name(segment, field))) is not None:
                several.append(segment)
        return {name: several for name, several in groups.items() if several}

    def _video(self, name: str, segments: Sequence[StoredSegment], span: _Span | None) -> StoredVideo:
        if not segments:
            return StoredVideo(reason="the collection has no such video")
        if span is not None and not (segments := _in_span(segments, span, self._layout)):
            return StoredVideo(reason=f"the collection has no segment from {span[0]:g} s to {span[1]:g} s of it")
        if span is None and len(segments) > 1 and not self._remarked:
            self._remarked = True
            warnings.warn(
                f"{self._where} has several segments of a video, such as {len(segments)} of {name!r}: the mean of "
                "their vectors is taken. To describe each, name segments by their own ids (--id-field '', in "
                "Python id_field='').",
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
        fields = sorted({name for segment in segments for name, _ in payload_fields(segment.payload)})
        field = self._id_field
        if field and segments and field not in fields:
            return InputError(
                f"{self._where} has no payload field {field!r}{did_you_mean(field, fields) or ';'} it "
                f"has {', '.join(fields) or 'none'}. Choose one with --id-field, or leave the option out."
            )
        first = next(self._names())
        candidates = [*chain(*self._candidates())]
        names = list(dict.fromkeys(_name(segment, candidates[0]) for segment in segments))
        examples = ", ".join(map(repr, names[:3])) or "none"
        paths = [payload_value(segment.payload, self._layout.path) for segment in segments]
        if self._layout.path in candidates[1:] and any(paths):
            examples += f", at paths such as {next(filter(None, paths))!r}"
        tried = f"now {field!r}" if field is not None else f"tried: {', '.join(map(repr, candidates))}"
        return InputError(
            f"{self._label}: not one of its ids is in {self._where}. The first is {first!r}"
            f"{did_you_mean(first, names) or ';'} the collection has {examples}. Check the ids, and --id-field "
            f"({tried})."
        )


def _name(segment: StoredSegment, field: str) -> str:
    return str(payload_value(segment.payload, field) if field else segment.id)


def _in_span(segments: Sequence[StoredSegment], span: _Span, layout: PointLayout) -> list[StoredSegment]:
    """Return the segments that lie in a span by half or more, or else the one that has most of it.

    A segment without times, which stands for a whole video or was named by its own id, is in any span.
    """
    shares = []
    for segment in segments:
        start, end = (payload_value(segment.payload, name) for name in (layout.start, layout.end))
        if not isinstance(start, int | float) or not isinstance(end, int | float) or not start < end:
            shares.append((1.0, 1.0))
            continue
        common = min(end, span[1]) - max(start, span[0])
        shares.append((common / (end - start), common))
    covered = [segment for segment, (share, _) in zip(segments, shares, strict=True) if share >= 0.5]
    best = max(range(len(segments)), key=lambda row: shares[row][1])
    return covered or ([segments[best]] if shares[best][1] > 0 else [])


def _shown(field: str) -> str:
    return f"the field {field!r}" if field else "the segments' own ids"


def _canonical_uuid(name: str) -> str | None:
    """Return a UUID as databases spell it; None for what is none, or is spelled so."""
    try:
        spelled = str(uuid.UUID(name))
    except ValueError:
        return None
    return None if spelled == name else spelled


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
        self._store, self._texts = store, texts
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
        place = [self._store.location, self._store.name, self._store.tenant, self._videos.field]
        return [hashlib.sha256(repr(place).encode("utf-8", "surrogateescape")).hexdigest()]

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
            for row, video in enumerate(self._videos.fetch([(name, None) for name in part])):
                if video.vector is None:
                    reasons[row] = video.reason
                else:
                    vectors[row] = video.vector
                    if video.frames is not None:
                        frames[row] = video.frames
            yield VideoBlock(np.array(part, object), vectors, frames, reasons)
