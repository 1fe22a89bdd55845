"""A store that the package does not know, registered under a scheme of its own."""

from __future__ import annotations

import pytest

from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.memory import MemoryStore
from dits_adapter.stores.open import register_store
from tests.serve.conftest import adapter, library  # noqa: F401  (fixtures)


@pytest.fixture
def stores() -> dict[tuple[str, str], MemoryStore]:
    """Stores in memory by address and collection; `mine://` opens them."""
    opened: dict[tuple[str, str], MemoryStore] = {}

    def open_mine(location: str, collection: str, *, space: EmbeddingSpace | None = None) -> MemoryStore:
        store = opened.setdefault((location, collection), MemoryStore(collection))
        store.space = space
        return store

    register_store("mine", open_mine)
    return opened
