"""The layers: what each imports is declared by an extra, no two files import each other, what lacks says so."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grimp
import networkx
import pytest
import tomlkit

import dits_adapter
from dits_adapter._extras import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_PACKAGES = {"accelerate", "langchain-core", "grpcio"}
LAYERS = {
    "torch": ("torch", "transformers", "sentence_transformers", "safetensors", "PIL"),
    "video": ("av", "decord"),
    "qdrant": ("qdrant_client", "qdrant_edge", "grpc"),
    "training": ("scipy", "sklearn", "portalocker"),
}


def distributions(requirements: list[str]) -> set[str]:
    """Return the names that a list of requirements asks for, those of our own extras among them."""
    names: set[str] = set()
    for requirement in requirements:
        if ours := re.match(r"dits-adapter\[(.*)\]", requirement):
            names |= distributions([line for extra in ours[1].split(",") for line in EXTRAS[extra]])
        else:
            names.add(re.match(r"[\w.-]+", requirement)[0])
    return names


def imports() -> Iterator[tuple[str, str]]:
    """Yield each module of the package, with each third-party module that it imports anywhere."""
    for path in sorted((ROOT / "dits_adapter").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"dits_adapter"}:
                yield str(path.relative_to(ROOT)), name


def test_each_import_is_declared():
    always = {name.replace("-", "_") for name in distributions(PROJECT["dependencies"][1:])}
    undeclared = {(path, name) for path, name in imports() if name not in always and name not in PACKAGES}
    assert not undeclared


def test_each_package_is_imported_and_brought_by_the_extra_named_for_it():
    imported = {name for _, name in imports()}
    brought = {"langchain-core": "langchain-qdrant"}  # by which it comes
    for module, (package, extra) in PACKAGES.items():
        assert module in imported, module
        assert brought.get(package, package) in {name.lower() for name in distributions(EXTRAS[extra])}, module


def test_no_two_files_import_each_other():
    graph = grimp.build_graph("dits_adapter", cache_dir=None)
    files = networkx.DiGraph(
        (name, imported) for name in graph.modules for imported in graph.find_modules_directly_imported_by(name)
    )
    assert len(files) > 50
    assert not list(networkx.simple_cycles(files))
