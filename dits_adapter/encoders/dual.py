"""Dual encoders of transformers: all families with one function for texts and one for pictures or clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dits_adapter._extras import require_modules
from dits_adapter.encoders._families import DualFamily
from dits_adapter.encoders._inputs import FrameInputs, TextInputs, prepare_tokenizer
from dits_adapter.encoders._torch import (
    LOADING_ERRORS,
    loading_reason,
    no_checkpoint_bars,
    pick_device,
    weights_digest,
)
from dits_adapter.encoders.base import Device, EncoderSource, FromSource, TextTower
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.vectors import EmbeddedClips, FloatArray

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer

__all__ = ["DualEncoder", "load_dual"]


@dataclass(frozen=True)
class DualEncoder(FromSource):
    """Loaded dual encoder: float32, in eval mode, on one device. `Encoder`, a protocol, describes the methods.

    Attributes:
        family: rules of its family.
        model: model of transformers.
        texts: tokens of texts.
        frames: pixels of frames.
        source: place of the checkpoint.
    """

    family: DualFamily
    model: Any
    texts: TextInputs
    frames: FrameInputs
    source: EncoderSource

    @property
    def width(self) -> int:
        """Dimension d of the joint space."""
        return int(attrgetter(self.family.width)(self.model.config))

    @property
    def clip_frames(self) -> int | None:
        """Number of frames that the model sees as one clip; None for one that sees each frame alone."""
        return attrgetter(self.family.clip_frames)(self.model.config) if self.family.clip_frames else None

    @property
    def image_size(self) -> int:
        """Side of the square picture that the model sees, in pixels; of NaFlex the one with as many patches."""
        vision = self.model.config.vision_config
        if self.family.patches:
            return math.isqrt(vision.num_patches) * int(vision.patch_size)
        return int(vision.image_size)

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read."""
        return self.texts.tokenizer.model_max_length

    @property
    def text_digest(self) -> str:
        """SHA-256 of the weights that texts go through, computed anew: joint training changes them."""
        return weights_digest(*self._towers(text=True))

    @property
    def video_digest(self) -> str:
        """SHA-256 of the weights that frames go through, computed anew."""
        return weights_digest(*self._towers(text=False))

    def _towers(self, *, text: bool) -> list[nn.Module]:
        return [module for name, module in self.model.named_children() if name.startswith("text_") == text]

    @property
    def prompt(self) -> str:
        """Words before each text: none."""
        return ""

    @property
    def preprocessing(self) -> str:
        """Class of the image processor, and a digest of its settings."""
        return self.frames.name

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""
        return self.texts.count(texts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts: (n, d), not normalized, cleaned, then truncated at `max_tokens`.

        Raises:
            InputError: a value that is no text, or of which cleaning leaves nothing, by its row.
        """
        texts = self.texts.clean(texts)
        vectors = np.empty((len(texts), self.width), np.float32)
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))  # little padding
        for start in range(0, len(texts), batch_size):
            rows = order[start : start + batch_size]
            tokens = self.texts([texts[row] for row in rows])
            vectors[rows] = self.embed_tokens(tokens).float().cpu().numpy()
        return vectors

    def embed_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        """Embed tokens in one pass: (n, d) on the model's device, with gradients where they are wanted."""
        arguments = {name: values.to(self.model.device) for name, values in tokens.items()}
        embedded: Tensor = self.model.get_text_features(**arguments).pooler_output
        return embedded

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Prepare frames for the model; see `FrameInputs`."""
        return self.frames(frames)

    @torch.inference_mode()
    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed clips of equally many prepared frames, at most `batch_size` frames a forward pass.

        Raises:
            InputError: frames that were not prepared, or another number of them than `clip_frames`.
        """
        for row, clip in enumerate(clips):
            if clip.dtype != np.float32:
                raise InputError(f"clip {row} holds {clip.dtype}, not the float32 frames that preprocess returns.")
        if self.clip_frames is not None:
            return self._embed_whole(clips, self.clip_frames, batch_size)
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

    def _embed_whole(self, clips: Sequence[FloatArray], frames: int, batch_size: int) -> EmbeddedClips:
        if other := [len(clip) for clip in clips if len(clip) != frames]:
            raise InputError(f"a clip has {other[0]} frames; {self.name} sees clips of {frames}.")
        pooled = np.empty((len(clips), self.width), np.float32)
        batch = max(1, batch_size // frames)
        for start in range(0, len(clips), batch):
            pixels = torch.from_numpy(np.stack(clips[start : start + batch])).to(self.model.device)
            embedded = self.model.get_video_features(**self.frames.arguments(pixels)).pooler_output
            pooled[start : start + batch] = embedded.cpu().numpy().reshape(-1, self.width)
        return EmbeddedClips(pooled=pooled)

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Embed prepared frames (n, …) in one pass, as `embed_tokens` does."""
        arguments = self.frames.arguments(pixels.to(self.model.device))
        embedded: Tensor = self.model.get_image_features(**arguments).pooler_output
        return embedded

    def text_tower(self) -> TextTower:
        """Return the text side.

        Raises:
            InputError: a tokenizer that has no equal on `tokenizers`.
        """
        from tokenizers import Tokenizer

        texts = self.texts
        if texts.tokenizer.is_fast:
            tokenizer = Tokenizer.from_str(texts.tokenizer.backend_tokenizer.to_str())
        else:
            from dits_adapter.encoders._sentencepiece import convert_siglip

            tokenizer = convert_siglip(texts.tokenizer)
        tokenizer.enable_truncation(self.max_tokens)
        tokenizer.enable_padding(
            pad_id=texts.tokenizer.pad_token_id,
            pad_token=texts.tokenizer.pad_token,
            length=self.max_tokens if texts.padding == "whole" else None,
        )
        return TextTower(_TextTower(self.model), tokenizer, self.max_tokens, texts.mask)

    def as_transformer(self) -> Transformer:
        """Return the module of sentence-transformers around the loaded model, which is shared.

        Raises:
            InputError: a family whose processor in transformers needs torchvision.
        """
        from dits_adapter.encoders._text_transformer import TextTransformer

        if self.family.resample is not None:
            raise InputError(
                f"{self.name} has no sentence-transformers form: transformers prepares the pictures of a "
                f"{self.family.model_type} on torchvision alone. DITSQueryEncoder encodes its queries."
            )
        module: Any = TextTransformer.__new__(TextTransformer)
        module._load_model = lambda *_, **__: self.model  # loaded already
        towers = ["text"] if self.family.clip_frames else ["text", "image"]
        whole = {"padding": "max_length", "max_length": self.max_tokens} if self.family.padding == "whole" else {}
        module.__init__(
            str(self.source.folder),
            processor_kwargs={"backend": "pil", "trust_remote_code": False},
            config_kwargs={"trust_remote_code": False},
            processing_kwargs={"text": {**whole, "return_attention_mask": self.family.mask}},
            # Stated, because sentence-transformers cannot infer them for CLIP where torchvision is absent.
            modality_config={
                tower: {"method": f"get_{tower}_features", "method_output_name": "pooler_output"}
                for tower in towers
            },
            text_cleaning=self.text_cleaning,
            module_output_name="sentence_embedding",
        )
        del module._load_model
        return module


class _TextTower(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output


def load_dual(source: EncoderSource, device: Device, family: DualFamily) -> DualEncoder:
    """Load a dual encoder from safetensors, in float32.

    Raises:
        ArtifactError: the checkpoint cannot be loaded, or lacks tensors.
        MissingExtraError: its tokenizer needs sentencepiece, which is not installed.
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False)
    except ImportError:
        require_modules(f"the tokenizer of {source.name}", "sentencepiece")
        raise
    except LOADING_ERRORS as error:
        raise _unloadable(source, family, error) from error
    try:
        with no_checkpoint_bars():
            loaded: Any = AutoModel.from_pretrained(
                source.folder,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation=family.attention or None,
                trust_remote_code=False,
            )
        model, report = loaded
        image_processor = _image_processor(source, family, model.config)
    except LOADING_ERRORS as error:
        raise _unloadable(source, family, error) from error
    if report["missing_keys"]:  # transformers would leave them at random values
        first = sorted(report["missing_keys"])[0]
        raise ArtifactError(f"{source.name}: the weights lack {len(report['missing_keys'])} tensors ({first}, …).")
    model.requires_grad_(False).eval()
    prepare_tokenizer(tokenizer, model, family)
    return DualEncoder(
        family,
        model.to(pick_device(device)),
        TextInputs(tokenizer, family.padding, family.mask, source.text_cleaning),
        FrameInputs(image_processor, family.pixels, family.patches),
        source,
    )


def _unloadable(source: EncoderSource, family: DualFamily, error: Exception) -> ArtifactError:
    reason = loading_reason(error, source.folder)
    return ArtifactError(f"{source.name}: cannot load a {family.model_type} from here. {reason}")


def _image_processor(source: EncoderSource, family: DualFamily, config: Any) -> Any:
    """Return what prepares frames, on Pillow: it exists with and without torchvision, with the same pixels."""
    from transformers import AutoImageProcessor

    if family.resample is None:
        return AutoImageProcessor.from_pretrained(source.folder, backend="pil", trust_remote_code=False)
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    side = config.vision_config.image_size
    height, width = (side, side) if isinstance(side, int) else side
    return ViTImageProcessorPil(
        size={"height": height, "width": width}, resample=family.resample, do_normalize=False
    )
