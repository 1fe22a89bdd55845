"""Routes of blind comparisons."""

from __future__ import annotations

from fastapi import APIRouter

from dits_adapter.serve._blind import BlindComparer, BlindComparison, BlindQuery, Opinion, Tally, Verdict
from dits_adapter.serve._reload import Reloader

__all__ = ["compare_routes"]


def compare_routes(comparer: BlindComparer, serving: Reloader) -> APIRouter:
    """Make the routes under /api/comparisons."""
    router = APIRouter(prefix="/api/comparisons")

    @router.post("")
    def compare(query: BlindQuery) -> BlindComparison:
        """Search with plain CLIP and with the adapter, in an order that is not told."""
        return comparer.compare(query, serving.searcher)

    @router.get("/tally")
    def tally() -> Tally:
        """Count the judgements of the adapter in use; who still judges does not look at it."""
        return comparer.tally(serving.searcher)

    @router.post("/{comparison}")
    def judge(comparison: str, opinion: Opinion) -> Verdict:
        """Write down which ranking is better; the last judgement counts."""
        return comparer.judge(comparison, opinion)

    @router.delete("/{comparison}")
    def take_back(comparison: str) -> Verdict:
        """Withdraw the judgement of a comparison."""
        return comparer.take_back(comparison)

    return router
