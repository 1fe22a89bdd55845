"""Reliability of probabilities in collections of other sizes: `python -m benchmarks.calibration`.

Platt's logistic regression (`dits_adapter.evaluation.calibration`) and isotonic regression are both fitted on all
pairs of the val split, a collection of one size, and measured on the test split in collections of other sizes,
also where the collection lacks the video that a query was written for (told: N / share in place of N). Measured
are the ten best hits of each query.

Without `--vectors`, the generated clips (not real video) are made and embedded first, in some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from benchmarks.clips.train_adapters import embed_split
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import guarded
from dits_adapter.data.pairs import Pairs
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.calibration import fit_calibration
from dits_adapter.evaluation.reliability import HITS, Reliability
from dits_adapter.video.encoder import VideoEncoder

COLLECTION_SIZES = (30, 100, 300)
"""Numbers of videos in a collection."""

ABSENT = (0.0, 0.5, 1.0)
"""Shares of queries whose video is not in the collection."""

LIKELY = 0.5
"""Least probability of a likely hit."""

Floats = NDArray[np.float64]

Probabilities = Callable[[Floats, float], Floats]
"""Function from cosines and the size of a collection to probabilities."""


@guarded("benchmarks.calibration")
def main(argv: Sequence[str] | None = None) -> int:
    """Print one row for each collection size, share of absent videos and method."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.split("\n\n")[0])
    parser.add_argument("--adapter", default="demo-dits", help="folder or bundled name (default: %(default)s)")
    parser.add_argument(
        "--vectors", type=Path, metavar="DIR", help="val.safetensors and test.safetensors, of Pairs"
    )
    parser.add_argument(
        "--root", type=Path, default=Path("results/clips"), help="where clips are kept (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if args.vectors:
        val, test = (Pairs.load(args.vectors / f"{split}.safetensors") for split in ("val", "test"))
    else:
        encoder = VideoEncoder.from_pretrained("demo-clip")
        val, test = (embed_split(split, args.root, encoder) for split in ("val", "test"))
    artifact = Artifact.load(args.adapter)
    scores = {
        split: np.asarray(
            cosine_scores(artifact.adapter.for_inference(), pairs.text, pairs.video)[: len(pairs)], np.float64
        )
        for split, pairs in (("val", val), ("test", test))
    }
    methods = {"Platt": platt(scores["val"], val.labels), "isotonic": isotonic(scores["val"], val.labels)}
    rows = []
    for videos in (n for n in COLLECTION_SIZES if n <= len(test.video)):
        for absent in ABSENT:
            hits, right = map(
                np.concatenate, zip(*collections(scores["test"], test.labels, videos, absent), strict=True)
            )
            predicted = {name: method(hits, videos) for name, method in methods.items()}
            if 0 < absent < 1:
                predicted["Platt, told"] = methods["Platt"](hits, videos / (1 - absent))
            rows += [[f"{videos}", f"{absent:.0%}", name, *measured(p, right)] for name, p in predicted.items()]
    print(
        f"Fitted on {len(val):,} queries and {len(val.video):,} videos, measured on {len(test):,} queries of "
        f"{len(test.video):,} other videos; {args.adapter}.\n"
    )
    head = [
        "videos",
        "without video",
        "",
        "log loss",
        "ECE",
        f"hits of {LIKELY:.0%} a query",
        "confidence",
        "accuracy",
    ]
    print(markdown_table(head, rows))
    return 0


def platt(scores: Floats, labels: NDArray[np.int64]) -> Probabilities:
    """Fit the calibration that an artifact holds."""
    calibration = fit_calibration(scores, labels).calibration
    return lambda hits, videos: calibration.probability(hits, videos=videos)


def isotonic(scores: Floats, labels: NDArray[np.int64]) -> Probabilities:
    """Fit the best increasing step function, kept one pair away from 0 and 1; the odds shift as Platt's."""
    match = labels[:, None] == np.arange(scores.shape[1])
    least = 1 / scores.size
    steps = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(
        scores.ravel(), match.ravel()
    )

    def predict(hits: Floats, videos: float) -> Floats:
        return expit(logit(steps.predict(hits)) - np.log((videos - 1) / (scores.shape[1] - 1)))

    return predict


def collections(
    scores: Floats, labels: NDArray[np.int64], videos: int, absent: float
) -> Iterator[tuple[Floats, NDArray[np.bool_]]]:
    """Split the videos into collections of a size; yield the scores of each collection's hits and which match.

    Each collection is searched with the texts of its videos; a share `absent` of the texts lacks its video.
    """
    random = np.random.default_rng(0)
    order = random.permutation(scores.shape[1])
    for start in range(0, len(order) - videos + 1, videos):
        collection = order[start : start + videos]
        queries = np.flatnonzero(np.isin(labels, collection))
        block, match = scores[np.ix_(queries, collection)], labels[queries, None] == collection
        missing = random.permutation(len(queries)) < round(absent * len(queries))
        gone = match & missing[:, None]
        best = np.argsort(-np.where(gone, -np.inf, block), axis=1)[:, :HITS]
        yield np.take_along_axis(block, best, 1).ravel(), np.take_along_axis(match & ~gone, best, 1).ravel()


def measured(confidence: Floats, right: NDArray[np.bool_]) -> list[str]:
    """Return log loss, calibration error, likely hits a query, and mean confidence and accuracy of likely hits."""
    confidence_in_truth = np.where(right, confidence, 1 - confidence)
    ece = Reliability.of(confidence, right.astype(np.int64), np.ones(len(confidence), np.int64)).ece
    likely = confidence >= LIKELY
    cells = [
        f"{-np.log(confidence_in_truth).mean():.4f}",
        f"{ece:.4f}",
        f"{likely.sum() * HITS / len(confidence):.2f}",
    ]
    return cells + (
        [f"{confidence[likely].mean():.2f}", f"{right[likely].mean():.2f}"] if likely.any() else ["–", "–"]
    )


if __name__ == "__main__":
    raise SystemExit(main())
