"""The scale benchmark, small: vectors with the promised structure, searches and runs against a real server."""

from __future__ import annotations

import dataclasses
import json
import math
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from pydantic import TypeAdapter

from benchmarks import generated, scale
from benchmarks.generated import CHUNK, PER_VIDEO, PairModel
from dits_adapter.data.pairs import Pairs
from dits_adapter.stores.qdrant.store import POOLED, QdrantStore
from dits_adapter.video.decode import decode_frames
from tests.stores.conftest import qdrant_process  # noqa: F401


@pytest.fixture
def served(qdrant_process):  # noqa: F811
    """A server whose gRPC port we know."""
    process = qdrant_process()
    return scale.Place(process.url, process.grpc_port, process.pid, process.folder)


@pytest.fixture
def hasty(monkeypatch):
    """For collections so small that nothing is built."""
    monkeypatch.setattr(scale, "SETTLED", 0.1)


@pytest.fixture(params=["server", "folder"])
def place(request, tmp_path):
    """Where vectors can be."""
    if request.param == "server":
        return request.getfixturevalue("served")
    folder = tmp_path / "folder"
    return scale.Place(str(folder), None, "self", folder)


def collections(place):
    with QdrantStore(place.location) as store:
        return [collection.name for collection in store.client.get_collections().collections]


def search(place, tmp_path, *arguments):
    common = ["--width", "16", "--queries", "7", "--store", place.location]
    if place.grpc_port is not None:
        common += ["--grpc-port", str(place.grpc_port)]
    code = scale.main(["search", *common, *arguments, "--out", str(tmp_path)])
    return code, TypeAdapter(scale.Search).validate_json((tmp_path / "search.json").read_bytes())


def test_search_measures_every_way_and_leaves_nothing_behind(place, hasty, tmp_path, capsys):
    code, found = search(place, tmp_path, "--segments", "60", "40")
    assert code == 0
    assert [collection.segments for collection in found.collections] == [40, 60]
    for collection in found.collections:
        assert collection.upload > 0
        assert [kept.quantization for kept in collection.kept] == ["none", "scalar", "binary"]
        for kept in collection.kept:
            assert kept.indexed == 0  # so few are searched without an index, and found
            assert set(kept.searches) == set(kept.calls) == {"plain", "adapted"}
            for rows in kept.searches.values():
                assert [row.search for row in rows[:2]] == ["exact", "index"]
                assert rows[0].recall == 1
            assert all(0 < p50 <= p99 and times > 0 for p50, p99, times in kept.calls.values())
        assert collection.kept[0].searches["plain"][1].recall == 1
        assert "index, not rescored" in [row.search for row in collection.kept[1].searches["plain"]]
    printed = capsys.readouterr().out
    assert "**The vectors are generated**" in printed
    assert "## 60 segments" in printed
    assert "QdrantStore.search" in printed
    assert collections(place) == []


@pytest.mark.slow
def test_kept_collections_are_taken_up(served, hasty, tmp_path, monkeypatch):
    monkeypatch.setattr(generated, "CHUNK", 20)
    monkeypatch.setattr(scale, "CHUNK", 20)
    monkeypatch.setattr(scale, "PAIRS", {"training": 4, "validation": 4, "test": 4})
    drawn = []
    draw = PairModel.segments
    monkeypatch.setattr(PairModel, "segments", lambda self, chunk: drawn.append(chunk) or draw(self, chunk))
    search(served, tmp_path, "--segments", "50", "--keep")
    assert drawn == [0, 1, 2]
    (name,) = collections(served)
    with QdrantStore(served.location, name) as store:
        points, _ = store.client.scroll(name, limit=100, with_vectors=True)
        whole = {point.id: (point.payload, point.vector[POOLED]) for point in points}
        assert len(whole) == 50
        lost = [scale._point(number).id for number in range(33, 50)]  # as if it had been killed there
        store.client.delete(name, lost, wait=True)
    _, found = search(served, tmp_path, "--segments", "50", "--keep")
    assert drawn == [0, 1, 2, 1, 2]
    assert found.collections[0].upload > 0
    with QdrantStore(served.location, name) as store:
        points, _ = store.client.scroll(name, limit=100, with_vectors=True)
        assert {point.id: (point.payload, point.vector[POOLED]) for point in points} == whole
    _, found = search(served, tmp_path, "--segments", "50")
    assert drawn == [0, 1, 2, 1, 2]
    assert found.collections[0].upload is None
    assert collections(served) == []


def test_the_points_are_those_of_ingestion(served):
    model = PairModel.standard(8)
    with QdrantStore(served.location, "points") as store:
        scale.fill(store, served, model, 12)
        assert store.count() == 12
        (hit,) = store.search(model.segments(0)[7], limit=1)
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert hit.path == "/videos/0000/0000001.mp4"
    assert (hit.start, hit.end, hit.payload["duration"]) == (10, 15, 25)
    assert len(hit.payload["timestamps"]) == 12
    assert "segments" not in hit.payload
    assert scale._point(9).payload["segments"] == PER_VIDEO


@pytest.mark.parametrize("place", ["server", "folder"], indirect=True)
@pytest.mark.slow
def test_an_index_is_waited_for(place):
    width, segments = 1024, 6_400  # Qdrant's thresholds are of bytes, and few wide vectors are indexed quickest
    model = PairModel.standard(width)
    with QdrantStore(place.location, "indexed") as store:
        scale.fill(store, place, model, segments)
        queries = {"plain": model.queries(20, segments)}
        kept = scale.measure_kept(store, place, "none", queries, full=segments)
        assert kept.indexed > 0.8 * segments
        assert kept.build > 0
        recall = {row.search: row.recall for row in kept.searches["plain"]}
        assert 0.5 < recall["index, ef 16"] <= recall["index, ef 512"] <= 1
        assert recall["index, ef 16"] < 1  # it is the index that was searched
        assert kept.memory > 10
        assert kept.disk > segments * width * 4 / 2**20


@pytest.mark.parametrize("processes", [0, pytest.param(1, marks=pytest.mark.slow)])  # each loads torch
def test_ingest_stores_distinct_clips_and_finds_them_again(served, tmp_path, monkeypatch, capsys, processes):
    pools = iter([ProcessPoolExecutor] * processes)

    def pool(workers, context):
        of_processes = next(pools, None)
        return of_processes(workers, context) if of_processes else ThreadPoolExecutor(workers)

    monkeypatch.setattr(scale, "ProcessPoolExecutor", pool)
    arguments = ["ingest", "--clips", "5", "3", "--store", served.location, "--out", str(tmp_path)]
    assert scale.main(arguments) == 0
    found = TypeAdapter(scale.Ingest).validate_json((tmp_path / "ingest.json").read_bytes())
    assert [size.clips for size in found.sizes] == [3, 5]
    assert all(size.rate > 0 and size.memory > 50 and size.again > 0 for size in found.sizes)
    assert "seconds, all present" in capsys.readouterr().out
    assert json.loads((tmp_path / "ingest.json").read_text())["version"] == 1
    assert collections(served) == []


def test_a_number_at_the_end_changes_the_file_but_not_the_frames(clips, tmp_path):
    clip = clips["train"][0].path
    scale.write_distinct([clip.read_bytes()], tmp_path / "made", 3)
    made = sorted((tmp_path / "made").iterdir())
    assert len({path.read_bytes() for path in made}) == 3
    for path in made:
        for backend in ("decord", "pyav"):
            expected, found = (decode_frames(file, 12, decoder=backend).frames for file in (clip, path))
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "--keep"], "--keep is for a store"),
        (["search", "--segments", "0", "--store", "http://localhost:1"], "at least one"),
        (["search", "--queries", "0", "--store", "http://localhost:1"], "at least one"),
        (["search", "--like", "nothing.safetensors"], "no such file"),
        (["ingest", "--clips", "0"], "at least one"),
        (["ingest", "--clips", "1"], "QDRANT_BIN"),
        (["ingest", "--clips", "1", "--store", "http://localhost:1"], "Is a Qdrant server running"),
    ],
)
def test_what_cannot_be_measured(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("QDRANT_BIN", raising=False)
    assert scale.main([*arguments, "--out", str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


def test_vectors_are_the_same_however_they_are_drawn():
    one, other = PairModel.standard(16), PairModel.standard(16)
    np.testing.assert_array_equal(one.segments(3), other.segments(3))
    assert not np.array_equal(one.segments(3), one.segments(4))
    assert one.digest == other.digest != PairModel.standard(17).digest
    np.testing.assert_array_equal(one.queries(9, 10**6), other.queries(9, 10**7))
    assert one.queries(9, 4).shape == (9, 16)


def test_the_standard_moments_are_those_of_the_docstring():
    width = 64
    model = PairModel.standard(width)
    videos, pairs = model.segments(0), model.pairs("test", CHUNK // PER_VIDEO)
    np.testing.assert_allclose(np.linalg.norm(videos, axis=1), 1, atol=1e-6)
    mean_norm = float(np.linalg.norm(model.video_mean))
    assert mean_norm == pytest.approx(generated.MEAN_NORMS[0])
    cosine = model.video_mean @ model.text_mean / mean_norm / np.linalg.norm(model.text_mean)
    assert cosine == pytest.approx(generated.MEAN_COSINE, abs=1e-6)
    eigenvalues = np.linalg.eigvalsh(model.video_factor.astype(np.float64) @ model.video_factor.T)[::-1]
    assert eigenvalues.sum() == pytest.approx(generated.VARIANCE, rel=1e-5)
    assert eigenvalues[9] / eigenvalues[0] == pytest.approx((13 / 4) ** -generated.DECAY, rel=1e-4)
    gap = np.linalg.norm(pairs.text.mean(0) - pairs.video.mean(0))
    assert gap == pytest.approx(0.85, abs=0.05)
    # neighbors: segments of a video, of a topic, any
    same_video = np.sum(videos[::PER_VIDEO] * videos[1::PER_VIDEO], axis=1).mean()
    any_two = np.sum(videos[::PER_VIDEO] * np.roll(videos, CHUNK // 2, axis=0)[::PER_VIDEO], axis=1).mean()
    shared = 1 - generated.SHARES["segment"]
    assert same_video == pytest.approx(generated.MEAN_NORMS[0] ** 2 + shared * generated.VARIANCE, abs=0.02)
    assert any_two == pytest.approx(generated.MEAN_NORMS[0] ** 2, abs=0.02)
    assert sum(generated.SHARES.values()) == pytest.approx(1)


def test_moments_of_pairs_come_back():
    """What is drawn from the moments of pairs has their moments, up to the shrinkage of few."""
    truth = PairModel.standard(12)
    x = np.random.default_rng(3).standard_normal((4000, 12))
    y = np.random.default_rng(4).standard_normal((4000, 12))
    video = truth.video_mean + x @ truth.video_factor.T
    text = truth.text_mean + x @ truth.shared.T + y @ truth.own.T
    video, text = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (video, text))
    pairs = Pairs(text.astype(np.float32), video.astype(np.float32), np.arange(4000), truth.space)
    model = PairModel.like(pairs, "pairs")
    np.testing.assert_allclose(model.video_mean, video.mean(0), atol=1e-4)
    np.testing.assert_allclose(model.text_mean, text.mean(0), atol=1e-4)
    scale_ = np.abs(np.cov(video.T)).max()
    np.testing.assert_allclose(model.video_factor @ model.video_factor.T, np.cov(video.T), atol=0.05 * scale_)
    between = (text - text.mean(0)).T @ (video - video.mean(0)) / 4000
    np.testing.assert_allclose(model.shared @ model.video_factor.T, between, atol=0.05 * scale_)
    of_text = model.shared @ model.shared.T + model.own @ model.own.T
    np.testing.assert_allclose(of_text, np.cov(text.T), atol=0.05 * scale_)
    assert "4,000 pairs of pairs" in model.source


def test_chance_does_not_pass_for_dependence():
    """Texts that have nothing to do with their videos, fewer than dimensions: what is drawn has nothing either."""
    random = np.random.default_rng(0)
    text, video = (random.normal(size=(60, 128)).astype(np.float32) for _ in range(2))
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    model = PairModel.like(Pairs(text, video, np.arange(60), PairModel.standard(128).space), "noise")
    explained = np.sum(model.shared**2) / np.sum(model.own**2)
    assert explained < 0.1


def test_the_digest_sees_every_part():
    model = PairModel.standard(8)
    for name in ("video_mean", "text_mean", "video_factor", "shared", "own"):
        changed = dataclasses.replace(model, **{name: getattr(model, name) + np.float32(0.01)})
        assert changed.digest != model.digest, name
    assert math.isclose(sum(generated.SHARES.values()), 1)
