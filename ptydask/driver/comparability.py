"""Whether a results file and a plan belong together: pure comparisons of what each says about the study."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ptydask import sampling
from ptydask.errors import ConfigError
from ptydask.model import FloatRange, IntRange, StudyMeta
from ptydask.space import ranges

_ABSENT = object()
_TUNED = "hypertune_params.tune_params"
"""Where PtyRAD's files have the tuned parameters."""
_SEARCHED = "(tuned)"
"""What stands for the value of a parameter that each trial has another value of."""


def compare(
    old: StudyMeta, new: StudyMeta, old_config: Mapping[str, Any], new_config: Mapping[str, Any], *, file: str
) -> list[str]:
    """Notices for what changed and may change. The configs are their engine's essential parts.

    Raises ConfigError, naming the first key, where the trials of the two would not be comparable.
    """
    advice = "put the old value back, or give the new study its own file with --results NEW.h5"
    sweep = isinstance(new_config.get("parameters"), list)
    names: tuple[tuple[str, object, object], ...] = (
        ("name" if sweep else "study_name", old.name, new.name),
        ("engine", old.engine, new.engine),
        ("metric.name" if sweep else "error_metric", old.metric, new.metric),
        ("metric.goal" if sweep else "error_metric", old.direction, new.direction),
    )
    for key, before, now in names:
        if before != now:
            raise _incomparable_error(key, before, now, file, advice)
    for key, before, now in changed_settings(old_config, new_config):
        raise _incomparable_error(key, before, now, file, advice)
    where = "parameters" if sweep else _TUNED
    before, now = (json.loads(meta.search_space_json) for meta in (old, new))
    return list(_compare_spaces(before, now, file, advice, where))


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Every setting in which two configurations differ, as :func:`differences` has it; parameters of sweeps by name."""
    if all(isinstance(config.get("parameters"), list) for config in (old, new)):
        old, new = _by_name(old), _by_name(new)
    return differences(old, new)


def _by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's configuration with its parameters by name: messages name them, and their order changes no trial."""
    given = config["parameters"]
    nesting = {p["name"]: p["path"] for p in given}
    return {**config, "parameters": {p["name"]: p.get("value", _SEARCHED) for p in given}, "nesting": nesting}


def _incomparable_error(key: str, before: object, now: object, file: str, advice: str) -> ConfigError:
    was = "nothing" if before is _ABSENT else repr(before)
    return ConfigError(
        f"the trials in this file were run with {was}; results with both would not be comparable",
        file=file,
        key=key,
        value="(absent)" if now is _ABSENT else now,
        hint=advice,
    )


def differences(old: object, new: object, at: str = "") -> Iterator[tuple[str, object, object]]:
    """Every place where two JSON-like values differ: (dotted key, old, new)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), f"{at}.{key}" if at else str(key))
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from differences(a, b, f"{at}[{i}]")
    elif not (old == new or (old != old and new != new)):
        yield at, old, new


def _compare_spaces(
    old: Mapping[str, Any], new: Mapping[str, Any], file: str, advice: str, where: str = _TUNED
) -> Iterator[str]:
    if sorted(old) != sorted(new):
        raise _incomparable_error("the tuned parameters", sorted(old), sorted(new), file, advice)
    for name in new:
        if old[name] == new[name]:
            continue
        before, now = old[name], new[name]
        key = f"{where}.{name}"
        if before.get("drawn") != now.get("drawn"):
            was, will = (ranges.describe(sampling.from_json(one)) for one in (before, now))
            raise _incomparable_error(key, was, will, file, advice)
        fixed = [(d["name"], d["attributes"].get("log")) for d in (before, now)]  # Optuna lets only ranges move
        if "Categorical" in before["name"] or fixed[0] != fixed[1]:
            raise _incomparable_error(key, before["attributes"], now["attributes"], file, advice)
        drawn_from = _describe_range(before)
        yield f"{name}: the range is now {_describe_range(now)}, earlier trials were drawn from {drawn_from}"


def _describe_range(distribution: Mapping[str, Any]) -> str:
    """Of Optuna's JSON object of a distribution that is no choice."""
    kind = IntRange if distribution["name"].startswith("Int") else FloatRange
    return ranges.describe(kind(**distribution["attributes"]))
