"""Membership, grid and nearest value of what may be tried. Pure, standard library only."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, TypeGuard

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.model import Scalar
from ptydask.space import quantiles

DRAWN = "drawn"
"""Beside Optuna's ``name`` and ``attributes``: how the values are drawn, where Optuna has no such distribution."""
_OFF_GRID = 1e-8
"""Share of a step by which a value may miss its grid, as Optuna has it."""


def describe(dist: Distribution) -> str:
    """``0.8 to 1.2, step 0.02``, for messages and the plan."""
    if isinstance(dist, Choice):
        return f"one of {', '.join(repr(c) for c in dist.choices)}"
    if isinstance(dist, WeightedChoice):
        shares = zip(dist.choices, dist.weights, strict=True)
        return ", ".join(f"{choice!r} ({100 * weight:.4g} %)" for choice, weight in shares)
    if isinstance(dist, QuantileDistribution):
        return _describe_quantiles(dist)
    step = dist.step if dist.step not in (None, 1) or isinstance(dist, FloatRange) else None
    stepped = "" if step is None else f", step {step:.10g}"
    return f"{dist.low:.10g} to {dist.high:.10g}{stepped}{', logarithmic' if dist.log else ''}"


def _describe_quantiles(dist: QuantileDistribution) -> str:
    step = "" if dist.q is None else f", step {dist.q:.10g}"
    match dist.family:
        case "uniform":
            return f"{dist.a:.10g} to {dist.b:.10g}{step}"
        case "log_uniform":
            low, high = (math.exp(min(end, 709.0)) for end in (dist.a, dist.b))
            return f"log-uniform {low:.10g} to {high:.10g}{step}"
        case "beta":
            return f"beta, a {dist.a:.10g}, b {dist.b:.10g}{step}"
        case family:
            return f"{family.replace('_', '-')}, mu {dist.a:.10g}, sigma {dist.b:.10g}{step}"


def is_number(value: object) -> TypeGuard[float]:
    """Whether ``value`` is an int or a float; True and False are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def grid_high(low: float, high: float, step: float) -> float:
    """The last grid point ``low + k*step`` that is not above ``high``, in decimal arithmetic as Optuna does."""
    first, last, width = Decimal(str(low)), Decimal(str(high)), Decimal(str(step))
    return float(first + (last - first) // width * width)


def nearest_value(dist: Distribution, value: Scalar) -> Scalar:
    """The allowed value closest to ``value``; ``value`` itself where it is allowed.

    A choice has no nearest: raises ValueError where ``value`` is not one of the choices, or not a number where
    the range wants one, and MissingDependency for a beta distribution without SciPy.
    """
    if isinstance(dist, Choice | WeightedChoice):
        index = quantiles.find_choice(dist.choices, value)
        if index is None or (isinstance(dist, WeightedChoice) and dist.weights[index] <= 0):
            raise ValueError(f"not {describe(dist)}")
        return dist.choices[index]
    if not is_number(value) or not math.isfinite(value):
        raise ValueError("not a number")
    if isinstance(dist, QuantileDistribution):
        return quantiles.nearest(dist, value)
    number = min(max(value, dist.low), dist.high)
    if isinstance(dist, IntRange):
        return dist.low + round((number - dist.low) / dist.step) * dist.step
    if dist.step is None:
        return float(number)
    k = round((number - dist.low) / dist.step)
    if abs((number - dist.low) / dist.step - k) < _OFF_GRID:
        return float(number)
    return float(Decimal(str(dist.low)) + k * Decimal(str(dist.step)))


def middle(dist: Distribution) -> Scalar:
    """The allowed value in the middle of a range, on its own scale; of choices, and of what is drawn, one of them."""
    if isinstance(dist, Choice | WeightedChoice):
        return dist.choices[0]
    if isinstance(dist, QuantileDistribution):
        return quantiles.value_at(dist, 0.5)
    center = math.sqrt(dist.low * dist.high) if dist.log else (dist.low + dist.high) / 2
    return nearest_value(dist, center)


def contains(dist: Distribution, value: Scalar) -> bool:
    """Whether a trial may have ``value``."""
    try:
        return nearest_value(dist, value) == value
    except ValueError:
        return False


def spans(dist: Distribution, value: Scalar) -> bool:
    """Whether ``value`` lies between the ends of a range, on its grid or not; of anything else, :func:`contains`."""
    if isinstance(dist, FloatRange | IntRange) and is_number(value):
        return dist.low <= value <= dist.high
    return contains(dist, value)


def grid_size(dist: Distribution) -> int | None:
    """How many values ``dist`` allows; None where they cannot be counted off (a continuous or endless range)."""
    if isinstance(dist, Choice):
        return len(dist.choices)
    if isinstance(dist, WeightedChoice):
        return sum(weight > 0 for weight in dist.weights)
    if isinstance(dist, QuantileDistribution):
        multiples = _grid_multiples(dist)
        return None if multiples is None else multiples.stop - multiples.start  # len() takes no more than 2**63
    if dist.low == dist.high:
        return 1
    if isinstance(dist, IntRange):
        return (dist.high - dist.low) // dist.step + 1
    if dist.step is None:
        return None
    return int((Decimal(str(dist.high)) - Decimal(str(dist.low))) // Decimal(str(dist.step))) + 1


def grid(dist: Distribution) -> tuple[Scalar, ...] | None:
    """Every allowed value in rising (choices: given) order; None for a continuous range, or one without ends."""
    if isinstance(dist, Choice):
        return dist.choices
    if isinstance(dist, WeightedChoice):
        return tuple(choice for choice, weight in zip(dist.choices, dist.weights, strict=True) if weight > 0)
    size = grid_size(dist)
    return None if size is None else tuple(grid_value(dist, index) for index in range(size))


def grid_value(dist: FloatRange | IntRange | QuantileDistribution, index: int) -> int | float:
    """The number at ``index``, from 0 on, of the grid that ``dist`` has."""
    if isinstance(dist, QuantileDistribution):
        return (_first_multiple(dist) + index) * (dist.q or 0)
    if isinstance(dist, IntRange):
        return dist.low + index * dist.step
    return float(Decimal(str(dist.low)) + index * Decimal(str(dist.step or 0)))


def grid_index(dist: FloatRange | IntRange | QuantileDistribution, number: float) -> float:
    """Where ``number`` lies on the grid, the inverse of :func:`grid_value`; no whole number where it misses it."""
    if isinstance(dist, QuantileDistribution):
        index = number / (dist.q or 1) - _first_multiple(dist)
    else:
        index = (number - dist.low) / (dist.step or 1)
    return round(index) if abs(index - round(index)) < _OFF_GRID else index


@functools.lru_cache
def _first_multiple(dist: QuantileDistribution) -> int:
    multiples = _grid_multiples(dist)
    return 0 if multiples is None else multiples.start


def _grid_multiples(dist: QuantileDistribution) -> range | None:
    """The multiples of ``q`` that are possible; None where there is no end of them, not even among the floats."""
    if dist.q is None or not quantiles.bounded(dist):
        return None
    first, last = (end / dist.q for end in quantiles.ends(dist))
    return range(round(first), round(last) + 1) if math.isfinite(first) and math.isfinite(last) else None


def from_json(entry: Mapping[str, Any]) -> Distribution:
    """The distribution that a results file has for a parameter, in Optuna's JSON.

    Raises ValueError, KeyError or TypeError.
    """
    drawn, attributes = entry.get(DRAWN), entry["attributes"]
    if isinstance(drawn, Mapping) and "family" in drawn:
        return QuantileDistribution(**drawn)
    if isinstance(drawn, Mapping):
        return WeightedChoice(tuple(attributes["choices"]), tuple(drawn["weights"]))
    match entry["name"]:
        case "CategoricalDistribution":
            return Choice(tuple(attributes["choices"]))
        case "IntDistribution":
            return IntRange(**attributes)
        case "FloatDistribution":
            return FloatRange(**attributes)
        case name:
            raise ValueError(f"a distribution of an unknown kind, {name}")
