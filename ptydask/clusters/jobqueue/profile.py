"""What a job on a batch system is, and how workers are shared out over jobs. Nothing of any batch system is asked."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from ptydask.clusters import ClusterRequest
from ptydask.clusters.scaling import WorkerLimits

SYSTEMS: Mapping[str, str] = {
    "slurm": "SLURM",
    "pbs": "PBS",
    "lsf": "LSF",
    "sge": "SGE",
    "oar": "OAR",
    "moab": "Moab",
    "htcondor": "HTCondor",
}
"""The batch systems that dask-jobqueue knows, and how they write themselves."""
MEMORY_PER = re.compile(r"--mem-per-[cg]pu\b")
"""SLURM's other ways to ask for memory, which do not go with ``--mem``."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One job. Each field is a key of a profile file; memory and times are written there as SLURM writes them."""

    system: str = "slurm"
    queue: str | None = None
    """SLURM's partition; None is the site's default."""
    account: str | None = None
    gpus: int = 1
    """GPUs (or MIG slices) of a job; 0 is CPU only."""
    gpu_type: str | None = None
    """``a100``, or a MIG slice such as ``1g.10gb``: the type in SLURM's ``gres``."""
    cpus: int = 4
    """Cores of a job."""
    memory: int | None = 16 * 2**30
    """Bytes of a job; 0 is all of its node's, None the site's default or what ``directives`` ask for."""
    walltime: int | None = 4 * 3600
    """Seconds; None is the limit of the queue."""
    qos: str | None = None
    constraint: str | None = None
    nodelist: str | None = None
    exclude: str | None = None
    disk: int | None = None
    """Bytes of node-local disk that a job needs."""
    resource_spec: str | None = None
    """What PBS, Moab, SGE and OAR are asked for, as it is, in place of what ptydask makes of cpus, gpus, memory."""
    directives: tuple[str, ...] = ()
    """More options of the batch system, as they are: ``--mail-type=FAIL``."""
    modules: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """Shell lines before the worker starts."""
    python: str = shlex.quote(sys.executable)
    """The Python of the workers: a program, or a command of several words, as a shell takes them apart."""
    interface: str | None = None
    """The network interface that scheduler and workers talk on."""
    local_directory: str | None = None
    """Node-local scratch for the workers' own files; the job's shell fills in variables."""
    shared_directory: str | None = None
    """A folder that the driver and the jobs both see, for keys and job logs; None is the folder of the trials."""
    max_jobs: int | None = None
    """The most jobs at once."""
    grace: int = 60
    """Seconds before the walltime's end at which the batch system sends SIGTERM; 0 leaves it to the site."""
    poll: float = 30.0
    """Seconds between questions to the batch system."""
    notify: str | None = None
    """A shell command that is told when a run ends, stops or gets stuck."""
    from_dask: tuple[str, ...] = field(default=(), compare=False)
    """The fields whose values come from Dask's own jobqueue.yaml."""


def worker_limits(profile: Profile, request: ClusterRequest) -> WorkerLimits:
    """The workers of whole jobs: rounded up where they do not fill them, cut at the profile's ``max_jobs``."""
    per_job = max(1, profile.gpus) * request.workers_per_gpu
    most = -(-request.workers // per_job)
    if profile.max_jobs is not None:
        most = min(most, profile.max_jobs)
    least = min(most, -(-request.least // per_job))
    return WorkerLimits(least * per_job, most * per_job, per_job)


def worker_threads(profile: Profile, request: ClusterRequest) -> int:
    """Cores of one worker."""
    return max(1, profile.cpus // worker_limits(profile, request).per_job)


# --- words ------------------------------------------------------------------------------------------


def describe(profile: Profile, request: ClusterRequest) -> str:
    """``8 workers in 8 SLURM jobs, partition gpu, 1 GPU, 4 cores, 16 GB, 04:00:00 each``."""
    limits = worker_limits(profile, request)
    count = limits.most // limits.per_job
    workers = f"{request.workers} worker{'s' * (request.workers != 1)} in"
    if request.least != request.workers:
        workers = f"{request.least} to {workers} up to"
    jobs = f"{count} {SYSTEMS[profile.system]} job{'s' * (count != 1)}"
    queue = "partition" if profile.system == "slurm" else "queue"
    parts = [
        f"{workers} {jobs}{_rounding_note(limits, profile, request)}",
        f"{queue} {profile.queue}" if profile.queue else "",
        f"account {profile.account}" if profile.account else "",
        _gpus_text(profile),
        f"{profile.cpus} core{'s' * (profile.cpus != 1)}",
        _memory_asked(profile),
        clock_text(profile.walltime) if profile.walltime else "",
    ]
    line = ", ".join(filter(None, parts)) + " each"
    if profile.from_dask:
        line += f" (from Dask's jobqueue.yaml: {', '.join(profile.from_dask)})"
    return line


def _rounding_note(limits: WorkerLimits, profile: Profile, request: ClusterRequest) -> str:
    if limits.most < request.workers:
        return f" (max_jobs {profile.max_jobs}: {limits.most} workers at once)"
    size = f" of {limits.per_job} workers" if limits.per_job > 1 else ""
    surplus = limits.most - request.workers
    return f"{size} ({surplus} more than asked for: jobs are whole)" if surplus else size


def _memory_asked(profile: Profile) -> str:
    if profile.memory is None:
        return next((line.removeprefix("--") for line in profile.directives if MEMORY_PER.match(line)), "")
    return memory_text(profile.memory) if profile.memory else "the node's whole memory"


def _gpus_text(profile: Profile) -> str:
    if not profile.gpus:
        return "no GPU"
    count = f"{profile.gpus} GPU{'s' * (profile.gpus != 1)}"
    return f"{count} ({profile.gpu_type})" if profile.gpu_type else count


# --- times and sizes, as SLURM writes them ------------------------------------------------------------

_TIMES = (
    (re.compile(r"(\d+)"), (60,)),
    (re.compile(r"(\d+):(\d{1,2})"), (60, 1)),
    (re.compile(r"(\d+):(\d{1,2}):(\d{1,2})"), (3600, 60, 1)),
    (re.compile(r"(\d+)-(\d{1,2})"), (86400, 3600)),
    (re.compile(r"(\d+)-(\d{1,2}):(\d{1,2})"), (86400, 3600, 60)),
    (re.compile(r"(\d+)-(\d{1,2}):(\d{1,2}):(\d{1,2})"), (86400, 3600, 60, 1)),
)
"""sbatch(1), ``--time``: minutes, minutes:seconds, hours:minutes:seconds, and three forms that begin with days."""


def parse_time(text: str) -> int | None:
    """The seconds that ``text`` is in one of SLURM's formats; None where it is in none, or is nothing."""
    for form, units in _TIMES:
        match = form.fullmatch(text.strip())
        if match is not None:
            return sum(int(number) * unit for number, unit in zip(match.groups(), units, strict=True)) or None
    return None


def clock_text(total: int) -> str:
    """``04:00:00``; from a day on ``2-00:00:00``."""
    days, rest = divmod(total, 86400)
    return f"{days}-{hours_text(rest)}" if days else hours_text(rest)


def hours_text(total: int) -> str:
    """``04:00:00``; two days are ``48:00:00``."""
    return f"{total // 3600:02}:{total % 3600 // 60:02}:{total % 60:02}"


_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_size(text: str) -> int | None:
    """The bytes that ``16GB``, ``16G``, ``16 GiB`` or ``1.5T`` are (powers of 1024, as SLURM has them), else None."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        return None
    number, unit = match.groups()
    return int(float(number) * _UNITS[unit.upper()]) or None


def memory_text(number: int) -> str:
    """``16 GB``, in the largest unit in which it is whole."""
    for unit in "TGM":
        if number % _UNITS[unit] == 0:
            return f"{number // _UNITS[unit]} {unit}B"
    return f"{-(-number // 1024)} KB"
