"""Queries that nothing in a collection fits: `python -m benchmarks.unanswerable --vectors PATH`.

`--vectors` is a .npy file (2, n, d), pictures or videos first and the text of each second, or a cache of
`dits-adapter embed` or `dits-adapter import`. Half of the videos, drawn at random, are set aside for the test:
half of these are the collection, and the texts of all of them the queries, so that half of the queries have no
video there. Of the others, half of the texts are a bank, and the pairs of the rest fit what turns a score into a
probability. This is done ten times. With `--adapter` queries are adapted, and the bank's too; give pairs that it
was not trained on.

Rows are what may tell that none of the ten best hits is right, each with a logistic regression of its own; those
of the best hit's score are `Calibration.probability_of_any`, without a score bias and with one. The first column
is how well queries are told apart whose video is in the collection, the others are of queries with a right hit
among ten. "By chance" is the calibration error that exact probabilities have on so few queries. ± is the
standard error over the draws, which share videos.

The last line is of the hits: the calibration error of their probabilities in a collection with a score bias, by
a calibration of cosines and by one of the scores less the bias.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from benchmarks.halvings import HALVINGS, halves, read
from dits_adapter import Artifact, Pairs
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.answerability import answer_figures
from dits_adapter.evaluation.calibration import fit_calibration
from dits_adapter.evaluation.reliability import HITS, Reliability
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, bias_sharpness, score_bias
from dits_adapter.vectors import unit

Floats = NDArray[np.floating]

TELLS: Mapping[str, Callable[[Floats], Floats]] = {
    "margin to the second hit": lambda best: best[:, 0] - best[:, 1],
    f"z-score among the {HITS} best": lambda best: (best[:, 0] - best.mean(1)) / best.std(1),
    f"best, and its lead on the next {HITS - 1}": lambda best: np.stack([best[:, 0], best[:, 1:].mean(1)], axis=1),
}
"""Scores of queries by name, by the scores of their best hits (n, HITS)."""

HEAD = ("AUROC, video there", "AUROC, right hit", "Brier", "ECE", "by chance")
"""Columns of the table."""


@guarded("benchmarks.unanswerable")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unanswerable",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", type=Path, required=True, metavar="PATH", help="FILE.npy or a cache")
    parser.add_argument("--adapter", metavar="ID", help="folder, bundled name or hub id (default: plain)")
    parser.add_argument(
        "--halvings", type=int, default=HALVINGS, metavar="N", help="at least 2 (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.halvings < 2:
        raise InputError(f"--halvings {args.halvings}: a standard error needs at least 2.")
    pairs = read(args.vectors)
    adapter = None
    if args.adapter is not None:
        artifact = Artifact.load(args.adapter)
        artifact.space.require(pairs.space, mine=f"the adapter {args.adapter}", theirs=f"the pairs {args.vectors}")
        adapter = artifact.adapter.for_inference()
    print(report(pairs, adapter, args.halvings))
    return 0


def report(pairs: Pairs, adapter: Adapter | None, halvings: int) -> str:
    """Return the table as Markdown, with what was measured above it."""
    text = unit(pairs.text if adapter is None else adapter.adapt(pairs.text))
    queries = Pairs(text, pairs.video, pairs.labels, pairs.space, pairs.video_ids)
    draws = [Draw.of(queries, number) for number in progress_bar(range(halvings), desc="draws")]
    lines = [
        [name, *(_mean([draw.rows[name][column] for draw in draws]) for column in range(len(HEAD)))]
        for name in draws[0].rows
    ]
    first = draws[0]
    by_cosine, by_score = (_mean([draw.hits[kind] for draw in draws]) for kind in range(2))
    return (
        f"{pairs.space.text.encoder}: {first.queries:,} queries, {first.videos:,} videos searched; a bank of "
        f"{first.bank:,}; fitted on {first.fitted:,} queries; {halvings} draws\n\n"
        + markdown_table(["", *HEAD], lines)
        + f"\n\nECE of the hits of a search with a score bias: {by_cosine} by a calibration of cosines, "
        f"{by_score} by one of these scores"
    )


@dataclass(frozen=True)
class Draw:
    """One draw of the videos.

    Attributes:
        rows: figures by row, in the order of `HEAD`.
        hits: calibration error of hits with a score bias, by a calibration of cosines and by one of these scores.
        queries, videos: numbers of queries and of searched videos.
        bank, fitted: numbers of queries in the bank, and of those that fitted the regressions.
    """

    rows: dict[str, list[float]]
    hits: tuple[float, float]
    queries: int
    videos: int
    bank: int
    fitted: int

    @classmethod
    def of(cls, queries: Pairs, number: int) -> Draw:
        """Measure one draw, whose number is its seed."""
        asked, others = halves(queries, number)
        bank, held_out = halves(others, number)
        kept = np.sort(np.random.default_rng(number).permutation(len(asked.video))[: len(asked.video) // 2])
        place = np.full(len(asked.video), -1)
        place[kept] = np.arange(len(kept))
        labels, collection = place[asked.labels], asked.video[kept]
        rows: dict[str, list[float]] = {}
        calibrations, searched = [], []
        for weight, where in ((0.0, ""), (BIAS_WEIGHT, ", less the bias")):
            known = _scores(held_out.text, held_out.video, bank.text, weight)
            scores = _scores(asked.text, collection, bank.text, weight)
            without = known.copy()
            without[np.arange(len(known)), held_out.labels] = -np.inf
            fitted = np.concatenate([_best(known), _best(without)])
            found = np.concatenate([_right(known, held_out.labels), np.zeros(len(known), dtype=bool)])
            best, right = _best(scores), _right(scores, labels)
            for name, tell in TELLS.items():
                rows[name + where] = _figures(_logistic(tell(fitted), found)(tell(best)), labels >= 0, right)
            calibration = fit_calibration(known, held_out.labels).calibration
            probability = [calibration.probability_of_any(score, videos=len(collection)) for score in best[:, 0]]
            rows[f"score of the best hit{where}"] = _figures(np.array(probability), labels >= 0, right)
            calibrations.append(calibration)
            searched.append(scores)
        hits = np.argsort(-searched[1], axis=1)[:, :HITS]
        match = hits == labels[:, None]
        errors = []
        for calibration, scores in zip(calibrations, searched, strict=True):
            said = calibration.probability(np.take_along_axis(scores, hits, 1), videos=2 * len(collection))
            errors.append(Reliability.of(said.ravel(), match.ravel().astype(int), np.ones(match.size)).ece)
        return cls(rows, (errors[0], errors[1]), len(asked), len(collection), len(bank), len(held_out))


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.3f}"


def _scores(texts: Floats, videos: Floats, bank: Floats, weight: float) -> Floats:
    bias = score_bias(videos, bank, sharpness=bias_sharpness(videos, bank))
    return np.asarray(texts @ videos.T - weight * bias, np.float64)


def _best(scores: Floats) -> Floats:
    best: Floats = -np.sort(-scores, axis=1)[:, :HITS]
    return best


def _right(scores: Floats, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return where the right video is among the `HITS` best; False where it is absent (label -1)."""
    own = np.take_along_axis(scores, np.maximum(labels, 0)[:, None], 1)
    right: NDArray[np.bool_] = (labels >= 0) & ((scores > own).sum(1) < HITS)
    return right


def _logistic(values: Floats, right: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    matrix = values.reshape(len(values), -1)
    center, spread = matrix.mean(0), matrix.std(0)
    model = LogisticRegression(C=np.inf).fit((matrix - center) / spread, right)
    return lambda others: expit(model.decision_function((others.reshape(len(others), -1) - center) / spread))


def _figures(probability: Floats, present: NDArray[np.bool_], right: NDArray[np.bool_]) -> list[float]:
    figures = answer_figures(probability, right)
    random = np.random.default_rng(0)
    chance = [answer_figures(probability, random.random(len(right)) < probability)["ece"] for _ in range(20)]
    seen = float(roc_auc_score(present, probability))
    return [seen, figures["auroc"], figures["brier"], figures["ece"], float(np.mean(chance))]


if __name__ == "__main__":
    sys.exit(main())
