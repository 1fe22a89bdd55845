"""The READMEs of the integrations run against a server; a missing package names its extra."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import shutil
import sys
import uuid
from pathlib import Path

import pytest

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter.cli import main
from dits_adapter.errors import MissingExtraError
from tests.integrations.conftest import QUERY
from tests.stores.server import qdrant_client

INTEGRATIONS = Path(__file__).parents[2] / "integrations"
SERVER = "http://localhost:6333"


@pytest.mark.parametrize("name", ["sentence-transformers", "langchain", "llama-index", "haystack", "fastembed"])
def test_readmes_run_against_a_server(name, workplace, qdrant_server, capsys, monkeypatch):
    for model in ("clip", "dits"):  # under the bundled models' names, which come first once they are there
        shutil.copytree(f"tiny-{model}", f"demo-{model}")
    os.rename("videos", "my-videos")
    monkeypatch.syspath_prepend(INTEGRATIONS / name)
    collection = f"videos-{uuid.uuid4().hex}"
    readme = (INTEGRATIONS / name / "README.md").read_text("utf-8").replace(SERVER, qdrant_server)
    (command,) = re.findall(r"^dits-adapter (.*)$", readme, re.MULTILINE)
    (program,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    try:
        assert main([*shlex.split(command), "--collection", collection]) == 0
        capsys.readouterr()
        exec(
            compile(program.replace('"videos"', repr(collection)), f"{name}/README.md", "exec"), {"__name__": name}
        )
        printed = capsys.readouterr().out.splitlines()
        encoder = DITSQueryEncoder.from_pretrained("demo-dits")
        with QdrantStore(qdrant_server, collection) as store:
            best = store.search(encoder.encode_query(QUERY), limit=1)[0]
    finally:
        qdrant_client(qdrant_server).delete_collection(collection)
    score, path, start, end = printed[0].split()
    assert (path, float(start), float(end)) == (best.path, best.start, best.end)
    assert float(score) == pytest.approx(best.score, abs=2e-3)
    assert len(printed) == (4 if name == "fastembed" else 3)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("langchain", "langchain_core"),
        ("llama_index", "llama_index.core"),
        ("haystack", "haystack"),
        ("fastembed", "fastembed"),
        ("chroma", "chromadb"),
        ("lancedb", "lancedb.embeddings"),
        ("mcp", "mcp"),
    ],
)
def test_a_missing_package_is_said_with_the_pip_line(name, package, monkeypatch):
    extra, module = name.replace("_", "-"), f"dits_adapter.integrations.{name}"
    for imported in [loaded for loaded in sys.modules if loaded.startswith((package, module))]:
        monkeypatch.delitem(sys.modules, imported)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'pip install "dits-adapter\[{extra}\]"'):
        importlib.import_module(module)
