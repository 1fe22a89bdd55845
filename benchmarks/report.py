"""Several runs as one table: `python -m benchmarks.report results/benchmarks/*/result.json`.

Rows are adapters, columns datasets. Runs that differ in their seed alone are one column, as mean ± standard
deviation over the seeds. The paper's rows follow, marked as quoted. `--pair mlp-best dits-best` adds the
gain of the first row over the second on the same queries.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.result import Result
from dits_adapter.cli import guarded
from dits_adapter.errors import DITSError, InputError
from dits_adapter.evaluation._tables import markdown_table, signed
from dits_adapter.evaluation.metrics import paired_bootstrap

RECALLS = ("r1", "r5", "r10")


@guarded("benchmarks.report")
def main(argv: Sequence[str] | None = None) -> int:
    """Print the merged table; return the exit code (0 fine, 1 a DITSError, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.split("\n\n")[0])
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULT.json", help="result of benchmarks.run")
    parser.add_argument("--pair", nargs=2, metavar="ROW", help="add the gain of the first row over the second")
    args = parser.parse_args(argv)
    print(report(args.results, args.pair))
    return 0


def report(paths: Sequence[Path], pair: Sequence[str] | None = None) -> str:
    """Merge results into Markdown.

    Args:
        paths: files of `Result.write`.
        pair: names of two rows, to add the gain of the first over the second.

    Raises:
        DITSError: a file is no result, two are of the same run, or a run has no row of the pair.
    """
    columns: dict[str, dict[int, Result]] = {}
    for path in paths:
        result = Result.read(path)
        seeds = columns.setdefault(_column(result), {})
        if result.seed in seeds:
            raise DITSError(
                f"{path}: a run of {_column(result)} with seed {result.seed} is among the results already"
            )
        seeds[result.seed] = result
    head = ["R@1 / R@5 / R@10, text to video", *columns]
    runs = [list(seeds.values()) for seeds in columns.values()]
    names = dict.fromkeys(row.name for column in runs for result in column for row in result.comparison.rows)
    table = [[name, *(_cell(name, column) for column in runs)] for name in names]
    quoted = [column[0].quoted() for column in runs]
    for name in dict.fromkeys(name for figures in quoted for name in figures):
        table.append(
            [name, *(" / ".join(f"{v:.1f}" for v in figures.get(name, ())[:3]) or "–" for figures in quoted)]
        )
    lines = [f"- {column}{_notes(results)}" for column, results in zip(columns, runs, strict=True)]
    gains = [] if pair is None else [_gains(*pair, columns)]
    return "\n\n".join([markdown_table(head, table), "\n".join(lines), *gains])


def _column(result: Result) -> str:
    encoder = result.comparison.space.partition(" [")[0]
    ablation = f", {result.ablation}" if result.ablation else ""
    return f"{result.title} {result.split}{ablation}, {encoder}"


def _cell(name: str, results: Sequence[Result]) -> str:
    rows = [row.text_to_video.metrics for result in results for row in result.comparison.rows if row.name == name]
    if not rows:
        return "–"
    cells = []
    for recall in RECALLS:
        values = [getattr(metrics, recall) for metrics in rows]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}")
    return " / ".join(cells)


def _gains(first: str, second: str, columns: Mapping[str, Mapping[int, Result]]) -> str:
    """Write the gains of a row over another, column by column, as means over the seeds.

    The intervals are paired, and resampled by video: a video is drawn with all its captions, under all seeds.
    """
    table = []
    for column, seeds in columns.items():
        comparisons = [result.comparison for result in seeds.values()]
        for name in (first, second):
            if any(name not in (row.name for row in c.rows) for c in comparisons):
                raise InputError(f"--pair {name}: not every run of {column} has that row.")
        ranks = [np.concatenate([c[name].text_to_video.ranks for c in comparisons]) for name in (second, first)]
        differences = paired_bootstrap(*ranks, np.concatenate([c.labels for c in comparisons]))
        mrr = differences["mrr"]
        recalls = [signed(differences[recall]) for recall in RECALLS]
        table.append([column, *recalls, f"{mrr.difference:+.3f} [{mrr.low:+.3f}, {mrr.high:+.3f}]"])
    return markdown_table([f"{first} minus {second}, text to video", "R@1", "R@5", "R@10", "MRR"], table)


def _notes(results: Sequence[Result]) -> str:
    """Write the notes on a column: number of seeds, recommendations, deviations from the published protocol."""
    answers = ", ".join(dict.fromkeys(result.comparison.recommendation.name for result in results))
    deviations = len(dict.fromkeys(line for result in results for line in result.deviations))
    caution = f"; NOT the published protocol, or not known to be ({deviations} reasons)" if deviations else ""
    return f": {len(results)} seed{'s' * (len(results) > 1)}, recommended {answers}{caution}"


if __name__ == "__main__":
    sys.exit(main())
