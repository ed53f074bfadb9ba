"""What runs a sweep's trials: ``program``, ``command`` and our own key ``engine``."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from ptydask.config import reading, study
from ptydask.distributions import Choice, WeightedChoice
from ptydask.errors import ConfigError, nearest_hint

KEY = "engine"
COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""W&B's own, where the file has none."""
DEFAULTS: dict[str, Any] = {
    "callable": None,
    "objective": "last",
    "gradient": [],
    "directory": ".",
    "devices": None,
    "outputs": ["wandb/offline-run-*/files/**"],
    "outputs_limit": 64_000_000,
    "start_timeout": 600.0,
    "idle_timeout": None,
    "trial_timeout": None,
    "environment": {},
}
_CALLABLE = ("callable", "objective", "gradient", "directory")
_OWN = ("PTYDASK_TRIAL", "PTYDASK_SEED", "PTYDASK_FOLDER", "PTYDASK_METRICS")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "": 1}
_FUNCTION = re.compile(r"[^:\0]+:[^\W\d]\w*(\.[^\W\d]\w*)*")


def read_settings(data: Mapping[str, Any], constants: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """The key ``engine``, checked, defaults filled in. Raises ConfigError."""
    section = data.get(KEY)
    if section is None:
        section = {}
    reading.expect(section, "a mapping", KEY, "for example engine: {callable: 'package.module:function'}")
    reading.known_keys(section, tuple(DEFAULTS), KEY)
    settings = copy.deepcopy(DEFAULTS)
    for name, value in section.items():
        settings[name] = _CHECKS[name](value, f"{KEY}.{name}")
    if settings["gradient"]:
        _check_differentiable(settings, tuned)
    devices = settings["devices"]
    if devices is not None and devices not in constants:
        rule = "is tuned, so it cannot name a device" if devices in tuned else "is no parameter of this sweep"
        raise ConfigError(rule, key=f"{KEY}.devices", value=devices, hint=nearest_hint(devices, constants))
    return settings


def idle_settings(data: Mapping[str, Any], notices: list[str]) -> None:
    """Says which keys mean nothing to a callable."""
    section = data.get(KEY) or {}
    idle = [f"{KEY}.{name}" for name in section if name not in _CALLABLE]
    idle += [name for name in ("program", "command") if data.get(name) is not None]
    if idle:
        notices.append(f"{', '.join(idle)}: without a meaning for engine.callable")


def map_devices(program: str | None, command: list[str], settings: dict[str, Any], constants: Mapping[str, Any]) -> str:
    """Maps the slot's GPU to ``devices`` of ldctbench-train, which sets CUDA_VISIBLE_DEVICES by it; the notice."""
    starts_it = any(PurePosixPath(word).name == "ldctbench-train" for word in (program or "", *command))
    if not starts_it or settings["devices"] is not None or "devices" not in constants:
        return ""
    settings["devices"] = "devices"
    return "ldctbench-train: its parameter devices is set to the GPU of each trial's slot (engine.devices)"


# --- each setting -----------------------------------------------------------------------------------


def _check_function(value: Any, key: str) -> str | None:
    if value is None:
        return None
    text: str = reading.expect(value, "text", key)
    if not _FUNCTION.fullmatch(text):
        hint = "for example train.sweep:objective, or path/file.py:objective"
        raise ConfigError("must be module:function or file.py:function", key=key, value=text, hint=hint)
    return text


def _check_objective(value: Any, key: str) -> str:
    if value not in ("last", "best"):
        raise ConfigError("must be last or best", key=key, value=value, hint=nearest_hint(str(value), ("last", "best")))
    return str(value)


def _check_gradient(value: Any, key: str) -> list[str]:
    names = reading.expect(value if value is not None else [], "a list", key, "for example gradient: [lr]")
    return [_check_text(name, f"{key}[{place}]") for place, name in enumerate(names)]


def _check_differentiable(settings: Mapping[str, Any], tuned: Mapping[str, Any]) -> None:
    """Raises ConfigError where no function reports slopes, or in what is no tuned number."""
    key = f"{KEY}.gradient"
    if settings["callable"] is None:
        raise ConfigError(
            "only a function reports slopes", key=key, value=settings["gradient"], hint="set engine.callable"
        )
    for name in settings["gradient"]:
        if name not in tuned:
            raise ConfigError(
                "is no tuned parameter of this sweep", key=key, value=name, hint=nearest_hint(name, tuned)
            )
        if isinstance(tuned[name], Choice | WeightedChoice):
            raise ConfigError("has no slope: it is a choice among values", key=key, value=name, hint="leave it out")


def _check_text(value: Any, key: str) -> str:
    text: str = reading.expect(value, "text", key)
    if not text.strip() or "\0" in text:
        raise ConfigError("must not be empty" if not text.strip() else "holds a NUL character", key=key, value=text)
    return text


def _check_devices(value: Any, key: str) -> str | None:
    return None if value is None else _check_text(value, key)


def _check_outputs(value: Any, key: str) -> list[str]:
    globs = reading.expect(value if value is not None else [], "a list", key)
    for place, glob in enumerate(globs):
        text = _check_text(glob, f"{key}[{place}]")
        if PurePosixPath(text).is_absolute() or PureWindowsPath(text).drive or text.startswith("~"):
            raise ConfigError("must be relative to the trial's own folder", key=f"{key}[{place}]", value=text)
        if ".." in PurePosixPath(text).parts:
            raise ConfigError("must not lead out of the trial's own folder", key=f"{key}[{place}]", value=text)
    return list(globs)


def _check_limit(value: Any, key: str) -> int:
    hint = "for example 64 MB"
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?)\s*([a-z]*)\s*", value.lower())
        if not match or match[2] not in _UNITS:
            raise ConfigError("must be bytes, or text with B, kB, MB, GB or MiB", key=key, value=value, hint=hint)
        value = float(match[1]) * _UNITS[match[2]]
    size = study.number(value, key)
    if not 0 <= size <= 2**53:
        raise ConfigError("must be a number of bytes, 0 or more", key=key, value=value, hint=hint)
    return int(size)


def _check_seconds(value: Any, key: str) -> float | None:
    return None if value is None else study.check_timeout(study.number(value, key), key)


def _check_environment(value: Any, key: str) -> dict[str, str]:
    environment = {}
    for name, setting in reading.expect(value if value is not None else {}, "a mapping", key).items():
        where = f"{key}.{name}"
        if not name or "=" in name or "\0" in name:
            raise ConfigError("is no name of an environment variable", key=key, value=name)
        if name in _OWN:
            raise ConfigError("is set by ptydask itself", key=where, value=setting)
        environment[name] = _check_word(setting, where, "quote it")
    return environment


def _check_word(value: Any, key: str, hint: str) -> str:
    """Text or a number as the text that a program can be given."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"must be text, not {reading.type_name(value)}", key=key, value=value, hint=hint)
    if "\0" in str(value):
        raise ConfigError("holds a NUL character", key=key, value=value)
    return str(value)


_CHECKS: dict[str, Any] = {
    "callable": _check_function,
    "objective": _check_objective,
    "gradient": _check_gradient,
    "directory": _check_text,
    "devices": _check_devices,
    "outputs": _check_outputs,
    "outputs_limit": _check_limit,
    "start_timeout": _check_seconds,
    "idle_timeout": _check_seconds,
    "trial_timeout": _check_seconds,
    "environment": _check_environment,
}


# --- program and command ----------------------------------------------------------------------------


def read_program(data: Mapping[str, Any]) -> str | None:
    """The program as given; None where the file has none. Raises ConfigError."""
    return None if data.get("program") is None else _check_text(data["program"], "program")


def read_command(data: Mapping[str, Any], notices: list[str]) -> list[str]:
    """The command's items, W&B's own where the file has none. Raises ConfigError; adds to ``notices``.

    What its macros become is the engine's to say.
    """
    command = data.get("command")
    if command is None:
        if "command" in data:
            notices.append(f"command is empty: {' '.join(COMMAND)}")
        return list(COMMAND)
    hint = 'for example command: [python, "${program}", "${args}"]'
    reading.expect(command, "a list", "command", hint)
    if not command:
        raise ConfigError("must hold at least one item", key="command", value=command, hint=hint)
    items = []
    for place, item in enumerate(command):
        items.append(_check_word(item, f"command[{place}]", "quote it" if item is not None else "remove the item"))
    if not any(item.startswith("${args") for item in items):
        notices.append("command has no ${args}: the program is told its parameters by wandb's config alone")
    return items


def check_program(program: str | None, items: list[str]) -> None:
    """Raises ConfigError where the command wants a program and the file names none."""
    if program is None and "${program}" in items:
        hint = "for example program: train.py"
        raise ConfigError("is missing; the command starts it", key="program", hint=hint)
