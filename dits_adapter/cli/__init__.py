"""The `dits-adapter` command; each subcommand is thin over the library and adds itself to the parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dits_adapter._extras import name_missing_extra
from dits_adapter.cli._adopt import add_adopt
from dits_adapter.cli._bank import add_bank
from dits_adapter.cli._calibrate import add_calibrate
from dits_adapter.cli._compare import add_compare
from dits_adapter.cli._copy import add_copy
from dits_adapter.cli._distill import add_distill
from dits_adapter.cli._embed import add_embed
from dits_adapter.cli._evaluate import add_evaluate
from dits_adapter.cli._export import add_export
from dits_adapter.cli._gap import add_gap
from dits_adapter.cli._import import add_import
from dits_adapter.cli._ingest import add_ingest, add_ingest_options, decode_limits, ingest_options
from dits_adapter.cli._rebuild import add_rebuild
from dits_adapter.cli._recall import add_recall
from dits_adapter.cli._search import add_search
from dits_adapter.cli._serve import add_serve
from dits_adapter.cli._switch import add_switch
from dits_adapter.cli._train import add_train
from dits_adapter.cli._train_joint import add_train_joint
from dits_adapter.errors import DITSError

__all__ = ["add_ingest_options", "decode_limits", "ingest_options", "main"]

_COMMANDS = (
    add_ingest,
    add_rebuild,
    add_switch,
    add_adopt,
    add_search,
    add_recall,
    add_copy,
    add_serve,
    add_embed,
    add_import,
    add_bank,
    add_train,
    add_train_joint,
    add_compare,
    add_distill,
    add_calibrate,
    add_gap,
    add_export,
    add_evaluate,
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dits-adapter", description="Text finds video across CLIP's modality gap."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    0: success. 1: a DITSError. 2: wrong usage. 3: done, but not with all files. 4: nothing better was trained, so
    nothing was written. 130: interrupted.
    """
    args = _parser().parse_args(argv)
    try:
        with name_missing_extra(f"dits-adapter {args.command}"):
            return int(args.run(args))
    except DITSError as error:
        print(f"dits-adapter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dits-adapter: interrupted", file=sys.stderr)
        return 130
