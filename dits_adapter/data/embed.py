"""Embedding of a file of pairs into an `EmbeddingCache`; vectors of videos may come from a store."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, NoReturn

from dits_adapter._wording import counted
from dits_adapter.data._fill import CacheFiller, VideoVectors
from dits_adapter.data._ids import did_you_mean
from dits_adapter.data._store_source import StoredVideos
from dits_adapter.data.pairs_file import NamedVideo, PairsFile
from dits_adapter.data.report import EmbedReport
from dits_adapter.encoders.base import Encoder, TextEncoder
from dits_adapter.errors import InputError, VideoError
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import VideoStore

if TYPE_CHECKING:
    from dits_adapter.video.decode import Video
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["embed", "embed_from_store"]

_NAMES = 1000
"""Names that are looked at to say which one may have been meant."""


def embed(
    pairs: str | PathLike[str] | PairsFile,
    out: str | PathLike[str],
    encoder: VideoEncoder,
    *,
    texts: TextEncoder | None = None,
    shared: bool = False,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts and video files of a file of pairs into a cache, or go on where an earlier run stopped.

    Args:
        pairs: see `dits_adapter.data.pairs_file`; a `PairsFile` for videos in another folder than the file's. A
            file is opened once for all its spans in a shard; a span of which less than half lies in the file has
            failed.
        out: the cache's folder: new, empty, or begun from the same pairs.
        encoder: embeds both; its space is the cache's.
        texts: embeds the texts in its place.
        shared: the texts of `texts` lie in the space of the videos nevertheless (`EmbeddingSpace.shared`).
        retry_failed: try all videos that failed in earlier runs again. Those that failed at another place, or were
            missing and no longer are, are tried again in any case.
        shard: (i, n): the i-th of n parts alone, for n machines, each with a cache of its own (`merge_caches`). A
            part is every n-th file of the cache, of thousands of texts and hundreds of videos.
        progress: show progress bars on a terminal.

    Returns:
        The contents of the cache, and the part of it that is new.

    Raises:
        InputError: `pairs` has bad lines, or names no file that is there; or there is no such `shard`.
        SpaceMismatchError: the cache was begun with another encoder.
        DITSError: the folder holds something else, cannot be written, or not one video could be read. What is
            written stays.
    """

    frames = encoder.frames if encoder.space.video.pooling == "mean" else 0

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        files = _Files(batch)
        errors: list[VideoError] = []
        spans = files.spans if any(video.span for video in batch) else None
        for segment in encoder.iter_segments(list(files.waiting), on_error=errors.append, spans=spans):
            of_frames = segment.frame_vectors if frames else None
            yield VideoVectors(files.waiting[segment.path].popleft(), segment.vector, of_frames)
        for error in errors:
            yield from (VideoVectors(video, reason=error.reason) for video in files.waiting[error.path])
        yield from files.outside

    file = pairs if isinstance(pairs, PairsFile) else PairsFile(pairs)

    def require_some() -> None:
        if not any(os.path.lexists(video.path) for video in file.iter_videos()):
            _refuse_folder(file)

    def place(video: NamedVideo) -> str:
        return f"{'file' if os.path.lexists(video.path) else 'no file'} {os.path.abspath(video.path)}"

    space, of_texts = encoder.space, texts or encoder.encoder
    if texts is not None:
        space = EmbeddingSpace.join(TextSide.of(texts), space.video, shared=shared)
    filler = CacheFiller(file, space, frames, of_texts, fetch, require_some, place, shard)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)


class _Files:
    """Videos of a batch by their files.

    Attributes:
        waiting: videos of each file that have no vectors yet, in the order in which they are decoded.
        outside: spans that do not lie in their files.
    """

    def __init__(self, batch: Sequence[NamedVideo]) -> None:
        self.waiting: dict[str, deque[NamedVideo]] = {}
        self.outside: list[VideoVectors] = []
        for video in sorted(batch, key=lambda video: video.span or (0.0, 0.0)):
            self.waiting.setdefault(video.path, deque()).append(video)

    def spans(self, file: Video) -> list[tuple[float, float]]:
        """Return the spans to decode of an opened file, in seconds."""
        inside: dict[NamedVideo, tuple[float, float]] = {}
        for video in self.waiting[file.path]:
            start, end = video.span or (0.0, file.duration)
            if 2 * (file.duration - start) < end - start or start >= file.duration:
                reason = f"lasts {file.duration:.2f} s; of {start:g} s to {end:g} s less than half lies in it"
                self.outside.append(VideoVectors(video, reason=reason))
            else:
                inside[video] = start, min(end, file.duration)
        self.waiting[file.path] = deque(inside)
        return list(inside.values())


def _refuse_folder(file: PairsFile) -> NoReturn:
    """Refuse a folder that holds none of a file's videos."""
    if not file.folder.is_dir():
        raise InputError(f"{file.folder}: there is no such folder, in which the videos of {file.path} should be.")
    first = next(file.iter_videos())
    names = [path.name for path in islice(file.folder.iterdir(), _NAMES)]
    raise InputError(
        f"{file.path}: of its {counted(file.videos, 'video')} none is there. The first is looked for at "
        f"{first.path}{did_you_mean(os.path.basename(first.path), names) or ';'} Name the folder that its "
        "videos are relative to (--videos)."
    )


def embed_from_store(
    pairs: str | PathLike[str] | PairsFile,
    out: str | PathLike[str],
    encoder: Encoder | None,
    store: VideoStore,
    *,
    texts: TextEncoder | None = None,
    shared: bool = False,
    id_field: str | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts of a file of pairs and read the vectors of its videos from a store.

    Args:
        pairs: each line has a `text` and an `id`; only the videos named there are read. An id that ends in the
            suffix of a video file and is not in the collection stands for the id without that suffix. A video of
            several segments has the mean of their vectors, which a warning says; a span of it, with `start` and
            `end`, that of the segments that lie in the span by half or more, or else the one that has most of it.
        out: as for `embed`.
        encoder: the encoder of the collection's videos, which embeds the texts, too. With `texts` it may be None,
            and the collection's word is taken for its videos.
        texts, shared: as for `embed`.
        store: the collection, which says what space it is of, or is trusted to be of `encoder`'s.
        id_field: payload field that an `id` is a value of; "" for the segments' own ids. None for the one that has
            the most of the ids, among those that the collection's description names, and in a collection of
            another program all others.
        retry_failed: read videos again that the collection did not have.
        shard: as for `embed`.
        progress: show progress bars on a terminal.

    Returns:
        The contents of the cache, and the part of it that is new.

    Raises:
        StoreError: no such collection, foreign and not trusted, or the database cannot be reached.
        SpaceMismatchError: the collection's videos were not embedded with `encoder`.
        InputError: `pairs` has bad lines, or `id_field` is no field of the collection or holds none of the ids.
        DITSError: as for `embed`.
    """
    file = pairs if isinstance(pairs, PairsFile) else PairsFile(pairs, files=False)
    space = store.open()
    of_texts = texts or encoder
    if of_texts is None:
        raise InputError("embed_from_store: the texts need an encoder; give encoder=… or texts=….")
    if encoder is not None:
        space.video.require(
            VideoSide.of(encoder, frames=space.video.frames),
            mine=f"the collection {store.collection!r}",
            theirs="the encoder of the texts" if texts is None else "the encoder of the videos",
        )
    space = EmbeddingSpace.join(TextSide.of(of_texts), space.video, shared=texts is None or shared)
    stored = StoredVideos(
        store,
        id_field,
        label=str(file.path),
        names=lambda: (video.path for video in file.iter_videos()),
        stem=file.stem,
    )

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        wanted = [(video.path, video.span) for video in batch]
        for video, read in zip(batch, stored.fetch(wanted), strict=True):
            yield VideoVectors(video, *read)

    def place(video: NamedVideo) -> str:
        return f"{store.location} {store.collection} {store.tenant} {stored.field} {video.id}"

    filler = CacheFiller(file, space, stored.frames, of_texts, fetch, stored.require_some, place, shard)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)
