"""Speech: what a model hears becomes texts of spans of the video, and what is no speech is named and left out."""

from __future__ import annotations

import numpy as np
import pytest
import transformers

from dits_adapter import SpeechFinder, find_pairs, load_recognizer
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import ArtifactError, InputError, VideoError
from dits_adapter.sources._audio import read_windows
from dits_adapter.sources._cues import Cue
from dits_adapter.sources._filters import repeats
from tests.encoders.repositories import folder_files
from tests.hub import running_hub
from tests.sources.checkpoints import save_wav2vec2, save_whisper
from tests.sources.sound import RATE, noise, silence, write_spoken


class Heard:
    """Recognizer that says where it hears something: `spoken` from second to second of each window."""

    identity = "heard"
    rate = RATE

    def __init__(self, text="it says something", start=0.0, end=3.0, confidence=0.5):
        self.cue = Cue(start, end, text, confidence)
        self.batches = []

    def recognize(self, windows):
        self.batches.append(len(windows))
        shifted = (
            self.cue._replace(start=window.start + self.cue.start, end=window.start + self.cue.end)
            for window in windows
        )
        return [[piece] if piece.text else [] for piece in shifted]


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return save_whisper(tmp_path_factory.mktemp("whisper") / "whisper")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    sound = np.concatenate([noise(4), silence(1), noise(3, seed=1)])
    return write_spoken(tmp_path_factory.mktemp("clip") / "clip.mkv", sound, 8)


def find(path, recognizer=None, **options):
    return SpeechFinder(recognizer or Heard(), **options).find(str(path))


def test_whisper_hears_what_the_pipeline_of_transformers_hears(whisper, clip):
    """The reference is transformers' own pipeline, window by window, with the same greedy search."""
    recognizer = load_recognizer(whisper, language="english")
    windows = list(read_windows(str(clip), RATE, 3.0))
    heard = recognizer.recognize(windows)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(whisper)
    processor = transformers.WhisperProcessor.from_pretrained(whisper)
    pipeline = transformers.pipeline(
        "automatic-speech-recognition",
        model=model,
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    options = {"num_beams": 1, "force_unique_generate_call": True, "language": "en", "task": "transcribe"}
    assert len(windows) > 2
    for window, pieces in zip(windows, heard, strict=True):
        expected = pipeline(
            {"raw": window.samples.copy(), "sampling_rate": RATE},
            return_timestamps=True,
            generate_kwargs={**options, "max_new_tokens": 32},
        )["chunks"]
        assert [piece.text for piece in pieces] == [" ".join(chunk["text"].split()) for chunk in expected]
        for piece, chunk in zip(pieces, expected, strict=True):
            start, end = chunk["timestamp"]
            assert piece.start == pytest.approx(window.start + start)
            assert end is None or piece.end == pytest.approx(window.start + end)
            assert 0 < piece.confidence < 1
    assert sum(map(len, heard)) > 3


def test_whisper_gives_the_same_in_any_batch(whisper, clip):
    recognizer = load_recognizer(whisper)
    windows = list(read_windows(str(clip), RATE, 3.0))
    together = recognizer.recognize(windows)
    apart = [recognizer.recognize([window])[0] for window in windows]
    assert [[piece.text for piece in pieces] for pieces in together] == [
        [piece.text for piece in pieces] for pieces in apart
    ]
    np.testing.assert_allclose(
        [piece.confidence for pieces in together for piece in pieces],
        [piece.confidence for pieces in apart for piece in pieces],
        rtol=1e-3,
    )


def test_a_window_in_which_nobody_speaks_by_the_model_is_left_out(whisper, clip, monkeypatch):
    recognizer = load_recognizer(whisper)
    monkeypatch.setattr(recognizer, "_silence", lambda heard, count: [0.9] * count)
    findings = find(clip, recognizer)
    assert not findings.texts
    assert findings.left_out["is a stretch in which the model heard no words"] == 1


def test_ctc_models_time_their_words(tmp_path, clip):
    recognizer = load_recognizer(save_wav2vec2(tmp_path / "wav2vec2"))
    windows = list(read_windows(str(clip), RATE, 3.0))
    for window, pieces in zip(windows, recognizer.recognize(windows), strict=True):
        assert pieces
        length = len(window.samples) / RATE
        assert all(window.start <= p.start < p.end <= window.start + length + 0.05 for p in pieces)
        assert all(p.end - p.start <= 10 and 0 < p.confidence <= 1 for p in pieces)


def test_windows_hold_all_of_the_sound_and_end_where_it_is_quiet(tmp_path):
    sound = np.concatenate([noise(2.2), silence(0.4), noise(3.4, seed=1)])
    path = write_spoken(tmp_path / "clip.mkv", sound, 6)
    windows = list(read_windows(str(path), RATE, 3.0))
    whole = np.concatenate([window.samples for window in windows])
    np.testing.assert_allclose(whole, sound, atol=1e-3)
    assert 2.2 < windows[1].start < 2.6
    ends = np.cumsum([len(window.samples) for window in windows]) / RATE
    np.testing.assert_allclose([window.start for window in windows[1:]], ends[:-1], atol=1e-3)
    assert all(len(window.samples) <= 3 * RATE for window in windows)


@pytest.mark.parametrize(("begins", "pictures"), [(0.0, 2.0), (2.0, 0.0), (1.0, 1.0)])
def test_times_count_from_the_first_picture(tmp_path, begins, pictures):
    path = write_spoken(tmp_path / "clip.mkv", noise(4), 22, begins=begins, pictures_begin=pictures)
    shift = begins - pictures
    (text,) = find(path).texts
    assert (text.start, text.end) == pytest.approx((max(0, shift), 3 + shift), abs=0.11)


def test_what_is_said_beside_the_pictures_is_left_out_and_named(tmp_path):
    path = write_spoken(tmp_path / "clip.mkv", noise(60), 21)
    findings = find(path)
    assert [(text.start, text.end) for text in findings.texts] == [(0.0, 3.0)]
    assert findings.left_out["lies outside of the video"] == 2
    assert find(path, segment_seconds=10).texts[0].end == 10


def test_silence_is_not_given_to_the_model(tmp_path):
    path = write_spoken(tmp_path / "clip.mkv", silence(3), 3)
    recognizer = Heard()
    findings = find(path, recognizer)
    assert (findings.texts, recognizer.batches) == ([], [])
    assert findings.left_out == {"is a stretch of silence": 1}


def test_a_video_without_sound_is_no_failure(tmp_path):
    findings = find(write_spoken(tmp_path / "clip.mkv", None, 2))
    assert not findings.texts
    assert not findings.failed
    assert findings.left_out == {"is of a video without sound": 1}


def test_damaged_sound_costs_what_is_damaged(tmp_path):
    from tests.video.clips import picture, write_clip

    path = write_clip(tmp_path / "clip.mp4", [picture(n) for n in range(100)], audio_seconds=4)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"mdat") + 400
    data[place : place + 3000] = bytes(3000)
    path.write_bytes(data)
    assert sum(len(window.samples) for window in read_windows(str(path), RATE, 28.0)) > RATE
    (tmp_path / "broken.mp4").write_bytes(b"no video at all" * 100)
    with pytest.raises(VideoError):
        find(tmp_path / "broken.mp4")


@pytest.mark.parametrize("text", ["you you you you you", "thank you very much " * 12, "♪ ♪", "?!"])
def test_what_models_say_over_noise_is_left_out(clip, text):
    findings = find(clip, Heard(text))
    assert not findings.texts
    assert sum(findings.left_out.values()) == 1


def test_sentences_that_people_say_do_not_repeat_themselves():
    said = "A large red circle rises over a meadow, and then a small blue star falls slowly into the water. " * 2
    assert not repeats(said)
    assert not repeats("no no no")


def test_a_run_writes_pairs_that_can_be_embedded(tmp_path, clip):
    recognizer = Heard()
    report = find_pairs(clip.parent, tmp_path / "pairs.jsonl", SpeechFinder(recognizer), progress=False)
    assert (report.texts, report.failed) == (1, {})
    assert PairsFile(tmp_path / "pairs.jsonl").texts == 1
    again = find_pairs(clip.parent, tmp_path / "pairs.jsonl", SpeechFinder(recognizer), progress=False)
    assert (again.present, recognizer.batches) == (1, [1])


def test_a_model_of_the_hub_is_loaded_at_one_commit_and_refused_by_its_config(tmp_path, whisper, monkeypatch):
    with running_hub(tmp_path / "cache", monkeypatch) as hub:
        commit = hub.add("me/whisper", folder_files(whisper))
        assert load_recognizer("me/whisper").identity == f"me/whisper@{commit}"
        hub.add("me/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"weights"})
        pickled = {name: data for name, data in folder_files(whisper).items() if not name.endswith("safetensors")}
        hub.add("me/pickled", {**pickled, "pytorch_model.bin": b"pickle"})
        hub.forget_requests()
        with pytest.raises(ArtifactError, match=r"type 'bert'; speech is recognized by Whisper"):
            load_recognizer("me/bert")
        with pytest.raises(ArtifactError, match=r"no safetensors.*me/pickled@refs/pr/NUMBER"):
            load_recognizer("me/pickled")
        with pytest.raises(InputError, match="the language 'klingon' is not one of me/whisper; it has de, en"):
            load_recognizer("me/whisper", language="klingon")
        assert not any(name.endswith((".safetensors", ".bin")) for name in hub.downloaded)
