"""Answers of the search page's JSON API."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = [
    "About",
    "FeedbackNotice",
    "Lane",
    "Map",
    "Moment",
    "Point",
    "Ranking",
    "SearchResult",
    "SideBySide",
    "Timeline",
]

Point = tuple[float, float]
"""Position (x, y) on the map."""


class Lane(BaseModel):
    """Place of a video in one lane of a search: "seen", or "said".

    Attributes:
        rank: rank of the video in the lane, from 1.
        score: score of its best segment: in the lane "seen" a cosine, in "said" its BM25.
    """

    rank: int
    score: float


class SearchResult(BaseModel):
    """Segment that a search returned.

    Attributes:
        id: id of the segment in its store, as text: JavaScript has no whole numbers of 64 bits.
        video: URL of the file; None unless ingestion recorded it, since no other file may be read.
        frame: URL of the frame at `timestamp`, as JPEG, likewise.
        title: title of the video; None in a collection without titles.
        start, end, timestamp: the segment and the frame that matches best, in seconds.
        duration: seconds of the whole video; None where the collection does not say.
        score: cosine of query and segment, less the part that the collection's score bias takes; where lanes are
            fused, a sum over the ranks of the video, which is no similarity.
        probability: that the video is the right one; None where it is not known (`DITSQueryEncoder.calibration`).
        position: on the map.
        lanes: place of its video in each lane that found it, where more was searched than what is seen.
        said: line of the text beside the segment that has the most words of the query, where that lane found it.
    """

    id: str
    video_id: str
    path: str | None
    title: str | None
    start: float | None
    end: float | None
    timestamp: float | None
    duration: float | None
    score: float
    probability: float | None
    video: str | None
    frame: str | None
    position: Point | None
    lanes: dict[str, Lane]
    said: str | None


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


class Ranking(BaseModel):
    """Results of a search by a stored segment or by a picture: no adapter, no score bias, no probabilities.

    Attributes:
        of: the segment that others are like; None for a picture.
        results: best video first.
        seconds: for encoding and searching.
    """

    of: SearchResult | None
    results: list[SearchResult]
    seconds: float


class Moment(BaseModel):
    """Moment of a video: a segment, or the share of it that a frame stands for.

    Attributes:
        start, end: in seconds.
        scores: score by ranking: "plain" and "adapted" of a text, "similar" of a segment. Those of segments are as
            in a search; the mean of those of frames is the score of their segment.
    """

    start: float
    end: float
    scores: dict[str, float]


class Timeline(BaseModel):
    """Moments of one video.

    Attributes:
        duration: seconds of the whole video; None where the collection does not say.
        moments: in their order.
        complete: False where the video has more segments than are compared with a query (5,000).
    """

    video_id: str
    duration: float | None
    moments: list[Moment]
    complete: bool


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
        texts: True where texts lie beside the segments, so that what is said can be searched.
        pictures: True where pictures can be searched by.
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
    texts: bool
    pictures: bool
    feedback: FeedbackNotice | None = None
