"""A scheduler that runs already: connecting, what it says of its workers, ending trials there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster, Security

from ptydask.clusters import ClusterRequest, WorkerDemand, address
from ptydask.clusters.address import RunningScheduler
from ptydask.errors import ClusterError

REQUEST = ClusterRequest(2, 2)


@pytest.fixture(scope="module", autouse=True)
def environment() -> Iterator[None]:
    """A nanny with Dask's own settings leaves them in this process's environment, for workers of later tests."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def scheduler() -> Iterator[LocalCluster]:
    """Somebody's scheduler with one worker process, without TLS."""
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        yield cluster


def until(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def obedient() -> str:
    """A trial that ends as soon as it is told to go."""
    from ptydask.trial import eviction

    return "told" if eviction.asked.wait(60) else "never told"


def stubborn() -> None:
    """A trial that hears nothing."""
    time.sleep(300)


@pytest.mark.slow
def test_a_run_on_a_running_scheduler(scheduler: LocalCluster) -> None:
    """Its workers are used and left; lost workers and long trials are treated as on a scheduler of our own."""
    place = RunningScheduler(scheduler.scheduler_address)
    failures, ttl = scheduler.scheduler.allowed_failures, scheduler.scheduler.worker_ttl
    assert place.default_workers() == 1
    assert place.script(REQUEST) == ""
    assert scheduler.scheduler_address in place.describe(REQUEST)
    with place.open(REQUEST) as workers:
        assert (scheduler.scheduler.allowed_failures, scheduler.scheduler.worker_ttl) == (0, 3600)
        (worker,) = workers.client.scheduler_info()["workers"]
        first, second = workers.tend(WorkerDemand(5, ())), workers.tend(WorkerDemand(5, ()))
        assert [line.split(",")[0] for line in first.notices] == [f"nothing is encrypted at {place.address}"]
        assert (second.notices, second.coming, second.waiting) == ((), 0, "")
        with pytest.raises(ClusterError, match="can run this study: no torch"):
            workers.tend(WorkerDemand(5, (), {worker: "no torch"}))
        assert list(workers.client.scheduler_info()["workers"]) == [worker]
    assert (scheduler.scheduler.allowed_failures, scheduler.scheduler.worker_ttl) == (failures, ttl)


@pytest.mark.slow
def test_stopping_asks_the_trials_to_go(scheduler: LocalCluster) -> None:
    """A trial that hears it ends by itself, in the same process; the next run there is not told to go."""
    with RunningScheduler(scheduler.scheduler_address).open(REQUEST) as workers:
        before = list(workers.client.scheduler_info()["workers"])
        trial = workers.client.submit(obedient, pure=False)
        until(workers._busy)
        workers.stop_workers()
        assert trial.result(timeout=10) == "told"
        assert list(workers.client.scheduler_info()["workers"]) == before
    with RunningScheduler(scheduler.scheduler_address).open(REQUEST) as workers:
        assert (
            workers.client.submit(lambda: __import__("ptydask.trial.eviction").trial.eviction.asked.is_set()).result()
            is False
        )


@pytest.mark.slow
def test_a_worker_that_does_not_let_go_is_restarted(scheduler: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is new afterwards; a task of somebody else is not counted as ours."""
    monkeypatch.setattr(address, "_LET_GO", 5.0)
    monkeypatch.setattr(address, "_PATIENCE", 0.5)
    with RunningScheduler(scheduler.scheduler_address).open(REQUEST) as workers:
        with Client(scheduler, set_as_default=False) as other:
            foreign = other.submit(time.sleep, 0.5, pure=False)
            until(workers.client.processing)
            assert workers._busy() == []
            foreign.result(timeout=10)
        pids = set(workers.client.run(_pid).values())
        trial = workers.client.submit(stubborn, pure=False)
        until(workers._busy)
        workers.stop_workers()
        trial.cancel(force=True)
        until(lambda: workers.client.scheduler_info()["workers"])
        assert not pids & set(workers.client.run(_pid).values())


def _pid() -> int:
    import os

    return os.getpid()


@pytest.mark.slow
def test_a_scheduler_without_workers_says_so() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty,
        RunningScheduler(empty.scheduler_address).open(REQUEST) as workers,
    ):
        said = workers.tend(WorkerDemand(5, ()))
        assert (said.coming, said.waiting) == (
            0,
            f"the scheduler at {empty.scheduler_address} has no workers; start some with dask worker",
        )


@pytest.mark.slow
def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the time, with the address."""
    monkeypatch.setattr(address, "_CONNECT", 1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = RunningScheduler(f"tcp://127.0.0.1:{closed.getsockname()[1]}")
    began = time.monotonic()
    with pytest.raises(ClusterError, match=rf"^the scheduler at {place.address} does not answer within 1 s"):
        place.default_workers()
    assert time.monotonic() - began < 10


def test_tls_without_a_certificate_says_what_to_set() -> None:
    with pytest.raises(ClusterError, match=r"set distributed.comm.tls.ca-file, distributed.comm.tls.client.cert"):
        RunningScheduler("tls://127.0.0.1:8786").default_workers()


@pytest.mark.slow
def test_tls_with_the_certificate_of_dasks_configuration(tmp_path: Path) -> None:
    """The files that Dask's own settings name; without a notice about encryption."""
    made = Security.temporary()
    (tmp_path / "cert.pem").write_text(made.tls_client_cert)
    (tmp_path / "key.pem").write_text(made.tls_client_key)
    files = {"cert": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
    own = {"ca-file": files["cert"], "client.cert": files["cert"], "client.key": files["key"]}
    with LocalCluster(n_workers=0, security=made, dashboard_address="127.0.0.1:0", host="127.0.0.1") as cluster:
        assert cluster.scheduler_address.startswith("tls://")
        with (
            dask.config.set({f"distributed.comm.tls.{name}": path for name, path in own.items()}),
            RunningScheduler(cluster.scheduler_address).open(REQUEST) as workers,
        ):
            assert workers.tend(WorkerDemand(5, ())).notices == ()


@pytest.mark.slow
def test_one_study_after_the_other_on_a_running_scheduler(
    scheduler: LocalCluster,
    ptydask: Callable[..., subprocess.CompletedProcess[str]],
    toy_params: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The scheduler outlives a run, and lets go of all that was the run's, also where the run was killed."""
    command = ["--engine", "toy", "--cluster", scheduler.scheduler_address]
    for total in (2, 4):
        done = ptydask("run", toy_params(), *command, "--trials", total)
        assert done.returncode == 0, done.stderr
    long = toy_params(name="long", sleep=0.4, iterations=20)
    process = subprocess.Popen(
        [sys.executable, "-m", "ptydask", "run", str(long), *command],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with Client(scheduler, set_as_default=False) as client:
        until(lambda: any(client.processing().values()) and (tmp_path / "out" / "long.journal").exists())
        until(lambda: any("trial-" in str(task) for tasks in client.processing().values() for task in tasks))
    refused = ptydask("run", toy_params(), *command, "--trials", 6)
    assert refused.returncode == 1, refused.stderr
    assert "another run of ptydask uses this scheduler" in refused.stderr
    process.kill()
    process.wait(timeout=30)
    short = toy_params(name="long", iterations=20)
    done = ptydask("run", short, *command, "--trials", 2)
    assert done.returncode == 0, done.stderr
