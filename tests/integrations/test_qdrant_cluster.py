"""What integrations/qdrant/cluster configures, run as processes where its users have containers."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.server import QdrantProcess, free_port
from dits_adapter import QdrantStore
from dits_adapter.cli import main
from tests.waiting import PATIENCE, wait_until

HERE = Path(__file__).parents[2] / "integrations" / "qdrant" / "cluster"
README = (HERE / "README.md").read_text("utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((HERE / "compose.yaml").read_text("utf-8"))
PORTS = {"qdrant-1": "6333", "qdrant-2": "6343", "qdrant-3": "6353"}


def test_compose_file_is_pinned_keeps_to_this_machine_and_holds_no_secret() -> None:
    services = COMPOSE["services"]
    assert services.keys() == PORTS.keys() == COMPOSE["volumes"].keys()
    for name, service in services.items():
        assert service["image"] == "qdrant/qdrant:v1.16.3"
        assert service["ports"] == [f"127.0.0.1:{PORTS[name]}:6333"]
        assert service["volumes"] == [f"{name}:/qdrant/storage"]
        assert service["command"][:3] == ["./qdrant", "--uri", f"http://{name}:6335"]
        environment = service["environment"]
        assert environment["QDRANT__SERVICE__API_KEY"].startswith("${QDRANT_API_KEY:?")
        assert environment["QDRANT__CLUSTER__ENABLED"] == environment["QDRANT__TELEMETRY_DISABLED"] == "true"


def test_values_of_the_chart() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    values = yaml.safe_load(block)
    assert values["replicaCount"] == 3
    assert values["image"] == {"tag": COMPOSE["services"]["qdrant-1"]["image"].rpartition(":")[2]}
    assert values["apiKey"]["valueFrom"]["secretKeyRef"] == {"name": "qdrant", "key": "api-key"}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, QdrantProcess]]:
    """The compose file's services, under other addresses."""
    binary = os.environ.get("QDRANT_BIN")
    if binary is None:
        pytest.skip("no Qdrant servers that may be killed: set QDRANT_BIN to Qdrant's binary")
    monkeypatch.setenv("QDRANT_API_KEY", "a-secret")
    inner = {name: free_port() for name in PORTS}
    started: dict[str, QdrantProcess] = {}
    try:
        for name, service in COMPOSE["services"].items():
            arguments = " ".join(service["command"][1:])
            for other, port in inner.items():
                arguments = arguments.replace(f"{other}:6335", f"127.0.0.1:{port}")
            settings = {key: os.path.expandvars(value) for key, value in service["environment"].items()}
            settings["QDRANT__SERVICE__API_KEY"] = os.environ["QDRANT_API_KEY"]
            settings["QDRANT__CLUSTER__P2P__PORT"] = str(inner[name])
            started[name] = QdrantProcess(binary, *arguments.split(), **settings)
        yield started
    finally:
        for node in started.values():
            node.remove()


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_readme_is_followed(
    workplace: Path,
    nodes: dict[str, QdrantProcess],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def localized(text: str) -> str:
        for name, port in PORTS.items():
            text = text.replace(f"http://localhost:{port}", nodes[name].url)
        return text

    (shell,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exported, *commands = shell.splitlines()
    assert exported.startswith("export QDRANT_API_KEY=")
    printed: list[str] = []
    for command in commands:
        words = shlex.split(localized(command))
        if words[0] == "docker":
            assert HERE.parents[2] / words[3] == HERE / "compose.yaml"
            if words[4] == "kill":
                nodes[words[5]].kill()
            elif words[4] == "start":
                nodes[words[5]].start()
            for name, node in nodes.items():
                assert is_healthy(name, node) is (words[4] != "kill" or name != words[5])
        else:
            assert main(words[1:]) == 0, command
            printed.append(capsys.readouterr().out)
    stored, *found = printed
    assert "stored   6 videos, 12 segments" in stored
    assert found[0].count("(best at") == 3
    assert found == [found[0]] * 3

    exec(compile(localized(program), "README.md", "exec"), {})
    assert re.search(r"shard \d of 6 moves to one of 3 nodes", capsys.readouterr().out)
    with QdrantStore(nodes["qdrant-1"].url) as store:
        wait_until(lambda: not store.client.collection_cluster_info("videos").shard_transfers, 0.1)
        assert len(store.client.collection_cluster_info("videos").local_shards) == 5
    search = shlex.split(localized(commands[-1]))[1:]
    assert main(search) == 0
    assert capsys.readouterr().out == found[0]

    monkeypatch.delenv("QDRANT_API_KEY")
    assert main(search) == 1
    assert "set QDRANT_API_KEY to a key that may do this" in capsys.readouterr().err


def is_healthy(name: str, node: QdrantProcess) -> bool:
    """What the compose file's health check says."""
    kind, *check = COMPOSE["services"][name]["healthcheck"]["test"]
    assert kind == "CMD"
    check[-1] = check[-1].replace("127.0.0.1/6333", f"127.0.0.1/{node.port}")
    return subprocess.run(check, stderr=subprocess.DEVNULL, timeout=PATIENCE).returncode == 0
