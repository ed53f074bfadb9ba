"""One run: from the first submitted trial to the last, whatever dies in between."""

from __future__ import annotations

import queue
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from distributed import Client, Future, KilledWorker

from ptydask import reconcile, worker
from ptydask.clusters import Cluster
from ptydask.driver.book import Book, open_study
from ptydask.errors import ClusterError, PtydaskError, StorageError, one_line, redact
from ptydask.model import (
    Reason,
    RunSnapshot,
    StudyPlan,
    TrialRecord,
    TrialState,
    best_of,
    better,
)
from ptydask.reconcile import Action
from ptydask.storage import urls
from ptydask.storage.mirror import SqliteMirror
from ptydask.store import Store

TICK = 1.0
"""Seconds between two looks at everything."""
NO_WORKERS = 120.0
"""Seconds without any worker after which the run ends."""


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    snapshot: RunSnapshot
    complete: bool
    """Whether every trial that was asked for is recorded; else its time is over."""


@dataclass(slots=True)
class _Run:
    """The state of one run."""

    plan: StudyPlan
    options: RunOptions
    cluster: Cluster
    store: Store
    book: Book
    setup: worker.RunSetup
    observer: Observer
    mirror: SqliteMirror | None
    flight: dict[str, Future] = field(default_factory=dict)
    ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """Keys of tasks that are over, put there by Dask as it hears of them."""
    began: float = field(default_factory=time.monotonic)
    recorded_before: int = 0
    last_tick: float = 0.0
    workers_seen: float = field(default_factory=time.monotonic)
    index: int = 0
    mirror_behind: bool = False
    trouble: str = ""
    losses: int = 0
    """Attempts of this run that are tried again because their worker was lost."""

    @property
    def client(self) -> Client:
        return self.cluster.client

    # --- sending and collecting ---

    def fill(self, uncollected: int = 0) -> None:
        """Send what the workers have room for; ``uncollected`` tasks are over and not yet recorded."""
        slots = len(self.client.scheduler_info(n_workers=-1)["workers"])
        count = reconcile.to_submit(self.options.total - uncollected, len(self.store.records), len(self.flight), slots)
        for _ in range(0 if self.timed_out() else count):
            key = f"trial-{uuid.uuid4().hex}"
            future = self.client.submit(worker.run_trial, self.setup, key, self.index, key=key, pure=False)
            self.flight[key] = future
            future.add_done_callback(lambda ended: self.ended.put(ended.key))
            self.index += 1

    def over(self) -> bool:
        return len(self.store.records) >= self.options.total or self.timed_out()

    def timed_out(self) -> bool:
        limit = self.plan.budget.timeout
        return limit is not None and time.monotonic() - self.began >= limit

    def go(self) -> None:
        while self.flight or not self.over():
            self.fill()
            results = [self.flight.pop(key) for key in self._wait()]
            self.fill(len(results))  # the freed workers get their next trial before any bookkeeping
            for future in results:
                self.collect(future)
            self.tick()

    def _wait(self) -> list[str]:
        try:
            ended = [self.ended.get(timeout=TICK)]
        except queue.Empty:
            self._check_workers()
            return []
        while not self.ended.empty():
            ended.append(self.ended.get())
        return ended

    def _check_workers(self) -> None:
        now = time.monotonic()
        if self.client.scheduler_info(n_workers=-1)["workers"]:
            self.workers_seen = now
        elif now - self.workers_seen > NO_WORKERS:
            raise ClusterError(f"no worker for {NO_WORKERS:.0f} s; the same command goes on from here")

    def collect(self, future: Future) -> None:
        if future.status == "finished":
            done: worker.TrialDone = future.result()
            self.record(done.record, done.sha256)
            if done.lost:
                self.observer.notice(f"trial {done.record.number}: {done.lost}")
            return
        error = future.exception()
        if isinstance(error, StorageError):
            self.observer.notice(str(error))
        if isinstance(error, KilledWorker | StorageError) or future.status in ("lost", "cancelled"):
            self.settle(Reason.LOST)
            return
        if isinstance(error, PtydaskError):
            raise error
        raise ClusterError(
            f"a worker failed outside of its trial: {type(error).__name__}: {one_line(redact(str(error)))}"
        ) from error

    def record(self, record: TrialRecord, sha256: str | None = None) -> None:
        before = best_of(list(self.store.records.values()), self.plan.direction)
        self.store.add(record, sha256=sha256)
        best = (
            record.state is TrialState.COMPLETE
            and record.error is not None
            and (before is None or before.error is None or better(record.error, before.error, self.plan.direction))
        )
        self.observer.finished(record, best, self.snapshot())

    # --- putting right ---

    def settle(self, reason: Reason) -> None:
        """Bring Optuna and the store into agreement about every trial that nobody works on."""
        trials = self.book.begun()
        for trial in trials:
            if trial.store == self.store.id and trial.state == "RUNNING" and trial.task not in self.flight:
                self._adopt(trial.number)
        todo = reconcile.steps(
            trials,
            store=self.store.id,
            recorded=self.store.records.keys(),
            in_flight=self.flight.keys(),
            retries=self.options.retries,
            reason=reason,
            exclusive=self.setup.storage.kind == "journal",
        )
        for step in todo:
            self._settle(step, reason)

    def _adopt(self, number: int) -> None:
        """Record a trial whose worker died between writing its file and telling anybody."""
        record = None if number in self.store.records else self.store.find(number)
        if record is not None:
            self.record(record)

    def _settle(self, step: reconcile.Step, reason: Reason) -> None:
        trial = step.trial
        match step.action:
            case Action.ADOPT:
                self.book.tell(self.store.records[trial.number])
            case Action.REFUSE:
                self.store.discard(trial.number)
            case Action.CLOSE:
                self.book.close(trial, reason)
            case Action.RETRY:
                self.book.retry(trial)
                if trial.reason == Reason.LOST:
                    self.losses += 1
                    self.observer.notice(f"trial {trial.number} lost its worker; its parameters are tried again")
            case Action.GIVE_UP:
                message = f"its worker was lost {trial.losses + 1} times"
                self._record_numbers(trial, TrialState.FAIL, Reason.LOST, message)
            case Action.RECOVER:
                state = TrialState(trial.state)
                why = {TrialState.PRUNED: Reason.PRUNED, TrialState.FAIL: Reason.FAILED}.get(state, Reason.NONE)
                self._record_numbers(trial, state, why, "its file was lost; the numbers are from the Optuna study")

    def _record_numbers(self, trial: reconcile.Begun, state: TrialState, reason: Reason, message: str) -> None:
        from ptydask.store import shard

        record = self.book.record(trial, state=state, reason=reason, message=message)
        plan = self.plan
        shard.write(self.store.folder, record, None, plan.keep, direction=plan.direction, metric=plan.metric)
        self.record(record)

    # --- telling ---

    def snapshot(self) -> RunSnapshot:
        records = list(self.store.records.values())
        running = self.book.running(datetime.now())  # noqa: DTZ005 - Optuna's times are naive local ones
        elapsed = time.monotonic() - self.began
        steps = self.plan.iterations
        fresh = len(records) - self.recorded_before
        left = reconcile.time_left(
            elapsed,
            fresh,
            self.options.total - self.recorded_before,
            [r.step / steps for r in running if steps],
        )
        counts = {state.value.lower(): 0 for state in TrialState}
        for record in records:
            counts[record.state.value.lower()] += 1
        return RunSnapshot(
            study=self.plan.name,
            results=self.store.path,
            total=self.options.total,
            counts={
                "complete": counts["complete"],
                "pruned": counts["pruned"],
                "failed": counts["fail"],
                "running": len(running),
                "lost": self.losses,
            },
            best=best_of(records, self.plan.direction),
            running=running,
            workers=len(self.client.scheduler_info(n_workers=-1)["workers"]),
            seconds=elapsed,
            remaining=left,
            iterations=steps,
            metric=self.plan.metric,
            direction=self.plan.direction,
        )

    def tick(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self.last_tick < TICK:
            return
        self.last_tick = now
        snapshot = self.snapshot()
        self.observer.update(snapshot)
        self.store.write_status(snapshot)
        self.store.refresh()
        if self.store.trouble not in ("", self.trouble):
            self.observer.notice(f"{self.store.trouble}; the trials' own files are safe, it is tried again")
        self.trouble = self.store.trouble
        self.follow()

    def follow(self) -> None:
        if self.mirror is None:
            return
        try:
            self.mirror.update(self.book.trials())
            self.mirror_behind = False
        except StorageError as error:
            if not self.mirror_behind:
                self.observer.notice(f"{error}; it is tried again")
            self.mirror_behind = True


def run(
    plan: StudyPlan, options: RunOptions, cluster: Cluster, store: Store, observer: Observer, run_id: str
) -> Outcome:
    """Run what is missing of the study until every trial is recorded or its time is over.

    The workers must have been prepared (:func:`prepare`). Raises KeyboardInterrupt or whatever else ended it early,
    after everything that was under way has been closed as interrupted.
    """
    spec = urls.parse(plan.storage, store.path)
    client = cluster.client
    if spec.kind == "journal":
        from ptydask.storage.transport import JournalService

        assert spec.journal is not None
        client.register_plugin(JournalService(spec.journal.absolute()))
    storage = urls.connect(spec, client)
    mirror = SqliteMirror(spec.mirror, plan.name, plan.direction) if spec.mirror else None
    try:
        book = Book(open_study(storage, plan.name, plan.direction), store.id, plan)
        setup = worker.RunSetup(replace(plan, storage=None), spec, store.id, store.folder.absolute(), run_id)
        it = _Run(plan, options, cluster, store, book, setup, observer, mirror)
        _begin(it)
        try:
            it.go()
        except BaseException:
            cluster.stop_workers()
            it.flight.clear()
            it.settle(Reason.INTERRUPTED)
            it.tick(force=True)
            raise
        it.settle(Reason.LOST)
        it.tick(force=True)
        complete = len(store.records) >= options.total
        return Outcome(it.snapshot(), complete)
    finally:
        if mirror is not None:
            mirror.close()
        if spec.kind != "journal":
            urls.disconnect(storage)


def _begin(it: _Run) -> None:
    """Agree on what is there already, and line up what is tried first."""
    for damaged in it.store.damaged:
        it.observer.notice(damaged)
    it.book.restore(it.store.records.values())
    if it.mirror is not None:
        found = it.book.adopt_foreign(it.mirror.foreign())
        if found:
            it.observer.notice(
                f"{found} trials of study {it.plan.name!r} in {it.setup.storage.shown} inform the search"
            )
    it.settle(Reason.LOST)
    it.book.enqueue(it.plan.points)
    it.index = len(it.book.trials())
    it.recorded_before = len(it.store.records)
    it.tick(force=True)


def prepare(plan: StudyPlan, cluster: Cluster, run_id: str) -> Mapping[str, str]:
    """Load the measurements on every worker. Returns what the first one says of itself and of the data.

    Raises DataError where the measurements cannot be used, ClusterError where a worker dies of them.
    """
    client = cluster.client
    client.register_plugin(worker.KeepRunning())
    bare = replace(plan, storage=None)
    futures = [
        client.submit(worker.prepare, bare, run_id, pure=False, workers=[address], allow_other_workers=False)
        for address in client.scheduler_info(n_workers=-1)["workers"]
    ]
    try:
        answers: list[dict[str, str]] = client.gather(futures)
    except KilledWorker as error:
        raise ClusterError("a worker died while it loaded the measurements; is there enough memory?") from error
    return answers[0]
