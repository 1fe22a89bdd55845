"""`python -m benchmarks.growth` on few pairs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.growth import generate, main, recipes, split
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.run import fit


def test_it_prints_time_and_memory_of_each_row_and_number(capsys):
    command = ["--pairs", "100", "200", "--width", "8", "--rows", "ridge", "low-rank-affine", "query-bank"]
    assert main(command) == 0
    captured = capsys.readouterr()
    head, _, *lines = captured.out[captured.out.index("| pairs") :].splitlines()
    assert head.split() == ["|", "pairs", "|", "100", "|", "200", "|"]
    names = [line.split("|")[1].strip() for line in lines]
    assert names == [
        "identity",
        "ridge",
        "low-rank-affine",
        "query-bank",
        "evaluation of a row",
        "the split in each",
    ]
    for line in lines:
        for cell in line.split("|")[2:4]:
            seconds, _, megabytes = cell.partition("/")
            assert float(seconds) > 0
            assert 0 <= int(megabytes) < 1000
    assert "200 pairs, ridge: " in captured.err


def test_what_the_budget_does_not_hold_is_left_out(capsys):
    assert main(["--pairs", "100", "--width", "8", "--rows", "ridge", "--budget", "0.000001s"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| ridge"))
    assert line.split("|")[2].strip() == "–"


def test_each_fit_is_a_row_with_one_epoch_at_one_rate():
    rows = recipes(None)
    assert {"ridge", "dits-10", "mlp-best", "gentle-mlp", "query-bank"} <= rows.keys()
    assert not {"gentle-mlp-bank", "score-bias", "mlp-best-both"} & rows.keys()
    for recipe in rows.values():
        assert recipe.training.epochs == len(recipe.training.learning_rate) == 1


def test_a_text_is_near_its_video_and_shards_do_not_repeat_each_other(tmp_path):
    generate(tmp_path / "cache", 5_000, 8)
    pairs = split(tmp_path / "cache")[0]
    assert len(np.unique(pairs.video, axis=0)) == len(pairs.video) == 4_500


ONCE = TrainingConfig(epochs=1, hard_negatives=0.2)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(adapter="ridge"),
        Recipe(adapter="identity", bank="queries"),
        Recipe(sampler={"start": "affine", "steps": 1}, training=ONCE),
        Recipe(adapter="mlp", training=ONCE),
    ],
)
def test_no_fit_reads_a_side_of_a_cache_whole(recipe, tmp_path):
    generate(tmp_path / "cache", 500, 8)
    kept, validation = split(tmp_path / "cache")
    fit(recipe, kept, validation, checkpoints=tmp_path / "checkpoints")
    assert not {"text", "video"} & vars(kept).keys()  # of the matrices that `Pairs` reads when they are asked for


def test_too_few_pairs_are_refused(capsys):
    assert main(["--pairs", "50"]) == 1
    assert "--pairs 50: it takes 100" in capsys.readouterr().err
