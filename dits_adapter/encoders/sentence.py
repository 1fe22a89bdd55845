"""Encoders of sentence-transformers: texts alone, or texts with pictures or videos, through its own `encode`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dits_adapter.encoders._inputs import processor_name, rgb_frames
from dits_adapter.encoders._torch import (
    LOADING_ERRORS,
    loading_reason,
    no_checkpoint_bars,
    pick_device,
    weights_digest,
)
from dits_adapter.encoders.base import Device, EncoderSource, FromSource
from dits_adapter.errors import ArtifactError, MissingExtraError
from dits_adapter.texts import clean_texts
from dits_adapter.vectors import EmbeddedClips, FloatArray

__all__ = ["SentenceEncoder", "SentenceTexts", "load_sentence"]

_LONGEST_SIDE = 768
"""Pixels of the longer side of a frame on its way to the model: segments wait in memory as they are decoded."""


@dataclass(frozen=True)
class SentenceTexts(FromSource):
    """Loaded encoder of texts alone: float32, in eval mode, on one device. A `TextEncoder`, which describes it.

    Texts are queries: the model's prompt for these is put before each.

    Attributes:
        model: model of sentence-transformers.
        source: place of the checkpoint.
    """

    model: Any
    source: EncoderSource

    @property
    def width(self) -> int:
        """Dimension d of the vectors."""
        return int(self.model.get_embedding_dimension())

    @cached_property
    def text_digest(self) -> str:
        """SHA-256 of all weights, which nothing here trains."""
        return weights_digest(self.model)

    @property
    def prompt(self) -> str:
        """Words that the repository wants before each query."""
        return str(self.model.prompts.get("query", ""))

    @property
    def max_tokens(self) -> int:
        """Number of tokens of a text that are read, with its prompt."""
        return int(min(self.model.max_seq_length or 2**31, 2**31))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of whole texts, with prompt, start and end."""
        counts: list[int] = []
        for text in self._inputs(texts):
            tokens = self.model[0].preprocess(
                [text], prompt=self.prompt, processing_kwargs={"text": {"truncation": False}}
            )
            counts.append(int(tokens["attention_mask"].sum()))
        return counts

    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> FloatArray:
        """Embed texts as queries: (n, d), cleaned, after the prompt, truncated at `max_tokens`.

        Raises:
            InputError: a value that is no text, or of which cleaning leaves nothing, by its row.
        """
        inputs = self._inputs(texts)
        if not inputs:
            return np.empty((0, self.width), np.float32)
        return self._floats(self.model.encode_query(inputs, batch_size=batch_size, show_progress_bar=False))

    def _inputs(self, texts: Sequence[str]) -> list[dict[str, str]]:
        """Name the texts as such: a model that takes pictures would open those that look like addresses."""
        return [{"text": text} for text in clean_texts(texts, self.text_cleaning)]

    @staticmethod
    def _floats(vectors: Any) -> FloatArray:
        floats: FloatArray = np.asarray(vectors, np.float32)
        return floats


@dataclass(frozen=True)
class SentenceEncoder(SentenceTexts):
    """Loaded encoder of texts, and of pictures or whole videos. An `Encoder`, which describes the methods.

    A model that takes videos gets the frames of a clip as one, one a second; one that takes pictures alone gets
    each frame for itself.
    """

    @property
    def video_digest(self) -> str:
        """SHA-256 of all weights, many of which texts and pictures share."""
        return self.text_digest

    @property
    def clip_frames(self) -> int | None:
        """Number of frames of a clip: any."""
        return None

    @property
    def _takes_videos(self) -> bool:
        return "video" in self.model.modalities

    @property
    def preprocessing(self) -> str:
        """Classes of the processors, a digest of their settings, and the prompt of documents."""
        processor = self.model[0].processor
        part = getattr(processor, "video_processor" if self._takes_videos else "image_processor", processor)
        prompts = (self.model.prompts.get(name) for name in ("document", "passage", "corpus"))
        prompt = next((prompt for prompt in prompts if prompt is not None), "")
        return f"{_LONGEST_SIDE} px, {processor_name(part)}" + (f", prompt {prompt!r}" if prompt else "")

    def preprocess(self, frames: Sequence[NDArray[np.uint8]]) -> FloatArray:
        """Shrink frames that are larger than 768 pixels: (n, h, w, 3) uint8, which the model's processor takes.

        Raises:
            InputError: see `rgb_frames`.
        """
        shrunk: Any = np.stack([_shrink(frame) for frame in rgb_frames(frames)])
        pictures: FloatArray = shrunk
        return pictures

    def embed(self, clips: Sequence[FloatArray], batch_size: int = 96) -> EmbeddedClips:
        """Embed clips, or each of their frames, at most `batch_size` frames a forward pass."""
        if not len(clips):
            return EmbeddedClips(frames=np.empty((0, 1, self.width), np.float32))
        options = {"show_progress_bar": False}
        if not self._takes_videos:
            pictures = [{"image": Image.fromarray(frame)} for clip in clips for frame in np.asarray(clip)]
            vectors = self.model.encode_document(pictures, batch_size=batch_size, **options)
            return EmbeddedClips(frames=self._floats(vectors).reshape(len(clips), -1, self.width))
        videos = [_as_video(clip) for clip in clips]
        vectors = self.model.encode_document(
            videos,
            batch_size=max(1, batch_size // len(clips[0])),
            processing_kwargs={"video": {"do_sample_frames": False}},
            **options,
        )
        return EmbeddedClips(pooled=self._floats(vectors))


def _as_video(clip: FloatArray) -> dict[str, Any]:
    """Return a clip as sentence-transformers takes it; a still lasts two frames, which models of videos need.

    The times of its frames are not known: stated as one a second, no processor drops some of them.
    """
    frames = clip if len(clip) > 1 else np.repeat(clip, 2, axis=0)
    times = {
        "fps": 1.0,
        "total_num_frames": len(frames),
        "duration": float(len(frames)),
        "frames_indices": list(range(len(frames))),
    }
    return {"video": {"array": frames, "video_metadata": times}}


def _shrink(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape[:2]
    if max(height, width) <= _LONGEST_SIDE:
        return frame
    scale = _LONGEST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))


def load_sentence(source: EncoderSource, device: Device) -> SentenceTexts:
    """Load a sentence-transformers model from safetensors, in float32; a `SentenceEncoder` if it takes pictures.

    Raises:
        ArtifactError: it cannot be loaded.
        MissingExtraError: its processor needs torchvision, which is not installed.
    """
    from sentence_transformers import SentenceTransformer

    # transformers prepares pictures on Pillow where there is no torchvision, if it is asked to.
    pillow = {} if find_spec("torchvision") else {"backend": "pil"}
    try:
        with no_checkpoint_bars():
            model = SentenceTransformer(
                source.location,
                device=str(pick_device(device)),
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": "float32", "use_safetensors": True},
                processor_kwargs=pillow,
            )
    except ImportError as error:
        if not any(words in str(error).lower() for words in ("torchvision", "pil backend")):
            raise
        raise MissingExtraError("torchvision", None, f"the processor of {source.name}") from None
    except LOADING_ERRORS as error:
        reason = loading_reason(error, source.folder)
        raise ArtifactError(
            f"{source.name}: cannot load a model of sentence-transformers from here. {reason}"
        ) from error
    model.requires_grad_(False).eval()
    takes = set(model.modalities)
    if "text" not in takes:
        raise ArtifactError(f"{source.name}: embeds no texts, but {', '.join(map(str, sorted(takes, key=str)))}.")
    return (SentenceEncoder if takes & {"image", "video"} else SentenceTexts)(model, source)
