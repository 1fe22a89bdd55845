"""Models that recognize speech: Whisper and CTC models of transformers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from dits_adapter.encoders.base import Device
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.sources._audio import AudioWindow
from dits_adapter.sources._checkpoints import Checkpoint, GreedyConfidence, quiet
from dits_adapter.sources._cues import Cue

__all__ = ["CTCRecognizer", "SpeechRecognizer", "WhisperRecognizer"]

_NO_SPEECH, _UNSURE = 0.6, -1.0
"""Whisper's own limits (Radford et al., 2022, section 4.5): the probability of no speech above which, and
the mean log-probability of tokens below which a window counts as silent."""

_WORD_PAUSE, _LONGEST_PHRASE = 0.6, 10.0
"""Seconds of a pause at which the words of a CTC model are cut into phrases, and of the longest phrase."""


class SpeechRecognizer(Protocol):
    """Model that turns sound into timed pieces of text."""

    @property
    def identity(self) -> str:
        """Name and commit of the model, and the options that change what it hears."""

    @property
    def rate(self) -> int:
        """Samples a second that the model takes."""

    def recognize(self, windows: Sequence[AudioWindow]) -> list[list[Cue]]:
        """Return the pieces of each window, in the clock of the windows; none where nothing was said."""


class WhisperRecognizer:
    """Whisper, or a model built like it; greedy, so that the same sound gives the same text.

    Args:
        checkpoint: the checkpoint.
        language: language that is spoken ("en", "german"); None lets the model tell, window by window.
        device: a torch device or `"auto"`.

    Raises:
        ArtifactError: a damaged checkpoint, or one without what timestamps need.
        InputError: a language that the model does not know.
    """

    def __init__(self, checkpoint: Checkpoint, language: str | None = None, device: Device = "auto") -> None:
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor, GenerationConfig

        self._checkpoint, self._language = checkpoint, language
        checkpoint.fetch_settings()
        with quiet(), checkpoint.reading():
            self._processor: Any = AutoProcessor.from_pretrained(checkpoint.folder, trust_remote_code=False)
            config: Any = GenerationConfig.from_pretrained(checkpoint.folder, trust_remote_code=False)
        if getattr(config, "no_timestamps_token_id", None) is None:
            raise ArtifactError(
                f"{checkpoint.name}: its generation_config.json lacks no_timestamps_token_id, without which no "
                "times can be told; take a checkpoint that has it, such as openai/whisper-tiny."
            )
        self._first_time = int(config.no_timestamps_token_id) + 1
        self._options = self._language_options(config)
        self._model = checkpoint.load(AutoModelForSpeechSeq2Seq, device)

    def _language_options(self, config: Any) -> dict[str, Any]:
        if not getattr(config, "is_multilingual", False):
            if self._language not in (None, "en", "english"):
                raise InputError(f"{self._checkpoint.name} hears English alone, not {self._language!r}.")
            return {}
        if self._language is not None:
            from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

            name = self._language.lower()
            code = TO_LANGUAGE_CODE.get(name, name)
            if f"<|{code}|>" not in config.lang_to_id:
                known = ", ".join(sorted(token.strip("<|>") for token in config.lang_to_id))
                raise InputError(
                    f"the language {self._language!r} is not one of {self._checkpoint.name}; it has {known}."
                )
            return {"language": code, "task": "transcribe"}
        return {"task": "transcribe"}

    @property
    def identity(self) -> str:
        """Name and commit of the model, and the language."""
        return f"{self._checkpoint.identity} {self._language or ''}".strip()

    @property
    def rate(self) -> int:
        """Samples a second that the model takes."""
        return int(self._processor.feature_extractor.sampling_rate)

    @torch.inference_mode()
    def recognize(self, windows: Sequence[AudioWindow]) -> list[list[Cue]]:
        """Recognize windows of up to 30 seconds in one pass of the decoder: see `SpeechRecognizer`."""
        model = self._model
        features = self._processor.feature_extractor(
            [window.samples for window in windows], sampling_rate=self.rate, return_tensors="pt"
        ).input_features.to(model.device, model.dtype)
        heard = model.get_encoder()(features)
        silent = self._silence(heard, len(windows))
        confidence = GreedyConfidence()
        with quiet():
            sequences = model.generate(
                encoder_outputs=heard,
                return_timestamps=True,
                force_unique_generate_call=True,
                return_dict_in_generate=True,
                logits_processor=[confidence],
                max_new_tokens=model.config.max_target_positions // 2,
                do_sample=False,
                num_beams=1,
                **self._options,
            ).sequences
        return [
            self._pieces(tokens, window, no_speech)
            for tokens, window, no_speech in zip(confidence.tokens(sequences), windows, silent, strict=True)
        ]

    def _silence(self, heard: Any, count: int) -> list[float]:
        """Return the probability that nobody speaks, which the model tells in the place of the language."""
        config = self._model.generation_config
        start = torch.full((count, 1), int(config.decoder_start_token_id), device=self._model.device)
        logits = self._model(encoder_outputs=heard, decoder_input_ids=start).logits[:, 0]
        silent: list[float] = logits.float().softmax(dim=-1)[:, self._first_time - 2].tolist()
        return silent

    def _pieces(self, tokens: Sequence[tuple[int, float]], window: AudioWindow, no_speech: float) -> list[Cue]:
        """Cut the tokens of a window at its timestamps."""
        tokenizer = self._processor.tokenizer
        special = set(tokenizer.all_special_ids)
        seconds = self._processor.feature_extractor.chunk_length / self._model.config.max_source_positions
        length = len(window.samples) / self.rate
        words = [log for token, log in tokens if token not in special and token < self._first_time]
        if not words or (no_speech > _NO_SPEECH and sum(words) / len(words) < _UNSURE):
            return []
        pieces: list[Cue] = []
        ids: list[int] = []
        logs: list[float] = []
        start = 0.0

        def close(end: float) -> None:
            text = " ".join(tokenizer.decode(ids, skip_special_tokens=True).split())
            if text:
                sure = math.exp(sum(logs) / len(logs)) * (1 - no_speech)
                pieces.append(Cue(window.start + start, window.start + end, text, sure))
            ids.clear()
            logs.clear()

        for token, log in tokens:
            if token >= self._first_time:
                time = (token - self._first_time) * seconds
                if ids:
                    close(time)
                start = time
            elif token not in special:
                ids.append(token)
                logs.append(log)
        if ids:
            close(max(start, length))
        return pieces


class CTCRecognizer:
    """Model of the Wav2Vec2 kind, which tells a letter every 20 ms.

    Args:
        checkpoint: the checkpoint.
        device: a torch device or `"auto"`.

    Raises:
        ArtifactError: a damaged checkpoint, or one whose tokenizer does not tell the times of words.
    """

    def __init__(self, checkpoint: Checkpoint, device: Device = "auto") -> None:
        from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer
        from transformers.models.wav2vec2.tokenization_wav2vec2 import Wav2Vec2CTCTokenizer

        self._checkpoint = checkpoint
        self._model = checkpoint.load(AutoModelForCTC, device)
        with quiet(), checkpoint.reading():
            folder = checkpoint.folder
            self._features = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if not isinstance(self._tokenizer, Wav2Vec2CTCTokenizer):
            raise ArtifactError(
                f"{checkpoint.name}: its tokenizer, a {type(self._tokenizer).__name__}, does not tell the times "
                "of words; take a Whisper, or a model with a Wav2Vec2CTCTokenizer."
            )

    @property
    def identity(self) -> str:
        """Name and commit of the model."""
        return self._checkpoint.identity

    @property
    def rate(self) -> int:
        """Samples a second that the model takes."""
        return int(self._features.sampling_rate)

    @torch.inference_mode()
    def recognize(self, windows: Sequence[AudioWindow]) -> list[list[Cue]]:
        """Recognize windows: see `SpeechRecognizer`."""
        model = self._model
        inputs = self._features(
            [window.samples for window in windows], sampling_rate=self.rate, padding=True, return_tensors="pt"
        ).to(model.device, model.dtype)
        probabilities = model(**inputs).logits.float().softmax(dim=-1).cpu()
        seconds = model.config.inputs_to_logits_ratio / self.rate
        return [
            list(
                self._phrases(rows[: math.ceil(len(window.samples) / self.rate / seconds)], window.start, seconds)
            )
            for rows, window in zip(probabilities, windows, strict=True)
        ]

    def _phrases(self, probabilities: Tensor, start: float, seconds: float) -> Iterator[Cue]:
        """Return the words that a matrix (steps, letters) spells, cut into phrases at pauses."""
        sure, ids = probabilities.max(dim=-1)
        decoded: Any = self._tokenizer.decode(ids.tolist(), output_word_offsets=True)
        phrase: list[Cue] = []
        for word in decoded.word_offsets:
            first, last = word["start_offset"], max(word["end_offset"], word["start_offset"] + 1)
            text = word["word"].lower() if word["word"].isupper() else word["word"]
            piece = Cue(start + first * seconds, start + last * seconds, text, float(sure[first:last].mean()))
            if phrase and (
                piece.start - phrase[-1].end > _WORD_PAUSE or piece.end - phrase[0].start > _LONGEST_PHRASE
            ):
                yield _phrase(phrase)
                phrase = []
            phrase.append(piece)
        if phrase:
            yield _phrase(phrase)


def _phrase(words: Sequence[Cue]) -> Cue:
    confidence = sum(word.confidence for word in words) / len(words)
    return Cue(words[0].start, words[-1].end, " ".join(word.text for word in words), confidence)
