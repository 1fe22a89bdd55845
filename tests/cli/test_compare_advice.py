"""Commands that `compare` recommends make what it compared."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from dits_adapter.cli._advice import commands_for
from dits_adapter.cli._options import assignments
from dits_adapter.training._initial import LEARNING_RATES
from dits_adapter.training.config import Recipe, TrainingConfig
from dits_adapter.training.rows import all_rows
from tests.spaces import made_up_space

SEARCH = "search TEXT --store STORE --collection NAME --adapter"
ROWS = all_rows((1, 5, 10), TrainingConfig(learning_rate=LEARNING_RATES, patience=8, seed=3))


def after(words, option):
    return [words[at + 1] for at, word in enumerate(words) if word == option]


@pytest.mark.parametrize("name", [name for name, recipe in ROWS.items() if recipe.adapter != "identity"])
def test_the_first_one_trains_by_the_recipe_of_the_row(name):
    train, *others = commands_for(ROWS[name], Path("my pairs"), made_up_space(8))
    words = shlex.split(train)
    assert words[:3] == ["dits-adapter", "train", "my pairs"]
    settings = assignments("--set", after(words, "--set"))
    recipe = Recipe.read(after(words, "--preset")[0], settings=settings)
    assert recipe == ROWS[name].model_copy(update={"bank": "none"})
    assert "--bank" not in words  # the texts of the pairs would push their own videos down
    assert len(others) == (3 if name.endswith(("-bias", "-both")) else 2 if name.endswith("-bank") else 1)


def test_gentle_rows_take_no_settings_and_the_best_ones_few():
    assert commands_for(ROWS["gentle-mlp"], Path("cache"), made_up_space(8))[0] == (
        "dits-adapter train cache --out my-adapter --preset gentle-mlp"
    )
    best = shlex.split(commands_for(ROWS["dits-best"], Path("cache"), made_up_space(8))[0])
    assert after(best, "--set") == ["training.seed=3"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity", []),
        (
            "query-bank",
            ["bank QUERIES --adapter fake-0 --out my-bank", f"{SEARCH} my-bank"],
        ),
        (
            "score-bias",
            [
                "bank QUERIES --adapter fake-0 --out my-bank",
                "bias my-bank --store STORE --collection NAME",
                f"{SEARCH} fake-0",
            ],
        ),
        (
            "gentle-linear-bank",
            [
                "train cache --out my-adapter --preset gentle-linear",
                "bank QUERIES --adapter my-adapter --out my-bank",
                f"{SEARCH} my-bank",
            ],
        ),
        (
            "gentle-dits-both",
            [
                "train cache --out my-adapter --preset gentle-dits",
                "bank QUERIES --adapter my-adapter --out my-bank",
                "bias my-bank --store STORE --collection NAME",
                f"{SEARCH} my-bank",
            ],
        ),
    ],
)
def test_a_bank_is_made_and_put_to_use(name, expected):
    commands = commands_for(ROWS[name], Path("cache"), made_up_space(8))
    assert commands == [f"dits-adapter {command}" for command in expected]
