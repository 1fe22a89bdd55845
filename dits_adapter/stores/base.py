"""Video stores: the base class of every vector database, and the flags of its abilities.

A store keeps segments of videos with their vectors, says which embedding space these are of, and finds the
segments nearest to a query, grouped by video. `VideoStore` lists what a database has to do; `stores/memory.py`
does it in the fewest lines. What only some databases can do is a flag of `Capabilities`: callers ask the flag,
never the type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel
from typing_extensions import Self, Unpack

from dits_adapter._reprs import short_repr
from dits_adapter._wording import without_password
from dits_adapter.errors import StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._lanes import (
    fuse,
    index_texts,
    lane_request,
    lane_texts,
    locate,
    require_texts,
    search_index,
)
from dits_adapter.stores._like import like_read, like_request, others_like, stored_query
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata, check_tenant
from dits_adapter.stores.ranking import OURS
from dits_adapter.stores.requests import (
    SEEN,
    Hit,
    ReadRequest,
    SearchOptions,
    SearchRequest,
    check_queries,
    check_query,
    from_keywords,
)
from dits_adapter.stores.rows import FailureRow, SegmentRow, StoredSegment, VideoFile, VideoRecord, failure_rows
from dits_adapter.stores.text_lane import TextIndex, TextLane

__all__ = ["Capabilities", "VideoStore"]


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Abilities of a store beyond those that all stores have.

    Attributes:
        remote: a server holds it: writes overlap with decoding.
        frames: the store keeps frame vectors: hits have a second (`Hit.timestamp`) and can be re-ranked.
        tenants: the store keeps the videos of several tenants apart.
        aliases: a name can be switched from one collection to another.
        index: searches follow an approximate index, which `VideoStore.finish` completes; otherwise they are exact.
        options: a new collection takes options (`VideoStore.create`).
        bias: the store keeps a number beside each segment, which searches take from its score (`apply_bias`).
        texts: the store keeps a text beside each segment, which searches may look into (`attach_texts`).
    """

    remote: bool = False
    frames: bool = False
    tenants: bool = False
    aliases: bool = False
    index: bool = False
    options: bool = False
    bias: bool = False
    texts: bool = False


class VideoStore(ABC):
    """A collection of video segments in a vector database.

    A subclass sets the attributes and implements the abstract methods; docs/add-a-store.md shows one. Opening,
    creating and checking happen when they are needed, not at construction. Methods may be called from several
    threads; a store is used as a context manager, or closed.

    Attributes:
        capabilities: abilities of the store beyond the least.
        location: place of the collection, for messages.
        name: the collection as it was given: its name, or an alias.
        space: the embedding space of the queries; a collection of another one is refused. None accepts any.
        tenant: whose videos are stored and searched; None where the collection keeps no tenants apart.
    """

    capabilities: Capabilities
    location: str
    name: str
    space: EmbeddingSpace | None = None
    tenant: str | None = None
    _text_index: tuple[TextLane, TextIndex] | None = None

    def __repr__(self) -> str:
        return short_repr(self, self.name, location=without_password(str(self.location)), tenant=self.tenant)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - memory has nothing to release
        """Release the connection or the files."""

    @property
    def collection(self) -> str:
        """Name of the collection behind `name`, once an alias is resolved."""
        return self.name

    @property
    def place(self) -> object:
        """Object that is equal for stores in the same database, as far as addresses tell."""
        return self.location

    @property
    def cosine(self) -> bool:
        """True if scores are cosines, of which alone probabilities are known; meaningful once opened."""
        return True

    @property
    def descending(self) -> bool:
        """True if a higher score is a nearer one, as of cosines; meaningful once opened."""
        return True

    @abstractmethod
    def metadata(self) -> CollectionMetadata | None:
        """Return the description that the collection carries; None where something else made it (foreign).

        Raises:
            StoreError: no such collection, metadata of a newer version, or the database cannot be reached.
        """

    @abstractmethod
    def create(self, metadata: CollectionMetadata, options: BaseModel | None = None) -> None:
        """Make the collection with its metadata; one that exists must be the same.

        Args:
            metadata: description of how the vectors are made.
            options: options of a new collection; a model of the store's own.

        Raises:
            InputError: segments that cannot be cut, or options that the store has not.
            SpaceMismatchError, StoreError: as `CollectionMetadata.require_same`; or it cannot be created.
        """

    def open(self) -> EmbeddingSpace:
        """Check the collection and return the embedding space that it is searched in.

        Raises:
            StoreError: the collection is missing, foreign and not trusted, or needs a tenant and none is given.
            SpaceMismatchError: the collection is of another space, or of another width, than the queries.
        """
        metadata = self.metadata()
        if metadata is None:
            raise StoreError(
                f"the collection {self.name!r} does not say which embedding space its vectors live in: something "
                "other than dits_adapter made it."
            )
        if self.space is not None:
            self.space.video.require(
                metadata.space.video, mine="the query", theirs=f"the collection {self.name!r}"
            )
        check_tenant(metadata, self.tenant, self.name)
        return metadata.space

    @abstractmethod
    def records(self) -> Iterable[VideoRecord]:
        """List the state of each video and of each file that failed.

        Raises:
            StoreError: there is no such collection, or it keeps tenants apart and none is given.
        """

    def failures(self) -> list[FailureRow]:
        """List the files that failed; here out of `records`, which a database that can ask for them need not read.

        Raises:
            StoreError: as `records`.
        """
        return failure_rows(self.records())

    @abstractmethod
    def write(self, rows: Sequence[SegmentRow]) -> None:
        """Store segments durably; those of the same id are replaced."""

    @abstractmethod
    def write_failures(self, rows: Sequence[FailureRow]) -> None:
        """Remember files that gave no frames; one failure a path."""

    @abstractmethod
    def delete(self, records: Sequence[VideoRecord]) -> None:
        """Delete all segments of these videos, and these failures."""

    @abstractmethod
    def update_path(self, file: VideoFile) -> None:
        """Write down that the stored video `file.video_id` now lies at `file.path`, with its size and time."""

    @abstractmethod
    def find(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Answer checked queries, (n, d) float32: for each the hits of `request`, best video first.

        Raises:
            StoreError: no frame vectors to re-rank with, or the database cannot be reached.
        """

    @abstractmethod
    def read(self, request: ReadRequest) -> Iterator[StoredSegment]:
        """Read stored segments of the store's tenant, in any order; those that are not there are left out."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of segments in the collection."""

    @abstractmethod
    def count_videos(self) -> int:
        """Return the number of whole videos.

        In a collection of another program these are the distinct values of its video field; of one without such a
        field, its segments. Counting them may read that field of all segments; the number is kept then, and
        counted anew where the number of segments has changed by more than 1 %.
        """

    def set_bias(self, bias: ScoreBias | None) -> None:
        """Write down the record of the score bias; None takes it away, with the biases of all segments.

        Raises:
            StoreError: there is no such collection, or the store keeps no bias (`Capabilities.bias`).
        """
        raise StoreError(f"the store at {self.location} keeps no score bias.")

    def write_biases(self, biases: Mapping[str | int, float]) -> None:
        """Keep b(v) beside the segments with these ids, as the payload field `score_bias`.

        Raises:
            StoreError: as `set_bias`.
        """
        raise StoreError(f"the store at {self.location} keeps no score bias.")

    def set_texts(self, texts: TextLane | None) -> None:
        """Write down the record of the texts beside segments; None takes it away, with all of them.

        Raises:
            StoreError: there is no such collection, or the store keeps no texts (`Capabilities.texts`).
        """
        raise StoreError(f"the store at {self.location} keeps no texts.")

    def write_texts(self, texts: Mapping[str | int, str | None]) -> None:
        """Keep texts beside the segments with these ids, as the payload field `said`; None takes one away.

        Raises:
            StoreError: as `set_texts`.
        """
        raise StoreError(f"the store at {self.location} keeps no texts.")

    def find_said(self, texts: Sequence[str], request: SearchRequest) -> list[list[Hit]]:
        """Answer texts by what is said: for each the hits of `request`, best video first, scored by BM25.

        Here by an index in memory, which is made of all texts when they are first searched, and made anew when the
        collection's record of them has changed. A database that ranks texts by itself is asked instead.

        Raises:
            InputError: a filter of some database.
            StoreError: the collection has no texts, or the database cannot be reached.
        """
        metadata = self.metadata()
        lane = require_texts(None if metadata is None else metadata.texts, self.name)
        layout = (metadata and metadata.layout) or OURS
        if self._text_index is None or self._text_index[0] != lane:
            self._text_index = lane, index_texts(self.read(ReadRequest()), lane, layout)
        index = self._text_index[1]
        return [search_index(index, text, request, self.read, layout) for text in texts]

    def bulk_load(self, *, progress: bool = True) -> AbstractContextManager[None]:
        """Put off indexing while much is stored, where the database indexes while it is written to."""
        return nullcontext()

    def finish(self) -> None:  # noqa: B027 - most databases index by themselves
        """Complete the index over the written segments, where the database does not do so by itself."""

    def search(
        self, query_vector: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the segments nearest to a query.

        Args:
            query_vector: (d,), from `DITSQueryEncoder.encode_query`; its norm does not matter.
            request: the options as one object; or give its fields as keyword arguments (`limit=5`).
            options: fields of `SearchRequest`.

        Returns:
            Best video first, and its best segment first.

        Raises:
            InputError: the vector is not (d,), or not finite, or zero; or an option outside its range.
            StoreError, SpaceMismatchError: as `open` and `find`.
        """
        request = from_keywords(SearchRequest, request, options)
        return self._search(check_query(query_vector), request)[0]

    def search_like(
        self, segment: str | int, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[Hit]:
        """Find the segments nearest to a stored one, which is left out; its video may be among the hits.

        The score bias is of texts, and no part of these scores unless `bias` has a weight. Where hits are located,
        the moment is that of the frame nearest to the segment.

        Args:
            segment: id of the segment (`Hit.id`); ids that are numbers may be written as text.
            request, options: as for `search`; lanes and re-ranking are of texts.

        Returns:
            Best video first, and its best segment first.

        Raises:
            InputError: no such segment, one without a vector, other lanes than what is seen, or a re-ranking.
            StoreError, SpaceMismatchError: as `search`.
        """
        request = from_keywords(SearchRequest, request, options)
        wider = like_request(request)
        self.open()
        itself, vector = stored_query(self.read(like_read(segment)), segment, self.name)
        return others_like(self.search(vector, wider), itself, request, descending=self.descending)

    def search_batch(
        self, query_vectors: ArrayLike, request: SearchRequest | None = None, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Search for many queries, (n, d), in few requests; otherwise as `search`.

        Returns:
            For each query what `search` returns for it.

        Raises:
            InputError: also for a `rerank` function and several queries: it is of one query.
        """
        return self._search(query_vectors, from_keywords(SearchRequest, request, options))

    def _search(self, query_vectors: ArrayLike, request: SearchRequest) -> list[list[Hit]]:
        queries = check_queries(query_vectors, self.open().video.width, request)
        if not request.beyond_seen:
            return self.find(queries, request)
        return self._fused(queries, request)

    def _fused(self, queries: NDArray[np.float32], request: SearchRequest) -> list[list[Hit]]:
        """Search each lane for itself and fuse their hits."""
        texts, part = lane_texts(request, len(queries)), lane_request(request)
        metadata = self.metadata()
        lane = require_texts(None if metadata is None else metadata.texts, self.name)
        found = {
            name: self.find(queries, part) if name == SEEN else self.find_said(texts, part)
            for name in request.lanes
        }
        pages = [
            fuse({name: rows[n] for name, rows in found.items()}, lane.half(text), request)
            for n, text in enumerate(texts)
        ]
        if not (request.locate and self.capabilities.frames):
            return pages
        ids = list(dict.fromkeys(hit.id for page in pages for hit in page))
        segments = {s.id: s for s in self.read(ReadRequest(ids=ids, frames=True))} if ids else {}
        return [
            [locate(hit, segments.get(hit.id), query) for hit in page]
            for page, query in zip(pages, queries, strict=True)
        ]
