"""How values, trials and tables are written: for a person (table), or whole (json, csv, yaml).

Numbers for a person have six significant digits; json, csv and yaml keep every digit of a value.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ptydask.model import TrialRecord, metric_names, parameter_names

FORMATS = ("table", "json", "csv", "yaml")
NOTHING = "-"
STYLES = {"complete": "", "pruned": "dim", "failed": "red", "best": "bold green"}
"""Rich's styles of a table's rows, by a word for the row."""

_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_FACTS = ("attempt", "seconds", "reason", "message", "retry_of", "origin", "started", "worker")
_PLACES = ("host", "job", "device", "seed")


# --- values ----------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A time span as a person says it: ``34.1 s``, ``12 min 05 s``, ``1 h 04 min``, ``2 d 03 h``."""
    if not math.isfinite(seconds):
        return NOTHING
    seconds = max(0.0, seconds)
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    if round(seconds) < 3600:
        return "{} min {:02d} s".format(*divmod(round(seconds), 60))
    if round(seconds / 60) < 24 * 60:
        return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))
    return "{} d {:02d} h".format(*divmod(round(seconds / 3600), 24))


def error_text(value: float | None) -> str:
    """An error with six significant digits, trailing zeros kept so that columns line up."""
    if value is None:
        return NOTHING
    return f"{value:#.6g}".removesuffix(".").replace(".e", "e")


def value_text(value: object) -> str:
    """A parameter's value in its shortest form of at most six significant digits."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return printable(str(value))


def size_text(count: float) -> str:
    """``1.2 GB``: three digits, powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def counted(count: int, what: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def from_here(path: Path) -> str:
    """The path as seen from the working directory, where it lies below that."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def params_text(params: Mapping[str, object]) -> str:
    """``scale=0.98 rotation=-1.5``."""
    return " ".join(f"{printable(name)}={value_text(value)}" for name, value in params.items())


def state_text(record: TrialRecord) -> str:
    """``complete``, ``pruned``, ``failed``; with the reason where it was not the trial's own doing."""
    word, reason = record.state.word, str(record.reason)
    return word if reason in ("", word) else f"{word} ({reason})"


def printable(text: str) -> str:
    """Text on one line, every run of white space one blank, control characters as ``?``."""
    return inert(" ".join(text.split()))


def inert(text: str) -> str:
    """Text without colours that cannot move the cursor: a blank for other white space, ``?`` for control characters."""
    plain = _COLOURS.sub("", text)
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in plain)


def shortened(text: str, width: int) -> str:
    """Text of at most ``width`` characters, ending in ``...`` where it was cut."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."[: max(0, width)]


def unicode_ready(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether block characters can be shown: the stream and the locale both say UTF-8.

    Python itself turns the C locale into UTF-8 (and sets ``LC_CTYPE=C.UTF-8``, PEP 538), so that the
    stream's encoding alone says nothing about the terminal.
    """
    env = os.environ if environ is None else environ
    category = env.get("LC_CTYPE", "")
    coerced = category in ("C.UTF-8", "C.utf8", "UTF-8")
    locale = env.get("LC_ALL") or ("" if coerced else category) or env.get("LANG", "")
    encoding = (getattr(stream, "encoding", None) or "").lower()
    return encoding.startswith("utf") and "utf" in locale.lower()


def sparkline(values: Sequence[float], width: int, *, blocks: bool) -> str:
    """A curve as one line of at most ``width`` characters: low values low, a gap where not finite.

    With more values than ``width`` each character stands for the last value of its share.
    """
    ramp = "▁▂▃▄▅▆▇█" if blocks else "_.-~=+*#"
    if not values or width < 1:
        return ""
    count = min(width, len(values))
    shown = [values[(i + 1) * len(values) // count - 1] for i in range(count)]
    finite = [v for v in shown if math.isfinite(v)]
    low, span = (min(finite), max(finite) - min(finite)) if finite else (0.0, 0.0)
    top = len(ramp) - 1
    return "".join(
        " " if not math.isfinite(v) else ramp[round((v - low) / span * top) if span > 0 else 0] for v in shown
    )


# --- trials as plain values --------------------------------------------------------------------------


def trial_object(record: TrialRecord) -> dict[str, Any]:
    """A trial's row as plain values: what ``ls`` and ``best`` print as json and yaml."""
    facts = {name: _plain(getattr(record, name)) for name in (*_FACTS, *_PLACES)}
    return {
        "number": record.number,
        "state": record.state.value,
        "error": record.error,
        "params": dict(record.params),
        "metrics": dict(record.metrics),
        **facts,
    }


def trial_columns(records: Sequence[TrialRecord]) -> list[str]:
    """The columns of csv: number, state, error, ``params.NAME``, ``metrics.NAME``, and the facts."""
    params = [f"params.{name}" for name in parameter_names(records)]
    metrics = [f"metrics.{name}" for name in metric_names(records)]
    return ["number", "state", "error", *params, *metrics, *_FACTS, *_PLACES]


def trial_row(record: TrialRecord) -> dict[str, Any]:
    """A trial as one flat row of csv, keyed by the names of :func:`trial_columns`."""
    flat = trial_object(record)
    params, metrics = flat.pop("params"), flat.pop("metrics")
    flat |= {f"params.{name}": value for name, value in params.items()}
    return flat | {f"metrics.{name}": value for name, value in metrics.items()}


def _plain(value: object) -> object:
    """An enumeration as its own word."""
    return getattr(value, "value", value)


# --- whole texts -------------------------------------------------------------------------------------


def object_text(value: object, form: str) -> str:
    """Plain values as ``form``: ``json`` or ``yaml``."""
    return json_text(value) if form == "json" else yaml_text(value)


def json_text(value: object) -> str:
    """JSON, full precision, NaN and infinities as null; a list of objects has one object a line."""
    if isinstance(value, list):
        lines = ",\n".join(f"  {json.dumps(_finite(item), allow_nan=False)}" for item in value)
        return f"[\n{lines}\n]\n" if value else "[]\n"
    return json.dumps(_finite(value), allow_nan=False, indent=2) + "\n"


def yaml_text(value: object) -> str:
    """YAML, full precision, keys in the order given."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return str(yaml.dump(_native(value), Dumper=dumper, sort_keys=False, width=1000))


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a header line, full precision; empty where a row has no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if (value := row.get(name)) is None else value for name in columns])
    return out.getvalue()


def trials_csv(records: Sequence[TrialRecord]) -> str:
    """The table of trials as CSV, see :func:`trial_columns`."""
    return csv_text(trial_columns(records), map(trial_row, records))


def _native(value: Any) -> Any:
    """Numpy's scalars and arrays, tuples and mappings as Python's own."""
    if isinstance(value, Mapping):
        return {str(key): _native(item) for key, item in value.items()}
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "tolist"):
        return _native(value.tolist())
    return [_native(item) for item in value] if isinstance(value, list | tuple) else value


def _finite(value: Any) -> Any:
    """Plain values with null for what JSON has no number for."""
    value = _native(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def fitted(table: Table, width: int) -> tuple[Table, tuple[str, ...]]:
    """The table within ``width`` characters, and the names of the columns that had to be left out.

    The last columns go first; of the last that is left, its text is cut where that makes it fit.
    """
    widths, kept = table.widths(), len(table.columns)
    while kept > 1 and sum(widths[:kept]) + 2 * (kept - 1) > width:
        spare = width - sum(widths[: kept - 1]) - 2 * (kept - 1)
        if kept - 1 not in table.right and spare >= max(12, len(table.columns[kept - 1])):
            rows = ((*row[: kept - 1], shortened(row[kept - 1], spare)) for row in table.rows)
            return Table(table.columns[:kept], tuple(rows), table.right, table.styles), table.columns[kept:]
        kept -= 1
    rows = (row[:kept] for row in table.rows)
    return Table(table.columns[:kept], tuple(rows), table.right, table.styles), table.columns[kept:]


def write_table(table: Table, stream: IO[str]) -> tuple[str, ...]:
    """Print a table: coloured and fitted to a terminal, plain and whole elsewhere.

    Returns the names of the columns that a narrow terminal had no room for.
    """
    if not stream.isatty():
        write(plain_table(table), stream)
        return ()
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    shown, left_out = fitted(table, console.width)
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for i, name in enumerate(shown.columns):
        grid.add_column(Text(name), justify="right" if i in shown.right else "left", no_wrap=True)
    for row, style in zip(shown.rows, shown.styles or [""] * len(shown.rows), strict=True):
        grid.add_row(*(Text(encodable(cell, stream)) for cell in row), style=STYLES.get(style, ""))
    with console.capture() as capture:
        console.print(grid)
    write(capture.get(), stream)
    return left_out


# --- the way out -------------------------------------------------------------------------------------


def write(text: str, stream: IO[str] | None = None) -> bool:
    """Write to stdout (or ``stream``) at once; False when nobody reads it any more (``| head``)."""
    out = sys.stdout if stream is None else stream
    try:
        out.write(encodable(text, out))
        out.flush()
    except BrokenPipeError:
        abandon(out)
        return False
    return True


def abandon(stream: IO[str]) -> None:
    """Lead to nowhere what is still buffered: Python flushes it when it ends, and would complain then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """One line on stderr."""
    write(f"{text}\n", sys.stderr)


def encodable(text: str, stream: IO[str]) -> str:
    """Text with ``?`` for every character that the stream's encoding lacks."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)
