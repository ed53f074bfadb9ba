"""Which of several trials differ by more than luck, from repeats of each with the same few seeds. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ptydask.errors import import_optional
from ptydask.model import Direction

LEVEL = 0.01
"""Probability that trials which are alike are told apart, any two of them; with standard deviations that differ
between the trials up to fourfold it stays under 0.05: see ``benchmarks/significance.py`` and docs/confirm.md."""
_ROUNDING = 1e-12
"""Values that differ by less than this share of the largest are the same number, added up in another order."""


@dataclass(frozen=True)
class Comparison:
    """Several trials compared pair by pair."""

    trials: tuple[int, ...]
    """The best first."""
    luck: float
    """Standard deviation that other seeds give a trial, what a seed does to all trials alike taken out."""
    freedom: int
    """Its degrees of freedom."""
    least_difference: float
    """Means of trials with all repeats and this luck that differ by more are told apart."""
    beyond_luck: frozenset[tuple[int, int]]
    """The pairs that are told apart: (the better trial, the worse one)."""
    is_deterministic: bool
    """Whether every trial has one and the same value with every seed."""

    def worse_than(self, trial: int) -> tuple[int, ...]:
        """The trials that this one is better than, by more than luck; the best first."""
        return tuple(other for other in self.trials if (trial, other) in self.beyond_luck)

    def differ(self, a: int, b: int) -> bool:
        """Whether the two are told apart."""
        return not self.beyond_luck.isdisjoint({(a, b), (b, a)})


def compare(values: Mapping[int, Mapping[int, float]], direction: Direction, level: float = LEVEL) -> Comparison | None:
    """Compare trials by ``values``, trial -> seed -> error; a repeat that is missing may be missing.

    Paired by seed: an additive model of trials and seeds (randomized block design) is fitted by least squares, and
    all pairs of trials are held against Tukey's studentized range (Tukey-Kramer, where repeats are missing). A pair
    whose own scatter is larger than that of all trials together is held against its own. None where the values leave
    no degree of freedom to know luck by: fewer than two trials, or than two seeds. Raises MissingDependency without
    SciPy.
    """
    cells = [(trial, seed, value) for trial, own in values.items() for seed, value in own.items()]
    trials = list(dict.fromkeys(trial for trial, _, _ in cells))
    seeds = list(dict.fromkeys(seed for _, seed, _ in cells))
    if len(trials) < 2:
        return None
    rows = np.array([trials.index(trial) for trial, _, _ in cells])
    columns = np.array([seeds.index(seed) for _, seed, _ in cells])
    errors = np.array([value for _, _, value in cells], dtype=np.float64)
    design = np.hstack([np.eye(len(trials))[rows], np.eye(len(seeds))[columns]])
    freedom = len(cells) - int(np.linalg.matrix_rank(design))
    if freedom < 1:
        return None
    # The trials' effects are known but for a constant, which is the same for all: differences are what is asked for.
    center = errors.mean()
    covariance = np.linalg.pinv(design.T @ design, hermitian=True)
    effects = covariance @ design.T @ (errors - center)
    residuals = errors - center - design @ effects
    floor = (_ROUNDING * np.abs(errors).max()) ** 2
    variance = max(float(residuals @ residuals) / freedom, floor)
    own = np.maximum(_own_variances(rows, residuals, len(trials)), 0.0)
    critical = _critical_range(level, len(trials), freedom)

    beyond = set()
    order = np.argsort(effects[: len(trials)] * (1 if direction == "minimize" else -1), kind="stable")
    for better, worse in combinations(order.tolist(), 2):
        contrast = np.zeros(design.shape[1])
        contrast[[better, worse]] = -1.0, 1.0
        if not _is_estimable(contrast, covariance, design):
            continue
        scatter = max(variance, (own[better] + own[worse]) / 2)
        deviation = np.sqrt(scatter * (contrast @ covariance @ contrast) / 2)
        if abs(contrast @ effects) > critical * deviation:
            beyond.add((trials[better], trials[worse]))
    spans = [np.ptp(errors[rows == trial]) for trial in range(len(trials))]
    return Comparison(
        trials=tuple(trials[place] for place in order),
        luck=float(np.sqrt(variance)) if variance > floor else 0.0,
        freedom=freedom,
        least_difference=critical * float(np.sqrt(variance / len(seeds))),
        beyond_luck=frozenset(beyond),
        is_deterministic=max(spans) ** 2 <= floor,
    )


def _own_variances(rows: NDArray[np.intp], residuals: NDArray[np.float64], trials: int) -> NDArray[np.float64]:
    """(trials,): each trial's variance from its own residuals alone; 0 of a trial with one repeat.

    A residual of one of k trials has lost 1/k of its variance to the seed's effect, and one in n to the trial's.
    """
    squares = np.bincount(rows, residuals**2, trials)
    counts = np.bincount(rows, minlength=trials)
    shares = trials / (trials - 1) / np.maximum(counts - 1, 1)
    return np.where(counts > 1, squares * shares, 0.0)


def _is_estimable(
    contrast: NDArray[np.float64], covariance: NDArray[np.float64], design: NDArray[np.float64]
) -> bool:
    """Whether repeats tie the two trials together: they share a seed, or others do that share one with each."""
    return bool(np.allclose(design.T @ design @ covariance @ contrast, contrast, atol=1e-6))


@lru_cache(maxsize=256)
def _critical_range(level: float, trials: int, freedom: int) -> float:
    """The studentized range that ``trials`` trials which are alike exceed with probability ``level``."""
    stats = import_optional("scipy.stats", "a verdict on trials needs", "analysis", "scipy")
    return float(stats.studentized_range.ppf(1 - level, trials, freedom))


def pooled_deviation(values: Mapping[int, Mapping[int, float]]) -> tuple[float, int]:
    """Standard deviation over seeds within the trials, seeds' common effect included, and its degrees of freedom."""
    several = [np.fromiter(own.values(), np.float64) for own in values.values() if len(own) > 1]
    freedom = sum(len(own) - 1 for own in several)
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in several)
    return (float(np.sqrt(squares / freedom)), freedom) if freedom else (float("nan"), 0)


def tied_groups(comparison: Comparison) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Trials that are better than the same others, and these others: the best first, those without any left out."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for trial in comparison.trials:
        groups.setdefault(comparison.worse_than(trial), []).append(trial)
    for worse, better in groups.items():
        if worse:
            yield tuple(better), worse
