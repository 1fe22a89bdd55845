"""Trial of the published wheels in fresh environments: `make wheels`.

1. `dits-adapter-slim` alone encodes a query with an exported adapter, in a process that imports no torch, no
   Qdrant and no decoder; `dits-adapter search` names the extra that is missing.
2. `dits-adapter-slim[qdrant]` searches a folder that was ingested elsewhere.
3. `dits-adapter` ingests a video and searches it. To save the download of torch, its third-party packages are
   those of the environment that runs this script, seen through a path file; `--full` installs them anew.

Each environment installs the wheels from a folder, everything else in the versions of constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

from build import ROOT, SLIM, WHOLE, build

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
assert vector.shape == (encoder.space.width,) and abs(float(vector @ vector) - 1) < 1e-5, vector
loaded = sorted(set({NOT_IN_SLIM!r}) & set(sys.modules))
assert not loaded, f"encoding a query imported {{loaded}}"
"""


class Environment:
    """A fresh virtual environment beside nothing of the checkout's."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / "bin"
        self.packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        self._env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._env |= {"HF_HUB_OFFLINE": "1"}

    def run(self, program: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment in a folder that holds no module.

        Raises:
            SystemExit: it exits with another code.
        """
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.bin.parent, env=self._env, capture_output=True, text=True, check=False
        )
        if done.returncode != code:
            raise SystemExit(f"{' '.join(command)}\nexited with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def install(self, wheels: Path, *requirements: str) -> None:
        """Install by name, our own from the folder of wheels, and see that the metadata agree."""
        pip = ("-m", "pip", "--disable-pip-version-check")
        self.run(
            "python",
            *pip,
            "install",
            "-q",
            "--no-compile",
            "-c",
            ROOT / "constraints.txt",
            "-f",
            wheels,
            *requirements,
        )
        self.run("python", *pip, "check")


def prepare(folder: Path) -> tuple[Path, Path, Path]:
    """Export the bundled adapter, generate a video and ingest it, in the environment that runs this script.

    Returns:
        The exported adapter, the folder of videos, the index.
    """
    adapter, videos, index = folder / "adapter", folder / "videos", folder / "index"
    videos.mkdir()
    sys.path.insert(0, str(ROOT))
    from benchmarks.clips.dataset import write_clip
    from benchmarks.clips.scenes import scenes
    from dits_adapter.cli import main

    scene = scenes("test")[0]
    write_clip(scene, videos / f"{scene.name}.mp4")
    for command in (
        ["export", "demo-dits", "--out", str(adapter)],
        ["ingest", str(videos), "--encoder", "demo-clip", "--store", str(index)],
    ):
        if main(command):
            raise SystemExit(f"dits-adapter {' '.join(command)} failed")
    return adapter, videos, index


def search(environment: Environment, adapter: Path | str, index: Path) -> None:
    """Find the one video of an index."""
    command = ("search", TEXT, "--adapter", adapter, "--store", index, "--json")
    hits = json.loads(environment.run("dits-adapter", *command).stdout)
    assert len(hits) == 1, hits


def check_slim(folder: Path, wheels: Path, adapter: Path, index: Path) -> None:
    """Encode with the exported adapter; see that a search names its extra."""
    slim = Environment(folder / "slim")
    slim.install(wheels, SLIM)
    slim.run("python", "-c", ENCODE, adapter)
    error = slim.run("dits-adapter", "search", TEXT, "--adapter", adapter, "--store", index, code=1).stderr
    assert error.count("\n") == 1, error
    assert error.endswith(f'pip install "{WHOLE}[qdrant]"\n'), error


def check_qdrant(folder: Path, wheels: Path, adapter: Path, index: Path) -> None:
    """Search without torch in the environment."""
    qdrant = Environment(folder / "qdrant")
    qdrant.install(wheels, f"{SLIM}[qdrant]")
    search(qdrant, adapter, index)
    qdrant.run("python", "-c", "import torch", code=1)


def check_whole(folder: Path, wheels: Path, videos: Path, *, full: bool) -> None:
    """Ingest and search, with the trained adapter on torch."""
    whole = Environment(folder / "whole")
    if full:
        whole.run("python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", "torch==2.13.0")
        whole.install(wheels, WHOLE)
    else:
        path_file = whole.packages / "third_party.pth"
        path_file.write_text(f"{sysconfig.get_path('purelib')}\n", "utf-8")
        offline = ("--no-index", "--no-deps", "--ignore-installed", "-f", wheels)
        whole.run("python", "-m", "pip", "--disable-pip-version-check", "install", "-q", *offline, WHOLE, SLIM)
    home = whole.run("python", "-c", "import dits_adapter; print(dits_adapter.__file__)").stdout
    assert home.startswith(str(whole.packages)), home
    whole.run("python", "-c", "from dits_adapter import *")
    whole.run("dits-adapter", "--help")
    whole.run("dits-adapter", "ingest", videos, "--encoder", "demo-clip", "--store", folder / "new")
    search(whole, "demo-dits", folder / "new")


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

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        build(wheels)
        adapter, videos, index = prepare(folder)
        done("built; adapter exported, video ingested")
        check_slim(folder, wheels, adapter, index)
        done(f"{SLIM}: encodes queries")
        check_qdrant(folder, wheels, adapter, index)
        done(f"{SLIM}[qdrant]: searches")
        check_whole(folder, wheels, videos, full=options.full)
        done(f"{WHOLE}: ingests and searches")


if __name__ == "__main__":
    main()
