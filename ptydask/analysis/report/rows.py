"""The trials of a page: the table's columns, the curves, and what each trial's own page has beyond them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ptydask.analysis import sweep
from ptydask.analysis.data import Curve, StudyData
from ptydask.analysis.fourier_ring import FourierRing
from ptydask.analysis.report.trial_album import PageTrial
from ptydask.model import TrialRecord, TrialState
from ptydask.ranking import gradient_names, metric_names, ranked
from ptydask.space import ranges
from ptydask.space.metric_facts import is_minor, metric_unit
from ptydask.trial import slopes

_POINTS, _FEW_POINTS, _MANY = 100, 64, 1000
"""Points of a curve that the page holds: so many, and fewer from a number of trials on."""
_SAFE = 2**53
"""Integers beyond this are no numbers in a browser."""


def table_columns(study: StudyData, seen: Mapping[int, PageTrial], units: Mapping[str, str]) -> list[dict[str, Any]]:
    """The table: each column's key, label, unit, kind, whether it is shown at first, and its values by number.

    ``units`` are those of the parameters, by name.
    """
    records, meta = study.records, study.meta
    ranks = {record.number: rank for rank, record in enumerate(ranked(records, meta.direction), 1)}
    metrics = [name for name in metric_names(records) if name != meta.metric]
    slope_columns = {name: [r.gradient.get(name) for r in records] for name in gradient_names(records)}
    steps_label = "last step" if sweep.is_sweep(meta) else "iterations"
    last_steps = [_last_step(seen, r.number) for r in records]
    columns = [
        _table_column("rank", "rank", "fact", [ranks.get(r.number) for r in records]),
        _table_column("number", "trial", "fact", [r.number for r in records]),
        _table_column("state", "state", "fact", [r.state.word for r in records]),
        _table_column("error", meta.metric or "error", "fact", [r.error for r in records]),
        *_confirmed_columns(study),
        *(
            _table_column(f"params.{n}", n, "param", [r.params.get(n) for r in records], units.get(n, ""))
            for n in study.parameters
        ),
        *(
            _table_column(f"metrics.{n}", n, "metric", [r.metrics.get(n) for r in records], metric_unit(n, meta.engine))
            for n in metrics
        ),
        *(_table_column(f"gradient.{n}", f"slope in {n}", "fact", values) for n, values in slope_columns.items()),
        _table_column("seconds", "time", "fact", [r.seconds for r in records], "s"),
        _table_column("steps", steps_label, "fact", last_steps),
        _table_column("iterations", "iterations computed", "fact", [r.iterations for r in records]),
        _table_column("message", "message", "fact", [r.message or _failure_reason(r) for r in records]),
        _table_column("attempt", "attempt", "fact", [r.attempt for r in records]),
        _table_column("retry_of", "retry of", "fact", [r.retry_of for r in records]),
        *(
            _table_column(name, name, "fact", [getattr(r, name) for r in records])
            for name in ("origin", "started", "worker", "host", "job", "device", "seed")
        ),
    ]
    for column in columns:
        key, values = column["key"], column["values"]
        if key in ("rank", "number", "state", "error", "seconds", "confirmed.mean", "confirmed.resolution"):
            column["shown"] = True
        elif key == "attempt":
            column["shown"] = any(value not in (None, 1) for value in values)
        elif key == "iterations":
            # Over a part of the scan, an iteration counts as that part: else it says what the column before says.
            column["shown"] = any(value not in (None, step) for value, step in zip(values, last_steps, strict=True))
        elif key in ("started", "seed", "job", "worker", "retry_of") or key.startswith(("gradient.", "confirmed.")):
            column["shown"] = False
        elif column["group"] == "metric":
            column["shown"] = not is_minor(column["label"], meta.engine)
        else:
            # A fact that is the same of all trials says nothing.
            column["shown"] = column["group"] != "fact" or len({json.dumps(value) for value in values}) > 1
    return columns


def _table_column(key: str, label: str, group: str, values: list[Any], unit: str = "") -> dict[str, Any]:
    present = [value for value in values if value is not None]
    return {
        "key": key,
        "null": group == "param" and len(present) < len(values),
        "label": label,
        "unit": unit,
        "group": group,
        "kind": "number" if present and all(map(_is_browser_number, present)) else "text",
        "values": [json_value(value) for value in values],
    }


def _confirmed_columns(study: StudyData) -> list[dict[str, Any]]:
    """Of each metric, the tuned one first, the mean over the seeds with which trials were confirmed.

    ``texts`` beside the values are mean, deviation and number of repeats as the page shows them. [] without any.
    """
    confirmation = study.confirmation
    if confirmation is None:
        return []
    tuned, wanted = study.meta.metric, set(confirmation.trials)
    columns = []
    for name in dict.fromkeys([tuned, *metric_names(repeat.record for repeat in confirmation.repeats)]):
        known = [confirmation.mean_sd(r.number, name) if r.number in wanted else None for r in study.records]
        key, label = ("mean", "mean") if name == tuned else (f"metrics.{name}", name)
        means = [one and one[0] for one in known]
        unit = metric_unit(name, study.meta.engine)
        column = _table_column(f"confirmed.{key}", f"{label} with other seeds", "confirmed", means, unit)
        said = [confirmation.mean_text(r.number, name) if r.number in wanted else "" for r in study.records]
        texts = [text.replace("+-", "\N{PLUS-MINUS SIGN}") or None for text in said]
        columns += [column | {"texts": texts}] if any(texts) else []
    return columns + _ring_columns(study.records, confirmation.frc)


def _ring_columns(records: Sequence[TrialRecord], rings: Mapping[int, FourierRing]) -> list[dict[str, Any]]:
    """Resolution and area of the Fourier ring correlation; [] where no trial has one."""
    known = [rings.get(record.number) for record in records]
    unit = next((ring.length_unit for ring in known if ring), None)
    if unit is None:
        return []
    values = [r and r.resolution for r in known]
    resolution = _table_column("confirmed.resolution", "FRC resolution", "confirmed", values, unit)
    # Where the half-bit line is never crossed, the pixels are too large to tell.
    limits = ["\N{LESS-THAN OR EQUAL TO} " if r and r.crossing is None else "" for r in known]
    texts = [r and f"{limit}{r.resolution:.3g}" for limit, r in zip(limits, known, strict=True)]
    area = _table_column("confirmed.area", "FRC area", "confirmed", [r and r.area for r in known])
    return [resolution | {"texts": texts}, area]


def _is_browser_number(value: Any) -> bool:
    """Whether a browser sorts it as a number, as it does NaN and infinities."""
    if isinstance(value, float) and not math.isfinite(value):
        return True
    return ranges.is_number(value) and abs(value) <= _SAFE


def json_value(value: Any) -> Any:
    """A value that JSON can hold: NaN and infinities, and integers beyond a browser's, become their texts."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _SAFE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return str(value)


def _last_step(seen: Mapping[int, PageTrial], trial: int) -> int | None:
    steps = seen[trial].curve.get("step") if trial in seen else None
    if steps is None or not len(steps) or not math.isfinite(steps[-1]):
        return None
    return int(steps[-1])


def _failure_reason(record: TrialRecord) -> str:
    return "" if record.state is not TrialState.FAIL else str(record.reason)


def trial_details(seen: PageTrial) -> dict[str, Any]:
    """What a trial's page has beyond the table's columns; what is empty is left out."""
    details = {
        "attributes": {name: json_value(value) for name, value in seen.attributes.items()},
        "log": seen.log,
        "lost": seen.lost,
        "traceback": seen.record.traceback,
        "reason": _failure_reason(seen.record),
        "command": seen.command,
        "artifacts": [[path, size] for path, size in seen.artifacts.items()],
        "more_files": seen.files - len(seen.artifacts),
        "left_out": list(seen.left_out),
    }
    return {name: value for name, value in details.items() if value}


def encode_curves(study: StudyData) -> dict[str, Any]:
    """``names`` of the columns, the first is ``step``, and ``data``: by number, base64 of (column, point) float32.

    Long curves are thinned evenly; the first and the last point are always there. ``whole`` is by number how many
    points a thinned one had. Seconds and slopes are left out: a trial's page says them in words.
    """
    names = list(dict.fromkeys(n for curve in study.curves.values() for n in curve if n not in ("step", "seconds")))
    names = [name for name in names if not name.startswith(slopes.COLUMN)]
    names.sort(key=lambda name: name != study.meta.metric)
    limit = _FEW_POINTS if len(study.records) > _MANY else _POINTS
    data: dict[str, str] = {}
    whole: dict[str, int] = {}
    for trial, curve in study.curves.items():
        length = min((len(curve[name]) for name in curve), default=0)
        if not length:
            continue
        data[str(trial)] = _encode_curve(curve, ["step", *names], length, limit)
        if length > limit:
            whole[str(trial)] = length
    return {"names": ["step", *names], "data": data, "whole": whole}


def _encode_curve(curve: Curve, names: Sequence[str], length: int, limit: int) -> str:
    points = np.unique(np.linspace(0, length - 1, min(length, limit)).round().astype(int))
    rows = [np.asarray(curve[n], np.float32)[points] if n in curve else np.full(len(points), np.nan) for n in names]
    if "step" not in curve:
        rows[0] = points + 1.0
    return base64.b64encode(np.asarray(rows, "<f4").tobytes()).decode("ascii")
