"""Pictures of hubs and of embedding spaces for docs/concepts.md: `python -m benchmarks.concepts`.

They are of the demo's generated clips, not real video, under the bundled `demo-clip`: `--cache` is that which
docs/demo.md makes. `hubs.png` counts how many queries have a video among their ten best hits; the bank is 1,000
sentences about other generated clips. `spaces.png` has cosines of the videos with texts of their own encoder, and
with texts of an encoder of the same width: `demo-clip` with random weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips.captions import video_captions
from benchmarks.clips.scenes import scenes
from dits_adapter import (
    DITSQueryEncoder,
    DotProducts,
    Pairs,
    bias_sharpness,
    fit_query_bank,
    load_pairs,
    ranks,
    score_bias,
)
from dits_adapter._extras import require_modules
from dits_adapter._hub import bundled
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._figures import ADAPTED, TEXT, VIDEO, new_axes
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT
from dits_adapter.vectors import unit

Floats = NDArray[np.floating]

BEST = 10
BANK = 1000
CAPTION = "300 generated test clips and 1,500 sentences (benchmarks/clips); not real video"


@guarded("benchmarks.concepts")
def main(argv: Sequence[str] | None = None) -> int:
    """Draw both pictures; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.concepts", description="Pictures of hubs and of embedding spaces."
    )
    parser.add_argument("--cache", type=Path, default=Path("results/cache"), help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("results/concepts"), help="default: %(default)s")
    args = parser.parse_args(argv)
    require_modules("benchmarks.concepts", "matplotlib", "scipy")
    pairs = load_pairs(args.cache)
    texts = [caption for scene in scenes("test") for caption in video_captions(scene)]
    if len(texts) != len(pairs):
        raise InputError(f"--cache {args.cache}: expected that of docs/demo.md, which has {len(texts)} texts.")
    args.out.mkdir(parents=True, exist_ok=True)
    draw_hubs(pairs, args.out / "hubs.png")
    draw_spaces(pairs, texts, args.out / "spaces.png")
    print(f"Pictures: {args.out / 'hubs.png'}, {args.out / 'spaces.png'}")
    return 0


def occurrences(scores: Floats) -> NDArray[np.int64]:
    """Return how many queries have each video among their `BEST` best hits.

    Args:
        scores: of each query with each video, (n, m).

    Returns:
        Counts, (m,); their mean is n · BEST / m.
    """
    best = np.argpartition(-scores, BEST - 1, axis=1)[:, :BEST]
    return np.bincount(best.ravel(), minlength=scores.shape[1])


def draw_hubs(pairs: Pairs, path: Path) -> None:
    """Draw how often each video is among the best hits, of plain and of corrected queries."""
    from scipy.stats import skew

    encoder = DITSQueryEncoder.from_pretrained("demo-dits")
    bank = encoder.encode_document([video_captions(scene)[0] for scene in scenes("train")[:BANK]])
    text, video = unit(pairs.text), unit(pairs.video)
    bias = score_bias(video, bank, sharpness=bias_sharpness(video, bank))
    ways = {
        "plain CLIP": text @ video.T,
        "with a score bias": text @ video.T - BIAS_WEIGHT * bias,
        "with a query bank": unit(fit_query_bank(bank).adapt(pairs.text)) @ video.T,
        "with DITS": unit(encoder.adapt(pairs.text)) @ video.T,
    }
    figure, axes = new_axes(1, 1, (8, 4))
    even = len(text) * BEST / len(video)
    print(f"{'':20}{'R@1':>6}{'skewness':>10}{'largest':>9}")
    for (name, scores), color in zip(ways.items(), (TEXT, "#8a5aa8", VIDEO, ADAPTED), strict=True):
        counts = occurrences(scores)
        found = 100 * float(np.mean(ranks(scores, pairs.labels) <= 1))
        print(f"{name:20}{found:6.1f}{skew(counts):10.2f}{counts.max():9}")
        axes[0, 0].plot(np.sort(counts)[::-1], color=color, label=f"{name}: R@1 {found:.1f}")
    axes[0, 0].axhline(even, color="#999999", linewidth=1)
    axes[0, 0].annotate(f"all alike: {even:.0f}", (len(video), even), ha="right", va="bottom", color="#555555")
    axes[0, 0].set(xlabel="videos, the most frequent first", ylabel=f"queries with it among {BEST} hits")
    axes[0, 0].legend(frameon=False)
    figure.suptitle(CAPTION, fontsize=9, color="#555555")
    figure.savefig(path, dpi=120)


def draw_spaces(pairs: Pairs, texts: list[str], path: Path) -> None:
    """Draw cosines of texts and videos of one encoder, and of two encoders of one width."""
    text, video = unit(pairs.text), unit(pairs.video)
    other = unit(encode_otherwise(texts))
    figure, axes = new_axes(1, 2, (9, 3.6), sharey=True)
    titles = "one encoder", "two encoders of one width"
    for axis, queries, title in zip(axes[0], (text, other), titles, strict=True):
        scores = queries @ video.T
        own = scores[np.arange(len(queries)), pairs.labels]
        found = 100 * float(np.mean(ranks(DotProducts(queries, video), pairs.labels) <= 1))
        bins = np.linspace(scores.min(), scores.max(), 50)
        for values, color, label in ((scores.ravel(), "#999999", "any video"), (own, VIDEO, "its own video")):
            axis.hist(values, bins, density=True, color=color, alpha=0.6, label=label)
        axis.set(title=f"{title}: R@1 {found:.1f}", xlabel="cosine of a text with a video", ylabel="density")
        axis.legend(frameon=False)
        print(f"{title}: R@1 {found:.1f}")
    figure.suptitle(CAPTION, fontsize=9, color="#555555")
    figure.savefig(path, dpi=120)


def encode_otherwise(texts: list[str]) -> Floats:
    """Return vectors of texts by `demo-clip` with random weights, (n, d)."""
    import torch
    from transformers import AutoProcessor, CLIPConfig, CLIPModel

    folder = bundled("demo-clip")
    assert folder is not None
    torch.manual_seed(0)
    with TemporaryDirectory() as place:
        CLIPModel(CLIPConfig.from_pretrained(folder)).save_pretrained(place)
        AutoProcessor.from_pretrained(folder, trust_remote_code=False).save_pretrained(place)
        return DITSQueryEncoder.from_pretrained(place).encode_document(texts)


if __name__ == "__main__":
    raise SystemExit(main())
