"""Routes of the search by text, of what it searches, and of people's judgements of it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from dits_adapter.serve._answers import About, SideBySide
from dits_adapter.serve._feedback import Choice, FeedbackRecorder, Judged
from dits_adapter.serve._page_metrics import PageMetrics
from dits_adapter.serve._parameters import Limit, PerVideo, Steps, Strength, read_filter
from dits_adapter.serve._reload import Reloader
from dits_adapter.serve._searcher import CompareOptions
from dits_adapter.stores.requests import VideoFilter

__all__ = ["feedback_routes", "search_routes"]


def search_routes(serving: Reloader, metrics: PageMetrics, feedback: FeedbackRecorder | None) -> APIRouter:
    """Make the routes of searches by text, and of the collection that they search.

    Args:
        serving: keeper of the searcher in use.
        metrics: measurements, in which the stages of searches are counted.
        feedback: recorder of people's judgements; None where none are taken.
    """
    router = APIRouter(prefix="/api")

    @router.get("/about")
    def about() -> About:
        """Describe the collection that is searched and the adapter."""
        described = serving.searcher.about()
        return described.model_copy(update={"feedback": feedback and feedback.notice})

    @router.get("/search")
    def search(
        query: Annotated[str, Query(description="What happens in the video.")],
        among: Annotated[VideoFilter, Depends(read_filter)],
        strength: Strength = None,
        steps: Steps = None,
        limit: Limit = 10,
        per_video: PerVideo = 1,
        min_probability: Annotated[
            float | None,
            Query(gt=0, lt=1, description="Of adapted results to be the right video; needs a calibrated adapter."),
        ] = None,
        lanes: Annotated[
            list[Literal["seen", "said"]],
            Query(
                max_length=2,
                description="What is searched: what is seen, what is said (if the collection has texts), or both.",
            ),
        ] = ["seen"],  # noqa: B006 - FastAPI copies it
    ) -> SideBySide:
        """Search with plain CLIP and with the adapter."""
        options = CompareOptions(
            strength=strength,
            steps=steps,
            limit=limit,
            per_video=per_video,
            filter=among,
            min_probability=min_probability,
            lanes=tuple(lanes),
        )
        searcher = serving.searcher
        answer = searcher.compare(query, options)
        metrics.searched(answer)
        return answer if feedback is None else feedback.remember(answer, options, searcher)

    return router


def feedback_routes(feedback: FeedbackRecorder) -> APIRouter:
    """Make the routes under /api/feedback."""
    router = APIRouter(prefix="/api/feedback")

    @router.post("")
    def judge(choice: Choice) -> Judged:
        """Write down which result of a search is right, or that none is; the last judgement counts."""
        return feedback.judge(choice)

    @router.delete("/{search}")
    def take_back(search: str) -> Judged:
        """Withdraw the judgement of a search."""
        return feedback.take_back(search)

    return router
