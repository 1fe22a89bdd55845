"""Stores by their addresses, and the registry of kinds of stores."""

from __future__ import annotations

import inspect
import logging
import os
import pkgutil
import re
from collections.abc import Callable
from os import PathLike
from typing import Any

from dits_adapter._extras import name_missing_extra
from dits_adapter._wording import without_password
from dits_adapter.errors import InputError
from dits_adapter.stores.base import VideoStore

__all__ = ["Opener", "open_store", "register_store"]

_logger = logging.getLogger(__name__)

Opener = Callable[..., VideoStore]
"""Function from an address, the name of a collection and keyword options to the store; usually its class."""


def register_store(scheme: str, opener: Opener) -> None:
    """Register a kind of store: `open_store`, and `--store` of the commands, open `scheme://…` by `opener`.

    Args:
        scheme: letters, digits, `+`, `-` and `.`, such as "lancedb".
        opener: takes (location, collection, **options); options that it has no parameter for are refused.

    Raises:
        InputError: a scheme of other characters.
    """
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme, re.IGNORECASE):
        raise InputError(f"scheme is {scheme!r}; it is a word, such as 'lancedb' for lancedb://….")
    _openers[scheme.lower()] = opener


@name_missing_extra("this store")
def open_store(location: str | PathLike[str], collection: str = "videos", **options: Any) -> VideoStore:
    """Open the store at an address; nothing is created or checked before it is needed.

    Args:
        location: an address that begins with a registered scheme (docs/stores.md lists ours); Qdrant's are a
            server's URL (http, https), a folder, and ":memory:".
        collection: name of the collection.
        options: options of the store, such as `space` and `tenant`; of Qdrant those of `QdrantStore`.

    Raises:
        InputError: a scheme that is not registered, or an option that the store has not.
        MissingExtraError: the database's client is not installed.
    """
    if not isinstance(location, (str, PathLike)):
        raise InputError(f"location is a {type(location).__name__}; it is an address or a folder.")
    if not os.fspath(location):
        raise InputError("location is empty; it is an address or a folder.")
    address, shown = os.fspath(location), without_password(os.fspath(location))
    match = re.match(r"([a-z][a-z0-9+.-]*)://", address, re.IGNORECASE)
    opener = _openers.get(match[1].lower() if match else "")
    if opener is None:
        schemes = ", ".join(sorted(f"{scheme}://" for scheme in _openers if scheme))
        raise InputError(f"location {shown!r}: no store opens this; give a folder or an address with {schemes}.")
    if isinstance(opener, str):
        opener = pkgutil.resolve_name(opener)
    parameters = inspect.signature(opener).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not takes_any and (unknown := sorted(options.keys() - parameters.keys())):
        known = ", ".join(list(parameters)[2:]) or "none"
        raise InputError(f"the store at {shown} has no option {unknown[0]!r}; its options are {known}.")
    _logger.info("opening the collection %r in %s", collection, shown)
    return opener(location, collection, **options)


_QDRANT = "dits_adapter.stores.qdrant.store:QdrantStore"
_LANCEDB = "dits_adapter.stores.lancedb:LanceDBStore"
_MILVUS = "dits_adapter.stores.milvus:MilvusStore"
_PGVECTOR = "dits_adapter.stores.pgvector:PgVectorStore"

_openers: dict[str, Opener | str] = {
    "": _QDRANT,
    "http": _QDRANT,
    "https": _QDRANT,
    "lancedb": _LANCEDB,
    "milvus": _MILVUS,
    "milvus+https": _MILVUS,
    "postgres": _PGVECTOR,
    "postgresql": _PGVECTOR,
}
"""Opener of each scheme, or its name, by which it is imported when it is needed."""
