"""The affine map for few pairs against a slow reference in NumPy: the same choices, the same weights."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from dits_adapter.adapters import (
    AffineAdapter,
    _folds,
    _gentle,
    adapter_entry,
    gentle_dits,
    gentle_linear,
    gentle_mlp,
)
from dits_adapter.adapters._fit import Start
from dits_adapter.adapters._folds import FOLDS, Problem, choose_start
from dits_adapter.errors import InputError

WIDTH = 6
SHARPNESSES = (10, 15, 20, 30, 40, 60, 80, 120)


def pairs(
    videos: int, texts_each: int, seed: int, noise: float = 0.6, turn: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Videos and texts that a rotation (with `turn` alone, else beside the identity) and an offset part."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, WIDTH))
    turned = video @ np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    turned = turned if turn else 0.6 * turned + video
    text = np.repeat(turned, texts_each, axis=0)
    text = text + noise * rng.normal(size=text.shape) + 1.5 * np.eye(WIDTH)[0]
    return text, np.repeat(video, texts_each, axis=0)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch) -> None:
    """Stop these toys, of which many steps are needed, early."""
    monkeypatch.setattr(_gentle, "_MOST_STEPS", 24)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_ridge(t, v, penalty):
    mean = t.mean(0)
    x, y = t - mean, v - v.mean(0)
    return mean, np.linalg.inv(x.T @ x + len(t) * penalty * np.eye(WIDTH)) @ x.T @ (y - x)


def slow_rotation(t, v, penalty):
    """Find the orthogonal factor by Newton's iteration (Higham 1986)."""
    mean = t.mean(0)
    wanted = (t - mean).T @ (v - v.mean(0)) + len(t) * penalty * np.eye(WIDTH)
    for _ in range(100):
        wanted = (wanted + np.linalg.inv(wanted).T) / 2
    return mean, wanted - np.eye(WIDTH)


def slow_residual(t, v, start):
    return (slow_rotation if start.rotation else slow_ridge)(t, v, start.penalty)


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
    mean, weight = slow_residual(t, v, start)
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
            params[k] *= 1 - 1e-4 * 0.1
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g**2
            corrected = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            params[k] -= 1e-4 * first[k] / (1 - 0.9**step) / corrected


def slow_fit(text, video):
    t = unit(text.astype(np.float64)).astype(np.float32).astype(np.float64)
    v = unit(video.astype(np.float64)).astype(np.float32).astype(np.float64)
    videos, labels = np.unique(v, axis=0, return_inverse=True)
    labels = labels.ravel()

    def parts(seed):
        """Yield texts that are held out, and the videos that they search: those of the same part."""
        part = np.empty(len(videos), int)
        part[np.random.default_rng(seed).permutation(len(videos))] = np.arange(len(videos)) % 5
        for k in range(5):
            rows = np.flatnonzero(part == k)
            held = np.isin(labels, rows)
            yield held, videos[rows], np.searchsorted(rows, labels[held])

    def scored(starts):
        scores = {start: np.zeros(len(t)) for start in starts}
        for seed in range(4):
            for held, searched, answers in parts(seed):
                for start in starts:
                    mean, weight = slow_residual(t[~held], v[~held], start)
                    queries = slow_start(t[held], mean, weight, start)
                    scores[start][held] += 1 / slow_ranks(queries, searched, answers)
        totals = {start: row.sum() for start, row in scores.items()}
        return scores, next(start for start in totals if totals[start] > max(totals.values()) - 1e-9)

    scores, best = scored(
        [
            Start(penalty, centering, strength)
            for penalty in (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
            for centering in (0, 0.25, 0.5, 0.75, 1)
            for strength in (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1)
        ]
    )
    usual = Start(3e-2, 0.5, 0)
    ahead = (scores[best] - scores[usual])[np.argsort(labels, kind="stable")].reshape(-1, 2).mean(1)
    if not ahead.mean() > 2 * ahead.std(ddof=1) / np.sqrt(len(ahead)):
        best = usual
    else:
        rotated, rotation = scored(
            [Start(p, c, 1, rotation=True) for p in (1e-3, 1e-4, 1e-5) for c in (0, 0.5, 1)]
        )
        best = rotation if rotated[rotation].sum() > scores[best].sum() + 1e-9 else best
    logs_of = []
    losses, adapted, gains = np.full(25, np.inf), np.empty((25, *t.shape)), np.zeros((25, len(t)))
    runs = [(*part, slow_maps(t[~part[0]], v[~part[0]], labels[~part[0]], best, 24)) for part in parts(0)]
    for step in range(25):
        logs = []
        for held, searched, answers, maps in runs:
            queries = unit(next(maps)(t[held]))
            adapted[step, held] = queries
            gains[step, held] = 1 / slow_ranks(queries, searched, answers)
            gains[step, held] -= 1 / slow_ranks(t[held], searched, answers)
            for query, answer in zip(queries, answers, strict=True):
                cosines = searched @ query
                logs.append([np.log(np.sum(np.exp(s * (cosines - cosines[answer])))) for s in SHARPNESSES])
        logs_of.append(np.array(logs)[:, np.mean(logs, axis=0).argmin()])
        losses[step] = logs_of[step].mean()
        if step >= 16 and step >= 2 * losses.argmin():
            break
    steps = int(losses.argmin())
    fallen = (logs_of[0] - logs_of[steps])[np.argsort(np.concatenate([np.flatnonzero(held) for held, *_ in runs]))]
    of_videos = fallen[np.argsort(labels, kind="stable")].reshape(-1, 2).mean(1)
    steps = steps if of_videos.mean() > of_videos.std(ddof=1) / np.sqrt(len(of_videos)) else 0
    maps = list(slow_maps(t, v, labels, best, steps))
    return best, steps, adapted[steps], gains[steps], maps[steps]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_choices_and_weights_are_those_of_the_reference(seed: int) -> None:
    text, video = pairs(20, 2, seed, turn=seed == 2)
    fit = gentle_linear(text, video)
    assert fit.start.rotation == (seed == 2)
    start, steps, out_of_fold, gains, apply = slow_fit(text, video)
    assert (fit.start, fit.steps) == (start, steps)
    np.testing.assert_allclose(fit.out_of_fold, out_of_fold, atol=1e-4)
    assert np.array_equal(fit.rows, np.arange(len(text)))
    queries = np.random.default_rng(9).normal(size=(20, WIDTH))
    np.testing.assert_allclose(fit.adapter.adapt(queries), unit(apply(unit(queries))), atol=1e-4)
    assert fit.gain == pytest.approx(gains.mean(), abs=1e-9)
    of_videos = gains.reshape(20, 2).mean(1)
    assert fit.error == pytest.approx(of_videos.std(ddof=1) / np.sqrt(20), abs=1e-9)


def test_no_text_is_adapted_by_a_map_that_saw_its_video() -> None:
    """Moving the video of a text moves the map of all others, and not that of its own fold, at equal choices."""
    text, video = pairs(30, 2, 1)
    before = gentle_linear(text, video)
    moved = video.copy()
    moved[:2] += 1e-3
    after = gentle_linear(text, moved)
    assert (before.start, before.steps) == (after.start, after.steps)
    change = np.abs(before.out_of_fold - after.out_of_fold).max(axis=1)
    assert change[:2].max() < 1e-7
    assert np.mean(change > 1e-7) == pytest.approx(1 - 1 / FOLDS, abs=0.05)


def test_it_is_deterministic() -> None:
    text, video = pairs(20, 1, 0)
    first, again = gentle_linear(text, video), gentle_linear(text, video)
    assert np.array_equal(first.adapter.adapt(text), again.adapter.adapt(text))
    assert np.array_equal(first.out_of_fold, again.out_of_fold)


def test_no_step_is_taken_for_a_loss_that_falls_by_less_than_its_error(monkeypatch) -> None:
    text, video = pairs(20, 1, 0)
    assert gentle_linear(text, video).steps > 0
    monkeypatch.setattr(_gentle, "choose_start", lambda problem: Start(3e-2, 0.5, 0))
    monkeypatch.setattr(_gentle, "mean_and_error", lambda gains, labels: (gains.mean(), 1.01 * gains.mean()))
    fit = gentle_linear(text, video)
    assert fit.steps == 0
    mean = unit(text).mean(0)
    np.testing.assert_allclose(fit.adapter.adapt(text), unit(unit(text) - mean / 2), atol=1e-6)


NETWORKS = {"mlp": gentle_mlp, "dits": gentle_dits, "dits-1": partial(gentle_dits, steps=1)}


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_goes_on_from_the_same_start(kind: str, monkeypatch) -> None:
    """With a rate of nothing every step is the start, whatever the network."""
    text, video = pairs(30, 2, 0)
    start = choose_start(Problem.of(text, video))
    monkeypatch.setattr(_gentle, "_LEARNING_RATE", 0)
    monkeypatch.setattr(_gentle, "_FLOW_DOSE", 0)
    monkeypatch.setattr(_gentle, "_PATIENCE", 2)
    fit = NETWORKS[kind](text, video)
    assert (fit.start, fit.steps) == (start, 0)
    assert isinstance(fit.adapter, AffineAdapter)  # and not a network that adds nothing to it
    mean, weight = slow_ridge(unit(text), unit(video), start.penalty)
    np.testing.assert_allclose(
        fit.adapter.adapt(text), unit(slow_start(unit(text), mean, weight, start)), atol=1e-5
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_that_helps_is_kept(kind: str, monkeypatch) -> None:
    monkeypatch.setattr(_gentle, "choose_start", lambda problem: Start(3e-2, 0.0, 0.0))
    monkeypatch.setattr(_gentle, "_LEARNING_RATE", 3e-3)
    monkeypatch.setattr(_gentle, "_FLOW_DOSE", 2e-2)
    monkeypatch.setattr(_gentle, "_MOST_STEPS", 6)
    text, video = pairs(30, 2, 3)
    fit = NETWORKS[kind](text, video)
    assert fit.steps > 0
    assert fit.adapter.kind == kind.split("-")[0]
    assert not fit.adapter.start.weight.requires_grad
    in_sample = fit.adapter.adapt(text)
    assert 1e-6 < np.abs(in_sample - fit.out_of_fold).max() < 1


def test_a_step_of_a_flow_knows_how_far_its_schedule_carries() -> None:
    """One step moves queries about as far with T' = 10, whose χ sum to 19.7, as with T' = 1, a third."""
    text, video = pairs(40, 2, 0)
    problem = Problem.of(text, video)
    moves = []
    for steps in (1, 10):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_gentle, "_fit", lambda pairs, recipe: recipe)
            recipe = gentle_dits(text, video, steps=steps)
        modules = _gentle._descend(problem, Start(1e-2, 0.5, 0.0), recipe)
        before = _gentle._adapt(next(modules), problem.texts)
        moves.append(np.linalg.norm(_gentle._adapt(next(modules), problem.texts) - before, axis=1).mean())
    assert moves[1] == pytest.approx(moves[0], rel=0.1)


@pytest.mark.parametrize("name", ["gentle-linear", "gentle-mlp", "gentle-dits"])
def test_the_registry_fits_it(name: str, monkeypatch) -> None:
    monkeypatch.setattr(_gentle, "_MOST_STEPS", 2)
    text, video = pairs(20, 1, 0)
    entry = adapter_entry(name)
    assert not entry.trained
    assert isinstance(entry.cross_validated(text, video).adapter, entry.adapter | AffineAdapter)


def test_of_many_videos_a_part_is_held_out(monkeypatch) -> None:
    monkeypatch.setattr(_folds, "_CROSS_VALIDATED", 40)
    monkeypatch.setattr(_folds, "_HELD_OUT", 8)
    text, video = pairs(60, 2, 0)
    fit = gentle_linear(text, video)
    assert len(fit.rows) == len(fit.out_of_fold) == 8  # two texts of a fifteenth of the videos
    assert fit.error > 0


def test_of_very_many_pairs_some_are_drawn(monkeypatch) -> None:
    text, video = pairs(60, 2, 0)
    monkeypatch.setattr(_gentle, "_MOST_PAIRS", 50)
    fit = gentle_linear(text, video)
    assert np.all(np.diff(fit.rows) > 0)
    assert len(fit.rows) == len(fit.out_of_fold) == 50
    again = gentle_linear(text[fit.rows], video[fit.rows])
    assert np.array_equal(fit.out_of_fold, again.out_of_fold)
    assert np.array_equal(fit.adapter.adapt(text), again.adapter.adapt(text))


@pytest.mark.parametrize(
    ("text", "video", "message"),
    [
        (*pairs(9, 3, 0), "pairs of 9 distinct videos"),
        (np.zeros((20, WIDTH)), pairs(20, 1, 0)[1], "zero, NaN"),
    ],
)
def test_refuses(text, video, message) -> None:
    with pytest.raises(InputError, match=message):
        gentle_linear(text, video)
