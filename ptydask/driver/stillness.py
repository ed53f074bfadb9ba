"""When a run is stuck: no worker comes, or no trial progresses, for too long. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

from ptydask.formatting import counted, duration_text
from ptydask.run_snapshot import RunSnapshot

PATIENCE = 1800.0
"""Seconds without any progress from which on a run counts as stuck."""
_TIMES = 3.0
"""And this many times the longest span between two steps so far: some programs report once an hour."""


@dataclass(frozen=True, slots=True)
class Stillness:
    """Since when nothing of a run has moved. Times are seconds of one clock."""

    mark: Hashable
    """How far the run has come: :func:`mark_of`; None before the first worker."""
    since: float
    longest: float = 0.0
    """Seconds of the longest span between two steps so far, the waiting for workers left out."""
    told: bool = False
    """Whether somebody was told that it is stuck; a new step begins anew."""

    def then(self, mark: Hashable, now: float) -> Stillness:
        """After another look at the run."""
        if mark == self.mark:
            return self
        worked = isinstance(self.mark, tuple) and self.mark[0]
        span = now - self.since if worked else 0.0
        return Stillness(mark, now, max(self.longest, span))

    def is_stuck(self, now: float) -> bool:
        """Whether it has been still for too long, and nobody was told."""
        return not self.told and now - self.since > max(PATIENCE, _TIMES * self.longest)

    def after_telling(self) -> Stillness:
        """Once somebody was told."""
        return replace(self, told=True)


def mark_of(snapshot: RunSnapshot) -> Hashable:
    """What changes with every step of a trial, with every trial that ends, and when workers come or all are gone."""
    steps = tuple((trial.number, trial.step) for trial in snapshot.running)
    return snapshot.workers > 0, snapshot.recorded, steps


def stuck_text(snapshot: RunSnapshot | None, seconds: float) -> str:
    """``no trial has progressed for 31 min 00 s, on 4 workers``, or that no worker has come, and why."""
    span = duration_text(seconds)
    if snapshot is not None and snapshot.workers:
        return f"no {snapshot.noun} has progressed for {span}, on {counted(snapshot.workers, 'worker')}"
    why = f": {snapshot.waiting}" if snapshot is not None and snapshot.waiting else ""
    return f"no worker has come for {span}{why}"
