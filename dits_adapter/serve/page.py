"""Search page as an application, to run in a server of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.errors import InputError
from dits_adapter.serve._app import LOOPBACK, create_app
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._searcher import Searcher
from dits_adapter.stores.base import VideoStore

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["search_page"]


def search_page(
    encoder: DITSQueryEncoder,
    store: VideoStore,
    *,
    token: str | None = None,
    hosts: Sequence[str] = (),
    feedback: str | PathLike[str] | None = None,
    log_queries: bool = False,
) -> FastAPI:
    """Make the ASGI application of the search page and its API, which `dits-adapter serve` runs.

    The text encoder is loaded, and the collection checked, now. The store stays open, and belongs to the caller.

    Args:
        encoder: encoder of the queries, on the backend `torch`.
        store: the collection.
        token: required of every request, in `Authorization: Bearer`, in `?token=` or in the cookie that the latter
            sets; None admits everybody who reaches the port.
        hosts: host names, beside those of this machine, that requests without a token may use.
        feedback: file (.jsonl) that people's judgements are added to; None to take none.
        log_queries: add the text of every search to that file, too.

    Raises:
        InputError: queries to log without a file, texts and videos in two spaces, or a token that no HTTP header
            can carry.
        MissingExtraError: fastapi is not installed.
        StoreError, SpaceMismatchError: see `VideoStore.open`.
    """
    if log_queries and feedback is None:
        raise InputError("log_queries adds to the file of feedback; name one.")
    recorder = None if feedback is None else FeedbackRecorder(Path(feedback), log_queries=log_queries)
    encoder.space.require_shared()  # the page shows plain queries beside the adapter's
    searcher = Searcher(store, encoder)
    searcher.load()
    return create_app(searcher, token=token, hosts=(*LOOPBACK, *hosts), feedback=recorder)
