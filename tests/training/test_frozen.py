"""Frozen training: the loss against a slow reference, what training reaches, resuming, recipes."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dits_adapter.adapters import fresh_adapter
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import DITSError, InputError, SpaceMismatchError
from dits_adapter.evaluation.metrics import RetrievalMetrics
from dits_adapter.training import _batches as batches
from dits_adapter.training import _loop as loop
from dits_adapter.training import _losses as losses
from dits_adapter.training._batches import nearest_videos
from dits_adapter.training._initial import fit_closed_form
from dits_adapter.training._loop import evaluate, train
from dits_adapter.training._losses import contrastive_loss
from dits_adapter.training._state import TrainingState, best_epoch
from dits_adapter.training.config import PRESETS, Recipe, TrainingConfig
from dits_adapter.training.run import fit
from tests.hostile_files import written
from tests.spaces import made_up_space

WIDTH = 16
CPU = torch.device("cpu")
SPACE, ELSEWHERE = (made_up_space(WIDTH, seed=seed) for seed in (0, 1))


def gap_pairs(videos: int, texts_a_video: int = 1, seed: int = 0) -> Pairs:
    """Videos, and texts that a curved map and a shift keep apart from them."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, WIDTH, WIDTH)) / 4
    video = rng.normal(size=(videos, WIDTH))
    labels = np.repeat(np.arange(videos), texts_a_video)
    noisy = video[labels] + 0.1 * rng.normal(size=(len(labels), WIDTH))
    text = np.tanh(noisy @ mixing[0]) @ mixing[1] + 1
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    return Pairs(text.astype(np.float32), video.astype(np.float32), labels, SPACE)


def slow_loss(similarity, scale, ids):
    """Eq. 2 in float64 with loops; other captions of the same video are left out."""
    n = len(similarity)
    total = 0.0
    for matrix in (similarity, similarity.T):
        for i in range(n):
            terms = [scale * matrix[i, j] for j in range(n) if j == i or ids[j] != ids[i]]
            top = max(terms)
            total += top + math.log(sum(math.exp(x - top) for x in terms)) - scale * matrix[i, i]
    return total / (2 * n)


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 5), st.floats(0.1, 100), st.integers(0, 10_000))
def test_loss_against_a_slow_reference(n, videos, scale, seed):
    rng = np.random.default_rng(seed)
    similarity, ids = rng.uniform(-1, 1, (n, n)), rng.integers(0, videos, n)
    found = contrastive_loss(torch.tensor(similarity), torch.tensor(scale, dtype=torch.float64), torch.tensor(ids))
    assert float(found) == pytest.approx(slow_loss(similarity, scale, ids), rel=1e-9, abs=1e-9)


def test_loss_ignores_the_order_of_the_batch_and_the_names_of_videos():
    rng = np.random.default_rng(0)
    similarity, ids = torch.tensor(rng.uniform(-1, 1, (8, 8))), torch.tensor([0, 1, 2, 0, 3, 4, 1, 5])
    scale = torch.tensor(10.0, dtype=torch.float64)
    base = contrastive_loss(similarity, scale, ids)
    order = torch.tensor(rng.permutation(8))
    torch.testing.assert_close(contrastive_loss(similarity[order][:, order], scale, ids[order]), base)
    torch.testing.assert_close(contrastive_loss(similarity, scale, 100 - 7 * ids), base)


def test_gradients_of_loss_and_sampler():
    torch.manual_seed(0)
    adapter = fresh_adapter("dits", 4, {"depth": 1, "steps": 3, "timesteps": 3}).double()
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)
    video = torch.nn.functional.normalize(torch.randn(3, 4, dtype=torch.float64), dim=1)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)

    def loss(text, scale):
        similarity = torch.nn.functional.normalize(adapter(text), dim=1) @ video.T
        return contrastive_loss(similarity, scale, torch.tensor([0, 1, 0]))

    text = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (text, scale))


@pytest.mark.parametrize(
    ("name", "sampler", "epochs"),
    [("dits", {"depth": 2, "steps": 3}, 80), ("mlp", {}, 80), ("contrastive-linear", {}, 250)],
)
def test_overfits_32_pairs(name, sampler, epochs):
    pairs = gap_pairs(32)
    torch.manual_seed(0)
    adapter = fresh_adapter(name, WIDTH, sampler)
    train(
        adapter,
        pairs,
        pairs,
        TrainingConfig(epochs=epochs, batch_size=32, learning_rate=5e-3, weight_decay=0),
        progress=False,
    )
    assert RetrievalMetrics.from_ranks(evaluate(adapter, pairs)).r1 == 100


def test_crosses_a_curved_gap_that_plain_text_does_not():
    pairs, test = gap_pairs(600, 2), gap_pairs(150, seed=1)
    kept, validation = pairs.split(0.15, seed=0)
    torch.manual_seed(0)
    adapter = fresh_adapter("dits", WIDTH, {"depth": 2})
    history = train(adapter, kept, validation, TrainingConfig(epochs=12, batch_size=100), progress=False)
    plain = RetrievalMetrics.from_ranks(evaluate(fit_closed_form("identity", kept, validation), test)).r1
    assert RetrievalMetrics.from_ranks(evaluate(adapter, test)).r1 > plain + 20
    best = max(history, key=lambda epoch: epoch.validation.mrr)
    assert RetrievalMetrics.from_ranks(evaluate(adapter, validation)) == best.validation


def test_keeps_the_initial_weights_where_nothing_is_better():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = Pairs(vectors, vectors, np.arange(60), SPACE)  # no gap: plain text is perfect
    kept, validation = pairs.split(0.3, seed=0)
    adapter = fresh_adapter("dits", WIDTH)
    before = {name: value.clone() for name, value in adapter.state_dict().items()}
    history = train(adapter, kept, validation, TrainingConfig(epochs=3, batch_size=16), progress=False)
    assert history[0].validation.r1 == 100
    assert all(torch.equal(value, before[name]) for name, value in adapter.state_dict().items())


def weights_after(pairs, validation, config, **options):
    torch.manual_seed(config.seed)
    adapter = fresh_adapter("dits", WIDTH, {"depth": 1, "noise_scale": 0.1})
    history = train(adapter, pairs, validation, config, progress=False, **options)
    return adapter.state_dict(), history


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"hard_negatives": 0.5}])
def test_resumes_to_the_same_weights(options, tmp_path, monkeypatch):
    pairs, validation = gap_pairs(90, 2).split(0.2, seed=0)
    config = TrainingConfig(epochs=5, batch_size=32, learning_rate=1e-3, **options)
    whole, expected = weights_after(pairs, validation, config)

    save = TrainingState.save
    monkeypatch.setattr(
        TrainingState, "save", lambda run, path, history: (save(run, path, history), _stop(history))
    )

    def _stop(history):
        if history[-1].number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights_after(pairs, validation, config, checkpoints=tmp_path)
    monkeypatch.undo()
    resumed, history = weights_after(pairs, validation, config, checkpoints=tmp_path)
    assert [(e.number, e.validation) for e in history] == [(e.number, e.validation) for e in expected]
    assert [e.loss for e in history[1:]] == [e.loss for e in expected[1:]]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_where_all_learning_rates_begin_is_evaluated_once(monkeypatch):
    evaluated = []
    monkeypatch.setattr(loop, "evaluate", lambda *given: evaluated.append(given) or evaluate(*given))
    pairs, validation = gap_pairs(90, 2).split(0.2, seed=0)
    config = TrainingConfig(epochs=2, batch_size=32, learning_rate=(1e-4, 1e-3))
    _, history = weights_after(pairs, validation, config)
    assert len(evaluated) == 1 + 2 * 2
    alone = weights_after(pairs, validation, config.model_copy(update={"learning_rate": (1e-3,)}))[1]
    assert history[0].validation == alone[0].validation


def test_of_several_learning_rates_the_best_on_validation_is_kept(tmp_path):
    pairs, validation = gap_pairs(90, 2).split(0.2, seed=0)
    rates = (1e-7, 2e-3, 1e-2)

    def run(*rates, **options):
        return weights_after(
            pairs, validation, TrainingConfig(epochs=3, batch_size=32, learning_rate=rates), **options
        )

    alone = {rate: run(rate) for rate in rates}
    best = max(rates, key=lambda rate: best_epoch(alone[rate][1]).validation.mrr)
    assert best != rates[0]
    weights, history = run(*rates, checkpoints=tmp_path)
    assert {epoch.learning_rate for epoch in history} == {best}
    assert all(torch.equal(weights[name], alone[best][0][name]) for name in weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{rate:g}.safetensors" for rate in rates)
    resumed, _ = run(*rates, checkpoints=tmp_path)
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_a_resumed_fit_does_not_make_its_start_again(tmp_path, monkeypatch):
    pairs, validation = gap_pairs(90, 2).split(0.2, seed=0)
    recipe = Recipe.read("best", settings={"training.epochs": "2", "sampler.steps": "1", "sampler.depth": "1"})
    whole, _ = fit(recipe, pairs, validation, checkpoints=tmp_path, progress=False)
    (tmp_path / "training" / "0.0005.safetensors").unlink()
    trained = []
    epoch = TrainingState.epoch
    monkeypatch.setattr(
        TrainingState,
        "epoch",
        lambda run, number: (trained.append(run.adapter.kind), epoch(run, number))[1],
    )
    resumed, _ = fit(recipe, pairs, validation, checkpoints=tmp_path, progress=False)
    assert trained == ["dits", "dits"]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    pairs, validation = gap_pairs(60).split(0.2, seed=0)
    checkpoint = tmp_path / "0.0005.safetensors"
    weights_after(pairs, validation, TrainingConfig(epochs=1, batch_size=16), checkpoints=tmp_path)
    with pytest.raises(DITSError, match="another recipe"):
        weights_after(pairs, validation, TrainingConfig(epochs=2, batch_size=16), checkpoints=tmp_path)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-10])
    with pytest.raises(DITSError, match="no intact checkpoint"):
        weights_after(pairs, validation, TrainingConfig(epochs=1, batch_size=16), checkpoints=tmp_path)


def test_deterministic_under_a_seed():
    pairs, validation = gap_pairs(60).split(0.2, seed=0)
    runs = [
        weights_after(pairs, validation, TrainingConfig(epochs=2, batch_size=16, seed=s))[0] for s in (1, 1, 2)
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_stops_early():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, WIDTH)).astype(np.float32)
    pairs = Pairs(vectors, vectors, np.arange(40), SPACE)
    config = TrainingConfig(epochs=50, batch_size=16, patience=3)
    _, history = weights_after(pairs, pairs, config)
    assert len(history) == 4  # the initial state, which is perfect, and three epochs of patience


def test_bfloat16_trains():
    pairs, validation = gap_pairs(90).split(0.2, seed=0)
    config = TrainingConfig(epochs=3, batch_size=24, precision="bfloat16")
    weights, history = weights_after(pairs, validation, config)
    assert all(value.dtype == torch.float32 for value in weights.values())
    assert history[-1].loss < history[1].loss


def test_nan_loss_is_said(monkeypatch):
    pairs, validation = gap_pairs(40).split(0.2, seed=0)
    monkeypatch.setattr(losses, "contrastive_loss", lambda s, *_: s.sum() * torch.nan)
    with pytest.raises(DITSError, match="the loss became nan in epoch 1"):
        weights_after(pairs, validation, TrainingConfig(epochs=1, batch_size=16))


def test_refuses_pairs_that_cannot_be_contrasted():
    pairs = gap_pairs(40)
    with pytest.raises(InputError, match="two videos"):
        train(fresh_adapter("dits", WIDTH), pairs.of_videos(np.array([3])), pairs, TrainingConfig())
    with pytest.raises(InputError, match="width 8"):
        train(fresh_adapter("dits", 8), pairs, pairs, TrainingConfig())
    other = Pairs(pairs.text, pairs.video, pairs.labels, ELSEWHERE)
    with pytest.raises(SpaceMismatchError, match="the training pairs"):
        train(fresh_adapter("dits", WIDTH), pairs, other, TrainingConfig())


def test_batches_cover_an_epoch_and_hard_ones_are_near():
    pairs = gap_pairs(64, 2)
    plain = list(batches.Batches(pairs, TrainingConfig(batch_size=32), CPU).rows(1))
    assert sorted(torch.cat(plain).tolist()) == list(range(128))
    hard = batches.Batches(pairs, TrainingConfig(batch_size=32, hard_negatives=0.5), CPU)
    again = list(hard.rows(3))
    assert all(torch.equal(a, b) for a, b in zip(again, hard.rows(3), strict=True))

    def mean_similarity(batches):
        videos = [pairs.video[pairs.labels[rows]] for rows in batches]
        return np.mean([(video @ video.T).mean() for video in videos])

    assert mean_similarity(again) > mean_similarity(plain)


@pytest.mark.parametrize("read", [1, 70, 16_384])
def test_a_batch_is_the_rows_of_its_pairs_however_many_are_read_at_once(read, monkeypatch):
    monkeypatch.setattr(batches, "_READ", read)
    pairs = gap_pairs(50, 2)
    pairs.video *= 3
    found = batches.Batches(pairs, TrainingConfig(batch_size=24), CPU)
    drawn = list(found.epoch(2))
    assert len(drawn) == found.count == 4
    for batch, rows in zip(drawn, found.rows(2), strict=True):
        assert torch.equal(batch.labels, torch.from_numpy(pairs.labels)[rows])
        assert torch.equal(batch.text, torch.from_numpy(pairs.text)[rows])
        whole = torch.nn.functional.normalize(torch.from_numpy(pairs.video), dim=1)
        assert torch.equal(batch.video, whole[batch.labels])


def test_nearest_videos_against_a_full_sort():
    video = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    directions = torch.nn.functional.normalize(torch.from_numpy(video), dim=1)
    similarity = (directions @ directions.T).fill_diagonal_(-2)
    found = nearest_videos(video, 5, CPU, chunk=7)
    assert torch.equal(found, similarity.argsort(dim=1, descending=True)[:, :5])


def test_of_many_videos_the_nearest_of_a_part_are_found():
    video = torch.nn.functional.normalize(torch.randn(90, 8), dim=1)
    nearest = nearest_videos(video.numpy(), 5, CPU, chunk=7, among=30)
    reached = torch.zeros(90, 90, dtype=torch.bool)
    reached[torch.arange(90)[:, None], nearest] = True
    for _ in range(7):  # neighbors of neighbors: a part
        reached |= (reached.float() @ reached.float() > 0) | reached.T
    for row in range(90):
        part = reached[row].nonzero()[:, 0]
        assert len(part) == 30
        others = part[part != row]
        assert set(nearest[row].tolist()) == set(others[(video[others] @ video[row]).topk(5).indices].tolist())


class TestPairs:
    def test_round_trip(self, tmp_path):
        pairs = gap_pairs(7, 2)
        pairs.save(tmp_path / "pairs.safetensors")
        loaded = Pairs.load(tmp_path / "pairs.safetensors")
        for name in ("text", "video", "labels"):
            assert np.array_equal(getattr(loaded, name), getattr(pairs, name))
        assert (loaded.space, loaded.video_ids) == (pairs.space, pairs.video_ids)

    @settings(max_examples=30)
    @given(st.integers(2, 40), st.integers(1, 4), st.floats(0.01, 0.99), st.integers(0, 100))
    def test_a_split_keeps_every_text_with_its_video(self, videos, texts, fraction, seed):
        pairs = gap_pairs(videos, texts)
        parts = pairs.split(fraction, seed)
        assert sorted(parts[0].video_ids + parts[1].video_ids) == sorted(pairs.video_ids)
        assert len(parts[0]) + len(parts[1]) == len(pairs)
        for part in parts:
            assert len(part.video)
            original = [int(part.video_ids[label]) for label in part.labels]
            for row, video in zip(part.text, original, strict=True):
                assert any(np.array_equal(row, pairs.text[i]) for i in np.flatnonzero(pairs.labels == video))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"labels": np.array([0, 5])}, "text 1 has label 5; there are 2 videos"),
            ({"labels": np.array([0])}, "one label each"),
            ({"text": np.full((2, WIDTH), np.nan, np.float32)}, "text vectors: row 0"),
            ({"video": np.zeros((2, 3), np.float32)}, r"video vectors: .*\(2, 3\)"),
            ({"video_ids": ("a",)}, "1 video ids for 2 videos"),
        ],
    )
    def test_bad_pairs_are_refused(self, change, message):
        fields = {
            "text": np.ones((2, WIDTH), np.float32),
            "video": np.ones((2, WIDTH), np.float32),
            "labels": np.arange(2),
        }
        with pytest.raises(InputError, match=message):
            Pairs(**{**fields, **change}, space=SPACE)

    def test_files_that_are_no_pairs(self, tmp_path, tiny_clip):
        with pytest.raises(DITSError, match=r"none: is no file of cached pairs .*No such file"):
            Pairs.load(tmp_path / "none")
        shutil.copy(tiny_clip / "model.safetensors", tmp_path / "clip")
        with pytest.raises(DITSError, match="no file of cached pairs"):
            Pairs.load(tmp_path / "clip")


class TestRecipe:
    def test_paper_preset_is_the_paper(self):
        paper = PRESETS["paper"]
        sampler = paper.sampler_config(512)
        assert (sampler.depth, sampler.timesteps, sampler.steps, sampler.noise_scale) == (4, 10, 10, 1.0)
        assert (sampler.beta_start, sampler.beta_end, sampler.input) == (0.1, 0.99, "raw")
        assert (paper.training.epochs, paper.training.batch_size, paper.training.learning_rate) == (5, 32, (3e-5,))

    def test_the_default_takes_all_steps_with_a_ninth_of_the_multiplications(self):
        best, large = (PRESETS[name].sampler_config(512) for name in ("best", "large"))
        assert (best.steps, best.matrices, large.matrices) == (10, 42, 372)
        assert PRESETS["best"].training == PRESETS["large"].training

    def test_yaml_and_settings_override_the_preset(self, tmp_path):
        (tmp_path / "r.yaml").write_text("sampler: {steps: 5}\ntraining:\n  epochs: 7\n  seed: 3\n")
        recipe = Recipe.read("paper", tmp_path / "r.yaml", {"training.epochs": "9", "adapter": "mlp"})
        assert (recipe.sampler["steps"], recipe.sampler["noise_scale"], recipe.adapter) == (5, 1.0, "mlp")
        assert (recipe.training.epochs, recipe.training.seed, recipe.training.batch_size) == (9, 3, 32)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"training.epoch": "3"}, "epoch"),
            ({"sampler.steps": "11"}, "exceeds timesteps"),
            ({"training.learning_rate": "fast"}, "learning_rate"),
            ({"wrong": "1"}, "wrong"),
        ],
    )
    def test_bad_settings_are_refused(self, settings, message):
        with pytest.raises(InputError, match=message):
            Recipe.read("deterministic", settings=settings)

    def test_unknown_preset_and_file(self, tmp_path):
        with pytest.raises(InputError, match="there are paper, deterministic"):
            Recipe.read("magic")
        with pytest.raises(InputError, match="none\\.yaml"):
            Recipe.read("paper", tmp_path / "none.yaml")

    def test_every_encoding_and_line_end_reads_alike(self, tmp_path):
        for kind, content in written("# a réciperie 猫\nsampler: {steps: 5}\ntraining:\n  epochs: 7"):
            (tmp_path / "r.yaml").write_bytes(content)
            recipe = Recipe.read("paper", tmp_path / "r.yaml")
            assert (recipe.sampler["steps"], recipe.training.epochs) == (5, 7), kind

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("training: &a {epochs: 3}\nsampler: *a\n", r"line 2: has the alias \*a"),
            ("training: " + "[" * 5000, "nested more than 32 deep"),
            ("- 1\n", "expected any of the keys"),
            ("1: 2\n", "expected any of the keys"),
            ("training: 5\n", "training is 5, not fields"),
            ("training:\n\tepochs: 3\n", "line 2: is not YAML"),
            ("sampler: {depth: 400000}\n", "sampler.depth is 400000; it has to be at most 256"),
            ("sampler: {timesteps: 100000000}\n", "it has to be at most 10000"),
            ("adapter: \u00e9".encode("latin-1"), "line 1: its byte 10"),
        ],
    )
    def test_a_file_that_is_no_recipe_is_named(self, tmp_path, content, message):
        (tmp_path / "r.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=message) as caught:
            Recipe.read("paper", tmp_path / "r.yaml", {"training.epochs": "1"})
        assert "r.yaml" in str(caught.value)
        with pytest.raises(InputError, match=r"--set training.epochs=\*a, line 1: has the alias"):
            Recipe.read("paper", settings={"training.epochs": "*a"})
