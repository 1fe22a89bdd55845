"""Import of vectors made elsewhere into an `EmbeddingCache`, from files, tables and stores, read as streams.

NumPy: `texts` (n, d) and `videos` (m, d) are .npy files of floats. `labels`, an .npy of n whole numbers, says
which video each text describes; without it text i describes video i. `frames` is an .npy (m, k, d). Ids of the
videos (`ids`) and the texts themselves (`captions`) are text files, one a line. `pairs` stands for labels and
captions: a CSV file, whose row i below the header belongs to text i, with a column `video_id` (or `id`, `video`)
and, if they are at hand, one with the texts, `text` (or `query`, `caption`), and `source` and `confidence` as a
pairs file has them (`dits_adapter.data.pairs_file`).

Arrow: files of Parquet (.parquet), Arrow IPC or Feather (.arrow, .ipc, .feather), or tables of pyarrow, with these
columns.

| table  | `video_id`                    | `vector`       | optional                             |
|--------|-------------------------------|----------------|--------------------------------------|
| texts  | of the video it describes     | list of floats | `text`, `source`, `confidence`       |
| videos | its own                       | list of floats | `frames`, a list of k lists of floats |

Stores: `videos` is a `VideoStore`, of which the videos that the texts name are read; `texts` is a table, or .npy
with `pairs`. Videos that the collection does not have are failures, and looked for again by the next run.
"""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dits_adapter._embedders import TextEmbedder
from dits_adapter._progress import progress_bar
from dits_adapter.data._arrow_source import ARROW_FORMATS, ArrowTexts, ArrowVideos
from dits_adapter.data._ids import check_id, id_digest, number_ids
from dits_adapter.data._numpy_source import NumPyTexts, NumPyVideos
from dits_adapter.data._store_source import StoreVideos
from dits_adapter.data._vector_source import TextSource, VideoSource, text_labels
from dits_adapter.data.cache import EmbeddingCache, FailedVideo
from dits_adapter.data.cache_writer import CacheWriter
from dits_adapter.data.provenance import TextMarks
from dits_adapter.data.report import EmbedReport
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.sides import CANARY_COSINE, CANARY_TEXTS
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.base import VideoStore
from dits_adapter.texts import shown
from dits_adapter.vectors import unit

__all__ = ["VectorFiles", "import_vectors", "read_widths"]

_CHECKED_TEXTS = 4
"""Texts of each block that are embedded again, to compare, and of those that cleaning may change."""

_SAMPLED_PAIRS = 2000
"""Pairs whose similarity is compared with that of other pairs."""


@dataclass(frozen=True, kw_only=True)
class VectorFiles:
    """Vectors that were made elsewhere, in the forms that the module of `import_vectors` describes.

    Attributes:
        texts: a file, or a `pyarrow.Table`; not normalized, as the encoder gives them.
        videos: a file, a `pyarrow.Table` or a `VideoStore`; of any norm.
        labels, frames, ids, captions, pairs: files beside .npy; in tables these are columns. `pairs` is given in
            the place of labels and captions.
        id_field: of a store: payload field that ids are values of; "" for the segments' own ids, None to find it
            (`embed_from_store`).
    """

    texts: Any
    videos: Any
    labels: Path | None = None
    frames: Path | None = None
    ids: Path | None = None
    captions: Path | None = None
    pairs: Path | None = None
    id_field: str | None = None


def import_vectors(
    files: VectorFiles,
    out: str | PathLike[str],
    space: EmbeddingSpace,
    encoder: TextEmbedder | None = None,
    *,
    progress: bool = True,
) -> EmbedReport:
    """Write vectors from files, tables or a store into a cache.

    That they are of the space can be proved for texts only, and only where the texts and their encoder are given:
    some are embedded again. For the videos it is tested whether texts are nearer to their own videos than to
    others; warnings say what is doubtful and what could not be checked.

    Args:
        files: the vectors, see the module's description; those of videos are scaled to unit norm.
        out: the cache's folder: new, empty, or begun from the same files.
        space: the embedding space of the vectors: `EmbeddingSpace.of` an encoder, or `EmbeddingSpace.declare` for
            one that cannot be loaded.
        encoder: encoder of the texts, to prove it; None for none.
        progress: show progress bars on a terminal.

    Returns:
        The contents of the cache.

    Raises:
        SpaceMismatchError: the texts' vectors are not what `encoder` makes of them.
        InputError: sources that cannot be read or do not fit together, duplicate or unknown ids, NaN or zero
            vectors, by file and row; or a store that has not one of the videos.
        MissingExtraError: Parquet or Arrow without pyarrow.
        StoreError: the collection is missing, foreign and not described, or its database cannot be reached.
        DITSError: the folder holds something else or cannot be written.
    """
    if isinstance(files.videos, VideoStore):
        stored = files.videos.open().video
        space.video.require(stored, mine="--encoder", theirs=f"the collection {files.videos.collection!r}")
        space = EmbeddingSpace.join(space.text, stored, shared=space.shared)
    texts, videos = _open(files, (space.text.width, space.video.width))
    id_bytes = _longest_id(videos)
    labels = text_labels(texts, videos)
    if encoder is not None:
        if texts.captions:
            _require_same_texts(texts, encoder)
        _warn_of_norms(next(texts.blocks()), encoder, texts)
    writer = CacheWriter(
        out,
        space=space,
        source=hashlib.sha256(b"".join(map(bytes.fromhex, [*texts.digests, *videos.digests]))).hexdigest(),
        texts=texts.count,
        videos=videos.count,
        frames=videos.frames,
        id_bytes=id_bytes,
        marked=texts.marked,
    )
    marks = TextMarks.of(texts.marks()) if texts.marked else None
    with writer:
        started = time.monotonic()
        missing = writer.index.texts.missing()
        new_texts = sum(map(len, missing))
        for span, (vectors,) in _spans(((vectors,) for vectors in texts.blocks()), missing, "texts", progress):
            part = slice(span.start, span.stop)
            writer.write_texts(span, vectors, labels[part], None if marks is None else marks[part])
        between = time.monotonic()
        new_videos = _write_videos(writer, videos, progress)
        ended = time.monotonic()
    cache = EmbeddingCache(out)
    if space.shared:
        _warn_if_unrelated(cache, texts)
    if not space.text.declared and not (texts.captions and encoder):
        warnings.warn(
            f"{texts.label}: without the texts themselves it cannot be checked that these vectors are of "
            f"{space.text.encoder}.",
            stacklevel=2,
        )
    return EmbedReport.of(out, new_texts, new_videos, between - started, ended - between)


def _write_videos(writer: CacheWriter, videos: VideoSource, progress: bool) -> int:
    """Write the videos that are missing, or that the source did not have before; return how many are new."""
    spans = {span.start: span for span in writer.index.videos.missing()}
    spans |= {span.start: span for span in writer.spans_of([failed.number for failed in writer.index.failures])}
    ordered = [spans[start] for start in sorted(spans)]
    new = 0
    if not ordered:
        return new
    first = ordered[0].start
    for span, block in _spans(videos.blocks(first), ordered, "videos", progress, first):
        ids, vectors, frames, reasons = block
        there = reasons == ""
        new += int(there.sum()) - writer.rows_of(span)
        writer.write_videos(
            span,
            np.array(span)[there],
            ids[there].tolist(),
            _scaled(vectors[there]),
            frames[there] if videos.frames else None,
            [
                FailedVideo(number=span[row], id=ids[row], reason=reasons[row], cause="")
                for row in np.flatnonzero(~there).tolist()
            ],
        )
    return new


def read_widths(files: VectorFiles) -> tuple[int, int]:
    """Return the widths of texts and videos that fit together; before an encoder is loaded.

    Raises:
        InputError: a file that cannot be read, or does not fit the others.
        MissingExtraError: Parquet or Arrow without pyarrow.
        StoreError: as `import_vectors`.
    """
    texts, videos = _open(files, (None, None))
    text_labels(texts, videos)
    return texts.width, videos.width


def _open(files: VectorFiles, widths: tuple[int | None, int | None]) -> tuple[TextSource, VideoSource]:
    """Open both sides, and refuse files that are not of their form."""
    forms = [_form(source, side) for source, side in ((files.texts, "texts"), (files.videos, "videos"))]
    beside = {"texts": ("labels", "captions", "pairs"), "videos": ("frames", "ids")}
    for side, form in zip(beside, forms, strict=True):
        chosen = [name for name in beside[side] if getattr(files, name) is not None]
        if chosen and form != "numpy":
            raise InputError(
                f"{chosen[0]} is a file beside {side} in .npy; in Parquet and Arrow the columns are video_id, "
                "vector, text and frames, and a store has ids of its own."
            )
    texts: TextSource
    videos: VideoSource
    if forms[0] == "numpy":
        texts = NumPyTexts(files.texts, widths[0], labels=files.labels, captions=files.captions, pairs=files.pairs)
    else:
        texts = ArrowTexts(files.texts, widths[0])
    if forms[1] == "store":
        return texts, StoreVideos(files.videos, texts, widths[1], files.id_field)
    if forms[1] == "numpy":
        videos = NumPyVideos(files.videos, widths[1], frames=files.frames, ids=files.ids)
    else:
        videos = ArrowVideos(files.videos, widths[1])
    unnamed = forms[0] == "numpy" and files.labels is None and files.pairs is None
    if unnamed and texts.count != videos.count:
        raise InputError(
            f"{texts.label} has {texts.count} rows, {files.videos} {videos.count}; say with labels which video "
            "each text describes."
        )
    return texts, videos


def _form(source: Any, side: str) -> Literal["numpy", "arrow", "store"]:
    """Return the form of vectors: that of a file by the end of its name."""
    if isinstance(source, VideoStore) and side == "videos":
        return "store"
    if not isinstance(source, Path):
        if hasattr(source, "to_batches"):
            return "arrow"
        forms = "a Path or a pyarrow.Table" + (" or a VideoStore" if side == "videos" else "")
        raise InputError(f"{side} is a {type(source).__name__}; it is {forms}.")
    suffix = source.suffix.lower()
    if suffix == ".npy":
        return "numpy"
    if suffix not in ARROW_FORMATS:
        raise InputError(f"{source}: files of vectors end in .npy, {', '.join(ARROW_FORMATS)}.")
    return "arrow"


def _longest_id(source: VideoSource) -> int:
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
    blocks: Iterable[Sequence[NDArray[Any]]], spans: Sequence[range], name: str, progress: bool, first: int = 0
) -> Iterator[tuple[range, list[NDArray[Any]]]]:
    """Cut ascending spans of rows out of a stream of blocks, which begins with row `first`."""
    bar = progress_bar(total=sum(map(len, spans)), desc=name, unit=name[:-1], progress=progress)
    remaining = iter(spans)
    span = next(remaining, None)
    pending: list[Sequence[NDArray[Any]]] = []
    start = first  # row at which the pending blocks begin
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


def _require_same_texts(source: TextSource, encoder: TextEmbedder) -> None:
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
                f"{source.label}: text {first + row} ({shown(texts[row])}) is at cosine {cosines[worst]:.3f} "
                f"to what {encoder.name} makes of it: the vectors are of another encoder, or in another "
                f"order than the texts, or these were not cleaned as text_cleaning={encoder.text_cleaning!r} does."
            )
        first += len(texts)


def _warn_of_norms(vectors: NDArray[Any], encoder: TextEmbedder, source: TextSource) -> None:
    """Warn if texts were normalized: an adapter that reads norms would be trained on norms that no query has."""
    theirs = float(np.median(np.linalg.norm(vectors, axis=1)))
    ours = float(np.median(np.linalg.norm(encoder.embed_texts(CANARY_TEXTS), axis=1)))
    if not 0.5 < theirs / ours < 2:
        warnings.warn(
            f"{source.label}: the vectors have norms of about {theirs:.2g}, {encoder.name} gives about "
            f"{ours:.2g}. Adapters that normalize their input may be trained on them: all but a sampler with "
            "input=raw (the preset paper).",
            stacklevel=3,
        )


def _warn_if_unrelated(cache: EmbeddingCache, source: TextSource) -> None:
    """Warn if texts are no nearer to their own videos than to others, or if that could not be checked."""
    rng = np.random.default_rng(0)
    rows = np.sort(rng.choice(len(cache.text), min(_SAMPLED_PAIRS, len(cache.text)), replace=False))
    own, text = cache.labels[rows], unit(cache.text[rows])
    other = rng.permutation(own)
    nearer = (text * (cache.video[own] - cache.video[other])).sum(axis=1)[own != other]
    lead, spread = (nearer.mean(), nearer.std()) if len(nearer) else (0.0, 0.0)
    if not np.sqrt(len(nearer)) * lead > 3 * spread:
        warnings.warn(
            f"{source.label}: it is not sure that texts are nearer to their own videos than to others (mean "
            f"cosine {lead:+.3f} over {len(nearer)} pairs): videos of another encoder, wrong labels, or too few "
            "pairs to tell.",
            stacklevel=3,
        )
