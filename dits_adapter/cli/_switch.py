"""`dits-adapter switch`: an alias from one collection to another."""

from __future__ import annotations

import argparse
from typing import Any

from dits_adapter.cli._options import add_store, qdrant_store
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_switch"]


def add_switch(commands: Any) -> None:
    """Add `switch`."""
    switch = commands.add_parser(
        "switch",
        help="switch an alias to another collection",
        examples=("videos-2 --store http://localhost:6333 --collection videos",),
        description="Switch the alias --collection of a Qdrant server to another collection: to take a new one "
        "into use, or to go back.",
    )
    switch.add_argument("to", metavar="COLLECTION", help="the collection that the alias will name")
    add_store(switch)
    switch.set_defaults(run=_switch)


def _switch(args: argparse.Namespace) -> Outcome:
    from dits_adapter.stores.qdrant.aliases import switch

    if args.tenant is not None:
        raise InputError("--tenant: an alias is switched for all tenants at once.")
    with qdrant_store(args) as store:
        switch(store, args.to)
    figures = {"alias": args.collection, "collection": args.to}
    return Outcome(figures, f"{args.collection} is now {args.to}")
