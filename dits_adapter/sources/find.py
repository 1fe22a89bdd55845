"""Texts of many videos into a file of pairs, so that a run can be stopped at any time and gone on with."""

from __future__ import annotations

import time
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from dits_adapter._progress import progress_bar
from dits_adapter.errors import InputError, VideoError
from dits_adapter.sources._writer import PairsWriter
from dits_adapter.sources.base import Findings, TextFinder
from dits_adapter.sources.report import PairsReport
from dits_adapter.stores._discover import absolute, find_videos, stat_video
from dits_adapter.stores.report import IngestReport

__all__ = ["find_pairs"]


def find_pairs(
    paths: str | PathLike[str] | Iterable[str | PathLike[str]],
    out: str | PathLike[str],
    finder: TextFinder,
    *,
    retry_failed: bool = False,
    progress: bool = True,
) -> PairsReport:
    """Find texts for the videos of folders and files, and add them to a file of pairs.

    Videos that an earlier run has done are skipped, and their lines stay as they are, edited or deleted by hand.
    Where a video, a file that is read with it or the finder's settings have changed, its new lines take the place
    of the old ones. Lines of other sources stay.

    Args:
        paths: folders, or video files.
        out: the pairs file (.jsonl). Videos below its folder are named relative to it.
        finder: the way to the texts.
        retry_failed: try unchanged videos again of which a file failed before.
        progress: show a progress bar on a terminal.

    Raises:
        InputError: no such folder; or the pairs file cannot be written, or holds something else.
    """
    started = time.perf_counter()
    report = PairsReport(Path(out))
    listed = IngestReport()
    places = absolute(paths)
    finder.begin(places)
    videos = find_videos(places, listed)
    report.ignored, report.failed = listed.ignored, listed.failed
    with PairsWriter(report.path, finder) as writer:
        todo = []
        for path in videos:
            try:
                stat_video(path)  # refuses pipes, devices and names that are no UTF-8
            except VideoError as error:
                report.failed[error.path] = error.reason
                continue
            entry = writer.entry(path)
            if entry is None or (retry_failed and "failed" in entry):
                todo.append(path)
                continue
            failed = entry.get("failed", {})
            report.present += 1
            report.failed |= failed
            report.failed_before += len(failed)
        writer.forget(todo)
        for path in progress_bar(todo, desc=finder.name, unit="video", progress=progress and bool(todo)):
            _do(path, writer, finder, report)
    rest = finder.leftovers()
    report.failed |= rest.failed
    report.left_out += rest.left_out
    report.seconds = time.perf_counter() - started
    return report


def _do(path: str, writer: PairsWriter, finder: TextFinder, report: PairsReport) -> None:
    """Find and write the texts of one video; where it fails, its reason goes into the report."""
    state = finder.state(path)
    try:
        findings = finder.find(path)
    except VideoError as error:
        findings = Findings(failed={path: error.reason})
    except InputError as error:
        findings = Findings(failed={path: str(error)})
    texts = writer.add(path, state, findings)
    report.texts += texts
    report.videos += texts > 0
    report.without_texts += not texts and not findings.failed
    report.left_out += findings.left_out
    report.failed |= findings.failed
