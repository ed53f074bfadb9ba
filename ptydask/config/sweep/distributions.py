"""One parameter of a sweep to what may be tried: W&B's distributions, named or inferred."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ptydask.config import study
from ptydask.distributions import Distribution, FloatRange, IntRange, QuantileDistribution
from ptydask.errors import ConfigError, nearest_hint

_RANGE, _Q = ("min", "max"), ("min", "max", "q")
FIELDS: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "categorical": ("values", "probabilities"),
    "categorical_w_probabilities": ("values", "probabilities"),
    "int_uniform": _RANGE,
    "uniform": _RANGE,
    "q_uniform": _Q,
    "log_uniform": _RANGE,
    "log_uniform_values": _RANGE,
    "q_log_uniform": _Q,
    "q_log_uniform_values": _Q,
    "inv_log_uniform": _RANGE,
    "inv_log_uniform_values": _RANGE,
    "normal": ("mu", "sigma"),
    "q_normal": ("mu", "sigma", "q"),
    "log_normal": ("mu", "sigma"),
    "q_log_normal": ("mu", "sigma", "q"),
    "beta": ("a", "b"),
    "q_beta": ("a", "b", "q"),
}
"""Each distribution's own keys, from the schema of the package ``sweeps``."""
KEYS = ("distribution", "value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "a", "b", "parameters")
_NEEDED = ("value", "values", "min", "max")
_COUNTED = ("constant", "categorical", "int_uniform", "q_uniform")
_LARGEST = 2.0**53
_EXPONENT = 690.0
"""Natural logarithm of the largest number that is let in, 1e300 or so."""


def read_family(entry: Mapping[str, Any], key: str) -> str:
    """The distribution's name, given or inferred as W&B does; every key that it needs is there and none other.

    Raises ConfigError.
    """
    family = entry["distribution"] if "distribution" in entry else _infer_family(entry, key)
    if not isinstance(family, str) or family not in FIELDS:
        hint = _suggest_family(family, entry) or nearest_hint(str(family), FIELDS) or f"known: {', '.join(FIELDS)}"
        raise ConfigError("W&B has no such distribution", key=f"{key}.distribution", value=family, hint=hint)
    fields = FIELDS[family]
    for field in entry:
        if field not in fields and field != "distribution":
            others = [other for other in FIELDS if set(entry) - {"distribution"} <= set(FIELDS[other])]
            hint = f"it has {' and '.join(fields)}"
            if others:
                hint += f"; did you mean {others[0]}?"
            rule = f"does not belong to the distribution {family}"
            raise ConfigError(rule, key=f"{key}.{field}", value=entry[field], hint=hint)
    needed = [field for field in fields if field in _NEEDED]
    if family == "categorical_w_probabilities":
        needed.append("probabilities")
    for field in needed:
        if field not in entry:
            raise ConfigError(f"{field} is missing", key=key, value=dict(entry), hint=f"{family} needs it")
    return family


def _suggest_family(family: object, entry: Mapping[str, Any]) -> str:
    """The distribution of values that other libraries call log-uniform; W&B's own of that name takes exponents."""
    low = entry.get("min")
    alike = re.sub(r"[\W_]", "", str(family).lower()) in ("loguniform", "uniformlog")
    if not alike or (isinstance(low, int | float) and low <= 0):
        return ""
    return "did you mean 'log_uniform_values'? (min and max of log_uniform are exponents)"


def _infer_family(entry: Mapping[str, Any], key: str) -> str:
    if "value" in entry and "values" in entry:
        raise ConfigError("has both value and values; keep one", key=key, value=dict(entry))
    if "value" in entry:
        return "constant"
    if "values" in entry:
        return "categorical"
    if "min" in entry and "max" in entry:
        whole = all(isinstance(study.number(entry[end], f"{key}.{end}"), int) for end in _RANGE)
        return "int_uniform" if whole else "uniform"
    for end, other in (_RANGE, _RANGE[::-1]):
        if end in entry:
            raise ConfigError(f"{other} is missing", key=key, value=dict(entry), hint="a range has min and max")
    hint = "give it value, values, min and max, or a distribution with what it needs"
    raise ConfigError("says nothing of what to try", key=key, value=dict(entry), hint=hint)


def read_distribution(
    family: str, entry: Mapping[str, Any], key: str, gridded: bool, notices: list[str]
) -> Distribution:
    """What a distribution other than constant and categorical may be. Raises ConfigError; adds to ``notices``."""
    if gridded and family not in _COUNTED:
        hint = "give it values, or q_uniform, or use method: random"
        raise ConfigError(f"a grid cannot count off {family}", key=key, value=dict(entry), hint=hint)
    if family in ("normal", "q_normal", "log_normal", "q_log_normal"):
        return _read_normal(family, entry, key)
    if family in ("beta", "q_beta"):
        a, b = (_read_beta_shape(entry.get(side, 1), f"{key}.{side}") for side in ("a", "b"))
        return QuantileDistribution("beta", float(a), float(b), _read_step(family, entry, key, 1.0))
    return _read_range(family, entry, key, gridded, notices)


def _read_range(family: str, entry: Mapping[str, Any], key: str, gridded: bool, notices: list[str]) -> Distribution:
    low, high = (_read_end(family, entry[end], f"{key}.{end}") for end in _RANGE)
    if low > high:
        raise ConfigError(f"must not be above max = {high!r}", key=f"{key}.min", value=low)
    name = key.removeprefix("parameters.").replace(".parameters.", ".")
    if low == high and not (gridded and family == "q_uniform"):
        notices.append(f"{name}: min = max = {low!r}, so there is one value to try (W&B refuses it)")
    if family == "int_uniform":
        if max(abs(low), abs(high)) > _LARGEST:
            raise ConfigError("must lie within 2**53, where integers are exact", key=key, value=dict(entry))
        return IntRange(int(low), int(high))
    if family == "uniform":
        return FloatRange(float(low), float(high))
    if family == "q_uniform":
        q = _read_step(family, entry, key, max(abs(low), abs(high))) or 1
        if gridded:
            return _grid_steps(low, high, q, key)
        return QuantileDistribution("uniform", float(low), float(high), q)
    first, last = _log_bounds(family, low, high, key, notices, name)
    if family.startswith("q_"):
        return QuantileDistribution("log_uniform", first, last, _read_step(family, entry, key, math.exp(last)))
    if family.endswith("_values"):
        return FloatRange(float(low), float(high), log=True)
    return FloatRange(math.exp(first), math.exp(last), log=True)


def _read_end(family: str, value: Any, key: str) -> int | float:
    number = study.number(value, key)
    if family != "int_uniform":
        return number
    if number != int(number):
        raise ConfigError("must be a whole number for int_uniform", key=key, value=value, hint="or use uniform")
    return int(number)


def _log_bounds(family: str, low: float, high: float, key: str, notices: list[str], name: str) -> tuple[float, float]:
    """Natural logarithms of the least and the largest number."""
    if family.endswith("_values"):
        if low <= 0:
            raise ConfigError(f"must be above 0 for {family}", key=f"{key}.min", value=low)
        return math.log(low), math.log(high)
    sign, ends = 1, [("min", low), ("max", high)]
    if family == "inv_log_uniform":
        sign, ends = -1, [("max", high), ("min", low)]
    for end, value in ends:
        if abs(value) > _EXPONENT:
            hint = f"for the values themselves use {family}_values"
            rule = f"is an exponent for {family}, and exp({sign * value:g}) is no number a computer holds"
            raise ConfigError(rule, key=f"{key}.{end}", value=value, hint=hint)
    first, last = (sign * value for _, value in ends)
    if low >= 0 and (high <= 1 or 0 < low < 0.5 or high > 20):
        notices.append(
            f"{name}: min and max of {family} are exponents: it samples {math.exp(first):.6g} to {math.exp(last):.6g}; "
            f"for {low:g} to {high:g} themselves use {family}_values"
        )
    return float(first), float(last)


def _grid_steps(low: float, high: float, q: int | float, key: str) -> Distribution:
    """numpy's ``arange(min, max, q)``, in decimal arithmetic: max is no point of the grid."""
    first, last, width = Decimal(str(low)), Decimal(str(high)), Decimal(str(q))
    count = max(0, math.ceil((last - first) / width))
    if count == 0:
        rule = "min = max leaves a grid no point, as max is not part of it"
        raise ConfigError(rule, key=key, value=[low, high], hint="give it a value instead")
    end = first + (count - 1) * width
    if isinstance(low, int) and isinstance(q, int):
        return IntRange(low, int(end), q)
    return FloatRange(float(first), float(end), float(q))


def _read_normal(family: str, entry: Mapping[str, Any], key: str) -> QuantileDistribution:
    mu = study.number(entry.get("mu", 0), f"{key}.mu")
    sigma = _read_positive(entry.get("sigma", 1), f"{key}.sigma")
    widest = abs(mu) + 9 * sigma
    if "log_normal" not in family:
        return QuantileDistribution("normal", float(mu), float(sigma), _read_step(family, entry, key, widest))
    if widest > _EXPONENT:
        rule = f"exp of {mu:g} and {sigma:g} (mu and sigma are exponents) is no number a computer holds"
        raise ConfigError(rule, key=key, value=dict(entry))
    return QuantileDistribution("log_normal", float(mu), float(sigma), _read_step(family, entry, key, 1.0))


def _read_step(family: str, entry: Mapping[str, Any], key: str, largest: float) -> int | float | None:
    if not family.startswith("q_"):
        return None
    q = _read_positive(entry.get("q", 1), f"{key}.q")
    if not largest / q < 1e300:
        raise ConfigError(f"is too small to count up to {largest:g} with", key=f"{key}.q", value=q)
    return q


def _read_beta_shape(value: Any, key: str) -> int | float:
    """A or b of a beta distribution, as far as its quantiles can be computed."""
    shape = _read_positive(value, key)
    if not 1e-6 <= shape <= 1e6:
        raise ConfigError("must lie between 1e-6 and 1e6", key=key, value=value)
    return shape


def _read_positive(value: Any, key: str) -> int | float:
    number = study.number(value, key)
    if number <= 0:
        raise ConfigError("must be above 0", key=key, value=value)
    return number
