"""The table of a study: one column a field, parameter and metric, one row a trial, in the trials' order."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.model import Direction, Scalar, StudyMeta, TrialRecord, TrialState
from ptydask.space.metrics import metric_unit
from ptydask.store import codec, layout, names, nexus

Column = NDArray[Any]

_MISSING = object()
_WHOLE = ("number", "attempt", "retry_of")
"""Columns of integers, whatever is in them; ``retry_of`` is -1 where there is none."""
_REAL = ("error", "seconds", "relative_decrease", "iterations")
_FIELDS = (
    *("number", "state", "error", "reason", "message", "attempt", "retry_of", "origin", "started", "seconds"),
    *("worker", "host", "job", "device", "seed"),
)
_SINCE_2 = ("relative_decrease", "iterations")
"""Columns that are there where some trial has a value: files of format 1 have none."""
_FOLDERS = (layout.PARAMS, layout.METRICS)
_OWN_FOLDERS = (*_FOLDERS, layout.GRADIENT)
"""The last is there where some trial has a gradient."""


# --- writing ------------------------------------------------------------------------------------------


def write(
    parent: h5py.Group, meta: StudyMeta, records: Sequence[TrialRecord], texts: Iterable[str], seals: Sequence[str]
) -> None:
    """Write the table of ``records``: ``texts`` are their JSON, ``seals`` the digests of their groups."""
    table = nexus.create_group(parent, layout.TABLE, "NXcollection")
    for folder in _FOLDERS:
        nexus.create_group(table, folder, "NXcollection")
    if any(record.gradient for record in records):
        nexus.create_group(table, layout.GRADIENT, "NXcollection")
    for name, values in _column_values(records).items():
        folder, _, last = name.partition("/")
        dataset = _write_column(
            table[folder] if last else table, names.encode(last or name), values, _typed_column(name, values)
        )
        if unit := _unit(folder, last, meta):
            nexus.write_attribute(dataset, "units", unit)
    nexus.write_attribute(table["error"], "long_name", meta.metric)
    nexus.write_numbers(table, layout.SHA256, nexus.encode_texts(seals))
    blob, ends = bytearray(), array("q")  # of thousands of texts there is this one copy
    for text in texts:
        blob += text.encode()
        ends.append(len(blob))
    nexus.write_numbers(table, layout.RECORD_JSON_END, np.array(ends, np.int64))
    nexus.write_numbers(table, layout.RECORD_JSON, np.frombuffer(blob, np.uint8))


def _unit(folder: str, name: str, meta: StudyMeta) -> str:
    """The unit of the column ``name`` of ``folder``, or, without a name, of the table's own column ``folder``."""
    if folder == layout.METRICS:
        return metric_unit(name, meta.engine)
    return {"seconds": "s", "error": metric_unit(meta.metric, meta.engine)}.get(folder, "")


def _column_values(records: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    """Column name -> one value a row; also ``params/NAME``, ``metrics/NAME``, ``gradient/NAME``."""
    known = [name for name in _SINCE_2 if any(getattr(record, name) is not None for record in records)]
    columns = {name: [_plain_value(name, getattr(record, name)) for record in records] for name in (*_FIELDS, *known)}
    for folder in _OWN_FOLDERS:
        rows = [getattr(record, folder) for record in records]
        for name in dict.fromkeys(name for row in rows for name in row):
            columns[f"{folder}/{name}"] = [codec.scalar(row.get(name, _MISSING)) for row in rows]
    return columns


def _plain_value(name: str, value: Any) -> Any:
    if name in _REAL:
        return float("nan") if value is None else float(value)
    if name == "retry_of":
        return -1 if value is None else value
    return str(value) if isinstance(value, str) else value


def _write_column(parent: h5py.Group, name: str, values: list[Any], column: Column | None) -> h5py.Dataset:
    """One column in the type that all of its values have; JSON texts where they have none in common."""
    if column is None:
        texts = ["" if value is _MISSING else codec.dumps(value) for value in values]
        dataset = nexus.write_numbers(parent, name, nexus.encode_texts(texts))
        nexus.write_attribute(dataset, layout.ENCODING, layout.JSON)
        return dataset
    if column.dtype != object:
        return nexus.write_numbers(parent, name, column)
    data = nexus.encode_texts(values, layout.LONGEST)
    dataset = nexus.write_numbers(parent, name, data)
    # A cut leaves at most three bytes of a character away: only where the longest comes so near was any text cut.
    if data.itemsize > layout.LONGEST - 4 and any(len(nexus.clean(text).encode()) > layout.LONGEST for text in values):
        nexus.write_attribute(dataset, layout.SHORTENED, True)
    return dataset


def _typed_column(name: str, values: Sequence[Any]) -> Column | None:
    """The values in the one type that they have, texts as objects; None where they have none in common."""
    present = [value for value in values if value is not _MISSING]
    kinds = {type(value) for value in present}
    complete = len(present) == len(values)
    if name in _REAL:
        return np.array(values, np.float64)
    if name in _WHOLE or (kinds == {int} and complete):
        # A larger integer, a random seed say, has no type in HDF5: the column is then one of JSON.
        if all(value in nexus.INT64 for value in values):
            return np.array(values, np.int64)
    elif kinds == {bool} and complete:
        return np.array(values, np.bool_)
    elif kinds and kinds <= {float, int, type(None)} and _exact_as_float(present):
        # What a trial lacks is NaN, so that a column with gaps stays one of numbers.
        numbers = [float("nan") if value is None or value is _MISSING else float(value) for value in values]
        return np.array(numbers, np.float64)
    elif kinds <= {str} and complete:
        return _object_column(values)
    return None


def _object_column(values: Iterable[Any]) -> Column:
    listed = list(values)
    column = np.empty(len(listed), object)
    column[:] = listed
    return column


def _exact_as_float(values: Iterable[Scalar]) -> bool:
    """Whether every integer among ``values`` is a float without loss."""
    return all(abs(value) <= 2**53 for value in values if isinstance(value, int))


def write_history(parent: h5py.Group, records: Sequence[TrialRecord], direction: Direction, metric: str) -> None:
    """Write ``history``: error of every completed trial, and the best so far, over the trial's number."""
    history = nexus.create_plot(
        parent,
        layout.HISTORY,
        signal="error",
        axes=["number"],
        beside=["best_so_far"],
        title=f"{metric}, {direction}d",
    )
    for name, data in history_of(records, direction).items():
        nexus.write_numbers(history, name, data)
    nexus.write_attribute(history["error"], "long_name", metric)
    nexus.write_dimension_scale(history["number"], [history["error"], history["best_so_far"]])


def history_of(records: Sequence[TrialRecord], direction: Direction) -> dict[str, Column]:
    """The columns of ``history``: a trial that did not complete has no error in it."""
    errors = np.array(
        [_plain_value("error", record.error) if record.state is TrialState.COMPLETE else np.nan for record in records],
        np.float64,
    )
    better = np.fmin if direction == "minimize" else np.fmax  # of a number and NaN they take the number
    best = better.accumulate(errors) if len(errors) else errors
    return {"number": np.array([r.number for r in records], np.int64), "error": errors, "best_so_far": best}


# --- reading ------------------------------------------------------------------------------------------


def read(table: h5py.Group) -> list[TrialRecord]:
    """The rows, all but the tracebacks of failed trials. Raises KeyError or ValueError on damage."""
    return [codec.record_from_json(text) for text in read_texts(table)]


def read_texts(table: h5py.Group) -> list[str]:
    """The JSON of every row."""
    blob = table[layout.RECORD_JSON][()].tobytes()
    return [blob[a:b].decode() for a, b in pairwise([0, *table[layout.RECORD_JSON_END][()].tolist()])]


def read_rows(table: h5py.Group, rows: Iterable[int]) -> list[TrialRecord]:
    """The records of some rows; little more than these is read."""
    ends, blob = table[layout.RECORD_JSON_END][()].tolist(), table[layout.RECORD_JSON]
    spans = [(ends[row - 1] if row else 0, ends[row]) for row in rows]
    return [codec.record_from_json(blob[a:b].tobytes().decode()) for a, b in spans]


def ranks(table: h5py.Group, direction: Direction) -> list[int]:
    """The rows of the completed trials, best error first, as :func:`ptydask.ranking.ranked` has them."""
    error = table["error"][()] * (1 if direction == "minimize" else -1)
    done = np.flatnonzero((table["state"][()] == str(TrialState.COMPLETE).encode()) & ~np.isnan(error))
    order = np.lexsort((table["number"][()][done], error[done]))
    return [int(row) for row in done[order]]


def read_column(table: h5py.Group, name: str) -> Column:
    """One column by its name in the file, texts as str objects, JSON decoded. Raises KeyError or ValueError."""
    data = table[name]
    values = data[()]
    if values.dtype.kind != "S":
        return np.asarray(values)
    # All texts at once: none holds NUL.
    texts = b"\0".join(values.tolist()).decode().split("\0") if len(values) else []
    if nexus.read_attribute(data, layout.ENCODING) == layout.JSON:
        return _object_column(codec.loads(text) if text else None for text in texts)
    return _object_column(texts)


def read_columns(table: h5py.Group) -> dict[str, Column]:
    """Every column: fields, ``params/NAME``, ``metrics/NAME``, ``gradient/NAME``.

    Raises KeyError or ValueError on damage.
    """
    columns, shortened = {}, []
    there = set(table)
    for folder in ("", *_FOLDERS, *there.intersection({layout.GRADIENT})):
        group = table[folder] if folder else table
        for link in (*_FIELDS, *(name for name in _SINCE_2 if name in there)) if not folder else group:
            name = f"{folder}/{names.decode(link)}" if folder else link
            columns[name] = read_column(group, link)
            if layout.SHORTENED in group[link].attrs:
                shortened.append(name)
    if shortened:
        columns |= {name: column for name, column in columns_of(read(table)).items() if name in shortened}
    return columns


def columns_of(records: Sequence[TrialRecord]) -> dict[str, Column]:
    """The same columns of records in memory."""
    columns = {}
    for name, values in _column_values(records).items():
        column = _typed_column(name, values)
        if column is None:
            column = _object_column(None if value is _MISSING else value for value in values)
        columns[name] = column
    return columns


def join_columns(a: Mapping[str, Column], b: Mapping[str, Column]) -> dict[str, Column]:
    """The rows of ``a``, then those of ``b``, in the order of their numbers."""
    sizes = [len(part["number"]) for part in (a, b)]
    order = np.argsort(np.concatenate([a["number"], b["number"]]), kind="stable")
    columns = {}
    for name in dict.fromkeys([*a, *b]):
        parts = [part.get(name) for part in (a, b)]
        columns[name] = _join_column(parts, sizes)[order]
    return columns


def _join_column(parts: Sequence[Column | None], sizes: Sequence[int]) -> Column:
    kinds = {part.dtype for part in parts if part is not None}
    if len(kinds) == 1 and all(part is not None for part in parts):
        return np.concatenate([part for part in parts if part is not None])
    if kinds <= {np.dtype(np.float64), np.dtype(np.int64)} and all(
        _exact_as_float(part.tolist()) for part in parts if part is not None
    ):
        filled = [np.full(size, np.nan) if part is None else part for part, size in zip(parts, sizes, strict=True)]
        return np.concatenate(filled).astype(np.float64)
    lists = [[None] * size if part is None else part.tolist() for part, size in zip(parts, sizes, strict=True)]
    return _object_column(value for values in lists for value in values)
