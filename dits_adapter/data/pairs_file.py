"""PAIRS.jsonl: texts and the videos that they describe, one JSON object a line, read as a stream.

    {"video": "clips/dog.mp4", "text": "a dog chases a ball"}
    {"video": "clips/cat.mp4", "text": ["a cat sleeps", "a sleeping cat"], "id": "cat-17"}

`video` is a file, relative to the JSONL file or to a folder of choice. `text` is one text or a list. `id` names
the video; without one its `video` does. Lines of one video may lie anywhere. Other keys and blank lines are left
unread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError

MAX_ID_BYTES = 1024

SHOWN = 5
"""Bad lines that an error lists."""


class NamedVideo(NamedTuple):
    """A video of a file of pairs: its number, counted in order of first appearance, its name and its file."""

    number: int
    id: str
    path: str


class _Pair(NamedTuple):
    id: str
    video: str
    texts: list[str]


class PairsFile:
    """A file of pairs, read through once and found sound. It keeps 8 bytes a line in memory.

    Args:
        path: the JSONL file.
        folder: what relative videos are relative to; by default the folder of the JSONL file.
        files: whether videos are files; otherwise an `id` alone will do on a line.

    Attributes:
        sha256: of the file's bytes.
        videos, texts: how many there are.
        id_bytes: length of the longest id in UTF-8.

    Raises:
        InputError: it cannot be read, holds no pairs, or has bad lines; the message lists them with reasons.
    """

    def __init__(
        self, path: str | PathLike[str], folder: str | PathLike[str] | None = None, *, files: bool = True
    ) -> None:
        self.path = Path(path)
        self._folder = self.path.parent if folder is None else Path(folder)
        self._files = files
        self.texts = self.id_bytes = 0
        digest = hashlib.sha256()
        ids, videos = bytearray(), bytearray()
        bad: list[str] = []
        try:
            self._status = self._identity()
            with open(self.path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    digest.update(line)
                    if not line.strip():
                        continue
                    try:
                        pair = _parse(line, files)
                    except ValueError as error:
                        bad.append(f"line {number}: {error}")
                        continue
                    ids += digest_of(pair.id)
                    videos += digest_of(pair.video)
                    self.texts += len(pair.texts)
                    self.id_bytes = max(self.id_bytes, len(pair.id.encode()))
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}).") from None
        if bad:
            more = [f"… and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
            head = f"{self.path}: lines that are no pairs, {len(bad)} of them; nothing was done."
            raise InputError("\n".join([head, *bad[:SHOWN], *more]))
        if not ids:
            raise InputError(f"{self.path}: holds no pairs.")
        self.sha256 = digest.hexdigest()
        self._numbers = number_alike(ids)
        self._require_one_name_each(number_alike(videos))
        self.videos = int(self._numbers.max()) + 1

    def _identity(self) -> tuple[int, int]:
        status = os.stat(self.path)
        return status.st_size, status.st_mtime_ns

    def _require_one_name_each(self, of_video: NDArray[np.int64]) -> None:
        """Refuse an id of two videos, and a video of two ids: both would part what belongs together."""
        differ = np.flatnonzero(self._numbers != of_video)
        if not len(differ):
            return
        here = int(differ[0])  # up to here the two numberings agree, so one of the two was seen before
        same_id = np.flatnonzero(self._numbers[:here] == self._numbers[here])
        same_video = np.flatnonzero(of_video[:here] == of_video[here])
        before = int(same_id[0] if len(same_id) else same_video[0])
        (line, pair), (earlier, other) = (next(islice(self._pairs(), place, None)) for place in (here, before))
        if len(same_id):
            raise InputError(
                f"{self.path}, line {line}: the id {pair.id!r} is given to {pair.video}, on line {earlier} to "
                f"{other.video}; an id names one video."
            )
        raise InputError(
            f"{self.path}, line {line}: the video {pair.video} has the id {pair.id!r}, on line {earlier} "
            f"{other.id!r}; give a video one id, or none on any line."
        )

    def _pairs(self) -> Iterator[tuple[int, _Pair]]:
        """Read the pairs, each with the number of its line."""
        if self._identity() != self._status:
            raise InputError(f"{self.path}: was changed while it was read; start again.")
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, _parse(line, self._files)

    def iter_videos(self) -> Iterator[NamedVideo]:
        """Read the videos, each once, in the order of their numbers."""
        seen = 0
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            if number == seen:
                yield NamedVideo(number, pair.id, os.path.join(self._folder, pair.video))
                seen += 1

    def iter_texts(self) -> Iterator[tuple[str, int]]:
        """Read the texts, each with the number of its video."""
        for number, (_, pair) in zip(map(int, self._numbers), self._pairs(), strict=True):
            for text in pair.texts:
                yield text, number


def digest_of(name: str) -> bytes:
    """Return 16 bytes that stand for a name."""
    return hashlib.blake2b(name.encode(), digest_size=16).digest()


def number_alike(digests: bytes | bytearray) -> NDArray[np.int64]:
    """Number names given by their digests, (n,) from 0 in the order of first appearance; equal names alike.

    >>> number_alike(b"".join(map(digest_of, ["dog", "cat", "dog", "bird"]))).tolist()
    [0, 1, 0, 2]
    """
    _, first, inverse = np.unique(np.frombuffer(digests, "S16"), return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def check_id(name: str) -> str:
    """Return a video's id, or say in a ValueError why it cannot be one."""
    if not name or "\0" in name or len(name.encode()) > MAX_ID_BYTES:
        raise ValueError(f"the id {name[:60]!r} is empty, holds a NUL or is longer than {MAX_ID_BYTES} bytes")
    return name


def _parse(line: bytes, files: bool) -> _Pair:
    """Read one line, or say in a ValueError what is wrong with it."""
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object {…}")
    video, name, text = (entry.get(key) for key in ("video", "id", "text"))
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    if not isinstance(video, str | None) or not isinstance(name, str | None) or video == "":
        raise ValueError('"video" must be the name of a file, "id" a string or a whole number')
    if files and video is None:
        raise ValueError('lacks "video"')
    video = None if video is None else os.path.normpath(video)
    key = video if name is None else name
    if key is None:
        raise ValueError('lacks "id"')
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError('"text" must be a string or a list of strings')
    if not all(text.strip() for text in texts):
        raise ValueError('"text" is empty; describe the video or drop the line')
    "".join(texts).encode()  # refuses halves of surrogate pairs, which no tokenizer takes
    return _Pair(check_id(key), key if video is None else video, texts)
