"""What Dask's own configuration, its jobqueue.yaml above all, says about jobs."""

from __future__ import annotations

import re
from typing import Any

from ptydask.clusters.jobqueue import profile_keys

_DASK = {
    "queue": ("queue",),
    "account": ("account", "project"),
    "cpus": ("job-cpu", "ncpus", "cores"),
    "memory": ("job-mem", "mem", "memory"),
    "walltime": ("walltime",),
    "disk": ("disk",),
    "resource_spec": ("resource-spec",),
    "directives": ("job-extra-directives", "job-extra"),
    "environment": ("job-script-prologue", "env-extra"),
    "python": ("python",),
    "interface": ("interface",),
    "local_directory": ("local-directory",),
    "shared_directory": ("shared-temp-directory",),
}
"""Our key, and the keys that dask-jobqueue has for it; the first that is there counts."""


def read_job_settings(system: str) -> dict[str, Any]:
    """What the user's or the site's configuration of Dask says about jobs, as :class:`Profile`'s values.

    The files and the environment themselves are read: ``dask.config.get`` also has dask-jobqueue's own defaults.
    """
    import dask

    section = (dask.config.collect().get("jobqueue") or {}).get(system) or {}
    section = {key.replace("_", "-"): value for key, value in section.items()}
    found = {}
    for key, names in _DASK.items():
        value = next((section[name] for name in names if section.get(name)), None)
        if isinstance(value, dict):  # HTCondor's directives
            value = [f"{name} = {text}" for name, text in value.items()]
        if key == "memory" and isinstance(value, int):
            value = f"{-(-value // 1024)}K"
        if value is not None:
            found[key] = value
    read = profile_keys.parse_values(found, {key: str(value) for key, value in found.items()})
    if system == "slurm" and "directives" in read:
        read |= _gpus_asked(read["directives"])
    return read


_GPUS = re.compile(
    r"(?:--gres[= ]gpu|--gpus(?:-per-node)?|-G)"
    r"(?:[:= ]([A-Za-z][\w.]*|\d+g[\w.]+))?"  # the type; a MIG slice begins with a digit
    r"(?:[:= ](\d+))?"
)


def _gpus_asked(directives: tuple[str, ...]) -> dict[str, Any]:
    """GPUs that SLURM is asked for in directives, taken out of them."""
    rest = tuple(line for line in directives if not _GPUS.fullmatch(line))
    hits = [found for line in directives if (found := _GPUS.fullmatch(line))]
    if not hits:
        return {}
    last = hits[-1]
    kind = {"gpu_type": last[1]} if last[1] else {}
    return {"gpus": int(last[2] or 1), **kind, "directives": rest}
