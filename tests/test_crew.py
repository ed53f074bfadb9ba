"""The workers as the driver sees them, and what it does when they die at an unfortunate moment. No Dask runs here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dask.utils import key_split
from distributed import KilledWorker
from distributed.comm import CommClosedError

from ptydask import config
from ptydask.clusters import ClusterStatus, WorkerDemand
from ptydask.driver import crew as crews
from ptydask.driver import loop
from ptydask.driver.crew import WorkerPool
from ptydask.driver.run_progress import RunProgress
from ptydask.errors import StorageError
from ptydask.model import StudyPlan
from ptydask.storage import urls
from ptydask.worker import NotPrepared, RunSetup, process

FACTS = {"host": "here"}


class Task:
    """A Dask future that ends when the test says so."""

    def __init__(self, key: str, address: str) -> None:
        self.key, self.address, self.status = key, address, "pending"
        self.gives: Any = None
        self._callbacks: list[Callable[[Task], None]] = []

    def end(self, status: str, gives: Any = None) -> None:
        self.status, self.gives = status, gives
        for callback in self._callbacks:
            callback(self)

    def done(self) -> bool:
        return self.status != "pending"

    def result(self, timeout: float) -> Any:
        if isinstance(self.gives, BaseException):
            raise self.gives
        return self.gives

    def exception(self, timeout: float) -> Any:
        return self.gives

    def cancel(self) -> None:
        self.status = "cancelled"

    def add_done_callback(self, callback: Callable[[Task], None]) -> None:
        self._callbacks.append(callback)


@dataclass
class Workers:
    """A cluster and its client in one: who is there, and what they were sent."""

    there: set[str]
    sent: list[Task] = field(default_factory=list)
    tended: ClusterStatus = field(default_factory=ClusterStatus)
    needs: list[WorkerDemand] = field(default_factory=list)
    status: str = "running"

    @property
    def client(self) -> Workers:
        return self

    @property
    def scheduler(self) -> Workers:
        return self

    def sync(self, asked: Callable[..., Any], **given: object) -> Any:
        return asked(**given)

    def ncores(self) -> dict[str, int]:
        return dict.fromkeys(sorted(self.there), 1)

    def submit(self, *_: object, key: str, workers: list[str], **__: object) -> Task:
        self.sent.append(Task(key, workers[0]))
        return self.sent[-1]

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        self.needs.append(need)
        return self.tended


@pytest.fixture
def plan(toy_params: Callable[..., Path]) -> StudyPlan:
    return config.load(toy_params(), config.Overrides(engine="toy"))


def setup(plan: StudyPlan) -> RunSetup:
    return RunSetup(plan, urls.parse(None, plan.results), "store", Path("s.trials"), "run", 120.0, 5)


def run_of(crew: WorkerPool, reconciler: Any, notice: Callable[[str], None] = lambda text: None) -> loop._StudyRun:
    """A run of two trials that tells nobody."""
    store, observer = cast(Any, SimpleNamespace(records={})), cast(Any, SimpleNamespace(notice=notice))
    progress = RunProgress(2, crew, store, cast(Any, SimpleNamespace(position=None)), observer, None)
    return loop._StudyRun(crew, store, reconciler, progress)


def of(plan: StudyPlan, *addresses: str) -> tuple[WorkerPool, Workers]:
    """A crew, all of it ready."""
    workers = Workers(set(addresses))
    crew = WorkerPool(setup(plan), cast(Any, workers), lambda text: None)
    crew.update(9)
    for task in workers.sent:
        task.end("finished", FACTS)
    crew.update(9)
    workers.sent.clear()
    assert crew.idle_workers() == sorted(addresses)
    return crew, workers


def test_workers_that_die_together_are_told_of_twice(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Dask, and by a look that falls between collecting the one trial and the other: each is put right once."""
    monkeypatch.setattr(loop, "TICK", 0.0)
    monkeypatch.setattr(RunProgress, "tell", lambda progress, in_flight: None)
    crew, workers = of(plan, "tcp://a", "tcp://b")
    monkeypatch.setattr(crews, "PATIENCE", 0.2)  # nobody else comes
    reconciled: list[int] = []
    it = run_of(crew, SimpleNamespace(reconcile_trials=lambda *_: reconciled.append(len(it.flight))))
    it.send_trials()
    workers.there.clear()
    for task in workers.sent:
        task.end("error", KilledWorker("trial", cast(Any, None), 0))
    with pytest.raises(crews.StoppedEarly):
        it.run_trials()
    assert reconciled == [1, 0]


def test_a_worker_that_came_back_under_its_address_works_again(plan: StudyPlan) -> None:
    """A fixed port, and a nanny that was quicker than the driver's next look: it gets ready, then it gets trials."""
    crew, workers = of(plan, "tcp://a:1")
    crew.send_trial("tcp://a:1", "trial-1", 0)
    crew.remove_worker_of("trial-1")
    crew.update(9)
    _, prepare = workers.sent
    assert crew.idle_workers() == []
    prepare.end("finished", FACTS)
    crew.update(9)
    assert crew.idle_workers() == ["tcp://a:1"]


def test_a_worker_that_kept_nothing_of_the_run_gets_ready_again(
    plan: StudyPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A nanny that was quicker than the driver's next look, or another run that had the worker in between."""
    monkeypatch.setattr(RunProgress, "tell", lambda progress, in_flight: None)
    crew, workers = of(plan, "tcp://a:1")
    reconciled: list[int] = []
    it = run_of(crew, SimpleNamespace(reconcile_trials=lambda *_: reconciled.append(len(it.flight))))
    it.send_trials()
    (trial,) = workers.sent
    trial.end("error", NotPrepared())
    it.collect(trial.key)
    assert (reconciled, crew.idle_workers()) == ([0], [])
    crew.update(9)
    workers.sent[-1].end("finished", FACTS)
    crew.update(9)
    assert crew.idle_workers() == ["tcp://a:1"]


def test_a_look_that_is_owed_is_taken(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker died before it signed, while another task had signed nothing yet: no second loss need come for it."""
    monkeypatch.setattr(RunProgress, "tell", lambda progress, in_flight: None)
    crew, workers = of(plan, "tcp://a", "tcp://b")
    owed = [True, True, False]
    looks: list[int] = []

    def look(*_: object) -> bool:
        looks.append(len(it.flight))
        return owed.pop(0)

    it = run_of(crew, SimpleNamespace(reconcile_trials=look))
    it.send_trials()
    it.tick(force=True)
    assert looks == []
    workers.sent[0].end("error", KilledWorker("trial", cast(Any, None), 0))
    it.collect(workers.sent[0].key)
    for _ in range(4):
        it.tick(force=True)
    assert looks == [1, 1, 1]


def test_trials_of_later_stages_keep_workers(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """They count among the unfinished ones, also once the stage has all of its own; not once the time is over."""
    monkeypatch.setattr(RunProgress, "tell", lambda progress, in_flight: None)
    crew, workers = of(plan, "tcp://a")
    it = run_of(crew, None)
    it.progress.upcoming = 7
    it.tick(force=True)
    cast(Any, it.store).records = {0: None, 1: None}
    monkeypatch.setattr(RunProgress, "complete", lambda progress: True)
    it.tick(force=True)
    monkeypatch.setattr(RunProgress, "timed_out", lambda progress: True)
    it.tick(force=True)
    assert [need.unfinished for need in workers.needs[-3:]] == [9, 7, 0]


def test_a_worker_takes_up_no_plan_but_that_of_its_run(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was made ready for one run, then for the next: a late trial of the first has to be refused."""
    monkeypatch.setattr(process, "_open", None)
    first, second = setup(plan), replace(setup(plan), run_id="next")
    with pytest.raises(NotPrepared):
        process.session_for_run("run")
    process.prepare(first, process.versions())
    assert process.session_for_run("run").setup is first
    process.prepare(second, process.versions())
    assert process.session_for_run("next").setup is second
    with pytest.raises(NotPrepared):
        process.session_for_run("run")


@pytest.mark.parametrize("error", [TimeoutError(), CancelledError(), UnboundLocalError("of Dask's own")])
def test_a_worker_that_dies_before_it_is_heard(plan: StudyPlan, error: Exception) -> None:
    """It said that it was ready and was gone before anybody read it: no traceback, it counts as one that died."""
    workers = Workers({"tcp://a"})
    crew = WorkerPool(setup(plan), cast(Any, workers), lambda text: None)
    crew.update(9)
    workers.sent[0].end("finished", error)
    crew.update(9)
    assert (crew.facts, crew.idle_workers()) == ({}, [])
    workers.there.clear()
    crew.update(9)
    assert list(workers.needs[-1].unfit) == ["tcp://a"]


def test_a_worker_on_its_way_out_gets_nothing(plan: StudyPlan) -> None:
    """Neither a trial nor, where it is new, the preparation for one."""
    crew, workers = of(plan, "tcp://a")
    workers.tended = ClusterStatus(closing={"tcp://a", "tcp://b"})
    crew.update(9)
    workers.there.add("tcp://b")
    crew.update(9)
    assert (crew.idle_workers(), workers.sent) == ([], [])


def test_an_address_is_refused_as_long_as_it_is_there(plan: StudyPlan) -> None:
    """The next worker with it may be another one; and what is kept of ten thousand workers stays small."""
    crew, workers = of(plan, "tcp://a")
    workers.there.add("tcp://b")
    crew.update(9)
    workers.sent[0].end("error", MemoryError())
    crew.update(9)
    crew.update(9)
    assert len(workers.sent) == 1
    workers.there.remove("tcp://b")
    crew.update(9)
    assert not crew._refused
    workers.there.add("tcp://b")
    crew.update(9)
    assert len(workers.sent) == 2


def test_nobody_for_long_ends_the_run(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless somebody is on the way."""
    crew, workers = of(plan, "tcp://a")
    monkeypatch.setattr(crews, "PATIENCE", -1.0)
    workers.there.clear()
    workers.tended = ClusterStatus(coming=1)
    crew.update(9)
    workers.tended = ClusterStatus()
    with pytest.raises(crews.StoppedEarly, match="the same command goes on"):
        crew.update(9)


def test_a_storage_that_takes_no_trial_ends_the_run(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, and nothing that would have to be put right: the driver does not send one trial after the other."""
    monkeypatch.setattr(loop, "TICK", 0.0)
    monkeypatch.setattr(RunProgress, "tell", lambda progress, in_flight: None)
    crew, workers = of(plan, "tcp://a")
    notices: list[str] = []
    it = run_of(crew, SimpleNamespace(reconcile_trials=lambda *_: None), notices.append)
    monkeypatch.setattr(workers, "tend", lambda need: _refuse(workers))
    with pytest.raises(crews.StoppedEarly, match="no room; the same command goes on"):
        it.run_trials()
    assert len(notices) == loop.REFUSALS


FULL = StorageError("no room")


def _refuse(workers: Workers) -> ClusterStatus:
    if workers.sent[-1].status == "pending":
        workers.sent[-1].end("error", FULL)
    assert len(workers.sent) < 1000
    return ClusterStatus()


def test_a_scheduler_that_is_gone_is_one_line(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Dask raises then; what is wrong while it is there stays what it is."""

    def unknown() -> None:
        raise KeyError("workers")

    workers = Workers(set(), status="connecting")
    monkeypatch.setattr(workers, "ncores", unknown)
    crew = WorkerPool(setup(plan), cast(Any, workers), lambda text: None)
    with pytest.raises(crews.StoppedEarly, match="scheduler is gone"):
        crew.wait_for_first(1)
    workers.status = "running"
    with pytest.raises(KeyError):
        crew.wait_for_first(1)


def test_a_scheduler_that_does_not_answer_is_one_line(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever Dask still thinks of the connection."""

    def closed() -> None:
        raise CommClosedError("in <TLS>: Stream is closed")

    workers = Workers(set())
    monkeypatch.setattr(workers, "ncores", closed)
    with pytest.raises(crews.StoppedEarly, match="does not answer"):
        WorkerPool(setup(plan), cast(Any, workers), lambda text: None).update(1)


def test_dask_does_not_remember_the_keys_of_tasks(plan: StudyPlan) -> None:
    """It would keep those of 100,000 trials, to know what is before the hyphen."""
    crew, _ = of(plan)
    assert key_split("trial-0123456789abcdef0123456789abcdef") == "trial"
    crew.update(1)
    assert key_split.cache_info().currsize == 0
