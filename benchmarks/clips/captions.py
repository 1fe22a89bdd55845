"""Captions of scenes: sentences about the whole clip, or a few words about one frame.

Video sentences tell what moves, how, and over which background. Frame captions tell what is seen at one moment;
they have no word of motion, and for the same things fewer words. An encoder trained on them alone has never read
a video sentence, nor every third of its names.
"""

from __future__ import annotations

import math
import random
import re

from benchmarks.clips.scenes import SIZES, Placement, Scene, Thing, placements

__all__ = [
    "BACKGROUND_WORDS",
    "MOTION_WORDS",
    "RARE_WORDS",
    "SHAPE_WORDS",
    "WORDINGS",
    "frame_caption",
    "rare_names",
    "video_captions",
    "words",
]

WORDINGS = 5  # sentences for each video
RARE = 0.3  # part of the names in video sentences that frame captions never use

SHAPE_WORDS = {
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
    "diamond": ("diamond",),
    "crescent": ("crescent", "moon"),
    "hexagon": ("hexagon",),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium",), "large": ("large", "big", "huge")}
TEXTURE_WORDS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "chequered"),
}
BACKGROUND_WORDS = {
    "sky": ("a blue sky", "the sky", "a clear sky"),
    "sunset": ("a sunset", "an evening sky", "the dusk"),
    "night": ("a night sky", "the stars at night", "a dark night"),
    "meadow": ("a meadow", "green grass", "a lawn"),
    "sand": ("sand", "a beach", "the desert"),
    "snow": ("snow", "a snowy field", "white snow"),
    "bricks": ("a brick wall", "bricks", "red bricks"),
    "water": ("water", "the sea", "waves"),
    "wood": ("wood", "wooden planks", "a wooden floor"),
    "paper": ("gray paper", "a gray wall", "plain gray"),
}
RARE_WORDS = {  # names of colors, shapes and backgrounds that are used in video sentences alone
    "red": ("crimson", "scarlet"),
    "orange": ("amber", "tangerine"),
    "yellow": ("golden", "lemon"),
    "green": ("emerald", "jade"),
    "blue": ("azure", "navy"),
    "purple": ("violet", "mauve"),
    "pink": ("rosy", "magenta"),
    "brown": ("chestnut", "umber"),
    "white": ("ivory", "pale"),
    "black": ("ebony", "jet"),
    "circle": ("orb", "dot"),
    "square": ("block", "tile"),
    "triangle": ("wedge", "pyramid"),
    "star": ("asterisk", "pentagram"),
    "heart": ("valentine",),
    "ring": ("loop", "band"),
    "cross": ("crosspiece", "crucifix"),
    "diamond": ("rhombus", "lozenge"),
    "crescent": ("sickle", "croissant"),
    "hexagon": ("honeycomb", "hex"),
    "sky": ("the heavens", "bright air"),
    "sunset": ("twilight", "the afterglow"),
    "night": ("midnight", "outer space"),
    "meadow": ("a pasture", "the prairie"),
    "sand": ("dunes", "the shore"),
    "snow": ("ice", "a glacier"),
    "bricks": ("masonry", "a chimney"),
    "water": ("a lake", "the ocean"),
    "wood": ("timber", "parquet"),
    "paper": ("concrete", "cement"),
}
MOTION_WORDS = {
    "enter": ("enters from the {d}", "comes in from the {d}", "slides in from the {d}", "arrives from the {d}"),
    "leave": ("leaves to the {d}", "goes out to the {d}", "moves away to the {d}", "exits on the {d}"),
    "cross": ("crosses to the {d}", "travels across to the {d}", "passes by to the {d}", "moves past to the {d}"),
    "rise": ("rises", "climbs", "goes up", "floats upwards"),
    "fall": ("falls", "drops", "goes down", "sinks"),
    "circle": ("goes round {d}", "circles {d}", "orbits {d}", "runs in circles {d}"),
    "grow": ("grows", "gets bigger", "expands", "becomes larger"),
    "shrink": ("shrinks", "gets smaller", "contracts", "becomes smaller"),
    "bounce": ("bounces", "jumps up and down", "hops", "keeps bouncing"),
    "chase": ("chases {d}", "runs after {d}", "follows {d}", "pursues {d}"),
    "rest": ("stays still", "does not move", "rests", "stands still"),
}


_RARE_NAMES = re.compile(rf"\b(?:{'|'.join(name for names in RARE_WORDS.values() for name in names)})\b")


def video_captions(scene: Scene) -> list[str]:
    """Return `WORDINGS` different sentences, each of which states all of `scene.key`.

    They differ in words, order and form, and in whether they mention size and texture as well.

    >>> from benchmarks.clips.scenes import sample_scene
    >>> print(video_captions(sample_scene("train-00000"))[0])  # doctest: +SKIP
    """
    rng = random.Random(f"sentences of {scene.name}")
    sentences: list[str] = []
    while len(sentences) < WORDINGS:
        sentence = _sentence(scene, rng)
        if sentence not in sentences:
            sentences.append(sentence)
    return sentences


def frame_caption(scene: Scene, seconds: float, rng: random.Random) -> str:
    """Return a short caption of the frame at that moment: the things in view and, mostly, where they are.

    The choice of words, and of what goes unsaid, is drawn from `rng`.
    """
    seen = [place for place in placements(scene, seconds) if place.visible]
    ground = rng.choice(BACKGROUND_WORDS[scene.background])
    if not seen:
        return rng.choice(("nothing but {}", "empty {}", "{}")).format(ground)
    rng.shuffle(seen)
    listing = ", ".join(_look(place, rng) for place in seen[:-1])
    last = _look(seen[-1], rng)
    things = f"{listing} {rng.choice(('and', 'with', 'next to'))} {last}" if listing else last
    form = rng.choice(("{} on {}", "{} over {}", "{} in front of {}", "a picture of {} on {}", "{}, {} behind"))
    return form.format(things, ground)


def rare_names(text: str) -> int:
    """Count the names in a video sentence that frame captions never use (`RARE_WORDS`).

    >>> rare_names("a crimson star crosses to the left in front of the heavens")
    2
    """
    return len(_RARE_NAMES.findall(text))


def words(text: str) -> list[str]:
    """Return the words of a caption, in order."""
    return re.findall(r"[a-z]+", text)


def _sentence(scene: Scene, rng: random.Random) -> str:
    things = list(scene.things)
    rng.shuffle(things)
    detail = rng.random()  # how much this wording says about looks
    clauses = [_clause(thing, scene.things[0], detail, rng) for thing in things]
    joint = rng.choice((" while ", " and ", " as ", ", and "))
    happening = joint.join([", ".join(clauses[:-1]), clauses[-1]] if len(clauses) > 1 else clauses)
    ground = _name(scene.background, BACKGROUND_WORDS[scene.background], rng)
    form = rng.choice(
        (
            "{happening} in front of {ground}",
            "over {ground} {happening}",
            "a video in which {happening}, the background is {ground}",
            "the scene shows {ground}, then {happening}",
            "with {ground} behind it all, {happening}",
            "first we see {ground}. {happening} until the end",
            "during this clip {happening} against {ground}",
            "{happening}. it all happens over {ground}",
        )
    )
    return form.format(happening=happening, ground=ground)


def _clause(thing: Thing, leader: Thing, detail: float, rng: random.Random) -> str:
    towards = thing.direction if thing.motion != "chase" else f"the {_subject(leader, rng)}"
    doing = rng.choice(MOTION_WORDS[thing.motion]).format(d=towards)
    size = rng.choice(SIZE_WORDS[thing.size]) if rng.random() < detail else ""
    texture = rng.choice(TEXTURE_WORDS[thing.texture]) if rng.random() < detail else ""
    return f"{_noun_phrase(size, texture, _subject(thing, rng))} {doing}"


def _subject(thing: Thing, rng: random.Random) -> str:
    return f"{_name(thing.color, (thing.color,), rng)} {_name(thing.shape, SHAPE_WORDS[thing.shape], rng)}"


def _name(meant: str, common: tuple[str, ...], rng: random.Random) -> str:
    return rng.choice(RARE_WORDS[meant] if rng.random() < RARE else common)


def _look(place: Placement, rng: random.Random) -> str:
    size = rng.choice(SIZE_WORDS[_size_seen(place.diameter)]) if rng.random() < 0.5 else ""
    texture = rng.choice(TEXTURE_WORDS[place.thing.texture]) if rng.random() < 0.5 else ""
    phrase = _noun_phrase(size, texture, place.thing.color, rng.choice(SHAPE_WORDS[place.thing.shape]))
    return f"{phrase} {_whereabouts(place)}" if rng.random() < 0.6 else phrase


def _noun_phrase(*parts: str) -> str:
    phrase = " ".join(part for part in parts if part)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _size_seen(diameter: float) -> str:
    return min(SIZES, key=lambda size: abs(math.log(SIZES[size] / diameter)))


def _whereabouts(place: Placement) -> str:
    row = "top" if place.y < 0.36 else "bottom" if place.y > 0.64 else ""
    column = "left" if place.x < 0.36 else "right" if place.x > 0.64 else ""
    if row and column:
        return f"at the {row} {column}"
    if row or column:
        return f"at the {row}" if row else f"on the {column}"
    return "in the middle"
