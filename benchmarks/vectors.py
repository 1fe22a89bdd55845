"""Pairs of (text, video) vectors of a dataset's splits, embedded from disk or opened from vectors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.costs import Costs
from benchmarks.datasets import Dataset, RetrievalSplit
from dits_adapter.data.embed import embed
from dits_adapter.data.pairs import Pairs, load_pairs
from dits_adapter.errors import DITSError
from dits_adapter.texts import TextCleaning
from dits_adapter.video.encoder import VideoEncoder

TOY = "demo-clip"
MADE = Path("results/clips")
"""Folder of datasets that are generated."""


def embed_splits(
    dataset: Dataset,
    splits: Sequence[str],
    out: Path,
    *,
    root: Path,
    videos: Path | None,
    encoder: str,
    frames: int | None = None,
    text_cleaning: TextCleaning | None = None,
    device: str | torch.device = "auto",
    costs: Costs,
) -> tuple[dict[str, Pairs], list[str]]:
    """Embed texts and videos of some splits into one cache a split; caches of an earlier run are resumed.

    Args:
        dataset: dataset to embed.
        splits: names of splits; all are read before the first is embedded.
        out: folder of the caches.
        root, videos: folders of annotation and videos, as for `Dataset.load`.
        encoder: hub id, folder or bundled name of a CLIP, or of an adapter for its CLIP.
        frames, text_cleaning: as for `VideoEncoder.from_pretrained`.
        device: device of the CLIP.
        costs: record to which the cost of each split's embedding is added.

    Returns:
        The pairs by split, and their deviations from the published dataset.

    Raises:
        DITSError: annotation is missing or malformed, no video could be read, or `out` holds other vectors.
    """
    loaded = list_splits(dataset, splits, out, root=root, videos=videos)
    model = VideoEncoder.from_pretrained(encoder, device=device, frames=frames, text_cleaning=text_cleaning)
    if dataset.span is not None:
        model.limit = dataset.span[1]
    pairs, deviations = {}, []
    if encoder == TOY and dataset.make is None:  # the toy is meant for generated clips
        deviations.append(
            f"the encoder is {TOY}, a toy trained on generated pictures: it shows that the run works"
        )
    for split, content in loaded.items():
        with costs.of(f"embedding of {split}", resumed=(out / split).exists()):
            report = embed(out / f"{split}.jsonl", out / split, model)
        pairs[split] = load_pairs(out / split)
        deviations += [f"{split}: {deviation}" for deviation in content.deviations]
        if report.failures:
            first = report.failures[0]
            deviations.append(
                f"{split}: {len(report.failures):,} of {len(content.video_ids):,} videos could not be read, the "
                f"first is {first.id} ({first.reason}); left out with their {report.skipped_texts:,} texts"
            )
    return pairs, deviations


def list_splits(
    dataset: Dataset, splits: Sequence[str], out: Path, *, root: Path, videos: Path | None
) -> dict[str, RetrievalSplit]:
    """Write the texts and videos of some splits as `out`/SPLIT.jsonl, which `embed` and joint training take.

    Args:
        dataset, splits, out, root, videos: as for `embed_splits`.

    Raises:
        DITSError: annotation is missing or malformed, or not one video is there.
    """
    loaded = {split: dataset.load(root, split, videos) for split in splits}
    out.mkdir(parents=True, exist_ok=True)
    for split, content in loaded.items():
        _write(content, out / f"{split}.jsonl", missing=(videos or root))
    return loaded


def open_splits(folder: Path, splits: Sequence[str]) -> dict[str, Pairs]:
    """Open existing vectors: in a folder, a cache or a file of `Pairs.save` named after each split.

    Raises:
        DITSError: one is missing or damaged.
    """
    return {split: load_pairs(_place(folder, split)) for split in splits}


def has_split(folder: Path, split: str) -> bool:
    """Tell whether `open_splits` would find a split."""
    return _place(folder, split).exists()


def _place(folder: Path, split: str) -> Path:
    file = folder / f"{split}.safetensors"
    return file if file.exists() else folder / split


def _write(split: RetrievalSplit, path: Path, missing: Path) -> None:
    """Write a split as PAIRS.jsonl; a missing video gets the path of a missing file, and is reported as such."""
    absent = [video for video, file in zip(split.video_ids, split.paths, strict=True) if file is None]
    if len(absent) == len(split.video_ids):
        raise DITSError(f"{split.name}: none of its {len(absent):,} videos lies under {missing} ({absent[0]}, …)")
    with path.open("w", encoding="utf-8") as file:
        for text, video_id, video in split:
            place = missing / video_id if video is None else video
            file.write(json.dumps({"video": str(place.absolute()), "text": text, "id": video_id}) + "\n")
