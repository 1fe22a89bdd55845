"""Generated scenes: one to three simple things that move over a background for a few seconds.

A `Scene` is plain data; `render(scene, seconds)` is a pure function of it, and `scenes(split)` is a pure function
of the split's name. Nothing here is downloaded, and the same version gives the same pixels everywhere.

Whole combinations of shape, color and motion (`held_out`, one in seven) occur in no training or validation
scene; every test scene has at least one of them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "MOTIONS",
    "SHAPES",
    "SIZES",
    "SPLIT_SIZES",
    "TEXTURES",
    "Pixels",
    "Placement",
    "Scene",
    "Thing",
    "held_out",
    "placements",
    "render",
    "sample_scene",
    "scenes",
]

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]

COLORS: dict[str, Color] = {
    "red": (220, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 225, 40),
    "green": (30, 150, 60),
    "blue": (30, 80, 220),
    "purple": (130, 50, 180),
    "pink": (250, 140, 190),
    "brown": (125, 75, 35),
    "white": (250, 250, 250),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond", "crescent", "hexagon")
TEXTURES = ("plain", "striped", "dotted", "checkered")
SIZES = {"small": 0.26, "medium": 0.38, "large": 0.54}  # diameter over the frame's shorter side
MOTIONS: dict[str, tuple[str, ...]] = {  # the directions that each can take
    "enter": ("left", "right", "top", "bottom"),
    "leave": ("left", "right", "top", "bottom"),
    "cross": ("left", "right"),
    "rise": ("top",),
    "fall": ("bottom",),
    "circle": ("clockwise", "counterclockwise"),
    "grow": ("",),
    "shrink": ("",),
    "bounce": ("",),
    "chase": ("",),
    "rest": ("",),
}
BACKGROUNDS = ("sky", "sunset", "night", "meadow", "sand", "snow", "bricks", "water", "wood", "paper")
RESOLUTIONS = ((160, 120), (192, 144), (224, 126), (256, 144), (144, 192), (320, 180), (180, 320), (160, 160))
FRAME_RATES = (10, 12, 15, 20, 24, 25)
SPLIT_SIZES = {"train": 2800, "val": 150, "test": 300}

SPRITE_SIDE = 128
OUTSIDE = 0.3  # how far beyond the edge, in frame widths, a thing of any size is out of sight
PERIOD = 0.25  # a chaser is this part of the clip behind the thing it chases


@dataclass(frozen=True)
class Thing:
    """Moving object.

    Attributes:
        direction: where it comes from ("enter"), goes to ("leave", "cross") or how it turns ("circle"); one of
            `MOTIONS[motion]`.
        x, y: where it rests, or the lane it moves in, as fractions of the frame.
        begin, end: the part of the clip during which it moves, as fractions of its duration.
    """

    shape: str
    color: str
    texture: str
    size: str
    motion: str
    direction: str
    x: float
    y: float
    begin: float
    end: float


@dataclass(frozen=True)
class Scene:
    """Clip before it is drawn. The first of `things` is the one that a chaser chases."""

    name: str
    width: int
    height: int
    fps: int
    frames: int
    background: str
    things: tuple[Thing, ...]

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.frames / self.fps

    @property
    def key(self) -> tuple[str, frozenset[tuple[str, str, str]]]:
        """Facts that every caption of the scene states: the background, each thing's color, shape and motion."""
        return self.background, frozenset((t.color, t.shape, t.motion) for t in self.things)


@dataclass(frozen=True)
class Placement:
    """Place of a thing at one moment: center (fractions of the frame) and diameter (of the shorter side)."""

    thing: Thing
    x: float
    y: float
    diameter: float

    @property
    def visible(self) -> bool:
        """True where the center of the thing lies in the frame."""
        return 0.0 <= self.x <= 1.0 and 0.0 <= self.y <= 1.0


def held_out(color: str, shape: str, motion: str) -> bool:
    """Return whether a combination belongs to the test split alone: one in seven, spread evenly over all three.

    >>> held_out("red", "circle", "enter"), held_out("red", "circle", "leave")
    (True, False)
    """
    code = list(COLORS).index(color) + 3 * SHAPES.index(shape) + 2 * list(MOTIONS).index(motion)
    return code % 7 == 0


def sample_scene(name: str) -> Scene:
    """Return the scene of a name, regardless of the combinations of its split."""
    rng = random.Random(name)
    count = rng.choices((1, 2, 3), weights=(3, 4, 3))[0]
    looks = rng.sample([(color, shape) for color in COLORS for shape in SHAPES], count)
    homes = rng.sample([(x, y) for x in (0.22, 0.5, 0.78) for y in (0.28, 0.72)], count)
    things: list[Thing] = []
    for (color, shape), (x, y) in zip(looks, homes, strict=True):
        motions = [motion for motion in MOTIONS if motion != "chase"]
        if things and things[0].motion in ("cross", "circle") and things[-1].motion != "chase":
            motions += ["chase"] * 8  # few scenes allow it
        motion = rng.choice(motions)
        things.append(
            Thing(
                shape=shape,
                color=color,
                texture=rng.choice(TEXTURES),
                size=rng.choice(list(SIZES)),
                motion=motion,
                direction=rng.choice(MOTIONS[motion]),
                x=x + rng.uniform(-0.06, 0.06),
                y=y + rng.uniform(-0.06, 0.06),
                begin=rng.uniform(0.0, 0.2),
                end=rng.uniform(0.7, 1.0),
            )
        )
    width, height = rng.choice(RESOLUTIONS)
    fps = rng.choice(FRAME_RATES)
    frames = round(fps * rng.uniform(2.0, 6.0))
    return Scene(name, width, height, fps, frames, rng.choice(BACKGROUNDS), tuple(things))


def scenes(split: str) -> list[Scene]:
    """Return all scenes of "train", "val" or "test".

    The facts of no scene of the test split include all those of another: a sentence about the other would be true
    of both, and their ranks arbitrary.

    Raises:
        KeyError: for any other split.
    """
    size = SPLIT_SIZES[split]
    chosen: list[Scene] = []
    for scene in _candidates(split):
        unseen = [held_out(t.color, t.shape, t.motion) for t in scene.things]
        if any(unseen) != (split == "test"):
            continue
        if split == "test" and any(_tells_no_more(scene, other) for other in chosen):
            continue
        chosen.append(scene)
        if len(chosen) == size:
            break
    return chosen


def _candidates(split: str) -> Iterator[Scene]:
    index = 0
    while True:
        yield sample_scene(f"{split}-{index:05d}")
        index += 1


def _tells_no_more(a: Scene, b: Scene) -> bool:
    (ground_a, things_a), (ground_b, things_b) = a.key, b.key
    return ground_a == ground_b and (things_a <= things_b or things_b <= things_a)


def placements(scene: Scene, seconds: float) -> list[Placement]:
    """Return the place of each thing, in drawing order, `seconds` after the start."""
    moment = seconds / scene.seconds
    return [_place(thing, scene.things[0], moment) for thing in scene.things]


def _place(thing: Thing, leader: Thing, moment: float) -> Placement:
    """Return the place of a thing at a moment, 0 at the start of the clip and 1 at its end."""
    x, y, diameter = thing.x, thing.y, SIZES[thing.size]
    progress = min(max((moment - thing.begin) / (thing.end - thing.begin), 0.0), 1.0)
    if thing.motion == "chase":
        led = _place(leader, leader, moment - PERIOD)
        x, y = led.x, led.y
    elif thing.motion == "enter":
        x, y = _towards_edge(x, y, thing.direction, 1.0 - progress)
    elif thing.motion == "leave":
        x, y = _towards_edge(x, y, thing.direction, progress)
    elif thing.motion == "cross":
        progress = min(max(moment / (1.0 - PERIOD), -1.0), 2.0)  # leaves a chaser the time to cross as well
        across = progress if thing.direction == "right" else 1.0 - progress
        x = -OUTSIDE + (1.0 + 2 * OUTSIDE) * across
    elif thing.motion == "rise":
        y = 0.85 - 0.7 * progress
    elif thing.motion == "fall":
        y = 0.15 + 0.7 * progress**2
    elif thing.motion == "circle":
        turn = math.tau * 1.25 * moment * (1 if thing.direction == "clockwise" else -1)  # y points down
        x, y = 0.5 + 0.3 * math.cos(turn), 0.5 + 0.3 * math.sin(turn)
    elif thing.motion == "grow":
        diameter *= 0.4 + 0.9 * progress
    elif thing.motion == "shrink":
        diameter *= 1.3 - 0.9 * progress
    elif thing.motion == "bounce":
        y = 0.82 - 0.6 * abs(math.sin(3 * math.pi * moment))
    return Placement(thing, x, y, diameter)


def _towards_edge(x: float, y: float, edge: str, part: float) -> tuple[float, float]:
    goal_x, goal_y = {
        "left": (-OUTSIDE, y),
        "right": (1 + OUTSIDE, y),
        "top": (x, -OUTSIDE),
        "bottom": (x, 1 + OUTSIDE),
    }[edge]
    return x + (goal_x - x) * part, y + (goal_y - y) * part


def render(scene: Scene, seconds: float) -> Pixels:
    """Draw the frame `seconds` after the start: (height, width, 3) uint8, RGB."""
    canvas = _background(scene.background, scene.width, scene.height).copy()
    for place in placements(scene, seconds):
        side = max(round(place.diameter * min(scene.width, scene.height)), 2)
        left = round(place.x * scene.width - side / 2)
        top = round(place.y * scene.height - side / 2)
        thing = place.thing
        sprite = _sprite(thing.shape, thing.color, thing.texture, side)
        canvas.paste(sprite, (left, top), sprite)
    return np.asarray(canvas)


@lru_cache(maxsize=1024)
def _sprite(shape: str, color: str, texture: str, side: int) -> Image.Image:
    """Draw an RGBA picture of a thing, `side` pixels square, with a thin dark outline to show anywhere."""
    mask = Image.new("L", (SPRITE_SIDE, SPRITE_SIDE), 0)
    _draw_shape(ImageDraw.Draw(mask), shape, margin=2)
    inner = Image.new("L", (SPRITE_SIDE, SPRITE_SIDE), 0)
    _draw_shape(ImageDraw.Draw(inner), shape, margin=8)
    surface = Image.fromarray(_surface(color, texture))
    sprite = Image.new("RGBA", mask.size, (90, 90, 90, 255) if color == "black" else (20, 20, 20, 255))
    sprite.paste(surface, (0, 0), inner)
    sprite.putalpha(mask)
    return sprite.resize((side, side), Image.Resampling.BOX if side < SPRITE_SIDE else Image.Resampling.BICUBIC)


def _surface(color: str, texture: str) -> Pixels:
    """Draw a thing's own color, with a second tone of it as the pattern."""
    base = np.array(COLORS[color], dtype=np.float64)
    other = 255.0 if base.mean() < 150 else 0.0
    tone = base + (other - base) * 0.7
    row, column = np.mgrid[0:SPRITE_SIDE, 0:SPRITE_SIDE]
    patterns: dict[str, Callable[[], NDArray[np.bool_]]] = {
        "plain": lambda: np.zeros_like(row, dtype=bool),
        "striped": lambda: (row + column) % 36 < 15,
        "dotted": lambda: (row % 32 - 16) ** 2 + (column % 32 - 16) ** 2 < 90,
        "checkered": lambda: (row // 21 + column // 21) % 2 == 0,
    }
    return np.where(patterns[texture]()[..., None], tone, base).astype(np.uint8)


def _draw_shape(draw: ImageDraw.ImageDraw, shape: str, margin: int) -> None:
    """Fill the shape with 255, inset by `margin` pixels from the sprite's border."""
    middle, radius = SPRITE_SIDE / 2, SPRITE_SIDE / 2 - margin

    def polygon(points: list[tuple[float, float]]) -> None:
        draw.polygon([(middle + radius * x, middle + radius * y) for x, y in points], fill=255)

    def disc(x: float, y: float, r: float, fill: int = 255) -> None:
        cx, cy, rr = middle + radius * x, middle + radius * y, radius * r
        draw.ellipse((cx - rr, cy - rr, cx + rr, cy + rr), fill=fill)

    def around(corners: int, radii: tuple[float, ...]) -> list[tuple[float, float]]:
        turns = [math.tau * i / corners for i in range(corners)]
        return [
            (radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a))
            for i, a in enumerate(turns)
        ]

    if shape == "circle":
        disc(0, 0, 0.95)
    elif shape == "square":
        polygon([(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)])
    elif shape == "triangle":
        polygon([(0, -0.95), (0.98, 0.85), (-0.98, 0.85)])
    elif shape == "star":
        polygon(around(10, (1.0, 0.42)))
    elif shape == "heart":
        disc(-0.46, -0.35, 0.5)
        disc(0.46, -0.35, 0.5)
        polygon([(-0.9, -0.12), (0, -0.5), (0.9, -0.12), (0, 0.95)])
    elif shape == "ring":
        disc(0, 0, 0.98)
        disc(0, 0, 0.5 + margin / 100, fill=0)
    elif shape == "cross":
        polygon([(-0.32, -0.95), (0.32, -0.95), (0.32, 0.95), (-0.32, 0.95)])
        polygon([(-0.95, -0.32), (0.95, -0.32), (0.95, 0.32), (-0.95, 0.32)])
    elif shape == "diamond":
        polygon([(0, -1), (0.68, 0), (0, 1), (-0.68, 0)])
    elif shape == "crescent":
        disc(0, 0, 0.98)
        disc(0.45, -0.15, 0.72 + margin / 100, fill=0)
    else:
        polygon(around(6, (0.98,)))


@lru_cache(maxsize=len(BACKGROUNDS) * len(RESOLUTIONS))
def _background(name: str, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(BACKGROUNDS.index(name))
    row, column = np.mgrid[0:height, 0:width].astype(np.float64)
    down, unit = row / height, min(width, height)
    noise = rng.normal(size=(height, width))

    def blend(top: Color, bottom: Color, part: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(top) + (np.array(bottom, dtype=np.float64) - np.array(top)) * part[..., None]

    if name == "sky":
        picture = blend((120, 180, 240), (215, 235, 250), down)
    elif name == "sunset":
        picture = blend((110, 70, 130), (250, 170, 110), down)
    elif name == "night":
        picture = blend((12, 16, 48), (40, 46, 90), down)
        picture[noise > 2.6] = (240, 240, 210)
    elif name == "meadow":
        picture = blend((130, 190, 90), (95, 160, 70), (noise > 0.5).astype(np.float64))
    elif name == "sand":
        ripples = 0.5 + 0.5 * np.sin(40 * (down + 0.02 * np.sin(column / 9)))
        picture = blend((232, 208, 158), (214, 184, 130), ripples)
    elif name == "snow":
        picture = blend((238, 242, 248), (205, 218, 235), (noise > 1.3).astype(np.float64))
    elif name == "bricks":
        tall, wide = unit / 10, unit / 5
        layer = np.floor(row / tall)
        mortar = (row % tall < 1.5) | ((column + layer % 2 * wide / 2) % wide < 1.5)
        picture = blend((172, 96, 80), (205, 196, 186), mortar.astype(np.float64))
    elif name == "water":
        waves = 0.5 + 0.5 * np.sin(row / unit * 50 + 2 * np.sin(column / unit * 14))
        picture = blend((40, 130, 165), (110, 190, 205), waves)
    elif name == "wood":
        grain = 0.5 + 0.5 * np.sin(column / unit * 60 + 3 * np.sin(row / unit * 5))
        picture = blend((168, 122, 76), (196, 152, 104), grain)
        picture[(column % (unit / 3)) < 1.5] = (110, 76, 46)
    else:
        picture = blend((196, 196, 196), (180, 180, 180), (noise > 1.0).astype(np.float64))
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
