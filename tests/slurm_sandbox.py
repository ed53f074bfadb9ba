"""A real SLURM for tests: the fixtures ``slurm`` and ``slurm_sandbox``, brought up by jobs/slurm-up.sh on first use.

``slurm_sandbox`` lives as long as the session. ``slurm`` is the same one for one test: it lists only jobs submitted
since the test began, and puts everything right again after it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import psutil
import pytest

SCRIPTS = Path(__file__).parent.parent / "jobs"
NODES = ("node1", "node2", "node3")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged")
PARTITIONS = {"gpu": "UP", "high": "UP", "short": "UP", "closed": "DOWN", "cpu": "UP"}
OVER = frozenset({"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"})
_STRANGE = re.compile(r"^(SLURM|SBATCH|SQUEUE|SCANCEL|SINFO|SRUN)_")

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """A line of ``squeue -t all``: ``state`` in SLURM's long words (RUNNING), ``node`` empty where it has none."""

    id: int
    name: str
    state: str
    reason: str
    node: str
    partition: str

    @property
    def over(self) -> bool:
        return self.state in OVER


@dataclass(frozen=True)
class Sandbox:
    """A SLURM of this session alone; ``env`` is the whole environment for processes that shall see it."""

    folder: Path
    env: Mapping[str, str]
    first: int = 0
    """The lowest number of the jobs that ``jobs`` lists."""

    def call(self, *command: object) -> str:
        """What the command prints; AssertionError with its own words where it fails."""
        done = subprocess.run(
            [str(word) for word in command], env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
        return done.stdout

    def squeue(self) -> str:
        """The table of all jobs, for people."""
        return self.call("squeue", "-t", "all", "-o", "%.6i %.9P %.24j %.12T %.8M %.6N %r")

    def jobs(self, name: str | None = None) -> list[Job]:
        """The jobs (with this name), those that ended too, by number."""
        lines = self.call("squeue", "-h", "-t", "all", "-S", "i", "-o", "%A|%T|%r|%N|%P|%j").splitlines()
        found = [
            Job(int(number), title, state, reason, node, partition)
            for number, state, reason, node, partition, title in (line.split("|", 5) for line in lines)
        ]
        return [job for job in found if job.id >= self.first and name in (None, job.name)]

    def job(self, number: int) -> Job:
        return next(job for job in self.jobs() if job.id == number)

    def submit(self, script: str, *args: object) -> int:
        """Submits ``#!/bin/bash`` and the script; its output goes where ``output`` finds it."""
        output = f"--output={self.folder}/log/job-%j.out"
        done = subprocess.run(
            ["sbatch", "--parsable", output, *map(str, args)],
            input=f"#!/bin/bash\n{script}\n",
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def output(self, number: int) -> str:
        """What a job of ``submit`` has written so far."""
        file = self.folder / "log" / f"job-{number}.out"
        return file.read_text() if file.exists() else ""

    def scancel(self, number: int) -> None:
        self.call("scancel", number)

    def requeue(self, number: int) -> None:
        self.call("scontrol", "requeue", number)

    def update(self, number: int, **fields: object) -> None:
        """``update(job, EndTime="now+5")``: the job ends with its walltime over, 5 to 25 s later."""
        self.call("scontrol", "update", f"JobId={number}", *(f"{key}={value}" for key, value in fields.items()))

    def partition_state(self, name: str, state: str) -> None:
        """UP, DOWN, DRAIN (jobs stay, none can be submitted or start) or INACTIVE."""
        self.call("scontrol", "update", f"PartitionName={name}", f"State={state}")

    def node_state(self, node: str) -> str:
        """In lower case as sinfo has it; a star at its end: it does not answer (``idle*``, ``down*``)."""
        return self.node_states()[node]

    def node_states(self) -> dict[str, str]:
        # Asked for one node alone, slurmctld answers with what was true some time ago.
        lines = self.call("sinfo", "-h", "-N", "-p", "gpu", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def daemon(self, name: str) -> psutil.Process | None:
        """The process of munged, slurmctld or a node's slurmd, where it lives."""
        try:
            number, command = (self.folder / "run" / name).read_text().splitlines()
            process = psutil.Process(int(number))
            return process if " ".join(process.cmdline()) == command else None
        except (OSError, ValueError, psutil.Error):
            return None

    def processes(self, number: int | None = None, node: str | None = None) -> list[psutil.Process]:
        """The processes that jobs started (this job, on this node): scripts, workers and whatever those started."""
        wanted = {"SLURM_CONF": str(self.folder / "slurm.conf")}
        if number is not None:
            wanted["SLURM_JOB_ID"] = str(number)
        if node is not None:
            wanted["SLURMD_NODENAME"] = node
        found = []
        for process in psutil.process_iter():
            try:
                about = process.environ()
            except (OSError, psutil.Error):
                continue
            if "SLURM_JOB_ID" in about and wanted.items() <= about.items():
                found.append(process)
        return found

    def kill_slurmd(self, node: str, *, whole: bool = False) -> None:
        """``kill -9`` of a node's slurmd. Its jobs run on, as behind a lost network; ``whole``: they end too."""
        self._kill(node)
        if whole:
            _end(self._stepds(node) + self.processes(node=node))

    def start_slurmd(self, node: str) -> None:
        self._up(node)

    def kill_slurmctld(self) -> None:
        """``kill -9`` of slurmctld. What the last 5 s changed is lost: a job may be forgotten, or run twice."""
        self._kill("slurmctld")

    def start_slurmctld(self) -> None:
        self._up("slurmctld")

    def wait(self, condition: Callable[[], T], timeout: float = 30) -> T:
        """The condition's first true value; AssertionError with all jobs and nodes after ``timeout`` s."""
        until = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < until, f"not so within {timeout:g} s:\n{self.squeue()}{self.call('sinfo')}"
            time.sleep(0.1)
        return value

    def wait_for_state(self, number: int, *states: str, timeout: float = 30) -> Job:
        return self.wait(lambda: (job := self.job(number)).state in states and job, timeout)  # type: ignore[return-value]

    def clean(self) -> None:
        """All daemons up, partitions as at first, every job over, every node ready."""
        self._up()
        for name, state in PARTITIONS.items():
            self.partition_state(name, state)
        active = [job.id for job in self._unfinished()]
        if active:
            self.call("scancel", *active)
        _end(self.processes())
        self.wait(lambda: not self._unfinished(), 30)
        for node, state in self.node_states().items():
            if state.startswith(("down", "drain")):
                self.call("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self.wait(lambda: set(self.node_states().values()) == {"idle"}, 30)

    def _unfinished(self) -> list[Job]:
        return [job for job in replace(self, first=0).jobs() if not job.over]

    def _up(self, *daemons: str) -> None:
        self.call(SCRIPTS / "slurm-up.sh", self.folder, *daemons)

    def _kill(self, name: str) -> None:
        process = self.daemon(name)
        assert process is not None, f"{name} is not running"
        _end([process])

    def _stepds(self, node: str) -> list[psutil.Process]:
        """The slurmstepd processes of a node, known by its log: they overwrite what /proc has of their start."""
        log, found = str(self.folder / "log" / f"{node}.log"), []
        for process in psutil.process_iter():
            try:
                if process.name().startswith("slurmstepd") and any(file.path == log for file in process.open_files()):
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found


def _end(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    until = time.monotonic() + 10
    while any(_lives(process) for process in processes):
        assert time.monotonic() < until, f"they do not end: {processes}"
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def environment() -> dict[str, str]:
    """This process's environment without a SLURM around it, with the folders in which daemons are on the PATH."""
    env = {key: value for key, value in os.environ.items() if not _STRANGE.match(key)}
    path = env.get("PATH", os.defpath).split(os.pathsep)
    env["PATH"] = os.pathsep.join([*path, *(more for more in ("/usr/local/sbin", "/usr/sbin") if more not in path)])
    return env


def missing() -> list[str]:
    """The programs of SLURM that this machine lacks."""
    path = environment()["PATH"]
    return [program for program in PROGRAMS if shutil.which(program, path=path) is None]


def require(lacking: list[str], *, ci: bool) -> None:
    """Skips the test where programs are lacking; in CI that is a failure."""
    if lacking and ci:
        pytest.fail(f"where CI=true SLURM must be installed; missing: {', '.join(lacking)}")
    if lacking:
        pytest.skip(f"SLURM's programs are missing: {', '.join(lacking)}")


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A SLURM of its own. One shell holds it and takes it down when it is told to, or when this process is gone."""
    folder = Path(tempfile.mkdtemp(prefix="ptydask-slurm-", dir="/tmp"))  # short: sockets are in it
    hold = '"$0/slurm-up.sh" "$1" >&2; echo $?; read -r _; exec "$0/slurm-down.sh" "$1"'
    env = environment()
    with tempfile.TemporaryFile("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-c", hold, str(SCRIPTS), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=env,
            start_new_session=True,
        )
        try:
            assert shell.stdout is not None
            up = shell.stdout.readline().strip() == "0"
            said.seek(0)
            assert up, said.read()
            yield Sandbox(folder, MappingProxyType({**env, "SLURM_CONF": str(folder / "slurm.conf")}))
        finally:
            shell.communicate(timeout=120)
            shutil.rmtree(folder, ignore_errors=True)
        said.seek(0)
        assert shell.returncode == 0, said.read()


@pytest.fixture(scope="session")
def slurm_sandbox(toy_engine: None) -> Iterator[Sandbox]:
    """The session's SLURM, for fixtures that outlive a test; such a one calls ``clean`` itself."""
    require(missing(), ci=os.environ.get("CI") == "true")
    with sandbox() as up:
        yield up


@pytest.fixture
def slurm(slurm_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The session's SLURM with every node idle; only the test's own jobs are listed."""
    last = max((job.id for job in slurm_sandbox.jobs()), default=0)
    yield replace(slurm_sandbox, first=last + 1)
    slurm_sandbox.clean()
