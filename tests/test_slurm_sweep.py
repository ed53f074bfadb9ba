"""A sweep on SLURM: its program in the jobs' environment, and nothing of it left where a job is cancelled."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from slurm_sandbox import Sandbox
from slurm_studies import Study, write_profile

from ptydask.store import reader

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
TRIALS = 4
PROGRAM = """\
import json, os, subprocess, sys, time

helper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
names = ("SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES", "PTYDASK_TRIAL", "OMP_NUM_THREADS", "GREETING")
here = {name: os.environ.get(name) for name in names} | {"x": sys.argv[1], "cwd": os.getcwd()}
print(json.dumps(here), flush=True)
with open(os.path.join("pids", f"{here['SLURM_JOB_ID']}-{os.getpid()}"), "w") as file:
    file.write(f"{os.getpid()} {helper.pid}")
with open(os.environ["PTYDASK_METRICS"], "a") as metrics:
    for step in range(1, 16):
        metrics.write(json.dumps({"step": step, "loss": 1 / step}) + "\\n")
        metrics.flush()
        time.sleep(0.2)
"""


@contextmanager
def sweep(slurm: Sandbox, folder: Path) -> Iterator[Study]:
    """A grid of four points under way on two jobs, each with a GPU."""
    (folder / "pids").mkdir()
    (folder / "train.py").write_text(PROGRAM)
    file = {
        "method": "grid",
        "metric": {"name": "loss"},
        "program": "train.py",
        "parameters": {"x": {"values": [1, 2, 3, 4]}},
        "engine": {"environment": {"GREETING": "hello"}},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(file))
    profile = write_profile(folder, cpus=2)
    command = [sys.executable, "-m", "ptydask", "run", "toy.yaml", "--cluster", str(profile), "--workers", "2"]
    it = Study(slurm, command, folder / "toy.h5", TRIALS, cwd=folder)
    it.begin()
    try:
        yield it
    finally:
        it.end()


def started(folder: Path, job: int | None = None) -> list[int]:
    """The processes that trials (of this job) have started: the program and its helper."""
    files = (folder / "pids").glob("*" if job is None else f"{job}-*")
    return [int(pid) for file in sorted(files) for pid in file.read_text().split()]


def test_a_cancelled_job_leaves_no_process_and_its_trial_runs_again(slurm: Sandbox, tmp_path: Path) -> None:
    """Not even one in a session of its own; the sweep ends with every point, each in its job's environment."""
    with sweep(slurm, tmp_path) as it:
        it.until(lambda: len(started(tmp_path)) == 4)
        cancelled = it.running()[0].id
        assert all(psutil.pid_exists(pid) for pid in started(tmp_path, cancelled))
        slurm.scancel(cancelled)
        slurm.wait(lambda: not any(psutil.pid_exists(pid) for pid in started(tmp_path, cancelled)))
        assert it.finish() == 0, it.text
    assert len(started(tmp_path)) == 2 * (TRIALS + 1)
    slurm.wait(lambda: not any(psutil.pid_exists(pid) for pid in started(tmp_path)))
    with reader.open(it.results) as results:
        records = list(results.records())
        said = {record.number: json.loads(results.trial(record.number).log) for record in records}
    assert {record.params["x"] for record in records} == {1, 2, 3, 4}
    assert sorted(record.attempt for record in records) == [1, 1, 1, 2]
    for record in records:
        here = said[record.number]
        assert here["SLURM_JOB_ID"] == record.job != str(cancelled)
        assert here["PTYDASK_TRIAL"] == str(record.number)
        assert here["x"] == f"--x={record.params['x']}"
        assert (here["GREETING"], here["cwd"], here["OMP_NUM_THREADS"]) == ("hello", str(tmp_path), "2")
        assert len(here["CUDA_VISIBLE_DEVICES"].split(",")) == 1
        assert here["CUDA_VISIBLE_DEVICES"] != ""
