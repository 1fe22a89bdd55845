"""Modality gap before and after an adapter, in numbers and pictures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dits_adapter._extras import require_modules
from dits_adapter._files import require_writable
from dits_adapter._reports import plain_report
from dits_adapter.adapters import Adapter, DITSAdapter
from dits_adapter.data._named import PairsSource
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation.gap import GapStatistics, GapStep, gap_steps, with_noise
from dits_adapter.tasks._measured import MOST_VIDEOS, AdapterSource, Measured
from dits_adapter.vectors import FloatArray, unit

__all__ = ["GapReport", "measure_gap"]


_NOISE = "noise {:g}: expected a factor of at least 0, and an adapter of kind dits."


@dataclass(frozen=True)
class GapReport:
    """Modality gap of pairs before and after an adapter; `str` of it is a table.

    Attributes:
        pairs: number of pairs that were measured.
        statistics: `plain CLIP` and `adapted`; with noise also `noise on`, and of a second adapter
            `plain CLIP, against` and `adapted, against`.
        steps: steps of a sampler, in the order in which they are taken; empty for other adapters.
        notes: sentences about the pairs.
        written: folder of the pictures and of this report as `statistics.json`; None where none was asked for.
    """

    pairs: int
    statistics: dict[str, GapStatistics]
    steps: tuple[GapStep, ...]
    notes: tuple[str, ...]
    written: Path | None

    def __str__(self) -> str:
        lines = [*self.notes, f"{'':20}{'means apart':>12}{'L2':>8}{'L1':>8}{'cosine':>8}   ({self.pairs} pairs)"]
        for name, s in self.statistics.items():
            lines.append(f"{name:20}{s.means_apart:12.3f}{s.l2:8.3f}{s.l1:8.2f}{s.cosine:8.3f}")
        if self.steps:
            lines.append(f"\n{'step t':>8}{'bias, norm':>12}{'λ':>8}{'L2 left':>9}{'cosine':>8}")
        for step in self.steps:
            left = step.left
            lines.append(f"{step.t:8}{step.bias:12.3f}{step.scale:8.3f}{left.l2:9.3f}{left.cosine:8.3f}")
        if self.written is not None:
            lines.append(f"pictures and figures in {self.written}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Vectors:
    """Unit vectors of pairs, row by row, (n, d): texts, adapted texts and their videos."""

    text: FloatArray
    adapted: FloatArray
    video: FloatArray

    @classmethod
    def of(cls, adapter: Adapter, pairs: Pairs) -> _Vectors:
        adapted = unit(adapter.for_inference().adapt(pairs.text))
        return cls(unit(pairs.text), adapted, unit(pairs.video)[pairs.labels])


def measure_gap(
    adapter: AdapterSource,
    pairs: PairsSource,
    out: str | PathLike[str] | None = None,
    *,
    against: tuple[AdapterSource, PairsSource] | None = None,
    noise: float = 0.0,
    queries: int = 12,
    most_videos: int = MOST_VIDEOS,
) -> GapReport:
    """Measure the gap between matching texts and videos before and after an adapter, and draw it.

    Of the pairs that the adapter was trained with, those are taken that training held out.

    Args:
        adapter: folder, bundled name or hub id of a trained adapter, or the artifact.
        pairs: cache of pairs, or the pairs.
        out: folder for the pictures: the plane of both means (`plane.png`), the histograms of Figs 3 to 6
            (`histograms.png`), the paths of some queries (`trajectories.png`, of a sampler), with `against` the
            two adapters (`comparison.png`); and `statistics.json`. None draws nothing.
        against: a second adapter, and the same pairs in its space, as of a CLIP that was trained along (Table 9).
        noise: factor on the noise of Eq. 8, with which a DITS is measured as well; 1 is the paper's, 0 none.
        queries: number of trajectories to draw.
        most_videos: videos to measure on; of more as many are drawn, with a warning.

    Raises:
        ArtifactError, DITSError: adapter or pairs cannot be loaded.
        InputError: texts and videos in two spaces, noise for another adapter than DITS or out of range, other
            pairs than those of the second adapter, fewer than 2 videos, or no query.
        MissingExtraError: matplotlib is not installed, which draws the pictures.
        SpaceMismatchError: pairs of another space than their adapter's.
    """
    if queries < 1:
        raise InputError(f"queries is {queries}; expected at least 1 trajectory to draw.")
    if not 0 <= noise < np.inf:
        raise InputError(_NOISE.format(noise))
    folder = None if out is None else Path(out)
    if folder is not None:
        require_modules("pictures of the gap", "matplotlib")
        require_writable(folder)
    first = _open(adapter, pairs, most_videos)
    own, measured = first.artifact.adapter, first.pairs
    second = other_pairs = None
    if against is not None:
        second = _open(*against, most_videos)
        measured, other_pairs = _common(measured, second.pairs)
    if noise and not isinstance(own, DITSAdapter):
        raise InputError(_NOISE.format(noise))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    vectors = _Vectors.of(own, measured)
    statistics = {
        "plain CLIP": GapStatistics.of(vectors.text, vectors.video),
        "adapted": GapStatistics.of(vectors.adapted, vectors.video),
    }
    if noise and isinstance(own, DITSAdapter):
        statistics["noise on"] = GapStatistics.of(with_noise(own, measured.text, noise), vectors.video)
    others = None
    if second is not None and other_pairs is not None:
        others = _Vectors.of(second.artifact.adapter, other_pairs)
        statistics["plain CLIP, against"] = GapStatistics.of(others.text, others.video)
        statistics["adapted, against"] = GapStatistics.of(others.adapted, others.video)
    ready = own.for_inference()
    steps: tuple[GapStep, ...] = ()
    if isinstance(own, DITSAdapter) and ready.has_trajectory and own.steps:
        steps = tuple(gap_steps(own, measured.text, vectors.video))
    report = GapReport(len(measured), statistics, steps, first.notes, folder)
    if folder is not None:
        _draw(folder, vectors, caption=first.pairs_name)
        if others is not None and second is not None:
            _draw_comparison(folder, vectors, others, _names(first.adapter_name, second.adapter_name))
        if ready.has_trajectory:
            _draw_trajectories(ready, measured, queries, folder / "trajectories.png")
        written = json.dumps(plain_report(report), indent=1) + "\n"
        (folder / "statistics.json").write_text(written, "utf-8")
    return report


def _open(adapter: AdapterSource, pairs: PairsSource, most_videos: int) -> Measured:
    measured = Measured.open(adapter, pairs, most_videos)
    measured.artifact.space.require_shared()
    return measured


def _common(first: Pairs, second: Pairs) -> tuple[Pairs, Pairs]:
    """Return the pairs of the videos that both have, which have to be the same pairs.

    Raises:
        InputError: they are pairs of other videos, or of other texts.
    """
    shared = set(first.video_ids) & set(second.video_ids)
    parts = [
        pairs.of_videos(np.array([row for row, name in enumerate(pairs.video_ids) if name in shared], np.int64))
        for pairs in (first, second)
    ]
    if not shared or list(parts[0].video_ids) != list(parts[1].video_ids):
        raise InputError("against: the two caches share no videos in one order; embed one PAIRS.jsonl with both.")
    if not np.array_equal(parts[0].labels, parts[1].labels):
        raise InputError(
            "against: the videos of the two caches have other texts; embed one PAIRS.jsonl with both."
        )
    return parts[0], parts[1]


def _names(first: str, second: str) -> tuple[str, str]:
    """Return the last parts of two paths, or the whole paths where these are the same."""
    short = Path(first).name, Path(second).name
    return short if short[0] != short[1] else (first, second)


def _draw(folder: Path, vectors: _Vectors, caption: str) -> None:
    from dits_adapter.evaluation._figures import gap_histograms, gap_picture

    gap_picture(vectors.text, vectors.adapted, vectors.video, folder / "plane.png", caption=caption)
    gap_histograms(vectors.text, vectors.adapted, vectors.video, folder / "histograms.png")


def _draw_comparison(folder: Path, first: _Vectors, second: _Vectors, names: tuple[str, str]) -> None:
    from dits_adapter.evaluation._figures import gap_comparison

    sides: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = [
        (each.adapted, each.video) for each in (first, second)
    ]
    gap_comparison(sides[0], sides[1], names, folder / "comparison.png")


def _draw_trajectories(adapter: Adapter, pairs: Pairs, queries: int, path: Path) -> None:
    """Draw the paths of some queries, chosen at random."""
    from dits_adapter.evaluation._figures import trajectories

    chosen = np.random.default_rng(0).choice(len(pairs), min(queries, len(pairs)), replace=False)
    with torch.inference_mode():
        texts = torch.from_numpy(pairs.text[np.sort(chosen)])
        points = [texts, *adapter.trajectory(texts)]  # the flow may start beyond the query
    trajectories(torch.stack(points).numpy(), unit(pairs.text), unit(pairs.video), path)
