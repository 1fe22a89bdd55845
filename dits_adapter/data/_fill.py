"""Filling of a cache from a file of pairs: texts are embedded, vectors of videos are fetched."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dits_adapter._progress import progress_bar
from dits_adapter._wording import counted
from dits_adapter.data._cache_index import Section, is_cache, read_index
from dits_adapter.data.cache import FailedVideo
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.pairs_file import NamedVideo, PairsFile
from dits_adapter.data.provenance import TextMarks
from dits_adapter.data.report import EmbedReport
from dits_adapter.encoders.base import TextEncoder
from dits_adapter.errors import DITSError, InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._shard import check_shard
from dits_adapter.texts import warn_if_cut

__all__ = ["CacheFiller", "VideoVectors"]

_Item = TypeVar("_Item")

_TEXTS_A_CALL = 1024
"""Number of texts that are embedded between two updates of the progress bar."""


@dataclass(frozen=True, eq=False)
class VideoVectors:
    """Vectors of one video, or the reason why the video has none.

    Attributes:
        video: the video.
        vector: pooled, (d,); None for a failure.
        frames: vectors of its frames, (k, d); None in a cache without them.
        reason: reason of a failure, one clause.
    """

    video: NamedVideo
    vector: NDArray[np.float32] | None = None
    frames: NDArray[np.float32] | None = None
    reason: str = ""


@dataclass(frozen=True)
class CacheFiller:
    """Writer of the shards that a cache still lacks.

    Attributes:
        file: the pairs.
        space: embedding space of all vectors.
        frames: frame vectors of each video; 0 for none.
        encoder: embeds the texts.
        fetch: returns, for each of some videos, its vectors or the reason why it has none; a video that it leaves
            out failed too.
        require_some: called before the texts are embedded, where videos are to be fetched; refuses a source that
            has not one of them.
        place: returns where a video is looked for, in words of the source; a failure is remembered for that place.
        shard: (i, n): only every n-th shard of texts and of videos, from the i-th on; None for all.
    """

    file: PairsFile
    space: EmbeddingSpace
    frames: int
    encoder: TextEncoder
    fetch: Callable[[Sequence[NamedVideo]], Iterable[VideoVectors]]
    require_some: Callable[[], object]
    place: Callable[[NamedVideo], str]
    shard: tuple[int, int] | None = None

    def fill(self, out: str | PathLike[str], *, retry_failed: bool, progress: bool) -> EmbedReport:
        """Write every shard that is missing, texts first.

        Raises:
            SpaceMismatchError: the folder holds a cache of another space.
            DITSError: the folder holds something else, cannot be written, or not one video has vectors.
            InputError: `shard` is none of the cache's.
        """
        check_shard(self.shard)
        begun = read_index(Path(out)) if is_cache(Path(out)) else None
        if begun is None or self._missing(begun.videos) or retry_failed:
            self.require_some()
        writer = CacheWriter(
            out,
            space=self.space,
            source=self.file.sha256,
            texts=self.file.texts,
            videos=self.file.videos,
            frames=self.frames,
            id_bytes=self.file.id_bytes,
            grouped=self.file.grouped,
            marked=self.file.marked,
        )
        shards = len(writer.index.videos.spans())
        if self.shard is not None and self.shard[0] > shards:
            raise InputError(
                f"{self.file.path}: its {self.file.videos:,} videos make {shards} shards; for shard "
                f"{self.shard[0]} of {self.shard[1]} there is none. Divide the work among {shards} at most."
            )
        with writer:
            started = time.monotonic()
            new_texts = self._write_texts(writer, progress)
            between = time.monotonic()
            new_videos = self._write_videos(writer, retry_failed, progress)
            ended = time.monotonic()
        report = EmbedReport.of(out, new_texts, new_videos, between - started, ended - between)
        if not report.videos:
            first = report.failures[0]
            raise DITSError(
                f"{self.file.path}: of its {counted(len(report.failures), 'video')} none has vectors. The first "
                f"is {first.id}: {first.reason}. Check the names in the file, and the folder or collection."
            )
        return report

    def _missing(self, section: Section) -> list[range]:
        """Return the spans of this run's shards that are not written yet."""
        number, of = self.shard or (1, 1)
        return [span for span in section.missing() if span.start // section.span % of == number - 1]

    def _write_texts(self, cache: CacheWriter, progress: bool) -> int:
        missing = self._missing(cache.index.texts)
        new = sum(map(len, missing))
        cut = False
        with progress_bar(total=new, desc="texts", unit="text", progress=progress) as bar:
            for span, texts in _chunks(self.file.iter_texts(), missing):
                vectors = np.empty((len(span), self.space.text.width), np.float32)
                for start in range(0, len(span), _TEXTS_A_CALL):
                    batch = [text.text for text in texts[start : start + _TEXTS_A_CALL]]
                    cut = cut or warn_if_cut(batch, self.encoder, stacklevel=4)
                    vectors[start : start + len(batch)] = self.encoder.embed_texts(batch)
                    bar.update(len(batch))
                marks = (
                    TextMarks.of((text.source, text.confidence) for text in texts) if self.file.marked else None
                )
                cache.write_texts(span, vectors, [text.video for text in texts], marks)
        return new

    def _write_videos(self, cache: CacheWriter, retry_failed: bool, progress: bool) -> int:
        """Fetch the videos of each shard that is missing, and those that failed elsewhere or, on demand, here."""
        failures = cache.index.failures
        spans = {span.start: span for span in self._missing(cache.index.videos)}
        remembered = {}
        if not retry_failed:
            written = [f for f in failures if cache.spans_of([f.number])[0].start not in spans]
            remembered = self._remembered(written)
        again = [failed.number for failed in failures if failed.number not in remembered]
        spans |= {span.start: span for span in cache.spans_of(again)}
        ordered = [spans[start] for start in sorted(spans)]
        skipped = sum(span.start in spans for number in remembered for span in cache.spans_of([number]))
        total = sum(len(span) - cache.rows_of(span) for span in ordered) - skipped
        new = 0
        with progress_bar(total=total, desc="videos", unit="video", progress=progress) as bar:
            for span, videos in _chunks(self.file.iter_videos(), ordered):
                new += self._write_span(cache, span, videos, remembered, bar)
        return new

    def _remembered(self, failures: Sequence[FailedVideo]) -> dict[int, FailedVideo]:
        """Return, by number, the failures of earlier runs that this run would only repeat."""
        by_number = {failed.number: failed for failed in failures}
        videos = self.file.iter_videos() if by_number else iter(())
        return {
            video.number: by_number[video.number]
            for video in videos
            if video.number in by_number and by_number[video.number].cause == self._cause(video)
        }

    def _cause(self, video: NamedVideo) -> str:
        return hashlib.blake2b(self.place(video).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()

    def _write_span(
        self,
        cache: CacheWriter,
        span: range,
        videos: Sequence[NamedVideo],
        remembered: Mapping[int, FailedVideo],
        bar: tqdm,
    ) -> int:
        """Fetch the videos of a span that have no vectors yet and write its shard; return how many were new."""
        stored = cache.videos_of(span)
        present = np.isin(span, stored["number"])
        before = int(present.sum())
        tensors = {}
        for name in ("vector", "frames") if self.frames else ("vector",):
            tensors[name] = np.empty((len(span), *stored[name].shape[1:]), np.float32)
            tensors[name][present] = stored[name]
        reasons: dict[int, str] = {}
        missing = [
            video
            for video, known in zip(videos, present, strict=True)
            if not known and video.number not in remembered
        ]
        for fetched in self.fetch(missing) if missing else ():
            row = fetched.video.number - span.start
            if fetched.vector is None:
                reasons[row] = fetched.reason
            else:
                tensors["vector"][row] = fetched.vector
                if fetched.frames is not None:
                    tensors["frames"][row] = fetched.frames
                present[row] = True
            bar.update()
        cache.write_videos(
            span,
            np.array(span)[present],
            [video.id for video, known in zip(videos, present, strict=True) if known],
            tensors["vector"][present],
            tensors["frames"][present] if self.frames else None,
            [
                remembered.get(span[row])
                or FailedVideo(
                    number=span[row],
                    id=videos[row].id,
                    reason=reasons.get(row, "it gave no frames"),
                    cause=self._cause(videos[row]),
                )
                for row in np.flatnonzero(~present).tolist()
            ],
            np.array([video.file for video in videos])[present] if self.file.grouped else None,
        )
        return int(present.sum()) - before


def _chunks(items: Iterator[_Item], spans: Iterable[range]) -> Iterator[tuple[range, list[_Item]]]:
    """Cut ascending spans out of a stream."""
    position = 0
    for span in spans:
        yield span, list(islice(items, span.start - position, span.stop - position))
        position = span.stop
