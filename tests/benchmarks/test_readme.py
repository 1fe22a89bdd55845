"""The promises of benchmarks/README.md: its rehearsal runs, its options exist; pages' commands can be given."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.result import Result
from tests.walk import run_commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"python -m (benchmarks[a-z_.]*) ?([a-z]*)", README)))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"] + [
    page
    for folder in ("docs", "integrations", "benchmarks", "dits_adapter/pretrained")
    for page in sorted((ROOT / folder).rglob("*.md"))
]


class Parsed(BaseException):
    """Signal that a command's words were taken."""


@pytest.fixture
def parse(monkeypatch) -> Callable[[str], argparse.Namespace]:
    """Function that reads a command by the parser of its module, and goes no further."""
    usual = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        raise Parsed(usual(parser, args, namespace))

    def parsed(command):
        module, *words = shlex.split(command)
        main = import_module(module).main
        monkeypatch.setattr(sys, "argv", [module, *words])
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed) as end:
            main()
        return end.value.args[0]

    return parsed


def commands() -> list[str]:
    """Commands of all pages without their comments, each once."""
    texts = (page.read_text("utf-8").replace("\\\n", " ") for page in PAGES)
    found = (command for text in texts for command in re.findall(r"python -m (benchmarks\.[^`\n#]*)", text))
    return sorted({" ".join(command.split()) for command in found})


@pytest.mark.parametrize("command", commands(), ids=lambda command: command.replace("benchmarks.", ""))
def test_a_command_of_a_page_can_be_given(command, parse, capsys):
    if command.startswith("benchmarks.mteb") and find_spec("mteb") is None:
        pytest.skip("needs the extra mteb")
    try:
        args = parse(command)
    except SystemExit:
        pytest.fail(capsys.readouterr().err)
    if command.startswith("benchmarks.run "):
        assert [message for wrong, message in run._misuse(args) if wrong] == []


def test_every_benchmark_stands_in_a_page():
    there = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "benchmarks").rglob("*.py")
        if '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert there - {command.split()[0] for command in commands()} == {"benchmarks.demo"}  # it is `make demo`


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
