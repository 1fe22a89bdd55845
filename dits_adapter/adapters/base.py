"""`Adapter`: the base class of maps of text embeddings to the video side, and its capabilities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from dits_adapter._reprs import short_repr
from dits_adapter.errors import InputError
from dits_adapter.vectors import check_directions, check_vectors

__all__ = ["Adapter", "Family", "Initializer", "PairLoss", "cosines", "interpolate_on_sphere"]

Vectors = TypeVar("Vectors", np.ndarray[Any, Any], Tensor)

Family = Literal["plain", "bank", "linear", "network", "paired"]
"""Cost class of an adapter, from cheap to dear; `bank` needs no pairs, `paired` runs on pairs and searches no
index."""

PairLoss = Callable[[Any, Tensor, Tensor], Tensor]
"""Loss of matching pairs: (adapter, text (n, d), their videos (n, d)) -> scalar."""


class Initializer(Protocol):
    """Services of a training run for `Adapter.initialize`: cheaper fits on the same pairs, and pre-training."""

    def closed_form(self) -> Adapter:
        """Return the affine adapter in closed form that is best on the validation pairs."""

    def contrastive_linear(self) -> Adapter:
        """Return the affine adapter that was trained by contrast from `closed_form`."""

    def pretrain(self, adapter: Adapter, loss: PairLoss) -> None:
        """Train the adapter in place by a loss of matching pairs instead of contrast."""


class Adapter(nn.Module, ABC):
    """Map of text embeddings towards video embeddings, of the same space or of another one.

    A subclass is its config, its weights and `forward`; both are all that an artifact saves. The other members
    are capabilities with defaults: a subclass overrides those in which it differs. `register_adapter` makes it
    known to recipes, artifacts and commands.

    Attributes:
        kind: name of the class in the registry and in artifacts.
        Config: class of the definition, a pydantic model with a field `width`; all that `__init__` needs. With a
            field `text_width`, None by default, the class can lead from texts of another space and width.
        linear: True where `forward` is an affine map of the unit text.
        config: definition of this adapter.
        noise: source of randomness in training, set by the training run.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    linear: ClassVar[bool] = False
    config: BaseModel
    noise: torch.Generator | None = None

    def __repr__(self) -> str:
        fields = {"width": self.width, **self.config.model_dump(exclude_defaults=True)}
        return short_repr(self, **fields, weights=sum(each.numel() for each in self.state_dict().values()))

    @property
    def width(self) -> int:
        """Dimension d of the embeddings; where texts have another one, that of the videos."""
        return int(self.config.width)  # type: ignore[attr-defined]

    @property
    def text_width(self) -> int:
        """Dimension of the text embeddings: `Config.text_width` where the class has that field and it is set."""
        return int(getattr(self.config, "text_width", None) or self.width)

    @abstractmethod
    def forward(self, text: Tensor) -> Tensor:
        """Map text embeddings (n, d) to adapted ones (n, d), differentiably; norms are free."""

    @property
    def is_plain(self) -> bool:
        """True where the adapter moves nothing by definition, so that `adapt` returns its input."""
        return False

    @property
    def needs_video(self) -> bool:
        """True where the result depends on the video too, as in the paper's ablation of conditions (Table 6a).

        `forward` then takes the videos as well, (n, d), row by row. Such an adapter cannot search an index: each
        pair of a text and a video has a vector of its own.
        """
        return False

    @property
    def needs_norm(self) -> bool:
        """True where the result depends on the norm of the text, so that training refuses normalized texts."""
        return False

    @property
    def trains_in_bfloat16(self) -> bool:
        """True where training may multiply in bfloat16 under autocast because all sums stay float32."""
        return False

    @property
    def exportable(self) -> bool:
        """True where the adapter can be written as an ONNX graph."""
        return not self.needs_video

    @property
    def family(self) -> Family:
        """Cost class, by which comparisons choose: a dearer family has to beat the cheaper ones."""
        if self.is_plain:
            return "plain"
        if self.needs_video:
            return "paired"
        return "linear" if self.linear else "network"

    @property
    def steps(self) -> int | None:
        """Truncated timesteps T' of each query; None for an adapter without steps."""
        return None

    @property
    def max_steps(self) -> int | None:
        """Largest number that `with_steps` accepts; None for an adapter without steps."""
        return None

    def with_steps(self, steps: int) -> Adapter:
        """Return an adapter on the same weights that runs another number of steps, 0 … `max_steps`.

        Raises:
            InputError: a number outside that range, or an adapter without steps.
        """
        raise InputError(f"steps cannot be chosen: an adapter of kind {self.kind} has none.")

    @property
    def has_trajectory(self) -> bool:
        """True where `trajectory` returns a path."""
        return False

    def trajectory(self, text: Tensor) -> list[Tensor]:
        """Return the path of texts (n, d) through the adapter, `steps` + 1 tensors (n, d), not normalized.

        Raises:
            InputError: an adapter without a path.
        """
        raise InputError(f"an adapter of kind {self.kind} has no trajectory.")

    def initialize(self, initializer: Initializer) -> None:
        """Set the weights from which training by contrast begins; by default those that `__init__` drew."""

    def similarity(self, text: Tensor, video: Tensor) -> Tensor:
        """Return the scores by which training and evaluation compare texts and videos: cosines (n, m).

        Args:
            text: text embeddings, (n, d).
            video: videos, (m, d), or (n, m, d) where each is pooled under each text (`XPool`).
        """
        if not self.needs_video:
            return cosines(self(text), video)
        n, m = len(text), video.shape[-2]
        pairs = video.expand(n, m, -1)
        return cosines(self(text.repeat_interleave(m, dim=0), pairs.flatten(0, 1)).unflatten(0, (n, m)), pairs)

    def for_inference(self) -> Adapter:
        """Return the adapter's form for inference: equal results with fewer multiplications."""
        return self.eval()

    @torch.inference_mode()
    def adapt(self, vectors: Vectors, *, strength: float = 1.0) -> Vectors:
        """Adapt embeddings that are computed already.

        Args:
            vectors: text embeddings, (n, d), float16, bfloat16, float32 or float64, array or tensor.
            strength: position on the great circle from the text, 0 (plain CLIP), to the adapted vector, 1.

        Returns:
            Unit vectors (n, d) of the type, dtype and device of the input, d that of the videos. With strength 0,
            or an adapter that `is_plain` (DITS with T' = 0), the input itself, bit for bit and not normalized.

        Raises:
            InputError: wrong shape or width, a NaN, infinite or zero row, a strength outside 0 … 1, or an adapter
                that `needs_video`.
        """
        if self.needs_video:
            raise InputError("this adapter depends on the video; it scores pairs (cosine_scores), nothing else.")
        check_vectors(vectors, self.text_width)
        if not 0 <= strength <= 1:
            raise InputError(f"strength is {strength}; it goes from 0 (plain CLIP) to 1 (fully adapted).")
        if strength < 1 and self.text_width != self.width:
            raise InputError(
                f"strength is {strength}; from texts of width {self.text_width} to videos of width {self.width} "
                "a query moves all the way: strength 1."
            )
        if strength == 0 or self.is_plain:
            return vectors
        check_directions(vectors)
        original = torch.as_tensor(vectors)
        text = original.to(next(chain(self.parameters(), self.buffers()), original).device)
        computed = text if text.dtype == torch.float64 else text.float()
        adapted = F.normalize(self(computed), dim=1)
        if strength < 1:
            adapted = interpolate_on_sphere(F.normalize(computed, dim=1), adapted, strength)
        result = adapted.to(original.device, original.dtype)
        return result.numpy() if isinstance(vectors, np.ndarray) else result


def interpolate_on_sphere(start: Tensor, end: Tensor, strength: float | Tensor) -> Tensor:
    """Walk the great circle from `start` to `end`, both (n, d) unit vectors: 0 is the start, 1 the end.

    The direction is the part of `end` orthogonal to `start`, which stays accurate for nearly equal vectors.
    """
    cosine = (start * end).sum(dim=1, keepdim=True)
    orthogonal = end - cosine * start
    sine = orthogonal.norm(dim=1, keepdim=True)
    angle = strength * torch.atan2(sine, cosine)
    direction = orthogonal / sine.clamp_min(torch.finfo(end.dtype).tiny)
    return F.normalize(angle.cos() * start + angle.sin() * direction, dim=1)


def cosines(queries: Tensor, video: Tensor) -> Tensor:
    """Return the cosines (n, m) of queries and videos, float32 or better, under mixed precision too.

    Args:
        queries: adapted texts, (n, d), or (n, m, d) with a vector for each pair.
        video: videos, (m, d), or (n, m, d) with a vector for each pair.
    """
    with torch.autocast(video.device.type, enabled=False):
        video = F.normalize(video, dim=-1)
        queries = F.normalize(queries.to(video.dtype), dim=-1)
        if queries.ndim == video.ndim == 2:
            return queries @ video.T
        return ((queries[:, None] if queries.ndim == 2 else queries) * video).sum(dim=2)
