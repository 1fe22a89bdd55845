"""Vectors that somebody already has, as an `EmbeddingCache`: from NumPy or Parquet files, read as streams.

NumPy: `texts` (n, d) and `videos` (m, d) are .npy files of floats. `labels`, an .npy of n whole numbers, says
which video each text describes; without it text i describes video i. `frames` is an .npy (m, k, d). Names of the
videos (`ids`) and the texts themselves (`captions`) are text files, one a line.

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

from dits_adapter.data.cache import EmbeddingCache
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.embed import EmbedReport
from dits_adapter.data.numpy_files import NumPyFiles
from dits_adapter.data.pairs_file import check_id, digest_of, number_alike
from dits_adapter.data.parquet_files import ParquetFiles
from dits_adapter.data.vector_files import Source
from dits_adapter.encoders.base import Encoder
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.space import CANARY_COSINE, CANARY_TEXTS, EmbeddingSpace
from dits_adapter.vectors import unit

EMBEDDED_A_BLOCK = 4
"""Texts of each block that are embedded again, to compare."""

SAMPLE = 2000
"""Pairs whose likeness is looked at."""


def import_vectors(
    texts: str | PathLike[str],
    videos: str | PathLike[str],
    out: str | PathLike[str],
    encoder: Encoder,
    *,
    frames_sampled: int = 12,
    labels: str | PathLike[str] | None = None,
    frames: str | PathLike[str] | None = None,
    ids: str | PathLike[str] | None = None,
    captions: str | PathLike[str] | None = None,
    progress: bool = True,
) -> EmbedReport:
    """Write vectors from files into a cache.

    That they are of the stated space can be proved for texts only, and only where the texts are given: some are
    embedded again. For the videos it is looked whether texts are nearer to their own videos than to others;
    warnings say what is doubtful and what could not be checked.

    Args:
        texts: .npy or .parquet, see the module's description; not normalized, as the encoder gives them.
        videos: likewise; scaled to unit norm here.
        out: the cache's folder: new, empty, or begun from the same files.
        encoder: the encoder that made the vectors.
        frames_sampled: how many frames of a video its vector was pooled from: part of the embedding space.
        labels, frames, ids, captions: for .npy, see the module's description.
        progress: show progress bars.

    Raises:
        SpaceMismatchError: the texts' vectors are not what `encoder` makes of them.
        InputError: files that cannot be read or do not fit together, duplicate or unknown ids, NaN or zero
            vectors, by file and row.
        MissingExtraError: Parquet without pyarrow.
        DITSError: the folder holds something else or cannot be written.
    """
    source = _open(encoder.width, Path(texts), Path(videos), labels, frames, ids, captions)
    space = EmbeddingSpace.of(encoder, frames=frames_sampled)
    id_bytes = _longest_id(source)
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
    _warn_of_strangers(cache, source)
    return EmbedReport.of(cache, new_texts, new_videos, between - started, ended - between)


def _open(width: int, texts: Path, videos: Path, *options: str | PathLike[str] | None) -> Source:
    suffixes = (texts.suffix, videos.suffix)
    if suffixes == (".npy", ".npy"):
        return NumPyFiles(width, texts, videos, *(None if option is None else Path(option) for option in options))
    if suffixes != (".parquet", ".parquet"):
        raise InputError(f"{texts} and {videos}: two .npy or two .parquet files are accepted.")
    if any(option is not None for option in options):
        raise InputError(
            "labels, frames, ids and captions are files beside .npy; in Parquet they are the columns video_id, "
            "frames and text."
        )
    return ParquetFiles(width, texts, videos)


def _digest(files: Sequence[Path]) -> str:
    whole = hashlib.sha256()
    for path in files:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        whole.update(digest.digest())
    return whole.hexdigest()


def _longest_id(source: Source) -> int:
    """Check the names of the videos; return the length of the longest in UTF-8."""
    longest, digests = 0, bytearray()
    for row, name in enumerate(source.ids()):
        try:
            longest = max(longest, len(check_id(name).encode()))
        except ValueError as error:
            raise InputError(f"video {row}: {error}.") from None
        digests += digest_of(name)
    numbers = number_alike(digests)
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
    wanted = iter(spans)
    span = next(wanted, None)
    held: list[Sequence[NDArray[Any]]] = []
    start = 0  # row of the stream at which what is held begins
    with bar:
        for block in blocks:
            held.append(block)
            end = start + sum(len(part[0]) for part in held)
            while span is not None and span.stop <= end:
                columns = [np.concatenate(column) for column in zip(*held, strict=True)]
                yield span, [column[span.start - start : span.stop - start] for column in columns]
                bar.update(len(span))
                held, start = [[column[span.stop - start :] for column in columns]], span.stop
                span = next(wanted, None)
            if span is None:
                return
            if end <= span.start:
                held, start = [], end


def _scaled(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale to unit norm; what has no direction is left to the writer, which refuses it by name."""
    exact = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        scaled: NDArray[np.float32] = (exact / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled


def _require_same_texts(source: Source, encoder: Encoder) -> None:
    """Embed some of the texts again; refuse vectors that point elsewhere."""
    first = 0
    for vectors, texts in source.caption_blocks():
        rows = np.unique(np.linspace(0, len(texts) - 1, EMBEDDED_A_BLOCK).astype(int))
        again = encoder.embed_texts([texts[row] for row in rows])
        cosines = (_scaled(vectors[rows]) * _scaled(again)).sum(axis=1)
        worst = int(np.argmin(np.nan_to_num(cosines, nan=1)))  # NaN is for the writer to refuse
        if cosines[worst] < CANARY_COSINE:
            row = int(rows[worst])
            raise SpaceMismatchError(
                f"{source.files[0]}: text {first + row} ({texts[row][:60]!r}) is at cosine {cosines[worst]:.3f} "
                f"to what {encoder.name} makes of it: the vectors are of another encoder, or in another order "
                "than the texts."
            )
        first += len(texts)


def _warn_of_norms(vectors: NDArray[Any], encoder: Encoder, source: Source) -> None:
    """Say when texts were normalized: an adapter that reads norms would be trained on what no query has."""
    theirs = float(np.median(np.linalg.norm(vectors, axis=1)))
    ours = float(np.median(np.linalg.norm(encoder.embed_texts(CANARY_TEXTS), axis=1)))
    if not 0.5 < theirs / ours < 2:
        warnings.warn(
            f"{source.files[0]}: the vectors have norms of about {theirs:.2g}, {encoder.name} gives about "
            f"{ours:.2g}. That does for adapters that normalize their input: all but a sampler with input=raw "
            "(the preset paper).",
            stacklevel=3,
        )


def _warn_of_strangers(cache: EmbeddingCache, source: Source) -> None:
    """Say when texts are no nearer to their own videos than to others, and what could not be checked."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(cache.text), min(SAMPLE, len(cache.text)), replace=False))
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
    if not source.captions:
        warnings.warn(
            f"{source.files[0]}: without the texts themselves it cannot be checked that these vectors are of "
            f"{cache.space.encoder}.",
            stacklevel=3,
        )
