"""Modality gap and hubs of a sample of a collection, before and after the adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from dits_adapter._wording import counted
from dits_adapter.adapters import QueryBankAdapter
from dits_adapter.encoder import check_queries
from dits_adapter.errors import InputError
from dits_adapter.evaluation.hubness import Hubness
from dits_adapter.evaluation.metrics import DotProducts
from dits_adapter.evaluation.score_bias import BiasedScores
from dits_adapter.serve._answers import Point
from dits_adapter.serve._searcher import Searcher, search_result
from dits_adapter.sources.feedback import feedback_queries
from dits_adapter.stores.ranking import OURS
from dits_adapter.stores.requests import Hit, ReadRequest
from dits_adapter.stores.rows import StoredSegment
from dits_adapter.vectors import FloatArray, unit

__all__ = ["GapAndHubs", "GapPlane", "Hub", "RankingHubs", "draw_plane", "measure_hubs"]

_QUERIES, _LEAST_QUERIES = 500, 20
"""Most queries of a sample, which are embedded one by one, and the fewest that say anything."""

_K = 10
"""Nearest segments of a query that count: a first page of hits."""

_DRAWN = 400
"""Points of a kind on the plane."""

_CURVE = 60
"""Most points of a curve of occurrences."""

_HUBS = 6
"""Greatest hubs of each ranking that are shown."""

_BATCH = 256
"""Segments whose vectors are read at a time."""


class GapPlane(BaseModel):
    """Sample on a plane: across from the mean query to the mean segment, and up along the widest spread beside it.

    Attributes:
        segments, plain, adapted: points (x, y) of segments, and of queries before and after the adapter; some
            hundred of each, of unit norm.
        apart_plain, apart_adapted: distance between the mean of the queries and that of the segments.
        best_plain, best_adapted: mean cosine of a query with its best segment of the sample.
    """

    segments: list[Point]
    plain: list[Point]
    adapted: list[Point]
    apart_plain: float
    apart_adapted: float
    best_plain: float
    best_adapted: float


class Hub(BaseModel):
    """Segment that many queries have near.

    Attributes:
        id, video_id, path, title, start, end, frame: as in `SearchResult`.
        occurrences: number of queries that have it among their nearest, in each of `GapAndHubs.rankings`.
    """

    id: str
    video_id: str
    path: str | None
    title: str | None
    start: float | None
    end: float | None
    frame: str | None
    occurrences: list[int]


class RankingHubs(BaseModel):
    """Hubness of one ranking.

    Attributes:
        name: the ranking in words.
        skewness: skewness of the occurrences of segments (`Hubness.skewness`).
        unseen: share of the segments that no query has near, 0 to 1.
        most: occurrences of the greatest hub.
        curve: (rank, occurrences) of segments, the greatest hub first, at ranks that lie evenly on a logarithmic
            scale.
    """

    name: str
    skewness: float
    unseen: float
    most: int
    curve: list[tuple[int, int]]


class GapAndHubs(BaseModel):
    """Modality gap and hubs of a sample of a collection.

    Attributes:
        segments, queries: sizes of the two samples, which are drawn by a seed.
        source: where the queries are from: "feedback", those that people typed, or "bank", those that the adapter
            was made of; None where there are none.
        note: sentence about what is missing or to be kept in mind; "" where nothing is.
        k: nearest segments of a query that count.
        chance: skewness of occurrences that fall by chance; None without queries.
        plane: None without queries.
        rankings: hubness of each ranking; empty without queries.
        hubs: the greatest hubs of all rankings, those of the first one first.
    """

    segments: int
    queries: int
    source: str | None
    note: str
    k: int = _K
    chance: float | None = None
    plane: GapPlane | None = None
    rankings: list[RankingHubs] = []
    hubs: list[Hub] = []


@dataclass(frozen=True)
class _Queries:
    """Queries as the encoder gives them, (n, d), and where they are from."""

    vectors: FloatArray
    source: str | None
    note: str = ""


def measure_hubs(
    searcher: Searcher, ids: Sequence[str | int], feedback: Path | None, progress: Callable[[int, int], None]
) -> GapAndHubs:
    """Measure gap and hubs of a sample of segments, with the queries that are at hand.

    Texts are embedded one by one, between those of people who search.

    Args:
        searcher: the collection and the adapter.
        ids: ids of the segments.
        feedback: file of feedback, whose queries are taken; None where the server keeps none.
        progress: called with the number of texts and segments that are done, and of all.

    Raises:
        InputError: the file cannot be read.
        StoreError: the collection cannot be read.
    """
    segments: list[StoredSegment] = []
    for start in range(0, len(ids), _BATCH):
        progress(start, len(ids) + _QUERIES)
        part = searcher.store.read(ReadRequest(ids=ids[start : start + _BATCH], vectors=True))
        segments += [each for each in part if each.vector is not None and np.any(each.vector)]
    queries = _queries(searcher, feedback, lambda done: progress(len(ids) + done, len(ids) + _QUERIES))
    few = len(segments) <= _K
    note = queries.note
    if few:
        note = (
            f"The sample has {counted(len(segments), 'segment')}; hubs show among more than {_K}. {note}".strip()
        )
    if few or queries.source is None:
        return GapAndHubs(segments=len(segments), queries=len(queries.vectors), source=queries.source, note=note)
    return _measure(searcher, segments, queries)


def _queries(searcher: Searcher, feedback: Path | None, progress: Callable[[int], None]) -> _Queries:
    """Return queries: those that people typed, or else those of the adapter's bank."""
    typed = [] if feedback is None else feedback_queries(feedback)
    if len(typed) >= _LEAST_QUERIES:
        rows = _draw(len(typed), _QUERIES)
        vectors = []
        for done, row in enumerate(rows):
            progress(done)
            try:
                check_queries(typed[row])
                vectors.append(searcher.embed_apart(typed[row]))
            except InputError:  # what somebody wrote into the file
                continue
        if len(vectors) >= _LEAST_QUERIES:
            return _Queries(np.concatenate(vectors), "feedback")
    adapter = searcher.encoder.artifact.adapter
    width = searcher.encoder.space.text.width
    if isinstance(adapter, QueryBankAdapter) and adapter.inner is None:
        bank = adapter.bank.numpy()
        if len(bank) >= _LEAST_QUERIES:
            note = "The adapter was made of these very queries: of others it mends less."
            return _Queries(bank[_draw(len(bank), _QUERIES)], "bank", note)
    return _Queries(
        np.empty((0, width), np.float32),
        None,
        f"To measure hubs takes {_LEAST_QUERIES} queries, and there are {len(typed)}: start the server with "
        "--feedback FILE --log-queries, and let people search.",
    )


def _measure(searcher: Searcher, segments: Sequence[StoredSegment], queries: _Queries) -> GapAndHubs:
    adapter, weight, plain_weight = searcher.as_searched()
    metadata = searcher.store.metadata()
    bias = None if metadata is None else metadata.bias_in_use
    items = unit(np.stack([each.vector for each in segments if each.vector is not None]))
    plain = unit(queries.vectors)
    adapted = unit(adapter.adapt(queries.vectors, strength=searcher.encoder.query_strength))
    taken = np.array([0.0 if bias is None else bias.of(each.payload) for each in segments], np.float32)
    rankings = {"plain CLIP": (plain, 0.0)}
    if plain_weight:
        rankings[f"plain CLIP, score bias {plain_weight:g}"] = (plain, plain_weight)
    name = "DITS" if adapter.kind == "dits" else adapter.kind
    rankings[f"{name}, score bias {weight:g}" if weight else name] = (adapted, weight)
    found = {
        label: Hubness.of(BiasedScores(DotProducts(texts, items), taken, part), k=_K)
        for label, (texts, part) in rankings.items()
    }
    shown = list(dict.fromkeys(int(row) for hubness in found.values() for row in hubness.top(_HUBS)))
    return GapAndHubs(
        segments=len(segments),
        queries=len(plain),
        source=queries.source,
        note=queries.note,
        chance=next(iter(found.values())).chance_skewness,
        plane=draw_plane(items, plain, adapted),
        rankings=[_ranking(label, hubness) for label, hubness in found.items()],
        hubs=[
            _hub(searcher, segments[row], [int(each.occurrences[row]) for each in found.values()]) for row in shown
        ],
    )


def draw_plane(items: FloatArray, plain: FloatArray, adapted: FloatArray) -> GapPlane:
    """Project unit vectors of segments, (m, d), and of queries, plain and adapted, (n, d), onto a plane."""
    means = [vectors.mean(axis=0, dtype=np.float64) for vectors in (items, plain, adapted)]
    across = means[0] - means[1]
    across /= np.linalg.norm(across) or 1.0
    beside = np.vstack([vectors - mean for vectors, mean in zip((items, plain), means, strict=False)])
    beside -= np.outer(beside @ across, across)
    up = np.linalg.eigh(beside.T @ beside)[1][:, -1]
    up *= np.sign(up[np.abs(up).argmax()])  # of the two directions the same one every time
    axes = np.stack([across, up], axis=1)

    def points(vectors: FloatArray) -> list[Point]:
        chosen = vectors[_draw(len(vectors), _DRAWN)] @ axes
        return [(round(float(x), 4), round(float(y), 4)) for x, y in chosen]

    return GapPlane(
        segments=points(items),
        plain=points(plain),
        adapted=points(adapted),
        apart_plain=float(np.linalg.norm(means[0] - means[1])),
        apart_adapted=float(np.linalg.norm(means[0] - means[2])),
        best_plain=float((plain @ items.T).max(axis=1).mean()),
        best_adapted=float((adapted @ items.T).max(axis=1).mean()),
    )


def _ranking(name: str, hubness: Hubness) -> RankingHubs:
    ordered = -np.sort(-hubness.occurrences)
    ranks = np.unique(np.geomspace(1, len(ordered), _CURVE).round().astype(int))
    return RankingHubs(
        name=name,
        skewness=hubness.skewness,
        unseen=hubness.unseen,
        most=int(ordered[0]),
        curve=[(int(rank), int(ordered[rank - 1])) for rank in ranks],
    )


def _hub(searcher: Searcher, segment: StoredSegment, occurrences: list[int]) -> Hub:
    metadata = searcher.store.metadata()
    layout = (metadata and metadata.layout) or OURS
    video = layout.video_of(segment.payload)
    shown = search_result(Hit.of(segment.id, segment.payload, 0.0, video_id=video, layout=layout))
    return Hub(
        id=shown.id,
        video_id=shown.video_id,
        path=shown.path,
        title=shown.title,
        start=shown.start,
        end=shown.end,
        frame=shown.frame,
        occurrences=occurrences,
    )


def _draw(count: int, most: int) -> list[int]:
    """Return the rows of at most `most` of `count`, drawn by a seed, in ascending order."""
    if count <= most:
        return list(range(count))
    return sorted(np.random.default_rng(0).choice(count, most, replace=False).tolist())
