"""The schedule against the table of the paper's method and against the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.sampler import NoiseSchedule

TABLE = {
    "alpha_bar": [0.900, 0.721, 0.506, 0.305, 0.154, 0.0625, 0.0192, 0.00398, 4.34e-4, 4.34e-6],
    "chi": [0.3333, 0.4207, 0.5057, 0.6128, 0.7586, 0.9640, 1.2642, 1.7415, 2.7011, 9.9000],
    "lam": [0.3162, 0.4460, 0.5457, 0.6298, 0.7040, 0.7710, 0.8327, 0.8901, 0.9440, 0.9950],
}


@pytest.mark.parametrize(("name", "digits"), [("alpha_bar", 3), ("chi", 4), ("lam", 4)])
def test_paper_table(name, digits):
    values = getattr(NoiseSchedule.linear(10, 0.1, 0.99), name)
    assert values.dtype == np.float64
    if name == "alpha_bar":  # given to three significant figures
        assert [float(f"{v:.3g}") for v in values] == TABLE[name]
    else:
        assert values.round(digits).tolist() == TABLE[name]


@given(st.integers(1, 60), st.floats(0.01, 0.5), st.floats(0.5, 0.99))
def test_formulas(timesteps, start, end):
    schedule = NoiseSchedule.linear(timesteps, start, end)
    product = 1.0
    for i in range(timesteps):
        beta = start if timesteps == 1 else start + (end - start) * i / (timesteps - 1)
        alpha = 1 - beta
        product *= alpha
        assert schedule.beta[i] == pytest.approx(beta, rel=1e-12)
        assert schedule.alpha_bar[i] == pytest.approx(product, rel=1e-10)
        assert schedule.chi[i] == pytest.approx((1 - alpha) / math.sqrt(alpha - alpha * product), rel=1e-9)
        assert schedule.lam[i] == pytest.approx(math.sqrt(beta), rel=1e-12)
