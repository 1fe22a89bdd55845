"""Registry of adapters: the names that recipes, commands and artifacts resolve.

An entry is a named way to obtain an adapter: a class, config fields that the name fixes, and how it is fitted. A
class is registered where it is defined:

    @register_adapter
    class MyAdapter(Adapter):
        kind = "mine"
        ...

A package that defines adapters names its module among its entry points, so that commands know them, too:

    [project.entry-points."dits_adapter.adapters"]
    mine = "my_package.adapters"
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import validated
from dits_adapter.adapters._fit import GentleFit
from dits_adapter.adapters.base import Adapter
from dits_adapter.adapters.moments import Matches, Rows
from dits_adapter.errors import InputError

__all__ = [
    "AdapterEntry",
    "ClosedForm",
    "adapter_class",
    "adapter_entries",
    "adapter_entry",
    "fresh_adapter",
    "register_adapter",
    "register_entry",
]

ClosedForm = Callable[[Matches], Sequence[Adapter]]
"""Fit from matching texts and videos to candidates."""

_CrossValidated = Callable[[Rows, Rows, NDArray[np.int64] | None, NDArray[np.bool_] | None], GentleFit]

A = TypeVar("A", bound=Adapter)

_GROUP = "dits_adapter.adapters"

_entries: dict[str, AdapterEntry] = {}


@dataclass(frozen=True)
class AdapterEntry:
    """Named way to obtain an adapter.

    Attributes:
        name: name in recipes and tables.
        adapter: class of the adapter.
        fixed: config fields that the name decides.
        closed_form: fit from texts and their videos (`Matches`) to candidates, of which the one with the best mean
            reciprocal rank on the validation pairs is kept. None for an adapter that is trained.
        cross_validated: fit from texts and their videos, row by row, both (n, d), with the groups of the videos
            and the texts that judge (`Matches`), that chooses by folds of its own, without validation pairs; None
            for all others.
        contrast: True where training by contrast follows `Adapter.initialize`; False where the initialization
            is the whole training.
        compared: True for a row of its own in the standard comparison.
    """

    name: str
    adapter: type[Adapter]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    closed_form: ClosedForm | None = None
    cross_validated: _CrossValidated | None = None
    contrast: bool = True
    compared: bool = False

    @property
    def trained(self) -> bool:
        """True for an adapter that a training run optimizes, False for one that is fitted at once."""
        return self.closed_form is None and self.cross_validated is None


def register_adapter(adapter: type[A]) -> type[A]:
    """Register a class under its `kind`, to be trained by contrast from `Adapter.initialize`; a decorator.

    Raises:
        InputError: the name is that of another adapter.
    """
    register_entry(AdapterEntry(adapter.kind, adapter))
    return adapter


def register_entry(entry: AdapterEntry) -> None:
    """Register a named way to obtain an adapter.

    Raises:
        InputError: the name, or the kind of its class, is that of another adapter.
    """
    for known in _entries.values():
        if (known.name == entry.name or known.adapter.kind == entry.adapter.kind) and (
            _identity(known.adapter) != _identity(entry.adapter)
        ):
            raise InputError(
                f"adapter {entry.name!r} ({entry.adapter.__qualname__}) has the name or kind of "
                f"{known.adapter.__qualname__}, which is registered; choose another one."
            )
    _entries[entry.name] = entry


def _identity(adapter: type[Adapter]) -> tuple[str, str]:
    """Return the module and qualified name of a class, equal when the module or notebook cell runs again."""
    return adapter.__module__, adapter.__qualname__


def adapter_entries() -> Sequence[AdapterEntry]:
    """Return all registered entries in the order of registration, those of installed packages included."""
    _load_installed()
    return tuple(_entries.values())


@cache
def _load_installed() -> None:
    """Import the modules that installed packages name, whose classes register themselves."""
    for point in entry_points(group=_GROUP):
        point.load()


def adapter_entry(name: str) -> AdapterEntry:
    """Return the entry of a name.

    Raises:
        InputError: no adapter is registered under that name.
    """
    if name not in _entries:
        known = ", ".join(entry.name for entry in adapter_entries())
        if name not in _entries:
            raise InputError(f"adapter {name!r} is unknown; registered are {known}.")
    return _entries[name]


def adapter_class(kind: str) -> type[Adapter]:
    """Return the class that artifacts name by its `kind`.

    Raises:
        InputError: no class of that kind is registered.
    """
    classes = {entry.adapter.kind: entry.adapter for entry in _entries.values()}
    if kind not in classes:
        classes = {entry.adapter.kind: entry.adapter for entry in adapter_entries()}
    if kind not in classes:
        raise InputError(f"adapter {kind!r} is unknown; registered are {', '.join(classes)}.")
    return classes[kind]


def fresh_adapter(
    name: str, width: int, options: Mapping[str, Any] | None = None, *, text_width: int | None = None
) -> Adapter:
    """Build an untrained adapter by its name; `torch.manual_seed` decides its initial weights.

    Args:
        name: a registered adapter that is trained, not fitted in closed form.
        width: dimension d of the videos.
        text_width: dimension of the texts, where they are of another space.
        options: fields of its config other than the width and those that the name fixes.

    Raises:
        InputError: an unknown name, an adapter in closed form, or wrong options.
    """
    entry = adapter_entry(name)
    if not entry.trained:
        trained = ", ".join(entry.name for entry in adapter_entries() if entry.trained)
        how = "by cross-validation" if entry.cross_validated else "in closed form"
        raise InputError(f"adapter {name!r} is fitted {how}; trained are {trained}.")
    set_here = {"width", "text_width", *entry.fixed}
    if fixed := sorted(set_here & (options or {}).keys()):
        raise InputError(f"options of {name}: {', '.join(fixed)} cannot be chosen.")
    if text_width is not None and "text_width" not in entry.adapter.Config.model_fields:
        raise InputError(
            f"adapter {name!r} moves texts within the space of the videos; texts of another space take "
            "reduced-rank, contrastive-linear, or mlp or dits with the start affine."
        )
    known = entry.adapter.Config.model_fields.keys() - set_here
    if unknown := (options or {}).keys() - known:  # which a pydantic model passes over, unless it forbids them
        raise InputError(
            f"options of {name}: there is no {min(unknown)!r}; there are {', '.join(sorted(known)) or 'none'}."
        )
    widths = {"width": width} if text_width is None else {"width": width, "text_width": text_width}
    try:
        config = validated(entry.adapter.Config, {**(options or {}), **entry.fixed, **widths})
    except InputError as error:
        raise InputError(f"options of {name}: {error}") from None
    return entry.adapter(config)
