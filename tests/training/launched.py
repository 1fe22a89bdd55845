"""Two processes of the command line under torchrun, which end by themselves or are killed on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.waiting import PATIENCE, wait_until

__all__ = ["ENVIRONMENT", "kill_two", "run_two"]

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

_TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dits_adapter.cli")


def run_two(arguments: Sequence[str], said: Path) -> int:
    """Run a command in two processes, which write what they print to a file; return the exit code of torchrun."""
    with _two(arguments, said) as process:
        return process.wait(PATIENCE)


def kill_two(arguments: Sequence[str], said: Path, once: Callable[[], object]) -> None:
    """Run a command likewise, and kill all processes at once as soon as something is true."""
    with _two(arguments, said) as process:
        wait_until(lambda: once() or process.poll() is not None, 0.005)
        assert process.poll() is None, said.read_text()[-3000:]


@contextlib.contextmanager
def _two(arguments: Sequence[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, *_TORCHRUN, *arguments]
    with said.open("wb") as file:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=file, start_new_session=True)
    try:
        yield process
    finally:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        workers = children.read_text().split() if children.exists() else []  # sessions of their own
        for pid in [process.pid, *map(int, workers)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
