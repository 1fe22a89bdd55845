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
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from os import PathLike
from typing import TYPE_CHECKING, TypedDict

from pydantic import BaseModel
from tqdm import tqdm
from typing_extensions import Unpack

from dits_adapter.errors import InputError, StoreError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._discover import (
    absolute,
    find_videos,
    identify,
    is_gone,
    is_unchanged,
    lies_in,
    stat_video,
)
from dits_adapter.stores._journal import Journal
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.requests import from_keywords
from dits_adapter.stores.rows import (
    CollectionMetadata,
    FailureRow,
    SegmentRow,
    VideoFile,
    VideoRecord,
    require_segments,
)

if TYPE_CHECKING:
    from dits_adapter.video.encoder import EncodedSegment, VideoEncoder

__all__ = ["BATCH", "IngestKeywords", "IngestOptions", "IngestSession", "Paths", "ingest", "ingesting"]

Paths = str | PathLike[str] | Iterable[str | PathLike[str]]
"""Folders and files, or one of them."""

BATCH = 16
"""Segments uploaded in one request: 1.2 MB of JSON for 12 frames of width 512, where a server accepts 32."""


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

    Raises:
        InputError: segments that cannot be cut.
    """

    segment_seconds: float | None = None
    overlap: float = 0.0
    retry_failed: bool = False
    sync: bool = False
    bulk: bool = False
    store_options: BaseModel | None = None

    def __post_init__(self) -> None:
        require_segments(self.segment_seconds, self.overlap)


class IngestKeywords(TypedDict, total=False):
    """Fields of `IngestOptions` as keyword arguments."""

    segment_seconds: float | None
    overlap: float
    retry_failed: bool
    sync: bool
    bulk: bool
    store_options: BaseModel | None


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
        progress: show a progress bar, over the files that are not stored yet.
        keywords: fields of `IngestOptions`.

    Returns:
        The report. A file that gives no frames is in its `failed`, and never stops the run.

    Raises:
        InputError: a path that does not exist, impossible segments, options for a store that has none, or a folder
            to `sync` that has no video in it, while videos are stored from there: it looks like a disk that is not
            mounted.
        SpaceMismatchError: the collection is of another embedding space than the encoder.
        StoreError: the store cannot be reached, read or written, or fails on the way. What was stored stays, and
            the next run goes on from there.
    """
    options = from_keywords(IngestOptions, options, keywords)
    with ingesting(store, paths, encoder.space, options, progress=progress) as session:
        segments = encoder.iter_segments(
            session.to_encode(),
            segment_seconds=options.segment_seconds,
            overlap=options.overlap,
            on_error=session.fail,
            skip=session.finished,
            suspect=session.journal.was_left,
        )
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
    files = find_videos(roots, report)
    folders = [root for root in roots if os.path.isdir(root)]
    metadata = CollectionMetadata(
        space=space,
        segment_seconds=options.segment_seconds,
        overlap=options.overlap,
        tenants=store.tenant is not None,
    )
    store.create(metadata, options.store_options)
    with (
        store.bulk_load(progress=progress) if options.bulk else nullcontext(),
        tqdm(total=len(files), unit="video", desc=store.collection, disable=not progress) as bar,
        ThreadPoolExecutor(1) as uploader,
    ):
        session = IngestSession(store, files, report, bar, uploader, options.retry_failed)
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
        except StoreError as error:
            raise StoreError(f"{error} What is stored stays; the same command goes on from there.") from error
        finally:
            for path in session.encoding:  # no file ended this process
                session.journal.end(path)
    report.seconds = time.monotonic() - started


class IngestSession:
    """One pass over the files: the state of the collection, and the segments on their way there.

    Attributes:
        files: paths of all files.
        report: of the files so far.
    """

    def __init__(
        self,
        store: VideoStore,
        files: Sequence[str],
        report: IngestReport,
        bar: tqdm,
        uploader: Executor,
        retry_failed: bool,
    ) -> None:
        self.store = store
        self.files = files
        self.report = report
        self.bar = bar
        self.uploader = uploader
        self.retry_failed = retry_failed
        self.by_path: defaultdict[str, list[VideoRecord]] = defaultdict(list)
        self.by_video: dict[str, VideoRecord] = {}
        self.encoding: dict[str, VideoFile] = {}
        self.begun: dict[str, VideoRecord] = {}
        self.journal = Journal()
        self.batch: list[SegmentRow | FailureRow] = []
        self.sent: Future[None] | None = None
        for record in store.records():
            self._remember(record)

    def _remember(self, record: VideoRecord) -> None:
        self.by_path[record.path].append(record)
        if record.video_id:
            self.by_video[record.video_id] = record

    def _delete(self, records: list[VideoRecord]) -> None:
        self.store.delete(records)
        for record in records:
            self._forget(record)

    def _forget(self, record: VideoRecord) -> None:
        self.by_path[record.path].remove(record)
        self.by_video.pop(record.video_id, None)

    def to_encode(self) -> Iterator[str]:
        """Settle the files that need no decoding, and yield the others."""
        for path in self.unsettled():
            try:
                file = identify(path)
            except VideoError as error:
                self.skip_unreadable(error)
                continue
            if self.admit(file):
                yield path

    def unsettled(self) -> Iterator[str]:
        """Yield the files that have to be read, if only to know their content."""
        for path in self.files:
            try:
                if not self._settle_unchanged(stat_video(path)):
                    yield path
            except VideoError as error:
                self.skip_unreadable(error)

    def stored(self) -> set[str]:
        """Return the ids of the videos that are stored whole."""
        return {record.video_id for record in self.by_video.values() if record.complete}

    def admit(self, file: VideoFile) -> bool:
        """Settle a file whose content is stored; return True for another one, which is to be decoded."""
        stored = self.by_video.get(file.video_id)
        outdated = [record for record in self.by_path[file.path] if record is not stored]
        if stored is not None and not stored.complete:
            if stored.path == file.path and stored.expected < 0:  # interrupted before its last segment
                self._forget(stored)
                self.begun[file.path] = stored
            else:
                outdated.append(stored)
            stored = None
        self._delete(outdated)
        if stored is None:
            self.encoding[file.path] = file
            self.journal.begin(file.path)
        else:
            self._settle_copy(file, stored)
        return stored is None

    def finished(self, path: str) -> int:
        """Return how many of a file's first segments an interrupted run has certainly stored.

        Segments are sent in order, so that only those of the last request may be incomplete.
        """
        return max(0, self.begun[path].found - BATCH) if path in self.begun else 0

    def skip_unreadable(self, error: VideoError) -> None:
        """Report a file that cannot even be opened; nothing is stored of it, so that the next run tries again."""
        self.report.failed[error.path] = error.reason
        self.bar.update()

    def _skip(self) -> None:
        self.bar.total -= 1  # so that rate and remaining time are those of the files to be embedded
        self.bar.update(0)

    def _settle_unchanged(self, file: VideoFile) -> bool:
        """Report a file that has not changed since it was recorded; False if it has to be read."""
        records = self.by_path[file.path]
        if len(records) != 1 or not records[0].is_of(file):
            return False
        if records[0].failure:
            if self.retry_failed:
                return False
            self.report.failed[file.path] = records[0].failure
            self.report.known += 1
        elif records[0].complete:
            self.report.present += 1
        else:
            return False
        self._skip()
        return True

    def _settle_copy(self, file: VideoFile, stored: VideoRecord) -> None:
        """Content that is stored already: the file was touched or moved, or is a copy."""
        self._skip()
        if stored.path != file.path and is_unchanged(stored):
            self.report.duplicates[file.path] = stored.path
            return
        if stored.path == file.path:
            self.report.present += 1
        else:
            self.report.moved += 1
        self.settle()  # it may still be on its way
        self.store.update_path(file)
        self.by_path[stored.path].remove(stored)
        stored.path, stored.size, stored.mtime_ns = file.path, file.size, file.mtime_ns
        self.by_path[file.path].append(stored)

    def store_video(self, path: str, segments: Iterator[EncodedSegment]) -> None:
        """Store a video's segments as they come, the last one with their number."""
        file = self.encoding[path]
        if (twin := self.by_video.get(file.video_id)) is not None:  # two copies were new to this run
            self._read(path)
            self.report.duplicates[path] = twin.path
            self._skip()
            return
        record = VideoRecord(path, file.size, file.mtime_ns, file.video_id)
        tenant = self.store.tenant
        pending = next(segments)
        if pending.start > 0:  # the encoder left out what is stored
            record.found = self.finished(path)
        for segment in segments:
            self._queue(SegmentRow.of(file, pending, tenant=tenant))
            record.found += 1
            pending = segment
        record.found += 1
        if path not in self.encoding:  # it failed half-way
            self._withdraw(record)
            return
        self.begun.pop(path, None)
        self._read(path)
        self.bar.update()
        if not is_unchanged(file):
            self._withdraw(record)
            self.report.failed[path] = "changed while it was read; run again when it is complete"
            return
        self._queue(SegmentRow.of(file, pending, segments=record.found, tenant=tenant))
        record.expected = record.found
        self._remember(record)
        self.report.videos += 1
        self.report.segments += record.found

    def _read(self, path: str) -> VideoFile | None:
        """Mark a file as read; return its description, or None if it was read already."""
        self.journal.end(path)
        return self.encoding.pop(path, None)

    def _withdraw(self, record: VideoRecord) -> None:
        self.settle()
        self.store.delete([record])

    def fail(self, error: VideoError) -> None:
        """Write down why a file gives no frames, so that it is not decoded in vain again."""
        file = self._read(error.path)
        if file is None:  # a copy of another one, and reported as such, before it failed half-way
            return
        if (begun := self.begun.pop(file.path, None)) is not None:
            self._withdraw(begun)
        self.report.failed[error.path] = error.reason
        self._queue(FailureRow(file.path, file.size, file.mtime_ns, error.reason))
        self.bar.update()

    def _queue(self, row: SegmentRow | FailureRow) -> None:
        self.batch.append(row)
        if len(self.batch) >= BATCH:
            self.upload()

    def upload(self) -> None:
        """Send what is queued; to a server while the next videos are decoded, one request at a time."""
        if self.sent is not None:
            self.sent.result()
        batch, self.batch = self.batch, []
        if self.store.capabilities.remote:
            self.sent = self.uploader.submit(self._write, batch)
        else:
            self._write(batch)

    def _write(self, batch: Sequence[SegmentRow | FailureRow]) -> None:
        if rows := [row for row in batch if isinstance(row, SegmentRow)]:
            self.store.write(rows)
        if failures := [row for row in batch if isinstance(row, FailureRow)]:
            self.store.write_failures(failures)

    def settle(self) -> None:
        """Send what is queued and wait until all is stored."""
        self.upload()
        if self.sent is not None:
            self.sent.result()
            self.sent = None

    def finish(self) -> None:
        """Send the rest, once all files have been through the encoder."""
        for path in list(self.encoding):
            self.fail(VideoError(path, "gave no segments"))
        self.settle()

    def check_folders(self, roots: Iterable[str]) -> None:
        """Refuse to take a folder for emptied that may be a disk which is not there.

        Raises:
            InputError: a folder without any video, from which some are stored.
        """
        for root in roots:
            stored = sum(lies_in(path, [root]) for path, records in self.by_path.items() if records)
            if stored and not any(lies_in(path, [root]) for path in self.files):
                raise InputError(
                    f"{root}: has no video in it, but {stored} are stored from it. Mount the disk if it is one. "
                    f"If they are to go, delete the collection {self.store.collection!r} or sync the folder above."
                )

    def remove_gone(self, roots: Sequence[str]) -> None:
        """Delete all that is stored of files that lay in these folders and are there no longer."""
        for path in [path for path, records in self.by_path.items() if records and lies_in(path, roots)]:
            if is_gone(path):
                self._delete(list(self.by_path[path]))
                self.report.removed.append(path)
