"""Comparison of adapters: rows, intervals, the recommendation, JSON and Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from dits_adapter._reprs import short_repr
from dits_adapter._wording import counted, validated
from dits_adapter.adapters.base import Family
from dits_adapter.errors import InputError
from dits_adapter.evaluation._learning_curve import LearningCurve
from dits_adapter.evaluation._retrieval import Retrieval
from dits_adapter.evaluation._tables import durations, markdown_table, signed
from dits_adapter.evaluation.metrics import (
    Difference,
    RetrievalMetrics,
    paired_bootstrap,
)

__all__ = ["CHANCE", "PLAIN", "Comparison", "Recommendation", "Retrieval", "Row", "recommend"]

CHANCE = "chance"
"""Row of queries that do not depend on the text, in the place of plain CLIP where there is none."""

PLAIN = "identity"
"""Name of the row of plain CLIP."""


@dataclass(frozen=True)
class Row:
    """Row of a comparison: one adapter.

    Attributes:
        name: name of the row.
        family: `plain`, `bank`, `linear` or `network`, from cheap to dear; or `paired`, an adapter that needs the
            video, which scores pairs and cannot search an index.
        text_to_video: the texts search the videos.
        video_to_text: the videos search the texts; the best of a video's captions counts.
        over_plain: text to video, this row minus the first: plain CLIP, or chance for texts and videos of two
            spaces, by metric, on the same queries.
        validation: text to video on the validation pairs, by which rows are chosen.
        weights: number of values that the adapter holds when it runs.
        microseconds: median time that one query takes to adapt, alone, on one thread of the CPU; None for the
            family `paired`, which adapts no queries.
        uses_queries: True for a row that uses other queries: a bank of the texts of the training pairs.
    """

    name: str
    family: Family
    text_to_video: Retrieval
    video_to_text: Retrieval
    over_plain: dict[str, Difference]
    validation: RetrievalMetrics
    weights: int
    microseconds: float | None
    uses_queries: bool = False


@dataclass(frozen=True)
class Recommendation:
    """Recommended row and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Comparison of adapters on one split; `to_json` and `from_json` write and read it.

    Attributes:
        rows: plain CLIP first.
        recommendation: see `recommend`.
        labels: video of each test text.
        sizes: (texts, videos) of `train`, `validation` and `test`; of several folds, of the first.
        space: the embedding space in words.
        recipes: recipe of each row, as plain JSON.
        environment: versions of packages, processor, see `environment`.
        folds: number of folds, each of which was searched once by adapters that were made of the others; 1 for a
            split.
        left_out: seconds that rows would have taken which the time budget held no more, by name.
        curve: what fewer pairs would have given; None where it was not asked for.
        sources: number of texts of each source in `train`, `validation` and `test`; empty where all texts are of
            people, of several folds that of the first.
        notes: sentences about the splits: what was kept together, and whose texts judge.
        version: version of this layout.
    """

    rows: tuple[Row, ...]
    recommendation: Recommendation
    labels: tuple[int, ...]
    sizes: dict[str, tuple[int, int]]
    space: str
    recipes: dict[str, dict[str, Any]]
    environment: dict[str, str]
    folds: int = 1
    left_out: dict[str, float] = field(default_factory=dict)
    curve: LearningCurve | None = None
    sources: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    version: Literal[2] = 2

    def __repr__(self) -> str:
        names = " ".join(row.name for row in self.rows)
        return short_repr(self, rows=names, recommendation=self.recommendation.name, queries=len(self.labels))

    def __str__(self) -> str:
        return self.markdown()

    def _repr_markdown_(self) -> str:
        """Return the tables, for notebooks."""
        return self.markdown()

    def __getitem__(self, name: str) -> Row:
        """Return the row of a name."""
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> str:
        """Write the whole comparison as JSON, per-query ranks included."""
        return TypeAdapter(Comparison).dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Comparison:
        """Read the JSON of `to_json`.

        Raises:
            InputError: the text is something else, or of another version.
        """
        try:
            return validated(Comparison, text)
        except InputError as error:
            raise InputError(f"this is no comparison of layout version 2: {error}") from None

    def markdown(self, quoted: Mapping[str, Sequence[float]] | None = None) -> str:
        """Write both directions as tables, and the recommendation.

        Args:
            quoted: rows to print below for text to video: R@1, R@5, R@10, MdR and MnR by name, or the first
                of these.
        """
        texts, videos = self.sizes["test"]
        forward = [[_label(row), *row.text_to_video.cells(), *_costs(row)] for row in self.rows]
        for name, values in (quoted or {}).items():
            cells = [name, *(f"{value:g}" for value in values)]
            forward.append(cells + ["–"] * (len(forward[0]) - len(cells)))
        backward = [[_label(row), *row.video_to_text.cells()] for row in self.rows]
        base = "chance" if self.rows[0].name == CHANCE else "plain"
        head = ["adapter", "R@1", "R@5", "R@10", "MdR", "MnR"]
        trained, chosen = (
            f"{counted(texts, 'text')} of {counted(videos, 'video')}"
            for texts, videos in (self.sizes[split] for split in ("train", "validation"))
        )
        if self.folds > 1:
            searched = (
                f"{len(self.labels):,} queries, each in one of {self.folds} folds of about {videos:,} videos"
            )
        else:
            searched = f"{counted(texts, 'query', 'queries')}, {counted(videos, 'video')}"
        return "\n\n".join(
            [
                " ".join([f"Trained on {trained}, chosen on {chosen}.", *self.notes]),
                f"**Text to video**: {searched}, {self.space}; 95 % intervals.",
                markdown_table(
                    [
                        *head,
                        f"R@1 over {base}",
                        "weights",
                        "µs a query",
                    ],
                    forward,
                ),
                f"**Video to text**: {len(self.rows[0].video_to_text.ranks):,} queries, {texts:,} texts.",
                markdown_table(head, backward),
                *([f"Left out for want of time: {durations(self.left_out)}."] if self.left_out else []),
                *([_NOTE] if any(row.uses_queries for row in self.rows) else []),
                f"**Recommendation: {self.recommendation.name}.** {self.recommendation.reason}",
                *([] if self.curve is None else [self.curve.markdown()]),
            ]
        )


_NOTE = (
    "\\* uses other queries: a bank of the texts of the training pairs, whose videos are not searched here. In a "
    "collection that holds those videos, take other queries (`dits-adapter bank`)."
)


def _label(row: Row) -> str:
    return row.name + (" \\*" if row.uses_queries else "")


def _costs(row: Row) -> list[str]:
    over = "–" if row.family == "plain" else signed(row.over_plain["r1"])
    return [over, f"{row.weights:,}", "–" if row.microseconds is None else f"{row.microseconds:.0f}"]


def recommend(rows: Sequence[Row], labels: NDArray[np.int64]) -> Recommendation:
    """Choose a row: the cheapest family that nothing dearer beats by more than noise.

    The families, from cheap to dear, are plain CLIP, banks of queries, linear maps and networks. A family is
    represented by its row with the highest mean reciprocal rank on the VALIDATION pairs. Plain CLIP stands first;
    the bank challenges plain CLIP, then the linear map and the network challenge the standing row. A challenger
    replaces the standing row if, on the test pairs, its mean reciprocal rank is higher and the 95 % paired
    bootstrap interval of the difference lies above 0. The test pairs thus decide three duels and choose between no
    rows. So "keep plain CLIP" is the answer where nothing is better by more than noise, "a bank is enough" where
    no map improves on it, and "a linear map is enough" where no network does. The family `paired` takes no part.

    Args:
        rows: plain CLIP first.
        labels: video of each test text, (n,); captions of one video are drawn together.
    """
    if len(rows) == 1:
        return Recommendation(
            rows[0].name, f"Nothing was compared with {rows[0].name}: take more rows, or a larger budget."
        )
    standing, won = rows[0], ""
    lost: list[str] = []
    for family in ("bank", "linear", "network"):
        members = [row for row in rows if row.family == family]
        if not members:
            continue
        challenger = max(members, key=lambda row: row.validation.mrr)
        difference = paired_bootstrap(standing.text_to_video.ranks, challenger.text_to_video.ranks, labels)
        r1, mrr = difference["r1"], difference["mrr"]
        duel = (
            f"{challenger.name} against {standing.name}: R@1 {signed(r1)}, "
            f"MRR {mrr.difference:+.3f} [{mrr.low:+.3f}, {mrr.high:+.3f}]"
        )
        if mrr.low > 0:
            standing, won, lost = challenger, duel, []
        else:
            lost.append(duel)
    families = {row.family for row in rows}
    networks = "no network was better still" if "network" in families else "no network was tried"
    maps = "no map was better still" if families & {"linear", "network"} else "no map was tried"
    answer = {
        "plain": "Keep plain CLIP: no adapter was better by more than noise",
        "bank": f"A bank of queries is enough: it was better than plain CLIP by more than noise, and {maps}",
        "linear": f"A linear map is enough: it was better than what is cheaper by more than noise, and {networks}",
        "network": "The network is worth it: it was better than what is cheaper by more than noise",
    }[standing.family]
    if rows[0].name == CHANCE:
        answer = {
            "plain": "These texts do not lead to the videos: no adapter was better than chance by more than noise",
            "linear": f"A linear map is enough: it was better than chance by more than noise, and {networks}",
        }.get(standing.family, answer)
    sentences = [f"{answer}, on {counted(len(labels), 'test query', 'test queries')}", *filter(None, [won, *lost])]
    return Recommendation(standing.name, ". ".join(sentences) + ".")
