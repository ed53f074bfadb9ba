"""Whether several studies found a parameter's optimum at one value, by what their slopes leave open. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

from ptydask.formatting import printable_text
from ptydask.space import tunables

_CHANCE = 0.05
"""How often optima that are one are told to differ, whatever the number of studies."""


@dataclass(frozen=True)
class OptimumAgreement:
    """The two of several optima of a parameter that are farthest apart, measured by their deviations."""

    parameter: str
    files: tuple[str, str]
    apart: float
    """Their difference over its standard deviation, the root of the sum of both variances."""
    is_one: bool
    """Whether it is what chance alone may make of one optimum."""

    def __str__(self) -> str:
        """``scale: the optima differ, by 6.1 deviations (a.h5 and b.h5)``."""
        name = printable_text(self.parameter)
        if self.is_one:
            return f"{name}: the optima agree within their deviations"
        return f"{name}: the optima differ, by {_apart_text(self.apart)} deviations ({' and '.join(self.files)})"


def compare_optima(parameter: str, optima: Mapping[str, tuple[float, float]]) -> OptimumAgreement | None:
    """``optima`` by file: center and standard deviation. None with fewer than two of known deviation.

    Among many studies some two are far apart by chance: what is allowed grows with the number of pairs, so that all
    optima of one value are told to differ in one case of twenty (Bonferroni's correction, two-sided).
    """
    known = [(file, *pair) for file, pair in optima.items() if all(map(math.isfinite, pair)) and pair[1] > 0]
    pairs = [
        (abs(tunables.difference(parameter, center, other)) / math.hypot(deviation, further), (file, last))
        for (file, center, deviation), (last, other, further) in combinations(known, 2)
    ]
    if not pairs:
        return None
    apart, files = max(pairs, key=lambda pair: pair[0])
    return OptimumAgreement(parameter, files, apart, apart <= NormalDist().inv_cdf(1 - _CHANCE / 2 / len(pairs)))


def _apart_text(apart: float) -> str:
    return f"{apart:.1f}" if apart < 9.95 else f"{apart:.0f}" if apart < 1000 else "more than 1000"
