"""The small CLIP in the package, and the trainer that made it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

import dits_adapter
from benchmarks.clips import frames, train_clip
from benchmarks.clips.captions import RARE_WORDS, video_captions, words
from benchmarks.clips.scenes import scenes

PRETRAINED = Path(dits_adapter.__file__).parent / "pretrained"


@pytest.fixture(scope="module")
def model() -> CLIPModel:
    return CLIPModel.from_pretrained(PRETRAINED / "demo-clip", dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor() -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(PRETRAINED / "demo-clip")


def test_it_finds_frames_by_their_captions(model: CLIPModel, processor: CLIPProcessor) -> None:
    looks = frames.moments("held-out", 100)
    pictures = list(frames.draw(looks, train_clip.IMAGE_SIDE, workers=1))
    inputs = processor(text=frames.captions(looks), images=pictures, padding=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**inputs).logits_per_text
    first = (scores.argmax(1) == torch.arange(100)).float().mean().item()
    assert first > 0.6  # chance is 0.01


def test_the_tokenizer_is_built_alike_each_time_and_has_the_shipped_tokens(processor: CLIPProcessor) -> None:
    """The shipped ids are in another order: they predate the rule that orders equally frequent pairs."""
    built, again = train_clip.build_tokenizer(), train_clip.build_tokenizer()
    assert built.get_vocab() == again.get_vocab()
    assert built.get_vocab().keys() == processor.tokenizer.get_vocab().keys()
    assert built.model_max_length == processor.tokenizer.model_max_length == 77
    for text in ("A red CIRCLE rises, counterclockwise.", "over a meadow a tiny green star does not move"):
        assert built.tokenize(text) == processor.tokenizer.tokenize(text)


def test_common_words_are_one_token_and_rare_ones_several(processor: CLIPProcessor) -> None:
    told = {word for scene in scenes("test") for sentence in video_captions(scene) for word in words(sentence)}
    rare = {words(phrase)[-1] for phrases in RARE_WORDS.values() for phrase in phrases}
    tokens = {word: len(processor.tokenizer(word).input_ids) - 2 for word in told}
    assert {word for word, count in tokens.items() if count > 1} - {"bright", "outer"} == rare


def test_no_test_sentence_is_truncated(processor: CLIPProcessor) -> None:
    sentences = [sentence for scene in scenes("test") for sentence in video_captions(scene)]
    assert max(map(len, processor.tokenizer(sentences).input_ids)) <= 77


def test_no_text_is_unknown_to_the_tokenizer(processor: CLIPProcessor) -> None:
    for text in ("zebra", "東京", "ünï", "🎬 clip", "x1y2"):
        ids = processor.tokenizer(text).input_ids
        assert processor.tokenizer.eos_token_id not in ids[:-1]  # it doubles as the unknown token
        assert processor.tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")


def test_padding_changes_no_embedding(model: CLIPModel, processor: CLIPProcessor) -> None:
    texts = ["a red circle", "over a meadow a tiny striped green star rises while a white ring does not move"]

    def embed(batch: list[str]) -> torch.Tensor:
        with torch.inference_mode():
            return model.get_text_features(
                **processor(text=batch, padding=True, return_tensors="pt")
            ).pooler_output

    torch.testing.assert_close(embed(texts)[0], embed(texts[:1])[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(embed(["a red circle"]), embed(["a red circle a"]), atol=1e-3)


def test_training_frames_are_resized_as_the_processor_does(processor: CLIPProcessor) -> None:
    looks = frames.moments("held-out", 3)
    whole = [frames.render(*look) for look in looks]
    squeezed = list(frames.draw(looks, train_clip.IMAGE_SIDE, workers=1))
    a, b = (processor(images=pictures, return_tensors="np").pixel_values for pictures in (whole, squeezed))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_card_says_what_it_is_and_how_to_rebuild_it() -> None:
    card = (PRETRAINED / "demo-clip" / "README.md").read_text(encoding="utf-8")
    assert "not OpenAI's CLIP" in card
    assert "generated clips" in card
    assert "python -m benchmarks.clips.train_clip --out dits_adapter/pretrained/demo-clip" in card
    assert find_spec("benchmarks.clips.train_clip")


def test_what_ships_is_small_and_holds_no_pickle() -> None:
    shipped = [path for path in PRETRAINED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in shipped) < 20e6
    assert {path.suffix for path in shipped} <= {".safetensors", ".json", ".md"}


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_clip, "BATCH", 4)
    monkeypatch.setattr(train_clip, "CHECKPOINT_EVERY", 2)
    whole, _ = train_clip.train(4, 12, 1, tmp_path / "whole.safetensors")

    schedule = train_clip.learning_rate

    def stops(step: int, steps: int) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return schedule(step, steps)

    monkeypatch.setattr(train_clip, "learning_rate", stops)
    with pytest.raises(KeyboardInterrupt):
        train_clip.train(4, 12, 1, tmp_path / "stopped.safetensors")
    monkeypatch.setattr(train_clip, "learning_rate", schedule)
    resumed, _ = train_clip.train(4, 12, 1, tmp_path / "stopped.safetensors")
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], weight, msg=name)
