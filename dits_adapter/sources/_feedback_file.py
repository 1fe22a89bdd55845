"""File of feedback, `feedback.jsonl`: what people said of the results of their searches, a JSON object a line.

The first line is {"format": "dits_adapter feedback", "version": 1}. Each other line has a `kind`:

- `judgement`: the hit that somebody chose, or none of those that were shown;
- `preference`: the better of two rankings, by somebody who was not told which is which;
- `undo`: the judgement of a search is taken back;
- `query`: a text that was searched, where the log of queries is on.

Lines are only ever added. Several threads and programs may add to one file: each line is written whole, under a
lock, and is on the disk before its writer goes on.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from os import PathLike, fspath
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import portalocker
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from dits_adapter._files import sync_folder
from dits_adapter._user_files import UserFileError, numbered_lines
from dits_adapter._wording import validated
from dits_adapter.errors import DITSError, InputError
from dits_adapter.texts import text_fault

__all__ = [
    "AdapterInUse",
    "Chosen",
    "Entry",
    "Judgement",
    "LoggedQuery",
    "Preference",
    "Side",
    "TakenBack",
    "append",
    "is_feedback",
    "read_entries",
    "require_feedback_file",
    "standing_entries",
]

Side = Literal["plain", "adapted"]
"""One of the two rankings of the search page."""

_HEADER = {"format": "dits_adapter feedback", "version": 1}

_BYTES = json.dumps(_HEADER).encode() + b"\n"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # later versions may add fields

    time: AwareDatetime


class Chosen(BaseModel):
    """Hit that was chosen.

    Attributes:
        id: id of the segment in its store, as text.
        video_id, path, start, end: its video and its span in seconds, as the collection has them.
        side, rank: the ranking in which it was chosen, and its place there, from 1.
        score: its score in that ranking.
        probability: probability that its video is the right one; None where it is not known.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: str
    video_id: str
    path: str | None = None
    start: float | None = None
    end: float | None = None
    side: Side
    rank: int = Field(ge=1)
    score: float
    probability: float | None = None


class AdapterInUse(BaseModel):
    """Adapter that made a ranking.

    Attributes:
        name: folder, bundled name or hub id.
        kind: kind of the adapter, "dits" or another.
        digest: checksum of its config; "" for one that was not saved.
        strength: movement of the query, 0 to 1.
        steps: truncated timesteps T' that were run; None for an adapter without steps.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str | None
    kind: str
    digest: str
    strength: float
    steps: int | None


class Judgement(_Entry):
    """Judgement of the results of one search.

    Attributes:
        search: id of the search; of several judgements of one search the last counts.
        session: id of the browser tab, so that the last judgement of a query in it counts; "" where unknown.
        query: the text that was searched.
        chosen: the right hit; None for "none of these".
        shown: ids of the segments of each ranking that was on the screen, best first.
        probability_of_any: probability that any of the ten best adapted hits is right; None where it is not known.
        adapter: the adapter.
        bias: weight of the collection's score bias in each ranking.
        collection, space: the collection, and the embedding space that it is of.
        filtered: True where only a part of the collection was searched, or likely hits alone were shown.
    """

    kind: Literal["judgement"] = "judgement"
    search: str
    session: str = ""
    query: str
    chosen: Chosen | None
    shown: dict[Side, list[str]]
    probability_of_any: float | None = None
    adapter: AdapterInUse
    bias: dict[Side, float] = Field(default_factory=dict)
    collection: str
    space: str
    filtered: bool = False


class Preference(_Entry):
    """Judgement of two rankings of one query, by somebody who was not told which is which.

    Attributes:
        search: id of the comparison; of several judgements of one comparison the last counts.
        session: id of the person's browser, whose last judgement of a query counts; "" where unknown.
        query: the text that was searched.
        better: the better ranking by its place on the screen, both or neither of them good, or "same" where they
            are equal, of which nobody was asked.
        left: the ranking that stood on the left.
        seed: seed of the draw that put it there.
        shown: ids of the segments of each ranking, best first.
        adapter, bias, collection, space: as in `Judgement`.
        tenant: whose videos were searched; None in a collection that keeps no tenants apart.
    """

    kind: Literal["preference"] = "preference"
    search: str
    session: str = ""
    query: str
    better: Literal["left", "right", "both", "neither", "same"]
    left: Side
    seed: int
    shown: dict[Side, list[str]]
    adapter: AdapterInUse
    bias: dict[Side, float] = Field(default_factory=dict)
    collection: str
    space: str
    tenant: str | None = None

    @property
    def preferred(self) -> Side | None:
        """The better ranking; None where neither is."""
        if self.better not in ("left", "right"):
            return None
        other: Side = "adapted" if self.left == "plain" else "plain"
        return self.left if self.better == "left" else other


class TakenBack(_Entry):
    """End of the judgement of a search.

    Attributes:
        search: id of the search.
    """

    kind: Literal["undo"] = "undo"
    search: str


class LoggedQuery(_Entry):
    """Text that was searched.

    Attributes:
        query: the text.
    """

    kind: Literal["query"] = "query"
    query: str


_E = TypeVar("_E", Judgement, Preference)

Entry = Judgement | Preference | TakenBack | LoggedQuery
"""Any line but the first one."""

_AnyEntry = Annotated[Entry, Field(discriminator="kind")]


def is_feedback(path: Path) -> bool:
    """Tell by its first line whether a file is one of feedback."""
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(1000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and first.get("format") == _HEADER["format"]


def require_feedback_file(path: Path) -> None:
    """Make a file of feedback where there is none, so that one that cannot be written is refused at once.

    Raises:
        InputError: the file holds something else, or cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: is no file; feedback is added to a file such as feedback.jsonl.")
        if path.exists() and path.stat().st_size and not is_feedback(path):
            raise InputError(f"{path}: holds something else than feedback; name another file.")
        _append(path, b"")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}). Choose another place.") from None


def append(path: Path, entry: Entry) -> None:
    """Add an entry to a file of feedback, and wait until it is on the disk.

    Raises:
        DITSError: it cannot be written; the file is as it was before.
    """
    try:
        # ASCII: a line that is torn is UTF-8 wherever it ends, so that the others are read
        _append(path, json.dumps(entry.model_dump(mode="json")).encode() + b"\n")
    except OSError as error:
        raise DITSError(f"{path}: cannot be written ({error.strerror or error}); nothing was recorded.") from None


def _append(path: Path, line: bytes) -> None:
    """Add a line, after the first one where the file is empty.

    Raises:
        OSError: the file cannot be opened, locked or written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)  # queries are nobody else's business
    with open(descriptor, "r+b", buffering=0) as file:
        try:
            portalocker.lock(file, portalocker.LOCK_EX)
        except portalocker.LockException as error:
            raise OSError(f"the file system locks no files: {error}") from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no file")
        size = status.st_size
        before = b"" if size else _BYTES
        if size:
            file.seek(size - 1)
            before = b"" if file.read(1) == b"\n" else b"\n"  # after a line that a killed writer left torn
        try:
            _write(file, before + line)
            os.fsync(descriptor)
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
    if not size:
        sync_folder(path.parent)


def _write(file: FileIO, content: bytes) -> None:
    """Write all of some bytes: a disk that is nearly full takes a part of them, and refuses the rest."""
    while content:
        content = content[os.write(file.fileno(), content) :]


def read_entries(path: Path) -> Iterator[tuple[int, Entry | str]]:
    """Read the entries of a file of feedback as a stream, each with the number of its line.

    Yields:
        Number of the line and its entry, or what is wrong with it, as a clause: a writer that was killed leaves a
        torn line, which costs that judgement alone.

    Raises:
        InputError: the file cannot be read, or is none of feedback, or of a later version of the format.
    """
    lines = numbered_lines(path)
    _, first = next(lines, (1, ""))
    try:
        header = json.loads(first)
        version = header["version"] if header["format"] == _HEADER["format"] else None
    except (ValueError, KeyError, TypeError, RecursionError):
        version = None
    if version is None:
        raise UserFileError(path, 1, "is not how a file of feedback begins (`dits-adapter serve`)")
    if version != _HEADER["version"]:
        raise UserFileError(
            path,
            1,
            f"is of version {version!r} of the format; version {_HEADER['version']} is read here",
        )
    for number, line in lines:
        if not line.strip() or line == first:  # files that were joined
            continue
        try:
            entry: Entry = validated(_AnyEntry, line)  # type: ignore[arg-type]
            fault = None if isinstance(entry, TakenBack) else text_fault(entry.query)
        except InputError as error:
            yield number, str(error).rstrip(".")
            continue
        yield number, entry if fault is None else f"its query {fault}"


def standing_entries(
    paths: Iterable[str | PathLike[str]], kind: type[_E], faults: list[str]
) -> tuple[list[_E], int]:
    """Return the entries of a kind that stand, the oldest first, and the number of all of the kind.

    Of each search the last entry stands, unless it was taken back.

    Args:
        paths: files of feedback.
        kind: class of the entries.
        faults: list that gets what is wrong with damaged lines, each with its place.

    Raises:
        InputError: as `read_entries`.
    """
    entries: list[_E | TakenBack] = []
    for path in paths:
        for number, entry in read_entries(Path(path)):
            if isinstance(entry, str):
                faults.append(f"{fspath(path)}, line {number}: {entry}")
            elif isinstance(entry, kind | TakenBack):
                entries.append(entry)
    of_search: dict[str, _E] = {}
    for entry in sorted(entries, key=lambda each: each.time):
        of_search.pop(entry.search, None)
        if isinstance(entry, kind):
            of_search[entry.search] = entry
    return list(of_search.values()), sum(isinstance(entry, kind) for entry in entries)
