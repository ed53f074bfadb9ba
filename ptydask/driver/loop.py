"""One run: from the first submitted trial to the last, whatever dies in between."""

from __future__ import annotations

import queue
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace

from distributed import Future, KilledWorker
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage

from ptydask import worker
from ptydask.clusters.process_state import SharedState
from ptydask.driver.contract import GOES_ON, RunOptions, RunOutcome, Supervisor, hopeless_error
from ptydask.driver.crew import NO_ANSWER, PATIENCE, TICK, WorkerPool
from ptydask.driver.optuna_study import OptunaStudy, open_study
from ptydask.driver.reconciler import Reconciler
from ptydask.driver.run_progress import RunProgress
from ptydask.errors import ClusterError, PtydaskError, StoppedEarly, StorageError, describe_error, one_line, redact
from ptydask.model import Reason, StudyPlan, TrialRecord
from ptydask.storage import transport, urls
from ptydask.storage.journal import FileBackend, JournalFile
from ptydask.storage.mirror import SqliteMirror
from ptydask.store import Store, checkpoints
from ptydask.trial import reconcile
from ptydask.trial.reconcile import Prospect
from ptydask.worker import transfer

FETCH = 5.0
"""Seconds for a finished task's few bytes of result, before asking whether its worker has died with them."""
REFUSALS = 20
"""Trials in a row that could not reach their storage, after which the run ends: a full disk does not get better."""
SWITCH = 0.0005
"""Seconds after which this thread lets Dask's have the interpreter. A worker waits for several such turns between two
trials, while the last one is recorded; Python's 5 ms for each were half of what it waits."""
_PROCESS = SharedState(sys.getswitchinterval, sys.setswitchinterval)


@dataclass(frozen=True, slots=True)
class _SentTask:
    """A task, and the worker that it was sent to."""

    future: Future
    address: str


@dataclass(slots=True)
class _StudyRun:
    """Sends trials and collects them."""

    crew: WorkerPool
    store: Store
    reconciler: Reconciler
    progress: RunProgress
    index: int = 0
    """Of the next task: it seeds the sampler."""
    flight: dict[str, _SentTask] = field(default_factory=dict)
    """The tasks that were sent and not collected, by their keys."""
    ended: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    """Keys of tasks that are over, put there by Dask as it hears of them."""
    last_tick: float = 0.0
    last_look: float = 0.0
    look_owed: bool = False
    """Whether a trial may be nobody's, which shows only once every task in flight has signed its own."""

    def begin(self) -> None:
        """Agree with Optuna on what is there already, and line up what is tried first."""
        store, study = self.store, self.reconciler.optuna_study
        plan, notice = self.progress.plan, self.progress.observer.notice
        for damaged in store.damaged:
            notice(damaged)
        study.check_space()
        study.restore(store.records.values())
        if self.progress.mirror is not None:
            foreign = study.adopt_foreign(self.progress.mirror.foreign())
            if foreign:
                url = self.crew.setup.storage.shown
                notice(f"{foreign} trials of study {plan.name!r} in {url} inform the search")
        others = sum(trial.state == "COMPLETE" and trial.store not in ("", store.id) for trial in study.begun())
        if others:
            notice(f"{others} trials of study {plan.name!r} from another results file inform the search")
        self.progress.begin()
        self.reconciler.reconcile_trials(Reason.LOST)
        self.progress.begin()  # what was reconciled is an earlier run's too
        waiting = {trial.first for trial in study.begun() if trial.state == "WAITING" and trial.store == store.id}
        resumed = sum(checkpoints.step(store.folder, first) > 0 for first in waiting)
        if resumed:
            notice(f"{resumed} trial{'s' * (resumed > 1)} under way when it stopped go{'es' * (resumed == 1)} on")
        study.enqueue(plan.points)
        self.index = len(study.trials()) << 16  # beyond every index of an earlier run, whatever became of its tasks
        self.tick(force=True)

    def run_trials(self) -> None:
        """Send trials and collect them until the study, or its time, is over."""
        progress = self.progress
        uncollected: deque[str] = deque()
        while self.flight or not progress.over():
            self.send_trials(len(uncollected))
            # With tasks left to collect, those that ended meanwhile are taken without waiting for any.
            uncollected.extend(self._wait_for_ended(0.0 if uncollected else self.crew.interval))
            self.send_trials(len(uncollected))  # a worker that is free gets its next trial before any bookkeeping
            if uncollected:
                key = uncollected.popleft()
                if key in self.flight:  # Dask and the crew may both have told of it
                    self.collect(key)
            if not progress.over() and progress.prospect(len(self.flight)) is Prospect.HOPELESS:
                raise hopeless_error(progress.plan, progress.failures, progress.total, len(self.store.records))
            self.tick()

    def send_trials(self, uncollected: int = 0) -> None:
        """Send a trial to every idle worker, as long as there are some to send.

        Before a trial has ended well, those that are over and not yet collected have a say first.
        """
        progress = self.progress
        if progress.over() or progress.prospect(len(self.flight)) is not Prospect.GOES_ON:
            return
        if uncollected and not progress.failures.disproved:
            return
        idle = self.crew.idle_workers(progress.longest)
        wanted = reconcile.to_submit(progress.total, len(self.store.records), len(self.flight), len(idle))
        for address in idle[:wanted]:
            self._send_trial(address)

    def _send_trial(self, address: str) -> None:
        key = f"trial-{uuid.uuid4().hex}"
        self.store.begun = True
        future = self.crew.send_trial(address, key, self.index, self.progress.optuna_study.position)
        self.flight[key] = _SentTask(future, address)
        future.add_done_callback(lambda ended: self.ended.put(ended.key))
        self.index += 1

    def _wait_for_ended(self, timeout: float) -> list[str]:
        """The tasks that are over, of which the first may take ``timeout`` s; also those whose worker is gone."""
        keys = []
        with suppress(queue.Empty):
            keys.append(self.ended.get(timeout=timeout))
            while True:
                keys.append(self.ended.get_nowait())
        ended = [key for key in dict.fromkeys(keys) if key in self.flight]  # in order, each once
        for key in ended:
            # Only a task that finished leaves its worker free at once: of any other the worker may be gone.
            if self.flight[key].future.status == "finished":
                self.crew.set_idle(key)
        return ended

    def collect(self, key: str) -> None:
        """Record what a task brought, or put right what it left."""
        done, error = self._task_outcome(self.flight[key])
        del self.flight[key]
        # What a task left behind without a result is found, and put right, by the reconciler at the end.
        if done is not None:
            self.reconciler.add(done.record, first=done.first, written=done.written)
            if done.written.lost:
                self.progress.observer.notice(f"trial {done.record.number}: {done.written.lost}")
            return
        match error:
            case None | worker.WorkerLeaving():
                pass  # its worker is gone, or goes: the next look takes it off the crew
            case KilledWorker() | worker.NotPrepared():
                self.crew.remove_worker_of(key)
            case StorageError():
                self._note_refusal(error)
                self.crew.set_idle(key)
            case PtydaskError():
                raise error
            case _:
                raise ClusterError(f"a worker failed outside of its trial: {describe_error(error)}") from error
        self.look_owed = self.reconciler.reconcile_trials(Reason.LOST, self.flight)

    def _task_outcome(self, sent: _SentTask) -> tuple[worker.TrialDone | None, BaseException | None]:
        """What a task returned, or raised; neither where the worker that had it is gone."""
        future = sent.future
        if future.status == "error":
            return None, future.exception(timeout=PATIENCE)
        while future.status == "finished":
            try:
                return future.result(timeout=FETCH), None
            except NO_ANSWER:
                # The worker may only be slow to answer: ask again for as long as it is there.
                if not self.crew.is_connected(sent.address):
                    break
        # Dask would run the task once more; the trial's file, if there is one, says what it gave.
        future.cancel()
        return None, None

    def _note_refusal(self, error: StorageError) -> None:
        """Tell of a trial that could not reach its storage. Raises StoppedEarly where there were too many."""
        self.progress.refusals += 1
        if self.progress.refusals > REFUSALS:
            raise StoppedEarly(f"{error}; {GOES_ON}") from error
        self.progress.observer.notice(str(error))

    def tick(self, *, force: bool = False) -> None:
        """Look after the workers, as often as they want it, and tell of the run, about once a second."""
        now = time.monotonic()
        whole = force or now - self.last_tick >= TICK
        if not whole and now - self.last_look < self.crew.interval:
            return
        self.last_look = now
        if whole and self.look_owed:
            self.look_owed = self.reconciler.reconcile_trials(Reason.LOST, self.flight)
        for key in self.crew.update(self.progress.unfinished(), self.progress.longest):
            self.ended.put(key)  # Dask may still hope for this worker; nobody else does
        if whole:
            self.last_tick = now
            self.progress.tell(len(self.flight))

    def finish(self) -> RunOutcome:
        """Put right what is left, and say how it went."""
        self.reconciler.reconcile_trials(Reason.LOST)
        self.progress.tell(0)
        progress = self.progress
        behind = progress.complete_mirror()
        return RunOutcome(progress.snapshot(), progress.complete(), progress.early_end, behind)

    def close_interrupted(self) -> None:
        """Close what was under way as interrupted. The workers must be gone."""
        self.flight.clear()
        try:
            self.reconciler.reconcile_trials(Reason.INTERRUPTED)
            self.progress.tell(0)
        except Exception as error:  # the reason for the stop matters more, and a new start does the same
            self.progress.observer.notice(f"the study was left as it is: {redact(one_line(str(error)))}")


class _QuietListener:
    """Nobody waits for the trials of a run that ended long ago."""

    def record(self, record: TrialRecord) -> None:
        pass

    def note_loss(self, text: str) -> None:
        pass


def check_mirror(plan: StudyPlan, store: Store, waiting: Callable[[str], None]) -> None:
    """Whether the SQLite study that the plan names can be used; it is made where there is none.

    Waits for others who hold its file, and tells ``waiting`` why, once a second. Raises StorageError.
    """
    spec = urls.parse(plan.storage, store.path)
    if spec.mirror:
        SqliteMirror(spec.mirror, plan.name, plan.direction, store.id, waiting).close()


def settle_study(plan: StudyPlan, store: Store, retries: int, waiting: Callable[[str], None]) -> str:
    """Bring Optuna and the store into agreement where no trial is missing and the last run was killed at its end.

    An SQLite study that was locked then is completed; ``waiting`` is told why, once a second, while it still is.
    Returns why it is behind, where it is nevertheless. Raises StorageError where the storage cannot be reached.
    """
    spec = urls.parse(plan.storage, store.path)
    moved = spec.journal is not None and not spec.journal.exists()
    if moved and not spec.mirror:
        return ""  # nothing is to be run
    with ExitStack() as stack:
        storage: BaseStorage
        if moved:
            storage = InMemoryStorage()
        elif spec.journal is None:
            storage = urls.connect(spec)
        else:
            file = JournalFile(spec.journal)
            stack.callback(file.close)
            storage = JournalStorage(FileBackend(file))
        stack.callback(urls.disconnect, storage)
        optuna_study = OptunaStudy(open_study(storage, plan.name, plan.direction), store.id, plan)
        optuna_study.restore(store.records.values())
        exclusive = spec.kind == "journal"
        Reconciler(optuna_study, store, _QuietListener(), retries, exclusive).reconcile_trials(Reason.LOST)
        if spec.mirror:
            try:
                mirror = SqliteMirror(spec.mirror, plan.name, plan.direction, store.id, waiting)
                stack.callback(mirror.close)
                mirror.complete(optuna_study.trials(), waiting)
            except StorageError as error:
                return str(error)
    return ""


def setup_of(plan: StudyPlan, options: RunOptions, store: Store) -> worker.RunSetup:
    """What the workers of a new run are sent: the crew gives it to each of them."""
    spec = urls.parse(plan.storage, store.path)
    if spec.journal is not None:
        spec = replace(spec, journal=spec.journal.absolute())
    bare = replace(plan, storage=None)  # the URL, which may hold a password, travels once, in the spec
    folder, run_id = store.folder.absolute(), uuid.uuid4().hex
    return worker.RunSetup(bare, spec, store.id, folder, run_id, options.checkpoint_every, options.total)


def run(options: RunOptions, crew: WorkerPool, store: Store, observer: Supervisor) -> RunOutcome:
    """Run what is missing of the crew's study until every trial is recorded or its time is over.

    Raises KeyboardInterrupt or whatever else ended it early, after everything that was under way has been closed as
    interrupted; StoppedEarly where the storage was lost.
    """
    with (
        _PROCESS.restored(),
        crew.stop_without_scheduler(),
        _storage_or_stop(crew.setup.storage),
        _open_run(options, crew, store, observer) as study,
    ):
        sys.setswitchinterval(SWITCH)
        study.begin()
        try:
            study.run_trials()
        except BaseException:
            crew.cluster.stop_workers()
            study.close_interrupted()
            raise
        return study.finish()


@contextmanager
def _storage_or_stop(spec: urls.StorageSpec) -> Iterator[None]:
    try:
        yield
    except PtydaskError:
        raise
    except Exception as error:
        if not urls.is_trouble(error):
            raise
        lost = f"{spec.shown}: the storage was lost: {describe_error(error)[:300]}"
        raise StoppedEarly(f"{lost}; {GOES_ON}") from error


@contextmanager
def _open_run(options: RunOptions, crew: WorkerPool, store: Store, observer: Supervisor) -> Iterator[_StudyRun]:
    """A run with its connections; each is given back, also where the next one cannot be had."""
    setup, plan, spec = crew.setup, crew.setup.plan, crew.setup.storage
    with ExitStack() as stack:
        _serve(stack, crew, transfer.FileService(setup.folder, setup.store_id, crew.client.id))
        if spec.journal is not None:
            _serve(stack, crew, transport.JournalService(spec.journal, crew.client.id))
        storage = urls.connect(spec, crew.client)
        stack.callback(urls.disconnect, storage)
        mirror = None
        if spec.mirror:
            mirror = SqliteMirror(spec.mirror, plan.name, plan.direction, store.id, observer.tell_waiting)
            stack.callback(mirror.close)
        optuna_study = OptunaStudy(open_study(storage, plan.name, plan.direction), store.id, plan)
        progress = RunProgress(
            options.total,
            crew,
            store,
            optuna_study,
            observer,
            mirror,
            workers_per_gpu=options.workers_per_gpu,
            upcoming=options.upcoming,
        )
        reconciler = Reconciler(optuna_study, store, progress, options.retries, exclusive=spec.kind == "journal")
        yield _StudyRun(crew, store, reconciler, progress)


def _serve(stack: ExitStack, crew: WorkerPool, service: transport.Service) -> None:
    """Have the scheduler answer the workers' calls until the end."""
    crew.client.register_plugin(service)
    stack.callback(transport.withdraw, crew.client, service.name)
