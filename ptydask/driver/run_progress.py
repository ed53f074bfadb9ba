"""How far a run has come, and telling it to those who look from outside."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from ptydask.driver.contract import Supervisor
from ptydask.driver.crew import WorkerPool
from ptydask.driver.optuna_study import OptunaStudy
from ptydask.driver.settlement import EarlyEnd, falling_back_text, find_early_end, gain_text
from ptydask.engines import repeat
from ptydask.errors import StorageError
from ptydask.model import StudyPlan, TrialRecord, TrialState
from ptydask.ranking import best_of
from ptydask.run_snapshot import RunningTrial, RunSnapshot
from ptydask.storage.mirror import SqliteMirror
from ptydask.store import Store
from ptydask.trial import reconcile
from ptydask.trial.reconcile import Failures, Prospect

MIRROR_AGAIN = 10.0
"""Seconds until an SQLite study is tried again that was locked: every attempt holds up the driver for one."""
_SETTLED = "the optimum is settled: nothing more is started, unless what is under way moves it"


@dataclass(slots=True)
class RunProgress:
    """What was recorded, what is under way, and what that says of the trials to come."""

    total: int
    """Trials that the study is to have in the end."""
    crew: WorkerPool
    store: Store
    optuna_study: OptunaStudy
    observer: Supervisor
    mirror: SqliteMirror | None
    workers_per_gpu: int = 1
    upcoming: int = 0
    """Trials of later stages."""
    best: TrialRecord | None = None
    longest: float = 0.0
    """Seconds of the longest trial so far."""
    failures: Failures = field(default_factory=Failures)
    """What this run has recorded, as long as all of it failed alike."""
    running: tuple[RunningTrial, ...] = ()
    counts: Counter[TrialState] = field(default_factory=Counter)
    losses: int = 0
    """Attempts that are tried again because their worker was lost."""
    refusals: int = 0
    """Trials that could not reach their storage since the last one that was recorded."""
    _began: float = field(default_factory=time.monotonic)
    _recorded_before: int = 0
    _spent: float = 0.0
    """Seconds of this run's trials, all together."""
    _ended: int = 0
    """How many they are."""
    _on_gpus: bool = False
    _told: set[str] = field(default_factory=set)
    """What a person is told once."""
    _trouble: str = ""
    _mirror_behind: bool = False
    _mirror_due: float = 0.0
    """When the SQLite study is tried again, after it was locked."""
    _early_end: EarlyEnd = field(default_factory=EarlyEnd)
    _judged_of: int = -1
    """The number of recorded trials by which it is known."""

    @property
    def plan(self) -> StudyPlan:
        """The plan of the study."""
        return self.crew.setup.plan

    @property
    def repeats(self) -> bool:
        """Whether trials of another study are repeated, of which none is the best."""
        return self.plan.engine == repeat.NAME

    # --- how far it has come ---

    def begin(self) -> None:
        """Take what the store has by now for what earlier runs left."""
        records = list(self.store.records.values())
        self.best = None if self.repeats else best_of(records, self.plan.direction)
        self.longest = max((record.seconds for record in records), default=0.0)
        self._recorded_before = len(records)
        # What an earlier run recorded may have been mended since: its failures conclude nothing, its successes do.
        self.failures = Failures(disproved=any(record.state is not TrialState.FAIL for record in records))

    def record(self, record: TrialRecord) -> None:
        """Count a trial that the store has now, and tell of it."""
        self.refusals = 0
        candidates = [record] if self.best is None else [self.best, record]
        self.best = None if self.repeats else best_of(candidates, self.plan.direction)
        self.longest = max(self.longest, record.seconds)
        self._spent, self._ended = self._spent + record.seconds, self._ended + 1
        self._on_gpus = record.device.startswith("cuda")
        self.failures = self.failures.then(record)
        self.counts[record.state] += 1
        self.running = tuple(trial for trial in self.running if trial.number != record.number)
        self.observer.finished(record, self.best is record, self.snapshot())

    def note_loss(self, text: str) -> None:
        """Count an attempt that is tried again because its worker was lost, and tell of it."""
        self.losses += 1
        self.observer.notice(text)

    def over(self) -> bool:
        """Whether no more trials are to be sent."""
        return self.timed_out() or self.complete()

    def timed_out(self) -> bool:
        """Whether the time is over that the run has."""
        limit = self.plan.budget.timeout
        return limit is not None and time.monotonic() - self._began >= limit

    def unfinished(self) -> int:
        """The trials for which workers are needed: this study's, and those of later stages."""
        if self.timed_out():
            return 0
        return (0 if self.complete() else self.total - len(self.store.records)) + self.upcoming

    def complete(self) -> bool:
        """Whether every trial is recorded, or what is recorded ends the study: see :attr:`early_end`."""
        return len(self.store.records) >= self.total or bool(self.early_end)

    @property
    def early_end(self) -> EarlyEnd:
        """What ends the study by the trials recorded so far: looked for once a trial, however often it is asked for."""
        if len(self.store.records) != self._judged_of:
            self._judged_of = len(self.store.records)
            self._early_end = find_early_end(self.store.records.values(), self.plan)
        return self._early_end

    def prospect(self, in_flight: int) -> Prospect:
        """What the trials so far say of those to come; ``in_flight`` counts those that were sent and not collected."""
        return self.failures.prospect(self.running, in_flight)

    def snapshot(self) -> RunSnapshot:
        """The run as it was when it was last told of, and what was recorded since."""
        elapsed = time.monotonic() - self._began
        steps = self.plan.iterations
        done, wanted = len(self.store.records) - self._recorded_before, self.total - self._recorded_before
        shares = [trial.step / steps for trial in self.running] if steps else []
        return RunSnapshot(
            study=self.plan.name,
            results=self.store.path,
            total=self.total,
            counts={
                "complete": self.counts[TrialState.COMPLETE],
                "pruned": self.counts[TrialState.PRUNED],
                "failed": self.counts[TrialState.FAIL],
                "running": len(self.running),
                "lost": self.losses,
            },
            best=self.best,
            running=self.running,
            workers=len(self.crew),
            seconds=elapsed,
            remaining=reconcile.time_left(elapsed, done, wanted, shares),
            iterations=steps,
            metric=self.plan.metric,
            direction=self.plan.direction,
            waiting=self.crew.tended.waiting,
            work=self._project_work(wanted),
            on_gpus=self._on_gpus,
            repeats=self.repeats,
            stage=self.plan.lineage.place if self.plan.lineage else "",
        )

    def _project_work(self, wanted: int) -> float | None:
        """Seconds of workers, or of GPUs, for ``wanted`` trials at the pace so far; None before one has ended."""
        share = self.workers_per_gpu if self._on_gpus else 1
        return self._spent / self._ended * wanted / share if self._ended else None

    # --- telling ---

    def tell(self, in_flight: int) -> None:
        """Bring everybody who looks from outside up to date: too slow for every trial that ends."""
        self.running = self.optuna_study.running(datetime.now())  # noqa: DTZ005 - Optuna's times are naive local ones
        self.counts = Counter(record.state for record in self.store.records.values())
        snapshot = self.snapshot()
        self.observer.update(snapshot)
        end = self.early_end
        if in_flight and end.reached is not None:
            self._tell_once("the target is reached: what is under way is finished, nothing more is started")
        elif in_flight and end.settled is not None:
            self._tell_once(_SETTLED)
        elif _SETTLED in self._told and end.settled is None:
            self._told.discard(_SETTLED)
            self.observer.notice("what was under way moved the optimum: it is not settled, and the run goes on")
        elif in_flight and end.unbeaten is not None:
            self._tell_once(self._unbeaten_notice)
        elif self._unbeaten_notice in self._told and end.unbeaten is None:
            self._told.discard(self._unbeaten_notice)
            self.observer.notice("what was under way brought a gain: the run goes on")
        elif self.prospect(in_flight) is Prospect.WAITS:
            self._tell_once("the first trials failed alike: no more are started until those under way have told more")
        elif in_flight and (text := falling_back_text(self.store.records.values(), self.plan)):
            self._tell_once(text)
        self.store.write_status(snapshot)
        self._refresh_index()
        self._update_mirror()

    @property
    def _unbeaten_notice(self) -> str:
        words = gain_text(self.plan.no_gain) if self.plan.no_gain else ""
        return f"the last {words}: nothing more is started, unless what is under way brings some"

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.observer.notice(text)

    def _refresh_index(self) -> None:
        self.store.refresh()
        if self.store.trouble not in ("", self._trouble):
            self.observer.notice(f"{self.store.trouble}; the trials' own files are safe, it is tried again")
        self._trouble = self.store.trouble

    def _update_mirror(self) -> None:
        if self.mirror is None or time.monotonic() < self._mirror_due:
            return
        try:
            self.mirror.update(self.optuna_study.trials())
            self._mirror_behind = False
        except StorageError as error:
            if not self._mirror_behind:
                self.observer.notice(f"{error}; it is tried again")
            self._mirror_behind = True
            self._mirror_due = time.monotonic() + MIRROR_AGAIN

    def complete_mirror(self) -> str:
        """Wait until the SQLite study has everything; why it has not, where that cannot be."""
        if self.mirror is None:
            return ""
        try:
            self.mirror.complete(self.optuna_study.trials(), self.observer.tell_waiting)
        except StorageError as error:
            return str(error)
        return ""
