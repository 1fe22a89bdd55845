"""Every family of dual encoders against transformers' own processor and model: one row a family."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers.utils import is_torchvision_available

from dits_adapter import DITSQueryEncoder, VideoEncoder
from dits_adapter.adapters import AffineAdapter, AffineConfig
from dits_adapter.backends._onnx_export import export_tower
from dits_adapter.backends._onnx_runtime import TOKENIZER, TOWER, open_session, token_inputs
from dits_adapter.cli import main
from dits_adapter.encoders import load_encoder
from dits_adapter.encoders._families import DUAL_FAMILIES
from dits_adapter.encoders._images import embed_image
from dits_adapter.errors import InputError
from dits_adapter.serve._searcher import Searcher
from dits_adapter.stores.open import open_store
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint._trainer import collate
from dits_adapter.training.joint.captions import Captions
from dits_adapter.vectors import unit
from dits_adapter.xpool import XPool
from tests.encoders import checkpoints
from tests.video.clips import picture, write_clip

TEXTS = [*checkpoints.SENTENCES, "ab " * 90, "x"]
SIZES = [(33, 50), (64, 64), (51, 17), (3, 90), (41, 41)]
LONGEST = {"padding": True, "truncation": True}
WHOLE = {"padding": "max_length", "max_length": 64, "truncation": True}


@dataclass(frozen=True)
class Row:
    """How transformers embeds a family's texts and pictures; without a processor where that needs torchvision."""

    processor: Any
    text: dict[str, Any] = field(default_factory=lambda: LONGEST)
    lower: bool = False


ROWS = {
    "clip": Row(hf.CLIPProcessor),
    "metaclip_2": Row(hf.CLIPProcessor, {**LONGEST, "max_length": 77}),
    "altclip": Row(hf.AltCLIPProcessor, {**LONGEST, "max_length": 64}),
    "chinese_clip": Row(hf.ChineseCLIPProcessor, {**LONGEST, "max_length": 64}),
    "align": Row(hf.AlignProcessor, {"truncation": True}),
    "groupvit": Row(hf.CLIPProcessor),
    "aimv2": Row(hf.CLIPProcessor),
    "vision-text-dual-encoder": Row(hf.VisionTextDualEncoderProcessor, {**LONGEST, "max_length": 64}),
    "siglip": Row(hf.SiglipProcessor, WHOLE),
    "siglip (Gemma)": Row(hf.SiglipProcessor, WHOLE, lower=True),
    "siglip2": Row(hf.Siglip2Processor, {}),
    "tipsv2": Row(None, WHOLE),
    "xclip": Row(hf.XCLIPProcessor),
    "videoprism": Row(None, WHOLE),
}

RESAMPLE = {"tipsv2": Image.Resampling.BILINEAR, "videoprism": Image.Resampling.BICUBIC}
"""Filters of the families whose processor needs torchvision: squeezed to a square, values of 0 to 1."""


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Folder of 26 tiny videos, and of a text for each."""
    folder = tmp_path_factory.mktemp("clips")
    lines = []
    for number in range(26):
        write_clip(folder / f"{number}.mp4", [picture(number + frame) for frame in range(12)])
        lines.append(json.dumps({"video": f"{number}.mp4", "text": f"scene {number}, told at length"}))
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module", params=list(ROWS))
def case(request, tmp_path_factory):
    """Name of a row, its checkpoint, our encoder, and transformers' model."""
    if request.param == "siglip":
        pytest.importorskip("sentencepiece", reason="SigLIP's first tokenizer needs sentencepiece")
    folder = checkpoints.save(tmp_path_factory.mktemp("models") / "tiny", request.param)
    model = hf.AutoModel.from_pretrained(folder).eval()
    return request.param, folder, load_encoder(folder, device="cpu"), model


def pictures(number):
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in range(number)]
    sizes = [SIZES[row % len(SIZES)] for row in range(number)]
    return [
        np.asarray(Image.fromarray(a).resize((w, h), Image.Resampling.BILINEAR))
        for a, (h, w) in zip(coarse, sizes, strict=True)
    ]


def assert_same(ours, theirs):
    ours, theirs = unit(ours), unit(theirs)
    assert np.sum(ours * theirs, axis=-1).min() >= 0.99999
    spread = theirs @ theirs.T - np.eye(len(theirs))
    assert spread.max() < 0.999, "the reference tells the inputs apart"


def test_there_is_a_row_for_every_family():
    assert {name.partition(" ")[0] for name in ROWS} == set(DUAL_FAMILIES)


@torch.inference_mode()
def test_texts(case):
    name, folder, encoder, model = case
    row = ROWS[name]
    tokenize = hf.AutoTokenizer.from_pretrained(folder)
    if row.processor is not None:
        tokenize = row.processor(hf.AutoImageProcessor.from_pretrained(folder, backend="pil"), tokenize)
    texts = [text.lower() for text in TEXTS] if row.lower else TEXTS
    tokens = tokenize(text=texts, return_tensors="pt", **row.text)
    assert_same(encoder.embed_texts(TEXTS, batch_size=3), model.get_text_features(**tokens).pooler_output)
    assert_same(encoder.embed_texts(TEXTS, batch_size=1), model.get_text_features(**tokens).pooler_output)
    assert encoder.count_tokens(TEXTS)[5] > encoder.max_tokens >= tokens["input_ids"].shape[1]


@torch.inference_mode()
def test_pictures(case):
    name, folder, encoder, model = case
    number = encoder.clip_frames or 1
    clips = [pictures(5 * number)[start : start + number] for start in range(0, 5 * number, number)]
    clips[4] = [clips[4][0]] * number  # which stands still
    if resample := RESAMPLE.get(name):
        side = encoder.image_size
        resized = [[Image.fromarray(f).resize((side, side), resample) for f in clip] for clip in clips]
        pixels = torch.from_numpy(np.array(resized)).permute(0, 1, 4, 2, 3) / 255
        theirs = {encoder.family.pixels: pixels}
    else:
        processor = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
        prepared = [processor([Image.fromarray(f) for f in clip], return_tensors="pt") for clip in clips]
        theirs = {key: torch.stack([one[key] for one in prepared]) for key in prepared[0]}
    ours = encoder.embed([encoder.preprocess(clip) for clip in clips], batch_size=3 * number)
    if encoder.clip_frames is None:
        expected = model.get_image_features(**{key: values[:, 0] for key, values in theirs.items()})
        assert_same(ours.frames[:, 0], expected.pooler_output)
        together = encoder.embed([np.concatenate([encoder.preprocess(clip) for clip in clips])])
        np.testing.assert_allclose(together.frames[0], ours.frames[:, 0], rtol=1e-4, atol=1e-5)
    else:
        assert ours.frames is None
        assert_same(ours.pooled, model.get_video_features(**theirs).pooler_output.reshape(5, -1))
        np.testing.assert_allclose(embed_image(encoder, clips[4][0]), unit(ours.pooled[4]), atol=1e-5)


@torch.inference_mode()
def test_text_tower(case):
    """Compare the module that is exported, fed by the tokenizer that is."""
    encoder = case[2]
    module, tokenizer, _, mask = encoder.text_tower()
    expected = unit(encoder.embed_texts(TEXTS))
    for rows in (slice(0, 1), slice(0, None)):
        tokens = token_inputs(tokenizer, TEXTS[rows])
        arguments = [tokens["input_ids"], tokens["attention_mask"]][: 1 + mask]
        np.testing.assert_allclose(unit(module(*map(torch.from_numpy, arguments))), expected[rows], atol=1e-5)


# The exporter takes seconds a model: of one without an attention mask and one with it, slowly of each kind.
@pytest.mark.parametrize(
    "case",
    [
        "siglip (Gemma)",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("tipsv2", "altclip", "aimv2", "videoprism")),
    ],
    indirect=True,
)
def test_on_onnx_runtime(case, tmp_path):
    pytest.importorskip("onnxscript", reason='needs pip install "dits-adapter[export]"')
    encoder = case[2]
    export_tower(encoder, tmp_path)
    session = open_session(tmp_path / TOWER, threads=1)
    tokenizer = Tokenizer.from_file(str(tmp_path / TOKENIZER))
    expected = unit(encoder.embed_texts(TEXTS))
    for rows in (slice(0, 1), slice(0, None)):
        tokens = token_inputs(tokenizer, TEXTS[rows])
        found = session.run(None, {node.name: tokens[node.name] for node in session.get_inputs()})[0]
        np.testing.assert_allclose(unit(found), expected[rows], atol=1e-4)


# Of frames of one shape, of frames of any, and of whole clips.
@pytest.mark.parametrize("case", ["siglip (Gemma)", "siglip2", "xclip", "videoprism"], indirect=True)
def test_from_files_to_answers(case, clips, tmp_path, capsys):
    """Embed, train, ingest, search and serve, and the model of sentence-transformers."""
    name, folder, encoder, _ = case
    cache, store = str(tmp_path / "cache"), str(tmp_path / "store")
    adapter = str(folder.parent / "adapter")  # which finds its encoder beside it
    assert main(["embed", str(clips / "pairs.jsonl"), "--encoder", str(folder), "--out", cache]) == 0
    train = ["train", cache, "--out", adapter, "--set", "adapter=procrustes", "--test-fraction", "0.2"]
    assert main(train) == 0
    video = str(clips / "0.mp4")
    assert main(["ingest", video, "--encoder", str(folder), "--store", store]) == 0
    capsys.readouterr()
    assert main(["search", "A photo of a dog", "--adapter", adapter, "--store", store]) == 0
    assert video in capsys.readouterr().out

    reranked = main(["search", "x", "--adapter", adapter, "--store", store, "--rerank", "maxsim"])
    assert reranked == (1 if encoder.clip_frames else 0)
    assert ("no frame vectors" in capsys.readouterr().err) == (encoder.clip_frames is not None)

    queries = DITSQueryEncoder.from_pretrained(adapter)
    expected = unit(encoder.embed_texts(TEXTS))
    with pytest.warns(UserWarning, match="reads the first"):
        np.testing.assert_allclose(queries.encode_document(TEXTS), expected, atol=1e-5)
    with open_store(store) as index:
        searcher = Searcher(index, queries)
        assert len(searcher.compare("a dog").plain) == 1
    frames = VideoEncoder.from_pretrained(folder).encode_video(video).frame_vectors
    assert len(frames) == (0 if encoder.clip_frames else 12)

    if name in RESAMPLE:
        with pytest.raises(InputError, match=r"no sentence-transformers form: .*torchvision"):
            queries.as_sentence_transformer()
        return
    model = queries.as_sentence_transformer()
    model.save_pretrained(str(tmp_path / "st"))
    for one in (model, SentenceTransformer(str(tmp_path / "st"), trust_remote_code=True, device="cpu")):
        np.testing.assert_allclose(one.encode_document(checkpoints.SENTENCES), expected[:5], atol=1e-5)


def test_trains_jointly(case, clips, tmp_path):
    pytest.importorskip("accelerate", reason='needs pip install "dits-adapter[joint]"')
    from dits_adapter.training.joint._model import JointModel
    from dits_adapter.training.joint.train import train_joint

    _, folder, encoder, _ = case
    if not encoder.family.joint:
        captions = Captions.of([(str(clips / "0.mp4"), "a dog")])
        with pytest.raises(InputError, match="cannot be trained jointly"):
            train_joint(captions, JointRecipe(), tmp_path / "out", encoder=folder, dataset="clips")
        return
    trained = load_encoder(folder, device="cpu")
    trained.model.requires_grad_(True)
    model = JointModel(trained, XPool(trained.width), AffineAdapter(AffineConfig(width=trained.width)))
    frames = pictures(8)
    pixels = [torch.from_numpy(trained.preprocess(frames[row : row + 2])) for row in range(0, 8, 2)]
    items = [{"text": TEXTS[row], "pixels": pixels[row], "video": row} for row in range(4)]
    loss = model(**collate(trained.texts, items))["loss"]
    loss.backward()
    assert loss.isfinite()
    moved = [name for name, p in trained.model.named_parameters() if p.grad is not None and p.grad.any()]
    assert {"text", "logit", "vision"} <= {name.partition("_")[0] for name in moved}


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision is not installed")
@pytest.mark.parametrize("case", list(RESAMPLE), indirect=True)
@torch.inference_mode()
def test_pictures_are_those_of_torchvision(case):
    """Compare with transformers' own processor where that runs on torchvision alone."""
    name, _, encoder, model = case
    size = {"height": encoder.image_size, "width": encoder.image_size}
    number = encoder.clip_frames or 1
    frames = [frame for frame in pictures(5) if len(frame) > 3]  # they take three rows for three channels
    ours = encoder.embed([encoder.preprocess([frame] * number) for frame in frames])
    if name == "tipsv2":
        prepare = hf.Tipsv2ImageProcessor(size=size)
        pixels = prepare([Image.fromarray(frame) for frame in frames], return_tensors="pt").pixel_values
        vectors, expected = ours.frames[:, 0], model.get_image_features(pixel_values=pixels)
    else:
        prepare = hf.LlavaOnevisionVideoProcessor(size=size, do_normalize=False)
        stacked = [prepare(videos=[np.stack([frame] * number)], return_tensors="pt") for frame in frames]
        pixels = torch.cat([one.pixel_values_videos for one in stacked])
        vectors, expected = ours.pooled, model.get_video_features(pixel_values_videos=pixels)
    theirs = expected.pooler_output.reshape(len(frames), -1)
    assert np.sum(unit(vectors) * unit(theirs), axis=1).min() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip (Gemma)"])
@torch.inference_mode()
def test_real_sizes(name, tmp_path):
    """CLIP ViT-B/32 and SigLIP base, at 224 pixels."""
    _, tokenizer, processor = checkpoints.MAKERS[name]()
    if name == "clip":
        model = hf.CLIPModel(hf.CLIPConfig(text_config={"eos_token_id": len(tokenizer) - 1}))
        processor.size = {"shortest_edge": 224}
        processor.crop_size = {"height": 224, "width": 224}
    else:
        model = hf.SiglipModel(hf.SiglipConfig())
        processor.size = {"height": 224, "width": 224}
    checkpoints.randomize(model)
    for part in (model.eval(), tokenizer, processor):
        part.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, device="cpu")
    texts = [text.lower() for text in TEXTS]
    tokens = hf.AutoTokenizer.from_pretrained(tmp_path)(texts, return_tensors="pt", **ROWS[name].text)
    assert_same(encoder.embed_texts(texts), model.get_text_features(**tokens).pooler_output)
    frames = pictures(5)
    pixels = processor([Image.fromarray(frame) for frame in frames], return_tensors="pt").pixel_values
    assert pixels.shape == (5, 3, 224, 224)
    ours = encoder.embed([encoder.preprocess([frame]) for frame in frames]).frames[:, 0]
    assert_same(ours, model.get_image_features(pixel_values=pixels).pooler_output)
