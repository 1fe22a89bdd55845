"""Conversion of qdrant_client's models to Qdrant Edge's and back; a model that Edge lacks is refused by name."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import qdrant_edge as edge
from qdrant_client import models

from dits_adapter.errors import InputError
from dits_adapter.stores.qdrant._schema import named_vectors

__all__ = [
    "HNSW",
    "config",
    "filter_",
    "index",
    "index_info",
    "payload_selector",
    "point",
    "point_id",
    "point_vectors",
    "record",
    "request",
    "result_id",
    "scored",
]

HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
"""Index of a collection without options of its own: the same as a server's."""


def config(collection: models.CollectionConfig) -> edge.EdgeConfig:
    """Convert the configuration of a collection.

    Raises:
        InputError: something that only a server has.
    """
    params, optimizers = collection.params, collection.optimizer_config
    sparse = params.sparse_vectors or {}
    return edge.EdgeConfig(
        vectors={name: _vector_params(name, kept, collection) for name, kept in named_vectors(params).items()},
        sparse_vectors={name: _sparse_params(kept) for name, kept in sparse.items()},
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


def _sparse_params(vector: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    if vector.index is not None:
        _refuse(vector.index)
    return edge.EdgeSparseVectorParams(
        modifier=edge.Modifier.Idf if vector.modifier == models.Modifier.IDF else None
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
    """Convert the index of a payload field."""
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


def point(source: models.PointStruct) -> edge.Point:
    """Convert a point.

    Raises:
        InputError: a vector that is none, or holds NaN or infinite values.
    """
    return edge.Point(point_id(source.id), _vectors(source), source.payload or {})


def point_vectors(source: models.PointVectors) -> edge.PointVectors:
    """Convert vectors of a point that is there; errors as `point`."""
    return edge.PointVectors(point_id(source.id), _vectors(source))


def _vectors(source: models.PointStruct | models.PointVectors) -> Any:
    if isinstance(source.vector, Mapping):
        return {name: _vector(vector, f"{name!r} of {source.id}") for name, vector in source.vector.items()}
    return _numbers(source.vector, f"of {source.id}")


def _vector(vector: Any, whose: str) -> Any:
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(vector.indices, _numbers(vector.values, whose))
    return _numbers(vector, whose)


def point_id(source: models.ExtendedPointId) -> edge.PointId:
    """Convert a point's id: a number, or a UUID as it is or as a string."""
    if isinstance(source, str):
        try:
            return uuid.UUID(source)
        except ValueError:
            raise InputError(f"the id {source!r} is neither a number nor a UUID.") from None
    return source


def _numbers(vector: Any, whose: str) -> Any:
    try:
        array = np.asarray(vector, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"the vector {whose} is not made of numbers, or its rows differ in length.") from None
    if array.ndim not in (1, 2) or not np.isfinite(array).all():
        raise InputError(f"the vector {whose} has the shape {array.shape}, or holds NaN or infinite values.")
    return array.tolist()


def request(source: models.QueryRequest) -> edge.QueryRequest:
    """Convert a query."""
    if source.lookup_from is not None:
        _refuse(source.lookup_from)
    return edge.QueryRequest(
        limit=10 if source.limit is None else source.limit,
        offset=source.offset,
        query=_query(source.query, source.using),
        prefetches=_prefetches(source.prefetch),
        with_vector=source.with_vector or False,
        with_payload=payload_selector(source.with_payload),
        filter=filter_(source.filter),
        score_threshold=source.score_threshold,
        params=_search_params(source.params),
    )


def _prefetches(source: Sequence[models.Prefetch] | models.Prefetch | None) -> list[edge.Prefetch] | None:
    def convert(prefetch: models.Prefetch) -> edge.Prefetch:
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

    return [convert(prefetch) for prefetch in _listed(source)] or None


def _query(source: Any, using: str | None) -> edge.ScoringQueryType | None:
    if source is None:
        return None
    if isinstance(source, models.NearestQuery) and source.mmr is None:
        source = source.nearest
    if not isinstance(source, list | np.ndarray | models.SparseVector):
        _refuse(source, "in place of a query vector")
    return edge.Query.Nearest(_vector(source, "of the query"), using or None)


def _search_params(source: models.SearchParams | None) -> edge.SearchParams | None:
    if source is None:
        return None
    if source.acorn is not None:
        _refuse(source, "with acorn")
    quantization = source.quantization
    corpus = source.idf.corpus if isinstance(source.idf, models.IdfCorpusParams) else None
    return edge.SearchParams(
        hnsw_ef=source.hnsw_ef,
        exact=bool(source.exact),
        indexed_only=bool(source.indexed_only),
        idf=None if corpus is None else edge.IdfParams(corpus=filter_(corpus)),
        quantization=edge.QuantizationSearchParams(
            ignore=bool(quantization.ignore), rescore=quantization.rescore, oversampling=quantization.oversampling
        )
        if quantization
        else None,
    )


def payload_selector(source: models.WithPayloadInterface | None) -> Any:
    """Convert a selection of payload fields."""
    if isinstance(source, models.PayloadSelectorInclude):
        return edge.PayloadSelector.Include(source.include)
    if isinstance(source, models.PayloadSelectorExclude):
        return edge.PayloadSelector.Exclude(source.exclude)
    return source or False


def filter_(source: models.Filter | None) -> edge.Filter | None:
    """Convert a filter; no condition is dropped.

    Raises:
        InputError: a condition that Edge has not.
    """
    if source is None:
        return None
    least = source.min_should

    def converted(conditions: Any) -> list[Any] | None:
        return [_condition(condition) for condition in _listed(conditions)] or None

    return edge.Filter(
        must=converted(source.must),
        should=converted(source.should),
        must_not=converted(source.must_not),
        min_should=edge.MinShould([_condition(c) for c in least.conditions], least.min_count) if least else None,
    )


def _condition(source: models.Condition) -> edge.ConditionType:
    if isinstance(source, models.FieldCondition):
        return _field_condition(source)
    if isinstance(source, models.Filter):
        nested = filter_(source)
        assert nested is not None
        return nested
    if isinstance(source, models.IsEmptyCondition):
        return edge.IsEmptyCondition(source.is_empty.key)
    if isinstance(source, models.IsNullCondition):
        return edge.IsNullCondition(source.is_null.key)
    if isinstance(source, models.HasIdCondition):
        return edge.HasIdCondition({point_id(i) for i in source.has_id})
    if isinstance(source, models.HasVectorCondition):
        return edge.HasVectorCondition(source.has_vector)
    if isinstance(source, models.NestedCondition):
        inner = filter_(source.nested.filter)
        assert inner is not None
        return edge.NestedCondition(source.nested.key, inner)
    _refuse(source)


def _field_condition(source: models.FieldCondition) -> edge.FieldCondition:
    if source.geo_bounding_box or source.geo_radius or source.geo_polygon:
        _refuse(source, "on a place")
    bounds: Any = source.range
    if isinstance(bounds, models.Range):
        bounds = edge.RangeFloat(bounds.gte, bounds.gt, bounds.lte, bounds.lt)
    elif isinstance(bounds, models.DatetimeRange):
        at = {name: value and value.isoformat() for name, value in bounds}
        bounds = edge.RangeDateTime(at["gte"], at["gt"], at["lte"], at["lt"])
    count = source.values_count
    return edge.FieldCondition(
        source.key,
        match=_match(source.match),
        range=bounds,
        values_count=edge.ValuesCount(count.lt, count.gt, count.lte, count.gte) if count else None,
        is_empty=source.is_empty,
        is_null=source.is_null,
    )


def _match(source: models.Match | None) -> edge.MatchType | None:
    if source is None:
        return None
    if isinstance(source, models.MatchValue):
        return edge.MatchValue(source.value)
    if isinstance(source, models.MatchAny):
        return edge.MatchAny(source.any)
    if isinstance(source, models.MatchExcept):
        return edge.MatchExcept(source.except_)
    if isinstance(source, models.MatchText):
        return edge.MatchText(source.text)
    if isinstance(source, models.MatchTextAny):
        return edge.MatchTextAny(source.text_any)
    if isinstance(source, models.MatchPhrase):
        return edge.MatchPhrase(source.phrase)
    _refuse(source)


def record(result: edge.Record) -> models.Record:
    """Convert a point that was read by its id."""
    vector = result.vector
    if isinstance(vector, dict):
        vector = {name: _read_vector(of_name) for name, of_name in vector.items()}
    return models.Record.model_construct(id=result_id(result.id), payload=result.payload, vector=vector)


def _read_vector(vector: Any) -> Any:
    if isinstance(vector, edge.SparseVector):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector


def scored(result: edge.ScoredPoint) -> models.ScoredPoint:
    """Convert a hit."""
    return models.ScoredPoint.model_construct(
        id=result_id(result.id),
        version=result.version,
        score=result.score,
        payload=result.payload,
        vector=result.vector,
    )


def result_id(result: edge.PointId) -> models.ExtendedPointId:
    """Convert the id of a point in an answer: UUIDs are strings, as a server writes them."""
    return result if isinstance(result, int) else str(result)


def index_info(result: edge.PayloadIndexInfo) -> models.PayloadIndexInfo:
    """Convert the index of a payload field as an answer, with the number of points that have it."""
    params = None
    if result.params is not None:
        kind = getattr(models, type(result.params).__name__)
        source = {name: getattr(result.params, name, None) for name in ("is_tenant", "lookup", "range", "on_disk")}
        name = type(result.params).__name__.removesuffix("IndexParams").lower()
        params = kind(type=name, **{k: v for k, v in source.items() if v is not None and k in kind.model_fields})
    name = str(result.data_type).rpartition(".")[2].lower()
    return models.PayloadIndexInfo(data_type=models.PayloadSchemaType(name), params=params, points=result.points)


def _listed(source: Any) -> list[Any]:
    return list(source) if isinstance(source, list | tuple) else [] if source is None else [source]


def _refuse(source: object, which: str = "") -> NoReturn:
    raise InputError(
        f"a folder takes no {' '.join([type(source).__name__, which]).strip()}; a Qdrant server does."
    )
