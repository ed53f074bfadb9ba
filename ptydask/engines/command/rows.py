"""What a program logged: rows of metrics, from its file of JSON lines as it grows, and what they amount to.

A line is ``{"step": 3, "metrics": {"SSIM": 0.5}}`` or, shorter, ``{"step": 3, "SSIM": 0.5}``. ``step`` may be left out.
The longer form may also have ``time`` (unix seconds) and ``run`` (the W&B run that logged it).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptydask.model import Direction, better

MAX_LINE = 1 << 20
"""Bytes of a line; a longer one is rubbish."""
READ_AT_ONCE = 4 << 20
MAX_ROWS = 100_000
MAX_CELLS = 1_000_000
"""Rows that a history keeps, and numbers in all of them; past either every second row goes."""
MAX_NAMES = 1_000
"""Metrics that a history follows; a program that makes up a name at each step does not fill the memory."""

INTERNAL = frozenset({"_step", "_runtime", "_timestamp", "_wandb"})
"""What W&B logs of its own accord."""
_WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@dataclass(frozen=True, slots=True)
class Row:
    """Numbers that were logged together."""

    step: int | None
    """The program's own; None where it gave none."""
    metrics: Mapping[str, float]
    time: float
    """Unix seconds."""
    run: str = ""
    """The folder of the W&B run that logged it; empty for a line that a program wrote by hand."""
    final: bool = False
    """The summary of a W&B run: what the program set there itself, beyond or instead of what it logged last."""


def numbers(data: Mapping[Any, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in JSON-like data: names of nested ones joined with dots, all else left out.

    W&B writes NaN and the infinities as text; what it logs of its own accord (``_step`` and so on) is left out.
    """
    found: dict[str, float] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if name in INTERNAL:
            continue
        if isinstance(value, Mapping):
            if "_type" not in value:  # a picture, table, histogram ...: its size is no value of the program's
                found.update(numbers(value, f"{name}."))
        elif (number := _number(value)) is not None:
            found[name] = number
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return _WORDS.get(value)
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def parse(line: bytes, now: float) -> Row | None:
    """The row of one line; None where it is none. ``now`` is the time of a row that has none."""
    try:
        data = json.loads(line.decode())
        if not isinstance(data, dict):
            return None
        if not isinstance(data.get("metrics"), dict):
            step = data.pop("step", None)
            return Row(_step(step), numbers(data), now)
        when, run = _number(data.get("time")), data.get("run")
        moment = when if when is not None and math.isfinite(when) else now
        return Row(_step(data.get("step")), numbers(data["metrics"]), moment, run if isinstance(run, str) else "")
    except (ValueError, RecursionError):  # broken JSON, broken UTF-8, an integer too long to read, nested too deep
        return None


def _step(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) >= 2**53:
        return None
    return int(value) if value == int(value) else None


class Tail:
    """The file of JSON lines of a trial, read as it grows. It need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rubbish = 0
        """Lines that were no row: no JSON object, or too long."""
        self._at = 0
        self._partial = b""
        self._skipping = False

    def new(self) -> list[Row]:
        """The rows since the last call, some MB at most; an empty list says that for now there are no more.

        The beginning of a line is kept until the rest is there. A file that became shorter is read anew.
        """
        rows: list[Row] = []
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._at:
                    self._at, self._partial, self._skipping = 0, b"", False
                file.seek(self._at)
                while not rows and (chunk := file.read(READ_AT_ONCE)):
                    self._at += len(chunk)
                    rows = self._rows(chunk)
        except OSError:  # not there yet, or gone
            return []
        return rows

    def rest(self) -> list[Row]:
        """The row of a last line that no line end followed, once the program has ended."""
        line, self._partial = self._partial, b""
        row = parse(line, time.time()) if line.strip() and not self._skipping else None
        return [] if row is None else [row]

    def _rows(self, chunk: bytes) -> list[Row]:
        *lines, partial = chunk.split(b"\n")
        if lines:
            lines[0] = self._partial + lines[0]
            if self._skipping:
                del lines[0]
            self._partial, self._skipping = b"", False
        if not self._skipping:
            self._partial += partial
            if len(self._partial) > MAX_LINE:
                self._partial, self._skipping = b"", True
                self.rubbish += 1
        now = time.time()
        return [row for line in lines if (row := self._row(line, now)) is not None]

    def _row(self, line: bytes, now: float) -> Row | None:
        if not line.strip():
            return None
        row = parse(line, now) if len(line) <= MAX_LINE else None
        self.rubbish += row is None
        return row


def reconciled(live: Iterable[Row], recorded: Iterable[Row]) -> Iterator[Row]:
    """Every row once: those of W&B's own files, ``recorded``, and of the ``live`` ones what these lack.

    W&B writes a run's rows in order and late. A program that was killed leaves a file without the last of them, maybe
    without any; up to the last one that is there, the file is right also where several processes logged to one run.
    """
    top: dict[str, int] = {}
    for row in recorded:
        top[row.run] = max(top.get(row.run, -1), row.step or 0)
        yield row
    for row in live:
        if not row.run or row.run not in top or (row.step is not None and row.step > top[row.run]):
            yield row


@dataclass(slots=True)
class _Run:
    """The rows of one W&B run, or of the lines that were written by hand, by their place in it."""

    index: int
    rows: dict[int, _Cells] = field(default_factory=dict)
    """Those that have the tuned metric and are kept."""
    open: _Cells | None = None
    """The row that was added to last, with the metric or without: more of it may come."""
    at: int = -1
    """Place of that row."""
    top: int = -1
    """Highest place of a row that has the metric."""
    end: _Cells | None = None
    """That row, kept or not."""


@dataclass(slots=True)
class _Cells:
    step: int
    numbers: dict[str, float]


class History:
    """What the rows of a trial amount to, in bounded memory.

    Rows of the same W&B run and step are one, as W&B has it, so that what was read while the program ran may be added
    again from the run's own file. By hand a row with the step of the one before adds to that; any other is a new one,
    even where the step went back.

    Rows that have the metric are kept up to :data:`MAX_ROWS` of them and :data:`MAX_CELLS` numbers. Beyond that every
    second one goes, and from then on only every second, fourth, ... further one is kept; ``count``, ``last`` and
    ``best`` stay exact.
    """

    def __init__(self, metric: str, objective: Literal["last", "best"], direction: Direction) -> None:
        self.metric, self.objective, self.direction = metric, objective, direction
        self.count = 0
        """Finite values of the metric."""
        self.best: float | None = None
        """The best finite one."""
        self._rows = self._kept = self._numbers = 0
        self._stride = 1
        self._runs: dict[str, _Run] = {}
        self._newest: dict[str, tuple[tuple[int, float], float]] = {}
        """Of each metric, the place of its newest value, and that; a summary is after the row that it came with."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the metrics that were logged, the first :data:`MAX_NAMES` of them."""
        return tuple(self._newest)

    @property
    def last(self) -> float | None:
        """The metric's value at the last step that has it, or the one in the program's summary; it may be NaN."""
        return self._newest[self.metric][1] if self.metric in self._newest else None

    @property
    def value(self) -> float | None:
        """The trial's objective: :attr:`last` or :attr:`best`."""
        return self.best if self.objective == "best" else self.last

    def add(self, row: Row) -> bool:
        """Take in a row. Returns whether :attr:`count` has gone up, by one."""
        before = self.count
        run = self._run(row.run)
        place = self._place(run, row)
        for name, value in row.metrics.items():
            self._note(name, value, (run.index, place + 0.5 if row.final else place))
        numbers = {name: value for name, value in row.metrics.items() if name in self._newest}
        if not row.final:
            self._take(run, place, _Cells(place if row.step is None else row.step, numbers))
        elif self.metric in numbers and run.top < 0:
            self._take(run, place, _Cells(place, numbers))
        return self.count > before

    def metrics(self) -> dict[str, float]:
        """The trial's final values: the objective, what it was not (``NAME (best)`` or ``NAME (last)``), all others."""
        found = {name: value for name, (_, value) in self._newest.items() if name != self.metric}
        other, its = ("last", self.last) if self.objective == "best" else ("best", self.best)
        if its is not None:
            found = {f"{self.metric} ({other})": its, **found}
        return found if self.value is None else {self.metric: self.value, **found}

    def curve(self) -> dict[str, list[float]]:
        """The kept rows and the last one: ``step``, the metric, and each other metric that all of them have.

        Empty where the metric was never logged. Steps are the program's own: they may go back where it has two runs.
        """
        rows = [cells for run in self._runs.values() for cells in self._of(run)]
        if not rows:
            return {}
        names = [name for name in self._newest if all(name in cells.numbers for cells in rows)]
        names.sort(key=lambda name: name != self.metric)
        columns = {name: [cells.numbers[name] for cells in rows] for name in names}
        return {"step": [float(cells.step) for cells in rows], **columns}

    def _run(self, name: str) -> _Run:
        if name not in self._runs and len(self._runs) >= MAX_NAMES:
            name = ""
        return self._runs.setdefault(name, _Run(len(self._runs)))

    def _place(self, run: _Run, row: Row) -> int:
        if row.final:
            return row.step or 0
        if row.step is None:
            return run.at + 1
        if row.run:
            return row.step
        same = run.open is not None and run.open.step == row.step
        return run.at if same else run.at + 1

    def _note(self, name: str, value: float, place: tuple[int, float]) -> None:
        if name in self._newest:
            if place >= self._newest[name][0]:
                self._newest[name] = (place, value)
        elif len(self._newest) < MAX_NAMES or name == self.metric:
            self._newest[name] = (place, value)

    def _take(self, run: _Run, place: int, given: _Cells) -> None:
        cells = run.open if place == run.at else run.end if place == run.top else run.rows.get(place)
        if cells is None and self._stride > 1 and place <= run.top:
            return  # read again: it was counted, and thinned out
        old = None if cells is None else cells.numbers.get(self.metric)
        if cells is None:
            cells = given
        else:
            if place in run.rows:
                self._numbers += len(given.numbers.keys() - cells.numbers.keys())
            cells.numbers.update(given.numbers)
        if place >= run.at:
            run.open, run.at = cells, place
        new = cells.numbers.get(self.metric)
        if new is None:
            return
        if old is None:
            self._keep(run, place, cells)
        if place >= run.top:
            run.end, run.top = cells, place
        self._judge(old, new)

    def _judge(self, old: float | None, new: float) -> None:
        if math.isfinite(new):
            self.count += old is None or not math.isfinite(old)
            if self.best is None or better(new, self.best, self.direction):
                self.best = new
                return
        if old is not None and old == self.best and old != new and self._stride == 1:
            sign = 1 if self.direction == "minimize" else -1
            values = [cells.numbers[self.metric] for run in self._runs.values() for cells in self._of(run)]
            self.best = min(filter(math.isfinite, values), key=lambda value: sign * value, default=None)

    def _keep(self, run: _Run, place: int, cells: _Cells) -> None:
        self._rows += 1
        if (self._rows - 1) % self._stride:
            return
        run.rows[place] = cells
        self._kept += 1
        self._numbers += len(cells.numbers)
        while self._kept > MAX_ROWS or self._numbers > MAX_CELLS:
            self._thin()

    def _thin(self) -> None:
        self._stride *= 2
        for run in self._runs.values():
            run.rows = {place: run.rows[place] for place in sorted(run.rows)[::2]}
        kept = [cells for run in self._runs.values() for cells in run.rows.values()]
        self._kept, self._numbers = len(kept), sum(len(cells.numbers) for cells in kept)

    def _of(self, run: _Run) -> Iterator[_Cells]:
        """The rows of a run that have the metric, in order: the kept ones, and its last one."""
        for place in sorted(run.rows):
            yield run.rows[place]
        if run.end is not None and run.top not in run.rows:
            yield run.end
