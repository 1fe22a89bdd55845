"""Parts of encoders on torch that every family shares, and training with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from safetensors import SafetensorError

from dits_adapter.errors import InputError

__all__ = ["LOADING_ERRORS", "loading_reason", "no_checkpoint_bars", "pick_device", "weights_digest"]

LOADING_ERRORS = (OSError, ValueError, RuntimeError, SafetensorError)
"""Errors of transformers for a checkpoint that is missing, damaged or of other shapes."""


def loading_reason(error: Exception, location: str | PathLike[str]) -> str:
    """Word an error of transformers, for whom weights that this user may not read do not exist.

    safetensors writes its files for their owner alone.
    """
    files = sorted(path for path in Path(location).glob("*") if path.is_file())
    closed = [path for path in files if not os.access(path, os.R_OK)]
    return f"{closed[0]}: permission is denied." if closed else str(error)


def pick_device(device: str | torch.device) -> torch.device:
    """Return the torch device of a name; `"auto"` is the first CUDA device, or the CPU where there is none.

    Raises:
        InputError: this torch knows no such device, or this machine has none.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()  # a name alone is not looked up, and "meta" holds no numbers
    except (RuntimeError, AssertionError, NotImplementedError):  # each kind of device has its own
        usable = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        if torch.backends.mps.is_available():
            usable.append("mps")
        raise InputError(
            f"the device {str(device)!r} cannot be used here; auto, {', '.join(usable)} can."
        ) from None
    return chosen


def weights_digest(*modules: torch.nn.Module) -> str:
    """Return a SHA-256 over all weights as float32, independent of their names, order and file layout."""
    digests = sorted(
        hashlib.sha256(
            repr(tuple(w.shape)).encode() + w.detach().float().cpu().contiguous().numpy().tobytes()
        ).digest()
        for module in modules
        for w in module.state_dict().values()
        if w.is_floating_point()
    )
    return hashlib.sha256(b"".join(digests)).hexdigest()


@contextmanager
def no_checkpoint_bars() -> Iterator[None]:
    """Keep transformers from drawing a progress bar for every checkpoint that it reads or writes."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
