"""Each key of a profile: what may be written for it, and which value it then is."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptydask.clusters.jobqueue import profile as units
from ptydask.clusters.jobqueue.profile import SYSTEMS
from ptydask.config import reading, study
from ptydask.errors import ConfigError, nearest_hint


def parse_values(data: Mapping[str, Any], written: Mapping[str, str]) -> dict[str, Any]:
    """What a :class:`Profile` has for ``data``; ``written`` has the plain values as they stand in the file.

    Raises ConfigError, which names the key.
    """
    values = {}
    for key, value in data.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            values[key] = _PARSERS[key](written.get(key, value) if number and key in _AS_WRITTEN else value)
        except ConfigError as error:
            raise ConfigError(error.rule, key=key, value=value, hint=error.hint) from None
    return values


def _parse_system(value: object) -> str:
    name = str(value).lower()
    if name not in SYSTEMS:
        raise ConfigError("no batch system has this name", hint=nearest_hint(name, SYSTEMS))
    return name


def _optional(parser: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else parser(value)


def _parse_word(value: object) -> str:
    text = str(reading.expect(value, "text", ""))
    if not text or re.search(r"[\s\"'\\`#]", text):
        raise ConfigError("must be one word, without blanks or quotes")
    return text


def _parse_line(value: object) -> str:
    text = str(reading.expect(value, "text", ""))
    if not text.strip() or not text.isprintable():
        raise ConfigError("must be one line of text")
    return text


def _parse_path(value: object) -> str:
    path = Path(_parse_line(value))
    try:
        return str(path.expanduser())
    except RuntimeError:
        raise ConfigError("nobody here has this home folder") from None


def _parse_command(value: object) -> str:
    """A program, also one with blanks in its path, or a command of several words, as a shell takes them apart."""
    text = _parse_line(value)
    path = os.path.expanduser(text)  # noqa: PTH111 - as it is written
    if Path(path).is_file():
        return shlex.quote(path)
    try:
        words = shlex.split(text)
    except ValueError:
        raise ConfigError("its quotes do not match") from None
    if operator := next((word for word in words if re.search(r"[;&|<>()]", word)), ""):
        rule, hint = f"{operator!r} is more than a command and its words", "put other lines into environment"
        raise ConfigError(rule, hint=hint)
    return shlex.join(_expand_home(word) for word in words)


def _expand_home(word: str) -> str:
    expanded = os.path.expanduser(word)  # noqa: PTH111 - docker://IMAGE is to keep its slashes
    if word.startswith("~") and expanded == word:
        raise ConfigError("nobody here has this home folder")
    return expanded


def _count_parser(least: int) -> Callable[[object], int]:
    return lambda value: study.check_whole(value, "", least)


def _parse_poll(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (1 <= value < math.inf):
        raise ConfigError("must be a number of seconds, 1 or more")
    return float(value)


def _parse_memory(value: object) -> int:
    whole_node = value == 0 and not isinstance(value, bool)
    if whole_node or (isinstance(value, str) and re.fullmatch(r"0+\s*([KMGT](i?B)?)?", value.strip(), re.IGNORECASE)):
        return 0
    return _parse_size(value)


def _parse_size(value: object) -> int:
    number = units.parse_size(value) if isinstance(value, str) else None
    if number is None:
        raise ConfigError("must be a number with a unit, such as 16GB or 16G")
    return number


def _parse_time(value: object) -> int:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    number = units.parse_time(text)
    if number is None:
        raise ConfigError("must be a time such as 04:00:00 (hours), 2-00:00:00 (days first) or 240 (minutes)")
    return number


def _parse_lines(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [line for line in value.splitlines() if line.strip()]
    return tuple(_parse_line(line) for line in reading.expect([] if value is None else value, "a list", ""))


def _parse_modules(value: object) -> tuple[str, ...]:
    names = value.split() if isinstance(value, str) else value
    return tuple(_parse_word(name) for name in reading.expect([] if names is None else names, "a list", ""))


_WORD, _TIME = _optional(_parse_word), _optional(_parse_time)
_PARSERS: Mapping[str, Callable[[object], Any]] = {
    "system": _parse_system,
    "gpus": _count_parser(0),
    "cpus": _count_parser(1),
    "memory": _optional(_parse_memory),
    "disk": _optional(_parse_size),
    "walltime": _TIME,
    "resource_spec": _optional(_parse_line),
    "directives": _parse_lines,
    "modules": _parse_modules,
    "environment": _parse_lines,
    "python": _parse_command,
    "local_directory": _optional(_parse_path),
    "shared_directory": _optional(_parse_path),
    "notify": _optional(_parse_line),
    "max_jobs": _optional(_count_parser(1)),
    "grace": _count_parser(0),
    "poll": _parse_poll,
    **dict.fromkeys(("queue", "account", "gpu_type", "qos", "constraint", "nodelist", "exclude", "interface"), _WORD),
}
_AS_WRITTEN = {key for key, parser in _PARSERS.items() if parser in (_WORD, _TIME)}
