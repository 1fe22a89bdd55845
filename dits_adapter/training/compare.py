"""Is an adapter worth it on these vectors, and which one? Every adapter on one split, one table, one answer."""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from tqdm import tqdm

from dits_adapter.adapters import Adapter, AffineAdapter, LowRankAdapter
from dits_adapter.artifact import Artifact, is_artifact
from dits_adapter.errors import DITSError, InputError
from dits_adapter.metrics import (
    Difference,
    DotProducts,
    Interval,
    RetrievalMetrics,
    Scores,
    bootstrap,
    paired_bootstrap,
    ranks,
    video_to_text_ranks,
)
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training.config import PRESETS, Recipe, TrainingConfig
from dits_adapter.training.data import Pairs
from dits_adapter.training.frozen import CLOSED_FORM, LEARNING_RATES, best_epoch, evaluate
from dits_adapter.training.run import fit
from dits_adapter.video.pooling import unit

PLAIN = "identity"
"""Name of the row of plain CLIP."""
STEPS = (1, 5, 10)
"""Truncated timesteps T' of the DITS rows."""
SCHEDULE = 10
"""The paper's T. More steps than that take T = T' with β re-spanned, the only reading of its Table 8."""
TIMING_ROUNDS = 100

Rows = Mapping[str, Recipe]
Family = Literal["plain", "linear", "network", "paired"]


@dataclass(frozen=True)
class Retrieval:
    """Retrieval on the test pairs in one direction.

    Attributes:
        metrics: what papers report.
        intervals: 95 % bootstrap interval of each metric; captions of one video are drawn together.
        ranks: rank of each query's right answer, wrong ones of the same score above it.
    """

    metrics: RetrievalMetrics
    intervals: dict[str, Interval]
    ranks: tuple[float, ...]

    @classmethod
    def of(cls, ranks: NDArray[np.floating], groups: NDArray[np.int64] | None = None) -> Retrieval:
        """Summarise (n,) ranks; queries of one group are drawn together, as for `bootstrap`."""
        return cls(RetrievalMetrics.from_ranks(ranks), bootstrap(ranks, groups), tuple(ranks.tolist()))

    def cells(self) -> list[str]:
        """Write R@1, R@5 and R@10 with their intervals, MdR and MnR, for tables."""
        recalls = [
            f"{getattr(self.metrics, name):.1f} [{self.intervals[name].low:.1f}, {self.intervals[name].high:.1f}]"
            for name in ("r1", "r5", "r10")
        ]
        return [*recalls, f"{self.metrics.mdr:g}", f"{self.metrics.mnr:.1f}"]


@dataclass(frozen=True)
class Row:
    """One adapter in the comparison.

    Attributes:
        name: of the adapter.
        family: `plain`, `linear` or `network`, from cheap to dear; or `paired`, an adapter that needs the video,
            which scores pairs and cannot search an index.
        text_to_video: the texts search the videos.
        video_to_text: the videos search the texts; the best of a video's captions counts.
        over_plain: text to video, this row minus plain CLIP, by metric, on the same queries.
        validation: text to video on the validation pairs, by which rows are chosen.
        weights: how many numbers the adapter holds when it runs.
        microseconds: median time that one query takes to adapt, alone, on one thread of the CPU; None for the
            family `paired`, which adapts no queries.
    """

    name: str
    family: Family
    text_to_video: Retrieval
    video_to_text: Retrieval
    over_plain: dict[str, Difference]
    validation: RetrievalMetrics
    weights: int
    microseconds: float | None


@dataclass(frozen=True)
class Recommendation:
    """Which row to use, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; `TypeAdapter(Comparison)` writes and reads it as JSON.

    Attributes:
        rows: plain CLIP first.
        recommendation: see `recommend`.
        labels: which video each test text belongs to.
        sizes: (texts, videos) of `train`, `validation` and `test`.
        space: the embedding space in words.
        recipes: by row.
        environment: versions of packages, processor, see `environment`.
        version: of this layout.
    """

    rows: tuple[Row, ...]
    recommendation: Recommendation
    labels: tuple[int, ...]
    sizes: dict[str, tuple[int, int]]
    space: str
    recipes: dict[str, Recipe]
    environment: dict[str, str]
    version: Literal[2] = 2

    def __getitem__(self, name: str) -> Row:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> str:
        """Write everything, per-query ranks included."""
        return TypeAdapter(Comparison).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Comparison:
        """Read what `to_json` wrote.

        Raises:
            DITSError: it is something else, or of another version.
        """
        try:
            return TypeAdapter(Comparison).validate_json(text)
        except ValidationError as error:
            raise DITSError(f"this is no comparison of layout version 2: {error}") from None

    def markdown(self, elsewhere: Mapping[str, Sequence[float]] | None = None) -> str:
        """Write both directions as tables, and the recommendation.

        Args:
            elsewhere: rows to print below for text to video: R@1, R@5, R@10, MdR and MnR by name, or the first
                of these.
        """
        texts, videos = self.sizes["test"]
        forward = [[row.name, *row.text_to_video.cells(), *_costs(row)] for row in self.rows]
        for name, values in (elsewhere or {}).items():
            cells = [name, *(f"{value:g}" for value in values)]
            forward.append(cells + ["–"] * (len(forward[0]) - len(cells)))
        backward = [[row.name, *row.video_to_text.cells()] for row in self.rows]
        head = ["adapter", "R@1", "R@5", "R@10", "MdR", "MnR"]
        trained, chosen = (
            "{:,} texts of {:,} videos".format(*self.sizes[split]) for split in ("train", "validation")
        )
        return "\n\n".join(
            [
                f"Trained on {trained}, chosen on {chosen}.",
                f"**Text to video**: {texts:,} queries, {videos:,} videos, {self.space}; 95 % intervals.",
                markdown_table([*head, "R@1 over plain", "weights", "µs a query"], forward),
                f"**Video to text**: {len(self.rows[0].video_to_text.ranks):,} queries, {texts:,} texts.",
                markdown_table(head, backward),
                f"**Recommendation: {self.recommendation.name}.** {self.recommendation.reason}",
            ]
        )


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table whose columns also line up as plain text: the first to the left, others to the right.

    >>> print(markdown_table(["name", "R@1"], [["ridge", "9.5"], ["dits-10", "10.0"]]))
    | name    |  R@1 |
    |:--------|-----:|
    | ridge   |  9.5 |
    | dits-10 | 10.0 |
    """
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join([first, *others])} |"

    rule = "|".join([":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def _costs(row: Row) -> list[str]:
    over = "–" if row.family == "plain" else signed(row.over_plain["r1"])
    return [over, f"{row.weights:,}", "–" if row.microseconds is None else f"{row.microseconds:.0f}"]


def signed(difference: Difference) -> str:
    """Write a difference in points with its interval.

    >>> signed(Difference(1.25, -0.5, 3.0))
    '+1.2 [-0.5, +3.0]'
    """
    return f"{difference.difference:+.1f} [{difference.low:+.1f}, {difference.high:+.1f}]"


def compare(
    pairs: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    rows: Rows | None = None,
    out: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> Comparison:
    """Train every adapter on the same pairs, choose on the validation pairs, report on the test pairs.

    Args:
        pairs: training pairs.
        validation: pairs of other videos, for everything that is chosen: epochs, penalties, recipes, rows.
        test: pairs of yet other videos, for the figures.
        rows: by default `standard_rows()`.
        out: folder that keeps each finished adapter as an artefact. The same call takes up what is there.
        device: where to train; queries are timed on the CPU.
        progress: show progress bars.

    Raises:
        SpaceMismatchError: the three are of different embedding spaces.
        DITSError: `out` holds adapters made from other pairs or recipes.
    """
    check_splits(pairs, validation, test)
    rows = standard_rows() if rows is None else rows
    adapters = fit_all(rows, pairs, validation, out=out, device=device, progress=progress)
    return tabulate(adapters, pairs, validation, test, rows=rows, progress=progress)


def check_splits(pairs: Pairs, validation: Pairs, test: Pairs) -> None:
    """Refuse splits of different embedding spaces, and warn of test videos that are not held out.

    Raises:
        SpaceMismatchError: naming the two that differ.
    """
    for split, name in ((validation, "the validation pairs"), (test, "the test pairs")):
        pairs.space.require(split.space, mine="the training pairs", theirs=name)
    shared = _distinct(test.video) & (_distinct(pairs.video) | _distinct(validation.video))
    if shared:
        warnings.warn(
            f"{len(shared)} of {len(test.video)} test videos have exactly the vector of a training or validation "
            "video: the figures flatter every trained adapter.",
            stacklevel=3,
        )


def standard_rows(steps: Sequence[int] = STEPS, training: TrainingConfig | None = None) -> dict[str, Recipe]:
    """Name every adapter to compare and its recipe.

    `dits-N` is DITS with T' = N, each trained as a sampler of its own. `mlp-N` is the residual MLP whose depth
    gives it the multiplications of `dits-N` (`equal_cost_depth`). There is one for the shortest and one for the
    longest sampler. `dits-best` is the preset `best`: DITS that starts from the contrastive linear map, which
    itself starts from the best closed form (`frozen.initialise`). `mlp-best` is a residual MLP with the same start
    and the same optimisation (`best_mlp_recipe`): what `dits-best` gains over it is what the flow gains.

    Args:
        steps: values of T'. Up to 10 they run t = T' … 1 of the paper's schedule of T = 10; beyond, T = T'.
        training: the optimisation, with `LEARNING_RATES` by default; `mlp-best` and `dits-best` have learning
            rates, moving average and patience of their own.

    Raises:
        InputError: no steps, or less than one.
    """
    if not steps or min(steps) < 1:
        raise InputError(f"steps are {list(steps)}; expected numbers of truncated timesteps T' of at least 1.")
    training = TrainingConfig(learning_rate=LEARNING_RATES) if training is None else training
    rows = {name: Recipe(adapter=name) for name in CLOSED_FORM}
    rows |= {name: Recipe(adapter=name, training=training) for name in ("low-rank-affine", "contrastive-linear")}
    for n in sorted({min(steps), max(steps)}):
        depth = equal_cost_depth(Recipe(sampler=schedule(n)).sampler_config(width=1))
        rows[f"mlp-{n}"] = Recipe(adapter="mlp", options={"depth": depth}, training=training)
    rows |= {f"dits-{n}": Recipe(sampler=schedule(n), training=training) for n in steps}
    return rows | {"mlp-best": best_mlp_recipe(training), "dits-best": best_recipe(training)}


def best_recipe(training: TrainingConfig) -> Recipe:
    """Return the preset `best` with another optimisation, but for what the preset is about."""
    best = PRESETS["best"]
    own = best.training.model_dump(include={"learning_rate", "ema", "patience"})
    return best.model_copy(update={"training": training.model_copy(update=own)})


def best_mlp_recipe(training: TrainingConfig) -> Recipe:
    """Return `best_recipe` with a residual MLP in the place of the flow: the same start, the same optimisation.

    Its depth costs what one step of the flow costs, so it has as many weights as the folded flow, which uses its
    own once a step. As deep as the whole flow costs it was no better in trials, and slower (docs/best.md).
    """
    best = best_recipe(training)
    flow = best.sampler_config(width=1)
    depth = equal_cost_depth(flow.model_copy(update={"steps": 1}))
    options = {"depth": depth, "mlp_ratio": flow.mlp_ratio, "start": flow.start}
    return best.model_copy(update={"adapter": "mlp", "sampler": {}, "options": options})


def schedule(steps: int) -> dict[str, int]:
    """Return the sampler's fields for T' steps: T = 10, or T = T' beyond that (Table 8)."""
    return {"timesteps": max(SCHEDULE, steps), "steps": steps}


def equal_cost_depth(sampler: SamplerConfig) -> int:
    """Return how many layers of an `MLPAdapter` multiply as often as the folded sampler does for one query.

    A layer of the MLP adapter has 2 r matrices of d × d, r being the MLP ratio, which both share. An affine start,
    which both may have, is left out of `SamplerConfig.matrices`.

    >>> equal_cost_depth(SamplerConfig(width=512, steps=10))  # 371 / 8 = 46.4
    46
    """
    flow = sampler.model_copy(update={"start": "text"})
    return max(1, round(flow.matrices / (2 * flow.mlp_ratio)))


def fit_all(
    rows: Rows,
    pairs: Pairs,
    validation: Pairs,
    *,
    out: str | PathLike[str] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> dict[str, Adapter]:
    """Make the adapter of every row, or load it where an interrupted run has left it; arguments as for `compare`.

    Raises:
        DITSError: `out` holds an adapter of that name, made from other pairs or recipes.
    """
    data = _digest(pairs, validation)
    adapters = {}
    bar = tqdm(rows.items(), desc="comparing", unit="adapter", disable=not progress)
    for name, recipe in bar:
        bar.set_postfix_str(name)
        made_from = {"data": data, "recipe": recipe.model_dump(mode="json")}
        folder = None if out is None else Path(out) / name
        if folder is not None and is_artifact(folder):
            artifact = Artifact.load(folder)
            adapter = artifact.adapter
            if artifact.training != made_from:
                raise DITSError(
                    f"{folder}: was made from other pairs, or with another recipe, than this comparison has. "
                    "Choose another folder, or delete this one."
                )
        else:
            adapter, history = fit(recipe, pairs, validation, device=device, progress=progress)
            if folder is not None:
                found = (
                    best_epoch(history).validation
                    if history
                    else RetrievalMetrics.from_ranks(evaluate(adapter, validation))
                )
                metrics = {"validation": asdict(found)}
                Artifact(adapter, pairs.space, training=made_from, metrics=metrics).save(folder)
        adapters[name] = adapter
    return adapters


def tabulate(
    adapters: Mapping[str, Adapter],
    pairs: Pairs,
    validation: Pairs,
    test: Pairs,
    *,
    rows: Rows,
    progress: bool = True,
) -> Comparison:
    """Evaluate finished adapters, time them side by side, and recommend one.

    Args:
        adapters: by name, `identity` among them.
        pairs: what they were trained on.
        validation: pairs that choose between the rows.
        test: pairs that the figures come from.
        rows: how they were made, for the record.
        progress: show a progress bar.

    Raises:
        InputError: plain CLIP is not among the adapters.
    """
    if PLAIN not in adapters:
        raise InputError(f"a comparison needs the row {PLAIN!r}, plain CLIP; there are {', '.join(adapters)}.")
    ready = {name: adapter.for_inference() for name, adapter in adapters.items()}
    microseconds = _time({name: a for name, a in ready.items() if not a.needs_video}, test.text)
    names = sorted(ready, key=lambda name: name != PLAIN)
    found: list[Row] = []
    for name in tqdm(names, desc="evaluating", unit="adapter", disable=not progress):
        adapter = ready[name]
        scores = similarities(adapter, test)
        forward = Retrieval.of(ranks(scores, test.labels), test.labels)
        plain = found[0].text_to_video.ranks if found else forward.ranks
        found.append(
            Row(
                name=name,
                family=_family(adapter),
                text_to_video=forward,
                video_to_text=Retrieval.of(video_to_text_ranks(scores, test.labels)),
                over_plain=paired_bootstrap(plain, forward.ranks, test.labels),
                validation=RetrievalMetrics.from_ranks(evaluate(adapter, validation)),
                weights=0 if adapter.is_plain else sum(t.numel() for t in adapter.state_dict().values()),
                microseconds=microseconds.get(name),
            )
        )
    splits = {"train": pairs, "validation": validation, "test": test}
    return Comparison(
        rows=tuple(found),
        recommendation=recommend(found, test.labels),
        labels=tuple(test.labels.tolist()),
        sizes={name: (len(split.text), len(split.video)) for name, split in splits.items()},
        space=str(test.space),
        recipes=dict(rows),
        environment=environment(),
    )


def recommend(rows: Sequence[Row], labels: NDArray[np.int64]) -> Recommendation:
    """Choose a row: the cheapest family that nothing dearer beats by more than noise.

    The rule. The families, from cheap to dear, are plain CLIP, linear maps and networks. Within a family the row
    with the highest mean reciprocal rank on the VALIDATION pairs stands for it. Start with plain CLIP; let the
    linear map challenge it, then the network challenge whichever stands. A challenger replaces the standing row
    if, on the test pairs, its mean reciprocal rank is higher and the 95 % paired bootstrap interval of the
    difference lies above 0. The test pairs thus decide two duels and choose between no rows. So "keep plain
    CLIP" is the answer where nothing is better by more than noise, and "a linear map is enough" where no network
    improves on it. The family `paired` takes no part.

    Args:
        rows: plain CLIP first.
        labels: which video each test text belongs to; captions of one video are drawn together.
    """
    standing, won = rows[0], ""
    lost: list[str] = []
    for family in ("linear", "network"):
        members = [row for row in rows if row.family == family]
        if not members:
            continue
        challenger = max(members, key=lambda row: row.validation.mrr)
        difference = paired_bootstrap(standing.text_to_video.ranks, challenger.text_to_video.ranks, labels)
        r1, mrr = difference["r1"], difference["mrr"]
        duel = (
            f"{challenger.name} against {standing.name}: R@1 {signed(r1)}, "
            f"MRR {mrr.difference:+.3f} [{mrr.low:+.3f}, {mrr.high:+.3f}]"
        )
        if mrr.low > 0:
            standing, won, lost = challenger, duel, []
        else:
            lost.append(duel)
    tried = any(row.family == "network" for row in rows)
    networks = "no network than it" if tried else "and no network was tried"
    answer = {
        "plain": "Keep plain CLIP: no adapter was better by more than noise",
        "linear": "A linear map is enough: it was better than plain CLIP by more than noise, " + networks,
        "network": "The network is worth it: it was better than what is cheaper by more than noise",
    }[standing.family]
    duels = ". ".join(filter(None, [won, *lost]))
    return Recommendation(standing.name, f"{answer} on {len(labels):,} test queries. {duels}.")


def similarities(adapter: Adapter, pairs: Pairs) -> Scores:
    """Return the cosines of all adapted texts with all videos, (texts, videos), computed as they are read."""
    if adapter.needs_video:
        return adapter.scores(pairs.text, pairs.video)
    return DotProducts(unit(adapter.adapt(pairs.text)), unit(pairs.video))


def environment() -> dict[str, str]:
    """Return what the figures depend on: processor, threads, graphics card, versions of packages."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text("utf-8").splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {
        "processor": f"{cpu}, {os.cpu_count()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{package: version(package) for package in ("dits-adapter", "torch", "numpy", "scipy")},
    }


def _family(adapter: Adapter) -> Family:
    if adapter.is_plain:
        return "plain"
    if adapter.needs_video:
        return "paired"
    return "linear" if isinstance(adapter, (AffineAdapter, LowRankAdapter)) else "network"


def _time(adapters: Mapping[str, Adapter], texts: NDArray[np.float32]) -> dict[str, float]:
    """Return the median microseconds that adapting one query takes, all adapters in turn, round by round."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        taken: dict[str, list[float]] = {name: [] for name in adapters}
        for round_ in range(TIMING_ROUNDS + 1):
            query = texts[round_ % len(texts)][None]
            for name, adapter in adapters.items():
                start = time.perf_counter()
                adapter.adapt(query)
                taken[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: 1e6 * statistics.median(times[1:]) for name, times in taken.items()}  # the first warms up


def _distinct(vectors: NDArray[np.float32]) -> set[bytes]:
    return {row.tobytes() for row in vectors}


def _digest(pairs: Pairs, validation: Pairs) -> str:
    """Return a digest of the data, and of the version of the code, that decide what an adapter becomes."""
    digest = hashlib.sha256(version("dits-adapter").encode())
    for split in (pairs, validation):
        for array in (split.text, split.video, split.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
