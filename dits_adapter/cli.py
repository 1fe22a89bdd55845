"""The `dits-adapter` command: one small function per subcommand, each thin over the library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from dits_adapter.errors import DITSError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dits-adapter", description="Text finds video across CLIP's modality gap."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_evaluate(commands)
    _add_ingest(commands)
    _add_search(commands)
    return parser


def _add_evaluate(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="recall and ranks of a similarity matrix",
        description="Metrics of a similarity matrix in both directions, with 95 %% bootstrap intervals.",
    )
    evaluate.add_argument(
        "--similarity", type=Path, required=True, metavar="FILE.npy", help="rows texts, columns videos"
    )
    evaluate.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="column of each text's video, from 0: .npy, or text, one number a line (default: the diagonal)",
    )
    evaluate.add_argument(
        "--ties",
        choices=("pessimistic", "optimistic", "mean"),
        default="pessimistic",
        help="how wrong candidates of exactly the right one's score count (default: all against us)",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of a table")
    evaluate.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    from dits_adapter.metrics import METRICS, RetrievalMetrics, bootstrap, ranks, video_to_text_ranks

    scores = _load_array(args.similarity)
    labels = None if args.labels is None else _load_labels(args.labels)
    try:
        forward = ranks(scores, labels, ties=args.ties)
        backward = video_to_text_ranks(scores, labels, ties=args.ties)
    except DITSError as error:
        raise DITSError(f"{args.similarity}: {error}") from None
    result: dict[str, Any] = {"similarity": str(args.similarity), "ties": args.ties}
    # Captions of one video are drawn together; from video to text every query is a video of its own.
    for direction, values, groups in (("text_to_video", forward, labels), ("video_to_text", backward, None)):
        metrics, intervals = RetrievalMetrics.from_ranks(values), bootstrap(values, groups)
        result[direction] = {"n": metrics.n} | {
            name: {"value": getattr(metrics, name), **intervals[name]._asdict()} for name in METRICS
        }
    if args.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{args.similarity}: {args.ties} ties, 95 % bootstrap intervals")
    for direction in ("text_to_video", "video_to_text"):
        print(f"\n{direction.replace('_', ' ')}, {result[direction]['n']} queries")
        for name, title, digits in (
            ("r1", "R@1", 1),
            ("r5", "R@5", 1),
            ("r10", "R@10", 1),
            ("mdr", "MdR", 1),
            ("mnr", "MnR", 2),
            ("mrr", "MRR", 3),
        ):
            value, low, high = result[direction][name].values()
            print(f"  {title:<4} {value:>8.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]")
    return 0


def _load_array(path: Path) -> np.ndarray[Any, Any]:
    """Memory-map an .npy file; pickled objects are refused."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DITSError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise DITSError(
            f"{path} is no .npy array of numbers, as np.save writes it without pickle: {error}"
        ) from None


def _load_labels(path: Path) -> np.ndarray[Any, Any]:
    """Read labels from an .npy file, or from text with one integer a line."""
    if path.suffix == ".npy":
        return _load_array(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DITSError(f"{path}: {error}; labels are an .npy file or text with one number a line") from None
    labels = []
    for number, line in enumerate(lines, start=1):
        try:
            labels.append(int(line))
        except ValueError:
            raise DITSError(f"{path}, line {number}: {line!r} is no whole number") from None
    return np.array(labels, dtype=np.int64)


def _add_store(command: Any) -> None:
    command.add_argument(
        "--store",
        default="video-index",
        metavar="WHERE",
        help="a folder, or a Qdrant server's URL (key: QDRANT_API_KEY in the environment) (default: %(default)s)",
    )
    command.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the store (default: %(default)s)"
    )


def _add_ingest(commands: Any) -> None:
    ingest = commands.add_parser(
        "ingest",
        help="embed folders of videos into a Qdrant collection",
        description="Embed the videos of folders into a Qdrant collection. What is there is skipped: it can be "
        "stopped at any time and started again. Exit code 3: done, but some files could not be read.",
    )
    ingest.add_argument("paths", nargs="+", metavar="FOLDER", help="folders, or video files")
    _add_store(ingest)
    ingest.add_argument(
        "--encoder",
        default="demo-clip",
        metavar="ID",
        help="folder or hub id of a CLIP, or of an adapter for its CLIP (default: %(default)s, bundled)",
    )
    ingest.add_argument("--frames", type=int, metavar="N", help="frames a segment (default: the adapter's, or 12)")
    ingest.add_argument(
        "--segment-seconds", type=float, metavar="S", help="cut videos into segments (default: one a video)"
    )
    ingest.add_argument("--overlap", type=float, default=0.0, metavar="S", help="of neighbouring segments")
    ingest.add_argument("--retry-failed", action="store_true", help="try unchanged files again that failed before")
    ingest.set_defaults(run=_ingest)


def _ingest(args: argparse.Namespace) -> int:
    from dits_adapter.stores.qdrant import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames)
    with QdrantStore(args.store, args.collection) as store:
        report = store.ingest(
            args.paths,
            encoder,
            segment_seconds=args.segment_seconds,
            overlap=args.overlap,
            retry_failed=args.retry_failed,
        )
    print(report)
    return 3 if report.failed else 0


def _add_search(commands: Any) -> None:
    search = commands.add_parser(
        "search",
        help="find the videos that a text describes",
        description="Find the videos that a text describes, with an adapter or with plain CLIP.",
    )
    search.add_argument("query", metavar="TEXT")
    _add_store(search)
    search.add_argument(
        "--adapter", default="demo-dits", metavar="ID", help="folder or hub id (default: %(default)s, bundled)"
    )
    search.add_argument("--plain", action="store_true", help="the adapter's CLIP without the adapter")
    search.add_argument("--limit", type=int, default=10, metavar="N", help="videos (default: %(default)s)")
    search.add_argument(
        "--per-video", type=int, default=1, metavar="N", help="segments of each (default: %(default)s)"
    )
    search.add_argument("--vector", metavar="NAME", default="video", help='which to search; "" is the unnamed one')
    search.add_argument(
        "--trust-unstamped",
        action="store_true",
        help="search a collection that something else made, whose vectors you know to be of the adapter's CLIP",
    )
    search.add_argument("--json", action="store_true", help="print JSON instead of lines")
    search.set_defaults(run=_search)


def _search(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.stores.qdrant import QdrantStore

    encoder = DITSQueryEncoder.from_pretrained(args.adapter)
    with QdrantStore(
        args.store,
        args.collection,
        space=encoder.space,
        vector=args.vector,
        trust_unstamped=args.trust_unstamped,
    ) as store:
        store.open()  # before the model is loaded: a wrong store is said at once
        vector = encoder.encode_document(args.query) if args.plain else encoder.encode_query(args.query)
        hits = store.search(vector, limit=args.limit, per_video=args.per_video)
    if args.json:
        print(json.dumps([asdict(hit) for hit in hits], indent=2))
    else:
        print("\n".join(map(str, hits)) or "the collection is empty")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code.

    0: all went well. 1: a DITSError. 2: wrong usage. 3: done, but not with all files. 130: interrupted.
    """
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except DITSError as error:
        print(f"dits-adapter: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dits-adapter: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
