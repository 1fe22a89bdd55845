"""Tiny models of sentence-transformers: real classes and layouts, random weights."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.encoders.checkpoints import TOWER, _bert, randomize

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|>"
    "<|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<|im_start|>", "<|im_end|>"]
VISION = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
QUERY = "Find the video: "
ON_PILLOW = {} if find_spec("torchvision") else {"backend": "pil"}
"""Options of processors: pictures are prepared on torchvision where there is one."""


def save_texts(folder: Path, kind: str, *, width: int = 24, prompts: dict[str, str] | None = None) -> Path:
    """Save a text model: `distilbert` with pooling and Dense to `width`, or `minilm`, a BERT with unit vectors."""
    torch.manual_seed(0)
    tokenizer = _bert()
    if kind == "distilbert":
        config = hf.DistilBertConfig(vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=2, n_heads=2)
        backbone: Any = hf.DistilBertModel(config)
        rest = [Pooling(32, pooling_mode="mean"), Dense(32, width, bias=False, activation_function=None)]
    else:
        backbone = hf.BertModel(hf.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **TOWER))
        rest = [Pooling(32, pooling_mode="mean"), Normalize()]
    randomize(backbone)
    _save(folder, backbone, [tokenizer], rest, prompts or {}, max_seq_length=64)
    return folder


def save_pictures(folder: Path) -> Path:
    """Save a model of texts and pictures: a language model with eyes, by a chat template (LLaVA)."""
    torch.manual_seed(0)
    tokenizer = _byte_tokenizer(SPECIAL)
    processor = hf.LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    )
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**TOWER, image_size=32, patch_size=8),
        text_config=hf.LlamaConfig(
            **TOWER, vocab_size=len(tokenizer), max_position_embeddings=512, pad_token_id=0
        ),
        image_token_id=SPECIAL.index("<image>"),
    )
    backbone = hf.LlavaModel(config)
    randomize(backbone)
    prompts = {"query": QUERY, "document": "Describe it."}
    _save(folder, backbone, [processor], [Pooling(32, pooling_mode="lasttoken"), Normalize()], prompts)
    return folder


def save_videos(folder: Path) -> Path:
    """Save a model of texts, pictures and videos: Qwen3-VL, as Qwen3-VL-Embedding is built. Needs torchvision."""
    torch.manual_seed(0)
    special = [*SPECIAL, *VISION]
    tokenizer = _byte_tokenizer(special)
    sizes = {"patch_size": 8, "temporal_patch_size": 2, "merge_size": 2}
    bounds = {"size": {"shortest_edge": 16 * 16, "longest_edge": 64 * 64 * 16}}
    processor = hf.Qwen3VLProcessor(
        image_processor=hf.Qwen2VLImageProcessor(**sizes, **bounds),
        tokenizer=tokenizer,
        video_processor=hf.Qwen3VLVideoProcessor(**sizes, **bounds),
        chat_template=TEMPLATE,
    )
    config = hf.Qwen3VLConfig(
        text_config={
            **TOWER,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": len(tokenizer),
            "rope_scaling": {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            "pad_token_id": 0,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "patch_size": 8,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=special.index("<|image_pad|>"),
        video_token_id=special.index("<|video_pad|>"),
        vision_start_token_id=special.index("<|vision_start|>"),
        vision_end_token_id=special.index("<|vision_end|>"),
    )
    backbone = hf.Qwen3VLModel(config)
    randomize(backbone)
    rest = [Pooling(32, pooling_mode="lasttoken"), Normalize()]
    _save(folder, backbone, [processor], rest, {"query": QUERY})
    return folder


def _byte_tokenizer(special: list[str]) -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: row for row, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=tokens, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return hf.Qwen2TokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=[token for token in special if token not in ("<pad>", "</s>")],
        model_max_length=512,
    )


def _save(
    folder: Path, backbone: Any, parts: list[Any], rest: list[Any], prompts: dict[str, str], **options: Any
) -> None:
    for part in (backbone, *parts):
        part.save_pretrained(folder / "backbone")
    transformer = Transformer(str(folder / "backbone"), processor_kwargs=ON_PILLOW, **options)
    SentenceTransformer(modules=[transformer, *rest], prompts=prompts, device="cpu").save(str(folder))
    for path in (folder / "backbone").iterdir():
        path.unlink()
    (folder / "backbone").rmdir()
