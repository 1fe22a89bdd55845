"""Projection of a query's path and of search results onto a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from dits_adapter.serve._answers import Map, Point

__all__ = ["project"]

_Vectors = NDArray[np.float32]


def project(
    path: _Vectors, query: _Vectors, results: Mapping[str, _Vectors], others: Sequence[_Vectors]
) -> tuple[Map, dict[str, Point]]:
    """Project onto the two principal components of path, query and results.

    Args:
        path: path of the query, (n, d).
        query: the vector that was searched with, (d,).
        results: vectors, (d,), of the segments that were returned, by id.
        others: vectors, (d,), of other segments, projected onto the same plane.

    Returns:
        The map, and the positions of the results by their ids.
    """
    fitted = np.vstack([path, query, *results.values()])
    pca = PCA(2, svd_solver="full").fit(fitted)
    points = [(round(float(x), 4), round(float(y), 4)) for x, y in pca.transform(np.vstack([fitted, *others]))]
    positions = dict(zip(results, points[len(path) + 1 : len(fitted)], strict=True))
    drawn = Map(
        path=points[: len(path)],
        query=points[len(path)],
        cloud=points[len(fitted) :],
        explained_variance=float(np.nan_to_num(pca.explained_variance_ratio_.sum())),
    )
    return drawn, positions
