"""Vectors of texts and videos in a folder: written shard by shard, read through memory maps.

    index.json                contents of the folder, with a SHA-256 of every tensor
    texts-00000.safetensors   vector (n, d) float32   as the encoder gives it, not normalized
                              video  (n,) int64       number of the video that the text describes
                              source (n,) uint8       where the text comes from, its place in `SOURCES`, and
                              confidence (n,) float32 of it; both absent where all texts are of people
    videos-00000.safetensors  vector (m, d) float32   pooled, unit norm
                              frames (m, k, d) float32, absent where only pooled vectors were to be had
                              number (m,) int64       ascending
                              id     (m, b) uint8     UTF-8, padded with zeros
                              file   (m,) int64       number of the file; absent where each is a video

Texts and videos are numbered from 0 in the order of their source. Shard i of a kind has the numbers from
i · span to (i + 1) · span, so no shard depends on another one: each is written once, in any order, appears
whole or not at all, and stays when a run is killed. A failed video keeps its number and has no row; `failures`
in the index says why. Texts are written whether their videos failed or not and shown only with them: so a video
that is repaired later changes its own shard alone.

`index.json` (`CacheIndex`) holds format and version, the `space`, the `source` (SHA-256 of what the vectors were
made from: a run goes on only from the same), the width of ids, the number of frame vectors, for each kind `total`,
`span` and `shards` (rows, file size, digests), the failures, and a checksum of them all. It is replaced after
every shard and holds no times, so an interrupted and resumed run leaves the same bytes as one in one go.

Values are checked once, when they are written: shapes, NaN, zero vectors, norms. A reader checks sizes of files at
once and the digest of a tensor when it is first touched, and keeps the last few tensors mapped.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dits_adapter._reprs import short_repr
from dits_adapter.data._cache_index import KINDS, CacheIndex, FailedVideo, read_index
from dits_adapter.data._ids import VideoIds
from dits_adapter.data._shards import ShardReader
from dits_adapter.data.provenance import TextMarks
from dits_adapter.errors import DITSError
from dits_adapter.space import EmbeddingSpace

__all__ = ["CacheIndex", "EmbeddingCache", "FailedVideo", "open_cache"]


class EmbeddingCache:
    """Finished cache, opened for reading. Construction reads the numbers of its rows, and no vectors.

    Attributes:
        folder: folder of the cache.
        index: contents of the cache's `index.json`.
        text: text embeddings as the encoder gives them, (n, d) float32; those whose video has vectors.
        labels: row of each text's video, (n,) int64.
        video: pooled video vectors, (m, d) float32, unit norm.
        frames: frame vectors, (m, k, d) float32, or None.
        files: number of each video's file, (m,) int64; None where each file is a video.
        marks: source and confidence of each text; None where all texts are of people.
        ids: ids of the videos, m.

    Raises:
        DITSError: the cache is unfinished, incomplete or damaged; the message says where.
            Damage inside a shard is found when the shard is first read.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self.index = read_index(self.folder)
        for kind in KINDS:
            section = self.index.section(kind)
            if missing := section.missing():
                raise DITSError(
                    f"{self.folder}: is not finished, {len(missing)} of {len(section.spans())} shards of {kind} "
                    "are still to be written. Run the command that began it again; it goes on from there."
                )
        texts, videos = (ShardReader(self.folder, self.index, kind) for kind in KINDS)
        texts.require_files()
        videos.require_files()
        numbers = np.asarray(videos.column("number"))
        described = np.asarray(texts.column("video"))
        rows = np.searchsorted(numbers, described)
        present = np.flatnonzero(np.append(numbers, -1)[rows] == described)
        self.text = texts.column("vector", present)
        self.labels: NDArray[np.int64] = rows[present]
        self.video = videos.column("vector")
        self.frames = videos.column("frames") if self.index.frames else None
        self.ids = VideoIds(videos.column("id"))
        self.files = np.asarray(videos.column("file")) if self.index.grouped else None
        self.marks: TextMarks | None = None
        if self.index.marked:
            sources, confidences = (texts.column(name, present) for name in ("source", "confidence"))
            self.marks = TextMarks(np.asarray(sources), np.asarray(confidences))

    def __repr__(self) -> str:
        counts = {"texts": len(self.text), "videos": len(self.video)}
        return short_repr(self, str(self.folder), **counts, space=str(self.space))

    @property
    def space(self) -> EmbeddingSpace:
        """Embedding space of all vectors."""
        return self.index.space

    @property
    def failures(self) -> list[FailedVideo]:
        """Videos without vectors, with the reasons."""
        return self.index.failures


def open_cache(path: str | PathLike[str]) -> EmbeddingCache | None:
    """Open the cache folder of `dits-adapter embed`; None for a file, which may be one of `Pairs.save`.

    Raises:
        DITSError: there is neither, or the cache is unfinished, incomplete or damaged.
    """
    if Path(path).is_dir():
        return EmbeddingCache(path)
    if not Path(path).is_file():
        raise DITSError(
            f"{path}: no such file or folder. `dits-adapter embed` writes a cache, Pairs(…).save(path) a file."
        )
    return None
