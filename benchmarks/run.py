"""Benchmark of a dataset from end to end: `python -m benchmarks.run msrvtt --root DIR`.

Checks what is on disk, embeds videos and texts (or takes vectors), trains every adapter of `dits-adapter compare`
on the training split, and writes the table that belongs beside the paper's. A killed run resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

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
from dits_adapter.training.config import TrainingConfig
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
        default=TOY,
        metavar="ID",
        help="CLIP; or a trained adapter, which brings its CLIP, is one more row, and re-ranks with its X-Pool "
        "head if it is a joint one: hub id, folder or bundled name (default: %(default)s)",
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
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS, metavar="T'", help="of the DITS rows")
    parser.add_argument("--epochs", type=int, help=f"default: {DEFAULTS.epochs}, with --joint the paper's")
    parser.add_argument(
        "--learning-rates", type=float, nargs="+", default=LEARNING_RATES, metavar="R", help="default: %(default)s"
    )
    parser.add_argument(
        "--precision",
        default=DEFAULTS.precision,
        metavar="P",
        help="auto, float32 or bfloat16 (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=DEFAULTS.seed, help="default: %(default)s")
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
    if args.dataset == OWN and args.vectors is None:
        parser.error(f"{OWN} stands for vectors: give --vectors")
    if args.check and args.root is None:
        parser.error("--check looks at a dataset on disk: give --root")
    if args.root is None and args.vectors is None and DATASETS[args.dataset].make is None:
        parser.error("say where the data is, with --root or --vectors")
    if args.ablation and args.qdrant:
        parser.error("--qdrant belongs to the main table, not to an ablation")
    joint = dict.fromkeys(joint_rows.ABLATIONS) if args.joint else dict.fromkeys(ABLATIONS)
    if args.ablation and args.ablation not in joint:
        without = "without" if args.joint else "with"
        parser.error(f"--ablation {args.ablation} is one {without} --joint; here there are {', '.join(joint)}")
    if args.joint and (args.vectors or args.qdrant):
        parser.error("--joint trains on video files: give --root, and neither --vectors nor --qdrant")
    if args.joint and (args.steps != STEPS or args.learning_rates != LEARNING_RATES):
        parser.error("--joint takes --set sampler.steps=T' learning_rate=R, not --steps and --learning-rates")
    if args.set and not args.joint:
        parser.error("--set belongs to --joint")
    if args.check:
        print(DATASETS[args.dataset].check(args.root, args.videos))
    else:
        require_modules("benchmarks.run", "matplotlib", *(["accelerate"] if args.joint else []))
        out = args.out or Path("results/benchmarks") / args.dataset
        result = run_joint(args, out / "joint") if args.joint else run(args, out)
        name = (args.ablation or "result") + (f"-{args.test}" if args.test != "test" else "")
        written = result.write(out / "joint" if args.joint else out, name)
        print(f"{result.markdown()}\n\nwritten to {', '.join(map(str, written))}")
    return 0


def run_joint(args: argparse.Namespace, out: Path) -> JointResult:
    """Run the benchmark of the parsed arguments with CLIP trained along."""
    dataset = DATASETS[args.dataset]
    chosen = {"seed": str(args.seed), **assignments("--set", args.set)}
    if args.epochs is not None:
        chosen["epochs"] = str(args.epochs)
    if args.precision == "bfloat16":
        chosen["bf16"] = "true"
    recipe = joint_rows.settings(dataset, chosen)
    splits = _splits(args)
    if args.root is None and dataset.make is not None:
        for split in splits:
            dataset.make(split, MADE)
    joint = JointRun(
        dataset=dataset,
        root=args.root or MADE,
        videos=args.videos,
        encoder=args.encoder,
        train=args.train,
        test=args.test,
        recipe=recipe,
        rows=joint_rows.rows_of(args.ablation, recipe, args.only),
        out=out,
        device=args.device,
    )
    return joint.run(args.ablation or "", recipe.seed)


def run(args: argparse.Namespace, out: Path) -> Result:
    """Run the benchmark of the parsed arguments."""
    epochs = DEFAULTS.epochs if args.epochs is None else args.epochs
    fields = {
        "epochs": epochs,
        "learning_rate": args.learning_rates,
        "precision": args.precision,
        "seed": args.seed,
    }
    training = validated(TrainingConfig, fields, at="--")
    rows = rows_of(args.ablation, training) if args.ablation else standard_rows(args.steps, training)
    if args.only:
        if unknown := [name for name in args.only if name not in rows]:
            raise InputError(f"--only {' '.join(unknown)}: no such row; there are {', '.join(rows)}")
        rows = {name: recipe for name, recipe in rows.items() if name in (PLAIN, *args.only)}
    if args.qdrant:
        qdrant.require(args.qdrant)
    own = _own_adapter(args.encoder)
    costs = Costs()
    pairs, deviations = _pairs(args, out, costs)
    train, test = pairs[args.train], pairs[args.test]
    validation = pairs.get("val")
    if validation is None:
        train, validation = train.split(training.validation, args.seed)
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
            scorers = score_all(chosen, train, test, xpool=xpool, location=args.qdrant, seed=args.seed)
    return Result(
        dataset=args.dataset,
        title=args.vectors.name if args.dataset == OWN else DATASETS[args.dataset].title,
        split=args.test,
        ablation=args.ablation or "",
        deviations=tuple(deviations),
        comparison=comparison,
        scorers=tuple(scorers),
        seed=args.seed,
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
        encoder=args.encoder,
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
