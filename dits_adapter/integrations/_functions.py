"""Query functions of databases: what a database keeps of one, and the encoder behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from os import PathLike
from typing import Any

from dits_adapter._hub import absolute_name
from dits_adapter._wording import validated
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.search import check_encoder_options, plain
from dits_adapter.sides import VideoSide
from dits_adapter.vectors import FloatArray

__all__ = ["QueryFunction"]


class QueryFunction:
    """Query encoder as a database keeps it: by name and options, beside the space of the vectors that it searches.

    Databases make their functions anew from what they kept, some for each query: encoders stay loaded, eight in a
    process.

    Args:
        model: folder, bundled name or hub id of an adapter.
        options: options of `DITSQueryEncoder.from_pretrained`.
        space: `VideoSide` of the stored vectors, as a database kept it; None for that of the adapter.

    Raises:
        InputError: an unknown option, or a space that is none.
    """

    def __init__(
        self,
        model: str | PathLike[str],
        options: Mapping[str, Any] | None = None,
        space: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = absolute_name(model)
        check_encoder_options(options or {})
        self._options = json.dumps(plain(dict(options or {}), "options"), sort_keys=True)
        self._space = None if space is None else validated(VideoSide, space, at="space.")

    @property
    def encoder(self) -> DITSQueryEncoder:
        """The encoder; a process loads it once."""
        return _load(self._model, self._options)

    @property
    def width(self) -> int:
        """Dimension of the vectors."""
        return self.encoder.space.video.width

    def config(self) -> dict[str, Any]:
        """Return the name and all options of the encoder and the space of the vectors, ready for JSON."""
        space = self._space or self.encoder.space.video
        return {"model": self._model, "options": self.encoder.options, "space": space.model_dump(mode="json")}

    def encode(self, texts: str | Iterable[str], *, theirs: str) -> FloatArray:
        """Encode queries, once it is known that the stored vectors are of their space.

        Args:
            texts: n queries.
            theirs: owner of the vectors, for the message.

        Returns:
            Unit vectors, (n, d) float32.

        Raises:
            SpaceMismatchError: the vectors are of another space.
            InputError: see `DITSQueryEncoder.encode_query`.
        """
        if self._space is not None:
            self.require(self._space, theirs=theirs)
        return self.encoder.encode_query([texts] if isinstance(texts, str) else texts)

    def require(self, space: VideoSide | Mapping[str, Any], *, theirs: str) -> None:
        """Refuse stored vectors of another space.

        Raises:
            SpaceMismatchError: naming both.
            InputError: a space that is none.
        """
        videos = space if isinstance(space, VideoSide) else validated(VideoSide, space, at="space.")
        self.encoder.space.video.require(videos, mine=f"the adapter {self._model}", theirs=theirs)


@lru_cache(maxsize=8)
def _load(model: str, options: str) -> DITSQueryEncoder:
    return DITSQueryEncoder.from_pretrained(model, **json.loads(options))
