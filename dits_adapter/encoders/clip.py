"""CLIP: the family of encoders with `model_type` "clip"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dits_adapter.encoders._torch import (
    LOADING_ERRORS,
    loading_reason,
    no_loading_bars,
    pick_device,
    weights_digest,
)
from dits_adapter.encoders.base import EncoderSource, TextTower
from dits_adapter.errors import ArtifactError
from dits_adapter.texts import TextCleaning, clean_texts
from dits_adapter.vectors import EmbeddedClips, FloatArray

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer
    from transformers import CLIPModel, PreTrainedTokenizerBase

__all__ = ["Clip", "load_clip", "preprocess"]

# Stated, because sentence-transformers cannot infer them for CLIP where torchvision is absent.
_TOWERS = {
    modality: {"method": f"get_{modality}_features", "method_output_name": "pooler_output"}
    for modality in ("text", "image")
}


@dataclass(frozen=True)
class Clip:
    """Loaded CLIP: float32, in eval mode, on one device. An `Encoder`, whose protocol describes the methods.

    Attributes:
        model, tokenizer, image_processor: those of transformers.
        source: place of the checkpoint.
    """

    model: CLIPModel
    tokenizer: PreTrainedTokenizerBase
    image_processor: Any
    source: EncoderSource

    @property
    def name(self) -> str:
        """Hub id, or name of the folder."""
        return self.source.name

    @property
    def revision(self) -> str | None:
        """Commit of the hub; None for a folder."""
        return self.source.revision

    @property
    def width(self) -> int:
        """Dimension d of the joint space."""
        return self.model.text_projection.out_features

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read: 77."""
        return self.tokenizer.model_max_length

    @property
    def digest(self) -> str:
        """SHA-256 of all weights, computed anew: joint training changes them."""
        return weights_digest(self.model)

    @property
    def text_cleaning(self) -> TextCleaning:
        """Cleaning of texts before they are tokenized."""
        return self.source.text_cleaning

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""
        texts = clean_texts(texts, self.text_cleaning)
        counted: Any = self.tokenizer(texts, truncation=False, verbose=False)
        return [len(ids) for ids in counted["input_ids"]]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts: (n, d), not normalized, cleaned, then truncated at `max_tokens`.

        Raises:
            InputError: a value that is no text, or of which cleaning leaves nothing, by its row.
        """
        texts = clean_texts(texts, self.text_cleaning)
        vectors = np.empty((len(texts), self.width), np.float32)
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))  # little padding
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            tokens = self.tokenizer(
                [texts[row] for row in rows], padding=True, truncation=True, return_tensors="pt"
            ).to(self.model.device)
            vectors[rows] = self.model.get_text_features(**tokens).pooler_output.float().cpu().numpy()
        return vectors

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Resize, crop and normalize (h, w, 3) RGB frames: (n, 3, size, size)."""
        return preprocess(self.image_processor, frames)

    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed the frames of clips, each (f, 3, size, size), at most `batch_size` frames a forward pass."""
        if not len(clips):
            return EmbeddedClips(frames=np.empty((0, 1, self.width), np.float32))
        # Page-locked for a GPU, which copies from there by itself.
        pixels = torch.empty(
            sum(map(len, clips)),
            *clips[0].shape[1:],
            dtype=torch.float32,
            pin_memory=self.model.device.type == "cuda",
        )
        np.concatenate(clips, out=pixels.numpy())
        vectors = torch.cat([self.embed_pixels(part).cpu() for part in pixels.split(batch_size)])
        return EmbeddedClips(frames=vectors.numpy().reshape(len(clips), -1, self.width))

    @torch.inference_mode()
    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embed preprocessed frames (n, 3, size, size) in one pass: (n, d) on the model's device."""
        return self.model.get_image_features(pixel_values=pixels.to(self.model.device)).pooler_output

    def text_tower(self) -> TextTower:
        """Return the text side; padding comes after a text, where causal attention ignores it."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.enable_padding(pad_id=self.tokenizer.pad_token_id, pad_token=self.tokenizer.pad_token)
        return TextTower(_TextTower(self.model), tokenizer, self.max_tokens)

    def as_transformer(self) -> Transformer:
        """Return the module of sentence-transformers around the loaded model, which is shared."""
        from dits_adapter.encoders._text_transformer import TextTransformer

        module: Any = TextTransformer.__new__(TextTransformer)
        module._load_model = lambda *_, **__: self.model  # loaded already
        module.__init__(
            str(self.source.folder),
            processor_kwargs={"backend": "pil", "trust_remote_code": False},
            config_kwargs={"trust_remote_code": False},
            modality_config=_TOWERS,
            text_cleaning=self.text_cleaning,
            module_output_name="sentence_embedding",
        )
        del module._load_model
        return module


class _TextTower(nn.Module):
    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model.get_text_features(input_ids=input_ids).pooler_output


def preprocess(image_processor: Any, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
    """Run a CLIP's image processor alone, for processes that have no use for its model; see `Clip.preprocess`."""
    return np.stack(image_processor(list(frames), return_tensors="np")["pixel_values"])


def load_clip(source: EncoderSource, device: str | torch.device = "auto") -> Clip:
    """Load a CLIP from safetensors, in float32.

    Raises:
        ArtifactError: the checkpoint cannot be loaded, or lacks tensors.
    """
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    try:
        with no_loading_bars():
            loaded: Any = CLIPModel.from_pretrained(
                source.folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
        # The PIL backend is the one that exists with and without torchvision: same pixels on every machine.
        image_processor = CLIPImageProcessorPil.from_pretrained(source.folder, trust_remote_code=False)
    except LOADING_ERRORS as error:
        reason = loading_reason(error, source.folder)
        raise ArtifactError(f"{source.name}: cannot load a CLIP from here. {reason}") from error
    model, report = loaded
    if report["missing_keys"]:  # transformers would leave them at random values
        first = sorted(report["missing_keys"])[0]
        raise ArtifactError(f"{source.name}: the weights lack {len(report['missing_keys'])} tensors ({first}, …).")
    positions = model.text_model.embeddings.position_embedding.num_embeddings
    tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
    model.requires_grad_(False).eval()
    return Clip(model.to(pick_device(device)), tokenizer, image_processor, source)
