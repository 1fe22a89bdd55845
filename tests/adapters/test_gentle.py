"""The affine map for few pairs against a slow reference in NumPy: the same choices, the same weights."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter.adapters import AffineAdapter, adapter_entry, gentle_linear
from dits_adapter.adapters._gentle import FOLDS, Start
from dits_adapter.errors import InputError

WIDTH = 6


def pairs(videos: int, texts_each: int, seed: int, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Videos and texts that a rotation and an offset part; some texts of each video."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, WIDTH))
    turned = video @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] * 0.6 + video
    text = np.repeat(turned, texts_each, axis=0)
    text = text + noise * rng.normal(size=text.shape) + 1.5 * np.eye(WIDTH)[0]
    return text, np.repeat(video, texts_each, axis=0)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_ridge(t, v, penalty):
    mean = t.mean(0)
    x, y = t - mean, v - v.mean(0)
    return mean, np.linalg.inv(x.T @ x + len(t) * penalty * np.eye(WIDTH)) @ x.T @ (y - x)


def slow_ranks(queries, videos, labels):
    places = []
    for query, label in zip(unit(queries), labels, strict=True):
        cosines = videos @ query
        places.append(sum(cosine >= cosines[label] - 1e-12 for cosine in cosines))
    return np.array(places)


def slow_start(q, mean, weight, start):
    return (q - start.centering * mean) + start.strength * ((q - mean) @ weight)


def slow_maps(t, v, labels, start, steps):
    """Yield the function from texts to queries after 0, 1, … steps; gradients and AdamW by hand."""
    mean, weight = slow_ridge(t, v, start.penalty)
    scale = np.mean(np.linalg.norm(slow_start(t, mean, weight, start), axis=1))
    params = [np.zeros((WIDTH, WIDTH)), np.zeros(WIDTH)]
    first, second = [0 * p for p in params], [0 * p for p in params]

    def apply(q):
        return slow_start(q, mean, weight, start) / scale + 8 * (q - mean) @ params[0].T + params[1]

    n = len(t)
    for step in range(1, steps + 2):
        frozen = [p.copy() for p in params]
        yield lambda q, p=frozen: slow_start(q, mean, weight, start) / scale + 8 * (q - mean) @ p[0].T + p[1]
        raw = apply(t)
        norms = np.linalg.norm(raw, axis=1, keepdims=True)
        scores = 50 * (raw / norms) @ v.T
        for i in range(n):
            for j in range(n):
                if i != j and labels[i] == labels[j]:
                    scores[i, j] = -np.inf
        e = np.exp(scores - scores.max())
        gradient = (e / e.sum(1, keepdims=True) + e / e.sum(0, keepdims=True) - 2 * np.eye(n)) / (2 * n)
        towards = 50 * gradient @ v
        towards = (towards - np.sum(towards * raw / norms, axis=1, keepdims=True) * raw / norms) / norms
        gradients = [8 * towards.T @ (t - mean), towards.sum(0)]
        for k, g in enumerate(gradients):
            params[k] *= 1 - 3e-4 * 0.1
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            corrected = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            params[k] -= 3e-4 * first[k] / (1 - 0.9**step) / corrected


def slow_fit(text, video):
    t = unit(text.astype(np.float64)).astype(np.float32).astype(np.float64)
    v = unit(video.astype(np.float64)).astype(np.float32).astype(np.float64)
    videos, labels = np.unique(v, axis=0, return_inverse=True)
    labels = labels.ravel()
    fold = np.empty(len(videos), int)
    fold[np.random.default_rng(0).permutation(len(videos))] = np.arange(len(videos)) % 5
    fold = fold[labels]
    best, best_score = None, -1
    for penalty in (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        for centering in (0, 0.25, 0.5, 0.75, 1):
            for strength in (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1):
                start, score = Start(penalty, centering, strength), 0
                for k in range(5):
                    mean, weight = slow_ridge(t[fold != k], v[fold != k], penalty)
                    queries = slow_start(t[fold == k], mean, weight, start)
                    score += np.sum(1 / slow_ranks(queries, videos, labels[fold == k]))
                if score > best_score + 1e-9:
                    best, best_score = start, score
    scores, adapted = np.zeros(33), np.empty((33, *t.shape))
    for k in range(5):
        for step, apply in enumerate(slow_maps(t[fold != k], v[fold != k], labels[fold != k], best, 32)):
            queries = apply(t[fold == k])
            adapted[step, fold == k] = unit(queries)
            scores[step] += np.sum(1 / slow_ranks(queries, videos, labels[fold == k]))
    steps = next(step for step in range(33) if scores[step] > scores.max() - 1e-9)
    return best, steps, adapted[steps], list(slow_maps(t, v, labels, best, 32))[steps]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_and_weights_are_those_of_the_reference(seed: int) -> None:
    text, video = pairs(24, 2, seed)
    fit = gentle_linear(text, video)
    start, steps, out_of_fold, apply = slow_fit(text, video)
    assert (fit.start, fit.steps) == (start, steps)
    np.testing.assert_allclose(fit.out_of_fold, out_of_fold, atol=1e-5)
    queries = np.random.default_rng(9).normal(size=(20, WIDTH))
    np.testing.assert_allclose(fit.adapter.adapt(queries), unit(apply(unit(queries))), atol=1e-5)


def test_no_text_is_adapted_by_a_map_that_saw_its_video() -> None:
    """Moving the video of a text moves the map of all others, and not that of its own fold, at equal choices."""
    text, video = pairs(30, 2, 0)
    before = gentle_linear(text, video)
    moved = video.copy()
    moved[:2] += 1e-3
    after = gentle_linear(text, moved)
    assert (before.start, before.steps) == (after.start, after.steps)
    change = np.abs(before.out_of_fold - after.out_of_fold).max(axis=1)
    assert change[:2].max() < 1e-7
    assert np.mean(change > 1e-7) == pytest.approx(1 - 1 / FOLDS)


def test_it_is_deterministic() -> None:
    text, video = pairs(20, 1, 0)
    first, again = gentle_linear(text, video), gentle_linear(text, video)
    assert np.array_equal(first.adapter.adapt(text), again.adapter.adapt(text))
    assert np.array_equal(first.out_of_fold, again.out_of_fold)


def test_where_nothing_can_be_gained_nothing_moves() -> None:
    rng = np.random.default_rng(0)
    video = rng.normal(size=(60, WIDTH))
    text = video + 0.01 * rng.normal(size=video.shape)
    fit = gentle_linear(text, video)
    assert (fit.start.strength, fit.start.centering, fit.steps) == (0, 0, 0)
    np.testing.assert_allclose(fit.adapter.adapt(text), unit(text), atol=1e-6)


def test_the_registry_fits_it() -> None:
    text, video = pairs(20, 1, 0)
    (adapter,) = adapter_entry("gentle-linear").closed_form(text, video)
    assert isinstance(adapter, AffineAdapter)
    assert adapter.config.method == "gentle-linear"
    assert np.array_equal(adapter.adapt(text), gentle_linear(text, video).adapter.adapt(text))


@pytest.mark.parametrize(
    ("text", "video", "message"),
    [
        (*pairs(9, 3, 0), "pairs of 9 distinct videos"),
        (*pairs(4097, 1, 0), "up to 4,096"),
        (np.zeros((20, WIDTH)), pairs(20, 1, 0)[1], "zero, NaN"),
    ],
)
def test_refuses(text, video, message) -> None:
    with pytest.raises(InputError, match=message):
        gentle_linear(text, video)
