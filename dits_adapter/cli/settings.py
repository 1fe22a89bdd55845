"""Options of the form NAME=VALUE."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dits_adapter.errors import InputError


def add_settings(parser: argparse.ArgumentParser, fields: str) -> None:
    """Add `--set`, whose values `assignments` splits; `fields` says what can be set, for the help."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help=f"{fields}; may be repeated"
    )


def assignments(option: str, given: Sequence[str]) -> dict[str, str]:
    """Split NAME=VALUE arguments of an option.

    Raises:
        InputError: one without an equals sign.
    """
    for assignment in given:
        if "=" not in assignment:
            raise InputError(f"{option} {assignment}: write NAME=VALUE.")
    return dict(assignment.split("=", 1) for assignment in given)
