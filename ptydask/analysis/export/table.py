"""The table of trials as Parquet, with a type for each column; and the curves of all trials in long form."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptydask import __version__
from ptydask.analysis.confirmation import MeanSd
from ptydask.analysis.data import Curve, StudyData
from ptydask.errors import import_optional
from ptydask.ranking import gradient_names, metric_names
from ptydask.space import tunables
from ptydask.space.metrics import metric_unit
from ptydask.store import files

_TEXTS = ("reason", "message", "origin", "worker", "host", "job", "device")
_TRIAL = "trial"
_INT64 = range(-(2**63), 2**63)


def write(path: Path, data: StudyData) -> None:
    """The table of ``data`` as a Parquet file: ``number``, ``state``, ``error``, ``params.NAME``, ``metrics.NAME``,
    ``gradient.NAME`` ..., of a study with stages ``stage`` before them.

    A value that a trial does not have is null; NaN stays NaN. Parameters have the type that all their values have;
    where there is none, JSON texts, said by the column's metadata. The schema's metadata has the study (``study``,
    ``metric``, ``direction``, ``engine``, ``search_space``, ...), a column's its ``unit`` and ``meaning``. Raises
    MissingDependency, OSError.
    """
    arrow = _import_pyarrow()
    columns = list(_trial_columns(arrow, data))
    schema = arrow.schema([field for field, _ in columns], metadata=_study_metadata(data))
    _write_parquet(path, arrow.table([values for _, values in columns], schema=schema))


def write_curves(path: Path, data: StudyData) -> None:
    """The curves as a Parquet file in long form, see :func:`curve_rows`. Raises MissingDependency, OSError."""
    arrow = _import_pyarrow()
    names = curve_columns(data.curves)
    rows = list(curve_rows(data.curves))
    kinds = {name: arrow.int64() if name in (_TRIAL, "step") else arrow.float64() for name in names}
    columns = [arrow.array([row.get(name) for row in rows], kinds[name], from_pandas=False) for name in names]
    schema = arrow.schema([arrow.field(name, kinds[name]) for name in names], metadata=_study_metadata(data))
    _write_parquet(path, arrow.table(columns, schema=schema))


def curve_columns(curves: Mapping[int, Curve]) -> list[str]:
    """``trial``, ``step``, then every metric that some trial has."""
    names = dict.fromkeys(name for curve in curves.values() for name in curve if name != "step")
    return [_TRIAL, "step", *(name for name in ("loss", "contrast") if name in names)] + [
        name for name in names if name not in ("loss", "contrast")
    ]


def curve_rows(curves: Mapping[int, Curve]) -> Iterator[dict[str, Any]]:
    """One row for each trial and step: ``trial``, ``step``, and the metrics that the trial has."""
    for number, curve in sorted(curves.items()):
        columns = {name: values.tolist() for name, values in curve.items()}
        for row in zip(*columns.values(), strict=True):
            values = dict(zip(columns, row, strict=True))
            yield {_TRIAL: number, **values, "step": int(values["step"])}


# --- columns -----------------------------------------------------------------------------------------


def _trial_columns(arrow: Any, data: StudyData) -> Iterator[tuple[Any, Any]]:
    """(field, values) of each column."""
    records = data.records

    def column(name: str, kind: Any, values: Sequence[Any], about: Mapping[str, str] | None = None) -> tuple[Any, Any]:
        return arrow.field(name, kind, metadata=about or None), arrow.array(values, kind, from_pandas=False)

    if data.meta.lineage is not None:
        yield column("stage", arrow.string(), [data.meta.lineage.name] * len(records))
    yield column("number", arrow.int64(), [r.number for r in records])
    yield column("state", arrow.string(), [r.state.value for r in records])
    yield column("error", arrow.float64(), [r.error for r in records])
    if data.confirmation is not None:
        known = [data.confirmation.mean_sd(r.number) or (None, None, None) for r in records]
        for place, name in enumerate(MeanSd._fields):
            kind = arrow.int64() if name == "n" else arrow.float64()
            yield column(f"confirmed.{name}", kind, [row[place] for row in known])
    for name in data.parameters:
        kind, cell, about = _column_type(arrow, [r.params[name] for r in records if name in r.params])
        values = [cell(r.params[name]) if name in r.params else None for r in records]
        yield column(f"params.{name}", kind, values, {**about, **_parameter_metadata(name)})
    for name in metric_names(records):
        unit = metric_unit(name, data.meta.engine)
        values = [r.metrics.get(name) for r in records]
        yield column(f"metrics.{name}", arrow.float64(), values, {"unit": unit} if unit else None)
    for name in gradient_names(records):
        yield column(f"gradient.{name}", arrow.float64(), [r.gradient.get(name) for r in records])
    for name in ("relative_decrease", "iterations"):
        yield column(name, arrow.float64(), [getattr(r, name) for r in records])
    yield column("attempt", arrow.int64(), [r.attempt for r in records])
    yield column("seconds", arrow.float64(), [r.seconds for r in records], {"unit": "s"})
    yield column("retry_of", arrow.int64(), [r.retry_of for r in records])
    yield column("started", arrow.timestamp("us", tz="UTC"), [r.began for r in records])
    yield column("seed", arrow.int64(), [r.seed for r in records])
    for name in _TEXTS:
        yield column(name, arrow.string(), [str(getattr(r, name)) for r in records])


def _column_type(arrow: Any, values: Sequence[Any]) -> tuple[Any, Callable[[Any], Any], dict[str, str]]:
    """Type of a parameter's column, how a value goes into it, and what to say of it."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present) and present:
        return arrow.bool_(), lambda value: value, {}
    if not any(isinstance(value, bool | str) for value in present):
        if all(isinstance(value, int) and value in _INT64 for value in present):
            return arrow.int64(), lambda value: value, {}
        if all(isinstance(value, float) or value in _INT64 for value in present):
            return arrow.float64(), lambda value: None if value is None else float(value), {}
    if all(isinstance(value, str) for value in present):
        return arrow.string(), lambda value: value, {}
    return arrow.string(), json.dumps, {"encoding": "json"}


def _parameter_metadata(name: str) -> dict[str, str]:
    tunable = tunables.PARAMETERS.get(name)
    return {} if tunable is None else {"unit": tunable.unit, "meaning": tunable.meaning}


def _study_metadata(data: StudyData) -> dict[str, str]:
    meta = data.meta
    return {
        "study": meta.name,
        "metric": meta.metric,
        "direction": meta.direction,
        "engine": meta.engine,
        "search_space": meta.search_space_json,
        "created": meta.created,
        "provenance": json.dumps(dict(meta.provenance)),
        **({} if meta.lineage is None else {"stage": meta.lineage.name}),
        "creator": f"ptydask {__version__}",
    }


def _write_parquet(path: Path, table: Any) -> None:
    out = io.BytesIO()
    import_optional("pyarrow.parquet", "Parquet needs", "analysis").write_table(table, out, compression="zstd")
    files.write_bytes(path, out.getvalue(), durable=False)


def _import_pyarrow() -> Any:
    return import_optional("pyarrow", "Parquet needs", "analysis")


def select_trials(data: StudyData, numbers: Iterable[int] | None) -> StudyData:
    """The trials with these numbers alone, in their order; all where None."""
    if numbers is None:
        return data
    by_number = {record.number: record for record in data.records}
    kept = [by_number[number] for number in numbers]
    curves = {r.number: data.curves[r.number] for r in kept if r.number in data.curves}
    return StudyData(data.meta, tuple(kept), curves)
