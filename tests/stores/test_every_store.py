"""Every kind of store alike, one of a user's own included: ingestion, search, reading, and what is refused."""

from __future__ import annotations

import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from dits_adapter import QdrantStore
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.copying import copy_collection
from dits_adapter.stores.ingest import IngestOptions, ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.open import _openers, open_store, register_store
from dits_adapter.stores.ranking import exact_search
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.requests import Hit, ReadRequest, SearchRequest, VideoFilter
from dits_adapter.stores.rows import SegmentRow, StoredSegment, VideoFile, VideoRecord, video_records
from dits_adapter.video.encoder import EncodedSegment
from tests.conftest import ANSWER
from tests.stores.fakes import FRAMES, FakeEncoder, fake_space, write_video
from tests.stores.own_store import SqliteStore
from tests.stores.places import PLACES, Open, place

QUERY = np.array([1.0, 0.1, 0.5, 0, 0, 0, 0, 0], np.float32)


@pytest.fixture(params=PLACES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens one collection, empty at first, again and again as other programs would."""
    with place(request.param, request, tmp_path) as open_again:
        yield open_again


def run(store: VideoStore, folder: Path, encoder: FakeEncoder | None = None, **options: Any) -> IngestReport:
    return ingest(store, folder, encoder or FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


def contents(store: VideoStore) -> dict[Any, tuple[dict[str, Any], list[float]]]:
    """Everything in a store, without the words that Qdrant keeps of a path for its filters."""
    segments = [segment for segment in store.read(ReadRequest(vectors=True)) if segment.vector is not None]
    payloads = [{key: value for key, value in s.payload.items() if key != "words"} for s in segments]
    return {s.id: (p, np.round(s.vector, 5).tolist()) for s, p in zip(segments, payloads, strict=True)}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    for seed in range(4):
        write_video(folder / f"{seed}.mp4", seed=seed, segments=seed + 1)
    write_video(folder / "broken.mp4", "broken")
    write_video(folder / "half.webm", "half", seed=20, segments=3)
    write_video(folder / "zcopy of 2.mp4", seed=2, segments=3)
    return folder


def test_a_second_run_decodes_nothing_and_changes_nothing(opened: Open, videos: Path) -> None:
    report = run(opened(), videos)
    assert (report.videos, report.segments) == (4, 10)
    assert report.failed == {
        str(videos / "broken.mp4"): "no video stream",
        str(videos / "half.webm"): "it ends early",
    }
    assert report.duplicates == {str(videos / "zcopy of 2.mp4"): str(videos / "2.mp4")}
    store = opened()
    assert (store.count(), store.count_videos()) == (10, 4)
    before = contents(store)
    encoder = FakeEncoder()
    report = run(opened(), videos, encoder)
    assert (encoder.decoded, report.videos, report.present, report.failed_before) == ([], 0, 4, 2)
    assert contents(opened()) == before


def test_a_run_that_was_stopped_is_completed_by_the_next(opened: Open, videos: Path) -> None:
    clean = MemoryStore()
    run(clean, videos)
    for stop in range(1, 8):
        encoder = FakeEncoder()

        def interrupt(path: str, encoder: FakeEncoder = encoder, stop: int = stop) -> None:
            if len(encoder.decoded) == stop:
                raise KeyboardInterrupt

        encoder.before = interrupt
        try:
            run(opened(), videos, encoder)
        except KeyboardInterrupt:
            continue
        break
    assert contents(opened()) == contents(clean)
    assert sorted(r.path for r in opened().records()) == sorted(r.path for r in clean.records())


def test_a_video_with_a_missing_segment_is_done_again(opened: Open, tmp_path: Path) -> None:
    """A run that is killed leaves the first segments of a video, without the one that says how many there are."""
    video = write_video(tmp_path / "videos" / "a.mp4", seed=1, segments=3)
    clean = MemoryStore()
    run(clean, video)
    rows = [row for row in clean._rows.values() if row.segments is None]
    store = opened()
    store.create(CollectionMetadata(space=fake_space()))
    store.write(rows)
    assert (store.count(), store.count_videos()) == (2, 0)
    assert not next(iter(store.records())).complete
    assert run(opened(), video).videos == 1
    assert contents(opened()) == contents(clean)


def test_a_renamed_file_is_followed_and_replaced_content_deleted(opened: Open, videos: Path) -> None:
    run(opened(), videos)
    (videos / "zcopy of 2.mp4").unlink()
    (videos / "3.mp4").rename(videos / "renamed.mp4")
    write_video(videos / "0.mp4", seed=50, segments=2)
    encoder = FakeEncoder()
    report = run(opened(), videos, encoder)
    assert [Path(path).name for path in encoder.decoded] == ["0.mp4"]
    assert (report.moved, report.videos) == (1, 1)
    clean = MemoryStore()
    run(clean, videos)
    assert contents(opened()) == contents(clean)


def test_sync_deletes_videos_and_failures_of_files_that_are_gone(opened: Open, videos: Path) -> None:
    run(opened(), videos)
    for name in ("1.mp4", "broken.mp4"):
        (videos / name).unlink()
    report = run(opened(), videos, sync=True)
    assert sorted(report.removed) == [str(videos / "1.mp4"), str(videos / "broken.mp4")]
    assert {Path(record.path).name for record in opened().records()} == {"0.mp4", "2.mp4", "3.mp4", "half.webm"}
    shutil.rmtree(videos)
    videos.mkdir()
    with pytest.raises(InputError, match="Mount the disk"):
        run(opened(), videos, sync=True)


def test_a_failure_is_tried_again_when_asked(opened: Open, videos: Path) -> None:
    run(opened(), videos)
    encoder = FakeEncoder()
    run(opened(), videos, encoder, retry_failed=True)
    assert sorted(Path(path).name for path in encoder.decoded) == ["broken.mp4", "half.webm"]
    status = os.stat(videos / "broken.mp4")
    write_video(videos / "broken.mp4", seed=60)
    os.utime(videos / "broken.mp4", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert run(opened(), videos).videos == 1
    assert sum(bool(record.failure) for record in opened().records()) == 1
    (failure,) = opened().failures()
    status = os.stat(failure.path)
    assert (Path(failure.path).name, failure.size, failure.mtime_ns) == (
        "half.webm",
        status.st_size,
        status.st_mtime_ns,
    )
    assert failure.reason


def test_other_metadata_are_refused(opened: Open, videos: Path) -> None:
    run(opened(), videos, segment_seconds=2.0)
    with pytest.raises(SpaceMismatchError, match=r"video encoder.*fake-1.*collection"):
        run(opened(), videos, FakeEncoder(fake_space(1)), segment_seconds=2.0)
    with pytest.raises(StoreError, match=r"holds segments of 2 s .* and this asks for whole videos"):
        run(opened(), videos)
    with pytest.raises(InputError, match="overlap is 2"):
        run(opened(), videos, segment_seconds=2.0, overlap=2.0)
    with pytest.raises(SpaceMismatchError, match=r"the query.*fake-1"):
        opened(space=fake_space(1)).search(QUERY)
    with pytest.raises(SpaceMismatchError, match="the videos to be stored"):
        opened(space=fake_space(1)).create(CollectionMetadata(space=fake_space(), segment_seconds=2.0))
    metadata = opened().metadata()
    assert metadata is not None
    assert (metadata.space.fingerprint, metadata.segment_seconds) == (fake_space().fingerprint, 2.0)


def test_where_there_is_nothing_nothing_is_found(opened: Open) -> None:
    """In an empty collection, behind a filter or a page that leaves nothing, and of ids that nothing can have."""
    store = opened()
    store.create(CollectionMetadata(space=fake_space()))
    nowhere = VideoFilter(words="nowhere")

    def require_nothing(**options: Any) -> None:
        assert store.search(QUERY, **options) == []
        assert store.search(QUERY, per_video=3, rerank="maxsim", **options) == []
        assert store.search_batch(np.stack([QUERY, -QUERY]), **options) == [[], []]

    require_nothing()
    assert store.search_batch(np.empty((0, 8))) == []
    assert (store.count(), store.count_videos(), list(store.records()), store.failures()) == (0, 0, [], [])
    for write in (store.write, store.write_failures, store.delete):
        write([])
    store.finish()
    file = VideoFile("/a.mp4", 1, 1, str(uuid.uuid4()))
    store.write([SegmentRow.of(file, _segment(QUERY / np.linalg.norm(QUERY), 0), segments=1)])
    require_nothing(filter=nowhere)
    require_nothing(filter=VideoFilter(min_duration=1e9))
    require_nothing(min_score=2.0)
    require_nothing(offset=5)
    assert list(store.read(ReadRequest(ids=["7", 'so\'me "id"', "日本", -1, 10**30]))) == []
    assert len(store.search(QUERY, limit=1_000_000, per_video=1_000)) == 1
    assert len(store.search(QUERY, limit=np.int64(3))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "limit is 0, per_video is 1 and offset is 0"),
        ({"limit": 2.5}, r"limit is 2\.5; it is a whole number"),
        ({"per_video": "3"}, "per_video is '3'; it is a whole number"),
        ({"offset": 10**12}, "offset is 1000000000000; it is a whole number, at most 1,000,000,000"),
        ({"candidates": None}, "candidates is None; it is a whole number"),
        ({"min_score": "0.3"}, r"min_score is '0\.3'; it is a number"),
        ({"bias": "0.5"}, r"the weight of the bias is '0\.5'"),
    ],
)
def test_what_is_no_number_of_a_search_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        MemoryStore().search(QUERY, **options)


@pytest.mark.parametrize("norm", [1e-30, 1e30])
def test_a_query_that_float32_cannot_measure_is_refused(norm: float) -> None:
    store = MemoryStore()
    store.create(CollectionMetadata(space=fake_space()))
    with pytest.raises(InputError, match=r"query vector 1 is zero, holds NaN .* or is too short or long"):
        store.search_batch(np.stack([QUERY, QUERY * np.float32(norm)]))


def test_a_collection_that_is_not_there_is_named(opened: Open) -> None:
    for use in (lambda s: s.search(QUERY), lambda s: s.metadata(), lambda s: s.open()):
        with pytest.raises(StoreError):
            use(opened())


@pytest.mark.parametrize("probability", [0.3, 0.6])
def test_a_least_probability_is_a_least_score(opened: Open, videos: Path, probability: float) -> None:
    run(opened(), videos)
    store = opened(space=fake_space())
    calibration = Calibration(slope=8, offset=-2, videos=40, queries=80, log_loss=0.3, ece=0.02, answer=ANSWER)
    count = store.count_videos()
    every = store.search(QUERY, limit=6, per_video=4)
    assert store.cosine
    likely = [hit.id for hit in every if calibration.probability(hit.score, videos=count) >= probability]
    least = calibration.score_of(probability, videos=count)
    assert [hit.id for hit in store.search(QUERY, limit=6, per_video=4, min_score=least)] == likely
    assert len(likely) < len(every)


def test_segments_are_read_by_ids_by_a_field_and_the_first_few(opened: Open, videos: Path) -> None:
    run(opened(), videos)
    store = opened()
    everything = contents(store)
    assert len(everything) == 10
    (first, (payload, vector)), *_ = everything.items()
    (read,) = store.read(ReadRequest(ids=[first], vectors=True, frames=True))
    kept = {name: value for name, value in read.payload.items() if name != "words"}  # of the path, for filters
    assert (kept, np.round(read.vector, 5).tolist()) == (payload, vector)  # type: ignore[arg-type]
    assert read.frame_vectors is not None
    assert read.frame_vectors.shape == (FRAMES, 8)
    assert read.vector is not None
    np.testing.assert_allclose(np.linalg.norm(read.frame_vectors, axis=1), 1, atol=1e-5)

    of_video = {id for id, (p, _) in everything.items() if p["video_id"] == payload["video_id"]}
    assert {
        s.id for s in store.read(ReadRequest(field="video_id", values=[payload["video_id"], "no"]))
    } == of_video
    assert {s.id for s in store.read(ReadRequest(field="", values=[str(first), "7", "no"]))} == {first}
    assert len(list(store.read(ReadRequest(field="path", values=[str(videos / "broken.mp4")])))) == 0
    by_size = {s.id for s in store.read(ReadRequest(field="mtime_ns", values=[str(payload["mtime_ns"])]))}
    assert first in by_size
    last = {s.payload["video_id"]: s.payload["segments"] for s in store.read(ReadRequest(last=True))}
    assert last == {record.video_id: record.found for record in store.records() if not record.failure}
    assert len(list(store.read(ReadRequest(last=True)))) == len(last) == store.count_videos() > 1
    assert list(store.read(ReadRequest(ids=[id for id in everything if id != first], last=True, limit=1)))
    assert len(list(store.read(ReadRequest(limit=3)))) == 3
    assert len(list(store.read(ReadRequest(limit=100)))) == 10
    assert list(store.read(ReadRequest(ids=[str(uuid.uuid4())]))) == []


def test_what_is_like_a_segment_leaves_it_out_and_no_more(opened: Open, videos: Path) -> None:
    store = opened()
    run(store, videos, segment_seconds=1)
    segments = {s.id: s for s in store.read(ReadRequest(vectors=True)) if s.vector is not None}
    chosen = next(iter(segments.values()))
    assert chosen.vector is not None
    hits = store.search_like(chosen.id, limit=100, per_video=100)
    assert {hit.id for hit in hits} == segments.keys() - {chosen.id}
    cosines = [float(segments[hit.id].vector @ chosen.vector) for hit in hits]  # type: ignore[operator]
    assert [hit.score for hit in hits] == pytest.approx(cosines, abs=1e-5)
    firsts = store.search_like(str(chosen.id), limit=2)
    assert [hit.id for hit in firsts] == [hit.id for hit in by_video(hits)[:2]]
    assert by_video(store.search_like(chosen.id, limit=1, offset=1)) == firsts[1:]
    with pytest.raises(InputError, match="has no segment '00000000-0000-0000-0000-000000000000'"):
        store.search_like("00000000-0000-0000-0000-000000000000")


def by_video(hits: list[Hit]) -> list[Hit]:
    """Return the best hit of each video, in their order."""
    return list({hit.video_id: hit for hit in reversed(hits)}.values())[::-1]


def test_deleting_and_moving_touch_nothing_else(opened: Open, videos: Path) -> None:
    run(opened(), videos)
    store = opened()
    video = next(record for record in store.records() if record.path.endswith("/3.mp4"))
    store.update_path(VideoFile("/moved.mp4", 5, 6, video.video_id))
    moved = {r.path: r for r in store.records()}["/moved.mp4"]
    assert moved == VideoRecord("/moved.mp4", 5, 6, video.video_id, found=4, expected=4)
    for words, videos_named in (("moved", [video.video_id]), ("3", [])):
        hits = store.search(QUERY, filter=VideoFilter(words=words))
        assert [hit.video_id for hit in hits] == videos_named
    store.delete([moved])
    assert (store.count(), store.count_videos()) == (6, 3)
    assert len([record for record in store.records() if record.failure]) == 2


def test_writing_a_segment_twice_stores_it_once(opened: Open, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    (segment, _) = FakeEncoder().iter_segments([str(video)], on_error=pytest.fail)
    row = SegmentRow.of(VideoFile("/a.mp4", 1, 2, str(uuid.uuid4())), segment)
    store = opened()
    store.create(CollectionMetadata(space=fake_space()))
    store.write([row])
    store.write([row])
    assert store.count() == 1


class TestOpenStore:
    @pytest.fixture
    def sqlite(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dits_adapter.stores.open._openers", dict(_openers))
        register_store("sqlite", SqliteStore)

    def test_an_own_scheme_opens_an_own_store(self, sqlite: None, tmp_path: Path) -> None:
        store = open_store(f"SQLite://{tmp_path}/rows.db", "mine", space=fake_space())
        assert isinstance(store, SqliteStore)
        assert (store.name, store.space) == ("mine", fake_space())
        with pytest.raises(InputError, match="has no option 'tenant'; its options are space"):
            open_store(f"sqlite://{tmp_path}/rows.db", tenant="acme")

    def test_folders_memory_and_urls_are_qdrants(self, tmp_path: Path) -> None:
        for location in (tmp_path / "store", ":memory:", "http://localhost:1", "HTTPS://localhost:1"):
            store = open_store(
                location,
                "mine",
                space=fake_space(),
                layout=PointLayout(vector="clip"),
                tenant="acme",
                trust_foreign=True,
            )
            assert isinstance(store, QdrantStore)
            assert (store.name, store.vector, store.tenant) == ("mine", "clip", "acme")
        able = Capabilities(frames=True, tenants=True, bias=True, texts=True)
        assert open_store(":memory:").capabilities == able
        assert open_store("http://localhost:1").capabilities.remote

    def test_a_location_of_another_type_is_refused(self) -> None:
        with pytest.raises(InputError, match="location is empty"):
            open_store("")
        with pytest.raises(InputError, match="location is a QdrantClient"):
            open_store(QdrantClient(":memory:"))  # type: ignore[arg-type]

    def test_an_unknown_scheme_is_answered_with_those_there_are(self) -> None:
        with pytest.raises(InputError, match=r"'lance://x': no store opens this.*http://, https://"):
            open_store("lance://x")
        with pytest.raises(InputError, match="scheme is 'a b'"):
            register_store("a b", SqliteStore)


def test_options_of_an_ingestion_come_as_one_object_or_as_keywords(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    store = MemoryStore()
    ingest(store, video, FakeEncoder(), IngestOptions(segment_seconds=2.0), progress=False)  # type: ignore[arg-type]
    assert store.metadata().segment_seconds == 2.0
    with pytest.raises(InputError, match="no option 'segment_second'; there are segment_seconds"):
        run(store, video, segment_second=2.0)
    with pytest.raises(InputError, match="give IngestOptions or options"):
        ingest(store, video, FakeEncoder(), IngestOptions(), progress=False, sync=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no options"):
        run(MemoryStore(), video, store_options=IngestOptions())


def test_options_are_refused_where_a_store_has_none_whatever_its_create_makes_of_them(tmp_path: Path) -> None:
    class Careless(MemoryStore):
        def create(self, metadata: CollectionMetadata, options: Any = None) -> None:
            super().create(metadata)

    with pytest.raises(InputError, match="no options"):
        run(Careless(), write_video(tmp_path / "a.mp4"), store_options=IngestOptions())


def test_payloads_may_have_every_column_of_a_table() -> None:
    file = {"path": "/a.mp4", "size": 1, "mtime_ns": 2}
    segment = file | {"video_id": "a", "failure": None}
    failure = file | {"video_id": None, "segments": None, "failure": "no video stream"}
    video, failed = video_records([segment | {"segments": 2}, segment | {"segments": None}, failure])
    assert video.complete
    assert failed == VideoRecord(**file, failure="no video stream")


ODD = [
    "it's.mp4",
    'say "dogs".mp4',
    "a\\'b; DROP TABLE x.mp4",
    "100%_{p}.mp4",
    "größe 日本 🐕.mp4",
    "$1 :name ?.mp4",
    "bell\a and\b\n\x1f.mp4",
]


def test_names_of_any_characters_are_kept_and_found(opened: Open, tmp_path: Path) -> None:
    folder = tmp_path / 'o\'dd "films"'
    for seed, name in enumerate(ODD):
        write_video(folder / name, seed=seed)
    write_video(folder / "brok'en.mp4", "broken")
    assert run(opened(), folder).videos == len(ODD)
    store = opened()
    everything = store.search(QUERY, limit=20)
    assert {hit.path for hit in everything} == {str(folder / name) for name in ODD}
    for path in {hit.path for hit in everything}:
        (read,) = {s.payload["path"] for s in store.read(ReadRequest(field="path", values=[str(path)]))}
        assert read == path
    for words, names in {
        "IT'S": ODD[:1],
        "drop table": ODD[2:3],
        "日本": ODD[4:5],
        "GRÖSSE": ODD[4:5],
        "f": [],
    }.items():
        hits = store.search(QUERY, limit=20, filter=VideoFilter(words=words))
        assert {hit.path for hit in hits} == {str(folder / name) for name in names}, words
    (folder / ODD[2]).rename(folder / "x'; --.mp4")
    for name in (ODD[0], "brok'en.mp4"):
        (folder / name).unlink()
    report = run(opened(), folder, sync=True)
    assert (report.moved, len(report.removed)) == (1, 2)
    assert {r.path for r in opened().records()} == {
        str(folder / name) for name in [*ODD[3:], ODD[1], "x'; --.mp4"]
    }


def test_tenants_see_and_delete_nothing_of_each_other(opened: Open, videos: Path) -> None:
    if not opened().capabilities.tenants:
        pytest.skip("keeps no tenants apart")
    for tenant, name in (("a'cme", "1.mp4"), ("b%eta", "2.mp4")):
        run(opened(tenant=tenant), videos / name)
    run(opened(tenant="a'cme"), videos / "2.mp4")
    run(opened(tenant="a'cme"), videos / "broken.mp4")
    acme, beta = opened(tenant="a'cme").search(QUERY), opened(tenant="b%eta").search(QUERY)
    assert {Path(hit.path or "").name for hit in acme} == {"1.mp4", "2.mp4"}
    assert {Path(hit.path or "").name for hit in beta} == {"2.mp4"}
    assert {hit.id for hit in acme}.isdisjoint(hit.id for hit in beta)
    others = list(opened(tenant="a'cme").records())
    store = opened(tenant="b%eta")
    assert (store.count(), store.count_videos(), len(list(store.records()))) == (3, 1, 1)
    assert [segment.payload["path"] for segment in store.read(ReadRequest(last=True))] == [str(videos / "2.mp4")]
    assert list(store.read(ReadRequest(ids=[acme[0].id]))) == []
    with pytest.raises(InputError, match="has no segment"):
        store.search_like(acme[0].id)
    assert {hit.video_id for hit in store.search_like(beta[0].id)} <= {beta[0].video_id}
    store.delete(others)
    assert opened(tenant="b%eta").count() == 0
    assert opened(tenant="a'cme").count() == 5
    assert len(list(opened(tenant="a'cme").records())) == 3
    with pytest.raises(StoreError, match="keeps tenants apart: say which"):
        opened().search(QUERY)
    with pytest.raises(StoreError, match="keeps tenants apart"):
        opened().records()
    with pytest.raises(StoreError, match="keeps tenants apart"):
        run(opened(), videos / "1.mp4")


def test_a_tenant_is_refused_where_none_are_kept_apart(opened: Open, videos: Path) -> None:
    run(opened(), videos / "1.mp4")
    if opened().capabilities.tenants:
        with pytest.raises(StoreError, match="does not keep tenants apart"):
            opened(tenant="acme").search(QUERY)


def test_more_segments_than_one_look_are_grouped(opened: Open) -> None:
    """Sixty segments of one video stand before two others; nothing is lost behind them."""
    store = opened()
    store.create(CollectionMetadata(space=fake_space(), segment_seconds=1.0))
    angles = {"long": [0.001 * n for n in range(60)], "second": [0.5, 0.6, 0.7], "third": [0.9]}
    vectors = {video: [[math.cos(a), math.sin(a), *[0] * 6] for a in of] for video, of in angles.items()}
    for video, of in vectors.items():
        file = VideoFile(f"/{video}.mp4", 1, 2, str(uuid.uuid5(uuid.NAMESPACE_OID, video)))
        rows = [
            SegmentRow.of(file, _segment(np.array(vector, np.float32), n), segments=len(of))
            for n, vector in enumerate(of)
        ]
        store.write(rows)
    query = np.eye(8, dtype=np.float32)[0]
    hits = store.search(query, limit=2)
    assert [hit.path for hit in hits] == ["/long.mp4", "/second.mp4"]
    hits = store.search(query, limit=3, per_video=3)
    assert [hit.path for hit in hits] == ["/long.mp4"] * 3 + ["/second.mp4"] * 3 + ["/third.mp4"]
    cosines = [math.cos(a) for of in angles.values() for a in of[:3]]
    assert [hit.score for hit in hits] == pytest.approx(cosines, abs=1e-6)
    assert [hit.path for hit in store.search(query, limit=1, offset=2)] == ["/third.mp4"]


def _segment(vector: np.ndarray, n: int) -> EncodedSegment:
    return EncodedSegment(
        path="",
        start=n,
        end=n + 1.0,
        timestamps=np.array([n + 0.5]),
        duration=100.0,
        fps=10.0,
        decoder="none",
        vector=vector,
        frame_vectors=vector[None],
    )


@pytest.mark.parametrize("opened", [kind for kind in PLACES if kind != "Qdrant memory"], indirect=True)
def test_a_copy_there_and_back_is_the_same(opened: Open, videos: Path) -> None:
    """From memory to each kind, cut short on the way, and back to memory."""
    source = MemoryStore("source")
    run(source, videos)
    with opened() as destination:
        write, calls = destination.write, []

        def fail(rows: Any) -> None:
            calls.append(rows)
            raise StoreError("gone")

        destination.write = fail  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="gone"):
            copy_collection(source, destination, progress=False)
        destination.write = write  # type: ignore[method-assign]
        write(calls[0][:4])
        assert copy_collection(source, destination, progress=False).written == 6
        assert copy_collection(source, destination, progress=False).written == 0
        assert contents(destination) == contents(source)
        assert destination.count_videos() == 4
        back = MemoryStore("back")
        assert copy_collection(destination, back, progress=False).written == 10
    assert contents(back) == contents(source)
    assert sorted(map(str, back.records())) == sorted(map(str, source.records()))
    frames = [{s.id: s.frame_vectors for s in store.read(ReadRequest())} for store in (source, back)]
    for id, vectors in frames[0].items():
        np.testing.assert_allclose(frames[1][id], vectors, atol=1e-6)
    source.delete(list(source.records())[:1])
    with pytest.raises(StoreError, match="has segments that 'source' has not"):
        copy_collection(source, back, progress=False)
    encoder = FakeEncoder()
    assert run(opened(), videos, encoder).present == 4
    assert encoder.decoded == []


def test_segments_without_frames_are_found_but_neither_located_nor_reranked(opened: Open, videos: Path) -> None:
    class WholeClips(FakeEncoder):
        def iter_segments(self, *arguments: Any, **options: Any) -> Any:
            for segment in super().iter_segments(*arguments, **options):
                segment.frame_vectors = segment.frame_vectors[:0]
                yield segment

    with opened() as store:
        run(store, videos, WholeClips())
        segment = next(FakeEncoder().iter_segments([str(videos / "0.mp4")], on_error=print))
        hit = store.search(segment.vector)[0]
        assert hit.path == segment.path
        assert hit.timestamp is None
        with pytest.raises(StoreError, match="no frame vectors"):
            store.search(segment.vector, rerank="maxsim")
        (stored,) = store.read(ReadRequest(ids=[hit.id], vectors=True, frames=True))
        assert stored.frame_vectors is None or len(stored.frame_vectors) == 0


def test_reranking_leaves_out_segments_without_frames_and_needs_some() -> None:
    query = np.eye(2, dtype=np.float32)[0]
    empty = StoredSegment("a", {}, query, np.empty((0, 2), np.float32))
    framed = StoredSegment("b", {}, query, query[None])
    request = SearchRequest(rerank="maxsim")
    assert [hit.id for hit in exact_search(query, [empty, framed], request)] == ["b"]
    with pytest.raises(StoreError, match="no frame vectors"):
        exact_search(query, [empty], request)
    assert exact_search(query, [], request) == []
