from __future__ import annotations

import os
from fractions import Fraction

import av
import numpy as np
import pytest
from av.subtitles.subtitle import SubtitleSet

_HEADER = (
    b"[Script Info]\r\nScriptType: v4.00+\r\n\r\n[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize\r\n"
    b"Style: Default,Arial,16\r\n\r\n[Events]\r\n"
    b"Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\r\n"
)


def write_titled_clip(path, *, seconds=4, metadata=(), chapters=(), subtitles=(), language="eng"):
    """Write a gray clip with tags, chapters (start, end, title) and subtitles (start, end, text)."""
    with av.open(str(path), "w") as container:
        container.metadata.update(dict(metadata))
        container.set_chapters(
            [
                {
                    "id": n,
                    "start": int(start * 1000),
                    "end": int(end * 1000),
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": title},
                }
                for n, (start, end, title) in enumerate(chapters)
            ]
        )
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        if subtitles:
            texts = container.add_stream("mov_text" if path.suffix == ".mp4" else "srt")
            texts.metadata["language"] = language
            texts.codec_context.subtitle_header = _HEADER
            texts.codec_context.time_base = texts.time_base = Fraction(1, 1000)
            for start, end, text in subtitles:
                event = SubtitleSet.create(f"0,0,Default,,0,0,0,,{text}".encode(), 0, int((end - start) * 1000))
                packet = texts.codec_context.encode_subtitle(event)
                packet.stream, packet.time_base = texts, Fraction(1, 1000)
                packet.pts = packet.dts = int(start * 1000)
                packet.duration = int((end - start) * 1000)
                container.mux(packet)
        for n in range(2 * seconds):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), n, np.uint8))))
        container.mux(stream.encode(None))


@pytest.fixture(scope="session")
def clips_of(tmp_path_factory):
    """A clip of 60 s and one of 4 s, without any text."""
    folder = tmp_path_factory.mktemp("clips")
    for seconds in (60, 4):
        write_titled_clip(folder / f"{seconds}.mp4", seconds=seconds)
    return folder


@pytest.fixture
def place(clips_of, tmp_path):
    """Put a clip without texts at a place below the test's folder, and files beside it."""

    def place(name, seconds=60, **beside):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(clips_of / f"{seconds}.mp4", path)
        for suffix, content in beside.items():
            file = path.with_suffix("." + suffix.replace("_", "."))
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return place


def srt(*cues):
    """SubRip of (start, end, text)."""

    def clock(seconds):
        return f"{int(seconds) // 3600:02}:{int(seconds) // 60 % 60:02}:{seconds % 60:06.3f}".replace(".", ",")

    return "\n".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n" for n, (a, b, text) in enumerate(cues, 1))
