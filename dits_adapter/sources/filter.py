"""Filter of a file of pairs: found texts that do not fit their own video, by an encoder, are deleted from it."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import defaultdict, deque
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dits_adapter._wording import counted, printable
from dits_adapter.data.embed import embed
from dits_adapter.data.pairs import load_pairs
from dits_adapter.data.pairs_file import PairsFile
from dits_adapter.data.provenance import JUDGES
from dits_adapter.sources._filters import LEAST_VIDEOS, fit_probabilities
from dits_adapter.sources._writer import keep_texts
from dits_adapter.texts import shown

if TYPE_CHECKING:
    from dits_adapter.video.encoder import VideoEncoder

__all__ = ["FilterReport", "filter_pairs"]

_EXAMPLES = 3
"""Deleted texts that are shown."""


@dataclass
class FilterReport:
    """Report of a filter.

    Attributes:
        path: the pairs file.
        judged: number of texts that were judged; those that people wrote for their video are not.
        deleted: number of texts that were deleted.
        examples: some of those, the least likely first.
        reason: why nothing could be judged; empty where it could.
    """

    path: Path
    judged: int = 0
    deleted: int = 0
    examples: list[str] = field(default_factory=list)
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"filter   left all texts in {self.path}: {self.reason}"
        judged = counted(self.judged, "text")
        if not self.deleted:
            return f"filter   of {judged} none fits other videos as well as its own"
        lines = [f"filter   deleted {self.deleted:,} of {judged}: no better for the video than for others"]
        return "\n".join([*lines, *(f"  {printable(text)}" for text in self.examples)])


def filter_pairs(path: str | PathLike[str], encoder: VideoEncoder, *, progress: bool = True) -> FilterReport:
    """Delete found texts from a pairs file that, by an encoder, more likely than not do not fit their video.

    Texts that people wrote for the video (`human`, `feedback`) stay, and so do those of videos that cannot be
    read. The vectors are kept beside the file while they are made, and a killed run goes on with them.

    Args:
        path: the pairs file (.jsonl).
        encoder: encoder of texts and videos; what it cannot tell apart it deletes.
        progress: show progress bars on a terminal.

    Raises:
        InputError: the file cannot be read or has bad lines, or was changed meanwhile.
        DITSError: not one of its videos can be read.
    """
    file = PairsFile(path)
    report = FilterReport(file.path)
    texts = list(file.iter_texts())
    found = np.array([text.source not in JUDGES for text in texts])
    if file.videos < LEAST_VIDEOS or not found.any():
        report.reason = (
            f"it takes texts of {LEAST_VIDEOS} videos or spans to tell, and these are {file.videos}"
            if found.any()
            else "people wrote all of them for these videos"
        )
        return report
    cache = file.path.with_name(f"{file.path.name}.vectors")
    embed(file, cache, encoder, progress=progress)
    pairs = load_pairs(cache)
    rows: defaultdict[str, deque[int]] = defaultdict(deque)
    for row, label in enumerate(pairs.labels):
        rows[pairs.video_ids[label]].append(row)
    ids = [video.id for video in file.iter_videos()]
    place = np.array([rows[name].popleft() if rows[name] else -1 for name in (ids[text.video] for text in texts)])
    wordings = np.array([_wording(text.text) for text in texts])
    judged = np.flatnonzero(found & (place >= 0))
    same = np.unique(wordings[judged], return_inverse=True)[1]
    fits = fit_probabilities(pairs.text[place[judged]], pairs.video, pairs.labels[place[judged]], same)
    shutil.rmtree(cache)
    if not (fits >= 0.5).any():
        report.reason = "by this encoder none of them fits its own video better than others"
        return report
    keep = np.ones(len(texts), bool)
    keep[judged] = fits >= 0.5
    keep_texts(file.path, file.sha256, keep)
    worst = judged[np.argsort(fits, kind="stable")]
    said = dict.fromkeys(texts[row].text for row in worst if not keep[row])
    report.judged, report.deleted = len(judged), int((~keep).sum())
    report.examples = [shown(text) for text in list(said)[:_EXAMPLES]]
    return report


def _wording(text: str) -> int:
    """Return a number that texts share that differ in case and punctuation alone."""
    words = " ".join(re.findall(r"\w+", text.casefold()))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:7], "big")
