"""`dits-adapter ingest`, `rebuild` and `switch`: videos into a store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dits_adapter.cli.settings import assignments
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from dits_adapter.stores.qdrant.options import CollectionOptions

from dits_adapter.cli.store_options import add_store


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
    command.add_argument("--overlap", type=float, default=0.0, metavar="S", help="of neighboring segments")
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="how a new collection is kept: float16=true, quantization=scalar, on_disk=true, hnsw_m=32, …; on a "
        "server also shards=3, replicas=2, …; may be repeated",
    )
    command.add_argument(
        "--retry-failed", action="store_true", help="try unchanged files again that failed before"
    )


def ingest_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the options of `add_ingest_options` say on how to ingest, as `ingest` takes it.

    Raises:
        InputError: an `--option` that there is not, or a value that it cannot have.
    """
    return {**_how(args), "sync": args.sync, "bulk": args.bulk}


def _how(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "segment_seconds": args.segment_seconds,
        "overlap": args.overlap,
        "retry_failed": args.retry_failed,
        "store_options": _options(args.option),
    }


def _ingest(args: argparse.Namespace) -> int:
    from dits_adapter.stores.ingest import ingest
    from dits_adapter.stores.qdrant.store import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

    encoder = VideoEncoder.from_pretrained(args.encoder, frames=args.frames)
    with QdrantStore(args.store, args.collection, tenant=args.tenant) as store:
        report = ingest(store, args.paths, encoder, **ingest_options(args))
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
    from dits_adapter.stores.qdrant.aliases import rebuild
    from dits_adapter.stores.qdrant.store import QdrantStore
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
    from dits_adapter.stores.qdrant.aliases import switch
    from dits_adapter.stores.qdrant.store import QdrantStore

    if args.tenant is not None:
        raise InputError("--tenant: an alias is switched for all tenants at once.")
    with QdrantStore(args.store, args.collection) as store:
        switch(store, args.to)
    print(f"{args.collection} is now {args.to}")
    return 0


def _options(given: Sequence[str]) -> CollectionOptions | None:
    from pydantic import ValidationError

    from dits_adapter.stores.qdrant.options import CollectionOptions

    try:
        return CollectionOptions.model_validate(assignments("--option", given)) if given else None
    except ValidationError as error:
        raise InputError(f"--option: {error}") from None
