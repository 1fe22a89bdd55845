"""Inputs of the commands that measure a trained adapter on pairs: `calibrate` and `gap`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._entry import show
from dits_adapter.cli._options import add_pairs

if TYPE_CHECKING:
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.data.pairs import Pairs

__all__ = ["add_measured", "open_measured"]

_MOST_VIDEOS = 10_000
_SEED = 0
"""Seed by which videos are drawn."""


def add_measured(command: Any, help: str = "cached pairs: `dits-adapter embed`") -> None:
    """Add the arguments that `open_measured` reads."""
    add_pairs(command, help)
    command.add_argument("adapter", metavar="ADAPTER", help="folder, bundled name or hub id of a trained adapter")
    command.add_argument(
        "--videos",
        type=int,
        default=_MOST_VIDEOS,
        metavar="N",
        help="to measure on; of more as many are drawn (default: %(default)s)",
    )


def open_measured(args: argparse.Namespace) -> tuple[Artifact, Pairs]:
    """Load the adapter and the pairs to measure it on: held out by its training, and no more than `--videos`.

    Raises:
        InputError: `--videos` below 2.
        SpaceMismatchError: the pairs are of another space than the adapter's.
    """
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.data.pairs import held_out, load_pairs
    from dits_adapter.errors import InputError
    from dits_adapter.training._notes import measuring_notes

    if args.videos < 2:
        raise InputError(f"--videos {args.videos}: it takes 2 videos or more to tell one from another.")
    artifact, pairs = Artifact.load(args.adapter), load_pairs(args.pairs)
    artifact.space.require(pairs.space, mine=f"the adapter {args.adapter}", theirs=f"the pairs {args.pairs}")
    measured = held_out(pairs, artifact.training).judging()
    for note in measuring_notes(measured):
        show(note)
    return artifact, measured.at_most(args.videos, _SEED)
