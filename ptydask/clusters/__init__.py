"""Places to run. A cluster is one module (or package) and one entry point in ``ptydask.clusters``."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ptydask import registry
from ptydask.clusters.settings import import_dask
from ptydask.errors import one_line
from ptydask.model import WorkerMemory

if TYPE_CHECKING:
    from distributed import Client


def workers_of(client: Client) -> Mapping[str, int]:
    """The workers that the scheduler has now, and their threads, by address. Raises OSError where it does not answer.

    Asked every second: what Dask knows of each worker beyond that would be a page of text a worker.
    """
    workers: Mapping[str, int] = client.sync(client.scheduler.ncores)
    return workers


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """What a run asks of a cluster."""

    workers: int
    """The most there may be at once."""
    least: int
    """As many are kept while anything is left to do; ``workers``, unless the cluster is to adapt."""
    workers_per_gpu: int = 1
    shared_budget: bool = False
    """Whether all workers together have the file's ``n_trials``; otherwise each has, as PtyRAD documents it."""
    folder: Path = Path()
    """Where keys and job logs may lie: the folder of the trials, on a disk that the jobs see."""
    label: str = "ptydask"
    """In the names of jobs: the study's name, and what tells its results file from others."""
    imports: tuple[str, ...] = ()
    """Modules that take long to import and that each worker needs."""


@dataclass(frozen=True, slots=True)
class StudyDemand:
    """What a study's trials need, for a place to say how many workers are best."""

    trials: int
    learns: bool
    """Whether later trials are chosen by what came of earlier ones: not those of a grid."""
    memory: WorkerMemory | None
    """None where nobody knows, or a trial may be meant to have the whole machine."""


@dataclass(frozen=True, slots=True)
class DefaultWorkers:
    """How many workers there are where nobody says."""

    workers: int
    why: str = ""
    """In a few words, where their number is the machine's and they share one ``n_trials``; empty: each has its own."""


DIED_LOADING = "it died while it loaded programs and data; is there enough memory?"
"""Why a worker is unfit that nobody has heard of again."""


@dataclass(frozen=True, slots=True)
class WorkerDemand:
    """What the driver says about once a second. Workers are Dask's addresses."""

    unfinished: int
    """Trials that are not recorded yet, those under way included."""
    busy: Collection[str]
    """Workers with a trial, or getting ready for the first: not to be closed."""
    unfit: Mapping[str, str] = field(default_factory=dict)
    """Workers that could not get ready, and why, in one line: to be closed, and counted as deaths."""
    expired: Collection[str] = ()
    """Idle workers whose job has too little time left for another trial: to be closed, others started instead."""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """What a cluster answers."""

    notices: tuple[str, ...] = ()
    """One line each: what a person should know."""
    coming: int = 0
    """Workers that are asked for and not there yet: as long as there are some, waiting makes sense."""
    waiting: str = ""
    """Why they are not there yet, in words, for the live view: ``2 jobs pending (Priority)``."""
    deadlines: Mapping[str, float] = field(default_factory=dict)
    """Worker -> until when it can work, in seconds since the epoch, where that is known: its job's walltime, less the
    time that is kept for a last checkpoint."""
    closing: Collection[str] = ()
    """Workers that are there and leave: nothing is to be sent to them any more."""


class Cluster(Protocol):
    """Workers, one trial at a time each."""

    client: Client

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        """Look after the workers: replace lost ones, grow, shrink. Never waits for a batch system.

        Raises ClusterError where no worker can be had and waiting will not help.
        """

    def stop_workers(self) -> None:
        """End all workers now, in the middle of whatever they do; the scheduler goes on answering."""


class Place(Protocol):
    """A kind of place to run."""

    here: bool = False
    """Whether all workers are on the machine of this process, held to the same limits."""
    notify: str = ""
    """A shell command that is told when a run ends or is stuck, where nobody gives another; empty for none."""

    def default_workers(self) -> int:
        """How many workers there are where nobody says."""

    def share_out(self, demand: StudyDemand) -> DefaultWorkers:
        """How many workers there are where nobody says, for the study that is to be run."""
        return DefaultWorkers(self.default_workers())

    def describe(self, request: ClusterRequest) -> str:
        """One line for the plan that is printed before the start: what runs where. Starts nothing."""

    def script(self, request: ClusterRequest) -> str:
        """The job script as it would be submitted, for ``--dry-run``; empty where there is none. Starts nothing."""
        return ""

    def try_job(self, request: ClusterRequest) -> str:
        """What the batch system says of such a job, for ``--dry-run``, in one line; empty where it cannot be asked.

        Submits nothing. Raises ClusterError where it would refuse the job.
        """
        return ""

    def open(self, request: ClusterRequest) -> AbstractContextManager[Cluster]:
        """Bring up the scheduler and ask for workers; does not wait for them.

        Raises ClusterError where that cannot be done.
        """


@dataclass(frozen=True, slots=True)
class ClusterChoice:
    """A place, and in a few words why it is this one."""

    place: Place
    why: str


def get(name: str) -> Place:
    """The place registered as ``name``, as it is without a profile. Raises UsageError where there is none."""
    return cast(Place, registry.load("clusters", name)())


def choose(name: str) -> ClusterChoice:
    """The place that ``--cluster NAME`` means.

    ``auto``: SLURM where it answers, else this machine. Otherwise a registered name, the address of a running
    scheduler (``tcp://`` or ``tls://``), or a profile file. Raises UsageError where it is none of these, and
    ConfigError for a profile that breaks a rule.
    """
    if name == "auto":
        is_there, why = _find_slurm()
        why = why if is_there or not shutil.which("sbatch") else "SLURM does not answer"
        return ClusterChoice(get("slurm" if is_there else "local"), why)
    if "://" in name:
        import_dask()
        from ptydask.clusters.address import RunningScheduler

        return ClusterChoice(RunningScheduler(name), "a running scheduler")
    if name.lower().endswith((".yaml", ".yml", ".json", ".toml")) or "/" in name:
        from ptydask.clusters.jobqueue import from_file

        return ClusterChoice(from_file(Path(name)), f"profile {name}")
    return ClusterChoice(get(name), "by name")


_ANSWER = 5
"""Seconds for SLURM's controller to answer."""


def _find_slurm() -> tuple[bool, str]:
    """Whether jobs can be sent to a SLURM from here, and how that is known."""
    if shutil.which("sbatch") is None:
        return False, "sbatch is not on the PATH"
    try:
        done = subprocess.run(
            ["scontrol", "ping"], capture_output=True, text=True, timeout=_ANSWER, check=False, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return False, f"scontrol ping did not answer within {_ANSWER} s"
    except OSError as error:
        return False, f"scontrol ping does not run: {error.strerror}"
    for hosts, states in re.findall(r" at (\S+) (?:is|are) (\S+)", done.stdout):
        for host, state in zip(hosts.split("/"), states.split("/"), strict=False):
            if state == "UP":
                return True, f"SLURM answers: {host} is UP"
    lines = (done.stdout.strip() or done.stderr.strip() or "scontrol ping said nothing").splitlines()
    return False, f"sbatch is there, but no controller of SLURM is UP: {one_line(lines[-1])}"
