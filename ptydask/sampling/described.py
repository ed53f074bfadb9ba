"""A study's distributions as its results file has them: Optuna's JSON, and what Optuna has no words for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from ptydask.distributions import Choice, Distribution, QuantileDistribution, WeightedChoice
from ptydask.sampling.distributions import to_optuna
from ptydask.space import quantiles, ranges
from ptydask.space.ranges import DRAWN

_TAIL = 1e-3
"""Share of the values on either side that may lie beyond the range that is given for one without ends."""
_EXACT = 2**53
"""Integers beyond are not all floats."""


def search_space_json(space: Mapping[str, Distribution]) -> str:
    """A JSON object: the parameter's name -> the JSON object in which Optuna writes its distribution.

    Of a distribution that Optuna has not it is the range of the values, or the choices; a further entry ``drawn``
    then has the fields of :class:`~ptydask.distributions.QuantileDistribution`, or the ``weights`` of the
    choices. Where the values have no end, it is the range of all but 0.1 % of them on either side. Raises
    MissingDependency.
    """
    return json.dumps({name: _distribution_json(dist) for name, dist in space.items()})


def _distribution_json(dist: Distribution) -> dict[str, Any]:
    entry = cast(dict[str, Any], json.loads(distribution_to_json(value_distribution(dist))))
    if isinstance(dist, QuantileDistribution):
        entry[DRAWN] = {"family": dist.family, "a": dist.a, "b": dist.b, "q": dist.q}
    elif isinstance(dist, WeightedChoice):
        entry[DRAWN] = {"weights": list(dist.weights)}
    return entry


def value_distribution(dist: Distribution) -> BaseDistribution:
    """The distribution of Optuna that the values of ``dist`` lie in, whatever their probabilities.

    Raises MissingDependency.
    """
    if isinstance(dist, Choice | WeightedChoice):
        return CategoricalDistribution(dist.choices)
    return _quantile_range(dist) if isinstance(dist, QuantileDistribution) else to_optuna(dist)


def _quantile_range(dist: QuantileDistribution) -> BaseDistribution:
    if quantiles.bounded(dist):
        low, high = quantiles.ends(dist)
    else:
        low, high = quantiles.value_at(dist, _TAIL), quantiles.value_at(dist, 1 - _TAIL)
    log = dist.family in ("log_uniform", "log_normal") and low > 0
    if isinstance(dist.q, int) and max(abs(low), abs(high)) < _EXACT:
        return IntDistribution(int(low), int(high), log=log and dist.q == 1, step=dist.q)
    if dist.q is None or not _grid_fits(low, high, dist.q):
        return FloatDistribution(float(low), float(high), log=log)
    return FloatDistribution(float(low), float(high), step=float(dist.q))


def _grid_fits(low: float, high: float, step: float) -> bool:
    """Whether Optuna's decimal grid from ``low`` on ends at ``high``: 3 * 0.1 is 0.30000000000000004."""
    return math.isfinite(high / step) and ranges.grid_high(low, high, step) == high
