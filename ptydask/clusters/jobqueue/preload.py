"""On the node of a job: Dask loads this into the nanny and into the worker process (``--preload``).

A worker uses its own GPU of the job. SIGTERM gives its trial the time to save a checkpoint: the worker stays until no
task is running, then it leaves and its job ends. Without this, the nanny of Dask would kill the worker at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from distributed import Nanny, Worker
from distributed.core import Status

from ptydask.trial import eviction

_LOOK = 0.1
"""Seconds between two looks whether the trial has ended."""
_FETCH = 10.0
"""Seconds that a result waits to be fetched before the worker leaves."""
_started: dict[int, Any] = {}
"""Nannies of this process, by identity."""
_leaving: set[asyncio.Task[None]] = set()
"""Kept, or Python would drop a task that nobody holds."""


def dask_setup(started: Any) -> None:
    """Called by Dask when the nanny, or the worker, starts."""
    if isinstance(started, Nanny):
        _started[id(started)] = started
        _on_sigterm(lambda: _leave_nannies(list(_started.values())))
    elif isinstance(started, Worker):
        pin_gpu(str(started.name), os.environ)
        _on_sigterm(lambda: _leave_gracefully(started))


def pin_gpu(name: str, environ: MutableMapping[str, str]) -> None:
    """Leave one GPU of the job's to the worker ``NAME-i``: the i-th, in turn. To be called before torch is loaded."""
    gpus = [gpu for gpu in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu.strip()]
    index = re.search(r"-(\d+)$", name)  # the only worker of a job has none
    if gpus:
        environ["CUDA_VISIBLE_DEVICES"] = gpus[int(index[1]) % len(gpus) if index else 0].strip()


def _on_sigterm(leave: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()

    def handle_sigterm(_number: int, _frame: object) -> None:
        if not eviction.asked.is_set():
            eviction.asked.set()
            loop.call_soon_threadsafe(leave)

    with contextlib.suppress(ValueError):  # not the main thread: a test has it in its own process
        signal.signal(signal.SIGTERM, handle_sigterm)


# --- in the nanny's process ---


def _leave_nannies(nannies: list[Nanny]) -> None:
    """Let the workers end by themselves, and do not start them again."""
    for nanny in nannies:
        if nanny.status == Status.running:
            nanny.close_gracefully(reason="SIGTERM")
            _signal_worker(nanny, signal.SIGTERM)  # some signals reach the job's first process alone
        else:  # its worker is not up yet: there is nothing to wait for
            _leaving.add(asyncio.get_running_loop().create_task(nanny.close(timeout=1, reason="SIGTERM")))


def _signal_worker(nanny: Nanny, number: signal.Signals) -> None:
    if nanny.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(nanny.pid, number)


# --- in the worker's process ---


def _leave_gracefully(worker: Worker) -> None:
    if worker.status == Status.running:
        worker.status = Status.closing_gracefully  # the scheduler hears of it and sends nothing any more
    _leaving.add(asyncio.get_running_loop().create_task(_leave_when_done(worker)))


async def _leave_when_done(worker: Worker) -> None:
    while worker.state.executing_count:
        await asyncio.sleep(_LOOK)
    deadline = time.monotonic() + _FETCH
    await asyncio.sleep(_LOOK)
    while worker.state.data and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)
    # Without waiting for Dask's own goodbyes: the job ends with the nanny, which ends with this process.
    await worker.close(timeout=5, executor_wait=False, nanny=True, reason="SIGTERM")


# --- at once ---


def end_process(dask_worker: Any) -> None:
    """End this nanny's process and all its workers, in the middle of whatever they do, after this call is answered."""
    asyncio.get_running_loop().call_later(0.05, _end_process, list(_started.values()) or [dask_worker])


def _end_process(nannies: list[Nanny]) -> None:
    for nanny in nannies:
        _signal_worker(nanny, signal.SIGKILL)
    os._exit(1)
