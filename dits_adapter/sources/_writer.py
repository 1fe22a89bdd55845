"""Writer of a pairs file that several commands add to and that a killed command goes on with.

Lines may be edited or deleted by hand, and stay so. PAIRS.jsonl.done beside them says which videos were gone
through, by which way, with what settings and in what state. A video that is not there, or is not so any more, is
done anew, and its lines take the place of the old ones, which are known by their `video` and `source`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import portalocker
from typing_extensions import Self

from dits_adapter._files import require_writable, sha256, write_atomically
from dits_adapter._user_files import UserFileError, numbered_lines, parse_json
from dits_adapter.data.provenance import SOURCES
from dits_adapter.errors import InputError
from dits_adapter.sources.base import Findings, FoundText, TextFinder
from dits_adapter.texts import text_fault

__all__ = ["DONE", "PairsWriter", "keep_texts", "line_of", "pair_lines", "replace_lines", "settled"]

DONE = ".done"
"""Suffix of the file beside a pairs file that says which videos were gone through."""

_OPENED = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
"""Flags that keep what a file holds and do not append to it, as no mode of `open` does that makes a file."""

_SETTLE_SECONDS = 1.0
"""Seconds of work that a power cut or a kill may cost."""


class PairsWriter:
    """Writer of the lines that one way finds, video by video; a context manager that excludes other writers.

    Args:
        path: the pairs file; folders above it are made, and what it holds stays.
        finder: the way.

    Raises:
        InputError: the file holds something else than lines of pairs, cannot be read or written, or another
            process is writing it; or a source that is unknown or `human`.
    """

    def __init__(self, path: Path, finder: TextFinder) -> None:
        self._path = path
        self._finder = finder
        if not finder.sources <= {*SOURCES} - {"human"}:
            others = ", ".join(source for source in SOURCES if source != "human")
            raise InputError(
                f"the way {finder.name!r} has the sources {', '.join(sorted(finder.sources))}; there are "
                f"{others}, and human, whose lines are never replaced and which no way has."
            )
        _require_jsonl(path)
        key = [finder.name, dict(finder.settings)]
        self._key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._known: dict[str, dict[str, Any]] = {}
        self._unsettled: list[dict[str, Any]] = []
        self._settled_at = time.monotonic()

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        with self._stack:
            self._journal = self._stack.enter_context(_locked(self._path))
            self._read_journal()
            self._stack = self._stack.pop_all()
        self._lines: IO[bytes] | None = None
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self._settle()

    def video(self, path: str) -> str:
        """Return a video's name in the lines: relative to the pairs file if it lies below it, else absolute."""
        folder = os.path.join(os.path.abspath(self._path.parent), "")
        return path.removeprefix(folder)

    def entry(self, path: str) -> Mapping[str, Any] | None:
        """Return what an earlier run noted of a video that is as it was then; None where it is to be done."""
        entry = self._known.get(self.video(path))
        return entry if entry is not None and entry.get("state") == self._finder.state(path) else None

    def forget(self, paths: Iterable[str]) -> None:
        """Delete this way's lines of videos that are to be done anew; called once, before `add`."""
        videos = {self.video(path) for path in paths}
        _rewrite(
            self._path, lambda line: line.get("source") in self._finder.sources and line.get("video") in videos
        )

    def add(self, path: str, state: str, findings: Findings) -> int:
        """Write the lines of a video, whose `state` was taken before it was read; return the number of its texts.

        What is no text or repeats another one of the video is added to `findings.left_out`.
        """
        video = self.video(path)
        if others := {found.source for found in findings.texts} - self._finder.sources:
            raise InputError(
                f"the way {self._finder.name!r} found a text of the source {min(others)!r}, which is not its."
            )
        texts = 0
        for line in pair_lines({"video": video}, findings):
            texts += len(line["text"])
            self._write(line)
        entry = {"video": video, "way": self._key, "state": state, "texts": texts}
        if findings.failed:
            entry["failed"] = findings.failed
        self._unsettled.append(entry)
        if time.monotonic() - self._settled_at > _SETTLE_SECONDS:
            self._settle()
        return texts

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._lines is None:
            self._lines = self._stack.enter_context(self._path.open("ab"))
        self._lines.write(line_of(line).encode())

    def _read_journal(self) -> None:
        """Read what earlier runs have done; a torn last line is cut off."""
        size = 0
        there = self._path.exists()  # a file of pairs that was deleted is written anew
        self._journal.seek(0)
        for raw in self._journal:
            try:
                entry = json.loads(raw)
                if entry["way"] == self._key and (there or not entry["texts"]):
                    self._known[entry["video"]] = entry
            except (ValueError, KeyError, TypeError):
                break
            if not raw.endswith(b"\n"):
                break
            size += len(raw)
        self._journal.truncate(size)
        self._journal.seek(size)

    def _settle(self) -> None:
        """Make the lines durable, and only then write down that their videos are done."""
        if self._lines is not None:
            _flush(self._lines)
        if self._unsettled:
            self._journal.write("".join(map(line_of, self._unsettled)).encode())
            self._unsettled.clear()
            _flush(self._journal)
        self._settled_at = time.monotonic()


def pair_lines(name: Mapping[str, str], findings: Findings) -> Iterator[dict[str, Any]]:
    """Build the lines of a video: one a source, confidence and span.

    Args:
        name: the line's `video`, `id` or both.
        findings: the texts; what is no text or repeats another one of the same span is counted in `left_out`.
    """
    seen = set()
    kept = []
    for found in findings.texts:
        text = " ".join(found.text.split())
        start, end = _of_line(found)[:2]
        if text_fault(text):
            findings.left_out["is empty or no text"] += 1
        elif found.start is not None and not 0 <= start < end < math.inf:
            findings.left_out["is of no time that a video has"] += 1
        elif (known := (text.casefold(), found.start, found.end)) in seen:
            findings.left_out["repeats another text of the video"] += 1
        else:
            seen.add(known)
            kept.append((found, text))
    kept.sort(key=lambda pair: _of_line(pair[0]))
    for (start, end, source, confidence), group in groupby(kept, key=lambda pair: _of_line(pair[0])):
        line: dict[str, Any] = dict(name)
        if end > 0:
            line |= {"start": start, "end": end}
        line |= {"text": [text for _, text in group], "source": source}
        yield line if confidence == 1 else line | {"confidence": confidence}


def _of_line(found: FoundText) -> tuple[float, float, str, float]:
    start, end = (0.0, 0.0) if found.start is None or found.end is None else (found.start, found.end)
    return round(start, 3), round(end, 3), found.source, max(round(found.confidence, 4), 1e-4)


def line_of(value: Mapping[str, Any]) -> str:
    """Return a JSON line."""
    return json.dumps(value, ensure_ascii=False) + "\n"


def replace_lines(
    path: Path, sources: Collection[str], lines: Iterable[Mapping[str, Any]], *, collection: str | None = None
) -> int:
    """Write lines in the place of all that an earlier run wrote of these sources, in one step.

    Args:
        path: the pairs file; its other lines stay.
        sources: words of the lines' `source`.
        lines: the new lines.
        collection: name and place of the collection that the lines are of; None where they are of none.

    Returns:
        The number of new lines.

    Raises:
        InputError: as `PairsWriter`; or the lines of an earlier run are of another collection.
    """
    _require_jsonl(path)
    with _locked(path) as journal:
        if collection is not None:
            _require_collection(path, sources, collection, journal)
        return _rewrite(path, lambda line: line.get("source") in sources, lines)


def _require_collection(path: Path, sources: Collection[str], collection: str, journal: IO[bytes]) -> None:
    """Note which collection the lines of these sources are of.

    Raises:
        InputError: there are some of another one: its ids are other videos, or would be lost.
    """
    noted = None
    for raw in journal:
        with suppress(ValueError):
            entry = json.loads(raw)
            noted = entry.get("collection", noted) if isinstance(entry, dict) else noted
    if noted == collection:
        return
    if noted is not None and any(line.get("source") in sources for line in settled(path)):
        raise InputError(
            f"{path}: holds texts of the collection {noted}, and these are of {collection}; a file of pairs leads "
            "to the vectors of one. Name another file. If it is the same collection, which has moved, delete "
            f"{path.name}{DONE} first."
        )
    journal.write(line_of({"way": "collection", "collection": collection}).encode())
    _flush(journal)


def keep_texts(path: Path, digest: str, keep: Iterable[bool]) -> None:
    """Delete texts from a pairs file, in one step, and lines that have none left.

    Args:
        path: the pairs file.
        digest: SHA-256 of the file as the texts were judged.
        keep: False for each text to delete, in the order of the file.

    Raises:
        InputError: the file was changed since, another process is writing it, or it cannot be written.
    """
    with _locked(path):
        if sha256(path) != digest:
            raise InputError(f"{path}: was changed while its texts were judged; nothing was deleted. Start again.")
        verdicts = iter(keep)
        with write_atomically(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            for written, line in _numbered(path):
                texts = [line["text"]] if isinstance(line["text"], str) else line["text"]
                kept = [text for text in texts if next(verdicts)]
                if len(kept) == len(texts):
                    file.write(written + "\n")
                elif kept:
                    file.write(line_of(line | {"text": kept}))


def settled(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a pairs file.

    Raises:
        InputError: it cannot be read, or a line is no JSON object.
    """
    return (line for _, line in _numbered(path))


def _numbered(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the lines of a pairs file as they are written, and parsed; none where there is no file."""
    if not path.exists():
        return
    for number, text in numbered_lines(path):
        if text.strip():
            line = parse_json(text, path, number)
            if not isinstance(line, dict):
                raise UserFileError(path, number, "is not a JSON object, as each line of a file of pairs is")
            yield text, line


def _rewrite(
    path: Path, drop: Callable[[dict[str, Any]], bool], lines: Iterable[Mapping[str, Any]] | None = None
) -> int:
    """Write a pairs file anew without some lines and with others at its end; one that would be the same is left.

    Returns:
        The number of lines that were added.
    """
    torn = _cut_torn_line(path)
    if lines is None and not torn and not any(drop(line) for _, line in _numbered(path)):
        return 0
    added = 0
    with write_atomically(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for text, line in _numbered(path):
            if not drop(line):
                file.write(text + "\n")
        for new in lines or ():
            file.write(line_of(new))
            added += 1
    return added


def _cut_torn_line(path: Path) -> bool:
    """Cut off the line in whose middle a writer was killed; return whether the last line lacks its end."""
    try:
        with path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(0, size - 2**22)  # longer than any line that is written
            file.seek(start)
            tail = file.read()
            if not tail or tail.endswith(b"\n"):
                return False
            last = tail.rfind(b"\n") + 1
            try:
                json.loads(tail[last:])
            except ValueError:
                if tail[last:].startswith((b'{"video": ', b'{"id": ')) and (last or not start):
                    file.truncate(start + last)
            return True
    except FileNotFoundError:
        return False


def _require_jsonl(path: Path) -> None:
    if path.suffix.lower() in (".csv", ".tsv"):
        raise InputError(f"{path}: pairs are written as JSON lines; end the name in .jsonl.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file.")


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """Open the file beside a pairs file that says what is done, and exclude other writers.

    Raises:
        InputError: another process is writing the pairs file, or it cannot be written.
    """
    require_writable(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(path.with_name(path.name + DONE), _OPENED, 0o666), "r+b") as journal:
        try:
            portalocker.lock(journal, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.AlreadyLocked:
            raise InputError(f"{path}: another process is writing it; let it end, or name another file.") from None
        except portalocker.LockException:  # a file system without locks
            pass
        yield journal


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
