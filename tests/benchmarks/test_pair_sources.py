"""Films with texts of every kind: what is written beside them comes back as pairs of the right spans."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from benchmarks import pair_sources
from benchmarks.pair_sources import SOURCES, films_of, table, write_film
from dits_adapter import Pairs, VideoTexts, find_pairs
from tests.spaces import made_up_space


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A film of seven scenes, longer than what is left whole, and its folder."""
    folder = tmp_path_factory.mktemp("film")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_sources, "SCENES_A_FILM", 7)
        patch.setattr(pair_sources, "SIZE", (32, 32))
        parts = next(films_of(1))
        write_film(folder, (0, parts))
    return folder, parts


@pytest.mark.parametrize("source", SOURCES)
def test_the_spans_of_a_source_are_those_of_its_scenes(film, tmp_path, source):
    folder, parts = film
    path = tmp_path / "film-000.mp4"
    path.hardlink_to(folder / path.name)
    for suffix, text in SOURCES[source](parts, random.Random(0)).items():
        path.with_name(path.stem + suffix).write_text(text)
    report = find_pairs(tmp_path, tmp_path / "pairs.jsonl", VideoTexts(), progress=False)
    assert report.failed == {}
    lines = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    spans = {(line["start"], line["end"]) for line in lines if "start" in line}
    if source == "subtitles":
        assert all(end - start <= 20 for start, end in spans)
    else:
        assert spans == {(part.start, part.end) for part in parts}
    assert len(spans) >= 3


def test_the_table_compares_each_source_with_plain_clip():
    space = made_up_space(8)
    vectors = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    test = Pairs(vectors, vectors, np.arange(4), space)
    made = table({"plain CLIP": (0, 0, np.full(4, 2.0)), "human": (20, 10, np.ones(4))}, test)
    assert "| human      |    20 |    10 | 100.0 [100.0, 100.0] | +100.0 [+100.0, +100.0] |" in made
