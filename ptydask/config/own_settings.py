"""What is ptydask's own in a file: the section ``ptydask``, or a file of its own that names the params file.

PtyRAD refuses keys that it does not know, so nothing of this is left in what an engine gets or an export writes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, cast

from ptydask.config import reading, study
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import Direction
from ptydask.ranking import NoGain
from ptydask.space import ranges
from ptydask.space.metrics import HELD_OUT_SHARES

SECTION = "ptydask"
"""The section's name in a params or sweep file."""
PARAMS = "params"
"""The key with which a file of ptydask's own names the params or sweep file."""
KEYS = ("search", "stop_when", "error_metric", "metrics", "held_out", "stages", "final")
RECOMMENDED = "recommended"
"""In the place of a list of stages: those that what the file tunes makes sensible."""
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
    """``stop_when: settled``; False for any other ``stop_when``, null among them."""
    no_gain: NoGain | None = None
    """``stop_when: {gain: 1 %, trials: 20}``."""
    error_metric: str | None = None
    """What is tuned, in place of what the file's own format names."""
    metrics: Mapping[str, OwnMetric] | None = None
    held_out: Mapping[str, float] | None = None
    """``share`` and ``gain``, as far as they are given; see :class:`ptydask.model.HeldOut`."""
    stages: Literal["recommended"] | tuple[Any, ...] | None = None
    """As they are written: the format of the file reads them."""
    final: Any = ...
    """The final stage as it is written; ``...``: the key is not there."""

    def over(self, below: OwnSettings) -> OwnSettings:
        """These settings, and those of ``below`` where there is none here."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(below, **{name: value for name, value in values.items() if value not in (None, ...)})


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
    until_settled, no_gain = read_stop_when(section.get("stop_when"), f"{prefix}stop_when")
    metric = section.get("error_metric")
    if metric is not None:
        reading.expect(metric, "text", f"{prefix}error_metric")
    return OwnSettings(
        search=read_search(section.get("search"), f"{prefix}search"),
        until_settled=until_settled if "stop_when" in section else None,
        no_gain=no_gain,
        error_metric=metric,
        metrics=_read_metrics(section.get("metrics"), f"{prefix}metrics"),
        held_out=_read_held_out(section.get("held_out"), f"{prefix}held_out"),
        stages=_read_stages(section.get("stages"), f"{prefix}stages"),
        final=section.get("final", ...),
    )


def read_search(value: Any, key: str) -> Literal["auto", "file"] | None:
    """Who chooses the points; None for null. Raises ConfigError."""
    if value is not None and value not in _SEARCHES:
        raise ConfigError("must be auto or file", key=key, value=value, hint=nearest_hint(str(value), _SEARCHES))
    return cast(Literal["auto", "file"] | None, value)


def read_stop_when(value: Any, key: str) -> tuple[bool, NoGain | None]:
    """Whether a study ends once it is settled, and when for want of progress. Raises ConfigError."""
    if value is None or value == "settled":
        return value == "settled", None
    if not isinstance(value, Mapping):
        hint = nearest_hint(str(value), ("settled",)) if isinstance(value, str) else ""
        rule = "must be settled, {gain: 1 %, trials: 20}, or null"
        raise ConfigError(rule, key=key, value=value, hint=hint)
    reading.known_keys(value, ("gain", "trials"), key)
    for needed in ("gain", "trials"):
        if needed not in value:
            hint = "for example {gain: 1 %, trials: 20}: no better by 1 % in 20 trials"
            raise ConfigError(f"{needed} is missing", key=key, value=dict(value), hint=hint)
    share = _read_share(value["gain"], f"{key}.gain")
    return False, NoGain(share, study.check_whole(value["trials"], f"{key}.trials"))


def _read_share(value: Any, key: str) -> float:
    """``1 %``, or 0.01."""
    share = value
    if isinstance(value, str) and value.strip().endswith("%"):
        number = value.strip().removesuffix("%").strip()
        share = float(number) / 100 if reading.spells_number(number) else None
    if not ranges.is_number(share) or not 0 < share < 1:
        hint = f"write {value:g} %" if ranges.is_number(value) and 1 <= value < 100 else reading.spelling_hint(value)
        raise ConfigError(
            "must be a share above 0 % and below 100 %, such as 1 % or 0.01", key=key, value=value, hint=hint
        )
    return float(share)


def _read_stages(value: Any, key: str) -> Literal["recommended"] | tuple[Any, ...] | None:
    """The list as it is written, as far as it is one."""
    if value is None or value == RECOMMENDED:
        return cast(Literal["recommended"] | None, value)
    hint = f"for example [{{name: scan, tune: [scale, rotation], trials: 12}}], or {RECOMMENDED}"
    if isinstance(value, str):
        raise ConfigError("must be a list of stages", key=key, value=value, hint=nearest_hint(value, (RECOMMENDED,)))
    if not reading.expect(value, "a list", key, hint):
        raise ConfigError("must hold at least one stage", key=key, value=value, hint=hint)
    return tuple(value)


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
        if SECTION in data and SECTION not in (PARAMS, *KEYS):
            rule, hint = "is a section of a params file", "write its keys as they are: this file has nothing else"
            raise ConfigError(rule, key=SECTION, hint=hint)
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
