"""Hubness against slow references."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter import DotProducts, Hubness
from dits_adapter.errors import InputError
from dits_adapter.evaluation import metrics


def test_occurrences_and_skewness_are_what_a_loop_counts(monkeypatch):
    rng = np.random.default_rng(3)
    texts, items = rng.normal(size=(40, 6)), rng.normal(size=(30, 6))
    items[7] = texts.mean(axis=0) * 20  # near to all
    items[9] = items[8]  # of equal scores the first is better
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", 100)
    found = Hubness.of(DotProducts(texts, items), k=4)
    counts = [0] * 30
    for text in texts:
        scores = [
            float(np.float32(sum(float(a) * float(b) for a, b in zip(text, item, strict=True)))) for item in items
        ]
        for row in sorted(range(30), key=lambda row: (-scores[row], row))[:4]:
            counts[row] += 1
    assert found.occurrences.tolist() == counts
    mean = sum(counts) / 30
    spread = (sum((n - mean) ** 2 for n in counts) / 30) ** 0.5
    assert found.skewness == pytest.approx(sum((n - mean) ** 3 for n in counts) / 30 / spread**3, rel=1e-12)
    assert found.unseen == sum(n == 0 for n in counts) / 30
    assert found.top(3).tolist() == sorted(range(30), key=lambda row: (-counts[row], row))[:3]


def test_chance_skewness_is_that_of_a_binomial_number():
    hubness = Hubness.of(np.random.default_rng(0).normal(size=(50, 20)), k=3)
    p, n = 3 / 20, 50
    ways, moments = 1.0, [0.0] * 4
    for count in range(n + 1):
        chance = ways * p**count * (1 - p) ** (n - count)
        moments = [m + chance * (count - n * p) ** power for power, m in enumerate(moments)]
        ways = ways * (n - count) / (count + 1)
    assert hubness.chance_skewness == pytest.approx(moments[3] / moments[2] ** 1.5, rel=1e-9)


def test_vectors_that_occur_alike_have_no_skewness():
    hubness = Hubness.of(np.eye(4), k=1)
    assert (hubness.skewness, hubness.unseen, hubness.queries) == (0.0, 0.0, 4)


@pytest.mark.parametrize(
    ("scores", "k", "message"),
    [
        (np.ones((2, 3)), 3, "k is 3; it is at least 1 and below the number of vectors, 3"),
        (np.ones((2, 3)), 0, "k is 0"),
        (np.ones((0, 3)), 1, r"not of shape \(0, 3\)"),
        (np.array([[1.0, np.nan]]), 1, "row 0, column 1 is nan"),
    ],
)
def test_bad_scores_are_refused(scores, k, message):
    with pytest.raises(InputError, match=message):
        Hubness.of(scores, k=k)
