"""`Searcher`: one query, searched as plain CLIP and adapted, and its path across the modality gap."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from dits_adapter.answers import Answer, Judge
from dits_adapter.encoder import DITSQueryEncoder, check_queries
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.serve._answers import About, Lane, Map, Point, SearchResult, SideBySide
from dits_adapter.serve._batching import Batcher
from dits_adapter.serve._map import project
from dits_adapter.stores.requests import SEEN, ReadRequest, SearchRequest, VideoFilter
from dits_adapter.stores.text_lane import SAID, best_line

if TYPE_CHECKING:
    from dits_adapter.adapters import Adapter
    from dits_adapter.evaluation.calibration import Calibration
    from dits_adapter.stores.base import VideoStore
    from dits_adapter.stores.bias import ScoreBias
    from dits_adapter.stores.requests import Hit

__all__ = ["INGESTED", "CompareOptions", "Searcher", "search_result"]

INGESTED = "mtime_ns"
"""Payload field that ingestion alone writes: a segment with it names a file that may be read."""

_CLOUD = 300
"""Segments drawn behind the results, for orientation."""

_COUNT_SECONDS = 5.0
"""Seconds for which the number of videos, on which probabilities depend a little, is reused."""

_STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Path of a query through an adapter without a trajectory."""


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Options of `Searcher.compare`, beside the query.

    Attributes:
        strength: movement of the query, 0 to 1; None for the encoder's.
        steps: truncated timesteps T' to run; None for the adapter's. Only for adapters with steps.
        limit: videos in each of the two rankings.
        per_video: segments of each.
        filter: the videos to search.
        min_probability: least probability of adapted results to be the right video, between 0 and 1; plain
            results are not filtered.
        lanes: lanes to search, "seen" and "said" (`SearchRequest`); the words of the query are looked for.
    """

    strength: float | None = None
    steps: int | None = None
    limit: int = 10
    per_video: int = 1
    filter: VideoFilter = field(default_factory=VideoFilter)
    min_probability: float | None = None
    lanes: tuple[str, ...] = (SEEN,)

    def request(self, query: str, bias: float) -> SearchRequest:
        """Return the request to the store for a text, with this weight of the score bias."""
        return SearchRequest(
            limit=self.limit,
            per_video=self.per_video,
            filter=self.filter or None,
            bias=bias,
            lanes=self.lanes,
            texts=None if self.lanes == (SEEN,) else (query,),
        )


@dataclass(frozen=True)
class _Query:
    """Text as it is searched.

    Attributes:
        adapter: the adapter, as it is beside the score bias.
        text: embedding of the text, (1, d).
        plain, adapted: unit vectors, (1, d).
        plain_weight, adapted_weight: weights of the score bias for them.
        calibration: calibration of the scores of `adapted`; None where none is known.
        strength: movement of the query.
    """

    adapter: Adapter
    text: torch.Tensor
    plain: torch.Tensor
    adapted: torch.Tensor
    plain_weight: float
    adapted_weight: float
    calibration: Calibration | None
    strength: float


class Searcher:
    """Search of one collection with and without an adapter; safe to use from several threads.

    Args:
        store: the collection; its space is the encoder's.
        encoder: the adapter with its CLIP, on the backend `torch`.
    """

    def __init__(self, store: VideoStore, encoder: DITSQueryEncoder) -> None:
        self.store = store
        self.encoder = encoder
        # The sliders search the same text again and again; different texts at a time share a forward pass.
        self._batcher = Batcher(self._embed_texts)
        self._embed = lru_cache(maxsize=64)(self._batcher)
        self._adapter = lru_cache(maxsize=64)(self._load_adapter)
        self._cloud = lru_cache(maxsize=1)(self._read_cloud)
        self._read_bias = lru_cache(maxsize=1)(self._load_bias)
        self._count_videos = lru_cache(maxsize=1)(lambda period: store.count_videos())

    def load(self) -> None:
        """Check the store and load CLIP, so that errors come now and the first query is fast.

        Raises:
            StoreError, SpaceMismatchError, ArtifactError: see `VideoStore.open` and `DITSQueryEncoder`.
        """
        self.store.open()
        self.encoder.load()

    @property
    def waiting_texts(self) -> int:
        """Texts that wait for the text encoder."""
        return self._batcher.waiting

    @property
    def cached_texts(self) -> tuple[int, int]:
        """Texts that were found in the cache of embeddings, and those that were not."""
        info = self._embed.cache_info()
        return info.hits, info.misses

    def about(self) -> About:
        """Describe the collection and the adapter."""
        adapter = self._adapter(None)
        beside, weight = self._beside_bias(adapter, 1.0)
        return About(
            collection=self.store.collection,
            segments=self.store.count(),
            space=str(self.encoder.space),
            adapter=adapter.kind,
            strength=self.encoder.query_strength,
            trained_steps=adapter.steps,
            max_steps=adapter.max_steps,
            calibrated=beside is adapter and self._calibration(None, 1.0, weight) is not None,
            digest=self.encoder.artifact.digest,
            texts=self._has_texts(),
            pictures=self._sees_pictures(),
        )

    def _has_texts(self) -> bool:
        metadata = self.store.metadata() if self.store.capabilities.texts else None
        return metadata is not None and metadata.texts is not None

    def _sees_pictures(self) -> bool:
        try:
            self.encoder.require_image_side()
        except (InputError, SpaceMismatchError):
            return False
        return True

    def compare(self, query: str, options: CompareOptions | None = None) -> SideBySide:
        """Search a text with plain CLIP and with the adapter.

        Raises:
            InputError: no text, or an option outside its range.
            StoreError: the collection cannot be searched.
        """
        started = time.monotonic()
        options = options or CompareOptions()
        laps = _Laps()
        asked = self._ask(query, options.strength, options.steps, laps)
        calibration = asked.calibration if options.lanes == (SEEN,) else None
        if options.min_probability is not None and calibration is None:
            raise InputError(
                "no probabilities are known: the adapter was not calibrated (dits-adapter calibrate), or not for "
                "this strength, these steps and the score bias of this collection, its scores are no cosines, or "
                "more is searched than what is seen."
            )
        plain_hits, adapted_hits = (
            self.store.search(vector[0].cpu().numpy(), options.request(query, weight))
            for vector, weight in (
                (asked.plain, asked.plain_weight),
                (asked.adapted, asked.adapted_weight),
            )
        )
        judge = None
        if calibration is not None:
            videos = self._count_videos(started // _COUNT_SECONDS)
            judge = Judge(calibration, videos, min_probability=options.min_probability)
        answer = Answer.of(adapted_hits, judge)
        hits = plain_hits + [match.hit for match in answer.matches]
        laps.end("store")
        path = torch.cat([asked.plain, *_path(asked.adapter, asked.text)])
        drawing, positions = self._draw(normalize(path, dim=1), asked.adapted, hits)
        laps.end("map")
        cosine = float((asked.plain * asked.adapted).sum().clamp(-1, 1))
        said = _SaidLine.of(self.store, query) if options.lanes != (SEEN,) else None
        return SideBySide(
            query=query,
            strength=asked.strength,
            steps=asked.adapter.steps,
            angle=float(np.degrees(np.arccos(cosine))),
            probability_of_any=answer.probability_of_any,
            plain=[search_result(hit, positions, said=said) for hit in plain_hits],
            adapted=[search_result(m.hit, positions, m.probability, said=said) for m in answer.matches],
            map=drawing,
            plain_bias=asked.plain_weight,
            adapted_bias=asked.adapted_weight,
            digest=self.encoder.artifact.digest,
            seconds=time.monotonic() - started,
            stages=laps.seconds,
        )

    def weighted(
        self, query: str, *, strength: float | None = None, steps: int | None = None
    ) -> dict[str, tuple[NDArray[np.float32], float]]:
        """Return the "plain" and the "adapted" vector of a text, (d,), with their weights of the score bias.

        Raises:
            InputError: no text, or an option outside its range.
        """
        asked = self._ask(query, strength, steps, _Laps())
        return {
            "plain": (asked.plain[0].cpu().numpy(), asked.plain_weight),
            "adapted": (asked.adapted[0].cpu().numpy(), asked.adapted_weight),
        }

    def _ask(self, query: str, strength: float | None, steps: int | None, laps: _Laps) -> _Query:
        check_queries(query)
        strength = self.encoder.query_strength if strength is None else strength
        own = self._adapter(steps)
        adapter, weight = self._beside_bias(own, strength)
        calibration = self._calibration(steps, strength, weight) if adapter is own else None
        text = self._embed(query)
        laps.end("embed")
        plain = normalize(text, dim=1)
        adapted = normalize(adapter.adapt(text, strength=strength), dim=1)
        laps.end("adapt")
        return _Query(adapter, text, plain, adapted, self._plain_weight(), weight, calibration, strength)

    def embed_apart(self, text: str) -> NDArray[np.float32]:
        """Embed a text, (1, d), un-normalized, between those of people who search, and without caching it."""
        return self._batcher(text).numpy()

    def as_searched(self) -> tuple[Adapter, float, float]:
        """Return the adapter of a search by default, and the weights of the bias with it and with plain CLIP."""
        adapter, weight = self._beside_bias(self._adapter(None), self.encoder.query_strength)
        return adapter, weight, self._plain_weight()

    def _beside_bias(self, adapter: Adapter, strength: float) -> tuple[Adapter, float]:
        """Return the adapter and the weight of the score bias that are taken together (`ScoreBias.beside`)."""
        bias = self._read_bias(self.store.collection)
        if bias is None:
            return adapter, 0.0
        return bias.beside(adapter, np.array(self.encoder.space.text.probes, np.float32), strength)

    def _plain_weight(self) -> float:
        """Return the weight of the score bias for plain queries: 0 if it is for others."""
        bias = self._read_bias(self.store.collection)
        fits = bias is not None and bias.fits(self.encoder.space.text.probes)
        return bias.weight if bias is not None and fits else 0.0

    def _calibration(self, steps: int | None, strength: float, weight: float) -> Calibration | None:
        """Return the calibration of queries adapted with these options; None where there is none."""
        calibration, bias = self.encoder.calibration, self._read_bias(self.store.collection)
        as_calibrated = strength == 1 and steps in (None, self.encoder.artifact.adapter.steps)
        if calibration is None or not as_calibrated or not self.store.cosine:
            return None
        return calibration if bias is None else calibration.less(bias.bank, weight)

    def _load_bias(self, collection: str) -> ScoreBias | None:
        metadata = self.store.metadata()
        return None if metadata is None else metadata.bias_in_use

    def _load_adapter(self, steps: int | None) -> Adapter:
        adapter = self.encoder.artifact.adapter
        return (adapter if steps is None else adapter.with_steps(steps)).for_inference()

    def _embed_texts(self, queries: list[str]) -> Sequence[torch.Tensor]:
        """Return CLIP's text embeddings, (1, d) each, un-normalized as adapters may need them."""
        return torch.from_numpy(self.encoder.embed(queries)).split(1)

    def _draw(self, path: torch.Tensor, query: torch.Tensor, hits: Sequence[Hit]) -> tuple[Map, dict[str, Point]]:
        """Draw the map; the vectors of the hits are read for it, since a search returns none."""
        ids = list(dict.fromkeys(hit.id for hit in hits))
        vectors = self._read(ReadRequest(ids=ids, vectors=True)) if ids else {}
        cloud = self._cloud(self.store.collection)
        others = [vector for segment, vector in cloud.items() if segment not in vectors]
        return project(path.cpu().numpy(), query[0].cpu().numpy(), vectors, others)

    def _read_cloud(self, collection: str) -> dict[str, NDArray[np.float32]]:
        """Read some segments, the same every time: ids are hashes, so the first segments are a fair sample."""
        return self._read(ReadRequest(limit=_CLOUD, vectors=True))

    def _read(self, request: ReadRequest) -> dict[str, NDArray[np.float32]]:
        segments = self.store.read(request)
        return {str(segment.id): segment.vector for segment in segments if segment.vector is not None}


class _Laps:
    """Stopwatch of consecutive stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def end(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage], self._last = now - self._last, now


@torch.inference_mode()
def _path(adapter: Adapter, text: torch.Tensor) -> list[torch.Tensor]:
    """Return the way of text embeddings (1, d) through an adapter, (1, d) each, of any norm."""
    if adapter.has_trajectory:
        return adapter.trajectory(text)
    return [adapter.adapt(text, strength=strength) for strength in _STRENGTHS]


@dataclass(frozen=True)
class _SaidLine:
    """Line of the text beside a hit that a query found.

    Attributes:
        query: the query.
        language: language of the texts; None where words stay as they are.
    """

    query: str
    language: str | None

    @classmethod
    def of(cls, store: VideoStore, query: str) -> _SaidLine:
        metadata = store.metadata()
        texts = None if metadata is None else metadata.texts
        return cls(query, None if texts is None else texts.language)

    def __call__(self, hit: Hit) -> str | None:
        text = hit.payload.get(SAID) if SAID in hit.lanes else None
        return best_line(text, self.query, self.language) if text else None


def search_result(
    hit: Hit,
    positions: Mapping[str, Point] | None = None,
    probability: float | None = None,
    *,
    said: Callable[[Hit], str | None] | None = None,
) -> SearchResult:
    """Describe a hit.

    Args:
        hit: the hit.
        positions: places on the map, by ids.
        probability: that its video is the right one.
        said: returns the line that the query found.
    """
    url = f"api/videos/{hit.video_id}" if INGESTED in hit.payload else None
    at = hit.timestamp if hit.timestamp is not None else hit.start
    return SearchResult(
        id=str(hit.id),
        video_id=hit.video_id,
        path=hit.path,
        title=hit.title,
        start=hit.start,
        end=hit.end,
        timestamp=hit.timestamp,
        duration=hit.payload.get("duration") if url else None,
        score=hit.score,
        probability=probability,
        video=url,
        frame=url and f"{url}/frame?at={at or 0:g}",
        position=(positions or {}).get(str(hit.id)),
        lanes={name: Lane(rank=of.rank, score=of.score) for name, of in hit.lanes.items()},
        said=None if said is None else said(hit),
    )
