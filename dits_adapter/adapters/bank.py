"""Query bank: an adapter made of other queries alone, without pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from dits_adapter._wording import validated
from dits_adapter.adapters.base import Adapter, Family
from dits_adapter.adapters.moments import Matches
from dits_adapter.adapters.registry import AdapterEntry, adapter_class, register_entry
from dits_adapter.errors import InputError
from dits_adapter.sampler._limits import Width
from dits_adapter.vectors import FloatArray, check_directions, check_vectors, unit

__all__ = [
    "LEAST_QUERIES",
    "BankedAdapter",
    "QueryBankAdapter",
    "QueryBankConfig",
    "check_bank_options",
    "draw",
    "fit_query_bank",
]

LEAST_QUERIES = 10
"""Fewest distinct queries that a bank is made of."""

_MOST_QUERIES = 2**22
"""Most queries in a bank: 8 GiB at d = 512."""

_SHARPNESS = 1.1
"""Sharpness τ times the spread of the bank's cosines, which makes τ free of an encoder's scale."""

_LEAST_SPREAD = 1e-4
"""Spread of cosines below which they are rounding, and the sharpness would be arbitrary."""

_BESIDE_BIAS = 0.5
"""Part of its weight that a bank keeps where a score bias corrects the other side."""

_BATCH = 1024


class BankedAdapter(BaseModel):
    """Definition of the adapter whose results a bank corrects.

    Attributes:
        kind: its kind in the registry.
        config: its own config.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    config: dict[str, Any]


class QueryBankConfig(BaseModel):
    """Definition of a query bank.

    Attributes:
        width: dimension d.
        size: number n of queries in the bank.
        weight: part w of their weighted mean that a query loses; 0 leaves it as it is.
        sharpness: factor τ of the cosines in the softmax that weighs them.
        inner: adapter that queries pass before, as those in the bank did; None for plain queries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    size: int = Field(ge=1, le=_MOST_QUERIES)
    weight: float = Field(default=0.5, ge=0, lt=1)
    sharpness: float = Field(gt=0, allow_inf_nan=False)
    inner: BankedAdapter | None = None


class QueryBankAdapter(Adapter):
    """y = q − w · softmax(τ q·B) · B, q the unit text or what an inner adapter makes of it, B other queries.

    Videos that lie near to every query are the wrong answers to most. Queries of a bank stand for the direction in
    which such videos lie, and each query steps away from those of them that are near to it. It is one gradient
    step down the energy log Σ exp(τ q·B_j) / τ.

    Args:
        config: the definition.
        bank: unit vectors of the queries, adapted where there is an inner adapter, (n, d); by default zeros, to be
            loaded.
        inner: the adapter in front; by default a fresh one as `config.inner` says.

    Raises:
        InputError: an inner adapter that is unknown, of another width, a bank itself, or dependent on the video.
    """

    kind: ClassVar[str] = "query-bank"
    Config: ClassVar[type[BaseModel]] = QueryBankConfig
    config: QueryBankConfig
    bank: Tensor

    def __init__(self, config: QueryBankConfig, bank: Tensor | None = None, inner: Adapter | None = None) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("bank", torch.zeros(config.size, config.width) if bank is None else bank)
        if inner is None and config.inner is not None:
            _check_kind(config.inner.kind)
            kind: Any = adapter_class(config.inner.kind)
            inner = kind(validated(kind.Config, config.inner.config, at="inner.config."))
        if inner is not None:
            _check_inner(inner, config.width)
        self.inner = inner

    def forward(self, text: Tensor) -> Tensor:
        """Map (n, d) of any norm to (n, d)."""
        query = F.normalize(text if self.inner is None else self.inner(text), dim=1)
        bank = self.bank.to(query.dtype)
        nearness = torch.softmax(self.config.sharpness * (query @ bank.T), dim=1)
        return query - self.config.weight * (nearness @ bank)

    @property
    def text_width(self) -> int:
        """Dimension of the texts, that of the inner adapter's."""
        return self.width if self.inner is None else self.inner.text_width

    @property
    def is_plain(self) -> bool:
        """True with weight 0 and no inner adapter."""
        return self.config.weight == 0 and self.inner is None

    @property
    def needs_norm(self) -> bool:
        """True where the inner adapter does."""
        return self.inner is not None and self.inner.needs_norm

    @property
    def trains_in_bfloat16(self) -> bool:
        """True where the inner adapter does."""
        return self.inner is not None and self.inner.trains_in_bfloat16

    @property
    def exportable(self) -> bool:
        """True unless the inner adapter is not."""
        return self.inner is None or self.inner.exportable

    @property
    def family(self) -> Family:
        """Family of the inner adapter; without one `bank`, or `plain` with weight 0."""
        if self.inner is not None:
            return self.inner.family
        return "plain" if self.is_plain else "bank"

    def beside_bias(self) -> QueryBankAdapter:
        """Return this bank with half of its weight, .25 instead of .5, as it serves beside a score bias."""
        config = self.config.model_copy(update={"weight": _BESIDE_BIAS * self.config.weight})
        return QueryBankAdapter(config, self.bank, self.inner).eval()

    def for_inference(self) -> QueryBankAdapter:
        """Return this bank behind the form of its inner adapter that queries should run on."""
        if self.inner is None:
            return self.eval()
        return QueryBankAdapter(self.config, self.bank, self.inner.for_inference()).eval()


def fit_query_bank(
    vectors: NDArray[np.floating],
    *,
    size: int = 4096,
    weight: float = 0.5,
    inner: Adapter | None = None,
    adapted: NDArray[np.floating] | None = None,
    seed: int = 0,
) -> QueryBankAdapter:
    """Make an adapter from queries alone, without their videos.

    Good queries are those of a query log, or captions of the kind. Captions of videos that are in the searched
    collection push down those very videos: leave them out. The sharpness is τ = 1.1 / sd, sd the standard
    deviation of the cosines between the queries of the bank.

    Args:
        vectors: text embeddings as the encoder gives them, (n, d), of any norm; equal directions count once.
        size: most queries in the bank; of more, this many are drawn. A query costs 2 · size · d multiplications.
        weight: part of the weighted mean of the bank that a query loses, 0 ≤ weight < 1.
        inner: a trained adapter that queries pass before the bank; the bank then holds adapted queries.
        adapted: the same queries as the bank shall hold them, row by row, (n, d): texts that the inner adapter was
            trained on, each adapted by one that had not seen its video (`GentleFit.out_of_fold`). By default the
            inner adapter adapts them.
        seed: decides which queries are drawn.

    Returns:
        The adapter, ready to use.

    Raises:
        InputError: wrong shape, a NaN, infinite or zero row, a size or weight outside its range, fewer than 10
            distinct queries, queries whose cosines are all alike, or an inner adapter that is a bank itself or
            depends on the video.
    """
    check_bank_options(size, weight)
    vectors = np.asarray(vectors)
    check_vectors(vectors, vectors.shape[-1] if vectors.ndim else 0)
    check_directions(vectors)
    inner = None if inner is None or inner.is_plain else inner
    if inner is not None:
        _check_kind(inner.kind)
        _check_inner(inner, inner.width)
        if inner.text_width != vectors.shape[1]:
            raise InputError(
                f"the inner adapter has width {inner.text_width} for texts, the queries {vectors.shape[1]}."
            )
    distinct = _first_of_each(unit(vectors))
    if len(distinct) < LEAST_QUERIES:
        raise InputError(
            f"a bank needs at least {LEAST_QUERIES} distinct queries, and hundreds serve better; there "
            f"{'is' if len(distinct) == 1 else 'are'} {len(distinct)}."
        )
    rows = distinct[draw(len(distinct), size, seed)]
    chosen = vectors[rows]
    if adapted is not None:
        _check_adapted(adapted, vectors)
        chosen = np.asarray(adapted)[rows]
    elif inner is not None:
        ready = inner.for_inference()
        chosen = np.concatenate(
            [ready.adapt(chosen[start : start + _BATCH]) for start in range(0, len(chosen), _BATCH)]
        )
    bank = unit(chosen)
    spread = _spread(bank)
    if spread < _LEAST_SPREAD:
        raise InputError("the cosines between the queries are all alike; a bank needs queries of many kinds.")
    config = QueryBankConfig(
        width=bank.shape[1],
        size=len(bank),
        weight=weight,
        sharpness=_SHARPNESS / spread,
        inner=None if inner is None else _definition(inner),
    )
    return QueryBankAdapter(config, torch.from_numpy(bank), inner).eval()


def check_bank_options(size: int, weight: float) -> None:
    """Refuse options of `fit_query_bank` that are outside their ranges.

    Raises:
        InputError: naming the one that is.
    """
    if size < LEAST_QUERIES:
        raise InputError(f"size is {size}; a bank needs at least {LEAST_QUERIES} queries.")
    if not 0 <= weight < 1:
        raise InputError(f"weight is {weight}; it goes from 0 (no correction) to below 1, and .5 is good.")


def draw(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of at most `size` of `count` queries, drawn at random, in ascending order."""
    if count <= size:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))


def _check_adapted(adapted: NDArray[np.floating], vectors: NDArray[np.floating]) -> None:
    if np.shape(adapted) != vectors.shape:
        raise InputError(f"adapted has shape {np.shape(adapted)}, the queries {vectors.shape}; each has one.")
    check_vectors(adapted, vectors.shape[1])
    check_directions(adapted)


def _check_kind(kind: str) -> None:
    if kind == QueryBankAdapter.kind:
        raise InputError("a bank is put behind a trained adapter or plain queries, not behind another bank.")


def _check_inner(inner: Adapter, width: int) -> None:
    if inner.needs_video:
        raise InputError(f"an adapter of kind {inner.kind} that depends on the video has no queries for a bank.")
    if inner.width != width:
        raise InputError(f"the inner adapter has width {inner.width}, the bank has {width}.")


def _definition(inner: Adapter) -> BankedAdapter:
    return BankedAdapter(kind=inner.kind, config=inner.config.model_dump(mode="json"))


def _first_of_each(vectors: FloatArray) -> NDArray[np.int64]:
    """Return the first row of each distinct vector of (n, d), in ascending order."""
    rows = {row.tobytes(): at for at, row in zip(range(len(vectors) - 1, -1, -1), vectors[::-1], strict=True)}
    return np.sort(np.fromiter(rows.values(), np.int64, len(rows)))


def _spread(bank: FloatArray) -> float:
    """Return the standard deviation of the cosines of all n (n − 1) pairs of unit vectors (n, d).

    Sums of cosines are ‖Σ B_j‖² and of their squares ‖Bᵀ B‖²: there is no matrix of n × n.
    """
    rows = bank.astype(np.float64)
    norms = np.sum(rows**2, axis=1)
    pairs = len(rows) * (len(rows) - 1)
    mean = (np.sum(rows.sum(axis=0) ** 2) - norms.sum()) / pairs
    square = (np.sum((rows.T @ rows) ** 2) - np.sum(norms**2)) / pairs
    return float(np.sqrt(max(0.0, square - mean**2)))


def _refuse(pairs: Matches) -> Sequence[Adapter]:
    raise InputError(
        "a query bank is made of other queries than those of the pairs, whose videos it would push down: "
        "dits-adapter bank QUERIES --adapter ID --out FOLDER."
    )


register_entry(AdapterEntry(QueryBankAdapter.kind, QueryBankAdapter, closed_form=_refuse))
