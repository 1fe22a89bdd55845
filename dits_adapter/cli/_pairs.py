"""`dits-adapter pairs`: texts for videos, from where they can be had, into a file of pairs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dits_adapter.cli._machine_texts import add_filter, add_machine_options, run_captions, run_filter, run_speech
from dits_adapter.cli._options import add_store, chosen_store, place_options
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.sources.report import PairsReport

__all__ = ["add_pairs_command"]


class _Way(NamedTuple):
    """Way to texts: its help, the packages it needs, what runs it, and what to do with its lines."""

    help: str
    needs: tuple[str, ...]
    run: Callable[[argparse.Namespace], PairsReport]
    wrong: str = "Delete the lines that are wrong; they stay deleted."


def _run_text(args: argparse.Namespace) -> PairsReport:
    from dits_adapter.sources.find import find_pairs
    from dits_adapter.sources.text import VideoTexts

    finder = VideoTexts(
        language=args.language, segment_seconds=args.segment_seconds, table=args.table, names=args.names
    )
    return find_pairs(args.sources, args.out, finder, retry_failed=args.retry_failed)


def _run_fields(args: argparse.Namespace) -> PairsReport:
    from dits_adapter.sources.fields import find_pairs_in_store

    if args.store is None or args.sources:
        raise InputError("fields are those of a collection: name its --store, and no SOURCE.")
    with chosen_store(args) as store:
        return find_pairs_in_store(store, args.out, args.field or ())


def _run_feedback(args: argparse.Namespace) -> PairsReport:
    from dits_adapter.sources.feedback import feedback_pairs

    return feedback_pairs(args.sources, args.out, unanswerable=args.unanswerable)


_WAYS = {
    "text": _Way(
        "files beside the videos, and what they hold", ("av", "charset_normalizer", "pysubs2"), _run_text
    ),
    "fields": _Way("payload fields of a collection", (), _run_fields),
    "feedback": _Way(
        "hits that people chose, in files of feedback of `dits-adapter serve`",
        (),
        _run_feedback,
        "Lines of feedback are made anew each time; delete a judgement that is wrong from the file of feedback.",
    ),
    "speech": _Way("what is said in the videos, recognized by --model", ("av", "transformers"), run_speech),
    "captions": _Way("what is seen in the videos, described by --model", ("av", "transformers"), run_captions),
}
"""Ways by the value of `--from`. One that goes through videos runs `find_pairs` with its finder."""


def add_pairs_command(commands: Any) -> None:
    """Add `pairs`."""
    pairs = commands.add_parser(
        "pairs",
        help="find texts for videos, and write the pairs to train on",
        examples=(
            "~/Videos --out pairs.jsonl",
            "~/Videos --out pairs.jsonl --from speech --model openai/whisper-small",
        ),
        description="Find texts for videos and add them to a file of pairs. Videos that were done are skipped; "
        "several commands may add to one file. Exit code 3: done, but some files could not be read.",
    )
    pairs.add_argument("sources", nargs="*", metavar="SOURCE", help="folders, video files, or files of feedback")
    pairs.add_argument("--out", type=Path, required=True, metavar="PAIRS", help="the file of pairs, .jsonl")
    pairs.add_argument(
        "--from",
        dest="way",
        choices=_WAYS,
        help=f"where the texts come from: {'; '.join(f'{name}: {way.help}' for name, way in _WAYS.items())} "
        "(default: as SOURCE is)",
    )
    pairs.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the lines shown (default: %(default)s)"
    )
    pairs.set_defaults(run=_pairs, only=_add_options(pairs))


def _add_options(command: Any) -> dict[str, tuple[str, tuple[str, ...], Any]]:
    """Add the options of some ways alone; return each with its ways and its default, by its attribute."""
    only: dict[str, tuple[str, tuple[str, ...], Any]] = {}

    def add(ways: tuple[str, ...], group: Any, *names: str, **options: Any) -> None:
        action = group.add_argument(*names, **options)
        only[action.dest] = (names[0], ways, action.default)

    timed = command.add_argument_group("from videos")
    add(
        ("text", "speech", "captions"),
        timed,
        "--retry-failed",
        action="store_true",
        help="try unchanged videos again that failed before",
    )
    add(
        ("text", "speech", "captions"),
        timed,
        "--segment-seconds",
        type=float,
        metavar="S",
        help="length of the segments of your collection, as of `ingest`, which timed texts are then of (default: "
        "5 to 20 s, as sentences and pauses have it; captions are of whole videos)",
    )
    add(
        ("text", "speech"),
        timed,
        "--language",
        metavar="CODE",
        help="such as en: leave out subtitles in other ones; take it for the language that is spoken",
    )
    add(
        ("text",),
        timed,
        "--table",
        type=Path,
        metavar="FILE",
        help=".csv: a column video, and some of text, title, description and tags",
    )
    add(("text",), timed, "--names", action="store_true", help="take names of files and folders that are words")
    stored = command.add_argument_group("from payload fields")
    add_store(stored, default=None)
    for dest in ("store", "collection", "tenant", "patience"):
        only[dest] = (f"--{dest}", ("fields",), command.get_default(dest))
    add(
        ("fields",),
        stored,
        "--field",
        action="append",
        metavar="NAME",
        help="field with a text or a list of words; may be repeated (default: the title of an adopted collection)",
    )
    add(
        ("feedback",),
        command.add_argument_group("from feedback"),
        "--unanswerable",
        type=Path,
        metavar="FILE",
        help="write the queries that nothing fits there, one a line, for `dits-adapter calibrate`",
    )
    add_filter(timed, add)
    add_machine_options(command, add)
    return only


def _way(args: argparse.Namespace) -> str:
    """Return the way that `--from` names, or that the sources stand for.

    Raises:
        InputError: an option of another way, or no source.
    """
    from dits_adapter.sources._feedback_file import is_feedback

    fed_back = bool(args.sources) and all(is_feedback(Path(source)) for source in args.sources)
    way: str = args.way or ("fields" if args.store is not None else "feedback" if fed_back else "text")
    for dest, (option, ways, default) in args.only.items():
        if way not in ways and getattr(args, dest) != default:
            raise InputError(f"{option} is for --from {' or '.join(ways)}; this is --from {way}.")
    if way != "fields" and not args.sources:
        raise InputError("name a SOURCE: a folder or a video file; or a collection with --store.")
    return way


def _other_ways(way: str) -> str:
    """Return what a model would find, where it has not been asked."""
    models = {"speech": "what is said in the videos", "captions": "what a model sees in the videos"}
    said = [f"--from {name} takes {what}" for name, what in models.items() if name != way]
    return f"{', '.join(said)}, and "


def _pairs(args: argparse.Namespace) -> Outcome:
    from dits_adapter._extras import require_modules
    from dits_adapter.sources.report import PairsSample

    way = _way(args)
    require_modules(f"{args.command} --from {way}", *_WAYS[way].needs)
    report = _WAYS[way].run(args)
    filtered = run_filter(args) if args.encoder is not None and args.out.exists() else None
    sample = PairsSample.of(args.out, args.seed) if args.out.exists() else PairsSample()
    figures = {"found": report, "filter": filtered, "texts": sample.texts, "lines": sample.lines}
    text = str(report) if filtered is None else f"{report}\n{filtered}"
    advice, error = "", None
    if sample.lines:
        place = f" {place_options(args)}" if way == "fields" else " --store STORE" if way == "feedback" else ""
        text += f"\n\n{args.out} holds\n{sample}"
        encoder = args.encoder or "ID"
        command = f"dits-adapter embed {args.out} --encoder {encoder} --out CACHE{place}"
        advice = f"\n{_WAYS[way].wrong} Then:\n  {command}"
    elif args.unanswerable is not None:
        text += f"\n\n{args.out} holds no pairs, as nobody chose a hit; the queries are in {args.unanswerable}."
    else:
        error = InputError(
            f"{args.out}: holds no pairs, as no texts were found. {_other_ways(way)}docs/pairs.md has all ways."
        )
    return Outcome(figures, text, advice, 3 if report.failed else 0, error)
