"""The benchmark of stores, small: every store that is there finds what a comparison with all finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import stores


def test_a_run_measures_each_store_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stores, "ProcessPoolExecutor", _Here)
    command = ["--vectors", "102", "--width", "16", "--queries", "3", "--out", str(tmp_path)]
    command += ["--stores", "memory", "Qdrant folder"]
    assert stores.main(command) == 0
    table = (tmp_path / "stores.md").read_text("utf-8")
    assert "| memory " in table
    assert "| Qdrant folder " in table
    for name in ("memory", "qdrant-folder"):
        measured = json.loads((tmp_path / f"{name}-102-16-3.json").read_bytes())
        assert measured["recall"] == 1
        assert measured["rate"] > 0
        assert 0 < measured["p50"] <= measured["p95"]
    assert measured["disk"] > 0
    capsys.readouterr()
    monkeypatch.setattr(stores, "measure", None)  # what was measured is not measured again
    assert stores.main(command) == 0
    assert (tmp_path / "stores.md").read_text("utf-8") == table
    assert stores.main([*command, "--vectors", "49"]) == 1
    assert "--vectors 49" in capsys.readouterr().err


class _Here:
    """Stands for a pool of processes, and works in this one."""

    def __init__(self, *_: object) -> None:
        pass

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work, *arguments):  # type: ignore[no-untyped-def]
        self._result = work(*arguments)
        return self

    def result(self) -> stores.Measured:
        return self._result
