"""Comparison of all scorers on one test split, for some adapters' queries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks import qdrant
from benchmarks.scorers import SHORT_LIST, DualSoftmax, MaxSim, QBNorm, TwoStage
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.comparison import Retrieval
from dits_adapter.evaluation.metrics import DotProducts, Scores, ranks
from dits_adapter.vectors import unit
from dits_adapter.xpool import XPool, xpool_scores

POOLED = "pooled cosine"
"""Scorer of an index: cosines with the mean of each video's frames."""

XPOOL = "X-Pool over frames"
"""Scorer of the papers, which no index can hold."""

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
    for name, adapter in progress_bar(adapters.items(), desc="scorers", unit="adapter", progress=progress):
        rows += [
            ScorerRow(scorer, name, False, Retrieval.of(ranks(scores, test.labels), test.labels))
            for scorer, scores in searches(adapter, test, xpool)
        ]
        ready, video = adapter.for_inference(), unit(test.video)
        texts, bank = unit(ready.adapt(test.text)), unit(ready.adapt(train.text[np.sort(chosen)]))
        pooled = DotProducts(texts, video)
        of_others: dict[str, Scores] = {
            f"QB-Norm, bank of {len(bank):,} training texts": QBNorm(pooled, DotProducts(bank, video)),
            "dual softmax": DualSoftmax(pooled),
        }
        for scorer, scores in of_others.items():
            rows.append(ScorerRow(scorer, name, True, Retrieval.of(ranks(scores, test.labels), test.labels)))
        if location is None:
            continue
        for mode, (values, milliseconds) in qdrant.search(location, test, texts, progress=progress).items():
            rows.append(ScorerRow(mode, name, False, Retrieval.of(values, test.labels), milliseconds))
    return sorted(rows, key=lambda row: row.uses_other_queries)


def searches(adapter: Adapter, test: Pairs, xpool: XPool | None) -> Iterator[tuple[str, Scores]]:
    """Yield the ways to search in which each query stands for itself: name and scores (texts, videos).

    Args:
        adapter: finished adapter; one that `needs_video` has no query for MaxSim.
        test: the pairs to search, with frame vectors for the scorers of frames.
        xpool: the head of a joint adapter in whose space the pairs are; None for none.
    """
    ready = adapter.for_inference()
    pooled = cosine_scores(ready, test.text, test.video)
    yield POOLED, pooled
    if test.frames is None:
        return
    frames = unit(np.asarray(test.frames))
    if not ready.needs_video:
        of_frames = MaxSim(unit(ready.adapt(test.text)), frames)
        yield "MaxSim over frames", of_frames
        yield f"pooled, top {SHORT_LIST} by MaxSim", TwoStage(pooled, of_frames)
    if xpool is not None:
        # Its first layer norm takes the norm out of a frame, but for an eps that unit vectors would notice.
        # All scores at once (90 MB for VATEX), because they take minutes and two scorers read them.
        scores = xpool_scores(xpool, ready, test.text, frames * frames.shape[2] ** 0.5)[:]
        yield XPOOL, scores
        yield f"pooled, top {SHORT_LIST} by X-Pool", TwoStage(pooled, scores)


def scorer_table(rows: Sequence[ScorerRow]) -> str:
    """Write the rows as a Markdown table."""
    head = ["scorer", "queries", "R@1", "R@5", "R@10", "MdR", "MnR", "ms a query", "uses other queries"]
    cells = []
    for row in rows:
        time = "–" if row.milliseconds is None else f"{row.milliseconds:.2f}"
        others = "YES" if row.uses_other_queries else "no"
        cells.append([row.scorer, row.queries, *row.retrieval.cells(), time, others])
    return markdown_table(head, cells)
