"""Worth of pairs from each source: `python -m benchmarks.pair_sources`.

Films of ten generated scenes each get texts of every kind in files beside them; `find_pairs` finds them, `embed`
embeds the spans, and the gentle linear adapter learns from each source alone. All are measured on the demo's test
clips with their true sentences: other scenes, of other combinations of color, shape and motion.

The films are generated, and so are their texts; what is simulated:

- human: two sentences a scene with its exact span, as a person would write them;
- subtitles: a narrator says a sentence a scene, up to 1.5 s early or late, as often something that is not to be
  seen, and describes another scene of the film in every sixth sentence;
- titles: a chapter a scene named after one of its things, and a title of the film that names one of its scenes;
- captions: three a scene, of single frames, in the words of frame captions (`benchmarks.clips.captions`), which no
  model wrote; every tenth is of another scene;
- queries alone: the sentences of the first row without their videos, as a query log has them, in a query bank.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips.captions import frame_caption, video_captions
from benchmarks.clips.scenes import Scene, render, scenes
from benchmarks.clips.train_adapters import embed_split
from dits_adapter import (
    Pairs,
    PairsFile,
    RetrievalMetrics,
    VideoEncoder,
    VideoTexts,
    bootstrap,
    embed,
    find_pairs,
    fit_query_bank,
    load_pairs,
    paired_bootstrap,
    ranks,
)
from dits_adapter._files import write_atomically
from dits_adapter._progress import progress_bar
from dits_adapter.adapters import Adapter, gentle_linear
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table, signed
from dits_adapter.evaluation.metrics import DotProducts

SCENES_A_FILM, RATE, SIZE = 10, 10, (160, 120)
OUT = Path("results/benchmarks/pair-sources")
CHATTER = (
    "Okay, that was that one, and on we go.",
    "Let me know in the comments what you think.",
    "I have been doing this for many years now.",
    "Wait for it, it is going to be good.",
    "We will come back to this in a minute.",
    "Thank you all for watching until here.",
)


class Part(NamedTuple):
    """Scene of a film, and its span in seconds."""

    scene: Scene
    start: float
    end: float


@guarded("benchmarks.pair_sources")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pair_sources",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--films", type=int, default=60, metavar="N", help="of ten scenes (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path("results/clips"), help="for the demo's clips")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    if not 2 <= args.films <= 280:
        raise InputError(f"--films {args.films}: 2 to 280 can be made of the scenes that there are.")
    films = list(films_of(args.films))
    encoder = VideoEncoder.from_pretrained("demo-clip")
    test = embed_split("test", args.root, encoder)
    results = {"plain CLIP": (0, 0, places(None, test))}
    learnt: dict[str, Pairs] = {}
    for source in SOURCES:
        learnt[source] = pairs_of(source, films, args.out / f"{args.films}", encoder)
        adapter = gentle_linear(learnt[source].text, learnt[source].video[learnt[source].labels]).adapter
        results[source] = (len(learnt[source].text), len(learnt[source].video), places(adapter, test))
    queries = learnt["human"].text
    results["queries alone"] = (len(queries), 0, places(fit_query_bank(queries), test))
    print(f"\n{args.films} films of ten generated scenes; {len(test)} sentences against {len(test.video)} clips\n")
    print(table(results, test))
    return 0


def films_of(count: int) -> Iterator[list[Part]]:
    """Cut the scenes of the train split into films; each scene keeps its length."""
    drawn = scenes("train")
    for film in range(count):
        parts, start = [], 0
        for scene in drawn[film * SCENES_A_FILM : (film + 1) * SCENES_A_FILM]:
            frames = round(scene.seconds * RATE)
            shown = replace(scene, width=SIZE[0], height=SIZE[1], fps=RATE, frames=frames)
            parts.append(Part(shown, start / RATE, (start + frames) / RATE))
            start += frames
        yield parts


def write_film(folder: Path, numbered: tuple[int, list[Part]]) -> None:
    """Draw and encode a film, which appears when it is complete."""
    import av

    number, parts = numbered
    with write_atomically(folder / f"film-{number:03}.mp4") as file, av.open(str(file), "w", format="mp4") as made:
        stream = made.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "22"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.thread_count = 1
        for part in parts:
            for n in range(part.scene.frames):
                picture = render(part.scene, (n + 0.5) / RATE)
                made.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        made.mux(stream.encode())


def human(parts: list[Part], rng: random.Random) -> dict[str, Any]:
    """Return captions of the exact spans, in JSON beside the film."""
    captions = [
        {"text": text, "start": part.start, "end": part.end}
        for part in parts
        for text in video_captions(part.scene)[:2]
    ]
    return {".json": json.dumps(captions)}


def subtitles(parts: list[Part], rng: random.Random) -> dict[str, Any]:
    """Return what a narrator says."""
    cues = []
    for part in parts:
        told = rng.choice(parts) if rng.random() < 1 / 6 else part
        said = rng.choice(CHATTER) if rng.random() < 0.5 else ""
        shift = rng.uniform(-1.5, 1.5)
        text = f"{video_captions(told.scene)[0].capitalize()}. {said}"
        cues.append((max(0.0, part.start + shift), part.end + shift, text))
    return {".srt": "\n".join(f"{n}\n{_clock(a)} --> {_clock(b)}\n{t}\n" for n, (a, b, t) in enumerate(cues, 1))}


def titles(parts: list[Part], rng: random.Random) -> dict[str, Any]:
    """Return a title and chapters, as a downloader writes them."""
    chapters = []
    for part in parts:
        thing = rng.choice(part.scene.things)
        title = f"The {thing.color} {thing.shape}"
        chapters.append({"title": title, "start_time": part.start, "end_time": part.end})
    info = {"title": rng.choice(chapters)["title"] + " and others", "chapters": chapters}
    return {".info.json": json.dumps(info)}


def captions(parts: list[Part], rng: random.Random) -> dict[str, Any]:
    """Return captions of single frames."""
    listed = []
    for part in parts:
        for n in range(3):
            seen = rng.choice(parts).scene if rng.random() < 0.1 else part.scene
            text = frame_caption(seen, seen.seconds * (2 * n + 1) / 6, rng)
            listed.append({"text": text, "start": part.start, "end": part.end})
    return {".json": json.dumps(listed)}


SOURCES = {"human": human, "subtitles": subtitles, "titles": titles, "captions": captions}
"""Sources by name: the files beside a film, by their suffixes."""


def _clock(seconds: float) -> str:
    return f"00:{int(seconds) // 60:02}:{seconds % 60:06.3f}".replace(".", ",")


def pairs_of(source: str, films: list[list[Part]], out: Path, encoder: VideoEncoder) -> Pairs:
    """Write the films with a source's files beside them, find their texts, and embed these; or go on with it."""
    folder = out / source
    folder.mkdir(parents=True, exist_ok=True)
    drawn = out / "films"
    drawn.mkdir(exist_ok=True)
    missing = [(n, film) for n, film in enumerate(films) if not (drawn / f"film-{n:03}.mp4").exists()]
    if missing:
        with multiprocessing.get_context("spawn").Pool() as pool:
            written = pool.imap_unordered(partial(write_film, drawn), missing)
            list(progress_bar(written, total=len(missing), desc="making films", unit="film"))
    for number, film in enumerate(films):
        path = folder / f"film-{number:03}.mp4"
        if not path.exists():
            path.hardlink_to(drawn / path.name)
        for suffix, text in SOURCES[source](film, random.Random(f"{source} {number}")).items():
            path.with_name(path.stem + suffix).write_text(text, encoding="utf-8")
    find_pairs(folder, folder / "pairs.jsonl", VideoTexts(), progress=False)
    embed(PairsFile(folder / "pairs.jsonl"), folder / "cache", encoder, progress=False)
    return load_pairs(folder / "cache")


def places(adapter: Adapter | None, test: Pairs) -> NDArray[np.floating]:
    """Return the rank of each sentence's clip."""
    text = test.text if adapter is None else adapter.adapt(test.text)
    return ranks(DotProducts(text, test.video), test.labels)


def table(results: Mapping[str, tuple[int, int, NDArray[np.floating]]], test: Pairs) -> str:
    """Return R@1 of each source, with 95 % intervals over the clips, alone and against plain CLIP."""
    plain = results["plain CLIP"][2]
    rows = []
    for name, (texts, videos, found) in results.items():
        low, high = bootstrap(found, test.labels)["r1"]
        difference = paired_bootstrap(plain, found, test.labels)["r1"]
        metrics = RetrievalMetrics.from_ranks(found)
        rows.append(
            [
                name,
                f"{texts:,}" if texts else "",
                f"{videos:,}" if videos else "",
                f"{metrics.r1:.1f} [{low:.1f}, {high:.1f}]",
                "" if name == "plain CLIP" else signed(difference),
            ]
        )
    return markdown_table(["source", "texts", "spans", "R@1", "against plain CLIP"], rows)


if __name__ == "__main__":
    raise SystemExit(main())
