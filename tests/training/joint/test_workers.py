"""Decoding processes of a training."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dits_adapter.training.joint._workers import worker_count
from tests.waiting import wait_until

ORPHAN = """
import multiprocessing, os, sys, time
from dits_adapter.training.joint._workers import end_with_parent

def work(file):
    end_with_parent(0)
    with open(file, "w") as done:
        done.write(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("forkserver").Process(target=work, args=(sys.argv[1],)).start()
    time.sleep(600)
"""


def test_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 5}, raising=False)
    assert [worker_count(most) for most in (0, 1, 4)] == [0, 1, 2]


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the worker in /proc")
def test_workers_end_with_a_killed_training(tmp_path):
    (tmp_path / "script.py").write_text(ORPHAN)
    number = tmp_path / "number"
    process = subprocess.Popen([sys.executable, str(tmp_path / "script.py"), str(number)])
    try:
        wait_until(lambda: number.exists() and number.read_text())
        worker = Path("/proc") / number.read_text()
        assert worker.exists()
    finally:
        process.kill()
        process.wait()
    wait_until(lambda: not worker.exists())
