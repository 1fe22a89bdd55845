"""Commands that messages recommend: the parser accepts each."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import dits_adapter
from dits_adapter import EmbeddingSpace, load_encoder
from dits_adapter.cli import _parser, main
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.open import register_store

PACKAGE = Path(dits_adapter.__file__).parent
ADVICE = re.compile(r"dits-adapter ([a-z]+(?:-[a-z]+)*)((?: (?:--[a-z-]+|[A-Z]+(?:\.[a-z]+)?\b|‹›))*)")


def messages():
    """Texts of modules with commands, as users read them: ‹› for what is filled in, and no docstrings."""
    for file in sorted(PACKAGE.rglob("*.py")):
        source = file.read_text("utf-8")
        if "dits-adapter" not in source:  # every process of the tests parses the others
            continue
        tree = ast.parse(source)
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):
                inside.add(id(node.value))
        for node in ast.walk(tree):
            if id(node) in inside:
                continue
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{file.name}:{node.lineno}", node.value
            elif isinstance(node, ast.JoinedStr):
                yield (
                    f"{file.name}:{node.lineno}",
                    "".join(part.value if isinstance(part, ast.Constant) else "‹›" for part in node.values),
                )


@cache
def recommendations():
    return list(_recommendations())


def _recommendations():
    for place, text in messages():
        for match in ADVICE.finditer(text):
            named = not match[2] and text[match.end() :][:1] in ("`", ")")  # mentioned, as `dits-adapter embed`
            numbered = re.sub(r"(--(?:weight|steps|depth|mlp-ratio)) ‹›", r"\1 1", match[2])
            arguments = numbered.replace("‹›", "x")
            yield pytest.param(match[1], arguments, named, id=f"{place} {match[1]}")


@pytest.fixture
def run(monkeypatch):
    """Commands as they were parsed, in the place of running them."""
    from dits_adapter import cli

    parsed = []
    monkeypatch.setattr(cli, "_execute", lambda args: parsed.append(args) or 0)
    return parsed


@pytest.mark.parametrize(("command", "arguments", "named"), recommendations())
def test_recommended_commands_are_accepted(run, command, arguments, named, capsys):
    if named:
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0
    else:
        assert main([command, *shlex.split(arguments)]) == 0, capsys.readouterr().err
        assert run[0].command == command


EXAMPLES = {name: (command.epilog or "").splitlines()[1:] for name, command in _parser().commands().items()}


@pytest.mark.parametrize("command", EXAMPLES)
def test_examples_of_the_help_are_accepted(run, command, capsys):
    assert EXAMPLES[command]
    for example in EXAMPLES[command]:
        program, *line = shlex.split(example)
        assert (program, main(line)) == ("dits-adapter", 0), capsys.readouterr().err
        assert run[-1].command == command


def test_advice_is_found():
    found = {(parameter.values[0], parameter.values[1].strip()) for parameter in recommendations()}
    assert ("calibrate", "CACHE x --out FOLDER") in found
    assert ("export", "x --out FOLDER") in found
    assert len(found) >= 8


def test_probabilities_of_an_encoder_are_not_to_be_calibrated(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    store = MemoryStore("videos")
    store.create(CollectionMetadata(space=EmbeddingSpace.of(load_encoder("demo-clip"))))
    register_store("advised", lambda location, collection, **_: store)
    line = ["search", "a dog", "--adapter", "demo-clip", "--store", "advised://x", "--min-probability", "0.5"]
    with pytest.warns(UserWarning, match="encoder without an adapter"):
        assert main(line) == 1
    printed = capsys.readouterr().err
    assert "demo-clip is a CLIP without an adapter" in printed
    assert "calibrate" not in printed
