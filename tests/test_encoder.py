"""DITSQueryEncoder as its users meet it: real CLIP architecture, real tokenizer, adapter from disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from dits_adapter import DITSQueryEncoder
from dits_adapter.adapters import DITSAdapter, mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, InputError, SpaceMismatchError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from tests.conftest import ANSWER, embed_images
from tests.spaces import renamed

CALIBRATION = Calibration(slope=16, offset=-10, videos=30, queries=60, log_loss=0.3, ece=0.02, answer=ANSWER)
TEXTS = ["a dog", "two dogs chase a ball across a wet street", "x", "naïve 日本語 🎬"]


@pytest.fixture(scope="module")
def space(tiny_clip):
    return EmbeddingSpace.of(load_encoder(tiny_clip))


@pytest.fixture(scope="module")
def saved(space, tmp_path_factory, tiny_clip):
    adapter = DITSAdapter(SamplerConfig(width=32, depth=2))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.06, generator=torch.Generator().manual_seed(0))
    folder = Artifact(adapter, space, calibration=CALIBRATION).save(tmp_path_factory.mktemp("adapters") / "dits")
    shutil.copytree(tiny_clip, folder.parent / "tiny-clip")  # beside it, where it is looked for
    return folder


@pytest.fixture(scope="module")
def encoder(saved):
    return DITSQueryEncoder.from_pretrained(saved)


def test_queries_are_adapted_unit_vectors_documents_are_plain(encoder, tiny_clip):
    queries, documents = encoder.encode_query(TEXTS), encoder.encode_document(TEXTS)
    raw = load_encoder(tiny_clip).embed_texts(TEXTS)
    for vectors in (queries, documents):
        assert vectors.shape == (4, 32)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(documents, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(queries, encoder.adapt(raw), atol=1e-5)
    assert np.all(np.sum(queries * documents, axis=1) < 0.99)


def test_strings_generators_and_nothing(encoder):
    assert encoder.encode_query("a dog").shape == (32,)
    np.testing.assert_allclose(encoder.encode_query("a dog"), encoder.encode_query(TEXTS)[0], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_query(t for t in TEXTS), encoder.encode_query(TEXTS), atol=1e-6)
    assert encoder.encode_query([]).shape == (0, 32)
    assert encoder.encode_document([]).dtype == np.float32


def test_the_same_query_gives_the_same_vector(encoder):
    assert np.array_equal(encoder.encode_query(TEXTS), encoder.encode_query(TEXTS))
    alone = np.stack([encoder.encode_query(text) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode_query(TEXTS), alone, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_query(TEXTS, batch_size=1), alone, atol=1e-5)


@pytest.mark.parametrize("options", [{"steps": 0}, {"strength": 0}])
def test_plain_clip_bit_for_bit(saved, options):
    encoder = DITSQueryEncoder.from_pretrained(saved, **options)
    assert np.array_equal(encoder.encode_query(TEXTS), encoder.encode_document(TEXTS))


def test_strength_lies_between(saved, encoder):
    half = DITSQueryEncoder.from_pretrained(saved, strength=0.5).encode_query(TEXTS)
    plain, full = encoder.encode_document(TEXTS), encoder.encode_query(TEXTS)
    angle = np.arccos(np.sum(plain * full, axis=1))
    np.testing.assert_allclose(np.arccos(np.sum(plain * half, axis=1)), angle / 2, atol=1e-3)


def test_steps_are_those_asked_for(saved):
    encoder = DITSQueryEncoder.from_pretrained(saved, steps=3)
    vectors = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    adapted, path = encoder.adapt(vectors, return_trajectory=True)
    assert path.shape == (4, 2, 32)
    np.testing.assert_allclose(path[-1] / np.linalg.norm(path[-1], axis=1, keepdims=True), adapted, atol=1e-6)
    np.testing.assert_allclose(path[0], vectors / np.linalg.norm(vectors, axis=1, keepdims=True), atol=1e-6)


def test_adapt_needs_no_text_encoder(saved, tmp_path):
    alone = shutil.copytree(saved, tmp_path / "alone")
    with pytest.raises(ArtifactError, match="encoder=PATH"):
        DITSQueryEncoder.from_pretrained(alone)
    encoder = DITSQueryEncoder.from_pretrained(saved)
    assert encoder.adapt(np.ones(32)).shape == (32,)
    assert encoder._backend._encoder is None


def test_long_texts_are_cut_as_clip_does_and_said_once(saved, tiny_clip):
    encoder = DITSQueryEncoder.from_pretrained(saved)
    long = "abc " * 40
    with pytest.warns(UserWarning, match=r"122 tokens; the encoder reads the first 77"):
        first = encoder.encode_query(long)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(encoder.encode_query(long), first)
    tokenizer = load_encoder(tiny_clip).texts.tokenizer
    cut = tokenizer.decode(tokenizer(long)["input_ids"][1:76])
    np.testing.assert_allclose(encoder.encode_query(cut), first, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["fine", 3], "text 1 is of type int"),
        ([b"bytes"], "the text is of type bytes"),
        ("holiday/beach.mp4", "^the text is the name of a video file.*VideoEncoder"),
        (["a beach", "beach.mp4"], "^text 1 is the name of a video file"),
    ],
)
def test_what_is_no_text_is_refused(encoder, texts, message):
    for encode in (encoder.encode_query, encoder.encode_document):
        with pytest.raises(InputError, match=message):
            encode(texts)


class TestAnotherEncoder:
    def test_raise(self, saved, other_clip):
        encoder = DITSQueryEncoder.from_pretrained(saved, encoder=other_clip)
        with pytest.raises(SpaceMismatchError, match=r"tiny-clip.*other-clip"):
            encoder.encode_query("a dog")

    def test_warn(self, saved, other_clip):
        encoder = DITSQueryEncoder.from_pretrained(saved, encoder=other_clip, on_mismatch="warn")
        with pytest.warns(UserWarning, match="expect wrong rankings"):
            query = encoder.encode_query("a dog")
        assert not np.allclose(query, encoder.encode_document("a dog"), atol=1e-3)

    def test_bypass_is_plain_clip(self, saved, other_clip):
        encoder = DITSQueryEncoder.from_pretrained(saved, encoder=other_clip, on_mismatch="bypass")
        with pytest.warns(UserWarning, match="plain CLIP"):
            query = encoder.encode_query("a dog")
        assert np.array_equal(query, encoder.encode_document("a dog"))
        assert np.array_equal(encoder.as_sentence_transformer().encode_query("a dog"), query)

    def test_unknown_policy(self, saved):
        with pytest.raises(InputError, match="on_mismatch"):
            DITSQueryEncoder.from_pretrained(saved, on_mismatch="ignore")


class TestCalibration:
    def test_is_the_artifacts(self, encoder):
        assert encoder.calibration == CALIBRATION

    @pytest.mark.parametrize(
        ("options", "known"),
        [({"steps": 10}, True), ({"steps": 9}, False), ({"steps": 0}, False), ({"strength": 0.99}, False)],
    )
    def test_holds_for_what_it_was_fitted_with(self, saved, options, known):
        assert DITSQueryEncoder.from_pretrained(saved, **options).calibration == (CALIBRATION if known else None)

    def test_an_adapter_with_other_steps_is_saved_without(self, saved, tmp_path):
        DITSQueryEncoder.from_pretrained(saved, steps=9).save_pretrained(tmp_path / "nine")
        assert Artifact.load(tmp_path / "nine").calibration is None

    @pytest.mark.parametrize("policy", ["warn", "bypass"])
    def test_not_in_another_space(self, saved, other_clip, policy):
        encoder = DITSQueryEncoder.from_pretrained(saved, encoder=other_clip, on_mismatch=policy)
        with pytest.warns(UserWarning, match="goes with texts of"):
            encoder.encode_query("a dog")
        assert encoder.calibration is None

    def test_a_clip_without_adapter_has_none(self, tiny_clip):
        with pytest.warns(UserWarning, match="without an adapter"):
            assert DITSQueryEncoder.from_pretrained(tiny_clip).calibration is None


def test_any_adapter_serves_as_query_encoder(space, tiny_clip, tmp_path):
    rng = np.random.default_rng(0)
    adapter = mean_shift(rng.normal(size=(9, 32)), rng.normal(size=(9, 32)))
    folder = Artifact(adapter, space).save(tmp_path / "shift")
    encoder = DITSQueryEncoder.from_pretrained(folder, encoder=tiny_clip)
    assert encoder.encode_query(TEXTS).shape == (4, 32)
    with pytest.raises(InputError, match="steps cannot be chosen: an adapter of kind affine has none"):
        DITSQueryEncoder.from_pretrained(folder, encoder=tiny_clip, steps=3)
    with pytest.raises(InputError, match="no trajectory"):
        encoder.adapt(np.ones(32), return_trajectory=True)


@pytest.mark.parametrize(
    ("options", "message"), [({"steps": 11}, "0 to 10"), ({"strength": -1}, "strength is -1")]
)
def test_options_outside_their_range(saved, options, message):
    with pytest.raises(InputError, match=message):
        DITSQueryEncoder.from_pretrained(saved, **options)


def test_threads_agree_with_one_thread(saved):
    encoder = DITSQueryEncoder.from_pretrained(saved)
    texts = [f"scene {i} with {'many ' * (i % 7)}words" for i in range(40)]
    expected = np.stack([encoder.encode_query(text) for text in texts])
    fresh = DITSQueryEncoder.from_pretrained(saved)  # the model itself is loaded under contention
    with ThreadPoolExecutor(8) as pool:
        found = np.stack(list(pool.map(fresh.encode_query, texts)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_save_load_round_trip(encoder, tmp_path, tiny_clip):
    again = DITSQueryEncoder.from_pretrained(encoder.save_pretrained(tmp_path / "again"), encoder=tiny_clip)
    assert np.array_equal(again.encode_query(TEXTS), encoder.encode_query(TEXTS))


def test_push_uploads_the_artifact(encoder, monkeypatch):
    calls = {}

    class Hub:
        def create_repo(self, repo_id, private, exist_ok):
            calls["created"] = (repo_id, private)

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls["files"] = sorted(path.name for path in folder_path.iterdir())
            calls["title"] = (folder_path / "README.md").read_text().split("# ")[1].split("\n")[0]
            return type("Commit", (), {"commit_url": "address"})

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert encoder.push_to_hub("someone/adapter", private=True) == "address"
    assert calls["created"] == ("someone/adapter", True)
    assert calls["files"] == ["README.md", "adapter.safetensors", "config.json"]
    assert calls["title"] == "adapter"


class TestSentenceTransformer:
    def test_queries_adapted_all_else_plain(self, encoder):
        model = encoder.as_sentence_transformer()
        assert np.array_equal(model.encode_query(TEXTS), encoder.encode_query(TEXTS))
        assert np.array_equal(model.encode_document(TEXTS), encoder.encode_document(TEXTS))
        assert np.array_equal(model.encode(TEXTS), encoder.encode_document(TEXTS))

    def test_images_are_never_adapted(self, encoder, tiny_clip):
        from PIL import Image

        image = Image.effect_mandelbrot((40, 30), (-2, -1, 1, 1), 9).convert("RGB")
        raw = embed_images(load_encoder(tiny_clip), [np.asarray(image)])
        found = encoder.as_sentence_transformer().encode_query([image])
        np.testing.assert_allclose(found, raw / np.linalg.norm(raw), atol=1e-5)


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import sys, dits_adapter; dir(dits_adapter);"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'qdrant_client', 'av', 'decord') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_sentence_transformers_is_imported_for_its_model_alone(saved):
    code = (
        "import sys; from dits_adapter import DITSQueryEncoder;"
        f"DITSQueryEncoder.from_pretrained({str(saved)!r}, backend='torch').encode_query('a dog');"
        "assert 'torch' in sys.modules; print('sentence_transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_bare_clip_is_plain_and_says_so(tiny_clip):
    with pytest.warns(UserWarning, match=r"tiny-clip is an encoder without an adapter.*dits-adapter train"):
        encoder = DITSQueryEncoder.from_pretrained(tiny_clip)
    assert np.array_equal(encoder.encode_query(TEXTS), encoder.encode_document(TEXTS))
    assert encoder.space == EmbeddingSpace.of(load_encoder(tiny_clip), frames=None)


@pytest.mark.parametrize(
    ("option", "message"), [({"strength": 2}, "strength is 2"), ({"on_mismatch": "no"}, "'no'")]
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(option, message, tmp_path):
    with pytest.raises(InputError, match=message):
        DITSQueryEncoder.from_pretrained(tmp_path / "not there", **option)


def test_the_warning_of_a_bare_clip_points_at_the_caller(tiny_clip):
    with pytest.warns(UserWarning, match="without an adapter") as caught:
        DITSQueryEncoder.from_pretrained(tiny_clip)
    assert caught[0].filename == __file__


def test_an_adapter_in_memory_needs_no_folder():
    loaded = DITSQueryEncoder.from_pretrained("demo-linear", backend="torch")
    artifact = Artifact.load("demo-linear")
    encoder, text = DITSQueryEncoder.of(artifact), "a red circle"
    np.testing.assert_allclose(encoder.encode_query(text), loaded.encode_query(text), atol=1e-6)
    vectors = loaded.embed([text])
    elsewhere = replace(artifact, space=renamed(artifact.space, "somebody/clip"))
    bare = DITSQueryEncoder.of(elsewhere, strength=0.5)
    expected = DITSQueryEncoder.from_pretrained("demo-linear", strength=0.5).adapt(vectors)
    np.testing.assert_allclose(bare.adapt(vectors), expected, atol=1e-6)
    with pytest.raises(InputError, match=r"somebody/clip .* cannot be loaded here\. Embed the texts with it"):
        bare.encode_query(text)
    with pytest.raises(InputError, match="strength is 2"):
        DITSQueryEncoder.of(artifact, strength=2)
