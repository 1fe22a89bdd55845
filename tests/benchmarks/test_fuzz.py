"""The fuzz command: the same mutants every time, and every way to end is told from the others."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from benchmarks import fuzz as module
from benchmarks.fuzz import fuzz, mutate
from tests.video.clips import write_clip
from tests.video.conftest import PICTURES
from tests.waiting import PATIENCE


@pytest.fixture
def seeds(tmp_path):
    folder = tmp_path / "seeds"
    folder.mkdir()
    write_clip(folder / "mpeg4.avi", PICTURES[:50], "mpeg4")
    write_clip(folder / "closed.mp4", PICTURES[:50])
    return folder


def sleep(path):
    time.sleep(600)


def abort(path):
    os.abort()


def forget(path):
    raise KeyError(path)


def gorge(path):
    return "over budget"


def test_mutants_are_decoded_or_named(seeds, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", PATIENCE)
    outcomes = fuzz(20, 0, seeds, tmp_path / "kept")
    assert outcomes.total() == outcomes["decoded"] + outcomes["named"] == 20
    assert min(outcomes["decoded"], outcomes["named"]) > 0
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize(
    ("decode", "outcome"), [(sleep, "hung"), (abort, "crashed"), (forget, "unnamed"), (gorge, "over budget")]
)
def test_what_ends_badly_is_counted_and_kept(seeds, tmp_path, monkeypatch, decode, outcome):
    monkeypatch.setattr(module, "SECONDS", 2.0 if decode is sleep else PATIENCE)
    assert fuzz(2, 0, seeds, tmp_path / "kept", decode) == {outcome: 2}
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_a_seed_makes_the_same_mutants():
    content = bytes(range(256)) * 8
    first, again, other = (mutate(content, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again != other
