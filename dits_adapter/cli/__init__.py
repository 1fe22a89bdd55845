"""The `dits-adapter` command; each subcommand is thin over the library and adds itself to the parser."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dits_adapter._extras import name_missing_extra
from dits_adapter.cli.calibrate import add_calibrate
from dits_adapter.cli.compare import add_compare
from dits_adapter.cli.copy import add_copy
from dits_adapter.cli.distill import add_distill
from dits_adapter.cli.embed import add_embed, add_import
from dits_adapter.cli.evaluate import add_evaluate
from dits_adapter.cli.export import add_export
from dits_adapter.cli.gap import add_gap
from dits_adapter.cli.ingest import add_ingest, add_rebuild, add_switch
from dits_adapter.cli.joint import add_train_joint
from dits_adapter.cli.search import add_recall, add_search
from dits_adapter.cli.serve import add_serve
from dits_adapter.cli.train import add_train
from dits_adapter.errors import DITSError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dits-adapter", description="Text finds video across CLIP's modality gap."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (
        add_ingest,
        add_rebuild,
        add_switch,
        add_search,
        add_recall,
        add_copy,
        add_serve,
        add_embed,
        add_import,
        add_train,
        add_train_joint,
        add_compare,
        add_distill,
        add_calibrate,
        add_gap,
        add_export,
        add_evaluate,
    ):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    0: all went well. 1: a DITSError. 2: wrong usage. 3: done, but not with all files. 130: interrupted.
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
