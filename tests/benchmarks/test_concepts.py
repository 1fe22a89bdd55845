"""The pictures of docs/concepts.md: what they count, and what they refuse."""

from __future__ import annotations

import numpy as np

from benchmarks import concepts
from dits_adapter import Pairs
from tests.spaces import made_up_space


def test_occurrences_count_the_queries_that_have_a_video_among_their_best():
    scores = np.random.default_rng(0).normal(size=(40, 25))
    slow = [
        sum(sorted(row, reverse=True).index(row[video]) < concepts.BEST for row in scores) for video in range(25)
    ]
    assert concepts.occurrences(scores).tolist() == slow


def test_a_cache_of_other_texts_is_refused_before_anything_is_drawn(tmp_path, capsys):
    vectors = np.eye(4, dtype=np.float32)
    Pairs(vectors, vectors, np.arange(4), made_up_space(4)).save(tmp_path / "pairs.safetensors")
    code = concepts.main(["--cache", str(tmp_path / "pairs.safetensors"), "--out", str(tmp_path / "out")])
    assert code == 1
    assert "docs/demo.md, which has 1500 texts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
