"""`dits-adapter bank`: an adapter from a file of queries, without pairs."""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import show
from dits_adapter.cli._options import add_device, add_text_cleaning, declaration, read_queries, require_width
from dits_adapter.errors import InputError

__all__ = ["add_bank"]


def add_bank(commands: Any) -> None:
    """Add `bank`."""
    bank = commands.add_parser(
        "bank",
        help="make an adapter from a file of queries, without pairs",
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


def _refuse_pairs(path: Path) -> None:
    """Refuse a file of pairs, of which a bank would be wrong.

    Raises:
        InputError: it is one, by its suffix.
    """
    from dits_adapter.sources._feedback_file import is_feedback

    if path.suffix.lower() == ".jsonl" and path.is_file() and not is_feedback(path):
        raise InputError(
            f"{path}: looks like a file of pairs. A bank takes queries, one a line; one of texts of your own "
            "videos would push down these very videos. "
            f"Learn from pairs: dits-adapter embed {path} --encoder ID --out CACHE"
        )


def _bank(args: argparse.Namespace) -> int:
    from dits_adapter._files import sha256
    from dits_adapter.adapters.bank import LEAST_QUERIES, check_bank_options, draw, fit_query_bank
    from dits_adapter.artifact._find import require_free
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.space import EmbeddingSpace

    check_bank_options(args.size, args.weight)
    require_free(args.out.absolute())
    _refuse_pairs(args.queries)
    queries = read_queries(args.queries)
    count = len(queries)
    if count < LEAST_QUERIES:
        raise InputError(
            f"{args.queries}: holds {count} distinct queries; a bank needs at least {LEAST_QUERIES}, and "
            "hundreds serve better."
        )
    declared = declaration(args.adapter)
    if declared is None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* is an encoder without an adapter")
            encoder = DITSQueryEncoder.from_pretrained(
                args.adapter, backend="torch", device=args.device, text_cleaning=args.text_cleaning
            )
        artifact = encoder.artifact
        if isinstance(queries, list):
            queries = encoder.embed([queries[row] for row in draw(len(queries), args.size, seed=0)])
    elif isinstance(queries, list):
        raise InputError(
            f"{args.queries}: holds texts, and an encoder that was declared embeds none; give their vectors, .npy."
        )
    else:
        artifact = Artifact.plain(EmbeddingSpace.declare(declared, queries.shape[1]))
    require_width(queries, artifact.space.text.width, args.queries, args.adapter)
    bank = fit_query_bank(queries, size=args.size, weight=args.weight, inner=artifact.adapter)
    config = bank.config
    training = {
        "dataset": args.queries.name,
        "sha256": sha256(args.queries),
        "queries": count,
        "bank": config.size,
        "weight": config.weight,
        "sharpness": config.sharpness,
        "inner": None if bank.inner is None else artifact.training,
    }
    made = replace(artifact, adapter=bank, training=training, metrics={}, calibration=None)
    show(
        f"a bank of {config.size:,} of {count:,} queries, sharpness {config.sharpness:.1f}, weight "
        f"{config.weight:g}, behind {'plain queries' if bank.inner is None else args.adapter}"
    )
    show(f"written to {made.save(args.out)}")
    return 0
