"""Script by which a shell completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dits_adapter._extras import require_modules
from dits_adapter.cli._entry import write
from dits_adapter.cli._parser import Parser

__all__ = ["add_completion"]

_SHELLS = ("bash", "zsh", "fish")

_FILES = ("paths", "sources", "adapter", "encoder", "store")
"""Arguments that may be files or folders, and other things too."""


def add_completion(parser: Parser) -> None:
    """Add the option that prints the script."""
    parser.add_argument(
        "--completion",
        action=_PrintCompletion,
        choices=_SHELLS,
        help='print a script that completes the command line: eval "$(dits-adapter --completion bash)"',
    )


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        require_modules("--completion", "shtab")
        import shtab

        for action in _actions(parser):
            if action.type is Path or action.dest in _FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        write(shtab.complete(parser, shell=values))
        parser.exit()


def _actions(parser: Parser) -> Iterator[argparse.Action]:
    """Yield the arguments of all commands."""
    for each in (parser, *parser.commands().values()):
        yield from each._actions
