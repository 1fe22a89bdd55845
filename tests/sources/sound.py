"""Video clips with sound of choice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000


def noise(seconds: float, loudness: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, round(seconds * RATE)).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


def write_spoken(
    path: Path, sound: np.ndarray | None, seconds: float, *, begins: float = 0.0, pictures_begin: float = 0.0
) -> Path:
    """Write a clip of `seconds` with PCM sound; both tracks may begin later than the clock of the file."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        if sound is not None:
            audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
            block = RATE // 10
            for start in range(0, len(sound), block):
                samples = np.clip(sound[start : start + block] * 32767, -32768, 32767).astype(np.int16)[None]
                part = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                part.sample_rate, part.time_base = RATE, Fraction(1, RATE)
                part.pts = start + round(begins * RATE)
                container.mux(audio.encode(part))
            container.mux(audio.encode(None))
        for number in range(round(seconds * 10)):
            pixels = np.full((64, 64, 3), number * 20 % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number + round(pictures_begin * 10), Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path
