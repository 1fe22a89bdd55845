"""Comparison of all scorers on one test split, for some adapters' queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from benchmarks import qdrant
from benchmarks.scorers import SHORT_LIST, DualSoftmax, MaxSim, QBNorm, TwoStage
from dits_adapter.adapters import Adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.comparison import Retrieval
from dits_adapter.evaluation.metrics import DotProducts, Scores, ranks
from dits_adapter.vectors import unit
from dits_adapter.xpool import XPool, XPoolScores

BANK = 5000
"""Greatest number of training texts in QB-Norm's bank."""


@dataclass(frozen=True)
class ScorerRow:
    """Row of a table: one scorer on the queries of one adapter, text to video.

    Attributes:
        scorer: name of the scorer.
        queries: name of the adapter.
        uses_other_queries: True where a query's scores depend on other queries; such rows compare with one another
            only.
        retrieval: retrieval on the test split.
        milliseconds: median time of a query sent alone; None where scores are computed for all at once.
    """

    scorer: str
    queries: str
    uses_other_queries: bool
    retrieval: Retrieval
    milliseconds: float | None = None


def score_all(
    adapters: Mapping[str, Adapter],
    train: Pairs,
    test: Pairs,
    *,
    xpool: XPool | None = None,
    location: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> list[ScorerRow]:
    """Score the test videos by every scorer; scorers of frames need the pairs' frame vectors.

    Args:
        adapters: finished adapters by name.
        train: training pairs, whose texts are QB-Norm's bank.
        test: the pairs to search.
        xpool: the head of a joint adapter in whose space the pairs are.
        location: location of a Qdrant to search as well, see `benchmarks.qdrant.search`.
        seed: seed of the draw of the bank.
        progress: show progress bars.
    """
    chosen = np.random.default_rng(seed).permutation(len(train))[:BANK]
    rows = []
    for name, adapter in tqdm(adapters.items(), desc="scorers", unit="adapter", disable=not progress):
        ready = adapter.for_inference()
        texts, bank = unit(ready.adapt(test.text)), unit(ready.adapt(train.text[np.sort(chosen)]))
        for scorer, scores, uses_others in _matrices(texts, bank, test, xpool):
            retrieval = Retrieval.of(ranks(scores, test.labels), test.labels)
            rows.append(ScorerRow(scorer, name, uses_others, retrieval))
        if location is None:
            continue
        for mode, (values, milliseconds) in qdrant.search(location, test, texts, progress=progress).items():
            rows.append(ScorerRow(mode, name, False, Retrieval.of(values, test.labels), milliseconds))
    return sorted(rows, key=lambda row: row.uses_other_queries)


def _matrices(
    texts: npt.NDArray[np.float32], bank: npt.NDArray[np.float32], test: Pairs, xpool: XPool | None
) -> Iterator[tuple[str, Scores, bool]]:
    """Yield each scorer's name, scores, and True where the scores use other queries."""
    video = unit(test.video)
    pooled = DotProducts(texts, video)
    yield "pooled cosine", pooled, False
    if test.frames is not None:
        frames = unit(np.asarray(test.frames))
        of_frames: dict[str, Scores] = {"MaxSim": MaxSim(texts, frames)}
        if xpool is not None:
            # Its first layer norm takes the norm out of a frame, but for an eps that unit vectors would notice.
            # All scores at once (90 MB for VATEX), because they take minutes and two scorers read them.
            of_frames["X-Pool"] = XPoolScores(xpool, texts, test.text, frames * frames.shape[2] ** 0.5)[:]
        for name, scores in of_frames.items():
            yield f"{name} over frames", scores, False
            yield f"pooled, top {SHORT_LIST} by {name}", TwoStage(pooled, scores), False
    yield f"QB-Norm, bank of {len(bank):,} training texts", QBNorm(pooled, DotProducts(bank, video)), True
    yield "dual softmax", DualSoftmax(pooled), True


def scorer_table(rows: Sequence[ScorerRow]) -> str:
    """Write the rows as a Markdown table."""
    head = ["scorer", "queries", "R@1", "R@5", "R@10", "MdR", "MnR", "ms a query", "uses other queries"]
    cells = []
    for row in rows:
        time = "–" if row.milliseconds is None else f"{row.milliseconds:.2f}"
        others = "YES" if row.uses_other_queries else "no"
        cells.append([row.scorer, row.queries, *row.retrieval.cells(), time, others])
    return markdown_table(head, cells)
