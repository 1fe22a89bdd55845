"""Decoding of the segments of video files: in worker threads, in the order of the files, a few segments ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from os import PathLike, fspath
from threading import Event
from typing import TypeVar

from dits_adapter.errors import VideoError
from dits_adapter.vectors import FloatArray
from dits_adapter.video._reader import Frame
from dits_adapter.video._suspect import Reading, read_apart
from dits_adapter.video.decode import DecodedFrames, Video

__all__ = ["DecodedSegment", "SegmentDecoder"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SPANS_PER_TASK = 4
"""Segments of one video that a worker decodes in a row: enough to make up for opening the file and seeking."""


@dataclass(frozen=True)
class DecodedSegment:
    """A segment whose frames went through the image processor: `content.frames` is (n, …) float32."""

    video: Video
    span: tuple[float, float]
    content: DecodedFrames


@dataclass(frozen=True)
class _Task:
    """Some segments of the file with this number; or, where it could not be opened, why."""

    number: int
    source: Video | VideoError
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class SegmentDecoder:
    """Decoder of the segments of one list of files.

    Attributes:
        reading: how the files are read.
        preprocess: image processor of a frame.
        skip, suspect, spans: see `VideoEncoder.iter_segments`.
    """

    reading: Reading
    preprocess: Callable[[Frame], FloatArray]
    skip: Callable[[str], int] | None = None
    suspect: Callable[[str], bool] | None = None
    spans: Callable[[Video], Iterable[tuple[float, float]]] | None = None
    _stopped: Event = field(default_factory=Event)

    def batches(
        self, paths: Iterable[str | PathLike[str]], size: int, workers: int
    ) -> Generator[list[DecodedSegment | VideoError], None, None]:
        """Yield the segments in order, `size` at a time, and in its turn the error that ends a file.

        Args:
            paths: the files, read as needed.
            size: segments of a batch.
            workers: threads.
        """
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            tasks = chain.from_iterable(_in_order(pool, self._plan, enumerate(paths), workers))
            batch: list[DecodedSegment | VideoError] = []
            failed = -1
            for number, items in _in_order(pool, self._decode, tasks, workers + size):
                for item in items:
                    if number == failed:
                        continue
                    batch.append(item)
                    if isinstance(item, VideoError):
                        failed = number
                    waiting = sum(isinstance(entry, DecodedSegment) for entry in batch)
                    if waiting in (0, size):  # an error before which nothing waits is due at once
                        yield batch
                        batch = []
            yield batch
        finally:
            self._stopped.set()  # whoever interrupts waits for one segment a worker, not for the rest of the film
            pool.shutdown(cancel_futures=True)

    def _plan(self, numbered: tuple[int, str | PathLike[str]]) -> Iterator[_Task]:
        """Open a file and part its segments into tasks."""
        number, path = numbered
        reading = self.reading
        try:
            if self.suspect is not None and self.suspect(fspath(path)):
                read_apart(fspath(path), reading, self._stopped)
            video = Video(path, reading.decoder, reading.limits)
        except VideoError as error:
            return iter([_Task(number, error, [])])
        first = 0 if self.skip is None else self.skip(video.path)
        cut = partial(video.spans, reading.seconds, reading.overlap, reading.limit)
        spans = islice(cut() if self.spans is None else self.spans(video), first, None)
        return (_Task(number, video, few) for few in _in_groups(spans, _SPANS_PER_TASK))

    def _decode(self, task: _Task) -> tuple[int, list[DecodedSegment | VideoError]]:
        """Decode and preprocess the segments of a task, up to the first that fails."""
        if isinstance(task.source, VideoError):
            return task.number, [task.source]
        items: list[DecodedSegment | VideoError] = []
        with task.source.another() as video:
            try:
                for start, end in task.spans:
                    if self._stopped.is_set():
                        break
                    content = video.frames(self.reading.frames, start, end, transform=self.preprocess)
                    items.append(DecodedSegment(video, (start, end), content))
            except VideoError as error:
                items.append(error)
        return task.number, items


def _in_groups(items: Iterator[_Item], size: int) -> Iterator[list[_Item]]:
    while group := list(islice(items, size)):
        yield group


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """Map in the pool and yield the results in order, never more than `ahead` items in advance."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
