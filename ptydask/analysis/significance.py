"""Which of several trials differ by more than luck, from repeats of each with the same few seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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
    """Whether every trial has one and the same value with every seed: nothing is known of luck then, and
    :attr:`beyond_luck` has all pairs that differ at all."""

    def worse_than(self, trial: int) -> tuple[int, ...]:
        """The trials that this one is better than, by more than luck; the best first."""
        return tuple(other for other in self.trials if (trial, other) in self.beyond_luck)

    @property
    def tells_all_apart(self) -> bool:
        """Whether any two of the trials are told apart."""
        return len(self.beyond_luck) == math.comb(len(self.trials), 2)

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
    fit = _fit_additive(values)
    trials, freedom = fit.trials, fit.freedom
    if not fit.knows_luck:
        return None
    variance = fit.variance
    own, critical = fit.own_variances(), _critical_range(level, len(trials), freedom)

    beyond = set()
    effects = fit.effects[: len(trials)] * (1 if direction == "minimize" else -1)
    order = np.argsort(effects, kind="stable").tolist()
    for better, worse in combinations(order, 2):
        share = fit.variance_of_difference(better, worse)
        scatter = max(variance, (own[better] + own[worse]) / 2)
        if share is not None and effects[worse] - effects[better] > critical * np.sqrt(scatter * share / 2):
            beyond.add((trials[better], trials[worse]))
    return Comparison(
        trials=tuple(trials[place] for place in order),
        luck=fit.luck,
        freedom=freedom,
        least_difference=critical * float(np.sqrt(variance / fit.seeds)),
        beyond_luck=frozenset(beyond),
        is_deterministic=is_deterministic(values),
    )


def is_deterministic(values: Mapping[int, Mapping[int, float]]) -> bool:
    """Whether trials were repeated with several seeds, and each has one and the same value with all of them."""
    several = [list(own.values()) for own in values.values() if len(own) > 1]
    rounding = _ROUNDING * max((abs(value) for own in several for value in own), default=0.0)
    return bool(several) and all(max(own) - min(own) <= rounding for own in several)


def freedom_of(values: Mapping[int, Iterable[int]]) -> int:
    """Degrees of freedom that the repeats of trials, trial -> seeds, leave to know luck by."""
    return _fit_additive({trial: dict.fromkeys(seeds, 0.0) for trial, seeds in values.items()}).freedom


def luck_of(values: Mapping[int, Mapping[int, float]]) -> float:
    """:attr:`Comparison.luck`, which takes no SciPy; NaN where it is not known."""
    fit = _fit_additive(values)
    return fit.luck if fit.knows_luck else math.nan


def adjusted_means(values: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Trial -> mean error, as if each had been repeated with every seed; of trials without any repeat nothing."""
    fit = _fit_additive(values)
    if not fit.trials:
        return {}
    common = fit.center + fit.effects[len(fit.trials) :].mean()
    return {trial: float(effect + common) for trial, effect in zip(fit.trials, fit.effects, strict=False)}


@dataclass(frozen=True)
class _AdditiveFit:
    """error = center + effect of the trial + effect of the seed + residual, by least squares."""

    trials: list[int]
    seeds: int
    rows: NDArray[np.intp]
    """(N,): which of the trials each error is of."""
    errors: NDArray[np.float64]
    center: float
    design: NDArray[np.float64]
    """(N, trials + seeds): ones for its trial and its seed."""
    covariance: NDArray[np.float64]
    """Of the effects, for errors of variance 1; the effects are known but for a constant."""
    projection: NDArray[np.float64]
    """Onto the combinations of effects that the repeats tell."""
    effects: NDArray[np.float64]
    residuals: NDArray[np.float64]

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the residuals."""
        return len(self.errors) - int(np.linalg.matrix_rank(self.design)) if len(self.errors) else 0

    @property
    def rounding(self) -> float:
        """What the same number may differ by."""
        return _ROUNDING * float(np.abs(self.errors).max())

    @property
    def variance(self) -> float:
        """Of a single error; no less than rounding makes it."""
        return max(float(self.residuals @ self.residuals) / self.freedom, self.rounding**2)

    @property
    def knows_luck(self) -> bool:
        """Whether there is something to compare, and a degree of freedom left to know luck by."""
        return len(self.trials) >= 2 and self.freedom >= 1

    @property
    def luck(self) -> float:
        """Standard deviation of a single error; 0 of what rounding makes."""
        return math.sqrt(self.variance) if self.variance > self.rounding**2 else 0.0

    def own_variances(self) -> NDArray[np.float64]:
        """(trials,): each trial's variance from its own residuals alone; 0 of a trial with one repeat.

        A residual of one of k trials has lost 1/k of its variance to the seed's effect, one in n to the trial's.
        """
        count = len(self.trials)
        squares = np.bincount(self.rows, self.residuals**2, count)
        repeats = np.bincount(self.rows, minlength=count)
        return np.where(repeats > 1, squares * count / (count - 1) / np.maximum(repeats - 1, 1), 0.0)

    def variance_of_difference(self, a: int, b: int) -> float | None:
        """Of the effects of two trials, by their places, for errors of variance 1.

        None where no repeats tie them together: they share no seed, nor do others that share one with each.
        """
        projected = self.projection[:, b] - self.projection[:, a]
        projected[[a, b]] += 1.0, -1.0
        if np.abs(projected).max() > 1e-6:
            return None
        return float(self.covariance[a, a] + self.covariance[b, b] - 2 * self.covariance[a, b])


def _fit_additive(values: Mapping[int, Mapping[int, float]]) -> _AdditiveFit:
    cells = [(trial, seed, value) for trial, own in values.items() for seed, value in own.items()]
    trials = list(dict.fromkeys(trial for trial, _, _ in cells))
    seeds = list(dict.fromkeys(seed for _, seed, _ in cells))
    rows = np.array([trials.index(trial) for trial, _, _ in cells], dtype=np.intp)
    columns = np.array([seeds.index(seed) for _, seed, _ in cells], dtype=np.intp)
    errors = np.array([value for _, _, value in cells], dtype=np.float64)
    center = float(errors.mean()) if cells else 0.0
    design = np.hstack([np.eye(len(trials))[rows], np.eye(len(seeds))[columns]])
    gram = design.T @ design
    covariance = np.asarray(np.linalg.pinv(gram, hermitian=True), dtype=np.float64)
    effects = covariance @ design.T @ (errors - center)
    residuals = errors - center - design @ effects
    return _AdditiveFit(
        trials, len(seeds), rows, errors, center, design, covariance, gram @ covariance, effects, residuals
    )


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


def better_groups(compared: Comparison) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Trials that are better than the same others by more than luck, and these others, the best first."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for trial in compared.trials:
        groups.setdefault(compared.worse_than(trial), []).append(trial)
    return ((tuple(better), worse) for worse, better in groups.items() if worse)


def alike_groups(compared: Comparison) -> Iterator[tuple[int, ...]]:
    """Trials of which no two are told apart, in groups, as few as one finds from the best on; none of one trial."""
    pairs = [pair for pair in combinations(compared.trials, 2) if not compared.differ(*pair)]
    while pairs:
        group = set(pairs[0])
        for trial in compared.trials:
            if not any(compared.differ(trial, member) for member in group):
                group.add(trial)
        yield tuple(trial for trial in compared.trials if trial in group)
        pairs = [pair for pair in pairs if not group.issuperset(pair)]
