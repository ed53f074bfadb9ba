"""Studies that a SLURM cannot run end soon, with one line; strangers get nothing from one that runs."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml
from distributed import Security
from distributed.comm import connect
from slurm_sandbox import Job, Sandbox
from slurm_studies import STEPS, Study, study, worker_processes, write_profile

Params = Callable[..., Path]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


# --- refused ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    profile: Mapping[str, object]
    """What makes it impossible."""
    says: str
    """In the line that ends it."""
    advice: str
    """In it, too."""
    deaths: int = 0
    """Jobs that die for it."""


ODD = """\
import importlib.metadata

true = importlib.metadata.version
importlib.metadata.version = lambda name: "4.99" if name == "optuna" else true(name)
"""
"""A sitecustomize.py of an environment with another Optuna."""
CASES = {
    "python": Case(
        {"python": "/nonexistent/python"},
        "the python of the profile, /nonexistent/python, is not there on node",
        "set `python` of the profile",
        deaths=5,
    ),
    "module": Case(
        {"modules": ["nonexistent/1.0"]}, "module load nonexistent/1.0 failed on node", "`module avail`", deaths=5
    ),
    "bare-python": Case(
        {"python": "/usr/bin/env -u PYTHONPATH"[:12], "environment": ["python() { :; }"]},
        "",
        "",
    ),
    "engine": Case(
        {"environment": ["unset PYTHONPATH"]},
        f"the Python of the workers, {sys.executable} on ",
        "no engine is called 'toy'; known: ptyrad; give the workers the environment that this command runs in",
    ),
    "versions": Case(
        {"environment": ["export PYTHONPATH={folder}:$PYTHONPATH"]},
        "has optuna 4.99 (here: ",
        "give the workers the environment that this command runs in",
    ),
    "partition": Case({"queue": "nope"}, "the job was not accepted: invalid partition specified: nope", "`sinfo -s`"),
    "option": Case(
        {"directives": ["--nope=1"]}, "not accepted: unrecognized option '--nope=1'", "`directives` of the profile"
    ),
    "memory": Case(
        {"memory": "64GB"}, "not accepted: Memory specification can not be satisfied", '`sinfo -o "%P %c %m %G"`'
    ),
    "closed": Case({"queue": "closed"}, "will not start: PartitionDown: the partition is down", "`queue` of the"),
    "walltime": Case(
        {"queue": "short", "walltime": "9-00:00:00"},
        "will not start: PartitionTimeLimit: its walltime is longer than the partition allows",
        "`walltime` of the profile",
    ),
}
