"""Captions: what a model sees in frames becomes texts of a video or its segments, each once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from dits_adapter import CaptionFinder, find_pairs, load_captioner
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import ArtifactError, InputError, MissingExtraError
from dits_adapter.sources._checkpoints import ScoredText
from dits_adapter.sources.rewrite import Rewriter
from tests.encoders.repositories import folder_files
from tests.hub import running_hub
from tests.sources.checkpoints import save_blip, save_chat, save_florence2, save_git, save_llava
from tests.sources.sound import write_spoken
from tests.video.clips import number_of, picture, write_clip


class Seen:
    """Captioner that gives the same captions of every clip, and notes what it was shown."""

    identity = "seen"

    def __init__(self, *captions):
        self.captions = captions
        self.clips = []

    def describe(self, clips):
        self.clips += clips
        return [[ScoredText(caption, 0.5) for caption in self.captions] for _ in clips]


class Asked:
    """Rewriter that asks for the last word of each caption."""

    identity = "asked"

    def rewrite(self, captions):
        return [caption.split()[-1] if "star" in caption else "" for caption in captions]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "blip": save_blip(folder / "blip"),
        "git": save_git(folder / "git"),
        "florence2": save_florence2(folder / "florence2"),
        "llava": save_llava(folder / "llava"),
        "chat": save_chat(folder / "chat"),
    }


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", [picture(n) for n in range(100)])


def frames(count, seed=0):
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "kind", "prompts"),
    [
        ("blip", transformers.BlipForConditionalGeneration, [None]),
        ("git", transformers.GitForCausalLM, [None]),
        (
            "florence2",
            transformers.Florence2ForConditionalGeneration,
            ["What does the image describe?", "Describe in detail what is shown in the image."],
        ),
    ],
)
def test_frames_are_described_as_transformers_describes_them(models, name, kind, prompts):
    captioner = load_captioner(models[name], batch_size=2)
    clips = [frames(2), frames(1, seed=1)]
    model = kind.from_pretrained(models[name]).eval()
    processor = transformers.AutoProcessor.from_pretrained(models[name])
    for clip, captions in zip(clips, captioner.describe(clips), strict=True):
        expected = []
        for prompt, frame in itertools.product(prompts, clip):
            inputs = processor(images=frame, text=prompt, return_tensors="pt")
            with torch.inference_mode():
                out = model.generate(
                    **inputs,
                    max_new_tokens=96,
                    do_sample=False,
                    return_dict_in_generate=True,
                    output_scores=True,
                    num_beams=1,
                )
            ids = out.sequences[0, -len(out.scores) :].tolist()
            text = processor.decode(ids, skip_special_tokens=True).strip()
            logs = [
                score[0].log_softmax(-1)[token].item()
                for score, token in zip(out.scores, ids, strict=True)
                if token not in processor.tokenizer.all_special_ids
            ]
            if text:
                expected.append((text, np.exp(np.mean(logs))))
        assert [caption.text for caption in captions] == [text for text, _ in expected]
        np.testing.assert_allclose(
            [caption.confidence for caption in captions], [sure for _, sure in expected], 1e-4
        )


def test_a_model_that_chats_sees_the_frames_of_a_clip_together(models):
    captioner = load_captioner(models["llava"], prompt="What happens?", batch_size=4)
    clips = [frames(2), frames(2, seed=1), frames(2, seed=2)]
    model = transformers.LlavaForConditionalGeneration.from_pretrained(models["llava"]).eval()
    processor = transformers.LlavaProcessor.from_pretrained(models["llava"])
    answers = captioner._generate([list(clip) for clip in clips[:2]], "What happens?")
    for clip, answer in zip(clips, answers, strict=False):
        prompt = "<|im_start|>user\n<image><image>What happens?<|im_end|>\n<|im_start|>assistant\n"
        inputs = processor(images=clip, text=prompt, return_tensors="pt")
        with torch.inference_mode():
            ids = model.generate(**inputs, max_new_tokens=96, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert answer.text == processor.decode(ids, skip_special_tokens=True).strip()
    assert len(captioner.describe(clips)) == 3


@pytest.mark.parametrize(
    ("answer", "captions"),
    [
        ("a dog runs", ["a dog runs"]),
        ("1. A dog runs.\n2) “A dog in a park”\n\n- a park", ["A dog runs.", "A dog in a park", "a park"]),
        ("Here are three captions:\n1. a dog", ["a dog"]),
        ("3 dogs run", ["3 dogs run"]),
        ("2001 dogs. They run", ["2001 dogs. They run"]),
    ],
)
def test_an_answer_in_lines_is_several_captions(answer, captions):
    from dits_adapter.sources.captions import _lines

    assert [line.text for line in _lines(ScoredText(answer, 1.0))] == captions


def test_segments_are_described_by_frames_from_their_middles(clip):
    captioner = Seen("A red star.", "a red  star", "", "...", "a a a a a a a a", "a blue sea")
    findings = CaptionFinder(captioner, segment_seconds=2.0, frames=2).find(str(clip))
    assert [(text.text, text.start, text.end, text.source) for text in findings.texts] == [
        ("A red star.", 0, 2, "caption"),
        ("a blue sea", 0, 2, "caption"),
        ("A red star.", 2, 4, "caption"),
        ("a blue sea", 2, 4, "caption"),
    ]
    assert findings.left_out == {
        "holds no words": 4,
        "repeats itself, as models do that have nothing to say": 2,
        "repeats another text of the video": 2,
    }
    shown = [[number_of(np.asarray(frame)) for frame in frames] for frames in captioner.clips]
    np.testing.assert_allclose(shown, [[12, 37], [62, 87]], atol=1)


def test_whole_videos_have_no_span_and_large_frames_are_made_small(tmp_path):
    path = write_clip(tmp_path / "large.mp4", [picture(n, 1080, 1920) for n in range(2)], "mpeg4")
    captioner = Seen("a red star")
    findings = CaptionFinder(captioner).find(str(path))
    assert [(text.start, text.end) for text in findings.texts] == [(None, None)]
    assert {frame.size for frame in captioner.clips[0]} == {(768, 432)}


def test_queries_are_made_of_captions(clip):
    findings = CaptionFinder(Seen("a red star", "the sea"), rewriter=Asked()).find(str(clip))
    assert [(text.text, text.source) for text in findings.texts] == [
        ("a red star", "caption"),
        ("the sea", "caption"),
        ("star", "query"),
    ]


def test_a_chat_model_writes_a_query_for_each_caption(models):
    rewriter = Rewriter(models["chat"], batch_size=2)
    captions = ["a red star falls", "the sea", "a dog"]
    assert len(rewriter.rewrite(captions)) == 3
    assert rewriter.rewrite(captions)[2] == Rewriter(models["chat"]).rewrite(["a dog"])[0]
    with pytest.raises(ArtifactError, match=r"type 'blip'; queries are written by chat models"):
        Rewriter(models["blip"])


def test_another_prompt_or_number_of_frames_describes_videos_anew(models, clip, tmp_path):
    out = tmp_path / "pairs.jsonl"
    first, second = Seen("a red star"), Seen("a red star")
    for captioner, count in ((first, 2), (second, 2), (second, 3)):
        find_pairs(clip.parent, out, CaptionFinder(captioner, frames=count), progress=False)
    assert (len(first.clips), len(second.clips)) == (1, 1)
    assert PairsFile(out).texts == 1
    one, other = (load_captioner(models["llava"], prompt=prompt).identity for prompt in ("What?", "Who?"))
    assert one != other


def test_a_model_of_the_hub_is_refused_by_its_config(tmp_path, models, monkeypatch):
    with running_hub(tmp_path / "cache", monkeypatch) as hub:
        commit = hub.add("me/blip", folder_files(models["blip"]))
        hub.add("me/clip", {"config.json": b'{"model_type": "clip"}', "model.safetensors": b"weights"})
        with pytest.raises(ArtifactError, match=r"type 'clip'; captions are written by image-text models"):
            load_captioner("me/clip")
        assert hub.downloaded == ["config.json"]
        assert load_captioner("me/blip").identity.startswith(f"me/blip@{commit}")


def test_what_cannot_be_is_refused(models):
    with pytest.raises(InputError, match="frames is 0"):
        CaptionFinder(Seen(), frames=0)
    with pytest.raises(InputError, match="segment_seconds is -1"):
        CaptionFinder(Seen(), segment_seconds=-1)
    with pytest.raises(InputError, match="batch_size is 0"):
        load_captioner(models["blip"], batch_size=0)


@pytest.mark.skipif(transformers.utils.is_torchvision_available(), reason="torchvision is installed")
def test_a_model_that_needs_torchvision_names_the_extra_before_its_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    processor = '{"processor_class": "Qwen2VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}'
    (tmp_path / "preprocessor_config.json").write_text(processor)
    with pytest.raises(MissingExtraError, match=r'pip install "dits-adapter\[captions\]"'):
        load_captioner(tmp_path)


def test_a_damaged_video_is_named_and_the_rest_goes_on(tmp_path):
    write_spoken(tmp_path / "good.mkv", None, 1)
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 50)
    report = find_pairs(tmp_path, tmp_path / "pairs.jsonl", CaptionFinder(Seen("a red star")), progress=False)
    assert report.texts == 1
    assert [name.endswith("bad.mp4") for name in report.failed] == [True]
