"""Demo on generated clips, offline: `python -m benchmarks.demo` (or `make demo`).

Writes the clips of the test split as .mp4 files, ingests them into an embedded Qdrant, searches them with held-out
sentences through plain CLIP, the best linear adapter and DITS, and prints the metrics of each. A second run reuses
the clips and the index. All figures are about generated clips, not real video.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from benchmarks.clips.captions import rare_names
from benchmarks.clips.dataset import DatasetItem, make_split
from dits_adapter import DITSQueryEncoder, QdrantStore, VideoEncoder
from dits_adapter._extras import require_modules
from dits_adapter.cli import guarded
from dits_adapter.evaluation._figures import gap_picture
from dits_adapter.evaluation._tables import markdown_table, signed
from dits_adapter.evaluation.metrics import (
    METRICS,
    DotProducts,
    RetrievalMetrics,
    bootstrap,
    paired_bootstrap,
    ranks,
)
from dits_adapter.stores.base import VideoStore
from dits_adapter.stores.ingest import ingest
from dits_adapter.stores.requests import Hit, ReadRequest
from dits_adapter.video.decode import Video

CAPTION = "300 generated test clips and five held-out sentences each (benchmarks/clips); not real video"
SHOWN = 3
PAIRED = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}
THUMBNAIL = (224, 168)


@guarded("benchmarks.demo")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.demo", description="The whole job on generated clips, offline."
    )
    parser.add_argument("--out", type=Path, default=Path("results/demo"), help="default: %(default)s")
    out: Path = parser.parse_args(argv).out
    require_modules("benchmarks.demo", "matplotlib")
    started = time.monotonic()

    records = make_split("test", out / "clips")
    video_encoder = VideoEncoder.from_pretrained("demo-clip")
    encoders = {
        "best linear": DITSQueryEncoder.from_pretrained("demo-linear"),
        "DITS T'=10": DITSQueryEncoder.from_pretrained("demo-dits"),
    }
    with QdrantStore(out / "index", "demo") as store:
        report = ingest(store, out / "clips" / "test", video_encoder)
        print(report)

        texts = [caption for record in records for caption in record.captions]
        labels = np.repeat(np.arange(len(records)), [len(record.captions) for record in records])
        videos = stored_vectors(store, records)
        queries = {"plain CLIP": encoders["DITS T'=10"].encode_document(texts)}
        queries |= {name: encoder.encode_query(texts) for name, encoder in encoders.items()}
        ranks_of = {name: ranks(DotProducts(vectors, videos), labels) for name, vectors in queries.items()}
        linear = str(encoders["best linear"].artifact.adapter.config.method)  # type: ignore[attr-defined]
        print(f"\n{len(texts)} held-out sentences against {len(records)} generated clips (not real video)\n")
        print(table(ranks_of, labels, {"best linear": f"best linear ({linear})"}))
        unmet = np.array([rare_names(text) for text in texts])
        print("\nR@1 by how many names of a sentence the encoder has not met in training:\n")
        print(table_by_names(ranks_of, unmet))
        gains = {}
        for other in ("plain CLIP", "best linear"):
            differences = paired_bootstrap(ranks_of[other], ranks_of["DITS T'=10"], labels)
            gains[other] = {name: differences[name] for name in PAIRED}
        for other, gain in gains.items():
            shown = ", ".join(f"{title} {signed(gain[name])}" for name, title in PAIRED.items())
            print(f"DITS against {other} (paired): {shown}")

        chosen = np.random.default_rng(0).choice(len(texts), SHOWN, replace=False)
        searches = [
            (texts[i], records[labels[i]], store.search(queries["DITS T'=10"][i], limit=5)) for i in chosen
        ]
    for text, record, hits in searches:
        print(f"\n“{text}”")
        for hit in hits:
            mark = "*" if Path(hit.path or "").name == record.video else " "
            print(f" {mark} {Path(hit.path or '').name}  {hit.start:.1f}-{hit.end:.1f} s  score {hit.score:.3f}")

    contact_sheet(searches, out / "contact-sheet.png")
    gap_picture(queries["plain CLIP"], queries["DITS T'=10"], videos[labels], out / "gap.png", caption=CAPTION)
    result: dict[str, Any] = {
        "version": 1,
        "dataset": CAPTION,
        "clips": len(records),
        "queries": len(texts),
        "linear": linear,
        "metrics": {name: asdict(RetrievalMetrics.from_ranks(r)) for name, r in ranks_of.items()},
        "intervals": {name: bootstrap(r, labels) for name, r in ranks_of.items()},
        "dits_minus": gains,
        "unmet_names": unmet.tolist(),
        "ranks": {name: r.astype(int).tolist() for name, r in ranks_of.items()},
        "ingested": {"videos": report.videos, "present": report.present, "seconds": round(report.seconds, 2)},
        "seconds": round(time.monotonic() - started, 1),
        "machine": {"processor": platform.machine(), "python": platform.python_version()},
        "packages": {name: version(name) for name in ("torch", "transformers", "qdrant-client", "numpy")},
    }
    (out / "result.json").write_text(json.dumps(result) + "\n", "utf-8")
    print(f"\n{result['seconds']:.0f} s. Pictures: {out / 'contact-sheet.png'}, {out / 'gap.png'}")
    print(f"Figures: {out / 'result.json'}")
    return 0


def stored_vectors(store: VideoStore, records: Sequence[DatasetItem]) -> np.ndarray:
    """Return the stored vectors of the records' videos, (n, d), in the order of the records."""
    segments = store.read(ReadRequest(vectors=True))
    by_name = {Path(segment.payload["path"]).name: segment.vector for segment in segments}
    return np.array([by_name[record.video] for record in records], dtype=np.float32)


def table(ranks_of: dict[str, np.ndarray], labels: np.ndarray, names: dict[str, str]) -> str:
    """Lay out R@1, R@5, R@10, MdR and MnR with their 95 % bootstrap intervals, resampled by video."""
    shown = METRICS[:5]
    lines = [f"{'':32}" + "".join(f"{title:>22}" for title in ("R@1", "R@5", "R@10", "MdR", "MnR"))]
    for name, values in ranks_of.items():
        metrics, intervals = RetrievalMetrics.from_ranks(values), bootstrap(values, labels)
        cells = [
            f"{getattr(metrics, key):.1f} [{intervals[key].low:.1f}, {intervals[key].high:.1f}]" for key in shown
        ]
        lines.append(f"{names.get(name, name):32}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def table_by_names(ranks_of: dict[str, np.ndarray], unmet: np.ndarray) -> str:
    """Lay out R@1, and the number of sentences, by how many names of a sentence the encoder has not met."""
    groups = {"0": unmet == 0, "1": unmet == 1, "2": unmet == 2, "3 or more": unmet > 2, "any": unmet > 0}
    rows = []
    for name, chosen in groups.items():
        recalls = (100 * np.mean(place[chosen] <= 1) for place in ranks_of.values())
        rows.append([name, f"{chosen.sum():,}", *(f"{recall:.1f}" for recall in recalls)])
    return markdown_table(["names", "sentences", *ranks_of], rows)


def contact_sheet(searches: Sequence[tuple[str, DatasetItem, Sequence[Hit]]], path: Path) -> None:
    """Draw each query with the thumbnails of its five first hits; the right one has a green frame."""
    width, height = THUMBNAIL
    row, font = height + 78, ImageFont.load_default(15)
    sheet = Image.new("RGB", (5 * (width + 12) + 12, len(searches) * row + 12), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (text, record, hits) in zip(range(12, len(searches) * row, row), searches, strict=True):
        draw.text((12, y), f"“{text}”", fill="black", font=font)
        for x, hit in zip(range(12, 5 * (width + 12), width + 12), hits, strict=False):
            assert hit.path is not None
            with Video(hit.path) as video:
                frame = video.frames_at([hit.timestamp or 0.0]).frames[0]
            thumbnail = ImageOps.pad(Image.fromarray(frame), THUMBNAIL, color="#eeeeee")
            sheet.paste(thumbnail, (x, y + 26))
            label = f"{Path(hit.path).stem}  {hit.score:.3f}"
            if Path(hit.path).name == record.video:
                draw.rectangle((x - 4, y + 22, x + width + 4, y + 26 + height), outline="#2a8f2a", width=4)
                label += "  right"
            draw.text((x, y + 32 + height), label, fill="#444444", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


if __name__ == "__main__":
    raise SystemExit(main())
