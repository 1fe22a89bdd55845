"""Texts from speech: what is said in a video, recognized by a Whisper or CTC model of transformers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from os import PathLike

from dits_adapter._progress import progress_bar
from dits_adapter.encoders.base import Device
from dits_adapter.errors import InputError, VideoError
from dits_adapter.sources._audio import NO_SOUND, is_silent, read_windows
from dits_adapter.sources._checkpoints import Checkpoint
from dits_adapter.sources._cues import Cue, Division, clean_cues, cues_within, join_cues
from dits_adapter.sources._filters import repeats
from dits_adapter.sources._recognizers import CTCRecognizer, SpeechRecognizer, WhisperRecognizer
from dits_adapter.sources.base import Findings, FoundText, TextFinder
from dits_adapter.video.decode import Video
from dits_adapter.video.limits import DecodeLimits

__all__ = ["SpeechFinder", "load_recognizer"]

_WINDOW = 28.0
"""Seconds of sound that are recognized at a time: Whisper sees 30."""

_LONG = 60.0
"""Seconds of a video from which its own progress is shown."""

_SILENT, _WORDLESS = "is a stretch of silence", "is a stretch in which the model heard no words"
"""Reasons that count stretches of sound, not texts."""


def load_recognizer(
    id_or_path: str | PathLike[str], *, language: str | None = None, device: Device = "auto"
) -> SpeechRecognizer:
    """Load a model that recognizes speech, from safetensors, at one commit.

    Args:
        id_or_path: folder or hub id of a Whisper, or of a CTC model such as Wav2Vec2.
        language: language that is spoken, for a Whisper of several languages.
        device: a torch device or `"auto"`.

    Raises:
        ArtifactError: nothing loadable is there, or a model of another kind, of which no weights are downloaded.
        InputError: a language that the model does not know, or no such device.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    checkpoint = Checkpoint.find(
        id_or_path,
        {"whisper", *MODEL_FOR_CTC_MAPPING_NAMES},
        task="speech is recognized by Whisper and models built like it (openai/whisper-tiny), and by CTC models "
        "with a tokenizer of Wav2Vec2 (facebook/wav2vec2-base-960h)",
    )
    if checkpoint.model_type == "whisper":
        return WhisperRecognizer(checkpoint, language, device)
    if language is not None:
        raise InputError(f"a language is for Whisper; {checkpoint.name} hears the one that it was trained on.")
    return CTCRecognizer(checkpoint, device)


class SpeechFinder(TextFinder):
    """Finder of what is said in a video.

    Sound is decoded and recognized window by window, so that hours take no more memory than minutes. Left out, and
    counted, are stretches in which nobody speaks, and texts that repeat themselves, as models do over noise.

    Args:
        recognizer: the model (`load_recognizer`).
        segment_seconds: length of the segments that the texts are of, as in ingestion; None for sentences of 5
            to 20 seconds.
        batch_size: windows that are recognized at a time.
        limits: what one file may cost; None for the defaults.
        progress: show how far a video is that lasts longer than a minute.

    Raises:
        InputError: a batch or segments that cannot be.
    """

    name = "speech"
    sources = frozenset({"speech"})

    def __init__(
        self,
        recognizer: SpeechRecognizer,
        *,
        segment_seconds: float | None = None,
        batch_size: int = 8,
        limits: DecodeLimits | None = None,
        progress: bool = True,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; expected at least 1.")
        if segment_seconds is not None and not 0 < segment_seconds < math.inf:
            raise InputError(f"segment_seconds is {segment_seconds}; expected seconds above 0.")
        self._recognizer, self._seconds, self._batch = recognizer, segment_seconds, batch_size
        self._limits, self._progress = limits or DecodeLimits(), progress
        self.settings = {"model": recognizer.identity, "segment_seconds": segment_seconds}

    def find(self, path: str) -> Findings:
        """Recognize the speech of a video.

        Raises:
            VideoError: no frame or no sound can be decoded.
        """
        findings = Findings()
        with Video(path, limits=self._limits) as video:
            duration, origin = video.duration, video.origin
        left_out = findings.left_out
        try:
            cues = cues_within(self._cues(path, origin, duration, left_out), duration, left_out)
        except VideoError as error:
            if error.reason != NO_SOUND:
                raise
            left_out["is of a video without sound"] += 1
            return findings
        for passage in join_cues(clean_cues(cues, left_out), Division(duration, self._seconds), left_out):
            if repeats(passage.text):
                left_out["repeats itself, as models do where there are no words"] += 1
            else:
                findings.texts.append(
                    FoundText(passage.text, "speech", passage.confidence, passage.start, passage.end)
                )
        return findings

    def _cues(self, path: str, origin: float, duration: float, left_out: Counter[str]) -> Iterator[Cue]:
        """Recognize the windows of a file in batches, those without a sound left out."""
        rate = self._recognizer.rate
        windows = read_windows(path, rate, _WINDOW, origin=origin)
        shown = self._progress and duration > _LONG
        with progress_bar(total=round(duration), unit="s", desc="  heard", leave=False, progress=shown) as bar:
            while batch := list(islice(windows, self._batch)):
                audible = [window for window in batch if not is_silent(window, rate)]
                left_out[_SILENT] += len(batch) - len(audible)
                for cues in self._recognizer.recognize(audible) if audible else ():
                    left_out[_WORDLESS] += not cues
                    yield from cues
                bar.update(round(sum(len(window.samples) for window in batch) / rate))
        left_out += Counter()  # drops what is zero
