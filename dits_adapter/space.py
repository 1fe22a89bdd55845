"""Embedding spaces: the identity of the vectors of texts and of videos, side by side, and its comparison.

Two encoders of the same width give vectors that no dimension check can distinguish. An `EmbeddingSpace` travels
with every adapter, cache and collection, and each is checked on the side that it holds: a collection by that of
videos, a text encoder by that of texts, an adapter by both. A difference is refused by name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator
from typing_extensions import Self

from dits_adapter._embedders import Embedder
from dits_adapter._wording import validated
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.sides import TextSide, VideoSide, digest_of

__all__ = ["EmbeddingSpace"]


class EmbeddingSpace(BaseModel):
    """Embedding space: the encoder of the texts and that of the videos behind a set of vectors.

    An ordinary dual encoder is both. Where texts are embedded by an encoder of their own, `shared` says whether
    that leads into the space of the videos.

    Attributes:
        text: the texts.
        video: the videos.
        normalization: `l2`: stored vectors of videos have unit norm.
        shared: True where a text and a video can be compared as they are; False where only an adapter leads from
            the one to the other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: TextSide
    video: VideoSide
    normalization: Literal["l2"] = "l2"
    shared: bool = True

    @model_validator(mode="after")
    def _comparable(self) -> Self:
        if self.shared and self.text.width != self.video.width:
            raise ValueError(
                f"texts of width {self.text.width} and videos of width {self.video.width} share no space"
            )
        return self

    @classmethod
    def of(cls, encoder: Embedder, *, frames: int | None = 12) -> EmbeddingSpace:
        """Describe the space of a loaded encoder; embeds the canaries, which takes a few milliseconds."""
        return cls(text=TextSide.of(encoder), video=VideoSide.of(encoder, frames=frames))

    @classmethod
    def join(cls, text: TextSide, video: VideoSide, *, shared: bool) -> EmbeddingSpace:
        """Describe texts of one encoder beside videos of another.

        Args:
            text: the texts.
            video: the videos.
            shared: see the attribute.

        Raises:
            InputError: a shared space of two widths.
        """
        return validated(cls, {"text": text, "video": video, "shared": shared})

    @classmethod
    def declare(cls, name: str, width: int, *, frames: int | None = None) -> EmbeddingSpace:
        """Describe the space of a dual encoder that cannot be loaded, as one behind an API.

        Caches, adapters and collections of a declared space are told apart by these words and the width; that
        vectors are of the encoder cannot be checked.

        Args:
            name: `provider/model@version`, as `twelvelabs/marengo@2.7`.
            width: dimension d of the vectors.
            frames: frames that a video's vector was made from, where it is known.

        Raises:
            InputError: a name of another form, a width or a number of frames below 1.
        """
        return cls(
            text=TextSide.declare(name, width),
            video=VideoSide.declare(name, width, pooling="encoder", frames=frames),
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name both sides."""
        return digest_of([self.text.fingerprint, self.video.fingerprint])

    def __repr__(self) -> str:
        return f"EmbeddingSpace({self})"

    def __str__(self) -> str:
        if (self.text.encoder, self.text.revision) == (self.video.encoder, self.video.revision):
            return str(self.video)[:-1] + "".join(f", {word}" for word in self.text._words()) + "]"
        return f"texts of {self.text}, videos of {self.video}"

    def with_frames(self, frames: int | None) -> EmbeddingSpace:
        """Return the space of videos of another number of frames; None for any number."""
        return self.model_copy(update={"video": self.video.model_copy(update={"frames": frames})})

    @property
    def other_text_width(self) -> int | None:
        """Dimension of texts that lie in another space than the videos; None where they share one."""
        return None if self.shared else self.text.width

    def require_shared(self) -> None:
        """Refuse to compare texts with videos as they are where they lie in two spaces.

        Raises:
            InputError: naming both encoders.
        """
        if not self.shared:
            raise InputError(
                f"texts of {self.text.encoder} and videos of {self.video.encoder} lie in two embedding spaces: "
                "there are no plain queries, and a query moves all the way of its adapter (strength 1)."
            )

    def require(self, other: EmbeddingSpace, *, mine: str, theirs: str, together: bool = False) -> None:
        """Refuse another space than this one, on either side: see `TextSide.require` and `VideoSide.require`.

        Args:
            other: the space to compare with.
            mine: owner of this space, for the message ("the adapter demo-dits").
            theirs: owner of the other space ("the pairs").
            together: the videos of both are to be kept together.

        Raises:
            SpaceMismatchError: naming each side that differs and every difference.
        """
        texts = self.text.complaint(other.text, mine, theirs)
        videos = self.video.complaint(other.video, mine, theirs)
        if texts and videos:
            raise SpaceMismatchError(f"{texts} {videos} {self.video.remedy(other.video)}")
        self.text.require(other.text, mine=mine, theirs=theirs)
        self.video.require(other.video, mine=mine, theirs=theirs, together=together)
