"""From a file of pairs to an `EmbeddingCache`: embed the texts, and embed the videos or fetch them from Qdrant."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.cache_index import FailedVideo
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.pairs_file import NamedVideo, PairsFile
from dits_adapter.encoders.base import Encoder
from dits_adapter.errors import DITSError, StoreError, VideoError
from dits_adapter.space import EmbeddingSpace

if TYPE_CHECKING:
    from qdrant_client.models import Filter, Record

    from dits_adapter.stores.qdrant.store import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder

Item = TypeVar("Item")

TEXTS_A_CALL = 1024
"""Texts that are embedded between two movements of the progress bar."""

IDS_A_REQUEST = 256


@dataclass(frozen=True)
class Fetched:
    """A video with its vectors, pooled (d,) and of its frames (k, d); or with the reason why there are none."""

    video: NamedVideo
    vector: NDArray[np.float32] | None = None
    frames: NDArray[np.float32] | None = None
    reason: str = ""


Fetch = Callable[[Sequence[NamedVideo]], Iterable[Fetched]]
"""Gives, for each of some videos, its vectors or the reason why there are none."""


@dataclass(frozen=True)
class EmbedReport:
    """What is in a cache, and what one run added to it.

    Attributes:
        texts, videos: in the cache.
        new_texts, new_videos: embedded by this run.
        set_aside: texts whose video is broken.
        failures: the broken videos.
        text_seconds, video_seconds: how long this run took for each.
    """

    texts: int
    videos: int
    new_texts: int
    new_videos: int
    set_aside: int
    failures: list[FailedVideo] = field(repr=False)
    text_seconds: float
    video_seconds: float

    @classmethod
    def of(
        cls, cache: EmbeddingCache, new_texts: int, new_videos: int, text_seconds: float, video_seconds: float
    ) -> EmbedReport:
        """Describe a finished cache and the run that finished it."""
        return cls(
            texts=len(cache.text),
            videos=len(cache.video),
            new_texts=new_texts,
            new_videos=new_videos,
            set_aside=cache.index.texts.total - len(cache.text),
            failures=cache.failures,
            text_seconds=text_seconds,
            video_seconds=video_seconds,
        )

    def __str__(self) -> str:
        lines = []
        for name, count, new, seconds in (
            ("texts ", self.texts, self.new_texts, self.text_seconds),
            ("videos", self.videos, self.new_videos, self.video_seconds),
        ):
            rate = f" in {seconds:.1f} s ({new / seconds:,.1f} a second)" if new else ""
            lines.append(f"{name}  {count:,}, {new:,} of them new{rate}")
        if self.failures:
            lines.append(
                f"broken  {len(self.failures):,} videos, with {self.set_aside:,} texts; once they are mended, "
                "take them in with --retry-failed"
            )
            lines += [f"  {broken.id}: {broken.reason}" for broken in self.failures]
        return "\n".join(lines)


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
        pairs: see `dits_adapter.training.pairs_file`.
        out: the cache's folder: new, empty, or begun from the same pairs.
        encoder: embeds both; its space is the cache's.
        videos: folder that relative videos are relative to; by default that of `pairs`.
        retry_failed: try the broken videos of earlier runs again.
        progress: show progress bars.

    Raises:
        InputError: `pairs` has bad lines.
        SpaceMismatchError: the cache was begun with another encoder.
        DITSError: the folder holds something else, cannot be written, or not one video could be read. What is
            written stays.
    """

    def fetch(wanted: Sequence[NamedVideo]) -> Iterator[Fetched]:
        by_path = {video.path: video for video in wanted}
        failed: list[VideoError] = []
        for segment in encoder.iter_segments(list(by_path), on_error=failed.append):
            yield Fetched(by_path[segment.path], segment.vector, segment.frame_vectors)
        for error in failed:
            yield Fetched(by_path[error.path], reason=error.reason)

    file = PairsFile(pairs, videos)
    return _fill(file, out, encoder.space, encoder.space.frames, encoder.encoder, fetch, retry_failed, progress)


def embed_from_qdrant(
    pairs: str | PathLike[str],
    out: str | PathLike[str],
    encoder: Encoder,
    store: QdrantStore,
    *,
    id_field: str = "video_id",
    retry_failed: bool = False,
    progress: bool = True,
) -> EmbedReport:
    """Embed the texts of a PAIRS.jsonl and take the vectors of its videos from a Qdrant collection.

    Args:
        pairs: each line has a `text` and an `id`; of the collection, only the videos named there are fetched.
        out: as for `embed`.
        encoder: embeds the texts.
        store: the collection, which says what space it is of, or is trusted to be of `encoder`'s.
        id_field: payload field that an `id` is a value of; "" for the points' own ids.
        retry_failed: ask again for videos that the collection did not have.
        progress: show progress bars.

    Raises:
        StoreError: no such collection, foreign and not trusted, or the server cannot be reached.
        SpaceMismatchError: the collection's videos were not embedded with `encoder`.
        InputError, DITSError: as for `embed`.
    """
    from dits_adapter.stores.qdrant.schema import FRAMES

    space = store.open()
    space.require(
        EmbeddingSpace.of(encoder, frames=space.frames),
        mine=f"the collection {store.collection!r}",
        theirs="the encoder of the texts",
    )
    vectors = store.client.get_collection(store.collection).config.params.vectors
    frames = space.frames if isinstance(vectors, dict) and FRAMES in vectors else 0

    def fetch(wanted: Sequence[NamedVideo]) -> Iterator[Fetched]:
        for start in range(0, len(wanted), IDS_A_REQUEST):
            part = wanted[start : start + IDS_A_REQUEST]
            points = _points(store, id_field, [video.id for video in part], with_frames=frames > 0)
            for video in part:
                yield _fetched(video, points.get(video.id, []), store.vector, frames)

    return _fill(PairsFile(pairs, files=False), out, space, frames, encoder, fetch, retry_failed, progress)


def _points(store: QdrantStore, id_field: str, ids: Sequence[str], with_frames: bool) -> dict[str, list[Record]]:
    """Fetch the points of some videos, by the id that names them."""
    import grpc  # type: ignore[import-untyped]
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    from dits_adapter.stores.qdrant.schema import FRAMES

    vectors: bool | list[str] = [store.vector, FRAMES] if with_frames else [store.vector]
    if not store.vector:
        vectors = True
    found: dict[str, list[Record]] = {}
    offset = None
    while True:
        try:
            points, offset = store.client.scroll(
                store.collection,
                scroll_filter=store.scoped(_filter(id_field, ids)),
                limit=IDS_A_REQUEST,
                offset=offset,
                with_payload=[id_field] if id_field else False,
                with_vectors=vectors,
            )
        except (ResponseHandlingException, UnexpectedResponse, grpc.RpcError) as error:
            raise StoreError(
                f"{store.location} gives no usable answer ({error}). What is written stays; the same command goes "
                "on from there."
            ) from error
        for point in points:
            name = (point.payload or {}).get(id_field) if id_field else point.id
            found.setdefault(str(name), []).append(point)
        if offset is None:
            return found


def _filter(id_field: str, ids: Sequence[str]) -> Filter:
    """Match points by a payload field or their own ids; numbers are written as such or as strings."""
    from qdrant_client import models

    numbers = [int(name) for name in ids if name.isdecimal()]
    if not id_field:
        names = [name for name in ids if _is_uuid(name)]
        return models.Filter(must=[models.HasIdCondition(has_id=[*names, *numbers])])
    either: list[models.Condition] = [models.FieldCondition(key=id_field, match=models.MatchAny(any=list(ids)))]
    if numbers:
        either.append(models.FieldCondition(key=id_field, match=models.MatchAny(any=numbers)))
    return models.Filter(should=either)


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def _fetched(video: NamedVideo, points: Sequence[Record], name: str, frames: int) -> Fetched:
    """Take the vectors of the one point that a video should have."""
    from dits_adapter.stores.qdrant.schema import FRAMES

    if not points:
        return Fetched(video, reason="the collection has no such video")
    if len(points) > 1:
        return Fetched(
            video,
            reason=f"{len(points)} points of the collection have this id (segments?); name one of them by its own "
            'id, with --id-field ""',
        )
    held = points[0].vector or {}
    vector = held.get(name) if isinstance(held, dict) else held
    of_frames: Any = held.get(FRAMES) if isinstance(held, dict) else None
    if vector is None or (frames and of_frames is None):
        return Fetched(video, reason="its point lacks a vector")
    if not frames:
        return Fetched(video, np.asarray(vector, np.float32))
    if len(of_frames) != frames:
        return Fetched(video, reason=f"its point has {len(of_frames)} frame vectors, others have {frames}")
    return Fetched(video, np.asarray(vector, np.float32), np.asarray(of_frames, np.float32))


def _fill(
    file: PairsFile,
    out: str | PathLike[str],
    space: EmbeddingSpace,
    frames: int,
    encoder: Encoder,
    fetch: Fetch,
    retry_failed: bool,
    progress: bool,
) -> EmbedReport:
    """Write every shard that is missing, texts first."""
    writer = CacheWriter(
        out,
        space=space,
        source=file.sha256,
        texts=file.texts,
        videos=file.videos,
        frames=frames,
        id_bytes=file.id_bytes,
    )
    with writer:
        started = time.monotonic()
        new_texts = _write_texts(file, writer, encoder, progress)
        between = time.monotonic()
        new_videos = _write_videos(file, writer, fetch, retry_failed, progress)
        ended = time.monotonic()
    cache = EmbeddingCache(out)
    if not len(cache.video):
        first = cache.failures[0]
        raise DITSError(
            f"{file.path}: not one of its {file.videos} videos could be had. The first is {first.id}: "
            f"{first.reason}. Check the names in the file, and the place where they are looked for."
        )
    return EmbedReport.of(cache, new_texts, new_videos, between - started, ended - between)


def _chunks(items: Iterator[Item], spans: Iterable[range]) -> Iterator[tuple[range, list[Item]]]:
    """Cut ascending spans out of a stream."""
    position = 0
    for span in spans:
        yield span, list(islice(items, span.start - position, span.stop - position))
        position = span.stop


def _write_texts(file: PairsFile, cache: CacheWriter, encoder: Encoder, progress: bool) -> int:
    missing = cache.index.texts.missing()
    new = sum(map(len, missing))
    with tqdm(total=new, desc="texts", unit="text", disable=not progress) as bar:
        for span, pairs in _chunks(file.iter_texts(), missing):
            vectors = np.empty((len(span), cache.index.space.width), np.float32)
            for start in range(0, len(span), TEXTS_A_CALL):
                part = pairs[start : start + TEXTS_A_CALL]
                vectors[start : start + len(part)] = encoder.embed_texts([text for text, _ in part])
                bar.update(len(part))
            cache.write_texts(span, vectors, [video for _, video in pairs])
    return new


def _write_videos(file: PairsFile, cache: CacheWriter, fetch: Fetch, retry_failed: bool, progress: bool) -> int:
    """Fetch the videos of each shard that is missing; on demand, those that were broken before."""
    index = cache.index
    wanted = {span.start: span for span in index.videos.missing()}
    if retry_failed:
        wanted |= {span.start: span for span in cache.failed_spans()}
    spans = [wanted[start] for start in sorted(wanted)]
    total = sum(len(span) - cache.rows_of(span) for span in spans)
    new = 0
    with tqdm(total=total, desc="videos", unit="video", disable=not progress) as bar:
        for span, videos in _chunks(file.iter_videos(), spans):
            stored = cache.videos_of(span)
            there = np.isin(span, stored["number"])
            tensors = {}
            for name in ("vector", "frames") if index.frames else ("vector",):
                tensors[name] = np.empty((len(span), *stored[name].shape[1:]), np.float32)
                tensors[name][there] = stored[name]
            reasons: dict[int, str] = {}
            for fetched in fetch([video for video, known in zip(videos, there, strict=True) if not known]):
                row = fetched.video.number - span.start
                if fetched.vector is None:
                    reasons[row] = fetched.reason
                else:
                    tensors["vector"][row] = fetched.vector
                    if fetched.frames is not None:
                        tensors["frames"][row] = fetched.frames
                    there[row] = True
                    new += 1
                bar.update()
            cache.write_videos(
                span,
                np.array(span)[there],
                [video.id for video, known in zip(videos, there, strict=True) if known],
                tensors["vector"][there],
                tensors["frames"][there] if index.frames else None,
                [
                    FailedVideo(number=span[row], id=videos[row].id, reason=reasons.get(row, "it gave no frames"))
                    for row in np.flatnonzero(~there).tolist()
                ],
            )
    return new
