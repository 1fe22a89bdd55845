"""Embedding of a file of pairs into an `EmbeddingCache`; vectors of videos may come from a store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, NoReturn

from dits_adapter.data._fill import CacheFiller, VideoVectors
from dits_adapter.data._ids import did_you_mean
from dits_adapter.data.pairs_file import NamedVideo, PairsFile
from dits_adapter.data.report import EmbedReport
from dits_adapter.encoders.base import Encoder, TextEncoder
from dits_adapter.errors import InputError, StoreError, VideoError
from dits_adapter.space import EmbeddingSpace, TextSide, VideoSide
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["embed", "embed_from_store"]

_IDS_A_REQUEST = 256

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
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts and video files of a PAIRS.jsonl into a cache, or go on where an earlier run stopped.

    Args:
        pairs: see `dits_adapter.data.pairs_file`; a `PairsFile` for videos in another folder than the file's.
        out: the cache's folder: new, empty, or begun from the same pairs.
        encoder: embeds both; its space is the cache's.
        texts: embeds the texts in its place.
        shared: the texts of `texts` lie in the space of the videos nevertheless (`EmbeddingSpace.shared`).
        retry_failed: try all videos that failed in earlier runs again. Those that failed at another place, or were
            missing and no longer are, are tried again in any case.
        progress: show progress bars.

    Returns:
        The contents of the cache, and the part of it that is new.

    Raises:
        InputError: `pairs` has bad lines, or names no file that is there.
        SpaceMismatchError: the cache was begun with another encoder.
        DITSError: the folder holds something else, cannot be written, or not one video could be read. What is
            written stays.
    """

    frames = encoder.frames if encoder.space.video.pooling == "mean" else 0

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        by_path = {video.path: video for video in batch}
        errors: list[VideoError] = []
        for segment in encoder.iter_segments(list(by_path), on_error=errors.append):
            of_frames = segment.frame_vectors if frames else None
            yield VideoVectors(by_path[segment.path], segment.vector, of_frames)
        for error in errors:
            yield VideoVectors(by_path[error.path], reason=error.reason)

    file = pairs if isinstance(pairs, PairsFile) else PairsFile(pairs)

    def require_some() -> None:
        if not any(os.path.lexists(video.path) for video in file.iter_videos()):
            _refuse_folder(file)

    def place(video: NamedVideo) -> str:
        return f"{'file' if os.path.lexists(video.path) else 'no file'} {os.path.abspath(video.path)}"

    space, of_texts = encoder.space, texts or encoder.encoder
    if texts is not None:
        space = EmbeddingSpace.join(TextSide.of(texts), space.video, shared=shared)
    filler = CacheFiller(file, space, frames, of_texts, fetch, require_some, place)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)


def _refuse_folder(file: PairsFile) -> NoReturn:
    """Refuse a folder that holds none of a file's videos."""
    if not file.folder.is_dir():
        raise InputError(f"{file.folder}: there is no such folder, in which the videos of {file.path} should be.")
    first = next(file.iter_videos())
    names = [path.name for path in islice(file.folder.iterdir(), _NAMES)]
    raise InputError(
        f"{file.path}: not one of its {file.videos:,} videos is there. The first is looked for at {first.path}"
        f"{did_you_mean(os.path.basename(first.path), names) or ';'} Name the folder that its videos are relative "
        "to (--videos)."
    )


def embed_from_store(
    pairs: str | PathLike[str] | PairsFile,
    out: str | PathLike[str],
    encoder: Encoder | None,
    store: VideoStore,
    *,
    texts: TextEncoder | None = None,
    shared: bool = False,
    id_field: str = "video_id",
    retry_failed: bool = False,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts of a PAIRS.jsonl and read the vectors of its videos from a store.

    Args:
        pairs: each line has a `text` and an `id`; only the videos named there are read. An id that ends in the
            suffix of a video file and is not in the collection stands for the id without that suffix.
        out: as for `embed`.
        encoder: the encoder of the collection's videos, which embeds the texts, too. With `texts` it may be None,
            and the collection's word is taken for its videos.
        texts, shared: as for `embed`.
        store: the collection, which says what space it is of, or is trusted to be of `encoder`'s.
        id_field: payload field that an `id` is a value of; "" for the segments' own ids.
        retry_failed: read videos again that the collection did not have.
        progress: show progress bars.

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
    frames = (space.video.frames or 0) if store.capabilities.frames and space.video.pooling == "mean" else 0

    ids = _IdReader(store, id_field, file)

    def fetch(batch: Sequence[NamedVideo]) -> Iterator[VideoVectors]:
        for start in range(0, len(batch), _IDS_A_REQUEST):
            part = batch[start : start + _IDS_A_REQUEST]
            try:
                segments = ids.read([video.id for video in part], vectors=True, frames=frames > 0)
            except StoreError as error:
                raise StoreError(
                    f"{error} What is written to {out} stays; the same command goes on from there."
                ) from error
            for video in part:
                yield _vectors_of(video, segments.get(video.id, []), frames)

    def place(video: NamedVideo) -> str:
        return f"{store.location} {store.collection} {store.tenant} {id_field} {video.id}"

    filler = CacheFiller(file, space, frames, of_texts, fetch, ids.require_some, place)
    return filler.fill(out, retry_failed=retry_failed, progress=progress)


@dataclass(frozen=True)
class _IdReader:
    """Reader of the segments that the ids of a file of pairs name.

    Attributes:
        store: the collection.
        id_field: payload field that an id is a value of; "" for the segments' own ids.
        file: the pairs.
    """

    store: VideoStore
    id_field: str
    file: PairsFile

    def read(
        self, ids: Sequence[str], *, vectors: bool = False, frames: bool = False
    ) -> dict[str, list[StoredSegment]]:
        """Read the segments of some videos, by the ids of the pairs; an id without segments is left out."""
        segments = self._exactly(ids, vectors, frames)
        others = (name for name in ids if name not in segments)
        stems = {name: stem for name in others if (stem := self.file.stem(name)) is not None}
        if stems:
            by_stem = self._exactly(list(stems.values()), vectors, frames)
            segments |= {name: by_stem[stem] for name, stem in stems.items() if stem in by_stem}
        return segments

    def _exactly(self, values: Sequence[str], vectors: bool, frames: bool) -> dict[str, list[StoredSegment]]:
        request = ReadRequest(field=self.id_field, values=values, vectors=vectors, frames=frames)
        groups: dict[str, list[StoredSegment]] = {}
        for segment in self.store.read(request):
            groups.setdefault(self._name(segment), []).append(segment)
        return groups

    def _name(self, segment: StoredSegment) -> str:
        return str(segment.payload.get(self.id_field) if self.id_field else segment.id)

    def require_some(self) -> None:
        """Refuse a field that the collection lacks, or whose values are none of the ids.

        Raises:
            InputError: with what the collection has instead.
            StoreError: the database cannot be reached.
        """
        videos = self.file.iter_videos()
        while part := [video.id for video in islice(videos, _IDS_A_REQUEST)]:
            if self.read(part):
                return
        segments = list(self.store.read(ReadRequest(limit=_NAMES)))
        where = f"the collection {self.store.collection!r}"
        fields = sorted({name for segment in segments for name in segment.payload})
        if self.id_field and segments and self.id_field not in fields:
            raise InputError(
                f"{where} has no payload field {self.id_field!r}{did_you_mean(self.id_field, fields) or ';'} it "
                f"has {', '.join(fields) or 'none'}. Choose one with --id-field."
            )
        first = next(self.file.iter_videos()).id
        names = list(dict.fromkeys(map(self._name, segments)))
        examples = ", ".join(map(repr, names[:3])) or "none"
        raise InputError(
            f"{self.file.path}: not one of its {self.file.videos:,} ids is in {where}. The first is {first!r}"
            f"{did_you_mean(first, names) or ';'} the collection has {examples}. Check the ids, and --id-field "
            f"(now {self.id_field!r})."
        )


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
