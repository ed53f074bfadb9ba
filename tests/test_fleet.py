"""The fleet on a real SLURM, with plain Dask tasks: it grows, replaces, shrinks, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from distributed import Future
from slurm_sandbox import Sandbox

from ptydask.clusters import ClusterRequest, WorkerDemand, workers_of
from ptydask.clusters.jobqueue import diagnosis, launch, profile_file
from ptydask.clusters.jobqueue.fleet import Fleet
from ptydask.errors import ClusterError

pytestmark = pytest.mark.slurm
NAME = "ptydask-fleet"


@pytest.fixture(autouse=True)
def here(slurm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm.env["SLURM_CONF"])
    monkeypatch.chdir(tmp_path)  # a job begins there, and Python imports from there first


class Driver:
    """Keeps every idle worker busy with naps until as many as wanted are done."""

    def __init__(self, fleet: Fleet, naps: int, seconds: float = 1.0) -> None:
        self.fleet, self.left, self.seconds = fleet, naps, seconds
        self.flight: dict[str, Future] = {}
        self.notices: list[str] = []
        self.most = 0

    def workers(self) -> set[str]:
        return set(workers_of(self.fleet.client))

    def tick(self) -> None:
        there = self.workers()
        for address, future in list(self.flight.items()):
            if future.done() or address not in there:
                self.left -= future.status == "finished"
                del self.flight[address]
        tended = self.fleet.tend(WorkerDemand(self.left, set(self.flight)))
        self.notices += tended.notices
        self.most = max(self.most, len(there))
        idle = [a for a in there if a not in self.flight and a not in tended.closing]
        for address in idle[: max(0, self.left - len(self.flight))]:
            self.flight[address] = self.fleet.client.submit(time.sleep, self.seconds, workers=[address], pure=False)

    def until(self, reached: Callable[[], object], seconds: float = 40.0) -> None:
        began = time.monotonic()
        while not reached():
            assert time.monotonic() - began < seconds, (self.left, self.notices, self.fleet._jobs, self.workers())
            self.tick()
            time.sleep(0.1)

    def told(self, *words: str) -> bool:
        return any(all(word in line for word in words) for line in self.notices)


@contextmanager
def fleet_of(folder: Path, workers: int, **profile: Any) -> Iterator[Fleet]:
    plain = {"system": "slurm", "gpus": 1, "cpus": 1, "memory": 300 * 2**20, "walltime": 600, "poll": 1.0, "grace": 0}
    job = profile_file.complete_profile({**plain, **profile})
    request = ClusterRequest(workers, 0, folder=folder, label="fleet")
    with launch.open_scheduler(job, request) as cluster, Fleet(cluster, job, request) as fleet:
        yield fleet


def active(slurm: Sandbox) -> list[str]:
    return [job.state for job in slurm.jobs(NAME) if not job.over and job.state != "COMPLETING"]


def running(slurm: Sandbox) -> list[int]:
    return [job.id for job in slurm.jobs(NAME) if job.state == "RUNNING"]


def test_lost_workers_are_replaced_and_nothing_is_left(slurm: Sandbox, tmp_path: Path) -> None:
    """A running job is cancelled, a worker process killed: all is done, by no more workers than allowed."""
    with fleet_of(tmp_path, 3) as fleet:
        driver = Driver(fleet, 1000)
        driver.until(lambda: len(driver.flight) == 3)
        victims = fleet.client.run(os.getpid)
        os.kill(next(iter(victims.values())), 9)
        driver.until(lambda: driver.told("died, and was started again"))
        slurm.scancel(running(slurm)[0])
        driver.until(lambda: len(slurm.jobs(NAME)) == 4 and len(driver.flight) == 3)
        driver.left = 4
        driver.until(lambda: driver.left == 0)
        driver.until(lambda: not driver.workers())
        assert driver.most == 3
        assert (tmp_path / "keys").exists()
    assert active(slurm) == []
    assert list(tmp_path.iterdir()) == [], "keys and logs are removed"


def test_gpus_of_a_job_are_shared_out(slurm: Sandbox, tmp_path: Path) -> None:
    """Two workers of one job have a GPU each, and leave together."""
    with fleet_of(tmp_path, 2, gpus=2, cpus=2) as fleet:
        driver = Driver(fleet, 2)
        driver.until(lambda: len(driver.workers()) == 2)
        gpus = fleet.client.run(os.getenv, "CUDA_VISIBLE_DEVICES")
        assert sorted(gpus.values()) == ["0", "1"]
        assert set(fleet.client.run(os.getenv, "OMP_NUM_THREADS").values()) == {"1"}
        driver.until(lambda: driver.left == 0)
        assert len(slurm.jobs(NAME)) == 1
    assert active(slurm) == []


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"queue": "nope"}, "invalid partition specified: nope"),
        ({"queue": "closed"}, "PartitionDown: the partition is down"),
        ({"python": "/nope/python"}, "/nope/python"),
        ({"environment": ("export PYTHONPATH=BROKEN",)}, "No module named 'no_such_module'"),
    ],
)
def test_what_cannot_work_ends_with_a_clear_line(
    slurm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(diagnosis, "HOPELESS_FOR", 2.0)
    broken = tmp_path / "broken" / "ptydask"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("import no_such_module\n")
    lines = [line.replace("BROKEN", str(broken.parent)) for line in profile.get("environment", ())]
    began = time.monotonic()
    with (
        pytest.raises(ClusterError) as raised,
        fleet_of(tmp_path, 3, **{**profile, "environment": tuple(lines)}) as fleet,
    ):
        Driver(fleet, 3).until(lambda: False)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - began < 30
    assert active(slurm) == []
    assert not (tmp_path / "keys").exists()


def test_preempted_work_has_time_to_end(slurm: Sandbox, tmp_path: Path) -> None:
    """SIGTERM lets the task under way end; its result arrives, then the worker leaves, and another takes its place."""

    def save() -> str:
        from ptydask.trial import eviction

        assert eviction.asked.wait(30)
        time.sleep(1)
        return "saved"

    with fleet_of(tmp_path, 1) as fleet:
        driver = Driver(fleet, 2)
        driver.until(driver.workers)
        (address,) = driver.workers()
        driver.flight.clear()
        saving = fleet.client.submit(save, workers=[address])
        driver.flight[address] = saving
        slurm.submit("sleep 3", "-p", "high", "--exclusive", "-w", slurm.jobs(NAME)[0].node, "-t", "5")
        assert saving.result(timeout=30) == "saved"
        driver.until(lambda: driver.told("PREEMPTED"))
        driver.until(lambda: driver.left == 0)
        assert address not in driver.workers()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Dask drops a socket that is refused
def test_all_workers_end_within_seconds(slurm: Sandbox, tmp_path: Path) -> None:
    """In the middle of a task; the scheduler goes on answering, and what waits in the queue is cancelled too."""
    with fleet_of(tmp_path, 8) as fleet:
        driver = Driver(fleet, 8, seconds=60)
        driver.until(lambda: len(driver.flight) >= 3)
        began = time.monotonic()
        fleet.stop_workers()
        assert time.monotonic() - began < 5
        assert driver.workers() == set()
        slurm.wait(lambda: not [p for job in slurm.jobs(NAME) for p in slurm.processes(job.id)], 5)
    assert active(slurm) == []


def test_variables_of_sbatch_change_nothing(slurm: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They beat what a script says: the job's name and partition would be others, and sbatch wait for its end."""
    for name, value in {"WAIT": "1", "JOB_NAME": "mine", "PARTITION": "closed", "OUTPUT": "/dev/null"}.items():
        monkeypatch.setenv(f"SBATCH_{name}", value)
    with fleet_of(tmp_path, 1, queue="gpu") as fleet:
        driver = Driver(fleet, 1)
        driver.until(lambda: driver.left == 0)
        assert list((tmp_path / "jobs").iterdir())
    assert active(slurm) == []
    assert len(slurm.jobs(NAME)) == 1


def test_jobs_of_a_dead_driver_are_cancelled(slurm: Sandbox, tmp_path: Path) -> None:
    left = slurm.submit("sleep 600", "-J", NAME, "--hold")
    other = slurm.submit("sleep 600", "-J", "ptydask-other", "--hold")
    with fleet_of(tmp_path, 1) as fleet:
        assert fleet.tend(WorkerDemand(0, ())).notices == ("1 jobs that an earlier run has left were cancelled",)
        assert slurm.job(left).state == "CANCELLED"
    assert slurm.job(other).state == "PENDING"
