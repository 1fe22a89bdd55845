"""Outcome of a command, printed in one place: sentences for people, or one JSON object for programs."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

from dits_adapter._reports import plain_report
from dits_adapter.cli._entry import show, write
from dits_adapter.errors import DITSError

__all__ = ["Outcome", "tell"]


@dataclass(frozen=True)
class Outcome:
    """Outcome of a command.

    Attributes:
        report: report of the library, or a mapping: the JSON object.
        text: the report in sentences; by default its own.
        advice: what to do next, which --quiet and --json leave out.
        code: exit code.
        error: error to raise when the report is printed.
    """

    report: object
    text: str | None = None
    advice: str = ""
    code: int = 0
    error: DITSError | None = None


def tell(outcome: Outcome, args: argparse.Namespace) -> int:
    """Print the outcome of a command as its options want it, and return the exit code."""
    if args.json:
        write(json.dumps(plain_report(outcome.report), indent=2, allow_nan=False, default=str))
    else:
        show(outcome.report if outcome.text is None else outcome.text)
        if outcome.advice and not args.quiet:
            show(outcome.advice)
    if outcome.error is not None:
        raise outcome.error
    return outcome.code
