"""Pairs from feedback: what people chose on the search page, with the confidence that each choice deserves.

People look at the first hits most, and trust them: a hit chosen at rank 1 says less than one chosen at rank 9.
With p(r) the chance that rank r is looked at,

- p(r) = r^-η, as Joachims, Swaminathan and Schnabel (WSDM 2017) have the propensities of a ranking, with η = 1.
  Here η is estimated where the two rankings show the chosen hit at two ranks a < b: that it was chosen at b says
  that people did not look at a, whatever the hit is (in the manner of Agarwal et al., WSDM 2019, who learn from
  the different ranks that several rankers give a hit). A prior, 1 ± .5, holds η where few choices tell.
- A right hit and a wrong one at rank r are chosen with odds of 1 to `TRUST` · p(r): the higher a hit stands, the
  more often it is chosen for standing there (trust bias; Agarwal et al., WWW 2019). `TRUST` is assumed.
- A right hit that is seen is passed over, for another one or for "none of these", with the chance `PASSED`. So a
  hit that was shown and not chosen has its odds multiplied by 1 - (1 - `PASSED`) · p. `PASSED` is assumed.

The judgements of all people on one query multiply the odds of each segment, which begin even; the probability that
results is the `confidence` of the pair. With η = 1, one choice at rank 1 gives .61, at rank 9 .93, and the same
choice by ten people at rank 1 .99. Pairs that fall below one half, as others chose otherwise, are left out.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from dits_adapter._files import require_writable, write_atomically
from dits_adapter._wording import counted, printable
from dits_adapter.errors import InputError
from dits_adapter.sources._feedback_file import (
    Chosen,
    Judgement,
    LoggedQuery,
    read_entries,
    standing_entries,
)
from dits_adapter.sources._writer import replace_lines
from dits_adapter.sources.report import PairsReport

__all__ = ["PASSED", "TRUST", "Examination", "FeedbackReport", "feedback_pairs", "feedback_queries"]

TRUST = 0.65
"""Odds that a wrong hit at rank 1 is chosen, of those that a right one is."""

PASSED = 0.5
"""Chance that a right hit which is seen is not chosen."""

_LEAST_CONFIDENCE = 0.5

_SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Examination:
    """Chance that a rank is looked at, r^-η.

    Attributes:
        exponent: η, at least 0; at 0 all ranks are looked at alike.
        choices: number of choices that it was estimated from.
    """

    exponent: float = 1.0
    choices: int = 0

    @classmethod
    def fit(cls, judgements: Iterable[Judgement]) -> Examination:
        """Estimate η from choices of hits that both rankings show, at ranks a < b with a > 1.

        People look at both rankings from the top and choose a hit where they see it first: at b where they looked
        at b and not at a, so with odds of (1 - a^-η) b^-η to a^-η. The mode under the prior N(1, 1/4), on a grid.
        """
        rows = []
        for judgement in judgements:
            if judgement.chosen is not None:
                ranks = _ranks(judgement, {judgement.chosen.id}).values()
                if len(ranks) == 2 and 1 < min(ranks) < max(ranks):
                    rows.append((min(ranks), max(ranks), judgement.chosen.rank == max(ranks)))
        if not rows:
            return cls()
        exponents = np.arange(1, 201) / 100
        high, low, at_low = np.array(rows, dtype=np.float64).T[:, :, None]
        odds = (1 - high**-exponents) * (high / low) ** exponents
        likelihood = (at_low * np.log(odds) - np.log1p(odds)).sum(axis=0) - 2 * (exponents - 1) ** 2
        return cls(float(exponents[likelihood.argmax()]), len(rows))

    def of(self, rank: int) -> float:
        """Return the chance that a rank, from 1, is looked at."""
        return float(rank**-self.exponent)

    def of_any(self, ranks: Iterable[int]) -> float:
        """Return the chance that any of the places of a hit is looked at."""
        return 1 - math.prod(1 - self.of(rank) for rank in ranks)

    def __str__(self) -> str:
        how = f"estimated from {counted(self.choices, 'choice')}" if self.choices else "assumed"
        return f"rank r is looked at with the chance r^-{self.exponent:.2f} ({how})"


@dataclass
class FeedbackReport(PairsReport):
    """Report of pairs that were made from feedback.

    Attributes:
        judgements: number of judgements that count: the last one of each person and query.
        repeated: number of judgements that were taken back, or that a later one of the same person replaced.
        examination: chance that a rank is looked at.
        unanswerable: queries that more people answered with "none of these" than with a hit.
        collections: names of the collections that were searched.
        faults: lines that are no entries, each with its place and what is wrong.
    """

    judgements: int = 0
    repeated: int = 0
    examination: Examination = field(default_factory=Examination)
    unanswerable: list[str] = field(default_factory=list)
    collections: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [super().__str__()]
        lines.append(
            f"judged   {counted(self.judgements, 'judgement')}, {self.repeated:,} more taken back or repeated"
        )
        lines.append(f"position {self.examination}")
        lines.append(f"none     {counted(len(self.unanswerable), 'query', 'queries')} that nothing shown fits")
        if len(self.collections) > 1:
            lines.append(f"searched {', '.join(self.collections)}; embed pairs from the collection that has them")
        if self.faults:
            lines.append(f"skipped  {counted(len(self.faults), 'line that is', 'lines that are')} no feedback")
            lines += [f"  {printable(fault)}" for fault in self.faults[:_SHOWN_FAULTS]]
        return "\n".join(lines)


def feedback_pairs(
    files: str | PathLike[str] | Iterable[str | PathLike[str]],
    out: str | PathLike[str],
    *,
    unanswerable: str | PathLike[str] | None = None,
) -> FeedbackReport:
    """Make pairs of what people chose on the search page, in the place of those that an earlier run made.

    Args:
        files: files that `dits-adapter serve --feedback` has written.
        out: the pairs file (.jsonl); lines of other sources stay.
        unanswerable: file for the queries that nothing fits, one a line, for `dits-adapter calibrate`.

    Raises:
        InputError: a file cannot be read or holds no feedback, no judgement counts, or a file cannot be written.
    """
    started = perf_counter()
    paths = [files] if isinstance(files, (str, PathLike)) else list(files)
    report = FeedbackReport(Path(out))
    if unanswerable is not None:
        require_writable(Path(unanswerable).absolute().parent)
    judgements = _judgements(paths, report)
    if not judgements:
        raise InputError(
            f"{', '.join(os.fspath(path) for path in paths)}: no judgement counts yet; nothing was written."
        )
    report.examination = Examination.fit(judgements)
    lines = list(_lines(judgements, report))
    replace_lines(report.path, ("feedback",), lines)
    report.texts, report.videos = len(lines), len({line["id"] for line in lines})
    if unanswerable is not None:
        with write_atomically(Path(unanswerable)) as part:
            part.write_text("".join(f"{query}\n" for query in report.unanswerable), "utf-8")
    report.seconds = perf_counter() - started
    return report


def feedback_queries(path: str | PathLike[str]) -> list[str]:
    """Return the distinct queries of a file of feedback: those of judgements, and those that were logged.

    Raises:
        InputError: the file cannot be read or holds no feedback.
    """
    entries = (entry for _, entry in read_entries(Path(path)))
    return list(dict.fromkeys(_text(e.query) for e in entries if isinstance(e, Judgement | LoggedQuery)))


def _text(query: str) -> str:
    return " ".join(query.split())


def _judgements(paths: Sequence[str | PathLike[str]], report: FeedbackReport) -> list[Judgement]:
    """Read the judgements that count, the oldest first: the last one of each search, tab and query."""
    standing, number = standing_entries(paths, Judgement, report.faults)
    of_person = {(each.session or each.search, _text(each.query)): each for each in standing}
    counted = sorted(of_person.values(), key=lambda each: each.time)
    report.judgements = len(counted)
    report.repeated = number - len(counted)
    report.collections = sorted({each.collection for each in counted})
    return counted


def _lines(judgements: list[Judgement], report: FeedbackReport) -> Iterator[dict[str, Any]]:
    """Build the lines of the pairs file, and collect the queries that nothing fits."""
    segments = _Segments()
    by_query: defaultdict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        by_query[_text(judgement.query)].append(judgement)
        if judgement.chosen is not None:
            segments.add(judgement.chosen)
    for query, several in by_query.items():
        chosen = sum(each.chosen is not None for each in several)
        none = sum(each.chosen is None and not each.filtered for each in several)
        if none > chosen:
            report.unanswerable.append(query)
        for key in dict.fromkeys(segments.key(each.chosen.id) for each in several if each.chosen is not None):
            confidence = _confidence(segments.ids(key), several, report.examination)
            if confidence < _LEAST_CONFIDENCE:
                report.left_out["others chose otherwise, or none"] += 1
                continue
            yield _line(segments.latest(key), query, confidence)


def _line(segment: Chosen, query: str, confidence: float) -> dict[str, Any]:
    line: dict[str, Any] = {} if segment.path is None else {"video": segment.path}
    start, end = segment.start or 0.0, segment.end or 0.0
    if segment.path is not None and start < end:
        line |= {"start": start, "end": end}
    return line | {
        "text": [query],
        "source": "feedback",
        "confidence": round(confidence, 4),
        "id": segment.id,
    }


def _confidence(ids: set[str], judgements: list[Judgement], examination: Examination) -> float:
    """Return the probability that a segment is right for a query, by all judgements of the query."""
    log_odds = 0.0
    for judgement in judgements:
        if judgement.chosen is not None and judgement.chosen.id in ids:
            log_odds -= math.log(TRUST * examination.of(judgement.chosen.rank))
        else:
            seen = examination.of_any(_ranks(judgement, ids).values())
            log_odds += math.log1p(-(1 - PASSED) * seen)
    return 1 / (1 + math.exp(-max(min(log_odds, 30.0), -30.0)))


def _ranks(judgement: Judgement, ids: set[str]) -> dict[str, int]:
    """Return the rank of a segment in each ranking that shows it."""
    found = {}
    for side, shown in judgement.shown.items():
        rank = next((rank for rank, id in enumerate(shown, 1) if id in ids), None)
        if rank is not None:
            found[str(side)] = rank
    return found


class _Segments:
    """Segments that were chosen. Those of one id, or of one span of one file, are one.

    A collection that was built anew may have other ids, and a file that was moved another path.
    """

    def __init__(self) -> None:
        self._groups: dict[object, int] = {}
        self._members: dict[int, list[Chosen]] = {}

    def add(self, chosen: Chosen) -> None:
        """Add a segment; the one that is added last stands for its group."""
        names: list[object] = [chosen.id]
        if chosen.path is not None:
            names.append((chosen.path, chosen.start, chosen.end))
        groups = {self._groups[name] for name in names if name in self._groups}
        key = min(groups, default=len(self._groups))
        members = [member for group in sorted(groups) for member in self._members.pop(group)]
        self._members[key] = [*members, chosen]
        if len(groups) > 1:
            self._groups.update({name: key for name, group in self._groups.items() if group in groups})
        self._groups.update(dict.fromkeys(names, key))

    def key(self, id: str) -> int:
        """Return the number of the group of an id."""
        return self._groups[id]

    def ids(self, key: int) -> set[str]:
        """Return the ids of a group."""
        return {member.id for member in self._members[key]}

    def latest(self, key: int) -> Chosen:
        """Return the segment of a group that was chosen last."""
        return self._members[key][-1]
