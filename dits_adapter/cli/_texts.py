"""`dits-adapter texts`: what is said in videos, put beside the segments of a collection."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._options import add_store, chosen_store
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    pass

__all__ = ["add_texts"]


def add_texts(commands: Any) -> None:
    """Add `texts`."""
    texts = commands.add_parser(
        "texts",
        help="put what is said in videos beside them, for searches of both",
        examples=(
            "pairs.jsonl",
            "--remove",
        ),
        description="Put texts (transcripts, subtitles, titles: see `dits-adapter pairs`) beside the stored "
        "segments of their time, in the place of those from before; `--lanes seen said` of a search finds videos "
        "by both. Interrupted, the same command goes on where it ended; given again, it adds texts of segments "
        "that were stored since. Exit code 3: done, but the collection lacks some of the videos.",
    )
    texts.add_argument(
        "pairs",
        nargs="*",
        type=Path,
        metavar="PAIRS",
        help='.jsonl: {"video": FILE, "text": TEXT} a line, with "start" and "end" in seconds for a text of a '
        "part; FILE is the end of a stored path, or a video's id. Of several files a video has all texts",
    )
    add_store(texts)
    texts.add_argument(
        "--language",
        default="english",
        metavar="NAME",
        help="language of texts and queries, whose endings do not matter; none for words as they are (default: "
        "%(default)s)",
    )
    texts.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="C",
        help="leave out lines whose confidence is below (default: %(default)g)",
    )
    texts.add_argument("--remove", action="store_true", help="take all texts away from the collection")
    texts.set_defaults(run=_texts)


def _texts(args: argparse.Namespace) -> Outcome:
    from dits_adapter.data.pairs_file import PairsFile
    from dits_adapter.data.timed_texts import timed_texts
    from dits_adapter.stores.attaching import attach_texts, remove_texts

    if args.remove == bool(args.pairs):
        raise InputError("texts: give files of pairs, or --remove to take the texts away.")
    files = [PairsFile(path, files=False, min_confidence=args.min_confidence) for path in args.pairs]
    with chosen_store(args) as store:
        if args.remove:
            removed = remove_texts(store)
            text = f"the collection {store.name!r} {'has no texts any more' if removed else 'had no texts'}"
            return Outcome({"removed": removed}, text)
        language = None if args.language == "none" else args.language
        report = attach_texts(store, timed_texts(files), language=language)
        return Outcome(report, f"{store.name!r}: {report}", code=3 if report.missing else 0)
