"""Files of every hostile kind, made from generated clips, and how each has to end."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import av

from tests.video.clips import cut, picture, write_clip

PICTURES = [picture(number) for number in range(100)]


def patched(source: Path, target: Path, old: bytes, new: bytes) -> Path:
    """Copy a file with some bytes replaced."""
    content = source.read_bytes()
    assert old in content
    target.write_bytes(content.replace(old, new))
    return target


def set_lengths(path: Path, *runs: tuple[int, int]) -> None:
    """Rewrite the index at the end of an mp4 to list runs of (frames, milliseconds each)."""
    content = bytearray(path.read_bytes())
    table = content.index(b"stts") + 8
    (old,) = struct.unpack_from(">I", content, table)
    content[table : table + 4 + 8 * old] = struct.pack(f">{1 + 2 * len(runs)}I", len(runs), *sum(runs, ()))
    for box in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts"):
        place = content.index(box) - 4
        struct.pack_into(">I", content, place, struct.unpack_from(">I", content, place)[0] + 8 * (len(runs) - old))
    path.write_bytes(content)


def add_stream_midway(path: Path) -> None:
    """Give the last frame of a transport stream's video to a stream that was not there before."""
    content = bytearray(path.read_bytes())
    starts = [place for place in range(0, len(content), 188) if content[place + 1 : place + 3] == b"\x41\0"]
    content[starts[-1] + 2] = 1
    path.write_bytes(content)


def shift_clock(path: Path, seconds: float) -> None:
    """Move the clock of a transport stream, in which it wraps after 2**33 ticks of 90 kHz."""
    content, shift = bytearray(path.read_bytes()), round(seconds * 90000)
    for packet in range(0, len(content), 188):
        place, kind = packet + 4, content[packet + 3] >> 4 & 3
        if kind & 2:  # an adaptation field, which may hold the clock itself
            if content[place] and content[place + 1] & 0x10:
                clock = int.from_bytes(content[place + 2 : place + 8], "big")
                clock = ((clock >> 15) + shift) % (1 << 33) << 15 | clock & 0x7FFF
                content[place + 2 : place + 8] = clock.to_bytes(6, "big")
            place += 1 + content[place]
        if kind & 1 and content[place : place + 4] == b"\0\0\1\xe0":  # the start of a frame, with its times
            for at in range(place + 9, place + 9 + content[place + 8], 5):
                bits = int.from_bytes(content[at : at + 5], "big")
                ticks = (bits >> 33 & 7) << 30 | (bits >> 17 & 0x7FFF) << 15 | bits >> 1 & 0x7FFF
                ticks = (ticks + shift) % (1 << 33)
                marks = bits & ~(7 << 33 | 0x7FFF << 17 | 0x7FFF << 1)
                bits = marks | (ticks >> 30) << 33 | (ticks >> 15 & 0x7FFF) << 17 | (ticks & 0x7FFF) << 1
                content[at : at + 5] = bits.to_bytes(5, "big")
    path.write_bytes(content)


def end_in_null_chunks(path: Path) -> None:
    """Empty the last 40 of the 100 frames of an AVI, as a recorder does that drops frames."""
    content = path.read_bytes()
    start, index = content.index(b"movi") + 4, content.rindex(b"idx1")
    place, null = start, b"00dc" + bytes(4)
    for _ in range(60):
        size = struct.unpack_from("<I", content, place + 4)[0]
        place += 8 + size + size % 2
    movi = b"movi" + content[start:place] + 40 * null
    entries = content[index + 8 : index + 8 + 60 * 16]
    entries += b"".join(b"00dc" + struct.pack("<III", 0, place + 8 * n - start + 4, 0) for n in range(40))
    riff = content[8 : start - 12] + b"LIST" + struct.pack("<I", len(movi)) + movi
    riff += b"idx1" + struct.pack("<I", len(entries)) + entries
    path.write_bytes(b"RIFF" + struct.pack("<I", len(riff)) + riff)


def claim_frames(path: Path, number: int) -> None:
    """Change the number of frames that an mp4 of one frame claims."""
    content = bytearray(path.read_bytes())
    struct.pack_into(">II", content, content.index(b"stts") + 12, number, 1)
    struct.pack_into(">II", content, content.index(b"stsz") + 8, 1, number)
    path.write_bytes(content)


def write_motion_photo(path: Path, cover: bool = False) -> Path:
    """Write an mp4 whose first track is a large still, declared a cover or not, and whose second is the video."""
    with av.open(str(path), "w") as container:
        tracks = []
        for frames, codec, pixels in ((1, "mjpeg", "yuvj420p"), (50, "mpeg4", "yuv420p")):
            stream = container.add_stream(codec, rate=25)
            scale = 4 if frames == 1 else 1
            stream.height, stream.width, stream.pix_fmt = 64 * scale, 96 * scale, pixels
            if cover and frames == 1:
                stream.disposition = av.stream.Disposition.attached_pic.value
            tracks.append((stream, [picture(n, 64 * scale, 96 * scale) for n in range(frames)]))
        for stream, pictures in tracks:
            for number, pixels in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    return path


def write_equal_times(path: Path) -> Path:
    """Write 20 frames, all of which are to be shown at once."""
    write_clip(path, PICTURES[:20], "mpeg4", options={"g": "99"})
    content = path.read_bytes()
    for number in range(1, 20):
        block, same = (struct.pack(">Bh", 0x81, ms) + b"\0\0\0\1\xb6" for ms in (40 * number, 0))
        assert content.count(block) == 1
        content = content.replace(block, same)
    path.write_bytes(content)
    return path


def write_joined(path: Path, codec: str, options: dict[str, str]) -> Path:
    """Write two recordings one behind the other, as `cat` joins them."""
    content = b""
    for start in (0, 50):
        content += write_clip(path, PICTURES[start : start + 50], codec, options=options).read_bytes()
    path.write_bytes(content)
    return path


def _write(path: Path, change: Callable[[Path], object], *clip: object, **options: object) -> None:
    change(write_clip(path, *clip, **options))  # type: ignore[arg-type]


def _late_and_cut(path: Path) -> None:
    write_clip(path, PICTURES, "mpeg4", milliseconds=[60_000 + 40 * n for n in range(100)])
    cut(path, 0.5, path.name)


def _wrap(path: Path) -> None:
    write_clip(path, PICTURES, options={"g": "24"})
    with av.open(str(path)) as container:
        first = container.start_time / av.time_base
    shift_clock(path, (1 << 33) / 90000 - first - 2.0)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("picture.jpg", b"x" * 1000)


def _break_decoding(path: Path) -> None:
    content = bytearray(path.read_bytes())
    header = content.index(b"avcC") + 8
    content[header : header + 32] = b"\xff" * 32
    path.write_bytes(content)


_KEY = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "00" * 16, "encryption_kid": "11" * 16}
_JPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
_MPEG2 = {"g": "12", "bf": "2"}

REFUSED: dict[str, tuple[str, Callable[[Path], object]]] = {
    "unknown.avi": (
        "codec that is not known",
        lambda path: _write(path, lambda clip: patched(clip, clip, b"FMP4", b"QQQQ"), PICTURES, "mpeg4"),
    ),
    "midway.ts": ("gains a stream on its way", lambda path: _write(path, add_stream_midway, PICTURES)),
    "undecodable.mp4": ("cannot be decoded", lambda path: _write(path, _break_decoding, PICTURES)),
    "many.mp4": (
        "claims 5,000,000 frames",
        lambda path: _write(path, lambda clip: claim_frames(clip, 5_000_000), PICTURES[:1]),
    ),
    "large.mp4": ("pixels, more than the 10,000", lambda path: write_clip(path, [picture(1, 96, 128)])),
    "promised.mkv": (
        "is truncated: 26000000000.00 s",
        lambda path: _write(
            path,
            lambda clip: patched(clip, clip, struct.pack(">d", 400.0), struct.pack(">d", 2.6e13)),
            PICTURES[:10],
            "mpeg4",
        ),
    ),
    "late.mkv": ("is truncated: 4.00 s", _late_and_cut),
    "cover.mp4": (
        "holds no video stream",
        lambda path: write_clip(path, PICTURES[:1], **_JPEG, audio_seconds=1.0, cover=True),
    ),
    "raw.mp4": ("is a raw h264 stream", lambda path: write_clip(path.with_suffix(".h264"), PICTURES).rename(path)),
    "secret.mp4": ("is encrypted", lambda path: write_clip(path, PICTURES, container_options=_KEY)),
    "archive.mp4": ("is a zip archive", _zip),
    "empty.mp4": ("is empty", lambda path: path.touch()),
}
"""Files from which nothing can be had: words of the reason, and the generator."""

MENDED: dict[str, tuple[int, Callable[[Path], object]]] = {
    "last.mp4": (
        1,
        lambda path: _write(
            path,
            lambda clip: set_lengths(clip, (11, 40 * 16), (1, 2_080_000_000)),
            PICTURES[:12],
            **_JPEG,
            milliseconds=[40 * n for n in range(12)],
        ),
    ),
    "lone.mp4": (
        1,
        lambda path: _write(
            path, lambda clip: set_lengths(clip, (1, 2_147_483_000)), PICTURES[:1], **_JPEG, milliseconds=[0]
        ),
    ),
    "centuries.mkv": (
        11,
        lambda path: write_clip(
            path, PICTURES[:11], **_JPEG, milliseconds=[2_600_000_000_000 * n for n in range(11)]
        ),
    ),
    "joined.ts": (1, lambda path: write_joined(path, "libx264", {"g": "12"})),
    "joined.mpg": (1, lambda path: write_joined(path, "mpeg2video", _MPEG2)),
    "joined.vob": (1, lambda path: write_joined(path, "mpeg2video", _MPEG2)),
    "equal.mkv": (1, write_equal_times),
    "jump.mkv": (
        2,
        lambda path: write_clip(
            path, PICTURES, milliseconds=[40 * n + (36_000_000 if n >= 50 else 0) for n in range(100)]
        ),
    ),
    "wrapped.ts": (1, _wrap),
    "dropped.avi": (1, lambda path: _write(path, end_in_null_chunks, PICTURES, "mpeg4", options={"g": "24"})),
    "motion.mp4": (1, write_motion_photo),
    "covered.mp4": (1, lambda path: write_motion_photo(path, cover=True)),
}
"""Files whose clock or streams have to be mended: their segments of ten seconds, and the generator."""
