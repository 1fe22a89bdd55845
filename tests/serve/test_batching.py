"""Texts of concurrent requests share forward passes, and get the vectors that they get alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from dits_adapter.serve._batching import Batcher
from dits_adapter.serve._searcher import Searcher
from tests.waiting import wait_until


class Gate:
    """Holds the first run until `company` more calls wait; remembers what each run was given."""

    def __init__(self, run, company):
        self.batches = []
        self.run, self.company = run, company

    def __call__(self, items):
        self.batches.append(list(items))
        if len(self.batches) == 1:
            wait_until(lambda: self.batcher.waiting == self.company, 0.001)
        return self.run(items)


def gated(run, company):
    gate = Gate(run, company)
    gate.batcher = Batcher(gate)
    return gate


def together(batcher, items):
    with ThreadPoolExecutor(len(items)) as pool:
        return [future.exception() or future.result() for future in [pool.submit(batcher, item) for item in items]]


def test_calls_that_come_meanwhile_are_one_batch():
    gate = gated(lambda items: [10 * item for item in items], company=7)
    assert together(gate.batcher, range(8)) == [10 * n for n in range(8)]
    first, second = gate.batches
    assert len(first) == 1
    assert sorted(first + second) == list(range(8))
    assert gate.batcher(8) == 80  # and nobody is left behind
    assert gate.batches[2:] == [[8]]


def test_an_error_reaches_every_call_of_its_batch_and_no_other():
    def run(items):
        if len(items) > 1:
            raise ValueError("no room")
        return items

    gate = gated(run, company=3)
    answers = together(gate.batcher, range(4))
    assert [answer for answer in answers if not isinstance(answer, ValueError)] == gate.batches[0]
    assert sum(isinstance(answer, ValueError) for answer in answers) == 3
    assert gate.batcher(9) == 9


def test_too_few_results_are_an_error():
    with pytest.raises(ValueError, match="shorter"):
        Batcher(lambda items: [])("lonely")


def test_never_two_runs_at_a_time():
    running, most, guard = 0, 0, threading.Lock()

    def run(items):
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        time.sleep(0.001)
        with guard:
            running -= 1
        return [-item for item in items]

    assert together(Batcher(run), range(50)) == [-n for n in range(50)]
    assert most == 1


def test_threads_share_passes_and_get_the_vectors_of_alone(searcher, monkeypatch):
    queries = [f"scene {n} " + n * "very " + "long" for n in range(12)]  # padded to the longest of their batch
    alone = Searcher(searcher.store, searcher.encoder)
    expected = [(np.asarray(alone._embed(query)), alone.compare(query)) for query in queries]
    fresh = Searcher(searcher.store, searcher.encoder)
    backend = fresh.encoder._backend
    gate = Gate(partial(backend.embed, batch_size=64), company=len(queries) - 1)
    gate.batcher = fresh._embed.__wrapped__
    monkeypatch.setattr(backend, "embed", lambda texts, batch_size: gate(texts))
    compared = together(fresh.compare, queries)
    assert len(gate.batches) == 2  # and CLIP does not run for each of the two rankings
    for query, one, (vector, other) in zip(queries, compared, expected, strict=True):
        np.testing.assert_allclose(fresh._embed(query), vector, atol=1e-5)
        for side in ("plain", "adapted"):
            assert [r.video_id for r in getattr(one, side)] == [r.video_id for r in getattr(other, side)]
    assert len(gate.batches) == 2  # remembered
