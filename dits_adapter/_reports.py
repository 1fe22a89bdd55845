"""Plain form of reports, for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from os import PathLike, fspath
from typing import Any

__all__ = ["plain_report"]


def plain_report(report: Any) -> Any:
    """Return a report as dictionaries, lists, numbers and texts: the fields that its repr shows.

    Fields that a repr leaves out (`field(repr=False)`) hold arrays, models and the like. Paths are texts, and
    numbers that are not finite are None.

    >>> from collections import namedtuple
    >>> plain_report({"r1": namedtuple("Interval", "low high")(1.0, math.nan)})
    {'r1': {'low': 1.0, 'high': None}}
    """
    if is_dataclass(report) and not isinstance(report, type):
        return {each.name: plain_report(getattr(report, each.name)) for each in fields(report) if each.repr}
    if hasattr(report, "model_dump"):  # of pydantic, without importing it
        shown = [name for name, each in type(report).model_fields.items() if each.repr]
        return {name: plain_report(getattr(report, name)) for name in shown}
    if hasattr(report, "_asdict"):
        return plain_report(report._asdict())
    if isinstance(report, Mapping):
        return {str(name): plain_report(value) for name, value in report.items()}
    if isinstance(report, Sequence | Set) and not isinstance(report, str | bytes):
        return [plain_report(each) for each in report]
    if isinstance(report, PathLike):
        return fspath(report)
    if hasattr(report, "tolist"):  # of NumPy
        return plain_report(report.tolist())
    return None if isinstance(report, float) and not math.isfinite(report) else report
