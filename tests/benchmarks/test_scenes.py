"""The generator: what is seen is what the scene says, and the splits keep what they promise."""

from __future__ import annotations

import zlib
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.clips.scenes import (
    BACKGROUNDS,
    COLORS,
    MOTIONS,
    SHAPES,
    SPLIT_SIZES,
    TEXTURES,
    Scene,
    Thing,
    held_out,
    placements,
    render,
    sample_scene,
    scenes,
)

RESTING = Thing("square", "red", "plain", "medium", "rest", "", 0.5, 0.5, 0.0, 1.0)


def scene_with(*things: Thing, background: str = "paper", width: int = 160, height: int = 120) -> Scene:
    return Scene("made up", width, height, 10, 40, background, things)


def path_of(thing: Thing, *others: Thing, which: int = 0) -> np.ndarray:
    """Rows of (x, y, diameter) over the clip."""
    scene = scene_with(thing, *others)
    places = [placements(scene, t)[which] for t in np.linspace(0, scene.seconds, 41)]
    return np.array([(p.x, p.y, p.diameter) for p in places])


# What is seen


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_plain_thing_shows_its_color_where_it_is(color: str, background: str) -> None:
    thing = replace(RESTING, color=color, x=0.3, y=0.6)
    frame = render(scene_with(thing, background=background), 1.0)
    assert frame.shape == (120, 160, 3)
    assert frame.dtype == np.uint8
    np.testing.assert_allclose(frame[72, 48], COLORS[color], atol=2)


def test_shapes_and_textures_can_be_told_apart() -> None:
    looks = [
        render(scene_with(replace(RESTING, shape=shape, texture=texture)), 0.0).astype(float)
        for shape, texture in product(SHAPES, TEXTURES)
    ]
    assert min(np.abs(a - b).mean() for a, b in combinations(looks, 2)) > 0.5


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_frame_is_a_function_of_scene_and_time(number: int, part: float) -> None:
    scene = sample_scene(f"any-{number}")
    frame = render(scene, part * scene.seconds)
    assert frame.shape == (scene.height, scene.width, 3)
    render(scene, 0.0)
    np.testing.assert_array_equal(frame, render(sample_scene(f"any-{number}"), part * scene.seconds))


# How it moves


def test_rise_fall_grow_and_shrink_go_one_way() -> None:
    assert (np.diff(path_of(replace(RESTING, motion="rise"))[:, 1]) < 0).all()
    assert (np.diff(path_of(replace(RESTING, motion="fall"))[:, 1]) > 0).all()
    assert (np.diff(path_of(replace(RESTING, motion="grow"))[:, 2]) > 0).all()
    assert (np.diff(path_of(replace(RESTING, motion="shrink"))[:, 2]) < 0).all()
    assert (np.diff(path_of(RESTING), axis=0) == 0).all()


@pytest.mark.parametrize("edge", MOTIONS["enter"])
@pytest.mark.parametrize("size", ["small", "large"])
def test_enter_and_leave_use_the_named_edge(edge: str, size: str) -> None:
    empty = render(scene_with(replace(RESTING, x=-9)), 0.0)
    for motion, unseen, seen in (("enter", 0.0, 4.0), ("leave", 4.0, 0.0)):
        scene = scene_with(replace(RESTING, motion=motion, direction=edge, size=size))
        np.testing.assert_array_equal(render(scene, unseen), empty)
        assert (render(scene, seen) != empty).any()
        half = placements(scene, 2.0)[0]
        offset = {"left": -(half.x - 0.5), "right": half.x - 0.5, "top": -(half.y - 0.5), "bottom": half.y - 0.5}
        assert max(offset, key=offset.__getitem__) == edge


def test_cross_goes_from_edge_to_edge() -> None:
    rightwards = path_of(replace(RESTING, motion="cross", direction="right"))[:, 0]
    leftwards = path_of(replace(RESTING, motion="cross", direction="left"))[:, 0]
    assert rightwards[0] < 0 < 1 < rightwards[-1]
    assert (np.diff(rightwards) > 0).all()
    np.testing.assert_allclose(leftwards, 1 - rightwards)


def test_circle_turns_the_named_way_and_bounce_comes_back() -> None:
    for direction, sign in (("clockwise", 1), ("counterclockwise", -1)):
        x, y, _ = path_of(replace(RESTING, motion="circle", direction=direction)).T
        turned = (x[:-1] - 0.5) * (y[1:] - 0.5) - (y[:-1] - 0.5) * (x[1:] - 0.5)  # y points down
        assert (np.sign(turned) == sign).all()
    ups_and_downs = np.sign(np.diff(path_of(replace(RESTING, motion="bounce"))[:, 1]))
    assert (np.diff(ups_and_downs) != 0).sum() >= 4


@pytest.mark.parametrize(("motion", "direction"), [("cross", "left"), ("circle", "clockwise")])
def test_a_chaser_is_where_its_leader_was(motion: str, direction: str) -> None:
    leader, chaser = replace(RESTING, motion=motion, direction=direction), replace(RESTING, motion="chase")
    led, chasing = path_of(leader, chaser, which=0), path_of(leader, chaser, which=1)
    np.testing.assert_allclose(chasing[10:, :2], led[:-10, :2], atol=1e-12)


# What is in which split


def test_the_shipped_models_data_have_not_changed() -> None:
    """The encoder and the adapter in the repository were trained on these scenes, on whatever Python."""
    assert zlib.crc32(repr(scenes("test")).encode()) == 560459505


def test_held_out_combinations_occur_in_the_test_split_alone() -> None:
    assert {split: len(scenes(split)) for split in SPLIT_SIZES} == {"train": 2800, "val": 150, "test": 300}
    for split in ("train", "val"):
        assert not any(held_out(t.color, t.shape, t.motion) for s in scenes(split) for t in s.things)
    assert all(any(held_out(t.color, t.shape, t.motion) for t in s.things) for s in scenes("test"))


def test_every_part_of_a_held_out_combination_was_seen_in_training() -> None:
    seen = [(t.color, t.shape, t.motion) for s in scenes("train") for t in s.things]
    asked = [(t.color, t.shape, t.motion) for s in scenes("test") for t in s.things]
    for pair in combinations(range(3), 2):
        missing = {tuple(a[i] for i in pair) for a in asked} - {tuple(s[i] for i in pair) for s in seen}
        assert not missing


def test_no_scene_is_in_two_splits() -> None:
    drawn = [replace(scene, name="") for split in SPLIT_SIZES for scene in scenes(split)]
    assert len(set(drawn)) == len(drawn)
    test_keys = {scene.key for scene in scenes("test")}
    assert test_keys.isdisjoint(scene.key for split in ("train", "val") for scene in scenes(split))


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(KeyError, match="dev"):
        scenes("dev")
