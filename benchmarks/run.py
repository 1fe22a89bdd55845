"""Benchmark of a dataset from end to end: `python -m benchmarks.run msrvtt --root DIR`.

Checks what is on disk, embeds videos and texts (or takes vectors), trains every adapter of `dits-adapter compare`
on the training split, and writes the table that belongs beside the paper's. A killed run resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import get_args

from benchmarks import joint_rows, qdrant
from benchmarks.ablations import ABLATIONS, noisy_at_inference, rows_of
from benchmarks.costs import Costs
from benchmarks.datasets import DATASETS
from benchmarks.joint import JointResult, JointRun
from benchmarks.result import Result
from benchmarks.scoring import score_all
from benchmarks.vectors import MADE, TOY, embed_splits, has_split, open_splits
from dits_adapter._extras import require_modules
from dits_adapter._wording import validated
from dits_adapter.artifact._find import find_adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import guarded
from dits_adapter.cli._options import assignments
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import InputError
from dits_adapter.evaluation.comparison import PLAIN
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training.compare import check_splits, fit_all, tabulate
from dits_adapter.training.config import Precision, TrainingConfig
from dits_adapter.training.rows import STEPS, standard_rows

DEFAULTS = TrainingConfig()
OWN = "own"
"""Name for a dataset without a record here, of which there are vectors."""
PACKAGES = ("transformers", "av", "decord2", "qdrant-client")
"""Packages that embed, decode and search, whose versions stand in the result beside those of training."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset", choices=(*DATASETS, OWN), help=f"{OWN}: any other, as --vectors")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help=f"annotation files, in their community's layout (demo is made in {MADE} without it)",
    )
    source.add_argument(
        "--vectors",
        type=Path,
        metavar="DIR",
        help="cached vectors instead: DIR/train, DIR/test and, if any, DIR/val",
    )
    parser.add_argument("--videos", type=Path, metavar="DIR", help="where the videos lie (default: --root)")
    parser.add_argument(
        "--check",
        action="store_true",
        help="only report which files are present, which are missing, where to get them",
    )
    parser.add_argument(
        "--encoder",
        metavar="ID",
        help="CLIP; or a trained adapter, which brings its CLIP, is one more row, and re-ranks with its X-Pool "
        f"head if it is a joint one: hub id, folder or bundled name (default: {TOY})",
    )
    parser.add_argument("--train", default="train", metavar="SPLIT", help="default: %(default)s")
    parser.add_argument("--test", default="test", metavar="SPLIT", help="default: %(default)s")
    parser.add_argument(
        "--joint",
        action="store_true",
        help="train CLIP along, with the paper's settings for the dataset, as its headline does",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="fields of the recipe of --joint, as of train-joint: batch_size=16 workers=8 sampler.depth=2",
    )
    parser.add_argument(
        "--ablation",
        choices=dict.fromkeys((*ABLATIONS, *joint_rows.ABLATIONS)),
        help="redo one of the paper's ablations instead",
    )
    parser.add_argument("--only", nargs="+", metavar="ROW", help="of the rows, these alone beside plain CLIP")
    parser.add_argument(
        "--steps", type=int, nargs="+", metavar="T'", help=f"of the DITS rows (default: {_listed(STEPS)})"
    )
    parser.add_argument("--epochs", type=int, help=f"default: {DEFAULTS.epochs}, with --joint the paper's")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", metavar="R", help=f"default: {_listed(LEARNING_RATES)}"
    )
    parser.add_argument(
        "--precision", choices=get_args(Precision), help=f"default: {DEFAULTS.precision}, with --joint float32"
    )
    parser.add_argument("--seed", type=int, help=f"default: {DEFAULTS.seed}")
    parser.add_argument("--device", default="auto", help="a torch device (default: %(default)s)")
    parser.add_argument(
        "--qdrant",
        metavar="URL",
        help="search through Qdrant too: a server shows what HNSW and quantization cost; :memory: is exact, slow",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/benchmarks/DATASET")
    return parser


@guarded("benchmarks.run")
def main(argv: Sequence[str] | None = None) -> int:
    """Run one benchmark; return its exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = _parser()
    args = parser.parse_args(argv)
    for wrong, message in _misuse(args):
        if wrong:
            parser.error(message)
    if args.check:
        print(DATASETS[args.dataset].check(args.root, args.videos))
        return 0
    require_modules("benchmarks.run", "matplotlib", *(["accelerate"] if args.joint else []))
    pick_device(args.device)
    out = args.out or Path("results/benchmarks") / args.dataset
    result = run_joint(args, out / "joint") if args.joint else run(args, out)
    name = (args.ablation or "result") + (f"-{args.test}" if args.test != "test" else "")
    written = result.write(out / "joint" if args.joint else out, name)
    print(f"{result.markdown()}\n\nwritten to {', '.join(map(str, written))}")
    return 0


def _misuse(args: argparse.Namespace) -> Iterator[tuple[bool, str]]:
    """Yield each condition under which options do not go together, and what to say then."""
    without = args.root is None
    yield args.dataset == OWN and args.vectors is None, f"{OWN} stands for vectors: give --vectors"
    yield args.check and without, "--check looks at a dataset on disk: give --root"
    made = args.dataset != OWN and DATASETS[args.dataset].make is not None
    yield without and args.vectors is None and not made, "say where the data is, with --root or --vectors"
    yield args.videos is not None and without, "--videos belongs to --root"
    bare = args.vectors is not None and args.encoder is not None and find_adapter(args.encoder) is None
    yield bare, "--vectors are of a CLIP already: --encoder may name a trained adapter beside them, and no CLIP"
    yield bool(args.ablation and args.qdrant), "--qdrant belongs to the main table, not to an ablation"
    yield bool(args.ablation and args.steps), "--steps belongs to the main table, not to an ablation"
    here = dict.fromkeys(joint_rows.ABLATIONS if args.joint else ABLATIONS)
    other = "without" if args.joint else "with"
    yield (
        args.ablation is not None and args.ablation not in here,
        f"--ablation {args.ablation} is one {other} --joint; here there are {', '.join(here)}",
    )
    yield bool(args.set and not args.joint), "--set belongs to --joint"
    if not args.joint:
        return
    yield (
        bool(args.vectors or args.qdrant),
        "--joint trains on video files: give --root, and neither --vectors nor --qdrant",
    )
    yield (
        bool(args.steps or args.learning_rates),
        "--joint takes --set sampler.steps=T' learning_rate=R, not --steps and --learning-rates",
    )
    named = {word.partition("=")[0].strip() for word in args.set}
    for option, setting in {"epochs": "epochs", "seed": "seed", "precision": "bf16"}.items():
        yield (
            getattr(args, option) is not None and setting in named,
            f"--{option} and --set {setting} say the same thing: give one of them",
        )


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def run_joint(args: argparse.Namespace, out: Path) -> JointResult:
    """Run the benchmark of the parsed arguments with CLIP trained along."""
    dataset = DATASETS[args.dataset]
    chosen = assignments("--set", args.set)
    given = {"seed": args.seed, "epochs": args.epochs, "bf16": args.precision == "bfloat16" or None}
    chosen |= {name: str(value).lower() for name, value in given.items() if value is not None}
    recipe = joint_rows.settings(dataset, chosen)
    rows = joint_rows.rows_of(args.ablation, recipe, args.only)
    if pick_device(args.device).type != pick_device("auto").type:
        raise InputError(
            f"--joint --device {args.device}: joint training takes the graphics card that it sees; hide it with "
            "CUDA_VISIBLE_DEVICES= instead."
        )
    splits = _splits(args)
    if args.root is None and dataset.make is not None:
        for split in splits:
            dataset.make(split, MADE)
    joint = JointRun(
        dataset=dataset,
        root=args.root or MADE,
        videos=args.videos,
        encoder=args.encoder or TOY,
        train=args.train,
        test=args.test,
        recipe=recipe,
        rows=rows,
        out=out,
        device=args.device,
    )
    return joint.run(args.ablation or "", recipe.seed)


def run(args: argparse.Namespace, out: Path) -> Result:
    """Run the benchmark of the parsed arguments."""
    fields = {
        "epochs": args.epochs,
        "learning_rate": args.learning_rates or LEARNING_RATES,
        "precision": args.precision,
        "seed": args.seed,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    training = validated(TrainingConfig, given, at="--")
    rows = rows_of(args.ablation, training) if args.ablation else standard_rows(args.steps or STEPS, training)
    if args.only:
        if unknown := [name for name in args.only if name not in rows]:
            raise InputError(f"--only {' '.join(unknown)}: no such row; there are {', '.join(rows)}")
        rows = {name: recipe for name, recipe in rows.items() if name in (PLAIN, *args.only)}
    if args.qdrant:
        qdrant.require(args.qdrant)
    own = {} if args.encoder is None else _own_adapter(args.encoder)
    costs = Costs()
    pairs, deviations = _pairs(args, out, costs)
    train, test = pairs[args.train], pairs[args.test]
    validation = pairs.get("val")
    if validation is None:
        train, validation = train.split(training.validation, training.seed)
    check_splits(train, validation, test)
    for name, artifact in own.items():
        artifact.space.require(test.space, mine=f"the adapter {args.encoder}", theirs="the test videos")
        learnt = artifact.training.get("dataset", "pairs that it does not name")
        deviations.append(
            f"{name} was trained elsewhere, on {learnt}: that no test video is among them is not checked"
        )
    folder = out / "adapters"
    with costs.of("training", resumed=any((folder / name).exists() for name in rows)):
        adapters = fit_all(rows, train, validation, out=folder, device=args.device)
    adapters |= {name: artifact.adapter for name, artifact in own.items()}
    with costs.of("evaluation"):
        if args.ablation in ("timestamps", "noise"):
            adapters |= noisy_at_inference(adapters)
        comparison = tabulate(adapters, train, validation, test, rows=rows)
        comparison.environment.update({package: version(package) for package in PACKAGES})
        scorers = []
        if not args.ablation:
            trained = [row for row in comparison.rows if row.name in rows and row.name != PLAIN]
            best = [max(trained, key=lambda row: row.validation.mrr).name] if trained else []
            chosen = {name: adapters[name] for name in (PLAIN, *best, *own)}
            xpool = next((artifact.xpool for artifact in own.values()), None)
            if xpool is not None:
                xpool.to(pick_device(args.device))
            scorers = score_all(chosen, train, test, xpool=xpool, location=args.qdrant, seed=training.seed)
    return Result(
        dataset=args.dataset,
        title=args.vectors.name if args.dataset == OWN else DATASETS[args.dataset].title,
        split=args.test,
        ablation=args.ablation or "",
        deviations=tuple(deviations),
        comparison=comparison,
        scorers=tuple(scorers),
        seed=training.seed,
        costs=costs.stages,
    )


def _own_adapter(encoder: str) -> dict[str, Artifact]:
    """Load the adapter that `--encoder` names, by the name of its row; empty for a bare CLIP."""
    folder = find_adapter(encoder)
    return {} if folder is None else {f"{Path(encoder).name} (--encoder)": Artifact.load(folder)}


def _pairs(args: argparse.Namespace, out: Path, costs: Costs) -> tuple[dict[str, Pairs], list[str]]:
    """Return the pairs of the training and test split and, if the dataset has one, of `val`."""
    splits = _splits(args)
    if args.vectors is not None:
        return open_splits(args.vectors, splits), [
            f"vectors as given, {args.vectors.name}: their origin is not checked"
        ]
    dataset = DATASETS[args.dataset]
    if args.root is None and dataset.make is not None:
        for split in splits:
            dataset.make(split, MADE)
    return embed_splits(
        dataset,
        splits,
        out / "vectors",
        root=args.root or MADE,
        videos=args.videos,
        encoder=args.encoder or TOY,
        device=args.device,
        costs=costs,
    )


def _splits(args: argparse.Namespace) -> list[str]:
    """Return the training and test split and, if the dataset has one, `val`."""
    splits = [args.train, args.test]
    if args.train == args.test or "val" in splits:
        raise InputError(f"--train {args.train} --test {args.test}: train, test and val must be different splits")
    own = has_split(args.vectors, "val") if args.vectors else "val" in DATASETS[args.dataset].splits
    return [*splits, *["val"] * own]


if __name__ == "__main__":
    sys.exit(main())
