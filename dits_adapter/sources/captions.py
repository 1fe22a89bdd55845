"""Texts from captions: what a model of transformers sees in the frames of a video, or of each of its segments."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from os import PathLike
from typing import TYPE_CHECKING, Any, Protocol

import torch

from dits_adapter._progress import progress_bar
from dits_adapter.encoders.base import Device
from dits_adapter.errors import InputError
from dits_adapter.sources._checkpoints import Checkpoint, ScoredText, greedy_texts, quiet
from dits_adapter.sources._filters import repeats
from dits_adapter.sources.base import Findings, FoundText, TextFinder
from dits_adapter.sources.rewrite import Rewriter
from dits_adapter.video._frames import count_segments
from dits_adapter.video.decode import Video
from dits_adapter.video.limits import DecodeLimits

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CaptionFinder", "Captioner", "TransformersCaptioner", "load_captioner"]

_SIDE = 768
"""Pixels of the longer side of a frame that a model is given: models of any size would take 4K as it is."""

_TOKENS = 96
"""Longest answer of a model: three captions."""

_PROMPT = (
    "These are frames of one video, in order. Write three different short captions of the video, each in one "
    "line, about what is to be seen and what happens. Write nothing else."
)
"""Prompt for models that chat."""

_TASKS = {"florence2": ("<CAPTION>", "<DETAILED_CAPTION>")}
"""Prompts of models that know tasks, by model type."""

_MANY = 20
"""Segments of a video from which its own progress is shown."""

_BULLET = re.compile(r"^\s*(?:[-*•]|\(?\d{1,2}[.):])\s*")
"""Number or bullet in front of a line of an answer."""

_OPENING = re.compile(r"^(?:(?:here are|sure)\b.*:|(?:the )?captions?:)$", re.IGNORECASE)
"""Line of an answer that is no caption."""


class Captioner(Protocol):
    """Model that describes frames."""

    @property
    def identity(self) -> str:
        """Name and commit of the model, and the options that change what it writes."""

    def describe(self, clips: Sequence[Sequence[Image]]) -> list[list[ScoredText]]:
        """Return the captions of each clip, given as some frames in order."""


class TransformersCaptioner:
    """Image-text model of transformers; greedy, so that the same frames give the same captions.

    A model with a chat template sees the frames of a clip together, and is asked for several captions. Any other
    describes frame by frame.

    Args:
        checkpoint: the checkpoint.
        prompt: text that the model is given; None for the one that suits its kind.
        batch_size: frames that are described at a time.
        device: a torch device or `"auto"`.

    Raises:
        ArtifactError: a damaged checkpoint.
        MissingExtraError: its processor needs torchvision, which is not installed.
        InputError: no such device, or a batch below 1.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, prompt: str | None = None, batch_size: int = 8, device: Device = "auto"
    ) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1.")
        checkpoint.fetch_settings()
        with quiet(), checkpoint.reading():  # before the weights: it may need a package that is not there
            self._processor: Any = AutoProcessor.from_pretrained(checkpoint.folder, trust_remote_code=False)
        self._model = checkpoint.load(AutoModelForImageTextToText, device)
        self._checkpoint, self._batch = checkpoint, batch_size
        self._tokenizer = self._processor.tokenizer
        self._chats = getattr(self._processor, "chat_template", None) is not None
        if self._chats:
            self._prompts: tuple[str, ...] = (prompt or _PROMPT,)
            self._tokenizer.padding_side = "left"
        else:
            self._prompts = (prompt,) if prompt else _TASKS.get(checkpoint.model_type, ("",))

    @property
    def identity(self) -> str:
        """Name and commit of the model, and the prompts."""
        return " ".join([self._checkpoint.identity, *self._prompts])

    def describe(self, clips: Sequence[Sequence[Image]]) -> list[list[ScoredText]]:
        """Describe clips: see `Captioner`."""
        if self._chats:
            units = [(row, list(frames)) for row, frames in enumerate(clips)]
        else:
            units = [(row, [frame]) for row, frames in enumerate(clips) for frame in frames]
        captions: list[list[ScoredText]] = [[] for _ in clips]
        per_batch = max(1, self._batch // max(len(frames) for _, frames in units))
        for prompt in self._prompts:
            for start in range(0, len(units), per_batch):
                batch = units[start : start + per_batch]
                answers = self._generate([frames for _, frames in batch], prompt)
                for (row, _), answer in zip(batch, answers, strict=True):
                    captions[row] += _lines(answer)
        return captions

    @torch.inference_mode()
    def _generate(self, clips: list[list[Image]], prompt: str) -> list[ScoredText]:
        if self._chats:
            asked = [
                [{"role": "user", "content": [*({"type": "image", "image": f} for f in frames), _said(prompt)]}]
                for frames in clips
            ]
            inputs = self._processor.apply_chat_template(
                asked,
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        else:
            frames = [frames[0] for frames in clips]
            texts = {"text": [prompt] * len(frames), "padding": True} if prompt else {}
            inputs = self._processor(images=frames, return_tensors="pt", **texts)
        inputs = inputs.to(self._model.device, self._model.dtype)
        return greedy_texts(self._model, self._tokenizer, inputs, most=_TOKENS)


def _said(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _lines(answer: ScoredText) -> Iterator[ScoredText]:
    """Yield the captions of an answer: its lines, without bullets, quotes and words around them."""
    for line in answer.text.splitlines():
        text = _BULLET.sub("", line).strip().strip('"“”*')
        if text and not _OPENING.match(text):
            yield ScoredText(text, answer.confidence)


def load_captioner(
    id_or_path: str | PathLike[str], *, prompt: str | None = None, batch_size: int = 8, device: Device = "auto"
) -> Captioner:
    """Load a model that describes frames, from safetensors, at one commit.

    Args:
        id_or_path: folder or hub id of an image-text model: BLIP, Florence-2, Qwen-VL and the like.
        prompt, batch_size, device: see `TransformersCaptioner`.

    Raises:
        ArtifactError: nothing loadable is there, or a model of another kind, of which no weights are downloaded.
        MissingExtraError, InputError: see `TransformersCaptioner`.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    checkpoint = Checkpoint.find(
        id_or_path,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        task="captions are written by image-text models (Salesforce/blip-image-captioning-large, "
        "florence-community/Florence-2-base, Qwen/Qwen2.5-VL-3B-Instruct)",
    )
    return TransformersCaptioner(checkpoint, prompt=prompt, batch_size=batch_size, device=device)


class CaptionFinder(TextFinder):
    """Finder of captions for videos, or for each of their segments.

    Args:
        captioner: the model (`load_captioner`).
        segment_seconds: length of the segments that are described, as in ingestion; None for whole videos.
        frames: frames of a segment that the model sees, from the middles of equal intervals.
        rewriter: a text model that makes search queries of the captions, as further texts.
        limits: what one file may cost; None for the defaults.
        progress: show how many segments of a video with more than 20 are described.

    Raises:
        InputError: frames < 1, or segments that cannot be.
    """

    name = "captions"
    sources = frozenset({"caption", "query"})

    def __init__(
        self,
        captioner: Captioner,
        *,
        segment_seconds: float | None = None,
        frames: int = 3,
        rewriter: Rewriter | None = None,
        limits: DecodeLimits | None = None,
        progress: bool = True,
    ) -> None:
        if frames < 1:
            raise InputError(f"frames is {frames}; a model has to see at least one.")
        if segment_seconds is not None and not 0 < segment_seconds < math.inf:
            raise InputError(f"segment_seconds is {segment_seconds}; expected seconds above 0.")
        self._captioner, self._rewriter = captioner, rewriter
        self._seconds, self._frames = segment_seconds, frames
        self._limits, self._progress = limits or DecodeLimits(), progress
        self.settings = {
            "model": captioner.identity,
            "segment_seconds": segment_seconds,
            "frames": frames,
            "rewrite": None if rewriter is None else rewriter.identity,
        }

    def find(self, path: str) -> Findings:
        """Describe the segments of a video.

        Raises:
            VideoError: no frame can be decoded.
        """
        findings = Findings()
        with Video(path, limits=self._limits) as video:
            count = count_segments(video.duration, self._seconds)
            shown = self._progress and count > _MANY
            bar = progress_bar(
                video.spans(self._seconds), desc="  described", total=count, leave=False, progress=shown
            )
            spans = iter(bar)
            while batch := list(islice(spans, 8)):
                clips = [_images(video.frames(self._frames, start, end).frames) for start, end in batch]
                for span, captions in zip(batch, self._captioner.describe(clips), strict=True):
                    texts = [
                        FoundText(c.text, "caption", c.confidence) for c in _good(captions, findings.left_out)
                    ]
                    if self._rewriter is not None and texts:
                        queries = self._rewriter.rewrite([text.text for text in texts])
                        asked = zip(queries, texts, strict=True)
                        texts += [FoundText(q, "query", text.confidence) for q, text in asked if q]
                    findings.texts += texts if self._seconds is None else [_in(span, text) for text in texts]
        return findings


def _in(span: tuple[float, float], text: FoundText) -> FoundText:
    start, end = (round(float(time), 2) for time in span)
    return FoundText(text.text, text.source, text.confidence, start, end)


def _images(frames: Iterable[Any]) -> list[Image]:
    from PIL.Image import fromarray

    images = [fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((_SIDE, _SIDE))
    return images


def _good(captions: Iterable[ScoredText], left_out: Counter[str]) -> Iterator[ScoredText]:
    """Yield captions that are sentences, each once: what differs in case and punctuation alone is the same."""
    seen: set[str] = set()
    for caption in captions:
        words = re.findall(r"\w+", caption.text.casefold())
        if not words:
            left_out["holds no words"] += 1
        elif repeats(caption.text):
            left_out["repeats itself, as models do that have nothing to say"] += 1
        elif (key := " ".join(words)) in seen:
            left_out["repeats another text of the video"] += 1
        else:
            seen.add(key)
            yield caption
