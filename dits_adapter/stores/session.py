"""Session of an ingestion: the state of the collection, and the segments on their way there."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

from tqdm import tqdm

from dits_adapter._reprs import short_repr
from dits_adapter.errors import InputError, VideoError
from dits_adapter.stores._discover import identify, is_gone, is_unchanged, lies_in, stat_video
from dits_adapter.stores._journal import Journal
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.report import IngestReport
from dits_adapter.stores.rows import FailureRow, SegmentRow, VideoFile, VideoRecord

if TYPE_CHECKING:
    from dits_adapter.video.encoder import EncodedSegment

__all__ = ["BATCH", "IngestSession"]

BATCH = 16
"""Segments uploaded in one request: 1.2 MB of JSON for 12 frames of width 512, where a server accepts 32."""


class IngestSession:
    """One pass over the files: the state of the collection, and the segments on their way there.

    Attributes:
        files: paths of all files.
        report: of the files so far.
        written: segments that this session has stored.
    """

    def __init__(
        self,
        store: VideoStore,
        files: Sequence[str],
        report: IngestReport,
        bar: tqdm,
        uploader: Executor,
        retry_failed: bool,
        biased: Callable[[Sequence[SegmentRow]], list[SegmentRow]] | None = None,
    ) -> None:
        self.store = store
        self.files = files
        self.report = report
        self.bar = bar
        self.uploader = uploader
        self.retry_failed = retry_failed
        self.biased = biased
        self.by_path: defaultdict[str, list[VideoRecord]] = defaultdict(list)
        self.by_video: dict[str, VideoRecord] = {}
        self.encoding: dict[str, VideoFile] = {}
        self.begun: dict[str, VideoRecord] = {}
        self.journal = Journal()
        self.batch: list[SegmentRow | FailureRow] = []
        self.sent: Future[None] | None = None
        self.written = 0
        self._share = 0.0  # of the current file, as the bar shows it
        for record in store.records():
            self._remember(record)

    def __repr__(self) -> str:
        return short_repr(self, self.store, files=len(self.files))

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

    def _show(self, segment: EncodedSegment) -> None:
        """Move the bar on inside the current file."""
        share = min(1.0, segment.end / segment.duration)
        name, end, duration = os.path.basename(segment.path), segment.end, segment.duration
        times = f"{tqdm.format_interval(end)} of {tqdm.format_interval(duration)}"
        self.bar.set_postfix_str(f"{name}: {times}", refresh=False)
        self.bar.update(share - self._share)
        self._share = share

    def _close_file(self) -> None:
        self.bar.update(1 - self._share)
        self._share = 0.0

    def _settle_unchanged(self, file: VideoFile) -> bool:
        """Report a file that has not changed since it was recorded; False if it has to be read."""
        records = self.by_path[file.path]
        if len(records) != 1 or not records[0].settles(file, retry_failed=self.retry_failed):
            return False
        if records[0].failure:
            self.report.failed[file.path] = records[0].failure
            self.report.failed_before += 1
        else:
            self.report.present += 1
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
        self._show(pending)
        if pending.start > 0:  # the encoder left out what is stored
            record.found = self.finished(path)
        for segment in segments:
            self._show(segment)
            self._queue(SegmentRow.of(file, pending, tenant=tenant))
            record.found += 1
            pending = segment
        record.found += 1
        if path not in self.encoding:  # it failed half-way
            self._withdraw(record)
            return
        self.begun.pop(path, None)
        self._read(path)
        self._close_file()
        if not is_unchanged(file):
            self._withdraw(record)
            self.report.failed[path] = "changed while it was read; run again when it is complete"
            return
        self._queue(SegmentRow.of(file, pending, segments=record.found, tenant=tenant))
        record.expected = record.found
        self._remember(record)
        self.report.videos += 1
        self.report.segments += record.found
        if pending.remark:
            self.report.mended[path] = pending.remark

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
        self._close_file()

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
            self.store.write(self.biased(rows) if self.biased else rows)
            self.written += len(rows)
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
