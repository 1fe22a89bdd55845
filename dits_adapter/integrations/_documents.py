"""Hits as the documents of other frameworks, and the refusal of texts as documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dits_adapter.answers import Answer, Match
from dits_adapter.errors import InputError
from dits_adapter.search import VideoSearch, check_probabilities, plain
from dits_adapter.stores.requests import SearchRequest, VideoFilter, from_keywords

__all__ = ["Retrieval", "content", "metadata", "no_documents"]

_BOOKKEEPING = {"timestamps", "decoder", "size", "mtime_ns", "segments"}
"""Fields that ingestion keeps for itself, and that say nothing about a video's content."""


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Options of a retriever, whichever framework it is for.

    Attributes:
        search: the collection and the encoder of its queries.
        limit: number of videos.
        filter: condition on the videos: a `VideoFilter`, its fields in a dictionary, or a filter of the database's
            own.
        min_probability, min_probability_of_any: see `VideoSearch.search`.
        search_options: further fields of `SearchRequest`, such as `{"per_video": 3}`.

    Raises:
        InputError: an option outside its range, or an unknown one.
    """

    search: VideoSearch
    limit: int = 10
    filter: Any = None
    min_probability: float | None = None
    min_probability_of_any: float | None = None
    search_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.search, VideoSearch):
            raise InputError(f"search is a {type(self.search).__name__}; it is a VideoSearch.")
        check_probabilities(**self._least())
        self._request(None, None)

    def _request(self, limit: int | None, filter: Any) -> SearchRequest:
        if double := sorted({"limit", "filter"} & self.search_options.keys()):
            raise InputError(f"search_options has {double[0]!r}, which the retriever has an option for.")
        chosen = self.filter if filter is None else filter
        if isinstance(chosen, Mapping):
            chosen = from_keywords(VideoFilter, None, chosen)
        options = {**self.search_options, "limit": self.limit if limit is None else limit, "filter": chosen}
        return from_keywords(SearchRequest, None, options)

    def _least(self) -> dict[str, Any]:
        """Return the least probabilities, as keyword arguments of `VideoSearch.search`."""
        return {
            "min_probability": self.min_probability,
            "min_probability_of_any": self.min_probability_of_any,
        }

    def answer(self, text: str, limit: int | None = None, filter: Any = None) -> Answer:
        """Search; a limit or a filter of this query alone takes the place of the retriever's."""
        return self.search.search(text, self._request(limit, filter), **self._least())

    async def answer_async(self, text: str, limit: int | None = None, filter: Any = None) -> Answer:
        """Search in a thread, so that others need not wait."""
        return await self.search.search_async(text, self._request(limit, filter), **self._least())

    def to_dict(self) -> dict[str, Any]:
        """Return all options but `limit`, which each framework calls otherwise, ready for JSON.

        Raises:
            InputError: an option that cannot be saved, such as a filter of the database's own.
        """
        condition = asdict(self.filter) if isinstance(self.filter, VideoFilter) else self.filter
        return {
            "search": self.search.to_dict(),
            "filter": plain(condition, "filter"),
            **self._least(),
            "search_options": plain(dict(self.search_options), "search_options"),
        }


def content(match: Match) -> str:
    """Return the text of a document: the title of the video, or else its path or id."""
    return match.hit.title or match.hit.path or match.hit.video_id


def metadata(match: Match, answer: Answer) -> dict[str, Any]:
    """Return the metadata of a document: `Hit` and its probabilities, beside the payload that the store keeps.

    Times are in seconds; `probability` and `probability_of_any` are those of `Match` and `Answer`.
    """
    hit = match.hit
    return {
        **{name: value for name, value in hit.payload.items() if name not in _BOOKKEEPING},
        "video_id": hit.video_id,
        "path": hit.path,
        "start": hit.start,
        "end": hit.end,
        "timestamp": hit.timestamp,
        "score": hit.score,
        "probability": match.probability,
        "probability_of_any": answer.probability_of_any,
    }


def no_documents(method: str) -> InputError:
    """Return the refusal to embed texts as documents.

    Such a text would lie on the other side of the modality gap than the videos and the adapted queries, and would
    rank wrongly without an error.

    Args:
        method: the method that was called, as users of the framework know it.
    """
    return InputError(
        f"{method} got texts to store, but the documents of a DITS index are videos; store them with "
        "dits_adapter.ingest or `dits-adapter ingest`. Keep texts in a collection of their own, embedded by "
        "DITSQueryEncoder.encode_document (plain CLIP) or by a text model."
    )
