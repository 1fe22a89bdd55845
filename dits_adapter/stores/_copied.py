"""Parts of a copy that all stores share: values that are the same, and records that are written last."""

from __future__ import annotations

import math
from typing import Any

from dits_adapter.errors import StoreError
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.stores.text_lane import UNFINISHED

__all__ = ["begin_records", "same_value", "unfinished", "write_records"]


def same_value(first: Any, second: Any) -> bool:
    """Compare values of payloads; a database may read a decimal number back as the next float to it."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same_value(v, second[key]) for key, v in first.items())
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same_value, first, second))
    if isinstance(first, float) and isinstance(second, float | int):
        return math.isclose(first, second, rel_tol=1e-12)
    return bool(first == second)


def unfinished(metadata: CollectionMetadata) -> CollectionMetadata:
    """Return the metadata of a copy under way: not all biases and texts that the records are of are there yet.

    Searches leave such a bias out, and make their index of such texts anew when these are complete.
    """
    bias, texts = metadata.bias, metadata.texts
    return metadata.model_copy(
        update={
            "bias": bias and bias.model_copy(update={"mean": None}),
            "texts": texts and texts.model_copy(update={"revision": UNFINISHED}),
        }
    )


def begin_records(destination: VideoStore, metadata: CollectionMetadata) -> None:
    """Write the source's records of bias and texts as unfinished, where the destination has not just these.

    Raises:
        StoreError: they would take biases or texts of other tenants away, or have them taken for other ones.
    """
    existing = destination.metadata() or metadata
    if destination.tenant is not None:
        bias, texts = existing.bias, existing.texts
        lost = [("a score bias", "bias")] if bias and _numbers(bias) != _numbers(metadata.bias) else []
        if texts and (metadata.texts is None or metadata.texts.language != texts.language):
            lost.append(("texts", "texts"))
        for what, command in lost:
            raise StoreError(
                f"the collection {destination.collection!r} has {what}, of other tenants too, and the source has "
                "none or others. Copy to another name (--to), or take them away first "
                f"(dits-adapter {command} --remove)."
            )
    if (existing.bias, existing.texts) != (metadata.bias, metadata.texts):
        write_records(destination, unfinished(metadata))


def _numbers(bias: ScoreBias | None) -> object:
    """Return what the numbers beside segments are computed by."""
    return bias and (bias.bank, bias.sharpness)


def write_records(destination: VideoStore, metadata: CollectionMetadata) -> None:
    """Write the records of bias and texts, where they differ; None takes biases or texts away."""
    existing = destination.metadata() or metadata
    if existing.bias != metadata.bias:
        destination.set_bias(metadata.bias)
    if existing.texts != metadata.texts:
        destination.set_texts(metadata.texts)
