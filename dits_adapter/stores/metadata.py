"""Description that a collection carries of its vectors: space, cut of videos, tenants, names of fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.text_lane import TextLane

__all__ = [
    "CollectionMetadata",
    "PointLayout",
    "check_tenant",
    "payload_fields",
    "payload_value",
    "require_segments",
]


class PointLayout(BaseModel):
    """Names under which a collection of another program keeps its segments.

    A field may lie within another one: `meta.title`. The defaults are those of collections made here.

    Attributes:
        vector: name of the pooled vector; "" is the unnamed one.
        video: payload field whose values are the videos that segments belong to; None where each is a video.
        title: payload field of what hits are shown as; None for their path, or else their video.
        path: payload field of the file or its address.
        start, end: payload fields of the segment's bounds, in seconds.
        texts: payload fields whose words `VideoFilter.words` are; by default `title` and `path`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    vector: str = "video"
    video: str | None = None
    title: str | None = None
    path: str = "path"
    start: str = "start"
    end: str = "end"
    texts: tuple[str, ...] = ()

    @property
    def searched_texts(self) -> tuple[str, ...]:
        """Payload fields whose words are searched."""
        return self.texts or tuple(field for field in (self.title, self.path) if field)

    def video_of(self, payload: Mapping[str, Any]) -> str | int | None:
        """Return the video that a payload names, the first of several; None where a segment stands for itself."""
        value = None if self.video is None else payload_value(payload, self.video)
        return next(iter(value), None) if isinstance(value, list) else value


def payload_value(payload: Mapping[str, Any] | None, key: str) -> Any:
    """Return the value of a payload field; `key` may lead into it, with dots. None where there is none."""
    value: Any = payload
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def payload_fields(payload: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a payload as `payload_value` takes them: those within another one by dots."""
    for name, value in payload.items():
        if isinstance(value, Mapping) and value:
            yield from payload_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def require_segments(seconds: float | None, overlap: float) -> None:
    """Refuse segments that cannot be cut.

    Args:
        seconds: length of a segment; None for one segment a video.
        overlap: seconds that neighboring segments share.

    Raises:
        InputError: segments without a length, or an overlap that is not shorter than they are.
    """
    whole = seconds is None and overlap == 0
    if not whole and (seconds is None or not 0 <= overlap < seconds < math.inf):
        raise InputError(
            f"segment_seconds is {seconds} and overlap is {overlap}; segments have a length, and overlap by less "
            "than it."
        )


class CollectionMetadata(BaseModel):
    """Description that a collection carries of how its vectors were made.

    Attributes:
        format: version of this layout.
        space: the embedding space of the vectors.
        segment_seconds: length of a segment, in seconds; None for one segment a video.
        overlap: seconds that neighboring segments share.
        tenants: True where the collection keeps tenants apart.
        layout: names of vector and fields in a collection that another program made; None in one of ours.
        bias: record of its score bias; None in a collection without.
        texts: record of the texts beside its segments; likewise.
        cosine: False where the scores of an adopted collection are no cosines, and probabilities are not known;
            True where they are. None in one of ours, in tables, which are always compared by cosines, and where
            there was nothing to see yet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    space: EmbeddingSpace
    segment_seconds: float | None = None
    overlap: float = 0.0
    tenants: bool = False
    layout: PointLayout | None = None
    bias: ScoreBias | None = None
    texts: TextLane | None = None
    cosine: bool | None = None

    @property
    def bias_in_use(self) -> ScoreBias | None:
        """Record of the score bias, once all segments have one; None before, and in a collection without."""
        return None if self.bias is None or self.bias.mean is None else self.bias

    def require_possible(self) -> None:
        """Refuse segments that cannot be cut.

        Raises:
            InputError: segments without a length, or an overlap that is not shorter than they are.
        """
        require_segments(self.segment_seconds, self.overlap)

    def require_same(
        self, existing: CollectionMetadata | None, collection: str, tenant: str | None = None
    ) -> None:
        """Refuse to store videos described by this metadata in a collection described by another.

        Args:
            existing: the metadata of the collection; None where the collection has none.
            collection: name of the collection, for the message.
            tenant: whose videos they are, likewise.

        Raises:
            SpaceMismatchError: the collection is of another embedding space.
            StoreError: the collection is foreign, cut in other segments, or keeps tenants otherwise.
        """
        if existing is None or existing.layout is not None:
            raise StoreError(
                f"the collection {collection!r} was made by something else than dits_adapter; ingest into a "
                "collection of its own, under another name."
            )
        theirs = f"the collection {collection!r}"
        self.space.video.require(existing.space.video, mine="the video encoder", theirs=theirs, together=True)
        if (existing.segment_seconds, existing.overlap) != (self.segment_seconds, self.overlap):
            raise StoreError(
                f"the collection {collection!r} holds {existing.segments_in_words}, and this asks for "
                f"{self.segments_in_words}. Ask for the same, or ingest into another collection."
            )
        if existing.tenants != self.tenants:
            raise StoreError(
                f"the collection {collection!r} "
                + (
                    "keeps tenants apart: say whose videos these are."
                    if existing.tenants
                    else f"does not keep tenants apart; for {tenant!r}, ingest into a new one."
                )
            )

    @property
    def segments_in_words(self) -> str:
        """Description of how videos are cut, for messages."""
        if self.segment_seconds is None:
            return "whole videos"
        return f"segments of {self.segment_seconds:g} s overlapping by {self.overlap:g} s"


def check_tenant(metadata: CollectionMetadata | None, tenant: str | None, collection: str) -> None:
    """Refuse a tenant where the collection keeps none apart, and none where it does.

    Raises:
        StoreError: naming the collection and the remedy.
    """
    separate = metadata is not None and metadata.tenants
    if separate and tenant is None:
        raise StoreError(f"the collection {collection!r} keeps tenants apart: say which, with tenant=….")
    if tenant is not None and not separate:
        raise StoreError(
            f"the collection {collection!r} does not keep tenants apart; leave out tenant={tenant!r}, or ingest "
            "into a new collection with it."
        )
