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
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dits_adapter.clip import Clip
from dits_adapter.errors import InputError, MissingExtraError, SpaceMismatchError
from dits_adapter.space import CANARY_COSINE, CANARY_TEXTS, EmbeddingSpace
from dits_adapter.training.cache import CacheWriter, EmbeddingCache
from dits_adapter.training.embed import EmbedReport
from dits_adapter.training.pairs_file import check_id, digest_of, number_alike
from dits_adapter.video.pooling import unit

BLOCK = 1024
"""Rows that are read at a time."""
EMBEDDED_A_BLOCK = 4
"""Texts of each block that are embedded again, to compare."""
SAMPLE = 2000
"""Pairs whose likeness is looked at."""


class TextBlock(NamedTuple):
    """Texts in a row: vectors (b, d), numbers of their videos (b,)."""

    vectors: NDArray[Any]
    videos: NDArray[np.int64]


class VideoBlock(NamedTuple):
    """Videos in a row: names (b,) of dtype object, pooled vectors (b, d), frame vectors (b, k, d); k may be 0."""

    ids: NDArray[np.object_]
    vectors: NDArray[Any]
    frames: NDArray[Any]


class Source(Protocol):
    """Files of vectors.

    Attributes:
        files: all of them.
        texts, videos: how many there are.
        frames: frame vectors k of each video; 0 for none.
        captions: whether the texts themselves are there.
    """

    files: list[Path]
    texts: int
    videos: int
    frames: int
    captions: bool

    def ids(self) -> Iterator[str]:
        """Read the names of the videos."""
        ...

    def text_blocks(self) -> Iterator[TextBlock]:
        """Read the vectors of the texts."""
        ...

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        """Read the vectors of the texts with the texts."""
        ...

    def video_blocks(self) -> Iterator[VideoBlock]:
        """Read the videos."""
        ...


def import_vectors(
    texts: str | PathLike[str],
    videos: str | PathLike[str],
    out: str | PathLike[str],
    clip: Clip,
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
        texts: .npy or .parquet, see the module's description; not normalised, as the encoder gives them.
        videos: likewise; scaled to unit norm here.
        out: the cache's folder: new, empty, or begun from the same files.
        clip: the encoder that made the vectors.
        frames_sampled: how many frames of a video its vector was pooled from: part of the embedding space.
        labels, frames, ids, captions: for .npy, see the module's description.
        progress: show progress bars.

    Raises:
        SpaceMismatchError: the texts' vectors are not what `clip` makes of them.
        InputError: files that cannot be read or do not fit together, duplicate or unknown ids, NaN or zero
            vectors, by file and row.
        MissingExtraError: Parquet without pyarrow.
        DITSError: the folder holds something else or cannot be written.
    """
    source = _open(clip.width, Path(texts), Path(videos), labels, frames, ids, captions)
    space = EmbeddingSpace.of(clip, frames=frames_sampled)
    id_bytes = _longest_id(source)
    if source.captions:
        _require_same_texts(source, clip)
    _warn_of_norms(next(source.text_blocks()).vectors, clip, source)
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
        return _NumPyFiles(width, texts, videos, *(None if option is None else Path(option) for option in options))
    if suffixes != (".parquet", ".parquet"):
        raise InputError(f"{texts} and {videos}: two .npy or two .parquet files are accepted.")
    if any(option is not None for option in options):
        raise InputError(
            "labels, frames, ids and captions are files beside .npy; in Parquet they are the columns video_id, "
            "frames and text."
        )
    return _ParquetFiles(width, texts, videos)


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


# --- What can be said about the space of vectors that somebody brings ---------------------------------------


def _require_same_texts(source: Source, clip: Clip) -> None:
    """Embed some of the texts again; refuse vectors that point elsewhere."""
    first = 0
    for vectors, texts in source.caption_blocks():
        rows = np.unique(np.linspace(0, len(texts) - 1, EMBEDDED_A_BLOCK).astype(int))
        again = clip.embed_texts([texts[row] for row in rows]).cpu().numpy()
        cosines = (_scaled(vectors[rows]) * _scaled(again)).sum(axis=1)
        worst = int(np.argmin(np.nan_to_num(cosines, nan=1)))  # NaN is for the writer to refuse
        if cosines[worst] < CANARY_COSINE:
            row = int(rows[worst])
            raise SpaceMismatchError(
                f"{source.files[0]}: text {first + row} ({texts[row][:60]!r}) is at cosine {cosines[worst]:.3f} "
                f"to what {clip.source.name} makes of it: the vectors are of another encoder, or in another order "
                "than the texts."
            )
        first += len(texts)


def _warn_of_norms(vectors: NDArray[Any], clip: Clip, source: Source) -> None:
    """Say when texts were normalised: an adapter that reads norms would be trained on what no query has."""
    theirs = float(np.median(np.linalg.norm(vectors, axis=1)))
    ours = float(np.median(clip.embed_texts(CANARY_TEXTS).norm(dim=1).cpu().numpy()))
    if not 0.5 < theirs / ours < 2:
        warnings.warn(
            f"{source.files[0]}: the vectors have norms of about {theirs:.2g}, {clip.source.name} gives about "
            f"{ours:.2g}. That does for adapters that normalise their input: all but a sampler with input=raw "
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


# --- NumPy --------------------------------------------------------------------------------------------------


def _map(path: Path, what: Literal["floats", "whole numbers"], shape: tuple[int | None, ...]) -> NDArray[Any]:
    """Map an .npy file of the expected kind of numbers and shape, of which None is left open."""
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except ValueError as error:
        raise InputError(f"{path}: is no .npy array of numbers, as np.save writes it ({error}).") from None
    fits = array.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in ("f" if what == "floats" else "iu") or not array.size:
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise InputError(
            f"{path}: is {array.dtype} of shape {array.shape}; {what} of shape ({expected}) are expected."
        )
    return array


def _lines(path: Path) -> Iterator[str]:
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                yield line.rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error}).") from None


class _NumPyFiles:
    """A `Source` of .npy files."""

    def __init__(
        self,
        width: int,
        texts: Path,
        videos: Path,
        labels: Path | None,
        frames: Path | None,
        ids: Path | None,
        captions: Path | None,
    ) -> None:
        self.files = [path for path in (texts, videos, labels, frames, ids, captions) if path is not None]
        self._text = _map(texts, "floats", (None, width))
        self._video = _map(videos, "floats", (None, width))
        self.texts, self.videos = len(self._text), len(self._video)
        self._labels = None if labels is None else _map(labels, "whole numbers", (self.texts,))
        self._frames = None if frames is None else _map(frames, "floats", (self.videos, None, width))
        self.frames = 0 if self._frames is None else self._frames.shape[1]
        self._ids, self._captions = ids, captions
        self.captions = captions is not None
        if labels is None and self.texts != self.videos:
            raise InputError(
                f"{texts} has {self.texts} rows, {videos} {self.videos}; say with labels which video each text "
                "describes."
            )
        for path, expected in ((ids, self.videos), (captions, self.texts)):
            if path is not None and (count := sum(1 for _ in _lines(path))) != expected:
                raise InputError(f"{path}: has {count} lines; {expected} are expected.")

    def ids(self) -> Iterator[str]:
        return map(str, range(self.videos)) if self._ids is None else _lines(self._ids)

    def text_blocks(self) -> Iterator[TextBlock]:
        labels = np.arange(self.texts) if self._labels is None else self._labels
        for start in range(0, self.texts, BLOCK):
            yield TextBlock(self._text[start : start + BLOCK], labels[start : start + BLOCK])

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        assert self._captions is not None
        lines = _lines(self._captions)
        for start in range(0, self.texts, BLOCK):
            yield self._text[start : start + BLOCK], list(islice(lines, BLOCK))

    def video_blocks(self) -> Iterator[VideoBlock]:
        names = self.ids()
        for start in range(0, self.videos, BLOCK):
            vectors = self._video[start : start + BLOCK]
            frames = self._frames[start : start + BLOCK] if self._frames is not None else vectors[:, None][:, :0]
            yield VideoBlock(np.array(list(islice(names, BLOCK)), object), vectors, frames)


# --- Parquet ------------------------------------------------------------------------------------------------


class _ParquetFiles:
    """A `Source` of two Parquet files."""

    def __init__(self, width: int, texts: Path, videos: Path) -> None:
        self.files = [texts, videos]
        self._width = width
        self.texts, in_texts = _rows_and_columns(texts)
        self.videos, in_videos = _rows_and_columns(videos)
        self.captions = "text" in in_texts
        self._columns = ["video_id", "vector", *(["frames"] if "frames" in in_videos else [])]
        self.frames = 0
        if "frames" in in_videos:
            _, (frames,) = next(_batches(videos, ["frames"]))
            self.frames = _matrix(frames, videos, "frames", 0, (None, width)).shape[1]
        digests = b"".join(map(digest_of, self.ids()))
        self._order = np.argsort(np.frombuffer(digests, "S16"))
        self._sorted = np.frombuffer(digests, "S16")[self._order]

    def ids(self) -> Iterator[str]:
        for first, (names,) in _batches(self.files[1], ["video_id"]):
            yield from _strings(names, self.files[1], "video_id", first)

    def text_blocks(self) -> Iterator[TextBlock]:
        path = self.files[0]
        for first, (names, vectors) in _batches(path, ["video_id", "vector"]):
            ids = _strings(names, path, "video_id", first)
            digests = np.frombuffer(b"".join(map(digest_of, ids)), "S16")
            places = np.minimum(np.searchsorted(self._sorted, digests), len(self._sorted) - 1)
            unknown = np.flatnonzero(self._sorted[places] != digests)
            if len(unknown):
                raise InputError(
                    f"{path}, row {first + unknown[0]}: the video {ids[unknown[0]]!r} is not in {self.files[1]}."
                )
            yield TextBlock(_matrix(vectors, path, "vector", first, (self._width,)), self._order[places])

    def caption_blocks(self) -> Iterator[tuple[NDArray[Any], list[str]]]:
        path = self.files[0]
        for first, (vectors, texts) in _batches(path, ["vector", "text"]):
            yield _matrix(vectors, path, "vector", first, (self._width,)), _strings(texts, path, "text", first)

    def video_blocks(self) -> Iterator[VideoBlock]:
        path = self.files[1]
        for first, (names, vectors, *rest) in _batches(path, self._columns):
            pooled = _matrix(vectors, path, "vector", first, (self._width,))
            frames = pooled[:, None][:, :0]
            if rest:
                frames = _matrix(rest[0], path, "frames", first, (self.frames, self._width))
            yield VideoBlock(np.array(_strings(names, path, "video_id", first), object), pooled, frames)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtraError("pyarrow", "parquet", "reading Parquet files") from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: is no Parquet file that can be read ({error}).") from None


def _rows_and_columns(path: Path) -> tuple[int, list[str]]:
    file = _parquet(path)
    columns = file.schema_arrow.names
    for name in ("video_id", "vector"):
        if name not in columns:
            raise InputError(f"{path}: has no column {name!r}; it has {', '.join(columns)}.")
    if not file.metadata.num_rows:
        raise InputError(f"{path}: holds no rows.")
    return file.metadata.num_rows, columns


def _batches(path: Path, columns: list[str]) -> Iterator[tuple[int, list[Any]]]:
    """Read some columns in blocks, each with the number of its first row."""
    first = 0
    for batch in _parquet(path).iter_batches(batch_size=BLOCK, columns=columns):
        yield first, [batch.column(name) for name in columns]
        first += batch.num_rows


def _strings(column: Any, path: Path, name: str, first: int) -> list[str]:
    values = column.to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, str | int):
            raise InputError(f"{path}, row {first + row}: {name} is {value!r}; a string is expected.")
    return [str(value) for value in values]


def _matrix(
    column: Any, path: Path, name: str, first: int, row_shape: tuple[int | None, ...]
) -> NDArray[np.float32]:
    """Turn a column of lists, or of lists of lists, into an array; a length of None is that of the first list."""
    import pyarrow
    import pyarrow.compute  # type: ignore[import-untyped]

    shape = [len(column)]
    for expected in row_shape:
        if not hasattr(column.type, "value_type"):
            raise InputError(f"{path}: {name} is a column of {column.type}; lists of floats are expected.")
        lengths = pyarrow.compute.list_value_length(column).to_numpy(zero_copy_only=False)
        length = lengths[0] if expected is None else expected
        odd = np.flatnonzero(lengths != length)  # a missing list has the length NaN
        if len(odd):
            row = first + odd[0] // (len(lengths) // shape[0])
            raise InputError(
                f"{path}, row {row}: {name} is missing or has length {lengths[odd[0]]:g}; {length:g} is expected."
            )
        shape.append(int(length))
        column = column.flatten()
    if not pyarrow.types.is_floating(column.type):
        raise InputError(f"{path}: {name} holds {column.type}; floats are expected.")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.astype(np.float32, copy=False).reshape(shape)
