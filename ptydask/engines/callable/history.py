"""What a function has reported so far, and when the pruner is to hear of it."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence

from ptydask.model import Direction, better

EVERY = 1000
"""Values up to this one are all told to the pruner; later ones whenever their number has grown by 1 %."""


class History:
    """The reported values of one trial: 16 bytes and more for each step that has the metric."""

    def __init__(self, metric: str, objective: str, direction: Direction) -> None:
        self.metric, self._objective, self._direction = metric, objective, direction
        self.count = 0
        """Finite values of the metric so far."""
        self.latest: dict[str, float] = {}
        """The last value of every metric."""
        self._best: float | None = None
        self._steps = array("d")
        self._columns: dict[str, array[float]] | None = None
        self._step, self._row = math.nan, dict[str, float]()

    @property
    def seen(self) -> list[str]:
        """The names that were reported, the first one first."""
        return list(self.latest)

    def add(self, step: float | None, metrics: Mapping[str, float]) -> bool:
        """Take in what was reported; metrics of one step may come in parts. True where the metric has a finite value.

        Without a step it is the number of values of the metric so far.
        """
        value = metrics.get(self.metric)
        counts = value is not None and math.isfinite(value)
        if step is None:
            step = float(self.count + 1)
        if step != self._step or self._row.keys() & metrics.keys():
            self._close()
            self._step = step
        self._row.update(metrics)
        self.latest.update(metrics)
        if value is not None and counts:
            self.count += 1
            self._better(value)
        return counts

    def finish(self, value: float) -> None:
        """The function returned the metric's value: the last one, whatever was reported before."""
        self.latest[self.metric] = value
        if math.isfinite(value):
            self._better(value)

    def metrics(self) -> dict[str, float]:
        """The last value of each metric; of the tuned one also the best, and ``objective`` says which has its name."""
        found = dict(self.latest)
        if self.metric in found and self._best is not None:
            if self._objective == "best":
                found[f"{self.metric} (last)"] = found[self.metric]
                found[self.metric] = self._best
            else:
                found[f"{self.metric} (best)"] = self._best
        return found

    def curve(self) -> dict[str, Sequence[float]]:
        """Columns of equal length: the function's own steps, the metric, and what was reported with it each time.

        Empty where the metric never was reported.
        """
        self._close()
        if self._columns is None:
            return {}
        steps = [int(step) for step in self._steps] if all(map(float.is_integer, self._steps)) else self._steps
        return {"step": steps, **{name: column for name, column in self._columns.items() if name != "step"}}

    def _better(self, value: float) -> None:
        if self._best is None or better(value, self._best, self._direction):
            self._best = value

    def _close(self) -> None:
        """The row that was being collected, into the columns."""
        row, self._row = self._row, {}
        if self.metric not in row:
            return
        if self._columns is None:
            self._columns = {name: array("d") for name in row}
        self._columns = {name: column for name, column in self._columns.items() if name in row}
        self._steps.append(self._step)
        for name, column in self._columns.items():
            column.append(row[name])


def told(count: int, before: int, bands: Iterable[int] = ()) -> bool:
    """Whether the pruner hears of the value with this number, when ``before`` was the last one that it heard of."""
    return count <= EVERY or count >= before * 1.01 or count in set(bands)
