"""Routes of the collection overview."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from dits_adapter.serve._overview import CollectionFacts, FailurePage, FilePage, HubsState, Overview

__all__ = ["collection_routes"]

_Words = Annotated[str, Query(max_length=200, description="Parts of the name, all of them.")]

_Offset = Annotated[int, Query(ge=0, description="Entries before the page.")]

_Limit = Annotated[int, Query(ge=1, le=500, description="Entries of the page.")]


def collection_routes(overview: Overview) -> APIRouter:
    """Make the routes under /api/collection."""
    router = APIRouter(prefix="/api/collection")

    @router.get("")
    def facts() -> CollectionFacts:
        """Describe the collection; ask again while it is read."""
        return overview.facts()

    @router.get("/files")
    def files(words: _Words = "", offset: _Offset = 0, limit: _Limit = 50) -> FilePage:
        """List its videos."""
        return overview.files(words, offset, limit)

    @router.get("/failures")
    def failures(words: _Words = "", offset: _Offset = 0, limit: _Limit = 50) -> FailurePage:
        """List the files that gave no frames, with the reasons."""
        return overview.failures(words, offset, limit)

    @router.get("/hubs")
    def hubs() -> HubsState:
        """Measure the modality gap and the hubs of a sample; ask again while that is done."""
        return overview.hubs()

    return router
