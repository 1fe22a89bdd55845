"""`dits-adapter bias` from a bank to a search, for the queries that it is for and for others."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dits_adapter import Artifact, BiasBank, DITSQueryEncoder, QdrantStore, ReadRequest, SegmentRow
from dits_adapter.cli import main
from dits_adapter.stores.metadata import CollectionMetadata
from dits_adapter.vectors import unit
from tests.cli.test_bank import TEXTS

QUERY = "a large red circle rises over a green field"


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    """A bank of plain queries, and one of the queries of a trained adapter."""
    folder = tmp_path_factory.mktemp("banks")
    (folder / "queries.txt").write_text("\n".join(TEXTS), "utf-8")
    for adapter in ("demo-clip", "demo-linear"):
        command = ["bank", str(folder / "queries.txt"), "--adapter", adapter, "--out", str(folder / adapter)]
        assert main(command) == 0
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A store of 30 segments around the texts of queries, some near to all."""
    monkeypatch.chdir(tmp_path)
    encoder = DITSQueryEncoder.from_pretrained("demo-linear")
    texts = encoder.encode_query([QUERY, *TEXTS[:2]])
    rng = np.random.default_rng(0)
    vectors = unit(texts[rng.integers(0, 3, 30)] + 0.05 * rng.normal(size=(30, texts.shape[1])).astype("float32"))
    with QdrantStore("video-index") as store:
        store.create(CollectionMetadata(space=encoder.space))
        store.write(
            [
                SegmentRow(
                    f"00000000-0000-4000-8000-{n:012}",
                    f"00000000-0000-4000-8000-{n:012}",
                    f"/{n}.mp4",
                    0.0,
                    1.0,
                    (0.5,),
                    1.0,
                    10.0,
                    "none",
                    1,
                    1,
                    1,
                    vector,
                    vector[None],
                )
                for n, vector in enumerate(vectors)
            ]
        )
    return tmp_path / "video-index"


def search(capsys, *options):
    assert main(["search", QUERY, "--json", *options]) == 0
    answer = capsys.readouterr()
    return json.loads(answer.out)["hits"], answer.err


def test_it_is_taken_from_queries_of_the_banks_adapter_alone(banks, folder, capsys):
    before, _ = search(capsys, "--adapter", "demo-linear")
    assert main(["bias", str(banks / "demo-linear")]) == 0
    assert f"30 segments of 'videos' got a bias, from {len(TEXTS)} queries" in capsys.readouterr().out
    hits, remark = search(capsys, "--adapter", "demo-linear")
    assert "left out" not in remark
    assert all(hit["bias"] == pytest.approx(0.5 * hit["payload"]["score_bias"]) for hit in hits)
    assert [hit["id"] for hit in hits] != [hit["id"] for hit in before]
    assert {hit["probability"] for hit in hits} == {None}  # of cosines, which these scores are not
    assert "was not calibrated for the score bias" in remark
    for other in (["--adapter", "demo-linear", "--plain"], ["--adapter", str(banks / "demo-clip")]):
        hits, remark = search(capsys, *other)
        assert all(hit["bias"] == 0 for hit in hits)
        assert "is for queries of another adapter, and is left out" in remark
    hits, remark = search(capsys, "--adapter", "demo-linear", "--plain", "--bias", "0.2")
    assert remark == ""
    assert all(hit["bias"] == pytest.approx(0.2 * hit["payload"]["score_bias"]) for hit in hits)
    assert main(["bias", "--remove"]) == 0
    assert "has no bias any more" in capsys.readouterr().out
    assert search(capsys, "--adapter", "demo-linear")[0] == before


def test_a_bank_of_plain_queries_is_for_plain_queries(banks, folder, capsys):
    assert main(["bias", str(banks / "demo-clip"), "--weight", "0.3"]) == 0
    capsys.readouterr()
    for plain in (["--adapter", "demo-clip"], ["--adapter", "demo-linear", "--plain"]):
        hits, remark = search(capsys, *plain)
        assert all(hit["bias"] == pytest.approx(0.3 * hit["payload"]["score_bias"]) for hit in hits)
        assert "left out" not in remark
    assert all(hit["bias"] == 0 for hit in search(capsys, "--adapter", "demo-linear")[0])


@pytest.mark.parametrize("adapter", ["demo-linear", "demo-clip"])
def test_beside_the_bank_itself_each_side_takes_a_part(adapter, banks, folder, capsys):
    assert main(["bias", str(banks / adapter)]) == 0
    capsys.readouterr()
    hits, remark = search(capsys, "--adapter", str(banks / adapter))
    assert remark == ""
    bank = Artifact.load(banks / adapter).adapter
    query = DITSQueryEncoder.from_pretrained("demo-linear")
    query = query.encode_query(QUERY) if adapter == "demo-linear" else query.encode_document(QUERY)
    vectors = bank.bank.numpy()
    near = np.exp(bank.config.sharpness * (vectors @ query))
    expected = unit((query - 0.25 * near / near.sum() @ vectors)[None])[0]
    with QdrantStore(folder) as store:
        stored = {segment.id: segment.vector for segment in store.read(ReadRequest(vectors=True))}
    for hit in hits:
        assert hit["bias"] == pytest.approx(0.35 * hit["payload"]["score_bias"])
        assert hit["score"] + hit["bias"] == pytest.approx(stored[hit["id"]] @ expected, abs=1e-5)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_beside_a_bias_a_bank_has_no_probabilities(banks, folder, capsys):
    bank = Artifact.load(banks / "demo-linear")
    calibrated = replace(bank, calibration=Artifact.load("demo-linear").calibration)
    name = str(calibrated.save(folder.parent / "calibrated"))
    assert main(["bias", name]) == 0
    capsys.readouterr()
    hits, remark = search(capsys, "--adapter", name)
    assert all(hit["probability"] is None for hit in hits)
    assert "no probabilities: beside the score bias" in remark
    assert main(["search", QUERY, "--adapter", name, "--min-probability", "0.1"]) == 1
    assert "--bias 0 searches with the bank alone" in capsys.readouterr().err
    assert all(hit["probability"] for hit in search(capsys, "--adapter", name, "--bias", "0")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give the bank, or --remove"),
        (["demo-linear", "--remove"], "give the bank, or --remove"),
        (["demo-linear"], "demo-linear: is an adapter of kind affine, without a bank of queries"),
        (["demo-linear", "--weight", "1.5"], "the weight of the bias is 1.5; it goes from 0"),
    ],
)
def test_what_makes_no_bias_is_refused(options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bias", *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bank_holds_the_queries_of_the_inner_adapter(banks):
    bank, encoder = (
        BiasBank.from_pretrained(banks / "demo-linear"),
        DITSQueryEncoder.from_pretrained("demo-linear"),
    )
    np.testing.assert_allclose(bank.vectors, encoder.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_allclose(bank.queries, encoder.adapt(encoder.space.text.probes), atol=1e-5)
