"""What qdrant_client's models are called in Qdrant Edge; whatever Edge cannot take is refused by its name."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from dits_adapter.errors import InputError

HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
"""The index of a collection that does not ask for another: what a server builds."""


def config(collection: models.CollectionConfig) -> edge.EdgeConfig:
    """Convert what a collection is kept like.

    Raises:
        InputError: something that only a server has.
    """
    params, optimizers = collection.params, collection.optimizer_config
    vectors = params.vectors if isinstance(params.vectors, dict) else {"": params.vectors}
    return edge.EdgeConfig(
        vectors={name: _vector_params(name, kept, collection) for name, kept in vectors.items() if kept},
        hnsw_config=_hnsw(collection.hnsw_config),
        optimizers=edge.EdgeOptimizersConfig(
            deleted_threshold=optimizers.deleted_threshold,
            vacuum_min_vector_number=optimizers.vacuum_min_vector_number,
            default_segment_number=optimizers.default_segment_number,
            max_segment_size=optimizers.max_segment_size,
            indexing_threshold=optimizers.indexing_threshold,
        ),
    )


def _vector_params(
    name: str, vector: models.VectorParams, collection: models.CollectionConfig
) -> edge.EdgeVectorParams:
    many = vector.multivector_config
    datatype = None
    if vector.datatype is not None:
        datatype = getattr(edge.VectorStorageDatatype, vector.datatype.value.capitalize(), None)
        if datatype is None:
            raise InputError(f"a folder keeps no vectors of the type {vector.datatype.value} ({name!r}).")
    index = collection.hnsw_config
    if vector.hnsw_config is not None:
        index = index.model_copy(update=vector.hnsw_config.model_dump(exclude_none=True))
    return edge.EdgeVectorParams(
        size=vector.size,
        distance=getattr(edge.Distance, vector.distance.value.capitalize()),
        memory=edge.Memory.Cold if vector.on_disk else None,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if many else None,
        datatype=datatype,
        quantization_config=_quantization(vector.quantization_config or collection.quantization_config),
        hnsw_config=_hnsw(index),
    )


def _hnsw(index: models.HnswConfig) -> edge.HnswIndexConfig:
    return edge.HnswIndexConfig(
        m=index.m,
        ef_construct=index.ef_construct,
        full_scan_threshold=index.full_scan_threshold,
        max_indexing_threads=index.max_indexing_threads or 0,
        memory=edge.Memory.Cold if index.on_disk else None,
        payload_m=index.payload_m,
    )


def _quantization(quantized: models.QuantizationConfig | None) -> edge.QuantizationConfigType | None:
    if quantized is None:
        return None
    if isinstance(quantized, models.ScalarQuantization):
        scalar = quantized.scalar
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, scalar.quantile, memory=_memory(scalar))
    if isinstance(quantized, models.BinaryQuantization):
        if quantized.binary.encoding or quantized.binary.query_encoding:
            _refuse(quantized, "with an encoding of its own")
        return edge.BinaryQuantizationConfig(memory=_memory(quantized.binary))
    _refuse(quantized)


def _memory(
    quantized: models.ScalarQuantizationConfig | models.BinaryQuantizationConfig,
) -> edge.Memory | None:
    return edge.Memory.Pinned if quantized.always_ram else None


def index(schema: models.PayloadSchemaType | models.PayloadSchemaParams) -> Any:
    """Convert what a payload field is indexed as."""
    if isinstance(schema, models.PayloadSchemaType):
        return getattr(edge.PayloadSchemaType, schema.value.capitalize())
    if isinstance(schema, models.KeywordIndexParams | models.UuidIndexParams):
        kind = getattr(edge, type(schema).__name__)
        return kind(is_tenant=schema.is_tenant, on_disk=schema.on_disk)
    if isinstance(schema, models.IntegerIndexParams):
        return edge.IntegerIndexParams(schema.lookup, schema.range, schema.is_principal, schema.on_disk)
    if isinstance(schema, models.FloatIndexParams | models.DatetimeIndexParams):
        kind = getattr(edge, type(schema).__name__)
        return kind(is_principal=schema.is_principal, on_disk=schema.on_disk)
    if isinstance(schema, models.BoolIndexParams | models.GeoIndexParams):
        return getattr(edge, type(schema).__name__)(on_disk=schema.on_disk)
    _refuse(schema)


def point(given: models.PointStruct) -> edge.Point:
    """Convert a point.

    Raises:
        InputError: a vector that is none, or holds NaN or infinite values.
    """
    if isinstance(given.vector, Mapping):
        vectors: Any = {name: _numbers(vector, f"{name!r} of {given.id}") for name, vector in given.vector.items()}
    else:
        vectors = _numbers(given.vector, f"of {given.id}")
    return edge.Point(point_id(given.id), vectors, given.payload or {})


def point_id(given: models.ExtendedPointId) -> edge.PointId:
    """Convert a point's id: a number, or a UUID as it is or as a string."""
    if isinstance(given, str):
        try:
            return uuid.UUID(given)
        except ValueError:
            raise InputError(f"the id {given!r} is neither a number nor a UUID.") from None
    return given


def _numbers(vector: Any, whose: str) -> Any:
    try:
        array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"the vector {whose} is not made of numbers, or its rows differ in length.") from None
    if array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise InputError(f"the vector {whose} has the shape {array.shape}, or holds NaN or infinite values.")
    return array.tolist()


def request(given: models.QueryRequest) -> edge.QueryRequest:
    """Convert a query."""
    if given.lookup_from is not None:
        _refuse(given.lookup_from)
    return edge.QueryRequest(
        limit=10 if given.limit is None else given.limit,
        offset=given.offset,
        query=_query(given.query, given.using),
        prefetches=_prefetches(given.prefetch),
        with_vector=given.with_vector or False,
        with_payload=payload_selector(given.with_payload),
        filter=filter_(given.filter),
        score_threshold=given.score_threshold,
        params=_search_params(given.params),
    )


def _prefetches(given: Sequence[models.Prefetch] | models.Prefetch | None) -> list[edge.Prefetch] | None:
    def one(prefetch: models.Prefetch) -> edge.Prefetch:
        if prefetch.lookup_from is not None:
            _refuse(prefetch.lookup_from)
        return edge.Prefetch(
            limit=10 if prefetch.limit is None else prefetch.limit,
            query=_query(prefetch.query, prefetch.using),
            prefetches=_prefetches(prefetch.prefetch),
            params=_search_params(prefetch.params),
            filter=filter_(prefetch.filter),
            score_threshold=prefetch.score_threshold,
        )

    return [one(prefetch) for prefetch in _listed(given)] or None


def _query(given: Any, using: str | None) -> edge.ScoringQueryType | None:
    if given is None:
        return None
    if isinstance(given, models.NearestQuery) and given.mmr is None:
        given = given.nearest
    if not isinstance(given, list | np.ndarray):
        _refuse(given, "in place of a query vector")
    return edge.Query.Nearest(_numbers(given, "of the query"), using or None)


def _search_params(given: models.SearchParams | None) -> edge.SearchParams | None:
    if given is None:
        return None
    if given.acorn is not None or given.idf is not None:
        _refuse(given, "with acorn or idf")
    quantization = given.quantization
    return edge.SearchParams(
        hnsw_ef=given.hnsw_ef,
        exact=bool(given.exact),
        indexed_only=bool(given.indexed_only),
        quantization=edge.QuantizationSearchParams(
            ignore=bool(quantization.ignore), rescore=quantization.rescore, oversampling=quantization.oversampling
        )
        if quantization
        else None,
    )


def payload_selector(given: models.WithPayloadInterface | None) -> Any:
    """Convert which payload fields are wanted."""
    if isinstance(given, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(given.include)
    if isinstance(given, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(given.exclude)
    return given or False


def filter_(given: models.Filter | None) -> edge.Filter | None:
    """Convert a filter; no condition is dropped.

    Raises:
        InputError: a condition that Edge has not.
    """
    if given is None:
        return None
    least = given.min_should

    def some(conditions: Any) -> list[Any] | None:
        return [_condition(condition) for condition in _listed(conditions)] or None

    return edge.Filter(
        must=some(given.must),
        should=some(given.should),
        must_not=some(given.must_not),
        min_should=edge.MinShould([_condition(c) for c in least.conditions], least.min_count) if least else None,
    )


def _condition(given: models.Condition) -> edge.ConditionType:
    if isinstance(given, models.FieldCondition):
        return _field_condition(given)
    if isinstance(given, models.Filter):
        nested = filter_(given)
        assert nested is not None
        return nested
    if isinstance(given, models.IsEmptyCondition):
        return edge.IsEmptyCondition(given.is_empty.key)
    if isinstance(given, models.IsNullCondition):
        return edge.IsNullCondition(given.is_null.key)
    if isinstance(given, models.HasIdCondition):
        return edge.HasIdCondition({point_id(i) for i in given.has_id})
    if isinstance(given, models.HasVectorCondition):
        return edge.HasVectorCondition(given.has_vector)
    if isinstance(given, models.NestedCondition):
        inner = filter_(given.nested.filter)
        assert inner is not None
        return edge.NestedCondition(given.nested.key, inner)
    _refuse(given)


def _field_condition(given: models.FieldCondition) -> edge.FieldCondition:
    if given.geo_bounding_box or given.geo_radius or given.geo_polygon:
        _refuse(given, "on a place")
    bounds: Any = given.range
    if isinstance(bounds, models.Range):
        bounds = edge.RangeFloat(bounds.gte, bounds.gt, bounds.lte, bounds.lt)
    elif isinstance(bounds, models.DatetimeRange):
        at = {name: value and value.isoformat() for name, value in bounds}
        bounds = edge.RangeDateTime(at["gte"], at["gt"], at["lte"], at["lt"])
    count = given.values_count
    return edge.FieldCondition(
        given.key,
        match=_match(given.match),
        range=bounds,
        values_count=edge.ValuesCount(count.lt, count.gt, count.lte, count.gte) if count else None,
        is_empty=given.is_empty,
        is_null=given.is_null,
    )


def _match(given: models.Match | None) -> edge.MatchType | None:
    if given is None:
        return None
    if isinstance(given, models.MatchValue):
        return edge.MatchValue(given.value)
    if isinstance(given, models.MatchAny):
        return edge.MatchAny(given.any)
    if isinstance(given, models.MatchExcept):
        return edge.MatchExcept(given.except_)
    if isinstance(given, models.MatchText):
        return edge.MatchText(given.text)
    if isinstance(given, models.MatchTextAny):
        return edge.MatchTextAny(given.text_any)
    if isinstance(given, models.MatchPhrase):
        return edge.MatchPhrase(given.phrase)
    _refuse(given)


def record(found: edge.Record) -> models.Record:
    """Convert a point that was fetched."""
    return models.Record.model_construct(id=found_id(found.id), payload=found.payload, vector=found.vector)


def scored(found: edge.ScoredPoint) -> models.ScoredPoint:
    """Convert a point that was found."""
    return models.ScoredPoint.model_construct(
        id=found_id(found.id),
        version=found.version,
        score=found.score,
        payload=found.payload,
        vector=found.vector,
    )


def found_id(found: edge.PointId) -> models.ExtendedPointId:
    """Convert the id of a point that was found: UUIDs are strings, as a server writes them."""
    return found if isinstance(found, int) else str(found)


def index_info(found: edge.PayloadIndexInfo) -> models.PayloadIndexInfo:
    """Convert what a payload field is indexed as, and how many points have it."""
    params = None
    if found.params is not None:
        kind = getattr(models, type(found.params).__name__)
        given = {name: getattr(found.params, name, None) for name in ("is_tenant", "lookup", "range", "on_disk")}
        name = type(found.params).__name__.removesuffix("IndexParams").lower()
        params = kind(type=name, **{k: v for k, v in given.items() if v is not None and k in kind.model_fields})
    name = str(found.data_type).rpartition(".")[2].lower()
    return models.PayloadIndexInfo(data_type=models.PayloadSchemaType(name), params=params, points=found.points)


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [] if given is None else [given]


def _refuse(given: object, which: str = "") -> NoReturn:
    raise InputError(f"a folder takes no {' '.join([type(given).__name__, which]).strip()}; a Qdrant server does.")
