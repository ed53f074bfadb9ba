"""What a program of a trial calls to report its metrics. Standard library only: it is imported into the program."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from typing import Any

VARIABLE = "PTYDASK_METRICS"
"""The environment variable that names the trial's file of JSON lines. Whoever appends to that file has reported."""


def report(step: int | None, metrics: Mapping[str, Any] | None, more: Mapping[str, Any]) -> None:
    """Append ``metrics`` and ``more`` at ``step`` to the file that :data:`VARIABLE` names; outside a trial, nothing.

    Numbers are Python's, or what has one element and ``item()``: NumPy's scalars, PyTorch's losses. Several processes
    may report to the same file; of the ranks of one training only one should. Raises TypeError for anything else, in a
    trial or not, and OSError.
    """
    if metrics is not None and not isinstance(metrics, Mapping):
        raise TypeError(f"a metric has a name: report(3, loss=0.5); got {metrics!r}")
    values = {**(metrics or {}), **more}
    row = {
        "step": _whole_step(step),
        "metrics": {str(name): _plain_number(name, value) for name, value in values.items()},
    }
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps({**row, "time": time.time()}).encode() + b"\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, line)  # one call, so that lines of several processes do not mix
    finally:
        os.close(file)


def _whole_step(step: Any) -> int | None:
    if step is None:
        return None
    number = _plain_number("step", step)
    if not math.isfinite(number) or number != int(number):
        raise TypeError(f"step is a whole number, got {step!r}")
    return int(number)


def _plain_number(name: str, value: Any) -> float:
    try:
        plain = value.item() if hasattr(value, "item") else value
    except (ValueError, RuntimeError):  # of more elements than one
        plain = None
    if not isinstance(plain, (int, float)):
        raise TypeError(f"{name} is a number, got {value!r}")
    return plain
