"""What every kind of file says of its study, by the same rules: name, results file, seed, trials, time."""

from __future__ import annotations

import math
from typing import Any

from ptydask.config import reading
from ptydask.errors import ConfigError
from ptydask.model import ComponentSpec
from ptydask.space import ranges

DEFAULT_SEED = 0
TPE = ComponentSpec("TPESampler", {"multivariate": True, "group": True, "constant_liar": True})
"""Optuna's own default sampler, set for parameters that hang together and for many workers."""


def check_name(name: str, key: str) -> str:
    """``name``, where a file can be called after it. Raises ConfigError."""
    if not name.strip():
        raise ConfigError("must not be empty", key=key, value=name)
    if len(name.encode(errors="surrogatepass")) > 150:
        raise ConfigError("must be shorter, it becomes a file's name", key=key, value=name)
    return name


def results_name(study: str) -> str:
    """``NAME.h5``, with what a file system does not take written as ``%2F``; never hidden."""
    safe = ""
    for place, char in enumerate(study):
        hidden = place == 0 and char == "."
        if char.isprintable() and char not in '/\\:*?"<>|%' and not hidden:
            safe += char
        else:
            safe += "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogatepass"))
    return f"{safe}.h5"


def number(value: Any, key: str) -> int | float:
    """``value``, a finite number. Raises ConfigError."""
    if not ranges.is_number(value):
        rule = f"must be a number, not {reading.type_name(value)}"
        raise ConfigError(rule, key=key, value=value, hint=reading.spelling_hint(value))
    if not math.isfinite(value) or abs(value) > 1e300:
        raise ConfigError("must be a finite number", key=key, value=value)
    return value


def check_whole(value: Any, key: str, least: int = 1, most: float = math.inf) -> int:
    """``value``, a whole number from ``least`` to ``most``. Raises ConfigError."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        allowed = f", at least {least}" if most == math.inf else f" from {least} to {most}"
        rule = f"must be a whole number{allowed}"
        raise ConfigError(rule, key=key, value=value, hint=reading.spelling_hint(value))
    return value


def check_timeout(value: Any, key: str) -> float | None:
    """Seconds, None for no limit. Raises ConfigError."""
    if value is None:
        return None
    if not ranges.is_number(value) or not math.isfinite(value) or value <= 0:
        rule = "must be seconds above 0, or null for no limit"
        raise ConfigError(rule, key=key, value=value, hint=reading.spelling_hint(value))
    return float(value)


def choose_seed(*seeds: tuple[Any, str]) -> int:
    """The first seed that is not None, of pairs with the key that each came from; else 0. Raises ConfigError."""
    for value, key in seeds:
        if value is not None:
            return check_whole(value, key, 0, 2**32 - 1)
    return DEFAULT_SEED


def named_sampler(named: str | None, otherwise: ComponentSpec) -> ComponentSpec:
    """The sampler that ``--sampler`` names, with the file's settings where it is the file's; else ``otherwise``."""
    if named is None or named == otherwise.name:
        return otherwise
    return TPE if named == TPE.name else ComponentSpec(named)
