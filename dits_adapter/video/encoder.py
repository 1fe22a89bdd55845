"""VideoEncoder: video files in, unit vectors of segments and of their frames out."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from os import PathLike, fspath
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from dits_adapter._hub import absolute_name, pin
from dits_adapter._reprs import short_repr, shown_repr
from dits_adapter.artifact._config import read_config
from dits_adapter.artifact._find import find_adapter, find_encoder
from dits_adapter.encoders.base import Device, Encoder, load_encoder
from dits_adapter.errors import InputError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.texts import TextCleaning
from dits_adapter.vectors import EmbeddedClips, FloatArray, unit
from dits_adapter.video._decoding import DecodedSegment, SegmentDecoder
from dits_adapter.video._frames import segment_spans
from dits_adapter.video._pooling import mean_pool
from dits_adapter.video._reader import Decoder, Frame
from dits_adapter.video._suspect import Reading
from dits_adapter.video.decode import Video
from dits_adapter.video.limits import DecodeLimits

__all__ = ["EncodedSegment", "OnError", "VideoEncoder"]

OnError = Literal["raise"] | Callable[[VideoError], object]
"""Reaction to a file that gives no frames: raise the error, or call a function with it and go on."""

_Path = str | PathLike[str]


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

    __repr__ = shown_repr


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

    def __repr__(self) -> str:
        return short_repr(self, self._name or self.encoder.name, frames=self.frames, decoder=self.decoder)

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
        reading = Reading(self.frames, segment_seconds, overlap, self.limit, self.decoder, self.limits)
        decoder = SegmentDecoder(reading, self._preprocess, skip, suspect, spans)
        return self._encode(
            decoder.batches(paths, max(1, batch_frames // self.frames), workers), batch_frames, on_error
        )

    def _encode(
        self,
        batches: Generator[list[DecodedSegment | VideoError], None, None],
        batch_frames: int,
        on_error: OnError,
    ) -> Generator[EncodedSegment, None, None]:
        with closing(batches):  # an interruption ends the decoding, too
            for batch in batches:
                yield from self._run(batch, batch_frames, on_error)

    def _preprocess(self, frame: Frame) -> FloatArray:
        pixels: FloatArray = self.encoder.preprocess([frame])[0]
        return pixels

    def _run(
        self, batch: list[DecodedSegment | VideoError], batch_frames: int, on_error: OnError
    ) -> Iterator[EncodedSegment]:
        """Run the model on a batch and give out what is in it, in order."""
        segments = [item for item in batch if isinstance(item, DecodedSegment)]
        if segments:
            embedded = self.encoder.embed([segment.content.frames for segment in segments], batch_frames)
            vectors = _pool(embedded)
        for item in batch:
            if isinstance(item, DecodedSegment):
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
