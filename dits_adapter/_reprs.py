"""Representations of objects in one line: what they are, and never the numbers of an array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

__all__ = ["short_repr", "short_value", "shown_repr"]

_ITEMS, _CHARACTERS = 5, 80
"""Longest sequence, and longest text, that is shown whole."""


def short_value(value: Any) -> str:
    """Return a value for a representation: of an array its shape and type, of a long sequence its length.

    >>> short_value([0] * 1000), short_value("a dog"), short_value(range(0))
    ('<1,000 items>', "'a dog'", 'range(0, 0)')
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"<{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}>"
    if isinstance(value, list | tuple | dict | set | frozenset) and len(value) > _ITEMS:
        return f"<{len(value):,} items>"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {short_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple) and type(value) is tuple:
        return "(" + ", ".join(map(short_value, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(short_value, value)) + "]"
    if isinstance(value, str) and len(value) > _CHARACTERS:
        return repr(value[:_CHARACTERS] + "…")
    return repr(value)


def short_repr(thing: object, *first: object, **named: object) -> str:
    """Return `Kind(value, name=value)`; names whose value is None are left out.

    Args:
        thing: the object that is represented, by its class.
        first: values without a name.
        named: values by name.
    """
    parts = [short_value(value) for value in first]
    parts += [f"{name}={short_value(value)}" for name, value in named.items() if value is not None]
    return f"{type(thing).__name__}({', '.join(parts)})"


def shown_repr(self: Any) -> str:
    """Return the representation of a dataclass with arrays or long lists; its `__repr__`."""
    shown = {each.name: getattr(self, each.name) for each in fields(self) if each.repr}
    return f"{type(self).__name__}({', '.join(f'{name}={short_value(value)}' for name, value in shown.items())})"
