"""Tiny checkpoints of models that make texts: real classes, tokenizers and processors, random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.encoders.checkpoints import randomize

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAYERS = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
ENCODER_DECODER = {
    "d_model": 32,
    **{
        f"{side}_{field}": size
        for side in ("encoder", "decoder")
        for field, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    },
}


def _bytes() -> dict[str, int]:
    """Vocabulary of a byte-level tokenizer without merges."""
    letters = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    alphabet = [chr(c) for c in letters] + [chr(256 + n) for n in range(256 - len(letters))]
    return {letter: number for number, letter in enumerate(alphabet)}


def _save(folder: Path, model: Any, *parts: Any) -> Path:
    torch.manual_seed(0)
    randomize(model)
    for part in (model, *parts):
        part.save_pretrained(folder)
    return folder


def save_whisper(folder: Path) -> Path:
    end = "<|endoftext|>"
    tokenizer = hf.WhisperTokenizer(
        vocab=_bytes(), merges=[], unk_token=end, bos_token=end, eos_token=end, pad_token=end
    )
    marks = [
        "startoftranscript",
        "en",
        "de",
        "translate",
        "transcribe",
        "startoflm",
        "startofprev",
        "nospeech",
        "notimestamps",
    ]
    tokenizer.add_special_tokens({"additional_special_tokens": [f"<|{mark}|>" for mark in marks]})
    times = [f"<|{number * 0.02:.2f}|>" for number in range(1501)]
    tokenizer.add_tokens([hf.AddedToken(time, normalized=False, special=False) for time in times])
    ids = {mark: tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for mark in marks}
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    config = hf.WhisperConfig(
        vocab_size=len(tokenizer),
        **ENCODER_DECODER,
        max_target_positions=64,
        decoder_start_token_id=ids["startoftranscript"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **ends,
    )
    model = hf.WhisperForConditionalGeneration(config)
    model.generation_config = hf.GenerationConfig(
        decoder_start_token_id=ids["startoftranscript"],
        no_timestamps_token_id=ids["notimestamps"],
        lang_to_id={"<|en|>": ids["en"], "<|de|>": ids["de"]},
        task_to_id={"transcribe": ids["transcribe"], "translate": ids["translate"]},
        is_multilingual=True,
        max_initial_timestamp_index=50,
        max_length=64,
        **ends,
    )
    return _save(folder, model, hf.WhisperProcessor(hf.WhisperFeatureExtractor(feature_size=80), tokenizer))


def save_wav2vec2(folder: Path) -> Path:
    folder.mkdir(parents=True)
    letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text("{" + ", ".join(f'"{letter}": {row}' for row, letter in enumerate(letters)) + "}")
    tokenizer = hf.Wav2Vec2CTCTokenizer(str(vocabulary))
    config = hf.Wav2Vec2Config(
        vocab_size=len(letters),
        conv_dim=(16, 16),
        conv_kernel=(40, 16),
        conv_stride=(40, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        pad_token_id=0,
        **LAYERS,
    )
    features = hf.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    return _save(folder, hf.Wav2Vec2ForCTC(config), features, tokenizer)


def _words() -> Any:
    words = ["a", "red", "circle", "falls", "over", "blue", "snow", "star", "and", "##s"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    return hf.BertTokenizer(vocab={token: row for row, token in enumerate(tokens)})


def save_blip(folder: Path) -> Path:
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tokenizer = _words()
    begin = len(tokenizer)
    text = {**LAYERS, "vocab_size": begin + 1, "max_position_embeddings": 128, "encoder_hidden_size": 32}
    ends = {"bos_token_id": begin, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = hf.BlipConfig(
        text_config={**text, **ends, "projection_dim": 16},
        vision_config={**LAYERS, "image_size": 32, "patch_size": 8},
    )
    images = BlipImageProcessorPil(size={"height": 32, "width": 32})
    return _save(folder, hf.BlipForConditionalGeneration(config), hf.BlipProcessor(images, tokenizer))


def _squares(side: int) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)


def save_git(folder: Path) -> Path:
    tokenizer = _words()
    config = hf.GitConfig(
        vision_config={**LAYERS, "image_size": 32, "patch_size": 16},
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
        **LAYERS,
    )
    return _save(folder, hf.GitForCausalLM(config), hf.GitProcessor(_squares(32), tokenizer))


def save_florence2(folder: Path) -> Path:
    """Save a model that is asked for tasks."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {letter: number for number, letter in enumerate([*marks, *_bytes()])}
    tokenizer = hf.BartTokenizer(vocab=vocabulary, merges=[], extra_special_tokens={"image_token": "<image>"})
    text = hf.BartConfig(
        vocab_size=len(tokenizer),
        **ENCODER_DECODER,
        max_position_embeddings=256,
    )
    vision = hf.Florence2Config().vision_config.to_dict() | {
        "depths": (1, 1),
        "patch_size": (7, 3),
        "patch_stride": (4, 2),
        "patch_padding": (3, 1),
        "patch_prenorm": (False, True),
        "embed_dim": (16, 32),
        "num_heads": (2, 2),
        "num_groups": (2, 2),
        "window_size": 4,
        "projection_dim": 32,
    }
    config = hf.Florence2Config(
        text_config=text.to_dict(), vision_config=vision, image_token_id=tokenizer.image_token_id
    )
    images = _squares(64)
    images.image_seq_length = 65  # 8 x 8 places and their mean
    processor = hf.Florence2Processor(images, tokenizer)
    return _save(folder, hf.Florence2ForConditionalGeneration(config), processor)


def _chat_tokenizer() -> Any:
    tokenizer = hf.Qwen2Tokenizer(
        vocab=_bytes(), merges=[], unk_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def _language_model(tokenizer: Any) -> dict[str, Any]:
    return {
        **LAYERS,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 2048,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
    }


def save_chat(folder: Path) -> Path:
    """Save a chat model of texts alone."""
    tokenizer = _chat_tokenizer()
    return _save(folder, hf.Qwen2ForCausalLM(hf.Qwen2Config(**_language_model(tokenizer))), tokenizer)


def save_llava(folder: Path) -> Path:
    """Save an image-text model that chats."""
    tokenizer = _chat_tokenizer()
    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**LAYERS, image_size=32, patch_size=16),
        text_config=hf.Qwen2Config(**_language_model(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    processor = hf.LlavaProcessor(
        _squares(32),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token="<image>",
        chat_template=CHAT,
    )
    return _save(folder, hf.LlavaForConditionalGeneration(config), processor)
