"""Adapter of a file of queries, without pairs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from dits_adapter._files import sha256
from dits_adapter._wording import counted
from dits_adapter.adapters.bank import LEAST_QUERIES, check_bank_options, draw, fit_query_bank
from dits_adapter.artifact._find import require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.encoders.base import Device
from dits_adapter.errors import InputError
from dits_adapter.tasks.queries import Queries, query_values
from dits_adapter.texts import TextCleaning

__all__ = ["BankReport", "make_bank"]


@dataclass(frozen=True)
class BankReport:
    """Report of a query bank that was made.

    Attributes:
        artifact: the adapter.
        queries: number of distinct queries that were given.
        size: number of them in the bank.
        sharpness: τ of the bank.
        weight: weight of the correction.
        behind: name of the trained adapter that the bank was put behind; None for plain queries.
        written: folder of the artifact; None where none was asked for.
    """

    artifact: Artifact = field(repr=False)
    queries: int
    size: int
    sharpness: float
    weight: float
    behind: str | None
    written: Path | None

    def __str__(self) -> str:
        lines = [
            f"a bank of {self.size:,} of {self.queries:,} queries, sharpness {self.sharpness:.1f}, weight "
            f"{self.weight:g}, behind {self.behind or 'plain queries'}"
        ]
        return "\n".join([*lines, *([] if self.written is None else [f"written to {self.written}"])])


def make_bank(
    queries: Queries,
    model: str | PathLike[str] | DITSQueryEncoder | Artifact,
    out: str | PathLike[str] | None = None,
    *,
    size: int = 4096,
    weight: float = 0.5,
    device: Device = "auto",
    text_cleaning: TextCleaning | None = None,
) -> BankReport:
    """Make an adapter of queries alone, without pairs, and write its artifact.

    It takes from each query what it shares with other queries, so that videos that are near to every text stand
    less in the way (`fit_query_bank`). Give a query log, or captions of the kind, but no captions of videos in the
    collection, which the bank would push down.

    Args:
        queries: path of a file (`read_queries`), texts, or vectors (n, d) as the text encoder gives them.
        model: folder, bundled name or hub id of an encoder, or of a trained adapter to put the bank behind; or one
            that is loaded. An `Artifact` takes vectors alone.
        out: folder of the artifact; an artifact in it is replaced. None writes nothing.
        size: most queries in the bank; of more, as many are drawn.
        weight: part of the bank's weighted mean that a query loses, 0 ≤ weight < 1.
        device, text_cleaning: as for `DITSQueryEncoder.from_pretrained`, with the name of a model.

    Raises:
        ArtifactError: the model cannot be loaded, or `out` holds something else than an artifact.
        InputError: fewer than ten distinct queries, one that is none, an option outside its range, vectors of
            another width than the model's, or a model that is a bank itself.
    """
    check_bank_options(size, weight)
    if out is not None:
        require_free(Path(out).absolute())
    file = Path(queries) if isinstance(queries, str | PathLike) else None
    name = "the queries" if file is None else str(file)
    values = query_values(queries)
    count = len(values)
    if count < LEAST_QUERIES:
        raise InputError(
            f"{name}: holds {counted(count, 'distinct query', 'distinct queries')}; a bank needs "
            f"at least {LEAST_QUERIES}, and hundreds serve better."
        )
    loaded = _loaded(model, device, text_cleaning)
    artifact = loaded if isinstance(loaded, Artifact) else loaded.artifact
    if isinstance(values, list):
        if isinstance(loaded, Artifact):
            raise InputError(f"{name}: holds texts, which an artifact cannot embed; give their vectors (n, d).")
        vectors = loaded.embed([values[row] for row in draw(count, size, seed=0)])
    else:
        vectors = values
    model_name = fspath(model) if isinstance(model, str | PathLike) else "the adapter"
    if vectors.shape[1] != artifact.space.text.width:
        raise InputError(
            f"{name}: holds vectors of width {vectors.shape[1]}; {model_name} has {artifact.space.text.width}."
        )
    bank = fit_query_bank(vectors, size=size, weight=weight, inner=artifact.adapter)
    config = bank.config
    training: dict[str, Any] = {
        "dataset": "queries" if file is None else file.name,
        **({} if file is None else {"sha256": sha256(file)}),
        "queries": count,
        "bank": config.size,
        "weight": config.weight,
        "sharpness": config.sharpness,
        "inner": None if bank.inner is None else artifact.training,
    }
    made = replace(artifact, adapter=bank, training=training, metrics={}, calibration=None)
    return BankReport(
        artifact=made,
        queries=count,
        size=config.size,
        sharpness=config.sharpness,
        weight=config.weight,
        behind=None if bank.inner is None else model_name,
        written=None if out is None else made.save(out),
    )


def _loaded(
    model: str | PathLike[str] | DITSQueryEncoder | Artifact, device: Device, text_cleaning: TextCleaning | None
) -> DITSQueryEncoder | Artifact:
    if isinstance(model, DITSQueryEncoder | Artifact):
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* is an encoder without an adapter")
        return DITSQueryEncoder.from_pretrained(model, backend="torch", device=device, text_cleaning=text_cleaning)
