"""Checkpoints of a joint training: the run that they belong to, and the last complete one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from dits_adapter._files import write_atomically
from dits_adapter._user_files import read_json
from dits_adapter.errors import DITSError, InputError

__all__ = ["last_checkpoint", "write_run"]

_RUN = "run.json"
"""File among the checkpoints that describes their run."""


def write_run(folder: Path, run: dict[str, Any]) -> None:
    """Write the description of a run into the folder of its checkpoints, before the first of them.

    Args:
        folder: made if it does not exist.
        run: facts that a resumed run must share; "processes" is the number of processes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(folder / _RUN) as part:
        part.write_text(json.dumps(run), "utf-8")


def last_checkpoint(folder: Path, run: dict[str, Any]) -> Path | None:
    """Return the last complete checkpoint of a run; None where none is complete.

    Raises:
        DITSError: the checkpoints are of another run.
    """
    try:
        stored = read_json(folder / _RUN)
    except InputError:  # it is written before the first checkpoint
        return None
    if other := [name for name, value in run.items() if stored.get(name) != value]:
        raise DITSError(
            f"{folder}: holds checkpoints of a run with another {', '.join(other)}. Remove the folder to start "
            "anew, or write to another place."
        )
    # The state is the last file to be written, but for the random states of other processes.
    complete = [
        path
        for path in folder.glob("checkpoint-*")
        if _is_json(path / "trainer_state.json")
        and sum(map(is_zipfile, path.glob("rng_state*"))) == run["processes"]
    ]
    return max(complete, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    try:
        read_json(path)
    except InputError:
        return False
    return True
