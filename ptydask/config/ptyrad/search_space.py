"""``hypertune_params.tune_params`` of PtyRAD, old spelling or new, to what may be tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ptydask.config import reading, study
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import TRIED, Point, Scalar
from ptydask.space import ranges
from ptydask.space.tunables import LEGACY, PARAMETERS, TUNABLES, Tunable

KEY = "hypertune_params.tune_params"
Tuned = FloatRange | IntRange | Choice
"""The distributions that PtyRAD knows."""
OPTIMIZERS = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "SparseAdam",
    "Adamax",
    "ASGD",
    "LBFGS",
    "Muon",
    "Nadam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
)
_UNUSABLE = {
    "Nadam": "PyTorch has no optimizer of that name (PyTorch's NAdam is not on PtyRAD's list)",
    "SparseAdam": "it takes sparse gradients only, and those of a reconstruction are dense",
    "Muon": "it takes matrices only, and the object has four dimensions",
}


@dataclass
class TuneParams:
    """What was read: the active parameters' distributions, the entries in PtyRAD 1.0.0's spelling, what to say."""

    space: dict[str, Distribution] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)


def tune_params(section: Any) -> TuneParams:
    """Every entry checked, old names translated. Raises ConfigError with key, value and rule."""
    tuned = TuneParams()
    if section is None:
        return tuned
    reading.expect(section, "a mapping", KEY)
    for name, entry in section.items():
        if name not in TUNABLES and name not in LEGACY:
            hint = nearest_hint(name, [*TUNABLES, *LEGACY])
            raise ConfigError("PtyRAD has no such tunable", key=f"{KEY}.{name}", value=entry, hint=hint)
        _read_entry(tuned, name, entry, section)
    return tuned


def _read_entry(tuned: TuneParams, name: str, value: Any, section: Mapping[str, Any]) -> None:
    key = f"{KEY}.{name}"
    entry = dict(reading.expect(value, "a mapping", key))
    reading.known_keys(entry, ("state", "suggest", "kwargs", "optim_configs"), key)
    if "state" not in entry:
        raise ConfigError("state is missing; it must be true or false", key=key, value=value)
    reading.expect(entry["state"], "true or false", f"{key}.state")
    if name == "optimizer":
        _move_optim_configs(tuned, entry, key)
    elif "optim_configs" in entry:
        raise ConfigError("belongs to the tunable optimizer alone", key=f"{key}.optim_configs")
    if not entry["state"]:
        if name not in LEGACY:
            tuned.entries.setdefault(name, entry)
        return
    new, sign = LEGACY.get(name, (name, 1))
    if new != name and isinstance(section.get(new), Mapping) and section[new].get("state") is True:
        raise ConfigError(f"is the old name of {new}, which is switched on too; keep one", key=key, value=value)
    dist = read_distribution(TUNABLES[new], entry, key, tuned.notices)
    if new != name:
        dist = negate_distribution(dist, f"{key}.kwargs") if sign < 0 else dist
        turned = " with the sign turned" if sign < 0 else ""
        tuned.notices.append(f"{name} is called {new} now{turned}: {ranges.describe(dist)} angstrom")
        entry = {"state": True, "suggest": entry["suggest"], "kwargs": suggest_kwargs(dist)}
    tuned.entries[new] = entry
    for parameter in TUNABLES[new].parameters:
        tuned.space[parameter] = dist


def _move_optim_configs(tuned: TuneParams, entry: dict[str, Any], key: str) -> None:
    """PtyRAD 1.0.0 wants them inside ``kwargs``, the versions before it beside."""
    kwargs = entry.get("kwargs")
    inside = kwargs.get("optim_configs") if isinstance(kwargs, Mapping) else None
    if "optim_configs" in entry:
        beside = entry.pop("optim_configs")
        if inside and beside and inside != beside:
            raise ConfigError("is there twice, beside kwargs and inside; keep one", key=f"{key}.optim_configs")
        if isinstance(kwargs, Mapping):
            entry["kwargs"] = {**kwargs, "optim_configs": beside or inside or {}}
            if entry["state"]:
                tuned.notices.append("optim_configs moved inside kwargs, where PtyRAD 1.0 has it")
        inside = beside or inside
    for name, configs in reading.expect(inside or {}, "a mapping", f"{key}.kwargs.optim_configs").items():
        _check_optimizer(name, f"{key}.kwargs.optim_configs")
        reading.expect(configs, "a mapping", f"{key}.kwargs.optim_configs.{name}")


def read_distribution(
    tunable: Tunable, entry: dict[str, Any], key: str, notices: list[str], *, kwargs_key: str = ""
) -> Tuned:
    """What an entry ``{suggest, kwargs}`` at ``key`` allows; a choice that is there twice is taken out of it.

    ``kwargs_key`` is where the file has what ``kwargs`` holds, if not there. Raises ConfigError.
    """
    for needed in ("suggest", "kwargs"):
        if needed not in entry:
            raise ConfigError(f"{needed} is missing", key=key, value=entry, hint=_example_entry(tunable))
    suggest = entry["suggest"]
    if suggest not in ("float", "int", "cat"):
        raise ConfigError("must be float, int or cat", key=f"{key}.suggest", value=suggest)
    kwargs_key = kwargs_key or f"{key}.kwargs"
    kwargs = reading.expect(entry["kwargs"], "a mapping", kwargs_key)
    if tunable.kind == "name" and suggest != "cat":
        raise ConfigError("must be cat: an optimizer is a name", key=f"{key}.suggest", value=suggest)
    if tunable.kind == "integer" and suggest == "float":
        raise ConfigError(f"must be int: {tunable.name} is a whole number", key=f"{key}.suggest", value=suggest)
    if suggest == "cat":
        return _read_choice(notices, tunable, entry, kwargs_key)
    reading.known_keys(kwargs, ("low", "high", "step", "log"), kwargs_key)
    return _read_range(tunable, suggest, kwargs, kwargs_key, notices)


def _example_entry(tunable: Tunable) -> str:
    if tunable.kind == "name":
        return "for example {state: true, suggest: cat, kwargs: {choices: [Adam, SGD]}}"
    suggest = "int" if tunable.kind == "integer" else "float"
    return f"for example {{state: true, suggest: {suggest}, kwargs: {{low: 1, high: 8}}}}"


def _read_choice(notices: list[str], tunable: Tunable, entry: dict[str, Any], key: str) -> Choice:
    kwargs = entry["kwargs"]
    keys = ("choices", "optim_configs") if tunable.name == "optimizer" else ("choices",)
    reading.known_keys(kwargs, keys, key)
    if "choices" not in kwargs:
        raise ConfigError("choices is missing", key=key, value=kwargs)
    choices = reading.expect(kwargs["choices"], "a list", f"{key}.choices")
    if not choices:
        raise ConfigError("must hold at least one choice", key=f"{key}.choices", value=choices)
    check_values(tunable.parameters[0], choices, f"{key}.choices")
    unique: list[Scalar] = list(dict.fromkeys(choices))
    if len(unique) < len(choices):
        notices.append(f"{tunable.name}: choices {choices} hold a value twice; {unique} are tried")
        entry["kwargs"] = {**kwargs, "choices": unique}
    return Choice(tuple(unique))


def check_values(parameter: str, values: list[Any], key: str) -> None:
    """Raises ConfigError for the first of ``values`` that the parameter cannot have, whatever its range."""
    tunable = PARAMETERS[parameter]
    for value in values:
        if tunable.kind == "name":
            _check_optimizer(value, key, tried=True)
        else:
            _check_bounds(tunable, _check_number(value, key), key)


def _check_optimizer(name: object, key: str, tried: bool = False) -> None:
    if name not in OPTIMIZERS:
        raise ConfigError("PtyRAD has no such optimizer", key=key, value=name, hint=nearest_hint(str(name), OPTIMIZERS))
    if tried and name in _UNUSABLE:
        raise ConfigError(_UNUSABLE[str(name)], key=key, value=name)


def _read_range(
    tunable: Tunable, suggest: str, kwargs: Mapping[str, Any], key: str, notices: list[str]
) -> FloatRange | IntRange:
    for needed in ("low", "high"):
        if needed not in kwargs:
            raise ConfigError(f"{needed} is missing", key=key, value=dict(kwargs))
    low, high = (_check_number(kwargs[end], f"{key}.{end}", suggest == "int") for end in ("low", "high"))
    log = reading.expect(kwargs.get("log") or False, "true or false", f"{key}.log")
    step = kwargs.get("step")
    if step is not None:
        step = _check_number(step, f"{key}.step", suggest == "int")
        if step <= 0:
            raise ConfigError("must be above 0", key=f"{key}.step", value=step)
    if low > high:
        raise ConfigError(f"low must not be above high = {high!r}", key=f"{key}.low", value=low)
    if log and low <= 0:
        raise ConfigError("must be above 0 where log is true", key=f"{key}.low", value=low)
    if log and step is not None and not (suggest == "int" and step == 1):
        raise ConfigError("a range has a step or is log, not both", key=f"{key}.step", value=step)
    if step is not None and low < high and step > high - low:
        raise ConfigError(f"must not be larger than the range {low!r} to {high!r}", key=f"{key}.step", value=step)
    _check_bounds(tunable, low, f"{key}.low")
    if low == high:
        notices.append(f"{tunable.name}: low = high = {low!r}, so there is one value to try")
    elif step is not None and not log:
        last = ranges.grid_high(low, high, step)
        if not math.isclose(last, high, rel_tol=1e-12, abs_tol=1e-12):
            notice = f"{high!r} is not a multiple of {step!r} above {low!r}; {last:g} is the end"
            notices.append(f"{tunable.name}: {notice}")
            high = last
    if suggest == "int":
        return IntRange(int(low), int(high), 1 if log or step is None else int(step), log)
    return FloatRange(float(low), float(high), None if step is None else float(step), log)


def _check_number(value: Any, key: str, whole: bool = False) -> float:
    value = study.number(value, key)
    if whole and value != int(value):
        raise ConfigError("must be a whole number where suggest is int", key=key, value=value)
    return int(value) if whole else value


def _check_bounds(tunable: Tunable, value: float, key: str) -> None:
    if tunable.kind == "integer" and value != int(value):
        raise ConfigError(f"must be a whole number: {tunable.meaning}", key=key, value=value)
    if tunable.least is None:
        return
    if value < tunable.least or (tunable.positive and value == tunable.least):
        rule = "above" if tunable.positive else "at least"
        raise ConfigError(f"must be {rule} {tunable.least:g}: {tunable.meaning}", key=key, value=value)


def negate_distribution(dist: Tuned, key: str) -> Tuned:
    """The same values with the other sign, of a range at ``key``; the grid stays the same grid. Raises ConfigError."""
    if isinstance(dist, Choice):
        return Choice(tuple(0 - cast(float, value) for value in dist.choices))
    if dist.log:
        rule = "C10 = -defocus is below 0, where no log range can be"
        raise ConfigError(rule, key=f"{key}.log", value=True, hint="tune C10 without log")
    if isinstance(dist, IntRange):
        return IntRange(-dist.high, -dist.low, dist.step)
    return FloatRange(0.0 - dist.high, 0.0 - dist.low, dist.step)


def suggest_kwargs(dist: Tuned) -> dict[str, Any]:
    """The ``kwargs`` of an entry with this distribution."""
    if isinstance(dist, Choice):
        return {"choices": list(dist.choices)}
    return {"low": dist.low, "high": dist.high, "step": None if dist.log else dist.step, "log": dist.log}


def check_point(values: Mapping[str, Scalar], space: Mapping[str, Distribution], notices: list[str]) -> Point:
    """A person's guess in the study's own names, on its grid; ``notices`` gets what was changed. Raises ConfigError."""
    named = rename_legacy(values)
    if not space:
        raise ConfigError("nothing is tuned, so there is nothing to try", key="--try", value=dict(values))
    for name, value in named.items():
        if name not in space:
            hint = nearest_hint(name, space)
            raise ConfigError("is not tuned in this study", key=f"--try {name}", value=value, hint=hint)
        dist = space[name]
        if not ranges.spans(dist, value):
            raise ConfigError(f"must be {ranges.describe(dist)}", key=f"--try {name}", value=value)
        near = ranges.nearest_value(dist, value)
        if near != value:
            notices.append(f"--try {name}: {value!r} is not in {ranges.describe(dist)}; {near!r} is tried")
        named[name] = near
    return Point(named, TRIED)


def part_of_point(
    values: Mapping[str, Scalar], space: Mapping[str, Distribution], notices: list[str]
) -> dict[str, Scalar]:
    """What of a person's guess a stage with this ``space`` can try; ``notices`` gets what lies outside of it."""
    part: dict[str, Scalar] = {}
    for name, value in rename_legacy(values).items():
        dist = space.get(name)
        if isinstance(dist, FloatRange | IntRange) and ranges.is_number(value) and not dist.low <= value <= dist.high:
            notices.append(f"--try {name}: {value!r} is not in {ranges.describe(dist)}, so this stage does not try it")
        elif dist is not None:
            part[name] = value
    return part


def rename_legacy(named: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping with PtyRAD's old names translated; values (or lists of them) of ``defocus`` turned."""
    renamed: dict[str, Any] = {}
    for name, old_value in named.items():
        target, sign = LEGACY.get(name, (name, 1))
        value = _turned_value(old_value) if sign < 0 else old_value
        pair = TUNABLES[target].parameters if target in TUNABLES and isinstance(value, list) else (target,)
        for parameter in pair:
            renamed[parameter] = value
    return renamed


def _turned_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_turned_value(item) for item in value]
    return 0 - value if ranges.is_number(value) else value
