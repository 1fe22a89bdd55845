"""`dits-adapter calibrate`: probabilities for the scores of a trained adapter."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dits_adapter.cli._entry import show
from dits_adapter.cli._measured import add_measured, open_measured
from dits_adapter.cli._options import read_queries, require_width
from dits_adapter.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dits_adapter.artifact.artifact import Artifact
    from dits_adapter.data.pairs import Pairs
    from dits_adapter.evaluation.calibration import CalibrationFit
    from dits_adapter.stores.bias import BiasBank

__all__ = ["add_calibrate"]

_SIZES = (100, 1_000, 10_000, 100_000)
"""Sizes of collections, in videos, for which the scores of two probabilities are printed."""

_SAME_TEXT = 1 - 1e-5
"""Least cosine of two queries of one text."""


def add_calibrate(commands: Any) -> None:
    """Add `calibrate`."""
    calibrate = commands.add_parser(
        "calibrate",
        help="calibrate an adapter's scores as probabilities, on held-out pairs",
        description="Fit the probability that a hit of a given score is the right video, and that any hit of a "
        "query is, on held-out pairs, write both into the adapter's artifact, and print how reliable they are on "
        "pairs that the fit has not seen. Queries that nothing fits are made by leaving the right video out. Of "
        "the cache that the adapter was trained with, the pairs are taken that training held out.",
    )
    add_measured(calibrate, "pairs that the adapter was not trained on: `dits-adapter embed`")
    calibrate.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the calibrated artifact (default: ADAPTER, which is replaced)"
    )
    calibrate.add_argument(
        "--bias",
        metavar="BANK",
        help="an artifact of `dits-adapter bank`: calibrate scores less its bias too, for collections that "
        "`dits-adapter bias` gave it to",
    )
    calibrate.add_argument(
        "--weight", type=float, default=0.5, metavar="W", help="of that bias, 0 to 1 (default: %(default)s)"
    )
    calibrate.add_argument(
        "--unanswerable",
        type=Path,
        metavar="QUERIES",
        help="queries that none of these videos fits, one a line, or .npy of text vectors, in place of made ones",
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
    from dits_adapter.evaluation._figures import check_figure, reliability_plot
    from dits_adapter.evaluation.calibration import BiasedCalibration
    from dits_adapter.sources._feedback_file import is_feedback
    from dits_adapter.stores.bias import BiasBank, check_weight

    if args.plot:
        check_figure(args.plot, "--plot")
    if args.unanswerable is not None and is_feedback(args.unanswerable):
        raise InputError(
            f"{args.unanswerable}: is a file of feedback, with queries of both kinds. Write those that nothing "
            "fits with dits-adapter pairs FEEDBACK --out PAIRS --unanswerable QUERIES, and name that file."
        )
    check_weight(args.weight)
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
    artifact, pairs = open_measured(args)
    if artifact.adapter.needs_video:
        raise InputError(
            f"{args.adapter}: the adapter depends on the video. Such an adapter scores pairs and searches no "
            "collection, so its scores have no probabilities."
        )
    bank = None if args.bias is None else BiasBank.from_pretrained(args.bias)
    unanswerable = None if args.unanswerable is None else _texts(args.unanswerable, args.adapter, artifact)
    fit = _fit(artifact, pairs, unanswerable)
    _report(fit)
    calibration = fit.calibration
    if bank is not None:
        _require_apart(bank, artifact, pairs, args)
        biased = _fit(artifact, pairs, unanswerable, bank, args.weight)
        show("\nless the score bias:\n")
        _report(biased)
        record = BiasedCalibration(bank=bank.digest, weight=args.weight, calibration=biased.calibration)
        calibration = calibration.model_copy(update={"biased": record})
    if args.plot:
        reliability_plot(
            fit, args.plot, caption=f"{args.adapter} on {args.pairs}, {calibration.queries:,} queries"
        )
        show(f"\nreliability: {args.plot}")
    show(f"written to {replace(artifact, calibration=calibration).save(target)}")
    return 0


def _fit(
    artifact: Artifact,
    pairs: Pairs,
    unanswerable: NDArray[np.floating] | None,
    bank: BiasBank | None = None,
    weight: float = 0.0,
) -> CalibrationFit:
    """Fit a calibration on the scores of pairs, less the bias of a bank where there is one."""
    from dits_adapter.evaluation._scores import cosine_scores
    from dits_adapter.evaluation.calibration import fit_calibration
    from dits_adapter.evaluation.metrics import Scores
    from dits_adapter.evaluation.score_bias import BiasedScores

    adapter = artifact.adapter.for_inference()
    bias = None if bank is None else bank.biases(pairs.video, bank.record(pairs.video))

    def scores(texts: NDArray[np.floating]) -> Scores:
        plain = cosine_scores(adapter, texts, pairs.video)
        return plain if bias is None else BiasedScores(plain, np.asarray(bias, np.float32), weight)

    others = None if unanswerable is None else scores(unanswerable)
    return fit_calibration(scores(pairs.text), pairs.labels, unanswerable=others)


def _report(fit: CalibrationFit) -> None:
    from dits_adapter.evaluation._tables import markdown_table
    from dits_adapter.evaluation.reliability import HITS

    calibration, answer = fit.calibration, fit.calibration.answer
    show(
        f"{calibration.queries:,} queries, {calibration.videos:,} videos. Of the {HITS} best hits of each query "
        f"{fit.hits.total_accuracy:.1%} are right.\nHeld out: log loss {calibration.log_loss:.4f}, "
        f"expected calibration error {calibration.ece:.4f}.\nThat any hit is right, where half of the queries "
        f"have no video: AUROC {answer.auroc:.3f}, expected calibration error {answer.ece:.4f}, Brier score "
        f"{answer.brier:.4f}.\n"
    )
    rows = [
        [f"{videos:,}", *(_score(calibration.score_of(p, videos=videos)) for p in (0.5, 0.9))] for videos in _SIZES
    ]
    show(markdown_table(["videos", "score of 50 %", "of 90 %"], rows))


def _texts(path: Path, name: str, artifact: Artifact) -> NDArray[np.floating]:
    """Return text embeddings of a file of queries, (n, d)."""
    from dits_adapter.encoder import DITSQueryEncoder

    queries = read_queries(path)
    if not len(queries):
        raise InputError(f"{path}: holds no queries.")
    if isinstance(queries, list):
        return DITSQueryEncoder.from_pretrained(name, backend="torch").embed(queries)
    require_width(queries, artifact.space.text.width, path, name)
    return np.array(queries, np.float32)  # of the file's map, which torch may not write to


def _require_apart(bank: BiasBank, artifact: Artifact, pairs: Pairs, args: argparse.Namespace) -> None:
    """Refuse a bank of another adapter's queries, or one that holds texts of the pairs.

    Raises:
        InputError: naming the bank.
        SpaceMismatchError: the bank is of another space.
    """
    from dits_adapter.vectors import unit

    bank.space.require(artifact.space, mine=f"the bank {args.bias}", theirs=f"the adapter {args.adapter}")
    adapter = artifact.adapter.for_inference()
    if not bank.record(pairs.video).fits(adapter.adapt(artifact.space.text.probes)):
        raise InputError(
            f"{args.bias}: its bank holds queries of another adapter than {args.adapter}, and a bias is for "
            f"queries of one; make it with dits-adapter bank QUERIES --adapter {args.adapter} --out FOLDER."
        )
    shared = (unit(adapter.adapt(pairs.text)) @ bank.vectors.T).max(axis=1) > _SAME_TEXT
    if shared.any():
        raise InputError(
            f"{args.bias}: its bank holds {shared.sum()} of the {len(pairs):,} texts of {args.pairs}. A bank "
            "pushes down the videos that its texts describe, so these pairs cannot tell how it scores others; "
            "calibrate on pairs whose texts are not in the bank."
        )


def _score(cosine: float) -> str:
    return f"{cosine:.3f}" if cosine <= 1 else "none"
