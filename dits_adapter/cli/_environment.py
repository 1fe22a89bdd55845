"""Options of a command from the environment: DITS_SERVE_PORT=9000 is --port 9000 of `dits-adapter serve`."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Mapping, Sequence
from functools import wraps
from typing import Any

from dits_adapter.cli._parser import Parser
from dits_adapter.errors import InputError

__all__ = ["from_environment", "parse"]

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def from_environment(command: Parser, prefix: str) -> None:
    """Read options that the command line lacks from variables of the environment; called after all are added.

    The help of each option names its variable. Names, types and defaults are those of the options: there is no
    second list of them. An empty variable counts as none.

    Args:
        command: parser of the command, with its default `run`.
        prefix: beginning of the names of the variables: DITS_SERVE.
    """
    options: dict[str, argparse.Action] = {}
    for action in command._actions:
        if action.option_strings and action.help != argparse.SUPPRESS and action.dest != "help":
            variable = f"{prefix}_{action.dest.upper()}"
            options[variable] = action
            action.help = f"{action.help} [{variable}]"
    run = command.get_default("run")

    @wraps(run)
    def run_and_name(args: argparse.Namespace) -> Any:
        """Run the command; an error that names an option says which variable it came from."""
        try:
            return run(args)
        except InputError as error:
            for variable, action in options.items():
                option, value = action.option_strings[-1], getattr(args, action.dest)
                if os.environ.get(variable) and value == action.default and option in str(error):
                    raise InputError(f"{error} ({option} comes from {variable}.)") from error
            raise

    command.set_defaults(run=run_and_name, take_environment=lambda: _take(command, options, prefix))


def parse(parser: Parser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse a command line, with the options of the environment where its command takes them.

    Raises:
        InputError: a variable with a value that its option does not take, or of no option.
    """
    args = parser.parse_all(arguments)
    take = getattr(args, "take_environment", None)
    if take is None:
        return args
    take()  # once the command is known, and --help was not asked for
    return parser.parse_all(arguments)


def _take(command: Parser, options: Mapping[str, argparse.Action], prefix: str) -> None:
    """Make the values of variables the defaults of their options."""
    for name in sorted(os.environ):
        if name.startswith(f"{prefix}_") and name not in options:
            known = [variable.removeprefix(prefix) for variable in options]
            near = difflib.get_close_matches(name.removeprefix(prefix), known, 1, cutoff=0.7)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(options)}."
            raise InputError(f"{name} in the environment is of no option; {hint}")
    for name, action in options.items():
        if text := os.environ.get(name):
            action.default = _value(command, name, action, text)


def _value(command: Parser, variable: str, action: argparse.Action, text: str) -> Any:
    """Return the value of an option as its command line would give it.

    Raises:
        InputError: naming the variable.
    """
    if action.nargs == 0:  # a flag
        if (answer := _WORDS.get(text.strip().lower())) is None:
            raise InputError(f"{variable} is {text!r}; it is 1 or 0, for {action.option_strings[-1]} or none.")
        return answer
    try:
        return command._get_values(action, text.split() if action.nargs in ("+", "*") else [text])
    except argparse.ArgumentError as error:
        raise InputError(f"{variable}: {error.message}.") from None
