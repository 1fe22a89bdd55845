"""Pairs that are given, or named by their cache."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from dits_adapter.data.pairs import Pairs, load_pairs

__all__ = ["PairsSource", "named_pairs"]

PairsSource = str | PathLike[str] | Pairs
"""Cache folder of `dits-adapter embed`, file of `Pairs.save`, or pairs that are loaded."""


def named_pairs(pairs: PairsSource, name: str | None = None) -> tuple[Pairs, str]:
    """Return pairs, loaded by `load_pairs` if need be, and their name for records, by default the cache's."""
    if isinstance(pairs, Pairs):
        return pairs, name or "pairs"
    return load_pairs(pairs), name or Path(pairs).name
