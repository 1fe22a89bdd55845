"""`VideoSearch`: probabilities of hits and of answers, the score bias of a collection, and what can be saved."""

# ruff: noqa: F811 (fixtures that are imported, and taken by their names)

from __future__ import annotations

import asyncio
import json
import pickle

import numpy as np
import pytest

from dits_adapter import (
    BiasBank,
    CollectionMetadata,
    DITSQueryEncoder,
    MemoryStore,
    SearchRequest,
    VideoFilter,
    VideoSearch,
    apply_bias,
)
from dits_adapter.encoders import load_encoder
from dits_adapter.errors import InputError, SpaceMismatchError
from dits_adapter.space import EmbeddingSpace
from tests.integrations.conftest import CALIBRATION, QUERY, prepared, rows  # noqa: F401  (fixtures)


@pytest.fixture(scope="module")
def encoder(prepared):
    return DITSQueryEncoder.from_pretrained(prepared / "tiny-calibrated")


@pytest.fixture
def store(encoder):
    store = MemoryStore()
    store.create(CollectionMetadata(space=encoder.space))
    store.write(rows(3))
    return store


def test_hits_have_the_probabilities_of_their_cosines(encoder, store):
    answer = VideoSearch(encoder, store).search(QUERY, limit=4, per_video=2)
    hits = store.search(encoder.encode_query(QUERY), limit=4, per_video=2)
    assert [match.hit for match in answer.matches] == hits
    assert len(hits) == 8
    for match in answer.matches:
        odds = np.exp(8 * match.hit.score - 1) / ((20 - 1) / (20 - 1))
        assert match.probability == pytest.approx(odds / (1 + odds), abs=1e-6)
    log_odds = 0.7 * (8 * hits[0].score - 1) + 0.9
    assert answer.probability_of_any == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-6)
    assert asyncio.run(VideoSearch(encoder, store).search_async(QUERY, limit=4, per_video=2)) == answer


def test_vectors_of_texts_have_the_answers_of_the_texts(encoder, store):
    search, texts = VideoSearch(encoder, store), [QUERY, "a red car"]
    answers = search.search_vectors(encoder.embed(texts), limit=4, min_probability=0.2)
    for answer, text in zip(answers, texts, strict=True):
        expected = search.search(text, limit=4, min_probability=0.2)
        assert [match.hit.id for match in answer.matches] == [match.hit.id for match in expected.matches]
        assert answer.probability_of_any == pytest.approx(expected.probability_of_any, abs=1e-6)
    assert answers[0].probability_of_any != answers[1].probability_of_any
    plain = VideoSearch(DITSQueryEncoder.from_pretrained(encoder.name_or_path, strength=0.0), store)
    (answer,) = plain.search_vectors(3 * encoder.embed([QUERY]), limit=4)
    assert [m.hit.id for m in answer.matches] == [
        h.id for h in store.search(encoder.encode_document(QUERY), limit=4)
    ]
    for wrong, reason in (
        (encoder.embed(QUERY), "expected .n, d., a row a query"),
        ([[np.nan] * 2], "width|shape"),
    ):
        with pytest.raises(InputError, match=reason):
            search.search_vectors(wrong)


def test_the_number_of_videos_counts_and_not_that_of_segments(encoder, store):
    known = VideoSearch(encoder, store).search(QUERY, limit=1)
    fewer = MemoryStore()
    fewer.create(CollectionMetadata(space=encoder.space))
    fewer.write([row for row in rows(3) if row.path in (known.matches[0].hit.path, "/3.mp4")])
    likelier = VideoSearch(encoder, fewer).search(QUERY, limit=1)
    assert likelier.matches[0].hit.score == known.matches[0].hit.score
    assert likelier.matches[0].probability == CALIBRATION.probability(known.matches[0].hit.score, videos=2)


def test_least_probabilities_leave_out_what_is_less_likely(encoder, store):
    search = VideoSearch(encoder, store)
    whole = search.search(QUERY, limit=20)
    probabilities = [match.probability for match in whole.matches]
    least = (probabilities[4] + probabilities[5]) / 2
    answer = search.search(QUERY, limit=20, min_probability=least)
    assert answer.matches == whole.matches[:5]
    assert str(answer) == "\n".join(map(str, answer.matches))
    assert answer.probability_of_any == whole.probability_of_any
    of_any = whole.probability_of_any
    assert search.search(QUERY, limit=20, min_probability_of_any=of_any - 1e-6).matches == whole.matches
    nothing = search.search(QUERY, limit=20, min_probability_of_any=of_any + 1e-6)
    assert (nothing.matches, nothing.probability_of_any) == ((), of_any)
    assert str(nothing) == "no video is that likely"
    rare = search.search(QUERY, limit=20, answerable=0.01)
    assert rare.probability_of_any < of_any


def test_requests_and_filters_reach_the_store(encoder, store):
    search = VideoSearch(encoder, store)
    answer = search.search(QUERY, SearchRequest(limit=20, filter=VideoFilter(max_duration=6.5)))
    assert {match.hit.path for match in answer.matches} == {f"/{n}.mp4" for n in range(5)}
    page = search.search(QUERY, limit=3, offset=2)
    assert [match.hit for match in page.matches] == [match.hit for match in search.search(QUERY).matches[2:5]]
    assert page.probability_of_any is None


def test_without_a_known_probability_there_is_none(encoder, store):
    half = DITSQueryEncoder.from_pretrained(encoder.name_or_path, strength=0.5)
    answer = VideoSearch(half, store).search(QUERY, limit=2)
    assert [match.probability for match in answer.matches] == [None, None]
    assert answer.probability_of_any is None
    for search, options, reason in (
        (VideoSearch(half, store), {"min_probability": 0.5}, "was not calibrated, or not for this strength"),
        (VideoSearch(encoder, store), {"min_probability": 0.5, "rerank": "maxsim"}, "leave out rerank"),
        (VideoSearch(encoder, store), {"min_probability_of_any": 0.5, "offset": 3}, "leave out offset"),
        (VideoSearch(encoder, store), {"min_probability": 1.5}, "is a number between 0 and 1"),
        (VideoSearch(encoder, store), {"min_probability": "0.5"}, "min_probability is '0.5'; it is a number"),
        (VideoSearch(encoder, store), {"answerable": 0}, "answerable is 0"),
        (VideoSearch(encoder, store), {"limits": 5}, "no option 'limits'"),
    ):
        with pytest.raises(InputError, match=reason):
            search.search(QUERY, **options)
    with pytest.raises(InputError, match="the query is a list"):
        VideoSearch(encoder, store).search([QUERY])


def test_a_score_bias_takes_the_probabilities_that_are_not_of_it(encoder, store):
    queries = encoder.encode_query([f"scene {n}" for n in range(12)])
    probes = encoder.adapt(np.array(encoder.space.text.probes, np.float32))
    bank = BiasBank(queries, encoder.space, tuple(map(tuple, np.round(probes.astype(float), 6).tolist())))
    apply_bias(store, bank, progress=False)
    search = VideoSearch(encoder, store)
    answer = search.search(QUERY, limit=3)
    assert [match.hit for match in answer.matches] == store.search(encoder.encode_query(QUERY), limit=3)
    assert answer.matches[0].hit.bias
    assert answer.matches[0].probability is None
    with pytest.raises(InputError, match="not calibrated for the score bias of the collection 'videos'"):
        search.search(QUERY, min_probability=0.5)
    plain = search.search(QUERY, limit=3, bias=0.0)
    assert plain.matches[0].probability == CALIBRATION.probability(plain.matches[0].hit.score, videos=20)


def test_a_score_bias_for_other_queries_is_left_out(encoder, store):
    queries = encoder.encode_document([f"scene {n}" for n in range(12)])
    plain = BiasBank(queries, encoder.space, encoder.space.text.probes)
    apply_bias(store, plain, progress=False)
    assert store.search(encoder.encode_query(QUERY), limit=1)[0].bias
    (match,) = VideoSearch(encoder, store).search(QUERY, limit=1).matches
    assert match.hit.bias == 0
    assert match.probability == CALIBRATION.probability(match.hit.score, videos=20)


def test_another_space_is_refused(prepared, other_clip):
    store = MemoryStore()
    store.create(CollectionMetadata(space=EmbeddingSpace.of(load_encoder(other_clip))))
    with pytest.raises(SpaceMismatchError, match="other-clip"):
        VideoSearch(prepared / "tiny-dits", store).load()


def test_what_is_saved_is_names_and_no_password(encoder):
    search = VideoSearch(
        encoder, "postgresql://me:secret@localhost/videos", "clips", store_options={"tenant": "a"}
    )
    fields = json.loads(json.dumps(search.to_dict()))
    assert fields == {
        "model": encoder.name_or_path,
        "store": "postgresql://me@localhost/videos",
        "collection": "clips",
        "encoder_options": encoder.options,
        "store_options": {"tenant": "a"},
    }
    assert VideoSearch.from_dict(fields).to_dict() == fields
    assert b"secret" not in pickle.dumps(search)
    again = pickle.loads(pickle.dumps(search))
    assert again.encoder.options == encoder.options
    assert (again.store.name, again.store.tenant) == ("clips", "a")
    assert again.store.space == encoder.space


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda e, s: VideoSearch(e, s).to_dict(), "around a store cannot be saved"),
        (lambda e, s: pickle.dumps(VideoSearch(e, s)), "around a store cannot be saved"),
        (lambda e, s: VideoSearch(e, "postgresql://h/v?password=x").to_dict(), "a key among its parameters"),
        (lambda e, s: VideoSearch(e, "x", store_options={"layout": e}).to_dict(), "store_options is .* JSON"),
        (lambda e, s: VideoSearch(e, "x", encoder_options={"steps": 3}), "give them to the encoder itself"),
        (
            lambda e, s: VideoSearch("demo-dits", "x", encoder_options={"step": 3}),
            "no option 'step'; its",
        ),
        (lambda e, s: VideoSearch(None, s), "model is a NoneType; it is a name, a path or an encoder"),
        (lambda e, s: VideoSearch(e, 7), "store is a int"),
        (lambda e, s: VideoSearch(e, s, "clips"), "give them to the store itself"),
        (lambda e, s: VideoSearch(e, "x", store_options={"space": None}), "leave it out"),
        (lambda e, s: VideoSearch.from_dict({"model": "demo-dits"}), "needs a store"),
        (lambda e, s: VideoSearch.from_dict({"models": "demo-dits"}), "no field 'models'"),
    ],
)
def test_what_cannot_be_is_refused_in_words(encoder, store, make, reason):
    with pytest.raises(InputError, match=reason):
        make(encoder, store)


def test_a_store_that_was_given_stays_open(encoder, monkeypatch):
    closed = []
    monkeypatch.setattr(MemoryStore, "close", lambda self: closed.append(self))
    store = MemoryStore()
    store.create(CollectionMetadata(space=encoder.space))
    with VideoSearch(encoder, store) as search:
        search.load()
    assert not closed
