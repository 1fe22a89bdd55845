"""Sides of an embedding space: the identity of the vectors of texts, or of videos, and its comparison.

Beside digests of the weights a side has canaries, the vectors of fixed texts or images, by which the same weights
in another file are known again.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from dits_adapter._embedders import TextEmbedder, VideoEmbedder
from dits_adapter._wording import validated
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.texts import TextCleaning, shown
from dits_adapter.vectors import FloatArray, unit

__all__ = ["CANARY_COSINE", "CANARY_TEXTS", "Canaries", "TextSide", "VideoSide", "canary_images", "digest_of"]

CANARY_TEXTS = (
    "a photo of a dog",
    "a red car drives past two people",
    "someone is cooking in a kitchen",
    "the night sky over a lake",
)
CANARY_COSINE = 0.999
"""Vectors of one canary that agree to this cosine are the same: half precision passes, another model fails."""

Canaries = tuple[tuple[float, ...], ...]

_DECLARED = re.compile(r"[^\s/@]+/[^\s@]+@[^\s@]+")


def canary_images() -> list[NDArray[np.uint8]]:
    """Return two fixed (96, 128, 3) uint8 RGB images: a color gradient and rings, from integer arithmetic."""
    y, x = np.mgrid[0:96, 0:128]
    gradient = np.stack([x * 2, y * 2, (x + y) % 256], axis=-1)
    rings = (((x - 64) ** 2 + (y - 48) ** 2) // 256 % 2 * 200)[..., None] + np.array([20, 40, 10])
    return [gradient.astype(np.uint8), rings.astype(np.uint8)]


def _canaries(vectors: FloatArray) -> Canaries:
    scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return tuple(tuple(round(float(value), 6) for value in row) for row in scaled)


class _Side(BaseModel):
    """Side of an embedding space: the encoder of texts or of videos, and how it was used.

    A *loaded* side was measured on an encoder: its canaries decide whether it is the same as another one. A
    *declared* one was stated, for vectors whose encoder cannot be loaded: names and width decide.

    Attributes:
        encoder: hub id, folder name, or provider and model.
        revision: revision of the hub, or version of the model.
        weights_sha256: digest of the weights of this side; None where declared.
        width: dimension d.
        canaries: unit vectors of the test inputs, (n, d); None where declared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noun: ClassVar[str]
    canary: ClassVar[str]
    exact: ClassVar[tuple[str, ...]] = ()
    """Fields that have to agree though the canaries do not depend on them."""
    named: ClassVar[tuple[str, ...]] = ()
    """Fields that the canaries depend on, which explain a difference."""

    encoder: str = Field(min_length=1)
    revision: str | None = None
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    width: int = Field(ge=1)
    canaries: Canaries | None = Field(default=None, repr=False)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.weights_sha256 is None) != (self.canaries is None):
            raise ValueError("weights_sha256 and canaries are given together, or neither for a declared encoder")
        if self.canaries is not None and {len(row) for row in self.canaries} != {self.width}:
            raise ValueError(f"canaries are not vectors of width {self.width}")
        return self

    @classmethod
    def declare(cls, name: str, width: int, **fields: Any) -> Self:
        """Describe vectors by what is known of an encoder that cannot be loaded.

        Args:
            name: `provider/model@version`, as `twelvelabs/marengo@2.7`.
            width: dimension d of the vectors.
            fields: other fields of the side that are known.

        Raises:
            InputError: a name of another form, or an impossible width or field.
        """
        if not _DECLARED.fullmatch(name):
            raise InputError(
                f"{shown(name)} declares no encoder; write PROVIDER/MODEL@VERSION, as in twelvelabs/marengo@2.7. "
                "The version is what tells its vectors from those of the next one."
            )
        encoder, _, version = name.partition("@")
        return validated(cls, {"encoder": encoder, "revision": version, "width": width, **fields})

    @property
    def declared(self) -> bool:
        """True where no encoder was loaded: the side was stated."""
        return self.canaries is None

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the side in file names, payloads and messages."""
        origin = [self.encoder, self.revision] if self.declared else [self.weights_sha256]
        return digest_of([*origin, self.width, *self._usage()])

    def _usage(self) -> list[object]:
        """List what of the encoder's use the vectors depend on."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __str__(self) -> str:
        version = f"@{self.revision}" if self.declared and self.revision else ""
        origin = "declared" if self.declared else self.fingerprint
        return f"{self.encoder}{version} [{', '.join([f'{origin}; d={self.width}', *self._words()])}]"

    def _words(self) -> list[str]:
        raise NotImplementedError

    def differences(self, other: Self) -> list[str]:
        """List in words the differences that keep vectors of two sides from being compared; empty if none do.

        Weights that differ in their bytes but not in what they compute (a half-precision copy) pass: the canaries
        decide.
        """
        if self.width != other.width:
            return self._unequal(other, ["width"])
        if self.declared != other.declared:
            declared = self if self.declared else other
            return [f"{declared.encoder} was declared, and cannot be measured beside an encoder that was loaded"]
        if self.declared:
            return self._unequal(other, ["encoder", "revision", *self.named, *self.exact])
        cosine = self._agreement(other)
        if cosine < CANARY_COSINE:
            apart = f"the encoders embed the same test {self.canary}s differently (cosine down to {cosine:.3f})"
            return [apart, *self._unequal(other, [*self.named, *self.exact])]
        return self._unequal(other, self.exact)

    def _agreement(self, other: Self) -> float:
        """Return the least cosine of two canaries; both sides are loaded and of one width."""
        return float(np.min(np.sum(np.asarray(self.canaries) * np.asarray(other.canaries), axis=1)))

    def _unequal(self, other: Self, fields: Sequence[str]) -> list[str]:
        return [
            f"{field} {getattr(self, field)!r} against {getattr(other, field)!r}"
            for field in fields
            if getattr(self, field) != getattr(other, field)
        ]

    def complaint(self, other: Self, mine: str, theirs: str) -> str:
        """Word the differences from another side, owned by `theirs`; empty if there are none."""
        differences = self.differences(other)
        if not differences:
            return ""
        return (
            f"{mine} goes with {self.noun}s of {self}, {theirs} with {self.noun}s of {other}: "
            f"{'; '.join(differences)}."
        )

    def remedy(self, other: Self) -> str:
        """Return the advice that follows a complaint."""
        if self.declared == other.declared or self.width != other.width:
            return self._remedy(other)
        loaded = other if self.declared else self
        return (
            "Declared vectors cannot be checked against an encoder; if they were made by "
            f"{loaded.encoder}, import them again with it as --encoder, which embeds some texts to prove it."
        )

    def _remedy(self, other: Self) -> str:
        raise NotImplementedError

    def require(self, other: Self, *, mine: str, theirs: str) -> None:
        """Refuse another side than this one.

        Args:
            other: the side to compare with.
            mine: owner of this side, for the message ("the adapter demo-dits").
            theirs: owner of the other side ("the encoder that was loaded").

        Raises:
            SpaceMismatchError: naming both and every difference.
        """
        if complaint := self.complaint(other, mine, theirs):
            raise SpaceMismatchError(f"{complaint} {self.remedy(other)}")
        if self.weights_sha256 != other.weights_sha256:
            warnings.warn(
                f"{self.encoder} and {other.encoder} have different weights but embed the test {self.canary}s "
                f"alike (cosine of at least {self._agreement(other):.5f}); they are taken for one. A copy in "
                "another precision is no matter, but an encoder trained further (train-joint) needs an index of "
                "its own.",
                stacklevel=3,
            )


class TextSide(_Side):
    """Texts of an embedding space.

    Attributes:
        encoder, revision, weights_sha256, width: the encoder, and the dimension of its vectors. Digest and
            canaries are None for a declared encoder.
        canaries: unit vectors of `CANARY_TEXTS`, (4, d).
        text_cleaning: cleaning of texts before they are tokenized.
        prompt: words that the encoder puts before each text.
    """

    noun: ClassVar[str] = "text"
    canary: ClassVar[str] = "text"
    exact: ClassVar[tuple[str, ...]] = ("text_cleaning",)
    named: ClassVar[tuple[str, ...]] = ("prompt",)

    text_cleaning: TextCleaning = "none"
    prompt: str = ""

    @classmethod
    def of(cls, encoder: TextEmbedder) -> TextSide:
        """Describe the texts of a loaded encoder; embeds the canaries, which takes a few milliseconds."""
        return cls(
            encoder=encoder.name,
            revision=encoder.revision,
            weights_sha256=encoder.text_digest,
            width=encoder.width,
            canaries=_canaries(encoder.embed_texts(CANARY_TEXTS)),
            text_cleaning=encoder.text_cleaning,
            prompt=encoder.prompt,
        )

    @property
    def probes(self) -> FloatArray:
        """Unit vectors by whose adapted forms an adapter is known, (4, d): the canaries, or fixed random ones."""
        rng = np.random.default_rng(0)
        return unit(rng.normal(size=(4, self.width)) if self.canaries is None else self.canaries)

    def _usage(self) -> list[object]:
        return [self.text_cleaning, self.prompt]

    def _words(self) -> list[str]:
        cleaned = [] if self.text_cleaning == "none" else [f"texts cleaned: {self.text_cleaning}"]
        return cleaned + ([f"prompt: {self.prompt!r}"] if self.prompt else [])

    def _remedy(self, other: Self) -> str:
        if self.differences(other) == self._unequal(other, self.exact):
            return "Embed the texts again, cleaned as the other ones; the vectors of videos can stay."
        return (
            "An adapter moves vectors of the text encoder that it was trained with, and no other ones. Use that "
            "encoder, or train an adapter for the other; the vectors of videos can stay."
        )


class VideoSide(_Side):
    """Videos of an embedding space. Pooling and frames say how a video became a vector.

    Vectors of other frames or another pooling are in the same space: queries find them. One collection or cache
    holds one kind of them.

    Attributes:
        encoder, revision, weights_sha256, width: the encoder, and the dimension of its vectors. Digest and
            canaries are None for a declared encoder.
        canaries: unit vectors of `canary_images()`, (2, d); they see the preprocessing too.
        preprocessing: name of what was done to frames first; empty where it is not known.
        pooling: pooling of frame vectors to one video vector: `mean` of unit frame vectors, or by the `encoder`,
            which sees clips as a whole.
        frames: frames sampled a segment; None where it is not known, or of no matter, as for plain queries.
    """

    noun: ClassVar[str] = "video"
    canary: ClassVar[str] = "image"
    named: ClassVar[tuple[str, ...]] = ("preprocessing",)

    preprocessing: str = ""
    pooling: Literal["mean", "encoder"] = "mean"
    frames: int | None = Field(default=None, ge=1)

    @classmethod
    def of(cls, encoder: VideoEmbedder, *, frames: int | None = 12) -> VideoSide:
        """Describe the videos of a loaded encoder; embeds the canaries, which takes a few milliseconds."""
        still = encoder.clip_frames or 1
        embedded = encoder.embed([encoder.preprocess([image] * still) for image in canary_images()])
        pooled = embedded.pooled if embedded.frames is None else embedded.frames[:, 0]
        assert pooled is not None
        return cls(
            encoder=encoder.name,
            revision=encoder.revision,
            weights_sha256=encoder.video_digest,
            width=encoder.width,
            canaries=_canaries(pooled),
            preprocessing=encoder.preprocessing,
            pooling="mean" if embedded.pooled is None else "encoder",
            frames=frames,
        )

    def _usage(self) -> list[object]:
        return [self.pooling, self.frames]

    def _words(self) -> list[str]:
        return [f"{'any number of' if self.frames is None else self.frames} frames", self.pooling]

    def _remedy(self, other: Self) -> str:
        return (
            "Vectors of the two cannot be compared. Use an adapter trained for that encoder, or embed the videos "
            "again with the encoder of this one."
        )

    def require(self, other: Self, *, mine: str, theirs: str, together: bool = False) -> None:
        """Refuse another side than this one; other frames or another pooling give a warning.

        Args:
            other: the side to compare with.
            mine: owner of this side, for the message ("the adapter demo-dits").
            theirs: owner of the other side ("the collection videos").
            together: the videos of both are to be kept together: other frames or another pooling are refused.

        Raises:
            SpaceMismatchError: naming both and every difference.
        """
        super().require(other, mine=mine, theirs=theirs)
        known = ("pooling",) if None in (self.frames, other.frames) else ("frames", "pooling")
        otherwise = self._unequal(other, known)
        if otherwise and together:
            raise SpaceMismatchError(
                f"{mine} makes vectors of videos otherwise than {theirs}: {'; '.join(otherwise)}. They are of one "
                "embedding space, but are not kept together: ask for the same (--frames), or choose another place."
            )
        if otherwise:
            warnings.warn(
                f"{mine} is for videos that were embedded otherwise than those of {theirs}: "
                f"{'; '.join(otherwise)}. Texts find them, and an adapter may gain less than on those that it was "
                "trained for.",
                stacklevel=3,
            )


def digest_of(content: list[object]) -> str:
    """Return the first 16 hex digits of the SHA-256 of some facts, for a fingerprint."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
