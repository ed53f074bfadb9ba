"""How each batch system is asked for what a profile says: the keywords that are particular to its class."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ptydask.clusters.jobqueue.profile import MEMORY_PER, Profile, clock_text, hours_text

_DIRECTIVE = "write it into directives, in the words of this batch system"
_NOT_SLURM = dict.fromkeys(("qos", "constraint", "nodelist", "exclude"), _DIRECTIVE)
_NO_GRACE = {"grace": "where it can send a signal before the end, ask for SIGTERM in directives"}
_NO_SPEC = {"resource_spec": "use cpus, gpus, memory and directives"}
_NO_DISK = {"disk": _DIRECTIVE}

CANNOT: Mapping[str, Mapping[str, str]] = {
    "slurm": _NO_SPEC,
    "pbs": {**_NOT_SLURM, **_NO_GRACE, **_NO_DISK, "gpu_type": "give the whole resource_spec"},
    "moab": {**_NOT_SLURM, **_NO_GRACE, **_NO_DISK, "gpu_type": "give the whole resource_spec"},
    "lsf": {**_NOT_SLURM, **_NO_GRACE, **_NO_DISK, **_NO_SPEC},
    "sge": {**_NOT_SLURM, **_NO_GRACE, **_NO_DISK, "gpu_type": "give the whole resource_spec"},
    "oar": {**_NOT_SLURM, **_NO_GRACE, **_NO_DISK, "gpu_type": "write a property into directives: -p gpu_model='A100'"},
    "htcondor": {
        **_NOT_SLURM,
        **_NO_GRACE,
        **_NO_SPEC,
        "queue": "write a requirement into directives: Requirements = ...",
        "walltime": "write it into directives, as your pool has it: +MaxRuntime = 14400",
        "gpu_type": "write it into directives: require_gpus = ...",
    },
}
"""System -> keys that it cannot be asked for, and what to do."""

UNASKED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("slurm", "pbs", "moab", "lsf", "htcondor"), frozenset[str]()),
    "sge": frozenset({"cpus", "gpus", "memory"}),
    "oar": frozenset({"memory"}),
}
"""System -> keys that every site has its own words for: to be asked for in ``directives`` or ``resource_spec``."""

_ITSELF = "ptydask sets this itself"
_REQUEUE = "ptydask starts a new job itself where one is lost"
OWN: Mapping[str, Mapping[str, str]] = {
    **{system: {} for system in ("pbs", "moab", "lsf", "sge", "oar", "htcondor")},
    "slurm": {
        **dict.fromkeys(("-p", "--partition"), "queue"),
        **dict.fromkeys(("-A", "--account"), "account"),
        **dict.fromkeys(("-t", "--time"), "walltime"),
        **dict.fromkeys(("-c", "--cpus-per-task"), "cpus"),
        **dict.fromkeys(("-G", "--gpus", "--gpus-per-node", "--gpus-per-task", "--gres=gpu", "--gres gpu"), "gpus"),
        **dict.fromkeys(("-q", "--qos"), "qos"),
        **dict.fromkeys(("-C", "--constraint"), "constraint"),
        **dict.fromkeys(("-w", "--nodelist"), "nodelist"),
        **dict.fromkeys(("-x", "--exclude"), "exclude"),
        **dict.fromkeys(("-J", "--job-name", "-o", "--output", "-e", "--error"), _ITSELF),
        **dict.fromkeys(("-N", "--nodes", "-n", "--ntasks", "-a", "--array"), _ITSELF),
        **dict.fromkeys(("--requeue", "--no-requeue"), _REQUEUE),
        "--tmp": "disk",
        "--signal": "grace",
    },
}
"""System -> option that ``directives`` may not have -> the key to use, or why."""


_KEPT = ("SBATCH_CLUSTERS", "SBATCH_EXPORT", "SBATCH_GET_USER_ENV", "SBATCH_RESERVATION", "SBATCH_WCKEY")
_UNLESS_SAID = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_MEM_PER_NODE": "memory",
    "SBATCH_PARTITION": "queue",
    "SBATCH_QOS": "qos",
    "SBATCH_TIMELIMIT": "walltime",
}


def submit_environment(profile: Profile, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for the submitting command: what the profile says holds.

    A variable beats a line of the script: a job's name or log would be another, and SBATCH_WAIT waits for its end.
    """
    kept = {*_KEPT, *(name for name, key in _UNLESS_SAID.items() if getattr(profile, key) is None)}
    if any(MEMORY_PER.match(line) for line in profile.directives):
        kept.discard("SBATCH_MEM_PER_NODE")
    return {name: value for name, value in environ.items() if not name.startswith("SBATCH_") or name in kept}


def class_options(profile: Profile, logs: Path) -> dict[str, Any]:
    """Keyword arguments of dask-jobqueue's job class that only this system's class has, and its directives."""
    return _OPTIONS[profile.system](profile, logs)


def _slurm(profile: Profile, logs: Path) -> dict[str, Any]:
    # One file for both streams: what a worker says, and what the shell says of it, stay in their order.
    output = shlex.quote(str(logs).replace("%", "%%") + "/%x-%j.out")
    named = ("qos", "constraint", "nodelist", "exclude")
    directives = [
        "--nodes=1",
        "--no-requeue",  # a lost job is replaced by a new one, which the driver knows
        *_gres_directive(profile),
        *(f"--{key}={value}" for key in named if (value := getattr(profile, key))),
        *([f"--tmp={_mebibytes(profile.disk)}M"] if profile.disk else []),
        *([f"--signal=B:TERM@{profile.grace}"] if profile.grace else []),
        f"--output={output}",
        f"--error={output}",
        *(line for line in profile.directives if not line.startswith(("--gres=", "--gres "))),
    ]
    return {
        "queue": profile.queue,
        "account": profile.account,
        "walltime": profile.walltime and clock_text(profile.walltime),
        "job_cpu": profile.cpus,
        "job_mem": None if profile.memory is None else _slurm_memory(profile.memory),
        "job_extra_directives": directives,
        "job_directives_skip": _skipped_directives(profile, "#SBATCH -t ", "#SBATCH --mem="),
    }


def _gres_directive(profile: Profile) -> list[str]:
    """One line: of two, SLURM heeds the last."""
    kind = f":{profile.gpu_type}" if profile.gpu_type else ""
    gpus = [f"gpu{kind}:{profile.gpus}"] if profile.gpus else []
    others = [line[len("--gres=") :] for line in profile.directives if line.startswith(("--gres=", "--gres "))]
    return [f"--gres={','.join([*gpus, *others])}"] if gpus or others else []


def _slurm_memory(number: int) -> str:
    if number == 0:
        return "0"
    return f"{number >> 30}G" if number % 2**30 == 0 else f"{_mebibytes(number)}M"


def _pbs(profile: Profile, logs: Path) -> dict[str, Any]:
    gpus = f":ngpus={profile.gpus}" if profile.gpus else ""
    memory = f":mem={_mebibytes(profile.memory)}mb" if profile.memory else ""
    spec = profile.resource_spec or f"select=1:ncpus={profile.cpus}{memory}{gpus}"
    return _torque(profile, logs, spec)


def _moab(profile: Profile, logs: Path) -> dict[str, Any]:
    gpus = f":gpus={profile.gpus}" if profile.gpus else ""
    memory = f",mem={_mebibytes(profile.memory)}mb" if profile.memory else ""
    return _torque(profile, logs, profile.resource_spec or f"nodes=1:ppn={profile.cpus}{gpus}{memory}")


def _torque(profile: Profile, logs: Path, spec: str) -> dict[str, Any]:
    return {
        "queue": profile.queue,
        "account": profile.account,
        "resource_spec": spec,
        "walltime": profile.walltime and hours_text(profile.walltime),
        "job_extra_directives": ["-r n", "-j oe", f"-o {shlex.quote(str(logs))}/", *profile.directives],
        "job_directives_skip": _skipped_directives(profile, "#PBS -l walltime="),
    }


def _lsf(profile: Profile, logs: Path) -> dict[str, Any]:
    kind = f":gmodel={profile.gpu_type}" if profile.gpu_type else ""
    gpus = [f'-gpu "num={profile.gpus}{kind}"'] if profile.gpus else []
    whole, minutes = divmod(-(-(profile.walltime or 0) // 60), 60)
    output = shlex.quote(str(logs).replace("%", "%%"))
    return {
        "queue": profile.queue,
        "project": profile.account,
        "ncpus": profile.cpus,
        "mem": profile.memory,
        "walltime": profile.walltime and f"{whole:02}:{minutes:02}",
        "job_extra_directives": ["-rn", *gpus, f"-o {output}/%J.out", *profile.directives],
        "job_directives_skip": _skipped_directives(profile, "#BSUB -W ", "#BSUB -M "),
    }


def _sge(profile: Profile, logs: Path) -> dict[str, Any]:
    return {
        "queue": profile.queue,
        "project": profile.account,
        "resource_spec": profile.resource_spec,
        "walltime": profile.walltime and hours_text(profile.walltime),
        "job_extra_directives": ["-r n", f"-o {shlex.quote(str(logs))}/", *profile.directives],
        "job_directives_skip": _skipped_directives(profile, "#$ -l h_rt="),
    }


def _oar(profile: Profile, logs: Path) -> dict[str, Any]:
    # A GPU brings its cores; asking for both depends on how a site counts them.
    part = f"gpu={profile.gpus}" if profile.gpus else f"core={profile.cpus}"
    output = shlex.quote(str(logs).replace("%", "%%"))
    return {
        "queue": profile.queue,
        "project": profile.account,
        "resource_spec": profile.resource_spec or f"/nodes=1/{part}",
        "walltime": profile.walltime and hours_text(profile.walltime),
        # Without a name for memory per core, the class warns at every job; the profile asks for it in directives.
        "memory_per_core_property_name": "not_applicable",
        "job_extra_directives": [f"-O {output}/%jobid%.out", f"-E {output}/%jobid%.out", *profile.directives],
        "job_directives_skip": [],
    }


def _htcondor(profile: Profile, logs: Path) -> dict[str, Any]:
    # Output goes through, job by job, as the class has it; its log folder cannot be left to the class, which makes it.
    header = {
        "RequestCpus": profile.cpus,
        **({"RequestGPUs": profile.gpus} if profile.gpus else {}),
        **({"accounting_group": profile.account} if profile.account else {}),
        "Output": f"{logs}/$(ClusterId).$(ProcId).out",
        "Error": f"{logs}/$(ClusterId).$(ProcId).out",
        "Stream_Output": True,
        "Stream_Error": True,
    }
    own = dict(line.split("=", 1) for line in profile.directives if "=" in line)
    skip = [] if profile.memory else ["RequestMemory"]
    return {
        "disk": f"{profile.disk or 2**30}B",
        "job_extra_directives": {**header, **{key.strip(): value.strip() for key, value in own.items()}},
        "job_directives_skip": skip,
    }


_OPTIONS: Mapping[str, Callable[[Profile, Path], dict[str, Any]]] = {
    "slurm": _slurm,
    "pbs": _pbs,
    "moab": _moab,
    "lsf": _lsf,
    "sge": _sge,
    "oar": _oar,
    "htcondor": _htcondor,
}


def _skipped_directives(profile: Profile, walltime: str, memory: str = "") -> list[str]:
    """Header lines that the class would write with a value of its own where the site's is to hold."""
    return [*([] if profile.walltime else [walltime]), *([memory] if memory and profile.memory is None else [])]


def _mebibytes(number: int) -> int:
    return -(-number // 2**20)
