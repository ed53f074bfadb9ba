"""The table of a study as a pandas DataFrame: made, asked and grouped."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.config.study import check_whole
from ptydask.errors import UsageError, import_optional, nearest_hint, one_line, shorten
from ptydask.model import Direction, TrialState
from ptydask.ranking import count_states
from ptydask.trial import slopes

if TYPE_CHECKING:
    import pandas

Columns = Mapping[str, NDArray[Any]]

LEADING = ("state", "error")
CONFIRMED = ("confirmed_mean", "confirmed_sd", "confirmed_n")
FACTS = (
    *("reason", "message", "attempt", "retry_of", "origin", "started", "seconds", "iterations", "relative_decrease"),
    *("worker", "host", "job", "device", "seed"),
)
GROUPED = ("best", "number", "median", *(state.word for state in TrialState), "trials")
_FEW = 20
"""Of more values than this a parameter is grouped in intervals."""
_EXAMPLE = "for example: scale < 1 and error < 0.02"


def trials_dataframe(
    columns: Columns,
    first: Sequence[str] = (),
    confirmed: Mapping[int, tuple[float, float, int]] | None = None,
) -> pandas.DataFrame:
    """One row a trial, by number: state, error, parameters (those of ``first`` first), metrics, slopes, then the facts.

    A parameter or metric has its own name where that is clear, else ``params.NAME`` or ``metrics.NAME``; the slope of
    the error in a parameter is always ``gradient.NAME``. Those of
    ``first`` have a column also before a trial has them. What has no value is NaN (``retry_of``: NA). ``started`` is a
    time in UTC. Mean, standard deviation and number of repeats of the trials that are ``confirmed``, by number, follow
    the error.
    """
    pd = _import_pandas()
    nothing = np.full(len(columns["number"]), np.nan)
    columns = {**{f"params/{name}": nothing for name in first}, **columns}
    table: dict[str, Any] = {name: columns[name] for name in LEADING}
    if confirmed:
        known = [confirmed.get(number, (np.nan, np.nan, 0)) for number in columns["number"].tolist()]
        table |= dict(zip(CONFIRMED, map(np.array, zip(*known, strict=True)), strict=True))
    plain = plain_names(columns)
    table |= {short: columns[name] for name, short in plain.items()}
    table |= {name.replace("/", ".", 1): columns[name] for name in columns if name.startswith(slopes.COLUMN)}
    table |= {name: columns[name] for name in FACTS if name in columns}
    if "retry_of" in table:
        retry = np.asarray(table["retry_of"])
        table["retry_of"] = pd.arrays.IntegerArray(retry.astype(np.int64), retry < 0)
    if "started" in table:
        table["started"] = pd.to_datetime(table["started"], utc=True, format="ISO8601", errors="coerce")
    return pd.DataFrame(table, index=pd.Index(columns["number"], name="number"), copy=False)


def plain_names(columns: Columns) -> dict[str, str]:
    """``params/scale`` -> ``scale``, or ``params.scale`` where two columns would then have one name."""
    long = [name for name in columns if name.startswith(("params/", "metrics/"))]
    short = [name.partition("/")[2] for name in long]
    taken = {"number", *LEADING, *CONFIRMED, *FACTS}
    return {
        name: plain if plain not in taken and short.count(plain) == 1 else name.replace("/", ".", 1)
        for name, plain in zip(long, short, strict=True)
    }


def query(table: pandas.DataFrame, expression: str, level: int) -> pandas.DataFrame:
    """The rows for which ``expression`` holds; ``@name`` is a variable ``level`` frames up. Raises UsageError."""
    frame = inspect.currentframe()
    for _ in range(level):
        frame = frame.f_back if frame is not None else None
    names = {} if frame is None else {**frame.f_globals, **frame.f_locals}
    # The columns' names in files, `params.scale`, are understood as well.
    expression = re.sub(r"`([^`]+)`", lambda match: f"`{_find_column(table, match[1]) or match[1]}`", expression)
    try:
        holds = table.eval(expression, engine="python", local_dict=names, global_dict={})
    except Exception as error:
        raise UsageError(_query_text(table, expression, error)) from None
    if str(getattr(holds, "dtype", None)) != "bool" or len(holds) != len(table):
        raise UsageError(f"query {shorten(expression)}: is not true or false for each trial; {_EXAMPLE}")
    return table.loc[holds]


def _query_text(table: pandas.DataFrame, expression: str, error: Exception) -> str:
    message = one_line(str(error)) or type(error).__name__
    if type(error).__name__ == "UndefinedVariableError":
        name = message.split("'")[1].removeprefix("BACKTICK_QUOTED_STRING_") if message.count("'") >= 2 else message
        if message.startswith("local"):
            return f"query {shorten(expression)}: there is no variable {name!r} here"
        nearest = nearest_hint(name, ["number", *map(str, table.columns)])
        hint = nearest or "see the columns of table()"
        return f"query {shorten(expression)}: there is no column {name!r}; {hint}"
    if isinstance(error, SyntaxError) or "cannot assign" in message:
        message = f"is not a condition; {_EXAMPLE}"
    return f"query {shorten(expression)}: {message}"


def group_trials(
    table: pandas.DataFrame,
    names: Sequence[str],
    direction: Direction,
    bins: int | None = None,
    log: Collection[str] = (),
) -> pandas.DataFrame:
    """The completed trials grouped by the values of the columns ``names``, one row a value (or pair of values).

    Columns: ``best`` error, ``number`` of the trial that has it, ``median`` error; ``complete``, ``pruned`` and
    ``failed``: how many trials ended so; ``trials``: their numbers, the best first, those without a rank last.
    A column of real numbers with more than 20 values is grouped in 10 intervals, whose widths grow where it is among
    ``log``; ``bins`` sets how many, for any column of numbers. Raises UsageError for an unknown column or ``bins``.
    """
    pd = _import_pandas()
    if bins is not None:
        check_whole(bins, "bins")
    keys = [_group_keys(table, name, bins, name in log) for name in names]
    groups = table.groupby(keys, observed=True, dropna=False, sort=True)
    summaries = {value if len(names) > 1 else value[0]: _summarize_group(group, direction) for value, group in groups}
    if len(names) > 1:
        index: Any = pd.MultiIndex.from_tuples(summaries, names=names)
    else:
        index = pd.Index(summaries, name=names[0])
    return pd.DataFrame(list(summaries.values()), columns=GROUPED, index=index).astype({"number": "Int64"})


def _summarize_group(group: pandas.DataFrame, direction: Direction) -> dict[str, Any]:
    ended = group["state"]
    done = group.loc[(ended == "COMPLETE") & group["error"].notna()]
    done = done.sort_values("error", ascending=direction == "minimize", kind="stable")
    return {
        "best": done["error"].iloc[0] if len(done) else float("nan"),
        "number": done.index[0] if len(done) else None,
        "median": done["error"].median(),
        **count_states(ended),
        "trials": [*done.index, *group.index.difference(done.index)],
    }


def _group_keys(table: pandas.DataFrame, name: str, bins: int | None, log: bool) -> pandas.Series:
    """What each trial is grouped by: the column's value, or the interval that it lies in."""
    types = _import_pandas().api.types
    column = table[column_of(table, name)]
    floats, distinct = types.is_float_dtype(column), column.nunique()
    by_interval = floats and distinct > _FEW if bins is None else types.is_numeric_dtype(column) and distinct > 1
    if not by_interval or types.is_bool_dtype(column):
        # Twelve significant digits: 0.9400000000000001, as a grid of steps has it, is 0.94.
        return column.map(lambda value: float(f"{value:.12g}")) if floats else column
    finite = column[np.isfinite(column.to_numpy(dtype=float, na_value=np.nan))]
    low, high = finite.min(), finite.max()
    if not low < high:
        return column
    count = 10 if bins is None else bins
    edges = np.geomspace(low, high, count + 1) if log and low > 0 else np.linspace(low, high, count + 1)
    edges[0], edges[-1] = low, high
    return _import_pandas().cut(column, edges, include_lowest=True)


def column_of(table: pandas.DataFrame, name: str) -> str:
    """The column with this name. Raises UsageError, which names the nearest."""
    if (column := _find_column(table, name)) is not None:
        return column
    both = [f"{folder}.{name}" for folder in ("params", "metrics") if f"{folder}.{name}" in table.columns]
    hint = f"there are {' and '.join(both)}" if both else nearest_hint(name, map(str, table.columns))
    raise UsageError(f"there is no column {name!r}; {hint or 'see table().columns'}")


def _find_column(table: pandas.DataFrame, name: str) -> str | None:
    """The column with this name, which may be that of a file of the table: ``params.scale``."""
    if name in table.columns:
        return name
    plain = re.sub(r"^(params|metrics)\.", "", name)
    # ``params.error`` is not the trial's error.
    return plain if plain in table.columns and plain not in (*LEADING, *FACTS) else None


def curves_dataframe(curves: Mapping[int, Mapping[str, NDArray[Any]]], metric: str) -> pandas.DataFrame:
    """``metric`` at every step: one row a step, one column a trial that has it. Raises UsageError where none has.

    An empty name, of a study without a metric, is ``loss``, or the first there is.
    """
    pd = _import_pandas()
    metrics = dict.fromkeys(name for curve in curves.values() for name in curve if name != "step")
    metric = metric or next((name for name in ("loss", *metrics) if name in metrics), "")
    if curves and metric not in metrics:
        raise UsageError(f"no trial has a curve of {metric!r}; {nearest_hint(metric, metrics)}")
    lines = {
        number: pd.Series(curve[metric], index=curve["step"])
        for number, curve in curves.items()
        if metric in curve and "step" in curve
    }
    table = pd.DataFrame(lines)
    table.index.name, table.columns.name = "step", "number"
    return table


def _import_pandas() -> Any:
    return import_optional("pandas", "tables need", "analysis")
