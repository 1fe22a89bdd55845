"""The `dits-adapter` command; each subcommand is thin over the library and adds itself to the parser."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import Any

from dits_adapter._extras import name_missing_extra, require_modules
from dits_adapter._version import VERSION
from dits_adapter.cli._adopt import add_adopt
from dits_adapter.cli._bank import add_bank
from dits_adapter.cli._bias import add_bias
from dits_adapter.cli._calibrate import add_calibrate
from dits_adapter.cli._compare import add_compare
from dits_adapter.cli._completion import add_completion
from dits_adapter.cli._copy import add_copy
from dits_adapter.cli._distill import add_distill
from dits_adapter.cli._embed import add_embed
from dits_adapter.cli._entry import EXIT_CODES, guard, guarded
from dits_adapter.cli._environment import parse
from dits_adapter.cli._evaluate import add_evaluate
from dits_adapter.cli._export import add_export
from dits_adapter.cli._gap import add_gap
from dits_adapter.cli._import import add_import
from dits_adapter.cli._ingest import add_ingest, add_ingest_options, decode_limits, ingest_options
from dits_adapter.cli._logs import add_verbosity, verbosity
from dits_adapter.cli._mcp import add_mcp
from dits_adapter.cli._merge import add_merge
from dits_adapter.cli._outcome import tell
from dits_adapter.cli._pairs import add_pairs_command
from dits_adapter.cli._parser import Parser
from dits_adapter.cli._put import add_put
from dits_adapter.cli._rebuild import add_rebuild
from dits_adapter.cli._recall import add_recall
from dits_adapter.cli._search import add_search
from dits_adapter.cli._serve import add_serve
from dits_adapter.cli._switch import add_switch
from dits_adapter.cli._tally import add_tally
from dits_adapter.cli._texts import add_texts
from dits_adapter.cli._train import add_train
from dits_adapter.cli._train_joint import add_train_joint
from dits_adapter.errors import InputError

__all__ = ["EXIT_CODES", "add_ingest_options", "decode_limits", "guarded", "ingest_options", "main"]

_COMMANDS = (
    add_ingest,
    add_rebuild,
    add_switch,
    add_adopt,
    add_search,
    add_recall,
    add_copy,
    add_texts,
    add_serve,
    add_pairs_command,
    add_tally,
    add_mcp,
    add_embed,
    add_merge,
    add_import,
    add_put,
    add_bank,
    add_bias,
    add_train,
    add_train_joint,
    add_compare,
    add_distill,
    add_calibrate,
    add_gap,
    add_export,
    add_evaluate,
)


_CONTINUED = (
    "ingest",
    "rebuild",
    "copy",
    "texts",
    "pairs",
    "embed",
    "import",
    "put",
    "bias",
    "train",
    "train-joint",
    "compare",
    "distill",
)
"""Commands whose work is kept when they are interrupted."""


def _parser() -> Parser:
    codes = "\n".join(f"  {code:<5} {meaning}" for code, meaning in EXIT_CODES.items())
    parser = Parser(
        prog="dits-adapter",
        description="Text finds video across CLIP's modality gap.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    add_completion(parser)
    _add_frame(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in _COMMANDS:
        add(commands)
    for name, command in commands.choices.items():
        if name not in _SERVERS:
            command.add_argument("--json", action="store_true", help="print the report as one JSON object")
        _add_frame(command, default=argparse.SUPPRESS)  # keeps what is said before the name
    return parser


def _add_frame(parser: Parser, **default: Any) -> None:
    """Add the options that every command has, before its name and after it."""
    add_verbosity(parser, **default)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error", **default)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code, a key of `EXIT_CODES`; errors are one sentence on stderr."""
    arguments = sys.argv[1:] if argv is None else argv
    atexit.register(gc.freeze)  # a process that ends would look for cycles among all of torch, for seconds
    return guard("dits-adapter", lambda: _run(arguments), debug="--debug" in arguments)


def _run(arguments: Sequence[str]) -> int:
    args = parse(_parser(), arguments)
    try:
        with name_missing_extra(f"dits-adapter {args.command}"):
            return _execute(args)
    except KeyboardInterrupt as interruption:
        if args.command in _CONTINUED and not interruption.args:  # ingestion says how far it came
            raise KeyboardInterrupt("The same command goes on from there.") from None
        raise


_SERVERS = ("serve", "mcp")
"""Commands that run until they are stopped, and report nothing."""

_TOGETHER = ("train", "train-joint")
"""Commands that several processes of torchrun do together; of others each process would do all of the work."""


def _execute(args: argparse.Namespace) -> int:
    if args.command not in _TOGETHER and "TORCHELASTIC_RUN_ID" in os.environ and os.environ["WORLD_SIZE"] != "1":
        raise InputError(
            f"{os.environ['WORLD_SIZE']} processes were started, and {args.command} is the work of one: start it "
            f"without torchrun. Several do {' and '.join(_TOGETHER)}."
        )
    require_modules(f"dits-adapter {args.command}", *getattr(args, "needs", ()))
    if getattr(args, "device", "auto") not in ("auto", "cpu", None):
        from dits_adapter.encoders._torch import pick_device

        pick_device(args.device)  # before anything is loaded
    kept = redirect_stdout(sys.stderr) if getattr(args, "json", False) else nullcontext()
    with verbosity(args), kept:  # stdout is for the report, whatever other packages print
        done = args.run(args)
    return done if isinstance(done, int) else tell(done, args)
