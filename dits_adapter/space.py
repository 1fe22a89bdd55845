"""Embedding spaces: the identity of the space a vector lives in, and the comparison of two of the same width.

Two encoders of the same width give vectors that no dimension check can distinguish. An `EmbeddingSpace` travels
with every adapter, cache and collection; opening one of another space is refused by name.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from dits_adapter.errors import SpaceMismatchError
from dits_adapter.texts import TextCleaning
from dits_adapter.vectors import EmbeddedClips, FloatArray

__all__ = [
    "CANARY_COSINE",
    "CANARY_TEXTS",
    "Canaries",
    "Embedder",
    "EmbeddingSpace",
    "canary_images",
]


class Embedder(Protocol):
    """Part of an encoder that describes its space; `dits_adapter.encoders.Encoder` is the whole."""

    @property
    def name(self) -> str:
        """Hub id, or name of the folder."""

    @property
    def revision(self) -> str | None:
        """Revision of the hub; None in a folder."""

    @property
    def width(self) -> int:
        """Dimension d of the space."""

    @property
    def digest(self) -> str:
        """SHA-256 of all weights, 64 hex digits."""

    @property
    def text_cleaning(self) -> TextCleaning:
        """Cleaning that `embed_texts` does first (`dits_adapter.texts`)."""

    @property
    def clip_frames(self) -> int | None:
        """Number of frames that each clip of `embed` must have; None for any number."""

    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts, `batch_size` a forward pass: (n, d) float32, not normalized."""

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Turn (h, w, 3) RGB frames, each for itself, into the input of `embed`: (n, …) float32."""

    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed clips of equally many preprocessed frames, (f, …) each.

        Args:
            clips: the clips.
            batch_size: frames a forward pass.
        """


CANARY_TEXTS = (
    "a photo of a dog",
    "a red car drives past two people",
    "someone is cooking in a kitchen",
    "the night sky over a lake",
)
CANARY_COSINE = 0.999
"""Vectors of one canary that agree to this cosine are the same: half precision passes, another model fails."""

Canaries = tuple[tuple[float, ...], ...]


def canary_images() -> list[np.ndarray]:
    """Return two fixed (96, 128, 3) uint8 RGB images: a color gradient and rings, from integer arithmetic."""
    y, x = np.mgrid[0:96, 0:128]
    gradient = np.stack([x * 2, y * 2, (x + y) % 256], axis=-1)
    rings = (((x - 64) ** 2 + (y - 48) ** 2) // 256 % 2 * 200)[..., None] + np.array([20, 40, 10])
    return [gradient.astype(np.uint8), rings.astype(np.uint8)]


def _canaries(vectors: FloatArray) -> Canaries:
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return tuple(tuple(round(float(value), 6) for value in row) for row in scaled)


class EmbeddingSpace(BaseModel):
    """Embedding space: the encoder, the pooling and the normalization behind a set of vectors.

    Encoder, width and normalization decide whether a text and a video can be compared. Pooling and frames say how
    a video became a vector: they have to be the same within one collection or cache, while queries search any.

    Attributes:
        encoder: hub id or folder name of the encoder, for people; not part of the identity.
        revision: hub revision of the encoder, likewise.
        weights_sha256: digest of all its weights (`Embedder.digest`).
        pooling: pooling of frame vectors to one video vector: `mean` of unit frame vectors, or by the `encoder`,
            which sees clips as a whole.
        frames: frames sampled a segment; None where it is not known, or of no matter, as for plain queries.
        normalization: `l2`: stored vectors have unit norm.
        width: dimension d.
        text_cleaning: cleaning of texts before they are tokenized. Vectors of videos do not depend on it: it is no
            part of the fingerprint, and spaces that differ in nothing else share their collections.
        canary_texts: unit vectors of `CANARY_TEXTS`, (4, d).
        canary_images: unit vectors of `canary_images()`, (2, d); they see the preprocessing too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str
    revision: str | None = None
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    pooling: Literal["mean", "encoder"] = "mean"
    frames: int | None = Field(default=12, ge=1)
    normalization: Literal["l2"] = "l2"
    width: int = Field(ge=1)
    text_cleaning: TextCleaning = Field(default="none", exclude_if=lambda cleaning: cleaning == "none")
    canary_texts: Canaries
    canary_images: Canaries

    @classmethod
    def of(cls, encoder: Embedder, *, frames: int | None = 12) -> EmbeddingSpace:
        """Describe the space of a loaded encoder; embeds the canaries, which takes a few milliseconds."""
        still = encoder.clip_frames or 1
        embedded = encoder.embed([encoder.preprocess([image] * still) for image in canary_images()])
        pooled = embedded.pooled if embedded.frames is None else embedded.frames[:, 0]
        assert pooled is not None
        return cls(
            encoder=encoder.name,
            revision=encoder.revision,
            weights_sha256=encoder.digest,
            pooling="mean" if embedded.pooled is None else "encoder",
            frames=frames,
            width=encoder.width,
            text_cleaning=encoder.text_cleaning,
            canary_texts=_canaries(encoder.embed_texts(CANARY_TEXTS)),
            canary_images=_canaries(pooled),
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the space in file names, payloads and messages."""
        identity = [self.weights_sha256, self.pooling, self.frames, self.normalization, self.width]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        frames = "any number of" if self.frames is None else self.frames
        cleaned = "" if self.text_cleaning == "none" else f", texts cleaned: {self.text_cleaning}"
        return f"{self.encoder} [{self.fingerprint}; d={self.width}, {frames} frames, {self.pooling}{cleaned}]"

    def differences(self, other: EmbeddingSpace, *, texts: bool = True) -> list[str]:
        """List in words the differences that keep vectors of two spaces from being compared; empty if none do.

        Weights that differ in their bytes but not in what they compute (a half-precision copy) pass with a
        warning: the canaries decide.

        Args:
            other: the space to compare with.
            texts: compare the cleaning of texts, too. False where one of the two has vectors of videos alone, as
                a collection has.
        """
        differences = [
            f"{field} {getattr(self, field)!r} against {getattr(other, field)!r}"
            for field in ("width", "normalization")
            if getattr(self, field) != getattr(other, field)
        ]
        if self.width != other.width:
            return differences
        lowest = 1.0
        for field, name in (("canary_texts", "text"), ("canary_images", "image")):
            cosine = float(np.min(np.sum(np.asarray(getattr(self, field)) * getattr(other, field), axis=1)))
            lowest = min(lowest, cosine)
            if cosine < CANARY_COSINE:
                differences.append(
                    f"the encoders embed the same test {name}s differently (cosine down to {cosine:.3f})"
                )
        if not differences and self.weights_sha256 != other.weights_sha256:
            warnings.warn(
                f"{self.encoder} and {other.encoder} have different weights but embed the test texts and images "
                f"alike (cosine of at least {lowest:.5f}); they are taken for one space. A copy in another "
                "precision is no matter, but an encoder trained further (train-joint) needs an index of its own.",
                stacklevel=3,
            )
        return differences + (self._differences_of_texts(other) if texts else [])

    def _differences_of_texts(self, other: EmbeddingSpace) -> list[str]:
        if self.text_cleaning == other.text_cleaning:
            return []
        return [f"text_cleaning {self.text_cleaning!r} against {other.text_cleaning!r}"]

    def _differences_of_videos(self, other: EmbeddingSpace) -> list[str]:
        """List in words what made the videos of two spaces vectors otherwise; unknown frames are no difference."""
        return [
            f"{field} {mine!r} against {theirs!r}"
            for field in ("frames", "pooling")
            if None not in (mine := getattr(self, field), theirs := getattr(other, field)) and mine != theirs
        ]

    def require(
        self, other: EmbeddingSpace, *, mine: str, theirs: str, texts: bool = True, together: bool = False
    ) -> None:
        """Refuse another space than this one.

        Videos of other frames or another pooling are in the same space: queries find them, with a warning, since
        an adapter is trained for one kind of them.

        Args:
            other: the space to compare with.
            mine: owner of this space, for the message ("the adapter demo-dits").
            theirs: owner of the other space ("the collection videos").
            texts: see `differences`.
            together: the videos of both are to be kept together: other frames or another pooling are refused.

        Raises:
            SpaceMismatchError: naming both sides and every difference.
        """
        differences = self.differences(other, texts=texts)
        if differences and differences == self._differences_of_texts(other):
            remedy = "Embed the texts again, cleaned as the other ones; the vectors of videos can stay."
        else:
            remedy = (
                "Vectors of the two cannot be compared. Use an adapter trained for that encoder, or embed "
                "the videos again with the encoder of this one."
            )
        if differences:
            raise SpaceMismatchError(
                f"{mine} belongs to the embedding space {self}, {theirs} to {other}: {'; '.join(differences)}. "
                + remedy
            )
        sampled = self._differences_of_videos(other)
        if sampled and together:
            raise SpaceMismatchError(
                f"{mine} makes vectors of videos otherwise than {theirs}: {'; '.join(sampled)}. They are of one "
                "embedding space, but are not kept together: ask for the same (--frames), or choose another place."
            )
        if sampled:
            warnings.warn(
                f"{mine} is for videos that were embedded otherwise than those of {theirs}: {'; '.join(sampled)}. "
                "Texts find them, and an adapter may gain less than on those that it was trained for.",
                stacklevel=3,
            )
