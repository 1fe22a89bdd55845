"""`dits-adapter pairs --from speech` and `--from captions`, from folder to file."""

from __future__ import annotations

import json

import pytest

from dits_adapter.cli import main
from dits_adapter.data.pairs_file import PairsFile
from tests.sources.checkpoints import save_blip, save_wav2vec2
from tests.sources.sound import noise, write_spoken


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    (folder / "videos").mkdir()
    write_spoken(folder / "videos" / "a.mkv", noise(3), 3)
    write_spoken(folder / "videos" / "mute.mkv", None, 1)
    save_wav2vec2(folder / "hears")
    save_blip(folder / "sees")
    return folder


def test_both_ways_add_to_one_file(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    command = ["pairs", "videos", "--out", "pairs.jsonl"]
    assert main([*command, "--from", "speech", "--model", "hears", "--batch-size", "2"]) == 0
    assert "1 × is of a video without sound" in capsys.readouterr().out
    captions = "--from captions --model sees --segment-seconds 2 --frames 2"
    assert main([*command, *captions.split()]) == 0
    said = capsys.readouterr()
    assert "caption:" in said.out
    assert main([*command, *captions.split(), "--encoder", "demo-clip"]) == 0
    filtered = capsys.readouterr().out
    assert "filter   left all texts in pairs.jsonl: it takes texts of 20 videos or spans to tell" in filtered
    assert "dits-adapter embed pairs.jsonl --encoder demo-clip" in filtered
    assert "speech:" in said.out
    lines = [json.loads(line) for line in (place / "pairs.jsonl").read_text("utf-8").splitlines()]
    assert {line["source"] for line in lines} == {"speech", "caption"}
    assert all(0 < line["confidence"] <= 1 for line in lines)
    assert PairsFile(place / "pairs.jsonl").videos >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--from speech", "--from speech runs a model; name it: --model openai/whisper-tiny"),
        ("--from speech --model sees", "sees: is a model of type 'blip'; speech is recognized by"),
        ("--from captions --model hears", "hears: is a model of type 'wav2vec2'; captions are written by"),
        ("--from captions --model sees --language en", "--language is for --from text or speech"),
        ("--from captions --model sees --batch-size 0", "--batch-size is 0"),
        ("--from captions --model sees --rewrite hears", "type 'wav2vec2'; queries are written by chat models"),
        ("--from speech --model hears --device tpu", "the device 'tpu' cannot be used here"),
        ("--from speech --model hears --language en", "a language is for Whisper"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(place, monkeypatch, capsys, words, said):
    monkeypatch.chdir(place)
    assert main(["pairs", "videos", "--out", "other.jsonl", *words.split()]) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (place / "other.jsonl").exists()


def test_where_nothing_is_heard_the_other_model_is_named(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    assert main(["pairs", "videos/mute.mkv", "--out", "none.jsonl", "--from", "speech", "--model", "hears"]) == 1
    assert "no texts were found. --from captions takes what a model sees in the videos" in capsys.readouterr().err
