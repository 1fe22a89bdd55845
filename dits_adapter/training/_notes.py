"""Sentences about the pairs of a training: what was kept together, what judged, and what that is worth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from dits_adapter._wording import counted
from dits_adapter.data.pairs import LEAST_JUDGES, Pairs
from dits_adapter.data.provenance import JUDGES, MACHINES

__all__ = ["Split", "measuring_notes", "sources_of", "split_notes"]

Split = tuple[Pairs, Pairs, Pairs]
"""Training, validation and test pairs."""


def sources_of(split: Split) -> dict[str, dict[str, int]]:
    """Return the number of texts of each source, for each part; empty where all texts are of people."""
    if all(part.marks is None for part in split):
        return {}
    return {name: part.sources for name, part in zip(("train", "validation", "test"), split, strict=True)}


def split_notes(splits: Sequence[Split]) -> tuple[str, ...]:
    """Return what is to be known of splits, one for each fold.

    Of pairs whose texts are all of people, and whose videos do not belong together, there is nothing to say.
    """
    tests = [test for _, _, test in splits]
    marked = any(sources_of(split) for split in splits)
    return tuple(filter(None, [_together(splits[0]), *_measured_on(tests, marked)]))


def measuring_notes(pairs: Pairs) -> tuple[str, ...]:
    """Return what is to be known of pairs that adapters are measured on; mostly nothing."""
    return tuple(filter(None, _measured_on([pairs], pairs.marks is not None)))


def _measured_on(tests: Sequence[Pairs], marked: bool) -> list[str]:
    return [_copies(tests), _twins(tests), _left_out(tests), _judged_by(tests) if marked else ""]


def _together(split: Split) -> str:
    joined = {
        name: sum(int(getattr(part.groups, field).sum()) for part in split)
        for field, name in (
            ("of_files", "as parts of one file"),
            ("of_vectors", "as near-duplicates by vector"),
            ("of_texts", "by their texts"),
        )
    }
    some = [f"{count:,} {name}" for name, count in joined.items() if count]
    if not some:
        return ""
    count, groups = (sum(sizes) for sizes in zip(*((len(p.video), len(p.groups)) for p in split), strict=True))
    return (
        f"Videos that belong together are on one side of each split: {', '.join(some)}, so that {count:,} videos "
        f"are {counted(groups, 'group')}."
    )


def _copies(tests: Sequence[Pairs]) -> str:
    count = sum(test.copies_left_out for test in tests)
    if not count:
        return ""
    left = counted(count, "copy of a searched video is", "copies of searched videos are")
    return f"{left} left out: texts of copies ask for the one that stays."


def _twins(tests: Sequence[Pairs]) -> str:
    count = 0
    for test in tests:
        alike = test.groups.alike
        count += int((np.bincount(alike)[alike] > 1).sum())
    if not count:
        return ""
    return (
        f"{counted(count, 'searched video has', 'searched videos have')} a near-duplicate, or one of the "
        "same texts, among those searched together: finding that one counts as wrong."
    )


def _left_out(tests: Sequence[Pairs]) -> str:
    counts: Counter[str] = Counter()
    for test in tests:
        counts.update(test.left_out)
    some = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return f"Texts of the test videos that judge nothing: {', '.join(some)}." if some else ""


def _judged_by(tests: Sequence[Pairs]) -> str:
    counts: Counter[str] = Counter()
    for test in tests:
        counts.update(test.sources)
    shown = _counted(counts)
    if not set(counts) - set(JUDGES):
        did = {"human": "wrote for this", "feedback": "chose a hit for"}
        said = " or ".join(did[source] for source in JUDGES if counts[source])
        return f"Judged by texts that people {said}: {shown}."
    of_people = sum(counts[source] for source in JUDGES)
    few = (
        f"People wrote only {of_people:,} of them for this; those alone judge from {2 * LEAST_JUDGES} videos on."
        if of_people
        else f"Texts that people write for {2 * LEAST_JUDGES} videos or more would judge in their place."
    )
    whose = "a model wrote" if set(counts) & set(MACHINES) else "people wrote for something else"
    return (
        f"Judged by texts that {whose}: {shown}. The figures say how well a video is found by such texts, not by "
        f"what people ask for. {few}"
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {source}" for source, count in counts.items())
