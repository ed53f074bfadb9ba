"""The bands of W&B's hyperband, and what they decide. Pure, standard library only.

A run is a mapping from a count (1, 2, 3 ...) to the value that its metric had when it was logged for that time; values
are finite. What a run has at a band is its value at that count; a run without one has not come so far.

Source: ``hyperband_stopping.py`` of the ``sweeps`` package 0.3.0. Its thresholds are not those of the Hyperband paper:
all runs share all bands, however they ended, and the run that is judged counts among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ptydask.model import Direction
from ptydask.ranking import is_better

MOST = 100
"""W&B makes no more bands than these out of ``min_iter``."""
_FURTHEST = 2**53
"""No program logs so often, and larger counts are not exact in every language that reads them."""


def of_max_iter(max_iter: int, s: int, eta: float = 3) -> tuple[int, ...]:
    """At most ``s`` bands: ``max_iter`` divided by ``eta`` again and again, as long as that gives 1 or more, ascending.

    ``max_iter`` itself is none of them. Empty where ``max_iter / eta`` is below 1 already: W&B refuses that.
    """
    bands: list[int] = []
    band = float(max_iter)
    for _ in range(s):
        band /= eta  # not max_iter / eta**k: the rounding is to be W&B's own
        if band < 1:
            break
        bands.append(int(band))
    return tuple(sorted(set(bands)))


def of_min_iter(min_iter: int, eta: float = 3) -> tuple[int, ...]:
    """``min_iter`` and its products with ``eta``, ``eta^2`` and so on, ascending, as far as any program gets."""
    bands: list[int] = []
    band: float = min_iter
    for _ in range(MOST):
        if band > _FURTHEST:
            break
        bands.append(int(band))
        band *= eta
    return tuple(sorted(set(bands)))


def threshold(values: Iterable[float], eta: float, direction: Direction) -> float:
    """The worst value with which a run goes on, of ``values``, those of all runs at a band; there is at least one.

    That is the one in place ``int(n / eta)``, counted from 0, the best value first.
    """
    ordered = sorted(values, reverse=direction == "maximize")
    return ordered[int(1.0 / eta * len(ordered))]  # the product as W&B takes it: it rounds otherwise than n / eta


def should_stop(
    run: Mapping[int, float],
    runs: Iterable[Mapping[int, float]],
    bands: Sequence[int],
    *,
    eta: float = 3,
    strict: bool = True,
    direction: Direction = "minimize",
) -> bool:
    """Whether ``run``, still under way, is to end now. ``runs`` are all of the study, ``run`` among them.

    It is judged at the highest band that it has reached: by its value there, or by its best so far unless ``strict``.
    A value as good as the threshold is good enough.
    """
    band = max((band for band in bands if band in run), default=None)
    if band is None:
        return False
    least = threshold((other[band] for other in runs if band in other), eta, direction)
    best = min if direction == "minimize" else max
    return is_better(least, run[band] if strict else best(run.values()), direction)
