"""Tally of blind comparisons: which of two rankings people prefer, query by query, with an interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Literal

from dits_adapter._wording import counted, printable
from dits_adapter.evaluation.metrics import Interval
from dits_adapter.evaluation.preference import sequential_interval
from dits_adapter.sources._feedback_file import AdapterInUse, Preference, Side, standing_entries

__all__ = ["PreferenceReport", "PreferenceTally", "tally_preferences"]

_Outcome = Literal["adapted", "plain", "both", "neither", "split", "same"]

_SHOWN_FAULTS = 3


@dataclass(frozen=True, kw_only=True)
class PreferenceTally:
    """Tally of the blind comparisons of one adapter with plain CLIP in one collection, a vote a query.

    A query of several judges goes to the ranking that more of them prefer.

    Attributes:
        collection: name of the collection.
        tenant: whose videos were searched; None in a collection that keeps no tenants apart.
        adapter: the adapter.
        bias: weight of the collection's score bias in each ranking.
        adapted, plain: queries for which the ranking of the adapter, or that of plain CLIP, was preferred.
        both, neither: queries for which both rankings were good, or neither.
        split: queries whose judges prefer the one and the other as often.
        same: queries whose two rankings are equal, of which nobody was asked.
        judges: number of browsers in which somebody judged.
        judgements: number of judgements that count: the last one of each judge and query.
        left, right: of these, how many preferred the ranking on this side of the screen.
        share: share of the adapter among the queries with a preference; None where there are none.
        interval: 95 % interval of that share, which may be looked at after every query (`sequential_interval`).
        better: ranking that is preferred more often, by more than chance; None while that is not decided.
    """

    collection: str
    tenant: str | None
    adapter: AdapterInUse
    bias: dict[Side, float]
    adapted: int = 0
    plain: int = 0
    both: int = 0
    neither: int = 0
    split: int = 0
    same: int = 0
    judges: int = 0
    judgements: int = 0
    left: int = 0
    right: int = 0
    share: float | None = field(init=False)
    interval: Interval = field(init=False)
    better: Side | None = field(init=False)

    def __post_init__(self) -> None:
        preferred = self.adapted + self.plain
        interval = sequential_interval(self.adapted, preferred)
        plain: Side | None = "plain" if interval.high < 0.5 else None
        object.__setattr__(self, "share", self.adapted / preferred if preferred else None)
        object.__setattr__(self, "interval", interval)
        object.__setattr__(self, "better", "adapted" if interval.low > 0.5 else plain)

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.adapted + self.plain + self.ties

    @property
    def ties(self) -> int:
        """Number of queries without a preference."""
        return self.both + self.neither + self.split + self.same

    @property
    def verdict(self) -> str:
        """Sentence that says whether it is decided."""
        if self.share is None:
            return "Not decided: there is no query yet for which one ranking was preferred."
        low, high = self.interval
        shares = (
            f"the adapter was preferred for {self.adapted} of "
            f"{counted(self.adapted + self.plain, 'query', 'queries')} with a "
            f"preference ({100 * self.share:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %)"
        )
        if self.better is None:
            return f"Not decided: {shares}."
        return f"Decided for {'the adapter' if self.better == 'adapted' else 'plain CLIP'}: {shares}."

    def __str__(self) -> str:
        name = self.adapter.name or "an adapter that was not saved"
        steps = "" if self.adapter.steps is None else f", {counted(self.adapter.steps, 'step')}"
        weights = "".join(f", score bias {weight:g} {side}" for side, weight in self.bias.items() if weight)
        of_tenant = "" if self.tenant is None else f" of {self.tenant!r}"
        return "\n".join(
            [
                f"{printable(name)} ({self.adapter.kind}, {self.adapter.digest[:12] or 'no digest'}, strength "
                f"{self.adapter.strength:g}{steps}{weights}) in {printable(self.collection)!r}{of_tenant}",
                f"  queries {self.queries:,}: adapted better {self.adapted:,}, plain better {self.plain:,}, both "
                f"good {self.both:,}, neither {self.neither:,}, split {self.split:,}, same rankings {self.same:,}",
                f"  judges  {self.judges:,}, {counted(self.judgements, 'judgement')}: left {self.left:,}, right "
                f"{self.right:,}",
                f"  {self.verdict}",
            ]
        )


@dataclass(frozen=True)
class PreferenceReport:
    """Report of the blind comparisons in files of feedback.

    Attributes:
        tallies: tally of each adapter and collection; the one that was judged last stands last.
        faults: lines that are no entries, each with its place and what is wrong.
    """

    tallies: list[PreferenceTally]
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [str(tally) for tally in self.tallies] or ["nobody has compared rankings yet"]
        if self.faults:
            lines.append(f"skipped {counted(len(self.faults), 'line that is', 'lines that are')} no feedback")
            lines += [f"  {printable(fault)}" for fault in self.faults[:_SHOWN_FAULTS]]
        return "\n".join(lines)


def tally_preferences(files: str | PathLike[str] | Iterable[str | PathLike[str]]) -> PreferenceReport:
    """Count the blind comparisons of the search page, by adapter and collection.

    Args:
        files: files that `dits-adapter serve --feedback` has written.

    Raises:
        InputError: a file cannot be read or holds no feedback.
    """
    paths = [files] if isinstance(files, (str, PathLike)) else list(files)
    faults: list[str] = []
    groups: dict[tuple[object, ...], list[Preference]] = {}
    for preference in _counted(paths, faults):
        groups.setdefault(_subject(preference), []).append(preference)
    latest = sorted(groups.values(), key=lambda group: group[-1].time)
    return PreferenceReport([_tally(group) for group in latest], faults)


def _counted(paths: Sequence[str | PathLike[str]], faults: list[str]) -> Iterator[Preference]:
    """Yield the judgements that count, the oldest first: the last one of each judge and query."""
    standing, _ = standing_entries(paths, Preference, faults)
    of_judge = {(*_subject(each), each.session or each.search, _text(each)): each for each in standing}
    yield from sorted(of_judge.values(), key=lambda each: each.time)


def _subject(preference: Preference) -> tuple[object, ...]:
    """Return what was compared where: the adapter as it ran, and the collection."""
    adapter = preference.adapter
    return (
        preference.collection,
        preference.tenant,
        preference.space,
        adapter.kind,
        adapter.digest,
        adapter.strength,
        adapter.steps,
        *sorted(preference.bias.items()),
    )


def _tally(preferences: Sequence[Preference]) -> PreferenceTally:
    of_query: dict[str, list[Preference]] = {}
    for preference in preferences:
        of_query.setdefault(_text(preference), []).append(preference)
    outcomes: Counter[str] = Counter(map(_outcome, of_query.values()))
    sides = Counter(preference.better for preference in preferences)
    last = preferences[-1]
    return PreferenceTally(
        collection=last.collection,
        tenant=last.tenant,
        adapter=last.adapter,
        bias=last.bias,
        **outcomes,
        judges=len({each.session for each in preferences}),
        judgements=len(preferences),
        left=sides["left"],
        right=sides["right"],
    )


def _outcome(preferences: Sequence[Preference]) -> _Outcome:
    """Return the vote of one query."""
    sides = Counter(each.preferred for each in preferences)
    if sides["adapted"] != sides["plain"]:
        return "adapted" if sides["adapted"] > sides["plain"] else "plain"
    if sides["adapted"]:
        return "split"
    equal = Counter(each.better for each in preferences)
    if equal["same"] == len(preferences):
        return "same"
    return "neither" if equal["neither"] > equal["both"] else "both"


def _text(preference: Preference) -> str:
    return " ".join(preference.query.split())
