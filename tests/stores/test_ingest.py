"""Ingestion: what is stored, skipped, replaced and reported, and what is left when it is interrupted anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from httpx import Headers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from tqdm import tqdm

from benchmarks.server import QdrantProcess
from dits_adapter import _progress
from dits_adapter.cli import main
from dits_adapter.errors import InputError, SpaceMismatchError, StoreError
from dits_adapter.stores import ingest as ingest_module
from dits_adapter.stores import session
from dits_adapter.stores._discover import find_videos
from dits_adapter.stores._words import words_of
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.qdrant import _retry as retry
from dits_adapter.stores.qdrant.store import QdrantStore
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.rows import SegmentRow, VideoFile
from dits_adapter.video.encoder import VideoEncoder
from tests.stores.conftest import Storage, contents
from tests.stores.fakes import FRAMES, FakeEncoder, fake_space, write_video
from tests.waiting import PATIENCE


def run(store: QdrantStore, folder: Path, encoder: FakeEncoder | None = None, **options: Any) -> IngestReport:
    return ingest_module.ingest(store, folder, encoder or FakeEncoder(), progress=False, **options)  # type: ignore[arg-type]


def fresh(collection: str = "videos") -> QdrantStore:
    return QdrantStore(QdrantClient(":memory:"), collection)


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for point, (payload, vectors) in expected.items():
        assert found[point][0] == payload
        assert found[point][1].keys() == vectors.keys()
        for name in vectors:
            np.testing.assert_allclose(found[point][1][name], vectors[name], atol=1e-6)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A folder with everything that occurs in one."""
    folder = tmp_path / "library"
    for seed in range(4):
        write_video(folder / f"good {seed}.mp4", seed=seed, segments=seed + 1)
    write_video(folder / "deep" / "ärger 東京 🎬.MKV", seed=10)
    write_video(folder / "broken.mp4", "broken")
    write_video(folder / "half.webm", "half", seed=20, segments=3)
    write_video(folder / "copy of good 2.mp4", seed=2, segments=3)
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    (folder / ".hidden.mp4").write_text("no video")
    (folder / ".trash").mkdir()
    return folder


def test_a_mixed_folder_is_ingested_to_the_end_and_each_bad_file_reported(storage: Storage, library: Path) -> None:
    with storage.open() as store:
        report = run(store, library)
        points = contents(store)
    assert (report.videos, report.segments) == (5, 12)
    assert report.failed == {
        str(library / "broken.mp4"): "no video stream",
        str(library / "empty.mp4"): "the file is empty",
        str(library / "half.webm"): "it ends early",
    }
    assert report.duplicates == {str(library / "good 2.mp4"): str(library / "copy of good 2.mp4")}
    assert report.ignored == {
        str(library / "notes.txt"): "no video extension (.txt)",
        str(library / ".hidden.mp4"): "hidden",
        str(library / ".trash"): "hidden",
    }
    for path, reason in report.failed.items():
        assert f"{path}: {reason}" in str(report)
    stored = sorted((p["path"], p["start"]) for p, vectors in points.values() if vectors)
    assert len(stored) == 12
    assert str(library / "half.webm") not in {path for path, _ in stored}
    payload, vectors = next(points[i] for i in points if points[i][0]["path"].endswith("good 0.mp4"))
    status = os.stat(library / "good 0.mp4")
    assert payload | {"video_id": None} == {
        "video_id": None,
        "path": str(library / "good 0.mp4"),
        "words": words_of(str(library / "good 0.mp4")),
        "start": 0.0,
        "end": 2.0,
        "timestamps": [0.25, 0.75, 1.25, 1.75],
        "duration": 2.0,
        "fps": pytest.approx(29.97003),
        "decoder": "fake",
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "segments": 1,
    }
    assert np.shape(vectors["frames"]) == (FRAMES, 8)


def test_a_second_run_decodes_nothing_and_changes_nothing(storage: Storage, library: Path) -> None:
    run(storage.open(), library)
    before = contents(storage.open())
    encoder = FakeEncoder()
    report = run(storage.open(), library, encoder)
    assert encoder.decoded == []
    assert (report.videos, report.present, report.failed_before, len(report.failed)) == (0, 5, 3, 3)
    assert_same(contents(storage.open()), before)


def test_shards_of_three_machines_are_one_run(library: Path) -> None:
    (library / "copy of good 2.mp4").unlink()  # of which any shard may be the first
    clean, store = fresh(), fresh()
    whole = run(clean, library)
    reports = [run(store, library, shard=(number, 3)) for number in (1, 2, 3)]
    assert_same(contents(store), contents(clean))
    assert sum(report.videos for report in reports) == whole.videos
    failed = {path for report in reports for path in report.failed}
    assert (failed, sum(len(report.failed) for report in reports)) == (set(whole.failed), len(whole.failed))
    assert max(report.videos for report in reports) < whole.videos
    for wrong in ({"shard": (0, 3)}, {"shard": (4, 3)}, {"shard": (1, 3), "sync": True}):
        with pytest.raises(InputError, match="shard"):
            run(store, library, **wrong)


@pytest.mark.parametrize("batch", [1, session.BATCH])
def test_stopped_before_or_after_any_write_the_next_run_completes_it(
    library: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(session, "BATCH", batch)
    clean = fresh()
    run(clean, library)
    expected = contents(clean)

    class Killed(BaseException):
        pass

    def kill_at(step: int) -> Iterator[None]:
        """Count the store's writes and stop at the given one: odd before it is done, even after."""
        steps = iter(range(1, 1000))

        def stopping(write: Callable[..., None]) -> Callable[..., None]:
            def wrapped(*args: Any) -> None:
                if next(steps) == step:
                    raise Killed
                write(*args)
                if next(steps) == step:
                    raise Killed

            return wrapped

        with monkeypatch.context() as patched:
            for name in ("write_points", "delete", "update_path"):
                patched.setattr(QdrantStore, name, stopping(getattr(QdrantStore, name)))
            yield

    for step in range(1, 1000):
        store = fresh()
        try:
            for _ in kill_at(step):
                run(store, library)
        except Killed:
            run(store, library)
            assert_same(contents(store), expected)
        else:
            assert step > (30 if batch == 1 else 4)
            break


@pytest.mark.parametrize(("kind", "stored"), [("good", 120), ("half", 0), ("touched", 120), ("changed", 120)])
def test_an_interrupted_long_video_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, stored: int
) -> None:
    path = write_video(tmp_path / "library" / "long.mp4", kind, seed=1, segments=120)
    store = fresh()
    with monkeypatch.context() as patched:
        write, batches = QdrantStore.write, iter(range(6))

        def stopping(*rows: Any) -> None:
            if next(batches) == 5:
                raise KeyboardInterrupt
            write(*rows)

        patched.setattr(QdrantStore, "write", stopping)
        with suppress(KeyboardInterrupt):
            run(store, path.parent)
    assert len(contents(store)) == 5 * session.BATCH
    if kind == "touched":
        os.utime(path, ns=(1, 1))
    if kind == "changed":
        write_video(path, seed=2, segments=120)
    encoder = FakeEncoder()
    run(store, path.parent, encoder)
    assert encoder.segments == (120 if kind == "changed" else 120 - 4 * session.BATCH)
    rows = {point: row for point, row in contents(store).items() if "failure" not in row[0]}
    assert len(rows) == stored
    if stored:
        clean = fresh()
        run(clean, path.parent)
        assert rows.keys() == contents(clean).keys()
        again = FakeEncoder()
        assert run(store, path.parent, again).present == 1
        assert not again.decoded


def test_a_file_that_ended_a_process_is_a_suspect_in_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, killer, _ = [write_video(tmp_path / "library" / f"{name}.mp4", seed=n) for n, name in enumerate("abc")]
    script = (
        "import os, sys; from tests.stores.test_ingest import *\n"
        "encoder = FakeEncoder(); encoder.before = lambda path: path.endswith('b.mp4') and os._exit(9)\n"
        "run(fresh(), Path(sys.argv[1]), encoder)"
    )
    assert subprocess.run([sys.executable, "-c", script, first.parent]).returncode == 9
    encoder = FakeEncoder()
    assert run(fresh(), first.parent, encoder).videos == 3
    assert encoder.suspects == [str(first), str(killer)]  # both were on their way
    again = FakeEncoder()
    run(fresh(), first.parent, again)
    assert again.suspects == []


def test_a_run_that_ends_by_itself_leaves_no_suspects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    video = write_video(tmp_path / "library" / "a.mp4")

    def stop(path: str) -> None:
        raise KeyboardInterrupt

    for before in (stop, lambda path: None):
        encoder = FakeEncoder()
        encoder.before = before
        with suppress(KeyboardInterrupt):
            run(fresh(), video.parent, encoder)
        assert not encoder.suspects
    assert not list((tmp_path / "cache" / "dits-adapter" / "reading").iterdir())


def test_a_user_without_a_home_ingests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    monkeypatch.chdir(tmp_path)
    video = write_video(tmp_path / "library" / "a.mp4")
    assert run(fresh(), video.parent).videos == 1
    assert [path.name for path in tmp_path.iterdir()] == ["library"]


def test_an_interruption_says_how_much_is_stored(library: Path) -> None:
    store, encoder = fresh(), FakeEncoder()

    def interrupt(path: str) -> None:
        if len(encoder.decoded) == 6:
            raise KeyboardInterrupt

    encoder.before = interrupt
    with pytest.raises(KeyboardInterrupt) as caught:
        run(store, library, encoder, segment_seconds=2.0)
    stored = len(contents(store))
    assert (
        str(caught.value)
        == f"{stored} segments were stored by this run, and stay; the same command goes on from there."
    )
    clean = fresh()
    run(clean, library, segment_seconds=2.0)
    run(store, library, segment_seconds=2.0)
    assert_same(contents(store), contents(clean))


def test_the_bar_moves_inside_a_file_and_only_on_a_terminal(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[float, str]] = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def update(self, n: float = 1) -> None:
            super().update(n)
            if not self.disable:
                steps.append((round(self.n, 6), str(self.postfix or "")))

    monkeypatch.setattr(_progress, "tqdm", Bar)
    ingest_module.ingest(fresh(), library / "good 3.mp4", FakeEncoder())  # type: ignore[arg-type]
    assert steps == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ingest_module.ingest(fresh(), library / "good 3.mp4", FakeEncoder())  # type: ignore[arg-type]
    shares = [n for n, _ in steps]
    assert shares == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert steps[1][1] == "good 3.mp4: 00:04 of 00:08"
    steps.clear()
    report = ingest_module.ingest(fresh(), library, FakeEncoder())  # type: ignore[arg-type]
    assert [n for n, _ in steps] == sorted(n for n, _ in steps)
    assert steps[-1][0] == report.videos + len(report.failed)


@pytest.mark.parametrize("kills", [15, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_ends_as_one_clean_run(storage: Storage, tmp_path: Path, kills: int) -> None:
    """Kill at seeded moments; whatever a run left, further kills and in the end one whole run complete it."""
    if isinstance(storage.location, QdrantClient):
        pytest.skip("memory does not outlive its process")
    library = tmp_path / "library"
    for seed in range(40):
        write_video(
            library / f"{seed}.mp4", "broken" if seed % 20 == 7 else "good", seed=seed, segments=seed % 5 + 1
        )
    clean = fresh()
    run(clean, library)
    expected = contents(clean)

    def complete() -> float:
        started = time.monotonic()
        run(storage.open(), library, FakeEncoder(delay=0.001))
        seconds = time.monotonic() - started
        store = storage.open()
        assert_same(contents(store), expected)
        store.client.delete(store.collection, models.FilterSelector(filter=models.Filter()), wait=True)
        storage.close()
        return seconds

    complete()  # makes the collection
    duration = complete()
    rng = np.random.default_rng(0)
    command = [sys.executable, "-m", "tests.stores.fakes", str(storage.location), storage.collection, str(library)]
    left = kills
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        while left:
            starter.stdin.write("start\n")
            process = int(starter.stdout.readline())
            time.sleep(rng.uniform(0, duration / 2))
            os.kill(process, signal.SIGKILL)
            starter.stdin.write("killed\n")
            killed = int(starter.stdout.readline()) == -signal.SIGKILL
            left -= killed
            duration *= 1 if killed else 0.7  # that run was faster: this machine may have rested in the first one
            if not killed or left % 5 == 0:
                complete()


def test_killed_server_is_named_and_after_its_restart_the_next_run_completes(
    qdrant_process: Callable[..., QdrantProcess], library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BATCH", 1)
    clean = fresh()
    run(clean, library)
    server = qdrant_process()
    encoder = FakeEncoder()
    encoder.before = lambda path: server.kill() if len(encoder.decoded) == 4 else None
    refusal = rf"{server.url} gives no usable answer.*the same command goes on"
    with QdrantStore(server.url, patience=3) as store, pytest.raises(StoreError, match=refusal):
        run(store, library, encoder)
    server.start()
    with QdrantStore(server.url, patience=PATIENCE) as store:
        run(store, library)
        assert_same(contents(store), contents(clean))


def test_a_server_that_restarts_is_outlasted(
    qdrant_process: Callable[..., QdrantProcess],
    library: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(session, "BATCH", 1)
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.05)
    clean = fresh()
    run(clean, library)
    server = qdrant_process()
    restarts: list[threading.Timer] = []

    def restart(path: str) -> None:
        if len(encoder.decoded) in (2, 4, 6):
            if restarts:
                restarts[-1].join()
            server.kill()
            restarts.append(threading.Timer(0.3, server.start))
            restarts[-1].start()

    encoder = FakeEncoder()
    encoder.before = restart
    with QdrantStore(server.url, patience=PATIENCE) as store:
        report = run(store, library, encoder)
        assert len(restarts) == 3
        assert report.videos == 5
        assert_same(contents(store), contents(clean))
    assert "is away or overloaded" in caplog.text


@pytest.mark.parametrize("answer", [429, 503, 400])
def test_an_overloaded_server_is_asked_again_and_one_that_refuses_is_not(
    library: Path, monkeypatch: pytest.MonkeyPatch, answer: int
) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    store = fresh()
    upsert, asked = store.client.upsert, 0

    def upsert_the_third_time(*args: Any, **options: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise UnexpectedResponse(answer, "", b"no", Headers())
        return upsert(*args, **options)

    monkeypatch.setattr(store.client, "upsert", upsert_the_third_time)
    if answer == 400:
        with pytest.raises(StoreError, match="answers 400: no"):
            run(store, library)
        assert asked == 1
    else:
        assert run(store, library).videos == 5
        assert asked >= 3


def test_sync_deletes_what_is_gone_and_nothing_else(storage: Storage, library: Path, tmp_path: Path) -> None:
    elsewhere = write_video(tmp_path / "elsewhere" / "other.mp4", seed=50)
    beside = write_video(tmp_path / "library and more" / "beside.mp4", seed=51)
    store = storage.open()
    run(store, library)
    for file in (elsewhere, beside):
        run(store, file.parent)
    whole = contents(store)
    gone = [library / "good 1.mp4", library / "deep" / "ärger 東京 🎬.MKV", library / "broken.mp4"]
    for file in (*gone, elsewhere, beside):
        file.unlink()
    kept = run(storage.open(), library)
    assert kept.removed == []
    assert_same(contents(storage.open()), whole)

    report = run(storage.open(), library, sync=True)
    assert sorted(report.removed) == sorted(map(str, gone))
    assert f"removed  3\n  {report.removed[0]}: is gone" in str(report)
    left = {point: content for point, content in whole.items() if content[0]["path"] not in map(str, gone)}
    assert len(left) < len(whole)
    assert_same(contents(storage.open()), left)


def test_sync_follows_what_moved_and_leaves_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "library"
    moved, closed = write_video(library / "a.mp4"), write_video(library / "closed" / "b.mp4", seed=1)
    store = fresh()
    run(store, library)
    moved.rename(library / "c.mp4")
    lstat, walk = os.lstat, os.walk

    def refuse(path: Any, **options: Any) -> Any:
        if os.fspath(path) == os.fspath(closed):
            raise PermissionError(13, "Permission denied", path)
        return lstat(path, **options)

    def walk_past(root: str, **options: Any) -> Iterator[Any]:
        for folder, folders, names in walk(root, **options):
            if folder != os.fspath(closed.parent):
                yield folder, folders, names

    monkeypatch.setattr(os, "lstat", refuse)
    monkeypatch.setattr(os, "walk", walk_past)
    report = run(store, library, sync=True)
    assert (report.moved, report.removed) == (1, [])
    assert {payload["path"] for payload, _ in contents(store).values()} == {str(library / "c.mp4"), str(closed)}


def test_sync_takes_an_empty_folder_for_a_disk_that_is_not_there(library: Path) -> None:
    store = fresh()
    run(store, library)
    before = contents(store)
    shutil.rmtree(library)
    library.mkdir()
    with pytest.raises(InputError, match=r"has no video in it, but \d+ are stored.*Mount the disk"):
        run(store, library, sync=True)
    assert_same(contents(store), before)
    assert run(fresh(), library, sync=True).removed == []


def test_full_disk_is_said_and_what_was_stored_stays(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BATCH", 3)
    clean = fresh()
    run(clean, library)
    with QdrantStore(tmp_path / "store") as store, monkeypatch.context() as patched:
        store.create(CollectionMetadata(space=fake_space()))
        free = iter([1 << 30, 1 << 30])  # enough for two batches
        patched.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=next(free, 1 << 20)))
        with pytest.raises(StoreError, match=r"disk is full: 1 MB are free.*Make space.*the same command goes on"):
            run(store, library)
        assert 0 < len(contents(store)) < len(contents(clean))
    with QdrantStore(tmp_path / "store") as store:
        run(store, library)
        assert_same(contents(store), contents(clean))


def test_replaced_content_takes_the_place_of_the_old(storage: Storage, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v" / "a.mp4", seed=1, segments=5)
    run(storage.open(), video.parent)
    write_video(video, seed=2, segments=2)
    assert run(storage.open(), video.parent).videos == 1
    clean = fresh()
    run(clean, video.parent)
    assert_same(contents(storage.open()), contents(clean))
    write_video(video, "broken")
    report = run(storage.open(), video.parent)
    assert report.failed == {str(video): "no video stream"}
    assert storage.open().count() == 0
    write_video(video, seed=2, segments=2)
    assert run(storage.open(), video.parent).videos == 1
    assert len(contents(storage.open())) == 2


def test_moved_and_touched_files_are_not_decoded_again(storage: Storage, tmp_path: Path) -> None:
    first, second = (write_video(tmp_path / "v" / f"{n}.mp4", seed=n) for n in "12")
    run(storage.open(), tmp_path / "v")
    second.rename(tmp_path / "v" / "0 moved.mp4")
    os.utime(first, ns=(1, 1))
    encoder = FakeEncoder()
    report = run(storage.open(), tmp_path / "v", encoder)
    assert encoder.decoded == []
    assert (report.moved, report.present) == (1, 1)
    clean = fresh()
    run(clean, tmp_path / "v")
    assert_same(contents(storage.open()), contents(clean))


def test_a_copy_is_stored_when_the_original_changes(tmp_path: Path) -> None:
    original = write_video(tmp_path / "v" / "a.mp4", seed=1)
    copy = Path(shutil.copy(original, tmp_path / "v" / "b.mp4"))
    store = fresh()
    assert run(store, tmp_path / "v").duplicates == {str(copy): str(original)}
    write_video(original, seed=2)
    run(store, tmp_path / "v")
    assert {p["path"]: p["video_id"] for p, _ in contents(store).values()}.keys() == {str(original), str(copy)}


def test_failed_files_are_tried_again_when_asked_or_changed(storage: Storage, tmp_path: Path) -> None:
    broken, other = (write_video(tmp_path / "v" / f"{n}.mp4", "broken", seed=n) for n in (1, 2))
    run(storage.open(), tmp_path / "v")
    write_video(other, seed=2)
    encoder = FakeEncoder()
    report = run(storage.open(), tmp_path / "v", encoder)
    assert encoder.decoded == [str(other)]
    assert (report.videos, report.failed_before) == (1, 1)
    encoder = FakeEncoder()
    report = run(storage.open(), tmp_path / "v", encoder, retry_failed=True)
    assert encoder.decoded == [str(broken)]
    assert report.failed == {str(broken): "no video stream"}
    assert report.failed_before == 0
    assert len(contents(storage.open())) == 3


def test_missing_segments_are_noticed_and_restored(storage: Storage, tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", seed=1, segments=4)
    run(storage.open(), tmp_path / "v")
    before = contents(storage.open())
    store = storage.open()
    lost = next(point for point, (payload, _) in before.items() if payload["start"] == 2.0)
    store.client.delete(store.collection, models.PointIdsList(points=[lost]), wait=True)
    assert run(storage.open(), tmp_path / "v").videos == 1
    assert_same(contents(storage.open()), before)


def test_leftovers_of_another_run_under_the_same_path_are_removed(storage: Storage, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v" / "a.mp4", seed=1)
    run(storage.open(), video)
    before = contents(storage.open())
    other = write_video(tmp_path / "other.mp4", seed=2)
    (segment, _) = FakeEncoder().iter_segments([str(other)], on_error=pytest.fail)
    status = video.stat()
    file = VideoFile(str(video), status.st_size, status.st_mtime_ns, str(uuid.uuid4()))
    storage.open().write([SegmentRow.of(file, segment)])
    assert run(storage.open(), video).present == 1
    assert_same(contents(storage.open()), before)


def test_a_video_that_moves_while_it_is_on_its_way_is_stored_where_it_went(tmp_path: Path) -> None:
    first = write_video(tmp_path / "v" / "a.mp4", seed=1)
    write_video(tmp_path / "v" / "m.mp4", seed=2)
    write_video(tmp_path / "v" / "n.mp4", seed=3)
    copy = shutil.copy(first, tmp_path / "v" / "z.mp4")
    encoder = FakeEncoder()
    encoder.before = lambda path: first.unlink() if path.endswith("n.mp4") else None
    store = fresh()
    assert run(store, tmp_path / "v", encoder).moved == 1
    assert {Path(p["path"]).name for p, _ in contents(store).values()} == {"m.mp4", "n.mp4", Path(copy).name}


def test_a_file_that_changes_while_it_is_read_is_not_stored(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v" / "growing.mp4", seed=1)
    encoder = FakeEncoder()
    encoder.before = lambda path: os.utime(path, ns=(5, 5))
    store = fresh()
    report = run(store, video.parent, encoder)
    assert "changed while it was read" in report.failed[str(video)]
    assert contents(store) == {}
    assert run(store, video.parent).videos == 1


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["write", "touch", "move", "copy", "swap", "break"]),
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(0, 5),
    ),
    max_size=8,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.tuples(OPERATIONS, st.integers(1, 6)), min_size=1, max_size=3))
def test_whatever_happens_to_the_files_the_collection_follows(
    rounds: list[tuple[list[tuple[str, int, int, int]], int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Files written, replaced, moved, copied and swapped between runs that are cut short; then a clean run."""
    folder = tmp_path_factory.mktemp("v")
    store = fresh()
    clock = iter(range(1, 10_000))
    for operations, stop in rounds:
        for kind, a, b, seed in operations:
            source, target = folder / f"{a}.mp4", folder / f"{b}.mp4"
            if kind == "write":
                write_video(source, seed=seed, segments=seed % 3 + 1)
            elif kind == "break":
                write_video(source, "broken", seed)
            elif source.exists() and kind == "touch":
                pass
            elif not source.exists() or source == target:
                continue
            elif kind == "move":
                source.rename(target)
            elif kind == "copy":
                shutil.copy(source, target)
                source = target
            elif kind == "swap" and target.exists():
                source.rename(folder / "aside")
                target.rename(source)
                (folder / "aside").rename(target)
            if kind in ("write", "break", "touch", "copy"):
                os.utime(source, ns=(next(clock), next(clock)))
        encoder = FakeEncoder()

        def interrupt(path: str, encoder: FakeEncoder = encoder, stop: int = stop) -> None:
            if len(encoder.decoded) == stop:
                raise KeyboardInterrupt

        encoder.before = interrupt
        with suppress(KeyboardInterrupt):
            run(store, folder, encoder)
    report = run(store, folder)
    clean = fresh()
    clean_report = run(clean, folder)

    def by_content(store: QdrantStore) -> dict[str, Any]:
        return {
            point: {k: v for k, v in payload.items() if k not in ("path", "mtime_ns")}
            for point, (payload, _) in contents(store).items()
            if "failure" not in payload and os.path.exists(payload["path"])
        }

    assert by_content(store) == by_content(clean)
    assert report.failed == clean_report.failed
    ids = {p["path"]: p["video_id"] for p, _ in contents(clean).values() if "video_id" in p}
    ids |= {path: ids[original] for path, original in clean_report.duplicates.items()}
    for payload, _ in contents(store).values():
        if "video_id" in payload and os.path.exists(payload["path"]):
            assert payload["video_id"] == ids[payload["path"]]
            assert payload["mtime_ns"] == os.stat(payload["path"]).st_mtime_ns


def test_another_space_segment_length_or_owner_is_refused(storage: Storage, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v" / "a.mp4")
    run(storage.open(), video, segment_seconds=2.0)
    with pytest.raises(SpaceMismatchError, match=r"video encoder.*fake-1.*collection"):
        run(storage.open(), video, FakeEncoder(fake_space(1)), segment_seconds=2.0)
    with pytest.raises(
        StoreError, match=r"holds segments of 2 s overlapping by 0 s, and this asks for whole videos"
    ):
        run(storage.open(), video)
    with pytest.raises(InputError, match="overlap is 2"):
        run(storage.open(), video, segment_seconds=2.0, overlap=2.0)
    client = QdrantClient(":memory:")
    client.create_collection("mine", vectors_config=models.VectorParams(size=8, distance=models.Distance.COSINE))
    with pytest.raises(StoreError, match="'mine' was made by something else"):
        run(QdrantStore(client, "mine"), video)


def test_links_pipes_and_strange_names(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    write_video(folder / "sub" / "a.mp4", seed=1)
    write_video(tmp_path / "elsewhere" / "b.mp4", seed=2)
    (folder / "sub" / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "dangling.mp4").symlink_to(tmp_path / "nowhere")
    (folder / "itself.mp4").symlink_to(folder / "itself.mp4")
    os.mkfifo(folder / "pipe.mp4")
    strange = os.fsencode(folder) + b"/caf\xe9.mp4"
    with open(strange, "w") as file:
        file.write("good 3 1")
    with open(os.fsencode(folder) + b"/notes.\xe9", "w"):
        pass
    store = fresh()
    report = run(store, folder)
    stored = {Path(p["path"]).relative_to(folder).as_posix() for p, _ in contents(store).values()}
    assert stored == {"sub/a.mp4", "linked/b.mp4"}
    reasons = {Path(path).name: reason for path, reason in report.failed.items()}
    assert reasons["pipe.mp4"] == "is no regular file but a pipe, a socket or a device"
    assert "cannot be read" in reasons["dangling.mp4"]
    assert "cannot be read" in reasons["itself.mp4"]
    assert "not valid UTF-8" in reasons["caf\\udce9.mp4"]
    str(report).encode()


def test_an_unreadable_folder_is_reported_and_the_rest_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "v" / "a.mp4")
    locked = tmp_path / "v" / "locked"
    locked.mkdir()
    scandir = os.scandir

    def denying(path: Any) -> Any:  # permissions do not stop root, who may be running this
        if os.fspath(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(locked))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denying)
    report = run(fresh(), tmp_path / "v")
    assert report.failed == {str(locked): "cannot be read, nor what is in it (Permission denied)"}
    assert report.videos == 1


def test_files_are_found_in_one_order_and_missing_paths_named(tmp_path: Path) -> None:
    names = ["b.mp4", "a.MP4", "sub/c.webm", "odd name"]
    for name in names:
        write_video(tmp_path / name)
    report = IngestReport()
    found = find_videos([tmp_path / "odd name", tmp_path, tmp_path / "b.mp4"], report)
    assert [Path(f).relative_to(tmp_path).as_posix() for f in found] == [
        "odd name",
        "a.MP4",
        "b.mp4",
        "sub/c.webm",
    ]
    with pytest.raises(InputError, match=r"nowhere: no such file or folder"):
        find_videos([tmp_path / "nowhere"], report)
    (tmp_path / "notes").mkdir()
    with pytest.warns(UserWarning, match=r"notes: no video lies here; .*\.mp4"):
        assert find_videos([tmp_path / "notes"], report) == []


@pytest.mark.parametrize("command", ["ingest", "rebuild"])
def test_impossible_segments_are_refused_before_a_model_is_loaded(command, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(VideoEncoder, "from_pretrained", lambda *_, **__: pytest.fail("was loaded"))
    for seconds, overlap in (("0", "0"), ("nan", "0"), ("5", "5"), ("-3", "0"), ("inf", "0")):
        options = ["--segment-seconds", seconds, "--overlap", overlap, "--store", str(tmp_path / "store")]
        assert main([command, str(tmp_path), *options]) == 1
        assert "segments have a length, and overlap by less than it" in capsys.readouterr().err
