"""A profile from its file, what Dask's own jobqueue.yaml adds to it, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ptydask.clusters.jobqueue import dask_config, profile_keys
from ptydask.clusters.jobqueue.profile import MEMORY_PER, SYSTEMS, Profile, clock_text
from ptydask.clusters.jobqueue.systems import CANNOT, OWN, UNASKED
from ptydask.config import reading
from ptydask.errors import ConfigError

KEYS = tuple(f.name for f in fields(Profile) if f.name != "from_dask")


def read(path: Path) -> Profile:
    """The profile in a YAML, JSON or TOML file, completed. Raises ConfigError, which names file, key and rule."""
    source, data = reading.read(path)
    try:
        _check_keys(data)
        written = _written_values(source.text) if source.format == "yaml" else {}
        return complete_profile(profile_keys.parse_values(data, written))
    except ConfigError as error:
        raise error.in_file(path) from None


_SBATCH_NAMES = {
    "partition": "queue",
    "time": "walltime",
    "mem": "memory",
    "cores": "cpus",
    "gres": "gpus",
    "module": "modules",
}
"""What people write who know sbatch, and the key that it is here."""


def _check_keys(data: Mapping[str, Any]) -> None:
    for name in _SBATCH_NAMES.keys() & data.keys():
        raise ConfigError("unknown key", key=name, value=data[name], hint=f"did you mean {_SBATCH_NAMES[name]!r}?")
    reading.known_keys(data, KEYS, "")


def complete_profile(settings: Mapping[str, Any]) -> Profile:
    """A profile from ``settings`` (:class:`Profile`'s values), Dask's jobqueue.yaml, and then ptydask's defaults.

    Raises ConfigError where the batch system cannot be asked for something that is given.
    """
    system = str(settings.get("system", "slurm"))
    _check_possible(system, settings)
    try:
        of_dask = {key: value for key, value in dask_config.read_job_settings(system).items() if key not in settings}
    except ConfigError as error:
        raise error.in_file(f"Dask's configuration, jobqueue.{system}") from None
    values = {**_defaults(system), **of_dask, **settings, "from_dask": tuple(sorted(of_dask))}
    if system == "slurm":
        values |= _memory_of_directives(values["directives"], settings.get("memory"))
    elif values["memory"] == 0:
        raise ConfigError("only SLURM is asked for a node's whole memory by 0", key="memory", value=0)
    if "gpus" not in settings and "resource_spec" in of_dask | dict(settings):
        gpus = re.search(r"gpus?=(\d+)", values["resource_spec"] or "")
        values["gpus"] = int(gpus[1]) if gpus else 0
    if values.get("gpu_type") and not values["gpus"]:
        raise ConfigError("a job without GPUs has none of a type", key="gpu_type", value=values["gpu_type"])
    if system == "oar" and values["walltime"] is None:  # its class writes walltime and cores in one
        raise ConfigError("an OAR job has a walltime", key="walltime", value=None)
    return Profile(**_fit_grace(values, settings))


def _memory_of_directives(directives: tuple[str, ...], memory: int | None) -> dict[str, Any]:
    """What directives ask of memory, for the keys; SLURM wants one line of it. ``memory`` is that of the profile."""
    lines = [line for line in directives if re.match(r"--mem(?![\w-])", line) or MEMORY_PER.match(line)]
    if not lines:
        return {}
    if memory is not None or len(lines) > 1:
        rule = "SLURM takes one line on memory" + ("" if memory is None else ", and the key memory is another")
        raise ConfigError(rule, key="directives", value=lines[-1], hint="leave all but one out")
    [line] = lines
    if MEMORY_PER.match(line):
        return {"memory": None}
    amount = re.sub(r"--mem[=\s]*", "", line)
    size = f"{amount}M" if amount.isdecimal() else amount  # as sbatch reads it
    asked = profile_keys.parse_values({"memory": size}, {})
    return {**asked, "directives": tuple(other for other in directives if other != line)}


def _defaults(system: str) -> dict[str, Any]:
    profile = Profile(system)
    values: dict[str, Any] = {key: getattr(profile, key) for key in KEYS}
    if system != "slurm":
        values["grace"] = 0
    if "gpus" in UNASKED[system]:
        values["gpus"] = 0
    if "cpus" in UNASKED[system]:
        values["cpus"] = 1
    for key in {"memory", "walltime"} & (UNASKED[system] | CANNOT[system].keys()):
        values[key] = None
    return values


def _fit_grace(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """SIGTERM comes well after the start: SLURM may send it a minute too early."""
    walltime, grace = values["walltime"], values["grace"]
    if walltime is None or not grace or 2 * grace + 60 < walltime:
        return values
    if "grace" in settings:
        rule = f"must be less than half of the walltime, {clock_text(walltime)}, a minute taken off"
        raise ConfigError(rule, key="grace", value=grace)
    return {**values, "grace": 0}


def _check_possible(system: str, settings: Mapping[str, Any]) -> None:
    name = SYSTEMS[system]
    for key, hint in CANNOT[system].items():
        if settings.get(key):
            raise ConfigError(f"{name} cannot be asked for this by its key", key=key, value=settings[key], hint=hint)
    if not settings.get("directives") and not settings.get("resource_spec"):
        for key in UNASKED[system] & settings.keys():
            if settings[key]:
                rule = f"{name} has no common way to ask for this"
                hint = "ask for it in directives or resource_spec as your site does, and say here how much it is"
                raise ConfigError(rule, key=key, value=settings[key], hint=hint)
    for line in settings.get("directives", ()):
        for option, key in OWN[system].items():
            end = r"(?![\w-])" if option.startswith("--") else ""  # -p2 is a partition as well
            if re.match(re.escape(option) + end, line):
                hint = f"use the key {key}" if key in KEYS else key
                raise ConfigError(f"{option} is ptydask's own", key="directives", value=line, hint=hint)


def _written_values(text: str) -> dict[str, str]:
    """The plain values as they are written: YAML reads 4:00:00 as 14400, and an account 0123 as 83."""
    data = yaml.load(text, Loader=yaml.BaseLoader)  # makes nothing but text
    return {key: value for key, value in data.items() if isinstance(value, str)}
