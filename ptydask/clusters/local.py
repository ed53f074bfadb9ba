"""Workers on this machine: one process each, on its own GPU or its own share of the cores."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any

import dask
from distributed import Client, LocalCluster

from ptydask.clusters import ClusterRequest
from ptydask.errors import ClusterError, one_line

_START = 120
"""Seconds for all workers to come up."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PTYDASK_THREADS")
_ALLOCATOR = {
    # Dask has glibc give memory back at every free beyond 64 KiB. A reconstruction frees its temporaries many times a
    # second: the page faults alone doubled the time of an iteration on a CPU. Keep the memory for the next iteration.
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}
_SETTINGS = {
    # A trial holds the interpreter for long; nobody is dead for that.
    "distributed.scheduler.worker-ttl": "60 minutes",
    # The driver counts attempts itself: the first loss is reported at once.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.scheduler.work-stealing": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "60s",
    "distributed.comm.timeouts.connect": "60s",
}


def visible_gpus(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The CUDA devices that this process may use, without loading torch: names for CUDA_VISIBLE_DEVICES."""
    given = environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return tuple(name for name in given.split(",") if name and name != "-1")
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(listed.stdout.split())


def shares(workers: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """The environment of each worker: GPUs in turn, cores in equal parts (at least one each)."""
    threads = str(max(1, cores // workers))
    common = dict.fromkeys(_THREADS, threads)
    if not gpus:
        return [{**common, "CUDA_VISIBLE_DEVICES": ""} for _ in range(workers)]
    return [{**common, "CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(workers)]


class _PinnedCluster(LocalCluster):
    """A LocalCluster whose workers each have an environment of their own."""

    def __init__(self, environments: list[dict[str, str]], **options: Any) -> None:
        self._environments = environments
        super().__init__(n_workers=0, **options)

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """The next worker, with its own share of the machine."""
        ((name, spec),) = super().new_worker_spec().items()
        env = self._environments[int(name) % len(self._environments)]
        return {name: {**spec, "options": {**spec["options"], "env": env}}}


class LocalWorkers:
    """See :class:`ptydask.clusters.Cluster`."""

    def __init__(self, cluster: _PinnedCluster, client: Client) -> None:
        self._cluster, self.client = cluster, client

    def stop_workers(self) -> None:
        """Kill the worker processes; the scheduler goes on answering."""
        _kill(self._cluster)
        self._cluster.scale(0)
        self._cluster.sync(self._cluster._correct_state)


def _kill(cluster: LocalCluster) -> None:
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)


def describe(environments: Sequence[Mapping[str, str]]) -> str:
    """``2 workers on this machine, 1 core each``, or with the GPUs."""
    workers = len(environments)
    gpus = sorted({env["CUDA_VISIBLE_DEVICES"] for env in environments} - {""})
    threads = int(environments[0]["PTYDASK_THREADS"])
    has = f"GPU {', '.join(gpus)}" if gpus else f"{threads} core{'s' * (threads != 1)} each"
    return f"{workers} worker{'s' * (workers != 1)} on this machine, {has}"


class ThisMachine:
    """See :class:`ptydask.clusters.Place`."""

    def default_workers(self) -> int:
        """One for each GPU, else one."""
        return max(1, len(visible_gpus()))

    def describe(self, request: ClusterRequest) -> str:
        """What each worker gets."""
        return describe(self._environments(request))

    def _environments(self, request: ClusterRequest) -> list[dict[str, str]]:
        return shares(request.workers, visible_gpus(), len(os.sched_getaffinity(0)))

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[LocalWorkers]:
        """Start the workers and wait for all of them. Raises ClusterError where they do not come up."""
        environments = self._environments(request)
        spawn_env = {name: environments[0][name] for name in _THREADS}
        spawn_env |= {name: os.environ.get(name, value) for name, value in _ALLOCATOR.items()}
        for name in ("distributed", "asyncio", "tornado"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with dask.config.set({**_SETTINGS, "distributed.nanny.pre-spawn-environ": spawn_env}):
            with _held_back():
                cluster = _start(environments)
                cluster.scale(request.workers)
                client = Client(cluster, set_as_default=False)
            try:
                try:
                    client.wait_for_workers(request.workers, timeout=_START)
                except TimeoutError as error:
                    raise ClusterError(f"not all of {request.workers} workers started within {_START} s") from error
                yield LocalWorkers(cluster, client)
            finally:
                with _held_back():
                    _kill(cluster)
                    client.close()
                    cluster.close()


@contextmanager
def _held_back() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM at the end: a Dask client that is half made, or half closed, hangs for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    held = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _frame: came.append(n)) for number in held}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(signal.Signals(came[0]))


def _start(environments: list[dict[str, str]]) -> _PinnedCluster:
    # Ctrl-C reaches every process of a terminal, and only the driver decides what it means. The cluster's thread, and
    # the workers that it starts, inherit from here that SIGINT is blocked. (multiprocessing's resource tracker
    # unblocks it in the thread that starts it, so it has to be there before.)
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return _PinnedCluster(
            environments,
            threads_per_worker=1,
            processes=True,
            security=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        )
    except Exception as error:
        raise ClusterError(f"the local scheduler did not start: {one_line(str(error))}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
