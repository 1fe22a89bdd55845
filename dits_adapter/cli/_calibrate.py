"""`dits-adapter calibrate`: probabilities for the scores of a trained adapter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dits_adapter.cli._early import check_paths
from dits_adapter.cli._measured import add_measured
from dits_adapter.cli._options import add_device
from dits_adapter.cli._outcome import Outcome
from dits_adapter.errors import InputError

__all__ = ["add_calibrate"]


def add_calibrate(commands: Any) -> None:
    """Add `calibrate`."""
    calibrate = commands.add_parser(
        "calibrate",
        help="calibrate an adapter's scores as probabilities, on held-out pairs",
        examples=(
            "cache my-adapter",
            "held-out my-adapter --out my-calibrated-adapter --plot reliability.png",
        ),
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
        help="an artifact that `dits-adapter bank` made for queries of ADAPTER: calibrate scores less "
        "its bias too, for collections that `dits-adapter bias` gave it to",
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
    add_device(calibrate)
    calibrate.set_defaults(run=_calibrate, needs=("sklearn",))


def _calibrate(args: argparse.Namespace) -> Outcome:
    from dits_adapter._hub import bundled
    from dits_adapter.evaluation._figures import check_figure

    if args.plot:
        check_figure(args.plot, "--plot")
    if args.out is None and (bundled(args.adapter) or not Path(args.adapter).is_dir()):
        raise InputError(
            f"{args.adapter} is not a folder of yours; name one for the calibrated adapter with --out."
        )
    check_paths(args.pairs, adapter=args.adapter, artifact=args.out)
    from dits_adapter.tasks.calibrate import calibrate_artifact

    report = calibrate_artifact(
        args.adapter,
        args.pairs,
        args.out or args.adapter,
        bias=args.bias,
        weight=args.weight,
        unanswerable=args.unanswerable,
        most_videos=args.videos,
        device=args.device,
    )
    if args.plot:
        queries = report.fit.calibration.queries
        report.save_plot(args.plot, caption=f"{args.adapter} on {args.pairs}, {queries:,} queries")
    return Outcome(report, f"{report}\nreliability: {args.plot}" if args.plot else None)
