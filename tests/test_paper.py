"""docs/paper.md: a row for every equation, table and figure, whose names and commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import dits_adapter
from benchmarks import ablations, joint_rows
from benchmarks.datasets import DATASETS
from dits_adapter.cli import _parser

PAGE = (Path(__file__).parents[1] / "docs" / "paper.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")]
CODE = re.findall(r"`([^`]+)`", PAGE) + re.findall(r"(?m)^    ((?:.*\\\n)*.*)", PAGE)
GAPS = sorted({code.replace("\\\n", "") for code in CODE if code.startswith("dits-adapter gap ")})


@pytest.mark.parametrize(("kind", "last"), [("Eq.", 9), ("Table", 11), ("Figure", 6)])
def test_every_number_has_one_row(kind, last):
    names = [row[0] for row in ROWS if row[0].startswith(kind)]
    numbers = [int(number) for name in names for number in re.findall(r"\d+", name)]
    parts = [name for name in names if re.search(r"\d[ab]", name)]
    assert sorted(set(numbers)) == list(range(1, last + 1))
    assert len(numbers) - len(set(numbers)) == (2 if parts else 0)  # 5a and 5b, 6a and 6b


@pytest.mark.parametrize("command", GAPS)
def test_the_gap_can_be_measured_as_said(command):
    assert _parser().parse_args(shlex.split(command)[1:]).command == "gap"


def test_every_ablation_is_named():
    for name in {*ablations.ABLATIONS, *joint_rows.ABLATIONS}:
        assert f"--ablation {name}" in PAGE, name


def test_every_public_name_exists():
    names = [code for code in CODE if re.fullmatch(r"[A-Z][A-Za-z]+[a-z][A-Za-z]*(\.[a-z_]+)?", code)]
    assert len(names) > 8
    for name in names:
        place = dits_adapter
        for part in name.split("."):
            place = getattr(place, part)


def test_the_rows_and_settings_that_are_named_exist():
    rows = {
        name
        for ablation in (None, *joint_rows.ABLATIONS)
        for name in joint_rows.rows_of(ablation, joint_rows.settings(DATASETS["msrvtt"], {}))
    }
    assert {code for code in CODE if re.fullmatch(r"(dits|diffusion|text|best|linear|x)-[a-z0-9-]+", code)} <= {
        *rows,
        "dits-adapter",
    }
    chosen = dict(re.findall(r"`(?:--set )?([a-z_.]+)=([\w.-]+)`", PAGE))
    assert len(chosen) > 2
    for name, value in chosen.items():
        joint_rows.settings(DATASETS["didemo"], {name: value})
