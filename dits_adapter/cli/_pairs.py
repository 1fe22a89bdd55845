"""`dits-adapter pairs`: texts for videos, from where they can be had, into a file of pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dits_adapter.cli._entry import show
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.sources.report import PairsReport

__all__ = ["add_pairs_command"]


class _Way(NamedTuple):
    """Way to texts: what it does, in the help; packages that it needs; and what runs it."""

    help: str
    needs: tuple[str, ...]
    run: Callable[[argparse.Namespace], PairsReport]


def _run_text(args: argparse.Namespace) -> PairsReport:
    from dits_adapter.sources.find import find_pairs
    from dits_adapter.sources.text import VideoTexts

    return find_pairs(args.sources, args.out, VideoTexts(), retry_failed=args.retry_failed)


_WAYS = {
    "text": _Way("texts beside and in the videos: subtitles, titles, descriptions", ("av",), _run_text),
}
"""Ways by the value of `--from`. One that goes through videos runs `find_pairs` with its finder."""


def add_pairs_command(commands: Any) -> None:
    """Add `pairs`."""
    pairs = commands.add_parser(
        "pairs",
        help="find texts for videos, and write the pairs to train on",
        description="Find texts for videos and add them to a file of pairs. Videos that were done are skipped; "
        "several commands may add to one file. Exit code 3: done, but some files could not be read.",
    )
    pairs.add_argument("sources", nargs="+", metavar="SOURCE", help="folders, or video files")
    pairs.add_argument("--out", type=Path, required=True, metavar="PAIRS", help="the file of pairs, .jsonl")
    pairs.add_argument(
        "--from",
        dest="way",
        choices=_WAYS,
        help=f"where the texts come from: {'; '.join(f'{name}: {way.help}' for name, way in _WAYS.items())} "
        "(default: as SOURCE is)",
    )
    pairs.add_argument("--retry-failed", action="store_true", help="try unchanged videos again that failed before")
    pairs.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the lines shown (default: %(default)s)"
    )
    _only_for(pairs)
    pairs.set_defaults(run=_pairs)


def _only_for(command: Any) -> None:
    """Add the options that are only for some ways, and remember for which."""
    only: dict[str, tuple[str, tuple[str, ...]]] = {}

    def add(ways: tuple[str, ...], group: Any, *names: str, **options: Any) -> None:
        action = group.add_argument(*names, **options)
        only[action.dest] = (names[0], ways)

    # add(("speech", "captions"), command.add_argument_group("models"), "--model", metavar="ID", help="…")
    del add
    command.set_defaults(only=only)


def _way(args: argparse.Namespace) -> str:
    """Return the way that `--from` names, or that the sources stand for.

    Raises:
        InputError: an option of another way.
    """
    way: str = args.way or "text"
    for dest, (option, ways) in args.only.items():
        if way not in ways and getattr(args, dest) not in (None, False):
            raise InputError(f"{option} is for --from {' or '.join(ways)}; this is --from {way}.")
    return way


def _pairs(args: argparse.Namespace) -> int:
    from dits_adapter._extras import require_modules
    from dits_adapter.sources.report import Sample

    way = _way(args)
    require_modules(f"{args.command} --from {way}", *_WAYS[way].needs)
    report = _WAYS[way].run(args)
    show(report)
    sample = Sample.of(args.out, args.seed) if args.out.exists() else Sample()
    if not sample.lines:
        raise InputError(f"{args.out}: was not written: no texts were found.")
    show(f"\n{args.out} holds\n{sample}\n")
    show("Delete the lines that are wrong; they stay deleted. Then:")
    show(f"  dits-adapter embed {args.out} --encoder ID --out CACHE")
    return 3 if report.failed else 0
