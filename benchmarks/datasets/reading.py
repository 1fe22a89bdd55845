"""Annotation files, read strictly: an error names the file, the line and the fault.

Text in any encoding and with any line ends is read by `dits_adapter._user_files`; here are tables, and records of
JSON. Of each row or record the first field asked for is the id of a video, without blanks around it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dits_adapter._user_files import UserFileError, entries, numbered_lines, read_json
from dits_adapter.texts import text_fault

__all__ = ["UserFileError", "csv_rows", "entries", "json_records", "lines", "read_json"]

_DELIMITERS = (",", ";", "\t")
"""Delimiters of tables: that of the standard, of spreadsheets where the comma is decimal, and of text exports."""


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, line without its end) of a text file, blank lines left out.

    Raises:
        UserFileError: the file is no text.
    """
    return ((number, line) for number, line in numbered_lines(path) if line.strip())


def csv_rows(path: Path, id: str, *columns: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of its last line, the named columns) of each row of a table with a header.

    Blank rows are left out. The delimiter is the one that makes the named columns of the header.

    Raises:
        UserFileError: a column is missing from the header, a row has more or fewer fields than the header,
            a field asked for is no text, or the file is no text or no CSV.
    """
    wanted = (id, *columns)
    first, head = next(lines(path), (1, ""))
    try:
        headers = {mark: _split(head, mark) for mark in _DELIMITERS}
    except csv.Error as error:
        raise UserFileError(path, first, f"not a readable CSV row ({error})") from None
    mark = max(_DELIMITERS, key=lambda mark: (set(wanted) <= {*headers[mark]}, len(headers[mark])))
    header = headers[mark]
    for column in wanted:
        if column not in header:
            kind = "JSON, where a table is expected: " if head.lstrip()[:1] in ("{", "[") else ""
            reason = f"{kind}no column {column!r} among {', '.join(header) or 'none'}"
            raise UserFileError(path, first, f"{reason:.300}")
    positions = [header.index(column) for column in wanted]
    rows = csv.reader((f"{line}\n" for _, line in numbered_lines(path)), delimiter=mark, strict=True)
    try:
        for row in rows:
            if rows.line_num <= first or not any(map(str.strip, row)):
                continue
            if len(row) != len(header):
                raise UserFileError(path, rows.line_num, f"{len(row)} fields where the header has {len(header)}")
            for column, index in zip(wanted, positions, strict=True):
                if fault := text_fault(row[index]):
                    raise UserFileError(path, rows.line_num, f"{column!r} {fault}")
            name, *values = (row[index] for index in positions)
            yield rows.line_num, [name.strip(), *values]
    except csv.Error as error:
        raise UserFileError(path, rows.line_num + 1, f"not a readable CSV row ({error})") from None


def _split(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, strict=True), [])]


def json_records(path: Path, records: Any, **fields: type) -> Iterator[list[Any]]:
    """Yield the named fields of each record of a parsed JSON list, after checking their types.

    Strings, and strings in lists, must hold text. A record's position counts from 0.

    Raises:
        UserFileError: not a list, a field is missing, of another type, or no text.
    """
    if not isinstance(records, list):
        raise UserFileError(path, None, f"expected a list of records, found {type(records).__name__}")
    for position, record in enumerate(records):
        values = []
        for name, kind in fields.items():
            value = record.get(name) if isinstance(record, dict) else None
            if not isinstance(value, kind):
                reason = f"record {position} needs {name!r}, {kind.__name__} of text, found {value!r:.60}"
                raise UserFileError(path, None, reason)
            for text in value if isinstance(value, list) else [value]:
                if fault := text_fault(text):
                    raise UserFileError(path, None, f"record {position}: {name!r} {fault}")
            values.append(value)
        yield [values[0].strip(), *values[1:]]
