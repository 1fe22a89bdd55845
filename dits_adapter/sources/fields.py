"""Texts that a collection keeps in payload fields beside its vectors."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from dits_adapter._progress import progress_bar
from dits_adapter.data._ids import did_you_mean
from dits_adapter.errors import InputError
from dits_adapter.sources._kinds import of_kind
from dits_adapter.sources._titles import description_of, title_of
from dits_adapter.sources._writer import pair_lines, replace_lines
from dits_adapter.sources.base import Findings
from dits_adapter.sources.report import PairsReport
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import payload_fields, payload_value
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import StoredSegment

__all__ = ["find_pairs_in_store"]

_LONG = 300
"""Characters above which a text is read as a description, of which one line is taken."""

_LOOKED_AT = 1000
"""Segments that are looked at to say which fields there are."""


def find_pairs_in_store(
    store: VideoStore,
    out: str | PathLike[str],
    fields: Sequence[str] = (),
    *,
    progress: bool = True,
) -> PairsReport:
    """Read texts from payload fields of a collection into a file of pairs; their ids are those of its videos.

    Args:
        store: the collection.
        out: the pairs file (.jsonl). The lines of an earlier run are replaced, those of other sources stay.
        fields: payload fields with texts or lists of words; dots lead into a field (`meta.title`). By default the
            one that was named as the title when the collection was adopted.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: no field is named, or no segment has one of them; with the fields that there are. Or the file
            holds texts of another collection.
        StoreError: the collection cannot be read.
    """
    started = time.perf_counter()
    metadata = store.metadata()
    layout = None if metadata is None else metadata.layout
    title = None if layout is None else layout.title
    names = list(fields) or ([] if title is None else [title])
    if not names:
        raise _no_field(store, "name a payload field that holds texts")
    video = layout.video if layout is not None else None if metadata is None else "video_id"
    found: dict[str, Findings] = {}
    having: Counter[str] = Counter()
    segments = progress_bar(
        store.read(ReadRequest()), total=store.count(), desc="fields", unit="segment", progress=progress
    )
    for segment in segments:
        id = payload_value(segment.payload, video) if video else segment.id
        findings = found.setdefault(str(segment.id if id is None else id), Findings())
        for name in names:
            having[name] += _add(findings, payload_value(segment.payload, name))
    if missing := [name for name in names if not having[name]]:
        raise _no_field(store, f"no segment has a field {missing[0]!r}", missing[0])
    report = PairsReport(Path(out))
    replace_lines(report.path, {"field"}, _lines(found, report), collection=_place(store))
    report.seconds = time.perf_counter() - started
    return report


def _place(store: VideoStore) -> str:
    """Return the name and the place of a collection, the same from every folder."""
    place = os.path.abspath(store.location) if os.path.exists(store.location) else store.location
    tenant = "" if store.tenant is None else f", tenant {store.tenant!r}"
    return f"{store.name!r} at {place}{tenant}"


def _add(findings: Findings, value: Any) -> bool:
    """Add the text that a field holds; return whether it holds anything."""
    if isinstance(value, list):
        value = ", ".join(word for word in value if isinstance(word, str))
    if isinstance(value, str) and value.strip():
        text = title_of(value) if len(value) <= _LONG else description_of(value)
        if text is None:
            findings.left_out["says nothing, such as IMG_2041"] += 1
        elif not any(text == known.text for known in findings.texts):  # segments of one video say the same
            findings.texts.append(of_kind("field", text))
    elif value is not None:
        findings.left_out["is empty or no text"] += 1
    return value is not None


def _lines(found: Mapping[str, Findings], report: PairsReport) -> Iterator[dict[str, Any]]:
    for id, findings in found.items():
        texts = 0
        for line in pair_lines({"id": id}, findings):
            texts += len(line["text"])
            yield line
        report.texts += texts
        report.videos += texts > 0
        report.without_texts += not texts
        report.left_out += findings.left_out


def _no_field(store: VideoStore, what: str, meant: str = "") -> InputError:
    """Return the refusal of a field, with the names of those that hold texts."""
    segments = store.read(ReadRequest(limit=_LOOKED_AT))
    names = sorted({name for segment in segments for name in _text_fields(segment)})
    hint = did_you_mean(meant, names) if meant else ""
    return InputError(
        f"the collection {store.collection!r}: {what}{hint or '.'} Fields with texts there: "
        f"{', '.join(names) or 'none'}; --field names one."
    )


def _text_fields(segment: StoredSegment) -> Iterator[str]:
    for name, value in payload_fields(segment.payload):
        if isinstance(value, str) or (isinstance(value, list) and any(isinstance(word, str) for word in value)):
            yield name
