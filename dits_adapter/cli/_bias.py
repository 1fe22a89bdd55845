"""`dits-adapter bias`: a score bias for the segments of a collection, from a bank of queries."""

from __future__ import annotations

import argparse
from typing import Any

from dits_adapter._wording import counted
from dits_adapter.cli._options import add_store, chosen_store
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_bias"]


def add_bias(commands: Any) -> None:
    """Add `bias`."""
    bias = commands.add_parser(
        "bias",
        help="let videos that are near to every query stand less in the way",
        examples=(
            "my-bank --store video-index",
            "--remove --store video-index",
        ),
        description="Compute for each stored segment how near it is to the queries of a bank, and keep the number "
        "beside it. Searches take half of it from the score; vectors stay as they are. Interrupted, the same "
        "command goes on where it ended; given again, it adds segments that were stored without.",
    )
    bias.add_argument(
        "bank",
        nargs="?",
        metavar="BANK",
        help="an artifact that `dits-adapter bank` or `train --bank` wrote; the bias is for the queries that its "
        "bank holds: those of the adapter that the bank was put behind",
    )
    add_store(bias)
    bias.add_argument(
        "--weight", type=float, default=0.5, metavar="W", help="of the bias, 0 to 1 (default: %(default)s)"
    )
    bias.add_argument("--remove", action="store_true", help="take the bias away from the collection")
    bias.set_defaults(run=_bias)


def _bias(args: argparse.Namespace) -> Outcome:
    from dits_adapter.stores.bias import BiasBank, check_weight
    from dits_adapter.stores.biasing import apply_bias, remove_bias

    if args.remove == (args.bank is not None):
        raise InputError("bias: give the bank, or --remove to take the bias away.")
    check_weight(args.weight)
    bank = None if args.bank is None else BiasBank.from_pretrained(args.bank)
    with chosen_store(args) as store:
        if bank is None:
            removed = remove_bias(store)
            text = f"the collection {store.name!r} {'has no bias any more' if removed else 'had no bias'}"
            return Outcome({"removed": removed}, text)
        written = apply_bias(store, bank, weight=args.weight)
        text = (
            f"{counted(written, 'segment')} of {store.name!r} got a bias, from {len(bank.vectors):,} queries; "
            f"searches by queries of their kind take {args.weight:g} times it from the score"
        )
        return Outcome({"written": written, "queries": len(bank.vectors), "weight": args.weight}, text)
