"""Server of the Model Context Protocol, through which agents search videos: `pip install "dits-adapter[mcp]"`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from dits_adapter._version import VERSION
from dits_adapter._wording import complaints, printable, without_password
from dits_adapter.answers import Answer, Match
from dits_adapter.errors import DITSError, MissingExtraError
from dits_adapter.search import VideoSearch
from dits_adapter.stores.requests import SearchRequest, VideoFilter
from dits_adapter.stores.text_lane import SAID, TextLane, best_line

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.types import ToolAnnotations
except ImportError:
    raise MissingExtraError("mcp", "mcp", "the MCP server") from None

__all__ = ["CollectionDescription", "FoundVideo", "FoundVideos", "ToolCall", "make_mcp_server"]

_logger = logging.getLogger(__name__)

_INSTRUCTIONS = """\
Searches one collection of videos by what can be seen in them. Describe a scene in a sentence, as a caption would
("a dog chases a ball on a beach"); names, dates and spoken words are seldom known. Where describe_collection says
`said`, speech, subtitles or titles can be searched for their words as well: lanes ["seen", "said"]. Results are
moments of videos, with their seconds. Where probabilities are known, believe them rather than scores or ranks: a
search always returns something, and says when probably nothing in the collection fits. These tools change
nothing."""

_Limit = Annotated[int, Field(ge=1, le=100, description="Number of videos.")]
_PerVideo = Annotated[int, Field(ge=1, le=20, description="Number of segments of each video.")]
_Offset = Annotated[int, Field(ge=0, le=10_000, description="Best videos to skip: a later page.")]
_Words = Annotated[
    str, Field(max_length=200, description="Whole words that the path of the video file has, all of them.")
]
_Duration = Annotated[
    float | None, Field(ge=0, allow_inf_nan=False, description="Of the whole video, in seconds.")
]

_READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)


class FoundVideo(BaseModel):
    """Moment of a video that a search found.

    Attributes:
        path: the video file or its address; null where the collection does not say.
        title: title of the video; null in a collection without titles.
        video_id: id of the video in the collection.
        segment: id of the segment, for `find_similar`.
        start, end: the segment that matches, in seconds; null where the collection does not say.
        timestamp: second of the frame that matches best; null where the collection does not say.
        score: cosine of query and segment, less a bias that the collection may have; it says little by itself.
            Where `said` was searched, a sum over ranks, or BM25.
        probability: probability, 0 to 1, that this is the right video; null where it is not known.
        said: line of what is said in the segment, the nearest to the query; null where its words did not find it.
    """

    path: str | None
    title: str | None
    video_id: str
    segment: str
    start: float | None
    end: float | None
    timestamp: float | None
    score: float
    probability: float | None
    said: str | None

    @classmethod
    def of(cls, match: Match, query: str, texts: TextLane | None) -> FoundVideo:
        """Describe a match, in few digits, and its texts without what no text can hold."""
        hit = match.hit
        line = ""
        if texts is not None and SAID in hit.lanes:
            line = best_line(hit.payload.get(SAID) or "", query, texts.language)
        return cls(
            path=None if hit.path is None else printable(hit.path),
            title=None if hit.title is None else printable(hit.title),
            video_id=printable(hit.video_id),
            segment=printable(hit.id),
            start=_rounded(hit.start),
            end=_rounded(hit.end),
            timestamp=_rounded(hit.timestamp),
            score=round(hit.score, 4),
            probability=_rounded(match.probability, 4),
            said=printable(line) or None,
        )


class FoundVideos(BaseModel):
    """Answer to a query.

    Attributes:
        summary: what was found, in a sentence.
        probably_nothing_fits: true where the right video is probably not in the collection; null where that is
            not known.
        probability_of_any: probability, 0 to 1, that any of the ten best results is right; null where it is not
            known.
        left_out: number of results that were less likely than `min_probability`.
        results: best video first.
    """

    summary: str
    probably_nothing_fits: bool | None
    probability_of_any: float | None
    left_out: int
    results: list[FoundVideo]

    @classmethod
    def of(cls, answer: Answer, query: str, texts: TextLane | None) -> FoundVideos:
        """Describe an answer to a query."""
        of_any = answer.probability_of_any
        return cls(
            summary=_summary(answer),
            probably_nothing_fits=None if of_any is None else of_any < 0.5,
            probability_of_any=_rounded(of_any, 4),
            left_out=answer.found - len(answer.matches),
            results=[FoundVideo.of(match, query, texts) for match in answer.matches],
        )


class CollectionDescription(BaseModel):
    """Description of the collection that is searched and of the adapter of the queries.

    Attributes:
        collection: name of the collection.
        store: place of the collection.
        tenant: tenant whose videos are searched; null where the collection keeps none apart.
        videos, segments: number of videos, and of segments, of the tenant where there are tenants.
        space: the embedding space: the encoders of texts and videos.
        adapter: name of the adapter, or of the encoder, of the queries.
        strength: movement of the queries, 0 (plain) to 1.
        calibrated: true where results have probabilities.
        why_not_calibrated: the reason where they have none.
        score_bias: weight of the score bias that a search takes; 0 without one, and where it is for other queries.
        timestamps: true where results say the second of the frame that matches best.
        said: true where texts of what is said lie beside the videos, for the lane "said".
    """

    collection: str
    store: str
    tenant: str | None
    videos: int
    segments: int
    space: str
    adapter: str | None
    strength: float
    calibrated: bool
    why_not_calibrated: str | None
    score_bias: float
    timestamps: bool
    said: bool


@dataclass(frozen=True)
class ToolCall:
    """Call of a tool, for measurements.

    Attributes:
        tool: name of the tool; "other" for one that there is not.
        seconds: time that it took.
        error: class of the error that it ended with; None for an answer.
    """

    tool: str
    seconds: float
    error: str | None


def make_mcp_server(search: VideoSearch, *, on_call: Callable[[ToolCall], None] | None = None) -> MCPServer[Any]:
    """Make a server with the tools `search_videos`, `find_similar` and `describe_collection`.

    They change nothing. Its methods `run` and `streamable_http_app` serve it; so does `dits-adapter mcp`.

    Args:
        search: the collection and the encoder of the queries.
        on_call: function that is called after each call of a tool.
    """
    server = _Server(
        "dits-adapter",
        title="Video search",
        version=VERSION,
        instructions=_INSTRUCTIONS,
        log_level="WARNING",
        subscriptions=False,
    )
    server.on_call = on_call

    def search_videos(
        query: Annotated[str, Field(description="What happens in the video, as a caption would say it.")],
        limit: _Limit = 10,
        per_video: _PerVideo = 1,
        offset: _Offset = 0,
        min_probability: Annotated[
            float | None,
            Field(gt=0, lt=1, description="Least probability of a result; only in a calibrated collection."),
        ] = None,
        path_words: _Words = "",
        min_duration: _Duration = None,
        max_duration: _Duration = None,
        lanes: Annotated[
            tuple[Literal["seen", "said"], ...],
            Field(
                min_length=1,
                description="What to search: what is seen, what is said (where describe_collection says `said`), "
                "or both, fused by rank; where `said` is searched no probabilities are known.",
            ),
        ] = ("seen",),
    ) -> FoundVideos:
        videos = VideoFilter(words=path_words, min_duration=min_duration, max_duration=max_duration)
        request = SearchRequest(
            limit=limit,
            per_video=per_video,
            offset=offset,
            filter=videos or None,
            lanes=tuple(dict.fromkeys(lanes)),
        )
        answer = search.search(query, request, min_probability=min_probability)
        return FoundVideos.of(answer, query, _texts(search) if request.beyond_seen else None)

    def find_similar(
        segment: Annotated[str, Field(description="`segment` of an earlier result.")],
        limit: _Limit = 10,
        per_video: _PerVideo = 1,
        offset: _Offset = 0,
        path_words: _Words = "",
        min_duration: _Duration = None,
        max_duration: _Duration = None,
    ) -> FoundVideos:
        videos = VideoFilter(words=path_words, min_duration=min_duration, max_duration=max_duration)
        request = SearchRequest(limit=limit, per_video=per_video, offset=offset, filter=videos or None)
        return FoundVideos.of(search.search_like(segment, request), "", None)

    def describe_collection() -> CollectionDescription:
        return _description(search)

    server.add_tool(
        search_videos,
        title="Search videos",
        description="Find the moments of videos that a text describes, best first, with their seconds and, in a "
        "calibrated collection, the probability that each is right and that anything fits at all.",
        annotations=_READS,
    )
    server.add_tool(
        find_similar,
        title="More like this moment",
        description="Find the moments of videos that look like one that was found before, most alike first. No "
        "probabilities are known.",
        annotations=_READS,
    )
    server.add_tool(
        describe_collection,
        title="Describe the collection",
        description="Say which collection of videos is searched, how large it is, and whether results have "
        "probabilities.",
        annotations=_READS,
    )
    return server


class _Server(MCPServer[Any]):
    """Server that words refused arguments and errors as the rest of the package does, and logs calls."""

    on_call: Callable[[ToolCall], None] | None = None

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        started, error = time.perf_counter(), None
        try:
            return await self._call(name, arguments, context)
        except Exception as raised:
            error = type(raised.__cause__ or raised).__name__
            raise
        finally:
            known = self._tool_manager.get_tool(name) is not None
            call = ToolCall(name if known else "other", time.perf_counter() - started, error)
            fields = {"tool": call.tool, "seconds": round(call.seconds, 6), "error": call.error}
            _logger.info("%s %s", call.tool, call.error or "answered", extra={"fields": fields})
            if self.on_call is not None:
                self.on_call(call)

    async def _call(self, name: str, arguments: dict[str, Any], context: Any) -> Any:
        tool = self._tool_manager.get_tool(name)
        known = [] if tool is None else list(tool.parameters["properties"])
        if tool is not None and (unknown := sorted(arguments.keys() - set(known))):  # which would be left out
            listed = ", ".join(known) or "none"
            raise ToolError(f"{name} has no argument {unknown[0]!r}; its arguments are: {listed}.")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                raise ToolError(complaints(cause, known)) from cause
            if isinstance(cause, DITSError):
                raise ToolError(printable(cause)) from cause
            raise


def _description(search: VideoSearch) -> CollectionDescription:
    missing = search.no_probabilities()
    store, encoder = search.store, search.encoder
    metadata = store.metadata()
    bias = None if metadata is None else metadata.bias_in_use
    return CollectionDescription(
        collection=printable(store.collection),
        store=printable(without_password(store.location)),
        tenant=None if store.tenant is None else printable(store.tenant),
        videos=store.count_videos(),
        segments=store.count(),
        space=printable(encoder.space),
        adapter=None if encoder.name_or_path is None else printable(encoder.name_or_path),
        strength=encoder.query_strength,
        calibrated=missing is None,
        why_not_calibrated=missing,
        score_bias=0.0 if bias is None else encoder.beside(bias)[1],
        timestamps=store.capabilities.frames,
        said=_texts(search) is not None,
    )


def _texts(search: VideoSearch) -> TextLane | None:
    metadata = search.store.metadata()
    return None if metadata is None else metadata.texts


def _summary(answer: Answer) -> str:
    of_any, shown = answer.probability_of_any, len(answer.matches)
    if not answer.found:
        return "Nothing was found: no video of the collection meets the conditions, or there are no more."
    count = "One result" if shown == 1 else f"{shown or 'No'} results"
    if shown < answer.found:
        count = f"{count} of {answer.found} that were found, the others being less likely than min_probability"
    if of_any is None:
        return f"{count}."
    doubt = "Probably nothing in the collection fits: the" if of_any < 0.5 else "The"
    return f"{count}. {doubt} probability that any of the ten best is right is {of_any:.1%}."


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
