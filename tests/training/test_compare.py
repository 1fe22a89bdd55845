"""The comparison from outside: what it reports, what it recommends, and that a killed one goes on."""

from __future__ import annotations

import dataclasses
import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from dits_adapter.adapters import (
    DITSAdapter,
    LowRankAdapter,
    LowRankConfig,
    MLPAdapter,
    MLPConfig,
    fit_query_bank,
    gentle_linear,
)
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import DITSError, InputError, SpaceMismatchError
from dits_adapter.evaluation.comparison import Comparison, Retrieval, Row, recommend
from dits_adapter.evaluation.metrics import RetrievalMetrics, ranks
from dits_adapter.sampler import SamplerConfig
from dits_adapter.training._learning_curve import with_curve
from dits_adapter.training.compare import compare, compare_folds, fold_splits
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.rows import all_rows, equal_cost_depth, schedule
from dits_adapter.training.run import fit
from tests.spaces import made_up_space

WIDTH = 8
QUICK = TrainingConfig(epochs=2, batch_size=32)


def rotated_pairs(videos: int = 120, noise: float = 0.1, rotate: bool = True) -> Pairs:
    """Two texts a video; the videos are rotated texts, which plain cosine cannot undo and a linear map can."""
    rng = np.random.default_rng(0)
    meaning = rng.normal(size=(videos, WIDTH))
    labels = np.repeat(np.arange(videos), 2)
    rotation = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0] if rotate else np.eye(WIDTH)
    text = meaning[labels] + noise * rng.normal(size=(2 * videos, WIDTH))
    video = meaning @ rotation
    video /= np.linalg.norm(video, axis=1, keepdims=True)
    return Pairs(text.astype(np.float32), video.astype(np.float32), labels, made_up_space(WIDTH))


def three(pairs: Pairs) -> tuple[Pairs, Pairs, Pairs]:
    rest, test = pairs.split(0.4, 0)
    train, validation = rest.split(0.2, 0)
    return train, validation, test


def quick_rows(*names):
    rows = all_rows((1, 2), QUICK)
    return {name: rows[name] for name in names or rows}


@pytest.fixture(scope="module")
def rotated() -> Comparison:
    rows = {name: row for name, row in quick_rows().items() if row.adapter not in ("gentle-mlp", "gentle-dits")}
    return compare(*three(rotated_pairs()), rows=rows, progress=False)


def test_every_adapter_has_its_row_in_order(rotated):
    assert list(all_rows((1, 2))) == [
        "identity",
        "mean-shift",
        "procrustes",
        "ridge",
        "low-rank-affine",
        "contrastive-linear",
        "mlp-1",
        "mlp-2",
        "dits-1",
        "dits-2",
        "mlp-best",
        "dits-best",
        "query-bank",
        "score-bias",
        "both-sides",
        "gentle-linear",
        "gentle-linear-bank",
        "gentle-linear-bias",
        "gentle-linear-both",
        "gentle-mlp",
        "gentle-mlp-bank",
        "gentle-mlp-bias",
        "gentle-mlp-both",
        "gentle-dits",
        "gentle-dits-bank",
        "gentle-dits-bias",
        "gentle-dits-both",
        "mlp-best-bank",
        "mlp-best-bias",
        "mlp-best-both",
    ]
    families = ["plain"] + 5 * ["linear"] + 6 * ["network"] + 3 * ["bank"] + 4 * ["linear"] + 3 * ["network"]
    assert [row.family for row in rotated.rows] == families
    banks = [row.name for row in rotated.rows if row.uses_queries]
    assert banks == [
        row.name for row in rotated.rows if row.name.endswith(("-bank", "-bias", "-both", "both-sides"))
    ]
    assert rotated.sizes == {"train": (116, 58), "validation": (28, 14), "test": (96, 48)}


def test_the_figures_are_those_of_the_test_pairs(rotated):
    _, _, test = three(rotated_pairs())
    text = test.text / np.linalg.norm(test.text, axis=1, keepdims=True)
    plain = rotated["identity"]
    assert list(plain.text_to_video.ranks) == ranks(text @ test.video.T, test.labels).tolist()
    assert len(plain.video_to_text.ranks) == len(test.video)
    assert plain.weights == 0
    assert plain.over_plain["r1"].difference == 0
    for row in rotated.rows:
        gained = row.text_to_video.metrics.r1 - plain.text_to_video.metrics.r1
        assert row.over_plain["r1"].difference == pytest.approx(gained)
        assert row.text_to_video.intervals["r1"].low <= row.text_to_video.metrics.r1
        assert row.microseconds > 0


def test_a_rotation_needs_a_linear_map_and_no_more(rotated):
    assert rotated.recommendation.name in {"procrustes", "ridge"}
    assert rotated.recommendation.reason.startswith("A linear map is enough")
    assert rotated["procrustes"].text_to_video.metrics.r1 > 90 > 20 > rotated["identity"].text_to_video.metrics.r1


def test_without_a_gap_it_says_keep_plain_clip():
    rows = quick_rows("identity", "ridge", "contrastive-linear")
    pairs = rotated_pairs(rotate=False, noise=0.5)
    found = compare(*three(pairs), rows=rows, progress=False)
    assert found.recommendation.name == "identity"
    assert found.recommendation.reason.startswith("Keep plain CLIP")
    assert "against identity: R@1" in found.recommendation.reason


def test_plain_clip_alone_is_not_called_better_than_adapters(rotated):
    alone = recommend(rotated.rows[:1], np.arange(len(rotated.rows[0].text_to_video.ranks)))
    assert alone.name == "identity"
    assert alone.reason == "Nothing was compared with identity: take more rows, or a larger budget."


def test_the_order_of_the_rows_does_not_matter(rotated):
    rows = quick_rows("ridge", "identity", "mean-shift")
    found = compare(*three(rotated_pairs()), rows=rows, progress=False)
    assert [row.name for row in found.rows] == ["identity", "ridge", "mean-shift"]
    assert found["ridge"].text_to_video == rotated["ridge"].text_to_video


def test_json_reads_back_equal_and_refuses_another_version(rotated):
    text = rotated.to_json()
    assert Comparison.from_json(text) == rotated
    with pytest.raises(DITSError, match="layout version 2"):
        Comparison.from_json(json.dumps({**json.loads(text), "version": 1}))


def test_the_table_has_all_rows_quoted_ones_and_the_answer(rotated):
    assert str(rotated) == rotated.markdown()
    text = rotated.markdown({"X-Pool, quoted": (46.9, 72.8, 82.2, 2, 14.3)})
    assert text.startswith("Trained on 116 texts of 58 videos, chosen on 28 texts of 14 videos.")
    assert "| X-Pool, quoted " in text
    assert text.count("| ridge") == 2
    assert rotated.recommendation.reason in text
    widths = {len(line) for line in text.split("\n\n")[2].splitlines()}
    assert len(widths) == 1


def test_no_row_of_plain_clip_is_refused():
    with pytest.raises(InputError, match="needs the row 'identity'"):
        compare(*three(rotated_pairs()), rows=quick_rows("ridge"), progress=False)


def test_splits_of_different_spaces_are_refused_before_anything_is_trained(tmp_path):
    train, validation, test = three(rotated_pairs())
    foreign = Pairs(test.text, test.video, test.labels, made_up_space(WIDTH, seed=1))
    with pytest.raises(SpaceMismatchError, match=r"the training pairs .* the test pairs"):
        compare(train, validation, foreign, rows=quick_rows("identity"), out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_test_videos_that_were_trained_on_are_noticed():
    train, validation, test = three(rotated_pairs())
    leaky = test.of_videos(np.arange(len(test.video)))
    leaky.video[3] = train.video[0]
    with pytest.warns(UserWarning, match="of 48 test videos 1 has exactly the vector of a training"):
        compare(train, validation, leaky, rows=quick_rows("identity"), progress=False)


def test_rows_of_banks_are_what_their_formulas_say():
    """The bank is the texts of the training pairs, which no searched video has."""
    train, validation, test = three(rotated_pairs())
    rows = quick_rows("identity", "query-bank", "score-bias", "gentle-linear-bias")
    found = compare(train, validation, test, rows=rows, progress=False)
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    text, bank, video = unit(test.text), unit(train.text), unit(test.video)
    expected = ranks(fit_query_bank(train.text).adapt(text) @ video.T, test.labels)
    assert list(found["query-bank"].text_to_video.ranks) == expected.tolist()
    gentle = gentle_linear(train.text, train.video[train.labels])
    for name, queries, others in (
        ("score-bias", text, bank),
        ("gentle-linear-bias", gentle.adapter.adapt(test.text), gentle.out_of_fold),
    ):
        cosines = others @ video.T
        sharpness = 2.5 / cosines.std(0).mean()
        bias = np.log(np.exp(sharpness * cosines).mean(0)) / sharpness
        expected = ranks(queries @ video.T - 0.5 * bias, test.labels)
        assert np.mean(np.array(found[name].text_to_video.ranks) == expected) > 0.98  # but for roundings
    text = found.markdown()
    assert "| query-bank \\*" in text
    assert "uses other queries" in text
    assert "| identity  " in text


def test_a_bank_that_holds_captions_of_the_gallery_is_reported_as_a_leak():
    train, validation, test = three(rotated_pairs())
    leaky = Pairs(test.text.copy(), test.video.copy(), test.labels, test.space)
    leaky.text[5] = train.text[0]
    leaky.video[3] = train.video[0]
    with pytest.warns(UserWarning, match=r"the bank of query-bank holds texts of 1 test video, and 1 test q"):
        compare(train, validation, leaky, rows=quick_rows("identity", "query-bank"), progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(train, validation, test, rows=quick_rows("identity", "query-bank"), progress=False)


def test_every_text_of_every_fold_counts_once():
    pairs = rotated_pairs()
    splits = fold_splits(pairs, 3, 0.2, 0)
    assert sorted(row.tobytes() for *_, test in splits for row in test.video) == sorted(
        row.tobytes() for row in pairs.video
    )
    for train, validation, test in splits:
        sets = [{row.tobytes() for row in split.video} for split in (train, validation, test)]
        assert len(set.union(*sets)) == sum(map(len, sets)) == len(pairs.video)
    rows = quick_rows("identity", "procrustes")
    found = compare_folds(splits, rows=rows, progress=False)
    apart = [compare(*split, rows=rows, progress=False) for split in splits]
    for name in rows:
        together = [rank for one in apart for rank in one[name].text_to_video.ranks]
        assert list(found[name].text_to_video.ranks) == together
    assert len(found.labels) == len(pairs)
    assert len(set(found.labels)) == len(pairs.video)
    assert found.folds == 3
    assert "each in one of 3 folds of about 40 videos" in found.markdown()
    assert found.recommendation.name == "procrustes"


@pytest.mark.parametrize("folds", [1, 13])
def test_folds_that_cannot_be(folds):
    with pytest.raises(InputError, match="of 120 videos: it takes 2 folds or more, of 10 videos or more each"):
        fold_splits(rotated_pairs(), folds, 0.1, 0)


def test_the_curve_has_the_figures_of_comparisons_with_fewer_pairs():
    splits = [three(rotated_pairs())]
    rows = quick_rows("identity", "query-bank", "gentle-linear", "ridge")
    whole = compare(*splits[0], rows=rows, progress=False)
    curve = with_curve(whole, splits, rows=rows, progress=False).curve
    assert [point.videos for point in curve.points] == [14 + 4, 29 + 7, 58 + 14][-len(curve.points) :]
    train, validation, test = splits[0]
    half = [pairs.of_videos(order(len(pairs.video))[: len(pairs.video) // 2]) for pairs in (train, validation)]
    apart = compare(*half, test, rows=quick_rows("identity", "query-bank", "gentle-linear"), progress=False)
    assert curve.points[-2].r1 == {row.name: row.text_to_video.metrics.r1 for row in apart.rows}
    assert curve.points[-2].recommendation == apart.recommendation.name
    assert curve.points[-1].r1["gentle-linear"] == whole["gentle-linear"].text_to_video.metrics.r1
    gained = whole[curve.row].text_to_video.metrics.mrr - apart[curve.row].text_to_video.metrics.mrr
    assert curve.doubling.difference == pytest.approx(gained)
    text = dataclasses.replace(whole, curve=curve).markdown()
    assert f"With half of the pairs: {apart.recommendation.name}." in text
    assert ("More pairs would help" in text) == (curve.doubling.low > 0)
    with pytest.raises(InputError, match="a curve is drawn of the rows identity, query-bank"):
        with_curve(whole, splits, rows=quick_rows("identity", "ridge"), progress=False)


def order(count):
    return np.random.default_rng(24).permutation(count)


def row(name, family, test_ranks, validation_mrr):
    metrics = RetrievalMetrics.from_ranks(test_ranks)
    retrieval = Retrieval(metrics, {}, tuple(map(float, test_ranks)))
    validation = dataclasses.replace(metrics, mrr=validation_mrr)
    return Row(name, family, retrieval, retrieval, {}, validation, weights=0, microseconds=0.0)


def outcomes(right: int, n: int = 200) -> list[int]:
    return [1] * right + [20] * (n - right)


PLAIN = row("identity", "plain", outcomes(60), 0.3)
LABELS = np.arange(200)


@pytest.mark.parametrize(
    ("others", "expected", "words"),
    [
        ([("ridge", "linear", 60, 0.9), ("dits", "network", 60, 0.9)], "identity", "Keep plain CLIP"),
        ([("ridge", "linear", 20, 0.9), ("dits", "network", 30, 0.9)], "identity", "Keep plain CLIP"),
        ([("ridge", "linear", 61, 0.9), ("dits", "network", 61, 0.9)], "identity", "Keep plain CLIP"),
        ([("ridge", "linear", 100, 0.9), ("dits", "network", 101, 0.95)], "ridge", "A linear map is enough"),
        ([("ridge", "linear", 100, 0.9), ("dits", "network", 80, 0.95)], "ridge", "A linear map is enough"),
        ([("ridge", "linear", 100, 0.9)], "ridge", "A linear map is enough"),
        ([("ridge", "linear", 100, 0.9), ("dits", "network", 140, 0.95)], "dits", "The network is worth it"),
        ([("ridge", "linear", 40, 0.9), ("dits", "network", 140, 0.95)], "dits", "The network is worth it"),
        # Validation chooses within a family, however well the other one does on the test pairs.
        ([("ridge", "linear", 100, 0.8), ("procrustes", "linear", 60, 0.9)], "identity", "Keep plain CLIP"),
        ([("mlp", "network", 120, 0.9), ("dits", "network", 160, 0.8)], "mlp", "The network is worth it"),
        ([("dits-video", "paired", 200, 0.99)], "identity", "Keep plain CLIP"),
        ([], "identity", "Nothing was compared with identity"),
        (
            [("query-bank", "bank", 100, 0.9), ("ridge", "linear", 101, 0.9)],
            "query-bank",
            "A bank of queries is enough",
        ),
        ([("query-bank", "bank", 100, 0.9), ("ridge", "linear", 140, 0.9)], "ridge", "A linear map is enough"),
        ([("query-bank", "bank", 61, 0.9), ("dits", "network", 61, 0.9)], "identity", "Keep plain CLIP"),
    ],
)
def test_the_rule(others, expected, words):
    rows = [PLAIN, *(row(name, family, outcomes(right), mrr) for name, family, right, mrr in others)]
    found = recommend(rows, LABELS)
    assert (found.name, found.reason[: len(words)]) == (expected, words)


def test_captions_of_one_video_are_one_observation_for_the_rule():
    better = row("ridge", "linear", outcomes(100), 0.9)
    assert recommend([PLAIN, better], LABELS).name == "ridge"
    assert recommend([PLAIN, better], np.arange(200) // 100).name == "identity"


def test_a_killed_comparison_goes_on_where_it_was(tmp_path, rotated, monkeypatch):
    made = []

    def watched(recipe, *splits, **options):
        if recipe.adapter == "mlp" and killed:
            raise KeyboardInterrupt
        made.append(recipe.adapter)
        return fit(recipe, *splits, **options)

    monkeypatch.setattr("dits_adapter.training.compare.fit", watched)
    splits, killed = three(rotated_pairs()), True
    rows = {name: recipe for name, recipe in quick_rows().items() if recipe.adapter != "low-rank-affine"}
    rows = {name: recipe for name, recipe in rows.items() if recipe.bank == "none" and "gentle" not in name}
    with pytest.raises(KeyboardInterrupt):
        compare(*splits, rows=rows, out=tmp_path, progress=False)
    assert list(dict.fromkeys(made)) == [
        "identity",
        "mean-shift",
        "procrustes",
        "ridge",
        "contrastive-linear",
    ]
    made.clear()
    killed = False
    resumed = compare(*splits, rows=rows, out=tmp_path, progress=False)
    assert list(dict.fromkeys(made)) == ["mlp", "dits"]
    assert [dataclasses.replace(r, microseconds=0) for r in resumed.rows] == [
        dataclasses.replace(rotated[name], microseconds=0) for name in rows
    ]


def test_what_an_adapter_records_is_what_its_row_says(tmp_path):
    rows = quick_rows("identity", "ridge", "low-rank-affine", "dits-2", "mlp-best")
    for row in compare(*three(rotated_pairs()), rows=rows, out=tmp_path, progress=False).rows:
        assert Artifact.load(tmp_path / row.name).metrics == {"validation": dataclasses.asdict(row.validation)}


def test_adapters_of_another_comparison_are_not_taken_up(tmp_path):
    splits, rows = three(rotated_pairs()), quick_rows("identity", "contrastive-linear")
    compare(*splits, rows=rows, out=tmp_path, progress=False)
    with pytest.raises(DITSError, match="identity: was made from other pairs"):
        compare(*three(rotated_pairs(noise=0.2)), rows=rows, out=tmp_path, progress=False)
    longer = {
        **rows,
        "contrastive-linear": Recipe(
            adapter="contrastive-linear", training=QUICK.model_copy(update={"epochs": 3})
        ),
    }
    with pytest.raises(DITSError, match=r"contrastive-linear: was made .* with another recipe"):
        compare(*splits, rows=longer, out=tmp_path, progress=False)


def test_an_adapter_that_needs_the_video_has_figures_but_no_time_of_a_query():
    training = TrainingConfig(epochs=1, batch_size=16)
    sampler = {"condition": "both", "steps": 2, "depth": 1}
    rows = {**quick_rows("identity"), "both": Recipe(sampler=sampler, training=training)}
    found = compare(*three(rotated_pairs(videos=40)), rows=rows, progress=False)
    assert found["both"].microseconds is None
    assert found["both"].family == "paired"
    assert "| both " in found.markdown()
    assert Comparison.from_json(found.to_json()) == found


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1.0, 2.0, 4.0]))
def test_the_mlp_multiplies_as_often_as_dits(steps, depth, ratio):
    config = SamplerConfig(width=16, timesteps=12, steps=steps, depth=depth, mlp_ratio=ratio)
    layers = equal_cost_depth(config)
    dits = multiplications(DITSAdapter(config))
    mlp = multiplications(MLPAdapter(MLPConfig(width=16, depth=layers)))
    assert abs(mlp - dits) <= mlp / layers / 2 or layers == 1


def multiplications(adapter):
    ready = adapter.for_inference()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        ready(torch.ones(1, ready.width))
    return counter.get_total_flops() / 2


def test_mlp_best_differs_from_dits_best_in_the_network_alone():
    pairs, validation, _ = three(rotated_pairs())
    rows = quick_rows("mlp-best", "dits-best")
    (mlp, of_mlp), (dits, of_dits) = (fit(recipe, pairs, validation, progress=False) for recipe in rows.values())
    assert of_mlp[0].validation == of_dits[0].validation
    assert rows["mlp-best"].training == rows["dits-best"].training
    assert multiplications(mlp) == pytest.approx(multiplications(dits), rel=0.05)


def test_more_steps_than_ten_span_a_schedule_of_their_own():
    for steps, expected in ((1, (10, 1)), (10, (10, 10)), (40, (40, 40))):
        config = Recipe(sampler=schedule(steps)).sampler_config(4)
        assert (config.timesteps, config.steps) == expected


def test_a_low_rank_map_starts_as_the_identity_and_moves_in_few_directions():
    adapter = LowRankAdapter(LowRankConfig(width=WIDTH, rank=2))
    vectors = np.random.default_rng(0).normal(size=(20, WIDTH))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(adapter.adapt(vectors), unit, atol=1e-6)
    with torch.no_grad():
        adapter.up.normal_()
    moved = adapter(torch.tensor(unit)).detach().numpy() - unit
    assert np.linalg.matrix_rank(moved, tol=1e-5) == 2


def test_the_command_cross_validates_for_programs(tmp_path, capsys):
    rotated_pairs(videos=60).save(tmp_path / "cache.safetensors")
    command = ["compare", str(tmp_path / "cache.safetensors"), "--folds", "2", "--json"]
    command += ["--rows", "gentle-linear", "query-bank", "--curve", str(tmp_path / "curve.json")]
    assert main(command) == 0
    found = Comparison.from_json(capsys.readouterr().out)
    assert [row.name for row in found.rows] == ["identity", "gentle-linear", "query-bank"]
    assert (found.folds, len(found.labels)) == (2, 120)
    curve = json.loads((tmp_path / "curve.json").read_text())
    assert curve["points"][-1]["r1"]["query-bank"] == found["query-bank"].text_to_video.metrics.r1
    assert curve["more_would_help"] == (found.curve.doubling.low > 0)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--curve", "nowhere/curve.json"], "there is no folder nowhere"),
        (["--curve", "curve.json", "--rows", "ridge"], "a curve is drawn of the rows identity, query-bank"),
        (["--curve", "curve.json", "--test-fraction", "0.8"], "is too few for a curve; it takes 20"),
        (["--folds", "1"], "1 folds of 60 videos"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_fitted(
    options, message, tmp_path, capsys, monkeypatch
):
    rotated_pairs(videos=60).save(tmp_path / "cache.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dits_adapter.training.compare.fit", None)
    assert main(["compare", "cache.safetensors", *options]) == 1
    assert message in capsys.readouterr().err


def test_the_command_prints_the_table_and_keeps_everything(tmp_path, capsys):
    rotated_pairs(videos=60).save(tmp_path / "cache.safetensors")
    out = tmp_path / "out"
    command = ["compare", str(tmp_path / "cache.safetensors"), "--steps", "1", "--epochs", "1", "--out", str(out)]
    command += ["--rows", "ridge", "dits-1", "query-bank"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| dits-1 " in printed
    assert "**Recommendation: " in printed
    found = Comparison.from_json((out / "comparison.json").read_text())
    assert printed.startswith(found.markdown())
    assert found.markdown() == (out / "comparison.md").read_text().rstrip("\n")
    assert found.recipes["dits-1"]["training"]["epochs"] == 1
    for change, message in [
        (["--seed", "1"], "made from other pairs"),
        (["--epochs", "0"], "epochs is 0; it has to be at least 1"),
        (["--steps", "0"], "of at least 1"),
    ]:
        assert main([*command, *change]) == 1
        assert message in capsys.readouterr().err


def test_no_network_is_said_to_have_lost_that_was_not_tried():
    found = compare(*three(rotated_pairs()), rows=quick_rows("identity", "procrustes"), progress=False)
    assert found.recommendation.name == "procrustes"
    assert "no network was tried" in found.recommendation.reason
