"""Time that the rows of a comparison take, by a few steps of each, and the choice of those that fit a budget."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from dits_adapter._wording import counted
from dits_adapter.adapters import LEAST_VIDEOS, Matches, adapter_entry
from dits_adapter.artifact._find import is_artifact
from dits_adapter.data.pairs import Pairs
from dits_adapter.errors import InputError
from dits_adapter.evaluation._tables import duration, durations
from dits_adapter.evaluation.comparison import PLAIN
from dits_adapter.evaluation.metrics import DotProducts, bootstrap, ranks
from dits_adapter.training._banked import trainings
from dits_adapter.training.config import Recipe
from dits_adapter.training.rows import Recipes, reference
from dits_adapter.training.run import fit

__all__ = ["Plan", "plan"]

_NAMED = 4
"""Rows of the longest times that a plan names."""

_PROBE = 256
"""Texts that a row is tried on."""

_RANKED = 1000
"""Videos that a search is tried on."""

_READ = 2048
"""Pairs that the reading of all is tried on."""

_CANDIDATES = 5
"""Candidates of a closed form, at most, among which the validation pairs choose."""

_FORWARD = 1 / 3
"""Time of a forward pass over that of a training step."""

_FEW = 64
"""Texts that a fit without training is tried on."""

_OVERRUN, _SHARE = 2.0, 0.05
"""Time after which a training is stopped: over what was expected of it, and over the budget, whichever is more."""

_GROWTH = 4.0
"""Time of a gentle fit over that of a fit to few texts: its steps take up to 512 pairs, however many there are."""


@dataclass(frozen=True)
class Plan:
    """Rows to compare and the seconds that each is expected to take, cheap ones first.

    Attributes:
        rows: recipes that are compared, in the order of the table.
        seconds: expected time of each of them; patience may stop a training before.
        left_out: expected time of those that the budget holds no more.
        limits: seconds after which the training of a row is stopped; of each, where there is a budget.
    """

    rows: Recipes
    seconds: dict[str, float]
    left_out: dict[str, float]
    limits: dict[str, float]

    def __str__(self) -> str:
        dear = sorted(self.seconds, key=lambda name: -self.seconds[name])[:_NAMED]
        what = counted(len(self.rows), "row takes", "rows take")
        text = f"{what} about {duration(sum(self.seconds.values()))} here, or less"
        text += f"; the longest: {durations({name: self.seconds[name] for name in dear})}." if dear[1:] else "."
        if not self.left_out:
            return text
        return f"{text} Left out for want of time: {durations(self.left_out)}."


def plan(
    rows: Recipes,
    splits: Sequence[tuple[Pairs, Pairs, Pairs]],
    *,
    budget: float | None = None,
    out: Path | None = None,
    device: str | torch.device = "auto",
) -> Plan:
    """Estimate the time of each row here, and take as many as fit the budget together, cheap ones first.

    A trained row is tried with one batch for one epoch and for three: what two epochs took more is the time of a
    step. Rows that differ in the bank alone share a fit, and each counts as its part of it. Rows that `out` holds
    take no more than their evaluation. Times are of this thread alone, so that a busy machine disturbs them
    little, and scaled by what it waited. The budget pays for the trials, too, with half of it at most, so that
    cheap rows are compared in any case.

    Args:
        rows, out, device: as for `compare`.
        splits: training, validation and test pairs of each fold.
        budget: seconds; None for no limit. Plain CLIP, or chance, is compared in any case.
    """
    first = reference(splits[0][2].space)
    begun = time.perf_counter(), time.thread_time()
    with _quietly():
        clock = _Clock(*splits[0], device)
        clock.warm_up(rows.values())
        fits = {_fit_of(recipe): recipe for recipe in rows.values()}
        of_fits = {key: clock.fit(recipe) for key, recipe in fits.items()}
    spent = time.perf_counter() - begun[0]
    waiting = spent / (time.thread_time() - begun[1])
    paid_for = spent if budget is None else min(spent, budget / 2)
    seconds: dict[str, float] = {}
    dear: dict[str, float] = {}
    paid: set[str] = set()
    sharing = Counter(map(_fit_of, rows.values()))
    shares = {key: cost / sharing[key] for key, cost in of_fits.items()}
    for name in sorted(rows, key=lambda name: (name != first, shares[_fit_of(rows[name])])):
        key = _fit_of(rows[name])
        free = key in paid or (out is not None and _is_kept(out, name, len(splits)))
        cost = waiting * len(splits) * (clock.evaluation + (0 if free else of_fits[key]))
        if budget is not None and name != first and paid_for + sum(seconds.values()) + cost > budget:
            dear[name] = cost
        else:
            seconds[name] = cost
            paid.add(key)
    limits = {}
    if budget is not None:
        limits = {name: max(_OVERRUN * cost, _SHARE * budget) for name, cost in seconds.items()}
    return Plan({name: recipe for name, recipe in rows.items() if name in seconds}, seconds, dear, limits)


def _fit_of(recipe: Recipe) -> str:
    """Return what tells the fits of rows apart: gentle ones give both the adapter and the bank behind it."""
    gentle = adapter_entry(recipe.adapter).cross_validated is not None
    bank = "none" if gentle or recipe.bank == "none" else "queries"
    return recipe.model_copy(update={"bank": bank}).model_dump_json()


def _is_kept(out: Path, name: str, folds: int) -> bool:
    """Tell whether the folder of a comparison holds a row, in all folds."""
    folders = [out] if folds == 1 else [out / f"fold-{number}" for number in range(folds)]
    return all(is_artifact(folder / name) for folder in folders)


class _Clock:
    """Times of fits and evaluations on the pairs of one fold.

    Attributes:
        evaluation: seconds of this thread that the evaluation of one row takes.
    """

    def __init__(self, train: Pairs, validation: Pairs, test: Pairs, device: str | torch.device) -> None:
        self._train, self._validation, self._device = train, validation, device
        self._probe, self._few = (_part(train, texts) for texts in (_PROBE, _FEW))
        self._validating, self._reading = _ranking(validation), _reading(train)
        self.evaluation = self._validating + 3 * _ranking(test) + 3 * _resampling(test)

    def warm_up(self, recipes: Iterable[Recipe]) -> None:
        """Train once: the first training of a process imports and allocates what the others find there."""
        trained = (recipe for recipe in recipes if adapter_entry(recipe.adapter).trained)
        for recipe in islice(trained, 1):
            self._timed(_with_epochs(recipe.model_copy(update={"bank": "none"}), 1), self._few)

    def fit(self, recipe: Recipe) -> float:
        """Return the seconds that a fit takes."""
        entry = adapter_entry(recipe.adapter)
        if not entry.trained:
            growth = _GROWTH if entry.cross_validated and len(self._train) > len(self._few) else 1
            choosing = _CANDIDATES * self._validating if entry.closed_form else 0
            reading = self._reading if entry.closed_form and entry.name != PLAIN else 0
            return growth * self._timed(recipe, self._few) + choosing + reading
        alone = recipe.model_copy(update={"bank": "none"})
        once, thrice = (self._timed(_with_epochs(alone, epochs), self._probe) for epochs in (1, 3))
        config = recipe.training
        # The first fit of a process pays for more than itself: then the second one bounds an epoch from above.
        epoch_tried = (thrice - once) / 2 if thrice > once else thrice / 3
        forward = _FORWARD / config.batch_size  # of a text, in steps
        step = epoch_tried / (max(1, len(self._probe) // config.batch_size) + len(self._probe) * forward)
        validating = self._validating + len(self._validation) * forward * step
        epoch = max(1, len(self._train) // config.batch_size) * step + validating
        training = once + len(config.learning_rate) * config.epochs * epoch
        return training * (1 if recipe.bank == "none" else 1 + trainings(len(self._train)))

    def _timed(self, recipe: Recipe, pairs: Pairs) -> float:
        start = time.thread_time()
        with suppress(InputError):  # too few distinct videos or texts here are no reason to refuse all of them
            fit(recipe, pairs, pairs, device=self._device, progress=False)
        return time.thread_time() - start


def _part(pairs: Pairs, texts: int) -> Pairs:
    return pairs.at_most(max(LEAST_VIDEOS, -(-texts * len(pairs.video) // len(pairs))), seed=0)


def _with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    changed = {"epochs": epochs, "learning_rate": recipe.training.learning_rate[:1], "patience": 0}
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=changed)})


def _ranking(pairs: Pairs) -> float:
    """Return the seconds in which all texts search all videos once."""
    part = pairs.at_most(_RANKED, 0)
    scores = DotProducts(part.video[part.labels], part.video)
    share = len(part) / len(pairs) * len(part.video) / len(pairs.video)
    return _seconds(lambda: ranks(scores, part.labels)) / share


def _reading(pairs: Pairs) -> float:
    """Return the seconds in which a closed form reads all pairs once."""
    text, video = pairs.matches.text[:_READ], pairs.matches.video[:_READ]
    return _seconds(lambda: Matches(text, video).moments) * len(pairs) / len(text)


def _resampling(pairs: Pairs) -> float:
    """Return the seconds of one bootstrap of 2,000 resamples."""
    return 20 * _seconds(lambda: bootstrap(np.ones(len(pairs)), pairs.labels, n=100))


def _seconds(action: Callable[[], object]) -> float:
    """Return the seconds of an action that was done once before."""
    action()
    start = time.thread_time()
    action()
    return time.thread_time() - start


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep warnings of trial fits to a few pairs from the user, and the random state of torch from change."""
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        yield
