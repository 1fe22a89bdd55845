"""Qdrant collection for its readers: checked, and pinned to the target of its alias at opening.

Its methods are plans (`_requests`), which `QdrantStore` and `AsyncQdrantStore` follow alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar, overload

import grpc  # type: ignore[import-untyped]
import numpy as np
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from dits_adapter._wording import no_cosines, no_such_vector, validated
from dits_adapter.errors import InputError, MissingCollectionError, SpaceMismatchError, StoreError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores._video_count import VideoCount
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout, check_tenant
from dits_adapter.stores.qdrant._limits import (
    NUMBER_BYTES,
    PAYLOAD_BYTES,
    Limits,
    fitting,
)
from dits_adapter.stores.qdrant._requests import (
    CollectionExists,
    Count,
    GetAliases,
    GetCollection,
    GetCollections,
    RequestPlan,
    Scroll,
)
from dits_adapter.stores.qdrant._schema import (
    FRAMES,
    METADATA_KEY,
    OURS,
    TENANT,
    WORDS,
    named_vectors,
    native_filter,
    plain_id,
    read_filter,
)
from dits_adapter.stores.qdrant._survey import SAMPLE, counting_groups, scores_are_cosines
from dits_adapter.stores.requests import ReadRequest, SearchRequest, VideoFilter
from dits_adapter.stores.rows import StoredSegment
from dits_adapter.stores.text_lane import SAID, TextLane

__all__ = ["PAGE", "VECTORS_PAGE", "QdrantCollection"]

T = TypeVar("T")
Answer = TypeVar("Answer")

PAGE = 1000
"""Payloads that one request reads."""

VECTORS_PAGE = 64
"""Segments that one request reads with their vectors, at most: fewer where they have many or long ones."""


class QdrantCollection:
    """A collection, checked when it is first read.

    Args:
        location: place of the collection, for messages.
        name: name of the collection, or an alias.
        space, layout, trust_foreign, tenant: as `QdrantStore`.
        takes_params: True where this Qdrant knows search parameters; qdrant-client's local mode does not.
        takes_formulas: True where this Qdrant scores by formulas: a server.

    Attributes:
        target: the collection that the name meant when it was last looked up.
        opened: embedding space of the collection, once it was checked.
        cosine: True where scores are cosines, by the distance or the length of vectors; likewise.
        descending: True where a higher score is a nearer one; likewise.
        layout: names of the vector and the payload fields; likewise.
        ours: True where this package made the collection; likewise.
        has_frames: True where the collection has frame vectors; likewise.
        has_words: True where segments have the words of their paths; likewise.
        limits: what one request may ask for; likewise.
        quantized: True where searches use quantized vectors; likewise.
        bias, texts: records of the score bias and of the texts; None without; likewise.
        has_said: True where points have the sparse vector of their texts; likewise.
    """

    def __init__(
        self,
        location: str,
        name: str,
        *,
        space: EmbeddingSpace | None,
        layout: PointLayout | None,
        trust_foreign: bool,
        tenant: str | None,
        takes_params: bool,
        takes_formulas: bool,
    ) -> None:
        if trust_foreign and space is None:
            raise InputError("trust_foreign needs space=…: the space that the collection is trusted to be of.")
        if "" in (name, tenant):
            raise InputError(f"{'tenant' if name else 'collection'} is empty; give it a name.")
        self.location = location
        self.name = name
        self.space = space
        self._layout = layout
        self.layout = layout or PointLayout()
        self.trust_foreign = trust_foreign
        self.tenant = tenant
        self.takes_params = takes_params
        self._takes_formulas = takes_formulas
        self.formulas = False
        self.target = name
        self.opened: EmbeddingSpace | None = None
        self.cosine = False
        self.descending = True
        self.ours = self.has_frames = self.has_said = self.quantized = False
        self.has_words = True
        self.limits = Limits()
        self.bias: ScoreBias | None = None
        self.texts: TextLane | None = None
        self._videos = VideoCount()
        self._first: EmbeddingSpace | None = None
        self._tenant_checked = False

    @overload
    def scoped(self, condition: models.Filter) -> models.Filter: ...
    @overload
    def scoped(self, condition: models.Filter | None = None) -> models.Filter | None: ...

    def scoped(self, condition: models.Filter | None = None) -> models.Filter | None:
        """Confine a filter to the tenant."""
        if self.tenant is None:
            return condition
        of_tenant = models.FieldCondition(key=TENANT, match=models.MatchValue(value=self.tenant))
        return models.Filter(must=[of_tenant] if condition is None else [of_tenant, condition])

    def reading_metadata(self, target: str) -> RequestPlan[CollectionMetadata | None]:
        """Read a collection's metadata; see `QdrantStore.metadata`."""
        if not (yield from CollectionExists(collection_name=target)):
            names = sorted(c.name for c in (yield from GetCollections()).collections)
            raise MissingCollectionError(
                f"{self.location} has no collection {target!r}; "
                + (f"it has {', '.join(names)}." if names else "it has none at all.")
            )
        info = yield from GetCollection(collection_name=target)
        metadata = info.config.metadata or {}
        if METADATA_KEY not in metadata:
            return None
        try:
            return validated(CollectionMetadata, metadata[METADATA_KEY])
        except InputError as error:
            raise StoreError(
                f"the metadata of the collection {self.name!r} cannot be understood; a newer dits_adapter may "
                f"have written it. {error}"
            ) from error

    def resolving(self) -> RequestPlan[str]:
        """Find out which collection the name means now."""
        try:
            aliases = (yield from GetAliases()).aliases
        except UnexpectedResponse as error:
            if error.status_code not in (401, 403):  # a key for one collection may not list them
                raise
            aliases = []
        targets = {alias.alias_name: alias.collection_name for alias in aliases}
        return targets.get(self.name, self.name)

    def opening(self) -> RequestPlan[EmbeddingSpace]:
        """Check the collection, once, and stay with it: an alias may come to mean one of another space.

        Nothing is remembered before all is checked, so that an opening that fails leaves another thread's alone.
        """
        if self.opened is not None:
            return self.opened
        target = yield from self.resolving()
        metadata = yield from self.reading_metadata(target)
        if metadata is not None:
            space = metadata.space
            if self.space is not None:
                self.space.video.require(space.video, mine="the query", theirs=f"the collection {self.name!r}")
        elif self.trust_foreign and self.space is not None:
            space = self.space
        else:
            raise StoreError(_foreign_collection(self.name))
        self._check_tenant(metadata)
        ours = metadata is not None and metadata.layout is None
        layout = self._layout or (OURS if ours else metadata and metadata.layout) or PointLayout()
        info = yield from GetCollection(collection_name=target)
        config = info.config
        vectors = named_vectors(config.params)
        params = vectors.get(layout.vector)
        if params is None:
            raise StoreError(no_such_vector(self.name, layout.vector, vectors))
        if params.size != space.video.width:
            raise SpaceMismatchError(
                f"the vector {layout.vector!r} of the collection {self.name!r} has width {params.size}; the "
                f"queries have {space.video.width} ({space})."
            )
        limits = Limits.of(info)
        cosine = metadata.cosine if metadata is not None and metadata.layout == layout else None
        if cosine is None:
            cosine = yield from self._seeing_cosines(target, layout.vector, params.distance, limits)
        if metadata is None:
            doubt = "" if cosine else f" {no_cosines(self.name)}"
            warnings.warn(
                f"the collection {self.name!r} does not say which embedding space it is of; it is taken to "
                f"be {space}, as you said. Only its width ({params.size}) could be checked, and scores are those "
                f"of its {params.distance.value} distance.{doubt}",
                stacklevel=4,
            )
        if self._first is not None:  # what was opened before is gone
            self._first.video.require(space.video, mine="the query", theirs=f"the collection {self.name!r} by now")
        self.target, self._first = target, space
        self.layout, self.ours = layout, ours
        self.cosine = cosine
        self._videos = VideoCount()
        self.descending = params.distance not in (models.Distance.EUCLID, models.Distance.MANHATTAN)
        self.has_frames = FRAMES in vectors
        self.has_words = WORDS in info.payload_schema or not info.payload_schema  # memory has no indexes
        self.limits = limits
        # of several shards each scores candidates of its own, and strict mode may refuse fields without an index
        strict = config.strict_mode_config is not None and bool(config.strict_mode_config.enabled)
        self.formulas = self._takes_formulas and config.params.shard_number == 1 and not strict
        self.quantized = (params.quantization_config or config.quantization_config) is not None
        self.bias, self.texts = (None, None) if metadata is None else (metadata.bias, metadata.texts)
        self.has_said = SAID in (config.params.sparse_vectors or {})
        self.opened = space
        return space

    def _seeing_cosines(
        self, target: str, vector: str, distance: models.Distance, limits: Limits
    ) -> RequestPlan[bool]:
        """Find out whether scores are cosines, by some vectors where these are dot products."""
        records: list[models.Record] = []
        if distance == models.Distance.DOT:
            having = models.Filter(must=[models.HasVectorCondition(has_vector=vector)])
            records, _ = yield from Scroll(
                collection_name=target,
                scroll_filter=having,
                limit=min(SAMPLE, limits.hits),
                with_payload=False,
                with_vectors=[vector] if vector else True,
            )
        return bool(scores_are_cosines(distance, records, vector))

    def requiring_tenant(self) -> RequestPlan[None]:
        """Refuse, without opening it, a collection that keeps tenants apart where none is named; looks once."""
        if not self._tenant_checked:
            self._check_tenant((yield from self.reading_metadata(self.target)))

    def _check_tenant(self, metadata: CollectionMetadata | None) -> None:
        check_tenant(metadata, self.tenant, self.name)
        self._tenant_checked = True

    def following(self, plan: Callable[[], RequestPlan[T]]) -> RequestPlan[T]:
        """Run a plan, and repeat it where the alias has moved to another collection meanwhile.

        Raises:
            MissingCollectionError: the collection is gone.
        """
        try:
            return (yield from plan())
        except (UnexpectedResponse, grpc.RpcError) as error:
            if not _not_found(error):
                raise
            self.opened = None
            yield from self.opening()
            return (yield from plan())

    def reading(
        self, request: ReadRequest, offset: models.ExtendedPointId | None = None, read: int = 0
    ) -> RequestPlan[tuple[list[StoredSegment], models.ExtendedPointId | None]]:
        """Read a page of segments, and the id at which the next one begins; see `QdrantStore.read`.

        Args:
            request: the segments.
            offset: the id at which the page begins; None for the first.
            read: number of segments of the earlier pages.
        """
        yield from self.opening()
        names = [self.layout.vector] if request.vectors else []
        if request.frames and self.has_frames:
            names.append(FRAMES)
        size = self.page(pooled=request.vectors, frames=FRAMES in names)

        def plan() -> RequestPlan[tuple[list[models.Record], models.ExtendedPointId | None]]:
            condition = read_filter(request, self.layout.vector, failures=self.ours)
            return (
                yield from Scroll(
                    collection_name=self.target,
                    scroll_filter=self.scoped(condition),
                    limit=size if request.limit is None else min(size, request.limit - read),
                    offset=offset,
                    with_vectors="" in names or names,
                )
            )

        records, following = yield from self.following(plan)
        if request.limit is not None and read + len(records) >= request.limit:
            following = None
        return [self._segment(record, request) for record in records], following

    def page(self, *, pooled: bool = False, frames: bool = False) -> int:
        """Return how many segments one request of an opened collection reads, with these of their vectors."""
        most = min(self.limits.hits, VECTORS_PAGE if pooled or frames else PAGE)
        assert self.opened is not None
        vectors = (1 if pooled else 0) + ((self.opened.video.frames or 12) if frames and self.has_frames else 0)
        return fitting(PAYLOAD_BYTES + NUMBER_BYTES * self.opened.video.width * vectors, most)

    def filter(self, request: SearchRequest) -> models.Filter | None:
        """Return the filter of a search as Qdrant takes it.

        Raises:
            InputError: a filter of something else.
            StoreError: words, of which the collection keeps none.
        """
        condition = request.filter
        if self.ours and not self.has_words and isinstance(condition, VideoFilter) and condition.words:
            raise StoreError(
                f"the collection {self.name!r} keeps no words of its paths: an earlier dits_adapter made it. "
                "Ingest into another one, or leave out the words."
            )
        return native_filter(condition, self.layout, ours=self.ours)

    def _segment(self, record: models.Record, request: ReadRequest) -> StoredSegment:
        vectors = record.vector if isinstance(record.vector, dict) else {"": record.vector}
        vector = vectors.get(self.layout.vector) if request.vectors else None
        frames = vectors.get(FRAMES) if request.frames else None
        return StoredSegment(
            id=plain_id(record.id),
            payload=record.payload or {},
            vector=None if vector is None else np.asarray(vector, np.float32),
            frame_vectors=None if frames is None else np.asarray(frames, np.float32),
        )

    def counting(self) -> RequestPlan[int]:
        """Count the segments; see `QdrantStore.count`."""
        yield from self.opening()
        return (yield from self._counting(models.HasVectorCondition(has_vector=self.layout.vector)))

    def counting_videos(self) -> RequestPlan[int]:
        """Count the videos; see `QdrantStore.count_videos`."""
        yield from self.opening()
        if self.ours:
            return (yield from self._counting(models.FieldCondition(key="segments", range=models.Range(gte=1))))
        segments, field = (yield from self.counting()), self.layout.video
        if field is None:
            return segments
        if (videos := self._videos.of(segments)) is not None:
            return videos
        return self._videos.keep(segments, (yield from self._counting_groups(field, segments)))

    def _counting_groups(self, field: str, segments: int) -> RequestPlan[int]:
        """Count the distinct values of the field of videos."""

        def plan() -> RequestPlan[int]:
            return counting_groups(
                self.target,
                field,
                self.scoped(models.Filter(must=[models.HasVectorCondition(has_vector=self.layout.vector)])),
                most=min(self.limits.hits, segments + 1),
                page=self.page(),
                facets=self._takes_formulas,
            )

        return (yield from self.following(plan))

    def _counting(self, condition: models.Condition) -> RequestPlan[int]:
        chosen = self.scoped(models.Filter(must=[condition]))

        def plan() -> RequestPlan[models.CountResult]:
            exact = self.limits.exact
            return (yield from Count(collection_name=self.target, count_filter=chosen, exact=exact))

        return int((yield from self.following(plan)).count)


def _foreign_collection(collection: str) -> str:
    """Return the message that a collection was made by something else."""
    return (
        f"the collection {collection!r} does not say which embedding space its vectors live in: something other "
        "than dits_adapter made it. If you know that its videos were embedded with the CLIP of your query "
        "encoder, say so once (`dits-adapter adopt`), or each time: --vector NAME --trust-foreign, in Python "
        "QdrantStore(…, space=encoder.space, layout=PointLayout(vector=NAME), trust_foreign=True)."
    )


def _not_found(error: UnexpectedResponse | grpc.RpcError) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    return bool(error.code() == grpc.StatusCode.NOT_FOUND)
