"""One run: from the first submitted trial to the last, whatever dies in between."""

from __future__ import annotations

import queue
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from distributed import Future, KilledWorker

from ptydask import worker
from ptydask.driver.contract import GOES_ON, Observer, Outcome, RunOptions, hopeless
from ptydask.driver.crew import TICK, Crew
from ptydask.driver.optuna_study import Book, open_study
from ptydask.driver.reconciler import Settler
from ptydask.errors import ClusterError, PtydaskError, StoppedEarly, StorageError, one_line, redact
from ptydask.model import (
    Reason,
    RunningTrial,
    RunSnapshot,
    StudyPlan,
    TrialRecord,
    TrialState,
    best_of,
    target_met,
)
from ptydask.storage import transport, urls
from ptydask.storage.mirror import SqliteMirror
from ptydask.store import Store, checkpoints
from ptydask.trial import reconcile
from ptydask.trial.reconcile import Failures, Prospect
from ptydask.worker import transfer

FETCH = 5.0
"""Seconds for a finished task's few bytes of result, before asking whether its worker has died with them."""
REFUSALS = 20
"""Trials in a row that could not reach their storage, after which the run ends: a full disk does not get better."""


@dataclass(frozen=True, slots=True)
class _Sent:
    """A task, and the worker that it was sent to."""

    future: Future
    address: str


@dataclass(slots=True)
class _Run:
    """The state of one run."""

    plan: StudyPlan
    total: int
    crew: Crew
    store: Store
    settler: Settler
    setup: worker.RunSetup
    observer: Observer
    mirror: SqliteMirror | None
    best: TrialRecord | None = None
    flight: dict[str, _Sent] = field(default_factory=dict)
    ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """Keys of tasks that are over, put there by Dask as it hears of them."""
    began: float = field(default_factory=time.monotonic)
    recorded_before: int = 0
    last_tick: float = 0.0
    index: int = 0
    longest: float = 0.0
    """Seconds of the longest trial so far."""
    running: tuple[RunningTrial, ...] = ()
    counts: Counter[TrialState] = field(default_factory=Counter)
    said: set[str] = field(default_factory=set)
    """What a person was told once."""
    failures: Failures = field(default_factory=Failures)
    """What this run has recorded, as long as all of it failed alike."""
    refusals: int = 0
    """Trials that could not reach their storage since the last one that was recorded."""
    trouble: str = ""
    mirror_behind: bool = False

    # --- sending and collecting ---

    def go(self) -> None:
        """Send trials and collect them until the study, or its time, is over."""
        over: deque[str] = deque()
        while self.flight or not self.over():
            self.fill(len(over))
            over.extend(self._ended(0.0 if over else TICK))
            self.fill(len(over))  # a worker that is free gets its next trial before any bookkeeping
            if over and (key := over.popleft()) in self.flight:  # Dask and the crew may both have told of it
                self.collect(key)
            if not self.over() and self.prospect() is Prospect.HOPELESS:
                raise hopeless(self.plan, self.failures, self.total, len(self.store.records))
            self.tick()

    def over(self) -> bool:
        """Whether no more trials are to be sent."""
        limit = self.plan.budget.timeout
        timed_out = limit is not None and time.monotonic() - self.began >= limit
        return timed_out or self.complete()

    def complete(self) -> bool:
        """Whether every trial is recorded, or one of them is as good as was wanted."""
        return len(self.store.records) >= self.total or self.reached() is not None

    def reached(self) -> TrialRecord | None:
        """The best trial, where it is as good as the target."""
        return target_met([self.best] if self.best else [], self.plan.target, self.plan.direction)

    def prospect(self) -> Prospect:
        """What the trials so far say of those to come."""
        return self.failures.prospect(self.running, len(self.flight))

    def fill(self, uncollected: int = 0) -> None:
        """Send a trial to every idle worker, as long as there are some to send.

        Before a trial has ended well, those that are over and not yet collected have a say first.
        """
        if self.over() or self.prospect() is not Prospect.GOES_ON or (uncollected and not self.failures.disproved):
            return
        idle = self.crew.idle(self.longest)
        wanted = reconcile.to_submit(self.total, len(self.store.records), len(self.flight), len(idle))
        for address in idle[:wanted]:
            self._send(address)

    def _send(self, address: str) -> None:
        key = f"trial-{uuid.uuid4().hex}"
        self.store.begun = True
        future = self.crew.send_trial(address, key, self.setup, key, self.index)
        self.flight[key] = _Sent(future, address)
        future.add_done_callback(lambda ended: self.ended.put(ended.key))
        self.index += 1

    def _ended(self, timeout: float) -> list[str]:
        """The tasks that are over, of which the first may take ``timeout`` s; also those whose worker is gone."""
        keys: dict[str, None] = {}  # in order, each once
        try:
            keys[self.ended.get(timeout=timeout) if timeout else self.ended.get_nowait()] = None
            while True:
                keys[self.ended.get_nowait()] = None
        except queue.Empty:
            pass
        ended = [key for key in keys if key in self.flight]
        for key in ended:
            if self.flight[key].future.status == "finished":
                self.crew.free(key)
        return ended

    def collect(self, key: str) -> None:
        """Record what a task brought, or put right what it left."""
        done, error = self._outcome(self.flight[key])
        del self.flight[key]
        if done is not None:
            self.settler.add(done.record, first=done.first, sha256=done.sha256)
            if done.lost:
                self.observer.notice(f"trial {done.record.number}: {done.lost}")
        elif error is None or isinstance(error, KilledWorker | StorageError | worker.Left):
            if isinstance(error, StorageError):
                self.refused(error)
                self.crew.free(key)
            elif isinstance(error, KilledWorker):
                self.crew.died(key)
            self.settler.settle(Reason.LOST, self.flight)
        elif isinstance(error, PtydaskError):
            raise error
        else:
            what = redact(one_line(f"{type(error).__name__}: {error}"))
            raise ClusterError(f"a worker failed outside of its trial: {what}") from error

    def _outcome(self, sent: _Sent) -> tuple[worker.TrialDone | None, BaseException | None]:
        """What a task returned, or raised; neither where the worker that had it is gone."""
        future = sent.future
        if future.status == "error":
            return None, future.exception(timeout=FETCH)
        while future.status == "finished":
            try:
                return future.result(timeout=FETCH), None
            except (TimeoutError, CancelledError):
                if not self.crew.connected(sent.address):
                    break
        # Dask would run the task once more; the trial's file, if there is one, says what it gave.
        future.cancel()
        return None, None

    def refused(self, error: StorageError) -> None:
        """Tell of a trial that could not reach its storage. Raises StoppedEarly where there were too many."""
        self.refusals += 1
        if self.refusals > REFUSALS:
            raise StoppedEarly(f"{error}; {GOES_ON}") from error
        self.observer.notice(str(error))

    def recorded(self, record: TrialRecord) -> None:
        """Tell of a trial that has been recorded."""
        self.refusals = 0
        best = best_of([r for r in (self.best, record) if r is not None], self.plan.direction)
        is_best, self.best = best is record, best
        self.longest = max(self.longest, record.seconds)
        self.failures = self.failures.then(record)
        self.counts[record.state] += 1
        self.running = tuple(trial for trial in self.running if trial.number != record.number)
        self.observer.finished(record, is_best, self.snapshot())

    # --- telling ---

    def look(self) -> None:
        """Ask anew what is under way and count what is recorded: too slow for every trial that ends."""
        self.running = self.settler.book.running(datetime.now())  # noqa: DTZ005 - Optuna's times are naive local ones
        self.counts = Counter(record.state for record in self.store.records.values())

    def snapshot(self) -> RunSnapshot:
        """The run as it was at the last look, and what was recorded since."""
        elapsed = time.monotonic() - self.began
        steps = self.plan.iterations
        done, wanted = len(self.store.records) - self.recorded_before, self.total - self.recorded_before
        shares = [r.step / steps for r in self.running if steps]
        return RunSnapshot(
            study=self.plan.name,
            results=self.store.path,
            total=self.total,
            counts={
                "complete": self.counts[TrialState.COMPLETE],
                "pruned": self.counts[TrialState.PRUNED],
                "failed": self.counts[TrialState.FAIL],
                "running": len(self.running),
                "lost": self.settler.losses,
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
        )

    def tick(self, *, force: bool = False) -> None:
        """Look after the workers and tell of the run, about once a second."""
        now = time.monotonic()
        if not force and now - self.last_tick < TICK:
            return
        self.last_tick = now
        for key in self.crew.look(0 if self.over() else self.total - len(self.store.records), self.longest):
            self.ended.put(key)  # Dask may still hope for this worker; nobody else does
        self.tell()

    def tell(self) -> None:
        """Bring everybody who looks from outside up to date."""
        self.look()
        snapshot = self.snapshot()
        self.observer.update(snapshot)
        if self.flight and self.reached() is not None:
            self._say_once("the target is reached: what is under way is finished, nothing more is started")
        elif self.prospect() is Prospect.WAITS:
            self._say_once("the first trials failed alike: no more are started until those under way have told more")
        self.store.write_status(snapshot)
        self.store.refresh()
        if self.store.trouble not in ("", self.trouble):
            self.observer.notice(f"{self.store.trouble}; the trials' own files are safe, it is tried again")
        self.trouble = self.store.trouble
        self._follow()

    def _say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.observer.notice(text)

    def _follow(self) -> None:
        if self.mirror is None:
            return
        try:
            self.mirror.update(self.settler.book.trials())
            self.mirror_behind = False
        except StorageError as error:
            if not self.mirror_behind:
                self.observer.notice(f"{error}; it is tried again")
            self.mirror_behind = True

    def stop(self) -> None:
        """Close what was under way as interrupted. The workers must be gone."""
        self.flight.clear()
        try:
            self.settler.settle(Reason.INTERRUPTED)
            self.tell()
        except Exception as error:  # the reason for the stop matters more, and a new start does the same
            self.observer.notice(f"the study was left as it is: {redact(one_line(str(error)))}")


def run(plan: StudyPlan, options: RunOptions, crew: Crew, store: Store, observer: Observer) -> Outcome:
    """Run what is missing of the study until every trial is recorded or its time is over.

    Raises KeyboardInterrupt or whatever else ended it early, after everything that was under way has been closed as
    interrupted; StoppedEarly where the storage was lost.
    """
    spec = urls.parse(plan.storage, store.path)
    if spec.journal is not None:
        spec = replace(spec, journal=spec.journal.absolute())
    with crew.connection(), _storage_or_stop(spec), _opened(plan, options, crew, store, observer, spec) as it:
        _begin(it)
        try:
            it.go()
        except BaseException:
            crew.cluster.stop_workers()
            it.stop()
            raise
        it.settler.settle(Reason.LOST)
        it.tell()
        return Outcome(it.snapshot(), it.complete(), it.reached())


@contextmanager
def _storage_or_stop(spec: urls.StorageSpec) -> Iterator[None]:
    try:
        yield
    except PtydaskError:
        raise
    except Exception as error:
        if not urls.is_trouble(error):
            raise
        what = redact(one_line(f"{type(error).__name__}: {error}"))[:300]
        raise StoppedEarly(f"{spec.shown}: the storage was lost: {what}; {GOES_ON}") from error


@contextmanager
def _opened(
    plan: StudyPlan,
    options: RunOptions,
    crew: Crew,
    store: Store,
    observer: Observer,
    spec: urls.StorageSpec,
) -> Iterator[_Run]:
    """A run with its connections."""
    client, folder = crew.client, store.folder.absolute()
    client.register_plugin(transfer.FileService(folder, store.id, client.id))
    if spec.kind == "journal":
        assert spec.journal is not None
        client.register_plugin(transport.JournalService(spec.journal, client.id))
    storage = urls.connect(spec, client)
    mirror = None
    try:
        mirror = SqliteMirror(spec.mirror, plan.name, plan.direction, store.id) if spec.mirror else None
        book = Book(open_study(storage, plan.name, plan.direction), store.id, plan)
        bare = replace(plan, storage=None)
        setup = worker.RunSetup(bare, spec, store.id, folder, crew.run_id, options.checkpoint_every)
        settler = Settler(plan, book, store, options.retries, spec.kind == "journal", observer.notice)
        it = _Run(plan, options.total, crew, store, settler, setup, observer, mirror)
        settler.recorded = it.recorded
        yield it
    finally:
        if mirror is not None:
            mirror.close()
        urls.disconnect(storage)
        if spec.kind == "journal":
            transport.withdraw(client, transport.JournalService.name)
        transport.withdraw(client, transfer.FileService.name)


def _begin(it: _Run) -> None:
    """Agree on what is there already, and line up what is tried first."""
    book = it.settler.book
    for damaged in it.store.damaged:
        it.observer.notice(damaged)
    book.check_space()
    book.restore(it.store.records.values())
    if it.mirror is not None:
        found = book.adopt_foreign(it.mirror.foreign())
        if found:
            it.observer.notice(
                f"{found} trials of study {it.plan.name!r} in {it.setup.storage.shown} inform the search"
            )
    others = sum(t.state == "COMPLETE" and t.store not in ("", it.store.id) for t in book.begun())
    if others:
        it.observer.notice(f"{others} trials of study {it.plan.name!r} from another results file inform the search")
    it.best = best_of(list(it.store.records.values()), it.plan.direction)
    it.settler.settle(Reason.LOST)
    it.best = best_of(list(it.store.records.values()), it.plan.direction)
    waiting = {trial.first for trial in book.begun() if trial.state == "WAITING" and trial.store == it.store.id}
    half = sum(checkpoints.step(it.store.folder, first) > 0 for first in waiting)
    if half:
        it.observer.notice(f"{half} trial{'s' * (half > 1)} under way when it stopped go{'es' * (half == 1)} on")
    book.enqueue(it.plan.points)
    it.index = len(book.trials()) << 16  # beyond every index of an earlier run, whatever became of its tasks
    it.recorded_before = len(it.store.records)
    well = any(record.state is not TrialState.FAIL for record in it.store.records.values())
    it.failures = Failures(disproved=well)  # what an earlier run recorded may have been mended since
    it.longest = max((record.seconds for record in it.store.records.values()), default=0.0)
    it.tick(force=True)
