"""`dits-adapter calibrate`: probabilities for the scores of a trained adapter."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from dits_adapter.cli._entry import show
from dits_adapter.cli._options import add_pairs
from dits_adapter.errors import InputError

__all__ = ["add_calibrate"]

_SIZES = (100, 1_000, 10_000, 100_000)
"""Sizes of collections, in videos, for which the scores of two probabilities are printed."""


def add_calibrate(commands: Any) -> None:
    """Add `calibrate`."""
    calibrate = commands.add_parser(
        "calibrate",
        help="calibrate an adapter's scores as probabilities, on held-out pairs",
        description="Fit the probability that a hit of a given score is the right video on held-out pairs, write "
        "the fit into the adapter's artifact, and print its reliability on pairs that it has not seen.",
    )
    add_pairs(calibrate, "pairs that the adapter was not trained on: `dits-adapter embed`")
    calibrate.add_argument(
        "adapter", metavar="ADAPTER", help="folder, bundled name or hub id of a trained adapter"
    )
    calibrate.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the calibrated artifact (default: ADAPTER, which is replaced)"
    )
    calibrate.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="diagram of predicted probability and observed accuracy",
    )
    calibrate.set_defaults(run=_calibrate, needs=("sklearn",))


def _calibrate(args: argparse.Namespace) -> int:
    from dits_adapter._hub import bundled
    from dits_adapter.artifact._config import ONNX
    from dits_adapter.artifact._find import require_free
    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.data.pairs import load_pairs
    from dits_adapter.evaluation._figures import check_figure, reliability_plot
    from dits_adapter.evaluation._scores import cosine_scores
    from dits_adapter.evaluation._tables import markdown_table
    from dits_adapter.evaluation.calibration import HITS, fit_calibration

    if args.plot:
        check_figure(args.plot, "--plot")
    target = args.out or Path(args.adapter)
    require_free(target.absolute())
    if args.out is None and (bundled(args.adapter) or not target.is_dir()):
        raise InputError(
            f"{args.adapter} is not a folder of yours; name one for the calibrated adapter with --out."
        )
    if (target / ONNX).exists():
        raise InputError(
            f"{target}: holds an ONNX form, which belongs to the adapter as it was exported. Calibrate the "
            "adapter that was exported, and export it again."
        )
    artifact, pairs = Artifact.load(args.adapter), load_pairs(args.pairs)
    artifact.space.require(pairs.space, mine=f"the adapter {args.adapter}", theirs=f"the pairs {args.pairs}")
    if artifact.adapter.needs_video:
        raise InputError(
            f"{args.adapter}: the adapter depends on the video. Such an adapter scores pairs and searches no "
            "collection, so its scores have no probabilities."
        )
    scores = cosine_scores(artifact.adapter.for_inference(), pairs.text, pairs.video)
    fit = fit_calibration(scores, pairs.labels)
    calibration = fit.calibration
    show(
        f"{calibration.queries:,} queries, {calibration.videos:,} videos. Of the {HITS} best hits of each query "
        f"{fit.hits.total_accuracy:.1%} are right.\nHeld out: log loss {calibration.log_loss:.4f}, "
        f"expected calibration error {calibration.ece:.4f}.\n"
    )
    rows = [
        [f"{videos:,}", *(_score(calibration.score_of(p, videos=videos)) for p in (0.5, 0.9))] for videos in _SIZES
    ]
    show(markdown_table(["videos", "score of 50 %", "of 90 %"], rows))
    if args.plot:
        reliability_plot(
            fit, args.plot, caption=f"{args.adapter} on {args.pairs}, {calibration.queries:,} queries"
        )
        show(f"\nreliability: {args.plot}")
    show(f"written to {replace(artifact, calibration=calibration).save(target)}")
    return 0


def _score(cosine: float) -> str:
    return f"{cosine:.3f}" if cosine <= 1 else "none"
