"""A trial's slopes: checked where an engine reports them, and in the words in which Optuna keeps them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from ptydask.errors import nearest_hint
from ptydask.model import Direction, TrialRecord

ATTRIBUTE = "gradient"
"""The user attribute of a trial in Optuna, see :func:`to_attribute`."""
COLUMN = "gradient/"
"""Begins the names of those columns of a curve that are slopes: ``gradient/scale``."""


def check_gradient(gradient: Mapping[Any, Any], tuned: Collection[str]) -> dict[str, float]:
    """The gradient as plain numbers, without those that are NaN or infinite.

    Raises ValueError where it names what is not ``tuned``, TypeError where an entry is no number.
    """
    slopes = {}
    for name, value in gradient.items():
        if name not in tuned:
            hint = nearest_hint(str(name), tuned) or "name the tuned parameters"
            raise ValueError(f"the gradient names {name!r}, which is not tuned; {hint}")
        if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
            raise TypeError(f"the gradient in {name} is a {type(value).__name__}, not a number")
        slope = float(value)
        if math.isfinite(slope):
            slopes[str(name)] = slope
    return slopes


def relative_decrease(previous: float | None, last: float | None, direction: Direction) -> float | None:
    """By which share of itself the metric got better in the last step; below 0 where it got worse.

    None where that cannot be said: one value is missing or not finite, or the last one is 0.
    """
    if previous is None or not last:
        return None
    gain = previous - last if direction == "minimize" else last - previous
    share = gain / abs(last)
    return share if math.isfinite(share) else None


def to_attribute(record: TrialRecord) -> dict[str, Any]:
    """What Optuna keeps of a record's slopes; see :func:`attribute_after`."""
    return attribute_after(record.last_step, record.gradient, record.relative_decrease)


def attribute_after(step: int | None, gradient: Mapping[str, float], decrease: float | None) -> dict[str, Any]:
    """What Optuna keeps of a trial's slopes after a step, as user attributes: empty where it has none.

    One attribute, ``gradient``: ``{"step": after which step, "relative_decrease": ..., "slopes": {NAME: value}}``,
    None for what is not known.
    """
    return {ATTRIBUTE: {"step": step, "relative_decrease": decrease, "slopes": dict(gradient)}} if gradient else {}


def from_attribute(attributes: Mapping[str, Any]) -> dict[str, float]:
    """The slopes among a trial's user attributes; empty where there are none."""
    kept = attributes.get(ATTRIBUTE) or {}
    return {str(name): float(slope) for name, slope in kept.get("slopes", {}).items()}
