"""Runs of the toy engine in processes of their own, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil


def start(params: Path, log: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--workers", "2", *options]
    with log.open("ab") as stream:
        return subprocess.Popen(command, stderr=stream, stdout=subprocess.DEVNULL, start_new_session=True)


def kill(process: subprocess.Popen[bytes], whole_group: bool) -> None:
    """SIGKILL to the driver alone, as the kernel's OOM killer does, or to all of its processes at once."""
    below = psutil.Process(process.pid).children(recursive=True)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()
    assert not psutil.wait_procs(below, timeout=20)[1], "workers outlive their driver"
