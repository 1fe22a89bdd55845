"""Models of sentence-transformers against its own vectors: texts alone, with pictures, and with videos."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer

from dits_adapter import DITSQueryEncoder, MemoryStore, VideoEncoder, ingest
from dits_adapter.adapters import mean_shift
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder, load_text_encoder
from dits_adapter.errors import ArtifactError, InputError, MissingExtraError, SpaceMismatchError
from dits_adapter.sides import TextSide, VideoSide
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import unit
from tests.conftest import save_random_clip
from tests.encoders import sentence_models
from tests.encoders.checkpoints import SENTENCES
from tests.encoders.repositories import folder_files
from tests.hub import running_hub
from tests.video.clips import picture, write_clip

TEXTS = [*SENTENCES, "x", "a word " * 90]
ADDRESSES = ["https://example.com/dog.png", "https://youtu.be/dog", "data:image/png;base64,AAAA"]


@pytest.fixture(scope="module", params=["distilbert", "minilm"])
def texts_model(request, tmp_path_factory):
    return sentence_models.save_texts(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def pictures_model(tmp_path_factory):
    return sentence_models.save_pictures(tmp_path_factory.mktemp("models") / "llava")


def frames(number, height=40, width=56):
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in range(number)]
    return [np.asarray(Image.fromarray(a).resize((width, height), Image.Resampling.BILINEAR)) for a in coarse]


def assert_same(ours, theirs):
    assert np.sum(unit(ours) * unit(theirs), axis=-1).min() >= 0.99999
    assert (unit(theirs) @ unit(theirs).T - np.eye(len(theirs))).max() < 0.999, "the reference tells inputs apart"


class TestTexts:
    def test_are_those_of_sentence_transformers(self, texts_model):
        encoder = load_text_encoder(texts_model, device="cpu")
        theirs = SentenceTransformer(str(texts_model), device="cpu").encode_query(TEXTS)
        assert_same(encoder.embed_texts(TEXTS, batch_size=3), theirs)
        assert encoder.width == theirs.shape[1]
        assert encoder.embed_texts([]).shape == (0, encoder.width)
        counts = encoder.count_tokens(TEXTS)
        assert counts[-1] > encoder.max_tokens == 64
        assert max(counts[:-1]) <= 64

    def test_have_the_prompt_of_the_repository(self, tmp_path):
        folder = sentence_models.save_texts(tmp_path / "prompted", "minilm", prompts={"query": "query: "})
        encoder = load_text_encoder(folder, device="cpu")
        assert TextSide.of(encoder).prompt == "query: "
        model = SentenceTransformer(str(folder), device="cpu")
        assert_same(encoder.embed_texts(TEXTS), model.encode_query(TEXTS))
        assert not np.allclose(encoder.embed_texts(TEXTS), model.encode(TEXTS), atol=1e-3)
        plain = sentence_models.save_texts(tmp_path / "plain", "minilm")
        assert encoder.count_tokens(["x"])[0] > load_text_encoder(plain).count_tokens(["x"])[0]

    def test_embed_no_videos(self, texts_model):
        for load in (load_encoder, VideoEncoder.from_pretrained):
            with pytest.raises(InputError, match="embeds texts alone"):
                load(texts_model)
        with pytest.raises(InputError, match=r"embeds texts alone.*--videos ID"):
            DITSQueryEncoder.from_pretrained(texts_model)

    @pytest.mark.filterwarnings("ignore:.*is an encoder without an adapter")
    def test_search_the_videos_of_another_encoder(self, tmp_path):
        """As the texts of clip-ViT-B-32-multilingual-v1 search the images of clip-ViT-B-32."""
        tower = sentence_models.save_texts(tmp_path / "multilingual", "distilbert", width=32)
        clip = save_random_clip(tmp_path / "clip")
        other = save_random_clip(tmp_path / "other", seed=1)
        (tmp_path / "videos").mkdir()
        write_clip(tmp_path / "videos" / "a.mp4", [picture(n) for n in range(5)])
        queries = DITSQueryEncoder.from_pretrained(tower, videos=clip)
        for videos in (clip, other):
            store = MemoryStore(space=VideoEncoder.from_pretrained(videos, frames=2).space)
            ingest(store, tmp_path / "videos", VideoEncoder.from_pretrained(videos, frames=2), progress=False)
            if videos == clip:
                queries.check(store)
                assert store.search(queries.encode_query("a dog"), limit=1)
            else:
                with pytest.raises(SpaceMismatchError, match="images differently"):
                    queries.check(store)
        with pytest.raises(InputError, match="dimensions"):
            DITSQueryEncoder.from_pretrained(tower, videos=save_random_clip(tmp_path / "narrow", width=16))

    def test_go_with_an_adapter_to_videos_of_another_encoder(self, texts_model, tmp_path):
        """Each side is loaded from beside the adapter."""
        encoder = load_text_encoder(shutil.copytree(texts_model, tmp_path / texts_model.name))
        clip = load_encoder(save_random_clip(tmp_path / "clip", width=encoder.width))
        space = EmbeddingSpace(text=TextSide.of(encoder), video=VideoSide.of(clip, frames=2), shared=False)
        rng = np.random.default_rng(0)
        adapter = mean_shift(rng.normal(size=(9, encoder.width)), rng.normal(size=(9, clip.width)))
        artifact = Artifact(adapter, space).save(tmp_path / "adapter")
        queries = DITSQueryEncoder.from_pretrained(artifact)
        np.testing.assert_array_equal(queries.embed(TEXTS), encoder.embed_texts(TEXTS))
        assert queries.encode_query("a dog").shape == (clip.width,)
        assert VideoEncoder.from_pretrained(artifact).space.video == space.video
        exported = DITSQueryEncoder.from_pretrained(queries.export_onnx(tmp_path / "exported"), backend="onnx")
        vectors = encoder.embed_texts(TEXTS)
        np.testing.assert_allclose(exported.adapt(vectors), queries.adapt(vectors), atol=1e-5)
        with pytest.raises(InputError, match="cannot be loaded here"):  # the text tower stays on torch
            exported.encode_query("a dog")

    def test_come_from_the_hub_file_by_file(self, tmp_path, monkeypatch, texts_model):
        files = folder_files(texts_model)
        name = "sentence-transformers/clip-ViT-B-32-multilingual-v1"
        with running_hub(tmp_path / "cache", monkeypatch) as hub:
            commit = hub.add(name, {**files, "pytorch_model.bin": b"", "onnx/model.onnx": b"", "tf_model.h5": b""})
            encoder = load_text_encoder(name, device="cpu")
            assert encoder.revision == commit
            assert set(hub.downloaded) == files.keys() - {"README.md"}
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
            again = load_text_encoder(name, device="cpu")
        assert again.text_digest == encoder.text_digest == load_text_encoder(texts_model).text_digest

    def test_pickled_modules_are_refused(self, texts_model, tmp_path):
        folder = shutil.copytree(texts_model, tmp_path / "pickled")
        for weights in sorted(folder.rglob("*.safetensors")):
            weights.rename(weights.with_name("pytorch_model.bin"))
            with pytest.raises(ArtifactError, match="holds no safetensors"):
                load_text_encoder(folder)
            weights.with_name("pytorch_model.bin").rename(weights)

    @pytest.mark.parametrize(
        ("modules", "said"),
        [
            ([], "does not begin with a model of transformers"),
            ([{"type": "sentence_transformers.models.Router", "path": ""}], "names a module Router"),
            ([{"type": "os.system", "path": ""}], "never run"),
            ({}, "does not begin"),
            ([{"type": "sentence_transformers.models.Transformer", "path": "../minilm"}], "lies outside"),
            ([{"type": "sentence_transformers.models.Transformer", "path": "a/../../minilm"}], "lies outside"),
            ([1], "is no list of modules"),
        ],
    )
    def test_other_modules(self, texts_model, tmp_path, modules, said):
        folder = shutil.copytree(texts_model, tmp_path / "others")
        (folder / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(ArtifactError, match=said):
            load_text_encoder(folder)


class TestPictures:
    def test_are_those_of_sentence_transformers(self, pictures_model):
        encoder = load_encoder(pictures_model, device="cpu")
        model = SentenceTransformer(str(pictures_model), device="cpu", processor_kwargs=sentence_models.ON_PILLOW)
        assert_same(encoder.embed_texts(TEXTS, batch_size=3), model.encode_query(TEXTS))
        clips = [encoder.preprocess(frames(3)), encoder.preprocess(frames(6, 51, 33)[3:])]
        ours = encoder.embed(clips, batch_size=2)
        theirs = model.encode_document([Image.fromarray(frame) for clip in clips for frame in clip])
        assert ours.pooled is None
        assert_same(ours.frames.reshape(6, -1), theirs)
        assert encoder.embed([]).frames.shape[0] == 0
        assert encoder.preprocess(frames(1, 900, 1600)).shape == (1, 432, 768, 3)

    def test_the_space_names_prompts_and_preprocessing(self, pictures_model):
        space = EmbeddingSpace.of(load_encoder(pictures_model, device="cpu"))
        assert space.text.prompt == sentence_models.QUERY
        assert "prompt 'Describe it.'" in space.video.preprocessing
        assert (space.video.pooling, space.video.frames) == ("mean", 12)

    def test_texts_that_look_like_addresses_are_not_opened(self, pictures_model, monkeypatch):
        monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("connects"))
        encoder = load_encoder(pictures_model, device="cpu")
        vectors = unit(encoder.embed_texts([*ADDRESSES, "a dog"]))
        assert len(encoder.count_tokens(ADDRESSES)) == 3
        assert (vectors @ vectors.T - np.eye(4)).max() < 0.99999

    def test_videos_are_searched(self, pictures_model, tmp_path):
        (tmp_path / "videos").mkdir()
        write_clip(tmp_path / "videos" / "a.mp4", [picture(n) for n in range(5)])
        videos = VideoEncoder.from_pretrained(pictures_model, frames=2)
        store = MemoryStore(space=videos.space)
        ingest(store, tmp_path / "videos", videos, progress=False)
        with pytest.warns(UserWarning, match="without an adapter"):
            queries = DITSQueryEncoder.from_pretrained(pictures_model)
        queries.check(store)
        assert store.search(queries.encode_query("a dog"), limit=1)[0].path.endswith("a.mp4")


class TestVideos:
    def test_are_those_of_sentence_transformers(self, tmp_path):
        pytest.importorskip("torchvision", reason="Qwen3-VL's processors need torchvision")
        model = sentence_models.save_videos(tmp_path / "qwen3-vl")
        encoder = load_encoder(model, device="cpu")
        theirs = SentenceTransformer(str(model), device="cpu")
        assert_same(encoder.embed_texts(TEXTS), theirs.encode_query(TEXTS))
        clips = [frames(4), frames(8, 48, 80)[4:]]
        ours = encoder.embed([encoder.preprocess(clip) for clip in clips])
        assert ours.frames is None
        metadata = {"fps": 1.0, "total_num_frames": 4, "duration": 4.0, "frames_indices": [0, 1, 2, 3]}
        videos = [{"video": {"array": np.stack(clip), "video_metadata": metadata}} for clip in clips]
        options = {"processing_kwargs": {"video": {"do_sample_frames": False}}}
        expected = np.concatenate([theirs.encode_document([video], **options) for video in videos])
        assert_same(ours.pooled, expected)
        assert EmbeddingSpace.of(encoder).video.pooling == "encoder"


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_that_needs_torchvision_names_it(pictures_model, tmp_path):
    folder = shutil.copytree(pictures_model, tmp_path / "qwen")
    config = json.loads((folder / "processor_config.json").read_text())
    videos = {"video_processor_type": "Qwen3VLVideoProcessor", "patch_size": 8}
    config |= {"processor_class": "Qwen3VLProcessor", "video_processor": videos}
    (folder / "processor_config.json").write_text(json.dumps(config))
    with pytest.raises(MissingExtraError, match="pip install torchvision"):
        load_encoder(folder)
