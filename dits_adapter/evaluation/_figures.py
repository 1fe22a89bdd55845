"""Figures of the modality gap and of calibration. They need matplotlib (the extra `figures`)."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dits_adapter._extras import require_modules
from dits_adapter.errors import InputError, MissingExtraError
from dits_adapter.evaluation._learning_curve import LearningCurve
from dits_adapter.evaluation.calibration import CalibrationFit
from dits_adapter.evaluation.reliability import HITS

__all__ = [
    "ADAPTED",
    "TEXT",
    "VIDEO",
    "check_figure",
    "gap_comparison",
    "gap_histograms",
    "gap_picture",
    "learning_curve_plot",
    "new_axes",
    "reliability_plot",
    "trajectories",
]

TEXT, VIDEO, ADAPTED = "#c2571a", "#1f6f8b", "#4a8f29"


def check_figure(path: str | PathLike[str], option: str) -> None:
    """Refuse a figure that could not be drawn or written, before what it shows is computed.

    Args:
        path: picture to write; folders above it are made.
        option: option that asks for it, which begins the error.

    Raises:
        MissingExtraError: matplotlib is not installed.
        InputError: a kind of file that matplotlib does not write, or a folder that may not be written.
    """
    require_modules(option, "matplotlib")
    from matplotlib.backend_bases import FigureCanvasBase

    picture, kinds = Path(path), FigureCanvasBase.get_supported_filetypes()
    if picture.suffix[1:].lower() not in kinds:
        raise InputError(f"{option} {picture}: no kind of picture; name it FILE.png ({', '.join(sorted(kinds))}).")
    picture.parent.mkdir(parents=True, exist_ok=True)
    if picture.is_dir() or not os.access(picture.parent, os.W_OK):
        raise InputError(f"{option} {picture}: cannot be written there; choose another place.")


def new_axes(rows: int, columns: int, size: tuple[float, float], *, sharey: bool = False) -> tuple[Any, Any]:
    """Return a figure of `size` inches and its axes, an array (rows, columns); the frame of every figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "figures", "drawing a figure") from None
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, sharey=sharey, squeeze=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def gap_picture(
    text: NDArray[np.floating],
    adapted: NDArray[np.floating],
    video: NDArray[np.floating],
    path: str | PathLike[str],
    *,
    caption: str,
) -> None:
    """Draw the modality gap before and after: both modalities in the plane, and the cosines of matching pairs.

    The plane is spanned by the line between the means of text and video and by the direction of the largest
    spread orthogonal to it, so that a gap cannot hide.

    Args:
        text: unit text vectors as plain CLIP gives them, (n, d).
        adapted: the same texts after the adapter, unit, (n, d).
        video: unit vector of each text's video, row by row, (n, d).
        path: PNG to write.
        caption: origin of the vectors; stands in the picture.
    """
    across = video.mean(0) - text.mean(0)
    across = across / (np.linalg.norm(across) or 1.0)  # there may be no gap
    centered = np.concatenate([text, video]) - np.concatenate([text, video]).mean(0)
    centered = centered - np.outer(centered @ across, across)
    along = np.linalg.svd(centered, full_matrices=False)[2][0]
    plane = np.stack([across, along], axis=1)
    figure, axes = new_axes(1, 3, (12, 3.8))
    for axis, points, title in ((axes[0, 0], text, "plain CLIP"), (axes[0, 1], adapted, "with the adapter")):
        axis.scatter(*(video @ plane).T, s=6, color=VIDEO, alpha=0.5, label="videos")
        color = TEXT if points is text else ADAPTED
        axis.scatter(*(points @ plane).T, s=6, color=color, alpha=0.5, label="queries")
        distance = np.linalg.norm(points.mean(0) - video.mean(0))
        axis.set(title=f"{title}: means {distance:.2f} apart", xlabel="across the gap", ylabel="largest spread")
        axis.legend(frameon=False, markerscale=2)
    axes[0, 1].sharex(axes[0, 0])
    axes[0, 1].sharey(axes[0, 0])
    bins = np.linspace(-0.2, 1, 49)
    for points, color, label in ((text, TEXT, "plain CLIP"), (adapted, ADAPTED, "with the adapter")):
        axes[0, 2].hist(np.sum(points * video, axis=1), bins, color=color, alpha=0.6, label=label)
    axes[0, 2].set(title="a query and its own video", xlabel="cosine", ylabel="pairs")
    axes[0, 2].legend(frameon=False)
    figure.suptitle(caption, fontsize=9, color="#555555")
    figure.savefig(path, dpi=120)


def gap_histograms(
    text: NDArray[np.floating],
    adapted: NDArray[np.floating],
    video: NDArray[np.floating],
    path: str | PathLike[str],
) -> None:
    """Draw the gap δ = v − t of matching pairs before and after: L2 and L1 norm, cosine, and gain of each pair.

    The first is the paper's Fig 3; `gap_comparison` draws two adapters, its Figs 4 to 6. Arguments as for
    `gap_picture`.
    """
    figure, axes = new_axes(2, 2, (9, 6.4))
    before, after = video - text, video - adapted
    cosines = np.sum(text * video, axis=1), np.sum(adapted * video, axis=1)
    for axis, title, values in (
        (axes[0, 0], "L2 norm of the gap", (np.linalg.norm(before, axis=1), np.linalg.norm(after, axis=1))),
        (axes[0, 1], "L1 norm of the gap", (np.abs(before).sum(1), np.abs(after).sum(1))),
        (axes[1, 0], "cosine of a pair", cosines),
    ):
        bins = _edges(np.concatenate(values), 40)
        for points, color, label in zip(values, (TEXT, ADAPTED), ("plain CLIP", "adapted"), strict=True):
            axis.hist(points, bins, color=color, alpha=0.6, label=f"{label}: mean {points.mean():.3f}")
        axis.set(xlabel=title, ylabel="pairs")
        axis.legend(frameon=False)
    axes[1, 1].scatter(cosines[0], cosines[1], s=5, color=ADAPTED, alpha=0.4)
    low, high = min(c.min() for c in cosines), max(c.max() for c in cosines)
    axes[1, 1].plot([low, high], [low, high], color="#999999", linewidth=1)
    gained = 100 * float(np.mean(cosines[1] > cosines[0]))
    axes[1, 1].set(
        xlabel="cosine with plain CLIP", ylabel="cosine adapted", title=f"{gained:.0f} % of the pairs gain"
    )
    figure.savefig(path, dpi=120)


def gap_comparison(
    first: tuple[NDArray[np.floating], NDArray[np.floating]],
    second: tuple[NDArray[np.floating], NDArray[np.floating]],
    names: tuple[str, str],
    path: str | PathLike[str],
) -> None:
    """Draw the gap of the same pairs under two adapters, as a fixed CLIP and one trained along (Figs 4 to 6).

    Args:
        first: unit vectors of the adapted texts and of their videos, row by row, (n, d) each.
        second: the same of the other adapter, whose d may be another.
        names: names of the two.
        path: PNG to write.
    """
    figure, axes = new_axes(2, 2, (9, 6.4))
    deltas = [video - text for text, video in (first, second)]
    cosines = [np.sum(text * video, axis=1) for text, video in (first, second)]
    for axis, title, values in (
        (axes[0, 0], "L2 norm of the gap", [np.linalg.norm(delta, axis=1) for delta in deltas]),
        (axes[0, 1], "L1 norm of the gap", [np.abs(delta).sum(axis=1) for delta in deltas]),
        (axes[1, 0], "cosine of a pair", cosines),
    ):
        bins = _edges(np.concatenate(values), 40)
        for points, color, label in zip(values, (VIDEO, ADAPTED), names, strict=True):
            axis.hist(points, bins, color=color, alpha=0.6, label=f"{label}: mean {points.mean():.3f}")
        axis.set(xlabel=title, ylabel="pairs")
        axis.legend(frameon=False)
    gains = cosines[1] - cosines[0]
    axes[1, 1].hist(gains, 40, color=ADAPTED, alpha=0.6)
    axes[1, 1].axvline(0, color="#999999", linewidth=1)
    axes[1, 1].set(
        xlabel=f"cosine, {names[1]} minus {names[0]}",
        ylabel="pairs",
        title=f"{100 * float(np.mean(gains > 0)):.0f} % of the pairs gain",
    )
    figure.savefig(path, dpi=120)


def trajectories(
    paths: NDArray[np.floating],
    text: NDArray[np.floating],
    video: NDArray[np.floating],
    path: str | PathLike[str],
) -> None:
    """Draw the path of some queries through the sampler over the two principal components of both modalities.

    Args:
        paths: [v_{T'}, …, v_0] of some queries, (T' + 1, n, d); normalized here.
        text: unit text vectors, (m, d), the background.
        video: unit video vectors, (k, d), likewise.
        path: PNG to write.
    """
    from sklearn.decomposition import PCA

    plane = PCA(2, random_state=0).fit(np.concatenate([text, video]))
    figure, axes = new_axes(1, 1, (6.4, 5.2))
    for points, color, label in ((text, TEXT, "queries"), (video, VIDEO, "videos")):
        axes[0, 0].scatter(*plane.transform(points).T, s=5, color=color, alpha=0.25, label=label)
    directions = paths / np.linalg.norm(paths, axis=2, keepdims=True)
    for i in range(paths.shape[1]):
        steps = plane.transform(directions[:, i])
        axes[0, 0].plot(*steps.T, color=ADAPTED, linewidth=1, marker=".", markersize=4)
        axes[0, 0].plot(*steps[-1], color=ADAPTED, marker="o", markersize=6)
    axes[0, 0].set(xlabel="first principal component", ylabel="second", title="from the query, step by step")
    axes[0, 0].legend(frameon=False, markerscale=2)
    figure.savefig(path, dpi=120)


def learning_curve_plot(curve: LearningCurve, path: str | PathLike[str], *, caption: str) -> None:
    """Draw R@1 over the number of pairs.

    Args:
        curve: of `compare --curve`.
        path: PNG to write.
        caption: origin of the pairs; stands in the picture.
    """
    figure, axes = new_axes(1, 1, (6.4, 4.2))
    pairs = [point.pairs for point in curve.points]
    for name in curve.points[-1].r1:
        axes[0, 0].plot(pairs, [point.r1[name] for point in curve.points], marker="o", markersize=4, label=name)
    axes[0, 0].set(xlabel="pairs", ylabel="R@1, %", xscale="log", xticks=pairs, xticklabels=pairs)
    axes[0, 0].minorticks_off()
    axes[0, 0].legend(frameon=False)
    figure.suptitle(caption, fontsize=9, color="#555555")
    figure.savefig(path, dpi=120)


def reliability_plot(fit: CalibrationFit, path: str | PathLike[str], *, caption: str) -> None:
    """Draw a reliability diagram: observed accuracy over predicted probability, and the number of hits.

    Bars are 95 % Wilson intervals, as if all hits were independent.

    Args:
        fit: calibration with its reliability, from `fit_calibration`.
        path: PNG to write.
        caption: origin of the pairs; stands in the picture.
    """
    from scipy.stats import binomtest

    figure, axes = new_axes(1, 2, (9, 3.8))
    reliability, counts = axes[0]
    reliability.plot([0, 1], [0, 1], color="#999999", linewidth=1)
    for diagram, color, label in ((fit.hits, ADAPTED, f"{HITS} best hits"), (fit.best, VIDEO, "best hit alone")):
        pairs = np.round(diagram.pairs).astype(int)
        matches = np.round(diagram.accuracy * diagram.pairs).astype(int)
        bounds = np.array(
            [
                binomtest(k, n).proportion_ci(method="wilson")
                for k, n in zip(matches.tolist(), pairs.tolist(), strict=True)
            ]
        )
        off = np.abs(bounds.T - diagram.accuracy)
        reliability.errorbar(
            diagram.confidence, diagram.accuracy, off, color=color, marker="o", markersize=4, label=label
        )
        counts.plot(diagram.confidence, diagram.pairs, color=color, marker="o", markersize=4, label=label)
    reliability.set(xlabel="predicted probability", ylabel="observed accuracy", xlim=(0, 1), ylim=(0, 1))
    counts.set(xlabel="predicted probability", ylabel="hits", xlim=(0, 1), yscale="log")
    for axis in axes[0]:
        axis.legend(frameon=False)
    figure.suptitle(caption, fontsize=9, color="#555555")
    figure.savefig(path, dpi=120)


def _edges(values: NDArray[np.floating], bins: int) -> NDArray[np.floating]:
    """Return the edges of equal bins over the range of values; over a thousandth where they are all the same."""
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, max(high, low + 1e-3), bins + 1)
