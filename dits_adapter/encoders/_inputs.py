"""Inputs of dual encoders: texts as tokens, and frames as pixels, without the model.

They can be pickled, for processes that prepare batches and have no use for the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dits_adapter.encoders._families import DualFamily
from dits_adapter.errors import InputError
from dits_adapter.texts import TextCleaning, clean_texts
from dits_adapter.vectors import FloatArray

__all__ = ["FrameInputs", "TextInputs", "prepare_tokenizer", "processor_name", "rgb_frames"]


@dataclass(frozen=True)
class TextInputs:
    """Tokens of texts, as their family pads and masks them.

    Attributes:
        tokenizer: that of transformers; it cuts at its `model_max_length`.
        padding: to the `longest` text of a batch, or to the `whole` length.
        mask: the model gets the mask of padding.
        cleaning: cleaning of texts before.
    """

    tokenizer: PreTrainedTokenizerBase
    padding: Literal["longest", "whole"]
    mask: bool
    cleaning: TextCleaning

    def clean(self, texts: Sequence[str]) -> list[str]:
        """Clean texts; raises as `clean_texts`."""
        return clean_texts(texts, self.cleaning)

    def __call__(self, cleaned: list[str]) -> dict[str, Tensor]:
        """Return the arguments of `get_text_features` for n clean texts, each (n, l)."""
        tokens = self.tokenizer(
            cleaned,
            padding="longest" if self.padding == "longest" else "max_length",
            truncation=True,
            return_attention_mask=self.mask,
            return_tensors="pt",
        )
        return dict(tokens)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""
        tokens: Any = self.tokenizer(self.clean(texts), truncation=False, verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]


@dataclass(frozen=True)
class FrameInputs:
    """Pixels of frames, as their checkpoint prepares them.

    Attributes:
        image_processor: that of transformers, on Pillow.
        argument: name of the model's argument that takes pixels.
        patches: pixels are patches of a picture of any shape (SigLIP2 NaFlex). A frame is then its patches, (p, c)
            float32, and below them a row that starts with the number of patches down and across.
    """

    image_processor: Any
    argument: str = "pixel_values"
    patches: bool = False

    @property
    def name(self) -> str:
        """Name of the image processor."""
        return processor_name(self.image_processor)

    def __call__(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Prepare frames, each for itself: (n, 3, h, w) float32, or (n, p + 1, c) of patches.

        Raises:
            InputError: see `rgb_frames`.
        """
        prepared = self.image_processor(rgb_frames(frames), input_data_format="channels_last", return_tensors="np")
        pixels = np.asarray(prepared["pixel_values"], np.float32)
        if not self.patches:
            return pixels.reshape(len(frames), *pixels.shape[-3:])  # some take a list of frames for one video
        shapes = np.zeros((len(frames), 1, pixels.shape[2]), np.float32)
        shapes[:, 0, :2] = prepared["spatial_shapes"]
        return np.concatenate([pixels, shapes], axis=1)

    def arguments(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the arguments of `get_image_features` or `get_video_features` for prepared frames."""
        if not self.patches:
            return {self.argument: pixels}
        shapes = pixels[:, -1, :2].long()
        places = torch.arange(pixels.shape[1] - 1, device=pixels.device)
        return {
            self.argument: pixels[:, :-1],
            "pixel_attention_mask": (places < shapes.prod(dim=1, keepdim=True)).int(),
            "spatial_shapes": shapes,
        }


def processor_name(processor: Any) -> str:
    """Return the class of a processor of transformers, and a digest of its settings."""
    return f"{type(processor).__name__} {hashlib.sha256(processor.to_json_string().encode()).hexdigest()[:8]}"


def prepare_tokenizer(tokenizer: Any, model: Any, family: DualFamily) -> None:
    """Cut texts where the model's positions end, and write small what the model was taught in small letters.

    SigLIP2 was, as big_vision's recipe says, and transformers' `Siglip2Tokenizer` for NaFlex does so. Checkpoints
    of fixed resolution name Gemma's tokenizer, which does not.
    """
    text = model.config.text_config
    paddings = (
        module.padding_idx
        for name, module in model.text_model.named_modules()
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    )
    positions = text.max_position_embeddings - next(
        (padding + 1 for padding in paddings), 0
    )  # RoBERTa's begin there
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions, family.max_tokens or positions)
    if family.model_type == "siglip" and tokenizer.is_fast:
        from tokenizers.normalizers import Lowercase, Sequence

        backend = tokenizer.backend_tokenizer
        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])


def rgb_frames(frames: Sequence[NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """Return pictures as (h, w, 3) uint8 RGB: grey ones in three equal channels, transparent ones without alpha.

    Pillow's `convert("RGB")`, with which all references begin, does the same.

    Args:
        frames: uint8 arrays of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).

    Raises:
        InputError: another shape or type, by its row. Floats are refused: whether 1.0 is white or nearly black
            cannot be told from a dark picture.
    """
    return [_rgb(row, frame) for row, frame in enumerate(frames)]


def _rgb(row: int, frame: Any) -> NDArray[np.uint8]:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8:
        kind = f"an array of {frame.dtype}" if isinstance(frame, np.ndarray) else f"a {type(frame).__name__}"
        raise InputError(
            f"frame {row} is {kind}; expected a NumPy array of uint8, 0 to 255. Multiply floats of 0 to 1 by 255, "
            'round and call .astype("uint8"); of a Pillow image give numpy.asarray(image.convert("RGB")).'
        )
    channels = frame[:, :, None] if frame.ndim == 2 else frame
    if channels.ndim != 3 or channels.shape[2] not in (1, 3, 4) or 0 in channels.shape:
        raise InputError(
            f"frame {row} has the shape {frame.shape}; expected (height, width), or (height, width, channels) "
            "with 1, 3 or 4 channels."
        )
    rgb: NDArray[np.uint8] = np.broadcast_to(channels[:, :, :3], (*channels.shape[:2], 3))
    return rgb
