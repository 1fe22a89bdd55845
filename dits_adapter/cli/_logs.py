"""Log and progress of a command; the library itself only writes to the loggers below `dits_adapter`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import Any

from dits_adapter.errors import InputError

__all__ = ["add_log_format", "add_verbosity", "logging_to_stderr", "verbosity"]

_logger = logging.getLogger(__name__)

_HUB_BARS = "HF_HUB_DISABLE_PROGRESS_BARS"
"""Environment variable that keeps bars of huggingface_hub and transformers away."""


def add_verbosity(parser: Any, **default: Any) -> None:
    """Add the options that `verbosity` takes; a subcommand gives a `default` that keeps those before its name."""
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no advice; results and errors stay", **default
    )
    amount.add_argument(
        "-v", "--verbose", action="store_true", help="log to stderr what is loaded, opened and done", **default
    )


@contextmanager
def verbosity(args: argparse.Namespace) -> Iterator[None]:
    """Show as much while the block runs as --quiet and --verbose say; bars are on a terminal alone.

    Raises:
        InputError: both, one before the name of the command and one after it.
    """
    if args.quiet and args.verbose:
        raise InputError("--quiet and --verbose: give one of them.")
    if args.quiet:
        from dits_adapter._progress import without_bars

        silence: Any = without_bars()
    else:
        silence = nullcontext()
    hidden = args.quiet and _HUB_BARS not in os.environ
    if hidden:
        os.environ[_HUB_BARS] = "1"
    started = time.monotonic()
    try:
        with silence, logging_to_stderr(args) if not hasattr(args, "log_format") else nullcontext():
            yield
            _logger.info("%s: done in %.1f s", args.command, time.monotonic() - started)
    finally:
        if hidden:
            os.environ.pop(_HUB_BARS, None)


def add_log_format(command: Any, what: str) -> None:
    """Add the option that `logging_to_stderr` takes; `what` says what is logged, for the help."""
    command.add_argument(
        "--log-format",
        choices=("text", "json"),
        help=f"log every {what} to stderr, without its query, its path and its token (default: only warnings)",
    )


@contextmanager
def logging_to_stderr(args: argparse.Namespace) -> Iterator[None]:
    """Log in the format that was asked for while the block runs, warnings of Python and of other packages too."""
    form = getattr(args, "log_format", None)
    verbose = getattr(args, "verbose", False)
    if form is None and not verbose:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if form == "json" else _Text())
    root, ours = logging.getLogger(), logging.getLogger("dits_adapter")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(form is not None)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        ours.setLevel(level)
        root.removeHandler(handler)


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")


class _Json(logging.Formatter):
    """Formatter of one JSON object a line; a record's `fields` stand beside its message."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        line = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)
