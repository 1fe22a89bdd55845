"""The promises of benchmarks/README.md: its rehearsal runs, its options exist."""

from __future__ import annotations

import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.result import Result
from tests.walk import run_commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"python -m (benchmarks[a-z_.]*) ?([a-z]*)", README)))


@pytest.mark.slow
def test_the_rehearsal(tmp_path, monkeypatch, capsys):
    (walk,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    run_commands(walk)
    assert "MSR-VTT test, demo-clip: 1 seed, recommended" in capsys.readouterr().out
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
