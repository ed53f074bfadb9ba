"""Studies of the engine ``toy`` on the SLURM sandbox, to be disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import yaml
from slurm_sandbox import Job, Sandbox

from ptydask.model import TrialInput, TrialRecord
from ptydask.store import reader

PROFILE: Mapping[str, object] = {
    "system": "slurm",
    "queue": "gpu",
    "gpus": 1,
    "cpus": 1,
    "memory": "512MB",
    "walltime": "01:00:00",
    "interface": "lo",
    "poll": 1,
}
STEPS = 12


def write_profile(folder: Path, **more: object) -> Path:
    path = folder / "cluster-test.yaml"
    path.write_text(yaml.safe_dump({**PROFILE, **more}))
    return path


@dataclass
class Study:
    """A study under way on the sandbox."""

    slurm: Sandbox
    command: list[str]
    results: Path
    total: int
    process: subprocess.Popen[str] = field(init=False)
    said: list[str] = field(default_factory=list)
    cwd: Path = Path()
    _readers: list[threading.Thread] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.said)

    def begin(self) -> None:
        """Starts the command in the background; again, where the one before has ended."""
        self.process = start(self.command, self.slurm.env, self.cwd)
        reader = threading.Thread(target=_read, args=(self.process, self.said))
        self._readers.append(reader)
        reader.start()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for thread in self._readers:
            thread.join(timeout=30)

    def running(self) -> list[Job]:
        return [job for job in self.slurm.jobs() if job.state == "RUNNING" and job.name.startswith("ptydask-")]

    def under_way(self) -> int:
        """How many trials have reached a checkpoint."""
        return len(list(self.results.with_name(self.results.stem + ".trials").glob("*.checkpoint")))

    def recorded(self) -> int:
        return len(list(self.results.with_name(self.results.stem + ".trials").glob("[0-9]*.h5")))

    def until(self, condition: Callable[[], object], timeout: float = 60) -> None:
        until = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, f"the run ended: {self.text}"
            assert time.monotonic() < until, f"not within {timeout:g} s:\n{self.text}{self.slurm.squeue()}"
            time.sleep(0.05)

    def finish(self, timeout: float = 120) -> int:
        try:
            return self.process.wait(timeout=timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running:\n{self.text}\n{self.slurm.squeue()}") from None

    def again(self, timeout: float = 120) -> str:
        """The same command, to its end; what it said."""
        done = subprocess.run(
            self.command, env=dict(self.slurm.env), capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def expect_all(self) -> list[TrialRecord]:
        """The budget to the trial, nothing twice, every array as in an undisturbed run, no job and no file left."""
        import toy_engine

        with reader.open(self.results) as results:
            records = list(results.records())
            for record in records:
                course = toy_engine.Course.resumed(TrialInput(0, record.params, record.seed), None)
                for _ in range(STEPS):
                    course.go(0.0)
                trial = results.trial(record.number)
                np.testing.assert_array_equal(trial.arrays["walk"].read(), course.walk)
                assert list(trial.curve["step"]) == list(range(1, STEPS + 1))
        assert [r.state for r in records] == ["COMPLETE"] * self.total, self.text
        assert len({r.number for r in records}) == self.total
        assert len({json.dumps(dict(r.params), sort_keys=True) for r in records}) == self.total
        left = [job for job in self.slurm.jobs() if job.name.startswith("ptydask-") and not job.over]
        assert not [job for job in left if job.state != "COMPLETING"], left
        names = sorted(path.name for path in self.results.parent.iterdir())
        assert names == [self.results.name, self.results.stem + ".journal"]
        return records

    def resumed(self) -> list[int]:
        """After which step trials went on that had been interrupted."""
        with reader.open(self.results) as results:
            found = [results.trial(r.number).attributes.get("resumed_after_step", 0) for r in results.records()]
        return [int(step) for step in found if step]  # type: ignore[arg-type]


@contextmanager
def study(
    slurm: Sandbox,
    params: Path,
    *args: object,
    total: int,
    cluster: object = None,
    name: str = "toy",
    every: float = 0.0,
) -> Iterator[Study]:
    """Starts ``ptydask run`` in the background; ends it, and what is left of its jobs, in any case."""
    profile = write_profile(params.parent) if cluster is None else cluster
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--cluster", str(profile)]
    command += ["--trials", str(total), "--checkpoint-every", str(every), *map(str, args)]
    it = Study(slurm, command, params.parent / "out" / f"{name}.h5", total, cwd=params.parent)
    it.begin()
    try:
        yield it
    finally:
        it.end()


def start(command: list[str], env: Mapping[str, str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=dict(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def _read(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None
    with process.stderr as lines:
        for line in lines:
            said.append(line)


def worker_processes(slurm: Sandbox, job: int | None) -> list[psutil.Process]:
    """The processes of a job (None: of any) in which trials run: children of its nanny."""
    found = []
    for process in slurm.processes(job):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any("spawn_main" in word for word in words) and os.getpid() != process.pid:
            found.append(process)
    return found
