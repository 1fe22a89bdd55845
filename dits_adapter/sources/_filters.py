"""Filters of found texts: what repeats itself, and what does not fit its own video better than any other.

Whether a text fits is judged by ranks, which no scale of an encoder changes: how many other videos are nearer to
the text than its own. Of texts that say nothing of their video, or that fit all videos alike, these ranks are
spread evenly; of the others they are small. The share of the former is estimated from the upper half of the ranks
(Storey, 2002), and the density of all by an isotonic histogram. What is told of each text is the probability that
it is one of the latter: one minus the local false discovery rate (Efron et al., 2001).
"""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import name_missing_extra
from dits_adapter.vectors import FloatArray, unit

__all__ = ["LEAST_VIDEOS", "fit_probabilities", "repeats"]

LEAST_VIDEOS = 20
"""Videos from which a rank says something."""

_LOOP = 2.4
"""Rate of compression above which a text repeats itself: Whisper's own limit."""

_VARIETY = 4
"""Times that each word of a text comes, on average, from where it repeats itself."""

_OTHERS = 2000
"""Other videos that a text is compared with at most: a rank is known to a twentieth of a percent then."""

_BLOCK = 4096
"""Texts that are compared at a time: 32 MB of scores."""


def repeats(text: str) -> bool:
    """Tell whether a text says the same again and again, as models do that have nothing to say.

    >>> repeats("you you you you"), repeats("a dog runs after another dog")
    (True, False)
    """
    data, words = text.encode(), re.findall(r"\w+", text.casefold())
    return len(words) >= _VARIETY * len(set(words)) > 0 or len(data) / len(zlib.compress(data)) > _LOOP


def fit_probabilities(
    text: FloatArray,
    video: FloatArray,
    labels: NDArray[np.int64],
    same: NDArray[np.int64] | None = None,
    *,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the probability of each text to fit its own video better than a video at random, (n,).

    The mean of the texts is taken from each, with which a video that is near to every text loses that advantage.

    Args:
        text: vectors of the texts, (n, d), of any norm, as the encoder gives them.
        video: unit vectors of the videos, (m, d).
        labels: row in `video` of each text's video, (n,).
        same: number of each text's wording, (n,): texts of one wording are judged together, so that one that
            stands at many videos by chance does not stay at those it happens to fit. None where all differ.
        seed: seed of the draw of other videos, where there are more than 2,000.
    """
    p = _ranks(text, video, labels, seed)
    unrelated = min(1.0, 2.0 * float(np.mean(p > 0.5)))
    if unrelated == 0.0:
        return np.ones(len(p))
    if unrelated == 1.0:
        return np.zeros(len(p))
    likelihood = np.maximum(_density(p) - unrelated, 1e-3) / (1 - unrelated)
    evidence = np.log(likelihood)
    if same is not None:
        evidence = np.bincount(same, evidence)[same]
    odds = np.log((1 - unrelated) / unrelated) + evidence
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -500, 500))))


def _ranks(text: FloatArray, video: FloatArray, labels: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Return the share of videos as near to each text as its own: (n,), above 0, at most 1."""
    drawn = np.random.default_rng(seed).permutation(len(video))[:_OTHERS]
    others = video[drawn]
    mean = np.sum([unit(text[rows]).sum(axis=0) for rows in _blocks(len(text))], axis=0) / len(text)
    p = np.empty(len(text))
    for rows in _blocks(len(text)):
        texts, own = unit(text[rows]) - mean, labels[rows]
        scores = texts @ others.T
        is_own = drawn == own[:, None]
        scores[is_own] = -np.inf
        nearer = (scores >= np.einsum("nd,nd->n", texts, video[own])[:, None]).sum(axis=1)
        p[rows] = (1 + nearer) / (1 + len(drawn) - is_own.sum(axis=1))
    return p


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, count, _BLOCK)]


@name_missing_extra("a filter by an encoder")
def _density(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the density of the ranks at each of them, which falls from 0 to 1."""
    from sklearn.isotonic import isotonic_regression

    bins = int(np.clip(np.sqrt(len(p)), 10, 200))
    place = np.minimum((p * bins).astype(np.int64), bins - 1)
    heights = np.bincount(place, minlength=bins) * (bins / len(p))
    return np.asarray(isotonic_regression(heights, increasing=False))[place]
