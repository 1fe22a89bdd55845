"""Frames at the door of an encoder: pictures of every kind are taken as Pillow takes them, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 56), np.uint8)
COLOR = RNG.integers(0, 256, (40, 56, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (40, 56, 4), np.uint8)


@pytest.fixture(scope="module")
def encoder(tiny_clip):
    return load_encoder(tiny_clip, device="cpu")


@pytest.mark.parametrize(
    ("frame", "meant"),
    [(GREY, GREY), (GREY[:, :, None], GREY), (ALPHA, ALPHA), (COLOR[:, ::-1], COLOR[:, ::-1])],
    ids=["grey", "one channel", "transparent", "mirrored"],
)
def test_are_what_pillow_makes_of_them(encoder, frame, meant):
    rgb = np.asarray(Image.fromarray(np.ascontiguousarray(meant)).convert("RGB"))
    assert np.array_equal(encoder.preprocess([frame]), encoder.preprocess([rgb]))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (COLOR / 255, r"frame 1 is an array of float64; .* Multiply floats"),
        (COLOR.astype(np.float32), r"an array of float32; .* uint8, 0 to 255"),
        (COLOR.astype(int), r"an array of int64"),
        (GREY > 9, r"an array of bool"),
        (Image.fromarray(GREY), r'is a Image; .*image\.convert\("RGB"\)'),
        (COLOR.transpose(2, 0, 1), r"has the shape \(3, 40, 56\); expected \(height, width\)"),
        (COLOR[:, :, :2], r"has the shape \(40, 56, 2\)"),
        (COLOR[:0], r"has the shape \(0, 56, 3\)"),
        (COLOR[None], r"has the shape \(1, 40, 56, 3\)"),
    ],
    ids=["0 to 1", "floats", "integers", "bits", "Pillow", "channels first", "two", "none", "batch"],
)
def test_others_are_refused_by_their_row(encoder, frame, words):
    with pytest.raises(InputError, match=words):
        encoder.preprocess([COLOR, frame])


def test_frames_that_were_not_prepared_are_refused(encoder):
    with pytest.raises(InputError, match=r"clip 0 holds uint8, .* preprocess"):
        encoder.embed([COLOR[None]])


def test_a_picture_three_pixels_high_is_no_picture_of_planes(encoder):
    low = RNG.integers(0, 256, (3, 60, 3), np.uint8)
    assert not np.allclose(encoder.preprocess([low]), encoder.preprocess([low.transpose(1, 0, 2)]))


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_loaded_in_float32(encoder, tiny_clip, tmp_path, kind):
    import torch

    halved = load_encoder(tiny_clip, device="cpu")
    for part in (halved.model.to(getattr(torch, kind)), halved.texts.tokenizer, halved.frames.image_processor):
        part.save_pretrained(tmp_path)
    loaded = load_encoder(tmp_path, device="cpu")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    texts = ["a dog", "a much longer text"]
    ours, theirs = (e.embed_texts(texts) for e in (loaded, encoder))
    cosines = np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > (0.9999 if kind == "float16" else 0.999)
