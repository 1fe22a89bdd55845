"""Every option of a search through every way of searching: each case finds something else where it is dropped."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from dits_adapter import AsyncQdrantStore, QdrantStore
from dits_adapter.errors import InputError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant import _connection, aio
from dits_adapter.stores.qdrant._requests import QueryBatch, QueryGroups
from dits_adapter.stores.qdrant._schema import segment_point
from dits_adapter.stores.qdrant.options import CollectionOptions
from dits_adapter.stores.requests import Hit, SearchOptions, SearchRequest, VideoFilter
from dits_adapter.stores.rows import SegmentRow, segment_id, video_id_of
from tests.stores.fakes import FRAMES, WIDTH, fake_space
from tests.stores.places import PLACES, place

AXIS = np.eye(WIDTH, dtype=np.float32)[0]
OTHER = np.ones(WIDTH, np.float32)
VIDEOS, SEGMENTS = 12, 3
BEST = 2
"""Position of the frame of a segment that is nearest to the axis."""


def _at(angle: float, side: int) -> np.ndarray:
    """Return the unit vector at an angle to the axis."""
    vector = np.zeros(WIDTH, np.float32)
    vector[0], vector[side] = math.cos(angle), math.sin(angle)
    return vector


def _row(video: int, n: int) -> SegmentRow:
    """Return a segment: by their pooled vectors the first videos are nearest, by their frames the last ones."""
    video_id = video_id_of(f"{video:064x}")
    frames = np.stack([_at(1.5, 1 + i) for i in range(FRAMES)])
    frames[BEST] = _at(0.05 * (VIDEOS - video) + 0.01 * n, 4)
    return SegmentRow(
        id=segment_id(video_id, 2.0 * n, 2.0 * n + 2),
        video_id=video_id,
        path=f"/films/{'dogs' if video % 2 else 'cats'} {video}.mp4",
        start=2.0 * n,
        end=2.0 * n + 2,
        timestamps=tuple(2 * n + 0.5 * i for i in range(FRAMES)),
        duration=float(video + 1),
        fps=25.0,
        decoder="none",
        size=1,
        mtime_ns=1,
        segments=SEGMENTS if n == SEGMENTS - 1 else None,
        vector=_at(0.05 * video + 0.01 * n, 5),
        frame_vectors=frames,
    )


ROWS = [_row(video, n) for video in range(VIDEOS) for n in range(SEGMENTS)]
METADATA = CollectionMetadata(space=fake_space(), segment_seconds=2.0)


def farthest_frame_first(frames: Any) -> np.ndarray:
    return np.array([-(vectors @ AXIS).max() for vectors in frames])


class Case(NamedTuple):
    options: SearchOptions
    expected: list[tuple[int, int]]
    """Video and segment of each hit."""


def of(*videos: int) -> list[tuple[int, int]]:
    return [(video, 0) for video in videos]


LATE = models.Filter(must=[models.FieldCondition(key="start", range=models.Range(gte=3.0))])
CASES = {
    "defaults": Case({}, of(*range(10))),
    "limit": Case({"limit": 3}, of(0, 1, 2)),
    "per_video": Case({"limit": 2, "per_video": 2}, [(0, 0), (0, 1), (1, 0), (1, 1)]),
    "offset": Case({"limit": 2, "offset": 2}, of(2, 3)),
    "words": Case({"limit": 2, "filter": VideoFilter(words="dogs films")}, of(1, 3)),
    "duration": Case({"filter": VideoFilter(min_duration=3, max_duration=4)}, of(2, 3)),
    "native filter": Case({"limit": 2, "filter": LATE}, [(0, 2), (1, 2)]),
    "min_score": Case({"min_score": math.cos(0.105)}, of(0, 1, 2)),
    "maxsim": Case({"limit": 3, "rerank": "maxsim"}, of(11, 10, 9)),
    "maxsim of some": Case({"limit": 2, "rerank": "maxsim", "candidates": 4}, of(3, 2)),
    "maxsim page": Case({"limit": 2, "offset": 1, "rerank": "maxsim"}, of(10, 9)),
    "maxsim per video": Case({"limit": 1, "per_video": 2, "rerank": "maxsim"}, [(11, 0), (11, 1)]),
    "maxsim above a score": Case({"rerank": "maxsim", "min_score": math.cos(0.105)}, of(2, 1, 0)),
    "maxsim of a filter": Case({"rerank": "maxsim", "filter": VideoFilter(max_duration=3)}, of(2, 1, 0)),
    "function": Case({"limit": 2, "rerank": farthest_frame_first}, [(0, 2), (1, 2)]),
    "function of some": Case({"limit": 1, "rerank": farthest_frame_first, "candidates": 1}, of(0)),
}

Search = Callable[[SearchOptions], list[Hit]]
WAYS = [
    *(f"{place}, {way}" for place in PLACES for way in ("one", "batch", "request")),
    *(f"asyncio {place}, {way}" for place in ("memory", "server") for way in ("one", "batch", "request")),
]


def _queries(options: SearchOptions) -> list[np.ndarray]:
    return [AXIS] if callable(options.get("rerank")) else [AXIS, OTHER]


def _fill(store: VideoStore) -> VideoStore:
    store.create(METADATA)
    store.write(ROWS)
    return store


@pytest.fixture(scope="module")
def places(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a function from the name of a place to a store there that holds the rows."""
    filled: dict[str, Any] = {}
    with ExitStack() as opened:

        def store(kind: str) -> Any:
            if kind not in filled and kind == "asyncio memory":
                filled[kind] = AsyncQdrantClient(":memory:")
                asyncio.run(_fill_async_memory(filled[kind]))
            elif kind not in filled:
                open_again = opened.enter_context(place(kind, request, tmp_path_factory.mktemp("place")))
                filled[kind] = _fill(open_again())
            return filled[kind]

        yield store


async def _fill_async_memory(client: AsyncQdrantClient) -> None:
    options = CollectionOptions()
    await client.create_collection(
        "videos",
        vectors_config={"video": options.pooled(WIDTH, tenants=False), "frames": options.frames(WIDTH)},
        metadata={"dits_adapter": METADATA.model_dump(mode="json")},
    )
    await client.upsert("videos", [segment_point(row) for row in ROWS])


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, places: Any) -> tuple[str, Search]:
    """A way of searching: its name, and the search for the axis."""
    where, how = request.param.split(", ")
    if not where.startswith("asyncio"):
        store = places(where)
        if how == "one":
            return where, lambda options: store.search(AXIS, **options)
        if how == "request":
            return where, lambda options: store.search(AXIS, SearchRequest(**options))
        return where, lambda options: store.search_batch(_queries(options), **options)[0]

    served = places("Qdrant server") if where.endswith("server") else None
    client = None if served else places(where)

    async def search(options: SearchOptions) -> list[Hit]:
        location, collection = (served.location, served.name) if served else (client, "videos")
        async with AsyncQdrantStore(location, collection) as store:
            if how == "one":
                return await store.search(AXIS, **options)
            if how == "request":
                return (await store.search_batch([AXIS], SearchRequest(**options)))[0]
            return (await store.search_batch(_queries(options), **options))[0]

    return where, lambda options: asyncio.run(search(options))


def found(hits: list[Hit]) -> list[tuple[int, int]]:
    return [(int(Path(hit.path or "").stem.split()[1]), int((hit.start or 0) / 2)) for hit in hits]


@pytest.mark.parametrize("case", CASES)
def test_an_option_finds_what_it_should(way: tuple[str, Search], case: str) -> None:
    where, search = way
    options, expected = CASES[case]
    if case == "native filter" and "Qdrant" not in where and "asyncio" not in where:
        with pytest.raises(InputError, match="takes a VideoFilter"):
            search(options)
        return
    hits = search(options)
    assert found(hits) == expected
    assert [hit.timestamp for hit in hits] == [hit.start + BEST * 0.5 for hit in hits if hit.start is not None]
    if "rerank" not in options:
        scores = [math.cos(0.05 * video + 0.01 * n) for video, n in expected]
    else:
        scores = [math.cos(0.05 * (VIDEOS - video) + 0.01 * n) for video, n in expected]
        scores = [-score for score in scores] if callable(options["rerank"]) else scores
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)


def test_each_case_finds_something_else_than_without_its_last_option() -> None:
    """The table is worth as much as its cases differ: dropped, each option changes what is found."""
    store = _fill(MemoryStore())
    for name, (options, _) in CASES.items():
        if name == "native filter":
            continue
        expected = [(hit.id, round(hit.score, 4)) for hit in store.search(AXIS, **options)]
        for option in options:
            others = {key: value for key, value in options.items() if key != option}
            with suppress(InputError):  # some candidates are too few for the default limit
                hits = store.search(AXIS, **others)  # type: ignore[arg-type]
                scores = [(hit.id, round(hit.score, 4)) for hit in hits]
                assert scores != expected, (name, option)


def test_a_moment_is_left_out_when_nobody_asks(way: tuple[str, Search]) -> None:
    _, search = way
    assert [hit.timestamp for hit in search({"limit": 3, "locate": False})] == [None] * 3


def test_every_option_is_in_the_table() -> None:
    of_their_own = {"exact", "locate", "bias", "lanes", "texts"}  # the last in test_bias.py and test_lanes.py
    tested = {option for case in CASES.values() for option in case.options} | of_their_own
    assert tested == {field.name for field in fields(SearchRequest)} == set(SearchOptions.__annotations__)


@pytest.fixture
def params(monkeypatch: pytest.MonkeyPatch) -> list[models.SearchParams | None]:
    """Search parameters of all queries by vectors that are sent, without those that rank by frames."""
    sent: list[models.SearchParams | None] = []

    def spy(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(client: Any, request: Any) -> Any:
            if isinstance(request, QueryBatch):
                sent.extend(query.params for query in request.requests if query.using == "video")
            elif isinstance(request, QueryGroups):
                sent.append(request.search_params)
            return call(client, request)

        return wrapped

    for module in (_connection, aio):
        monkeypatch.setattr(module, "call", spy(module.call))
    return sent


@pytest.mark.parametrize("rerank", [None, "maxsim"])
def test_exact_is_asked_of_the_database(
    way: tuple[str, Search], params: list[models.SearchParams | None], rerank: Any
) -> None:
    where, search = way
    search({"exact": True, "limit": 3, "rerank": rerank})
    assert all(sent == models.SearchParams(exact=True) for sent in params if where != "Qdrant memory")
    assert bool(params) == ("Qdrant" in where or "asyncio" in where)
    params.clear()
    search({"limit": 3, "rerank": rerank})
    assert set(params) <= {None}


@pytest.mark.parametrize("kind", ["scalar", "binary"])
@pytest.mark.parametrize("rerank", [None, "maxsim"])
@pytest.mark.parametrize("place", ["folder", "server", "asyncio"])
def test_a_search_of_quantized_vectors_asks_for_the_full_ones(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    params: list[models.SearchParams | None],
    place: str,
    rerank: Any,
    kind: Any,
) -> None:
    location: Any = tmp_path / "store" if place == "folder" else request.getfixturevalue("qdrant_server")
    name = f"quantized-{uuid.uuid4().hex}"
    options: SearchOptions = {"limit": 3, "rerank": rerank}

    async def search() -> None:
        async with AsyncQdrantStore(location, name) as store:
            await store.search(AXIS, **options)
            await store.search_batch([AXIS, OTHER], **options)

    with QdrantStore(location, name) as store:
        store.create(METADATA, CollectionOptions(quantization=kind))
        store.write(ROWS)
        try:
            if place == "asyncio":
                asyncio.run(search())
            else:
                store.search(AXIS, **options)
                store.search_batch([AXIS, OTHER], **options)
        finally:
            store.client.delete_collection(name)
    assert params
    for sent in params:
        assert sent is not None
        assert sent.quantization == models.QuantizationSearchParams(rescore=True, oversampling=2.0)


def test_a_client_of_ones_own_in_memory_is_searched_alike() -> None:
    client = QdrantClient(":memory:")
    _fill(QdrantStore(client))
    assert found(QdrantStore(client).search(AXIS, limit=3)) == of(0, 1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmit": 3}, "there is no option 'lmit'; there are limit, per_video"),
        ({"request": SearchRequest(), "limit": 3}, "give SearchRequest or options"),
        ({"request": {"limit": 3}}, "options come as a SearchRequest or as keyword arguments"),
        ({"filter": "dogs"}, "filter is a str"),
        ({"candidates": 1, "rerank": "maxsim"}, "candidates is 1"),
    ],
)
@pytest.mark.parametrize("store", [MemoryStore, lambda: QdrantStore(":memory:")], ids=["MemoryStore", "Qdrant"])
def test_an_option_that_cannot_be_is_refused(
    store: Callable[[], VideoStore], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        _fill(store()).search(AXIS, **options)
