"""One query, searched as plain CLIP and adapted, and the way between the two as a picture."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from sentence_transformers.util import batch_to_device
from sklearn.decomposition import PCA
from torch.nn.functional import normalize

from dits_adapter.encoder import DITSQueryEncoder, check_texts
from dits_adapter.errors import InputError
from dits_adapter.serve.batching import Batcher
from dits_adapter.stores.base import ReadRequest, VideoFilter

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from dits_adapter.adapters import Adapter
    from dits_adapter.evaluation.calibration import Calibration
    from dits_adapter.integrations.sentence_transformers import QueryAdapter
    from dits_adapter.stores.base import Hit, StoredSegment, VideoStore

INGESTED = "mtime_ns"
"""A payload field that ingestion writes: such a point says which file it is of, and what that file was like."""
CLOUD = 300
"""Segments drawn behind the hits, for orientation."""
COUNTED = 5.0
"""Seconds for which the number of videos, on which probabilities depend a little, is taken to stay what it was."""
Point = tuple[float, float]
Vectors = NDArray[np.float32]


class Filters(BaseModel):
    """Which videos to search.

    Attributes:
        words: that the path has, all of them.
        min_duration, max_duration: of the whole video, in seconds.
    """

    words: str = ""
    min_duration: float | None = Field(default=None, ge=0)
    max_duration: float | None = Field(default=None, ge=0)

    def as_filter(self) -> VideoFilter:
        """Return the same as a store takes it."""
        return VideoFilter(words=self.words, min_duration=self.min_duration, max_duration=self.max_duration)


class Result(BaseModel):
    """One segment that was found.

    Attributes:
        video: URL of the file, if it may be read: only what ingestion recorded is.
        frame: URL of the frame at `timestamp`, as JPEG, likewise.
        probability: that the video is the right one; None where none is known (`DITSQueryEncoder.calibration`).
        position: on the map.
    """

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
    """The two principal components of the path and of all hits: where things lie, seen from their best side.

    Attributes:
        path: of the query on the unit sphere: plain CLIP, then the adapter's steps (T' + 1 points of DITS; for
            other adapters a few strengths).
        query: the vector that was searched with; the path's end at strength 1.
        cloud: some of the collection's other segments.
        explained: how much of the variance of path and hits the picture shows, 0 to 1.
    """

    path: list[Point]
    query: Point
    cloud: list[Point]
    explained: float


class Comparison(BaseModel):
    """What plain CLIP and the adapter find for one query.

    Attributes:
        strength: how far the query was moved, 0 (plain CLIP) to 1.
        steps: truncated timesteps T' that were run; None for an adapter without.
        moved: angle between the plain and the adapted query, in degrees.
        seconds: for encoding, searching and drawing.
    """

    query: str
    strength: float
    steps: int | None
    moved: float
    plain: list[Result]
    adapted: list[Result]
    map: Map
    seconds: float


class About(BaseModel):
    """What is searched, and with what.

    Attributes:
        adapter: its kind, "dits" or another.
        trained_steps: T' of the adapter as it was loaded; None for an adapter without steps.
        max_steps: T, the most that can be asked for; likewise.
        calibrated: whether probabilities are known, at strength 1 and the trained steps.
    """

    collection: str
    segments: int
    space: str
    adapter: str
    strength: float
    trained_steps: int | None
    max_steps: int | None
    calibrated: bool


class Searcher:
    """Searches one collection with and without an adapter; safe to use from several threads.

    Args:
        store: the collection; its space is the encoder's.
        encoder: the adapter with its CLIP.
    """

    def __init__(self, store: VideoStore, encoder: DITSQueryEncoder) -> None:
        self.store = store
        self.encoder = encoder
        # The sliders search the same text again and again; different texts at a time share a forward pass.
        self._embed = lru_cache(maxsize=64)(Batcher(self._embed_texts))
        self._with_steps = lru_cache(maxsize=64)(self._folded)
        self._cloud = lru_cache(maxsize=1)(self._some)
        self._count_videos = lru_cache(maxsize=1)(lambda period: store.count_videos())

    def load(self) -> None:
        """Check the store and load CLIP now, so that what is wrong is said now and the first query is fast.

        Raises:
            StoreError, SpaceMismatchError, ArtifactError: see `VideoStore.open` and `DITSQueryEncoder`.
        """
        self.store.open()
        _ = self._modules

    @cached_property
    def _modules(self) -> tuple[SentenceTransformer, QueryAdapter]:
        model = self.encoder.as_sentence_transformer()
        return model, model[1]

    def about(self) -> About:
        """Describe the collection and the adapter."""
        _, query_adapter = self._modules
        adapter = query_adapter.adapter
        return About(
            collection=self.store.collection,
            segments=self.store.count(),
            space=str(self.encoder.space),
            adapter=adapter.kind,
            strength=query_adapter.strength,
            trained_steps=adapter.steps,
            max_steps=adapter.max_steps,
            calibrated=self.encoder.calibration is not None and self.store.cosine,
        )

    def compare(
        self,
        query: str,
        *,
        strength: float | None = None,
        steps: int | None = None,
        limit: int = 10,
        per_video: int = 1,
        filters: Filters | None = None,
        min_probability: float | None = None,
    ) -> Comparison:
        """Search a text twice.

        Args:
            query: the text.
            strength: how far to move it, 0 to 1; by default the encoder's.
            steps: truncated timesteps T' to run; by default the adapter's. Only for DITS.
            limit: videos in each of the two rankings.
            per_video: segments of each.
            filters: which videos to search.
            min_probability: leave out adapted hits that are less likely to be right, between 0 and 1.

        Raises:
            InputError: no text, or an option outside its range.
            StoreError: the collection cannot be searched.
        """
        started = time.monotonic()
        if not query.strip():
            raise InputError("the query is empty; describe what happens in the video.")
        check_texts([query])
        adapter = self._modules[1].adapter
        if steps is not None:
            adapter = self._with_steps(steps)
        strength = self._modules[1].strength if strength is None else strength
        calibration = self._calibration(adapter, strength)
        videos = self._count_videos(started // COUNTED) if calibration else 0
        min_score = None
        if min_probability is not None:
            if calibration is None:
                raise InputError(
                    "no probabilities are known: the adapter was not calibrated (dits-adapter calibrate), or not "
                    "for this strength and these steps, or the scores of this collection are no cosines."
                )
            min_score = calibration.score_of(min_probability, videos=videos)
        text = self._embed(query)
        plain = normalize(text, dim=1)
        adapted = normalize(adapter.adapt(text, strength=strength), dim=1)
        with torch.inference_mode():
            if adapter.has_trajectory:
                way = [plain, *adapter.trajectory(text)]
            else:
                way = [plain, *(adapter.adapt(text, strength=s / 5) for s in range(1, 6))]
            path = normalize(torch.cat(way), dim=1).cpu().numpy()

        chosen = (filters or Filters()).as_filter()
        found = [
            self.store.search(
                vector[0].cpu().numpy(), limit=limit, per_video=per_video, filter=chosen, min_score=least
            )
            for vector, least in ((plain, None), (adapted, min_score))
        ]
        hits = found[0] + found[1]
        drawing, positions = self._draw(path, adapted.cpu().numpy(), self._vectors(hits))
        cosine = float((plain * adapted).sum().clamp(-1, 1))
        likely = [calibration.probability(hit.score, videos=videos) if calibration else None for hit in found[1]]
        results = [
            self._result(hit, positions.get(str(hit.id)), probability)
            for hit, probability in zip(hits, [None] * len(found[0]) + likely, strict=True)
        ]
        return Comparison(
            query=query,
            strength=strength,
            steps=adapter.steps,
            moved=float(np.degrees(np.arccos(cosine))),
            plain=results[: len(found[0])],
            adapted=results[len(found[0]) :],
            map=drawing,
            seconds=time.monotonic() - started,
        )

    def _calibration(self, adapter: Adapter, strength: float) -> Calibration | None:
        """Return what gives probabilities to the scores of queries that were adapted like this, if it is known."""
        as_calibrated = strength == 1 and adapter.config == self.encoder.artifact.adapter.config
        return self.encoder.calibration if as_calibrated and self.store.cosine else None

    def _folded(self, steps: int) -> Adapter:
        """Return the adapter for another T'; what the encoder runs is folded for one."""
        return self.encoder.artifact.adapter.with_steps(steps).for_inference()

    def _embed_texts(self, queries: list[str]) -> Sequence[torch.Tensor]:
        """CLIP's text embeddings, (1, d) each, un-normalized as adapters may want them."""
        self.encoder._warn_if_truncated(queries)
        model, _ = self._modules
        with torch.inference_mode():
            features = batch_to_device(model.preprocess(queries), model.device)
            embeddings: torch.Tensor = model[0](features)["sentence_embedding"]
        return embeddings.split(1)

    def _result(self, hit: Hit, position: Point | None, probability: float | None) -> Result:
        url = f"api/videos/{hit.video_id}" if INGESTED in hit.payload else None
        at = hit.timestamp if hit.timestamp is not None else hit.start
        return Result(
            video_id=hit.video_id,
            path=hit.path,
            start=hit.start,
            end=hit.end,
            timestamp=hit.timestamp,
            score=hit.score,
            probability=probability,
            video=url,
            frame=url and f"{url}/frame?at={at or 0:g}",
            position=position,
        )

    def _vectors(self, hits: list[Hit]) -> dict[str, Vectors]:
        """Fetch the vectors of hits, which a search does not return, by point id."""
        ids = list(dict.fromkeys(hit.id for hit in hits))
        return self._by_id(self.store.read(ReadRequest(ids=ids, vectors=True)))

    def _some(self, collection: str) -> dict[str, Vectors]:
        """Some segments, the same every time: ids are hashes, so the first ones are as good as any."""
        return self._by_id(self.store.read(ReadRequest(limit=CLOUD, vectors=True)))

    def _by_id(self, segments: Iterable[StoredSegment]) -> dict[str, Vectors]:
        return {str(segment.id): segment.vector for segment in segments if segment.vector is not None}

    def _draw(self, path: Vectors, query: Vectors, hits: dict[str, Vectors]) -> tuple[Map, dict[str, Point]]:
        """Project path (n, d), query (1, d) and hits; the axes are those of path and hits."""
        around = [vector for point, vector in self._cloud(self.store.collection).items() if point not in hits]
        seen = np.vstack([path, query, *hits.values()])
        pca = PCA(2, svd_solver="full").fit(seen)
        flat = [(round(float(x), 4), round(float(y), 4)) for x, y in pca.transform(np.vstack([seen, *around]))]
        drawn, cloud = flat[: len(seen)], flat[len(seen) :]
        explained = float(np.nan_to_num(pca.explained_variance_ratio_.sum()))
        return (
            Map(path=drawn[: len(path)], query=drawn[len(path)], cloud=cloud, explained=explained),
            dict(zip(hits, drawn[len(path) + 1 :], strict=True)),
        )
