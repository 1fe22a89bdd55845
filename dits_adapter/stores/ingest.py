"""Ingestion of folders of video into a collection, which can be stopped at any moment and started again.

A video is its content: its id is made from the SHA-256 of the whole file, and the ids of its points from that and
their spans, so that storing it twice is storing it once. Each run compares the files with what the collection says
it holds:

- same path, size and modification time as recorded: done, without opening the file (rsync's quick check);
- otherwise the file is hashed, at some 1.5 GB/s. Content that is there already was touched, moved or copied and is
  not decoded again: its record follows the file, or the copy is reported;
- otherwise it is decoded and embedded, and what was stored of the path before is removed.

The last segment of a video carries their number: a video that was interrupted is recognized, and goes on where it
ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from os import PathLike
from typing import TYPE_CHECKING, TypedDict

from pydantic import BaseModel
from typing_extensions import Unpack

from dits_adapter._progress import progress_bar
from dits_adapter._wording import counted
from dits_adapter.errors import InputError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._discover import absolute, find_videos
from dits_adapter.stores._shard import check_shard, in_shard
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import BiasBank
from dits_adapter.stores.biasing import bias_of_new
from dits_adapter.stores.metadata import CollectionMetadata, require_segments
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.requests import from_keywords
from dits_adapter.stores.session import IngestSession

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["IngestKeywords", "IngestOptions", "Paths", "ingest", "ingesting"]

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]
"""Folders and files, or one of them."""


@dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """Options of an ingestion, beside the files and their encoder.

    Attributes:
        segment_seconds: length of a segment, in seconds; None for one a video. A collection has one length.
        overlap: seconds that neighboring segments share.
        retry_failed: try files again that failed before and have not changed since.
        sync: delete what is stored of files in the given folders that are there no longer. Files elsewhere, and
            those in folders that cannot be read, are left.
        bulk: have a server build its index once, after everything is stored: for a first, large run. A folder
            always does.
        store_options: how the store keeps a new collection; a model of its own, such as Qdrant's
            `CollectionOptions`.
        shard: (i, n): of the files only the i-th of n parts, by their paths, for n machines that see all files and
            write into one store. `sync` is for one run over all files.
        bias: the bank of the collection's score bias, so that new segments have one, too. Without it they count as
            of mean bias, and the report says how many they are.

    Raises:
        InputError: segments that cannot be cut, a shard that there is not, or one to `sync`.
    """

    segment_seconds: float | None = None
    overlap: float = 0.0
    retry_failed: bool = False
    sync: bool = False
    bulk: bool = False
    store_options: BaseModel | None = None
    shard: tuple[int, int] | None = None
    bias: BiasBank | None = None

    def __post_init__(self) -> None:
        require_segments(self.segment_seconds, self.overlap)
        check_shard(self.shard)
        if self.sync and self.shard is not None:
            raise InputError("sync is for all files at once; leave out the shard, or sync afterwards.")


class IngestKeywords(TypedDict, total=False):
    """Fields of `IngestOptions` as keyword arguments."""

    segment_seconds: float | None
    overlap: float
    retry_failed: bool
    sync: bool
    bulk: bool
    store_options: BaseModel | None
    shard: tuple[int, int] | None
    bias: BiasBank | None


def ingest(
    store: VideoStore,
    paths: Paths,
    encoder: VideoEncoder,
    options: IngestOptions | None = None,
    *,
    progress: bool = True,
    **keywords: Unpack[IngestKeywords],
) -> IngestReport:
    """Embed the videos of folders and files and store them; videos that are stored already are skipped.

    Args:
        store: where to; the collection is made if it is missing.
        paths: folders and files, or one of them.
        encoder: makes the vectors; its space is the collection's.
        options: as one object; or give its fields as keyword arguments (`segment_seconds=10`).
        progress: show a progress bar on a terminal, over the files that are not stored yet and inside each.
        keywords: fields of `IngestOptions`.

    Returns:
        The report. A file that gives no frames is in its `failed`, and never stops the run.

    Raises:
        InputError: a path that does not exist, impossible segments, options for a store that has none, or a folder
            to `sync` that has no video in it, while videos are stored from there: it looks like a disk that is not
            mounted; or a bank for a collection without a score bias.
        SpaceMismatchError: the collection is of another embedding space than the encoder.
        StoreError: the collection's score bias is of another bank; or the store cannot be reached, read or
            written, or fails on the way. What was stored stays, and the next run goes on from there.
        KeyboardInterrupt: likewise; its message says how much this run has stored.
    """
    options = from_keywords(IngestOptions, options, keywords)
    with ingesting(store, paths, encoder.space, options, progress=progress) as session:
        encoded = encoder.iter_segments(
            session.to_encode(),
            segment_seconds=options.segment_seconds,
            overlap=options.overlap,
            on_error=session.fail,
            skip=session.finished,
            suspect=session.journal.was_left,
        )
        with closing(encoded) as segments:  # an interruption ends the decoding, too
            for path, group in groupby(segments, key=lambda segment: segment.path):
                session.store_video(path, group)
    return session.report


@contextmanager
def ingesting(
    store: VideoStore,
    paths: Paths,
    space: EmbeddingSpace,
    options: IngestOptions | None = None,
    *,
    progress: bool = True,
    **keywords: Unpack[IngestKeywords],
) -> Iterator[IngestSession]:
    """Do all of an ingestion but decoding and embedding, which may then happen elsewhere: see `integrations/ray`.

    Arguments and errors are those of `ingest`, with the space of the vectors in the place of their encoder. When
    the block ends, segments on their way are stored, and the session's `report` is complete.
    """
    started = time.monotonic()
    options = from_keywords(IngestOptions, options, keywords)
    if options.store_options is not None and not store.capabilities.options:
        raise InputError(f"the store at {store.location} has no options for a new collection; leave them out.")
    report = IngestReport()
    roots = absolute(paths)
    files = [path for path in find_videos(roots, report) if in_shard(path, options.shard)]
    folders = [root for root in roots if os.path.isdir(root)]
    metadata = CollectionMetadata(
        space=space,
        segment_seconds=options.segment_seconds,
        overlap=options.overlap,
        tenants=store.tenant is not None,
    )
    store.create(metadata, options.store_options)
    biased = bias_of_new(store, options.bias)
    session: IngestSession | None = None
    try:
        with (
            store.bulk_load(progress=progress) if options.bulk else nullcontext(),
            progress_bar(total=len(files), desc=store.collection, bar_format=_BAR, progress=progress) as bar,
            ThreadPoolExecutor(1) as uploader,
        ):
            session = IngestSession(store, files, report, bar, uploader, options.retry_failed, biased)
            try:
                if options.sync:
                    session.check_folders(folders)
                yield session
                session.finish()
                if options.sync:
                    session.remove_gone(folders)
                bar.set_postfix_str("building the index")  # of a folder: a minute for 100,000 segments
                store.finish()
                bar.set_postfix_str("")
            finally:
                for path in session.encoding:  # no file ended this process
                    session.journal.end(path)
    except StoreError as error:
        raise StoreError(f"{error} What is stored stays; the same command goes on from there.") from error
    except KeyboardInterrupt:
        written = session.written if session else 0
        stays = counted(
            written, "segment was stored by this run, and stays", "segments were stored by this run, and stay"
        )
        raise KeyboardInterrupt(f"{stays}; the same command goes on from there.") from None
    if session.written and (described := store.metadata()) is not None:
        report.without_bias = session.written if options.bias is None and described.bias is not None else 0
        report.without_texts = session.written if described.texts is not None else 0
    report.seconds = time.monotonic() - started


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} videos [{elapsed}<{remaining}{postfix}]"
"""Form of the progress bar: the current file counts by the share of it that is read."""
