"""Texts of a collection's payload fields, whose ids lead back to its vectors."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dits_adapter import MemoryStore, PairsFile, embed_from_store, find_pairs_in_store, load_encoder, load_pairs
from dits_adapter.cli import main
from dits_adapter.errors import InputError
from dits_adapter.space import EmbeddingSpace
from dits_adapter.stores.metadata import CollectionMetadata, PointLayout
from dits_adapter.stores.open import register_store
from dits_adapter.stores.rows import SegmentRow, segment_id, video_id_of

FIELDS = [
    {"title": "A dog runs", "tags": ["dog", "beach"], "meta": {"views": 3}},
    {"title": "IMG_2041", "tags": ["cat"], "meta": {"note": "a cat sleeps"}},
    {"title": None, "tags": [], "meta": None},
]


class Titled(MemoryStore):
    """Three videos of two segments each, with payload fields of another program beside those of ingestion."""

    layout: PointLayout | None = None

    def read(self, request):
        for segment in super().read(request):
            more = FIELDS[int(segment.payload["path"][-5])]
            yield replace(segment, payload=dict(segment.payload) | more)

    def metadata(self):
        return super().metadata().model_copy(update={"layout": self.layout})


@pytest.fixture
def space(tiny_clip):
    return EmbeddingSpace.of(load_encoder(tiny_clip))


@pytest.fixture
def store(space):
    store = Titled("films")
    store.create(CollectionMetadata(space=space))
    generator = np.random.default_rng(0)
    for number in range(len(FIELDS)):
        video = video_id_of(str(number) * 64)
        for k in range(2):
            vector = generator.normal(size=space.video.width).astype(np.float32)
            vector /= np.linalg.norm(vector)
            times = {"start": k, "end": k + 1, "timestamps": (k + 0.5,), "duration": 2, "fps": 10, "segments": 2}
            file = {"path": f"/films/{number}.mp4", "size": 1, "mtime_ns": 1, "decoder": "pyav"}
            row = {"id": segment_id(video, k, k + 1), "video_id": video, **times, **file}
            store.write([SegmentRow(**row, vector=vector, frame_vectors=np.tile(vector, (12, 1)))])
    return store


def lines(out):
    return [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def test_fields_become_texts_of_their_videos(store, tmp_path):
    out = tmp_path / "pairs.jsonl"
    report = find_pairs_in_store(store, out, ["title", "tags", "meta.note"], progress=False)
    ids = [video_id_of(str(number) * 64) for number in range(2)]
    assert lines(out) == [
        {"id": ids[0], "text": ["A dog runs", "dog, beach"], "source": "field", "confidence": 0.6},
        {"id": ids[1], "text": ["cat", "a cat sleeps"], "source": "field", "confidence": 0.6},
    ]
    assert (report.videos, report.texts, report.without_texts) == (2, 4, 1)
    assert report.left_out["says nothing, such as IMG_2041"] == 2


def test_texts_of_another_collection_are_kept(store, tmp_path):
    """Its ids may be the same, and mean other videos."""
    out = tmp_path / "pairs.jsonl"
    find_pairs_in_store(store, out, ["title"], progress=False)
    written = lines(out)
    store.name = "others"
    with pytest.raises(InputError, match=r"holds texts of the collection 'films' at .* these are of 'others' at"):
        find_pairs_in_store(store, out, ["tags"], progress=False)
    assert lines(out) == written
    store.name = "films"
    find_pairs_in_store(store, out, ["tags"], progress=False)
    assert [line["text"] for line in lines(out)] == [["dog, beach"], ["cat"]]
    store.name = "others"
    out.unlink()
    assert find_pairs_in_store(store, out, ["title"], progress=False).texts == 1


def test_the_lines_lead_to_vectors(store, tmp_path, tiny_clip):
    out = tmp_path / "pairs.jsonl"
    find_pairs_in_store(store, out, ["title", "meta.note"], progress=False)
    with pytest.warns(UserWarning, match="several segments"):
        embed_from_store(PairsFile(out, files=False), tmp_path / "cache", load_encoder(tiny_clip), store)
    assert len(load_pairs(tmp_path / "cache").text) == 2


def test_an_adopted_collection_has_a_title_and_videos_of_its_own(store, tmp_path):
    store.layout = PointLayout(title="title", video="path")
    find_pairs_in_store(store, tmp_path / "pairs.jsonl", progress=False)
    assert [(line["id"], line["text"]) for line in lines(tmp_path / "pairs.jsonl")] == [
        ("/films/0.mp4", ["A dog runs"])
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            [],
            "field that holds texts. Fields with texts there: decoder, meta.note, path, tags, title, video",
        ),
        (["titel"], "no segment has a field 'titel'; did you mean 'title'?"),
        (["meta.nothing"], "no segment has a field 'meta.nothing'"),
    ],
)
def test_a_field_that_is_not_there_is_refused_with_those_that_are(store, tmp_path, fields, message):
    with pytest.raises(InputError, match=message.replace(".", r"\.").replace("?", r"\?")):
        find_pairs_in_store(store, tmp_path / "pairs.jsonl", fields, progress=False)
    assert not (tmp_path / "pairs.jsonl").exists()


def test_the_command_says_how_to_go_on(store, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    register_store("titled", lambda location, collection, **_: store)
    place = "titled://me:pass-word@x/y?a=1&b=2"
    assert main(["pairs", "--store", place, "--tenant", "t", "--field", "title", "--out", "pairs.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "field: 1 text in 1 line, such as" in printed
    place = "--store 'titled://me@x/y?a=1&b=2' --collection videos --tenant t"
    assert f"dits-adapter embed pairs.jsonl --encoder ID --out CACHE {place}\n" in printed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ["--store", "x", "--segment-seconds", "3"],
            "--segment-seconds is for --from text or speech or captions; this is --from fields",
        ),
        (["--field", "title", "videos"], "--field is for --from fields; this is --from text"),
        (["--from", "fields"], "name its --store"),
        (["--collection", "films", "videos"], "--collection is for --from fields"),
        (["--store", "x", "--retry-failed"], "--retry-failed is for --from text or speech or captions"),
        ([], "name a SOURCE"),
        (["videos", "--out", "pairs.csv"], "end the name in .jsonl"),
    ],
)
def test_options_of_another_way_are_refused(tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    assert main(["pairs", "--out", "pairs.jsonl", *line]) == 1
    assert message in capsys.readouterr().err
