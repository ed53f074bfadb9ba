"""``values`` and ``probabilities`` of a sweep's parameter to a choice, with a label for what Optuna cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptydask.config import reading
from ptydask.distributions import Choice, WeightedChoice
from ptydask.errors import ConfigError
from ptydask.model import Scalar
from ptydask.space import ranges


@dataclass(frozen=True)
class LabelledChoice:
    """What a parameter with ``values`` may be, and the real values of the texts that stand for one."""

    among: Choice | WeightedChoice
    labels: dict[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def read(entry: Mapping[str, Any], key: str, name: str, gridded: bool) -> LabelledChoice:
    """The choice that ``values``, and ``probabilities`` where there are any, ask for.

    Lists and mappings become labels, their JSON text; so does true or false where 1 or 0 is a value too, as the two
    are equal to Python. A value that is there twice is one value, in a random search that much likelier, as in W&B's.
    Raises ConfigError.
    """
    values, weights = _read_values(entry, key), _read_weights(entry, key, gridded)
    notices = []
    merged: dict[str, tuple[Any, float]] = {}
    for value, weight in zip(values, weights, strict=True):
        same = _value_identity(value)
        first, before = merged.get(same, (value, 0.0))
        merged[same] = first, weight if gridded else before + weight
    kept = [(value, weight) for value, weight in merged.values() if weight > 0]
    if len(merged) < len(values):
        more = "" if gridded else ", each as likely as all that are equal to it together"
        notices.append(f"{name}: values has {len(values)} values, {len(merged)} of them different{more}")
    if len(kept) < len(merged):
        notices.append(f"{name}: {len(merged) - len(kept)} of its values have the probability 0 and are never tried")
    choices, labels = _label_values([value for value, _ in kept])
    if labels:
        notices.append(f"{name}: {len(labels)} of its values are shown as JSON text, the program gets the real ones")
    shares = [weight for _, weight in kept]
    if max(shares) - min(shares) <= 1e-12 * max(shares):
        return LabelledChoice(Choice(choices), labels, tuple(notices))
    total = math.fsum(shares)
    weighted = WeightedChoice(choices, tuple(share / total for share in shares))
    return LabelledChoice(weighted, labels, tuple(notices))


def _read_values(entry: Mapping[str, Any], key: str) -> list[Any]:
    values: list[Any] = entry["values"]
    single = not isinstance(values, Mapping | None)
    hint = f"write values: [{values!r}], or value: {values!r}" if single else ""
    reading.expect(values, "a list", f"{key}.values", hint)
    if not values:
        raise ConfigError("must hold at least one value", key=f"{key}.values", value=values)
    for place, value in enumerate(values):
        check_value(value, f"{key}.values[{place}]")
    return values


def check_value(value: Any, key: str) -> None:
    """Raises ConfigError for what no program can be given: a number without end, a NUL character."""
    if isinstance(value, float) and not math.isfinite(value):
        hint = f'write it in quotes: "{value}"'
        raise ConfigError("must be a finite number", key=key, value=value, hint=hint)
    if isinstance(value, str) and ("\0" in value or not _is_encodable(value)):
        raise ConfigError("holds a character that no program can be given", key=key, value=value)
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_value(item, f"{key}.{name}")
    if isinstance(value, list):
        for place, item in enumerate(value):
            check_value(item, f"{key}.{place}")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_weights(entry: Mapping[str, Any], key: str, gridded: bool) -> list[float]:
    values, where = entry["values"], f"{key}.probabilities"
    if "probabilities" not in entry:
        return [1.0] * len(values)
    probabilities = reading.expect(entry["probabilities"], "a list", where)
    if len(probabilities) != len(values):
        rule = f"must have one number for each of the {len(values)} values, not {len(probabilities)}"
        raise ConfigError(rule, key=where, value=probabilities)
    for weight in probabilities:
        if not ranges.is_number(weight) or not 0 <= weight <= 1:
            raise ConfigError("must hold numbers from 0 to 1", key=where, value=weight)
    total = math.fsum(probabilities)
    if not math.isclose(total, 1.0, rel_tol=1e-5, abs_tol=1e-8):
        raise ConfigError(f"must sum to 1, not {total:.6g}", key=where, value=probabilities)
    if gridded:
        rule = "a grid tries every value once, probabilities have no place in it"
        raise ConfigError(rule, key=where, value=probabilities, hint="leave them out, or use method: random")
    return [float(weight) for weight in probabilities]


def _value_identity(value: Any) -> str:
    """Text that two values share where W&B takes them for one: 1 and 1.0, but not 1 and true."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"{type(value).__name__} {json.dumps(value, sort_keys=True)}"


def _label_values(values: list[Any]) -> tuple[tuple[Scalar, ...], dict[str, Any]]:
    taken = {value for value in values if isinstance(value, str)}
    numbers = {value for value in values if ranges.is_number(value)}
    choices: list[Scalar] = []
    labels: dict[str, Any] = {}
    for value in values:
        if isinstance(value, list | dict) or (isinstance(value, bool) and value in numbers):
            label = json.dumps(value, ensure_ascii=False)
            while label in taken:
                label = f"({label})"
            taken.add(label)
            labels[label] = value
            choices.append(label)
        else:
            choices.append(value)
    return tuple(choices), labels


def label_of(spelled: Scalar, labels: Mapping[str, Any]) -> Scalar:
    """The label of the value that ``spelled`` is in YAML, however it is written; ``spelled`` where there is none."""
    if spelled in labels:
        return spelled
    try:
        meant = reading.parse_value(spelled) if isinstance(spelled, str) else spelled
    except ConfigError:
        return spelled
    for label, value in labels.items():
        if type(value) is type(meant) and value == meant:
            return label
    return spelled
