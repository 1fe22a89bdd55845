"""Import of vectors made elsewhere into an `EmbeddingCache`, from NumPy or Parquet files, read as streams.

NumPy: `texts` (n, d) and `videos` (m, d) are .npy files of floats. `labels`, an .npy of n whole numbers, says
which video each text describes; without it text i describes video i. `frames` is an .npy (m, k, d). Ids of the
videos (`ids`) and the texts themselves (`captions`) are text files, one a line. `pairs` stands for labels and
captions: a CSV file, whose row i below the header belongs to text i, with a column `video_id` (or `id`, `video`)
and, if they are at hand, one with the texts, `text` (or `query`, `caption`).

Parquet: two files with these columns.

| file   | `video_id`                    | `vector`       | optional                             |
|--------|-------------------------------|----------------|--------------------------------------|
| texts  | of the video it describes     | list of floats | `text`, a string                     |
| videos | its own                       | list of floats | `frames`, a list of k lists of floats |
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dits_adapter._files import sha256
from dits_adapter.data._ids import check_id, id_digest, number_ids
from dits_adapter.data._numpy_source import NumPySource
from dits_adapter.data._parquet_source import ParquetSource
from dits_adapter.data._vector_source import VectorFiles, VectorSource
from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.report import EmbedReport
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.space import CANARY_COSINE, CANARY_TEXTS, EmbeddingSpace, TextEmbedder
from dits_adapter.texts import shown
from dits_adapter.vectors import unit

__all__ = ["VectorFiles", "import_vectors", "read_widths"]

_CHECKED_TEXTS = 4
"""Texts of each block that are embedded again, to compare, and of those that cleaning may change."""

_SAMPLED_PAIRS = 2000
"""Pairs whose similarity is compared with that of other pairs."""


def import_vectors(
    files: VectorFiles,
    out: str | PathLike[str],
    space: EmbeddingSpace,
    encoder: TextEmbedder | None = None,
    *,
    progress: bool = True,
) -> EmbedReport:
    """Write vectors from files into a cache.

    That they are of the space can be proved for texts only, and only where the texts and their encoder are given:
    some are embedded again. For the videos it is tested whether texts are nearer to their own videos than to
    others; warnings say what is doubtful and what could not be checked.

    Args:
        files: the vectors, see the module's description; those of videos are scaled to unit norm.
        out: the cache's folder: new, empty, or begun from the same files.
        space: the embedding space of the vectors: `EmbeddingSpace.of` an encoder, or `EmbeddingSpace.declare` for
            one that cannot be loaded.
        encoder: encoder of the texts, to prove it; None for none.
        progress: show progress bars.

    Returns:
        The contents of the cache.

    Raises:
        SpaceMismatchError: the texts' vectors are not what `encoder` makes of them.
        InputError: files that cannot be read or do not fit together, duplicate or unknown ids, NaN or zero
            vectors, by file and row.
        MissingExtraError: Parquet without pyarrow.
        DITSError: the folder holds something else or cannot be written.
    """
    source = _open(files, (space.text.width, space.video.width))
    id_bytes = _longest_id(source)
    if encoder is not None:
        if source.captions:
            _require_same_texts(source, encoder)
        _warn_of_norms(next(source.text_blocks()).vectors, encoder, source)
    writer = CacheWriter(
        out,
        space=space,
        source=_digest(source.files),
        texts=source.texts,
        videos=source.videos,
        frames=source.frames,
        id_bytes=id_bytes,
    )
    with writer:
        started = time.monotonic()
        missing = writer.index.texts.missing()
        new_texts = sum(map(len, missing))
        for span, block in _spans(source.text_blocks(), missing, "texts", progress):
            writer.write_texts(span, *block)
        between = time.monotonic()
        missing = writer.index.videos.missing()
        new_videos = sum(map(len, missing))
        for span, (names, vectors, frame_vectors) in _spans(source.video_blocks(), missing, "videos", progress):
            writer.write_videos(
                span, span, names.tolist(), _scaled(vectors), frame_vectors if source.frames else None
            )
        ended = time.monotonic()
    cache = EmbeddingCache(out)
    if space.shared:
        _warn_if_unrelated(cache, source)
    if not space.text.declared and not (source.captions and encoder):
        warnings.warn(
            f"{files.texts}: without the texts themselves it cannot be checked that these vectors are of "
            f"{space.text.encoder}.",
            stacklevel=2,
        )
    return EmbedReport.of(cache, new_texts, new_videos, between - started, ended - between)


def read_widths(files: VectorFiles) -> tuple[int, int]:
    """Return the widths of texts and videos in files of vectors that fit together; before an encoder is loaded.

    Raises:
        InputError: a file that cannot be read, or does not fit the others.
        MissingExtraError: Parquet without pyarrow.
    """
    return _open(files, (None, None)).widths


def _open(files: VectorFiles, widths: tuple[int | None, int | None]) -> VectorSource:
    suffixes = (files.texts.suffix, files.videos.suffix)
    if suffixes == (".npy", ".npy"):
        return NumPySource(files, widths)
    if suffixes != (".parquet", ".parquet"):
        raise InputError(f"{files.texts} and {files.videos}: two .npy or two .parquet files are accepted.")
    if any(path is not None for path in (files.labels, files.frames, files.ids, files.captions, files.pairs)):
        raise InputError(
            "labels, frames, ids, captions and pairs are files beside .npy; in Parquet they are the columns "
            "video_id, frames and text."
        )
    return ParquetSource(files, widths)


def _digest(files: Sequence[Path]) -> str:
    """Return the SHA-256 of the digests of files."""
    return hashlib.sha256(b"".join(bytes.fromhex(sha256(path)) for path in files)).hexdigest()


def _longest_id(source: VectorSource) -> int:
    """Check the ids of the videos; return the length of the longest in UTF-8."""
    longest, digests = 0, bytearray()
    for row, name in enumerate(source.ids()):
        try:
            longest = max(longest, len(check_id(name).encode()))
        except InputError as error:
            raise InputError(f"video {row}: {error}.") from None
        digests += id_digest(name)
    numbers = number_ids(digests)
    repeated = np.flatnonzero(numbers != np.maximum.accumulate(np.append(-1, numbers[:-1])) + 1)
    if len(repeated):
        row = int(repeated[0])
        name = next(islice(source.ids(), row, None))
        raise InputError(
            f"videos {int(np.argmax(numbers == numbers[row]))} and {row} have the same id, {name!r}; an id names "
            "one video."
        )
    return longest


def _spans(
    blocks: Iterable[Sequence[NDArray[Any]]], spans: Sequence[range], name: str, progress: bool
) -> Iterator[tuple[range, list[NDArray[Any]]]]:
    """Cut ascending spans of rows out of a stream of blocks."""
    bar = tqdm(total=sum(map(len, spans)), desc=name, unit=name[:-1], disable=not progress)
    remaining = iter(spans)
    span = next(remaining, None)
    pending: list[Sequence[NDArray[Any]]] = []
    start = 0  # row of the stream at which the pending blocks begin
    with bar:
        for block in blocks:
            pending.append(block)
            end = start + sum(len(part[0]) for part in pending)
            while span is not None and span.stop <= end:
                columns = [np.concatenate(column) for column in zip(*pending, strict=True)]
                yield span, [column[span.start - start : span.stop - start] for column in columns]
                bar.update(len(span))
                pending, start = [[column[span.stop - start :] for column in columns]], span.stop
                span = next(remaining, None)
            if span is None:
                return
            if end <= span.start:
                pending, start = [], end


def _scaled(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to unit norm; a row without direction stays, and the writer refuses the row by its id."""
    exact = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scaled: NDArray[np.float32] = (exact / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled


def _require_same_texts(source: VectorSource, encoder: TextEmbedder) -> None:
    """Embed some of the texts again; refuse vectors that point elsewhere."""
    first = 0
    for vectors, texts in source.caption_blocks():
        unclean = [row for row, text in enumerate(texts) if not text.isascii() or "&" in text]
        spread = np.linspace(0, len(texts) - 1, _CHECKED_TEXTS).astype(int)
        rows = np.unique([*spread.tolist(), *unclean[:_CHECKED_TEXTS]])
        again = encoder.embed_texts([texts[row] for row in rows])
        cosines = (_scaled(vectors[rows]) * _scaled(again)).sum(axis=1)
        worst = int(np.argmin(np.nan_to_num(cosines, nan=1)))  # NaN is for the writer to refuse
        if cosines[worst] < CANARY_COSINE:
            row = int(rows[worst])
            raise SpaceMismatchError(
                f"{source.files[0]}: text {first + row} ({shown(texts[row])}) is at cosine {cosines[worst]:.3f} "
                f"to what {encoder.name} makes of it: the vectors are of another encoder, or in another "
                f"order than the texts, or these were not cleaned as text_cleaning={encoder.text_cleaning!r} does."
            )
        first += len(texts)


def _warn_of_norms(vectors: NDArray[Any], encoder: TextEmbedder, source: VectorSource) -> None:
    """Warn if texts were normalized: an adapter that reads norms would be trained on norms that no query has."""
    theirs = float(np.median(np.linalg.norm(vectors, axis=1)))
    ours = float(np.median(np.linalg.norm(encoder.embed_texts(CANARY_TEXTS), axis=1)))
    if not 0.5 < theirs / ours < 2:
        warnings.warn(
            f"{source.files[0]}: the vectors have norms of about {theirs:.2g}, {encoder.name} gives about "
            f"{ours:.2g}. Adapters that normalize their input may be trained on them: all but a sampler with "
            "input=raw (the preset paper).",
            stacklevel=3,
        )


def _warn_if_unrelated(cache: EmbeddingCache, source: VectorSource) -> None:
    """Warn if texts are no nearer to their own videos than to others, or if that could not be checked."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(cache.text), min(_SAMPLED_PAIRS, len(cache.text)), replace=False))
    own, text = cache.labels[rows], unit(cache.text[rows])
    other = rng.permutation(own)
    nearer = (text * (cache.video[own] - cache.video[other])).sum(axis=1)[own != other]
    lead, spread = (nearer.mean(), nearer.std()) if len(nearer) else (0.0, 0.0)
    if not np.sqrt(len(nearer)) * lead > 3 * spread:
        warnings.warn(
            f"{source.files[0]}: it is not sure that texts are nearer to their own videos than to others (mean "
            f"cosine {lead:+.3f} over {len(nearer)} pairs): videos of another encoder, wrong labels, or too few "
            "pairs to tell.",
            stacklevel=3,
        )
