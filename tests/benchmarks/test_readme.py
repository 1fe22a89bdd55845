"""The promises of benchmarks/README.md: its rehearsal runs, its options exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.result import Result

ROOT = Path(__file__).parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"python -m (benchmarks[a-z.]*) ?([a-z]*)", README)))


@pytest.mark.slow
def test_the_rehearsal(tmp_path):
    (walk,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for command in walk.splitlines():
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"
    assert "MSR-VTT test, demo-clip: 1 seed, recommended" in done.stdout
    results = tmp_path / "results" / "benchmarks" / "msrvtt"
    sizes = {path.stem: Result.read(path).comparison.sizes["test"] for path in results.glob("*.json")}
    assert sizes == {"result": (12, 12), "result-test-deduplicated": (11, 11), "gap": (12, 12)}


def test_every_option_exists(capsys):
    there = set()
    for module, first in COMMANDS:
        if module == "benchmarks.mteb" and find_spec("mteb") is None:  # an extra
            continue
        with pytest.raises(SystemExit):
            import_module(module).main([*filter(None, [first]), "--help"])
        there |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named - there - {"--hub", "--validation"} == set()  # of the extra, and of dits-adapter train-joint


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#:]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / "benchmarks" / target).exists()
