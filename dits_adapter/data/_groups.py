"""Videos that belong together: parts of one file, near-duplicates, and videos that the same texts describe.

On two sides of a split they would let an adapter be judged on what it was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import name_missing_extra
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Rows

__all__ = ["Groups", "find_groups", "groups_by_texts"]

_Ints = NDArray[np.int64]
_Numbers = NDArray[np.int32]
_Floats = NDArray[np.float32]

_LEVELS = tuple(0.02 / 2**halvings for halvings in range(15))
"""Distances 1 - cosine, largest first, below one of which the copies of a video lie from each other."""

_ISOLATION = 20
"""Times a level's distance that all other videos are away from copies of that level. The distance alone does not
tell copies: where all videos resemble each other, as generated clips do, those that differ are as near."""

_NEIGHBORS = 16
"""Nearest videos that are looked at. More copies of a video than that are found where they are equal."""

_EXACT = 8_000
"""Videos up to which each is compared with all others."""

_LEAF, _TREES, _DEPTH, _WIDTH = 1024, 8, 32, 64
"""Videos of a leaf, trees, depth of a tree at most, and width of the projected vectors. Of more than `_EXACT`
videos only those of one leaf of a random tree are compared, by projections that keep distances to a fifth."""

_SILENT = 2.0
"""Seconds before the search for copies shows how far it is."""

_ROWS = 512
"""Rows that are compared with a block at a time."""

_CELL, _DIRECTIONS, _TABLES = 0.02, 8, 2
"""Texts are the same where the cells of some random projections are, in one table or the other: batches of other
sizes change the last bits of a vector, so that equal texts have nearly equal vectors."""

_BLOCK = 8192
"""Vectors in memory at a time, other than the projected ones."""

_MANY = 5
"""Videos of a text up to which it can make them belong together."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of videos.

    Attributes:
        whole: group of each video, (m,): those of one group stay on one side of a split. Groups are numbered in
            the order of their first videos, so that videos of their own keep their order.
        copies: group of the near-duplicates of each video, (m,), numbered likewise.
        alike: group of the videos that are copies or have the same texts, (m,): no wrong answers for each other.
        several: mask of the texts that stand for several videos, copies not counted, (n,).
        of_files, of_texts, of_vectors: masks of the videos that were joined to others as parts of one file, by
            their texts, and as near-duplicates, (m,).
    """

    whole: _Ints
    copies: _Ints
    alike: _Ints
    several: NDArray[np.bool_]
    of_files: NDArray[np.bool_]
    of_texts: NDArray[np.bool_]
    of_vectors: NDArray[np.bool_]

    def __len__(self) -> int:
        return int(self.whole.max()) + 1

    def part(self, videos: _Ints, texts: _Ints) -> Groups:
        """Return the groups of some videos and texts, as they were found among all."""
        joined = (mask[videos] for mask in (self.of_files, self.of_texts, self.of_vectors))
        whole, copies, alike = (_renumbered(groups[videos]) for groups in (self.whole, self.copies, self.alike))
        return Groups(whole, copies, alike, self.several[texts], *joined)


def find_groups(text: Rows, video: Rows, labels: _Ints, files: _Ints) -> Groups:
    """Find the videos that belong together; time and memory grow as their number does.

    Args:
        text: text vectors, (n, d), read block by block.
        video: video vectors, (m, d), likewise.
        labels: row of each text's video, (n,).
        files: number of each video's file, (m,).
    """
    count = len(video)
    duplicates = _near_duplicates(_projected(video))
    copies = _components(count, duplicates)
    pairs, several = _shared_texts(_same_texts(text), copies[labels], count)
    first_of_file = np.unique(files, return_index=True)[1]
    of_files = np.stack([np.arange(count), first_of_file[np.unique(files, return_inverse=True)[1]]])
    alike = _components(count, np.concatenate([pairs, duplicates], axis=1))
    whole = _components(count, np.concatenate([pairs, duplicates, of_files], axis=1))
    joined = (_joined(count, edges) for edges in (of_files, pairs, duplicates))
    return Groups(_renumbered(whole), _renumbered(copies), _renumbered(alike), several, *joined)


def groups_by_texts(same: _Ints, labels: _Ints, videos: int) -> _Ints:
    """Return the group of each video by its texts alone, (m,), numbered as `Groups.whole`.

    Args:
        same: number of each text, (n,), the same for equal texts.
        labels: row of each text's video, (n,).
        videos: number of videos.
    """
    return _renumbered(_components(videos, _shared_texts(same, labels, videos)[0]))


def _directions(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return vectors of unit norm; a zero stays, which fits refuse with its row."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def _projected(video: Rows) -> _Floats:
    """Return unit vectors of videos; of many videos they are projected to a lower width."""
    count, width = video.shape
    directions = None
    if count > _EXACT and width > _WIDTH:
        directions = np.random.default_rng(1).normal(size=(width, _WIDTH)).astype(np.float32)
    projected = np.empty((count, width if directions is None else _WIDTH), np.float32)
    for start in range(0, count, _BLOCK):
        block = _directions(video[start : start + _BLOCK])
        projected[start : start + _BLOCK] = block if directions is None else _directions(block @ directions)
    return projected


def _joined(count: int, edges: _Ints) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[edges[:, edges[0] != edges[1]].ravel()] = True
    return mask


def _renumbered(groups: _Ints) -> _Ints:
    """Return groups numbered from 0 in the order of first appearance."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def _components(count: int, edges: _Ints) -> _Ints:
    """Return the least row that each of `count` rows is connected with by the edges (2, e)."""
    with name_missing_extra("splitting pairs"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components
    graph = coo_array((np.ones(edges.shape[1], bool), (edges[0], edges[1])), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    return np.unique(component, return_index=True)[1][component]


def _same_texts(text: Rows) -> _Ints:
    """Return a number for each text, (n,), the same for texts with the same vector up to rounding."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(text.shape[1], _TABLES * _DIRECTIONS))
    cells = np.empty((_TABLES, len(text), _DIRECTIONS), np.int16)
    for start in range(0, len(text), _BLOCK):
        rows = slice(start, start + _BLOCK)
        block = np.floor(_directions(text[rows]) @ directions / _CELL).astype(np.int16)
        cells[:, rows] = block.reshape(len(block), _TABLES, _DIRECTIONS).swapaxes(0, 1)
    edges = []
    for table in cells:
        keys = np.ascontiguousarray(table).view(f"S{2 * _DIRECTIONS}")[:, 0]
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        edges.append(np.stack([np.arange(len(keys)), first[inverse]]))
    return _components(len(text), np.concatenate(edges, axis=1))


def _shared_texts(same: _Ints, labels: _Ints, videos: int) -> tuple[_Ints, NDArray[np.bool_]]:
    """Return the pairs of videos, (2, k), that share half of their texts or more, and the texts of several videos.

    One text of twenty in common does not join two videos: by such steps nearly all videos of a large set hang
    together. Neither does a text of more than `_MANY` videos.
    """
    uses = np.unique(np.stack([same, labels]), axis=1)  # (text, video), each once, by text
    texts, start, size = np.unique(uses[0], return_index=True, return_counts=True)
    several = np.isin(same, texts[size > 1])
    pairs = []
    for count in range(2, _MANY + 1):
        members = uses[1][start[size == count][:, None] + np.arange(count)]  # (texts, count), ascending
        first, second = np.triu_indices(count, 1)
        pairs.append(np.stack([members[:, first].ravel(), members[:, second].ravel()]))
    shared, times = np.unique(np.concatenate(pairs, axis=1), axis=1, return_counts=True)
    described = np.bincount(uses[1], minlength=videos)
    return shared[:, 2 * times >= described[shared].min(axis=0)], several


def _near_duplicates(video: _Floats) -> _Ints:
    """Return pairs of near-duplicates among unit vectors, (2, k), that connect all of them.

    Videos are near-duplicates where steps below one of the `_LEVELS` connect them, and no other video is within
    `_ISOLATION` times that level of one of them.
    """
    a, b, distance = _neighbors(video)
    found: list[_Ints] = [np.empty((2, 0), np.int64)]
    for level in _LEVELS:
        near = distance < level
        if not near.any():
            break
        label = _components(len(video), np.stack([a[near], b[near]]))
        others = label[a] != label[b]
        nearest = np.full(len(video), np.inf)
        np.minimum.at(nearest, label[a[others]], distance[others])
        if level != _LEVELS[-1] and len(video) > _NEIGHBORS + 1:
            nearest[label[np.setdiff1d(a[near], a[others])]] = 0  # all that is known of such a video is its group
        copies = np.flatnonzero((nearest >= _ISOLATION * level)[label] & (label != np.arange(len(video))))
        found.append(np.stack([copies, label[copies]]))
    return np.concatenate(found, axis=1)


def _neighbors(video: _Floats) -> tuple[_Ints, _Ints, _Floats]:
    """Return the nearest videos of each video that has one within the first level: rows, neighbors, distances."""
    count = min(_NEIGHBORS, len(video) - 1)
    neighbors = np.full((len(video), count), -1, np.int32)
    distances = np.full((len(video), count), np.inf, np.float32)
    rounds = 1 if len(video) <= _EXACT else _TREES
    with progress_bar(
        total=rounds * len(video),
        desc="looking for copies of videos",
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}",
        delay=_SILENT,
        leave=False,
    ) as bar:
        for block in _blocks(video):
            vectors = video[block]
            for start in range(0, len(block), _ROWS):
                cosines = vectors[start : start + _ROWS] @ vectors.T
                cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
                near = np.flatnonzero(cosines.max(axis=1) > 1 - _LEVELS[0])
                if len(near):
                    cosines = cosines[near]
                    best = np.argpartition(-cosines, min(count, len(block) - 1) - 1, axis=1)[:, :count]
                    rows = block[start + near]
                    numbers = np.concatenate([neighbors[rows], block[best].astype(np.int32)], axis=1)
                    far = np.maximum(1 - np.take_along_axis(cosines, best, axis=1), 0)
                    far = np.concatenate([distances[rows], far], axis=1)
                    neighbors[rows], distances[rows] = _nearest(numbers, far, count)
                bar.update(min(_ROWS, len(block) - start))
    rows, columns = np.nonzero(np.isfinite(distances))
    return rows, neighbors[rows, columns].astype(np.int64), distances[rows, columns]


def _nearest(numbers: _Numbers, far: _Floats, count: int) -> tuple[_Numbers, _Floats]:
    """Return the nearest of some neighbors, each once: their numbers and distances, (n, count)."""
    order = np.argsort(numbers, axis=1)
    numbers, far = np.take_along_axis(numbers, order, axis=1), np.take_along_axis(far, order, axis=1)
    far[:, 1:][numbers[:, 1:] == numbers[:, :-1]] = np.inf
    best = np.argpartition(far, count - 1, axis=1)[:, :count]
    return np.take_along_axis(numbers, best, axis=1), np.take_along_axis(far, best, axis=1)


def _blocks(video: _Floats) -> Iterator[_Ints]:
    """Yield rows to compare with each other: all, or those of the leaves of random trees, of equal sizes."""
    if len(video) <= _EXACT:
        yield np.arange(len(video))
        return
    rng = np.random.default_rng(0)
    for _ in range(_TREES):
        projected = video @ rng.normal(size=(video.shape[1], _DEPTH)).astype(np.float32)
        nodes: list[tuple[_Ints, int]] = [(np.arange(len(video)), 0)]
        while nodes:
            rows, depth = nodes.pop()
            if len(rows) <= _LEAF:
                yield rows
                continue
            half = len(rows) // 2
            order = np.argpartition(projected[rows, depth], half)
            nodes += [(rows[order[:half]], depth + 1), (rows[order[half:]], depth + 1)]
