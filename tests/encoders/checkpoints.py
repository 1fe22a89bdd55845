"""Tiny checkpoints of every family of dual encoders: real classes and kinds of tokenizers, random weights."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.conftest import byte_level_tokenizer

SENTENCES = [
    "a photo of a dog",
    "a red car drives past two people",
    "Someone is cooking in a KITCHEN, and it's late!",
    "the night sky over a lake: 12 stars",
    "naïve 日本語 🎬",
]

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PICTURE = {**TOWER, "image_size": 32, "patch_size": 8}
WIDTH = 24


def save(folder: Path, model_type: str, *, seed: int = 0) -> Path:
    """Save a random checkpoint of a family."""
    model, *parts = MAKERS[model_type]()
    torch.manual_seed(seed)
    randomize(model)
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder


def randomize(model: torch.nn.Module) -> None:
    """Draw all weights anew: the library's initial ones make all inputs look alike."""
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif parameter.ndim == 1 and name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)


def _square(side: int = 32) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _clip() -> tuple[Any, ...]:
    tokenizer = byte_level_tokenizer()
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = hf.CLIPConfig(
        text_config={**TOWER, **ends, "vocab_size": 514}, vision_config=PICTURE, projection_dim=WIDTH
    )
    return hf.CLIPModel(config), tokenizer, _square()


def _groupvit() -> tuple[Any, ...]:
    tokenizer = byte_level_tokenizer()
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = hf.GroupViTConfig(
        text_config={**TOWER, **ends, "vocab_size": 514},
        vision_config={
            **PICTURE,
            "depths": [1, 1, 1],
            "num_group_tokens": [4, 2, 0],
            "num_output_groups": [4, 2, 0],
            "num_hidden_layers": 3,
        },
        projection_dim=WIDTH,
        projection_intermediate_dim=32,
    )
    return hf.GroupViTModel(config), tokenizer, _square()


def _aimv2() -> tuple[Any, ...]:
    tokenizer = byte_level_tokenizer()
    config = hf.Aimv2Config(
        text_config={**TOWER, "eos_token_id": 513, "vocab_size": 514},
        vision_config={**PICTURE, "num_channels": 3},
        projection_dim=WIDTH,
    )
    return hf.Aimv2Model(config), tokenizer, _square()


def _xlm_roberta(**options: Any) -> Any:
    return hf.XLMRobertaTokenizer(vocab=_pieces(["<s>", "<pad>", "</s>", "<unk>"], "<mask>"), **options)


def _metaclip_2() -> tuple[Any, ...]:
    tokenizer = _xlm_roberta()
    config = hf.MetaClip2Config(
        text_config={
            **TOWER,
            "vocab_size": len(tokenizer),
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        vision_config=PICTURE,
        projection_dim=WIDTH,
    )
    return hf.MetaClip2Model(config), tokenizer, _square()


def _altclip() -> tuple[Any, ...]:
    tokenizer = _xlm_roberta(model_max_length=77)
    config = hf.AltCLIPConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "project_dim": 32, "max_position_embeddings": 66},
        vision_config=PICTURE,
        projection_dim=WIDTH,
    )
    return hf.AltCLIPModel(config), tokenizer, _square()


def _bert(words: Sequence[str] = SENTENCES) -> Any:
    letters = sorted({letter for text in words for letter in text.lower() if not letter.isspace()} | set("xyz"))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return hf.BertTokenizer(vocab={token: row for row, token in enumerate(tokens)}, model_max_length=512)


def _chinese_clip() -> tuple[Any, ...]:
    from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil

    tokenizer = _bert()
    config = hf.ChineseCLIPConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 64},
        vision_config=PICTURE,
        projection_dim=WIDTH,
    )
    processor = ChineseCLIPImageProcessorPil(
        size={"height": 32, "width": 32}, crop_size={"height": 32, "width": 32}
    )
    return hf.ChineseCLIPModel(config), tokenizer, processor


def _align() -> tuple[Any, ...]:
    from transformers.models.efficientnet.image_processing_pil_efficientnet import EfficientNetImageProcessorPil

    tokenizer = _bert()
    config = hf.AlignConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer), "max_position_embeddings": 70},
        vision_config={
            "image_size": 32,
            "in_channels": [32, 16],
            "out_channels": [16, WIDTH],
            "kernel_sizes": [3, 3],
            "strides": [1, 2],
            "num_block_repeats": [1, 1],
            "expand_ratios": [1, 2],
            "depthwise_padding": [],
            "width_coefficient": 1.0,
            "depth_coefficient": 1.0,
            "depth_divisor": 8,
            "hidden_dim": WIDTH,
            "dropout_rate": 0.0,
        },
        projection_dim=WIDTH,
    )
    processor = EfficientNetImageProcessorPil(
        size={"height": 40, "width": 40},
        crop_size={"height": 32, "width": 32},
        do_center_crop=True,
        rescale_offset=True,
        include_top=False,
    )
    return hf.AlignModel(config), tokenizer, processor


def _pair() -> tuple[Any, ...]:
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    tokenizer = _xlm_roberta()
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(
        hf.ViTConfig(**PICTURE),
        hf.XLMRobertaConfig(
            **TOWER, vocab_size=len(tokenizer), max_position_embeddings=66, bos_token_id=0, pad_token_id=1
        ),
        projection_dim=WIDTH,
    )
    return hf.VisionTextDualEncoderModel(config), tokenizer, ViTImageProcessorPil(size={"height": 32, "width": 32})


def _siglip_picture() -> Any:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return SiglipImageProcessorPil(size={"height": 32, "width": 32})


def _siglip_model(vocabulary: int, **text: Any) -> Any:
    config = hf.SiglipConfig(
        text_config={**TOWER, "vocab_size": vocabulary, **text}, vision_config={**PICTURE, "vision_use_head": True}
    )
    return hf.SiglipModel(config)


def _siglip() -> tuple[Any, ...]:
    """SigLIP with the tokenizer of the first one: a sentencepiece model, small letters, no punctuation."""
    import tempfile

    import sentencepiece

    with tempfile.TemporaryDirectory() as folder:
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([text.lower() for text in SENTENCES]),
            model_writer=model,
            model_type="unigram",
            vocab_size=70,
            hard_vocab_limit=False,
            pad_id=-1,
            bos_id=-1,
            eos_id=1,
            unk_id=2,
            control_symbols=["<pad>"],
            minloglevel=2,
        )
        path = Path(folder) / "spiece.model"
        path.write_bytes(model.getvalue())
        tokenizer = hf.SiglipTokenizer(str(path), model_input_names=["input_ids"], model_max_length=64)
    return _siglip_model(tokenizer.vocab_size), _Kept(tokenizer, model.getvalue()), _siglip_picture()


class _Kept:
    """Tokenizer of a file that is gone: saved with the file's bytes."""

    def __init__(self, tokenizer: Any, content: bytes) -> None:
        self.tokenizer, self.content = tokenizer, content

    def save_pretrained(self, folder: Path) -> None:
        Path(folder, "spiece.model").write_bytes(self.content)
        self.tokenizer.vocab_file = str(Path(folder, "spiece.model"))
        self.tokenizer.save_pretrained(folder)


def _gemma(kind: Any) -> Any:
    """Tokenizer of SigLIP2: Gemma's, pieces of bytes, the end marked."""
    letters = sorted({letter for text in SENTENCES for letter in text.replace(" ", "▁")} | set("abcdefghijklmnop"))
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    return kind(
        vocab={token: row for row, token in enumerate(tokens)},
        merges=[],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_input_names=["input_ids"],
    )


def _siglip_of_gemma() -> tuple[Any, ...]:
    tokenizer = _gemma(hf.GemmaTokenizer)
    return _siglip_model(len(tokenizer)), tokenizer, _siglip_picture()


def _siglip2() -> tuple[Any, ...]:
    from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

    tokenizer = _gemma(hf.Siglip2Tokenizer)
    config = hf.Siglip2Config(
        text_config={**TOWER, "vocab_size": len(tokenizer)},
        vision_config={**TOWER, "num_patches": 16, "patch_size": 8},
    )
    return hf.Siglip2Model(config), tokenizer, Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)


def _tipsv2() -> tuple[Any, ...]:
    tokenizer = hf.Tipsv2Tokenizer(
        vocab={token: row for row, token in enumerate(["<pad>", "<unk>", "▁", *(chr(97 + n) for n in range(26))])},
        merges=[],
    )
    config = hf.Tipsv2Config(
        text_config={**TOWER, "vocab_size": len(tokenizer)},
        vision_config={key: value for key, value in PICTURE.items() if key != "intermediate_size"},
    )
    return hf.Tipsv2Model(config), tokenizer


def _xclip() -> tuple[Any, ...]:
    ends = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    config = hf.XCLIPConfig(
        text_config={**TOWER, **ends, "vocab_size": 514},
        vision_config={
            **PICTURE,
            "num_frames": 4,
            "mit_hidden_size": WIDTH,
            "mit_intermediate_size": 32,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        },
        projection_dim=WIDTH,
        prompt_num_attention_heads=2,
        prompt_layers=1,
    )
    return hf.XCLIPModel(config), byte_level_tokenizer(), _square()


def _videoprism() -> tuple[Any, ...]:
    pieces = [(token, 0.0) for token in ("<pad>", "</s>", "<unk>")]
    pieces += [("▁", -2.0), *((chr(97 + n), -3.0) for n in range(26))]
    tokenizer = hf.VideoPrismTokenizer(vocab=pieces, extra_ids=0)
    config = hf.VideoPrismConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "image_size": 36,
            "tubelet_size": [1, 18, 18],
            "num_frames": 4,
            "num_spatial_layers": 1,
            "num_temporal_layers": 1,
            "num_auxiliary_layers": 1,
        },
    )
    return hf.VideoPrismClipModel(config), tokenizer


def _pieces(first: Sequence[str], last: str) -> list[tuple[str, float]]:
    letters = sorted({letter for text in SENTENCES for letter in text if letter != " "} | set("xyz"))
    return [*((token, 0.0) for token in first), ("▁", -2.0), *((letter, -3.0) for letter in letters), (last, 0.0)]


MAKERS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "clip": _clip,
    "metaclip_2": _metaclip_2,
    "altclip": _altclip,
    "chinese_clip": _chinese_clip,
    "align": _align,
    "groupvit": _groupvit,
    "aimv2": _aimv2,
    "vision-text-dual-encoder": _pair,
    "siglip": _siglip,
    "siglip (Gemma)": _siglip_of_gemma,
    "siglip2": _siglip2,
    "tipsv2": _tipsv2,
    "xclip": _xclip,
    "videoprism": _videoprism,
}
"""Function a family that makes its model, tokenizer and image processor; and one for SigLIP2 at a fixed size."""
