"""A dataset's benchmark from end to end: `python -m benchmarks.run msrvtt --root DIR`.

Checks what is on disk, embeds videos and texts (or takes vectors), trains every adapter of `dits-adapter compare`
on the training split, and writes the table that belongs beside the paper's. A killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from benchmarks.ablations import ABLATIONS, noisy_at_inference, rows_of
from benchmarks.datasets import DATASETS, Dataset
from benchmarks.result import Result, peak_mib
from benchmarks.scoring import score_all
from benchmarks.vectors import TOY, embed_splits, has_split, open_splits
from dits_adapter.errors import DITSError, InputError
from dits_adapter.training.compare import (
    LEARNING_RATES,
    PLAIN,
    STEPS,
    check_splits,
    fit_all,
    standard_rows,
    tabulate,
)
from dits_adapter.training.config import TrainingConfig
from dits_adapter.training.data import Pairs

DEFAULTS = TrainingConfig()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", choices=DATASETS)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--root", type=Path, metavar="DIR", help="annotation files, in their community's layout")
    source.add_argument(
        "--vectors",
        type=Path,
        metavar="DIR",
        help="cached vectors instead: DIR/train, DIR/test and, if any, DIR/val",
    )
    parser.add_argument("--videos", type=Path, metavar="DIR", help="where the videos lie (default: --root)")
    parser.add_argument(
        "--check", action="store_true", help="only say what is there, what is missing, where to get it"
    )
    parser.add_argument(
        "--encoder", default=TOY, help="CLIP: hub id, folder or bundled name (default: %(default)s)"
    )
    parser.add_argument("--train", default="train", metavar="SPLIT", help="default: %(default)s")
    parser.add_argument("--test", default="test", metavar="SPLIT", help="default: %(default)s")
    parser.add_argument("--ablation", choices=ABLATIONS, help="redo one of the paper's ablations instead")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="of the rows, these alone beside plain CLIP")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, metavar="T'", help="of the DITS rows")
    parser.add_argument("--epochs", type=int, default=DEFAULTS.epochs, help="default: %(default)s")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=LEARNING_RATES, metavar="R", help="default: %(default)s"
    )
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (autocast)")
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")
    parser.add_argument(
        "--qdrant",
        metavar="URL",
        help="search through Qdrant too: a server shows what HNSW and quantisation cost; :memory: is exact, slow",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/DATASET")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; return its exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    args = _parser().parse_args(argv)
    try:
        if args.check:
            if args.root is None:
                raise InputError("--check looks at a dataset on disk: give --root")
            print(DATASETS[args.dataset].check(args.root, args.videos))
        else:
            out = args.out or Path("results") / args.dataset
            result = run(args, out)
            name = args.ablation or "result"
            result.write(out, name)
            print(f"{result.markdown()}\n\nwritten to {out / name}.json, .md and .png")
    except DITSError as error:
        print(f"benchmarks.run: {error}", file=sys.stderr)
        return 1
    return 0


def run(args: argparse.Namespace, out: Path) -> Result:
    """Run the benchmark that the arguments ask for."""
    dataset = DATASETS[args.dataset]
    try:
        training = TrainingConfig(
            epochs=args.epochs, learning_rate=tuple(args.learning_rates), bf16=args.bf16, seed=args.seed
        )
    except ValidationError as error:
        raise InputError(f"--epochs, --learning-rates or --seed: {error}") from None
    rows = rows_of(args.ablation, training) if args.ablation else standard_rows(args.steps, training)
    if args.only:
        if unknown := [name for name in args.only if name not in rows]:
            raise InputError(f"--only {' '.join(unknown)}: no such row; there are {', '.join(rows)}")
        rows = {name: recipe for name, recipe in rows.items() if name in (PLAIN, *args.only)}
    seconds: dict[str, float] = {}
    with _timed("embedding", seconds):
        pairs, deviations = _pairs(dataset, args, out)
    train, test = pairs[args.train], pairs[args.test]
    validation = pairs.get("val")
    if validation is None:
        train, validation = train.split(training.validation, args.seed)
    check_splits(train, validation, test)
    with _timed("training", seconds):
        adapters = fit_all(rows, train, validation, out=out / "adapters", device=args.device)
    with _timed("evaluation", seconds):
        if args.ablation in ("timestamps", "noise"):
            adapters |= noisy_at_inference(adapters)
        comparison = tabulate(adapters, train, validation, test, rows=rows)
        scorers = []
        if not args.ablation:
            best = max(comparison.rows[1:], key=lambda row: row.validation.mrr).name
            chosen = {name: adapters[name] for name in (PLAIN, best)}
            scorers = score_all(chosen, train, test, location=args.qdrant, seed=args.seed)
    return Result(
        dataset=args.dataset,
        title=dataset.title,
        split=args.test,
        ablation=args.ablation or "",
        deviations=tuple(deviations),
        comparison=comparison,
        scorers=tuple(scorers),
        seed=args.seed,
        seconds=seconds,
        peak_mib=peak_mib(),
    )


def _pairs(dataset: Dataset, args: argparse.Namespace, out: Path) -> tuple[dict[str, Pairs], list[str]]:
    """Return the pairs of the training and test split and, if the dataset has one, of `val`."""
    splits = [args.train, args.test]
    if args.train == args.test or "val" in splits:
        raise InputError(f"--train {args.train} --test {args.test}: train, test and val must be different splits")
    if args.vectors is not None:
        if has_split(args.vectors, "val"):
            splits.append("val")
        return open_splits(args.vectors, splits), [
            f"vectors as given, {args.vectors.name}: their origin is not checked"
        ]
    if "val" in dataset.splits:
        splits.append("val")
    return embed_splits(
        dataset,
        splits,
        out / "vectors",
        root=args.root,
        videos=args.videos,
        encoder=args.encoder,
        device=args.device,
    )


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
