"""`dits-adapter merge`: caches of several machines into one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter._wording import counted
from dits_adapter.cli._outcome import Outcome

__all__ = ["add_merge"]


def add_merge(commands: Any) -> None:
    """Add `merge`."""
    merge = commands.add_parser(
        "merge",
        help="merge the caches of several machines",
        examples=("part-1 part-2 part-3 --out cache",),
        description="Merge the caches that `dits-adapter embed` wrote with --shard on several machines into the "
        "one that a single machine would have written. Exit code 3: done, but some videos have no vectors.",
    )
    merge.add_argument("parts", type=Path, nargs="+", metavar="CACHE", help="caches of all shards")
    merge.add_argument("--out", type=Path, required=True, metavar="CACHE", help="folder of the whole cache")
    merge.set_defaults(run=_merge)


def _merge(args: argparse.Namespace) -> Outcome:
    from dits_adapter.data.merge import merge_caches

    cache = merge_caches(args.parts, args.out)
    failed = f"; {counted(len(cache.failures), 'video')} failed" if cache.failures else ""
    text = f"{counted(len(cache.text), 'text')} and {counted(len(cache.video), 'video')} are in {args.out}{failed}"
    figures = {"texts": len(cache.text), "videos": len(cache.video), "failures": cache.failures, "cache": args.out}
    return Outcome(figures, text, code=3 if cache.failures else 0)
