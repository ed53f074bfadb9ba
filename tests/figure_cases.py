"""Studies for the tests of figures: made up, of any size, with a known best place."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from confirmation_cases import confirm

from ptydask.analysis.data import StudyData
from ptydask.analysis.fourier_ring import FourierRing
from ptydask.model import Scalar, StudyMeta, TrialRecord, TrialState

BEGIN = datetime(2025, 1, 1, 9, tzinfo=UTC)
SPACE = {
    "scale": {"name": "FloatDistribution", "attributes": {"low": 0.9, "high": 1.1, "step": 0.02, "log": False}},
    "rotation": {"name": "FloatDistribution", "attributes": {"low": -4.0, "high": 4.0, "step": None, "log": False}},
    "oplr": {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1e-1, "step": None, "log": True}},
    "optimizer": {"name": "CategoricalDistribution", "attributes": {"choices": ["Adam", "SGD", None]}},
}


def meta(space: dict[str, Any] | None = None, **changes: Any) -> StudyMeta:
    """A study of PtyRAD's with four parameters."""
    said: dict[str, Any] = {
        "name": "tBL_WSe2",
        "direction": "minimize",
        "metric": "loss",
        "engine": "ptyrad",
        "config_text": "",
        "config_format": "ptyrad",
        "config_json": "{}",
        "search_space_json": json.dumps(SPACE if space is None else space),
    }
    return StudyMeta(**(said | changes))


def study(count: int, *, workers: int = 4, steps: int = 8, **changes: Any) -> StudyData:
    """``count`` trials, every fifth pruned, every eleventh failed, best at scale 1.04, rotation -1.5, oplr 3e-3."""
    random = np.random.default_rng(count)
    records, curves = [], {}
    for number in range(count):
        scale = round(0.9 + 0.02 * int(random.integers(11)), 2)
        rotation, rate = float(random.uniform(-4, 4)), float(random.uniform(-4, -1))
        off = 8 * (scale - 1.04) ** 2 + 0.004 * (rotation + 1.5) ** 2 + 0.01 * (rate + 2.5) ** 2
        params: dict[str, Scalar] = {
            "scale": scale,
            "rotation": rotation,
            "oplr": 10**rate,
            "optimizer": ("Adam", "SGD", None)[number % 3],
        }
        state = TrialState.FAIL if number % 11 == 10 else TrialState.PRUNED if number % 5 == 4 else TrialState.COMPLETE
        length = {TrialState.FAIL: 2, TrialState.PRUNED: steps // 2, TrialState.COMPLETE: steps}[state]
        curve = 0.05 + off + 0.3 * np.exp(-np.arange(1, length + 1) / 3)
        curves[number] = {"step": np.arange(1, length + 1), "loss": curve}
        begin = BEGIN + timedelta(seconds=100 * (number // workers))
        records.append(
            TrialRecord(
                number=number,
                state=state,
                error=None if state is TrialState.FAIL else float(curve[-1]),
                params=params,
                started=begin.isoformat(),
                seconds=90.0 * length / steps,
                worker=str(number % workers),
                host=f"node{number % workers // 4}",
            )
        )
    return StudyData(meta(**changes), tuple(records), curves)


def of(errors: list[float], *, params: list[dict[str, Scalar]] | None = None, **changes: Any) -> StudyData:
    """Completed trials with these errors, and parameters ``x`` = 0, 1, 2, ... or those given."""
    given = params or [{"x": float(i)} for i in range(len(errors))]
    records = [
        TrialRecord(number=i, state=TrialState.COMPLETE, error=error, params=given[i]) for i, error in enumerate(errors)
    ]
    return StudyData(meta(**({"space": {}} | changes)), tuple(records), {})


def sloped(count: int = 14, *, more: tuple[str, ...] = (), **changes: Any) -> StudyData:
    """``count`` trials with slopes in scale and rotation, every fourth pruned, best at scale 1.034, rotation -1.5.

    The error is a quadratic, with ``more`` parameters without slopes that make no difference.
    """
    random = np.random.default_rng(count)
    space = {name: SPACE[name] for name in ("scale", "rotation", *more)}
    sign = -1.0 if changes.get("direction") == "maximize" else 1.0
    records = []
    for number in range(count):
        scale, rotation = round(0.9 + 0.02 * int(random.integers(11)), 2), float(random.uniform(-4, 4))
        error = 0.05 + 8 * (scale - 1.034) ** 2 + 0.004 * (rotation + 1.5) ** 2
        others = {"oplr": 10 ** float(random.uniform(-4, -1)), "optimizer": ("Adam", "SGD", None)[number % 3]}
        record = TrialRecord(
            number=number,
            state=TrialState.PRUNED if number % 4 == 3 else TrialState.COMPLETE,
            error=sign * error,
            params={"scale": scale, "rotation": rotation, **{name: others[name] for name in more}},
            gradient={"scale": sign * 16 * (scale - 1.034), "rotation": sign * 0.008 * (rotation + 1.5)},
            origin=("slopes", "sampler", "imported")[number % 3] if number else "start",
            iterations=12.0,
        )
        records.append(record)
    return StudyData(meta(space=space, **changes), tuple(records), {})


def confirmed(
    data: StudyData, values: Mapping[int, Sequence[float]], frc: Mapping[int, FourierRing] | None = None
) -> StudyData:
    """The same study, with repeats: trial -> the error with each further seed, NaN for none."""
    repeated = confirm(values, data.records, data.meta.direction)
    return replace(data, confirmation=replace(repeated, metric=data.meta.metric, frc=frc or {}, meta=data.meta))


def ring(until: float, *, pixels: int = 64, pixel_size: float = 0.2, unit: str = "angstrom") -> FourierRing:
    """Halves that agree up to a share of the Nyquist frequency, and beyond it have nothing in common."""
    index = np.arange(1, pixels // 2 + 1)
    frequency = index / (pixels * pixel_size)
    agree = 1 / (1 + np.exp(25 * (frequency / frequency[-1] - until)))
    return FourierRing(frequency, agree, (2 * np.pi * index).astype(np.int64), unit)


def in_state(data: StudyData, state: TrialState) -> StudyData:
    """The same trials, all of which ended so."""
    error = None if state is TrialState.FAIL else 0.5
    return replace(data, records=tuple(replace(record, state=state, error=error) for record in data.records))


ODD_NAMES: list[dict[str, Scalar]] = [
    {
        "a_b$\\alpha$": float(i),
        "$": i % 3,
        "中文 \n\x1b[31m": [None, True, "q$_1$", 1.5][i % 4],
        "n" * 90: -i * 1e-9,
        "large": 10**400 + i,
        "inf": math.inf if i % 2 else 1.0,
    }
    for i in range(30)
]
