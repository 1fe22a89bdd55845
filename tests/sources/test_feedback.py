"""Judgements into pairs: who counts, how much a rank says, contradictions, and damaged files."""

from __future__ import annotations

import json
import os
import threading
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from dits_adapter.cli import main
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation.calibration import fit_calibration
from dits_adapter.sources import _feedback_file
from dits_adapter.sources._feedback_file import (
    AdapterInUse,
    Chosen,
    Judgement,
    LoggedQuery,
    TakenBack,
    append,
    is_feedback,
    read_entries,
    require_feedback_file,
)
from dits_adapter.sources.feedback import PASSED, TRUST, Examination, feedback_pairs, feedback_queries
from dits_adapter.tasks.calibrate import calibrate_artifact
from dits_adapter.vectors import unit

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
ADAPTER = AdapterInUse(name="demo-dits", kind="dits", digest="ab", strength=1, steps=10)
PLAIN, ADAPTED = list("abcdefghij"), list("jihgfedcba")


class Judges:
    """Writer of judgements of two rankings, a to j and j to a, a second apart."""

    def __init__(self, path):
        self.path = path
        self.seconds = 0

    def time(self):
        self.seconds += 1
        return START + timedelta(seconds=self.seconds)

    def say(self, query, segment=None, side="plain", *, session="", search=None, path="/v/{}.mp4", **fields):
        shown = {"plain": PLAIN, "adapted": ADAPTED} | fields.pop("shown", {})
        chosen = None
        if segment is not None:
            chosen = Chosen(
                id=segment,
                video_id=f"video {segment}",
                path=path and path.format(segment),
                start=0.0,
                end=4.0,
                side=side,
                rank=shown[side].index(segment) + 1,
                score=0.3,
            )
        search = search or f"search {self.seconds}"
        facts = {"adapter": ADAPTER, "collection": "videos", "space": "f" * 16, "shown": shown, **fields}
        entry = Judgement(time=self.time(), search=search, session=session, query=query, chosen=chosen, **facts)
        append(self.path, entry)
        return search

    def take_back(self, search):
        append(self.path, TakenBack(time=self.time(), search=search))

    def log(self, query):
        append(self.path, LoggedQuery(time=self.time(), query=query))


@pytest.fixture
def judges(tmp_path):
    return Judges(tmp_path / "feedback.jsonl")


def pairs(judges, **options):
    out = judges.path.with_name("pairs.jsonl")
    report = feedback_pairs(judges.path, out, **options)
    return report, [json.loads(line) for line in out.read_text("utf-8").splitlines()]


def test_a_choice_is_a_pair_of_its_span_and_segment(judges):
    judges.say("a dog", "a")
    report, lines = pairs(judges)
    assert lines == [
        {
            "video": "/v/a.mp4",
            "start": 0.0,
            "end": 4.0,
            "text": ["a dog"],
            "source": "feedback",
            "confidence": round(1 / (1 + TRUST), 4),
            "id": "a",
        }
    ]
    assert (report.judgements, report.texts, report.videos) == (1, 1, 1)
    assert PairsFile(judges.path.with_name("pairs.jsonl")).texts == 1


def test_the_lower_the_rank_the_more_a_choice_says(judges):
    for rank, segment in enumerate(PLAIN, 1):
        judges.say(f"query {rank}", segment, shown={"adapted": []})
    confidences = [line["confidence"] for line in pairs(judges)[1]]
    assert confidences == [round(1 / (1 + TRUST / rank), 4) for rank in range(1, 11)]


def test_people_who_agree_and_people_who_do_not(judges):
    """Against the product of odds, written out."""
    for person in range(3):
        judges.say("agreed", "a", session=f"{person}")
    judges.say("disputed", "c", session="1")
    judges.say("disputed", session="2")
    judges.say("outvoted", "a", session="1")
    for person in range(2, 5):
        judges.say("outvoted", session=f"{person}")
    report, lines = pairs(judges)
    by_query = {line["text"][0]: line["confidence"] for line in lines}
    third, eighth = (rank**-report.examination.exponent for rank in (3, 8))  # c in the one ranking and the other
    seen = 1 - (1 - third) * (1 - eighth)
    odds = {"agreed": TRUST**-3, "disputed": 1 / (TRUST * third) * (1 - (1 - PASSED) * seen)}
    assert by_query == {query: pytest.approx(o / (1 + o), abs=1e-4) for query, o in odds.items()}
    assert report.left_out == {"others chose otherwise, or none": 1}
    assert report.unanswerable == ["outvoted"]


def test_the_last_word_of_a_person_counts(judges):
    first = judges.say("a dog", "a", session="tab")
    judges.say("a dog", "b", session="tab")
    judges.say(" a  dog ", "c", session="tab")
    twice = judges.say("a cat", "d")
    judges.say("a cat", "e", search=twice)
    gone = judges.say("a cow", "f")
    judges.take_back(gone)
    judges.take_back(first)  # of a judgement that another one has replaced
    report, lines = pairs(judges)
    assert [(line["text"][0], line["id"]) for line in lines] == [("a dog", "c"), ("a cat", "e")]
    assert (report.judgements, report.repeated) == (2, 4)


def test_a_segment_keeps_its_name_when_its_collection_is_built_anew(judges):
    judges.say("a dog", "a", session="1")
    judges.say("a dog", "b", session="2", path="/v/a.mp4", collection="videos-2", shown={"plain": ["b", "x"]})
    judges.say("a cat", "a", session="3", path="/moved/a.mp4")
    report, lines = pairs(judges)
    assert {(line["id"], line["video"]) for line in lines} == {("a", "/moved/a.mp4")}
    assert lines[0]["confidence"] > lines[1]["confidence"]  # two people chose it
    assert report.collections == ["videos", "videos-2"]
    assert "videos, videos-2" in str(report)


def test_a_collection_without_paths_gives_ids_alone(judges):
    judges.say("a dog", "a", path=None)
    assert "video" not in pairs(judges)[1][0]
    assert PairsFile(judges.path.with_name("pairs.jsonl"), files=False).videos == 1


def test_other_lines_stay_and_those_of_feedback_are_made_anew(judges):
    out = judges.path.with_name("pairs.jsonl")
    out.write_text('{"video": "x.mp4", "text": "mine"}\n')
    gone = judges.say("a dog", "a")
    judges.say("a cat", "b")
    pairs(judges)
    judges.take_back(gone)
    assert [line["text"] for line in pairs(judges)[1]] == ["mine", ["a cat"]]


class TestExamination:
    @staticmethod
    def judgements(exponent, n, *, seed=0, order=lambda place: place[0]):
        """Choices of people who look at rank r with the chance r^-η, and choose where they see the hit first."""
        rng = np.random.default_rng(seed)
        made = []
        while len(made) < n:
            ranks = dict(zip(("plain", "adapted"), rng.choice(10, size=2, replace=False) + 1, strict=True))
            seen = [(int(rank), side) for side, rank in ranks.items() if rng.random() < rank**-exponent]
            if seen:
                rank, side = min(seen, key=order)
                shown = {name: [f"{name} {place}" for place in range(10)] for name in ranks}
                for name, place in ranks.items():
                    shown[name][place - 1] = "right"
                chosen = Chosen(id="right", video_id="v", side=side, rank=rank, score=0)
                facts = {"adapter": ADAPTER, "collection": "c", "space": "s", "shown": shown}
                made.append(Judgement(time=START, search=str(len(made)), query="q", chosen=chosen, **facts))
        return made

    @pytest.mark.parametrize("exponent", [0.5, 1.0, 1.6])
    def test_it_is_estimated_from_hits_at_two_ranks(self, exponent):
        fitted = Examination.fit(self.judgements(exponent, 2000))
        assert 300 < fitted.choices < 2000  # those at rank 1 tell nothing
        assert fitted.exponent == pytest.approx(exponent, abs=0.12)

    def test_people_who_read_one_ranking_first_do_not_mislead_it_far(self):
        fitted = Examination.fit(self.judgements(1.0, 1000, order=lambda place: place[1]))
        assert 0.7 < fitted.exponent < 1.3

    def test_few_choices_change_little_and_none_nothing(self):
        assert Examination.fit([]) == Examination(1.0, 0)
        few = Examination.fit(self.judgements(0.2, 6))
        assert (few.choices > 0, 0.6 < few.exponent < 1.4) == (True, True)

    def test_places_in_two_rankings_are_seen_more(self):
        assert Examination(1.0).of_any([2, 4]) == pytest.approx(1 - 0.5 * 0.75)
        assert Examination(0.0).of(9) == 1.0


class TestNoneOfThese:
    def test_queries_that_more_answer_with_none(self, judges, tmp_path):
        judges.say("a unicorn", session="1")
        judges.say("a\u2028unicorn", session="2")
        judges.say("a dog", "a", session="1")
        judges.say("a dog", session="2")
        judges.say("a cat", session="1", filtered=True)
        out = tmp_path / "unanswerable.txt"
        report, _ = pairs(judges, unanswerable=out)
        assert out.read_text("utf-8") == "a unicorn\n"
        assert "none     1 query that" in str(report)

    def test_only_those(self, judges, tmp_path, capsys):
        judges.say("a unicorn")
        out = tmp_path / "queries.txt"
        command = ["pairs", str(judges.path), "--out", str(tmp_path / "pairs.jsonl")]
        assert main([*command, "--unanswerable", str(out)]) == 0
        assert out.read_text("utf-8") == "a unicorn\n"
        said = capsys.readouterr().out
        assert f"holds no pairs, as nobody chose a hit; the queries are in {out}." in said
        assert "dits-adapter embed" not in said
        assert main(command) == 1
        assert "no texts were found" in capsys.readouterr().err

    def test_they_make_the_calibration_right_about_what_people_ask(self, judges, tmp_path):
        """Squared errors on queries that no judgement was of are less than half as large.

        Made queries, whose own video is left out, have a near-duplicate in the collection; what people ask in vain
        is of other things. One judgement in ten is careless.
        """
        rng = np.random.default_rng(0)
        kinds = rng.normal(size=(40, 24))
        videos = unit(np.repeat(kinds, 4, axis=0) + 0.5 * rng.normal(size=(160, 24)))
        asked = unit(np.repeat(videos, 2, axis=0) + 0.12 * rng.normal(size=(320, 24)))
        vain = unit(rng.normal(size=(200, 24)))
        for number, scores in enumerate(vain[:100] @ videos.T):
            shown = [str(video) for video in np.argsort(-scores)[:10]]
            careless = shown[0] if rng.random() < 0.1 else None
            judges.say(f"vain {number}", careless, shown={"plain": shown, "adapted": []}, side="plain")
        for number, scores in enumerate(asked[:50] @ videos.T):
            shown = [str(video) for video in np.argsort(-scores)[:10]]
            right = str(number // 2) if str(number // 2) in shown else None
            judges.say(f"asked {number}", right, shown={"plain": shown, "adapted": []}, side="plain")
        _, _ = pairs(judges, unanswerable=tmp_path / "none.txt")
        none = (tmp_path / "none.txt").read_text("utf-8").split("\n")[:-1]
        judged = vain[[int(query.removeprefix("vain ")) for query in none if query.startswith("vain ")]]
        assert 80 <= len(judged) == len(none) < 100
        errors = []
        for unanswerable in (None, judged @ videos.T):
            fitted = fit_calibration(asked[50:200] @ videos.T, np.arange(50, 200) // 2, unanswerable=unanswerable)
            errors.append(self.brier(fitted.calibration, asked[200:320], vain[100:], videos))
        assert errors[1] < errors[0] / 2

    @staticmethod
    def brier(calibration, asked, vain, videos):
        right = np.arange(200, 320) // 2
        best = np.concatenate([(asked @ videos.T).max(axis=1), (vain @ videos.T).max(axis=1)])
        ranked = np.argsort(-(asked @ videos.T), axis=1)[:, :10]
        truth = np.concatenate([(ranked == right[:, None]).any(axis=1), np.zeros(len(vain))])
        said = [calibration.probability_of_any(score, videos=160) for score in best]
        weight = np.repeat([1 / len(asked), 1 / len(vain)], [len(asked), len(vain)])
        return np.average((np.array(said) - truth) ** 2, weights=weight)


class TestFile:
    def test_threads_and_processes_write_whole_lines(self, judges):
        def write(name):
            for n in range(20):
                append(judges.path, LoggedQuery(time=START, query=f"{name} {n} " + "x" * 5000))

        threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
        child = os.fork()
        if child == 0:
            write("child")
            os._exit(0)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert os.waitpid(child, 0)[1] == 0
        entries = [entry for _, entry in read_entries(judges.path)]
        assert len({entry.query for entry in entries}) == len(entries) == 100
        assert oct(judges.path.stat().st_mode)[-3:] == "600"

    def test_a_full_disk_leaves_the_file_as_it_was(self, judges, monkeypatch):
        judges.say("a dog", "a")
        before = judges.path.read_bytes()
        write = os.write
        parts = iter([10])

        def full(file, content):
            if (part := next(parts, None)) is None:
                raise OSError(28, "No space left on device")
            return write(file, content[:part])

        monkeypatch.setattr(_feedback_file.os, "write", full)
        with pytest.raises(DITSError, match=r"feedback.jsonl: cannot be written \(No space left on device\)"):
            judges.say("a cat", "b")
        assert judges.path.read_bytes() == before

    @pytest.mark.parametrize("query", ["a ü", "a 🐕"])
    def test_a_line_may_be_torn_at_any_byte(self, judges, query):
        judges.say("a dog", "a")
        whole = judges.path.read_bytes()
        judges.say(query, "b")
        line = judges.path.read_bytes()[len(whole) :]
        assert pairs(judges)[1][1]["text"] == [query]
        first = line.index(b'"query"')
        for size in range(first + 10, first + 16):
            judges.path.write_bytes(whole + line[:size])
            judges.say("a cow", "c")
            assert [pair["id"] for pair in pairs(judges)[1]] == ["a", "c"]

    def test_a_torn_line_costs_that_judgement_alone(self, judges):
        judges.say("a dog", "a")
        with judges.path.open("ab") as file:
            file.write(b'{"kind": "judgement", "query": "a c')
        judges.say("a cow", "b")
        report, lines = pairs(judges)
        assert [line["id"] for line in lines] == ["a", "b"]
        assert len(report.faults) == 1
        assert "line 3: is no valid JSON" in str(report)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("[]", "line 2: "),
            ('{"kind": "other"}', "line 2: "),
            ('{"kind": "query", "time": "2026-01-01T00:00:00", "query": "x"}', "time"),
            ('{"kind": "query", "time": "2026-01-01T00:00:00Z", "query": " "}', "its query is empty or blank"),
            ('{"kind": "undo", "time": "2026-01-01T00:00:00Z"}', "search is missing"),
        ],
    )
    def test_lines_that_are_no_entries_are_named(self, judges, line, message):
        require_feedback_file(judges.path)
        with judges.path.open("a") as file:
            file.write(line + "\n")
        judges.say("a dog", "a")
        report, lines = pairs(judges)
        assert (len(lines), message in str(report)) == (1, True)

    def test_what_is_no_file_of_feedback_is_refused(self, tmp_path):
        other = tmp_path / "pairs.jsonl"
        other.write_text('{"video": "a.mp4", "text": "a dog"}\n')
        assert not is_feedback(other)
        assert not is_feedback(tmp_path)
        assert not is_feedback(tmp_path / "missing.jsonl")
        for path, message in (
            (other, "holds something else than feedback"),
            (tmp_path, "is no file"),
            (tmp_path / "no" / "where.jsonl", "cannot be written"),
        ):
            with pytest.raises(InputError, match=message):
                require_feedback_file(path)
        with pytest.raises(InputError, match="is not how a file of feedback begins"):
            feedback_pairs(other, tmp_path / "out.jsonl")
        newer = tmp_path / "newer.jsonl"
        newer.write_text('{"format": "dits_adapter feedback", "version": 2}\n')
        with pytest.raises(InputError, match="is of version 2 of the format; version 1 is read here"):
            feedback_pairs(newer, tmp_path / "out.jsonl")

    def test_without_a_judgement_nothing_is_written(self, judges, tmp_path):
        judges.log("a dog")
        with pytest.raises(InputError, match="no judgement counts yet"):
            feedback_pairs(judges.path, tmp_path / "out.jsonl")
        assert not (tmp_path / "out.jsonl").exists()

    def test_several_files_are_read_by_time(self, judges, tmp_path):
        other = Judges(tmp_path / "other.jsonl")
        other.seconds = 100
        other.say("a dog", "b", session="tab")
        judges.say("a dog", "a", session="tab")
        feedback_pairs([other.path, judges.path], tmp_path / "out.jsonl")
        assert json.loads((tmp_path / "out.jsonl").read_text())["id"] == "b"


class TestQueries:
    def test_all_queries_feed_a_bank(self, judges):
        judges.say("a dog", "a")
        judges.log("a cat")
        judges.log("a dog")
        judges.say("a unicorn")
        assert feedback_queries(judges.path) == ["a dog", "a cat", "a unicorn"]

    def test_the_bank_takes_the_file_and_calibrate_wants_the_unanswerable_alone(self, judges, tmp_path, capsys):
        judges.log("a dog")
        assert main(["bank", str(judges.path), "--adapter", "demo-clip", "--out", str(tmp_path / "bank")]) == 1
        assert "holds 1 distinct query; a bank needs at least" in capsys.readouterr().err
        with pytest.raises(InputError, match="with queries of both kinds"):
            calibrate_artifact("demo-dits", "cache", tmp_path / "new", unanswerable=judges.path)
