"""Files that people write, read alike: text lists, CSV, JSON, YAML, and arrays from elsewhere.

Text is UTF-8, or UTF-8, UTF-16 or UTF-32 with a byte order mark, as editors and spreadsheets write it. A line ends
with LF, CRLF or CR. Lines, files and nesting have limits, so that no file costs more than its reader can bear, and
each fault is named with its file and line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from dits_adapter.errors import InputError

__all__ = [
    "LONGEST_LINE",
    "UserFileError",
    "csv_rows",
    "entries",
    "map_array",
    "numbered_lines",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_yaml",
]

LONGEST_LINE = 2**20
"""Characters that a line may have; a text has fewer (`dits_adapter.texts`)."""

_LARGEST_JSON = 2**28
_LARGEST_YAML = 2**20
"""Bytes that a file may have, unpacked. The largest annotation known to be used has 64 million."""

_DEEPEST_YAML = 32
"""Lists and maps that may lie within one another."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, with whose mark it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_NPY_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class UserFileError(InputError):
    """File of a user that is not as its format says.

    Attributes:
        path: the file.
        line: line of the fault, counted from 1; None where lines mean nothing.
        reason: what is wrong, without the last period.
    """

    def __init__(self, path: str | PathLike[str], line: int | None, reason: str) -> None:
        self.path, self.line, self.reason = Path(path), line, reason
        super().__init__(f"{fspath(path)}{'' if line is None else f', line {line}'}: {reason}.")


def numbered_lines(path: str | PathLike[str]) -> Iterator[tuple[int, str]]:
    """Read all lines of a text file as a stream, each with its number, from 1, and without its end.

    Raises:
        UserFileError: the file cannot be read, is no text in one of the encodings, or has too long a line.
    """
    number = 0
    try:
        with open(path, "rb") as file, io.TextIOWrapper(file, *_encoding(file.peek(4)), newline=None) as text:
            while line := text.readline(LONGEST_LINE + 1):
                number += 1
                line = line.removesuffix("\n").removeprefix("\ufeff")  # a mark within, of files that were joined
                if len(line) > LONGEST_LINE:
                    raise UserFileError(path, number, f"is longer than {LONGEST_LINE:,} characters")
                _require_characters(line, path, number)
                yield number, line
    except OSError as error:
        _refuse_unreadable(path, error)
    except UnicodeError as error:
        raise UserFileError(path, None, f"is damaged ({error})") from None


def entries(path: str | PathLike[str]) -> Iterator[tuple[int, str]]:
    """Read a list, one text or id a line, as a stream: blank lines left out, blanks around entries cut off.

    Raises:
        UserFileError: as `numbered_lines`, or the file is a list of JSON objects.
    """
    for number, line in numbered_lines(path):
        if entry := line.strip():
            if entry[0] == "{" and entry[-1] == "}" and _is_object(entry):
                raise UserFileError(path, number, "is a JSON object; plain text is expected, one entry a line")
            yield number, entry


def csv_rows(
    path: str | PathLike[str], columns: Mapping[str, Sequence[str]], *, optional: Collection[str] = ()
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read columns of a CSV file with a header as a stream, each row with the number of its last line.

    Commas, semicolons or tabs separate values, as in the header; a value in double quotes may hold them.

    Args:
        path: the file.
        columns: names that the header may give to a column, by its key.
        optional: keys of columns that may be missing.

    Raises:
        UserFileError: as `numbered_lines`, no such column, or a row of another length than the header.
    """
    lines = numbered_lines(path)
    _, header = next(lines, (1, ""))
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
    places = {key: next((names.index(n) for n in choices if n in names), None) for key, choices in columns.items()}
    for key, place in places.items():
        if place is None and key not in optional:
            raise UserFileError(path, 1, f"the header has no column {' or '.join(columns[key])}")
    rows = csv.reader((line + "\n" for _, line in lines), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            number = rows.line_num + 1
            if row and len(row) != len(names):
                raise UserFileError(path, number, f"has {len(row)} values; the header has {len(names)} columns")
            if row:
                yield number, {key: row[place] for key, place in places.items() if place is not None}
    except csv.Error as error:
        raise UserFileError(path, rows.line_num + 1, f"is not CSV ({error})") from None


def read_json(path: str | PathLike[str]) -> Any:
    """Read a JSON file, or the only .json in a .zip, beside the files that macOS adds to archives.

    Raises:
        UserFileError: the file cannot be read, is damaged, no JSON, too large, or nested too deeply.
    """
    try:
        if Path(path).suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive, archive.open(_member(path, archive)) as file:
                return parse_json(_whole(path, file, _LARGEST_JSON), path)
        with open(path, "rb") as file:
            return parse_json(_whole(path, file, _LARGEST_JSON), path)
    except OSError as error:
        _refuse_unreadable(path, error)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserFileError(path, None, f"is a damaged or encrypted archive ({error})") from None


def parse_json(text: str, path: str | PathLike[str], line: int = 1) -> Any:
    """Parse JSON.

    Args:
        text: the JSON.
        path: the file that it is from, for messages.
        line: number of its first line.

    Raises:
        UserFileError: it is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"is not JSON ({error.msg}, column {error.colno})"
        raise UserFileError(path, line + error.lineno - 1, reason) from None
    except RecursionError:
        raise UserFileError(path, line, "is JSON that is nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise UserFileError(path, line, f"is JSON that cannot be read ({error})") from None


def read_yaml(path: str | PathLike[str]) -> Any:
    """Read a YAML file.

    Raises:
        UserFileError: the file cannot be read, is too large, or as `parse_yaml`.
        ModuleNotFoundError: PyYAML is not installed.
    """
    try:
        with open(path, "rb") as file:
            return parse_yaml(_whole(path, file, _LARGEST_YAML), path)
    except OSError as error:
        _refuse_unreadable(path, error)


def parse_yaml(text: str, path: str | PathLike[str]) -> Any:
    """Parse YAML of plain values, without aliases: a few lines of them can stand for billions of values.

    Args:
        text: the YAML.
        path: the file that it is from, for messages.

    Raises:
        UserFileError: it is no YAML, has an alias, or is nested too deeply.
        ModuleNotFoundError: PyYAML is not installed.
    """
    import yaml

    depth = 0
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent):
                raise UserFileError(path, line, f"has the alias *{event.anchor}; write the values out instead")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST_YAML:
                raise UserFileError(path, line, f"is YAML that is nested more than {_DEEPEST_YAML} deep")
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        raise UserFileError(path, place and place.line + 1, f"is not YAML ({error.problem})") from None
    except InputError:
        raise
    except (yaml.YAMLError, ValueError) as error:  # also a date of month 13, which only looks like one
        raise UserFileError(path, None, f"is not YAML ({' '.join(str(error).split())})") from None


def map_array(path: str | PathLike[str]) -> NDArray[Any]:
    """Map an .npy file for reading, after comparing what its header claims with the size of the file.

    Raises:
        UserFileError: the file cannot be read, is no .npy of numbers, or shorter than its header claims.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in _NPY_HEADERS:
                raise ValueError(f"version {version} of the format")
            shape, _, dtype = _NPY_HEADERS[version](file)
            present = os.fstat(file.fileno()).st_size - file.tell()
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        claimed = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or claimed > present:
            raise ValueError(f"it claims the shape {shape}, {claimed:,} bytes, and holds {present:,}")
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        _refuse_unreadable(path, error)
    except (ValueError, TypeError, OverflowError, SyntaxError, TokenError) as error:  # of NumPy, on odd headers
        raise UserFileError(path, None, f"is no .npy array of numbers, as np.save writes it ({error})") from None


def _encoding(start: bytes) -> tuple[str, str]:
    """Return the encoding that a file begins with, and how its faults are kept to be named."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding, "surrogateescape" if encoding == "utf-8-sig" else "surrogatepass"
    return "utf-8", "surrogateescape"


def _whole(path: str | PathLike[str], file: IO[bytes], largest: int) -> str:
    """Read the text of a whole file; its lines end with LF."""
    data = file.read(largest + 1)
    if len(data) > largest:
        raise UserFileError(path, None, f"is larger than {largest:,} bytes")
    try:
        text = data.decode(*_encoding(data[:4]))
    except UnicodeError as error:
        raise UserFileError(path, None, f"is damaged ({error})") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    _require_characters(text, path, 1)
    return text


def _require_characters(text: str, path: str | PathLike[str], line: int) -> None:
    """Refuse bytes that are no text; `line` is the number of the first line."""
    if (place := text.find("\0")) >= 0:
        line += text.count("\n", 0, place)
        raise UserFileError(path, line, "holds a NUL byte: no text, or UTF-16 without a mark. Save it as UTF-8")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        before = text[: error.start]
        line += before.count("\n")
        byte = ord(text[error.start]) - 0xDC00
        if not 0x80 <= byte <= 0xFF:
            raise UserFileError(path, line, "holds half of a character; save the file as UTF-8") from None
        place = len(before[before.rfind("\n") + 1 :].encode()) + 1
        raise UserFileError(
            path,
            line,
            f"its byte {place} (0x{byte:02x}) is no UTF-8; the program that wrote the file may have taken Latin-1 "
            f"(Windows-1252). Save it as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8 {Path(path).name})",
        ) from None


def _member(path: str | PathLike[str], archive: zipfile.ZipFile) -> str:
    """Return the name of the only .json of an archive."""
    names = [name for name in archive.namelist() if name.lower().endswith(".json")]
    names = [name for name in names if not any(part == "__MACOSX" or part[:2] == "._" for part in name.split("/"))]
    if len(names) != 1:
        raise UserFileError(path, None, f"one .json in the archive is expected, {len(names)} are there")
    return names[0]


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_unreadable(path: str | PathLike[str], error: OSError) -> NoReturn:
    raise UserFileError(path, None, f"cannot be read ({error.strerror or error})") from None
