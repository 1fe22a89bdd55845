"""Options of a new Qdrant collection: precision, quantization, index, disk; on a server also shards, replicas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from qdrant_client import models

from dits_adapter.errors import InputError

__all__ = ["CLUSTER", "QUANTIZATIONS", "CollectionOptions", "rescored"]


def rescored(most: float = math.inf) -> models.SearchParams:
    """Return search parameters for a quantized collection: hits are ordered by their full vectors.

    Args:
        most: factor by which the server lets a search oversample.
    """
    quantization = models.QuantizationSearchParams(rescore=True, oversampling=min(2.0, most))
    return models.SearchParams(quantization=quantization)


CLUSTER = ("shards", "replicas", "write_consistency")
"""Options that only a server has."""

QUANTIZATIONS: Mapping[str, models.QuantizationConfig | None] = {
    "none": None,
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}


class CollectionOptions(BaseModel):
    """Options of a new collection. The defaults are Qdrant's, right for up to a million segments.

    A million pooled vectors of width 512 take 2 GB as they are, 1 GB as float16; beside them, quantized ones take
    0.5 GB (scalar) or 0.06 GB (binary), and only these have to be in memory if the others are `on_disk`. Frame
    vectors, a dozen times as many, are always on disk. What each costs in recall: `dits-adapter recall`.

    Attributes:
        float16: keep vectors in half precision.
        quantization: search `scalar` (int8) or `binary` copies of the pooled vectors and order the hits by the
            full ones. Binary is for widths of a thousand and more: at 512 it misses two thirds of the ten
            nearest of 100,000 generated vectors (`python -m benchmarks.scale search`).
        on_disk: keep the full pooled vectors on disk.
        hnsw_m: links of each point in the index; more is better and larger.
        hnsw_ef_construct: candidates for each link; more is better and slower to build.
        shards: parts of the collection, spread over the nodes of a cluster.
        replicas: copies of each shard on different nodes.
        write_consistency: copies that have to confirm a write. Leave it at 1 with two: a copy that fails is taken
            out of service until it has caught up, while a write that reaches too few copies is an error after
            which they differ until it is made again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    float16: bool = False
    quantization: Literal["none", "scalar", "binary"] = "none"
    on_disk: bool = False
    hnsw_m: int = Field(default=16, ge=4)
    hnsw_ef_construct: int = Field(default=100, ge=4)
    shards: int | None = Field(default=None, ge=1)
    replicas: int = Field(default=1, ge=1)
    write_consistency: int = Field(default=1, ge=1)

    def require_one_copy(self, location: str) -> None:
        """Refuse options that only a server has.

        Raises:
            InputError: several shards, or replicas.
        """
        if wrong := [f"{name}={value}" for name in CLUSTER if (value := getattr(self, name)) not in (None, 1)]:
            raise InputError(f"{location}: a folder is one shard in one copy; {', '.join(wrong)} is for a server.")

    def pooled(self, width: int, *, tenants: bool) -> models.VectorParams:
        """Describe the vector that is searched; with tenants each has an index of its own."""
        index = models.HnswConfigDiff(m=self.hnsw_m, ef_construct=self.hnsw_ef_construct)
        if tenants:
            index.m, index.payload_m = 0, self.hnsw_m
        return models.VectorParams(
            size=width,
            distance=models.Distance.COSINE,
            datatype=self._datatype(),
            on_disk=self.on_disk or None,
            hnsw_config=index,
            quantization_config=QUANTIZATIONS[self.quantization],
        )

    def frames(self, width: int) -> models.VectorParams:
        """Describe the frame vectors."""
        return models.VectorParams(
            size=width,
            distance=models.Distance.COSINE,
            datatype=self._datatype(),
            multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            hnsw_config=models.HnswConfigDiff(m=0),  # never searched as a whole, only read for the top hits
            on_disk=True,  # a dozen times the size of the pooled vectors
        )

    def collection(self) -> dict[str, Any]:
        """Return the arguments of `QdrantClient.create_collection` beside the vectors."""
        return {
            "shard_number": self.shards,
            "replication_factor": self.replicas,
            "write_consistency_factor": self.write_consistency,
        }

    def _datatype(self) -> models.Datatype | None:
        return models.Datatype.FLOAT16 if self.float16 else None

    @classmethod
    def of(cls, params: models.CollectionParams, pooled: models.VectorParams) -> CollectionOptions:
        """Read back the options that a collection with these parameters, and these of its pooled vector, has."""
        index = pooled.hnsw_config or models.HnswConfigDiff()
        quantized = pooled.quantization_config
        options = {
            "float16": pooled.datatype == models.Datatype.FLOAT16,
            "quantization": next(
                (n for n, kind in QUANTIZATIONS.items() if type(kind) is type(quantized)), "none"
            ),
            "on_disk": pooled.on_disk,
            "hnsw_m": index.m or index.payload_m,
            "hnsw_ef_construct": index.ef_construct,
            "shards": params.shard_number,
            "replicas": params.replication_factor,
            "write_consistency": params.write_consistency_factor,
        }
        return cls.model_validate({name: value for name, value in options.items() if value is not None})
