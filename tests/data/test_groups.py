"""Videos that belong together stay on one side of every split, and texts of people judge."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch

from dits_adapter.adapters._folds import Problem, folds
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.cli import main
from dits_adapter.data import _groups
from dits_adapter.data._groups import find_groups
from dits_adapter.data._splits import split_videos
from dits_adapter.data.pairs import LEAST_JUDGES, Pairs, held_out, record_split
from dits_adapter.data.provenance import JUDGES, SOURCES, TextMarks
from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import DotProducts, ranks
from dits_adapter.training._banked import with_bank
from dits_adapter.training._batches import Batches
from dits_adapter.training._gentle import _cross_validated
from dits_adapter.training._notes import measuring_notes, sources_of, split_notes
from dits_adapter.training.compare import fold_splits
from dits_adapter.training.config import TrainingConfig
from tests.spaces import made_up_space

WIDTH = 32


def directions(count, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def made_up(video, ids=(), text=None, labels=None, sources=None):
    labels = np.arange(len(video)) if labels is None else np.asarray(labels)
    text = directions(len(labels), seed=1) if text is None else text
    marks = None if sources is None else TextMarks.of((source, 1.0) for source in sources)
    return Pairs(text, video, labels, made_up_space(WIDTH), ids, marks=marks)


def near(vectors, distance, seed=2):
    """Return vectors at a distance 1 - cosine."""
    aside = directions(len(vectors), seed)
    aside -= np.sum(aside * vectors, axis=1, keepdims=True) * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return ((1 - distance) * vectors + np.sqrt(1 - (1 - distance) ** 2) * aside).astype(np.float32)


def parted(groups, seed=0, fraction=0.3):
    """Return the groups on the two sides of a split."""
    train, held = split_videos(len(groups), fraction, seed, groups=groups)
    assert sorted([*train, *held]) == list(range(len(groups)))
    return set(groups[train]), set(groups[held])


class TestGroups:
    def test_spans_of_a_file_are_on_one_side(self):
        ids = [f"{n % 20}.mp4#t={n // 20},{n // 20 + 1}" for n in range(80)]
        pairs = made_up(directions(80), ids)
        for seed in range(5):
            files = [{name.partition("#")[0] for name in part.video_ids} for part in pairs.split(0.3, seed)]
            assert not files[0] & files[1]
            assert len(files[1]) == 6
        assert len(set(pairs.groups.alike)) == 80  # spans are wrong answers for each other

    def test_a_video_under_two_ids_is_on_one_side(self):
        video = directions(60)
        for copies in (video[:20], near(video[:20], 0.002)):
            groups = made_up(np.concatenate([video, copies])).groups
            assert groups.whole.tolist() == [*range(60), *range(20)]
            assert groups.alike.tolist() == groups.whole.tolist()
            assert groups.of_vectors.sum() == 40
            mine, others = parted(groups.whole)
            assert not mine & others

    def test_videos_that_merely_resemble_each_other_are_not_joined(self):
        kinds = near(np.repeat(directions(10), 4, axis=0), 0.05)
        family = near(np.repeat(kinds, 5, axis=0), 0.004, seed=3)  # .008 from each other, .1 from the next kind
        close = near(family[::5], 0.001, seed=4)  # nearer, but not by far
        assert len(made_up(np.concatenate([family, close])).groups) == 240
        assert len(made_up(np.concatenate([family, near(family[::5], 0.0001)])).groups) == 200

    def test_many_copies_and_rounding_are_seen(self):
        video = np.repeat(directions(30), 40, axis=0)
        rounded = video * (1 + 1e-7 * np.random.default_rng(3).normal(size=video.shape)).astype(np.float32)
        assert made_up(rounded).groups.whole.tolist() == np.repeat(np.arange(30), 40).tolist()

    def test_of_many_videos_the_copies_are_found_without_a_square(self, monkeypatch):
        monkeypatch.setattr(_groups, "_EXACT", 100)
        monkeypatch.setattr(_groups, "_LEAF", 64)
        video = directions(2000)
        groups = made_up(np.concatenate([video, near(video[:200], 0.0005)])).groups
        assert groups.of_vectors.sum() == 400
        compared = [len(rows) for rows in _groups._blocks(directions(2000))]
        assert sum(n * n for n in compared) < 2000**2 / 2
        assert max(compared) <= 64

    def test_a_neighbor_that_several_trees_find_is_one(self, monkeypatch):
        monkeypatch.setattr(_groups, "_EXACT", 100)
        monkeypatch.setattr(_groups, "_LEAF", 256)
        video = near(np.repeat(directions(40), 20, axis=0), 0.004)
        rows, neighbors, distances = _groups._neighbors(video)
        assert len(np.unique(np.stack([rows, neighbors]), axis=1)[0]) == len(rows) == 800 * _groups._NEIGHBORS
        exact = 1 - np.sum(video[rows].astype(np.float64) * video[neighbors], axis=1)
        np.testing.assert_allclose(distances, exact, atol=1e-6)
        assert np.mean(rows // 20 == neighbors // 20) > 0.95  # the others of a family, which has 19

    def test_a_text_of_two_videos_joins_them_and_judges_nothing(self):
        text = directions(50, seed=1)
        text[7] = text[3] * 9 + 1e-7  # raw texts, of another batch
        pairs = made_up(directions(50), text=text)
        assert pairs.groups.whole[7] == 3
        assert np.flatnonzero(pairs.groups.several).tolist() == [3, 7]
        assert len(pairs.judging()) == 48
        assert len(pairs.judging().video) == 50  # all are searched
        assert pairs.judging().left_out == {"of several videos": 2, "of other sources than people": 0}

    def test_a_text_that_fits_all_joins_nothing_and_judges_nothing(self):
        labels = np.tile(np.arange(50), 2)
        text = directions(100, seed=1)
        text[50:] = text[50]
        pairs = made_up(directions(50), text=text, labels=labels)
        assert len(pairs.groups) == 50
        for part in pairs.split(0.2, 0):
            assert not part.groups.several[: len(part) // 2].any()
        held = pairs.split(0.2, 0)[1]
        assert (len(held), held.left_out["of several videos"]) == (10, 10)
        assert len(made_up(directions(50), text=text[50:]).judging()) == 50  # rather these than none

    def test_one_common_text_of_many_does_not_hang_videos_together(self):
        labels = np.repeat(np.arange(50), 10)
        text = directions(500, seed=1)
        text[0::10][1:] = text[5::10][:-1]  # each video has one text of the one before
        pairs = made_up(directions(50), text=text, labels=labels)
        assert len(pairs.groups) == 50
        assert pairs.groups.several.sum() == 98

    def test_nothing_that_joins_leaves_the_split_as_it_was(self):
        pairs = made_up(directions(90))
        order = np.random.default_rng(5).permutation(90)
        train, held = pairs.split(0.2, 5)
        np.testing.assert_array_equal(held.video, pairs.video[np.sort(order[:18])])
        np.testing.assert_array_equal(train.video, pairs.video[np.sort(order[18:])])
        assert held.left_out == {}
        assert split_notes([(train, train, held)]) == ()

    def test_groups_are_those_found_among_all_pairs(self):
        video = directions(40)
        pairs = made_up(np.concatenate([video, video[:10]]))
        assert len(pairs.groups) == 40
        part = pairs.of_videos(np.array([45, 3, 5, 12]))
        assert part.groups.whole.tolist() == [0, 1, 0, 2]
        assert part.groups.of_vectors.tolist() == [True, True, True, False]

    def test_a_split_comes_as_near_to_its_size_as_groups_allow(self):
        groups = np.repeat(np.arange(6), [50, 10, 10, 10, 10, 10])
        for seed in range(8):
            _, held = split_videos(100, 0.25, seed, groups=groups)
            assert len(held) == 20
            assert 0 not in groups[held]
        large = np.repeat(np.arange(2), [60, 40])
        assert split_videos(100, 0.1, 0, groups=large)[1].tolist() == list(range(60, 100))

    def test_one_file_alone_is_parted_with_a_warning(self):
        pairs = made_up(directions(30), [f"a.mp4#t={n},{n + 1}" for n in range(30)])
        with pytest.warns(UserWarning, match="all 30 videos belong together"):
            train, held = pairs.split(0.2, 0)
        assert (len(train.video), len(held.video)) == (24, 6)

    def test_the_record_of_a_split_makes_it_again(self):
        ids = [f"{n % 20}.mp4#t={n // 20},{n // 20 + 1}" for n in range(80)]
        pairs = made_up(directions(80), ids)
        held = pairs.split(0.3, 4)[1]
        with pytest.warns(UserWarning, match="24 videos"):
            again = held_out(made_up(directions(80), ids), {"held_out": record_split(pairs, 0.3, 4)})
        assert list(again.video_ids) == list(held.video_ids)
        assert made_up(directions(80)).digest != pairs.digest  # other files, another split

    def test_folds_and_banks_keep_groups_together(self):
        ids = [f"{n % 25}.mp4#t={n // 25},{n // 25 + 1}" for n in range(100)]
        pairs = made_up(directions(100), ids)
        searched = []
        for parts in fold_splits(pairs, 5, 0.2, seed=0):
            files = [{name.partition("#")[0] for name in part.video_ids} for part in parts]
            assert not (files[0] & files[1] | files[0] & files[2] | files[1] & files[2])
            searched += parts[2].video_ids
        assert sorted(searched) == sorted(ids)
        with pytest.raises(InputError, match="2 folds of 40 videos in 2 groups"):
            fold_splits(made_up(directions(40), [f"{n % 2}.mp4#t={n},{n + 1}" for n in range(40)]), 2, 0.2, 0)
        seen = []

        class Stop(Exception):
            pass

        def train(part):
            seen.append({name.partition("#")[0] for name in part.video_ids})
            raise Stop

        with pytest.raises(Stop):
            with_bank(None, pairs, train)  # type: ignore[arg-type]
        assert len(seen[0]) == 20  # of 25 files: none is on both sides


def test_copies_are_no_wrong_answers_of_a_batch():
    video = directions(30)
    pairs = made_up(np.concatenate([video, near(video[:10], 0.001)]))
    (batch,) = Batches(pairs, TrainingConfig(batch_size=40), torch.device("cpu")).epoch(1)
    cosines = batch.video @ batch.video.T
    assert torch.equal(batch.labels[:, None] == batch.labels, cosines > 0.99)
    apart = made_up(video)
    (batch,) = Batches(apart, TrainingConfig(batch_size=30), torch.device("cpu")).epoch(1)
    assert torch.equal(batch.video, torch.nn.functional.normalize(torch.from_numpy(video)[batch.labels], dim=1))


def test_folds_of_gentle_adapters_keep_groups_together():
    video = directions(60).astype(np.float64)
    groups = np.arange(60) % 12
    problem = Problem.of(video, video, groups)
    for fold in folds(problem, seed=3):
        mine = {tuple(row) for row in fold.candidates}
        held = {group for row, group in zip(problem.videos, problem.groups, strict=True) if tuple(row) in mine}
        assert len(held) * 5 == len(mine)  # whole groups
    alone = Problem.of(video, video)
    each = Problem.of(video, video, np.random.default_rng(0).permutation(60))
    few = Problem.of(video, video, np.arange(60) % 4)
    for other in (each, few):
        for a, b in zip(folds(alone, 1), folds(other, 1), strict=True):
            np.testing.assert_array_equal(a.held, b.held)


def test_folds_of_gentle_adapters_choose_by_texts_of_people():
    video = directions(100).astype(np.float64)
    labels = np.repeat(np.arange(100), 3)
    judges = (np.arange(300) % 3 == 0) & (labels < 40)
    problem = Problem.of(directions(300, seed=1), video[labels], labels, judges)
    held = np.zeros(300, int)
    for fold in folds(problem, seed=3):
        assert len(fold.candidates) == 20
        assert fold.held.sum() == 8  # as many in each fold
        of_candidates = (problem.videos[problem.labels][:, None] == fold.candidates).all(-1).any(1)
        np.testing.assert_array_equal(fold.seen, ~of_candidates)
        np.testing.assert_array_equal(fold.candidates[fold.answers], problem.videos[problem.labels[fold.held]])
        held += fold.held
    np.testing.assert_array_equal(held, judges)
    few = Problem.of(directions(300, seed=1), video[labels], labels, labels < 4)
    assert few.judges.all()


@pytest.mark.parametrize(("people", "by_people"), [(LEAST_JUDGES, True), (LEAST_JUDGES - 1, False)])
def test_gentle_adapters_follow_people_where_models_write_otherwise(people, by_people):
    video = directions(250)
    labels = np.concatenate([np.arange(people), np.arange(people, 250)])
    text = near(video[labels], 0.4)
    text[people:] = -text[people:] + directions(1, seed=8)  # in words that lead elsewhere
    pairs = made_up(video, text=text, sources=["human"] * people + ["caption"] * (250 - people))
    fit = _cross_validated("gentle-linear", pairs)
    assert (fit.start.strength == 0) is by_people
    assert (len(fit.rows) == people) is by_people


def test_copies_are_searched_as_one_video():
    video = directions(40)
    pairs = made_up(np.concatenate([video, video[:20], near(video[:10], 0.001)]))
    judged = pairs.judging()
    np.testing.assert_array_equal(judged.video, video)
    assert judged.labels.tolist() == [*range(40), *range(20), *range(10)]
    assert (judged.copies_left_out, judged.left_out["of several videos"]) == (30, 0)
    same = made_up(np.concatenate([video, video]), text=np.concatenate([directions(40, seed=1)] * 2))
    assert not same.groups.several.any()  # one video with one text, twice
    train, test = pairs.split(0.4, 0)
    found = ranks(DotProducts(test.video[test.labels], test.video), test.labels)
    assert (found == 1).all()
    assert any("copies of searched videos are left out" in note for note in split_notes([(train, train, test)]))
    test.copies_left_out = 1
    assert any("1 copy of a searched video is left out" in note for note in split_notes([(train, train, test)]))


class TestJudges:
    def mixed(self, people, models, *, both=False):
        """Return pairs of which some videos have a text of people, and the others, or all, two of a model."""
        first = 0 if both else people
        labels = np.concatenate([np.arange(people), np.repeat(np.arange(first, people + models), 2)])
        sources = ["human"] * people + ["caption"] * (len(labels) - people)
        return made_up(directions(people + models), labels=labels, sources=sources)

    def test_few_texts_of_people_judge_and_many_of_models_only_train(self):
        pairs = self.mixed(people=200, models=1800)
        rest, test = pairs.split(0.2, 0)
        assert (test.sources, len(test.video)) == ({"human": 100}, 100)  # half of those that there are
        train, validation = rest.split(0.1, 0)
        assert validation.sources == {"human": 50}
        assert train.sources == {"human": 50, "caption": 3600}
        assert sources_of((train, validation, test))["test"] == {"human": 100}
        (note,) = split_notes([(train, validation, test)])
        assert note == "Judged by texts that people wrote for this: 100 human."

    def test_texts_of_models_of_a_video_that_people_judge_neither_judge_nor_train(self):
        pairs = self.mixed(people=300, models=700, both=True)
        train, test = pairs.split(0.15, 0)
        assert test.sources == {"human": 150}
        assert train.sources == {"human": 150, "caption": 2 * 850}
        assert test.left_out["of other sources than people"] == 300
        assert any("300 of other sources than people" in note for note in measuring_notes(test))

    def test_too_few_texts_of_people_judge_with_all_others_and_it_is_said(self):
        pairs = self.mixed(people=2 * LEAST_JUDGES - 2, models=900)
        train, test = pairs.split(0.2, 0)
        assert set(test.sources) == {"human", "caption"}
        assert len(test.video) == round(0.2 * len(pairs.video))
        (note,) = split_notes([(train, train, test)])
        assert "Judged by texts that a model wrote: " in note
        assert "those alone judge from 100 videos on" in note

    @pytest.mark.parametrize("source", [source for source in SOURCES if source not in JUDGES])
    def test_where_nobody_wrote_for_this_it_is_said_who_did(self, source):
        pairs = made_up(directions(60), sources=[source] * 60)
        train, test = pairs.split(0.2, 0)
        (note,) = split_notes([(train, train, test)])
        whose = "a model wrote" if source in ("speech", "caption", "query") else "people wrote for something else"
        assert f"Judged by texts that {whose}: 12 {source}." in note
        assert "not by what people ask for" in note

    def test_feedback_judges_as_texts_of_people_do(self):
        pairs = made_up(directions(200), sources=["feedback"] * 120 + ["speech"] * 80)
        assert pairs.split(0.3, 0)[1].sources == {"feedback": 60}

    def test_of_little_to_hold_out_people_judge_where_they_fill_it(self):
        assert self.mixed(people=70, models=130).split(0.1, 0)[1].sources == {"human": 20}

    def test_every_fold_has_its_part_of_the_judges(self):
        pairs = self.mixed(people=50, models=150)
        for train, _, test in fold_splits(pairs, 5, 0.2, seed=0):
            assert (test.sources, len(test.video)) == ({"human": 10}, 40)
            assert train.sources["caption"] > 0

    def test_commands_say_who_judges_and_keep_it(self, tmp_path, capsys):
        pairs, video = self.mixed(people=120, models=100), directions(220)
        text = near(video[pairs.labels], 0.3, seed=6)
        pairs = Pairs(text, video, pairs.labels, pairs.space, marks=pairs.marks)
        pairs.save(tmp_path / "pairs.safetensors")
        cached, out = str(tmp_path / "pairs.safetensors"), tmp_path / "adapter"
        command = ["train", cached, "--preset", "deterministic", "--set", "training.epochs=1", "--out", str(out)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert main([*command, "--set", "sampler.depth=1", "--test-fraction", "0.25"]) == 0
            assert "Judged by texts that people wrote for this: 55 human." in capsys.readouterr().out
            assert main(["compare", cached, "--rows", "mean-shift", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["sources"]["test"] == {"human": 44}
        assert told["notes"] == ["Judged by texts that people wrote for this: 44 human."]
        training = Artifact.load(out).training
        assert training["sources"]["test"] == {"human": 55}
        assert "Judged by texts that people wrote" in (out / "README.md").read_text()
        with pytest.warns(UserWarning, match="55 texts of 55 videos"):
            assert main(["calibrate", cached, str(out)]) == 0
        assert "Judged by texts that people wrote for this: 55 human." in capsys.readouterr().out

    def test_other_marks_are_other_pairs(self):
        marked = made_up(directions(60), sources=["human"] * 60)
        assert made_up(directions(60), sources=["caption"] * 60).digest != marked.digest


def test_groups_of_brute_force():
    """The same text, and the copies, by comparing all with all in double precision."""
    rng = np.random.default_rng(7)
    video = directions(80)
    video[40:60] = near(video[:20], 0.0003)
    text = directions(100, seed=9)
    labels = rng.integers(0, 80, 100)
    text[80:] = text[rng.integers(0, 80, 20)]
    found = find_groups(text, video, labels, np.arange(80))
    unit = text.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    same = unit @ unit.T > 1 - 1e-9
    labels = np.where((labels >= 40) & (labels < 60), labels - 40, labels)  # of copies, the first
    several = [len(set(labels[row])) > 1 for row in same]
    assert found.several.tolist() == several
    joined = np.zeros((80, 80), bool)
    joined[np.arange(20), np.arange(40, 60)] = True
    for a in range(80):
        for b in range(a + 1, 80):
            mine, others = set(np.flatnonzero(labels == a)), set(np.flatnonzero(labels == b))
            shared = {min(np.flatnonzero(same[i])) for i in mine} & {min(np.flatnonzero(same[i])) for i in others}
            shared = {i for i in shared if len(set(labels[same[i]])) <= 5}
            fewest = (
                min(len({min(np.flatnonzero(same[i])) for i in texts}) for texts in (mine, others))
                if (mine and others)
                else 0
            )
            joined[a, b] |= bool(fewest) and 2 * len(shared) >= fewest
    reach = np.eye(80, dtype=bool) | joined | joined.T
    for _ in range(80):
        reach = reach @ reach
    assert (found.whole[:, None] == found.whole[None]).tolist() == reach.tolist()
