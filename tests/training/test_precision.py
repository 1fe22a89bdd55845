"""Precision of a training: chosen by the processor, recorded, and kept when the training goes on."""

from __future__ import annotations

import pytest
import torch

from dits_adapter.adapters import fresh_adapter
from dits_adapter.training._precision import settle_precision
from dits_adapter.training.config import TrainingConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("units", "name", "width", "options", "expected"),
    [
        ({"amx_bf16": True}, "dits", 128, {}, "bfloat16"),
        ({"avx512_bf16": True}, "dits", 512, {"depth": 1}, "bfloat16"),
        ({"avx512_f": True, "amx_bf16": False}, "dits", 512, {"depth": 1}, "float32"),
        ({"amx_bf16": True}, "dits", 64, {}, "float32"),
        ({"amx_bf16": True}, "dits", 128, {"condition": "text"}, "float32"),
        ({"amx_bf16": True}, "contrastive-linear", 512, {}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_units_and_sums_allow_it(units, name, width, options, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units, raising=False)
    adapter = fresh_adapter(name, width, options)
    assert settle_precision(TrainingConfig(), adapter, CPU).precision == expected
    for named in ("float32", "bfloat16"):
        assert settle_precision(TrainingConfig(precision=named), adapter, CPU).precision == named


def test_torch_that_knows_no_capabilities_trains_in_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert settle_precision(TrainingConfig(), fresh_adapter("dits", 128), CPU).precision == "float32"
