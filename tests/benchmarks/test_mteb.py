"""An outside judge finds what we find."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.datasets import DATASETS, RetrievalSplit
from benchmarks.datasets.lookalike import write_lookalike
from dits_adapter.adapters import DITSAdapter
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import DITSError, MissingExtraError
from dits_adapter.evaluation.metrics import DotProducts, RetrievalMetrics, ranks
from dits_adapter.sampler import SamplerConfig
from dits_adapter.space import EmbeddingSpace
from dits_adapter.vectors import unit

needs_mteb = pytest.mark.skipif(
    find_spec("mteb") is None, reason='mteb is not installed (pip install "dits-adapter[mteb]", Python 3.11)'
)


def test_without_mteb_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mteb", None)
    monkeypatch.delitem(sys.modules, "benchmarks.mteb", raising=False)
    with pytest.raises(MissingExtraError, match=r'pip install "dits-adapter\[mteb\]"'):
        import benchmarks.mteb  # noqa: F401


def judged(texts, videos, labels):
    """Recall at 1, 5 and 10 and the mean reciprocal rank that mteb finds with these vectors."""
    import mteb

    from benchmarks.mteb import Encoder, local_task

    names = tuple(f"video {number}" for number in range(len(videos)))
    files = tuple(f"{name}.mp4" for name in names)
    sentences = tuple(f"sentence {number}" for number in range(len(texts)))
    task = local_task(RetrievalSplit("made up", sentences, labels, names, files))
    given = SimpleNamespace(encode=lambda corpus: videos, vectors=videos)
    encoder = Encoder(lambda asked: texts[[sentences.index(text) for text in asked]], given)
    result = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    (scores,) = result.task_results[0].scores["test"]
    return [100 * scores[f"recall_at_{k}"] for k in (1, 5, 10)] + [scores["mrr_at_1000"]]


def ours(texts, videos, labels):
    found = RetrievalMetrics.from_ranks(ranks(DotProducts(texts, videos), labels))
    return [found.r1, found.r5, found.r10, found.mrr]


@needs_mteb
@pytest.mark.parametrize(("texts", "videos"), [(12, 12), (90, 30), (40, 200)])
def test_its_recall_on_the_same_vectors_is_ours(texts, videos):
    rng = np.random.default_rng(texts)
    video = unit(rng.normal(size=(videos, 16)))
    labels = rng.permutation(texts) % videos
    text = unit(video[labels] + 0.5 * rng.normal(size=(texts, 16)))
    expected = ours(text, video, labels)
    assert 0 < expected[0] < 100
    np.testing.assert_allclose(judged(text, video, labels), expected, atol=1e-3)  # mteb rounds to five digits


@needs_mteb
def test_the_two_differ_in_ties_only_which_count_against_us():
    text, video, labels = np.eye(3, 4, dtype=np.float32), np.ones((3, 4), np.float32) / 2, np.arange(3)
    assert ours(text, video, labels)[0] == 0
    assert judged(text, video, labels)[0] == pytest.approx(100 / 3, abs=1e-3)


@pytest.fixture
def adapter(tiny_clip, tmp_path):
    torch.manual_seed(0)
    moving = DITSAdapter(SamplerConfig(width=32, depth=1, steps=2))
    for parameter in moving.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    space = EmbeddingSpace.of(load_encoder(tiny_clip), frames=4)
    return str(Artifact(moving, space, encoder=tiny_clip).save(tmp_path / "mine"))


def table(printed):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "|" in line]
    return {(row[0], row[1]): row[2:] for row in rows[2:]}


@needs_mteb
@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_on_disk_is_judged_with_the_adapter_and_without(name, clips, adapter, tmp_path, capsys):
    from benchmarks.mteb import main

    write_lookalike(name, tmp_path / name, clips)
    assert main([name, "--root", str(tmp_path / name), "--encoder", adapter]) == 0
    found = table(capsys.readouterr().out)
    assert list(found) == [(q, by) for q in ("identity", "dits") for by in ("mteb", "benchmarks.run")]
    for queries in ("identity", "dits"):
        assert found[queries, "mteb"] == found[queries, "benchmarks.run"]


@needs_mteb
def test_the_tasks_of_the_hub_are_wired(clips, adapter, monkeypatch, capsys):
    import mteb
    from datasets import Dataset, Features, Value, Video

    from benchmarks.mteb import HUB, main

    for name in HUB.values():
        metadata = mteb.get_task(name).metadata
        assert (metadata.category, metadata.eval_splits, metadata.superseded_by) == ("t2v", ["test"], None)

    rows = {"caption": [clip.captions[0] for clip in clips["test"]]}
    rows["video"] = [{"bytes": clip.path.read_bytes(), "path": None} for clip in clips["test"]]
    stored = Dataset.from_dict(rows, Features({"caption": Value("string"), "video": Video()}))
    monkeypatch.setattr("mteb.tasks.retrieval.eng.msr_vtt.load_dataset", lambda *_, **__: stored)
    assert main(["msrvtt", "--hub", "--encoder", adapter]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("MSRVTTT2V, text to video, mteb ")
    found = table(printed)
    assert len(found) == 4
    assert found["dits", "mteb"] == found["dits", "benchmarks.run"]


@needs_mteb
def test_what_cannot_be_judged_is_refused(clips, adapter, tmp_path, monkeypatch, capsys):
    from benchmarks.mteb import local_task, main

    write_lookalike("vatex", tmp_path, clips)
    (tmp_path / "VATEX_Videos" / "test1_000000_000010.mp4").unlink()
    with pytest.raises(DITSError, match="1 of 4 videos are not there, the first is test1_000000_000010"):
        local_task(DATASETS["vatex"].load(tmp_path, "test"))

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("mteb.tasks.retrieval.eng.msr_vtt.load_dataset", offline)
    assert main(["msrvtt", "--hub", "--encoder", adapter]) == 1
    assert "MSRVTTT2V: its data cannot be had from the hub (OSError: no network)" in capsys.readouterr().err
    for arguments, message in ((["lsmdc", "--hub"], "mteb has no task for lsmdc"), (["lsmdc"], "say where")):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err
