"""Environment of a measurement: the machine and the package versions."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["environment"]


def environment() -> dict[str, str]:
    """Return processor, threads, graphics card, system and package versions, for the record of a measurement."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text("utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "processor": f"{cpu}, {os.cpu_count()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in ("dits-adapter", "torch", "numpy", "scipy")},
    }
