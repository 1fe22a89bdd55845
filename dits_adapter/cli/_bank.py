"""`dits-adapter bank`: an adapter from a file of queries, without pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._options import add_device, add_text_cleaning, declaration
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.artifact.artifact import Artifact

__all__ = ["add_bank"]


def add_bank(commands: Any) -> None:
    """Add `bank`."""
    bank = commands.add_parser(
        "bank",
        help="make an adapter from a file of queries, without pairs",
        examples=(
            "queries.txt --adapter openai/clip-vit-large-patch14 --out my-bank",
            "queries.txt --adapter my-adapter --out my-bank --weight 0.3",
        ),
        description="Make an adapter that takes from each query what it shares with other queries, so that videos "
        "that are near to every text stand less in the way. Take a query log, or captions of the kind, but not "
        "captions of videos in the collection: it would push those very videos down.",
    )
    bank.add_argument(
        "queries",
        type=Path,
        metavar="QUERIES",
        help="one query a line (UTF-8), .npy of text vectors (n, d), or feedback of `dits-adapter serve`",
    )
    bank.add_argument(
        "--adapter",
        required=True,
        metavar="ID",
        help="folder, bundled name or hub id of a CLIP, or of a trained adapter to put the bank behind; "
        "declared:PROVIDER/MODEL@VERSION for vectors of an encoder that cannot be loaded",
    )
    bank.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="the artifact; an old one is replaced"
    )
    bank.add_argument(
        "--size", type=int, default=4096, metavar="N", help="most queries in the bank (default: %(default)s)"
    )
    bank.add_argument(
        "--weight", type=float, default=0.5, metavar="W", help="of the correction, 0 to 1 (default: %(default)s)"
    )
    add_text_cleaning(bank)
    add_device(bank)
    bank.set_defaults(run=_bank)


def _bank(args: argparse.Namespace) -> Outcome:
    from dits_adapter.tasks.bank import make_bank

    declared = declaration(args.adapter)
    report = make_bank(
        args.queries,
        args.adapter if declared is None else _declared(declared, args.queries),
        args.out,
        size=args.size,
        weight=args.weight,
        device=args.device,
        text_cleaning=args.text_cleaning,
    )
    return Outcome(report)


def _declared(name: str, queries: Path) -> Artifact:
    """Return the artifact of vectors of an encoder that was declared.

    Raises:
        InputError: the file holds texts, which such an encoder does not embed.
    """
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.tasks.queries import read_queries

    vectors = read_queries(queries)
    if isinstance(vectors, list):
        raise InputError(
            f"{queries}: holds texts, and an encoder that was declared embeds none; give their vectors, .npy."
        )
    return Artifact.plain(EmbeddingSpace.declare(name, vectors.shape[1]))
