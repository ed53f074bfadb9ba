"""What may be tried: the distributions that a parameter's values are drawn from. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ptydask.model import Scalar


@dataclass(frozen=True, slots=True)
class FloatRange:
    """A real number between ``low`` and ``high``, both included; on the grid ``low + k*step`` if stepped."""

    low: float
    high: float
    step: float | None = None
    log: bool = False


@dataclass(frozen=True, slots=True)
class IntRange:
    """An integer between ``low`` and ``high``, both included."""

    low: int
    high: int
    step: int = 1
    log: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values."""

    choices: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class WeightedChoice:
    """One of a few values, drawn with the given probabilities (which sum to 1)."""

    choices: tuple[Scalar, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class QuantileDistribution:
    """A number drawn by the quantile function of its family, as W&B's sweeps define it: ppf(u), u from 0 to 1.

    The sampler chooses ``u``; trials and their records have the number itself. With ``q`` the number is
    ``round(number / q) * q``, an integer where ``q`` is one.
    """

    family: Literal["uniform", "log_uniform", "normal", "log_normal", "beta"]
    a: float
    """uniform: the least number; log_uniform: its natural logarithm; normal, log_normal: mu; beta: a."""
    b: float
    """uniform: the largest number; log_uniform: its natural logarithm; normal, log_normal: sigma; beta: b."""
    q: int | float | None = None


Distribution = FloatRange | IntRange | Choice | WeightedChoice | QuantileDistribution
