"""Commands work with a store that is defined in a test alone as they do with Qdrant."""

from __future__ import annotations

import json

import pytest

from dits_adapter.cli import main
from dits_adapter.data.pairs import load_pairs
from tests.serve.conftest import QUERY


@pytest.fixture
def ingested(stores, library, tiny_clip, tmp_path, monkeypatch, capsys):
    """The same videos in a store of the test's own and in a folder of Qdrant's."""
    monkeypatch.chdir(tmp_path)
    for where in ("mine://x", "folder"):
        command = ["ingest", str(library), "--encoder", str(tiny_clip), "--segment-seconds", "2", "--store", where]
        assert main(command) == 0
        assert "8 videos" in capsys.readouterr().out
    return stores


def search(capsys, adapter, store, *options):
    assert main(["search", QUERY, "--adapter", str(adapter), "--store", store, "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["hits"]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--plain"],
        ["--limit", "3", "--per-video", "2", "--offset", "1"],
        ["--rerank", "maxsim"],
        ["--min-probability", "0.5"],
        ["--exact"],
    ],
)
def test_search_answers_as_with_qdrant(ingested, adapter, capsys, options):
    mine, qdrant = (search(capsys, adapter, store, *options) for store in ("mine://x", "folder"))
    assert mine
    for hit, other in zip(mine, qdrant, strict=True):
        assert hit["score"] == pytest.approx(other["score"], abs=1e-5)
        assert (hit["id"], hit["timestamp"]) == (other["id"], other["timestamp"])
        assert hit["probability"] == pytest.approx(other["probability"], abs=1e-4)


def test_embed_reads_the_vectors(stores, library, tiny_clip, tmp_path, capsys):
    for store in ("mine://x", str(tmp_path / "folder")):
        for stored in (8, 0):  # the second run finds everything there
            assert main(["ingest", str(library), "--encoder", str(tiny_clip), "--store", store]) == 0
            assert f"stored   {stored} videos" in capsys.readouterr().out
    ids = sorted(record.video_id for record in stores["mine://x", "videos"].records())
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"id": name, "text": f"scene {n}"}) + "\n" for n, name in enumerate(ids)))
    cached = []
    for store in ("mine://x", str(tmp_path / "folder")):
        out = tmp_path / f"cache-{len(cached)}"
        assert main(["embed", str(pairs), "--encoder", str(tiny_clip), "--out", str(out), "--store", store]) == 0
        cached.append(load_pairs(out))
    mine, qdrant = cached
    assert len(mine) == len(ids) == 8
    assert mine.video == pytest.approx(qdrant.video, abs=1e-6)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["recall", "queries.txt"], "--store mine://x: `dits-adapter recall` works with Qdrant alone."),
        (["switch", "other"], "--store mine://x: `dits-adapter switch` works with Qdrant alone."),
        (["rebuild", "."], "--store mine://x: `dits-adapter rebuild` works with Qdrant alone."),
        (["ingest", ".", "--option", "quantization=scalar"], "has no options"),
        (["ingest", ".", "--tenant", "acme"], "tenant"),
        (["search", "a dog", "--vector", "clip"], "layout"),
        (["search", "a dog", "--trust-foreign"], "trust_foreign"),
        (["search", "a dog", "--collection", "vidoes"], "'vidoes' is not there"),
    ],
)
def test_what_it_cannot_do_is_a_sentence(
    stores,
    adapter,
    tiny_clip,
    tmp_path,
    monkeypatch,
    capsys,
    command,
    message,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queries.txt").write_text("a dog\n")
    named = {"ingest": ["--encoder", str(tiny_clip)], "rebuild": ["--encoder", str(tiny_clip)], "switch": []}
    models = named.get(command[0], ["--adapter", str(adapter)])
    assert main([*command, *models, "--store", "mine://x"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("dits-adapter: ")
    assert message in error
    assert "Traceback" not in error


def test_an_unknown_scheme_is_a_sentence(adapter, capsys):
    assert main(["search", "a dog", "--adapter", str(adapter), "--store", "nosuch://x"]) == 1
    assert "no store opens this" in capsys.readouterr().err


def test_a_copy_from_and_to_another_kind_of_store(ingested, adapter, tmp_path, capsys):
    mine = search(capsys, adapter, "mine://x")
    for source, destination in (("mine://x", "second"), ("second", "mine://y")):
        assert main(["copy", source, destination]) == 0
        assert "complete" in capsys.readouterr().out
        for hit, copied in zip(mine, search(capsys, adapter, destination), strict=True):
            assert (hit["id"], hit["timestamp"]) == (copied["id"], copied["timestamp"])
    assert main(["copy", "folder", "folder2", "--tenant", "acme"]) == 1
    assert "does not keep tenants apart; leave out tenant='acme'" in capsys.readouterr().err
