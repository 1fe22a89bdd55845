"""Texts and the ways in: other values are refused by their row before anything is loaded."""

from __future__ import annotations

import json
import re
import sys
import warnings

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder, clean_texts, load_encoder, train_joint
from dits_adapter.cli import main
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.encoders import EncoderSource
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.texts import MAX_CHARACTERS, check_texts
from dits_adapter.training.config import JointRecipe
from dits_adapter.training.joint.captions import Captions
from tests.no_texts import DIRTY, NO_TEXTS

NONE = pytest.mark.parametrize(("text", "reason"), NO_TEXTS.values(), ids=NO_TEXTS)


@NONE
def test_the_row_is_named_where_there_are_several(text, reason):
    with pytest.raises(InputError, match=f"^the text {reason}"):
        check_texts(text)
    with pytest.raises(InputError, match=f"^text 2 {reason}"):
        check_texts(iter(["a dog", "a cat", text]))


@pytest.mark.parametrize(
    ("texts", "message"),
    [(3, "the text is of type int"), (None, "the text is of type None"), (b"a", "the text is of type bytes")]
    + [(["a", value], f"text 1 is of type {type(value).__name__}") for value in (3, b"a", None, ["a"])],
)
def test_only_strings_are_texts(texts, message):
    with pytest.raises(InputError, match=f"^{message}.*; only strings are accepted"):
        check_texts(texts)


def test_every_other_string_is_one():
    texts = ["a", "🐕", "日本語", "it\x92s \x1b[0m", "a\tb\n", "\ufffd", "\U0001fae8", "x" * MAX_CHARACTERS]
    assert check_texts(iter(texts)) == texts
    assert check_texts("a dog") == ["a dog"]


def test_messages_are_short_and_can_be_printed_anywhere():
    for text, _ in NO_TEXTS.values():
        with pytest.raises(InputError) as caught:
            check_texts("filler " * 50 + text if text.strip(" \u200b\n") else text)
        assert len(str(caught.value)) < 350
        str(caught.value).encode()


class TestCleaning:
    @pytest.mark.parametrize(("dirty", "clean"), DIRTY.items())
    def test_is_that_of_openai(self, dirty, clean):
        assert clean_texts([dirty]) == [clean]
        assert clean_texts(f" {dirty}\u00a0\n b") == [f"{clean} b"]
        assert clean_texts(dirty, "none") == [dirty]

    def test_letters_become_small_and_blanks_one(self):
        assert clean_texts(["  A  Dog\u3000RUNS\t"]) == ["a dog runs"]

    @pytest.mark.parametrize("text", ["&nbsp;", "\x1b[0m", "\u00c2\u00a0"])
    def test_a_text_of_which_nothing_is_left(self, text):
        with pytest.raises(InputError, match=r"^text 1 \(.*\), once cleaned, is empty or blank"):
            clean_texts(["a dog", text])

    @NONE
    def test_refuses_what_is_no_text(self, text, reason):
        with pytest.raises(InputError, match=f"^text 1 {reason}"):
            clean_texts(["a dog", text])

    def test_an_unknown_one_and_a_missing_package(self, monkeypatch):
        with pytest.raises(InputError, match="text_cleaning is 'CLIP'"):
            load_encoder("no-such-encoder", text_cleaning="CLIP")
        monkeypatch.setitem(sys.modules, "ftfy", None)
        assert EncoderSource.find("demo-clip").text_cleaning == "none"
        for load in (load_encoder, DITSQueryEncoder.from_pretrained):
            with pytest.raises(MissingExtraError, match=r'pip install "dits-adapter\[cleaning\]"'):
                load("demo-clip", text_cleaning="clip")


@pytest.fixture(scope="module")
def bundled():
    return DITSQueryEncoder.from_pretrained("demo-linear")


class TestWaysIn:
    @NONE
    @pytest.mark.parametrize("way", ["encode_query", "encode_document", "embed"])
    def test_query_encoder(self, bundled, way, text, reason):
        with pytest.raises(InputError, match=f"^the text {reason}"):
            getattr(bundled, way)(text)
        with pytest.raises(InputError, match=f"^text 1 {reason}"):
            getattr(bundled, way)(["a dog", text])
        assert bundled._backend._encoder is None  # refused before CLIP is loaded

    @NONE
    def test_loaded_encoder(self, tiny_clip, text, reason):
        clip = load_encoder(tiny_clip)
        for way in (clip.embed_texts, clip.count_tokens):
            with pytest.raises(InputError, match=f"^text 1 {reason}"):
                way(["a dog", text])

    @NONE
    def test_file_of_pairs(self, tmp_path, text, reason):
        lines = [{"video": "a.mp4", "text": "a dog"}, {"video": "b.mp4", "text": ["a cat", text]}]
        (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(InputError, match=f'line 2: "text" {reason}'):
            PairsFile(tmp_path / "pairs.jsonl")

    @NONE
    def test_captions_of_joint_training(self, tmp_path, text, reason):
        captions = Captions.of([("a.mp4", "a dog"), ("b.mp4", text)])
        for pairs in ({"captions": captions}, {"captions": Captions.of([("a", "b")]), "validation": captions}):
            with pytest.raises(InputError, match=f"^text 1 {reason}"):
                train_joint(recipe=JointRecipe(), out=tmp_path, encoder="no-such", dataset="mine", **pairs)

    @NONE
    def test_search_command(self, text, reason, capsys):
        assert main(["search", text, "--adapter", "no-such-adapter"]) == 1
        assert re.match(f"dits-adapter: the text {reason}", capsys.readouterr().err)

    @pytest.mark.parametrize("command", ["bank", "recall"])
    def test_files_of_queries(self, tmp_path, capsys, command):
        (tmp_path / "queries.txt").write_text(f"a dog\n{'x' * 200_000}\n")
        out = ["--out", str(tmp_path / "out")] if command == "bank" else []
        assert main([command, str(tmp_path / "queries.txt"), "--adapter", "no-such-adapter", *out]) == 1
        assert "text 1 has 200,000 characters ('xxx" in capsys.readouterr().err


class TestLongTexts:
    LONG = "犬が走る " * 8  # 40 characters, 128 tokens of the tiny CLIP
    SAID = r"a text has \d+ tokens; the encoder reads the first 77 and ignores the rest \(reported once\): '犬"

    def test_are_counted_in_tokens_and_not_in_characters(self, tiny_clip):
        with pytest.warns(UserWarning, match="without an adapter"):
            encoder = DITSQueryEncoder.from_pretrained(tiny_clip)
        assert len(self.LONG) < 77
        with pytest.warns(UserWarning, match=self.SAID) as caught:
            first = encoder.encode_query(["a dog", self.LONG])[1]
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again = encoder.encode_query(self.LONG)
        np.testing.assert_allclose(again, first, atol=1e-6)
