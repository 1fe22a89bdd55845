"""VideoEncoder: video files in, unit vectors of segments and of their frames out."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, islice
from os import PathLike, fspath
from threading import Event
from typing import Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from dits_adapter._hub import absolute_name, pin
from dits_adapter.artifact._config import read_config
from dits_adapter.artifact._find import find_adapter, find_encoder
from dits_adapter.encoders.base import Device, Encoder, load_encoder
from dits_adapter.errors import InputError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.texts import TextCleaning
from dits_adapter.vectors import EmbeddedClips, FloatArray, unit
from dits_adapter.video._frames import segment_spans
from dits_adapter.video._pooling import mean_pool
from dits_adapter.video._reader import Decoder, Frame
from dits_adapter.video._suspect import Reading, read_apart
from dits_adapter.video.decode import DecodedFrames, Video
from dits_adapter.video.limits import DecodeLimits

__all__ = ["EncodedSegment", "OnError", "VideoEncoder"]

OnError = Literal["raise"] | Callable[[VideoError], object]
"""Reaction to a file that gives no frames: raise the error, or call a function with it and go on."""

_Path = str | PathLike[str]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_SPANS_PER_TASK = 4
"""Segments of one video that a worker decodes in a row: enough to make up for opening the file and seeking."""


@dataclass(frozen=True)
class EncodedSegment:
    """A segment of a video in the embedding space.

    Attributes:
        path: the file, as given.
        start: first second of the segment, from the first frame of the video.
        end: where the segment ends, in seconds.
        fps: frames a second in the video, on average.
        duration: seconds of the whole video.
        vector: (d,) float32 of unit norm: the frame vectors pooled (`pooling.mean_pool`), or the encoder's own.
        frame_vectors: (n, d) float32, each of unit norm; (0, d) from an encoder that sees clips as a whole.
        timestamps: (n,) float64, when each frame appears on screen, in seconds.
        decoder: the decoder that was used.
        remark: what is wrong with the file's own times and was made up for; empty where nothing is.
    """

    path: str
    start: float
    end: float
    fps: float
    duration: float
    vector: FloatArray
    frame_vectors: FloatArray
    timestamps: NDArray[np.float64]
    decoder: str
    remark: str = ""


@dataclass(frozen=True)
class _Task:
    """Some segments of the file with this number; or, where it could not be opened, why."""

    number: int
    source: Video | VideoError
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class _Decoded:
    """A segment whose frames went through the image processor: `content.frames` is (n, …) float32."""

    video: Video
    span: tuple[float, float]
    content: DecodedFrames


class VideoEncoder:
    """Encoder of videos: embeds the frames in the middle of equal intervals and pools them.

    One that `from_pretrained` made can be pickled and copied: it travels by its name and options, and loads where
    it arrives.

    Args:
        encoder: a loaded encoder (`dits_adapter.encoders.load_encoder`).
        frames: frames sampled a segment, part of the embedding space; None for the encoder's own number, or 12.
        decoder: the video decoder (see `decode.decode_frames`).
        limit: seconds from the start of a video after which the rest of it does not count.
        limits: what one file may cost, None for the defaults; a file beyond them is refused as a damaged one is.

    Raises:
        InputError: frames < 1, or others than the encoder sees as one clip; or a limit that is not positive.

    Examples:
        >>> encoder = VideoEncoder.from_pretrained("demo-clip")
        >>> encoder.space.video.pooling, encoder.frames
        ('mean', 12)
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        frames: int | None = None,
        decoder: Decoder = "auto",
        limit: float = math.inf,
        limits: DecodeLimits | None = None,
    ) -> None:
        frames = (encoder.clip_frames or 12) if frames is None else frames
        if frames != (encoder.clip_frames or frames):
            raise InputError(f"frames is {frames}; {encoder.name} sees clips of {encoder.clip_frames} frames.")
        if frames < 1:
            raise InputError(f"frames is {frames}; a segment needs at least one frame.")
        if not limit > 0:
            raise InputError(f"limit is {limit}; expected seconds above 0.")
        self.encoder = encoder
        self.frames = frames
        self.decoder: Decoder = decoder
        self.limit = limit
        self.limits = limits or DecodeLimits()
        self._name: str | None = None
        self._options: dict[str, Any] = {}

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: _Path,
        *,
        revision: str | None = None,
        device: Device = "auto",
        frames: int | None = None,
        decoder: Decoder = "auto",
        limit: float = math.inf,
        limits: DecodeLimits | None = None,
        text_cleaning: TextCleaning | None = None,
    ) -> VideoEncoder:
        """Load an encoder, or the one that an adapter was trained for.

        Args:
            id_or_path: an encoder or a trained adapter: folder, bundled name (`demo-clip`, `demo-dits`) or hub id.
            revision: hub revision of what is named; `options` then names it by its commit.
            device: a torch device or `"auto"`.
            frames: frames sampled a segment, part of the embedding space; None for the adapter's, those that the
                encoder sees as one clip, or 12.
            decoder: the video decoder (see `decode.decode_frames`).
            limit: seconds from the start of a video after which the rest of it does not count.
            limits: what one file may cost; None for the defaults.
            text_cleaning: cleaning of texts that the encoder is to embed, too (`load_encoder`); None for the
                adapter's.

        Raises:
            ArtifactError: nothing loadable is there.
            SpaceMismatchError: the encoder is not the one that the adapter was trained with.
            InputError: frames < 1, or a limit that is not positive.
        """
        revision = pin(id_or_path, revision)
        adapter = find_adapter(id_or_path, revision)
        if adapter is None:
            loaded = load_encoder(
                id_or_path, revision=revision, device=device, text_cleaning=text_cleaning or "none"
            )
            made = cls(loaded, frames=frames, decoder=decoder, limit=limit, limits=limits)
        else:
            space = read_config(adapter).space
            loaded = load_encoder(
                find_encoder(adapter, space.video),
                revision=space.video.revision,
                device=device,
                text_cleaning=text_cleaning or space.text.text_cleaning,
            )
            frames = space.video.frames if frames is None else frames
            made = cls(loaded, frames=frames, decoder=decoder, limit=limit, limits=limits)
            space.video.require(
                made.space.video, mine=f"the adapter {fspath(id_or_path)}", theirs="this encoder of videos"
            )
            if made.space.fingerprint == space.fingerprint:
                made.space = space  # by the name that people know, not that of the folder inside a joint adapter
        made._name = absolute_name(id_or_path)
        made._options = {"revision": revision, "device": str(device), "text_cleaning": text_cleaning}
        return made

    @property
    def name_or_path(self) -> str | None:
        """Name that `from_pretrained` was given, folders as absolute paths; None for one built otherwise."""
        return self._name

    @property
    def options(self) -> dict[str, Any]:
        """Options with which `from_pretrained(name_or_path, **options)` makes the same encoder."""
        return {
            **self._options,
            "frames": self.frames,
            "decoder": self.decoder,
            "limit": self.limit,
            "limits": self.limits,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        if self._name is None:
            raise InputError(
                "this VideoEncoder was built around a loaded encoder, which cannot travel to another process or "
                "be copied; make it with VideoEncoder.from_pretrained(name)."
            )
        return _restore, (type(self), self._name, self.options)

    @cached_property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the vectors."""
        return EmbeddingSpace.of(self.encoder, frames=self.frames)

    @overload  # a str is one path, though it could be iterated over
    def encode_video(  # type: ignore[overload-overlap]
        self, paths: _Path, *, batch_frames: int = 96, workers: int | None = None
    ) -> EncodedSegment: ...
    @overload
    def encode_video(
        self, paths: Iterable[_Path], *, batch_frames: int = 96, workers: int | None = None
    ) -> list[EncodedSegment]: ...

    def encode_video(
        self, paths: _Path | Iterable[_Path], *, batch_frames: int = 96, workers: int | None = None
    ) -> EncodedSegment | list[EncodedSegment]:
        """Embed whole videos, one vector each.

        Args:
            paths: video files, or one.
            batch_frames: frames a forward pass of the model, across videos.
            workers: decoding threads; None for one a CPU core, at most 8.

        Returns:
            A record a video, in the order given; for a single path, the record itself.

        Raises:
            VideoError: a file gives no frames (to go on instead, see `on_error` of `iter_segments`).
        """
        encoded = list(self.iter_segments(paths, batch_frames=batch_frames, workers=workers))
        return encoded[0] if isinstance(paths, (str, PathLike)) else encoded

    def iter_segments(
        self,
        paths: _Path | Iterable[_Path],
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        batch_frames: int = 96,
        workers: int | None = None,
        on_error: OnError = "raise",
        skip: Callable[[str], int] | None = None,
        suspect: Callable[[str], bool] | None = None,
        spans: Callable[[Video], Iterable[tuple[float, float]]] | None = None,
    ) -> Generator[EncodedSegment, None, None]:
        """Embed the segments of videos, one after the other, while worker threads decode ahead.

        The order is that of the paths, whatever the number of workers; so are the vectors. `paths` is read as
        needed. No more than `4 * (workers + batch_frames / frames)` decoded segments wait in memory, as small as
        the model sees them.

        Args:
            paths: video files, or one.
            segment_seconds: length of a segment (`frames.segment_spans`); None for one segment a video.
            overlap: seconds that neighboring segments share.
            batch_frames: frames a forward pass of the model, across videos.
            workers: decoding threads; None for one a CPU core, at most 8.
            on_error: called with the `VideoError` of each file that cannot be read to its end, in its turn: after
                the segments before the damage were yielded. `"raise"` raises it instead.
            skip: returns how many of a file's first segments are not needed, fewer than it has; None for all.
            suspect: returns True for a file that may crash this process: it is read in a child first, whose
                crash is the file's error.
            spans: returns the segments of an opened file, (start, end) in seconds, in the place of
                `segment_seconds`; called in the threads that decode.

        Raises:
            InputError: impossible segments, batch or number of workers.
            VideoError: of the first bad file (`on_error="raise"`).
        """
        segment_spans(1.0, segment_seconds, overlap)
        workers = min(os.cpu_count() or 1, 8) if workers is None else workers
        if batch_frames < 1 or workers < 1:
            raise InputError(f"expected batch_frames and workers of at least 1, got {batch_frames} and {workers}.")
        if isinstance(paths, (str, PathLike)):
            paths = [paths]
        return self._encode(paths, segment_seconds, overlap, batch_frames, workers, on_error, skip, suspect, spans)

    def _encode(
        self,
        paths: Iterable[_Path],
        seconds: float | None,
        overlap: float,
        batch_frames: int,
        workers: int,
        on_error: OnError,
        skip: Callable[[str], int] | None,
        suspect: Callable[[str], bool] | None,
        given: Callable[[Video], Iterable[tuple[float, float]]] | None,
    ) -> Generator[EncodedSegment, None, None]:
        stopped = Event()
        reading = Reading(self.frames, seconds, overlap, self.limit, self.decoder, self.limits)

        def plan(numbered: tuple[int, _Path]) -> Iterator[_Task]:
            number, path = numbered
            try:
                if suspect is not None and suspect(fspath(path)):
                    read_apart(fspath(path), reading, stopped)
                video = Video(path, self.decoder, self.limits)
            except VideoError as error:
                return iter([_Task(number, error, [])])
            first = 0 if skip is None else skip(video.path)
            every = video.spans(seconds, overlap, self.limit) if given is None else given(video)
            spans = islice(every, first, None)
            return (_Task(number, video, few) for few in _in_groups(spans, _SPANS_PER_TASK))

        decode = partial(self._decode, stopped=stopped)
        per_batch = max(1, batch_frames // self.frames)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            tasks = chain.from_iterable(_in_order(pool, plan, enumerate(paths), workers))
            decoded = _in_order(pool, decode, tasks, workers + per_batch)
            batch: list[_Decoded | VideoError] = []
            failed = -1
            for number, items in decoded:
                for item in items:
                    if number == failed:
                        continue
                    batch.append(item)
                    if isinstance(item, VideoError):
                        failed = number
                    waiting = sum(isinstance(entry, _Decoded) for entry in batch)
                    if waiting in (0, per_batch):  # an error before which nothing waits is due at once
                        yield from self._run(batch, batch_frames, on_error)
                        batch = []
            yield from self._run(batch, batch_frames, on_error)
        finally:
            stopped.set()  # whoever interrupts waits for one segment a worker, not for the rest of the film
            pool.shutdown(cancel_futures=True)

    def _decode(self, task: _Task, stopped: Event) -> tuple[int, list[_Decoded | VideoError]]:
        """Decode and preprocess the segments of a task, up to the first that fails."""
        if isinstance(task.source, VideoError):
            return task.number, [task.source]
        items: list[_Decoded | VideoError] = []
        with task.source.another() as video:
            try:
                for start, end in task.spans:
                    if stopped.is_set():
                        break
                    content = video.frames(self.frames, start, end, transform=self._preprocess)
                    items.append(_Decoded(video, (start, end), content))
            except VideoError as error:
                items.append(error)
        return task.number, items

    def _preprocess(self, frame: Frame) -> FloatArray:
        pixels: FloatArray = self.encoder.preprocess([frame])[0]
        return pixels

    def _run(
        self, batch: list[_Decoded | VideoError], batch_frames: int, on_error: OnError
    ) -> Iterator[EncodedSegment]:
        """Run the model on a batch and give out what is in it, in order."""
        segments = [item for item in batch if isinstance(item, _Decoded)]
        if segments:
            embedded = self.encoder.embed([segment.content.frames for segment in segments], batch_frames)
            vectors = _pool(embedded)
        for item in batch:
            if isinstance(item, _Decoded):
                vector, frame_vectors = next(vectors)
                yield EncodedSegment(
                    path=item.video.path,
                    start=item.span[0],
                    end=item.span[1],
                    fps=item.video.fps,
                    duration=item.video.duration,
                    vector=vector,
                    frame_vectors=frame_vectors,
                    timestamps=item.content.timestamps,
                    decoder=item.content.decoder,
                    remark=item.video.remark,
                )
            elif on_error == "raise":
                raise item
            else:
                on_error(item)


def _restore(cls: type[VideoEncoder], name: str, options: dict[str, Any]) -> VideoEncoder:
    return cls.from_pretrained(name, **options)


def _pool(embedded: EmbeddedClips) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield, for each clip, its vector (d,) and those of its frames (f, d), of unit norm."""
    if embedded.frames is None:
        assert embedded.pooled is not None
        yield from ((vector, vector[None][:0]) for vector in unit(embedded.pooled))
        return
    frames = unit(embedded.frames)
    pooled = mean_pool(frames) if embedded.pooled is None else unit(embedded.pooled)
    yield from zip(pooled, frames, strict=True)


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
