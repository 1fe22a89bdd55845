"""Training curve of a run, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from dits_adapter.evaluation._figures import ADAPTED, TEXT, VIDEO, new_axes
from dits_adapter.training._state import Epoch, best_epoch

__all__ = ["training_curve"]


def training_curve(history: Sequence[Epoch], path: str | PathLike[str]) -> None:
    """Draw the loss and the held-out recall of each epoch into a PNG; the kept epoch is marked."""
    figure, axes = new_axes(1, 2, (9, 3.2))
    epochs = [epoch.number for epoch in history]
    best = best_epoch(history).number
    axes[0, 0].plot(epochs[1:], [epoch.loss for epoch in history[1:]], color=ADAPTED)
    axes[0, 0].set(xlabel="epoch", ylabel="contrastive loss", title="training")
    for name, shade in (("r1", 1.0), ("r5", 0.6), ("r10", 0.35)):
        values = [getattr(epoch.validation, name) for epoch in history]
        axes[0, 1].plot(epochs, values, color=VIDEO, alpha=shade, label=f"R@{name[1:]}")
    axes[0, 1].axvline(best, color=TEXT, linestyle=":", label=f"kept: epoch {best}")
    axes[0, 1].set(xlabel="epoch", ylabel="% of validation queries", title="held-out pairs")
    axes[0, 1].legend(frameon=False)
    figure.savefig(path, dpi=120)
