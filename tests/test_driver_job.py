"""jobs/driver.sbatch: the driver as a job that queues again and goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "jobs" / "driver.sbatch"


def program(path: Path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


IMPORTS = '[ "$1" = -c ] && exit 0'


class Job:
    """The script as SLURM would run it, with a python and a scontrol that write down what they were called with."""

    def __init__(self, folder: Path, driver: str, **environ: str) -> None:
        self.said, self.asked = folder / "said", folder / "asked"
        program(folder / "bin" / "python", f'{IMPORTS}; echo "$@" > "{self.said}"; env > "{folder}/env"; {driver}')
        program(folder / "bin" / "scontrol", f'echo "$@" > "{self.asked}"')
        program(folder / "bin" / "sleep", "exit 0")
        own = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7"}
        self.process = subprocess.Popen(
            ["bash", SCRIPT, "params.yaml", "--adapt", "0:4"],
            cwd=folder,
            env={**own, **environ},
            stderr=subprocess.PIPE,
        )
        self.environ = folder / "env"

    def signalled(self, number: signal.Signals) -> int:
        """The signal comes once the driver runs; the exit code."""
        deadline = time.monotonic() + 20
        while not (self.environ.exists() and "PATH=" in self.environ.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.2)
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        self.stderr = self.process.communicate(timeout=20)[1].decode()
        return self.process.returncode


WAITS = "trap 'exit {}' TERM; for i in {{1..200}}; do /bin/sleep 0.05; done"


def test_near_its_end_the_driver_stops_and_queues_again(tmp_path: Path) -> None:
    """The driver is told to stop, and says that it can go on; the job goes back into the queue."""
    job = Job(tmp_path, WAITS.format(75))
    assert job.signalled(signal.SIGUSR1) == 75
    assert job.said.read_text().split() == ["-m", "ptydask", "run", "params.yaml", "--adapt", "0:4"]
    assert job.asked.read_text().split() == ["requeue", "7"]


def test_scancel_stops_it_for_good(tmp_path: Path) -> None:
    """The driver stops in good order, and does not come back."""
    job = Job(tmp_path, WAITS.format(75))
    assert job.signalled(signal.SIGTERM) == 75
    assert not job.asked.exists()


def test_a_python_without_ptydask_is_named(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 0", PTYDASK_PYTHON="false")
    assert job.end() == 1
    assert "false cannot import ptydask; set PTYDASK_PYTHON" in job.stderr


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_driver_that_ended_is_not_queued_again(tmp_path: Path, code: int) -> None:
    """Not even where the word to go comes in its last moment: it has nothing left to do, or cannot do it."""
    job = Job(tmp_path, WAITS.format(code))
    assert job.signalled(signal.SIGUSR1) == code
    assert not job.asked.exists()


def test_a_timeout_of_its_own_is_no_reason_to_queue_again(tmp_path: Path) -> None:
    """`--timeout` ends with 75 too."""
    job = Job(tmp_path, "exit 75")
    assert job.end() == 75
    assert not job.asked.exists()


def test_what_the_job_was_given_is_not_what_its_workers_ask_for(tmp_path: Path) -> None:
    """SBATCH_ variables would overrule the lines of the workers' scripts."""
    job = Job(tmp_path, "exit 0", SBATCH_PARTITION="login", SLURM_MEM_PER_NODE="4096", SLURM_CPUS_PER_TASK="1")
    assert job.end() == 0
    names = {line.split("=")[0] for line in job.environ.read_text().splitlines()}
    assert not names & {"SBATCH_PARTITION", "SLURM_MEM_PER_NODE", "SLURM_CPUS_PER_TASK"}
    assert "SLURM_JOB_ID" in names


def test_the_environment_beside_the_params_file_is_used(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    program(tmp_path / ".venv" / "bin" / "python", IMPORTS + '; exit "${#@}"')
    job = Job(tmp_path, "exit 99")
    assert job.end() == 6


def test_a_python_that_is_not_there_is_named(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 0", PTYDASK_PYTHON="/no/such/python")
    assert job.end() == 127
    assert "/no/such/python" in job.stderr
