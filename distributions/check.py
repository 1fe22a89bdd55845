"""Trial of the published wheels in fresh environments: `make wheels`.

1. `dits-adapter-slim` alone encodes a query with an exported adapter, in a process that imports no torch, no
   Qdrant and no decoder; `dits-adapter search` names the extra that is missing.
2. `dits-adapter-slim[qdrant]` searches a folder that was ingested elsewhere.
3. `dits-adapter` ingests a video, searches it, and serves the page with all of its files. To save the download of
   torch, its third-party packages are those of the environment that runs this script, seen through a path file;
   `--full` installs them anew.

Each environment installs the wheels from a folder, everything else in the versions of constraints.txt. All three
are filled at once; what they are tried on is made meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode
from urllib.request import urlopen

from build import DEMO, ROOT, SLIM, WHOLE, build

TEXT = "a large red circle rises over a meadow"
NOT_IN_SLIM = (
    "torch",
    "transformers",
    "qdrant_client",
    "qdrant_edge",
    "grpc",
    "av",
    "decord",
    "PIL",
    "sklearn",
    "scipy",
)
ENCODE = f"""
import sys
from dits_adapter import DITSQueryEncoder
encoder = DITSQueryEncoder.from_pretrained(sys.argv[1])
vector = encoder.encode_query({TEXT!r})
assert vector.shape == (encoder.space.video.width,) and abs(float(vector @ vector) - 1) < 1e-5, vector
loaded = sorted(set({NOT_IN_SLIM!r}) & set(sys.modules))
assert not loaded, f"encoding a query imported {{loaded}}"
"""
NAMES = """
import dits_adapter
for name in dits_adapter.__all__:
    try:
        getattr(dits_adapter, name)
    except dits_adapter.MissingExtraError:
        pass
"""


class Inputs(NamedTuple):
    """Exported adapter, folder of videos, and the index of these videos."""

    adapter: Path
    videos: Path
    index: Path


class Environment:
    """A fresh virtual environment beside nothing of the checkout's, which the pip of this one fills."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self.bin = folder / "bin"
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        self._env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._env |= {"HF_HUB_OFFLINE": "1"}

    def run(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder that holds no module.

        Raises:
            SystemExit: it exits with another code.
        """
        return self._run([str(self.bin / program), *map(str, arguments)], code)

    def start(self, program: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a program as `run` does, with its output in a pipe."""
        command = [str(self.bin / program), *map(str, arguments)]
        return subprocess.Popen(command, cwd=self.bin.parent, env=self._env, stdout=subprocess.PIPE, text=True)

    def _run(self, command: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.bin.parent, env=self._env, capture_output=True, text=True, check=False
        )
        if done.returncode != code:
            raise SystemExit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def install(self, wheels: Path, *requirements: str) -> None:
        """Install by name, our own from the folder of wheels, and see that the metadata agree."""
        self.pip("install", "-c", ROOT / "constraints.txt", "-f", wheels, *requirements)
        self.pip("check")

    def pip(self, command: str, *arguments: object) -> None:
        """Run a command of pip on the environment; what is imported there is compiled when it is."""
        options = ("--quiet", "--no-compile") if command == "install" else ()
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.bin / "python")
        self._run([*map(str, pip), command, *options, *map(str, arguments)])


def prepare(folder: Path) -> Inputs:
    """Export the bundled adapter, generate a video and ingest it, in the environment that runs this script."""
    inputs = Inputs(folder / "adapter", folder / "videos", folder / "index")
    inputs.videos.mkdir()
    sys.path.insert(0, str(ROOT))
    from benchmarks.clips.dataset import write_clip
    from benchmarks.clips.scenes import scenes
    from dits_adapter.cli import main

    scene = scenes("test")[0]
    write_clip(scene, inputs.videos / f"{scene.name}.mp4")
    for command in (
        ["export", "demo-dits", "--out", str(inputs.adapter)],
        ["ingest", str(inputs.videos), "--encoder", "demo-clip", "--store", str(inputs.index)],
    ):
        if main(command):
            raise SystemExit(f"dits-adapter {' '.join(command)} failed")
    return inputs


def search(environment: Environment, adapter: Path | str, index: Path) -> None:
    """Find the one video of an index."""
    command = ("search", TEXT, "--adapter", adapter, "--store", index, "--json")
    hits = json.loads(environment.run("dits-adapter", *command).stdout)["hits"]
    assert len(hits) == 1, hits


def serve(environment: Environment, index: Path) -> None:
    """Open the page on an index, search there, and end it by Ctrl-C."""
    with environment.start("dits-adapter", "serve", "--store", index, "--port", 0, "--no-browser") as server:
        try:
            assert server.stdout is not None
            (address,) = re.findall(r"http://\S+", server.stdout.readline())
            assert "<title>Video search" in urlopen(address).read().decode()
            for file in (ROOT / "dits_adapter" / "serve" / "static").iterdir():
                assert urlopen(f"{address}static/{file.name}").read() == file.read_bytes(), file
            found = json.load(urlopen(f"{address}api/search?{urlencode({'query': TEXT})}"))
            assert len(found["adapted"]) == 1, found
            server.send_signal(signal.SIGINT)
            assert server.wait(60) == 0
        finally:
            server.kill()


def check_slim(folder: Path, wheels: Path, prepared: Future[Inputs]) -> None:
    """Encode with the exported adapter; see that a search names its extra."""
    slim = Environment(folder / "slim")
    slim.install(wheels, SLIM)
    adapter, _, index = prepared.result()
    slim.run("python", "-c", ENCODE, adapter)
    missing = slim.run("dits-adapter", "search", TEXT, "--adapter", "demo-dits", "--store", index, code=1).stderr
    assert missing.endswith(f'pip install "{SLIM}[demo]"\n'), missing
    error = slim.run("dits-adapter", "search", TEXT, "--adapter", adapter, "--store", index, code=1).stderr
    assert error.count("\n") == 1, error
    assert error.endswith(f'pip install "{SLIM}[qdrant]"\n'), error


def check_qdrant(folder: Path, wheels: Path, prepared: Future[Inputs]) -> None:
    """Search without torch in the environment."""
    qdrant = Environment(folder / "qdrant")
    qdrant.install(wheels, f"{SLIM}[qdrant]")
    adapter, _, index = prepared.result()
    search(qdrant, adapter, index)
    qdrant.run("python", "-c", "import torch", code=1)
    for command, extra in {"serve": "serve", "mcp": "mcp"}.items():
        error = qdrant.run("dits-adapter", command, "--adapter", adapter, "--store", index, code=1).stderr
        assert error.endswith(f'pip install "{SLIM}[{extra}]"\n'), error


def check_whole(folder: Path, wheels: Path, prepared: Future[Inputs], *, full: bool) -> None:
    """Ingest and search, with the trained adapter on torch."""
    whole = Environment(folder / "whole")
    if full:
        whole.pip("install", "-c", ROOT / "constraints.txt", "torch==2.13.0")
        whole.install(wheels, f"{WHOLE}[serve]")
    else:
        path_file = whole.packages / "third_party.pth"
        path_file.write_text(f"{sysconfig.get_path('purelib')}\n", "utf-8")
        offline = ("--no-index", "--no-deps", "--ignore-installed", "-f", wheels)
        whole.pip("install", *offline, WHOLE, SLIM, DEMO)
    home = whole.run("python", "-c", "import dits_adapter; print(dits_adapter.__file__)").stdout
    assert home.startswith(str(whole.packages)), home
    whole.run("python", "-c", NAMES)
    whole.run("dits-adapter", "--help")
    videos = prepared.result().videos
    whole.run("dits-adapter", "ingest", videos, "--encoder", "demo-clip", "--store", folder / "new")
    search(whole, "demo-dits", folder / "new")
    serve(whole, folder / "new")


def main() -> None:
    """Build, and try each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of wheels (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="download what the whole needs, too: several minutes")
    options = parser.parse_args()
    wheels = options.out.resolve()
    start = time.perf_counter()

    def done(text: str) -> None:
        print(f"{time.perf_counter() - start:6.1f} s  {text}", flush=True)

    checks = {
        check_slim: f"{SLIM}: encodes queries",
        check_qdrant: f"{SLIM}[qdrant]: searches",
        partial(check_whole, full=options.full): f"{WHOLE}: ingests, searches, serves",
    }
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(checks)) as pool:
        folder = Path(scratch)
        build(wheels)
        done("built")
        prepared: Future[Inputs] = Future()
        running = {pool.submit(check, folder, wheels, prepared): text for check, text in checks.items()}
        try:
            prepared.set_result(prepare(folder))
            done("adapter exported, video ingested")
        except BaseException as error:
            prepared.set_exception(error)
        for check in as_completed(running):
            check.result()
            done(running[check])


if __name__ == "__main__":
    main()
