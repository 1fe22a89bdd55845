"""Parameters that several requests of the JSON API take, with their bounds and descriptions."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Query, Request

from dits_adapter.errors import InputError
from dits_adapter.stores.requests import VideoFilter

__all__ = ["Limit", "PerVideo", "Steps", "Strength", "read_filter", "require_utf8"]

Limit = Annotated[int, Query(ge=1, le=100, description="Videos in each ranking.")]
PerVideo = Annotated[int, Query(ge=1, le=20, description="Segments of each video.")]
Strength = Annotated[
    float | None,
    Query(ge=0, le=1, allow_inf_nan=False, description="0 is plain CLIP; default: as loaded."),
]
Steps = Annotated[int | None, Query(ge=0, description="T' to run (DITS only); default: as trained.")]


def read_filter(
    request: Request,
    words: Annotated[str, Query(max_length=200, description="Words that the file's path has.")] = "",
    min_duration: Annotated[
        float | None, Query(ge=0, allow_inf_nan=False, description="Of the video, in seconds.")
    ] = None,
    max_duration: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="Likewise.")] = None,
) -> VideoFilter:
    """Read the condition on the videos to search.

    Raises:
        InputError: see `require_utf8`.
    """
    require_utf8(request)
    return VideoFilter(words=words, min_duration=min_duration, max_duration=max_duration)


def require_utf8(request: Request) -> None:
    """Refuse an address whose bytes are no UTF-8, where other characters would be searched than were sent.

    Raises:
        InputError: naming the byte.
    """
    try:
        unquote_to_bytes(request.scope["query_string"]).decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"the address holds the byte {error.object[error.start]:#04x}, which is no UTF-8; send text in UTF-8, "
            "each byte as %XX."
        ) from None
