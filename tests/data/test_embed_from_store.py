"""Embedding of texts, with the vectors of their videos read from a store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from dits_adapter.cli import main
from dits_adapter.data.embed import embed, embed_from_store
from dits_adapter.data.pairs import load_pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import (
    InputError,
    SpaceMismatchError,
    StoreError,
)
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.adopting import adopt_collection
from dits_adapter.stores.base import Capabilities, VideoStore
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment
from dits_adapter.video.encoder import VideoEncoder
from tests.conftest import save_random_clip
from tests.data.fakes import FRAMES, WIDTH, FakeTexts, write_pairs
from tests.stores.fakes import fake_space, unit
from tests.stores.own_store import SqliteStore
from tests.video.clips import picture, write_clip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five clips."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_clip(folder / f"{n}.mp4", [picture(40 * n + i) for i in range(15)]) for n in range(5)]


@pytest.fixture
def encoder(tiny_clip: Path) -> VideoEncoder:
    return VideoEncoder.from_pretrained(tiny_clip, frames=FRAMES, device="cpu")


@pytest.fixture
def ingested(clips: list[Path], encoder: VideoEncoder) -> tuple[QdrantStore, VideoEncoder, list[Path]]:
    """A collection of the clips in Qdrant."""
    store = QdrantStore(QdrantClient(":memory:"))
    ingest(store, clips, encoder, progress=False)
    return store, encoder, clips


STORES: dict[str, Callable[[Path], VideoStore]] = {
    "Qdrant": lambda folder: QdrantStore(QdrantClient(":memory:")),
    "memory": lambda folder: MemoryStore(),
    "own store": lambda folder: SqliteStore(str(folder / "rows.db")),
}


@pytest.mark.parametrize("open_store", STORES.values(), ids=STORES)
class TestAnyStore:
    def test_gives_what_embedding_the_files_gives(self, open_store, clips, encoder, tmp_path, small_shards):
        store = open_store(tmp_path)
        ingest(store, clips, encoder, progress=False)
        lines = [{"video": str(clip), "text": [f"clip {n}", f"again {n}"]} for n, clip in enumerate(clips)]
        embed(write_pairs(tmp_path / "files.jsonl", lines), tmp_path / "files", encoder, progress=False)
        ids = {record.path: record.video_id for record in store.records()}
        lines = [{"id": ids[str(clip)], "text": [f"clip {n}", f"again {n}"]} for n, clip in enumerate(clips)]
        pairs = write_pairs(tmp_path / "ids.jsonl", [*lines, {"id": str(uuid.uuid4()), "text": "deleted"}])

        report = embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)

        assert [failed.reason for failed in report.failures] == ["the collection has no such video"]
        found, expected = load_pairs(tmp_path / "cache"), load_pairs(tmp_path / "files")
        np.testing.assert_allclose(found.video, expected.video, atol=1e-6)
        np.testing.assert_allclose(found.frames[:], expected.frames[:], atol=1e-6)
        np.testing.assert_allclose(found.text, expected.text, atol=1e-4)
        assert (found.labels.tolist(), found.space) == (expected.labels.tolist(), expected.space)
        again = embed_from_store(
            pairs, tmp_path / "cache", encoder.encoder, store, retry_failed=True, progress=False
        )
        assert (again.new_texts, again.new_videos) == (0, 0)

    def test_names_of_files_are_ends_of_paths(self, open_store, clips, encoder, tmp_path):
        store = open_store(tmp_path)
        ingest(store, clips, encoder, progress=False)
        folder = clips[0].parent.name
        names = [clips[3].name, f"{folder}/{clips[1].name}", f"./{clips[0].name}", "9.mp4"]
        pairs = write_pairs(tmp_path / "names.jsonl", [{"id": name, "text": name} for name in names])
        report = embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        assert [(failed.id, failed.reason) for failed in report.failures] == [
            ("9.mp4", "the collection has no such video")
        ]
        vectors = {row.payload["path"]: row.vector for row in store.read(ReadRequest(vectors=True))}
        expected = [vectors[str(clips[n])] for n in (3, 1, 0)]
        np.testing.assert_allclose(load_pairs(tmp_path / "cache").video, expected, atol=1e-6)

    def test_a_name_that_two_paths_end_in_is_refused(self, open_store, clips, encoder, tmp_path):
        store = open_store(tmp_path)
        for side in ("a", "b"):
            (tmp_path / side).mkdir()
        twins = [write_clip(tmp_path / side / "1.mp4", [picture(n)]) for n, side in enumerate(("a", "b"))]
        ingest(store, twins, encoder, progress=False)
        pairs = write_pairs(tmp_path / "names.jsonl", [{"id": "1.mp4", "text": "a"}])
        with pytest.raises(InputError, match=r"both .*1\.mp4 and .*1\.mp4 end in '1\.mp4'\. Give as much"):
            embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)

    def test_frames_that_the_store_does_not_keep_are_not_in_the_cache(self, open_store, clips, encoder, tmp_path):
        store = open_store(tmp_path)
        ingest(store, clips, encoder, progress=False)
        store.open()
        pooled_only = Pooled(store)
        lines = [{"id": record.video_id, "text": "a"} for record in store.records()]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        embed_from_store(pairs, tmp_path / "cache", encoder.encoder, pooled_only, progress=False)
        assert load_pairs(tmp_path / "cache").frames is None
        assert not any(request.frames for request in pooled_only.requests)
        assert sum(request.vectors for request in pooled_only.requests) == 1


class Pooled:
    """A store that keeps pooled vectors alone, and remembers what was read."""

    def __init__(self, store: VideoStore) -> None:
        self.store, self.requests = store, []
        self.capabilities = replace(store.capabilities, frames=False)
        self.open, self.collection = store.open, store.collection
        self.location, self.tenant, self.metadata = store.location, store.tenant, store.metadata

    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        self.requests.append(request)
        return self.store.read(request)


def segment(number: int, *, name: str = "v", vector: bool = True, frames: int | None = FRAMES) -> StoredSegment:
    rng = np.random.default_rng(number)
    return StoredSegment(
        id=number,
        payload={"video_id": name},
        vector=unit(rng.normal(size=WIDTH)) if vector else None,
        frame_vectors=None if frames is None else unit(rng.normal(size=(frames, WIDTH))),
    )


@pytest.mark.parametrize(
    ("segments", "reason"),
    [
        ([], "the collection has no such video"),
        ([replace(segment(1), vector=np.zeros(WIDTH))], "its vector is zero"),
        ([replace(segment(1), vector=np.full(WIDTH, np.nan))], "its vector is zero, or holds NaN"),
        ([segment(1, vector=False)], "its segment lacks a vector"),
        ([segment(1, frames=None)], "its segment lacks a vector"),
        ([segment(1, frames=FRAMES - 1)], f"its segment has {FRAMES - 1} frame vectors, others have {FRAMES}"),
    ],
)
def test_a_video_without_usable_vectors_is_a_failure(segments, reason, tmp_path, monkeypatch):
    space = fake_space()
    store = SimpleNamespace(
        open=lambda: space,
        metadata=lambda: CollectionMetadata(space=space),
        location="somewhere",
        collection="videos",
        tenant=None,
        capabilities=Capabilities(frames=True),
        read=lambda request: iter([segment(9, name="good"), *segments]),
    )
    monkeypatch.setattr(TextSide, "of", lambda *_: space.text)
    monkeypatch.setattr(VideoSide, "of", lambda *_, **__: space.video)
    pairs = write_pairs(tmp_path / "pairs.jsonl", [{"id": "good", "text": "a"}, {"id": "v", "text": "b"}])
    report = embed_from_store(pairs, tmp_path / "cache", FakeTexts(), store, progress=False)
    (failed,) = report.failures
    assert (failed.id, report.videos, report.skipped_texts) == ("v", 1, 1)
    assert failed.reason.startswith(reason)


class TestQdrant:
    def test_by_another_field_and_by_the_points_own_ids(self, ingested, tmp_path):
        store, encoder, clips = ingested
        points, _ = store.client.scroll(store.collection)
        for field, names in (("path", [str(clip) for clip in clips]), ("", [point.id for point in points])):
            pairs = write_pairs(tmp_path / f"{field}.jsonl", [{"id": name, "text": "a"} for name in names])
            out = tmp_path / f"cache-{field}"
            report = embed_from_store(pairs, out, encoder.encoder, store, id_field=field, progress=False)
            assert (report.videos, report.failures) == (5, [])
            again = embed_from_store(pairs, out, encoder.encoder, store, retry_failed=True, progress=False)
            assert (again.videos, again.new_videos) == (5, 0)
            found = embed_from_store(pairs, f"{out}-found", encoder.encoder, store, progress=False)
            assert (found.videos, found.failures) == (5, [])

    def test_a_wrong_field_is_refused_before_a_text_is_embedded(self, ingested, tmp_path):
        store, encoder, clips = ingested
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": str(clip), "text": "a"} for clip in clips])
        for field, message in (
            ("paht", r"no payload field 'paht'; did you mean 'path'\? it has .*video_id.* --id-field"),
            (
                "video_id",
                r"not one of its ids is in the collection 'videos'. The first is '.*; the collection has",
            ),
        ):
            with pytest.raises(InputError, match=message):
                embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, id_field=field, progress=False)
            assert not (tmp_path / "cache").exists()  # which is made before the first text is embedded
        report = embed_from_store(
            pairs, tmp_path / "cache", encoder.encoder, store, id_field="path", progress=False
        )
        assert (report.videos, report.failures) == (5, [])

    def test_the_cleaning_is_the_texts_encoders(self, ingested, tmp_path, tiny_clip):
        store, _, clips = ingested
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": str(clips[0]), "text": "a dog\u2019s ball"}])
        texts = load_encoder(tiny_clip, text_cleaning="clip")
        embed_from_store(pairs, tmp_path / "cache", texts, store, id_field="path", progress=False)
        cached = load_pairs(tmp_path / "cache")
        assert (store.open().text.text_cleaning, cached.space.text.text_cleaning) == ("none", "clip")
        np.testing.assert_allclose(cached.text, texts.embed_texts(["a dog's ball"]), atol=1e-5)

    def test_texts_of_an_encoder_of_their_own(self, ingested, tmp_path, tmp_path_factory):
        store, encoder, clips = ingested
        texts = load_encoder(save_random_clip(tmp_path_factory.mktemp("narrow") / "narrow", width=24))
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": str(clip), "text": clip.stem} for clip in clips])
        for name, videos in (("checked", encoder.encoder), ("trusted", None)):
            out = tmp_path / name
            embed_from_store(pairs, out, videos, store, texts=texts, id_field="path", progress=False)
            cached = load_pairs(out)
            assert (cached.text.shape[1], cached.video.shape[1], cached.space.shared) == (24, 32, False)
            assert (cached.space.text, cached.space.video) == (TextSide.of(texts), encoder.space.video)
        lines = [{"video": str(clip), "text": clip.stem} for clip in clips]
        files = write_pairs(tmp_path / "files.jsonl", lines)
        embed(files, tmp_path / "files", encoder, texts=texts, progress=False)
        assert load_pairs(tmp_path / "files").space == cached.space
        with pytest.raises(InputError, match="texts of width 24 and videos of width 32 share no space"):
            embed(files, tmp_path / "no", encoder, texts=texts, shared=True, progress=False)

    def test_failures_are_remembered_by_field(self, ingested, tmp_path):
        store, encoder, clips = ingested
        ids = {record.path: record.video_id for record in store.records()}
        names = [ids[str(clips[0])], *map(str, clips[1:])]  # one by the default field, four by another
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": name, "text": "a"} for name in names])
        counts = []
        for field in ("video_id", "path", "path"):
            report = embed_from_store(
                pairs, tmp_path / "cache", encoder.encoder, store, id_field=field, progress=False
            )
            counts.append((report.new_texts, report.new_videos, report.videos))
        assert counts == [(5, 1, 1), (0, 4, 5), (0, 0, 5)]

    def test_an_id_with_the_suffix_of_a_video_is_the_id_without(self, clip, tmp_path):
        names = ["v1", "v2.mp4", "v3", "v4", "v5"]
        vector = unit(np.ones(clip.width))
        rows = [StoredSegment(n, {"video_id": name}, vector, None) for n, name in enumerate(names)]
        store = SimpleNamespace(
            open=lambda: EmbeddingSpace.of(clip),
            metadata=lambda: CollectionMetadata(space=EmbeddingSpace.of(clip)),
            location="somewhere",
            collection="videos",
            tenant=None,
            capabilities=Capabilities(),
            read=lambda request: (row for row in rows if request.chooses(row.id, row.payload)),
        )
        ids = ["v1.mp4", "v2.mp4", "v3", "v3.MOV", "v4.mp4", "v4.mkv", " v5.webm ", "v6.mp4"]
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": name, "text": "a"} for name in ids])
        report = embed_from_store(pairs, tmp_path / "cache", clip, store, progress=False)
        assert list(load_pairs(tmp_path / "cache").video_ids) == ["v1.mp4", "v2.mp4", "v3", "v5.webm"]
        assert [failed.id for failed in report.failures] == ["v3.MOV", "v4.mp4", "v4.mkv", "v6.mp4"]

    def test_several_points_of_one_video_are_their_mean_or_named_one_by_one(self, ingested, tmp_path):
        store, encoder, clips = ingested
        segments = QdrantStore(store.client, "segments")
        ingest(segments, clips[:2], encoder, segment_seconds=0.2, progress=False)
        stored = sorted(segments.read(ReadRequest(vectors=True, frames=True)), key=lambda s: s.payload["start"])
        names = list(dict.fromkeys(segment.payload["video_id"] for segment in stored))
        pairs = write_pairs(tmp_path / "a.csv", [])
        pairs.write_text("query,id\n" + "".join(f"a,{name}\n" for name in names))
        with pytest.warns(UserWarning, match="'segments' has several segments of a video, such as 3 of .* mean"):
            report = embed_from_store(pairs, tmp_path / "a", encoder.encoder, segments, progress=False)
        assert (report.videos, report.failures) == (2, [])
        cached = load_pairs(tmp_path / "a")
        for row, name in enumerate(names):
            of_video = [segment for segment in stored if segment.payload["video_id"] == name]
            np.testing.assert_allclose(
                cached.video[row], unit(np.mean([segment.vector for segment in of_video], axis=0)), atol=1e-6
            )
            every = np.concatenate([segment.frame_vectors for segment in of_video])
            np.testing.assert_allclose(cached.frames[row], every[1::3], atol=1e-6)
        pairs = write_pairs(tmp_path / "b.jsonl", [{"id": segment.id, "text": "a"} for segment in stored])
        report = embed_from_store(pairs, tmp_path / "b", encoder.encoder, segments, progress=False)
        assert report.videos == len(stored) == 6

    def test_fields_within_fields_are_found_and_named(self, clip, tmp_path):
        vector = unit(np.ones(clip.width)).tolist()
        size = models.VectorParams(size=clip.width, distance=models.Distance.COSINE)
        client = QdrantClient(":memory:")
        client.create_collection("mine", size)
        client.upsert("mine", [models.PointStruct(id=7, vector=vector, payload={"film": {"name": "Rain"}})])
        store = QdrantStore(client, "mine")
        adopt_collection(store, EmbeddingSpace.of(clip), PointLayout(vector=""))
        pairs = write_pairs(tmp_path / "a.jsonl", [{"id": "Rain", "text": "a"}])
        assert embed_from_store(pairs, tmp_path / "cache", clip, store, progress=False).failures == []
        with pytest.raises(InputError, match=r"no payload field 'film\.nam'; did you mean 'film\.name'\?"):
            embed_from_store(pairs, tmp_path / "no", clip, store, id_field="film.nam", progress=False)
        others = write_pairs(tmp_path / "b.jsonl", [{"id": "Sun", "text": "a"}])
        with pytest.raises(InputError, match=r"the collection has '7'\. Check .*tried: '', 'path', 'film\.name'"):
            embed_from_store(others, tmp_path / "no", clip, store, progress=False)

    def test_another_encoder_is_refused(self, ingested, tmp_path, other_clip):
        store, _, _ = ingested
        pairs = write_pairs(tmp_path / "pairs.jsonl", [{"id": "a", "text": "a"}])
        with pytest.raises(SpaceMismatchError, match="the collection 'videos' goes with videos of tiny-clip"):
            embed_from_store(pairs, tmp_path / "cache", load_encoder(other_clip), store, progress=False)

    def test_a_collection_of_somebody_else(self, clip, tmp_path):
        client = QdrantClient(":memory:")
        client.create_collection("mine", models.VectorParams(size=clip.width, distance=models.Distance.COSINE))
        vectors = unit(np.random.default_rng(0).normal(size=(3, clip.width)))
        client.upsert(
            "mine",
            [models.PointStruct(id=n, vector=vectors[n].tolist(), payload={"clip": 70 + n}) for n in range(3)],
        )
        pairs = write_pairs(tmp_path / "pairs.jsonl", [{"id": 70 + n, "text": f"text {n}"} for n in (2, 0)])
        with pytest.raises(StoreError, match="does not say which embedding space"):
            embed_from_store(
                pairs, tmp_path / "cache", clip, QdrantStore(client, "mine", layout=PointLayout(vector=""))
            )
        space = EmbeddingSpace.of(clip)
        store = QdrantStore(client, "mine", space=space, layout=PointLayout(vector=""), trust_foreign=True)
        with pytest.warns(UserWarning, match="does not say which embedding space"):
            embed_from_store(pairs, tmp_path / "cache", clip, store, id_field="clip", progress=False)
        found = load_pairs(tmp_path / "cache")
        np.testing.assert_allclose(found.video, vectors[[2, 0]], atol=1e-6)
        assert (list(found.video_ids), found.frames) == (["72", "70"], None)

    def test_a_server_that_goes_away_loses_nothing(self, ingested, tmp_path, monkeypatch, small_shards):
        store, encoder, _ = ingested
        lines = [{"id": record.video_id, "text": "a"} for record in store.records()]
        pairs, scroll = write_pairs(tmp_path / "pairs.jsonl", lines), store.client.scroll
        calls = iter([scroll, scroll])  # that one of the ids is there, and the first shard

        def failing(*args: Any, **options: Any) -> Any:
            try:
                return next(calls)(*args, **options)
            except StopIteration:
                raise ResponseHandlingException(httpx.UnsupportedProtocol("connection refused")) from None

        monkeypatch.setattr(store.client, "scroll", failing)
        with pytest.raises(StoreError, match=r"connection refused.* goes on from there"):
            embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        monkeypatch.setattr(store.client, "scroll", scroll)
        report = embed_from_store(pairs, tmp_path / "cache", encoder.encoder, store, progress=False)
        assert (report.videos, report.new_videos) == (5, 2)

    def test_command(self, ingested, tmp_path, tiny_clip, capsys):
        _, encoder, clips = ingested
        with QdrantStore(tmp_path / "store") as store:
            ingest(store, clips, encoder, progress=False)
            lines = [{"id": record.video_id, "text": "a"} for record in store.records()]
        pairs = write_pairs(tmp_path / "pairs.jsonl", lines)
        command = ["embed", str(pairs), "--encoder", str(tiny_clip), "--out", str(tmp_path / "cache")]
        command += ["--store", str(tmp_path / "store")]
        assert main(command) == 0
        assert "videos  5, 5 of them new" in capsys.readouterr().out
        assert main([*command, "--videos", str(tmp_path)]) == 1
        assert "give one of them" in capsys.readouterr().err
