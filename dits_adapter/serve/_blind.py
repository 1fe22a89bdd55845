"""Blind comparison: two rankings of a query in an order that nobody is told before they judge."""

from __future__ import annotations

import random
import secrets
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dits_adapter.errors import InputError
from dits_adapter.serve._answers import SearchResult
from dits_adapter.serve._feedback import FeedbackRecorder, adapter_in_use
from dits_adapter.serve._judging import Judging, now
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.sources._feedback_file import Preference, Side, append
from dits_adapter.sources.preferences import PreferenceTally, tally_preferences

__all__ = [
    "Better",
    "BlindComparer",
    "BlindComparison",
    "BlindQuery",
    "BlindResult",
    "Opinion",
    "Tally",
    "Verdict",
    "left_of",
]

_VIDEOS = 5
"""Videos in each ranking: what a person looks at before saying which is better."""

_MOST_OPEN = 10_000
"""Comparisons that are remembered, so that they can be judged."""

Better = Literal["left", "right", "both", "neither"]
"""Side of the better ranking; or both are good, or neither."""


class BlindQuery(BaseModel):
    """Query whose rankings somebody is to compare.

    Attributes:
        query: what happens in the video.
        session: name that the browser gave itself; of its judgements of one query the last counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str = Field(max_length=2000)
    session: str = Field(default="", max_length=64)


class BlindResult(BaseModel):
    """Segment in one of two rankings, without anything that would tell which ranking it is.

    Attributes:
        path, title, start, end, timestamp, video, frame: as in `SearchResult`.
    """

    video_id: str
    path: str | None
    title: str | None
    start: float | None
    end: float | None
    timestamp: float | None
    video: str | None
    frame: str | None


class BlindComparison(BaseModel):
    """Two rankings of a query, in an order that was drawn.

    Attributes:
        comparison: id, to judge it by.
        same: True where the rankings are equal; that is written down at once, and there is nothing to judge.
        left, right: the rankings, best video first.
    """

    comparison: str
    query: str
    same: bool
    left: list[BlindResult]
    right: list[BlindResult]


class Opinion(BaseModel):
    """Judgement of two rankings.

    Attributes:
        better: side of the better one; or both are good, or neither.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    better: Better


class Verdict(BaseModel):
    """State of the judgement of a comparison.

    Attributes:
        better: the last judgement; None where it was taken back.
    """

    comparison: str
    better: Better | None


class Tally(BaseModel):
    """Tally of the judgements of the adapter in use, in the collection that is searched.

    Attributes:
        queries: number of queries that were judged, or whose rankings are equal.
        adapted, plain, both, neither, split, same, judges, judgements, left, right: see `PreferenceTally`.
        share, low, high: share of the adapter among the queries with a preference, and its 95 % interval; the
            share is None where there are none.
        better: ranking that is preferred by more than chance; None while that is not decided.
        verdict: sentence that says so.
        others: number of queries that were judged with other adapters or collections, which do not count here.
    """

    queries: int
    adapted: int
    plain: int
    both: int
    neither: int
    split: int
    same: int
    judges: int
    judgements: int
    left: int
    right: int
    share: float | None
    low: float
    high: float
    better: Side | None
    verdict: str
    others: int


class BlindComparer:
    """Keeper of blind comparisons; safe to use from several threads, and beside other processes.

    Which ranking stands on the left is drawn for each comparison, and nothing that is answered tells it: no score,
    no probability, no name. It is written down with the judgement.

    Args:
        feedback: recorder whose file the judgements are added to.
    """

    def __init__(self, feedback: FeedbackRecorder) -> None:
        self._path = feedback.path
        self._comparisons = Judging[dict[str, Any]](
            self._path, "the server no longer knows this comparison; compare the query again."
        )

    def compare(self, query: BlindQuery, searcher: Searcher) -> BlindComparison:
        """Search both rankings of a query, and draw their order.

        Raises:
            InputError: no text, or nothing was found.
            StoreError: the collection cannot be searched.
            DITSError: the rankings are equal, and the file cannot be written.
        """
        answer = searcher.compare(query.query, CompareOptions(limit=_VIDEOS))
        rankings: dict[Side, list[SearchResult]] = {"plain": answer.plain, "adapted": answer.adapted}
        shown: dict[Side, list[str]] = {side: [hit.id for hit in hits] for side, hits in rankings.items()}
        if not any(shown.values()):
            raise InputError("the collection holds nothing to compare; ingest videos first.")
        name, seed = secrets.token_urlsafe(12), secrets.randbits(32)
        left = left_of(seed)
        facts: dict[str, Any] = {
            "search": name,
            "session": query.session,
            "query": answer.query,
            "left": left,
            "seed": seed,
            "shown": shown,
            "adapter": adapter_in_use(searcher, answer),
            "bias": {"plain": answer.plain_bias, "adapted": answer.adapted_bias},
            "collection": searcher.store.collection,
            "space": searcher.encoder.space.fingerprint,
            "tenant": searcher.store.tenant,
        }
        same = shown["plain"] == shown["adapted"]
        if same:
            append(self._path, Preference(time=now(), better="same", **facts))
        else:
            self._comparisons.remember(name, facts, most=_MOST_OPEN)
        right: Side = "adapted" if left == "plain" else "plain"
        return BlindComparison(
            comparison=name,
            query=answer.query,
            same=same,
            left=[_hidden(hit) for hit in rankings[left]],
            right=[_hidden(hit) for hit in rankings[right]],
        )

    def judge(self, name: str, opinion: Opinion) -> Verdict:
        """Write down a judgement; one that says what the last one says is not written again.

        Raises:
            ForgottenSearchError: no such comparison in the memory of this process.
            DITSError: the file cannot be written.
        """
        facts = self._comparisons.find(name)
        self._comparisons.judge(
            name, opinion.better, lambda: Preference(time=now(), better=opinion.better, **facts)
        )
        return Verdict(comparison=name, better=opinion.better)

    def take_back(self, name: str) -> Verdict:
        """Write down that the judgement of a comparison is taken back; nothing where there is none.

        Raises:
            ForgottenSearchError, DITSError: as `judge`.
        """
        self._comparisons.take_back(name)
        return Verdict(comparison=name, better=None)

    def tally(self, searcher: Searcher) -> Tally:
        """Count the judgements in the file, those of other servers among them.

        Raises:
            InputError: the file cannot be read.
        """
        tallies = tally_preferences(self._path).tallies
        tally = next((tally for tally in reversed(tallies) if _is_of(tally, searcher)), None)
        others = sum(
            each.queries for each in tallies if each is not tally and each.tenant == searcher.store.tenant
        )
        if tally is None:
            tally = PreferenceTally(
                collection=searcher.store.collection,
                tenant=searcher.store.tenant,
                adapter=adapter_in_use(searcher),
                bias={},
            )
        low, high = tally.interval
        counts = {field: getattr(tally, field) for field in Tally.model_fields if hasattr(tally, field)}
        return Tally(**counts, low=low, high=high, others=others)


def left_of(seed: int) -> Side:
    """Return the ranking that a seed puts on the left."""
    return random.Random(seed).choice(("plain", "adapted"))


def _is_of(tally: PreferenceTally, searcher: Searcher) -> bool:
    now = adapter_in_use(searcher)
    _, adapted, plain = searcher.as_searched()
    return (
        tally.bias == {"plain": plain, "adapted": adapted}
        and tally.collection == searcher.store.collection
        and tally.tenant == searcher.store.tenant
        and tally.adapter.model_copy(update={"name": now.name}) == now
    )


def _hidden(hit: SearchResult) -> BlindResult:
    return BlindResult(**{field: getattr(hit, field) for field in BlindResult.model_fields})
