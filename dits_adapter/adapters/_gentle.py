"""Adapters for few pairs: all that could overfit is chosen by one cross-validation over videos.

Each starts at a ridge or rotation towards the identity, which is chosen by the mean reciprocal rank of held-out
texts among held-out videos, and goes on by a few steps of the contrastive loss. Their number has the least loss
of held-out texts, at the temperature that suits it: over some tens of videos most ranks are 1, and a loss tells
more of the maps apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dits_adapter._wording import counted
from dits_adapter.adapters._fit import GentleFit, Start
from dits_adapter.adapters._folds import FOLDS, Fold, Problem, Residual, choose_start, folds, mean_and_error
from dits_adapter.adapters.affine import AffineAdapter, fitted_affine
from dits_adapter.adapters.base import Adapter
from dits_adapter.adapters.dits import DITSAdapter
from dits_adapter.adapters.mlp import MLPAdapter, MLPConfig
from dits_adapter.adapters.moments import Matches, Rows
from dits_adapter.adapters.registry import AdapterEntry, register_entry
from dits_adapter.errors import InputError
from dits_adapter.sampler import NoiseSchedule, SamplerConfig
from dits_adapter.sampler.network import Mlp, layer_norm
from dits_adapter.vectors import FloatArray, unit

__all__ = ["LEAST_VIDEOS", "gentle_dits", "gentle_linear", "gentle_mlp"]

LEAST_VIDEOS = 2 * FOLDS
"""Fewest distinct videos that a gentle adapter is fitted to."""

_LEARNING_RATE = 1e-4
_WEIGHT_DECAY = 0.1
_SHARPNESS = 50.0
"""Reciprocal of the temperature of the contrastive loss."""
_GAIN = 8.0
"""Factor of the centered inputs of a learnt part, which brings their components to the order of 1."""

_FLOW_DOSE = 2e-5
"""Learning rate of a flow times Σ χ: what one step of AdamW may move a query, since every ε is multiplied by χ."""

_PATIENCE = 16
"""Steps that are tried at least, and twice as many as were best so far."""

_MOST_STEPS = 64

_MOST_PAIRS = 20_000
"""Pairs that are learnt from; of more, as many are drawn."""

_PAIRS_A_STEP = 512
"""Pairs that one step compares all with all; of more, as many are drawn for each step."""


def gentle_linear(
    text: Rows,
    video: Rows,
    groups: NDArray[np.int64] | None = None,
    judges: NDArray[np.bool_] | None = None,
) -> GentleFit:
    """Fit an affine map that leaves the identity only as far as held-out videos bear it.

    Args:
        text: text embeddings, (n, d); of more than 20,000 as many are drawn.
        video: embeddings of the matching videos, row by row, (n, d); equal rows are one video.
        groups: group of each text's video, (n,), which folds keep together (`Matches.groups`).
        judges: mask of the texts that folds choose by, (n,); all by default, or where they are of few videos.

    Raises:
        InputError: fewer than ten distinct videos.
    """
    return _fit(Matches(text, video, groups, judges), _Recipe(_Linear, _LEARNING_RATE))


def gentle_mlp(
    text: Rows,
    video: Rows,
    groups: NDArray[np.int64] | None = None,
    judges: NDArray[np.bool_] | None = None,
) -> GentleFit:
    """Fit a residual MLP of one layer with d / 2 hidden units behind the affine start; as `gentle_linear`."""
    return _fit(Matches(text, video, groups, judges), _Recipe(_mlp, _LEARNING_RATE))


def gentle_dits(
    text: Rows,
    video: Rows,
    groups: NDArray[np.int64] | None = None,
    judges: NDArray[np.bool_] | None = None,
    *,
    steps: int = 10,
    depth: int = 0,
) -> GentleFit:
    """Fit the paper's sampler (Eq. 8 without noise) behind the affine start, which stays as it is.

    A step of the optimizer moves a query by Σ χ times what it moves ε, 19.7 times for T' = 10 and a third for
    T' = 1, so the learning rate is 2e-5 / Σ χ. The gates of the blocks are zero at first and open by one learning
    rate a step: in a few steps the paper's four blocks change nothing but the costs (docs/best.md).

    Args:
        text, video, groups, judges: as for `gentle_linear`.
        steps: T', from 1 to 10.
        depth: number of blocks, 4 in the paper.

    Raises:
        InputError: as for `gentle_linear`.
    """
    config = SamplerConfig(width=1)
    schedule = NoiseSchedule.linear(config.timesteps, config.beta_start, config.beta_end)
    rate = _FLOW_DOSE / float(schedule.chi[:steps].sum())

    def build(start: AffineAdapter, mean: Tensor) -> DITSAdapter:
        adapter = DITSAdapter(SamplerConfig(width=start.width, steps=steps, depth=depth, start="affine"))
        _freeze_start(adapter.start, start)
        return adapter

    return _fit(Matches(text, video, groups, judges), _Recipe(build, rate))


@dataclass(frozen=True)
class _Recipe:
    """Recipe of one kind of adapter.

    Attributes:
        build: from the affine start and the mean of the texts (d,) to a module that is the start at first.
        rate: learning rate of AdamW.
    """

    build: Callable[[AffineAdapter, Tensor], nn.Module]
    rate: float


def _fit(pairs: Matches, recipe: _Recipe) -> GentleFit:
    problem, drawn = Problem.drawn(pairs, _MOST_PAIRS)
    if len(problem.videos) < LEAST_VIDEOS:
        raise InputError(
            f"there are pairs of {counted(len(problem.videos), 'distinct video')}; "
            f"the gentle adapters need {LEAST_VIDEOS}."
        )
    start = choose_start(problem)
    parts = list(folds(problem, seed=0))
    rows = np.concatenate([np.flatnonzero(fold.held) for fold in parts])
    steps, adapted = _choose_steps(problem, parts, [_descend(problem.part(f.seen), start, recipe) for f in parts])
    gains = [
        fold.reciprocal_ranks(queries) - fold.reciprocal_ranks(problem.texts[fold.held])
        for queries, fold in zip(adapted, parts, strict=True)
    ]
    gain, error = mean_and_error(np.concatenate(gains), problem.labels[rows])
    module = next(islice(_descend(problem, start, recipe), steps, None))
    if steps == 0:
        adapter: Adapter = Residual(problem).affine(start)
    else:
        adapter = module.adapter() if isinstance(module, _Linear) else module  # type: ignore[assignment]
    order = np.argsort(rows)
    out_of_fold = np.concatenate(adapted)[order]
    return GentleFit(adapter.eval(), drawn[rows[order]], out_of_fold, start, steps, gain, error)


def _choose_steps(
    problem: Problem, parts: Sequence[Fold], runs: Sequence[Iterator[nn.Module]]
) -> tuple[int, list[FloatArray]]:
    """Return the number of steps with the least loss, and the texts of each fold adapted so.

    It is none where the loss falls by less than its standard error over the videos.
    """
    labels = problem.labels[np.concatenate([np.flatnonzero(fold.held) for fold in parts])]
    path: list[tuple[NDArray[np.float64], list[FloatArray]]] = []
    best = 0
    for step in range(_MOST_STEPS + 1):
        queries = [_adapt(next(run), problem.texts[fold.held]) for run, fold in zip(runs, parts, strict=True)]
        losses = np.concatenate([fold.losses(part) for part, fold in zip(queries, parts, strict=True)], axis=1)
        path.append((losses[losses.mean(1).argmin()], queries))
        if path[step][0].mean() < path[best][0].mean():
            best = step
        if step >= max(_PATIENCE, 2 * best):
            break
    gain, error = mean_and_error(path[0][0] - path[best][0], labels)
    return (best, path[best][1]) if gain > error else (0, path[0][1])


def _descend(problem: Problem, start: Start, recipe: _Recipe) -> Iterator[nn.Module]:
    """Yield the module at the start and after each contrastive step; one module, which changes."""
    residual = Residual(problem)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = recipe.build(residual.affine(start), torch.tensor(residual.mean).float())
    texts, videos = torch.tensor(problem.texts).float(), torch.tensor(problem.videos).float()
    labels = torch.tensor(problem.labels)
    draws = torch.Generator().manual_seed(0)
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.rate, weight_decay=_WEIGHT_DECAY)
    while True:
        yield module
        rows = torch.randperm(len(texts), generator=draws)[:_PAIRS_A_STEP].sort().values
        queries = F.normalize(module(texts[rows]), dim=1)
        loss = _contrast(_SHARPNESS * queries @ videos[labels[rows]].T, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _contrast(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the symmetric cross-entropy (Eq. 2) of scores (n, n); texts of one video are no negatives."""
    same = (labels[:, None] == labels).fill_diagonal_(False)
    scores, answers = scores.masked_fill(same, -torch.inf), torch.arange(len(scores))
    return (F.cross_entropy(scores, answers) + F.cross_entropy(scores.T, answers)) / 2


@torch.no_grad()
def _adapt(module: nn.Module, texts: NDArray[np.float64]) -> FloatArray:
    return unit(module(torch.tensor(texts).float()).numpy())


class _Linear(nn.Module):
    """Affine start, and a learnt affine map of the centered texts that is zero at first."""

    _start: AffineAdapter

    def __init__(self, start: AffineAdapter, mean: Tensor) -> None:
        super().__init__()
        self._start, self._mean = start.requires_grad_(False), mean
        self.weight = nn.Parameter(torch.zeros(start.width, start.width))
        self.bias = nn.Parameter(torch.zeros(start.width))

    def forward(self, text: Tensor) -> Tensor:
        """Map unit texts (n, d) to (n, d)."""
        return self._start(text) + F.linear(_GAIN * (text - self._mean), self.weight, self.bias)

    def adapter(self) -> AffineAdapter:
        """Return both as one map."""
        learnt = _GAIN * self.weight.detach().double()
        weight = self._start.weight + learnt
        bias = self._start.bias + self.bias.detach() - learnt @ self._mean.double()
        return fitted_affine("gentle-linear", weight.numpy(), bias.numpy())


def _mlp(start: AffineAdapter, mean: Tensor) -> MLPAdapter:
    adapter = MLPAdapter(MLPConfig(width=start.width, depth=1, mlp_ratio=0.5, start="affine"))
    _freeze_start(adapter.start, start)
    first = cast(Mlp, adapter.layers[0]).fc1
    with torch.no_grad():  # so that its input is centered and scaled as for the linear map
        first.weight.mul_(_GAIN / start.width**0.5)
        first.bias.sub_(first.weight @ layer_norm(start(mean[None]))[0])
    return adapter


def _freeze_start(layer: nn.Linear | None, start: AffineAdapter) -> None:
    assert layer is not None
    layer.load_state_dict(start.state_dict())
    layer.requires_grad_(False)


for _entry in (
    AdapterEntry("gentle-linear", AffineAdapter, {"method": "gentle-linear"}, cross_validated=gentle_linear),
    AdapterEntry("gentle-mlp", MLPAdapter, cross_validated=gentle_mlp),
    AdapterEntry("gentle-dits", DITSAdapter, cross_validated=gentle_dits),
):
    register_entry(_entry)
