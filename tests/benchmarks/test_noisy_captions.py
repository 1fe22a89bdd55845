"""The benchmark of the filter on texts whose kinds are known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from benchmarks import noisy_captions
from benchmarks.noisy_captions import KINDS, main, mix
from dits_adapter import Pairs
from dits_adapter.vectors import unit
from tests.spaces import made_up_space


def pairs(count, seed):
    rng = np.random.default_rng(seed)
    video = unit(rng.normal(size=(count, 16))).astype(np.float32)
    labels = np.repeat(np.arange(count), 3)
    text = (video[labels] + 0.1 * rng.normal(size=(len(labels), 16))).astype(np.float32)
    return Pairs(text, video, labels, made_up_space(16))


def test_noise_is_of_other_clips_and_of_any():
    clips = pairs(30, 0)
    generic = np.ones((2, 16), np.float32)
    mixed = mix(clips, generic, 1.0)
    assert np.bincount(mixed.kind).tolist() == [60, 30, 30]
    assert np.bincount(mixed.wording[mixed.kind == 2]).max() > 1
    cosines = np.sum(unit(mixed.text) * clips.video[mixed.own], axis=1)
    assert cosines[mixed.kind == 0].min() > 0.8
    assert np.median(cosines[mixed.kind == 1]) < 0.5
    assert set(mix(clips, generic, 0.0).kind) == {KINDS.index("true")}


def test_the_table_has_a_row_for_each_choice_of_texts(monkeypatch, capsys):
    monkeypatch.setattr(noisy_captions, "embed_split", lambda split, *_: pairs(60, len(split)))
    texts = SimpleNamespace(embed_texts=lambda texts: np.ones((len(texts), 16), np.float32))
    loaded = SimpleNamespace(encoder=texts)
    monkeypatch.setattr(noisy_captions.VideoEncoder, "from_pretrained", lambda name: loaded)
    assert main(["--clips", "40", "--noise", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "50% noise, left by the filter: true 100%" in out
    assert all(f" {name} |" in out for name in ("all", "all, weighted", "what fits", "the true ones"))
