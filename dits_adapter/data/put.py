"""Vectors of a cache put into a store, for videos that were not embedded here."""

from __future__ import annotations

import hashlib
from os import PathLike

import numpy as np

from dits_adapter._progress import progress_bar
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.rows import SegmentRow, segment_id, video_id_of

__all__ = ["put_videos"]

_BATCH = 1024
"""Videos of one write, after which a store waits for its disk."""


def put_videos(store: VideoStore, cache: EmbeddingCache | str | PathLike[str], *, progress: bool = True) -> int:
    """Store the vectors of a cache's videos, one segment a video, under their ids as paths.

    The collection is made where it is missing. Done again, or with another cache of the same space, it replaces
    the videos of the same ids and adds the others.

    Args:
        store: the collection.
        cache: the cache, as `import_vectors` and `embed` write them, or its path.
        progress: show a progress bar on a terminal.

    Returns:
        How many videos were stored.

    Raises:
        DITSError: there is no such cache, or a damaged one.
        SpaceMismatchError: the collection holds videos of another encoder.
        StoreError: the collection is not one of ours, cut in segments, or cannot be written.
    """
    cache = cache if isinstance(cache, EmbeddingCache) else EmbeddingCache(cache)
    store.create(CollectionMetadata(space=cache.space))
    with progress_bar(total=len(cache.video), unit="video", desc=store.collection, progress=progress) as bar:
        for start in range(0, len(cache.video), _BATCH):
            vectors = cache.video[start : start + _BATCH]
            frames = None if cache.frames is None else cache.frames[start : start + _BATCH]
            rows = []
            for place, vector in enumerate(vectors):
                name = cache.ids[start + place]
                id = video_id_of(hashlib.sha256(name.encode()).hexdigest())
                rows.append(
                    SegmentRow(
                        id=segment_id(id, 0, 0, store.tenant),
                        video_id=id,
                        path=name,
                        start=0.0,
                        end=0.0,
                        timestamps=(),
                        duration=0.0,
                        fps=0.0,
                        decoder="none",
                        size=0,
                        mtime_ns=0,
                        segments=1,
                        vector=vector,
                        frame_vectors=np.empty((0, len(vector)), np.float32) if frames is None else frames[place],
                    )
                )
            store.write(rows)
            bar.update(len(rows))
    store.finish()
    return len(cache.video)
