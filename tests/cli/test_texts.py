"""`dits-adapter texts` from a file of pairs to a search of what is seen and said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dits_adapter import DITSQueryEncoder, QdrantStore, SegmentRow, VideoSearch
from dits_adapter.cli import main
from dits_adapter.errors import InputError
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.vectors import unit

QUERY = "the captain speaks of storms"
LINES = (
    {"video": "films/3.mp4", "text": "a CAPTAIN spoke of the storm", "start": 0.2, "end": 0.8, "source": "speech"},
    {"video": "4.mp4", "text": ["nothing of it", "the sea"], "source": "title", "confidence": 0.4},
    {"video": "elsewhere.mp4", "text": "storm"},
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A store of eight videos, and pairs of some of them."""
    monkeypatch.chdir(tmp_path)
    space = DITSQueryEncoder.from_pretrained("demo-clip").space
    vectors = unit(np.random.default_rng(0).normal(size=(8, space.video.width)))
    ids = [f"00000000-0000-4000-8000-{n:012}" for n in range(8)]
    with QdrantStore("video-index") as store:
        store.create(CollectionMetadata(space=space))
        store.write(
            [
                SegmentRow(
                    id_, id_, f"/data/films/{n}.mp4", 0.0, 1.0, (0.5,), 1.0, 10.0, "none", 1, 1, 1, row, row[None]
                )
                for n, (id_, row) in enumerate(zip(ids, vectors, strict=True))
            ]
        )
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    return tmp_path


def test_a_word_that_is_said_finds_its_video(folder, capsys):
    assert main(["texts", "pairs.jsonl", "--min-confidence", "0.5"]) == 3
    assert "1 segment got texts" in (report := capsys.readouterr().out)
    assert "not in the collection: elsewhere.mp4" in report
    assert main(["search", QUERY, "--adapter", "demo-clip", "--lanes", "seen", "said"]) == 0
    first, line, *others = capsys.readouterr().out.splitlines()
    assert "/data/films/3.mp4" in first
    assert "said 1" in first
    assert line.strip() == "“a CAPTAIN spoke of the storm”"
    assert len(others) == 7
    assert not any("said" in other for other in others)
    assert main(["search", QUERY, "--adapter", "demo-clip", "--lanes", "said", "--json"]) == 0
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert hit["lanes"]["said"]["rank"] == 1
    assert hit["probability"] is None
    assert main(["search", QUERY, "--adapter", "demo-clip", "--json"]) == 0
    assert "lanes" not in json.loads(capsys.readouterr().out)["hits"][0]
    with VideoSearch("demo-linear", "video-index") as search:
        (match,) = search.search(QUERY, lanes=("said",)).matches
        assert match.hit.path == "/data/films/3.mp4"
        assert match.probability is None
        assert search.search(QUERY).matches[0].probability is not None
        with pytest.raises(InputError, match="min_probability: probabilities are of what is seen alone"):
            search.search(QUERY, lanes=("seen", "said"), min_probability=0.5)
    assert main(["texts", "--remove"]) == 0
    assert "has no texts any more" in capsys.readouterr().out
    assert main(["search", QUERY, "--adapter", "demo-clip", "--lanes", "said"]) == 1
    assert "has no texts to search" in capsys.readouterr().err


def test_what_cannot_be_is_refused(folder, capsys):
    np.save("queries.npy", np.ones((1, 8)))
    said = ["--adapter", "demo-clip", "--lanes", "seen", "said"]
    for command, reason in [
        (["texts"], "give files of pairs, or --remove"),
        (["texts", "pairs.jsonl", "--remove"], "give files of pairs, or --remove"),
        (["texts", "gone.jsonl"], "gone.jsonl: cannot be read"),
        (["texts", "pairs.jsonl", "--language", "klingon"], "language is 'klingon'"),
        (["search", "--vectors", "queries.npy", *said], "give the texts of --vectors as well"),
        (["search", "storm", "--rerank", "maxsim", *said], "--rerank: orders by what is seen alone"),
        (
            ["search", "storm", "--min-probability", "0.5", "--adapter", "demo-linear", *said[2:]],
            "leave out --lanes",
        ),
    ]:
        assert main(command) == 1, command
        assert reason in capsys.readouterr().err
