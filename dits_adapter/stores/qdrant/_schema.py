"""Segments of videos as points of a Qdrant collection, and filters on them.

A point is one segment of one video. It has two vectors, `video` (the pooled one, cosine, searched through HNSW)
and `frames` (one vector a frame, MaxSim, not indexed: for locating and re-ranking), and this payload:

| field               | meaning                                                                        |
|---------------------|--------------------------------------------------------------------------------|
| `video_id`          | UUID made from the file's content: a renamed file keeps its id                 |
| `path`              | where that content was last seen, absolute                                     |
| `words`             | words of the path, as filters compare them                                     |
| `start`, `end`      | the segment, in seconds                                                        |
| `timestamps`        | of the frames, in seconds                                                      |
| `duration`, `fps`   | of the whole video                                                             |
| `decoder`           | which decoder read it                                                          |
| `size`, `mtime_ns`  | of the file when it was read: an unchanged file is recognized without reading  |
| `tenant`            | whose it is, in a collection that keeps tenants apart                          |
| `score_bias`        | number b(v) of the collection's score bias, where it has one                   |
| `said`              | text beside the segment, where the collection has texts; its terms are the     |
|                     | sparse vector `said`                                                           |
| `segments`          | on a video's last segment only: how many there are; a video with fewer, or     |
|                     | without this number, was interrupted and is done again                         |

A file that could not be read is a point without vectors, which no search returns: `path`, `size`, `mtime_ns` and
`failure`, the reason. Everything that ingestion has to remember thus lives in the collection itself, and travels
with its snapshots, replicas and aliases.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from qdrant_client import models

from dits_adapter.errors import InputError
from dits_adapter.stores._words import words_of
from dits_adapter.stores.metadata import PointLayout, payload_value
from dits_adapter.stores.requests import ReadRequest, VideoFilter
from dits_adapter.stores.rows import FailureRow, SegmentRow, failure_id
from dits_adapter.stores.text_lane import TextLane

__all__ = [
    "FAILURE",
    "FRAMES",
    "METADATA_KEY",
    "NAME_RULE",
    "OURS",
    "POOLED",
    "TENANT",
    "WORDS",
    "failure_point",
    "group_values",
    "is_collection_name",
    "is_failure",
    "matching",
    "named_vectors",
    "native_filter",
    "plain_id",
    "read_filter",
    "said_query",
    "said_vector",
    "segment_point",
]

METADATA_KEY = "dits_adapter"
"""Key of the collection's metadata under which the `CollectionMetadata` is kept."""

POOLED, FRAMES = "video", "frames"
"""Names of the vectors of a point."""

OURS = PointLayout(vector=POOLED, video="video_id")
"""Layout of the points of our own collections."""

_FORBIDDEN = '<>:"/\\|?*'
"""Characters forbidden in names of collections: those of a server, which cover all file systems."""

NAME_RULE = f"a name has 1 to 255 bytes, and none of {_FORBIDDEN} in it"

TENANT, FAILURE, WORDS = "tenant", "failure", "words"
"""Payload fields: the tenant that a segment belongs to, the reason why a file gave no frames, a path's words."""


def named_vectors(params: models.CollectionParams) -> dict[str, models.VectorParams]:
    """Return the parameters of a collection's vectors by name; an unnamed vector is named ""."""
    vectors = params.vectors
    return vectors if isinstance(vectors, dict) else {"": vectors} if vectors else {}


def segment_point(row: SegmentRow, *, tenant: str | None = None) -> models.PointStruct:
    """Describe one segment as a point; without frame vectors, which Qdrant does not take empty, it lacks them."""
    vectors: dict[str, Any] = {POOLED: row.vector.tolist()}
    if len(row.frame_vectors):
        vectors[FRAMES] = row.frame_vectors.tolist()
    payload = row.payload() | {WORDS: words_of(row.path)} | _of_tenant(tenant)
    return models.PointStruct(id=row.id, vector=vectors, payload=payload)


def said_vector(text: str, lane: TextLane) -> models.SparseVector:
    """Describe the text beside a segment; Qdrant multiplies its terms by their idf (`models.Modifier.IDF`)."""
    terms, weights = lane.weights(text)
    return models.SparseVector(indices=terms, values=weights)


def said_query(text: str, lane: TextLane) -> models.SparseVector:
    """Describe a text to look for in what is said."""
    terms = lane.query(text)
    return models.SparseVector(indices=terms, values=[1.0] * len(terms))


def failure_point(row: FailureRow, *, tenant: str | None = None) -> models.PointStruct:
    """Describe a file that could not be read as a point without vectors."""
    payload = {"path": row.path, "size": row.size, "mtime_ns": row.mtime_ns, FAILURE: row.reason}
    return models.PointStruct(id=failure_id(row.path, tenant), vector={}, payload=payload | _of_tenant(tenant))


def _of_tenant(tenant: str | None) -> dict[str, str]:
    return {} if tenant is None else {TENANT: tenant}


def is_failure() -> models.Filter:
    """Match points of failures."""
    return models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=FAILURE))])


def native_filter(
    condition: VideoFilter | models.Filter | None, layout: PointLayout, *, ours: bool
) -> models.Filter | None:
    """Return a search's filter as Qdrant takes it; None where it admits every segment.

    Args:
        condition: the filter.
        layout: names of the payload fields.
        ours: True in a collection made here, whose points have the words of their path.

    Raises:
        InputError: a filter of something else.
    """
    if condition is None or isinstance(condition, models.Filter):
        return condition
    if not isinstance(condition, VideoFilter):
        raise InputError(f"filter is a {type(condition).__name__}; it is a VideoFilter or Qdrant's models.Filter.")
    conditions: list[models.Condition]
    if ours:
        conditions = [
            models.FieldCondition(key=WORDS, match=models.MatchValue(value=word))
            for word in words_of(condition.words)
        ]
    else:
        conditions = [
            models.Filter(should=[_has_text(field, word) for field in layout.searched_texts])
            for word in condition.words.split()
        ]
    if condition.min_duration is not None or condition.max_duration is not None:
        span = models.Range(gte=condition.min_duration, lte=condition.max_duration)
        conditions.append(models.FieldCondition(key="duration", range=span))
    return models.Filter(must=conditions) if conditions else None


def _has_text(field: str, word: str) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchText(text=word))


def read_filter(request: ReadRequest, vector: str, *, failures: bool) -> models.Filter:
    """Return the condition of the points that a request chooses.

    Args:
        request: the ids or values.
        vector: that points have which nothing else chooses.
        failures: True where the collection may have points of failures, which are no segments.
    """
    chosen: list[models.Condition]
    if request.ids is not None:
        chosen = [models.HasIdCondition(has_id=[id_ for id_ in request.ids if _is_id(id_)])]
    elif request.field is None:
        chosen = [models.HasVectorCondition(has_vector=vector)]
    else:
        digits = [value for value in request.values if value.isdecimal() and len(value) < 20]
        numbers = [int(value) for value in digits if int(value) < 1 << 63]
        if request.field:
            chosen = [models.Filter(should=matching(request.field, [*request.values, *numbers]))]
        else:
            uuids = [value for value in request.values if _is_uuid(value)]
            chosen = [models.HasIdCondition(has_id=[*uuids, *numbers])]
    if request.last:
        chosen.append(models.FieldCondition(key="segments", range=models.Range(gte=1)))
    return models.Filter(must=chosen, must_not=[is_failure()] if failures else None)


def _is_id(value: str | int) -> bool:
    """Return whether points may have this id: a number or a UUID."""
    return _is_uuid(value) if isinstance(value, str) else 0 <= value < 1 << 64


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def is_collection_name(name: str) -> bool:
    """Return whether a collection may have this name."""
    printable = not any(letter in _FORBIDDEN or ord(letter) < 32 for letter in name)
    return printable and 0 < len(name.encode("utf-8", "surrogatepass")) <= 255


def plain_id(point_id: models.ExtendedPointId) -> str | int:
    """Return the id of a point: a number, or a UUID as a string, as a server writes it."""
    return point_id if isinstance(point_id, int) else str(point_id)


def group_values(payload: Mapping[str, Any] | None, key: str) -> list[str | int]:
    """Return the groups that a payload belongs to; `key` may lead into it, with dots. Qdrant groups like this."""
    value = payload_value(payload, key)
    values = value if isinstance(value, list) else [value]
    return [v for v in dict.fromkeys(values) if isinstance(v, str | int) and not isinstance(v, bool)]


def matching(key: str, values: Iterable[str | int], most: int = 1 << 31) -> list[models.Condition]:
    """Match a field with any of these values; a condition takes those of one type, and at most this many."""
    conditions: list[models.Condition] = []
    values = list(values)
    for kind in (str, int):
        of_kind: list[Any] = [value for value in values if isinstance(value, kind)]
        for start in range(0, len(of_kind), most):
            match = models.MatchAny(any=of_kind[start : start + most])
            conditions.append(models.FieldCondition(key=key, match=match))
    return conditions
