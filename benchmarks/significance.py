"""How often tests tell trials apart that are alike, and find one that is better: the tables of docs/confirm.md.

    python benchmarks/significance.py

Errors are normal deviates around the trials' means; which tests and which spreads, see below. A study counts as an
error of the first kind where any two trials are told apart. About a minute on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ptydask.analysis.significance import LEVEL, compare

Errors = NDArray[np.float64]
"""(studies, trials, seeds)."""
Apart = NDArray[np.bool_]
"""(studies, pairs): whether the two trials are told apart."""


def spreads(trials: int) -> dict[str, Errors]:
    """Standard deviations of the trials, by a word for them."""
    return {
        "equal": np.ones(trials),
        "one trial threefold": np.r_[3.0, np.ones(trials - 1)],
        "rising to fourfold": np.geomspace(1, 4, trials),
        "one trial tenfold": np.r_[10.0, np.ones(trials - 1)],
    }


def pairs(errors: Errors) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places of both trials of every pair."""
    every = np.array(list(combinations(range(errors.shape[1]), 2)))
    return every[:, 0], every[:, 1]


@cache
def critical_range(level: float, trials: int, freedom: float) -> float:
    return float(stats.studentized_range.ppf(1 - level, trials, freedom))


@cache
def critical_ranges(level: float, trials: int) -> tuple[Errors, Errors]:
    """Logarithms of degrees of freedom, and of the critical range at each: to interpolate in."""
    freedoms = np.geomspace(1, 200, 40)
    return np.log(freedoms), np.log([critical_range(level, trials, freedom) for freedom in freedoms])


def randomized_block(errors: Errors, level: float) -> Apart:
    """Trial and seed effects taken out, one variance for all, Tukey's range."""
    _, trials, seeds = errors.shape
    residuals = (
        errors - errors.mean(1, keepdims=True) - errors.mean(2, keepdims=True) + errors.mean((1, 2), keepdims=True)
    )
    freedom = (trials - 1) * (seeds - 1)
    deviation = np.sqrt((residuals**2).sum((1, 2)) / freedom / seeds)
    means, (a, b) = errors.mean(2), pairs(errors)
    return np.abs(means[:, a] - means[:, b]) > critical_range(level, trials, freedom) * deviation[:, None]


def paired_holm(errors: Errors, level: float) -> Apart:
    """A paired t-test of every two trials, Holm's correction."""
    a, b = pairs(errors)
    p = stats.ttest_rel(errors[:, a], errors[:, b], axis=2).pvalue
    order = np.argsort(p, axis=1)
    passed = np.take_along_axis(p, order, 1) <= level / (len(a) - np.arange(len(a)))
    apart = np.zeros_like(passed)
    np.put_along_axis(apart, order, np.logical_and.accumulate(passed, axis=1), 1)
    return apart


def games_howell(errors: Errors, level: float) -> Apart:
    """Every pair with its own variances and Welch's freedom, not paired by seed, Tukey's range."""
    _, trials, seeds = errors.shape
    a, b = pairs(errors)
    means, variances = errors.mean(2), errors.var(2, ddof=1) / seeds
    sums = variances[:, a] + variances[:, b]
    freedom = sums**2 * (seeds - 1) / (variances[:, a] ** 2 + variances[:, b] ** 2)
    critical = np.exp(np.interp(np.log(freedom), *critical_ranges(level, trials)))
    return np.abs(means[:, a] - means[:, b]) > critical * np.sqrt(sums / 2)


def ptydask(errors: Errors, level: float) -> Apart:
    """What ``ptydask confirm`` does, on the first of the studies."""
    every = list(zip(*pairs(errors), strict=True))
    apart = []
    for study in errors[:STUDIES_OF_OWN]:
        compared = compare({t: dict(enumerate(own)) for t, own in enumerate(study.tolist())}, "minimize", level)
        apart.append([compared.differ(int(a), int(b)) for a, b in every])
    return np.array(apart)


STUDIES, STUDIES_OF_OWN = 20000, 2000
TESTS: dict[str, tuple[Callable[[Errors, float], Apart], float]] = {
    f"ptydask, {100 * LEVEL:g} %": (ptydask, LEVEL),
    "randomized block, 1 %": (randomized_block, 0.01),
    "randomized block, 5 %": (randomized_block, 0.05),
    "paired t, Holm, 5 %": (paired_holm, 0.05),
    "Games-Howell, 5 %": (games_howell, 0.05),
}


def draw(rng: np.random.Generator, trials: int, seeds: int, spread: Errors, common: float = 0.0) -> Errors:
    """Errors of trials with one mean; ``common`` is the standard deviation of what a seed does to all of them."""
    own = rng.normal(size=(STUDIES, trials, seeds)) * spread[:, None]
    return own + common * rng.normal(size=(STUDIES, 1, seeds))


def first_kind(rng: np.random.Generator) -> list[list[str]]:
    """Rows: trials x seeds, spreads, and for each test how often in percent it tells trials apart that are alike."""
    rows = []
    for trials, seeds in ((5, 3), (2, 3), (10, 3), (5, 2), (5, 5)):
        for words, spread in spreads(trials).items():
            errors = draw(rng, trials, seeds, spread)
            shares = [100 * test(errors, level).any(axis=1).mean() for test, level in TESTS.values()]
            rows.append([f"{trials} x {seeds}", words, *(f"{share:.1f}" for share in shares)])
    return rows


def power(rng: np.random.Generator) -> list[list[str]]:
    """Rows: how much better one trial is, and how often in percent it is named as better than all four others."""
    rows = []
    for seeds in (3, 5):
        for common in (0.0, 3.0):
            for better in (3.0, 5.0, 8.0):
                errors = draw(rng, 5, seeds, np.ones(5), common)
                errors[:, -1] -= better
                _, b = pairs(errors)
                shares = [100 * test(errors, level)[:, b == 4].all(axis=1).mean() for test, level in TESTS.values()]
                rows.append([f"{seeds}", f"{common:g}", f"{better:g}", *(f"{share:.0f}" for share in shares)])
    return rows


def print_table(head: list[str], rows: list[list[str]]) -> None:
    print("|", " | ".join(head), "|")
    print("|" + "---|" * len(head))
    for row in rows:
        print("|", " | ".join(row), "|")
    print()


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    rng = np.random.default_rng(1)
    print_table(["trials x seeds", "standard deviations", *TESTS], first_kind(rng))
    print_table(["seeds", "common", "better by", *TESTS], power(rng))


if __name__ == "__main__":
    main()
