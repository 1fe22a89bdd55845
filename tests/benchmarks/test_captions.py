"""The captions: each tells its own video from all others, and frame captions know nothing of motion."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable

import numpy as np
import pytest

from benchmarks.clips.captions import (
    BACKGROUND_WORDS,
    MOTION_WORDS,
    RARE_WORDS,
    SHAPE_WORDS,
    WORDINGS,
    frame_caption,
    rare_names,
    video_captions,
    words,
)
from benchmarks.clips.frames import captions, moments
from benchmarks.clips.scenes import (
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    SHAPES,
    Scene,
    Thing,
    placements,
    sample_scene,
    scenes,
)
from benchmarks.demo import table_by_names

TEST = scenes("test")


def test_sentences_are_parted_by_the_names_that_frame_captions_never_use():
    assert [
        rare_names(text) for text in ("a red dotted disc on ice", "a navy dot over the shore", "ebonyish")
    ] == [
        1,
        3,
        0,
    ]
    sentences = [text for scene in TEST for text in video_captions(scene)]
    unmet = np.array([rare_names(text) for text in sentences])
    share = 1 - 0.7 ** np.array([2 * len(scene.things) + 1 for scene in TEST])  # three names in ten are rare
    assert (unmet > 0).mean() == pytest.approx(share.mean(), abs=0.03)
    rng = random.Random(0)
    assert not any(rare_names(frame_caption(scene, 1.0, rng)) for scene in TEST)
    rows = table_by_names({"all": np.where(unmet == 1, 2, 1)}, unmet).splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows]
    assert [row[0] for row in cells] == ["0", "1", "2", "3 or more", "any"]
    assert [row[2] for row in cells][:4] == ["100.0", "0.0", "100.0", "100.0"]
    assert sum(int(row[1].replace(",", "")) for row in cells[:4]) == len(sentences)


def one_of(phrases: Iterable[str]) -> str:
    return "(?:" + "|".join(phrases) + ")"


def subject(thing: Thing) -> str:
    colors = one_of((thing.color, *RARE_WORDS[thing.color]))
    return f"{colors} {one_of(SHAPE_WORDS[thing.shape] + RARE_WORDS[thing.shape])}"


def reader(scene: Scene) -> list[re.Pattern[str]]:
    """Patterns that a sentence matches, all of them, where it tells everything of the scene's key."""
    patterns = [rf"\b{one_of(BACKGROUND_WORDS[scene.background] + RARE_WORDS[scene.background])}\b"]
    for thing in scene.things:
        goal = f"the {subject(scene.things[0])}" if thing.motion == "chase" else thing.direction
        doing = one_of(phrase.format(d=goal) for phrase in MOTION_WORDS[thing.motion])
        patterns.append(rf"\b{subject(thing)} {doing}\b")
    return [re.compile(pattern) for pattern in patterns]


def test_every_wording_tells_its_own_video_and_no_other() -> None:
    told = [(i, sentence) for i, scene in enumerate(TEST) for sentence in video_captions(scene)]
    for i, scene in enumerate(TEST):
        patterns = reader(scene)
        fits = {j for j, sentence in told if all(pattern.search(sentence) for pattern in patterns)}
        assert fits == {i}
        own = [sentence for j, sentence in told if j == i]
        assert all(pattern.search(sentence) for sentence in own for pattern in patterns)


def test_five_different_wordings_always_the_same() -> None:
    everything = [video_captions(scene) for scene in TEST]
    assert all(len(set(captions)) == WORDINGS for captions in everything)
    assert everything == [video_captions(scene) for scene in scenes("test")]
    assert len({sentence for captions in everything for sentence in captions}) == WORDINGS * len(TEST)


def test_wordings_differ_in_order_and_in_detail() -> None:
    told = [video_captions(scene) for scene in TEST if len(scene.things) > 1]
    lengths = [{len(words(sentence)) for sentence in five} for five in told]
    assert sum(len(found) > 1 for found in lengths) > 0.9 * len(told)


def test_no_word_means_two_things() -> None:
    tables = (RARE_WORDS, SHAPE_WORDS, BACKGROUND_WORDS)
    names = Counter(phrase for table in tables for phrases in table.values() for phrase in phrases)
    names.update(list(COLORS))
    assert [name for name, meanings in names.items() if meanings > 1] == []
    assert RARE_WORDS.keys() == {*COLORS, *SHAPES, *BACKGROUNDS}


@pytest.mark.parametrize("motion", MOTIONS)
def test_frame_captions_have_no_word_of_motion(motion: str) -> None:
    verbs = {words(phrase)[0] for phrase in MOTION_WORDS[motion]}
    rng = random.Random(0)
    for number in range(300):
        scene = sample_scene(f"frame-{number:06d}")
        assert verbs.isdisjoint(words(frame_caption(scene, rng.random() * scene.seconds, rng)))


def test_frame_captions_name_what_is_in_view_and_nothing_else() -> None:
    rng = random.Random(0)
    for number in range(300):
        scene = sample_scene(f"frame-{number:06d}")
        seconds = rng.random() * scene.seconds
        caption = frame_caption(scene, seconds, rng)
        assert any(re.search(rf"\b{ground}\b", caption) for ground in BACKGROUND_WORDS[scene.background])
        for place in placements(scene, seconds):
            look = rf"\b{place.thing.color} {one_of(SHAPE_WORDS[place.thing.shape])}\b"
            assert bool(re.search(look, caption)) == place.visible, caption


def test_frame_captions_never_use_the_rare_names() -> None:
    seen = {word for caption in captions(moments("frame", 2_000)) for word in words(caption)}
    told = {word for scene in TEST for sentence in video_captions(scene) for word in words(sentence)}
    rare = {words(phrase)[-1] for phrases in RARE_WORDS.values() for phrase in phrases}
    assert rare.isdisjoint(seen)
    assert rare <= told


def test_frame_captions_say_where_things_are() -> None:
    caption_of = {}
    for x, y in ((0.2, 0.2), (0.5, 0.2), (0.8, 0.5), (0.5, 0.5), (0.2, 0.8)):
        thing = Thing("star", "pink", "plain", "small", "rest", "", x=x, y=y, begin=0.0, end=1.0)
        scene = Scene("made up", 160, 120, 10, 20, "snow", (thing,))
        said = " ".join(frame_caption(scene, 1.0, random.Random(seed)) for seed in range(40))
        caption_of[x, y] = set(words(said)) & {"top", "bottom", "left", "right", "middle"}
    assert caption_of == {
        (0.2, 0.2): {"top", "left"},
        (0.5, 0.2): {"top"},
        (0.8, 0.5): {"right"},
        (0.5, 0.5): {"middle"},
        (0.2, 0.8): {"bottom", "left"},
    }
