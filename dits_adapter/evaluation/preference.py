"""Interval of a share that holds however often one looks at it while the trials go on.

People who judge two rankings look at the tally now and then, and stop when it seems clear. An interval for a
number of trials that was fixed beforehand is too narrow then: of equal rankings, the exact binomial interval of
95 % leaves out one half at some time within 200 judgements in 28 of 100 runs. The interval here leaves out the
true share at any time at all with a chance of at most 1 − level.

With s successes in n trials, E(p) = B(s + 1, n − s + 1) / (p^s (1 − p)^(n − s)) is the likelihood of a share that
is drawn evenly from 0 to 1, over that of the share p. If p is the true share, E is a martingale that begins at 1,
and reaches 1 / (1 − level) at any time with a chance of at most 1 − level (Ville's inequality; Robbins, 1970). The
interval holds all p for which it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, lgamma, log

from dits_adapter.errors import InputError
from dits_adapter.evaluation.metrics import Interval

__all__ = ["sequential_interval"]

_HALVINGS = 60


def sequential_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Return the interval of a share of successes that may be looked at after every trial.

    Args:
        successes: trials that succeeded.
        trials: all trials, independent of each other.
        level: chance that no look at any time leaves out the true share, at least.

    Raises:
        InputError: fewer than 0 successes or more than trials, or a level outside 0 to 1.

    >>> low, high = sequential_interval(8, 8)
    >>> round(low, 3), high
    (0.523, 1.0)
    """
    if not 0 <= successes <= trials:
        raise InputError(
            f"{successes} successes of {trials} trials; successes are from 0 to the number of trials."
        )
    if not 0 < level < 1:
        raise InputError(f"level is {level}; it lies between 0 and 1, for example 0.95.")
    failures = trials - successes
    mixture = lgamma(successes + 1) + lgamma(failures + 1) - lgamma(trials + 2)
    most = -log(1 - level)

    def outside(share: float) -> bool:
        return mixture - successes * _log(share) - failures * _log(1 - share) >= most

    middle = successes / trials if trials else 0.5
    return Interval(
        _edge(outside, 0.0, middle) if successes else 0.0,
        _edge(outside, 1.0, middle) if failures else 1.0,
    )


def _edge(outside: Callable[[float], bool], far: float, near: float) -> float:
    """Return the edge of the interval between a share that is outside and one that is inside."""
    for _ in range(_HALVINGS):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return far


def _log(value: float) -> float:
    return log(value) if value > 0 else -inf
