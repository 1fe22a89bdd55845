"""Answers to queries: hits with their probabilities, and where nothing fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dits_adapter._reprs import shown_repr
from dits_adapter._wording import no_cosines
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.bias import ScoreBias
from dits_adapter.stores.ranking import bias_weight
from dits_adapter.stores.requests import Hit, SearchRequest

__all__ = ["Answer", "Judge", "Match", "calibration_of"]


@dataclass(frozen=True)
class Match:
    """Hit of a search with its probability.

    Attributes:
        hit: the segment.
        probability: probability, 0 to 1, that its video is the right one; None where it is not known.
    """

    hit: Hit
    probability: float | None

    def __str__(self) -> str:
        return str(self.hit) if self.probability is None else f"{self.probability:6.1%}  {self.hit}"


@dataclass(frozen=True)
class Judge:
    """Judge of the hits of one query.

    Attributes:
        calibration: calibration of their scores.
        videos: number of videos in the collection.
        min_probability, min_probability_of_any, answerable: see `VideoSearch.search`.
    """

    calibration: Calibration
    videos: int
    min_probability: float | None = None
    min_probability_of_any: float | None = None
    answerable: float = 0.5


@dataclass(frozen=True)
class Answer:
    """Answer to one text; `str` of it is a line a match.

    Attributes:
        matches: hits with their probabilities, best video first, without those that are less likely than was
            asked for.
        found: number of hits, those left out among them.
        probability_of_any: probability, 0 to 1, that any of the ten best hits is right, those left out among
            them; None where it is not known.
    """

    matches: tuple[Match, ...]
    found: int
    probability_of_any: float | None

    __repr__ = shown_repr

    def __str__(self) -> str:
        if not self.matches:
            return "no video is that likely" if self.found else "nothing was found"
        return "\n".join(map(str, self.matches))

    @classmethod
    def of(cls, hits: Sequence[Hit], judge: Judge | None, *, first: bool = True) -> Answer:
        """Give hits their probabilities, and leave out those that are less likely than the judge wants.

        Args:
            hits: hits of a search, best first.
            judge: None where probabilities are not known.
            first: True where the best hit of the collection is among them.
        """
        if judge is None:
            return cls(tuple(Match(hit, None) for hit in hits), len(hits), None)
        scale, videos = judge.calibration, judge.videos
        of_any = None
        if hits and first:
            of_any = scale.probability_of_any(hits[0].score, videos=videos, share=judge.answerable)
        judged = [(hit, scale.probability(hit.score, videos=videos)) for hit in hits]
        fits = of_any is None or of_any >= (judge.min_probability_of_any or 0.0)
        likely = [Match(hit, p) for hit, p in judged if fits and p >= (judge.min_probability or 0.0)]
        return cls(tuple(likely), len(hits), of_any)


def calibration_of(
    calibration: Calibration | None,
    store: VideoStore,
    bias: ScoreBias | None,
    request: SearchRequest,
    *,
    adapter: str = "ID",
) -> Calibration | str:
    """Return the calibration of the scores of a search, or the reason why there is none, a sentence.

    Args:
        calibration: calibration of the queries (`DITSQueryEncoder.calibration`).
        store: opened collection.
        bias: score bias of the collection; None where none is in use.
        request: the search.
        adapter: name of the adapter, for the command that calibrates it.

    Raises:
        StoreError: a weight for a bias that is not there.
    """
    if request.rerank is not None:
        return "probabilities are of the scores before re-ranking; leave out rerank."
    if request.beyond_seen:
        return "probabilities are of what is seen alone; leave out lanes."
    if not store.cosine:
        return no_cosines(store.name)
    weight = bias_weight(request, bias)
    if calibration is None:
        return (
            "the adapter was not calibrated, or not for this strength, these steps and the score bias of the "
            "collection. Calibrate it on pairs that it was not trained on: dits-adapter calibrate CACHE "
            f"{adapter} --out FOLDER"
        )
    if bias is None:
        return calibration
    return calibration.less(bias.bank, weight) or (
        f"the adapter was not calibrated for the score bias of the collection {store.name!r}. Calibrate it so: "
        f"dits-adapter calibrate CACHE {adapter} --bias BANK --weight {weight:g} --out FOLDER"
    )
