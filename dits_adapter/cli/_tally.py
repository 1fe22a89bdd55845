"""`dits-adapter tally`: which of two rankings people prefer, by the blind comparisons of the search page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._outcome import Outcome

__all__ = ["add_tally"]


def add_tally(commands: Any) -> None:
    """Add `tally`."""
    tally = commands.add_parser(
        "tally",
        help="count blind comparisons of plain CLIP and an adapter",
        examples=("feedback.jsonl", "feedback.jsonl another-server.jsonl --json"),
        description="Count what people said on the page Compare of `dits-adapter serve`, a vote a query, by "
        "adapter and collection, with a 95 % interval that may be looked at as often as one likes. Who still "
        "judges does not look.",
    )
    tally.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="feedback of `dits-adapter serve --feedback FILE`"
    )
    tally.set_defaults(run=_tally)


def _tally(args: argparse.Namespace) -> Outcome:
    from dits_adapter.sources.preferences import tally_preferences

    return Outcome(tally_preferences(args.files))
