"""Annotation files, read strictly: an error names the file, the line and the fault."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dits_adapter.errors import DITSError

__all__ = ["AnnotationError", "csv_rows", "json_records", "lines", "read_json"]


class AnnotationError(DITSError):
    """Annotation file that is not as its format says.

    Attributes:
        path: the file.
        line: line of the fault, counted from 1; None where lines mean nothing.
        reason: one clause saying what is wrong.
    """

    def __init__(self, path: Path, line: int | None, reason: str) -> None:
        self.path, self.line, self.reason = path, line, reason
        super().__init__(f"{path}{'' if line is None else f', line {line}'}: {reason}")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without its end) of a UTF-8 file, blank lines left out.

    Raises:
        AnnotationError: a line is not UTF-8.
    """
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise AnnotationError(path, number, f"not UTF-8 text ({error.reason})") from None
            if line.strip():
                yield number, line


def csv_rows(path: Path, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, the named columns) of each row of a comma-separated file with a header.

    Raises:
        AnnotationError: a column is missing from the header, a row has more or fewer fields than the header,
            a field asked for is empty, or the file is not UTF-8 CSV.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, strict=True)
        try:
            header = next(rows, [])
            for column in columns:
                if column not in header:
                    raise AnnotationError(path, 1, f"no column {column!r} among {', '.join(header) or 'none'}")
            positions = [header.index(column) for column in columns]
            for row in rows:
                if len(row) != len(header):
                    reason = f"{len(row)} fields where the header has {len(header)}"
                    raise AnnotationError(path, rows.line_num, reason)
                for column, index in zip(columns, positions, strict=True):
                    if not row[index].strip():
                        raise AnnotationError(path, rows.line_num, f"{column!r} is empty")
                yield rows.line_num, [row[index] for index in positions]
        except (csv.Error, UnicodeDecodeError) as error:
            raise AnnotationError(path, rows.line_num + 1, f"not a readable CSV row ({error})") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file, or the only .json inside a .zip.

    Raises:
        AnnotationError: broken JSON, a broken archive, or one with no or several .json files.
    """
    try:
        if path.suffix != ".zip":
            return json.loads(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".json")]
            if len(names) != 1:
                raise AnnotationError(path, None, f"expected one .json in the archive, found {len(names)}")
            return json.loads(archive.read(names[0]))
    except json.JSONDecodeError as error:
        raise AnnotationError(path, error.lineno, f"not JSON ({error.msg})") from None
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise AnnotationError(path, None, f"damaged ({error})") from None


def json_records(path: Path, records: Any, **fields: type) -> Iterator[list[Any]]:
    """Yield the named fields of each record of a parsed JSON list, after checking their types.

    Strings, and strings in lists, must hold text. A record's position counts from 0.

    Raises:
        AnnotationError: not a list, a field is missing, of another type, or empty.
    """
    if not isinstance(records, list):
        raise AnnotationError(path, None, f"expected a list of records, found {type(records).__name__}")
    for position, record in enumerate(records):
        values = []
        for name, kind in fields.items():
            value = record.get(name) if isinstance(record, dict) else None
            texts = value if isinstance(value, list) else [value]
            if not isinstance(value, kind) or not all(isinstance(text, str) and text.strip() for text in texts):
                raise AnnotationError(
                    path, None, f"record {position} needs {name!r}, {kind.__name__} of text, found {value!r:.60}"
                )
            values.append(value)
        yield values
