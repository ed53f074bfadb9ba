"""What is asked of a run, who watches it, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ptydask.driver.settlement import EarlyEnd
from ptydask.engines import repeat
from ptydask.errors import PtydaskError
from ptydask.formatting import shell_path
from ptydask.model import Scalar, StudyMeta, StudyPlan, TrialRecord, path_beside
from ptydask.ranking import best_of, count_states
from ptydask.run_snapshot import RunSnapshot
from ptydask.trial.reconcile import Failures

GOES_ON = "the same command goes on from here"
"""How a message ends that says why a run stopped early."""
STOPPING = "stopping: what is starting is closed, which takes some seconds"
"""What is said as soon as a signal comes while workers start."""
TIME_IS_OVER = f"the time is over; {GOES_ON}"
"""What is said last of a run that ended before all its trials were recorded."""


class Observer(Protocol):
    """Who watches a run."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Called about once a second."""

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """A trial was recorded."""

    def notice(self, text: str) -> None:
        """Something that a person should know."""


class Supervisor(Observer, Protocol):
    """Who watches a run, and may stop it."""

    def tell_waiting(self, why: str) -> None:
        """Something outside is waited for, told once a second. Raises where the run is to stop."""


class View(Observer, Protocol):
    """Who shows a run to a person, from its plan to its end. No method raises when nobody can be told any more."""

    def plan(self, lines: Sequence[str]) -> None:
        """Say what is about to be run."""

    def close(self, final: RunSnapshot | None = None) -> None:
        """Show how it ended, and let go of the terminal. Harmless when called again."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    total: int
    retries: int = 3
    """Times that a trial is tried again after its worker was lost."""
    checkpoint_every: float = 120.0
    """Seconds between two checkpoints of a trial."""
    workers_per_gpu: int = 1
    """Trials that share a GPU."""
    upcoming: int = 0
    """Trials of later stages: workers that this run needs no more are kept for them."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended that nobody stopped."""

    snapshot: RunSnapshot | None
    """None where every trial was recorded already, and only packing was left."""
    complete: bool
    """Whether every trial that was asked for is recorded, or the study ended by its results; else its time is over."""
    early_end: EarlyEnd = field(default_factory=EarlyEnd)
    behind: str = ""
    """Why the SQLite study has not all of it, where it has not: the results file has."""
    failed_before: int = 0
    """Trials that failed in the earlier stages, as far as these were run now."""
    values: Mapping[str, Scalar] = field(default_factory=dict)
    """What the earlier stages found: its trials had these values."""

    @property
    def failed(self) -> int:
        """How many trials failed, of all that are recorded; 0 where no trial was left to run."""
        return self.failed_before + (0 if self.snapshot is None else self.snapshot.counts.get("failed", 0))

    @property
    def exit_code(self) -> int:
        """What the command returns: 75 where the same command has something left to do, 3 where trials failed, 0."""
        if not self.complete or self.behind:
            return 75
        return 3 if self.failed else 0


def snapshot_of_records(records: Sequence[TrialRecord], meta: StudyMeta, file: Path, *, complete: bool) -> RunSnapshot:
    """A snapshot made of what was recorded, where no driver left one.

    Its total is 0 unless the study is ``complete``: how many were asked for is not known then.
    """
    return RunSnapshot(
        study=meta.name,
        results=file,
        total=len(records) if complete else 0,
        counts=count_states(record.state for record in records),
        best=None if meta.engine == repeat.NAME else best_of(records, meta.direction),
        running=(),
        workers=0,
        seconds=sum(record.seconds for record in records),
        remaining=None,
        iterations=None,
        metric=meta.metric,
        direction=meta.direction,
        repeats=meta.engine == repeat.NAME,
        stage=meta.lineage.place if meta.lineage else "",
    )


def hopeless_error(plan: StudyPlan, failures: Failures, total: int, recorded: int) -> PtydaskError:
    """The error that ends a run of ``total`` trials whose first ones all failed alike.

    ``recorded`` counts those of earlier runs too.
    """
    first, count = failures.first, failures.count
    assert first is not None
    noun = "repeats" if plan.engine == repeat.NAME else "trials"
    trials, stay = f"the first {count} {noun}", f"these {count}"
    if recorded > count:
        trials, stay = f"{trials} of this run", f"all {recorded}"
    show = f"ptydask show {shell_path(plan.results)} {first.number}"
    more = "another --results begins with all points" if plan.exhaustive else "--trials raises the number"
    if plan.engine == repeat.NAME:
        folder = path_beside(plan.results, ".trials")
        more = f"rm -r {shell_path(plan.results)} {shell_path(folder)} begins with all of them"
    return PtydaskError(
        f"{trials} failed alike: {first.message}; {total - recorded} of {total} {noun} were not run; "
        f"`{show}` has the log and the error in full; once it is mended, the same command goes on "
        f"({stay} stay recorded and count, {more})"
    )
