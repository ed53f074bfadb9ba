"""Runs of the toy engine in processes of their own, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil


def start(params: Path | Sequence[Path], log: Path, *options: str) -> subprocess.Popen[bytes]:
    """Of one file, or of several as a queue, whose summary is in the log, too."""
    files = [params] if isinstance(params, Path) else params
    command = [sys.executable, "-m", "ptydask", "run", *map(str, files), "--engine", "toy", "--workers", "2", *options]
    with log.open("ab") as stream:
        stdout = subprocess.DEVNULL if isinstance(params, Path) else stream
        return subprocess.Popen(command, stderr=stream, stdout=stdout, start_new_session=True)


def kill(process: subprocess.Popen[bytes], whole_group: bool) -> None:
    """SIGKILL to the driver alone, as the kernel's OOM killer does, or to all of its processes at once."""
    below = psutil.Process(process.pid).children(recursive=True)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert not psutil.wait_procs(below, timeout=20)[1], "workers outlive their driver"


def fork_servers(driver: psutil.Process) -> list[psutil.Process]:
    """The process that its workers are forks of, once there is one."""
    servers = []
    for child in driver.children():
        with suppress(psutil.NoSuchProcess):  # a zombie, too
            servers += [child] if "forkserver" in str(child.cmdline()) else []
    return servers


def workers_of(pid: int) -> list[psutil.Process]:
    """The processes that run trials."""
    return [worker for server in fork_servers(psutil.Process(pid)) for worker in server.children()]
