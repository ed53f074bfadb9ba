"""``parameters`` of a sweep to what is tuned and what every trial is given."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptydask.config import reading
from ptydask.config.sweep import choices, distributions
from ptydask.distributions import Distribution
from ptydask.errors import ConfigError, nearest_hint

KEY = "parameters"
_DEEPEST = 20
_TELLING = ("distribution", "value", "values", "min", "max", "parameters")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
"""W&B's own rule."""


@dataclass
class SweepParameters:
    """What was read: the tuned ones, every one as the sweep's configuration has it, what to say."""

    space: dict[str, Distribution] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    shared: frozenset[str] = frozenset()
    """Dotted names that two parameters have, one by its own name, the other by its nesting."""

    def labels(self, name: str) -> Mapping[str, Any]:
        """The real values of the texts that stand for one, for the parameter ``name``."""
        labels: dict[str, dict[str, Any]] = {e["name"]: e["labels"] for e in self.entries if "labels" in e}
        return labels.get(name, {})

    @property
    def constants(self) -> dict[str, Any]:
        """The values that no trial changes, by name."""
        return {entry["name"]: entry["value"] for entry in self.entries if "value" in entry}


def is_parameter(thing: object) -> bool:
    """Whether a mapping looks like a parameter: it has a key that hardly anything else has."""
    return isinstance(thing, Mapping) and any(key in _TELLING for key in thing)


def read_parameters(section: Any, gridded: bool) -> SweepParameters:
    """Every parameter checked, nested ones joined with dots. Raises ConfigError with key, value and rule.

    W&B keeps ``a.b`` and a nested ``a``, ``b`` apart: where both are there, the nested one is called ``a:b``.
    """
    names = Counter(".".join(path) for path in _paths(section, ()))
    parameters = SweepParameters(shared=frozenset(name for name, count in names.items() if count > 1))
    _collect_entries(parameters, section, (), gridded)
    return parameters


def _paths(section: Any, way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Where each parameter is, right or wrong in its details."""
    if isinstance(section, Mapping) and len(way) <= _DEEPEST:
        for name, entry in section.items():
            inner = isinstance(entry, Mapping) and isinstance(entry.get(KEY), Mapping)
            yield from _paths(entry[KEY], (*way, name)) if inner else [(*way, name)]


def _collect_entries(parameters: SweepParameters, section: Any, way: tuple[str, ...], gridded: bool) -> None:
    key = ".".join([KEY, *(f"{part}.{KEY}" for part in way)])
    if len(way) > _DEEPEST:
        raise ConfigError(f"parameters are nested more than {_DEEPEST} deep", key=f"{key[:60]}...")
    if section is None or section == {}:
        rule = "holds no parameter: every line below it is a comment, or is not indented"
        raise ConfigError(
            rule, key=key, value=section, hint="indent each parameter below it: lr: {min: 1e-5, max: 1e-2}"
        )
    for name, entry in reading.expect(section, "a mapping", key).items():
        _check_name(name, key, parameters.notices)
        _read_entry(parameters, f"{key}.{name}", (*way, name), entry, gridded)


def _read_entry(parameters: SweepParameters, key: str, path: tuple[str, ...], entry: Any, gridded: bool) -> None:
    _check_entry(entry, key)
    if KEY in entry:
        if len(entry) > 1:
            other = next(field for field in entry if field != KEY)
            rule = f"holds parameters of its own, so it cannot have {other} too"
            raise ConfigError(rule, key=key, value=dict(entry), hint="the lines may be indented too far")
        _collect_entries(parameters, entry[KEY], path, gridded)
        return
    name = ".".join(path)
    if name in parameters.shared and len(path) > 1:
        nested = ":".join(path)
        parameters.notices.append(f"{name} is there twice, with dots and nested, as two parameters: {nested} is nested")
        name = nested
    if any(other["name"] == name for other in parameters.entries):
        raise ConfigError("two parameters have the same name", key=key, value=dict(entry), hint=f"rename one {name}")
    parameter: dict[str, Any] = {"name": name, "path": list(path)}
    family = distributions.read_family(entry, key)
    if family == "constant":
        choices.check_value(entry["value"], f"{key}.value")
        parameter["value"] = entry["value"]
        if "distribution" not in entry and _like_values(entry["value"]):
            parameters.notices.append(f"{name}: a constant list; write values: to try each")
    elif family.startswith("categorical"):
        chosen = choices.read(entry, key, name, gridded)
        parameters.space[name] = chosen.among
        parameters.notices.extend(chosen.notices)
        if chosen.labels:
            parameter["labels"] = chosen.labels
    else:
        parameters.space[name] = distributions.read_distribution(family, entry, key, gridded, parameters.notices)
    parameters.entries.append(parameter)


def _like_values(value: Any) -> bool:
    """Whether a constant could be meant as the list of what to try."""
    return isinstance(value, list) and len(value) > 1 and not any(isinstance(part, list | dict) for part in value)


def _check_entry(entry: Any, key: str) -> None:
    if entry is None:
        rule = "has no value: every line below it is a comment, or is not indented"
        raise ConfigError(rule, key=key, value=None, hint="for the value null write {value: null}")
    reading.expect(entry, "a mapping", key, "write {values: ...}" if isinstance(entry, list) else "write {value: ...}")
    for field_, inside in entry.items():
        if field_ in distributions.KEYS:
            continue
        where = f"{key}.{field_}"
        if isinstance(inside, Mapping):
            name = key.rpartition(".")[2]
            rule = f"is indented into the parameter {name}"
            hint = f"move it to the left, or put it below {name}: parameters: where it is nested on purpose"
            raise ConfigError(rule, key=where, value=inside, hint=hint)
        raise ConfigError("unknown key", key=where, value=inside, hint=nearest_hint(field_, distributions.KEYS))


def _check_name(name: str, key: str, notices: list[str]) -> None:
    if name.startswith("-"):
        raise ConfigError(
            "must not start with a hyphen", key=key, value=name, hint="${args} puts the hyphens before it"
        )
    if not name or not name.isprintable() or any(c.isspace() or c in "=,'\"" for c in name) or len(name) > 200:
        rule = "a parameter's name is at most 200 letters, digits, _, . and -"
        raise ConfigError(rule, key=key, value=name)
    if not _NAME.fullmatch(name):
        notices.append(f"{name}: W&B itself takes letters, digits, _, . and - in a parameter's name alone")
