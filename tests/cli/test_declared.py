"""Vectors of an encoder that nobody can load: from files to a search, as docs/vectors-from-an-api.md walks it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder, EmbeddingSpace, InputError, SpaceMismatchError, VideoEncoder, load_pairs
from dits_adapter.cli import main
from dits_adapter.errors import ArtifactError
from tests.walk import run_python

PAGE = Path(__file__).parents[2] / "docs" / "vectors-from-an-api.md"
TEXT = PAGE.read_text("utf-8")
NAME = "declared:acme/video-embed@3"


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """Folder in which the page's first files were made and its four commands run, without a model."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("walk")
        patch.chdir(folder)
        patch.setattr(VideoEncoder, "from_pretrained", lambda *_, **__: pytest.fail("loads an encoder"))
        run_python(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[0], PAGE, patch)
        commands = re.findall(r"^    dits-adapter (.*)$", TEXT.partition("## What is")[0], re.MULTILINE)
        assert [command.split()[0] for command in commands] == ["import", "train", "put", "search"]
        for command in commands:
            assert main(command.split()) == 0, command
    return folder


@pytest.fixture(autouse=True)
def _inside(walked, monkeypatch):
    monkeypatch.chdir(walked)


def search(capsys, *options):
    command = ["search", "--vectors", "queries.npy", "--adapter", "my-adapter", "--store", "my-index", *options]
    code = main(command)
    return code, capsys.readouterr()


def test_each_query_finds_its_video_better_than_chance(capsys, walked):
    (walked / "names.txt").write_text("one\ntwo\nthree\n")
    code, printed = search(capsys, "--json", "--queries", "names.txt", "--limit", "40")
    answers = json.loads(printed.out)["answers"]
    assert code == 0
    assert [answer["query"] for answer in answers] == ["one", "two", "three"]
    own = np.random.default_rng(0)
    own.normal(size=(400, 48))
    about = own.integers(400, size=900)[897:]
    ranks = [
        next((n for n, hit in enumerate(answer["hits"]) if hit["path"] == f"clip-{row}"), 40)
        for answer, row in zip(answers, about, strict=True)
    ]
    assert sorted(ranks)[1] < 5  # of 400


def test_the_cache_and_the_adapter_say_whose_vectors_they_hold():
    space = load_pairs("cache").space
    assert space == EmbeddingSpace.declare("acme/video-embed@3", 48)
    assert DITSQueryEncoder.from_pretrained("my-adapter").space == space
    assert str(space) == "acme/video-embed@3 [declared; d=48, any number of frames, encoder]"


def test_labels_of_the_csv_are_the_videos_of_its_rows():
    rng = np.random.default_rng(0)
    rng.normal(size=(400, 48))
    np.testing.assert_array_equal(load_pairs("cache").labels, rng.integers(400, size=900)[:897])


def test_texts_and_videos_cannot_be_embedded(capsys):
    encoder = DITSQueryEncoder.from_pretrained("my-adapter")
    with pytest.raises(InputError, match=r"takes vectors of acme/video-embed@3 .* cannot be loaded here"):
        encoder.encode_query("a dog")
    with pytest.raises(ArtifactError, match=r"is for videos of acme/video-embed@3 .*cannot be loaded"):
        VideoEncoder.from_pretrained("my-adapter")


@pytest.mark.parametrize("name", ["acme/video-embed@4", "acme/other@3"])
def test_another_version_or_model_is_another_space(name):
    mine = EmbeddingSpace.declare("acme/video-embed@3", 48)
    theirs = EmbeddingSpace.declare(name, 48)
    with pytest.raises(SpaceMismatchError, match=f"goes with videos of .* with videos of {name} "):
        mine.video.require(theirs.video, mine="the adapter", theirs="the collection")


def test_a_collection_of_an_encoder_that_was_loaded_is_refused(capsys):
    assert main(["search", "a dog", "--adapter", "demo-dits", "--store", "my-index"]) == 1
    assert "width 128 against 48" in capsys.readouterr().err
    loaded = VideoEncoder.from_pretrained("demo-clip").space.video
    declared = EmbeddingSpace.declare("openai/clip@1", 128).video
    with pytest.raises(SpaceMismatchError, match="import them again with it as --encoder"):
        declared.require(loaded, mine="the adapter", theirs="the collection")


def test_a_bank_of_vectors_needs_no_pairs(capsys, walked):
    np.save("many.npy", np.random.default_rng(1).normal(size=(50, 48)).astype("float32"))
    assert main(["bank", "many.npy", "--adapter", NAME, "--out", "bank"]) == 0
    assert main(["bias", "bank", "--store", "my-index"]) == 0
    assert main(["bias", "--remove", "--store", "my-index"]) == 0
    (walked / "words.txt").write_text("".join(f"a dog {n}\n" for n in range(12)))
    assert main(["bank", "words.txt", "--adapter", NAME, "--out", "none"]) == 1
    assert "holds texts, and an encoder that was declared embeds none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["ingest", ".", "--store", "no", "--encoder"], ["search", "a dog", "--store", "no", "--adapter"]]
)
def test_it_cannot_embed_anything(command, capsys):
    assert main([*command, NAME]) == 1
    assert f"{NAME}: a declared encoder embeds nothing" in capsys.readouterr().err


@pytest.mark.filterwarnings("error:.*not writable", "ignore:the adapter was trained on a part")
def test_its_adapter_is_calibrated_on_vectors():
    np.save("unanswerable.npy", np.random.default_rng(2).normal(size=(40, 48)).astype("float32"))
    options = ["--unanswerable", "unanswerable.npy", "--out", "calibrated"]
    assert main(["calibrate", "cache", "my-adapter", *options]) == 0
    texts = load_pairs("cache").text[:1]
    own, calibrated = (DITSQueryEncoder.from_pretrained(name) for name in ("my-adapter", "calibrated"))
    np.testing.assert_array_equal(own.adapt(texts), calibrated.adapt(texts))
    assert calibrated.calibration != own.calibration


@pytest.mark.filterwarnings("error:--encoder is for videos", "ignore:the")
def test_texts_of_a_loaded_encoder_search_declared_videos(capsys, walked):
    pairs = [{"video": f"clip-{row}", "text": f"a dog {row}"} for row in range(30)]
    (walked / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    (walked / "texts.txt").write_text("a dog\na cat\n")
    encoders = ["--encoder", NAME, "--text-encoder", "demo-clip"]
    store = ["--store", "my-index"]
    assert main(["embed", "pairs.jsonl", *encoders, *store, "--id-field", "path", "--out", "two"]) == 0
    assert main(["train", "two", "--out", "across", "--set", "adapter=reduced-rank"]) == 0
    capsys.readouterr()
    assert main(["recall", "texts.txt", "--adapter", "across", *store]) == 0
    printed = capsys.readouterr().out
    assert "adapted: 2 queries" in printed
    assert "plain" not in printed  # between two spaces there are no plain queries


def test_its_adapter_is_exported_without_a_text_tower(capsys):
    assert main(["export", "my-adapter", "--out", "exported"]) == 0
    assert "no text tower was exported" in capsys.readouterr().out
    own, exported = (
        DITSQueryEncoder.from_pretrained(name, backend=backend)
        for name, backend in (("my-adapter", "torch"), ("exported", "onnx"))
    )
    queries = np.load("queries.npy")
    np.testing.assert_allclose(exported.adapt(queries), own.adapt(queries), atol=1e-4)
    with pytest.raises(InputError, match="cannot be loaded here"):
        exported.encode_query("a dog")


@pytest.mark.parametrize("name", ["marengo", "acme/video-embed", "acme/a b@3", "@3", "acme/x@"])
def test_names_that_declare_nothing(name, capsys):
    with pytest.raises(InputError, match="PROVIDER/MODEL@VERSION"):
        EmbeddingSpace.declare(name, 48)
    assert main(["import", "videos.npy", "videos.npy", "--encoder", f"declared:{name}", "--out", "no"]) == 1
    assert "PROVIDER/MODEL@VERSION" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("name,text\nclip-0,a\n", "line 1: the header has no column video_id or id or video"),
        ("id;query\n" + "clip-0;a\n" * 896 + "clip-x;b\n", "line 898: the video 'clip-x' is not in ids.txt"),
        ("id,text\nclip-0\n", "line 2: has 1 values; the header has 2 columns"),
        ('id,text\nclip-0,"a\nclip-1,b\n', "is not CSV"),
        ("id,text\nclip-0,\n", "line 2: the text is empty"),
        ("id\nclip-0\n", "has 1 pair; 897 are expected"),
        ("", "line 1: the header has no column"),
    ],
)
def test_faults_of_a_csv_are_named(content, fault, capsys, walked):
    (walked / "bad.csv").write_text(content)
    beside = ["--ids", "ids.txt", "--pairs", "bad.csv"]
    assert main(["import", "texts.npy", "videos.npy", *beside, "--encoder", NAME, "--out", "no"]) == 1
    assert fault in capsys.readouterr().err
    assert not (walked / "no").exists()


@pytest.mark.filterwarnings("ignore:.*vectors")  # are made up: of other norms, and of nothing
@pytest.mark.parametrize("shared", [[], ["--shared-space"]], ids=["apart", "shared"])
@pytest.mark.parametrize("texts", ["demo-clip", "declared:acme/text@1"])
@pytest.mark.parametrize("videos", ["demo-clip", NAME])
def test_texts_and_videos_of_two_encoders_loaded_or_declared(videos, texts, shared, tmp_path, monkeypatch):
    monkeypatch.undo()
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(20, 128)).astype("float32"))
    files = [str(tmp_path / "vectors.npy")] * 2
    encoders = ["--encoder", videos, "--text-encoder", texts, *shared]
    assert main(["import", *files, *encoders, "--out", str(tmp_path / "cache")]) == 0
    space = load_pairs(tmp_path / "cache").space
    names = [re.sub("declared:|@.*", "", encoder) for encoder in (texts, videos)]
    assert [space.text.encoder, space.video.encoder] == names
    assert space.shared == bool(shared)


def test_a_shared_space_needs_two_encoders_and_one_width(tmp_path, capsys):
    for name, width in (("texts", 24), ("videos", 128)):
        np.save(tmp_path / f"{name}.npy", np.ones((5, width), "float32"))
    command = ["import", str(tmp_path / "texts.npy"), str(tmp_path / "videos.npy"), "--encoder", NAME]
    command += ["--out", str(tmp_path / "cache"), "--shared-space"]
    assert main(command) == 1
    assert "--text-encoder, which is not given" in capsys.readouterr().err
    assert main([*command[:-1], "--text-cleaning", "clip"]) == 1
    assert "is declared and embeds nothing here; leave the option out" in capsys.readouterr().err
    assert main([*command, "--text-encoder", "declared:acme/text@1"]) == 1
    assert "texts of width 24 and videos of width 128 share no space" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["a dog", "--vectors", "queries.npy"], "give a TEXT, or --vectors"),
        ([], "give a TEXT, or --vectors"),
        (["a dog", "--queries", "ids.txt"], "names the rows of --vectors"),
        (["--vectors", "queries.npy", "--queries", "ids.txt"], "has 400 lines; queries.npy has 3 vectors"),
        (["--vectors", "ids.txt"], "ids.txt: is no .npy"),
        (["--vectors", "wide.npy"], "expected vectors of shape (n, 48), got (3, 5)"),
        (["--vectors", "queries.npy", "--rerank", "xpool"], "no X-Pool head"),
    ],
)
def test_faults_of_a_search_by_vectors(options, fault, capsys):
    np.save("wide.npy", np.ones((3, 5), np.float32))
    assert main(["search", *options, "--adapter", "my-adapter", "--store", "my-index"]) == 1
    assert fault in capsys.readouterr().err
