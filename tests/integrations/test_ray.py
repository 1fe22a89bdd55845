"""Ingestion on a Ray cluster: whoever dies, workers or driver, it ends as one clean run on one machine."""

from __future__ import annotations

import os
import re
import runpy
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from dits_adapter import EmbedVideos, QdrantStore
from dits_adapter.cli import main as dits_adapter
from dits_adapter.stores.session import IngestSession
from tests.integrations.conftest import write_clip
from tests.stores.conftest import contents
from tests.stores.server import qdrant_client
from tests.waiting import PATIENCE

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "integrations" / "ray" / "ingest.py"
SERVER = "http://localhost:6333"
CLIPS = 40


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A Ray of this machine, which says nothing to anybody, leaves no home and kills nothing by itself."""
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_memory_monitor_refresh_ms": "0",
        "RAY_gcs_server_port_wait_time_s": str(int(PATIENCE)),
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    with pytest.MonkeyPatch.context() as patched:
        for name, value in settings.items():
            patched.setenv(name, value)
        context = started()
        yield context.address_info["address"]
        ray.shutdown()


def started() -> Any:
    options = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 200 << 20, "log_to_driver": False}
    try:
        return ray.init(**options)
    except Exception:  # of no kind of its own: its processes have half a minute to start, on any machine
        ray.shutdown()
        return ray.init(**options)


@pytest.fixture
def library(workplace: Path) -> Path:
    """Clips, and one that is none."""
    videos = workplace / "videos"
    for seed in range(6, CLIPS):
        write_clip(videos / f"{seed}.mp4", seed)
    (videos / "broken.mp4").write_text("this is no video")
    return videos


@pytest.fixture
def collections(qdrant_server: str) -> Iterator[Callable[[], str]]:
    made: list[str] = []

    def name() -> str:
        made.append(f"videos-{uuid.uuid4().hex}")
        return made[-1]

    yield name
    for collection in made:
        qdrant_client(qdrant_server).delete_collection(collection)


def command(server: str, collection: str) -> list[str]:
    """The arguments of the README's command."""
    (line,) = re.findall(
        r"^python integrations/ray/ingest.py (.*)$", (SCRIPT.parent / "README.md").read_text("utf-8"), re.MULTILINE
    )
    return [*shlex.split(line.replace(SERVER, server)), "--collection", collection]


def script() -> dict[str, Any]:
    """The script's names, as its users run it."""
    return runpy.run_path(str(SCRIPT))


def workers() -> set[int]:
    """Process ids of the cluster's workers that hold a model."""
    mine, found = os.environ["RAY_AUTH_TOKEN"], set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess):  # any may end while it is looked at
            title = " ".join(process.cmdline())
            if title.startswith("ray::MapWorker") and process.environ().get("RAY_AUTH_TOKEN") == mine:
                found.add(process.pid)
    return found


def assert_as_one_clean_run(server: str, collection: str, clean: str, library: Path) -> None:
    arguments = ["ingest", str(library), "--store", server, "--encoder", "demo-clip", "--segment-seconds", "2"]
    assert dits_adapter([*arguments, "--collection", clean]) == 3
    with QdrantStore(server, collection) as store, QdrantStore(server, clean) as other:
        found, expected = contents(store), contents(other)
    assert found.keys() == expected.keys()
    for point, (payload, vectors) in expected.items():
        assert found[point][0] == payload
        for name, vector in vectors.items():  # batches differ, and float sums with them
            np.testing.assert_allclose(found[point][1][name], vector, atol=1e-5)


@pytest.mark.slow
def test_killed_workers_are_replaced_and_nothing_is_lost(
    library: Path,
    qdrant_server: str,
    collections: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    os.rename(library, library.with_name("my-videos"))
    killed: set[int] = set()
    replaced: set[int] = set()
    store_video, stored = IngestSession.store_video, iter(range(1, CLIPS + 1))

    def killing(session: IngestSession, *arguments: Any) -> None:
        store_video(session, *arguments)
        if next(stored) == 3:
            killed.update(workers())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        replaced.update(workers() - killed)

    collection = collections()
    main = script()["main"]
    with monkeypatch.context() as patched:
        patched.setattr(IngestSession, "store_video", killing)
        assert main(command(qdrant_server, collection)) == 3
    output = capsys.readouterr().out
    assert killed
    assert replaced
    assert f"stored   {CLIPS} videos, {2 * CLIPS} segments" in output
    assert re.search(r"failed   1\n  \S+broken.mp4: is not a video", output)
    assert_as_one_clean_run(qdrant_server, collection, collections(), library.with_name("my-videos"))
    capsys.readouterr()
    assert main(command(qdrant_server, collection)) == 3  # no worker is started for this
    assert "stored   0 videos, 0 segments" in (output := capsys.readouterr().out)
    assert f"present  {CLIPS}" in output


@pytest.mark.slow
def test_a_killed_driver_leaves_what_it_stored_and_the_next_one_completes_it(
    library: Path, qdrant_server: str, collections: Callable[[], str], cluster: str
) -> None:
    os.rename(library, library.with_name("my-videos"))
    collection = collections()
    line = [*command(qdrant_server, collection), "--workers", "1"]
    arguments = [sys.executable, str(SCRIPT), *line]
    child = subprocess.Popen(arguments, env=os.environ | {"RAY_ADDRESS": cluster}, stderr=subprocess.DEVNULL)
    with QdrantStore(qdrant_server, collection) as store:
        while child.poll() is None:
            if store.client.collection_exists(collection) and store.client.count(collection).count:
                break
            time.sleep(0.02)  # which the child needs to start
    child.kill()
    assert child.wait() == -signal.SIGKILL
    with QdrantStore(qdrant_server, collection) as store:
        assert 0 < store.count() < 2 * CLIPS
    assert script()["main"](line) == 3
    assert_as_one_clean_run(qdrant_server, collection, collections(), library.with_name("my-videos"))


@pytest.mark.slow
def test_moved_swapped_and_copied_files_are_followed(
    library: Path, qdrant_server: str, collections: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    collection = collections()
    arguments = [str(library), "--store", qdrant_server, "--collection", collection, "--segment-seconds", "2"]
    assert dits_adapter(["ingest", *arguments, "--encoder", "demo-clip"]) == 3
    (library / "0.mp4").rename(library / "a.mp4")
    for old, new in (("1", "aside"), ("2", "1"), ("aside", "2")):
        (library / f"{old}.mp4").rename(library / f"{new}.mp4")
    shutil.copy(library / "3.mp4", library / "z.mp4")
    write_clip(library / "4.mp4", seed=100)
    (library / "gone.mp4").symlink_to("nowhere")
    capsys.readouterr()
    assert script()["main"]([*arguments, "--encoder", "demo-clip"]) == 3
    output = capsys.readouterr().out
    assert "moved    2\n" in output  # of the two that were swapped one took the other's place, and was read again
    assert "stored   2 videos" in output
    assert f"copies   1\n  {library}/z.mp4: same content as {library}/3.mp4" in output
    assert "gone.mp4: cannot be read (No such file or directory)" in output
    assert_as_one_clean_run(qdrant_server, collection, collections(), library)


@pytest.mark.slow
def test_a_file_that_kills_its_worker_is_a_failure_and_its_neighbors_are_not(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = script()
    settings = names["main"].__globals__

    class Dying(names["Worker"]):  # type: ignore[misc]
        def tables(self, paths: list[str]) -> Any:
            if any(path.endswith("/10.mp4") for path in paths):
                os._exit(1)
            return super().tables(paths)

    settings |= {"Worker": Dying, "DEATHS": 1}
    arguments = [str(library), "--store", str(tmp_path / "index"), "--encoder", "demo-clip"]
    assert names["main"](arguments) == 3
    output = capsys.readouterr().out
    assert f"stored   {CLIPS - 1} videos" in output
    assert f"  {library}/10.mp4: the process that reads it dies, each time" in output
    assert names["main"](arguments) == 3
    assert "failed   2, 2 of them in an earlier run" in capsys.readouterr().out


def test_a_worker_with_other_weights_is_refused(
    library: Path, other_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = script()
    settings = names["main"].__globals__
    worker = names["Worker"]

    class Elsewhere(worker):  # type: ignore[misc]
        def __init__(self, embed: Any, *others: Any) -> None:
            super().__init__(EmbedVideos(other_clip), *others)

    settings["Worker"] = Elsewhere
    assert names["main"]([str(library), "--store", str(tmp_path / "index"), "--encoder", "demo-clip"]) == 1
    error = capsys.readouterr().err
    assert re.search(
        r"the driver goes with texts of demo-clip .*, the worker on \S+ with texts of other-clip", error
    )


def test_the_code_of_the_page_on_engines_runs(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(library / name) for name in ("6.mp4", "broken.mp4", "7.mp4")]
    page = (ROOT / "docs" / "engines.md").read_text("utf-8")
    (code,) = re.findall(r"```py\n(import ray\n.*?)```", page, re.DOTALL)
    exec(code, {"paths": paths, "__name__": "__main__"})
    rows = re.findall(r"^\d+$", capsys.readouterr().out, re.MULTILINE)
    assert sum(map(int, rows)) == 5  # two segments of each clip, and a failure


def test_workers_that_cannot_be_had_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    names = script()
    with pytest.raises(SystemExit):
        names["main"](["videos", "--workers", "0"])
    assert "--workers and --cpus-per-worker are at least 1" in capsys.readouterr().err
    names["look_for_machines"](SimpleNamespace(cpus_per_worker=1, gpus_per_worker=0))
    assert capsys.readouterr().err == ""
    names["look_for_machines"](SimpleNamespace(cpus_per_worker=1, gpus_per_worker=1))
    assert "no machine of the cluster has them (there: 2 and 0)" in capsys.readouterr().err
