"""Cleaning of texts is part of an encoder's identity: what loads a space's encoder cleans as the space says."""

from __future__ import annotations

import pickle
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from dits_adapter import (
    Artifact,
    DITSQueryEncoder,
    EmbeddingCache,
    EmbeddingSpace,
    EncoderFamily,
    MemoryStore,
    Pairs,
    QdrantStore,
    VideoEncoder,
    load_encoder,
    register_family,
)
from dits_adapter.adapters import mean_shift
from dits_adapter.cli import main
from dits_adapter.encoders import base
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.training.joint._trainer import collate
from tests.encoders import random_projection
from tests.no_texts import DIRTY, NO_TEXTS

WRITTEN, MEANT = list(DIRTY), list(DIRTY.values())


def cosines(a, b):
    return np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def plain(tiny_clip):
    return load_encoder(tiny_clip, device="cpu")


@pytest.fixture(scope="module")
def cleaning(tiny_clip):
    return load_encoder(tiny_clip, device="cpu", text_cleaning="clip")


@pytest.fixture(scope="module")
def adapter(cleaning, tiny_clip, tmp_path_factory):
    """Folder of an adapter for the CLIP that cleans, which lies beside it."""
    rng = np.random.default_rng(0)
    shift = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
    folder = Artifact(shift, EmbeddingSpace.of(cleaning)).save(tmp_path_factory.mktemp("adapters") / "shift")
    shutil.copytree(tiny_clip, folder.parent / "tiny-clip")
    return folder


class TestEncoder:
    def test_embeds_what_is_meant(self, plain, cleaning):
        meant = plain.embed_texts(MEANT)
        np.testing.assert_allclose(cosines(cleaning.embed_texts(WRITTEN), meant), 1, atol=1e-5)
        assert np.all(cosines(plain.embed_texts(WRITTEN), meant) < 0.999)

    def test_counts_the_tokens_of_what_is_meant(self, plain, cleaning):
        assert cleaning.count_tokens(WRITTEN) == plain.count_tokens(MEANT)

    def test_a_family_without_cleaning_says_so(self, tmp_path, monkeypatch):
        monkeypatch.setattr(base, "_FAMILIES", dict(base._FAMILIES))
        register_family(EncoderFamily("random-projection", random_projection._load))
        folder = random_projection.save(tmp_path / "own")
        assert load_encoder(folder).text_cleaning == "none"
        with pytest.raises(InputError, match=r"own: text_cleaning is 'clip'; .* know 'none' alone"):
            load_encoder(folder, text_cleaning="clip")


class TestSpace:
    def test_states_it_and_names_the_same_videos(self, plain, cleaning):
        ours, theirs = EmbeddingSpace.of(cleaning), EmbeddingSpace.of(plain)
        assert ours.video == theirs.video
        assert ours.fingerprint != theirs.fingerprint
        assert "texts cleaned: clip" in str(ours)
        assert EmbeddingSpace.model_validate_json(ours.model_dump_json()) == ours
        assert ours.text.differences(theirs.text) == ["text_cleaning 'clip' against 'none'"]
        with pytest.raises(SpaceMismatchError, match=r"Embed the texts again.*videos can stay"):
            ours.require(theirs, mine="the adapter", theirs="the pairs")

    @pytest.mark.parametrize("kind", [MemoryStore, partial(QdrantStore, ":memory:")])
    def test_collections_serve_queries_and_take_videos_of_either(self, plain, cleaning, adapter, kind):
        ours, theirs = (CollectionMetadata(space=EmbeddingSpace.of(encoder)) for encoder in (cleaning, plain))
        store = kind(space=ours.space)
        store.create(theirs)
        store.create(ours)
        assert store.open() == theirs.space
        DITSQueryEncoder.from_pretrained(adapter).check(store)

    def test_an_adapter_of_cleaned_texts_refuses_pairs_of_others(self, plain, adapter, tmp_path, capsys):
        rows = np.eye(32, dtype=np.float32)
        Pairs(rows, rows, np.arange(32), EmbeddingSpace.of(plain)).save(tmp_path / "pairs")
        assert main(["calibrate", str(tmp_path / "pairs"), str(adapter), "--out", str(tmp_path / "out")]) == 1
        assert "text_cleaning 'clip' against 'none'. Embed the texts again" in capsys.readouterr().err


class TestFollowTheSpace:
    def test_query_encoder(self, adapter, plain):
        encoder = DITSQueryEncoder.from_pretrained(adapter)
        np.testing.assert_allclose(
            cosines(encoder.encode_document(WRITTEN), plain.embed_texts(MEANT)), 1, atol=1e-5
        )
        np.testing.assert_allclose(encoder.encode_query(WRITTEN), encoder.encode_query(MEANT), atol=1e-5)
        copied = pickle.loads(pickle.dumps(encoder))
        np.testing.assert_allclose(copied.encode_query(WRITTEN), encoder.encode_query(MEANT), atol=1e-5)

    def test_another_cleaning_than_the_adapters_is_another_space(self, adapter):
        with pytest.raises(SpaceMismatchError, match="text_cleaning 'clip' against 'none'"):
            DITSQueryEncoder.from_pretrained(adapter, text_cleaning="none").encode_query("a dog")

    @pytest.mark.filterwarnings("ignore:.*without an adapter")
    def test_a_bare_clip_does_as_it_is_told(self, tiny_clip, plain):
        encoder = DITSQueryEncoder.from_pretrained(tiny_clip, text_cleaning="clip")
        assert encoder.space.text.text_cleaning == "clip"
        np.testing.assert_allclose(cosines(encoder.encode_query(WRITTEN), plain.embed_texts(MEANT)), 1, atol=1e-5)
        assert pickle.loads(pickle.dumps(encoder)).space == encoder.space

    def test_bank(self, tiny_clip, tmp_path):
        (tmp_path / "queries.txt").write_text("\n".join([*WRITTEN, *(f"scene {n}" for n in range(9))]), "utf-8")
        command = ["bank", str(tmp_path / "queries.txt"), "--adapter", str(tiny_clip), "--text-cleaning", "clip"]
        assert main([*command, "--out", str(tmp_path / "bank")]) == 0
        bank = Artifact.load(tmp_path / "bank")
        assert bank.space.text.text_cleaning == "clip"
        encoder = DITSQueryEncoder.from_pretrained(tmp_path / "bank", encoder=tiny_clip)
        found = encoder.encode_document(MEANT) @ bank.adapter.bank.numpy().T
        np.testing.assert_allclose(found.max(axis=1), 1, atol=1e-5)  # the bank holds what is meant

    def test_encoder_of_videos(self, adapter, tiny_clip):
        encoder = VideoEncoder.from_pretrained(adapter)
        assert (encoder.encoder.text_cleaning, encoder.space.text.text_cleaning) == ("clip", "clip")
        assert VideoEncoder.from_pretrained(tiny_clip).space.text.text_cleaning == "none"
        told = VideoEncoder.from_pretrained(tiny_clip, text_cleaning="clip")
        assert pickle.loads(pickle.dumps(told)).space == encoder.space

    def test_sentence_transformers(self, adapter, plain, tmp_path):
        model = DITSQueryEncoder.from_pretrained(adapter).as_sentence_transformer()
        model.save_pretrained(str(tmp_path))
        again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
        for one in (model, again):
            np.testing.assert_allclose(cosines(one.encode(WRITTEN), plain.embed_texts(MEANT)), 1, atol=1e-5)
            with pytest.raises(InputError, match=r"^the text holds '\\udce4'"):
                one.encode_query(["a dog", NO_TEXTS["a byte of Latin-1"][0]])
            with pytest.warns(UserWarning, match=r"a text has 122 tokens; the encoder reads the first 77"):
                one.encode(["a dog", "abc " * 40])

    def test_joint_training(self, plain, cleaning):
        pixels = torch.zeros(1)
        batches = [
            collate(encoder.texts, [{"text": text, "pixels": pixels, "video": 0} for text in texts])
            for encoder, texts in ((cleaning, WRITTEN), (plain, MEANT), (plain, WRITTEN))
        ]
        assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
        assert batches[2]["input_ids"].shape != batches[1]["input_ids"].shape

    def test_cache(self, adapter, tiny_clip, plain, tmp_path):
        np.save(tmp_path / "text.npy", plain.embed_texts(MEANT))
        np.save(tmp_path / "video.npy", plain.embed_texts(MEANT))
        (tmp_path / "captions.txt").write_text("\n".join(WRITTEN), "utf-8")
        vectors = [str(tmp_path / name) for name in ("text.npy", "video.npy")]
        command = ["import", *vectors, "--captions", str(tmp_path / "captions.txt")]
        for name, options in (("told", [str(tiny_clip), "--text-cleaning", "clip"]), ("follows", [str(adapter)])):
            assert main([*command, "--encoder", *options, "--out", str(tmp_path / name)]) == 0
            assert EmbeddingCache(tmp_path / name).space.text.text_cleaning == "clip"

    def test_vectors_of_cleaned_texts_are_told_from_others(self, tiny_clip, plain, tmp_path, capsys):
        texts = ["a dog"] * 20
        texts[7] = WRITTEN[0]
        np.save(tmp_path / "text.npy", plain.embed_texts([*texts[:7], MEANT[0], *texts[8:]]))
        (tmp_path / "captions.txt").write_text("\n".join(texts), "utf-8")
        vectors = [str(tmp_path / "text.npy")] * 2
        options = ["--captions", str(tmp_path / "captions.txt"), "--encoder", str(tiny_clip)]
        assert main(["import", *vectors, *options, "--out", str(tmp_path / "cache")]) == 1
        assert "text 7 " in (message := capsys.readouterr().err)
        assert "text_cleaning='none'" in message
