"""The latency benchmark times what it says; how long things take is no test's business."""

from __future__ import annotations

import json

import torch
from pydantic import TypeAdapter

from benchmarks import latency


def test_every_setting_has_every_row_and_ratios_of_one_round(tmp_path, capsys):
    threads = torch.get_num_threads()
    arguments = ["--width", "16", "--batch", "1", "3", "--threads", "1", "2", "--seconds", "0"]
    assert latency.main([*arguments, "--out", str(tmp_path)]) == 0
    assert torch.get_num_threads() == threads
    found = TypeAdapter(latency.Latency).validate_json((tmp_path / "latency.json").read_bytes())
    settings = {(t.threads, t.batch) for t in found.timings}
    assert settings == {(1, 1), (1, 3), (2, 1), (2, 3)}
    names = [t.name for t in found.timings if (t.threads, t.batch) == (1, 1)]
    assert names[:2] == ["text encoder, 20 tokens", "text encoder, 77 tokens"]
    assert {"affine map", "mlp-1, 5 layers", "mlp-10, 48 layers", "dits-10", "dits-10, unfolded"} < set(names)
    assert len(found.timings) == 4 * len(names)
    for timing in found.timings:
        assert 0 < timing.low <= timing.median <= timing.high
        assert timing.rounds == latency.ROUNDS
        assert timing.ratio == 1 or timing.name != latency.REFERENCE
    assert capsys.readouterr().out == (tmp_path / "latency.md").read_text()
    assert json.loads((tmp_path / "latency.json").read_text())["version"] == 1


def test_batch_width_and_tokens_reach_what_is_timed():
    seen = []

    class Spy:
        def adapt(self, vectors):
            seen.append((vectors.shape, torch.get_num_threads()))

    def encode(batch, tokens):
        seen.append((batch, tokens))

    latency.measure({"spy": Spy()}, encode, width=6, batch=4, threads=2, seconds=0)
    assert seen == [(4, 20), (4, 77), ((4, 6), 2)] * (1 + latency.ROUNDS)


def test_the_rows_of_dits_are_the_trained_and_the_folded_form():
    adapters = latency.build_adapters(512)
    sizes = {name: sum(t.numel() for t in adapter.state_dict().values()) for name, adapter in adapters.items()}
    assert sizes["dits-10, unfolded"] == 20_349_952
    assert sizes["dits-10"] < 10_500_000


def test_the_tower_is_of_the_size_of_clip(monkeypatch):
    import transformers

    made = []

    class Recorded(transformers.CLIPTextModelWithProjection):
        def __init__(self, config):
            made.append(config)
            super().__init__(config)

    monkeypatch.setattr(transformers, "CLIPTextModelWithProjection", Recorded)
    with torch.device("meta"):
        latency.build_text_encoder(512)
    (config,) = made
    assert (config.num_hidden_layers, config.num_attention_heads, config.vocab_size) == (12, 8, 49408)
    assert (config.hidden_size, config.intermediate_size, config.projection_dim) == (512, 2048, 512)
