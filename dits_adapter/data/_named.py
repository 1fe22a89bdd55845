"""Pairs that are given, or named by their cache."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.errors import InputError

__all__ = ["PairsSource", "named_pairs"]

PairsSource = str | PathLike[str] | Pairs
"""Cache folder of `dits-adapter embed`, file of `Pairs.save`, or pairs that are loaded."""


def named_pairs(pairs: PairsSource, name: str | None = None) -> tuple[Pairs, str]:
    """Return pairs, loaded by `load_pairs` if need be, and their name for records, by default the cache's.

    Raises:
        DITSError: there is no such cache, or a damaged one.
        InputError: neither pairs nor a path.
    """
    if isinstance(pairs, Pairs):
        return pairs, name or "pairs"
    if not isinstance(pairs, str | PathLike):
        raise InputError(f"pairs is a {type(pairs).__name__}; it is pairs, or the path of their cache.")
    return load_pairs(pairs), name or Path(pairs).name
