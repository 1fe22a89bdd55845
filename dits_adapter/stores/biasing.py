"""Score bias of the segments of a collection: computed, kept up to date and taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from dits_adapter._progress import progress_bar
from dits_adapter.errors import InputError, StoreError
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import BIAS, BiasBank, ScoreBias, check_weight
from dits_adapter.stores.requests import ReadRequest
from dits_adapter.stores.rows import SegmentRow

__all__ = ["apply_bias", "bias_of_new", "remove_bias"]

_SAMPLE = 4096
"""Segments whose vectors decide the sharpness: the first by their ids, which are hashes."""

_BATCH = 256
"""Segments whose biases are computed and written at a time."""


def apply_bias(store: VideoStore, bank: BiasBank, *, weight: float = BIAS_WEIGHT, progress: bool = True) -> int:
    """Compute the score bias of each segment of a collection and keep it beside the segment.

    Searches use it once all segments have one. Interrupted, the same call goes on where it ended; called again, it
    adds the biases of segments that were stored without. Another bank replaces that of before, and meanwhile
    searches do without. Some hundred vectors are in memory at a time. Where the collection keeps tenants apart,
    the segments are those of the store's tenant: call it for each of them.

    Args:
        store: the collection; its scores are cosines.
        bank: the bank, of the same space.
        weight: part w of the bias that a search takes from a score.
        progress: show a progress bar on a terminal.

    Returns:
        How many segments got a bias.

    Raises:
        InputError: a store that keeps no bias, scores that are no cosines, a weight outside 0 to 1, no segments,
            or a bank whose cosines with them are all alike.
        SpaceMismatchError: the bank is of another space.
        StoreError: as `VideoStore.open`.
    """
    check_weight(weight)
    _require_able(store)
    space = store.open()
    bank.space.video.require(space.video, mine="the bank", theirs=f"the collection {store.name!r}")
    if not store.cosine:
        raise InputError(f"the scores of the collection {store.name!r} are no cosines, and a bias is of cosines.")
    bias = _bias(store)
    if bias is None or bias.bank != bank.digest:
        sample = [s.vector for s in store.read(ReadRequest(limit=_SAMPLE, vectors=True)) if s.vector is not None]
        if not sample:
            raise InputError(f"the collection {store.name!r} has no segments; ingest videos first.")
        bias = bank.record(np.stack(sample), weight)
        store.set_bias(None)  # numbers of another bank, or of a record that is gone
        store.set_bias(bias)
    written, total, count = 0, 0.0, 0
    segments = (s for s in store.read(ReadRequest(vectors=True)) if s.vector is not None)
    what = f"{store.collection}: bias"
    with progress_bar(total=store.count(), unit="segment", desc=what, progress=progress) as bar:
        while batch := list(islice(segments, _BATCH)):
            missing = [s for s in batch if s.payload.get(BIAS) is None]
            values = {s.id: bias.of(s.payload) for s in batch}
            if missing:
                fresh = bank.biases(np.stack([s.vector for s in missing if s.vector is not None]), bias)
                biases = {s.id: value for s, value in zip(missing, fresh, strict=True)}
                store.write_biases(biases)
                values |= biases
            written, count = written + len(missing), count + len(batch)
            total += sum(values.values())
            bar.update(len(batch))
    mean = total / count if bias.mean is None else bias.mean
    store.set_bias(bias.model_copy(update={"mean": mean, "weight": weight}))
    store.finish()
    return written


def remove_bias(store: VideoStore) -> bool:
    """Remove the score bias of a collection, of all tenants; return whether there was one.

    Raises:
        InputError: a store that keeps no bias.
        StoreError: as `VideoStore.open`.
    """
    _require_able(store)
    store.open()
    there_was = _bias(store) is not None
    store.set_bias(None)
    return there_was


def bias_of_new(
    store: VideoStore, bank: BiasBank | None
) -> Callable[[Sequence[SegmentRow]], list[SegmentRow]] | None:
    """Return a function that gives new segments their bias; None where the collection has none, or without a bank.

    Raises:
        InputError: a bank for a collection without a bias.
        StoreError: another bank than the collection's.
    """
    bias = _bias(store)
    if bank is None:
        return None
    if bias is None:
        raise InputError(
            f"the collection {store.name!r} has no score bias that new videos could be given; leave the bank out, "
            "and apply it to the collection afterwards (dits-adapter bias)."
        )
    if bias.bank != bank.digest:
        raise StoreError(
            f"the score bias of the collection {store.name!r} is of another bank ({bias.bank[:12]}… instead of "
            f"{bank.digest[:12]}…). Give that bank, or replace the bias with this one (dits-adapter bias)."
        )

    def biased(rows: Sequence[SegmentRow]) -> list[SegmentRow]:
        biases = bank.biases(np.stack([row.vector for row in rows]), bias)
        return [replace(row, bias=value) for row, value in zip(rows, biases, strict=True)]

    return biased


def _bias(store: VideoStore) -> ScoreBias | None:
    metadata = store.metadata()
    return None if metadata is None else metadata.bias


def _require_able(store: VideoStore) -> None:
    if not store.capabilities.bias:
        raise InputError(f"the store at {store.location} keeps no score bias.")
