"""Division of a run among machines that know nothing of each other."""

from __future__ import annotations

import hashlib

from dits_adapter.errors import InputError

__all__ = ["check_shard", "in_shard"]


def check_shard(shard: tuple[int, int] | None) -> None:
    """Refuse a part i of n that there is not; None is the whole.

    Raises:
        InputError: i is not one of 1 to n.
    """
    if shard is not None and not 1 <= shard[0] <= shard[1]:
        raise InputError(f"shard is {shard[0]}/{shard[1]}; it is I/N with I from 1 to N.")


def in_shard(path: str, shard: tuple[int, int] | None) -> bool:
    """Return whether a file belongs to part i of n, which its path alone decides; None is the whole."""
    if shard is None:
        return True
    digest = hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shard[1] == shard[0] - 1
