"""Membership, grid and nearest value of what may be tried. Pure, standard library only."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import cast

from ptydask.model import Choice, Distribution, FloatRange, IntRange, Scalar

_OFF_GRID = 1e-8
"""Share of a step by which a value may miss its grid, as Optuna has it."""


def describe(dist: Distribution) -> str:
    """``0.8 to 1.2, step 0.02``, for messages and the plan."""
    if isinstance(dist, Choice):
        return f"one of {', '.join(repr(c) for c in dist.choices)}"
    step = dist.step if dist.step not in (None, 1) or isinstance(dist, FloatRange) else None
    stepped = "" if step is None else f", step {step:.10g}"
    return f"{dist.low:.10g} to {dist.high:.10g}{stepped}{', logarithmic' if dist.log else ''}"


def is_number(value: object) -> bool:
    """Whether ``value`` is an int or a float; True and False are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def grid_high(low: float, high: float, step: float) -> float:
    """The last grid point ``low + k*step`` that is not above ``high``, in decimal arithmetic as Optuna does."""
    first, last, width = Decimal(str(low)), Decimal(str(high)), Decimal(str(step))
    return float(first + (last - first) // width * width)


def nearest_value(dist: Distribution, value: Scalar) -> Scalar:
    """The allowed value closest to ``value``; ``value`` itself where it is allowed.

    A choice has no nearest: raises ValueError where ``value`` is not one of the choices, or not a number where
    the range wants one.
    """
    if isinstance(dist, Choice):
        for choice in dist.choices:
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return choice
        raise ValueError(f"not {describe(dist)}")
    if not is_number(value) or not math.isfinite(cast(float, value)):
        raise ValueError("not a number")
    number = min(max(cast(float, value), dist.low), dist.high)
    if isinstance(dist, IntRange):
        return dist.low + round((number - dist.low) / dist.step) * dist.step
    if dist.step is None:
        return float(number)
    k = round((number - dist.low) / dist.step)
    if abs((number - dist.low) / dist.step - k) < _OFF_GRID:
        return float(number)
    return float(Decimal(str(dist.low)) + k * Decimal(str(dist.step)))


def contains(dist: Distribution, value: Scalar) -> bool:
    """Whether a trial may have ``value``."""
    try:
        return nearest_value(dist, value) == value
    except ValueError:
        return False


def grid_size(dist: Distribution) -> int | None:
    """How many values ``dist`` allows; None where they cannot be counted off (a continuous range)."""
    if isinstance(dist, Choice):
        return len(dist.choices)
    if dist.low == dist.high:
        return 1
    if isinstance(dist, IntRange):
        return (dist.high - dist.low) // dist.step + 1
    if dist.step is None:
        return None
    return int((Decimal(str(dist.high)) - Decimal(str(dist.low))) // Decimal(str(dist.step))) + 1


def grid(dist: Distribution) -> tuple[Scalar, ...] | None:
    """Every allowed value in rising (choices: given) order; None for a continuous range."""
    size = grid_size(dist)
    if size is None:
        return None
    if isinstance(dist, Choice):
        return dist.choices
    if isinstance(dist, IntRange):
        return tuple(range(dist.low, dist.high + 1, dist.step))
    first, width = Decimal(str(dist.low)), Decimal(str(dist.step or 0))
    return tuple(float(first + k * width) for k in range(size))
