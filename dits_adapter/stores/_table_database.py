"""Words of a database of tables: how it describes, makes, writes and searches them.

What is asked of it comes as a `Condition`, never as text. `TableStore` makes a store of them.
"""

from __future__ import annotations

import os
import re
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dits_adapter._wording import without_password
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._table import KEY, TENANT, Condition, Opened, Row, Table
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout

__all__ = ["TableDatabase"]


class TableDatabase(VideoStore):
    """A collection in a database of tables.

    Args:
        location: address of the database; a password in it is not shown again.
        collection: name of the collection.
        space: the embedding space of the queries; if given, a collection of another one is refused.
        layout: names of the columns in a table that something else made; by default those that it was adopted
            with.
        trust_foreign: search a table that something else made, without proof that its vectors live in `space`.
        tenant: whose videos to store and to search, in a collection that keeps tenants apart.
    """

    names: ClassVar[re.Pattern[str]]
    """Names that a collection may have in this database."""

    names_in_words: ClassVar[str] = "is made of letters, digits and underscores"
    """Rule of `names` in words, for messages."""

    def __init__(
        self,
        location: str | PathLike[str],
        collection: str = "videos",
        *,
        space: EmbeddingSpace | None = None,
        layout: PointLayout | None = None,
        trust_foreign: bool = False,
        tenant: str | None = None,
    ) -> None:
        if trust_foreign and space is None:
            raise InputError("trust_foreign needs space=…: the space that the collection is trusted to be of.")
        if tenant == "":
            raise InputError("tenant is empty; give it a name.")
        self._address = os.fspath(location)
        self.location = without_password(self._address)
        self.name = collection
        self.space = space
        self.tenant = tenant
        self._layout = layout
        self._trusted = trust_foreign
        self._opened: Opened | None = None
        self._lock = threading.RLock()  # for clients that one thread uses at a time

    @abstractmethod
    def _describe(self, name: str) -> Table | None:
        """Describe a table; None where there is none."""

    @abstractmethod
    def _create(self, metadata: CollectionMetadata) -> None:
        """Make the tables of segments and of failures where they are missing, that of segments last."""

    @abstractmethod
    def _write_metadata(self, metadata: CollectionMetadata) -> None:
        """Keep the metadata beside the table of segments, which may be another program's."""

    @abstractmethod
    def _upsert(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows durably, in the place of those with the same keys."""

    @abstractmethod
    def _update(self, condition: Condition, values: Row) -> None:
        """Change the values of segments."""

    @abstractmethod
    def _assign(self, column: str, values: Mapping[str | int, Any]) -> None:
        """Change one value of segments, by their keys."""

    @abstractmethod
    def _delete(self, name: str, condition: Condition) -> None:
        """Delete the rows of a table that fulfill a condition."""

    @abstractmethod
    def _select(
        self, name: str, columns: Sequence[str], condition: Condition, limit: int | None = None
    ) -> Iterator[Row]:
        """Read rows, some hundred at a time, while others may be written."""

    @abstractmethod
    def _nearest(
        self, queries: NDArray[np.float32], opened: Opened, condition: Condition, number: int, exact: bool
    ) -> list[list[tuple[float, Row]]]:
        """Find for each query the rows of the best cosines, best first, with the columns `opened.payload`.

        Fewer than `number` are all that there are.
        """

    @abstractmethod
    def _count(self, condition: Condition) -> int:
        """Count segments."""

    def _count_distinct(self, column: str) -> int:
        """Count the values of a column of segments, and each segment without one; here by reading the column."""
        values: set[Any] = set()
        without = 0
        for row in self._select(self.name, [column], self._scope()):
            if row[column] is None:
                without += 1
            else:
                values.add(row[column])
        return len(values) + without

    def _key(self, name: str) -> str:
        """Return the column of the keys of a table."""
        return self._opened.table.key if self._opened is not None and name == self.name else KEY

    @property
    def _failures(self) -> str:
        """Name of the table of failures."""
        return f"{self.name}_failures"

    def _takes_name(self, name: str) -> bool:
        """Return whether a collection may have a name in this database."""
        return self.names.fullmatch(name) is not None

    def _scope(self) -> Condition:
        """Return the condition that confines everything to the store's tenant."""
        return Condition() if self.tenant is None else Condition(among={TENANT: [self.tenant]})
