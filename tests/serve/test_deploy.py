"""The container and its compose file name what there is; no engine builds them here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomlkit
import yaml
from fastapi.testclient import TestClient

from dits_adapter import cli
from dits_adapter.cli._listening import PORT, TOKEN
from dits_adapter.serve._app import create_app
from dits_adapter.serve._server import _FINISH_SECONDS
from tests.stores.conftest import QDRANT_IMAGE

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
pytestmark = pytest.mark.skipif(not DEPLOY.exists(), reason="needs a checkout")


@pytest.fixture(scope="module")
def lines():
    text = (DEPLOY / "Containerfile").read_text("utf-8").replace("\\\n", " ")
    return [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def image(lines, monkeypatch):
    """The variables of the image, set; `ENV` has the first word of each line that names one."""
    variables = dict(word.split("=", 1) for name, rest in lines if name == "ENV" for word in rest.split())
    for name, value in variables.items():
        if name.startswith("DITS_"):
            monkeypatch.setenv(name, value)
    return variables


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]


@pytest.fixture
def parsed(monkeypatch):
    """Commands that were parsed and not run."""
    arguments = []
    monkeypatch.setattr(cli, "_execute", lambda args: arguments.append(args) or 0)
    return arguments


def test_what_the_image_is_made_of_is_there(lines):
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text("utf-8").split()
    copied = [
        word for name, rest in lines if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]
    ]
    assert set(copied) == {word[1:] for word in ignored if word[0] == "!"}
    assert all((ROOT / name).exists() for name in copied)
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    text = str(lines)
    (extras,) = re.findall(r"\.\[([\w,]+)\]", text)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    bases = {rest.split()[0] for name, rest in lines if name == "FROM"}
    assert all(re.fullmatch(r"python:3\.\d+-slim-\w+", base) for base in bases)
    assert f"Programming Language :: Python :: {re.search(r'3[.][0-9]+', min(bases))[0]}" in project["classifiers"]
    assert [rest for name, rest in lines if name == "USER"] == ["10001:10001"]


def test_the_image_serves_and_is_asked_for_its_health(lines, image, parsed, searcher):
    instructions = dict(lines)
    entry, command = (json.loads(instructions[name]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == ["dits-adapter"]
    assert cli.main(command) == 0
    assert cli.main(["mcp"]) == 0
    assert parsed[0].no_browser
    assert parsed[1].http
    for args, name in zip(parsed, ("serve", "mcp"), strict=True):
        assert (args.command, args.host, args.port) == (name, "0.0.0.0", PORT)
    port, path = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", instructions["HEALTHCHECK"]).groups()
    assert int(port) == int(instructions["EXPOSE"]) == PORT
    http = TestClient(create_app(searcher, token="open-sesame"), base_url="http://127.0.0.1:8000")
    assert http.get(path).status_code == 200


def test_the_services_fit_each_other(services, lines, image, parsed, monkeypatch):
    serve, qdrant = services["serve"], services["qdrant"]
    assert qdrant["image"] == QDRANT_IMAGE
    for name, value in serve["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", value))
    assert "command" not in serve
    assert cli.main(json.loads(dict(lines)["CMD"])) == 0
    (args,) = parsed
    assert (args.store, args.host, args.port) == ("http://qdrant:6333", "0.0.0.0", PORT)
    assert (args.adapter, args.collection, args.log_format) == ("demo-dits", "videos", "json")
    assert (DEPLOY / serve["build"]["context"]).resolve() == ROOT
    assert (ROOT / serve["build"]["dockerfile"]).exists()
    assert {name for name in serve["environment"] if not name.startswith("DITS_SERVE_")} == {
        TOKEN,
        "QDRANT_API_KEY",
    }
    assert serve["environment"]["QDRANT_API_KEY"] == qdrant["environment"]["QDRANT__SERVICE__API_KEY"]
    assert serve["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert serve["read_only"] is True
    assert serve["cap_drop"] == ["ALL"]
    assert int(serve["stop_grace_period"].removesuffix("s")) > _FINISH_SECONDS
