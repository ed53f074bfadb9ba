"""What the values that a trial logged amount to, the same for every engine: their count, the last, the best, a curve.

Also which of them Optuna hears, and what is said where there is none. Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from ptydask.errors import nearest_hint
from ptydask.model import UNRANKED_VALUE, Direction
from ptydask.ranking import is_better

EVERY = 1000
"""So many values are all reported."""
GROWTH = 1.01
"""Beyond, the count has to grow by this factor from one report to the next."""
MAX_ROWS = 100_000
MAX_CELLS = 1_000_000
"""Rows that a history keeps, and numbers in all of them; past either every second row goes."""
MAX_NAMES = 1_000
"""Metrics that a history follows; a program that makes up a name at each step does not fill the memory."""


@dataclass(frozen=True, slots=True)
class LoggedRow:
    """Numbers that were logged together."""

    step: float | None
    """The program's own; None where it gave none."""
    metrics: Mapping[str, float]
    time: float = 0.0
    """Unix seconds."""
    run: str = ""
    """The folder of the W&B run that logged it; empty for what was reported without W&B."""
    final: bool = False
    """What holds at the end whatever was logged last: the summary of a W&B run, what a function returned."""


@dataclass(slots=True)
class _LoggedRun:
    """The rows of one W&B run, or of what was reported without W&B, by their place in it."""

    index: int
    rows: dict[int, _RowCells] = field(default_factory=dict)
    """Those that have the tuned metric and are kept."""
    open: _RowCells | None = None
    """The row that was added to last, with the metric or without: more of it may come."""
    at: int = -1
    """Place of that row."""
    top: int = -1
    """Highest place of a row that has the metric."""
    end: _RowCells | None = None
    """That row, kept or not."""


@dataclass(slots=True)
class _RowCells:
    step: float
    numbers: dict[str, float]


class MetricHistory:
    """What the rows of a trial amount to, in bounded memory.

    Rows of the same W&B run and step are one, as W&B has it. Without W&B a row with the step of the one before adds to
    that; any other is a new one, even where the step went back, and one without a step has its number, counted from 1.

    Rows that have the metric are kept up to :data:`MAX_ROWS` of them and :data:`MAX_CELLS` numbers. Beyond that every
    second one goes, and from then on only every second, fourth, ... further one is kept; ``count``, ``last`` and
    ``best`` stay exact.

    Without a metric (an empty name) every row counts as one that has it, with the value that stands for none.
    """

    def __init__(self, metric: str, objective: Literal["last", "best"], direction: Direction) -> None:
        self.metric, self.objective, self.direction = metric, objective, direction
        self.count = 0
        """Finite values of the metric."""
        self.best: float | None = None
        """The best finite one."""
        self._rows = self._kept = self._numbers = 0
        self._stride = 1
        self._runs: dict[str, _LoggedRun] = {}
        self._newest: dict[str, tuple[tuple[int, float], float]] = {}
        """Of each metric, the place of its newest value, and that; a summary is after the row that it came with."""

    @property
    def seen(self) -> tuple[str, ...]:
        """Names of the metrics that were logged, the first :data:`MAX_NAMES` of them."""
        return tuple(filter(None, self._newest))

    @property
    def last(self) -> float | None:
        """The metric's value at the last step that has it, or the one in the program's summary; it may be NaN."""
        return self._newest[self.metric][1] if self.metric in self._newest else None

    @property
    def value(self) -> float | None:
        """The trial's objective: :attr:`last` or :attr:`best`."""
        return self.best if self.objective == "best" else self.last

    def add(self, row: LoggedRow) -> bool:
        """Take in a row. Returns whether :attr:`count` has gone up, by one."""
        before = self.count
        if not self.metric:
            row = replace(row, metrics={**row.metrics, "": UNRANKED_VALUE})
        run = self._get_run(row.run)
        place = self._row_place(run, row)
        after = place + 0.5 if row.final else place  # a summary counts as newer than the row that it came with
        for name, value in row.metrics.items():
            self._note_newest(name, value, (run.index, after))
        # Names beyond MAX_NAMES were not noted, and are not kept either.
        numbers = {name: value for name, value in row.metrics.items() if name in self._newest}
        only_in_summary = self.metric in numbers and run.top < 0
        if not row.final or only_in_summary:
            step = row.step
            if step is None:
                step = place if row.run else place + 1  # W&B counts from 0, rows without it from 1
            self._merge_row(run, place, _RowCells(step, numbers))
        elif self.metric in numbers:
            self._update_best(numbers[self.metric])
        return self.count > before

    def metrics(self) -> dict[str, float]:
        """The trial's final values: the objective, what it was not (``NAME (best)`` or ``NAME (last)``), all others."""
        values = {name: value for name, (_, value) in self._newest.items() if name != self.metric}
        other, other_value = ("last", self.last) if self.objective == "best" else ("best", self.best)
        if not self.metric:
            return values
        if other_value is not None:
            values = {f"{self.metric} ({other})": other_value, **values}
        return values if self.value is None else {self.metric: self.value, **values}

    def curve(self) -> dict[str, list[float]]:
        """The kept rows and the last one: ``step``, the metric, and each other metric that all of them have.

        Empty where the metric was never logged. Steps are the program's own: they may go back where it has two runs.
        """
        rows = [cells for run in self._runs.values() for cells in self._rows_with_metric(run)]
        if not rows:
            return {}
        names = [name for name in self._newest if name and all(name in cells.numbers for cells in rows)]
        names.sort(key=lambda name: name != self.metric)
        columns = {name: [cells.numbers[name] for cells in rows] for name in names}
        return {"step": [float(cells.step) for cells in rows], **columns}

    def _get_run(self, name: str) -> _LoggedRun:
        if name not in self._runs and len(self._runs) >= MAX_NAMES:
            name = ""
        return self._runs.setdefault(name, _LoggedRun(len(self._runs)))

    def _row_place(self, run: _LoggedRun, row: LoggedRow) -> int:
        """Where in its run a row belongs: rows of one place are merged."""
        if row.final:
            return max(run.at, 0) if row.step is None else int(row.step)
        if row.step is None:
            return run.at + 1
        if row.run:
            return int(row.step)
        # Without W&B steps may repeat or go back: only the row just before is added to.
        same = run.open is not None and run.open.step == row.step
        return run.at if same else run.at + 1

    def _note_newest(self, name: str, value: float, place: tuple[int, float]) -> None:
        if name in self._newest:
            if place >= self._newest[name][0]:
                self._newest[name] = (place, value)
        elif len(self._newest) < MAX_NAMES or name == self.metric:
            self._newest[name] = (place, value)

    def _merge_row(self, run: _LoggedRun, place: int, new_cells: _RowCells) -> None:
        """Put the numbers of ``new_cells`` at their place in the run, beside those that are there already."""
        # The open row may lack the metric, and the last one with it may have been thinned out: neither need be among
        # the kept rows.
        if place == run.at:
            cells = run.open
        elif place == run.top:
            cells = run.end
        else:
            cells = run.rows.get(place)
        if cells is None and self._stride > 1 and place <= run.top:
            return  # read again: it was counted, and thinned out
        old = None if cells is None else cells.numbers.get(self.metric)
        if cells is None:
            cells = new_cells
        else:
            if place in run.rows:  # the memory that is bounded is that of the kept rows
                self._numbers += len(new_cells.numbers.keys() - cells.numbers.keys())
            cells.numbers.update(new_cells.numbers)
        if place >= run.at:
            run.open, run.at = cells, place
        new = cells.numbers.get(self.metric)
        if new is None:
            return
        if old is None:  # a row is kept, or passed over, once: when it gets the metric
            self._keep_row(run, place, cells)
        if place >= run.top:
            run.end, run.top = cells, place
        self._judge_value(old, new)

    def _judge_value(self, old: float | None, new: float) -> None:
        """Count a value of the metric, and see whether it is the best one; ``old`` is what it takes the place of."""
        if math.isfinite(new):
            if old is None or not math.isfinite(old):
                self.count += 1
            if self._update_best(new):
                return
        # The best value may have been overwritten by a worse one. While every row is kept, the best of the others is
        # known; once rows were thinned out the value that was once logged stands.
        if old is not None and old == self.best and old != new and self._stride == 1:
            values = [
                cells.numbers[self.metric] for run in self._runs.values() for cells in self._rows_with_metric(run)
            ]
            best = min if self.direction == "minimize" else max
            self.best = best(filter(math.isfinite, values), default=None)

    def _update_best(self, new: float) -> bool:
        better = math.isfinite(new) and (self.best is None or is_better(new, self.best, self.direction))
        if better:
            self.best = new
        return better

    def _keep_row(self, run: _LoggedRun, place: int, cells: _RowCells) -> None:
        self._rows += 1
        if (self._rows - 1) % self._stride:  # after thinning, only every second, fourth, ... row is kept
            return
        run.rows[place] = cells
        self._kept += 1
        self._numbers += len(cells.numbers)
        while self._kept > MAX_ROWS or self._numbers > MAX_CELLS:
            self._thin_out()

    def _thin_out(self) -> None:
        """Let every second kept row go, in each run for itself."""
        self._stride *= 2  # new rows come as far apart as those that are left
        for run in self._runs.values():
            run.rows = {place: run.rows[place] for place in sorted(run.rows)[::2]}
        kept = [cells for run in self._runs.values() for cells in run.rows.values()]
        self._kept, self._numbers = len(kept), sum(len(cells.numbers) for cells in kept)

    def _rows_with_metric(self, run: _LoggedRun) -> Iterator[_RowCells]:
        """The rows of a run that have the metric, in order: the kept ones, and its last one."""
        for place in sorted(run.rows):
            yield run.rows[place]
        if run.end is not None and run.top not in run.rows:
            yield run.end


def should_report(count: int, before: int, bands: Collection[int] = ()) -> bool:
    """Whether Optuna hears of the ``count``-th value, having last heard of the one numbered ``before``.

    Of the first :data:`EVERY` each, then of ever fewer (1 % growth), and of all at which the pruner decides.
    """
    return count <= EVERY or count in bands or count >= before * GROWTH


def never_logged(metric: str, seen: Iterable[str]) -> str:
    """``never logged 'SSIM'; it logged: loss, ssim; did you mean 'ssim'?``; ``seen`` are the names of what was."""
    names = list(seen)
    if not names:
        return f"never logged {metric!r}; it logged nothing at all"
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    meant = nearest_hint(metric, names)
    also = f"; {meant}" if meant.startswith("did you mean") else ""
    return f"never logged {metric!r}; it logged: {listed}{also}"
