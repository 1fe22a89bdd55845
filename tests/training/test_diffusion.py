"""The paper's diffusion baselines, trained by the same functions as everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dits_adapter.adapters import DiffusionAdapter, fresh_adapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.training._initial import initialize
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.run import fit
from tests.spaces import made_up_space
from tests.training.test_frozen import WIDTH, gap_pairs


def r1(adapter, pairs) -> float:
    return RetrievalMetrics.from_ranks(evaluate(adapter, pairs)).r1


def recipe(adapter: str, **settings: object) -> Recipe:
    options = {f"options.{name}": str(value) for name, value in settings.items()}
    quick = {"training.epochs": "12", "training.batch_size": "100", "training.learning_rate": "2e-3"}
    return Recipe.read("deterministic", settings={"adapter": adapter, **quick, **options})


def shifted_pairs(videos: int, seed: int) -> Pairs:
    """Videos in 64 dimensions, and texts that a shift keeps apart from them."""
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(videos, 64))
    text = video + 0.3 * rng.normal(size=video.shape) + 2 * np.random.default_rng(5).normal(size=64)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    return Pairs(text.astype(np.float32), video.astype(np.float32), np.arange(videos), made_up_space(64))


@pytest.mark.parametrize("objective", ["l2", "l1"])
def test_pre_training_draws_gaps_that_are_better_than_guesses(objective):
    pairs, validation, test = shifted_pairs(800, 0), shifted_pairs(80, 1), shifted_pairs(150, 2)
    settings = recipe("diffusion-pretrained", depth=1, objective=objective)
    training = settings.training.model_copy(update={"epochs": 40})
    adapter, history = fit(settings.model_copy(update={"training": training}), pairs, validation, progress=False)
    assert isinstance(adapter, DiffusionAdapter)
    assert history == []
    assert r1(adapter, test) > 6 * 100 / 150


def test_fine_tuning_crosses_a_curved_gap():
    pairs, test = gap_pairs(600, 2), gap_pairs(150, seed=1)
    kept, validation = pairs.split(0.15, seed=0)
    plain = r1(fit(Recipe(adapter="identity"), kept, validation)[0], test)
    pretrained, _ = fit(recipe("diffusion-pretrained", depth=2), kept, validation, progress=False)
    tuned, history = fit(recipe("diffusion", depth=2), kept, validation, progress=False)
    assert len(history) == 13
    assert r1(tuned, test) > max(plain, r1(pretrained, test)) + 10


@pytest.mark.slow
def test_it_learns_32_pairs_by_heart():
    pairs = gap_pairs(32)
    torch.manual_seed(0)
    adapter = fresh_adapter("diffusion", WIDTH, options={"depth": 2})
    config = TrainingConfig(epochs=150, batch_size=32, learning_rate=5e-3, weight_decay=0)
    initialize(adapter, pairs, pairs, config)
    train(adapter, pairs, pairs, config, progress=False)
    assert r1(adapter, pairs) == 100


@pytest.mark.parametrize(("name", "options"), [("fixed-prior", {"variance": 0.5}), ("diffusion-pretrained", {})])
def test_artifacts_of_them_give_the_same_vectors(name, options, tmp_path):
    pairs = gap_pairs(40)
    adapter, _ = fit(recipe(name, **options), pairs, pairs, progress=False)
    loaded = Artifact.load(Artifact(adapter, pairs.space).save(tmp_path / name)).adapter
    assert loaded.config == adapter.config
    assert np.array_equal(loaded.adapt(pairs.text), adapter.adapt(pairs.text))


@pytest.mark.parametrize("condition", ["video", "both"])
def test_dits_that_sees_the_video_trains_on_small_batches(condition):
    pairs = gap_pairs(48)
    torch.manual_seed(0)
    adapter = fresh_adapter("dits", WIDTH, {"depth": 1, "steps": 2, "condition": condition})
    config = TrainingConfig(epochs=20, batch_size=16, learning_rate=3e-3)
    history = train(adapter, pairs, pairs, config, progress=False)
    assert history[-1].loss < history[1].loss - 0.5
    with pytest.raises(InputError, match="set batch_size to at most 64"):
        train(adapter, pairs, pairs, TrainingConfig(batch_size=128), progress=False)


def test_options_are_checked():
    with pytest.raises(InputError, match=r"(?s)options of fixed-prior: .*variance"):
        fresh_adapter("fixed-prior", WIDTH, options={"variance": -1})
    with pytest.raises(InputError, match="'dits' takes no options"):
        Recipe(adapter="dits", options={"depth": 1}).build_adapter(WIDTH)
