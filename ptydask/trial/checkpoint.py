"""A trial in the middle, as bytes: what its engine saved, and what was reported until then. Standard library only.

A line that says what it is and after which step, a line of JSON, then the engine's own bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptydask.model import Scalar

_MAGIC = b"ptydask checkpoint 1, after step "
FIRST_LINE = 64
"""Bytes that hold the first line of every checkpoint."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What an engine reported after a step."""

    step: int
    metrics: Mapping[str, float]
    gradient: Mapping[str, float] = field(default_factory=dict)
    """Empty where the step had none."""


@dataclass(frozen=True, slots=True)
class CheckpointData:
    """A trial after ``step`` steps."""

    step: int
    params: Mapping[str, Scalar]
    reports: tuple[StepReport, ...]
    """Of each step so far."""
    seconds: float
    """Spent on the steps so far, in all attempts."""
    state: bytes
    """The engine's."""


def pack(saved: CheckpointData) -> bytes:
    """The checkpoint as bytes; :func:`unpack` is its inverse."""
    head = {
        "params": dict(saved.params),
        "reports": [_to_json(report) for report in saved.reports],
        "seconds": saved.seconds,
        "length": len(saved.state),
        "sha256": hashlib.sha256(saved.state).hexdigest(),
    }
    return b"%s%d\n%s\n%s" % (_MAGIC, saved.step, json.dumps(head, allow_nan=False).encode(), saved.state)


def unpack(data: bytes) -> CheckpointData:
    """Raises ValueError where ``data`` is no checkpoint, or not whole."""
    first, _, rest = data.partition(b"\n")
    line, _, state = rest.partition(b"\n")
    step = step_of(first + b"\n")
    try:
        head: dict[str, Any] = json.loads(line)
        if step < 1 or len(state) != head["length"] or hashlib.sha256(state).hexdigest() != head["sha256"]:
            raise ValueError("the checkpoint is not whole")
        reports = tuple(_from_json(*report) for report in head["reports"])
        return CheckpointData(step, dict(head["params"]), reports, float(head["seconds"]), state)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("the checkpoint's head is damaged") from error


def step_of(beginning: bytes) -> int:
    """The step after which a checkpoint was taken, from its :data:`FIRST_LINE` bytes; 0 where they do not say."""
    first, end, _ = beginning.partition(b"\n")
    digits = first.removeprefix(_MAGIC)
    return int(digits) if first.startswith(_MAGIC) and end and digits.isdigit() else 0


def _to_json(report: StepReport) -> list[Any]:
    """A report as a list; a third entry only where there is a gradient, which earlier versions did not have."""
    parts = (report.metrics, report.gradient) if report.gradient else (report.metrics,)
    return [report.step, *({name: _json_number(value) for name, value in part.items()} for part in parts)]


def _from_json(step: Any, metrics: Mapping[str, Any], gradient: Mapping[str, Any] | None = None) -> StepReport:
    parts = [{name: float(value) for name, value in part.items()} for part in (metrics, gradient or {})]
    return StepReport(int(step), *parts)


def _json_number(value: float) -> float | str:
    """JSON has no NaN and no infinity; ``float`` reads their names."""
    return value if math.isfinite(value) else str(value)
