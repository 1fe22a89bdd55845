"""An affine map for few pairs: all that could overfit is chosen by cross-validation over videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from dits_adapter.adapters.affine import AffineAdapter, AffineConfig
from dits_adapter.adapters.base import Adapter
from dits_adapter.adapters.registry import AdapterEntry, register_entry
from dits_adapter.errors import InputError
from dits_adapter.vectors import FloatArray, unit

__all__ = ["FOLDS", "GentleFit", "Start", "gentle_linear"]

FOLDS = 5
"""Parts of the videos, each held out once."""

_PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_CENTERINGS = (0.0, 0.25, 0.5, 0.75, 1.0)
_STRENGTHS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)

_STEPS = 32
_LEARNING_RATE = 3e-4
_WEIGHT_DECAY = 0.1
_SHARPNESS = 50.0
"""Reciprocal of the temperature of the contrastive loss."""
_GAIN = 8.0
"""Factor of the inputs of the learnt part, which brings their components to the order of 1."""

_MOST_PAIRS = 4096
"""Pairs that one step compares all with all."""

_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Start:
    """Residual ridge towards the identity: q' = (q − b · mean) + s · (q − mean) W.

    Attributes:
        penalty: weight of ‖W‖² relative to the number of pairs.
        centering: part b of the mean of the texts that is taken away.
        strength: part s of the ridge that is added.
    """

    penalty: float
    centering: float
    strength: float


@dataclass(frozen=True)
class GentleFit:
    """Affine map of a few pairs, and what cross-validation chose for it.

    Attributes:
        adapter: fitted to all pairs.
        out_of_fold: the texts, each adapted by a map that was fitted without its video, unit vectors (n, d): the
            queries for a bank behind the adapter.
        start: the ridge that training began at.
        steps: number of contrastive steps from there.
    """

    adapter: AffineAdapter
    out_of_fold: FloatArray
    start: Start
    steps: int


def gentle_linear(text: NDArray[np.floating], video: NDArray[np.floating]) -> GentleFit:
    """Fit an affine map that leaves the identity only as far as held-out videos bear it.

    It starts at a ridge towards the identity, whose three numbers are chosen by the mean reciprocal rank of the
    texts of held-out videos among all videos, and goes on by up to 32 full-batch steps of the symmetric
    contrastive loss (AdamW), their number chosen by the same five folds. No step and no ridge is plain CLIP.

    Args:
        text: text embeddings, (n, d), n ≤ 4096.
        video: embeddings of the matching videos, row by row, (n, d); equal rows are one video.

    Raises:
        InputError: fewer than ten distinct videos, or too many pairs.
    """
    texts = unit(text).astype(np.float64)
    videos, labels = np.unique(unit(video).astype(np.float64), axis=0, return_inverse=True)
    labels = labels.ravel()
    if len(videos) < 2 * FOLDS:
        raise InputError(f"there are pairs of {len(videos)} distinct videos; gentle-linear needs {2 * FOLDS}.")
    if len(texts) > _MOST_PAIRS:
        raise InputError(
            f"there are {len(texts):,} pairs; gentle-linear is for up to {_MOST_PAIRS:,}, contrastive-linear for "
            "more."
        )
    fold = _folds(len(videos))[labels]
    start = _choose_start(texts, videos, labels, fold)
    reciprocals = np.zeros(_STEPS + 1)
    adapted = np.empty((_STEPS + 1, *texts.shape), np.float32)
    for number in range(FOLDS):
        seen, held = fold != number, fold == number
        for step, (weight, bias) in enumerate(_descend(texts[seen], videos[labels[seen]], labels[seen], start)):
            queries = texts[held] @ weight.T + bias
            adapted[step, held] = unit(queries)
            reciprocals[step] += _reciprocal_ranks(queries @ videos.T, labels[held]).sum()
    steps = int(reciprocals.argmax())
    weight, bias = next(islice(_descend(texts, videos[labels], labels, start), steps, None))
    adapter = AffineAdapter(AffineConfig(width=texts.shape[1], method="gentle-linear"))
    state = {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}
    adapter.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return GentleFit(adapter.eval(), adapted[steps], start, steps)


def _folds(videos: int) -> NDArray[np.int64]:
    """Return the fold of each video."""
    fold = np.empty(videos, np.int64)
    fold[np.random.default_rng(0).permutation(videos)] = np.arange(videos) % FOLDS
    return fold


def _ridge(texts: _Matrix, targets: _Matrix, penalty: float) -> tuple[_Matrix, _Matrix]:
    """Return the texts' mean (d,) and W (d, d), which maps centered texts to what they lack of centered videos."""
    mean = texts.mean(0)
    centered = texts - mean
    gram = centered.T @ centered + len(texts) * penalty * np.eye(texts.shape[1])
    return mean, np.linalg.solve(gram, centered.T @ (targets - targets.mean(0) - centered))


def _choose_start(texts: _Matrix, videos: _Matrix, labels: NDArray[np.int64], fold: NDArray[np.int64]) -> Start:
    """Return the start with the best mean reciprocal rank out of fold, the mildest of equals."""
    totals = dict.fromkeys(map(Start, *zip(*product(_PENALTIES, _CENTERINGS, _STRENGTHS), strict=True)), 0.0)
    for number in range(FOLDS):
        seen, held = fold != number, fold == number
        plain = texts[held] @ videos.T
        for penalty in _PENALTIES:
            mean, weight = _ridge(texts[seen], videos[labels[seen]], penalty)
            offset, move = mean @ videos.T, (texts[held] - mean) @ weight @ videos.T
            for centering, strength in product(
                _CENTERINGS, _STRENGTHS
            ):  # scores are linear in both; norms rank alike
                scores = plain - centering * offset + strength * move
                total = float(_reciprocal_ranks(scores, labels[held]).sum())
                totals[Start(penalty, centering, strength)] += total
    return max(totals, key=totals.__getitem__)


def _descend(
    texts: _Matrix, targets: _Matrix, labels: NDArray[np.int64], start: Start
) -> Iterator[tuple[_Matrix, _Matrix]]:
    """Yield the affine map (A, b) of the start and after each contrastive step."""
    mean, ridge = _ridge(texts, targets, start.penalty)
    weight = (np.eye(len(mean)) + start.strength * ridge).T
    bias = -start.centering * mean - start.strength * mean @ ridge
    scale = np.linalg.norm(texts @ weight.T + bias, axis=1).mean()
    weight, bias = weight / scale, bias / scale
    base, inputs = torch.tensor(texts @ weight.T + bias), torch.tensor(_GAIN * (texts - mean))
    videos, answers = torch.tensor(targets), torch.arange(len(texts))
    video_of = torch.tensor(labels)
    other_texts_of_a_video = (video_of[:, None] == video_of) & ~torch.eye(len(texts), dtype=torch.bool)
    learnt = torch.zeros(weight.shape, dtype=torch.float64, requires_grad=True)
    shift = torch.zeros(len(mean), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([learnt, shift], lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
    for step in range(_STEPS + 1):
        matrix = _GAIN * learnt.detach().numpy()
        yield weight + matrix, bias + shift.detach().numpy() - matrix @ mean
        if step == _STEPS:
            return
        queries = F.normalize(base + F.linear(inputs, learnt, shift), dim=1)
        scores = (_SHARPNESS * queries @ videos.T).masked_fill(other_texts_of_a_video, -torch.inf)
        loss = (F.cross_entropy(scores, answers) + F.cross_entropy(scores.T, answers)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _reciprocal_ranks(scores: _Matrix, labels: NDArray[np.int64]) -> _Matrix:
    """Return 1 / rank of each text's video among all (n, m), ties counted against it."""
    right = scores[np.arange(len(scores)), labels]
    return 1 / np.sum(scores >= right[:, None], axis=1)


def _fit(text: NDArray[np.floating], video: NDArray[np.floating]) -> Sequence[Adapter]:
    return [gentle_linear(text, video).adapter]


register_entry(AdapterEntry("gentle-linear", AffineAdapter, {"method": "gentle-linear"}, closed_form=_fit))
