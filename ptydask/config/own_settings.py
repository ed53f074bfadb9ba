"""What is ptydask's own in a file: the section ``ptydask``, or a file of its own that names the params file.

PtyRAD refuses keys that it does not know, so nothing of this is left in what an engine gets or an export writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from ptydask.config import reading
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import Direction
from ptydask.space import ranges
from ptydask.space.metrics import HELD_OUT_SHARES

SECTION = "ptydask"
"""The section's name in a params or sweep file."""
PARAMS = "params"
"""The key with which a file of ptydask's own names the params or sweep file."""
KEYS = ("search", "stop_when", "error_metric", "metrics", "held_out")
_SEARCHES = ("auto", "file")


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A metric of the user's own."""

    function: str
    """``package.module:function``."""
    direction: Direction | None = None
    """Which way is better; None where the file does not say: then it cannot be tuned."""


@dataclass(frozen=True, slots=True)
class OwnSettings:
    """The keys of the section, checked. None: the key is not there."""

    search: Literal["auto", "file"] | None = None
    until_settled: bool | None = None
    """``stop_when: settled``; False for ``stop_when: null``."""
    error_metric: str | None = None
    """What is tuned, in place of what the file's own format names."""
    metrics: Mapping[str, OwnMetric] | None = None
    held_out: Mapping[str, float] | None = None
    """``share`` and ``gain``, as far as they are given; see :class:`ptydask.model.HeldOut`."""

    def over(self, below: OwnSettings) -> OwnSettings:
        """These settings, and those of ``below`` where there is none here."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(below, **{name: value for name, value in values.items() if value is not None})


def add_to_section(data: dict[str, Any], section: Mapping[str, Any]) -> None:
    """Put the keys of a file of ptydask's own into the section that ``data`` has, or gets; they win."""
    below = data.get(SECTION) or {}
    if section and isinstance(below, dict):  # anything else is refused when it is read
        data[SECTION] = {**below, **section}


def pop_section(data: dict[str, Any]) -> OwnSettings:
    """Take the section ``ptydask`` out of ``data``. Raises ConfigError."""
    section = data.pop(SECTION, None)
    return read_settings({} if section is None else reading.expect(section, "a mapping", SECTION), SECTION)


def read_settings(section: Mapping[str, Any], key: str = "") -> OwnSettings:
    """The settings in ``section``, which is at ``key`` of its file. Raises ConfigError."""
    reading.known_keys(section, KEYS, key)
    prefix = f"{key}." if key else ""
    search, stop_when = section.get("search"), section.get("stop_when")
    if search is not None and search not in _SEARCHES:
        hint = nearest_hint(str(search), _SEARCHES)
        raise ConfigError("must be auto or file", key=f"{prefix}search", value=search, hint=hint)
    if stop_when not in (None, "settled"):
        hint = "did you mean 'settled'?"
        raise ConfigError("must be settled, or null", key=f"{prefix}stop_when", value=stop_when, hint=hint)
    metric = section.get("error_metric")
    if metric is not None:
        reading.expect(metric, "text", f"{prefix}error_metric")
    return OwnSettings(
        search=cast(Literal["auto", "file"] | None, search),
        until_settled=stop_when == "settled" if "stop_when" in section else None,
        error_metric=metric,
        metrics=_read_metrics(section.get("metrics"), f"{prefix}metrics"),
        held_out=_read_held_out(section.get("held_out"), f"{prefix}held_out"),
    )


def _read_metrics(entry: Any, key: str) -> Mapping[str, OwnMetric] | None:
    """``{sharpness: "package.module:function"}``, or with ``{function: ..., direction: maximize}`` for the text."""
    if entry is None:
        return None
    metrics = {}
    for name, value in reading.expect(entry, "a mapping", key).items():
        function, direction = value, None
        if isinstance(value, Mapping):
            reading.known_keys(value, ("function", "direction"), f"{key}.{name}")
            function, direction = value.get("function"), value.get("direction")
        if not isinstance(function, str) or not all(part.strip() for part in function.partition(":")):
            rule, hint = "must name a function", "for example mypackage.quality:sharpness"
            raise ConfigError(rule, key=f"{key}.{name}", value=function, hint=hint)
        if direction not in (None, "minimize", "maximize"):
            rule = "must be minimize or maximize"
            raise ConfigError(rule, key=f"{key}.{name}.direction", value=direction)
        metrics[name] = OwnMetric(function, direction)
    return metrics


def _read_held_out(entry: Any, key: str) -> Mapping[str, float] | None:
    if entry is None:
        return None
    settings = reading.expect(entry, "a mapping", key)
    reading.known_keys(settings, ("share", "gain"), key)
    least, largest = HELD_OUT_SHARES
    for name, value in settings.items():
        fits = ranges.is_number(value) and (least <= value <= largest if name == "share" else 0 < value < math.inf)
        if not fits:
            rule = f"must be from {least} to {largest}" if name == "share" else "must be a number above 0"
            raise ConfigError(rule, key=f"{key}.{name}", value=value, hint=reading.spelling_hint(value))
    return {name: float(value) for name, value in settings.items()}


def is_own_file(data: Mapping[str, Any]) -> bool:
    """Whether ``data``, of no other format, look like a file of ptydask's own, right or wrong in their details."""
    return not data.keys().isdisjoint((PARAMS, *KEYS))


def read_own_file(path: Path, data: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The params file that the file ``path`` names, relative to its own folder, and the keys beside it, checked.

    Raises ConfigError, which names ``path``.
    """
    try:
        reading.known_keys(data, (PARAMS, *KEYS), "")
        if data.get(PARAMS) is None:
            hint = "for example params: params.yaml"
            raise ConfigError("is missing; it names the params file", key=PARAMS, hint=hint)
        params = path.parent / reading.expect(data[PARAMS], "text", PARAMS)
        if not _exists(params):
            raise ConfigError("no such file", key=PARAMS, value=data[PARAMS], hint=reading.near_file(params))
        section = {key: data[key] for key in KEYS if key in data}
        read_settings(section)
    except ConfigError as error:
        raise error.in_file(path) from None
    return params, section


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False
