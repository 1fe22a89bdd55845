"""Embedding of a file of pairs into an `EmbeddingCache`; vectors of videos may come from a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from dits_adapter.data._fill import CacheFiller, VideoVectors
from dits_adapter.data.pairs_file import NamedVideo, PairsFile
from dits_adapter.data.report import EmbedReport
from dits_adapter.encoders.base import Encoder
from dits_adapter.errors import StoreError, VideoError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["embed", "embed_from_store"]

_IDS_A_REQUEST = 256


def embed(
    pairs: str | PathLike[str],
    out: str | PathLike[str],
    encoder: VideoEncoder,
    *,
    videos: str | PathLike[str] | None = None,
    retry_failed: bool = False,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts and video files of a PAIRS.jsonl into a cache, or go on where an earlier run stopped.

    Args:
        pairs: see `dits_adapter.data.pairs_file`.
        out: the cache's folder: new, empty, or begun from the same pairs.
        encoder: embeds both; its space is the cache's.
        videos: folder that relative videos are relative to; by default that of `pairs`.
        retry_failed: try the videos that failed in earlier runs again.
        progress: show progress bars.

    Returns:
        The contents of the cache, and the part of it that is new.

    Raises:
        InputError: `pairs` has bad lines.
        SpaceMismatchError: the cache was begun with another encoder.
        DITSError: the folder holds something else, cannot be written, or not one video could be read. What is
            written stays.
    """

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        by_path = {video.path: video for video in batch}
        errors: list[VideoError] = []
        for segment in encoder.iter_segments(list(by_path), on_error=errors.append):
            yield VideoVectors(by_path[segment.path], segment.vector, segment.frame_vectors)
        for error in errors:
            yield VideoVectors(by_path[error.path], reason=error.reason)

    filler = CacheFiller(PairsFile(pairs, videos), encoder.space, encoder.frames, encoder.encoder, fetch)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)


def embed_from_store(
    pairs: str | PathLike[str],
    out: str | PathLike[str],
    encoder: Encoder,
    store: VideoStore,
    *,
    id_field: str = "video_id",
    retry_failed: bool = False,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts of a PAIRS.jsonl and read the vectors of its videos from a store.

    Args:
        pairs: each line has a `text` and an `id`; only the videos named there are read.
        out: as for `embed`.
        encoder: embeds the texts.
        store: the collection, which says what space it is of, or is trusted to be of `encoder`'s.
        id_field: payload field that an `id` is a value of; "" for the segments' own ids.
        retry_failed: read videos again that the collection did not have.
        progress: show progress bars.

    Returns:
        The contents of the cache, and the part of it that is new.

    Raises:
        StoreError: no such collection, foreign and not trusted, or the database cannot be reached.
        SpaceMismatchError: the collection's videos were not embedded with `encoder`.
        InputError, DITSError: as for `embed`.
    """
    space = store.open()
    space.require(
        EmbeddingSpace.of(encoder, frames=space.frames),
        mine=f"the collection {store.collection!r}",
        theirs="the encoder of the texts",
    )
    frames = (space.frames or 0) if store.capabilities.frames else 0

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        for start in range(0, len(batch), _IDS_A_REQUEST):
            part = batch[start : start + _IDS_A_REQUEST]
            request = ReadRequest(
                field=id_field, values=[video.id for video in part], vectors=True, frames=frames > 0
            )
            try:
                segments = _by_id(store.read(request), id_field)
            except StoreError as error:
                raise StoreError(
                    f"{error} What is written to {out} stays; the same command goes on from there."
                ) from error
            for video in part:
                yield _vectors_of(video, segments.get(video.id, []), frames)

    filler = CacheFiller(PairsFile(pairs, files=False), space, frames, encoder, fetch)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)


def _by_id(segments: Iterable[StoredSegment], id_field: str) -> dict[str, list[StoredSegment]]:
    """Group segments by the id that pairs name them with."""
    groups: dict[str, list[StoredSegment]] = {}
    for segment in segments:
        name = segment.payload.get(id_field) if id_field else segment.id
        groups.setdefault(str(name), []).append(segment)
    return groups


def _vectors_of(video: NamedVideo, segments: Sequence[StoredSegment], frames: int) -> VideoVectors:
    """Return the vectors of the one segment that a video should have."""
    if not segments:
        return VideoVectors(video, reason="the collection has no such video")
    if len(segments) > 1:
        return VideoVectors(
            video,
            reason=f"{len(segments)} segments of the collection have this id; name one by its own id, with "
            '--id-field ""',
        )
    vector, of_frames = segments[0].vector, segments[0].frame_vectors
    if vector is None or (frames and of_frames is None):
        return VideoVectors(video, reason="its segment lacks a vector")
    if not frames or of_frames is None:
        return VideoVectors(video, vector)
    if len(of_frames) != frames:
        return VideoVectors(video, reason=f"its segment has {len(of_frames)} frame vectors, others have {frames}")
    return VideoVectors(video, vector, of_frames)
