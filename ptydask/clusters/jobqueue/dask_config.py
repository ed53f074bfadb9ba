"""What Dask's own configuration, its jobqueue.yaml above all, says about jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ptydask.clusters.jobqueue import profile_keys
from ptydask.clusters.settings import import_dask
from ptydask.errors import ConfigError

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
    import_dask("dask")
    import dask

    section = _mapping(_mapping(dask.config.collect(), "jobqueue"), system)
    section = {str(key).replace("_", "-"): value for key, value in section.items()}
    settings = {}
    for key, names in _DASK.items():
        value = next((section[name] for name in names if section.get(name)), None)
        if isinstance(value, dict):  # HTCondor's directives
            value = [f"{name} = {text}" for name, text in value.items()]
        if key == "memory" and isinstance(value, int):
            value = f"{-(-value // 1024)}K"
        if value is not None:
            settings[key] = value
    values = profile_keys.parse_values(settings, {key: str(value) for key, value in settings.items()})
    if system == "slurm" and "directives" in values:
        values |= _gpus_asked(values["directives"])
    return values


def _mapping(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = settings.get(key) or {}
    if not isinstance(value, Mapping):
        raise ConfigError("must be a mapping", key=key, value=value)
    return value


_GPUS = re.compile(
    r"(?:--gres[= ]gpu|--gpus(?:-per-node)?|-G)"
    r"(?:[:= ]([A-Za-z][\w.]*|\d+g[\w.]+))?"  # the type; a MIG slice begins with a digit
    r"(?:[:= ](\d+))?"
)


def _gpus_asked(directives: tuple[str, ...]) -> dict[str, Any]:
    """GPUs that SLURM is asked for in directives, taken out of them."""
    values: dict[str, Any] = {}
    others = []
    for line in directives:
        match = _GPUS.fullmatch(line)
        if match is None:
            others.append(line)
            continue
        gpu_type, count = match.groups()
        values = {"gpus": int(count or 1), "gpu_type": gpu_type} if gpu_type else {"gpus": int(count or 1)}
    return {**values, "directives": tuple(others)}
