"""`dits-adapter ingest`: folders of videos into a store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dits_adapter.cli._options import (
    add_device,
    add_encoder,
    add_shard,
    add_store,
    assignments,
    chosen_store,
    video_encoder,
)
from dits_adapter.cli._outcome import Outcome
from dits_adapter.video.limits import DecodeLimits

if TYPE_CHECKING:
    from dits_adapter.stores.ingest import IngestOptions

__all__ = [
    "add_ingest",
    "add_ingest_options",
    "add_videos",
    "decode_limits",
    "ingest_options",
]


def add_ingest(commands: Any) -> None:
    """Add `ingest`."""
    ingest = commands.add_parser(
        "ingest",
        help="embed folders of videos into a collection",
        examples=(
            "~/Videos",
            "~/Videos --store http://localhost:6333 --encoder openai/clip-vit-large-patch14 --segment-seconds 10",
        ),
        description="Embed the videos of folders into a collection. Stored videos are skipped: it can be stopped "
        "at any time and started again. Exit code 3: done, but some files could not be read.",
    )
    add_ingest_options(ingest)
    ingest.add_argument(
        "--dry-run",
        action="store_true",
        help="only say how many files, hours and segments there are to store, and how many are stored",
    )
    ingest.set_defaults(run=_ingest, needs=("av",))


def add_ingest_options(command: argparse.ArgumentParser) -> None:
    """Add the arguments and options of `dits-adapter ingest`."""
    add_videos(command)
    command.add_argument(
        "--sync", action="store_true", help="delete what is stored of files that are no longer in the folders"
    )
    command.add_argument(
        "--bulk", action="store_true", help="have a server build its index at the end: for a first, large run"
    )
    add_shard(command, "by the paths of the files, into the same collection: for N machines that see all files")
    command.add_argument(
        "--bias",
        metavar="BANK",
        help="the bank of the collection's score bias (`dits-adapter bias`), for the new segments",
    )


def add_videos(command: Any) -> None:
    """Add the arguments and options that `ingest` and `rebuild` share."""
    command.add_argument("paths", nargs="+", metavar="FOLDER", help="folders, or video files")
    add_store(command)
    add_encoder(command, default="demo-clip")
    add_device(command)
    command.add_argument(
        "--segment-seconds", type=float, metavar="S", help="cut videos into segments (default: one a video)"
    )
    command.add_argument(
        "--overlap", type=float, default=0.0, metavar="S", help="seconds that neighboring segments share"
    )
    command.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of a new collection: float16=true, quantization=scalar, on_disk=true, hnsw_m=32, …; on a server "
        "also shards=3, replicas=2, …; may be repeated",
    )
    command.add_argument(
        "--retry-failed", action="store_true", help="try unchanged files again that failed before"
    )
    limits = command.add_argument_group(
        "limits",
        "What one file may cost; one beyond them is reported as failed. A film of ten hours in 4K passes.",
    )
    limits.add_argument(
        "--file-seconds",
        type=float,
        default=DecodeLimits.seconds,
        metavar="S",
        help="for each step of reading it, beyond what a disk of 10 MB/s takes (default: %(default)g)",
    )
    limits.add_argument(
        "--file-memory",
        type=float,
        default=DecodeLimits.memory / 1e9,
        metavar="GB",
        help="for decoding it (default: %(default)g)",
    )
    limits.add_argument(
        "--file-pixels",
        type=int,
        default=DecodeLimits.pixels,
        metavar="N",
        help="width × height of a frame (default: %(default)d)",
    )


def decode_limits(args: argparse.Namespace) -> DecodeLimits:
    """Return the limits of one file's cost that the options of `add_videos` describe.

    Raises:
        InputError: a limit that is not positive.
    """
    return DecodeLimits(seconds=args.file_seconds, memory=args.file_memory * 1e9, pixels=args.file_pixels)


def ingest_options(args: argparse.Namespace) -> IngestOptions:
    """Return the options of ingestion that the options of `add_ingest_options` or `add_videos` describe.

    Raises:
        ArtifactError: `--bias` names no artifact.
        InputError: an unknown `--option`, a value that it cannot have, or an artifact without a bank.
    """
    from dits_adapter._wording import validated
    from dits_adapter.stores.bias import BiasBank
    from dits_adapter.stores.ingest import IngestOptions

    store_options, bank = None, getattr(args, "bias", None)
    if args.option:
        from dits_adapter.stores.qdrant.options import CollectionOptions

        store_options = validated(CollectionOptions, assignments("--option", args.option), at="--option ")
    return IngestOptions(
        segment_seconds=args.segment_seconds,
        overlap=args.overlap,
        retry_failed=args.retry_failed,
        sync=getattr(args, "sync", False),
        shard=getattr(args, "shard", None),
        bulk=getattr(args, "bulk", False),
        bias=None if bank is None else BiasBank.from_pretrained(bank),
        store_options=store_options,
    )


def _ingest(args: argparse.Namespace) -> Outcome:
    from dits_adapter.stores._discover import require_paths
    from dits_adapter.stores.ingest import ingest

    limits, options = decode_limits(args), ingest_options(args)  # refused before a model is loaded
    require_paths(args.paths)
    if args.dry_run:
        return _dry_run(args, limits, options)
    with chosen_store(args) as store:  # an address that no store opens is refused before a model is loaded, too
        report = ingest(store, args.paths, video_encoder(args, limits), options)
    return Outcome(report, code=3 if report.failed else 0)


def _dry_run(args: argparse.Namespace, limits: DecodeLimits, options: IngestOptions) -> Outcome:
    from dits_adapter.stores.estimate import estimate_ingest

    with chosen_store(args) as store:
        estimated = estimate_ingest(store, args.paths, args.encoder, options, limits=limits, frames=args.frames)
    text = f"{estimated}\nNothing was stored: this was a dry run."
    return Outcome(estimated, text, code=3 if estimated.failed else 0)
