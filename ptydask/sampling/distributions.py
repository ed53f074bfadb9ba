"""Between the values of a trial and the parameters that Optuna has.

For most distributions the two are the same. Where Optuna has no distribution of that kind, its parameter is ``u``
between 0 and 1, of which :mod:`ptydask.space.quantiles` makes the value; samplers then work where all values are
equally probable, as those of W&B do. The value itself stands in a user attribute of Optuna's trial, for people who
look at the study, and because the float ``u`` cannot give back every value that a person may ask for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.model import ComponentSpec, Scalar
from ptydask.space import quantiles, ranges

_VALUE = "value of "
"""What the user attribute with a parameter's value is called, before the parameter's name."""
_SAME_U = 1e-9
"""By how much ``u`` of the same value may differ between two machines' mathematical libraries."""


def to_optuna(dist: Distribution) -> BaseDistribution:
    """Optuna's distribution with the same values; that of ``u``, from 0 to 1, where Optuna has none."""
    match dist:
        case FloatRange(low, high, step, log):
            return FloatDistribution(low, high, log=log, step=step)
        case IntRange(low, high, step, log):
            return IntDistribution(low, high, log=log, step=step)
        case Choice(choices) if _unit_form(dist) is None:
            return CategoricalDistribution(choices)
        case _:
            return FloatDistribution(0.0, 1.0)


def _unit_form(dist: Distribution) -> QuantileDistribution | WeightedChoice | None:
    """The distribution as one of ``u``; None where Optuna has it itself.

    Choices that Python holds equal, such as 1 and True, are to Optuna one and the same.
    """
    if isinstance(dist, QuantileDistribution | WeightedChoice):
        return dist
    if isinstance(dist, Choice) and len(set(dist.choices)) < len(dist.choices):
        return WeightedChoice(dist.choices, (1 / len(dist.choices),) * len(dist.choices))
    return None


def _value_at_unit(dist: QuantileDistribution | WeightedChoice, u: float) -> Scalar:
    return quantiles.value_at(dist, u) if isinstance(dist, QuantileDistribution) else quantiles.choice_at(dist, u)


def _unit_of_value(dist: QuantileDistribution | WeightedChoice, value: Scalar) -> float:
    """Raises ValueError for what is no value of ``dist``."""
    if isinstance(dist, WeightedChoice):
        return quantiles.unit_of_choice(dist, value)
    if not ranges.is_number(value):
        raise ValueError("not a number")
    return quantiles.unit_of_number(dist, value)


# --- parameters of a trial --------------------------------------------------------------------------


def suggest(trial: Trial, space: Mapping[str, Distribution], spec: ComponentSpec) -> dict[str, Scalar]:
    """The values of a trial, asked of the sampler that ``spec`` describes.

    The ones that Optuna knows as ``u`` are written into the trial's user attributes too, see :func:`value_attributes`.
    Raises MissingDependency.
    """
    fixed = spec.configs.get("fixed_params") if spec.name == "PartialFixedSampler" else None
    attributes = trial.user_attrs
    noted = {**value_attributes(space, fixed or {}), **attributes}
    values = {name: _suggest_value(trial, name, dist, noted) for name, dist in space.items()}
    for key, value in value_attributes(space, values).items():
        if key not in attributes or (attributes[key], type(attributes[key])) != (value, type(value)):
            trial.set_user_attr(key, value)
    return values


def _suggest_value(trial: Trial, name: str, dist: Distribution, noted: Mapping[str, Any]) -> Scalar:
    drawn = _unit_form(dist)
    if drawn is not None:
        return _exact_value(name, drawn, trial.suggest_float(name, 0.0, 1.0), noted)
    match dist:
        case FloatRange(low, high, step, log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntRange(low, high, step, log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case _:
            return trial.suggest_categorical(name, cast(Choice, dist).choices)


def _exact_value(name: str, drawn: QuantileDistribution | WeightedChoice, u: float, noted: Mapping[str, Any]) -> Scalar:
    """The value at ``u``: the one that was written down beside it, where that is one of them."""
    key = f"{_VALUE}{name}"
    if key in noted and unit_matches(drawn, u, noted[key]):
        value: Scalar = noted[key]
        return value
    return _value_at_unit(drawn, u)


def unit_matches(dist: Distribution, u: float, value: Scalar) -> bool:
    """Whether ``u`` is that of ``value``, for a distribution that Optuna has not."""
    drawn = _unit_form(dist)
    if drawn is None:
        return False
    own = _value_at_unit(drawn, u)
    if isinstance(drawn, WeightedChoice):
        return own is value or (own == value and type(own) is type(value))
    try:
        return own == value or abs(_unit_of_value(drawn, value) - u) <= _SAME_U
    except ValueError:
        return False


def from_optuna_params(
    space: Mapping[str, Distribution], params: Mapping[str, Any], attributes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values of a trial whose parameters, and user ``attributes``, Optuna has. Raises MissingDependency."""
    values = dict(params)
    for name, u in params.items():
        drawn = _unit_form(space[name]) if name in space else None
        if drawn is not None:
            values[name] = _exact_value(name, drawn, float(u), attributes or {})
    return values


def to_optuna_params(space: Mapping[str, Distribution], params: Mapping[str, Scalar]) -> dict[str, Any]:
    """The parameters that Optuna has of a trial with these values; what ``space`` does not allow stays as it is.

    Raises MissingDependency.
    """
    out: dict[str, Any] = dict(params)
    for name, value in params.items():
        drawn = _unit_form(space[name]) if name in space else None
        if drawn is not None and ranges.contains(drawn, value):
            out[name] = _unit_of_value(drawn, value)
    return out


def value_attributes(space: Mapping[str, Distribution], params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """User attributes of Optuna's trial: the values of the parameters that Optuna knows as ``u``."""
    ours = unit_parameters(space)
    return {
        f"{_VALUE}{name}": ranges.nearest_value(space[name], value)
        for name, value in params.items()
        if name in ours and ranges.contains(space[name], value)
    }


def kept_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a trial's user attributes that :func:`value_attributes` made."""
    return {key: value for key, value in attributes.items() if key.startswith(_VALUE)}


def foreign_values(
    space: Mapping[str, Distribution], params: Mapping[str, Any], attributes: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The values of a trial from another study; None where ``space`` has no such values.

    The other study may have had other settings, so its ``u`` says nothing: what stands beside it counts.
    """
    values = dict(params)
    for name in unit_parameters(space) & params.keys():
        values[name] = attributes.get(f"{_VALUE}{name}", params[name])
        if not ranges.contains(space[name], values[name]):
            return None
    return values


def find_stale_param(space: Mapping[str, Distribution], trial: FrozenTrial) -> str | None:
    """The first parameter that means another value in ``space`` than it did in ``trial``; None where none does."""
    for name, u in trial.params.items():
        key = f"{_VALUE}{name}"
        if name not in space:
            continue
        if _unit_form(space[name]) is None:
            if key in trial.user_attrs:  # it was u then, and is the value itself now
                return name
            continue
        if trial.distributions[name] != to_optuna(space[name]):
            return name
        if key in trial.user_attrs and not unit_matches(space[name], float(u), trial.user_attrs[key]):
            return name
    return None


def unit_parameters(space: Mapping[str, Distribution]) -> frozenset[str]:
    """The parameters that Optuna knows as ``u``."""
    return frozenset(name for name, dist in space.items() if _unit_form(dist) is not None)


def check_requirements(space: Mapping[str, Distribution]) -> None:
    """Raise MissingDependency where a distribution needs a package that is not installed."""
    for dist in space.values():
        drawn = _unit_form(dist)
        if drawn is not None:
            _value_at_unit(drawn, 0.5)
