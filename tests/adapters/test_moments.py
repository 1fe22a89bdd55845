"""Closed forms of streamed moments, against the same fits of all rows at once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes

from dits_adapter.adapters import Matches, adapter_entry, mean_shift, moments, procrustes, reduced_rank, ridge
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.training._initial import fit_closed_form
from tests.spaces import made_up_space

WIDTH = 6


def unit64(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made_up(count, *, seed=0):
    """Texts far from the origin, as CLIP's are, and videos that a blurred rotation makes of them."""
    rng = np.random.default_rng(seed)
    text = 5 + rng.normal(size=(count, WIDTH))
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    video = text @ rotation - 3 + 0.3 * rng.normal(size=(count, WIDTH))
    return text.astype(np.float32), video.astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(moments, "_BLOCK", 7)


def whole(name, text, video):
    """Fit by the textbook to all rows at once, in float64: weight (d, d) and bias (d,)."""
    t, v = unit64(text), unit64(video)
    t0, v0 = t - t.mean(0), v - v.mean(0)
    if name == "mean-shift":
        weight = np.eye(WIDTH)
    elif name == "procrustes":
        weight = orthogonal_procrustes(t0, v0)[0].T
    else:
        augmented = np.concatenate([t0, np.sqrt(len(t) * 1e-3) * np.eye(WIDTH)])
        weight = np.linalg.lstsq(augmented, np.concatenate([v0, np.zeros((WIDTH, WIDTH))]))[0].T
    return weight, v.mean(0) - weight @ t.mean(0)


FITS = {"mean-shift": mean_shift, "procrustes": procrustes, "ridge": lambda t, v: ridge(t, v, 1e-3)}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("count", [20, 21, 100])
def test_a_closed_form_of_blocks_is_that_of_all_rows(name, count):
    text, video = made_up(count)
    weight, bias = whole(name, text, video)
    fit = FITS[name](text, video)
    np.testing.assert_allclose(fit.weight.detach().numpy(), weight, atol=1e-6)
    np.testing.assert_allclose(fit.bias.detach().numpy(), bias, atol=1e-6)


def test_moments_are_exact_to_the_last_digits():
    text, video = made_up(1000)
    found = Matches(text, video).moments
    t, v = unit64(text), unit64(video)
    t0, v0 = t - t.mean(0), v - v.mean(0)
    means = {"text": t.mean(0), "video": v.mean(0)}
    for name, expected in (means | {"text_text": t0.T @ t0, "text_video": t0.T @ v0}).items():
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-11, atol=1e-12, err_msg=name)
    assert found.count == 1000


class OnDemand:
    """Rows that are made when they are read, and never many at once."""

    def __init__(self, rows):
        self._rows, self.shape, self.most = rows, rows.shape, 0

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, rows):
        taken = self._rows[rows]
        self.most = max(self.most, len(taken))
        return taken


def test_no_more_than_a_block_is_read_at_a_time():
    text, video = (OnDemand(rows) for rows in made_up(500))
    for name in ("mean-shift", "procrustes", "ridge", "chance"):
        adapter_entry(name).closed_form(Matches(text, video))
    assert 0 < text.most <= 7
    assert 0 < video.most <= 7


def test_all_closed_forms_share_one_pass(monkeypatch):
    passes = []
    blocks = Matches.blocks
    monkeypatch.setattr(Matches, "blocks", lambda self: passes.append(1) or blocks(self))
    text, video = made_up(100)
    pairs = Pairs(text, unit64(video).astype(np.float32), np.arange(100), made_up_space(WIDTH))
    for name in ("mean-shift", "procrustes", "ridge"):
        fit_closed_form(name, pairs, pairs)
    assert len(passes) == 2  # the first block is read before, for the origin


def test_the_rank_is_chosen_on_a_draw_and_the_map_fitted_to_all(monkeypatch):
    from dits_adapter.adapters import across

    monkeypatch.setattr(across, "_MOST_PAIRS", 60)
    text, video = made_up(300)
    fit = reduced_rank(text, video)
    errors = [unit64(fit.adapt(text)) - unit64(video)]
    weight, bias = whole("ridge", text, video)
    errors.append(unit64(unit64(text) @ weight.T + bias) - unit64(video))
    assert np.linalg.norm(errors[0]) < 1.1 * np.linalg.norm(errors[1])


@pytest.mark.parametrize("side", ["text", "video"])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_a_row_without_direction_is_named(side, value):
    rows = dict(zip(("text", "video"), made_up(30), strict=True))
    rows[side][23] = value
    with pytest.raises(InputError, match=f"the {side} of pair 23 is zero, NaN or infinite"):
        mean_shift(**rows)
    with pytest.raises(InputError, match="no pairs"):
        mean_shift(np.empty((0, WIDTH)), np.empty((0, WIDTH)))
