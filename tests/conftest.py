"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from dits_adapter.encoders import Encoder
from dits_adapter.evaluation.answerability import Answerability

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

# Tensors are tiny here: a second thread only waits for the first, on a busy machine ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# These machines are noisy: no deadline. The same examples every run: a red test is red for everybody.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `slow`, unless `-m` chooses: a test beside it holds the same at a smaller size."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: `make test-all` runs it"))


def pytest_runtest_setup() -> None:
    """Draw the same numbers in each test, whatever has run before it in this process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


ANSWER = Answerability(slope=0.7, offset=0.9, auroc=0.8, brier=0.18, ece=0.03)


@pytest.fixture(scope="session", autouse=True)
def few_timed_queries() -> Iterator[None]:
    """Time two queries of each row of a comparison: no test asserts a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(import_module("dits_adapter.training._table"), "_TIMING_ROUNDS", 2)
        yield


def byte_level_tokenizer() -> CLIPTokenizer:
    """Make a CLIP tokenizer whose tokens are bytes, alone and at a word's end; merges would only shorten texts."""
    from transformers import CLIPTokenizer

    letters = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = [chr(c) for c in letters] + [chr(256 + n) for n in range(256 - len(letters))]
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=77)


def save_random_clip(folder: Path, *, seed: int = 0, width: int = 32) -> Path:
    """Save a randomly initialized CLIPModel with a real CLIP tokenizer and image processor."""
    import torch
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = byte_level_tokenizer()
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = len(tokenizer) - 1
    config = CLIPConfig(
        text_config={
            **tower,
            "bos_token_id": end - 1,
            "eos_token_id": end,
            "pad_token_id": end,
            "vocab_size": end + 1,
        },
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=width,
    )
    torch.manual_seed(seed)
    model = CLIPModel(config)
    for parameter in model.parameters():  # the library's initial weights make all inputs look alike
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


def embed_images(encoder: Encoder, images: Sequence[np.ndarray]) -> np.ndarray:
    """Embed (h, w, 3) uint8 images: (n, d), not normalized."""
    frames = encoder.embed([encoder.preprocess([image]) for image in images]).frames
    assert frames is not None
    return frames[:, 0]


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved random CLIP of width 32."""
    return save_random_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture(scope="session")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of another random CLIP of the same architecture and width."""
    return save_random_clip(tmp_path_factory.mktemp("models") / "other-clip", seed=1)
