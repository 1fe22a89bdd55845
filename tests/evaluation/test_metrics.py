from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dits_adapter.cli import main
from dits_adapter.errors import InputError
from dits_adapter.evaluation import metrics
from dits_adapter.evaluation.metrics import (
    METRICS,
    DotProducts,
    RetrievalMetrics,
    bootstrap,
    paired_bootstrap,
    ranks,
    video_to_text_ranks,
)

GOLDEN = Path(__file__).parents[3] / "shared" / "golden"
TIES = ("pessimistic", "optimistic", "mean")


@st.composite
def matrices(draw):
    """Few distinct scores, so that ties abound; several captions for some videos, none for others."""
    n_texts, n_videos = draw(st.integers(1, 9)), draw(st.integers(1, 6))
    scores = draw(st.lists(st.integers(-2, 2), min_size=n_texts * n_videos, max_size=n_texts * n_videos))
    labels = draw(st.lists(st.integers(0, n_videos - 1), min_size=n_texts, max_size=n_texts))
    return np.array(scores, dtype=np.float32).reshape(n_texts, n_videos) / 3, np.array(labels)


def slow_rank(right, wrong, ties):
    above = sum(score > right for score in wrong)
    tied = sum(score == right for score in wrong)
    return 1 + above + {"pessimistic": tied, "optimistic": 0, "mean": tied / 2}[ties]


@given(matrices(), st.sampled_from(TIES), st.integers(1, 20))
def test_ranks_are_those_of_counting_one_by_one_whatever_the_block(case, ties, entries):
    scores, labels = case
    expected = [
        slow_rank(row[label], [s for column, s in enumerate(row) if column != label], ties)
        for row, label in zip(scores, labels, strict=True)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_ENTRIES", entries)
        assert ranks(scores, labels, ties=ties).tolist() == expected


@given(matrices(), st.sampled_from(TIES), st.integers(1, 20))
def test_a_video_ranks_by_its_best_caption(case, ties, entries):
    scores, labels = case
    expected = [
        slow_rank(scores[labels == video, video].max(), scores[labels != video, video], ties)
        for video in sorted(set(labels.tolist()))
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK_ENTRIES", entries)
        assert video_to_text_ranks(scores, labels, ties=ties).tolist() == expected


@given(matrices())
def test_tie_rules_bracket_each_other_and_agree_without_ties(case):
    scores, labels = case
    for direction in (ranks, video_to_text_ranks):
        worst, best, middle = (direction(scores, labels, ties=ties) for ties in TIES)
        assert (best <= middle).all()
        assert (middle == (best + worst) / 2).all()
        distinct = np.argsort(scores.ravel(), kind="stable").argsort().reshape(scores.shape)
        assert (direction(distinct, labels) == direction(distinct, labels, ties="optimistic")).all()


def test_a_constant_scorer_gets_no_credit():
    assert ranks(np.zeros((50, 50))).tolist() == [50] * 50
    assert RetrievalMetrics.from_ranks(ranks(np.zeros((50, 50)), ties="optimistic")).r1 == 100


def test_permuting_the_videos_with_their_labels_changes_nothing():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(40, 15)), rng.integers(15, size=40)
    order = rng.permutation(15)
    moved = np.argsort(order)[labels]
    assert (ranks(scores[:, order], moved) == ranks(scores, labels)).all()
    assert sorted(video_to_text_ranks(scores[:, order], moved)) == sorted(video_to_text_ranks(scores, labels))


def test_streamed_vectors_rank_like_the_whole_matrix_and_duplicates_tie(monkeypatch):
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(60, 512)).astype(np.float32)
    videos = rng.normal(size=(20, 512)).astype(np.float32)
    videos[7] = videos[3]  # the same clip twice: its texts never reach rank 1
    labels = np.arange(60) % 20
    matrix = (texts.astype(np.float64) @ videos.astype(np.float64).T).astype(np.float32)
    for entries in (1, 20, 70, 10**6):
        monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", entries)
        assert (ranks(DotProducts(texts, videos), labels) == ranks(matrix, labels)).all()
        assert (
            video_to_text_ranks(DotProducts(texts, videos), labels) == video_to_text_ranks(matrix, labels)
        ).all()
    strict, lenient = (ranks(DotProducts(texts, videos), labels, ties=ties) for ties in TIES[:2])
    assert ((strict - lenient) == np.isin(labels, (3, 7))).all()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_metrics_are_those_of_numpy(values):
    values = np.array(values)
    result = RetrievalMetrics.from_ranks(values)
    assert (result.r1, result.r5, result.r10) == pytest.approx(
        tuple(100 * np.mean(values <= k) for k in (1, 5, 10))
    )
    assert result.mdr == np.median(values)
    assert (result.mnr, result.mrr) == pytest.approx((values.mean(), (1 / values).mean()))
    assert result.n == len(values)


def test_pytrec_eval_agrees_where_both_define_the_metric():
    pytrec_eval = pytest.importorskip("pytrec_eval", reason="the outside judge needs pytrec-eval-terrier")
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(size=(80, 30)), rng.integers(30, size=80)
    measures = {"recall_1", "recall_5", "recall_10", "recip_rank"}

    def judge(right, matrix):
        run = {f"q{i}": {f"c{j}": float(s) for j, s in enumerate(row)} for i, row in enumerate(matrix)}
        truth = {f"q{i}": {f"c{j}": 1 for j in columns} for i, columns in right.items()}
        per_query = pytrec_eval.RelevanceEvaluator(truth, measures).evaluate(run).values()
        return {name: np.mean([query[name] for query in per_query]) for name in measures}

    ours = RetrievalMetrics.from_ranks(ranks(scores, labels))
    theirs = judge({i: [label] for i, label in enumerate(labels)}, scores)
    assert (ours.r1, ours.r5, ours.r10, ours.mrr) == pytest.approx(
        (100 * theirs["recall_1"], 100 * theirs["recall_5"], 100 * theirs["recall_10"], theirs["recip_rank"])
    )
    # Several right captions a video: recall differs by definition, the reciprocal rank of the first does not.
    captions = {video: np.flatnonzero(labels == video) for video in np.unique(labels)}
    theirs = judge(captions, scores.T)
    assert RetrievalMetrics.from_ranks(video_to_text_ranks(scores, labels)).mrr == pytest.approx(
        theirs["recip_rank"]
    )


@pytest.mark.parametrize("groups", [None, [4, 4, 9, 4, 2, 9, 2, 2, 2, 7]])
def test_the_bootstrap_is_that_of_drawing_groups_one_by_one(groups):
    values = np.array([1, 1, 2, 3, 5, 8, 13, 21, 1, 6.0])
    members = np.arange(10) if groups is None else np.array(groups)
    rng = np.random.default_rng(99)
    names = np.unique(members)
    slow = []
    for _ in range(4000):
        drawn = rng.choice(names, size=len(names))
        resample = np.concatenate([values[members == name] for name in drawn])
        slow.append([getattr(RetrievalMetrics.from_ranks(resample), name) for name in METRICS])
    fast = bootstrap(values, groups, n=4000, level=0.8)
    for name, column in zip(METRICS, np.array(slow).T, strict=True):
        spread = column.std()
        assert fast[name] == pytest.approx(np.percentile(column, [10, 90]), abs=0.25 * spread), name


def test_the_bootstrap_covers_the_binomial_standard_error():
    values = np.where(np.random.default_rng(3).random(1000) < 0.48, 1, 7)
    low, high = bootstrap(values)["r1"]
    assert high - low == pytest.approx(2 * 1.96 * 1.58, rel=0.08)


def test_captions_of_one_video_widen_the_interval():
    values = np.repeat(np.where(np.arange(100) % 2, 1, 7), 10)
    single, grouped = bootstrap(values)["r1"], bootstrap(values, np.repeat(np.arange(100), 10))["r1"]
    assert grouped.high - grouped.low == pytest.approx((single.high - single.low) * 10**0.5, rel=0.15)


def test_blocks_of_resamples_do_not_change_the_interval(monkeypatch):
    values, groups = np.arange(1, 31), np.arange(30) // 3
    whole = bootstrap(values, groups, n=100)
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", 70)
    blocked = bootstrap(values, groups, n=100)
    assert all(blocked[name] == pytest.approx(whole[name]) for name in METRICS)
    assert bootstrap(values, groups, n=100, seed=1) != whole


def test_a_paired_interval_cancels_what_the_systems_share():
    rng = np.random.default_rng(0)
    hardness = rng.integers(1, 60, size=500)
    better = np.maximum(1, hardness - 1)
    gain = paired_bootstrap(hardness, better)["mnr"]
    assert gain.difference == pytest.approx(better.mean() - hardness.mean())
    assert gain.low <= gain.difference <= gain.high < 0
    alone = bootstrap(better)["mnr"]
    assert gain.high - gain.low < 0.1 * (alone.high - alone.low)
    reverse = paired_bootstrap(better, hardness)["mnr"]
    assert reverse == pytest.approx((-gain.difference, -gain.high, -gain.low))
    assert paired_bootstrap(better, better)["r1"] == (0, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("direction", [ranks, video_to_text_ranks])
def test_a_score_that_is_no_number_is_refused_by_row_and_column(value, direction, monkeypatch):
    monkeypatch.setattr(metrics, "_BLOCK_ENTRIES", 10)
    scores = np.zeros((5, 5))
    scores[3, 1] = value
    with pytest.raises(InputError, match="row 3, column 1"):
        direction(scores)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.zeros((4, 3)), None, "4 texts against 3 videos"),
        (np.zeros(4), None, "must be a matrix"),
        (np.zeros((0, 3)), np.zeros(0, int), "must be a matrix"),
        (np.zeros((2, 3)), [0, 3], "label 3 of text 1"),
        (np.zeros((2, 3)), [-1, 0], "label -1 of text 0"),
        (np.zeros((2, 3)), [0], "2 integers"),
        (np.zeros((2, 3)), [0.0, 1.0], "2 integers"),
        (np.zeros((2, 2), dtype=complex), None, "complex"),
    ],
)
def test_what_does_not_fit_is_refused(scores, labels, message):
    for direction in (ranks, video_to_text_ranks):
        with pytest.raises(InputError, match=message):
            direction(scores, labels)


def test_bad_arguments_are_refused():
    with pytest.raises(InputError, match="pessimistic, optimistic, mean, not 'lucky'"):
        ranks(np.zeros((2, 2)), ties="lucky")
    with pytest.raises(InputError, match="same d"):
        DotProducts(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(InputError, match=r"rank 0\.0 of query 1"):
        RetrievalMetrics.from_ranks([1, 0])
    with pytest.raises(InputError, match="non-empty"):
        RetrievalMetrics.from_ranks([])
    with pytest.raises(InputError, match="groups"):
        bootstrap([1, 2], [0])
    with pytest.raises(InputError, match="2 and 1"):
        paired_bootstrap([1, 2], [1])
    with pytest.raises(InputError, match="level"):
        bootstrap([1, 2], level=95)


def saved(path, array):
    np.save(path, array)
    return str(path)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the real MSRVTT matrices (shared golden/) are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [("video", (48.0, 73.0, 82.9, 2, 13.129)), ("titles", (29.7, 55.8, 66.6, 4, 26.743))],
)
def test_real_msrvtt_matrices_give_the_published_figures(name, expected, capsys):
    path = GOLDEN / f"Cap4Video_msrvtt_{name}_matrix.npy"
    assert main(["evaluate", "--similarity", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["text_to_video"]
    metrics, intervals = result["metrics"], result["intervals"]
    assert tuple(metrics[metric] for metric in ("r1", "r5", "r10", "mdr", "mnr")) == expected
    assert all(intervals[metric]["low"] <= metrics[metric] <= intervals[metric]["high"] for metric in METRICS)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the real MSRVTT matrices (shared golden/) are not here")
def test_the_real_mixture_of_both_matrices():
    video, titles = (np.load(GOLDEN / f"Cap4Video_msrvtt_{name}_matrix.npy") for name in ("video", "titles"))
    result = RetrievalMetrics.from_ranks(ranks(0.7 * video + 0.3 * titles))
    assert (result.r1, result.r5) == (48.6, 74.5)


def test_evaluate_prints_both_directions_with_intervals(tmp_path, capsys):
    path = saved(tmp_path / "s.npy", np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]] + 0.1 * np.eye(8))
    assert main(["evaluate", "--similarity", path]) == 0
    out = capsys.readouterr().out
    assert "pessimistic" in out
    assert out.count("75.0 [") == 2
    assert "text to video" in out
    assert "video to text" in out


@pytest.mark.parametrize("text", [True, False])
def test_evaluate_takes_labels_as_text_or_array(tmp_path, capsys, text):
    scores = np.array([[1, 0], [1, 0], [0, 1.0]])
    path = saved(tmp_path / "s.npy", scores)
    if text:
        labels = tmp_path / "labels.txt"
        labels.write_text("0\n0\n1\n")
    else:
        labels = Path(saved(tmp_path / "labels.npy", np.array([0, 0, 1])))
    assert main(["evaluate", "--similarity", path, "--labels", str(labels), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    forward, backward = (result[direction]["metrics"] for direction in ("text_to_video", "video_to_text"))
    assert (forward["n"], backward["n"]) == (3, 2)
    assert forward["r1"] == backward["r1"] == 100


def test_evaluate_obeys_the_tie_rule(tmp_path, capsys):
    path = saved(tmp_path / "s.npy", np.zeros((4, 4)))
    values = {}
    for ties in TIES:
        assert main(["evaluate", "--similarity", path, "--ties", ties, "--json"]) == 0
        values[ties] = json.loads(capsys.readouterr().out)["text_to_video"]["metrics"]["mnr"]
    assert values == {"pessimistic": 4, "optimistic": 1, "mean": 2.5}


def test_evaluate_says_what_is_wrong_with_a_file(tmp_path, capsys):
    good = saved(tmp_path / "good.npy", np.eye(3))
    words = tmp_path / "words.txt"
    words.write_text("zero\none\n")
    pickled = tmp_path / "pickled.npy"
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    cases = [
        (["--similarity", str(tmp_path / "none.npy")], ["none.npy", "No such file"]),
        (["--similarity", str(words)], ["words.txt", ".npy"]),
        (["--similarity", str(pickled)], ["pickled.npy", "Python objects"]),
        (["--similarity", saved(tmp_path / "flat.npy", np.zeros(3))], ["flat.npy", "(3,)"]),
        (["--similarity", saved(tmp_path / "wide.npy", np.zeros((3, 4)))], ["3 texts against 4", "as labels"]),
        (
            ["--similarity", saved(tmp_path / "nan.npy", np.full((2, 2), np.nan))],
            ["nan.npy", "row 0, column 0"],
        ),
        (["--similarity", good, "--labels", str(words)], ["words.txt", "line 1", "zero"]),
        (["--similarity", good, "--labels", saved(tmp_path / "l.npy", np.array([0, 1, 3]))], ["label 3"]),
    ]
    for arguments, parts in cases:
        assert main(["evaluate", *arguments]) == 1
        message = capsys.readouterr().err
        assert all(part in message for part in parts), message
