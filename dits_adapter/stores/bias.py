"""Score bias of a collection: the record of it, and the bank of other queries that it is computed with.

Beside each segment lies one number, b(v) of `score_bias`: how near its vector is to the queries of a bank. A
search takes w · b(v) from the score, so that videos near to every query stand less in the way. Vectors stay as
they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field

from dits_adapter._extras import name_missing_extra
from dits_adapter.errors import InputError
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, bias_sharpness, score_bias
from dits_adapter.sides import Canaries
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import FloatArray, unit

if TYPE_CHECKING:
    from dits_adapter.adapters.base import Adapter
    from dits_adapter.artifact.artifact import Artifact

__all__ = ["BESIDE_BANK", "BIAS", "BiasBank", "ScoreBias", "check_weight"]

BIAS = "score_bias"
"""Payload field of b(v)."""

_SAME_QUERIES = 0.995
"""Least cosine of the probes of two adapters whose queries may share a bias."""


BESIDE_BANK = 0.7
"""Part of its weight that a bias keeps where queries step away from a bank: .35 instead of .5."""


class ScoreBias(BaseModel):
    """Record of a collection's score bias, in its metadata.

    Attributes:
        bank: digest of the bank (`BiasBank.digest`).
        queries: `TextSide.probes` of the space as queries of the bank's kind, unit vectors (4, d): plain, or
            adapted by the adapter whose queries the bank holds. They show which queries the bias is for.
        sharpness: τ of `score_bias`, the same for all segments, of later ones too.
        weight: w, which a search takes by default.
        mean: mean of b(v) over the segments, which stands in for that of a segment without one; None while the
            segments are being gone through, and the bias is not in use.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bank: str
    queries: Canaries = Field(repr=False)
    sharpness: float = Field(gt=0, allow_inf_nan=False)
    weight: float = Field(ge=0, le=1)
    mean: float | None = None

    def of(self, payload: Mapping[str, Any] | None) -> float:
        """Return b(v) of the segment with this payload."""
        value = (payload or {}).get(BIAS)
        return float(self.mean or 0.0 if value is None else value)

    def fits(self, queries: ArrayLike) -> bool:
        """Return whether the bias is for queries of an adapter, by what it makes of the probes.

        Args:
            queries: `TextSide.probes` as the adapter turns them into queries, (4, d), of any norm.
        """
        adapted = unit(np.asarray(queries, np.float32))
        if adapted.shape != np.shape(self.queries):
            return False
        return bool(np.min(np.sum(adapted * np.asarray(self.queries), axis=1)) >= _SAME_QUERIES)

    def beside(self, adapter: Adapter, texts: FloatArray, strength: float = 1.0) -> tuple[Adapter, float]:
        """Return the adapter and the weight of the bias that a search takes together.

        Args:
            adapter: an adapter.
            texts: probes of the text space (`Space.probes`), (4, d).
            strength: movement of its queries.

        Returns:
            The adapter and `weight`, where the bias is for its queries. For a query bank behind such queries, as
            is the one that the bias was made of: the bank with half of its weight, and seven tenths of `weight`,
            since each side corrects a part. Else the adapter and 0.
        """
        from dits_adapter.adapters import QueryBankAdapter

        if isinstance(adapter, QueryBankAdapter):
            inner = adapter.inner
            if self.fits(texts if inner is None else inner.adapt(texts, strength=strength)):
                return adapter.beside_bias(), BESIDE_BANK * self.weight
        return adapter, self.weight if self.fits(adapter.adapt(texts, strength=strength)) else 0.0


@dataclass(frozen=True, eq=False)
class BiasBank:
    """Bank of other queries, from which the score bias of a collection is computed.

    Attributes:
        vectors: the queries as they search, adapted where an adapter is used, (n, d) float32 of unit norm.
        space: the embedding space of the collections that they search.
        queries: see `ScoreBias.queries`.
    """

    vectors: FloatArray = field(repr=False)
    space: EmbeddingSpace
    queries: Canaries = field(repr=False)

    @classmethod
    @name_missing_extra("a bank")
    def from_pretrained(cls, id_or_path: str | PathLike[str]) -> BiasBank:
        """Load the bank of an artifact that `dits-adapter bank` or `train --bank` wrote.

        Raises:
            ArtifactError: no artifact, or a damaged one.
            InputError: an adapter without a bank.
        """
        from dits_adapter.artifact.artifact import Artifact

        return cls.of(Artifact.load(id_or_path), str(id_or_path))

    @classmethod
    def of(cls, artifact: Artifact, name: str = "the artifact") -> BiasBank:
        """Return the bank of a loaded artifact; `name` is its name, for the message.

        Raises:
            InputError: an adapter without a bank.
        """
        from dits_adapter.adapters import QueryBankAdapter

        adapter = artifact.adapter
        if not isinstance(adapter, QueryBankAdapter):
            raise InputError(
                f"{name}: is an adapter of kind {adapter.kind}, without a bank of queries; make one with "
                "dits-adapter bank QUERIES --adapter ID --out FOLDER."
            )
        queries = artifact.space.text.probes
        if adapter.inner is not None:
            queries = unit(adapter.inner.for_inference().adapt(queries))
        rounded = np.round(queries.astype(np.float64), 6).tolist()
        return cls(unit(adapter.bank.numpy()), artifact.space, tuple(map(tuple, rounded)))

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the vectors."""
        return hashlib.sha256(np.ascontiguousarray(self.vectors, "<f4").tobytes()).hexdigest()

    def record(self, sample: NDArray[np.floating], weight: float = BIAS_WEIGHT) -> ScoreBias:
        """Return the record of a new bias, whose sharpness is that of a sample of the collection, (m, d).

        Raises:
            InputError: as `bias_sharpness`, or a weight outside 0 to 1.
        """
        check_weight(weight)
        sharpness = bias_sharpness(sample, self.vectors)
        return ScoreBias(bank=self.digest, queries=self.queries, sharpness=sharpness, weight=weight)

    def biases(self, vectors: NDArray[np.floating], bias: ScoreBias) -> list[float]:
        """Return b(v) of stored vectors, (m, d)."""
        return [float(value) for value in score_bias(vectors, self.vectors, sharpness=bias.sharpness)]


def check_weight(weight: float) -> None:
    """Refuse a weight of the bias outside 0 to 1.

    Raises:
        InputError: naming it.
    """
    if not (isinstance(weight, Real) and 0 <= weight <= 1):
        raise InputError(
            f"the weight of the bias is {weight!r}; it goes from 0 (none) to 1, and {BIAS_WEIGHT} is good."
        )
