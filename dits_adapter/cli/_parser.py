"""Parser of the command line: argparse, with examples in the help and with what is accepted in its errors."""

from __future__ import annotations

import argparse
import difflib
import sys
import textwrap
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import write

__all__ = ["Parser"]

_EXAMPLES = "examples:\n"

_KINDS = {int: "whole number", float: "number"}
"""Words for the types of options that Python's own functions read."""


class Parser(argparse.ArgumentParser):
    """Parser of the command or of one subcommand.

    Args:
        examples: command lines for the end of the help, without the name of the command.
    """

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        if examples:
            options["epilog"] = _EXAMPLES + "\n".join(f"  {options['prog']} {example}" for example in examples)
        super().__init__(*args, **{"formatter_class": _Formatter, **options})

    def parse_all(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse a command line; an option that there is not is refused in the words of the subcommand."""
        self._require_own(arguments)
        args, unknown = self.parse_known_args(arguments)
        if unknown:
            command = self.commands().get(getattr(args, "command", ""), self)
            first, names = unknown[0].split("=")[0], command._option_string_actions
            if first.startswith("-") and first != "-":
                near = _did_you_mean(first, [name for name in names if name.startswith("--")])
                command.error(f"there is no option {first}{near}")
            command.error(f"{' '.join(unknown)}: more than the command takes")
        return args

    def _require_own(self, arguments: Sequence[str]) -> None:
        """Refuse an option of a command before its name, where its value would be taken for the name."""
        names = [name for name in self._option_string_actions if name.startswith("--")]
        for word in takewhile(lambda word: word.startswith("-") and word != "--", arguments):
            name = word.split("=")[0]
            if name.startswith("--") and not any(own.startswith(name) for own in names):
                theirs = any(name in command._option_string_actions for command in self.commands().values())
                hint = "; options of a command stand after its name" if theirs else _did_you_mean(name, names)
                self.error(f"there is no option {name} before the name of a command{hint}")

    def commands(self) -> dict[str, Parser]:
        """Return the parsers of the subcommands by name."""
        actions = (action for action in self._actions if isinstance(action, argparse._SubParsersAction))
        return next((action.choices for action in actions), {})

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(name) for name in action.choices]
            near = _did_you_mean(str(value), names)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(names)}{near}")

    def _get_value(self, action: argparse.Action, text: str) -> Any:
        if not text and action.type is Path:  # of a variable that is not set; Path("") is the working folder
            raise argparse.ArgumentError(action, "the path is empty")
        try:
            return super()._get_value(action, text)
        except argparse.ArgumentError:
            kind = _KINDS.get(action.type)  # type: ignore[call-overload]
            if kind is None:
                raise
            raise argparse.ArgumentError(action, f"{text!r} is no {kind}") from None

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            write(message, end="")  # argparse is silent where the output cannot be written
        else:
            print(message, end="", file=file or sys.stderr)


class _Formatter(argparse.HelpFormatter):
    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(_EXAMPLES):
            return text
        return textwrap.fill(
            " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else ""
