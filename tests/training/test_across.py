"""Texts of one space learn to find videos of another, of any width."""

from __future__ import annotations

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder
from dits_adapter.adapters import across, fit_query_bank, reduced_rank, ridge
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import ArtifactError, InputError
from dits_adapter.training.compare import compare
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.rows import standard_rows
from dits_adapter.training.run import train_artifact
from dits_adapter.vectors import unit
from tests.spaces import made_up_space

TEXT, VIDEO, SHARED = 24, 16, 6
SPACE = made_up_space(VIDEO, text_width=TEXT)
QUICK = TrainingConfig(epochs=3, batch_size=64)


def pairs_across(videos: int, seed: int, noise: float = 0.3, width: int = TEXT) -> Pairs:
    """Make pairs that share six numbers, which texts and videos hold in directions of their own."""
    world = np.random.default_rng(0)
    shown = [world.normal(size=(SHARED, width)), world.normal(size=(SHARED, VIDEO))]
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(videos, SHARED))
    text, video = (common @ part + noise * rng.normal(size=(videos, part.shape[1])) for part in shown)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    space = made_up_space(VIDEO, text_width=width)
    return Pairs(text.astype(np.float32), video.astype(np.float32), np.arange(videos), space)


def r1(queries: np.ndarray, pairs: Pairs) -> float:
    return float(np.mean(np.argmax(queries @ pairs.video.T, axis=1) == pairs.labels))


class TestReducedRank:
    def test_at_full_rank_it_is_the_ridge(self):
        pairs = pairs_across(80, 1)
        weight, bias = across._Fit(pairs.matches.moments).map(1e-2, 1.0)
        expected = ridge(pairs.text, pairs.video, 1e-2)
        np.testing.assert_allclose(weight.T, expected.weight.detach(), atol=1e-5)
        np.testing.assert_allclose(bias, expected.bias.detach(), atol=1e-5)

    def test_lower_ranks_are_the_best_of_their_rank(self):
        """Against the singular value decomposition of the fitted videos."""
        pairs = pairs_across(80, 1)
        texts = unit(pairs.text) - unit(pairs.text).mean(0)
        full, _ = across._Fit(pairs.matches.moments).map(1e-3, 1.0)
        components = np.linalg.svd(texts @ full)[2][:4].T
        weight, _ = across._Fit(pairs.matches.moments).map(1e-3, 0.25)
        np.testing.assert_allclose(weight, full @ components @ components.T, atol=1e-8)

    def test_it_finds_most_videos_and_few_pairs_do_no_harm(self):
        test = pairs_across(100, 9)
        for count, least in ((400, 0.5), (40, 0.2)):
            train = pairs_across(count, 1)
            adapter = reduced_rank(train.text, train.video)
            assert r1(adapter.adapt(test.text), test) > least  # .01 is chance
        unpenalized = ridge(train.text, train.video, 1e-9)
        assert r1(adapter.adapt(test.text), test) >= r1(unpenalized.adapt(test.text), test)

    def test_too_few_videos(self):
        few = pairs_across(9, 1)
        with pytest.raises(InputError, match="9 distinct videos; a map between two spaces needs 10"):
            reduced_rank(few.text, few.video)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Artifacts of each kind that leads across, by name."""
    folder, pairs = tmp_path_factory.mktemp("across"), pairs_across(300, 1)
    start = {"start": "affine"}
    recipes = {
        "reduced-rank": Recipe(adapter="reduced-rank"),
        "contrastive-linear": Recipe(adapter="contrastive-linear", training=QUICK),
        "mlp": Recipe(adapter="mlp", options={"depth": 1, **start}, training=QUICK),
        "dits": Recipe(sampler={"depth": 1, "steps": 2, **start}, training=QUICK),
    }
    for name, recipe in recipes.items():
        report = train_artifact(pairs, recipe, folder / name, dataset="made up", progress=False)
        assert report.incumbent == "chance"
        assert report.differences["r1"].low > 0, name
    return folder


@pytest.mark.filterwarnings("ignore:the .* test videos fix R@1")
@pytest.mark.parametrize("name", ["reduced-rank", "contrastive-linear", "mlp", "dits"])
class TestArtifact:
    def test_names_both_spaces_and_adapts(self, trained, name):
        encoder, test = DITSQueryEncoder.from_pretrained(trained / name, encoder="demo-clip"), pairs_across(60, 9)
        assert encoder.space == SPACE
        assert encoder.adapt(test.text[0]).shape == (VIDEO,)
        assert r1(encoder.adapt(test.text), test) > 0.3
        if name == "dits":
            _, path = encoder.adapt(test.text[:2], return_trajectory=True)
            assert path.shape == (3, 2, VIDEO)

    def test_has_no_plain_queries(self, trained, name):
        encoder = DITSQueryEncoder.from_pretrained(trained / name, encoder="demo-clip")
        vectors = np.ones((2, TEXT), np.float32)
        with pytest.raises(InputError, match="lie in two embedding spaces"):
            encoder.encode_document("a dog")
        encoder.strength = 0.5
        with pytest.raises(InputError, match=r"lie in two embedding spaces.*strength 1"):
            encoder.adapt(vectors)
        with pytest.raises(InputError, match=r"strength is 0\.5; from texts of width 24"):
            Artifact.load(trained / name).adapter.adapt(vectors, strength=0.5)

    def test_takes_a_bank_behind_it(self, trained, name, tmp_path):
        test, adapter = pairs_across(60, 9), Artifact.load(trained / name).adapter
        bank = fit_query_bank(pairs_across(60, 3).text, inner=adapter)
        Artifact(bank, SPACE).save(tmp_path / "bank")
        loaded = Artifact.load(tmp_path / "bank").adapter
        np.testing.assert_allclose(loaded.adapt(test.text), bank.adapt(test.text), atol=1e-6)
        assert r1(loaded.adapt(test.text), test) > 0.3


@pytest.mark.parametrize("name", ["reduced-rank", "dits"])  # the exporter takes seconds
def test_exported_it_computes_the_same(trained, name, tmp_path):
    onnx = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from dits_adapter.backends._onnx_export import export_adapter

    adapter, test = Artifact.load(trained / name).adapter, pairs_across(20, 9)
    export_adapter(adapter, tmp_path / "adapter.onnx")
    session = onnx.InferenceSession(tmp_path / "adapter.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {"vectors": test.text, "strength": np.ones(1, np.float32)})[0]
    np.testing.assert_allclose(found, adapter.adapt(test.text), atol=1e-5)


def test_a_width_that_is_not_its_texts_is_refused(tmp_path):
    adapter = reduced_rank(pairs_across(30, 1).text, pairs_across(30, 1).video)
    folder = Artifact(adapter, made_up_space(VIDEO)).save(tmp_path / "wrong")
    with pytest.raises(ArtifactError, match="from width 24 to 16, but its texts and videos have 16 and 16"):
        Artifact.load(folder)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(adapter="gentle-linear"), Recipe(adapter="mean-shift")])
def test_adapters_that_stay_near_the_text_are_refused_by_name(recipe, tmp_path):
    with pytest.raises(InputError, match=r"lie in another|texts of another space take"):
        train_artifact(pairs_across(60, 1), recipe, tmp_path / "no", dataset="made up", progress=False)


def test_two_spaces_of_one_width_are_two_spaces(tmp_path):
    pairs = pairs_across(200, 1, width=VIDEO)
    recipe = Recipe(sampler={"depth": 0, "steps": 1, "start": "affine"}, training=QUICK)
    report = train_artifact(pairs, recipe, tmp_path / "square", dataset="made up", progress=False)
    assert report.differences["r1"].low > 0


def test_a_comparison_has_chance_in_the_place_of_plain_clip():
    splits = pairs_across(200, 1), pairs_across(60, 2), pairs_across(60, 3)
    rows = {name: r for name, r in standard_rows([1], QUICK).items() if name != "dits-best"}
    with pytest.warns(UserWarning, match=r"two spaces: the rows .*mean-shift.*are left out"):
        comparison = compare(*splits, rows=rows, progress=False)
    names = [row.name for row in comparison.rows]
    assert names == ["chance", "reduced-rank", "contrastive-linear", "mlp-best"]
    assert comparison["chance"].text_to_video.metrics.r1 == pytest.approx(100 / 60)
    assert comparison.recommendation.name != "chance"
    assert "R@1 over chance" in comparison.markdown()
