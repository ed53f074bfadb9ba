"""One study, many processes: the journal over a real Dask connection."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from distributed import Client, Event
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ptydask.clusters import ClusterRequest
from ptydask.clusters.local import ThisMachine, visible_gpus, worker_environments
from ptydask.clusters.local_workers import LocalWorkers
from ptydask.errors import StorageError
from ptydask.machine import usable_cores
from ptydask.storage import urls
from ptydask.storage.transport import JournalService


def work(spec: urls.StorageSpec, trials: int) -> list[int]:
    """Runs on a worker: trials with parameters, intermediate values and attributes."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="s", storage=urls.connect(spec), sampler=optuna.samplers.RandomSampler())

    def objective(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", 0, 1)
        for step in range(3):
            trial.report(x / (step + 1), step)
        trial.set_user_attr("pid", os.getpid())
        return x

    done: list[int] = []
    study.optimize(objective, n_trials=trials, callbacks=[lambda _, frozen: done.append(frozen.number)])
    return done


def begin_and_wait(spec: urls.StorageSpec, seen: str) -> int:
    """Runs on a worker: a trial that reports once, and then computes until somebody has seen it."""
    study = optuna.load_study(study_name="s", storage=urls.connect(spec))
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(0.25, 7)
    reached = Event(seen).wait(30)
    study.tell(trial, 1.0)
    return trial.number if reached else -1


def environment() -> dict[str, str | None]:
    """Runs on a worker."""
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "MALLOC_TRIM_THRESHOLD_")
    return {name: os.environ.get(name) for name in names}


def listeners(pid: int) -> list[str]:
    """The addresses on which a process listens."""
    connections = psutil.Process(pid).net_connections("tcp")
    return [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalWorkers]:
    with ThisMachine().open(ClusterRequest(2, 2)) as running:
        running.client.wait_for_workers(2, timeout=60)
        yield running


@pytest.fixture
def served(cluster: LocalWorkers, tmp_path: Path) -> Iterator[urls.StorageSpec]:
    spec = urls.parse(None, tmp_path / "s.h5")
    assert spec.journal is not None
    cluster.client.register_plugin(JournalService(spec.journal))
    yield spec
    cluster.client.unregister_scheduler_plugin(JournalService.name_for(str(spec.journal)))


def test_two_processes_share_one_study(cluster: LocalWorkers, served: urls.StorageSpec) -> None:
    """Numbers are never given twice, enqueued points are run once each, stock Optuna reads all of it."""
    storage = urls.connect(served, cluster.client)
    study = optuna.create_study(study_name="s", storage=storage)
    points = [i / 64 for i in range(40)]
    for x in points:
        study.enqueue_trial({"x": x})
    futures = [cluster.client.submit(work, served, 30, pure=False) for _ in range(2)]
    numbers = [n for done in cluster.client.gather(futures) for n in done]
    assert sorted(numbers) == list(range(60))
    trials = study.get_trials()
    assert sorted(t.params["x"] for t in trials[:40]) == points
    assert len({t.user_attrs["pid"] for t in trials}) == 2
    stock = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(served.journal))))
    assert [(t.number, t.value, t.intermediate_values) for t in stock.trials] == [
        (t.number, t.value, t.intermediate_values) for t in trials
    ]


def test_what_a_worker_did_not_wait_for_is_seen_soon(cluster: LocalWorkers, served: urls.StorageSpec) -> None:
    """The driver shows parameters and steps of a trial under way, also where nothing follows for long."""
    storage = urls.connect(served, cluster.client)
    study = optuna.create_study(study_name="s", storage=storage)
    future = cluster.client.submit(begin_and_wait, served, "seen", pure=False)
    began = time.monotonic()
    while not (trials := study.get_trials(deepcopy=False)) or trials[0].last_step is None:
        assert time.monotonic() - began < 20
        time.sleep(0.05)
    assert (trials[0].state.name, trials[0].intermediate_values, list(trials[0].params)) == (
        "RUNNING",
        {7: 0.25},
        ["x"],
    )
    Event("seen", client=cluster.client).set()
    assert future.result(timeout=30) == 0
    assert study.trials[0].state.name == "COMPLETE"


def test_late_comer_starts_from_a_snapshot(cluster: LocalWorkers, served: urls.StorageSpec) -> None:
    """After a hundred trials the replayed state is kept: a new connection reads only what came after it."""
    storage = urls.connect(served, cluster.client)
    study = optuna.create_study(study_name="s", storage=storage)
    cluster.client.submit(work, served, 105, pure=False).result()
    late = urls.connect(served, cluster.client)
    backend = late._backend  # type: ignore[attr-defined]
    assert backend.load_snapshot() is not None
    assert len(optuna.load_study(study_name="s", storage=late).trials) == len(study.trials) == 105


def test_workers_have_equal_shares(cluster: LocalWorkers) -> None:
    """Cores in equal parts, never more threads than cores, and no GPU where there is none."""
    found = cluster.client.run(environment).values()
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // 2))
    assert {env["OMP_NUM_THREADS"] for env in found} == {threads}
    assert all(env["OMP_WAIT_POLICY"] == "passive" for env in found), (
        "spinning threads of two workers starve each other"
    )
    assert all(env["MALLOC_TRIM_THRESHOLD_"] == str(2**30) for env in found), "Dask's own would halve the speed"


def test_everything_listens_on_loopback_only(cluster: LocalWorkers) -> None:
    """Scheduler, nannies, workers and dashboards: nobody outside this machine can even knock."""
    pids = [os.getpid(), *cluster.client.run(os.getpid).values()]
    addresses = [ip for pid in pids for ip in listeners(pid)]
    assert addresses
    assert set(addresses) <= {"127.0.0.1", "::1"}


def test_strangers_are_refused(cluster: LocalWorkers) -> None:
    """Without the run's certificate there is no connection, with TLS or without."""
    address = cluster.client.scheduler.address
    assert address.startswith("tls://")
    for url in (address.replace("tls://", "tcp://"), address):
        with pytest.raises((OSError, TimeoutError, ssl.SSLError, TypeError, ValueError)):
            Client(url, timeout=2)


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [(["0", "1"], 4, ["0", "1", "0", "1"]), (["GPU-a"], 2, ["GPU-a", "GPU-a"]), ([], 2, ["", ""])],
)
def test_gpus_go_round_robin(gpus: list[str], workers: int, expected: list[str]) -> None:
    """Worker i has GPU i modulo the number of GPUs."""
    assert [env["CUDA_VISIBLE_DEVICES"] for env in worker_environments(workers, gpus, cores=8)] == expected


def test_visible_gpus_follow_the_environment() -> None:
    """CUDA_VISIBLE_DEVICES says what may be used, empty and -1 mean none."""
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,3"}) == ("2", "3")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "MIG-1234"}) == ("MIG-1234",)


def _waiting(spec: urls.StorageSpec) -> int:
    """Runs on a worker: trials that wait, as the connection sees them that the process keeps."""
    from ptydask.storage import transport

    transport.FRESH = 60.0
    if not hasattr(transport, "kept"):
        transport.kept = urls.connect(spec)  # type: ignore[attr-defined]
    study = optuna.load_study(study_name="s", storage=transport.kept)
    return len(study.get_trials(states=[optuna.trial.TrialState.WAITING]))


@pytest.mark.slow
def test_a_task_sees_what_was_done_before_it_was_sent(tmp_path: Path) -> None:
    """However little time ago its process asked last: a trial may wait to be tried again."""
    spec = urls.parse(None, tmp_path / "s.h5")
    assert spec.journal is not None
    with ThisMachine().open(ClusterRequest(1, 1)) as one:
        one.client.register_plugin(JournalService(spec.journal))
        study = optuna.create_study(study_name="s", storage=urls.connect(spec, one.client))
        found = []
        for _ in range(3):
            found.append(one.client.submit(_waiting, spec, pure=False).result(timeout=60))
            study.enqueue_trial({"x": 0.5})
        assert found == [0, 1, 2]


def test_a_trial_that_outlived_its_run_writes_into_no_other_study(
    cluster: LocalWorkers, served: urls.StorageSpec, tmp_path: Path
) -> None:
    """Its driver was killed, and the scheduler, which was not the driver's own, serves the next study."""
    storage = urls.connect(served, cluster.client)
    study = optuna.create_study(study_name="s", storage=storage)
    with pytest.raises(StorageError, match="serves another study now"):
        cluster.client.submit(work, urls.parse(None, tmp_path / "before.h5"), 1, pure=False).result(timeout=60)
    assert study.trials == []
