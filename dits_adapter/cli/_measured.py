"""Arguments of the commands that measure a trained adapter on pairs: `calibrate` and `gap`."""

from __future__ import annotations

from typing import Any

from dits_adapter.cli._options import add_pairs

__all__ = ["add_measured"]

_MOST_VIDEOS = 10_000


def add_measured(command: Any, help: str = "cached pairs: `dits-adapter embed`") -> None:
    """Add pairs, adapter and the number of videos to measure on."""
    add_pairs(command, help)
    command.add_argument("adapter", metavar="ADAPTER", help="folder, bundled name or hub id of a trained adapter")
    command.add_argument(
        "--videos",
        type=int,
        default=_MOST_VIDEOS,
        metavar="N",
        help="to measure on; of more as many are drawn (default: %(default)s)",
    )
