"""Move CLIP text queries across the modality gap before they search video vectors.

The public names load on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dits_adapter._extras import name_missing_extra

__version__ = "0.1.0"

_HOMES = {
    "DITSQueryEncoder": "dits_adapter.encoder",
    "VideoEncoder": "dits_adapter.video.encoder",
    "EmbeddingSpace": "dits_adapter.space",
    "QdrantStore": "dits_adapter.stores.qdrant.store",
    "AsyncQdrantStore": "dits_adapter.stores.qdrant.aio",
    "ingest": "dits_adapter.stores.ingest",
    "open_store": "dits_adapter.stores.open",
    "DITSError": "dits_adapter.errors",
}
__all__ = [
    "AsyncQdrantStore",
    "DITSError",
    "DITSQueryEncoder",
    "EmbeddingSpace",
    "QdrantStore",
    "VideoEncoder",
    "__version__",
    "ingest",
    "open_store",
]

if TYPE_CHECKING:
    from dits_adapter.encoder import DITSQueryEncoder
    from dits_adapter.errors import DITSError
    from dits_adapter.space import EmbeddingSpace
    from dits_adapter.stores.ingest import ingest
    from dits_adapter.stores.open import open_store
    from dits_adapter.stores.qdrant.aio import AsyncQdrantStore
    from dits_adapter.stores.qdrant.store import QdrantStore
    from dits_adapter.video.encoder import VideoEncoder


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        with name_missing_extra(name):
            value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
