"""Calibrated probabilities: against a slow reference, against models whose truth is known, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.optimize import minimize
from scipy.special import expit, logit

from dits_adapter.adapters import mean_shift
from dits_adapter.artifact._config import ONNX
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation import metrics
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation.calibration import BiasedCalibration, Calibration, fit_calibration
from dits_adapter.evaluation.reliability import FOLDS, HITS, Reliability
from dits_adapter.space import EmbeddingSpace
from tests.conftest import ANSWER, save_random_clip

FACTS = {"videos": 150, "queries": 750, "log_loss": 0.2, "ece": 0.01, "answer": ANSWER}
calibrations = st.builds(
    Calibration,
    slope=st.floats(1, 200),
    offset=st.floats(-50, 5),
    videos=st.integers(2, 10**6),
    queries=st.just(1),
    log_loss=st.just(0.1),
    ece=st.just(0.0),
    answer=st.just(ANSWER),
)
sizes = st.integers(2, 10**8)


def two_normals(queries, videos, *, apart=0.25, spread=0.06, seed=0):
    """Draw cosines whose log odds are linear: normal, of one spread, with means that far apart.

    Returns:
        Scores, labels, and the true slope and offset.
    """
    rng = np.random.default_rng(seed)
    labels = np.resize(rng.permutation(videos), queries)
    scores = rng.normal(0.1, spread, (queries, videos))
    scores[np.arange(queries), labels] += apart
    slope = apart / spread**2
    return scores, labels, slope, -slope * (0.1 + apart / 2) - np.log(videos - 1)


def reference(scores, labels):
    """Platt's regression in float64 on every pair by itself."""
    match = labels[:, None] == np.arange(scores.shape[1])
    n = match.sum()
    target = np.where(match, (n + 1) / (n + 2), 1 / (match.size - n + 2))

    def loss(parameters):
        log_odds = parameters[0] * scores + parameters[1]
        error = expit(log_odds) - target
        value = np.sum(target * np.logaddexp(0, -log_odds) + (1 - target) * np.logaddexp(0, log_odds))
        return value / n, np.array([np.sum(error * scores), np.sum(error)]) / n

    start = [1 / scores.std(), -np.log(match.size / n) - scores.mean() / scores.std()]
    return minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 2000}).x


def numbers(calibration):
    """Return a calibration's numbers, those of its answers too, for `pytest.approx`."""
    return {**calibration.model_dump(exclude={"answer", "biased"}), **calibration.answer.model_dump()}


class TestFit:
    @pytest.mark.parametrize("seed", range(5))
    def test_is_that_of_a_slow_reference(self, seed):
        rng = np.random.default_rng(seed)
        scores, labels, *_ = two_normals(
            90, 40, apart=rng.uniform(0.02, 0.3), spread=rng.uniform(0.03, 0.1), seed=seed
        )
        found = fit_calibration(scores, labels).calibration
        slope, offset = reference(scores, labels)
        assert found.slope == pytest.approx(slope, rel=1e-3)
        at = np.linspace(scores.min(), scores.max(), 9)
        np.testing.assert_allclose(logit(found.probability(at, videos=40)), slope * at + offset, atol=0.01)
        assert (found.videos, found.queries) == (40, 90)

    def test_recovers_the_true_model(self):
        scores, labels, slope, offset = two_normals(3000, 400)
        found = fit_calibration(scores, labels).calibration
        assert found.slope == pytest.approx(slope, rel=0.03)
        score = found.score_of(0.5, videos=400)
        assert score == pytest.approx(-offset / slope, abs=0.003)

    @pytest.mark.parametrize("videos", [40, 150, 1500])
    def test_holds_in_libraries_of_other_sizes(self, videos):
        """Fitted on 150 videos. What is said of hits is then right for less and for more of them, too."""
        calibration = fit_calibration(*two_normals(1500, 150, apart=0.2)[:2]).calibration
        scores, labels, *_ = two_normals(2000, videos, apart=0.2, seed=1)
        said = calibration.probability(scores, videos=videos)
        right = labels[:, None] == np.arange(videos)
        likely = said > 0.5
        assert likely.sum() > 300
        assert right[likely].mean() == pytest.approx(said[likely].mean(), abs=0.04)
        stale = calibration.probability(scores, videos=150)  # what the size of the library is asked for
        if videos != 150:
            likely = stale > 0.5
            assert abs(right[likely].mean() - stale[likely].mean()) > 0.05

    def test_queries_whose_video_is_elsewhere(self):
        """Half of the queries have no video here: N / share in place of N."""
        calibration = fit_calibration(*two_normals(1500, 150, apart=0.2)[:2]).calibration
        scores, labels, *_ = two_normals(4000, 150, apart=0.2, seed=1)
        there = np.arange(len(labels)) % 2 == 0
        scores[~there, labels[~there]] -= 0.2
        right = (labels[:, None] == np.arange(150)) & there[:, None]
        said = calibration.probability(scores, videos=150 / 0.5)
        likely = said > 0.5
        assert right[likely].mean() == pytest.approx(said[likely].mean(), abs=0.04)

    def test_quality_is_measured_on_queries_that_the_fit_has_not_seen(self):
        scores, labels, *_ = two_normals(120, 60)
        found = fit_calibration(scores, labels, seed=3)
        described = np.unique(labels)
        fold_of = dict(
            zip(np.random.default_rng(3).permutation(described), np.arange(len(described)) % FOLDS, strict=True)
        )
        folds = np.array([fold_of[label] for label in labels])
        said, right = [], []
        for fold in range(FOLDS):
            slope, offset = reference(scores[folds != fold], labels[folds != fold])
            for query in np.flatnonzero(folds == fold):
                best = np.argsort(-scores[query])[:HITS]
                said += (expit(slope * scores[query, best] + offset)).tolist()
                right += (best == labels[query]).tolist()
        said, right = np.array(said), np.array(right)
        loss = -np.mean(np.where(right, np.log(said), np.log1p(-said)))
        assert found.calibration.log_loss == pytest.approx(loss, rel=1e-3)
        bins = (said * 10).astype(int)
        ece = sum(abs(np.sum(said[bins == b]) - np.sum(right[bins == b])) for b in range(10)) / len(said)
        assert found.calibration.ece == pytest.approx(ece, abs=2e-3)
        assert found.hits.pairs.sum() == 1200
        assert found.best.pairs.sum() == 120
        assert found.best.total_accuracy == pytest.approx(np.mean(scores.argmax(1) == labels))

    def test_separable_pairs_have_a_finite_slope(self):
        scores, labels, *_ = two_normals(60, 30, apart=0.6)
        found = fit_calibration(scores, labels).calibration
        assert np.isfinite(found.slope)
        assert found.slope == pytest.approx(reference(scores, labels)[0], rel=1e-3)

    def test_blocks_change_nothing(self, monkeypatch):
        scores, labels, *_ = two_normals(90, 40)
        whole = fit_calibration(scores, labels)
        monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", 7 * 40)
        assert fit_calibration(scores, labels).calibration == whole.calibration

    def test_what_is_refused(self):
        scores, labels, *_ = two_normals(60, 30)
        with pytest.raises(
            InputError, match=r"19 held-out videos are too few .* it takes 20.*--set validation=SHARE"
        ):
            fit_calibration(scores[:38, :], np.repeat(np.arange(19), 2))
        with pytest.raises(InputError, match="learned nothing"):
            fit_calibration(-scores, labels)
        with pytest.raises(InputError, match="cosines lie between -1 and 1"):
            fit_calibration(30 * scores, labels)
        with pytest.raises(DITSError, match="row 3, column 4 is nan"):
            fit_calibration(np.where(np.arange(1800).reshape(60, 30) == 94, np.nan, scores), labels)
        with pytest.raises(DITSError, match="label 30"):
            fit_calibration(scores, labels + 1)


class TestAnswers:
    """The probability that any hit is right, where half of the queries have no video in the collection."""

    @staticmethod
    def tried(scores, labels):
        """Return best scores with each query's video and without it, and where any of the ten best is right."""
        best, right = [], []
        for row, label in zip(scores, labels, strict=True):
            best.append(row.max())
            right.append(label in np.argsort(-row)[:HITS])
        for row, label in zip(scores, labels, strict=True):
            best.append(np.delete(row, label).max())
            right.append(False)
        return np.array(best), np.array(right)

    def test_are_a_regression_on_the_log_odds_of_the_best_hit(self):
        scores, labels, *_ = two_normals(120, 60, apart=0.15)
        found = fit_calibration(scores, labels).calibration
        best, right = self.tried(scores, labels)
        assert 60 < right.sum() < 120  # some videos are there and not among ten
        x = found.slope * best + found.offset
        target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))

        def loss(parameters):
            log_odds = parameters[0] * x + parameters[1]
            return np.sum(target * np.logaddexp(0, -log_odds) + (1 - target) * np.logaddexp(0, log_odds))

        slope, offset = minimize(loss, [1, 0], method="BFGS").x
        assert found.answer.slope == pytest.approx(slope, rel=1e-3)
        assert found.answer.offset == pytest.approx(offset, abs=1e-2)

    @pytest.mark.parametrize("videos", [50, 150, 450])
    def test_hold_in_collections_of_other_sizes(self, videos):
        calibration = fit_calibration(*two_normals(900, 150, apart=0.2)[:2]).calibration
        scores, labels, *_ = two_normals(900, videos, apart=0.2, seed=1)
        best, right = self.tried(scores, labels)
        said = np.array([calibration.probability_of_any(score, videos=videos) for score in best])
        assert said.mean() == pytest.approx(right.mean(), abs=0.08)
        sure = said > 0.8
        assert sure.sum() > 100
        assert right[sure].mean() > 0.8
        assert right[said < 0.2].mean() < 0.25
        assert 0.75 < calibration.answer.auroc < 0.95

    def test_are_of_the_share_of_queries_that_have_a_video(self):
        calibration = fit_calibration(*two_normals(900, 150, apart=0.2)[:2]).calibration
        scores, labels, *_ = two_normals(900, 150, apart=0.2, seed=1)
        best, right = self.tried(scores, labels)
        kept = np.r_[np.arange(90), np.arange(900, 1800)]  # one query in eleven
        said = [calibration.probability_of_any(score, videos=150, share=1 / 11) for score in best[kept]]
        assert np.mean(said) == pytest.approx(right[kept].mean(), abs=0.02)
        for share in (0, 1, -1, float("nan")):
            with pytest.raises(InputError, match="lies between 0 and 1"):
                calibration.probability_of_any(0.3, videos=150, share=share)

    def test_known_unanswerable_queries_take_the_place_of_made_ones(self):
        scores, labels, *_ = two_normals(120, 60)
        easy = np.random.default_rng(5).normal(-0.3, 0.06, (37, 60))
        made, known = (fit_calibration(scores, labels, unanswerable=others).calibration for others in (None, easy))
        assert (known.slope, known.offset) == (made.slope, made.offset)
        assert known.answer.auroc > made.answer.auroc
        low, high = scores.max(axis=1).min(), easy.max()
        assert low > high
        assert known.probability_of_any(low, videos=60) > 0.8 > 0.2 > known.probability_of_any(high, videos=60)

    def test_of_scores_that_tell_nothing_are_the_share(self):
        """Each query's best score is of a video that is near to all, in the collection or not."""
        scores, labels, *_ = two_normals(120, 60, apart=0.1)
        scores = np.c_[scores, np.linspace(0.9, 0.8, 120)]
        _, right = self.tried(scores, labels)
        answer = fit_calibration(scores, labels).calibration.answer
        assert answer.slope < 0.5
        assert expit(answer.offset + answer.slope * logit(0.01)) == pytest.approx(right.mean(), abs=0.1)
        assert answer.auroc == pytest.approx(0.5, abs=0.15)

    def test_of_videos_that_are_never_among_the_best_are_near_zero(self):
        scores = np.random.default_rng(0).uniform(-0.5, 0.5, (120, 60))
        texts, labels = np.arange(120), np.arange(120) // 2
        scores[texts, labels] = -np.sort(-scores, axis=1)[:, 20]
        calibration = fit_calibration(scores, labels).calibration
        assert calibration.answer.auroc == 0.5
        assert calibration.probability_of_any(0.5, videos=60) < 0.02

    @pytest.mark.filterwarnings("error")
    def test_of_the_same_scores_for_all_queries_are_refused(self):
        scores = np.tile(np.linspace(-1, 1, 60), (120, 1))
        with pytest.raises(InputError, match="learned nothing"):
            fit_calibration(scores, np.arange(120) // 2)

    def test_belong_to_the_scores_of_one_bias(self):
        calibration, other = (Calibration(slope=slope, offset=-10, **FACTS) for slope in (16, 20))
        biased = BiasedCalibration(bank="a bank", weight=0.5, calibration=other)
        both = calibration.model_copy(update={"biased": biased})
        assert both.less("a bank", 0.5) == other
        assert both.less("a bank", 0) is both
        assert both.less("a bank", 0.4) is both.less("another", 0.5) is calibration.less("a bank", 0.5) is None


class TestProbability:
    @given(calibrations, sizes, st.floats(1e-6, 1 - 1e-6))
    def test_score_of_is_the_inverse(self, calibration, videos, probability):
        score = calibration.score_of(probability, videos=videos)
        assert calibration.probability(score, videos=videos) == pytest.approx(probability, rel=1e-6)

    @given(calibrations, sizes, st.floats(-1, 1), st.floats(-1, 1))
    def test_rises_with_the_score(self, calibration, videos, one, other):
        low, high = sorted((one, other))
        assert (
            0 <= calibration.probability(low, videos=videos) <= calibration.probability(high, videos=videos) <= 1
        )

    @given(calibrations, st.integers(2, 10**6), st.floats(-1, 1))
    def test_a_larger_library_lowers_the_odds_by_bayes(self, calibration, videos, score):
        """With k times as many wrong videos, the odds are a k-th."""
        here = calibration.slope * score + calibration.offset - np.log((videos - 1) / (calibration.videos - 1))
        for k in (2, 10):
            larger = calibration.probability(score, videos=k * (videos - 1) + 1)
            assert larger == pytest.approx(expit(here - np.log(k)), rel=1e-9, abs=1e-300)

    def test_in_the_library_of_the_fit_it_is_the_regression(self):
        calibration = Calibration(slope=16, offset=-10, **FACTS)
        assert calibration.probability(0.6, videos=150) == pytest.approx(expit(16 * 0.6 - 10))
        array = np.array([[0.1, 0.6], [0.9, -1]])
        np.testing.assert_allclose(calibration.probability(array, videos=150), expit(16 * array - 10))
        assert type(calibration.probability(0.6, videos=150)) is float  # JSON takes no other

    def test_no_video_is_sure_because_it_is_alone(self):
        calibration = Calibration(slope=16, offset=-10, **FACTS)
        assert calibration.probability(0.1, videos=1) == calibration.probability(0.1, videos=2) < 0.1
        assert calibration.probability(0.1, videos=0) == calibration.probability(0.1, videos=2)

    @pytest.mark.parametrize("probability", [0, 1, -0.1, 50, float("nan")])
    def test_no_such_probability(self, probability):
        with pytest.raises(InputError, match="between 0 and 1"):
            Calibration(slope=16, offset=-10, **FACTS).score_of(probability, videos=10)

    @pytest.mark.parametrize(
        "damage",
        [
            {"slope": -1},
            {"slope": 0},
            {"slope": float("nan")},
            {"slope": float("inf")},
            {"offset": float("inf")},
            {"videos": 1},
            {"queries": 0},
            {"ece": 1.5},
            {"log_loss": -1},
            {"more": 1},
        ],
    )
    def test_damaged_values_are_refused(self, damage):
        with pytest.raises(ValidationError):
            Calibration.model_validate({"slope": 16, "offset": -10, **FACTS, **damage})


def test_reliability_by_hand():
    found = Reliability.of(np.array([0.02, 0.08, 0.55, 1.0]), np.array([0, 1, 1, 2]), np.array([3, 1, 2, 2]))
    np.testing.assert_allclose(found.confidence, [0.14 / 4, 0.55, 1])
    np.testing.assert_allclose(found.accuracy, [0.25, 0.5, 1])
    assert found.pairs.tolist() == [4, 2, 2]
    assert found.ece == pytest.approx((4 * (0.25 - 0.035) + 2 * 0.05) / 8)
    assert found.total_accuracy == pytest.approx(0.5)


@pytest.fixture(scope="module")
def pairs(tiny_clip, tmp_path_factory):
    """Two texts of each of 40 videos, and a gap between the two."""
    rng = np.random.default_rng(0)
    video = rng.normal(size=(40, 32)).astype(np.float32)
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    labels = np.repeat(np.arange(40), 2)
    text = (video[labels] + 0.15 * rng.normal(size=(80, 32)) + 0.5).astype(np.float32)
    file = tmp_path_factory.mktemp("calibrate") / "pairs.safetensors"
    Pairs(text, video, labels, EmbeddingSpace.of(load_encoder(tiny_clip))).save(file)
    return file


@pytest.fixture
def artifact(pairs):
    held = Pairs.load(pairs)
    return Artifact(mean_shift(held.text, held.video[held.labels]), held.space, {"dataset": "none"})


class TestCommand:
    def test_rewrites_the_artifact_and_draws(self, pairs, artifact, tmp_path, capsys):
        folder = artifact.save(tmp_path / "adapter")
        weights = (folder / "adapter.safetensors").read_bytes()
        assert main(["calibrate", str(pairs), str(folder), "--plot", str(tmp_path / "plot.png")]) == 0
        loaded = Artifact.load(folder)
        held = Pairs.load(pairs)
        scores = cosine_scores(artifact.adapter, held.text, held.video)
        expected = fit_calibration(scores, held.labels).calibration
        assert numbers(loaded.calibration) == pytest.approx(numbers(expected), rel=1e-4)
        assert (loaded.training, (folder / "adapter.safetensors").read_bytes()) == ({"dataset": "none"}, weights)
        assert str(loaded.calibration) in (folder / "README.md").read_text()
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
        said = capsys.readouterr().out
        assert f"log loss {loaded.calibration.log_loss:.4f}" in said
        assert f"| 1,000   | {loaded.calibration.score_of(0.5, videos=1000):13.3f} |" in said

    def test_into_another_folder(self, pairs, artifact, tmp_path):
        folder = artifact.save(tmp_path / "adapter")
        assert main(["calibrate", str(pairs), str(folder), "--out", str(tmp_path / "calibrated")]) == 0
        assert Artifact.load(folder).calibration is None
        assert Artifact.load(tmp_path / "calibrated").calibration is not None

    def test_plain_clip_is_calibrated_on_cosines(self, pairs, artifact, tmp_path):
        """The identity leaves queries un-normalized."""
        from dits_adapter.adapters import AffineAdapter, AffineConfig

        folder = replace(artifact, adapter=AffineAdapter(AffineConfig(width=32)).eval()).save(tmp_path / "plain")
        assert main(["calibrate", str(pairs), str(folder)]) == 0
        assert Artifact.load(folder).calibration is not None

    def test_an_adapter_that_needs_the_video_has_no_probabilities(self, pairs, artifact, tmp_path, capsys):
        from dits_adapter.adapters import DITSAdapter
        from dits_adapter.sampler import SamplerConfig

        adapter = DITSAdapter(SamplerConfig(width=32, depth=1, condition="both")).eval()
        folder = replace(artifact, adapter=adapter).save(tmp_path / "paired")
        before = (folder / "config.json").read_bytes()
        assert main(["calibrate", str(pairs), str(folder)]) == 1
        assert "depends on the video" in capsys.readouterr().err
        assert (folder / "config.json").read_bytes() == before

    def test_what_is_refused(self, pairs, artifact, tmp_path, capsys):
        def refusal(*arguments):
            assert main(["calibrate", *map(str, arguments)]) == 1
            return capsys.readouterr().err

        folder = artifact.save(tmp_path / "adapter")
        before = (folder / "config.json").read_bytes()
        assert "demo-dits is not a folder of yours; name one for the calibrated adapter with --out" in refusal(
            pairs, "demo-dits"
        )
        assert "not a folder of yours" in refusal(pairs, "somebody/adapter")
        held = Pairs.load(pairs)
        held.of_videos(np.arange(12)).save(tmp_path / "few.safetensors")
        assert "12 held-out videos are too few" in refusal(tmp_path / "few.safetensors", folder)
        Pairs(-held.text, held.video, held.labels, held.space).save(tmp_path / "wrong.safetensors")
        assert "learned nothing" in refusal(tmp_path / "wrong.safetensors", folder)
        other = EmbeddingSpace.of(load_encoder(save_random_clip(tmp_path / "other-clip", seed=1)))
        Pairs(held.text, held.video, held.labels, other).save(tmp_path / "other.safetensors")
        assert "other-clip" in refusal(tmp_path / "other.safetensors", folder)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "file").touch()
        assert "holds no adapter" in refusal(pairs, folder, "--out", tmp_path / "mine")
        (folder / ONNX).mkdir()
        assert "export it again" in refusal(pairs, folder)
        assert (folder / "config.json").read_bytes() == before


class TestArtifact:
    CALIBRATION = Calibration(slope=16.123456789012345, offset=-10.1, **FACTS)

    def test_comes_back_with_that_of_a_bias(self, artifact, tmp_path):
        biased = BiasedCalibration(bank="a bank", weight=0.3, calibration=self.CALIBRATION)
        calibration = self.CALIBRATION.model_copy(update={"biased": biased})
        folder = replace(artifact, calibration=calibration).save(tmp_path / "adapter")
        assert Artifact.load(folder).calibration == calibration

    def test_comes_back_as_it_was(self, artifact, tmp_path):
        folder = replace(artifact, calibration=self.CALIBRATION).save(tmp_path / "adapter")
        assert Artifact.load(folder).calibration == self.CALIBRATION
        assert "log odds 16.12 · cosine" in (folder / "README.md").read_text()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"slope": 17.0}, "was changed or damaged"),
            ({"slope": -1}, "is invalid"),
            (None, "was changed or damaged"),
        ],
    )
    def test_a_changed_calibration_is_refused(self, artifact, tmp_path, change, message):
        folder = replace(artifact, calibration=self.CALIBRATION).save(tmp_path / "adapter")
        config = json.loads((folder / "config.json").read_text())
        config["calibration"] = change and {**config["calibration"], **change}
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(DITSError, match=message):
            Artifact.load(folder)

    def test_an_artifact_of_before_there_were_calibrations_is_intact(self, artifact, tmp_path):
        folder = artifact.save(tmp_path / "adapter")
        config = json.loads((folder / "config.json").read_text())
        assert config.pop("calibration") is None
        (folder / "config.json").write_text(json.dumps(config))
        assert Artifact.load(folder).calibration is None

    @pytest.mark.parametrize("name", ["demo-dits", "demo-linear"])
    def test_the_shipped_adapters_have_one(self, name):
        calibration = Artifact.load(name).calibration
        assert calibration is not None
        assert (calibration.videos, calibration.queries) == (150, 750)
