"""Worth of feedback on searches: `python -m benchmarks.feedback --vectors PATH`, with simulated people.

`--vectors` as for `benchmarks.halvings`. For each seed the videos are parted at random: 45 % are the collection
that people search, 45 % are held out with all their texts, 10 % are absent. People search with texts of the
collection's videos and, every fifth time, of absent ones; they see plain ranking beside a query bank of the texts
that were searched, ten hits each. They are simulated:

- each place of either ranking is looked at with the chance r^-`--exponent` at rank r, from the top;
- nine of ten who see the right hit choose it;
- of the others three of ten choose the first hit they look at, whatever it is, and half of the rest say "none of
  these".

Their judgements go through a file of feedback and `dits-adapter pairs`; `--adapter` is fitted to the pairs. Each
row is judged on the held-out videos and their true texts, among themselves: R@1, and the gain over plain CLIP with
its 95 % interval over videos, all seeds together. "True pairs of the same searches" are what people would give who
look through the whole collection each time.

The second table is of the pairs: by the rank of the choice, the share that is right, and the mean confidence.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.halvings import read
from dits_adapter import Pairs, feedback_pairs, fit_query_bank, ranks
from dits_adapter._progress import progress_bar
from dits_adapter._user_files import numbered_lines, parse_json
from dits_adapter.cli import guarded
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.metrics import DotProducts, paired_bootstrap
from dits_adapter.sources._feedback_file import AdapterInUse, Chosen, Judgement, Side, append, read_entries
from dits_adapter.sources.feedback import FeedbackReport
from dits_adapter.training.config import Recipe
from dits_adapter.training.run import fit
from dits_adapter.vectors import unit

HITS = 10
SURE = 0.7
SIDES: tuple[Side, Side] = ("plain", "adapted")
PLAIN, TRUE = "plain CLIP", "true pairs of the same searches"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Pair:
    """Pair that was made from choices: row of the text, chosen video, confidence and rank of the choice."""

    text: int
    video: int
    confidence: float
    rank: int


def parted(videos: int, seed: int) -> tuple[Rows, Rows, Rows]:
    """Draw the videos of the collection, those that are held out, and those that are absent."""
    order = np.random.default_rng(seed).permutation(videos)
    first, second = int(0.45 * videos), int(0.9 * videos)
    return order[:first], order[first:second], order[second:]


def shown(pairs: Pairs, texts: Rows, collection: Rows) -> Mapping[Side, Rows]:
    """Return the ten best videos of the collection by plain ranking and by a query bank, (texts, 10) each."""
    queries = pairs.text[texts]
    bank = fit_query_bank(queries).for_inference()
    best = {}
    for side, vectors in zip(SIDES, (unit(queries), unit(bank.adapt(queries))), strict=True):
        best[side] = collection[np.argsort(-(vectors @ pairs.video[collection].T), axis=1)[:, :HITS]]
    return best


def choice(
    rng: np.random.Generator, hits: Mapping[Side, Rows], right: int, exponent: float
) -> tuple[Side, int] | str:
    """Return the side and the rank that a person chooses, "none" or "nothing" (no judgement)."""
    chances = np.arange(1, HITS + 1, dtype=np.float64) ** -exponent
    seen = [(rank, side) for side in SIDES for rank in np.flatnonzero(rng.random(HITS) < chances) + 1]
    rng.shuffle(seen)
    seen.sort(key=lambda place: int(place[0]))
    for rank, side in seen:
        if hits[side][rank - 1] == right and rng.random() < 0.9:
            return side, int(rank)
    if seen and rng.random() < 0.3:
        return seen[0][1], int(seen[0][0])
    return "none" if rng.random() < 0.5 else "nothing"


def judge(
    pairs: Pairs, parts: tuple[Rows, Rows, Rows], searches: int, exponent: float, seed: int, file: Path
) -> Rows:
    """Search, judge, and write the judgements into a file of feedback; return the texts that were searched."""
    rng = np.random.default_rng(seed)
    collection, _, absent = parts
    there = rng.permutation(np.flatnonzero(np.isin(pairs.labels, collection)))[: searches - searches // 5]
    missing = rng.permutation(np.flatnonzero(np.isin(pairs.labels, absent)))[: searches // 5]
    texts = rng.permutation(np.concatenate([there, missing]))
    hits = shown(pairs, texts, collection)
    adapter = AdapterInUse(name="bank", kind="query-bank", digest="", strength=1, steps=None)
    for row, text in enumerate(texts):
        of_text = {side: hits[side][row] for side in SIDES}
        chosen = choice(rng, of_text, int(pairs.labels[text]), exponent)
        if chosen == "nothing":
            continue
        hit = None
        if not isinstance(chosen, str):
            side, rank = chosen
            video = str(of_text[side][rank - 1])
            hit = Chosen(id=video, video_id=video, path=f"{video}.mp4", side=side, rank=rank, score=0)
        entry = Judgement(
            time=datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=row),
            search=str(row),
            query=f"text {text}",
            chosen=hit,
            shown={side: [str(video) for video in of_text[side]] for side in SIDES},
            adapter=adapter,
            collection="simulated",
            space=pairs.space.fingerprint,
        )
        append(file, entry)
    return texts


def made_pairs(file: Path) -> tuple[FeedbackReport, list[Pair]]:
    """Make pairs of a file of feedback, as `dits-adapter pairs` does."""
    out = file.with_name("pairs.jsonl")
    report = feedback_pairs(file, out)
    rank = {e.query: e.chosen.rank for _, e in read_entries(file) if isinstance(e, Judgement) and e.chosen}
    lines = [parse_json(line, out, number) for number, line in numbered_lines(out)]
    return report, [
        Pair(int(line["text"][0].split()[1]), int(line["id"]), line["confidence"], rank[line["text"][0]])
        for line in lines
    ]


def learnt(recipe: Recipe, pairs: Pairs, texts: Sequence[int], videos: Sequence[int], held_out: Pairs) -> Rows:
    """Fit an adapter to pairs of rows, and return the ranks of the held-out texts' videos."""
    kept, labels = np.unique(np.asarray(videos), return_inverse=True)
    chosen = Pairs(pairs.text[np.asarray(texts)], pairs.video[kept], labels, pairs.space)
    kept_back, validation = chosen.split(0.2, 0)
    gentle = recipe.adapter.startswith("gentle")
    adapter = fit(recipe, chosen if gentle else kept_back, validation, progress=False)[0]
    return ranks(cosine_scores(adapter.for_inference(), held_out.text, held_out.video), held_out.labels)


def rows(made: list[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield the rows of the table: all choices, and the surer ones (`dits-adapter embed --min-confidence`)."""
    yield "all choices", made
    yield f"choices of confidence {SURE:g} and more", [pair for pair in made if pair.confidence >= SURE]


@guarded("benchmarks.feedback")
def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.feedback",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--vectors", type=Path, required=True, metavar="PATH", help="FILE.npy or a cache")
    parser.add_argument(
        "--searches",
        type=int,
        nargs="+",
        default=[300, 1000, 3000],
        metavar="N",
        help="numbers of searches (default: 300 1000 3000)",
    )
    parser.add_argument("--exponent", type=float, default=1.0, help="see above (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--adapter", default="gentle-linear", help="adapter that learns (default: %(default)s)")
    args = parser.parse_args(argv)
    pairs = read(args.vectors)
    recipe = Recipe(adapter=args.adapter)
    places: dict[tuple[int, str], list[Rows]] = {}
    groups: list[Rows] = []
    counts: dict[tuple[int, str], list[int]] = {}
    of_rank: dict[int, list[Pair]] = {}
    reports: list[FeedbackReport] = []
    for seed in progress_bar(range(args.seeds), desc="seeds"):
        parts = parted(len(pairs.video), seed)
        held_out = pairs.of_videos(np.sort(parts[1]))
        groups.append(np.sort(parts[1])[held_out.labels])
        plain = ranks(DotProducts(unit(held_out.text), held_out.video), held_out.labels)
        for searches in args.searches:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "feedback.jsonl"
                texts = judge(pairs, parts, searches, args.exponent, seed, file)
                report, made = made_pairs(file)
            reports.append(report)
            there = [int(text) for text in texts if pairs.labels[text] in set(parts[0])]
            ranked = {PLAIN: (0, plain)}
            for name, some in rows(made):
                few = [pair.text for pair in some], [pair.video for pair in some]
                ranked[name] = len(some), learnt(recipe, pairs, *few, held_out)
            true = [int(pairs.labels[text]) for text in there]
            ranked[TRUE] = len(there), learnt(recipe, pairs, there, true, held_out)
            for name, (count, place) in ranked.items():
                places.setdefault((searches, name), []).append(place)
                counts.setdefault((searches, name), []).append(count)
            for pair in made:
                of_rank.setdefault(pair.rank, []).append(pair)
    _print(args, pairs, places, counts, groups, of_rank, reports)
    return 0


def _print(
    args: argparse.Namespace,
    pairs: Pairs,
    places: Mapping[tuple[int, str], list[Rows]],
    counts: Mapping[tuple[int, str], list[int]],
    groups: list[Rows],
    of_rank: Mapping[int, list[Pair]],
    reports: list[FeedbackReport],
) -> None:
    videos = np.concatenate(groups)
    print(
        f"{args.vectors}: {len(pairs.video):,} videos, {len(pairs):,} texts; {args.seeds} seeds; {args.adapter}\n"
    )
    table = []
    for (searches, name), some in places.items():
        place = np.concatenate(some)
        gain = ""
        if name != PLAIN:
            r1 = paired_bootstrap(np.concatenate(places[searches, PLAIN]), place, videos)["r1"]
            gain = f"{r1.difference:+.1f} [{r1.low:+.1f}, {r1.high:+.1f}]"
        pairs_made = f"{np.mean(counts[searches, name]):,.0f}"
        table.append([f"{searches:,}", name, pairs_made, f"{100 * np.mean(place == 1):.1f}", gain])
    print(markdown_table(["searches", "learnt from", "pairs", "R@1, held out", "gain"], table))
    exponents = [report.examination.exponent for report in reports]
    print(f"\nexamination r^-η: η {np.mean(exponents):.2f} ± {np.std(exponents):.2f}, true {args.exponent:g}\n")
    bins = [(1, 1), (2, 2), (3, 4), (5, 7), (8, 10)]
    table = []
    for low, high in bins:
        some = [pair for rank in range(low, high + 1) for pair in of_rank.get(rank, [])]
        if some:
            right = np.mean([pair.video == pairs.labels[pair.text] for pair in some])
            said = np.mean([pair.confidence for pair in some])
            name = f"{low}" if low == high else f"{low} to {high}"
            table.append([name, f"{len(some):,}", f"{right:.2f}", f"{said:.2f}"])
    print(markdown_table(["rank", "pairs", "right", "confidence"], table))


if __name__ == "__main__":
    sys.exit(main())
