"""Answers of the search page's JSON API."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["About", "FeedbackNotice", "Map", "Point", "SearchResult", "SideBySide"]

Point = tuple[float, float]
"""Position (x, y) on the map."""


class SearchResult(BaseModel):
    """Segment that a search returned.

    Attributes:
        id: id of the segment in its store, as text: JavaScript has no whole numbers of 64 bits.
        video: URL of the file; None unless ingestion recorded it, since no other file may be read.
        frame: URL of the frame at `timestamp`, as JPEG, likewise.
        start, end, timestamp: the segment and the frame that matches best, in seconds.
        score: cosine of query and segment, less the part that the collection's score bias takes.
        probability: that the video is the right one; None where it is not known (`DITSQueryEncoder.calibration`).
        position: on the map.
    """

    id: str
    video_id: str
    path: str | None
    start: float | None
    end: float | None
    timestamp: float | None
    score: float
    probability: float | None
    video: str | None
    frame: str | None
    position: Point | None


class Map(BaseModel):
    """Projection of the query's path and of all results onto their two principal components.

    Attributes:
        path: path of the query on the unit sphere: plain CLIP, then the trajectory (T' + 1 points of DITS; of
            adapters without one a few strengths).
        query: the vector that was searched with; the end of the path at strength 1.
        cloud: some other segments of the collection.
        explained_variance: share of the variance of path and results that the two components hold, 0 to 1.
    """

    path: list[Point]
    query: Point
    cloud: list[Point]
    explained_variance: float


class SideBySide(BaseModel):
    """Results of one query by plain CLIP and by the adapter.

    Attributes:
        strength: movement of the query, 0 (plain CLIP) to 1.
        steps: truncated timesteps T' that were run; None for an adapter without steps.
        angle: between the plain and the adapted query, in degrees.
        probability_of_any: that any of the ten best adapted hits is the right video, where half of all queries
            have theirs in the collection; None where it is not known, or nothing was found.
        plain_bias, adapted_bias: weight of the collection's score bias in each ranking; 0 without one.
        digest: checksum of the adapter's config; another one than the page's where the adapter was replaced.
        search: id of this search, to judge its results by; None where no feedback is taken.
        seconds: for encoding, searching and projecting.
        stages: the seconds of each part: "embed" the text, "adapt" it, search the "store", draw the "map".
    """

    query: str
    strength: float
    steps: int | None
    angle: float
    probability_of_any: float | None
    plain: list[SearchResult]
    adapted: list[SearchResult]
    map: Map
    plain_bias: float
    adapted_bias: float
    digest: str
    search: str | None = None
    seconds: float
    stages: dict[str, float]


class FeedbackNotice(BaseModel):
    """Notice that people's judgements are written down.

    Attributes:
        file: the file on the server's disk.
        queries: True where the texts of all searches are written down too.
    """

    file: str
    queries: bool


class About(BaseModel):
    """Description of the collection that is searched and of the adapter.

    Attributes:
        adapter: kind of the adapter, "dits" or another.
        strength: strength of the encoder, 0 to 1; the default of a search.
        trained_steps: T' of the adapter as it was loaded; None for an adapter without steps.
        max_steps: T, the largest number of steps; likewise.
        calibrated: True where probabilities are known, at strength 1 and the trained steps; in a collection with
            a score bias, where the adapter was calibrated for it.
        digest: checksum of the adapter's config; "" for one that was not saved.
        feedback: notice that feedback is taken; None where it is not.
    """

    collection: str
    segments: int
    space: str
    adapter: str
    strength: float
    trained_steps: int | None
    max_steps: int | None
    calibrated: bool
    digest: str
    feedback: FeedbackNotice | None = None
