"""What the threads of a queue have in common: the process's warnings and settings, and the list of workers."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import dask
import pytest

from ptydask.clusters import ClusterStatus, WorkerDemand
from ptydask.driver import lending
from ptydask.driver.crew import WorkerPool
from ptydask.driver.lending import LentWorkers
from ptydask.errors import caught_warnings
from ptydask.sampling.factory import quiet_optuna

LOG = logging.getLogger("optuna")
ADVICE = "distributed.admin.large-graph-warning-threshold"


def run_together(count: int, work: Callable[[], None]) -> None:
    """In so many threads that wait for each other within."""
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("quiet", [caught_warnings, quiet_optuna])
def test_warnings_are_put_back_whoever_ends_first(quiet: Callable[[], Any]) -> None:
    """Threads that overlap leave filters, the way warnings take, and levels as they were, and have only their own."""
    before = list(warnings.filters), warnings.showwarning, LOG.level
    caught: list[list[str]] = []

    def warn() -> None:
        own = threading.current_thread().name
        for _ in range(200):
            with quiet() as own_warnings:
                warnings.warn(own, stacklevel=1)
                if own_warnings is not None:
                    caught.append([str(one.message) for one in own_warnings])
                    assert caught[-1] == [own]

    run_together(4, warn)
    assert (list(warnings.filters), warnings.showwarning, LOG.level) == before
    assert all(len(texts) == 1 for texts in caught)


def test_dask_settings_are_put_back_whoever_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies send their plans to workers at the same moment."""
    before = dask.config.get(ADVICE)
    barrier = threading.Barrier(2)

    def submit(*_: Any, **__: Any) -> str:
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.05)
        return dask.config.get(ADVICE)

    cluster: Any = SimpleNamespace(client=SimpleNamespace(submit=submit))
    told: list[object] = []
    pools = [WorkerPool(SimpleNamespace(), cluster, print) for _ in range(2)]  # type: ignore[arg-type]
    run_together(2, lambda: told.append(pools.pop()._send_preparation("tcp://a")))
    assert told == ["1 TiB", "1 TiB"]
    assert dask.config.get(ADVICE) == before


class Workers:
    """A cluster whose workers the test names."""

    def __init__(self, *names: str) -> None:
        self.client, self.names = SimpleNamespace(status="running"), set(names)

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        return ClusterStatus()

    def stop_workers(self) -> None:
        self.names.clear()


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[LentWorkers]:
    """One worker, ``a``, of two studies with three trials each; of both the second is open."""
    cluster: Any = Workers("a")
    lent = LentWorkers(cluster, 6)
    monkeypatch.setattr(lending, "workers_of", lambda _client: {name: {} for name in cluster.names})
    lent.open_study(1, 3)
    return lent


def test_the_list_of_workers_is_never_older_than_who_has_them(
    workers: LentWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks while another study is given a worker does not take that away by what was there before."""
    others, ask = list[threading.Thread](), lending.workers_of

    def slow(client: Any) -> Any:
        connected = ask(client)
        if not others:  # the first thread has its list; a worker comes, and another study asks before it goes on
            workers.cluster.names.add("b")  # type: ignore[attr-defined]
            others.append(threading.Thread(target=lambda: workers.lent_to(1)))
            others[0].start()
            others[0].join(0.2)
        return connected

    monkeypatch.setattr(lending, "workers_of", slow)
    workers.find_spare()
    others[0].join()
    assert set(workers.lent_to(1)) == {"a", "b"}
    monkeypatch.setattr(lending, "workers_of", ask)
    assert workers.owners == {"a": 1, "b": 1}


def test_a_worker_that_dies_as_it_is_lent(workers: LentWorkers) -> None:
    """Its study waits for another; once it is back, or another has come, that is lent."""
    assert set(workers.lent_to(1)) == {"a"}
    workers.cluster.names.clear()  # type: ignore[attr-defined]
    assert not workers.lent_to(1)
    assert workers.owners == {}
    workers.cluster.names.add("c")  # type: ignore[attr-defined]
    assert set(workers.lent_to(1)) == {"c"}


def test_a_study_that_ends_gives_all_back(workers: LentWorkers) -> None:
    workers.lent_to(1)
    assert not workers.find_spare()
    workers.close_study(1)
    assert workers.find_spare()
    workers.open_study(0, 3)
    assert set(workers.lent_to(0)) == {"a"}


def test_studies_that_refuse_each_a_worker_do_not_wait_for_one_another(workers: LentWorkers) -> None:
    """Each is told that none is coming once the other cannot use the workers either, and gives up as it would alone."""
    workers.open_study(0, 1)
    workers.cluster.names.add("b")  # type: ignore[attr-defined]
    for _ in range(3):
        for study in (0, 1):
            lent = workers.lent_to(study)
            workers.tend(study, WorkerDemand(3, (), unfit=dict.fromkeys(lent, "no CUDA device")))
    assert workers.owners == {}
    assert [workers.tend(study, WorkerDemand(3, ())).coming for study in (0, 1)] == [0, 0]
    assert workers.find_spare()
