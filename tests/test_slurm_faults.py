"""Whatever dies while a study runs on SLURM: exact budget, no duplicate, nothing lost, trials resumed bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_sandbox import Sandbox
from slurm_studies import STEPS, Study, study, worker_processes

Params = Callable[..., Path]
Fault = Callable[[Study], None]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

WORKERS, TRIALS = 3, 6


def scancel_running(it: Study) -> None:
    it.slurm.scancel(it.running()[0].id)


def preempted(it: Study) -> None:
    job = it.running()[0]
    urgent = it.slurm.submit("sleep 3", "-p", "high", "-w", job.node, "--exclusive")
    it.slurm.wait_for_state(urgent, "RUNNING", "COMPLETED", timeout=30)


def node_lost(it: Study) -> None:
    it.slurm.kill_slurmd(it.running()[0].node, whole=True)


def worker_killed(it: Study) -> None:
    (process,) = worker_processes(it.slurm, it.running()[0].id)
    os.kill(process.pid, signal.SIGKILL)


def controller_down(it: Study) -> None:
    state, now = it.slurm.folder / "state" / "job_state", time.time()
    it.slurm.wait(lambda: state.stat().st_mtime > now)  # killed before, it would run jobs twice that it has forgotten
    it.slurm.kill_slurmctld()
    time.sleep(20)
    it.slurm.start_slurmctld()


def nothing(it: Study) -> None:
    """For comparison: the study itself."""


@pytest.mark.parametrize(
    ("fault", "resumes"),
    [
        (nothing, False),
        (scancel_running, True),
        (preempted, True),
        (node_lost, True),
        (worker_killed, True),
        (controller_down, False),
    ],
)
def test_fault(fault: Fault, resumes: bool, slurm: Sandbox, toy_params: Params) -> None:
    """In the middle of trials, each of which has a checkpoint."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.25)
    with study(slurm, params, "--workers", WORKERS, total=TRIALS) as it:
        it.until(lambda: it.under_way() >= WORKERS)
        fault(it)
        assert it.finish() == 0, it.text
    records = it.expect_all()
    assert bool(it.resumed()) == resumes, it.text
    assert any(record.attempt > 1 for record in records) == resumes


def test_walltime_over(slurm: Sandbox, toy_params: Params) -> None:
    """A trial that is longer than its job goes on in the next one. (SLURM takes up to half a minute to end a job.)"""
    params = toy_params(walk=True, iterations=STEPS, sleep=2.5)
    with study(slurm, params, "--workers", 1, "--retries", 0, total=1) as it:
        it.until(lambda: it.under_way() >= 1)
        slurm.update(it.running()[0].id, EndTime="now+1")
        assert it.finish() == 0, it.text
    (record,) = it.expect_all()
    assert record.attempt == 2
    assert it.resumed()
    assert "reached the end of its walltime" in it.text


def test_scancel_of_a_pending_job(slurm: Sandbox, toy_params: Params) -> None:
    """It is asked for again, and the study ends with all of its workers' work."""
    blocking = [slurm.submit("sleep 300", "-w", node, "--exclusive") for node in ("node2", "node3")]
    params = toy_params(walk=True, iterations=STEPS, sleep=0.25)
    with study(slurm, params, "--workers", WORKERS, total=TRIALS) as it:
        it.until(lambda: it.under_way() >= 2)
        (pending,) = (j for j in slurm.jobs() if j.state == "PENDING" and j.name.startswith("ptydask-"))
        slurm.scancel(pending.id)
        for number in blocking:
            slurm.scancel(number)
        it.until(lambda: any(j.id > pending.id for j in it.running()))
        assert it.finish() == 0, it.text
    it.expect_all()


def test_requeued_job(slurm: Sandbox, toy_params: Params) -> None:
    """Our jobs refuse it; where SLURM does it all the same, the job's new worker is as good as any."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.25)
    with study(slurm, params, "--workers", WORKERS, total=TRIALS) as it:
        it.until(lambda: it.under_way() >= WORKERS)
        job = it.running()[0].id
        with pytest.raises(AssertionError, match="disabled"):
            slurm.requeue(job)
        slurm.update(job, Requeue=1)
        slurm.requeue(job)
        assert it.finish() == 0, it.text
    it.expect_all()
    assert it.resumed()


def test_killed_driver(slurm: Sandbox, toy_params: Params) -> None:
    """kill -9: the same command takes over, ends the old jobs, and goes on within the trials."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.75)  # not over before the next driver is there
    with study(slurm, params, "--workers", WORKERS, total=TRIALS) as it:
        it.until(lambda: it.under_way() >= WORKERS)
        old = [job.id for job in it.running()]
        it.process.kill()
        it.process.wait(timeout=10)
        it.again()
        assert all(slurm.job(number).over for number in old)
    it.expect_all()
    assert it.resumed()


def test_second_driver_is_refused(slurm: Sandbox, toy_params: Params) -> None:
    """Naming host, process and since when; the first one is not disturbed."""
    params = toy_params(walk=True, iterations=STEPS, sleep=0.25)
    with study(slurm, params, "--workers", 1, total=2) as it:
        it.until(lambda: it.under_way() >= 1)
        second = subprocess.run(
            it.command, env=dict(slurm.env), cwd=params.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert second.returncode == 1, second.stderr
        assert f"process {it.process.pid} on " in second.stderr
        assert "since 20" in second.stderr
        assert it.finish() == 0, it.text
    it.expect_all()
