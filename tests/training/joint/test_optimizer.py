"""Steps of the optimizer in a whole run, against a slow float64 reference: groups, decay, warm-up, clipping."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from dits_adapter.training.joint import _model as module
from dits_adapter.training.joint._model import JointModel
from tests.training.joint.blocks import Clips, train

STEPS, WARMUP = 10, 3
RATES = {"clip_learning_rate": 2e-3, "learning_rate": 5e-3}
DECAY, NORM = 0.2, 0.7


class Recorder:
    """The gradients that each step of a run gets, and the weights before the first and after each, by name."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, np.ndarray]] = []
        self.weights: list[dict[str, np.ndarray]] = []

    def model(self, *parts: object) -> JointModel:
        """Stands in for `JointModel`."""
        joint = JointModel(*parts)
        self.parameters = dict(joint.named_parameters())
        self.weights.append(self.copy())
        return joint

    def copy(self) -> dict[str, np.ndarray]:
        return {name: p.detach().double().numpy().copy() for name, p in self.parameters.items()}

    def before(self, *_: object) -> None:
        gradients = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        self.gradients.append({name: g.double().numpy().copy() for name, g in gradients.items()})

    def after(self, *_: object) -> None:
        self.weights.append(self.copy())


def reference_step(weight: np.ndarray, gradients: list[np.ndarray], rate: float) -> np.ndarray:
    """AdamW (Loshchilov and Hutter, algorithm 2) with its moments summed anew from all gradients so far."""
    t = len(gradients)
    mean = sum((1 - 0.9) * 0.9 ** (t - 1 - k) * g for k, g in enumerate(gradients)) / (1 - 0.9**t)
    square = sum((1 - 0.999) * 0.999 ** (t - 1 - k) * g**2 for k, g in enumerate(gradients)) / (1 - 0.999**t)
    return weight - rate * (mean / (np.sqrt(square) + 1e-6) + DECAY * weight)


def factor(step: int) -> float:
    """Share of the peak rate at a step, from 0: linear up, then a cosine to zero."""
    if step < WARMUP:
        return step / WARMUP
    return (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP))) / 2


@pytest.fixture(scope="module")
def run(tiny_clip, tmp_path_factory) -> Recorder:
    recorder = Recorder()
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "JointModel", recorder.model)
    hooks = [
        register_optimizer_step_pre_hook(recorder.before),
        register_optimizer_step_post_hook(recorder.after),
    ]
    settings = {"epochs": 5, "warmup": WARMUP / STEPS, "weight_decay": DECAY, "gradient_norm": NORM, **RATES}
    try:
        with pytest.warns(UserWarning, match="gets no probabilities"):
            train(Clips(18), tmp_path_factory.mktemp("runs") / "out", tiny_clip, **settings)
    finally:
        patch.undo()
        for hook in hooks:
            hook.remove()
    return recorder


def test_each_of_ten_steps_is_that_of_the_reference(run):
    assert len(run.gradients) == STEPS
    for step in range(STEPS):
        for name in run.gradients[step]:
            peak = RATES["clip_learning_rate" if name.startswith("clip.") else "learning_rate"]
            before, after = run.weights[step][name], run.weights[step + 1][name]
            history = [gradients[name] for gradients in run.gradients[: step + 1]]
            expected = reference_step(before, history, peak * factor(step))
            np.testing.assert_allclose(after, expected, atol=2e-6, err_msg=f"{name}, step {step}")


def test_every_part_of_the_model_is_trained(run):
    last = run.weights[-1]
    for part in ("clip.text_model", "clip.vision_model", "clip.logit_scale", "xpool", "adapter"):
        names = [name for name in run.gradients[0] if name.startswith(part)]
        assert any(not np.array_equal(last[name], run.weights[0][name]) for name in names), part


def test_gradients_are_clipped_together(run):
    norms = [math.sqrt(sum(float((g**2).sum()) for g in gradients.values())) for gradients in run.gradients]
    assert max(norms) <= NORM * 1.001
    assert max(norms) > NORM * 0.99  # the limit was met
