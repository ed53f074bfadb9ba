"""Workers on this machine: as many as are needed, each with its share."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dask
import psutil
import pytest
from distributed.core import Status
from distributed.diskutils import WorkSpace

from ptydask.clusters import (
    DIED_LOADING,
    ClusterRequest,
    ClusterStatus,
    WorkerDemand,
    local,
    local_workers,
    workers_of,
)
from ptydask.clusters.local import ThisMachine
from ptydask.clusters.local_workers import LocalWorkers
from ptydask.clusters.process_state import SharedState
from ptydask.clusters.scaling import WorkerLimits
from ptydask.clusters.settings import THREADS
from ptydask.clusters.worker_processes import starting_workers
from ptydask.errors import ClusterError, UsageError


def tended(workers: LocalWorkers, need: Callable[[list[str]], WorkerDemand], wanted: int) -> ClusterStatus:
    """Tends until there are ``wanted`` workers and no more come."""
    deadline = time.monotonic() + 60
    while True:
        there = list(workers.client.scheduler_info()["workers"])
        said = workers.tend(need(there))
        if len(there) == wanted and not said.coming:
            return said
        assert time.monotonic() < deadline, (there, said)
        time.sleep(0.1)


@pytest.mark.slow
def test_workers_come_and_go_with_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the least to the most and back, and to none; a busy worker stays; no GPU has two while another has none."""
    monkeypatch.setattr(local, "visible_gpus", lambda: ("0", "1", "2"))
    with ThisMachine().open(ClusterRequest(3, 1)) as workers:
        tended(workers, lambda _: WorkerDemand(1, ()), 1)
        (first,) = workers.client.scheduler_info()["workers"]
        said = workers.tend(WorkerDemand(9, (first,)))
        assert (said.coming, said.waiting) == (2, "2 workers starting")
        tended(workers, lambda _: WorkerDemand(9, (first,)), 3)
        assert sorted(workers.client.run(_gpu).values()) == ["0", "1", "2"]
        last = list(workers.client.scheduler_info()["workers"])[-1]
        tended(workers, lambda _: WorkerDemand(1, (last,)), 1)
        assert list(workers.client.scheduler_info()["workers"]) == [last]
        tended(workers, lambda _: WorkerDemand(9, (last,)), 3)
        assert sorted(workers.client.run(_gpu).values()) == ["0", "1", "2"]
        tended(workers, lambda _: WorkerDemand(0, ()), 0)


def _gpu() -> str:
    return os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.slow
def test_a_worker_that_cannot_get_ready_ends_the_run() -> None:
    """Another process on the same machine would not do better."""
    with ThisMachine().open(ClusterRequest(1, 1)) as workers:
        tended(workers, lambda _: WorkerDemand(1, ()), 1)
        (worker,) = workers.client.scheduler_info()["workers"]
        workers.tend(WorkerDemand(1, (), {worker: DIED_LOADING}))  # once may be chance
        with pytest.raises(ClusterError, match="enough memory"):
            workers.tend(WorkerDemand(1, (), {worker: DIED_LOADING}))
        with pytest.raises(ClusterError, match="cannot run this study: no module named ptyrad"):
            workers.tend(WorkerDemand(1, (), {worker: "no module named ptyrad"}))


@pytest.mark.slow
def test_a_worker_that_does_not_start_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time, with a line that says so."""
    monkeypatch.setattr(local_workers, "_START", 0.0)
    with ThisMachine().open(ClusterRequest(1, 1)) as workers:
        workers.tend(WorkerDemand(1, ()))
        time.sleep(0.01)
        with pytest.raises(ClusterError, match=r"a worker did not start on this machine within 0\.0 s"):
            workers.tend(WorkerDemand(1, ()))


@pytest.mark.slow
def test_workers_that_have_closed_stay_closed() -> None:
    """As where a run ends while Dask closes workers that are not needed any more, and has yet to forget them."""
    with ThisMachine().open(ClusterRequest(2, 2)) as workers:
        deadline = time.monotonic() + 60
        while not workers._cluster.workers:  # they are with the scheduler before their cluster knows of them
            assert time.monotonic() < deadline
            time.sleep(0.01)
        nanny = next(iter(workers._cluster.workers.values()))
        workers._cluster.sync(nanny.close)
        local_workers._kill_workers(workers._cluster)
        assert nanny.status is Status.closed


@pytest.mark.parametrize("there", [0, 1, 3])
def test_a_busy_machine_is_no_reason_where_others_came_up(there: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the next one takes; without any worker it ends the run."""
    monkeypatch.setattr(local_workers, "_START", -1.0)
    nannies = [SimpleNamespace(worker_address=f"tls://{i}" if i < there else None) for i in range(4)]
    cluster = SimpleNamespace(worker_spec=dict(enumerate(nannies)), workers=dict(enumerate(nannies)))
    workers = LocalWorkers(cast(Any, cluster), cast(Any, None), WorkerLimits(4, 4))
    if there:
        assert workers.tend(WorkerDemand(9, ())).coming == 4 - there
    else:
        with pytest.raises(ClusterError, match="did not start"):
            workers.tend(WorkerDemand(9, ()))


def test_a_worker_that_ended_before_it_began_was_not_waited_for() -> None:
    """No time is named then."""
    nanny = SimpleNamespace(worker_address=None, status=Status.failed)
    cluster = SimpleNamespace(worker_spec={0: nanny}, workers={0: nanny})
    workers = LocalWorkers(cast(Any, cluster), cast(Any, None), WorkerLimits(1, 1))
    with pytest.raises(ClusterError, match=r"did not start on this machine: .*ended before") as caught:
        workers.tend(WorkerDemand(1, ()))
    assert "within" not in str(caught.value)


def test_a_process_that_may_have_no_children_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a Pool; nothing has been started then."""
    monkeypatch.setattr(local, "starting_workers", lambda *_: pytest.fail("started"))
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    with pytest.raises(UsageError, match=r"daemon=False .*Pool"), ThisMachine().open(ClusterRequest(1, 1)):
        pass


@pytest.mark.slow
def test_no_worker_is_overlooked() -> None:
    """Dask's client refreshes what it knows of the scheduler now and then, and forgets all workers meanwhile."""
    with ThisMachine().open(ClusterRequest(1, 1)) as workers:
        client = workers.client
        client.wait_for_workers(1, timeout=60)
        for _ in range(50):
            client.loop.add_callback(client._update_scheduler_info, n_workers=0)
            assert len(workers_of(client)) == 1


@pytest.mark.slow
def test_workers_are_forks_of_a_server_that_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one thread, as forks need, and what it imports, which no fork's garbage collection looks at.

    A run beside it starts its workers as it did without.
    """
    monkeypatch.setattr(forkserver._forkserver, "_preload_modules", ["a_module_of_the_program"])
    with ThisMachine().open(ClusterRequest(2, 1, imports=("tests_have_no_such_module", "colorsys"))) as workers:
        workers.client.wait_for_workers(1, timeout=60)
        (told,) = workers.client.run(_of_this_fork).values()
        server, threads, imported, frozen, cores = told
        assert (threads, imported, frozen, cores) == (1, True, True, os.environ["OMP_NUM_THREADS"])
        with starting_workers([dict.fromkeys((*THREADS, "CUDA_VISIBLE_DEVICES"), "")], ()) as other:
            assert not other.forks
            assert other.settings["distributed.worker.multiprocessing-method"] == "spawn"
        assert psutil.Process(server).ppid() == os.getpid()
    assert not psutil.pid_exists(server)
    assert forkserver._forkserver._preload_modules == ["a_module_of_the_program"]


@pytest.mark.slow
def test_workers_that_are_starting_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a run is stopped while the process imports that they are forks of."""
    (tmp_path / "takes_half_a_minute.py").write_text("import time\ntime.sleep(30)\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with ThisMachine().open(ClusterRequest(2, 2, imports=("takes_half_a_minute",))) as workers:
        before = time.monotonic()
        while len(workers._cluster._created) < 2:
            assert time.monotonic() - before < 10
            time.sleep(0.01)
    assert time.monotonic() - before < 15


@pytest.mark.slow
def test_workers_that_are_killed_leave_nothing_in_the_scratch_space(tmp_path: Path) -> None:
    """Nor do those of a driver that was killed; what is locked belongs to a worker of another."""
    with dask.config.set({"temporary-directory": str(tmp_path)}):
        space = WorkSpace(str(tmp_path / "dask-scratch-space"))
        running = space.new_work_dir(prefix="worker-")
        (tmp_path / "dask-scratch-space" / "worker-gone.dirlock").touch()
        with ThisMachine().open(ClusterRequest(1, 1)) as workers:
            workers.client.wait_for_workers(1, timeout=60)
        left = {path.name for path in (tmp_path / "dask-scratch-space").iterdir()}
        name = Path(running.dir_path).name
        assert left == {"global.lock", "purge.lock", name, f"{name}.dirlock"}
        running.release()


def _of_this_fork() -> tuple[int, int, bool, bool, str]:
    server = os.getppid()
    threads = len(list(Path(f"/proc/{server}/task").iterdir()))
    frozen = gc.isenabled() and gc.get_freeze_count() > len(gc.get_objects())
    return server, threads, "colorsys" in sys.modules, frozen, os.environ["OMP_NUM_THREADS"]


def test_cuda_is_not_asked_for_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """With GPUs the server imports nothing of the engine's; on macOS, or where a socket has no place, there is none."""
    asked = list[list[str]]()

    def refuse() -> None:
        asked.append(forkserver._forkserver._preload_modules)
        raise OSError("AF_UNIX path too long")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(forkserver, "ensure_running", refuse)
    monkeypatch.setattr(forkserver._forkserver, "_forkserver_pid", None)
    for gpu, system in (("0", "linux"), ("", "linux"), ("", "darwin")):
        monkeypatch.setattr(sys, "platform", system)
        environment = {**dict.fromkeys(THREADS, "1"), "CUDA_VISIBLE_DEVICES": gpu}
        with starting_workers([environment], ("an_engine",)) as start:
            assert (start.forks, dict(start.settings).keys()) == (False, {"distributed.nanny.pre-spawn-environ"})
            assert os.environ["CUDA_VISIBLE_DEVICES"] == ("7" if gpu else "")
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert ["an_engine" in imports for imports in asked] == [False, True]


def test_what_overlapping_runs_change_is_put_back_by_the_last() -> None:
    """In whatever order they end: a run does not put back what another had already changed."""
    state = {"value": "before"}
    shared = SharedState(lambda: state["value"], lambda value: state.update(value=value))
    first, second = shared.restored(), shared.restored()
    first.__enter__()
    state["value"] = "changed by the first"
    second.__enter__()
    first.__exit__(None, None, None)
    assert state["value"] == "changed by the first"
    second.__exit__(None, None, None)
    assert state["value"] == "before"
