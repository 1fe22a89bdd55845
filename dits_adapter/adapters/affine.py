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
from dits_adapter.adapters.registry import AdapterEntry, register_entry
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


def _unit_float64(vectors: _Floats) -> NDArray[np.float64]:
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def mean_shift(text: _Floats, video: _Floats) -> AffineAdapter:
    """Add the difference of the two modalities' means: A = I, b = μ_v − μ_t.

    Args:
        text: text embeddings, (n, d); normalized here, as all fits do.
        video: embeddings of the matching videos, row by row, (n, d).
    """
    t, v = _unit_float64(text), _unit_float64(video)
    return fitted_affine("mean-shift", np.eye(t.shape[1]), v.mean(0) - t.mean(0))


def procrustes(text: _Floats, video: _Floats) -> AffineAdapter:
    """Rotate centered texts onto centered videos (orthogonal Procrustes), then shift to the videos' mean."""
    from scipy.linalg import orthogonal_procrustes

    t, v = _unit_float64(text), _unit_float64(video)
    rotation = orthogonal_procrustes(t - t.mean(0), v - v.mean(0))[0]
    return fitted_affine("procrustes", rotation.T, v.mean(0) - t.mean(0) @ rotation)


def ridge(text: _Floats, video: _Floats, penalty: float) -> AffineAdapter:
    """Fit least squares with intercept from texts to videos: A minimizes Σ‖A t + b − v‖² + n · penalty · ‖A‖².

    Args:
        text: text embeddings, (n, d), or of another width.
        video: embeddings of the matching videos, row by row, (n, d).
        penalty: weight of ‖A‖² relative to the n pairs; choose it on held-out videos.
    """
    t, v = _unit_float64(text), _unit_float64(video)
    t0, v0 = t - t.mean(0), v - v.mean(0)
    gram = t0.T @ t0 + len(t) * penalty * np.eye(t.shape[1])
    weight = np.linalg.solve(gram, t0.T @ v0).T
    return fitted_affine("ridge", weight, v.mean(0) - weight @ t.mean(0))


def _chance(text: _Floats, video: _Floats) -> AffineAdapter:
    """Turn every text into the mean of the videos: what is found without a look at the query."""
    return fitted_affine("chance", np.zeros((video.shape[1], text.shape[1])), _unit_float64(video).mean(0))


for _name, _closed_form in {
    "identity": lambda text, video: [AffineAdapter(AffineConfig(width=text.shape[1])).eval()],
    "mean-shift": lambda text, video: [mean_shift(text, video)],
    "procrustes": lambda text, video: [procrustes(text, video)],
    "ridge": lambda text, video: [ridge(text, video, penalty) for penalty in _RIDGE_PENALTIES],
}.items():
    register_entry(AdapterEntry(_name, AffineAdapter, {"method": _name}, _closed_form, compared=True))
register_entry(
    AdapterEntry("chance", AffineAdapter, {"method": "chance"}, lambda text, video: [_chance(text, video)])
)
register_entry(AdapterEntry("contrastive-linear", AffineAdapter, {"method": "contrastive-linear"}, compared=True))
