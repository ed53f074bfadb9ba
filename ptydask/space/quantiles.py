"""The distributions of W&B's sweeps: from u in [0, 1] to a value and back. Pure.

The formulas are those of ``HyperParameter.ppf`` and ``cdf`` in ``params.py`` of the package ``sweeps`` 0.3.0. A
quantised value is ``round(number / q) * q``, halves to the even neighbour as NumPy has it: its grid goes through 0,
and the outermost values may lie half a step beyond the range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from statistics import NormalDist
from typing import Any

from ptydask.distributions import QuantileDistribution, WeightedChoice
from ptydask.errors import import_optional
from ptydask.model import Scalar

_LEAST = 2.0**-53
"""Nearest to 0 and to 1 that ``u`` has a quantile where the values have no end: the spacing of floats below 1. It is
at 8.2 sigma; every engine must get a finite number."""
_AT_END = 1e-3
"""The share that 0 itself, and 1, stand for where values have tails. No random draw gives them, but searches that walk
along a bound do (Optuna's Gaussian process): a trial at 8.2 sigma would be of no use, and spoil the scale for all
others. W&B's search looks at 1000 random points, so it goes about as far."""
_TAILED = ("normal", "log_normal", "beta")
_LARGEST = 709.0
"""No exponent is taken further, as exp(709.8) is infinite."""
_STANDARD = NormalDist()
_SLACK = 1e-9
"""Relative, by which a value may miss an end of its range: exp(log(0.001)) is not 0.001."""
_ON_GRID = 1e-8
"""Share of a step by which a value may miss its grid."""


# --- numbers ----------------------------------------------------------------------------------------


def value_at(dist: QuantileDistribution, u: float) -> int | float:
    """The number at ``u``, which is clipped to [0, 1]; always finite.

    Raises MissingDependency for a beta distribution without SciPy.
    """
    if dist.family in _TAILED and not _LEAST <= u <= 1 - _LEAST:
        u = _AT_END if u < 0.5 else 1 - _AT_END
    return quantised(dist, _unrounded_value(dist, min(max(u, 0.0), 1.0)))


def _unrounded_value(dist: QuantileDistribution, u: float) -> float:
    match dist.family:
        case "uniform":
            return dist.a + u * (dist.b - dist.a)
        case "log_uniform":
            return _exp(dist.a + u * (dist.b - dist.a))
        case "normal":
            return _normal_quantile(dist, u)
        case "log_normal":
            return _exp(_normal_quantile(dist, u))
        case "beta":
            return float(_scipy_special().betaincinv(dist.a, dist.b, u))


def _normal_quantile(dist: QuantileDistribution, u: float) -> float:
    return dist.a + dist.b * _STANDARD.inv_cdf(min(max(u, _LEAST), 1 - _LEAST))


def _exp(x: float) -> float:
    return math.exp(min(x, _LARGEST))


def _scipy_special() -> Any:
    """SciPy's incomplete beta functions; ``scipy.stats`` calls the same ones, and takes a second to import."""
    return import_optional("scipy.special", "a beta distribution needs", "gp")


def quantised(dist: QuantileDistribution, number: float) -> int | float:
    """``number`` on the grid of ``dist``; as it is where there is none."""
    if dist.q is None or math.isinf(steps := number / dist.q):
        return number
    return round(steps) * dist.q


def ends(dist: QuantileDistribution) -> tuple[int | float, int | float]:
    """The least and the largest value."""
    return quantised(dist, _unrounded_value(dist, 0.0)), quantised(dist, _unrounded_value(dist, 1.0))


def bounded(dist: QuantileDistribution) -> bool:
    """Whether the range has ends of its own, rather than those of the floats."""
    return dist.family not in ("normal", "log_normal")


def nearest(dist: QuantileDistribution, number: int | float) -> int | float:
    """The possible value nearest to ``number``: ``number`` itself where it is one, an integer where ``q`` is."""
    low, high = ends(dist)
    slack = _SLACK * max(abs(low), abs(high))
    if not low - slack <= number <= high + slack:
        number = min(max(number, low), high)
    if dist.q is None:
        return float(number)
    near = quantised(dist, number)
    if isinstance(dist.q, int):
        return near
    return float(number) if abs(number - near) <= _ON_GRID * dist.q else near


def unit_of_number(dist: QuantileDistribution, number: int | float) -> float:
    """A ``u`` that gives ``number``; for a quantised one the middle of all that do. The inverse of :func:`value_at`.

    Where the floats next to ``u`` lie further apart than the values there, far out in a tail, the nearest.
    """
    if dist.q is None:
        return _cumulative_share(dist, number)
    # All numbers within half a step are rounded to this one: u lies in the middle of the shares at the two edges.
    step = round(number / dist.q)
    u = (_cumulative_share(dist, (step - 0.5) * dist.q) + _cumulative_share(dist, (step + 0.5) * dist.q)) / 2
    rounded = step * dist.q
    if value_at(dist, u) == rounded:
        return u
    return _middle_unit(lambda u: value_at(dist, u), rounded)


def _middle_unit(quantile: Callable[[float], int | float], number: int | float) -> float:
    """The middle of all ``u`` at which the rising function ``quantile`` is ``number``."""
    # Two searches by halves: (below, first) are neighbouring floats, and first is where the number begins; last is the
    # last float before the quantile gets larger than it.
    below, first = _halve(lambda u: quantile(u) >= number)
    last, _ = _halve(lambda u: quantile(u) > number)
    middle = (first + last) / 2
    # The middle fails only where rounding makes the function step over the number; the ends may have it still.
    for u in (middle, first, last, below, 0.0, 1.0):
        if quantile(u) == number:
            return u
    return middle


def _halve(is_above: Callable[[float], bool]) -> tuple[float, float]:
    """The neighbouring floats from 0 to 1 between which ``is_above`` becomes true."""
    low, high = 0.0, 1.0
    while low < (half := (low + high) / 2) < high:
        if is_above(half):
            high = half
        else:
            low = half
    return low, high


def _cumulative_share(dist: QuantileDistribution, number: float) -> float:
    """The share of the values that are not above ``number``."""
    match dist.family:
        case "uniform":
            return _uniform_share(dist, number)
        case "log_uniform":
            return _uniform_share(dist, math.log(number)) if number > 0 else 0.0
        case "normal":
            return _normal_share(dist, number)
        case "log_normal":
            return _normal_share(dist, math.log(number)) if number > 0 else _LEAST
        case "beta":
            return float(_scipy_special().betainc(dist.a, dist.b, min(max(number, 0.0), 1.0)))


def _uniform_share(dist: QuantileDistribution, number: float) -> float:
    return min(max((number - dist.a) / (dist.b - dist.a), 0.0), 1.0) if dist.a < dist.b else 0.5


def _normal_share(dist: QuantileDistribution, number: float) -> float:
    """Of a normal distribution, never 0 or 1; by ``erfc``, which is exact in the lower tail, where 1 + erf is not."""
    if dist.b == 0:
        return 0.5
    return min(max(0.5 * math.erfc((dist.a - number) / (dist.b * math.sqrt(2))), _LEAST), 1 - _LEAST)


# --- choices ----------------------------------------------------------------------------------------


def choice_at(dist: WeightedChoice, u: float) -> Scalar:
    """The choice at ``u``: the first whose cumulated weight exceeds it, the last that has a weight at 1."""
    for choice, share in zip(dist.choices, accumulate(dist.weights), strict=True):
        if u < share:
            return choice
    return [choice for choice, weight in zip(dist.choices, dist.weights, strict=True) if weight > 0][-1]


def unit_of_choice(dist: WeightedChoice, value: Scalar) -> float:
    """The middle of all ``u`` that give ``value``. Raises ValueError where none does."""
    index = find_choice(dist.choices, value)
    if index is None or dist.weights[index] <= 0:
        raise ValueError("not one of the choices")
    shares = [0.0, *accumulate(dist.weights)]
    return min((shares[index] + shares[index + 1]) / 2, 1.0)


def find_choice(choices: Sequence[Scalar], value: Scalar) -> int | None:
    """Where ``value`` is among the choices, of its own type if there; True is not 1, but 1.0 is. None if nowhere."""
    equal = [
        i for i, choice in enumerate(choices) if choice == value and isinstance(choice, bool) == isinstance(value, bool)
    ]
    return next((i for i in equal if type(choices[i]) is type(value)), equal[0] if equal else None)
