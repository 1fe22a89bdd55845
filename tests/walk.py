"""Commands and Python of a page, run as its reader would, without a new interpreter for each of ours."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from torch.distributed.run import parse_args as parse_launch

from dits_adapter.adapters import registry
from dits_adapter.cli import main
from dits_adapter.encoders import base
from dits_adapter.stores import open as opening

ROOT = Path(__file__).parents[1]


def run_commands(block: str) -> None:
    """Run the commands of a shell block in the current folder; ours in this process, others in a shell."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    for command in block.replace("\\\n", "").splitlines():
        words = [name for word in shlex.split(command) for name in sorted(glob.glob(word)) or [word]]
        if words[0] == "dits-adapter":
            assert main(words[1:]) == 0, command
        elif words[0] == "torchrun":  # in one process: tests/training/joint has two
            assert shutil.which("torchrun", path=path)
            launched = parse_launch(words[1:])
            assert (launched.module, launched.training_script) == (True, "dits_adapter.cli"), command
            assert main(launched.training_script_args) == 0, command
        elif words[:2] == ["python", "-m"]:
            assert import_module(words[2]).main(words[3:]) == 0, command
        else:
            done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


def run_python(code: str, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run Python as the main module; what it registers is forgotten at the end of the test."""
    for module, name in ((registry, "_entries"), (base, "_FAMILIES"), (opening, "_openers")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    own = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", own)
    exec(compile(code, str(page), "exec", dont_inherit=True), own.__dict__)
