"""The optimizer of frozen training, step by step, against a slow and obvious reference in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from dits_adapter.adapters import adapter_entries, fresh_adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.training._batches import Batch
from dits_adapter.training._losses import contrast
from dits_adapter.training._state import TrainingState
from dits_adapter.training.config import TrainingConfig
from tests.training.test_frozen import SPACE, WIDTH, gap_pairs

RATE = 3e-2
TRAINED = [entry.name for entry in adapter_entries() if entry.trained and entry.name != "fixed-prior"]


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def state_of(adapter, pairs, config, objective=contrast) -> TrainingState:
    run = TrainingState(adapter.double(), pairs, config, RATE, objective, torch.device("cpu"))
    epoch = run.batches.epoch
    run.batches.epoch = lambda number: (Batch(b.text.double(), b.video.double(), b.labels) for b in epoch(number))
    return run


def easy_pairs() -> Pairs:
    """Texts beside their videos, so that the temperature falls to its limit."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(32, WIDTH))
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    text = video + 0.15 * rng.normal(size=video.shape)
    return Pairs(text.astype(np.float32), video.astype(np.float32), np.arange(32), SPACE)


def random_mlp():
    torch.manual_seed(0)
    adapter = fresh_adapter("mlp", WIDTH, {"depth": 1, "mlp_ratio": 0.5})
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return adapter


class SlowAdamW:
    """AdamW with decay on matrices, warm-up, cosine, clipping, limited temperature, and a moving average."""

    def __init__(self, adapter, config, steps):
        self.adapter, self.config, self.steps, self.taken = adapter, config, steps, 0
        self.weights = {name: p.detach().clone() for name, p in adapter.named_parameters()}
        self.weights["logit_scale"] = torch.tensor(math.log(1 / config.temperature))
        self.first = {name: torch.zeros_like(p) for name, p in self.weights.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.weights.items()}
        self.average = None
        self.seen = set()

    def loss(self, weights, text, video):
        queries = F.normalize(functional_call(self.adapter, weights, text), dim=1)
        logits = weights["logit_scale"].exp() * queries @ F.normalize(video, dim=1).T
        rows = [logits[i].logsumexp(0) - logits[i, i] for i in range(len(text))]
        columns = [logits[:, i].logsumexp(0) - logits[i, i] for i in range(len(text))]
        return (sum(rows) + sum(columns)) / (2 * len(text))

    def rate(self):
        """Rise over the share `warmup` of all steps, then fall along half a cosine to zero."""
        warmup = round(self.config.warmup * self.steps)
        if self.taken <= warmup:
            return RATE * self.taken / warmup
        return RATE * (1 + math.cos(math.pi * (self.taken - 1 - warmup) / (self.steps - warmup))) / 2

    def step(self, text, video):
        self.taken += 1
        leaves = {name: p.clone().requires_grad_() for name, p in self.weights.items()}
        gradients = dict(
            zip(leaves, torch.autograd.grad(self.loss(leaves, text, video), list(leaves.values())), strict=True)
        )
        norm = math.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        self.seen.add("clipped" if norm > self.config.gradient_norm else "unclipped")
        rate = self.rate()
        for name, gradient in gradients.items():
            g = gradient * min(1, self.config.gradient_norm / (norm + 1e-6))
            if self.weights[name].ndim == 2:
                self.weights[name] = self.weights[name] * (1 - rate * self.config.weight_decay)
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            m = self.first[name] / (1 - 0.9**self.taken)
            v = self.second[name] / (1 - 0.999**self.taken)
            self.weights[name] = self.weights[name] - rate * m / (v.sqrt() + 1e-8)
        if self.weights["logit_scale"] > math.log(100):
            self.weights["logit_scale"] = torch.tensor(math.log(100))
            self.seen.add("limited")
        if self.average is None:
            self.average = {name: p.clone() for name, p in self.weights.items()}
        else:
            decay = self.config.ema
            self.average = {n: decay * a + (1 - decay) * self.weights[n] for n, a in self.average.items()}


@pytest.mark.parametrize(
    ("epochs", "batch_size", "tried"),
    [(10, 32, {"clipped", "unclipped"}), (5, 16, {"clipped", "unclipped", "limited"})],
)
def test_ten_steps_are_those_of_a_slow_reference(epochs, batch_size, tried):
    pairs = easy_pairs()
    config = TrainingConfig(
        epochs=epochs,
        batch_size=batch_size,
        weight_decay=0.3,
        warmup=0.3,
        temperature=0.01,
        gradient_norm=1.0,
        ema=0.7,
    )
    run = state_of(random_mlp(), pairs, config)
    slow = SlowAdamW(random_mlp().double(), config, steps=10)
    for number in range(1, epochs + 1):
        batches = list(run.batches.epoch(number))
        run.epoch(number)
        for batch in batches:
            slow.step(batch.text, batch.video)
        torch.testing.assert_close(run.logit_scale.detach(), slow.weights["logit_scale"], rtol=0, atol=1e-11)
        for name, parameter in run.adapter.named_parameters():
            torch.testing.assert_close(parameter.detach(), slow.weights[name], rtol=0, atol=1e-11)
        for name, parameter in run.averaged().named_parameters():
            torch.testing.assert_close(parameter.detach(), slow.average[name], rtol=0, atol=1e-11)
    assert slow.taken == 10
    assert slow.seen == tried


def test_query_and_key_weights_decay_and_stay_otherwise():
    """Their gradients are exactly zero in the form that trains, so that AdamW leaves the decay alone at work."""
    torch.manual_seed(0)
    adapter = fresh_adapter("dits", WIDTH, {"depth": 1, "steps": 3})
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = TrainingConfig(epochs=1, batch_size=20, weight_decay=0.5, warmup=0)
    run = state_of(adapter, gap_pairs(20), config)
    qkv = run.adapter.sampler.network.blocks[0].attn.qkv
    before = qkv.weight.detach().clone(), qkv.bias.detach().clone()
    run.epoch(1)
    unused = 2 * WIDTH
    assert torch.equal(qkv.bias[:unused], before[1][:unused])
    torch.testing.assert_close(qkv.weight[:unused], (1 - RATE * 0.5) * before[0][:unused], rtol=1e-14, atol=0)
    assert not torch.any(qkv.bias[unused:] == before[1][unused:])


@pytest.mark.parametrize("name", TRAINED)
def test_decay_is_on_matrices_alone(name):
    """A loss without a gradient leaves the decay alone at work."""

    def nothing(adapter, text, video, labels, logit_scale):
        return 0 * (logit_scale + sum(parameter.sum() for parameter in adapter.parameters()))

    torch.manual_seed(0)
    adapter = fresh_adapter(name, WIDTH)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    config = TrainingConfig(epochs=1, batch_size=20, weight_decay=0.5, warmup=0)
    run = state_of(adapter, gap_pairs(20), config, nothing)
    before = {key: parameter.detach().clone() for key, parameter in run.adapter.named_parameters()}
    temperature = run.logit_scale.detach().clone()
    run.epoch(1)
    assert {parameter.ndim for parameter in before.values()} == {1, 2}
    for key, parameter in run.adapter.named_parameters():
        kept = 1 - RATE * 0.5 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), kept * before[key])
    assert torch.equal(run.logit_scale.detach(), temperature)


def test_the_kept_weights_are_the_moving_average():
    config = TrainingConfig(epochs=3, batch_size=32, ema=0.9)
    run = state_of(random_mlp(), easy_pairs(), config)
    run.epoch(1)
    run.epoch(2)
    run.keep()
    trained, averaged = run.adapter.state_dict(), run.averaged().state_dict()
    assert all(torch.equal(run.best[name], averaged[name]) for name in averaged)
    assert not any(torch.equal(run.best[name], trained[name]) for name in trained)
    plain = state_of(random_mlp(), easy_pairs(), config.model_copy(update={"ema": 0.0}))
    plain.epoch(1)
    plain.keep()
    assert all(torch.equal(plain.best[name], value) for name, value in plain.adapter.state_dict().items())
