"""`dits-adapter ingest`, `rebuild`, `switch`, `search`, `recall`: videos into Qdrant, and texts that find them."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter.cli.settings import assignments
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.options import CollectionOptions
    from dits_adapter.stores.qdrant import QdrantStore


def add_store(command: Any) -> None:
    """Add the options that name a collection."""
    command.add_argument(
        "--store",
        default="video-index",
        metavar="WHERE",
        help="a folder, or a Qdrant server's URL (key: QDRANT_API_KEY in the environment) (default: %(default)s)",
    )
    add_collection(command)


def add_collection(command: Any) -> None:
    """Add the option that names a collection of a store."""
    command.add_argument(
        "--collection", default="videos", metavar="NAME", help="in the store, or an alias (default: %(default)s)"
    )
    command.add_argument("--tenant", metavar="NAME", help="whose videos, in a collection that keeps tenants apart")


def add_query(command: Any) -> None:
    """Add the options that say what queries are made with, and which vectors they are compared to."""
    command.add_argument(
        "--adapter", default="demo-dits", metavar="ID", help="folder or hub id (default: %(default)s, bundled)"
    )
    command.add_argument(
        "--vector", metavar="NAME", default="video", help='which to search; "" is the unnamed one'
    )
    command.add_argument(
        "--trust-unstamped",
        action="store_true",
        help="search a collection that something else made, whose vectors you know to be of the adapter's CLIP",
    )


def query_store(args: argparse.Namespace, space: EmbeddingSpace) -> QdrantStore:
    """Name the collection that the options of `add_store` and `add_query` say, for queries of a space."""
    from dits_adapter.stores.qdrant import QdrantStore

    return QdrantStore(
        args.store,
        args.collection,
        space=space,
        vector=args.vector,
        trust_unstamped=args.trust_unstamped,
        tenant=args.tenant,
    )


def add_ingest(commands: Any) -> None:
    """Add `ingest`."""
    ingest = commands.add_parser(
        "ingest",
        help="embed folders of videos into a Qdrant collection",
        description="Embed the videos of folders into a Qdrant collection. What is there is skipped: it can be "
        "stopped at any time and started again. Exit code 3: done, but some files could not be read.",
    )
    add_ingest_options(ingest)
    ingest.set_defaults(run=_ingest)


def add_ingest_options(command: argparse.ArgumentParser) -> None:
    """Add what to ingest, where to and how."""
    _add_videos(command)
    command.add_argument(
        "--sync", action="store_true", help="delete what is stored of files that are no longer in the folders"
    )
    command.add_argument(
        "--bulk", action="store_true", help="have a server build its index at the end: for a first, large run"
    )


def _add_videos(command: Any) -> None:
    """Add the options that say what is embedded, how, and where to."""
    command.add_argument("paths", nargs="+", metavar="FOLDER", help="folders, or video files")
    add_store(command)
    command.add_argument(
        "--encoder",
        default="demo-clip",
        metavar="ID",
        help="folder or hub id of a CLIP, or of an adapter for its CLIP (default: %(default)s, bundled)",
    )
    command.add_argument(
        "--frames", type=int, metavar="N", help="frames a segment (default: the adapter's, or 12)"
    )
    command.add_argument(
        "--segment-seconds", type=float, metavar="S", help="cut videos into segments (default: one a video)"
    )
    command.add_argument("--overlap", type=float, default=0.0, metavar="S", help="of neighbouring segments")
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="how a new collection is kept: float16=true, quantisation=scalar, on_disk=true, hnsw_m=32, …; on a "
        "server also shards=3, replicas=2, …; may be repeated",
    )
    command.add_argument(
        "--retry-failed", action="store_true", help="try unchanged files again that failed before"
    )


def ingest_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_ingest_options` say on how to ingest, as `QdrantStore.ingest` takes it.

    Raises:
        InputError: an `--option` that there is not, or a value that it cannot have.
    """
    return {**_how(args), "sync": args.sync, "bulk": args.bulk}


def _how(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "segment_seconds": args.segment_seconds,
        "overlap": args.overlap,
        "retry_failed": args.retry_failed,
        "options": _options(args.option),
    }


def _ingest(args: argparse.Namespace) -> int:
    from dits_adapter.stores.qdrant import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames)
    with QdrantStore(args.store, args.collection, tenant=args.tenant) as store:
        report = store.ingest(args.paths, encoder, **ingest_options(args))
    print(report)
    return 3 if report.failed else 0


def add_rebuild(commands: Any) -> None:
    """Add `rebuild`."""
    rebuild = commands.add_parser(
        "rebuild",
        help="embed the videos anew, for another CLIP, beside the collection that is searched",
        description="Ingest into a new collection on a server, with another CLIP or cut in other segments, and "
        "switch the alias --collection to it when it is complete. Searches go on meanwhile. Can be stopped and "
        "started again. Another adapter for the same CLIP needs none of this. Exit codes as for ingest.",
    )
    _add_videos(rebuild)
    rebuild.add_argument("--drop-old", action="store_true", help="delete the old collection after the switch")
    rebuild.set_defaults(run=_rebuild)


def _rebuild(args: argparse.Namespace) -> int:
    from dits_adapter.stores.qdrant import QdrantStore
    from dits_adapter.stores.rebuild import rebuild
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames)
    with QdrantStore(args.store, args.collection, tenant=args.tenant) as store:
        old = store.resolve()
        report, new = rebuild(store, args.paths, encoder, drop_old=args.drop_old, **_how(args))
    print(report)
    print(f"{args.collection} is now {new}" + (f"; it was {old}" if old else ""))
    return 3 if report.failed else 0


def add_switch(commands: Any) -> None:
    """Add `switch`."""
    switch = commands.add_parser(
        "switch",
        help="have an alias mean another collection",
        description="Have the alias --collection mean another collection of the server: to take one into use, or "
        "to go back.",
    )
    switch.add_argument("to", metavar="COLLECTION", help="what it is to mean")
    add_store(switch)
    switch.set_defaults(run=_switch)


def _switch(args: argparse.Namespace) -> int:
    from dits_adapter.stores.qdrant import QdrantStore
    from dits_adapter.stores.rebuild import switch

    if args.tenant is not None:
        raise InputError("--tenant: an alias is switched for all tenants at once.")
    with QdrantStore(args.store, args.collection) as store:
        switch(store, args.to)
    print(f"{args.collection} is now {args.to}")
    return 0


def _options(given: Sequence[str]) -> CollectionOptions | None:
    from pydantic import ValidationError

    from dits_adapter.stores.options import CollectionOptions

    try:
        return CollectionOptions.model_validate(assignments("--option", given)) if given else None
    except ValidationError as error:
        raise InputError(f"--option: {error}") from None


def add_search(commands: Any) -> None:
    """Add `search`."""
    search = commands.add_parser(
        "search",
        help="find the videos that a text describes",
        description="Find the videos that a text describes, with an adapter or with plain CLIP.",
    )
    search.add_argument("query", metavar="TEXT")
    add_store(search)
    add_query(search)
    search.add_argument("--plain", action="store_true", help="the adapter's CLIP without the adapter")
    search.add_argument("--limit", type=int, default=10, metavar="N", help="videos (default: %(default)s)")
    search.add_argument(
        "--per-video", type=int, default=1, metavar="N", help="segments of each (default: %(default)s)"
    )
    search.add_argument(
        "--offset", type=int, default=0, metavar="N", help="videos to leave out, for the next page"
    )
    search.add_argument(
        "--rerank",
        choices=("maxsim", "xpool"),
        help="order the best segments by their frames: by the nearest one, or by the X-Pool head of an adapter "
        "that was trained jointly",
    )
    search.add_argument(
        "--candidates", type=int, metavar="N", help="segments to re-rank, of many videos (default: a hundred)"
    )
    search.add_argument(
        "--min-probability",
        type=_probability,
        metavar="P",
        help="only videos that are the right one with at least this probability (see `dits-adapter calibrate`)",
    )
    search.add_argument("--exact", action="store_true", help="compare with every segment, without the index")
    search.add_argument("--json", action="store_true", help="print JSON instead of lines")
    search.set_defaults(run=_search)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value


def _search(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.stores.search import CANDIDATES

    if args.candidates is not None and args.rerank is None:
        raise InputError("--candidates: nothing is re-ranked; say how, with --rerank.")
    head = args.rerank == "xpool"
    encoder = DITSQueryEncoder.from_pretrained(args.adapter, backend="torch" if head else "auto")
    if head and encoder.artifact.xpool is None:
        raise InputError(
            f"--rerank xpool: the adapter {args.adapter} has no X-Pool head, which comes with joint training "
            "(dits-adapter train-joint); --rerank maxsim needs none."
        )
    with query_store(args, encoder.space) as store:
        store.open()  # before the model is loaded: a wrong store is said at once
        vector = encoder.encode_document(args.query) if args.plain else encoder.encode_query(args.query)
        calibration = encoder.calibration if store.cosine and not args.plain else None
        videos = store.count_videos() if calibration else 0
        min_score = None
        if args.min_probability is not None:
            if calibration is None:
                raise InputError(_why_no_probability(args, store))
            min_score = calibration.score_of(args.min_probability, videos=videos)
        hits = store.search(
            vector,
            limit=args.limit,
            per_video=args.per_video,
            offset=args.offset,
            min_score=min_score,
            exact=args.exact,
            rerank=encoder.xpool_reranker(args.query, vector) if head else args.rerank,
            candidates=CANDIDATES if args.candidates is None else args.candidates,
        )
        if args.rerank:  # whose scores are no cosines of pooled vectors
            calibration = None
    probabilities = [calibration.probability(hit.score, videos=videos) if calibration else None for hit in hits]
    if args.json:
        found = zip(hits, probabilities, strict=True)
        print(json.dumps([{**asdict(hit), "probability": likely} for hit, likely in found], indent=2))
    elif hits:
        for hit, likely in zip(hits, probabilities, strict=True):
            print(hit if likely is None else f"{likely:6.1%}  {hit}")
    else:
        print("nothing was found" if min_score is None else "no video is that likely")
    return 0


def _why_no_probability(args: argparse.Namespace, store: QdrantStore) -> str:
    if args.plain:
        return "--min-probability: probabilities are calibrated for adapted queries; leave out --plain."
    if not store.cosine:
        return (
            f"--min-probability: scores of the collection {args.collection!r} are no cosines, of which alone "
            "probabilities are known."
        )
    return (
        f"--min-probability: the adapter {args.adapter} was not calibrated. Calibrate it on pairs that it was not "
        f"trained on: dits-adapter calibrate CACHE {args.adapter} --out FOLDER"
    )


def add_recall(commands: Any) -> None:
    """Add `recall`."""
    recall = commands.add_parser(
        "recall",
        help="measure what a collection's index and quantisation cost",
        description="Search a collection exactly, by its index with several efforts, and, where it is "
        "quantised, with and without rescoring; print the share of the nearest segments that each finds, and its "
        "time. For plain and for adapted queries: they lie elsewhere, and their recall differs.",
    )
    recall.add_argument("queries", type=Path, metavar="QUERIES.txt", help="texts to search with, one a line")
    add_store(recall)
    add_query(recall)
    recall.add_argument(
        "--limit", type=int, default=10, metavar="N", help="nearest segments (default: %(default)s)"
    )
    recall.set_defaults(run=_recall)


def _recall(args: argparse.Namespace) -> int:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.stores.recall import measure_recall
    from dits_adapter.training.compare import markdown_table

    try:
        texts = [line for line in args.queries.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{args.queries}: cannot be read as text ({error}).") from None
    encoder = DITSQueryEncoder.from_pretrained(args.adapter)
    head = ["search", f"recall@{args.limit}", "p50 ms", "p99 ms"]
    with query_store(args, encoder.space) as store:
        store.open()
        for name, vectors in (("plain", encoder.encode_document(texts)), ("adapted", encoder.encode_query(texts))):
            rows = [
                [row.search, f"{row.recall:.4f}", f"{row.p50:.1f}", f"{row.p99:.1f}"]
                for row in measure_recall(store, vectors, limit=args.limit)
            ]
            print(f"\n{name}: {len(texts):,} queries, {store.count():,} segments\n\n{markdown_table(head, rows)}")
    return 0
