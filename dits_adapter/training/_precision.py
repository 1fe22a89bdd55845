"""Precision that a training multiplies in: bfloat16 where the processor does that faster."""

from __future__ import annotations

from typing import Any

import torch

from dits_adapter.adapters import Adapter
from dits_adapter.training.config import Precision, TrainingConfig

__all__ = ["settle_precision"]

_LEAST_WIDTH = 128
"""Width of embeddings below which products are too small to gain by bfloat16."""


def settle_precision(config: TrainingConfig, adapter: Adapter, device: torch.device) -> TrainingConfig:
    """Return a recipe whose precision is no longer `auto` but the one that trains this adapter on this device."""
    if config.precision != "auto":
        return config
    half = adapter.trains_in_bfloat16 and adapter.width >= _LEAST_WIDTH and _multiplies_bfloat16(device)
    precision: Precision = "bfloat16" if half else "float32"
    return config.model_copy(update={"precision": precision})


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Return True for a device with units for products in bfloat16: AMX or AVX-512 BF16, or tensor cores."""
    if device.type == "cpu":
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # which older torch lacks
        return any(known.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
