"""What is asked of a run, who watches it, and how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ptydask import sampling
from ptydask.errors import PtydaskError
from ptydask.model import RunSnapshot, StudyPlan, TrialRecord
from ptydask.trial.reconcile import Failures

GOES_ON = "the same command goes on from here"
"""How a message ends that says why a run stopped early."""


class Observer(Protocol):
    """Who watches a run; see :mod:`ptydask.cli.view`."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Called about once a second."""

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """A trial was recorded."""

    def notice(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    total: int
    retries: int = 3
    """Times that a trial is tried again after its worker was lost."""
    checkpoint_every: float = 120.0
    """Seconds between two checkpoints of a trial."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    snapshot: RunSnapshot
    complete: bool
    """Whether every trial that was asked for is recorded, or the target reached; else its time is over."""
    reached: TrialRecord | None = None
    """The best trial, where it is as good as the target that the plan has."""


def total_of(plan: StudyPlan, workers: int, records: Iterable[TrialRecord] = ()) -> int:
    """How many trials ``workers`` workers record together; of a grid no more than its points.

    ``records`` that are none of the grid's points, as it was another search before, do not take the place of any.
    """
    asked = plan.budget.trials(workers)
    if not plan.exhaustive or asked < len(plan.points):
        return asked
    points = {sampling.identity(point.params) for point in plan.points}
    return len(plan.points) + sum(sampling.identity(record.params) not in points for record in records)


def hopeless(plan: StudyPlan, failures: Failures, total: int, recorded: int) -> PtydaskError:
    """The error that ends a run of ``total`` trials whose first ones all failed alike.

    ``recorded`` counts those of earlier runs too.
    """
    first, count = failures.first, failures.count
    assert first is not None
    show = f"ptydask show {shlex.quote(str(plan.results))} {first.number}"
    more = "another --results begins with all points" if plan.exhaustive else "--trials raises the number"
    earlier = recorded > count
    return PtydaskError(
        f"the first {count} trials{' of this run' if earlier else ''} failed alike: {first.message}; "
        f"{total - recorded} of {total} trials were not run; "
        f"`{show}` has the log and the error in full; once it is mended, the same command goes on "
        f"({f'all {recorded}' if earlier else f'these {count}'} stay recorded and count, {more})"
    )
