"""The ONNX form of an artifact: equal to torch, refused where the torch form would be, and without torch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason='needs pip install "dits-adapter[export]"')
pytest.importorskip("onnxscript", reason='needs pip install "dits-adapter[export]"')

from dits_adapter import DITSQueryEncoder, QdrantStore
from dits_adapter._files import sha256
from dits_adapter.adapters import (
    AffineAdapter,
    AffineConfig,
    DITSAdapter,
    FixedPriorAdapter,
    FixedPriorConfig,
    LowRankAdapter,
    LowRankConfig,
    MLPAdapter,
    MLPConfig,
    adapter_entries,
    fit_query_bank,
)
from dits_adapter.artifact._find import find_artifact
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.backends import _onnx_export as export
from dits_adapter.backends._onnx_runtime import ADAPTER, TOKENIZER, TOWER, OnnxBackend
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import ArtifactError, DITSError, InputError, MissingExtraError, SpaceMismatchError
from dits_adapter.evaluation.calibration import Calibration
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.metadata import CollectionMetadata
from tests.conftest import ANSWER
from tests.crash import ENDED, KILLED, REFUSED, at_every_change
from tests.no_texts import DIRTY

TEXTS = ["a dog", "two dogs chase a ball across a wet street", "x", "naïve 日本語 🎬", "abc " * 40]
WIDTH = 32
QUERIES = np.random.default_rng(7).normal(size=(40, WIDTH)).astype(np.float32)
CALIBRATION = Calibration(slope=16, offset=-10, videos=30, queries=60, log_loss=0.3, ece=0.02, answer=ANSWER)


def randomized(adapter, seed=0, std=0.06):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=std, generator=generator)
    return adapter.eval()


def random_dits(**options):
    """A sampler of few steps, as an export takes half a second for each."""
    return randomized(DITSAdapter(SamplerConfig(**{"width": WIDTH, "depth": 2, "steps": 3} | options)))


@pytest.fixture(scope="module")
def space(tiny_clip):
    return EmbeddingSpace.of(load_encoder(tiny_clip))


@pytest.fixture(scope="module")
def trained(space, tiny_clip, tmp_path_factory):
    """Folder of an artifact as training leaves it, its CLIP beside it."""
    artifact = Artifact(random_dits(), space, calibration=CALIBRATION)
    folder = artifact.save(tmp_path_factory.mktemp("adapters") / "dits")
    shutil.copytree(tiny_clip, folder.parent / "tiny-clip")
    return folder


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """Folder of the same artifact as the command exports it."""
    out = tmp_path_factory.mktemp("exported") / "dits"
    assert main(["export", str(trained), "--out", str(out)]) == 0
    return out


def copy_graphs(exported, pattern, out):
    for file in (exported / "onnx").glob(pattern):
        (out / file.name).write_bytes(file.read_bytes())


@pytest.fixture
def quick_towers(exported, monkeypatch):
    """Exports that take the text tower from an earlier one of the same encoder."""
    monkeypatch.setattr(export, "export_tower", lambda encoder, files: copy_graphs(exported, "t*", files))


@pytest.fixture
def quick_exports(exported, quick_towers, monkeypatch):
    """Exports that take both graphs from an earlier one of the same adapter and encoder."""
    copy = partial(copy_graphs, exported, ADAPTER)
    monkeypatch.setattr(export, "export_adapter", lambda adapter, path: copy(path.parent))
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def copied(exported, tmp_path):
    """A copy of the export that a test may spoil."""
    return shutil.copytree(exported, tmp_path / "dits")


def load(folder, **options):
    return DITSQueryEncoder.from_pretrained(folder, backend="onnx", **options)


def lowest_cosine(a, b):
    return float(np.min(np.sum(a * b, axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)))


@pytest.mark.filterwarnings("ignore:a text has")
class TestEqualsTorch:
    @pytest.mark.parametrize("options", [{}, {"strength": 0.5}, {"strength": 0}])
    def test_queries_and_documents(self, trained, exported, options):
        ours, theirs = load(exported, **options), DITSQueryEncoder.from_pretrained(trained, **options)
        for batch_size in (1, 2, 64):
            for name in ("encode_query", "encode_document"):
                found, expected = (getattr(e, name)(TEXTS, batch_size=batch_size) for e in (ours, theirs))
                assert (found.shape, found.dtype) == (expected.shape, np.float32)
                np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
                assert lowest_cosine(found, expected) > 1 - 1e-4
        vectors = np.random.default_rng(0).normal(size=(9, WIDTH))
        assert lowest_cosine(ours.adapt(vectors), theirs.adapt(vectors)) > 1 - 1e-4
        assert ours.adapt(vectors[0]).shape == (WIDTH,)

    def test_probabilities_are_the_same(self, exported):
        assert load(exported).calibration == CALIBRATION
        assert load(exported, strength=0.5).calibration is None

    def test_without_strength_queries_are_plain_bit_for_bit(self, exported):
        encoder = load(exported, strength=0)
        assert np.array_equal(encoder.encode_query(TEXTS), encoder.encode_document(TEXTS))
        vectors = np.random.default_rng(0).normal(size=(9, WIDTH)).astype(np.float32)
        assert np.array_equal(encoder.adapt(vectors), vectors)

    def test_nothing_and_one(self, exported):
        encoder = load(exported)
        assert encoder.encode_query([]).shape == encoder.adapt(np.empty((0, WIDTH))).shape == (0, WIDTH)
        np.testing.assert_allclose(encoder.encode_query("a dog"), encoder.encode_query(TEXTS)[0], atol=1e-6)

    def test_threads_agree_with_one_thread(self, exported):
        texts = [f"scene {i} with {'many ' * (i % 7)}words" for i in range(40)]
        expected = load(exported).encode_query(texts, batch_size=1)
        fresh = load(exported)
        with ThreadPoolExecutor(8) as pool:
            found = np.stack(list(pool.map(fresh.encode_query, texts)))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_long_texts_are_cut_and_said_once(exported):
    encoder = load(exported)
    with pytest.warns(UserWarning, match="122 tokens; the encoder reads the first 77"):
        encoder.encode_query(TEXTS)
    encoder.encode_query(TEXTS)  # warnings that are errors, or a second one, would show here


KINDS = {
    "dits": random_dits,
    "dits-raw-affine": lambda: random_dits(input="raw", input_scale=0.3, start="affine"),
    "affine": lambda: randomized(AffineAdapter(AffineConfig(width=WIDTH, method="ridge")), std=0.3),
    "low-rank-affine": lambda: randomized(LowRankAdapter(LowRankConfig(width=WIDTH, rank=4)), std=0.3),
    "mlp": lambda: randomized(MLPAdapter(MLPConfig(width=WIDTH, depth=2)), std=0.3),
    "mlp-affine": lambda: randomized(MLPAdapter(MLPConfig(width=WIDTH, depth=2, start="affine")), std=0.3),
    "query-bank": lambda: fit_query_bank(QUERIES),
    "query-bank behind DITS": lambda: fit_query_bank(QUERIES, inner=random_dits()),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("mlp-affine", "dits-raw-affine") else name
        for name in KINDS
    ],
)
def test_every_kind_that_serves_is_exported(name, tmp_path):
    import onnxruntime

    adapter = KINDS[name]()
    export.export_adapter(adapter, tmp_path / ADAPTER)
    session = onnxruntime.InferenceSession(tmp_path / ADAPTER)
    for rows, strength in ((1, 1.0), (7, 1.0), (7, 0.3)):
        vectors = np.random.default_rng(rows).normal(size=(rows, WIDTH)).astype(np.float32)
        given = {"vectors": vectors, "strength": np.array([strength], np.float32)}
        slow = adapter.double().adapt(vectors.astype(np.float64), strength=strength)
        np.testing.assert_allclose(session.run(None, given)[0], slow, atol=2e-5)


def test_the_kinds_above_are_all_that_serve():
    assert {KINDS[name]().kind for name in KINDS} == {entry.adapter.kind for entry in adapter_entries()} - {
        "fixed-prior",
        "diffusion",
        "dits-of-videos",
    }


@pytest.mark.slow
def test_a_bank_behind_dits_is_exported_with_its_encoder_and_its_cleaning(space, trained, tmp_path, monkeypatch):
    adapter = fit_query_bank(QUERIES, inner=random_dits())
    cleaned = space.model_copy(update={"text": space.text.model_copy(update={"text_cleaning": "clip"})})
    folder = Artifact(adapter, cleaned).save(tmp_path / "bank")
    slow = DITSQueryEncoder.from_pretrained(folder, encoder=trained.parent / "tiny-clip")
    slow.export_onnx(tmp_path / "fast")
    texts = ["a dog", "two dogs chase a ball across a wet street", "naïve 日本語", *DIRTY]
    for strength in (1.0, 0.4):
        slow.strength = strength
        fast = load(tmp_path / "fast", strength=strength)
        assert lowest_cosine(fast.encode_query(texts), slow.encode_query(texts)) > 1 - 1e-4
    written, meant = (fast.encode_query(list(kind)) for kind in (DIRTY, DIRTY.values()))
    np.testing.assert_allclose(written, meant, atol=1e-6)
    assert fast._backend.count_tokens(list(DIRTY)) == fast._backend.count_tokens(list(DIRTY.values()))
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(MissingExtraError, match=r"dits-adapter\[cleaning\]"):
        load(tmp_path / "fast")


@pytest.mark.parametrize("adapter", [AffineAdapter(AffineConfig(width=WIDTH)), random_dits().with_steps(0)])
def test_adapters_that_move_nothing_have_no_graph(adapter, space, trained, tmp_path, quick_towers):
    folder = Artifact(adapter.eval(), space).save(tmp_path / "plain")
    encoder = DITSQueryEncoder.from_pretrained(folder, encoder=trained.parent / "tiny-clip")
    written = encoder.export_onnx(folder)
    assert not (written / "onnx" / ADAPTER).exists()
    plain = load(written)
    assert np.array_equal(plain.encode_query("a dog"), plain.encode_document("a dog"))


def test_adapters_for_comparisons_are_not_exported(space, trained, tmp_path):
    adapter = FixedPriorAdapter(FixedPriorConfig(width=WIDTH)).eval()
    folder = Artifact(adapter, space).save(tmp_path / "prior")
    encoder = DITSQueryEncoder.from_pretrained(folder, encoder=trained.parent / "tiny-clip")
    with pytest.raises(InputError, match="fixed-prior serves for comparisons"):
        encoder.export_onnx(tmp_path / "out")


@pytest.mark.parametrize("backend", ["onnx", "auto"])
def test_it_runs_without_torch(exported, backend):
    code = (
        "import sys; from dits_adapter import DITSQueryEncoder;"
        f"encoder = DITSQueryEncoder.from_pretrained({str(exported)!r}, backend={backend!r});"
        "assert encoder.encode_query('a dog').shape == (32,);"
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'safetensors', 'scipy', 'sklearn', "
        "'huggingface_hub', 'qdrant_client', 'qdrant_edge', 'grpc', 'av', 'decord', 'PIL', 'onnx') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("options", [[], ["--rerank", "maxsim"]])
def test_the_command_searches_without_torch(exported, space, tmp_path, options):
    with QdrantStore(tmp_path / "store") as store:
        store.create(CollectionMetadata(space=space))
    command = ["search", "a dog", "--store", str(tmp_path / "store"), "--adapter", str(exported), *options]
    code = (
        f"import sys; sys.modules['torch'] = None; from dits_adapter.cli import main; sys.exit(main({command!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "nothing was found"


class TestAuto:
    """Without a backend asked for."""

    def test_an_export_is_used_and_another_artifact_runs_on_torch(self, trained, exported):
        with pytest.raises(InputError, match='backend="torch"'):
            _ = DITSQueryEncoder.from_pretrained(exported).artifact
        assert DITSQueryEncoder.from_pretrained(trained).artifact.calibration == CALIBRATION

    @pytest.mark.parametrize("options", [{"steps": 3}, {"device": "cpu:0"}])
    def test_what_only_torch_can(self, exported, trained, options):
        options["encoder"] = trained.parent / "tiny-clip"
        assert DITSQueryEncoder.from_pretrained(exported, **options).artifact

    @pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
    def test_where_it_is_not_installed(self, exported, trained, monkeypatch, package):
        monkeypatch.setitem(sys.modules, package, None)
        shutil.copytree(trained.parent / "tiny-clip", exported.parent / "tiny-clip")
        try:
            assert DITSQueryEncoder.from_pretrained(exported).artifact
        finally:
            shutil.rmtree(exported.parent / "tiny-clip")

    def test_a_damaged_export_is_not_passed_over(self, copied):
        (copied / "onnx" / ADAPTER).write_bytes(b"")
        with pytest.raises(ArtifactError, match="was changed or damaged"):
            DITSQueryEncoder.from_pretrained(copied)


def test_the_artifact_still_is_one(trained, exported):
    assert np.array_equal(
        DITSQueryEncoder.from_pretrained(exported, encoder=trained.parent / "tiny-clip").encode_query("a dog"),
        DITSQueryEncoder.from_pretrained(trained).encode_query("a dog"),
    )
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(
    "fault", [None, pytest.param(errno.ENOSPC, marks=pytest.mark.slow)], ids=["killed", "full disk"]
)
def test_a_stopped_export_leaves_the_old_one_or_the_new_one_whole(trained, tmp_path, quick_exports, fault):
    def files(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    encoder = DITSQueryEncoder.from_pretrained(trained, backend="torch")
    old = encoder.export_onnx(tmp_path / "old" / "dits")
    encoder.artifact.training = {"dataset": "new"}
    whole = [files(old), files(encoder.export_onnx(tmp_path / "new" / "dits"))]
    folder = Path(shutil.copytree(old, tmp_path / "dits"))
    seen = []
    for ended in at_every_change(lambda: encoder.export_onnx(folder), fault, lasting=True):
        assert ended in ((REFUSED, ENDED) if fault else (KILLED,))
        find_artifact(folder)
        seen.append(whole.index(files(folder)))
        shutil.rmtree(folder)
        shutil.copytree(old, folder)
    assert seen == sorted(seen)
    assert set(seen) == {0, 1}
    encoder.export_onnx(folder)
    assert sorted(os.listdir(tmp_path)) == ["dits", "new", "old"]


def test_an_export_that_computes_something_else_leaves_the_old_one(
    space, trained, exported, tmp_path, quick_exports
):
    folder = Path(shutil.copytree(exported, tmp_path / "dits"))
    another = Artifact(randomized(random_dits(), seed=1, std=0.3), space)
    encoder = DITSQueryEncoder.from_pretrained(
        another.save(tmp_path / "another"), encoder=trained.parent / "tiny-clip"
    )
    with pytest.raises(ArtifactError, match="computes something else"):
        encoder.export_onnx(folder)
    assert (folder / "config.json").read_bytes() == (exported / "config.json").read_bytes()
    assert load(folder).encode_query("a dog").shape == (WIDTH,)
    assert sorted(os.listdir(tmp_path)) == ["another", "dits"]


def test_no_path_of_this_machine_is_in_the_files(exported):
    for file in (exported / "onnx").iterdir():
        assert b"dits_adapter/" not in file.read_bytes()


class TestRefuses:
    def test_an_artifact_without_export(self, trained):
        with pytest.raises(ArtifactError, match=r"dits-adapter export .* --out FOLDER"):
            load(trained)

    def test_an_export_of_another_adapter(self, copied, exported, space):
        Artifact(random_dits(steps=2), space).save(copied)
        shutil.copytree(exported / "onnx", copied / "onnx")
        with pytest.raises(ArtifactError, match="exported from another adapter"):
            load(copied)

    @pytest.mark.parametrize("name", [ADAPTER, TOWER, f"{TOWER}.data", TOKENIZER])
    def test_a_changed_byte(self, copied, name):
        content = bytearray((copied / "onnx" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copied / "onnx" / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=rf"{name}: was changed or damaged"):
            load(copied).encode_query("a dog")

    def test_a_damaged_config(self, copied):
        for path, message in ((copied / "onnx", "is invalid"), (copied, "is not JSON")):
            content = (path / "config.json").read_text()
            (path / "config.json").write_text(content[:-9])
            with pytest.raises(ArtifactError, match=message):
                load(copied)
            (path / "config.json").write_text(content)

    @pytest.mark.parametrize("name", [ADAPTER, TOWER, f"{TOWER}.data", TOKENIZER])
    @pytest.mark.parametrize("damage", ["missing", "empty", "a folder"])
    def test_a_file_that_is_gone(self, copied, name, damage):
        path = copied / "onnx" / name
        path.unlink()
        if damage == "empty":
            path.touch()
        elif damage == "a folder":
            path.mkdir()
        with pytest.raises(ArtifactError, match=rf"{name}: (was changed or damaged|cannot be read)"):
            load(copied).encode_query("a dog")

    @pytest.mark.parametrize("name", [ADAPTER, TOWER, TOKENIZER])
    def test_a_file_that_is_something_else_and_signed(self, copied, name):
        """As one of another release of the library is: its digest is right, and nothing opens it."""
        (copied / "onnx" / name).write_bytes(b"{}")
        config = json.loads((copied / "onnx" / "config.json").read_text())
        config["sha256"][name] = hashlib.sha256(b"{}").hexdigest()
        (copied / "onnx" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match=rf"{name}: (is no tokenizer|ONNX Runtime .* cannot open it)"):
            load(copied).encode_query("a dog")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda config: config["sha256"].pop(TOWER), f"sha256 names no {TOWER}"),
            (lambda config: config["sha256"].update({"../../x": "0"}), "is no file of the folder"),
            (lambda config: config["adapted"].pop(), "not of one shape"),
            (lambda config: [row.pop() for row in (*config["probes"], *config["adapted"])], "vectors of width 31"),
            (lambda config: config.update(cosine="much"), "cosine is 'much'; it has to be a number"),
        ],
    )
    def test_a_config_that_claims_something_else(self, copied, change, message):
        config = json.loads((copied / "onnx" / "config.json").read_text())
        change(config)
        (copied / "onnx" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match=message):
            load(copied)

    @pytest.mark.parametrize(("setting", "threads"), [("2,1", 2), (" 3", 3), ("many", 0), ("", 0)])
    def test_threads_as_openmp_allows_them(self, exported, monkeypatch, setting, threads):
        from dits_adapter.backends import _onnx_runtime

        asked = []
        monkeypatch.delenv("OMP_NUM_THREADS") if setting is None else monkeypatch.setenv(
            "OMP_NUM_THREADS", setting
        )
        opened = _onnx_runtime.open_session
        monkeypatch.setattr(_onnx_runtime, "open_session", lambda path, n: asked.append(n) or opened(path, 1))
        load(exported)
        assert set(asked) == {threads}

    def test_an_artifact_whose_config_was_changed(self, copied):
        content = (copied / "config.json").read_text()
        (copied / "config.json").write_text(content.replace('"frames": 12', '"frames": 11'))
        with pytest.raises(ArtifactError, match=r"config\.json: was changed"):
            load(copied)

    def test_an_adapter_that_computes_something_else_here(self, copied):
        config = json.loads((copied / "onnx" / "config.json").read_text())
        config["adapted"] = config["adapted"][::-1]
        (copied / "onnx" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ArtifactError, match=r"computes something else .* at least 0\.9999"):
            load(copied)

    @pytest.fixture
    def foreign(self, copied, other_clip):
        """An export whose text tower is that of another CLIP, with all checksums right."""
        export.export_tower(load_encoder(other_clip), copied / "onnx")
        config = json.loads((copied / "onnx" / "config.json").read_text())
        config["sha256"] = {name: sha256(copied / "onnx" / name) for name in config["sha256"]}
        (copied / "onnx" / "config.json").write_text(json.dumps(config))
        return copied

    def test_another_text_tower(self, foreign):
        with pytest.raises(SpaceMismatchError, match="embed the same test texts differently"):
            load(foreign).encode_query("a dog")
        encoder = load(foreign, on_mismatch="bypass")
        with pytest.warns(UserWarning, match="plain CLIP"):
            query = encoder.encode_query("a dog")
        assert np.array_equal(query, encoder.encode_document("a dog"))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"steps": 3}, "steps cannot be chosen"),
            ({"encoder": "x"}, "encoder cannot be chosen"),
            ({"device": "cuda"}, "device cannot be chosen .* runs on the CPU"),
            ({"strength": 2}, "strength is 2"),
            ({"on_mismatch": "ignore"}, "on_mismatch"),
        ],
    )
    def test_options(self, exported, options, message):
        with pytest.raises(InputError, match=message):
            load(exported, **options)

    def test_an_unknown_backend(self, exported):
        with pytest.raises(InputError, match="backend is 'tensorrt'"):
            DITSQueryEncoder.from_pretrained(exported, backend="tensorrt")

    def test_what_needs_the_adapter_itself(self, exported, tmp_path):
        encoder = load(exported)
        for call in (
            lambda: encoder.save_pretrained(tmp_path / "x"),
            encoder.as_sentence_transformer,
            lambda: encoder.adapt(np.ones(WIDTH), return_trajectory=True),
        ):
            with pytest.raises(InputError, match='backend="torch"'):
                call()

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            (np.ones((2, WIDTH + 1)), rf"got \(2, {WIDTH + 1}\)"),
            (np.full((2, WIDTH), np.nan), "row 0 holds NaN"),
            (np.vstack([np.ones(WIDTH), np.zeros(WIDTH)]), "row 1 is the zero vector"),
        ],
    )
    def test_bad_vectors(self, exported, vectors, message):
        with pytest.raises(InputError, match=message):
            load(exported).adapt(vectors)

    @pytest.mark.parametrize("package", ["onnxruntime", "tokenizers"])
    def test_missing_packages(self, exported, monkeypatch, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=f"pip install {package}"):
            load(exported).encode_query("a dog")

    def test_exporting_without_the_extra(self, trained, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(MissingExtraError, match=r"onnxscript.*dits-adapter\[export\]"):
            DITSQueryEncoder.from_pretrained(trained).export_onnx(tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def pairs(space):
    """Texts whose videos lie where the adapter of `trained` takes them, give or take."""
    rng = np.random.default_rng(0)
    text = rng.normal(size=(400, WIDTH)).astype(np.float32)
    video = random_dits().adapt(text) + 0.05 * rng.normal(size=text.shape).astype(np.float32)
    return Pairs(text, video / np.linalg.norm(video, axis=1, keepdims=True), np.arange(400), space)


@pytest.fixture(scope="module")
def quantized(trained, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    pairs.save(folder / "pairs.safetensors")
    out = folder / "dits"
    assert main(["export", str(trained), "--out", str(out), "--int8", str(folder / "pairs.safetensors")]) == 0
    return out


class TestInt8:
    def test_close_to_float32_and_a_row_is_the_same_in_every_batch(self, quantized, trained, pairs):
        encoder = load(quantized)
        found = encoder.adapt(pairs.text)
        cosine = lowest_cosine(found, DITSQueryEncoder.from_pretrained(trained).adapt(pairs.text))
        assert export._INT8_COSINE < cosine < 1 - 1e-6
        alone = np.stack([encoder.adapt(row) for row in pairs.text[:9]])
        np.testing.assert_allclose(alone, found[:9], atol=1e-5)
        quality = json.loads((quantized / "onnx" / "config.json").read_text())["quality"]
        assert quality["queries"] == 200
        assert quality["r1_int8"] > quality["r1_float32"] - export._INT8_R1

    def test_weights_are_int8(self, quantized):
        onnx = pytest.importorskip("onnx")
        graph = onnx.load(quantized / "onnx" / ADAPTER).graph
        matrices = [tensor.data_type for tensor in graph.initializer if len(tensor.dims) == 2]
        assert matrices.count(onnx.TensorProto.INT8) == 2 * 3 + 1  # two blocks, and the map between steps
        assert matrices.count(onnx.TensorProto.FLOAT) == 2  # into the first step, and out of the last

    def test_all_that_every_step_reads_runs_as_int8(self, tmp_path):
        onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
        width = 256  # the exporter itself makes constants of small tables
        adapter = random_dits(width=width)
        export.export_adapter(adapter, tmp_path / "float32.onnx")
        text = np.random.default_rng(0).normal(size=(8, width)).astype(np.float32)
        export.quantize(tmp_path / "float32.onnx", tmp_path / "int8.onnx", text)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "run.onnx")
        options.log_severity_level = 3  # or it says that this file is for one machine
        onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
        run = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
        assert run.count("QGemm") == 3 * 2 * 3 + 2  # three steps of two blocks, and the map between steps
        assert run.count("Gemm") == 2  # into the first step, and out of the last

    @pytest.mark.slow
    def test_outliers_in_the_embeddings_do_no_harm(self, tmp_path):
        import onnxruntime

        adapter = random_dits(start="affine")
        with torch.no_grad():  # a start that undoes one huge component, as a trained one does
            adapter.sampler.start.weight.copy_(torch.eye(WIDTH))
            adapter.sampler.start.weight[0, 0] = 0.01
        text = np.random.default_rng(0).normal(size=(300, WIDTH)).astype(np.float32)
        text[:, 0] = 100
        export.export_adapter(adapter, tmp_path / "float32.onnx")
        export.quantize(tmp_path / "float32.onnx", tmp_path / "int8.onnx", text[:200])
        session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
        found = session.run(None, {"vectors": text[200:], "strength": np.ones(1, np.float32)})[0]
        assert lowest_cosine(found, adapter.adapt(text[200:])) > export._INT8_COSINE

    def test_linear_adapters_stay_float32(self, tmp_path):
        export.export_adapter(KINDS["affine"](), tmp_path / "float32.onnx")
        with pytest.raises(InputError, match="quick enough in float32"):
            export.quantize(tmp_path / "float32.onnx", tmp_path / "int8.onnx", np.ones((2, WIDTH), np.float32))

    @pytest.mark.parametrize(("limit", "value"), [("_INT8_COSINE", 1.0), ("_INT8_R1", -1.0)])
    def test_refused_where_it_costs_too_much(
        self, trained, pairs, tmp_path, quick_exports, monkeypatch, limit, value
    ):
        monkeypatch.setattr(export, limit, value)
        with pytest.raises(DITSError, match="Nothing was written"):
            DITSQueryEncoder.from_pretrained(trained).export_onnx(tmp_path / "out", int8=pairs)
        assert not list(tmp_path.iterdir())

    def test_pairs_of_another_space(self, trained, other_clip, pairs, tmp_path):
        other = EmbeddingSpace.of(load_encoder(other_clip))
        foreign = Pairs(pairs.text, pairs.video, pairs.labels, other)
        with pytest.raises(SpaceMismatchError, match="held-out pairs"):
            DITSQueryEncoder.from_pretrained(trained).export_onnx(tmp_path / "out", int8=foreign)


def test_the_backend_states_its_space(exported, space):
    backend = OnnxBackend(exported)
    assert backend.space == space
    assert backend.space.text.differences(backend.load()) == []
