"""How values, trials and tables are written: for a person (table), or whole (json, csv, yaml).

Numbers for a person have six significant digits; json, csv and yaml keep every digit of a value.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING, Any

from ptydask.formatting import encodable_text, fit_text, shorten_text
from ptydask.model import TrialRecord
from ptydask.ranking import gradient_names, metric_names, parameter_names

if TYPE_CHECKING:
    from ptydask.analysis.confirmation import Confirmation

FORMATS = ("table", "json", "csv", "yaml")
STYLES = {"complete": "", "pruned": "dim", "failed": "red", "best": "bold green"}
"""Rich's styles of a table's rows, by a word for the row."""

_COURSE = ("iterations", "relative_decrease")
_FACTS = ("attempt", "seconds", "reason", "message", "retry_of", "origin", "started", "worker")
_PLACES = ("host", "job", "device", "seed")


# --- trials as plain values --------------------------------------------------------------------------


def trial_object(record: TrialRecord, confirmation: Confirmation | None = None, stage: str = "") -> dict[str, Any]:
    """A trial's row as plain values: what ``ls`` and ``best`` print as json and yaml.

    Of a study with a ``confirmation`` it has ``confirmed``: ``mean``, ``sd`` and ``n``, also of all ``metrics``. Of one
    with stages it has its ``stage`` first.
    """
    columns: dict[str, Any] = {"stage": stage} if stage else {}
    columns |= {
        "number": record.number,
        "state": record.state.value,
        "error": record.error,
        "params": dict(record.params),
        "metrics": dict(record.metrics),
        "gradient": dict(record.gradient),
    }
    if confirmation is not None:
        columns["confirmed"] = confirmation.summary(record.number) or None
    for name in (*_COURSE, *_FACTS, *_PLACES):
        value = getattr(record, name)
        columns[name] = value.value if isinstance(value, Enum) else value
    return columns


def trial_columns(
    records: Sequence[TrialRecord], confirmation: Confirmation | None = None, stage: str = ""
) -> list[str]:
    """The columns of csv: number, state, error, ``params.NAME``, ``metrics.NAME``, ``gradient.NAME``, and the facts.

    Of a study with a ``confirmation`` also ``confirmed.mean``, ``confirmed.sd`` and ``confirmed.n``; of one with stages
    ``stage`` before all others.
    """
    before = ["stage"] if stage else []
    params = [f"params.{name}" for name in parameter_names(records)]
    metrics = [f"metrics.{name}" for name in metric_names(records)]
    gradient = [f"gradient.{name}" for name in gradient_names(records)]
    confirmed = [f"confirmed.{part}" for part in ("mean", "sd", "n")] if confirmation is not None else []
    return [*before, "number", "state", "error", *confirmed, *params, *metrics, *gradient, *_COURSE, *_FACTS, *_PLACES]


def trial_row(record: TrialRecord, confirmation: Confirmation | None = None, stage: str = "") -> dict[str, Any]:
    """A trial as one flat row of csv, keyed by the names of :func:`trial_columns`."""
    flat = trial_object(record, confirmation, stage)
    parts = {part: flat.pop(part, None) or {} for part in ("params", "metrics", "gradient", "confirmed")}
    parts["confirmed"].pop("metrics", None)  # they are in json alone
    return flat | {f"{part}.{name}": value for part, values in parts.items() for name, value in values.items()}


# --- whole texts -------------------------------------------------------------------------------------


def object_text(value: object, form: str) -> str:
    """Plain values as ``form``: ``json`` or ``yaml``."""
    return json_text(value) if form == "json" else yaml_text(value)


def json_text(value: object) -> str:
    """JSON, full precision, NaN and infinities as null; a list of objects has one object a line."""
    if isinstance(value, list):
        lines = ",\n".join(f"  {json.dumps(_to_native(item, finite=True), allow_nan=False)}" for item in value)
        return f"[\n{lines}\n]\n" if value else "[]\n"
    return json.dumps(_to_native(value, finite=True), allow_nan=False, indent=2) + "\n"


def yaml_text(value: object) -> str:
    """YAML, full precision, keys in the order given."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(_to_native(value), Dumper=dumper, sort_keys=False, width=1000))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header line, full precision; empty where a row has no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([row.get(name) for name in columns])  # csv writes None as nothing
    return out.getvalue()


def trials_csv(records: Sequence[TrialRecord], confirmation: Confirmation | None = None, stage: str = "") -> str:
    """The table of trials as CSV, see :func:`trial_columns`."""
    rows = (trial_row(record, confirmation, stage) for record in records)
    return csv_text(trial_columns(records, confirmation, stage), rows)


def _to_native(value: Any, finite: bool = False) -> Any:
    """Numpy's scalars and arrays, tuples and mappings as Python's own; ``finite``: null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): _to_native(item, finite) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "tolist"):
        return _to_native(value.tolist(), finite)
    if isinstance(value, list | tuple):
        return [_to_native(item, finite) for item in value]
    return None if finite and isinstance(value, float) and not math.isfinite(value) else value


# --- tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """Cells for a person. ``right`` are the columns of numbers, ``styles`` one word a row, or empty."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: frozenset[int] = frozenset()
    styles: tuple[str, ...] = ()

    def widths(self) -> list[int]:
        """The width of each column, its heading included."""
        cells = zip(self.columns, *self.rows, strict=True)
        return [max(map(len, column)) for column in cells]


def plain_table(table: Table) -> str:
    """Aligned text, two blanks between columns, nothing cut: for a pipe or a file."""
    widths = table.widths()
    lines = []
    for row in (table.columns, *table.rows):
        cells = [
            cell.rjust(width) if i in table.right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def fit_table(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The table within ``width`` characters, and the names of the columns that had to be left out.

    The last columns go first; of the last that is left, its text is cut where that makes it fit.
    """
    widths, kept = table.widths(), len(table.columns)
    rows = table.rows
    while kept > 1 and sum(widths[:kept]) + 2 * (kept - 1) > width:
        last = kept - 1
        spare = width - sum(widths[:last]) - 2 * last
        # Text may be cut, though not below its heading; numbers go whole.
        if last not in table.right and spare >= max(12, len(table.columns[last])):
            rows = tuple((*row[:last], shorten_text(row[last], spare)) for row in rows)
            break
        kept -= 1
    fitted = Table(table.columns[:kept], tuple(row[:kept] for row in rows), table.right, table.styles)
    return fitted, table.columns[kept:]


def write_table(table: Table, stream: IO[str]) -> tuple[str, ...]:
    """Print a table: coloured and fitted to a terminal, plain and whole elsewhere.

    Returns the names of the columns that a narrow terminal had no room for.
    """
    if not stream.isatty():
        print_text(plain_table(table), stream)
        return ()
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    fitted, left_out = fit_table(table, console.width)
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(fitted.columns):
        grid.add_column(Text(name), justify="right" if i in fitted.right else "left", no_wrap=True)
    for row, style in zip(fitted.rows, fitted.styles or [""] * len(fitted.rows), strict=True):
        grid.add_row(*(Text(encodable_text(cell, stream)) for cell in row), style=STYLES.get(style, ""))
    with console.capture() as capture:
        console.print(grid)
    print_text(capture.get(), stream)
    return left_out


# --- the way out -------------------------------------------------------------------------------------


def print_text(text: str, stream: IO[str] | None = None) -> bool:
    """Write to stdout (or ``stream``) at once; False when nobody reads it any more (``| head``)."""
    out = sys.stdout if stream is None else stream
    try:
        out.write(encodable_text(text, out))
        out.flush()
    except BrokenPipeError:
        abandon(out)
        return False
    return True


def abandon(stream: IO[str]) -> None:
    """Lead to nowhere what is still buffered: Python flushes it when it ends, and would complain then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_report(text: str) -> bool:
    """Write what a person reads to stdout, as :func:`print_text` does; fitted to a terminal."""
    return print_text(fit_text(text, sys.stdout))


def print_stderr(text: str) -> None:
    """One line on stderr; more where a terminal is narrower."""
    print_text(fit_text(f"{text}\n", sys.stderr), sys.stderr)
