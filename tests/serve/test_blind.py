"""Blind comparison: nothing tells which ranking is which, and what people say of them is kept."""

from __future__ import annotations

import json
import threading
from fractions import Fraction
from itertools import pairwise

import pytest
from fastapi.testclient import TestClient

from dits_adapter import tally_preferences
from dits_adapter.cli import main
from dits_adapter.errors import InputError
from dits_adapter.evaluation.preference import sequential_interval
from dits_adapter.serve import _blind as blind_module
from dits_adapter.serve._app import create_app
from dits_adapter.serve._blind import left_of
from dits_adapter.serve._feedback import FeedbackRecorder
from dits_adapter.serve._searcher import CompareOptions
from dits_adapter.sources.feedback import feedback_pairs, feedback_queries
from tests.serve.conftest import HOME, QUERY, lines

URL = "/api/comparisons"


def compare(http, query=QUERY, session="judge 1"):
    return http.post(URL, json={"query": query, "session": session}).json()


def judge(http, comparison, better):
    return http.post(f"{URL}/{comparison['comparison']}", json={"better": better})


def prefer(http, file, side, query=QUERY, session="judge 1"):
    """Judge for a ranking, wherever it stands: the file tells after a first judgement."""
    comparison = compare(http, query, session)
    judge(http, comparison, "left")
    if lines(file)[-1]["left"] != side:
        judge(http, comparison, "right")


def test_both_rankings_are_shown_and_nothing_tells_them_apart(http, file, searcher):
    found = searcher.compare(QUERY, CompareOptions(limit=5))
    rankings = {side: [hit.video_id for hit in getattr(found, side)] for side in ("plain", "adapted")}
    assert rankings["plain"] != rankings["adapted"]
    lefts = set()
    for _ in range(20):
        comparison = compare(http)
        assert set(comparison) == {"comparison", "query", "same", "left", "right"}
        for hit in comparison["left"] + comparison["right"]:  # no score, no probability, no place on a map
            assert set(hit) == {"video_id", "path", "title", "start", "end", "timestamp", "video", "frame"}
        left, right = ([hit["video_id"] for hit in comparison[side]] for side in ("left", "right"))
        assert {tuple(left), tuple(right)} == {tuple(rankings["plain"]), tuple(rankings["adapted"])}
        judge(http, comparison, "both")
        (line,) = lines(file)[-1:]
        assert left_of(line["seed"]) == line["left"]  # the draw can be checked
        assert rankings[line["left"]] == left
        lefts.add(line["left"])
    assert lefts == {"plain", "adapted"}


def test_both_orders_come_alike():
    """An order that was always the same, or that alternated, would be known after a few queries."""
    lefts = [left_of(seed) == "plain" for seed in range(2000)]
    assert 900 < sum(lefts) < 1100
    assert 900 < sum(a == b for a, b in pairwise(lefts)) < 1100


def test_a_judgement_is_written_whole_once_and_taken_back(http, file, searcher, encoder):
    comparison = compare(http)
    assert lines(file) == []  # before it is judged nothing is written
    for better in ("left", "left", "neither"):
        assert judge(http, comparison, better).json() == {"comparison": comparison["comparison"], "better": better}
    url = f"{URL}/{comparison['comparison']}"
    for _ in range(2):
        assert http.delete(url).json() == {"comparison": comparison["comparison"], "better": None}
    assert [line["kind"] for line in lines(file)] == ["preference", "preference", "undo"]
    line = lines(file)[0]
    found = searcher.compare(QUERY, CompareOptions(limit=5))
    assert line["shown"] == {side: [hit.id for hit in getattr(found, side)] for side in ("plain", "adapted")}
    facts = ("search", "session", "query", "better", "collection", "space", "tenant")
    assert [line[fact] for fact in facts] == [
        comparison["comparison"],
        "judge 1",
        QUERY,
        "left",
        "videos",
        encoder.space.fingerprint,
        None,
    ]
    assert line["adapter"]["digest"] == encoder.artifact.digest
    assert http.get(f"{URL}/tally").json()["queries"] == 0


def test_equal_rankings_are_a_tie_without_a_question(http, file, searcher, monkeypatch):
    found = searcher.compare(QUERY, CompareOptions(limit=5))
    monkeypatch.setattr(searcher, "compare", lambda *_: found.model_copy(update={"adapted": found.plain}))
    comparison = compare(http)
    assert comparison["same"] is True
    assert comparison["left"] == comparison["right"]
    assert judge(http, comparison, "left").status_code == 410  # there is nothing to judge
    assert [line["better"] for line in lines(file)] == ["same"]
    tally = http.get(f"{URL}/tally").json()
    assert (tally["queries"], tally["same"], tally["share"], tally["better"]) == (1, 1, None, None)
    assert tally["verdict"].startswith("Not decided: there is no query yet")


def test_the_tally_counts_a_vote_a_query(http, file, capsys):
    """The last word of a judge counts for a query; all judges of one query have one vote together."""
    prefer(http, file, "plain", "a dog")
    prefer(http, file, "adapted", "a dog")
    prefer(http, file, "adapted", "a  dog", "judge 2")
    prefer(http, file, "plain", "a dog", "judge 3")
    prefer(http, file, "adapted", "a cat")
    prefer(http, file, "plain", "a cat", "judge 2")
    prefer(http, file, "plain", "a cow")
    judge(http, compare(http, "a pig"), "neither")
    judge(http, compare(http, "a hen"), "both")
    tally = http.get(f"{URL}/tally").json()
    counts = {side: tally[side] for side in ("adapted", "plain", "both", "neither", "split", "same")}
    assert counts == {"adapted": 1, "plain": 1, "both": 1, "neither": 1, "split": 1, "same": 0}
    assert (tally["queries"], tally["judges"], tally["judgements"], tally["left"] + tally["right"]) == (5, 3, 8, 6)
    assert (tally["share"], tally["better"]) == (0.5, None)
    assert tally["low"] < 0.1 < 0.9 < tally["high"]
    assert "Not decided: the adapter was preferred for 1 of 2 queries" in tally["verdict"]
    for n in range(12):
        prefer(http, file, "adapted", f"query {n}")
    tally = http.get(f"{URL}/tally").json()
    assert (tally["adapted"], tally["better"], tally["low"] > 0.5) == (13, "adapted", True)
    assert main(["tally", str(file)]) == 0
    assert capsys.readouterr().out.strip().endswith(tally["verdict"])
    assert main(["tally", "--json", str(file)]) == 0
    (printed,) = json.loads(capsys.readouterr().out)["tallies"]
    for name in ("adapted", "split", "judges", "share", "better"):
        assert printed[name] == tally[name]
    assert printed["interval"] == {"low": tally["low"], "high": tally["high"]}
    assert "Decided for the adapter: the adapter was preferred for 13 of 14 queries" in tally["verdict"]


def test_other_adapters_tenants_and_damaged_lines_do_not_count(http, file):
    prefer(http, file, "adapted", "a dog")
    one = lines(file)[-1]
    others = (
        {"adapter": one["adapter"] | {"digest": "0" * 64}},
        {"collection": "other"},
        {"tenant": "acme"},
        {"bias": {"plain": 0.0, "adapted": 0.5}},  # which the collection has no longer
        {"left": "middle"},
    )
    with file.open("a") as out:
        out.writelines(json.dumps(one | {"search": f"other {n}"} | other) + "\n" for n, other in enumerate(others))
    tally = http.get(f"{URL}/tally").json()
    assert (tally["queries"], tally["others"]) == (1, 3)  # of another tenant not even the number is told
    report = tally_preferences(file)
    assert [each.queries for each in report.tallies] == [1, 1, 1, 1, 1]
    assert len(report.faults) == 1
    assert "skipped 1 line that is no feedback" in str(report)


def test_preferences_are_no_choices_of_hits(http, file):
    judge(http, compare(http), "left")
    assert feedback_queries(file) == []
    with pytest.raises(InputError, match="no judgement counts yet"):
        feedback_pairs(file, file.with_name("pairs.jsonl"))


def test_two_judges_at_a_time_lose_nothing(http, file):
    comparisons = [compare(http, f"query {n}", f"judge {n % 2}") for n in range(8)]
    threads = [threading.Thread(target=judge, args=(http, each, "both")) for each in comparisons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({line["search"] for line in lines(file)}) == 8


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "query: Field required."),
        ({"query": " "}, 400, "the text is empty or blank"),
        ({"query": "beach.mp4"}, 400, "name of a video file"),
        ({"query": "x" * 2001}, 422, "query: String should have at most 2000 characters."),
        ({"query": "x", "strength": 0}, 422, "strength: Extra inputs are not permitted."),
    ],
)
def test_bad_queries_are_sentences(http, file, body, status, message):
    answer = http.post(URL, json=body)
    assert (answer.status_code, message in answer.json()["detail"]) == (status, True)
    assert lines(file) == []


def test_bad_judgements_are_sentences(http, file, monkeypatch):
    monkeypatch.setattr(blind_module, "_MOST_OPEN", 1)
    old, new = compare(http, "a dog"), compare(http, "a cat")
    refused = judge(http, new, "plain")
    assert (refused.status_code, "better: Input should be 'left', 'right'" in refused.text) == (422, True)
    refused = judge(http, old, "left")
    assert refused.status_code == 410
    assert refused.json()["detail"].startswith("the server no longer knows this comparison")
    assert http.delete(f"{URL}/{old['comparison']}").status_code == 410
    file.unlink()
    file.parent.rmdir()
    refused = judge(http, new, "left")
    assert (refused.status_code, "cannot be written" in refused.json()["detail"]) == (500, True)
    file.parent.mkdir()
    assert judge(http, new, "left").status_code == 200  # it can be made again


def test_only_where_feedback_is_taken_and_only_by_those_who_may(searcher, file):
    without = TestClient(create_app(searcher), base_url=HOME)
    assert without.post(URL, json={"query": "x"}).status_code == 404
    assert without.get("/compare").status_code == 200  # which says what is missing
    app = create_app(searcher, token="open-sesame", feedback=FeedbackRecorder(file))
    http = TestClient(app, base_url="http://10.0.0.1")
    for method, path in (("GET", "/compare"), ("POST", URL), ("GET", f"{URL}/tally"), ("DELETE", f"{URL}/x")):
        assert http.request(method, path, json={"query": "x"}).status_code == 401
    opened = http.get("/compare?token=open-sesame&x=1", follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "./compare?x=1")
    known = {"authorization": "Bearer open-sesame"}
    assert http.post(URL, json={"query": "x"}, headers=known).status_code == 200
    elsewhere = known | {"origin": "https://evil.example"}
    assert http.post(URL, json={"query": "x"}, headers=elsewhere).status_code == 403
    form = known | {"content-type": "text/plain"}
    assert http.post(URL, content='{"query": "x"}', headers=form).status_code == 415


def test_the_interval_holds_what_the_mixture_says():
    """Against exact fractions: 1/E(p) at a share, of B(s + 1, f + 1) = 1 / ((n + 1) · (n over s))."""
    for successes, trials in ((0, 0), (0, 5), (8, 8), (3, 7), (16, 20), (61, 97)):
        low, high = sequential_interval(successes, trials)
        ways = 1
        for k in range(successes):
            ways = ways * (trials - k) // (k + 1)

        def evidence(p, s=successes, n=trials, ways=ways):
            return 1 / (Fraction(p) ** s * (1 - Fraction(p)) ** (n - s) * (n + 1) * ways)

        assert (low == 0) == (successes == 0)
        assert (high == 1) == (successes == trials)
        for edge, outward in ((low, -1e-9), (high, 1e-9)):
            if edge not in (0, 1):
                assert evidence(edge + outward) > 20 > evidence(edge - outward)
    with pytest.raises(InputError, match="9 successes of 8 trials"):
        sequential_interval(9, 8)
    with pytest.raises(InputError, match="level is 95"):
        sequential_interval(1, 2, level=95)


def test_looking_after_every_judgement_misleads_one_run_in_twenty_at_most():
    """The chance that 100 judgements of equal rankings are ever said to be decided, by all paths at once."""
    undecided, misled = {0: 1.0}, 0.0
    for trials in range(1, 101):
        after: dict[int, float] = {}
        for successes, chance in undecided.items():
            for more in (0, 1):
                after[successes + more] = after.get(successes + more, 0.0) + chance / 2
        undecided = {}
        for successes, chance in after.items():
            low, high = sequential_interval(successes, trials)
            if low > 0.5 or high < 0.5:
                misled += chance
            else:
                undecided[successes] = chance
    assert 0.01 < misled <= 0.05
