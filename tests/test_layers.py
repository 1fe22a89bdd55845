"""The layers: what each imports is declared by an extra, no two files import each other, what lacks says so."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import grimp
import networkx
import numpy as np
import pytest
import tomlkit

import dits_adapter
from dits_adapter import DITSQueryEncoder
from dits_adapter._extras import PACKAGES
from dits_adapter.data.pairs import Pairs

ROOT = Path(__file__).parents[1]
PROJECT = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
EXTRAS = PROJECT["optional-dependencies"]
LAYERS = {
    "torch": ("torch", "transformers", "sentence_transformers", "safetensors", "PIL"),
    "video": ("av", "decord"),
    "qdrant": ("qdrant_client", "qdrant_edge", "grpc"),
    "training": ("scipy", "sklearn"),
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


@cache
def imports() -> list[tuple[str, str]]:
    """List each module of the package, with each third-party module that it imports anywhere."""
    pairs = []
    for path in sorted((ROOT / "dits_adapter").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"dits_adapter"}:
                pairs.append((str(path.relative_to(ROOT)), name))
    return pairs


def test_each_import_is_declared():
    always = {name.replace("-", "_") for name in distributions(PROJECT["dependencies"][1:])}
    undeclared = {(path, name) for path, name in imports() if name not in always and name not in PACKAGES}
    assert not undeclared


def test_each_package_is_imported_and_brought_by_the_extra_named_for_it():
    by_their_names = {"av", "decord", "milvus_lite", "torchcodec", "torchvision", "tensorboard"}
    imported = {name for _, name in imports()} | by_their_names
    for module, (package, extra) in PACKAGES.items():
        assert module in imported, module
        assert package in {name.lower() for name in distributions(EXTRAS[extra])}, module


@pytest.mark.parametrize(
    ("home", "clients"),
    [
        ("qdrant/", LAYERS["qdrant"]),
        ("lancedb.py", ("lancedb",)),
        ("pgvector.py", ("psycopg", "pgvector")),
        ("milvus.py", ("pymilvus",)),
    ],
)
def test_only_the_store_and_the_function_of_a_database_import_its_client(home, clients):
    importers = {path for path, name in imports() if name in clients}
    assert importers
    homes = tuple(f"dits_adapter/{folder}/{home}" for folder in ("stores", "integrations"))
    homes += (f"dits_adapter/stores/_{home.removesuffix('.py')}_",)
    assert all(path.startswith(homes) for path in importers), importers


def test_no_two_files_import_each_other():
    graph = grimp.build_graph("dits_adapter", cache_dir=None)
    files = networkx.DiGraph(
        (name, imported) for name in graph.modules for imported in graph.find_modules_directly_imported_by(name)
    )
    assert len(files) > 50
    assert not list(networkx.simple_cycles(files))


COMMANDS = {
    "ingest": "{videos} --encoder demo-clip --store {out}",
    "rebuild": "{videos} --encoder demo-clip --store {out}",
    "switch": "another --store http://127.0.0.1:9",
    "adopt": "--store {out} --encoder demo-clip",
    "search": "cat --adapter {adapter} --store {out}",
    "recall": "{texts} --adapter {adapter} --store {out}",
    "copy": "{out} {out}2",
    "serve": "--adapter {adapter} --store {out} --no-browser --port 0",
    "embed": "{pairs} --encoder demo-clip --out {out}",
    "import": "{vectors} {vectors} --encoder demo-clip --out {out}",
    "train": "{cache} --out {out} --set training.epochs=1",
    "train-joint": "{pairs} --encoder demo-clip --out {out}",
    "compare": "{cache} --epochs 1",
    "distill": "{cache} demo-linear --out {out}",
    "calibrate": "{cache} demo-linear --out {out}",
    "gap": "{cache} demo-linear --out {out}",
    "export": "demo-linear --out {out}",
    "evaluate": "--similarity {vectors}",
}
NEEDED_BY = {
    "torch": set(COMMANDS) - {"switch", "adopt", "copy", "evaluate"},
    "video": {"ingest", "rebuild", "embed", "train-joint"},
    "qdrant": {"ingest", "rebuild", "switch", "adopt", "search", "recall", "copy", "serve"},
    "training": {"train", "compare", "calibrate", "serve"},
}
"""The commands that answer with an extra's pip line where its packages are missing."""

RUN = """
import contextlib, io, json, sys
blocked, commands = json.loads(sys.argv[1])
sys.modules |= dict.fromkeys(blocked)
from dits_adapter.cli import main
for command in commands:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = main(command)
    print(json.dumps([command[0], code, error.getvalue().splitlines()[-1] if error.getvalue() else '']))
"""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "videos").mkdir()
    (folder / "videos" / "a.mp4").write_bytes(bytes(100))
    (folder / "pairs.jsonl").write_text('{"video": "videos/a.mp4", "text": "a dog"}', "utf-8")
    (folder / "texts.txt").write_text("a dog", "utf-8")
    np.save(folder / "vectors.npy", np.eye(128, dtype=np.float32))
    space = DITSQueryEncoder.from_pretrained("demo-linear").space
    rows = np.eye(128, dtype=np.float32)[:40]
    Pairs(rows, rows, np.arange(len(rows)), space).save(folder / "cache")
    names = {"videos": "videos", "pairs": "pairs.jsonl", "texts": "texts.txt", "vectors": "vectors.npy"}
    paths = {name: folder / file for name, file in (names | {"cache": "cache", "out": "out"}).items()}
    return paths | {"adapter": "demo-linear"}


def answers(layers, commands, inputs):
    """Run commands where the packages of some layers are missing; return name, exit code and last line of each."""
    blocked = [module for layer in layers for module in LAYERS[layer]]
    lines = []
    for command in commands:
        arguments = COMMANDS[command].format(**inputs | {"out": f"{inputs['out']}-{command}"})
        lines.append([command, *arguments.split()])
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([blocked, lines])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("layer", LAYERS)
def test_commands_name_the_extra_of_a_missing_layer(layer, inputs):
    for command, code, error in answers([layer], sorted(NEEDED_BY[layer]), inputs):
        assert code == 1
        assert error.endswith(f'pip install "dits-adapter[{layer}]"'), (command, error)


def test_a_matrix_is_evaluated_without_any_layer(inputs):
    assert answers(LAYERS, ["evaluate"], inputs) == [["evaluate", 0, ""]]


def test_every_command_of_the_slim_distribution_names_an_extra(inputs):
    commands = [command for command in COMMANDS if command != "evaluate"]
    for command, code, error in answers(LAYERS, commands, inputs):
        assert code == 1
        assert re.search(r'^dits-adapter: .*pip install "dits-adapter\[\w+\]"$', error), (command, error)


LIBRARY = """
import json, sys
sys.modules |= dict.fromkeys(json.loads(sys.argv[1]))
import dits_adapter
from dits_adapter import DITSQueryEncoder, VideoEncoder, open_store
from dits_adapter.errors import MissingExtraError
calls = {name: lambda name=name: getattr(dits_adapter, name) for name in dits_adapter.__all__}
calls["from_pretrained"] = lambda: DITSQueryEncoder.from_pretrained("demo-linear")
calls["videos"] = lambda: VideoEncoder.from_pretrained("demo-clip")
calls["open"] = lambda: open_store("a-folder")
for name, call in calls.items():
    try:
        call()
    except MissingExtraError as error:
        print(json.dumps([name, str(error)]))
"""


def test_the_library_names_the_extras_that_slim_lacks():
    blocked = [module for layer in LAYERS.values() for module in layer]
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY, json.dumps(blocked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    messages = dict(json.loads(line) for line in done.stdout.splitlines())
    assert {"QdrantStore", "AsyncQdrantStore", "from_pretrained", "videos", "open"} <= messages.keys()
    assert not {"DITSQueryEncoder", "EmbeddingSpace", "DITSError", "open_store"} & messages.keys()
    for name, message in messages.items():
        assert re.search(r'pip install "dits-adapter\[(torch|video|qdrant|training)\]"$', message), name


def test_errors_of_pydantic_are_worded_in_one_place():
    pattern = re.compile(r"^\s*from pydantic.* import .*\bValidationError\b", re.MULTILINE)
    package = Path(dits_adapter.__file__).parent
    found = {file.name for file in package.rglob("*.py") if pattern.search(file.read_text("utf-8"))}
    assert found == {
        "_wording.py",
        "_entry.py",
        "mcp.py",
    }  # what nobody caught, and what the protocol's package did
