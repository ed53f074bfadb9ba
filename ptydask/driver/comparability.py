"""Whether a results file and a plan belong together: pure comparisons of what each says about the study."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from ptydask import sampling
from ptydask.distributions import FloatRange, IntRange
from ptydask.errors import ConfigError
from ptydask.formatting import shell_word, shorten_text, value_text
from ptydask.model import StudyMeta
from ptydask.space import ranges

RANGE_NOTICE = "{}: the range is now"
"""What a notice of a parameter's range begins with."""
_LONGEST = 60
"""Characters of a setting's value where several are named."""
_ABSENT = object()
_TUNED = "hypertune_params.tune_params"
"""Where PtyRAD's files have the tuned parameters."""
_FUNCTIONS = ("engine.callable", "ptydask.metrics.")
"""Keys that name a file's function: one of the same bytes is the same wherever the file is."""
_SEARCHED = "(tuned)"
"""What stands for the value of a parameter that each trial has another value of."""


def compare(
    old: StudyMeta,
    new: StudyMeta,
    old_config: Mapping[str, Any],
    new_config: Mapping[str, Any],
    *,
    file: str,
    moved: Callable[[str, object, object], str] = lambda key, before, now: "",
) -> list[str]:
    """Notices for what changed and may change. The configs are their engine's essential parts.

    ``moved`` is asked of each setting that changed, by its key and its two values: a notice where both name the same
    data, else "". Raises ConfigError, naming the first key, where the trials of the two would not be comparable.
    """
    sweep = isinstance(new_config.get("parameters"), list)
    names: tuple[tuple[str, object, object], ...] = (
        ("name" if sweep else "study_name", old.name, new.name),
        ("engine", old.engine, new.engine),
        ("metric.name" if sweep else "error_metric", old.metric, new.metric),
        ("metric.goal" if sweep else "error_metric", old.direction, new.direction),
    )
    for key, before, now in names:
        if before != now:
            raise _incomparable_error(key, before, now, file)
    before_held_out, held_out = (asdict(meta.held_out) if meta.held_out else _ABSENT for meta in (old, new))
    for key, before, now in differences(before_held_out, held_out, "ptydask.held_out"):
        raise _incomparable_error(key, before, now, file)
    notices = list(_compare_own_metrics(old.own_metrics, new.own_metrics, file, moved))
    for key, before, now in changed_settings(old_config, new_config):
        notice = moved(key, before, now)
        if not notice:
            raise _incomparable_error(key, before, now, file)
        notices.append(notice)
    section = "parameters" if sweep else _TUNED
    spaces = json.loads(old.search_space_json), json.loads(new.search_space_json)
    return [*notices, *_compare_spaces(*spaces, file, section)]


def _compare_own_metrics(
    old: Mapping[str, str], new: Mapping[str, str], file: str, moved: Callable[[str, object, object], str]
) -> Iterator[str]:
    """A metric that only some of the trials have harms none; one name for two functions does."""
    for name in {**old, **new}:
        before, now = old.get(name), new.get(name)
        if before is None or now is None:
            whose = "trials recorded so far do not have it" if before is None else "trials from here on do not have it"
            yield f"ptydask.metrics.{name}: {whose}"
        elif before != now:
            notice = moved(f"ptydask.metrics.{name}", before, now)
            if not notice:
                raise _incomparable_error(f"ptydask.metrics.{name}", before, now, file)
            yield notice


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, object, object]]:
    """Every setting in which two configurations differ, as :func:`differences` has it; parameters of sweeps by name."""
    if all(isinstance(config.get("parameters"), list) for config in (old, new)):
        old, new = _by_name(old), _by_name(new)
    return differences(old, new)


def _by_name(config: Mapping[str, Any]) -> dict[str, Any]:
    """A sweep's configuration with its parameters by name: messages name them, and their order changes no trial."""
    values = {parameter["name"]: parameter.get("value", _SEARCHED) for parameter in config["parameters"]}
    nesting = {parameter["name"]: parameter["path"] for parameter in config["parameters"]}
    return {**config, "parameters": values, "nesting": nesting}


def _incomparable_error(key: str, before: object, now: object, file: str) -> ConfigError:
    earlier = setting_text(before)
    without = ", and there is nothing now" if now is _ABSENT else ""
    hint = "put the old value back, or give the new study its own file with --results NEW.h5"
    if isinstance(before, str) and isinstance(now, str) and "/" in before + now and not key.startswith(_FUNCTIONS):
        hint += f"; where the same files have only moved, ln -s {shell_word(now)} {shell_word(before)} will do"
    return ConfigError(
        f"the trials in this file were run with {earlier}{without}; results with both would not be comparable",
        file=file,
        key=key,
        value=... if now is _ABSENT else now,
        hint=hint,
    )


def setting_text(value: object) -> str:
    """A setting's value as messages have it."""
    return "nothing" if value is _ABSENT else repr(value)


def brief_text(value: object) -> str:
    """The same in few characters, as where many settings are named."""
    plain = value_text(value) if isinstance(value, float) else setting_text(value)
    return shorten_text(plain, _LONGEST)


def differences(old: object, new: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Every place where two JSON-like values differ: (dotted key, old, new)."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:  # the old keys in their order, then the new ones
            nested = f"{path}.{key}" if path else str(key)
            yield from differences(old.get(key, _ABSENT), new.get(key, _ABSENT), nested)
    elif isinstance(old, list | tuple) and isinstance(new, list | tuple) and len(old) == len(new):
        for i, (before, now) in enumerate(zip(old, new, strict=True)):
            yield from differences(before, now, f"{path}[{i}]")
    elif old != new and not (old != old and new != new):  # NaN is NaN here
        yield path, old, new


def _compare_spaces(old: Mapping[str, Any], new: Mapping[str, Any], file: str, section: str) -> Iterator[str]:
    if sorted(old) != sorted(new):
        raise _incomparable_error("the tuned parameters", sorted(old), sorted(new), file)
    for name, now in new.items():
        before = old[name]
        if before == now:
            continue
        key = f"{section}.{name}"
        if before.get("drawn") != now.get("drawn"):
            earlier, current = ranges.describe(sampling.from_json(before)), ranges.describe(sampling.from_json(now))
            raise _incomparable_error(key, earlier, current, file)
        # Optuna lets only the ends of a range move: neither the choices, nor the kind or the scale of a range.
        same_kind = before["name"] == now["name"] and before["attributes"].get("log") == now["attributes"].get("log")
        if "Categorical" in before["name"] or not same_kind:
            raise _incomparable_error(key, before["attributes"], now["attributes"], file)
        drawn_from = f"earlier trials were drawn from {_describe_range(before)}; they count as well"
        yield f"{RANGE_NOTICE.format(name)} {_describe_range(now)}, {drawn_from}"


def _describe_range(distribution: Mapping[str, Any]) -> str:
    """Of Optuna's JSON object of a distribution that is no choice."""
    kind = IntRange if distribution["name"].startswith("Int") else FloatRange
    return ranges.describe(kind(**distribution["attributes"]))
