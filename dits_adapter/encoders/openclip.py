"""Encoders of open_clip: repositories with an open_clip_config.json, on the package open_clip_torch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from dits_adapter._user_files import read_json
from dits_adapter.encoders._families import OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS
from dits_adapter.encoders._inputs import rgb_frames
from dits_adapter.encoders._torch import LOADING_ERRORS, loading_reason, pick_device, weights_digest
from dits_adapter.encoders.base import Device, EncoderSource, FromSource
from dits_adapter.errors import ArtifactError
from dits_adapter.texts import clean_texts
from dits_adapter.vectors import EmbeddedClips, FloatArray

__all__ = ["OpenClipEncoder", "load_open_clip"]


@dataclass(frozen=True)
class OpenClipEncoder(FromSource):
    """Loaded model of open_clip: float32, in eval mode, on one device. `Encoder` describes the methods.

    Its tokenizer cleans texts by itself, as the model was trained.

    Attributes:
        model, tokenizer, transform: those of open_clip; the transform is of a Pillow image.
        source: place of the checkpoint.
        width: dimension d of the joint space.
    """

    model: Any
    tokenizer: Any
    transform: Any
    source: EncoderSource
    width: int

    @property
    def clip_frames(self) -> None:
        """None: each frame is seen alone."""

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read."""
        return int(self.tokenizer.context_length)

    @property
    def text_digest(self) -> str:
        """SHA-256 of the weights that texts go through."""
        return weights_digest(
            nn.ParameterList(
                weights
                for name, weights in self.model.named_parameters()
                if not name.startswith(("visual.", "logit_"))
            )
        )

    @property
    def video_digest(self) -> str:
        """SHA-256 of the weights that frames go through."""
        return weights_digest(self.model.visual)

    @property
    def prompt(self) -> str:
        """Words before each text: none."""
        return ""

    @property
    def preprocessing(self) -> str:
        """Settings of open_clip's transform."""
        return f"open_clip {sorted(self.model.visual.preprocess_cfg.items())}"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, start and end included."""
        texts = clean_texts(texts, self.text_cleaning)
        if hasattr(self.tokenizer, "encode"):  # open_clip's own
            return [len(self.tokenizer.encode(text)) + 2 for text in texts]
        cleaned = [self.tokenizer.clean_fn(text) for text in texts]
        return [len(ids) for ids in self.tokenizer.tokenizer(cleaned)["input_ids"]]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts: (n, d), truncated at `max_tokens`.

        Raises:
            InputError: a value that is no text, or of which cleaning leaves nothing, by its row.
        """
        texts = clean_texts(texts, self.text_cleaning)
        vectors = np.empty((len(texts), self.width), np.float32)
        device = self.model.logit_scale.device
        for start in range(0, len(texts), batch_size):
            rows = slice(start, start + batch_size)
            vectors[rows] = self.model.encode_text(self.tokenizer(texts[rows]).to(device)).cpu().numpy()
        return vectors

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Prepare frames, each for itself: (n, 3, h, w) float32.

        Raises:
            InputError: see `rgb_frames`.
        """
        images = (Image.fromarray(np.ascontiguousarray(frame)) for frame in rgb_frames(frames))
        return np.stack([self.transform(image).numpy() for image in images])

    @torch.inference_mode()
    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed the frames of clips, at most `batch_size` a forward pass."""
        if not len(clips):
            return EmbeddedClips(frames=np.empty((0, 1, self.width), np.float32))
        device = self.model.logit_scale.device
        pixels = torch.from_numpy(np.concatenate(clips))
        parts = [self.model.encode_image(part.to(device)).cpu() for part in pixels.split(batch_size)]
        return EmbeddedClips(frames=torch.cat(parts).numpy().reshape(len(clips), -1, self.width))


def load_open_clip(source: EncoderSource, device: Device) -> OpenClipEncoder:
    """Load a model of open_clip from safetensors, in float32.

    Raises:
        ArtifactError: the checkpoint cannot be loaded, or names a text model of another repository; or open_clip
            cannot be imported beside this torch.
    """
    try:
        import open_clip
        from open_clip.factory import load_checkpoint
        from open_clip.transform import PreprocessCfg, image_transform_v2
    except ModuleNotFoundError:
        raise
    except Exception as error:  # torchvision raises its own for a torch that it was not built for
        raise ArtifactError(
            f"{source.name}: open_clip cannot be imported beside torch {torch.__version__}; install the "
            f"torchvision that belongs to it. {error}"
        ) from None
    text, width = _read_config(source.folder / OPEN_CLIP_CONFIG)
    place = f"local-dir:{source.folder}"
    options = {"trust_remote_code": False} if text.get("hf_tokenizer_name") else {}
    try:
        with _quiet():
            model = open_clip.create_model(place, load_weights=False, pretrained_text=False)
        load_checkpoint(model, str(source.folder / OPEN_CLIP_WEIGHTS))
        tokenizer = open_clip.get_tokenizer(place, **options)
    except LOADING_ERRORS as error:
        reason = loading_reason(error, source.folder)
        raise ArtifactError(f"{source.name}: open_clip cannot load it. {reason}") from error
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
    model.requires_grad_(False).eval()
    return OpenClipEncoder(model.to(pick_device(device)), tokenizer, transform, source, width)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warning that weights are random, which they are until they are loaded."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _read_config(path: Path) -> tuple[dict[str, Any], int]:
    """Return the settings of the text model, and the width."""
    try:
        model = read_json(path)["model_cfg"]
        text, width = model["text_cfg"], int(model["embed_dim"])
        if text.get("hf_model_name"):
            raise ArtifactError(
                f"{path}: its text model is built from {text['hf_model_name']}, another repository, which is not "
                "loaded. Name a repository of the same model in the format of transformers, or import its vectors."
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path}: is no config of an open_clip model ({error!r}).") from None
    return text, width
