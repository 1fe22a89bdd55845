"""Log of a command that runs for long; the library itself only writes to the loggers below `dits_adapter`."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

__all__ = ["add_log_format", "logging_to_stderr"]


def add_log_format(command: Any) -> None:
    """Add the option that `logging_to_stderr` takes."""
    command.add_argument(
        "--log-format",
        choices=("text", "json"),
        help="log every request to stderr, without its query, its path and its token (default: only warnings)",
    )


@contextmanager
def logging_to_stderr(args: argparse.Namespace) -> Iterator[None]:
    """Log in the format that was asked for while the block runs, warnings of Python and of other packages too."""
    if args.log_format is None:
        yield
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Text() if args.log_format == "text" else _Json())
    root, ours = logging.getLogger(), logging.getLogger("dits_adapter")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    logging.captureWarnings(True)
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
