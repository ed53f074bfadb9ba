"""The table of a study: one column a field, parameter and metric, one row a trial, in the trials' order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.model import Direction, Scalar, TrialRecord, TrialState
from ptydask.store import codec, layout, names, nexus

_MISSING = object()
_UNITS = {"seconds": "s"}


def write(parent: h5py.Group, records: Sequence[TrialRecord], metric: str) -> None:
    """Write the table of ``records``."""
    table = nexus.group(parent, layout.TABLE, "NXcollection")
    columns: dict[str, list[Any]] = {
        "number": [r.number for r in records],
        "state": [str(r.state) for r in records],
        "error": [_number(r.error) for r in records],
        "reason": [str(r.reason) for r in records],
        "message": [r.message for r in records],
        "attempt": [r.attempt for r in records],
        "retry_of": [-1 if r.retry_of is None else r.retry_of for r in records],
        "origin": [r.origin for r in records],
        "started": [r.started for r in records],
        "seconds": [float(r.seconds) for r in records],
        "worker": [r.worker for r in records],
        "host": [r.host for r in records],
        "job": [r.job for r in records],
        "device": [r.device for r in records],
        "seed": [r.seed for r in records],
        layout.RECORD_JSON: [codec.record_to_json(r) for r in records],
    }
    for name, values in columns.items():
        made = _column(table, name, values)
        if name in _UNITS:
            made.attrs["units"] = _UNITS[name]
    table["error"].attrs["long_name"] = nexus.clean(metric)
    for folder, rows in (
        (layout.PARAMS, [r.params for r in records]),
        (layout.METRICS, [r.metrics for r in records]),
    ):
        made = nexus.group(table, folder, "NXcollection")
        for name in dict.fromkeys(name for row in rows for name in row):
            _column(made, names.encode(name), [codec.scalar(row.get(name, _MISSING)) for row in rows])


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _column(parent: h5py.Group, name: str, values: list[Any]) -> h5py.Dataset:
    """One column in the type that all of its values have; JSON texts where they have none in common."""
    said = [value for value in values if value is not _MISSING]
    kinds = {type(value) for value in said}
    whole = len(said) == len(values)
    if name in ("number", "attempt", "retry_of") or (kinds == {int} and whole):
        if all(value in nexus.INT64 for value in values):
            return parent.create_dataset(name, data=np.array(values, np.int64))
    elif kinds == {bool} and whole:
        return parent.create_dataset(name, data=np.array(values, np.bool_))
    elif kinds and kinds <= {float, int, type(None)} and _exact(said):
        numbers = [float("nan") if value is None or value is _MISSING else float(value) for value in values]
        return parent.create_dataset(name, data=np.array(numbers, np.float64))
    elif kinds <= {str} and whole:
        texts = [nexus.clean(value) for value in values]
        return parent.create_dataset(name, data=texts, shape=(len(values),), dtype=nexus.TEXT)
    texts = ["" if value is _MISSING else codec.dumps(value) for value in values]
    made = parent.create_dataset(name, data=texts, shape=(len(values),), dtype=nexus.TEXT)
    made.attrs["encoding"] = "json"
    return made


def _exact(values: Iterable[Scalar]) -> bool:
    """Whether every integer among ``values`` is a float without loss."""
    return all(abs(value) <= 2**53 for value in values if isinstance(value, int))


def write_history(parent: h5py.Group, records: Sequence[TrialRecord], direction: Direction, metric: str) -> None:
    """Write ``history``: error of every completed trial, and the best so far, over the trial's number."""
    history = nexus.plot(
        parent,
        layout.HISTORY,
        signal="error",
        axes=["number"],
        beside=["best_so_far"],
        title=f"{metric}, {direction}d",
    )
    errors, best = _history(records, direction)
    history["number"] = np.array([record.number for record in records], np.int64)
    history["error"] = errors
    history["best_so_far"] = best
    history["error"].attrs["long_name"] = nexus.clean(metric)


def _history(records: Sequence[TrialRecord], direction: Direction) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    errors = np.array(
        [_number(record.error) if record.state is TrialState.COMPLETE else np.nan for record in records],
        np.float64,
    )
    best = (np.fmin if direction == "minimize" else np.fmax).accumulate(errors) if len(errors) else errors
    return errors, best


def read(table: h5py.Group) -> list[TrialRecord]:
    """The rows, all but the tracebacks of failed trials. Raises KeyError or ValueError on damage."""
    return [codec.record_from_json(text) for text in table[layout.RECORD_JSON].asstr()[()]]
