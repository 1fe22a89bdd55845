"""VideoEncoder: video files in, unit vectors of segments and of their frames out."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from os import PathLike, fspath
from typing import Literal, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch

from dits_adapter.artifact.config import read_config
from dits_adapter.artifact.find import find_adapter, find_encoder
from dits_adapter.encoders.clip import Clip, load_clip
from dits_adapter.errors import InputError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import unit
from dits_adapter.video.decode import DecodedFrames, Decoder, Frame, Video
from dits_adapter.video.frames import segment_spans
from dits_adapter.video.pooling import mean_pool

Path = str | PathLike[str]
OnError = Literal["raise"] | Callable[[VideoError], object]
Item = TypeVar("Item")
Result = TypeVar("Result")

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
        vector: (d,) float32 of unit norm, the frame vectors pooled (`pooling.mean_pool`).
        frame_vectors: (n, d) float32, each of unit norm.
        timestamps: (n,) float64, when each frame appears on screen, in seconds.
        decoder: the decoder that was used.
    """

    path: str
    start: float
    end: float
    fps: float
    duration: float
    vector: npt.NDArray[np.float32]
    frame_vectors: npt.NDArray[np.float32]
    timestamps: npt.NDArray[np.float64]
    decoder: str


@dataclass(frozen=True)
class _Task:
    """Some segments of the file with this number; or, where it could not be opened, why."""

    number: int
    source: Video | VideoError
    spans: list[tuple[float, float]]


@dataclass(frozen=True)
class _Decoded:
    """A segment whose frames went through the image processor: `content.frames` is (n, 3, size, size) float32."""

    video: Video
    span: tuple[float, float]
    content: DecodedFrames


class VideoEncoder:
    """Embeds videos with CLIP's image tower: frames in the middle of equal intervals, mean-pooled.

    Args:
        clip: a loaded CLIP.
        frames: frames sampled a segment, part of the embedding space.
        decoder: the video decoder (see `decode.decode_frames`).
        limit: seconds from the start of a video after which the rest of it does not count.

    Raises:
        InputError: frames < 1, or a limit that is not positive.

    Example:
        >>> encoder = VideoEncoder.from_pretrained("demo-clip")
        >>> encoder.space.pooling, encoder.frames
        ('mean', 12)
    """

    def __init__(
        self, clip: Clip, *, frames: int = 12, decoder: Decoder = "auto", limit: float = math.inf
    ) -> None:
        if frames < 1:
            raise InputError(f"frames is {frames}; a segment needs at least one frame.")
        if not limit > 0:
            raise InputError(f"limit is {limit}; expected seconds above 0.")
        self.clip = clip
        self.frames = frames
        self.decoder: Decoder = decoder
        self.limit = limit

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: Path,
        *,
        revision: str | None = None,
        device: str | torch.device = "auto",
        frames: int | None = None,
        decoder: Decoder = "auto",
    ) -> VideoEncoder:
        """Load a CLIP, or the one that an adapter was trained for.

        Args:
            id_or_path: a CLIP or a trained adapter: folder, bundled name (`demo-clip`, `demo-dits`) or hub id.
            revision: hub revision of what is named.
            device: a torch device or `"auto"`.
            frames: frames sampled a segment, part of the embedding space; None for the adapter's, or 12.
            decoder: the video decoder (see `decode.decode_frames`).

        Raises:
            ArtifactError: nothing loadable is there.
            SpaceMismatchError: the CLIP, or `frames`, is not what the adapter was trained with.
            InputError: frames < 1.
        """
        adapter = find_adapter(id_or_path, revision)
        if adapter is None:
            return cls(
                load_clip(id_or_path, revision=revision, device=device),
                frames=12 if frames is None else frames,
                decoder=decoder,
            )
        space = read_config(adapter).space
        clip = load_clip(find_encoder(adapter, space), revision=space.revision, device=device)
        encoder = cls(clip, frames=space.frames if frames is None else frames, decoder=decoder)
        space.require(encoder.space, mine=f"the adapter {fspath(id_or_path)}", theirs="this encoder of videos")
        if encoder.space.fingerprint == space.fingerprint:
            encoder.space = space  # by the name that people know, not that of the folder inside a joint adapter
        return encoder

    @cached_property
    def space(self) -> EmbeddingSpace:
        """The embedding space of the vectors."""
        return EmbeddingSpace.of(self.clip, frames=self.frames)

    @overload  # a str is one path, though it could be iterated over
    def encode_video(  # type: ignore[overload-overlap]
        self, paths: Path, *, batch_frames: int = 96, workers: int | None = None
    ) -> EncodedSegment: ...
    @overload
    def encode_video(
        self, paths: Iterable[Path], *, batch_frames: int = 96, workers: int | None = None
    ) -> list[EncodedSegment]: ...

    def encode_video(
        self, paths: Path | Iterable[Path], *, batch_frames: int = 96, workers: int | None = None
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
        paths: Path | Iterable[Path],
        *,
        segment_seconds: float | None = None,
        overlap: float = 0.0,
        batch_frames: int = 96,
        workers: int | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[EncodedSegment]:
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
        return self._encode(paths, segment_seconds, overlap, batch_frames, workers, on_error)

    def _encode(
        self,
        paths: Iterable[Path],
        seconds: float | None,
        overlap: float,
        batch_frames: int,
        workers: int,
        on_error: OnError,
    ) -> Iterator[EncodedSegment]:
        def plan(numbered: tuple[int, Path]) -> list[_Task]:
            number, path = numbered
            try:
                video = Video(path, self.decoder)
            except VideoError as error:
                return [_Task(number, error, [])]
            spans = segment_spans(min(video.duration, self.limit), seconds, overlap)
            starts = range(0, len(spans), _SPANS_PER_TASK)
            return [_Task(number, video, spans[start : start + _SPANS_PER_TASK]) for start in starts]

        per_batch = max(1, batch_frames // self.frames)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            tasks = chain.from_iterable(_in_order(pool, plan, enumerate(paths), workers))
            decoded = _in_order(pool, self._decode, tasks, workers + per_batch)
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
            pool.shutdown(cancel_futures=True)

    def _decode(self, task: _Task) -> tuple[int, list[_Decoded | VideoError]]:
        """Decode and preprocess the segments of a task, up to the first that fails."""
        if isinstance(task.source, VideoError):
            return task.number, [task.source]
        items: list[_Decoded | VideoError] = []
        with task.source.another() as video:
            try:
                for start, end in task.spans:
                    content = video.frames(self.frames, start, end, transform=self._preprocess)
                    items.append(_Decoded(video, (start, end), content))
            except VideoError as error:
                items.append(error)
        return task.number, items

    def _preprocess(self, frame: Frame) -> npt.NDArray[np.float32]:
        pixels: npt.NDArray[np.float32] = self.clip.preprocess([frame])[0].numpy()
        return pixels

    def _gather(self, frames: list[npt.NDArray[np.float32]]) -> torch.Tensor:
        """Join (n, 3, size, size) arrays; for a GPU in page-locked memory, from which it copies by itself."""
        on_gpu = self.clip.model.device.type == "cuda"
        pixels = torch.empty(sum(map(len, frames)), *frames[0].shape[1:], dtype=torch.float32, pin_memory=on_gpu)
        np.concatenate(frames, out=pixels.numpy())
        return pixels

    def _run(
        self, batch: list[_Decoded | VideoError], batch_frames: int, on_error: OnError
    ) -> Iterator[EncodedSegment]:
        """Run the model on a batch and give out what is in it, in order."""
        segments = [item for item in batch if isinstance(item, _Decoded)]
        if segments:
            pixels = self._gather([segment.content.frames for segment in segments])
            vectors = torch.cat([self.clip.embed_pixels(part).cpu() for part in pixels.split(batch_frames)])
            units = iter(unit(vectors.numpy()).reshape(len(segments), self.frames, -1))
        for item in batch:
            if isinstance(item, _Decoded):
                frame_vectors = next(units)
                yield EncodedSegment(
                    path=item.video.path,
                    start=item.span[0],
                    end=item.span[1],
                    fps=item.video.fps,
                    duration=item.video.duration,
                    vector=mean_pool(frame_vectors),
                    frame_vectors=frame_vectors,
                    timestamps=item.content.timestamps,
                    decoder=item.content.decoder,
                )
            elif on_error == "raise":
                raise item
            else:
                on_error(item)


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Map in the pool and yield the results in order, never more than `ahead` items in advance."""
    pending: deque[Future[Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
