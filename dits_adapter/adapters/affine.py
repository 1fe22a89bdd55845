"""Affine adapters y = A x + b on unit text embeddings: one class, five fits of A and b.

An affine adapter needs microseconds a query: the baseline that DITS has to beat.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from dits_adapter.adapters.base import Adapter, Family, Initializer
from dits_adapter.adapters.moments import Matches, Moments, Rows
from dits_adapter.adapters.registry import AdapterEntry, ClosedForm, register_entry
from dits_adapter.sampler._limits import Width

__all__ = ["AffineAdapter", "AffineConfig", "fitted_affine", "mean_shift", "procrustes", "ridge"]

_Floats = NDArray[np.floating]

_RIDGE_PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


class AffineConfig(BaseModel):
    """Definition of an affine adapter.

    Attributes:
        width: dimension d; of the videos, where texts have another one.
        method: fit of A and b: `identity`, `mean-shift`, `procrustes`, `ridge`, `reduced-rank`, `chance`,
            `contrastive-linear` or `gentle-linear`.
        text_width: dimension of the texts, where they are of another space than the videos.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: Width
    method: Literal[
        "identity",
        "mean-shift",
        "procrustes",
        "ridge",
        "reduced-rank",
        "chance",
        "contrastive-linear",
        "gentle-linear",
    ] = "identity"
    text_width: Width | None = Field(default=None, exclude_if=lambda width: width is None)

    @model_validator(mode="after")
    def _possible(self) -> AffineConfig:
        if self.text_width not in (None, self.width) and self.method in ("identity", "mean-shift", "procrustes"):
            raise ValueError(f"{self.method} is a map of texts and videos of one width")
        return self


class AffineAdapter(Adapter):
    """Affine adapter y = A x / ‖x‖ + b, the identity until it is fitted or trained."""

    kind: ClassVar[str] = "affine"
    Config: ClassVar[type[BaseModel]] = AffineConfig
    linear: ClassVar[bool] = True
    config: AffineConfig

    def __init__(self, config: AffineConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.eye(config.width, config.text_width or config.width))
        self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, text: Tensor) -> Tensor:
        """Map (n, `text_width`) of any norm to (n, d)."""
        return F.linear(F.normalize(text, dim=1), self.weight.to(text.dtype), self.bias.to(text.dtype))

    def initialize(self, initializer: Initializer) -> None:
        """Set A and b to the closed form that is best on the validation pairs."""
        self.load_state_dict(initializer.closed_form().state_dict())

    @property
    def is_plain(self) -> bool:
        """True for the method `identity`."""
        return self.config.method == "identity"

    @property
    def family(self) -> Family:
        """`plain` for the method `chance` too, whose queries do not depend on the text."""
        return "plain" if self.config.method == "chance" else super().family


def fitted_affine(method: str, weight: _Floats, bias: _Floats) -> AffineAdapter:
    """Return the adapter y = weight · x + bias, (d, `text_width`) and (d,), of a named fit."""
    width, text_width = weight.shape
    config = {"width": width, "method": method, "text_width": None if text_width == width else text_width}
    adapter = AffineAdapter(AffineConfig.model_validate(config))
    adapter.load_state_dict(
        {
            "weight": torch.tensor(weight, dtype=torch.float32),
            "bias": torch.tensor(bias, dtype=torch.float32),
        }
    )
    return adapter.eval()


def mean_shift(text: Rows, video: Rows) -> AffineAdapter:
    """Add the difference of the two modalities' means: A = I, b = μ_v − μ_t.

    Args:
        text: text embeddings, (n, d); normalized here, as all fits do, and read block by block.
        video: embeddings of the matching videos, row by row, (n, d).

    Raises:
        InputError: no rows, or one that is zero or not finite.
    """
    return _mean_shift(Moments.of(Matches(text, video)))


def _mean_shift(pairs: Moments) -> AffineAdapter:
    return fitted_affine("mean-shift", np.eye(len(pairs.text)), pairs.video - pairs.text)


def procrustes(text: Rows, video: Rows) -> AffineAdapter:
    """Rotate centered texts onto centered videos (orthogonal Procrustes), then shift to the videos' mean.

    Where pairs are fewer than dimensions, directions that no pair tells of are turned as little as possible: many
    rotations fit the pairs alike, and this one is nearest to the identity.

    Args:
        text, video: as for `mean_shift`.
    """
    return _procrustes(Moments.of(Matches(text, video)))


def _procrustes(pairs: Moments) -> AffineAdapter:
    left, sizes, right = np.linalg.svd(pairs.text_video)
    rotation = left @ right
    untold = sizes <= sizes[0] * np.finfo(np.float32).eps
    if untold.any():  # the decomposition turns these directions as it happens to
        first, _, second = np.linalg.svd(left[:, untold].T @ right[untold].T)
        rotation = left[:, ~untold] @ right[~untold] + left[:, untold] @ first @ second @ right[untold]
    return fitted_affine("procrustes", rotation.T, pairs.video - pairs.text @ rotation)


def ridge(text: Rows, video: Rows, penalty: float) -> AffineAdapter:
    """Fit least squares with intercept from texts to videos: A minimizes Σ‖A t + b − v‖² + n · penalty · ‖A‖².

    Args:
        text: text embeddings, (n, d), or of another width.
        video: embeddings of the matching videos, row by row, (n, d).
        penalty: weight of ‖A‖² relative to the n pairs; choose it on held-out videos.
    """
    return _ridge(Moments.of(Matches(text, video)), penalty)


def _ridge(pairs: Moments, penalty: float) -> AffineAdapter:
    gram = pairs.text_text + pairs.count * penalty * np.eye(len(pairs.text))
    weight = np.linalg.solve(gram, pairs.text_video).T
    return fitted_affine("ridge", weight, pairs.video - weight @ pairs.text)


def _chance(pairs: Moments) -> AffineAdapter:
    """Turn every text into the mean of the videos: what is found without a look at the query."""
    return fitted_affine("chance", np.zeros(pairs.text_video.T.shape), pairs.video)


_CLOSED_FORMS: dict[str, ClosedForm] = {
    "identity": lambda pairs: [AffineAdapter(AffineConfig(width=pairs.text.shape[1])).eval()],
    "mean-shift": lambda pairs: [_mean_shift(pairs.moments)],
    "procrustes": lambda pairs: [_procrustes(pairs.moments)],
    "ridge": lambda pairs: [_ridge(pairs.moments, penalty) for penalty in _RIDGE_PENALTIES],
}
for _name, _closed_form in _CLOSED_FORMS.items():
    register_entry(AdapterEntry(_name, AffineAdapter, {"method": _name}, _closed_form, compared=True))
register_entry(AdapterEntry("chance", AffineAdapter, {"method": "chance"}, lambda pairs: [_chance(pairs.moments)]))
register_entry(AdapterEntry("contrastive-linear", AffineAdapter, {"method": "contrastive-linear"}, compared=True))
