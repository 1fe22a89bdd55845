"""Effect of the filter of found texts on an adapter: `python -m benchmarks.noisy_captions`.

Clips of the demo's train split get two true sentences each and, in a share of them, a caption of another clip and
one that says nothing ("a video of something"), as models write them; no model wrote any of these. The gentle
linear adapter learns from all texts, from all weighted by how likely they fit, from those that the filter leaves,
and from the true ones, and is measured on the demo's test clips. Brackets are 95 % intervals over these.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips.train_adapters import embed_split
from dits_adapter import Pairs, RetrievalMetrics, VideoEncoder, bootstrap, paired_bootstrap, ranks
from dits_adapter.adapters import gentle_linear
from dits_adapter.cli import guarded
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import markdown_table, signed
from dits_adapter.evaluation.metrics import DotProducts
from dits_adapter.sources._filters import fit_probabilities

GENERIC = (
    "a video",
    "a video of something",
    "something moves",
    "a short clip",
    "there is something to see in this video",
    "a picture",
    "a computer generated video",
    "this is a video of something that happens",
)
_COPIES = 4
"""Times that a text which certainly fits is learnt from where texts are weighted."""

KINDS = ("true", "of another clip", "of any clip")


class Mix(NamedTuple):
    """Texts of clips: rows of vectors (n, d), the clip, the kind and the wording of each."""

    text: NDArray[np.float32]
    own: NDArray[np.int64]
    kind: NDArray[np.int64]
    wording: NDArray[np.int64]


@guarded("benchmarks.noisy_captions")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.noisy_captions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--clips", type=int, default=600, metavar="N", help="number to learn from (default: %(default)s)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        nargs="+",
        default=[0.0, 0.5, 1.0],
        metavar="SHARE",
        help="shares of the clips with false captions (default: 0 0.5 1)",
    )
    parser.add_argument("--root", type=Path, default=Path("results/clips"), help="for the demo's clips")
    args = parser.parse_args(argv)
    encoder = VideoEncoder.from_pretrained("demo-clip")
    train, test = (embed_split(split, args.root, encoder) for split in ("train", "test"))
    if not 20 <= args.clips <= len(train.video):
        raise InputError(f"--clips {args.clips}: there are {len(train.video)}, and it takes 20.")
    drawn = np.random.default_rng(0).permutation(len(train.video))[: args.clips]
    clips, generic = train.of_videos(np.sort(drawn)), encoder.encoder.embed_texts(GENERIC)
    plain = ranks(DotProducts(test.text, test.video), test.labels)
    rows = [["plain CLIP", "", "", "", _r1(plain, test), ""]]
    for share in args.noise:
        rows += table_rows(mix(clips, generic, share), clips, test, plain, f"{share:.0%}")
    print(f"\n{args.clips} clips to learn from; {len(test)} sentences against {len(test.video)} clips\n")
    print(markdown_table(["noise in", "learnt from", "texts", "of them true", "R@1", "against plain CLIP"], rows))
    return 0


def mix(clips: Pairs, generic: NDArray[np.float32], share: float, seed: int = 0) -> Mix:
    """Draw the texts of clips: two true ones each, and noise in a share of them."""
    rng = np.random.default_rng(seed)
    texts, own, kind, wording = [], [], [], []

    def add(vector: NDArray[np.float32], clip: int, of: int, words: int) -> None:
        texts.append(vector)
        own.append(clip)
        kind.append(of)
        wording.append(words)

    for clip in range(len(clips.video)):
        sentences = np.flatnonzero(clips.labels == clip)
        for row in sentences[:2]:
            add(clips.text[row], clip, 0, len(generic) + row)
        if rng.random() < share:
            other = int(rng.integers(len(clips.video)))
            row = int(np.flatnonzero(clips.labels == other)[-1])
            add(clips.text[row], clip, 1, len(generic) + row)
        if rng.random() < share:
            said = int(rng.integers(len(generic)))
            add(generic[said], clip, 2, said)
    same = np.unique(wording, return_inverse=True)[1]
    return Mix(np.array(texts), np.array(own), np.array(kind), same)


def table_rows(mixed: Mix, clips: Pairs, test: Pairs, plain: NDArray[np.floating], noise: str) -> list[list[str]]:
    """Learn from all texts, weighted or not, from those that fit, and from the true ones; return the rows."""
    likely = fit_probabilities(mixed.text, clips.video, mixed.own, mixed.wording)
    fits = likely >= 0.5
    left = ", ".join(
        f"{kind} {fits[mixed.kind == n].mean():.0%}" for n, kind in enumerate(KINDS) if (mixed.kind == n).any()
    )
    print(f"{noise} noise, left by the filter: {left}", flush=True)
    rows, every = [], np.arange(len(likely))
    learnt_from = {
        "all": every,
        "all, weighted": np.repeat(every, np.round(_COPIES * likely).astype(int)),
        "what fits": every[fits],
        "the true ones": every[mixed.kind == 0],
    }
    for name, chosen in learnt_from.items():
        adapter = gentle_linear(mixed.text[chosen], clips.video[mixed.own[chosen]]).adapter
        found = ranks(DotProducts(adapter.adapt(test.text), test.video), test.labels)
        true = f"{(mixed.kind[chosen] == 0).mean():.0%}"
        gain = signed(paired_bootstrap(plain, found, test.labels)["r1"])
        rows.append([noise, name, f"{len(chosen):,}", true, _r1(found, test), gain])
    return rows


def _r1(found: NDArray[np.floating], test: Pairs) -> str:
    low, high = bootstrap(found, test.labels)["r1"]
    return f"{RetrievalMetrics.from_ranks(found).r1:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    raise SystemExit(main())
