"""Queries from files: texts or their vectors."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dits_adapter._user_files import entries, map_array
from dits_adapter.encoder import check_queries
from dits_adapter.errors import InputError
from dits_adapter.sources._feedback_file import is_feedback
from dits_adapter.sources.feedback import feedback_queries
from dits_adapter.vectors import check_directions, check_vectors

__all__ = ["Queries", "query_values", "read_queries", "read_vectors"]

Queries = str | PathLike[str] | list[str] | tuple[str, ...] | NDArray[np.floating]
"""Path of a file of queries, texts, or text vectors (n, d)."""


def read_queries(path: str | PathLike[str]) -> list[str] | NDArray[np.floating]:
    """Read queries: text vectors (n, d) of an .npy file, distinct lines of a text, or the queries of feedback.

    Args:
        path: file that NumPy saved, a text in UTF-8 with a query a line, or a file of feedback of
            `dits-adapter serve`.

    Returns:
        Texts without repetitions, or a memory map of the vectors.

    Raises:
        InputError: it cannot be read, is a file of pairs or another one of JSON, names a video file, or holds a
            vector that is NaN, infinite or zero; the message names file and row.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return read_vectors(path)
    fed_back = is_feedback(path)
    if path.suffix.lower() == ".jsonl" and path.is_file() and not fed_back:
        raise InputError(
            f"{path}: looks like a file of pairs, and queries are texts, one a line. Learn from pairs: "
            f"dits-adapter embed {path} --encoder ID --out CACHE"
        )
    queries = feedback_queries(path) if fed_back else list(dict.fromkeys(line for _, line in entries(path)))
    check_queries(queries)
    return queries


def read_vectors(path: str | PathLike[str]) -> NDArray[np.floating]:
    """Map the text vectors (n, d) of a file that NumPy saved.

    Raises:
        InputError: it cannot be read, holds something else, or a row that is NaN, infinite or zero.
    """
    vectors = map_array(Path(path))
    try:
        _check_text_vectors(vectors)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return vectors


def query_values(queries: Queries) -> list[str] | NDArray[np.floating]:
    """Return texts or vectors, from a file where a path is given, once they are known to be queries.

    Raises:
        InputError: as `read_queries`; the message names the row.
    """
    if isinstance(queries, str | PathLike):
        return read_queries(queries)
    if isinstance(queries, np.ndarray):
        _check_text_vectors(queries)
        return queries
    return list(dict.fromkeys(check_queries(queries)))


def _check_text_vectors(vectors: NDArray[np.floating]) -> None:
    """Refuse what is no array (n, d) of text vectors.

    Raises:
        InputError: another shape or type, or a row that is NaN, infinite or zero.
    """
    if vectors.ndim != 2:
        raise InputError(f"holds no array (n, d) of text vectors, but one of shape {vectors.shape}.")
    check_vectors(vectors, vectors.shape[1])
    check_directions(vectors)
