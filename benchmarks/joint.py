"""Runs that train CLIP along, from a dataset's files to the table beside the paper's: `benchmarks.run --joint`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from benchmarks import paper
from benchmarks.ablations import noisy_at_inference
from benchmarks.costs import Cost, Costs
from benchmarks.datasets import Dataset
from benchmarks.joint_rows import UNTRAINED, JointRows, OnVectors
from benchmarks.joint_step import StepCost, measure
from benchmarks.result import cost_table
from benchmarks.scoring import ScorerRow, searches
from benchmarks.vectors import embed_splits, list_splits
from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.artifact._config import read_config
from dits_adapter.artifact._find import is_artifact
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders._torch import pick_device
from dits_adapter.errors import DITSError
from dits_adapter.evaluation._environment import environment
from dits_adapter.evaluation._tables import markdown_table, signed
from dits_adapter.evaluation.comparison import PLAIN, Retrieval
from dits_adapter.evaluation.gap import GapStatistics
from dits_adapter.evaluation.metrics import paired_bootstrap, ranks
from dits_adapter.training.compare import fit_all
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint.captions import Captions
from dits_adapter.training.joint.train import train_joint
from dits_adapter.vectors import unit

PACKAGES = ("transformers", "accelerate", "av", "decord2")
"""Packages that train, embed and decode, whose versions stand in the result beside those of evaluation."""


@dataclass(frozen=True)
class JointResult:
    """Result of a run that trains CLIP along.

    Attributes:
        dataset, title, split, ablation, deviations, seed, costs: as for `Result`.
        rows: each way to search, for the queries of each row of the run and of the untrained CLIP, text to video.
        gaps: modality gap of matching test pairs by row, over the vectors of an index; rows without a query vector
            are left out.
        labels: video of each test text.
        recipes: recipe of each row, as plain JSON.
        environment: versions of packages, processor.
        version: version of this layout.
    """

    dataset: str
    title: str
    split: str
    ablation: str
    deviations: tuple[str, ...]
    rows: tuple[ScorerRow, ...]
    gaps: dict[str, GapStatistics]
    labels: tuple[int, ...]
    recipes: dict[str, dict[str, Any]]
    environment: dict[str, str]
    seed: int
    costs: dict[str, Cost]
    version: Literal[1] = 1

    def write(self, folder: Path, name: str) -> list[Path]:
        """Write `name`.json and `name`.md into a folder; return the files."""
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{name}.{kind}" for kind in ("json", "md")]
        files[0].write_bytes(TypeAdapter(JointResult).dump_json(self, indent=1) + b"\n")
        files[1].write_text(self.markdown() + "\n", encoding="utf-8")
        return files

    def markdown(self) -> str:
        """Write the result as Markdown: the ways to search, the paper's rows, the gap, the costs."""
        parts = [
            f"# {self.title}, {self.split}: CLIP trained along" + (f", {self.ablation}" * bool(self.ablation))
        ]
        if self.deviations:
            reasons = "\n".join(f"- {line}" for line in self.deviations)
            parts.append(f"**Not the published protocol, or not known to be:**\n{reasons}")
        head = ["queries", "searched by", "R@1", "R@5", "R@10", "MdR", "MnR", f"R@1, {self._first} minus this"]
        cells = [[row.queries, row.scorer, *row.retrieval.cells(), self._gain(row)] for row in self.rows]
        table = paper.ABLATIONS.get(self.ablation, {}) if self.ablation else paper.DATASETS.get(self.dataset, {})
        for name, figures in paper.quoted(table).items():
            values = [f"{value:g}" for value in figures] + ["–"] * (5 - len(figures))
            cells.append([name, "X-Pool", *values, "–"])
        parts += [
            "Text to video, with 95 % bootstrap intervals, paired for the differences.",
            markdown_table(head, cells),
        ]
        if self.gaps:
            gaps = [
                [name, f"{gap.l1:.2f}", f"{gap.l2:.3f}", f"{gap.cosine:.3f}"] for name, gap in self.gaps.items()
            ]
            published = paper.quoted(paper.GAPS) if self.dataset == "msrvtt" else {}
            gaps += [[name, f"{l1:g}", "–", f"{cosine:g}"] for name, (l1, cosine) in published.items()]
            parts += ["## Modality gap of matching pairs", markdown_table(["queries", "L1", "L2", "cosine"], gaps)]
        machine = ", ".join(f"{key} {value}" for key, value in self.environment.items())
        quoted = {"training of dits": paper.COSTS["training"], "evaluation of dits": paper.COSTS["evaluation"]}
        costs = cost_table(self.costs, quoted if self.dataset == "msrvtt" else {})
        return "\n\n".join([*parts, "## Costs", costs, f"Seed {self.seed}; {machine}."])

    @property
    def _first(self) -> str:
        """Name of the first trained row, with which the others are compared."""
        return next(iter(self.recipes))

    def _gain(self, row: ScorerRow) -> str:
        """Write R@1 of the first trained row minus that of this one, searched alike."""
        alike = [other for other in self.rows if other.queries == self._first and other.scorer == row.scorer]
        if not alike or row.queries == self._first:
            return "–"
        before, after = (np.array(other.retrieval.ranks) for other in (row, alike[0]))
        return signed(paired_bootstrap(before, after, np.array(self.labels))["r1"])


@dataclass(frozen=True)
class JointRun:
    """Run of rows that train CLIP along, or train on the vectors of such a CLIP.

    Attributes:
        dataset: dataset to train and test on.
        root, videos: folders of annotation and videos, as for `Dataset.load`.
        encoder: the CLIP to start from.
        train, test: names of the splits.
        recipe: recipe of DITS on the dataset, of which the rows are variations.
        rows: recipes by name.
        out: folder of the run; what an earlier run finished there is kept.
        device: device of embedding and evaluation; joint training takes a graphics card where there is one.
    """

    dataset: Dataset
    root: Path
    videos: Path | None
    encoder: str
    train: str
    test: str
    recipe: JointRecipe
    rows: JointRows
    out: Path
    device: str
    costs: Costs = field(default_factory=Costs)

    @cached_property
    def _validation(self) -> list[str]:
        return ["val"] * ("val" in self.dataset.splits)

    def run(self, ablation: str, seed: int) -> JointResult:
        """Train what is not there yet, say before how long that will take, and evaluate all rows."""
        listed = list_splits(
            self.dataset,
            [self.train, self.test, *self._validation],
            self.out / "pairs",
            root=self.root,
            videos=self.videos,
        )
        captions = {split: Captions.read(self.out / "pairs" / f"{split}.jsonl") for split in listed}
        # Before the training: it refuses a folder whose run had other pairs or started from another CLIP.
        untrained, deviations = self._pairs(UNTRAINED, [self.test])
        self._estimate(captions)
        for name, row in self.rows.items():
            if isinstance(row, JointRecipe):
                self._train(name, row, captions)
        adapters = {name: self._adapter(name, row) for name, row in self.rows.items()}
        rows, gaps = self._evaluate(adapters, untrained[self.test])
        return JointResult(
            dataset=self.dataset.name,
            title=self.dataset.title,
            split=self.test,
            ablation=ablation,
            deviations=tuple(deviations),
            rows=tuple(rows),
            gaps=gaps,
            labels=tuple(untrained[self.test].labels.tolist()),
            recipes={name: _plain(row) for name, row in self.rows.items()},
            environment={**environment(), **{package: version(package) for package in PACKAGES}},
            seed=seed,
            costs=self.costs.stages,
        )

    def _estimate(self, captions: Mapping[str, Captions]) -> None:
        """Print how long the trainings that are left will take on this machine."""
        joint = {name: row for name, row in self.rows.items() if isinstance(row, JointRecipe)}
        left = {name: recipe for name, recipe in joint.items() if not is_artifact(self._place(name))}
        if not left:
            return
        train, validation, cores = captions[self.train], captions.get("val"), os.cpu_count() or 1
        costs = dict(zip(left, measure(list(left.values()), self.encoder, train, self.device), strict=True))
        seconds = sum(_seconds(costs[name], recipe, train, validation, cores) for name, recipe in left.items())
        first = next(iter(left))
        quick, slow = (choose(costs, key=lambda name: costs[name].step) for choose in (min, max))
        steps = " to ".join(f"{costs[name].step:.2f} s ({name})" for name in dict.fromkeys((quick, slow)))
        several = "s" * (len(left) > 1)
        done = f"; {len(joint) - len(left)} of {len(joint)} are there" * (len(left) < len(joint))
        print(
            f"{len(left)} joint training{several} of {len(train.texts):,} pairs: about {_words(seconds)} on this "
            f"machine, as busy as it is now (a step of {left[first].batch_size} pairs takes {steps}, a clip "
            f"{costs[first].decode:.2f} s to decode). Stopped, the same command goes on{done}. --only ROW trains "
            "one row.",
            file=sys.stderr,
        )

    def _place(self, name: str) -> Path:
        """Return the folder of a row's joint artifact: that of any row that was trained with the same recipe."""
        recipe = _plain(self.rows[name])
        alike = (path for path in self.out.glob("*") if is_artifact(path) and _recipe_of(path) == recipe)
        return min(alike, default=self.out / name)

    def _train(self, name: str, recipe: JointRecipe, captions: Mapping[str, Captions]) -> None:
        target = self._place(name)
        if is_artifact(target):
            if _recipe_of(target) != _plain(recipe):
                raise DITSError(
                    f"{target}: was trained with another recipe than this run has. Choose another --out, or "
                    "delete that folder."
                )
            return
        going_on = target.with_name(f"{name}.checkpoints").exists()
        with self.costs.of(f"training of {name}", resumed=going_on):
            train_joint(
                captions[self.train],
                recipe,
                target,
                encoder=self.encoder,
                dataset=f"{self.dataset.name} {self.train}",
                validation=captions.get("val"),
            )

    def _pairs(self, clip: str, splits: Sequence[str]) -> tuple[dict[str, Pairs], list[str]]:
        """Embed splits with the CLIP of a row, or with the one that all start from."""
        costs, name = Costs(), self._place(clip).name if clip else "untrained"
        embedded = embed_splits(
            self.dataset,
            splits,
            self.out / "vectors" / name,
            root=self.root,
            videos=self.videos,
            encoder=str(self._place(clip)) if clip else self.encoder,
            frames=self.recipe.frames,
            text_cleaning=self.recipe.text_cleaning,
            device=self.device,
            costs=costs,
        )
        for stage, cost in costs.stages.items():
            self.costs.stages.setdefault(f"{stage}, {name}", cost)
        return embedded

    def _adapter(self, name: str, row: JointRecipe | OnVectors) -> tuple[Adapter, str]:
        """Return a row's adapter, and the row whose CLIP it belongs to."""
        if isinstance(row, JointRecipe):
            return Artifact.load(self._place(name)).adapter, name
        pairs, _ = self._pairs(row.clip, [self.train, *self._validation])
        training = row.recipe.training
        held_out = pairs.get("val")
        train, validation = (
            pairs[self.train].split(training.validation, training.seed)
            if held_out is None
            else (pairs[self.train], held_out)
        )
        with self.costs.of(f"training of {name}", resumed=is_artifact(self.out / name)):
            fitted = fit_all({name: row.recipe}, train, validation, out=self.out, device=self.device)
        return fitted[name], row.clip

    def _evaluate(
        self, adapters: Mapping[str, tuple[Adapter, str]], untrained: Pairs
    ) -> tuple[list[ScorerRow], dict[str, GapStatistics]]:
        """Search the test videos in every way with the queries of every row, and measure the gap."""
        plain = Artifact.plain(untrained.space).adapter
        rows: list[ScorerRow] = []
        gaps: dict[str, GapStatistics] = {}
        for name, (adapter, clip) in {PLAIN: (plain, UNTRAINED), **adapters}.items():
            test = self._pairs(clip, [self.test])[0][self.test] if clip else untrained
            xpool = Artifact.load(self._place(clip)).xpool if clip else None
            place = pick_device(self.device)
            if xpool is not None:
                xpool.to(place)
            if adapter.needs_video:  # which runs on every pair
                adapter.to(place)
            noisy = noisy_at_inference({name: adapter}) if _drew_noise(adapter) else {}
            for queries, form in {name: adapter, **noisy}.items():
                with self.costs.of(f"evaluation of {queries}"):
                    rows += [
                        ScorerRow(scorer, queries, False, Retrieval.of(ranks(scores, test.labels), test.labels))
                        for scorer, scores in searches(form, test, xpool)
                    ]
                if not form.needs_video:
                    moved = unit(form.for_inference().adapt(test.text))
                    gaps[queries] = GapStatistics.of(moved, unit(test.video)[test.labels])
        return rows, gaps


def _drew_noise(adapter: Adapter) -> bool:
    if not isinstance(adapter, DITSAdapter) or adapter.needs_video:
        return False
    return adapter.config.noise_scale > 0 and adapter.config.steps > 0


def _recipe_of(folder: Path) -> object:
    """Return the recipe in the record of an artifact's training."""
    return read_config(folder).training.get("recipe")


def _plain(row: JointRecipe | OnVectors) -> dict[str, Any]:
    if isinstance(row, JointRecipe):
        return row.model_dump(mode="json")
    return {"on the vectors of": row.clip or "the untrained CLIP", **row.recipe.model_dump(mode="json")}


def _seconds(
    cost: StepCost, recipe: JointRecipe, train: Captions, validation: Captions | None, cores: int
) -> float:
    """Estimate one joint training, whose validation videos are held out of the others where there are none."""
    share = recipe.validation if validation is None else 0.0
    videos = round(share * len(train.videos)) if validation is None else len(validation.videos)
    pairs = round((1 - share) * len(train.texts))
    return cost.seconds(recipe, pairs=pairs, videos=len(train.videos), validation=videos, cores=cores)


def _words(seconds: float) -> str:
    """Write a time in the unit that suits it.

    >>> _words(20), _words(400), _words(9000), _words(400_000)
    ('20 s', '6.7 minutes', '2.5 hours', '4.6 days')
    """
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"
