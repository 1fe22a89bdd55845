"""Feedback on searches: the results of recent ones, and people's judgements of them into a file."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dits_adapter.errors import DITSError, InputError
from dits_adapter.serve._answers import FeedbackNotice, SearchResult, SideBySide
from dits_adapter.serve._judging import Judging, now
from dits_adapter.serve._searcher import CompareOptions, Searcher
from dits_adapter.sources._feedback_file import (
    AdapterInUse,
    Chosen,
    Judgement,
    LoggedQuery,
    Side,
    append,
    require_feedback_file,
)
from dits_adapter.stores.requests import SEEN

__all__ = ["Choice", "FeedbackRecorder", "Judged", "adapter_in_use"]

_MOST_RESULTS = 50_000
"""Results of recent searches that are remembered, so that judgements say what was shown."""

_MOST_QUERIES = 1_000
"""Recent queries that are not logged again: sliders search the same text many times."""

_logger = logging.getLogger(__name__)


class Choice(BaseModel):
    """Judgement of the results of a search, as the page sends it.

    Attributes:
        search: `search` of the answer.
        segment: `id` of the right result; None for "none of these".
        side: ranking in which it was chosen.
        view: rankings that were on the screen.
        session: name that the browser tab gave itself; of its judgements of one query the last counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    search: str = Field(max_length=64)
    segment: str | None = Field(max_length=1024)
    side: Side | None = None
    view: Literal["both", "plain", "adapted"] = "both"
    session: str = Field(default="", max_length=64)


class Judged(BaseModel):
    """State of a search's judgement.

    Attributes:
        search: id of the search.
        judgement: "chosen", "none" (of these), or None where it was taken back.
    """

    search: str
    judgement: Literal["chosen", "none"] | None


@dataclass(frozen=True)
class _Search:
    """Search that may be judged: a part of its answer."""

    query: str
    shown: dict[Side, list[SearchResult]]
    facts: dict[str, Any]

    @property
    def results(self) -> int:
        return 1 + sum(map(len, self.shown.values()))


class FeedbackRecorder:
    """Recorder of people's judgements; safe to use from several threads, and beside other processes.

    Ids, ranks and scores are written down as the server answered with them, not as a client says.

    Args:
        path: the file (`dits_adapter.sources._feedback_file`), which is made.
        log_queries: write down the text of every search too.

    Raises:
        InputError: the file cannot be written, or holds something else.
    """

    def __init__(self, path: Path, *, log_queries: bool = False) -> None:
        require_feedback_file(path)
        self.path = path.absolute()
        self.log_queries = log_queries
        self._searches = Judging[_Search](
            self.path, "the server no longer knows this search; search again, and then choose."
        )
        self._lock = threading.Lock()
        self._queries: OrderedDict[str, None] = OrderedDict()

    @property
    def notice(self) -> FeedbackNotice:
        """Notice for the page."""
        return FeedbackNotice(file=str(self.path), queries=self.log_queries)

    def remember(self, answer: SideBySide, options: CompareOptions, searcher: Searcher) -> SideBySide:
        """Return an answer with an id to judge it by, and log its query where that is asked for.

        Searches of what is said are left alone: adapters learn from what is seen.
        """
        if options.lanes != (SEEN,):
            return answer
        search = _Search(
            query=answer.query,
            shown={"plain": answer.plain, "adapted": answer.adapted},
            facts={
                "probability_of_any": answer.probability_of_any,
                "adapter": adapter_in_use(searcher, answer),
                "bias": {"plain": answer.plain_bias, "adapted": answer.adapted_bias},
                "collection": searcher.store.collection,
                "space": searcher.encoder.space.fingerprint,
                "filtered": bool(options.filter) or options.min_probability is not None,
            },
        )
        name = secrets.token_urlsafe(12)
        self._searches.remember(name, search, size=search.results, most=_MOST_RESULTS)
        if self.log_queries:
            self._log(answer.query)
        return answer.model_copy(update={"search": name})

    def judge(self, choice: Choice) -> Judged:
        """Write down a judgement; one that says what the last one of the search says is not written again.

        Raises:
            ForgottenSearchError: no such search in the memory of this process.
            InputError: a segment that the search has not shown.
            DITSError: the file cannot be written.
        """
        search = self._searches.find(choice.search)
        judgement = (choice.segment, None if choice.segment is None else choice.side, choice.view)
        chosen = _chosen(search, choice)
        views: tuple[Side, ...] = ("plain", "adapted") if choice.view == "both" else (choice.view,)

        def record() -> Judgement:
            return Judgement(
                time=now(),
                search=choice.search,
                session=choice.session,
                query=search.query,
                chosen=chosen,
                shown={side: [result.id for result in search.shown[side]] for side in views},
                **search.facts,
            )

        self._searches.judge(choice.search, judgement, record)
        return Judged(search=choice.search, judgement="none" if chosen is None else "chosen")

    def take_back(self, name: str) -> Judged:
        """Write down that the judgement of a search is taken back; nothing where there is none.

        Raises:
            ForgottenSearchError, DITSError: as `judge`.
        """
        self._searches.take_back(name)
        return Judged(search=name, judgement=None)

    def _log(self, query: str) -> None:
        """Log a query, unless it was searched lately; that it cannot be written keeps nobody from the answer."""
        with self._lock:
            known = query in self._queries
            self._queries[query] = None
            self._queries.move_to_end(query)
            if len(self._queries) > _MOST_QUERIES:
                self._queries.popitem(last=False)
        if not known:
            try:
                append(self.path, LoggedQuery(time=now(), query=query))
            except DITSError as error:
                _logger.warning("a query was not logged: %s", error)


def adapter_in_use(searcher: Searcher, answer: SideBySide | None = None) -> AdapterInUse:
    """Describe the adapter as it made an answer; without one, as it answers by default."""
    artifact = searcher.encoder.artifact
    return AdapterInUse(
        name=searcher.encoder.name_or_path,
        kind=artifact.adapter.kind,
        digest=artifact.digest if answer is None else answer.digest,
        strength=searcher.encoder.query_strength if answer is None else answer.strength,
        steps=artifact.adapter.steps if answer is None else answer.steps,
    )


def _chosen(search: _Search, choice: Choice) -> Chosen | None:
    """Return the chosen hit as the server knows it.

    Raises:
        InputError: it was not shown in this ranking.
    """
    if choice.segment is None:
        return None
    if choice.side is None or choice.view not in ("both", choice.side):
        raise InputError("side has to name the ranking on the screen in which the segment was chosen.")
    for rank, result in enumerate(search.shown[choice.side], 1):
        if result.id == choice.segment:
            return Chosen(
                id=result.id,
                video_id=result.video_id,
                path=result.path,
                start=result.start,
                end=result.end,
                side=choice.side,
                rank=rank,
                score=result.score,
                probability=result.probability,
            )
    raise InputError(f"the {choice.side} ranking of this search has no segment {choice.segment[:60]!r}.")
