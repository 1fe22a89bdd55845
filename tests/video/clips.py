"""Video clips whose every frame says which one it is and which side is up."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

OPEN_GOP = "open-gop=1:keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"


def picture(number: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Draw a (height, width, 3) uint8 frame: the number's eight bits in bars, over a red and a blue field."""
    frame = np.zeros((height, width, 3), np.uint8)
    for bit in range(8):
        if number >> (7 - bit) & 1:
            frame[: height // 2, bit * width // 8 : (bit + 1) * width // 8] = 255
    frame[height // 2 :, : width // 2] = (255, 0, 0)
    frame[height // 2 :, width // 2 :] = (0, 0, 255)
    return frame


def number_of(frame: np.ndarray) -> int:
    """Read the number of a picture that stands upright; -1 of one that does not."""
    height, width = frame.shape[:2]
    left, right = (
        frame[height * 3 // 4, width // 4].astype(int),
        frame[height * 3 // 4, width * 3 // 4].astype(int),
    )
    if not (left[0] - left[2] > 100 and right[2] - right[0] > 100):
        return -1
    bars = [frame[height // 4, int((bit + 0.5) * width / 8)].mean() > 127 for bit in range(8)]
    return int("".join("1" if bar else "0" for bar in bars), 2)


def write_clip(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    rate: int = 25,
    pix_fmt: str = "yuv420p",
    milliseconds: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    audio_seconds: float = 0.0,
    cover: bool = False,
) -> Path:
    """Encode frames, `rate` a second or at the given times, with a tone of some seconds beside them."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        if frames:
            stream = container.add_stream(codec, rate=rate, options=options or {})
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = pix_fmt
            unit = Fraction(1, rate) if milliseconds is None else Fraction(1, 1000)
            stream.time_base = stream.codec_context.time_base = unit
            if cover:
                stream.disposition = av.stream.Disposition.attached_pic.value
        if audio_seconds:
            tone = container.add_stream("aac", rate=16000, layout="mono")
            for block in range(int(audio_seconds * 16000 / 1024)):
                wave = np.sin(np.arange(block * 1024, block * 1024 + 1024) / 10, dtype=np.float32)[None]
                sound = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
                sound.sample_rate, sound.pts = 16000, block * 1024
                container.mux(tone.encode(sound))
            container.mux(tone.encode())
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number if milliseconds is None else milliseconds[number]
            frame.time_base = unit
            container.mux(stream.encode(frame))
        if frames:
            container.mux(stream.encode())
    return path


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Turn an mp4: show it with the pixel at (x, y) moved to (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd") + 4
    matrix = header + (52 if content[header] == 1 else 40)
    one = 1 << 16
    struct.pack_into(">9i", content, matrix, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def trim(path: Path, first: int, seconds: float) -> Path:
    """Trim an mp4 of 25 frames a second to `seconds` from a frame on, as phones do: by its edit list alone."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 12
    _, media_start = struct.unpack_from(">Ii", content, entry)
    ticks = 12800 // 25  # libavformat's time base for 25 frames a second
    struct.pack_into(">Ii", content, entry, round(seconds * 1000), media_start + first * ticks)
    path.write_bytes(content)
    return path


def cut(path: Path, share: float, name: str) -> Path:
    """Copy the first part of a file."""
    content = path.read_bytes()
    target = path.with_name(name)
    target.write_bytes(content[: int(len(content) * share)])
    return target


def read_all(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Decode a whole video in order, the slow and obvious way: frames, seconds from the first one."""
    with av.open(str(path)) as container:
        decoded: list[Any] = list(container.decode(video=0))
    times = np.array([frame.time for frame in decoded])
    return [frame.to_ndarray(format="rgb24") for frame in decoded], times - times[0]
