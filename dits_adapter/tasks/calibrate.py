"""Calibration of a trained adapter: probabilities for its scores, from held-out pairs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dits_adapter.artifact._config import ONNX
from dits_adapter.artifact._find import require_free
from dits_adapter.artifact.artifact import Artifact
from dits_adapter.data._named import PairsSource
from dits_adapter.encoder import DITSQueryEncoder
from dits_adapter.encoders.base import Device
from dits_adapter.errors import InputError
from dits_adapter.evaluation._scores import cosine_scores
from dits_adapter.evaluation._tables import markdown_table
from dits_adapter.evaluation.calibration import BiasedCalibration, CalibrationFit, fit_calibration
from dits_adapter.evaluation.metrics import Scores
from dits_adapter.evaluation.reliability import HITS
from dits_adapter.evaluation.score_bias import BIAS_WEIGHT, BiasedScores
from dits_adapter.sources._feedback_file import is_feedback
from dits_adapter.stores.bias import BiasBank, check_weight
from dits_adapter.tasks._measured import MOST_VIDEOS, AdapterSource, Measured
from dits_adapter.tasks.queries import Queries, query_values
from dits_adapter.vectors import unit

__all__ = ["CalibrationReport", "calibrate_artifact"]

_SIZES = (100, 1_000, 10_000, 100_000)
"""Sizes of collections, in videos, for which the scores of two probabilities are printed."""

_SAME_TEXT = 1 - 1e-5
"""Least cosine of two queries of one text."""


@dataclass(frozen=True)
class CalibrationReport:
    """Report of a calibration; `str` of it is figures and a table.

    Attributes:
        artifact: the adapter with its calibration.
        fit: the calibration, and its reliability on pairs that the fit has not seen.
        biased: the same of scores less the bias of a bank; None where no bank was given.
        notes: sentences about the pairs.
        written: folder of the calibrated artifact; None where none was asked for.
    """

    artifact: Artifact = field(repr=False)
    fit: CalibrationFit
    biased: CalibrationFit | None
    notes: tuple[str, ...]
    written: Path | None

    def __str__(self) -> str:
        blocks = [*self.notes, _described(self.fit)]
        if self.biased is not None:
            blocks.append(f"\nless the score bias:\n\n{_described(self.biased)}")
        return "\n".join([*blocks, *([] if self.written is None else [f"written to {self.written}"])])

    def save_plot(self, path: str | PathLike[str], *, caption: str = "") -> None:
        """Draw predicted probability and observed accuracy.

        Args:
            path: the picture, in a format that matplotlib writes (.png, .pdf, .svg).
            caption: line below the picture.

        Raises:
            InputError: a kind of file that matplotlib does not write, or a folder that may not be written.
            MissingExtraError: matplotlib is not installed.
        """
        from dits_adapter.evaluation._figures import check_figure, reliability_plot

        check_figure(path, "plot")
        reliability_plot(self.fit, Path(path), caption=caption)


def calibrate_artifact(
    adapter: AdapterSource,
    pairs: PairsSource,
    out: str | PathLike[str] | None = None,
    *,
    bias: str | PathLike[str] | BiasBank | None = None,
    weight: float = BIAS_WEIGHT,
    unanswerable: Queries | None = None,
    most_videos: int = MOST_VIDEOS,
    device: Device = "auto",
) -> CalibrationReport:
    """Fit the probability that a hit of a score is the right video, and that any hit is, on held-out pairs.

    Of the pairs that the adapter was trained with, those are taken that training held out. Queries that nothing
    fits are made by leaving the right video out, unless they are given.

    Args:
        adapter: folder, bundled name or hub id of a trained adapter, or the artifact.
        pairs: cache of pairs that it was not trained on, or the pairs.
        out: folder of the calibrated artifact, which may be that of the adapter. None writes nothing.
        bias: a bank (`make_bank`), or the folder of its artifact: calibrate scores less its bias too, for
            collections that `apply_bias` gave it to.
        weight: weight of that bias, 0 to 1.
        unanswerable: queries that none of these videos fits, in place of made ones: path of a file
            (`read_queries`), texts, or vectors (n, d) as the text encoder gives them.
        most_videos: videos to measure on; of more as many are drawn, with a warning.
        device: where the encoder runs that embeds texts of `unanswerable`.

    Raises:
        ArtifactError: an adapter that cannot be loaded, or `out` holds something else than an artifact.
        InputError: an adapter that depends on the video, fewer than 20 videos, matching pairs that do not score
            higher than others, a bank of another adapter's queries or with texts of the pairs, a file of feedback
            in the place of queries, or an artifact with an ONNX form at `out`.
        SpaceMismatchError: pairs or bank of another space than the adapter's.
    """
    check_weight(weight)
    if out is not None:
        _require_target(Path(out))
    if isinstance(unanswerable, str | PathLike) and is_feedback(Path(unanswerable)):
        raise InputError(
            f"{unanswerable}: is a file of feedback, with queries of both kinds. Write those that nothing "
            "fits with dits-adapter pairs FEEDBACK --out PAIRS --unanswerable QUERIES, and name that file."
        )
    queries = None if unanswerable is None else query_values(unanswerable)
    if queries is not None and not len(queries):
        raise InputError(f"{_name(unanswerable, 'unanswerable')}: holds no queries.")
    measured = Measured.open(adapter, pairs, most_videos)
    artifact = measured.artifact
    if artifact.adapter.needs_video:
        raise InputError(
            f"{measured.adapter_name}: the adapter depends on the video. Such an adapter scores pairs and "
            "searches no collection, so its scores have no probabilities."
        )
    bank = BiasBank.from_pretrained(bias) if isinstance(bias, str | PathLike) else bias
    if bank is not None:
        _require_apart(bank, measured, _name(bias, "bias"))
    others = None
    if queries is not None:
        others = _vectors(queries, adapter, measured, _name(unanswerable, "unanswerable"), device)
    fit = _fit(measured, others)
    calibration, biased = fit.calibration, None
    if bank is not None:
        biased = _fit(measured, others, bank, weight)
        record = BiasedCalibration(bank=bank.digest, weight=weight, calibration=biased.calibration)
        calibration = calibration.model_copy(update={"biased": record})
    calibrated = replace(artifact, calibration=calibration)
    return CalibrationReport(
        calibrated, fit, biased, measured.notes, None if out is None else calibrated.save(out)
    )


def _require_target(target: Path) -> None:
    """Refuse a folder that the calibrated adapter cannot be written to, before the work."""
    require_free(target.absolute())
    if (target / ONNX).exists():
        raise InputError(
            f"{target}: holds an ONNX form, which belongs to the adapter as it was exported. Calibrate the "
            "adapter that was exported, and export it again."
        )


def _name(value: object, otherwise: str) -> str:
    return fspath(value) if isinstance(value, str | PathLike) else otherwise


def _fit(
    measured: Measured,
    unanswerable: NDArray[np.floating] | None,
    bank: BiasBank | None = None,
    weight: float = 0.0,
) -> CalibrationFit:
    """Fit a calibration on the scores of pairs, less the bias of a bank where there is one."""
    pairs, adapter = measured.pairs, measured.artifact.adapter.for_inference()
    bias = None if bank is None else bank.biases(pairs.video, bank.record(pairs.video))

    def scores(texts: NDArray[np.floating]) -> Scores:
        plain = cosine_scores(adapter, texts, pairs.video)
        return plain if bias is None else BiasedScores(plain, np.asarray(bias, np.float32), weight)

    others = None if unanswerable is None else scores(unanswerable)
    return fit_calibration(scores(pairs.text), pairs.labels, unanswerable=others)


def _vectors(
    queries: list[str] | NDArray[np.floating],
    adapter: AdapterSource,
    measured: Measured,
    name: str,
    device: Device,
) -> NDArray[np.floating]:
    """Return text embeddings of queries, (n, d)."""
    if isinstance(queries, list):
        if isinstance(adapter, Artifact):
            raise InputError(f"{name}: holds texts, which an artifact cannot embed; give their vectors (n, d).")
        return DITSQueryEncoder.from_pretrained(adapter, backend="torch", device=device).embed(queries)
    width = measured.artifact.space.text.width
    if queries.shape[1] != width:
        raise InputError(
            f"{name}: holds vectors of width {queries.shape[1]}; {measured.adapter_name} has {width}."
        )
    return np.array(queries, np.float32)  # of the file's map, which torch may not write to


def _require_apart(bank: BiasBank, measured: Measured, name: str) -> None:
    """Refuse a bank of another adapter's queries, or one that holds texts of the pairs.

    Raises:
        InputError: naming the bank.
        SpaceMismatchError: the bank is of another space.
    """
    artifact, pairs = measured.artifact, measured.pairs
    bank.space.require(artifact.space, mine=f"the bank {name}", theirs=f"the adapter {measured.adapter_name}")
    adapter = artifact.adapter.for_inference()
    if not bank.record(pairs.video).fits(adapter.adapt(artifact.space.text.probes)):
        raise InputError(
            f"{name}: its bank holds queries of another adapter than {measured.adapter_name}, and a bias is for "
            f"queries of one; make it with dits-adapter bank QUERIES --adapter {measured.adapter_name} --out "
            "FOLDER."
        )
    shared = (unit(adapter.adapt(pairs.text)) @ bank.vectors.T).max(axis=1) > _SAME_TEXT
    if shared.any():
        raise InputError(
            f"{name}: its bank holds {shared.sum()} of the {len(pairs):,} texts of {measured.pairs_name}. A bank "
            "pushes down the videos that its texts describe, so these pairs cannot tell how it scores others; "
            "calibrate on pairs whose texts are not in the bank."
        )


def _described(fit: CalibrationFit) -> str:
    calibration, answer = fit.calibration, fit.calibration.answer
    rows = [
        [f"{videos:,}", *(_score(calibration.score_of(p, videos=videos)) for p in (0.5, 0.9))] for videos in _SIZES
    ]
    return (
        f"{calibration.queries:,} queries, {calibration.videos:,} videos. Of the {HITS} best hits of each query "
        f"{fit.hits.total_accuracy:.1%} are right.\nHeld out: log loss {calibration.log_loss:.4f}, "
        f"expected calibration error {calibration.ece:.4f}.\nThat any hit is right, where half of the queries "
        f"have no video: AUROC {answer.auroc:.3f}, expected calibration error {answer.ece:.4f}, Brier score "
        f"{answer.brier:.4f}.\n\n" + markdown_table(["videos", "score of 50 %", "of 90 %"], rows)
    )


def _score(cosine: float) -> str:
    return f"{cosine:.3f}" if cosine <= 1 else "none"
