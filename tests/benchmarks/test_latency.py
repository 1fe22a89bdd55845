"""The latency benchmark times what it says; how long things take is no test's business."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from benchmarks import latency
from dits_adapter.adapters import DITSAdapter


def test_every_setting_has_every_row_and_ratios_of_one_round(tmp_path, capsys, monkeypatch):
    for name in ("dits-1", "dits-5"):
        monkeypatch.delitem(latency.SAMPLERS, name)
    for name, fields in list(latency.SAMPLERS.items()):  # an export grows with the steps
        monkeypatch.setitem(latency.SAMPLERS, name, {**fields, "steps": 2, "depth": 1})
    monkeypatch.setattr(latency, "ROUNDS", 2)
    threads = torch.get_num_threads()
    arguments = ["--width", "16", "--batch", "1", "3", "--threads", "1", "2", "--seconds", "0"]
    assert latency.main([*arguments, "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    found = TypeAdapter(latency.Latency).validate_json((tmp_path / "latency.json").read_bytes())
    settings = {(t.threads, t.batch) for t in found.timings}
    assert settings == {(1, 1), (1, 3), (2, 1), (2, 3)}
    names = [t.name for t in found.timings if (t.threads, t.batch) == (1, 1)]
    assert names[:2] == ["text encoder, 20 tokens", "text encoder, 77 tokens"]
    samplers, kinds = ("dits-10", "dits-best"), ("", ", unfolded", ", bfloat16", ", onnx", ", onnx int8")
    forms = {f"{sampler}{kind}" for sampler in samplers for kind in kinds}
    assert {"affine map", "query bank of 4,096", "mlp-1, 5 layers", "mlp-10, 46 layers"} | forms < set(names)
    assert len([name for name in names if name.startswith("floor of dits-10")]) == 3
    assert len(found.timings) == 4 * len(names)
    for timing in found.timings:
        assert 0 < timing.low <= timing.median <= timing.high
        assert timing.rounds == latency.ROUNDS
        assert timing.ratio == 1 or timing.name != latency.REFERENCE
        assert timing.faster == 1 or timing.name != latency.EAGER
    assert sum(found.profile.values()) == pytest.approx(1)
    assert "addmm" in found.profile
    assert capsys.readouterr().out == (tmp_path / "latency.md").read_text()
    assert json.loads((tmp_path / "latency.json").read_text())["version"] == 2


def test_growth_curves_move_one_axis_each(tmp_path, monkeypatch, capsys):
    seen = []

    class Spy:
        def adapt(self, vectors):
            seen.append((vectors.shape, torch.get_num_threads()))

    def forms(name, config, folder, device):
        seen.append((config.width, config.steps))
        return {name: Spy(), f"{name}, onnx": Spy()}

    monkeypatch.setattr(latency, "forms", forms)
    monkeypatch.setattr(latency, "GROWTH_SECONDS", 0)
    monkeypatch.setattr(latency, "GROWTH", {"batch": (1, 4), "threads": (2,), "steps": (3,), "width": (8,)})
    found = latency.growth(6, tmp_path)
    settings = [((1, 6), 1, 10), ((4, 6), 1, 10), ((1, 6), 2, 10), ((1, 6), 1, 3), ((1, 8), 1, 10)]
    expected = []
    for shape, threads, steps in settings:
        expected.append((shape[1], steps))
        expected += [(shape, threads)] * 2 * (1 + latency.ROUNDS)
    assert seen == expected
    assert {axis: list(curve) for axis, curve in found.items()} == {k: list(v) for k, v in latency.GROWTH.items()}
    assert set(found["batch"][4]) == {"folded", "onnx"}
    said = capsys.readouterr().err
    assert "batch 4: folded" in said
    assert "width 8: folded" in said


def test_batch_width_and_tokens_reach_what_is_timed():
    seen = []

    class Spy:
        def adapt(self, vectors):
            seen.append((vectors.shape, torch.get_num_threads()))

    def encode(batch, tokens):
        seen.append((batch, tokens))

    latency.measure({latency.EAGER: Spy()}, encode, width=6, batch=4, threads=2, seconds=0)
    assert seen == [(4, 20), (4, 77), ((4, 6), 2)] * (1 + latency.ROUNDS)


def test_the_forms_of_dits_agree(tmp_path):
    built = latency.forms("dits-2", latency.sampler(32, {"steps": 2}), tmp_path)
    vectors = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
    for form in built.values():
        if isinstance(form, latency.Exported):
            form.use(1)
    exact = built["dits-2, unfolded"].adapt(vectors)
    for name, form in built.items():
        tolerance = 0.05 if name.endswith(("int8", "bfloat16")) else 1e-5
        np.testing.assert_allclose(np.asarray(form.adapt(vectors)), exact, atol=tolerance, err_msg=name)
    size = {name: (tmp_path / f"dits-2-32-{name}.onnx").stat().st_size for name in ("float32", "int8")}
    assert size["float32"] > 4 * 39 * 32 * 32


@pytest.mark.slow
def test_exports_are_made_once(tmp_path, monkeypatch):
    one, two = (latency.sampler(16, {"steps": steps}) for steps in (1, 2))
    latency.forms("dits-1", one, tmp_path)
    monkeypatch.setattr(latency, "export_adapter", None)
    latency.forms("dits-1", one, tmp_path)
    with pytest.raises(TypeError):
        latency.forms("dits-2", two, tmp_path)


def test_the_floors_are_those_of_the_folded_sampler():
    folded = DITSAdapter(latency.sampler(512, latency.SAMPLERS["dits-10"])).for_inference().sampler
    a_step = sum(p.numel() for p in folded.parameters() if p.ndim == 2) - 2 * 512**2  # E and F are read once
    assert latency.Reading(512, 10, 4)._weights.numel() == a_step
    assert latency.Reading(512, 10, 1)._weights.numel() == a_step // 4
    assert latency.Multiplying(512, 10)._weights.numel() == a_step


def test_the_tower_is_of_the_size_of_clip(monkeypatch):
    import transformers

    made = []

    class Recorded(transformers.CLIPTextModelWithProjection):
        def __init__(self, config):
            made.append(config)
            super().__init__(config)

    monkeypatch.setattr(transformers, "CLIPTextModelWithProjection", Recorded)
    with torch.device("meta"):
        latency.build_text_encoder(512, torch.device("meta"))
    (config,) = made
    assert (config.num_hidden_layers, config.num_attention_heads, config.vocab_size) == (12, 8, 49408)
    assert (config.hidden_size, config.intermediate_size, config.projection_dim) == (512, 2048, 512)
