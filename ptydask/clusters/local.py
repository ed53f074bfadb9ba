"""Workers on this machine: one process each, on its own GPU or its own share of the cores."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dask
from distributed import Client, LocalCluster

from ptydask.clusters import ClusterRequest
from ptydask.errors import ClusterError, one_line

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PTYDASK_THREADS")
# Arrays of the same sizes come and go all through a trial. Dask's own setting gives each back to the system at
# once and fetches it again, page by page: measured, that doubles the time of a reconstruction on a CPU.
_KEEP_MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(1 << 30))
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

    def __init__(self, cluster: _PinnedCluster, client: Client, environments: list[dict[str, str]]) -> None:
        self._cluster, self.client, self._environments = cluster, client, environments

    def describe(self) -> str:
        """``2 workers on this machine, 1 core each``, or with the GPUs."""
        return describe(self._environments)

    def stop_workers(self) -> None:
        """Kill the worker processes; the scheduler goes on answering."""
        for nanny in self._cluster.workers.values():
            nanny.auto_restart = False
            if nanny.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)
        self._cluster.scale(0)
        self._cluster.sync(self._cluster._correct_state)


def describe(environments: Sequence[Mapping[str, str]]) -> str:
    """One line on what the workers have."""
    workers = len(environments)
    gpus = sorted({env["CUDA_VISIBLE_DEVICES"] for env in environments} - {""})
    threads = int(environments[0]["PTYDASK_THREADS"])
    has = f"GPU {', '.join(gpus)}" if gpus else f"{threads} core{'s' * (threads != 1)} each"
    return f"{workers} worker{'s' * (workers != 1)} on this machine, {has}"


def plan_workers(request: ClusterRequest) -> list[dict[str, str]]:
    """What :func:`open_cluster` would start."""
    return shares(request.workers, visible_gpus(), len(os.sched_getaffinity(0)))


@contextmanager
def open_cluster(request: ClusterRequest) -> Iterator[LocalWorkers]:
    """Start the workers and wait for all of them. Raises ClusterError where they do not come up."""
    environments = plan_workers(request)
    spawn_env = {name: environments[0][name] for name in _THREADS}
    spawn_env |= {name: os.environ.get(name, value) for name, value in _ALLOCATOR.items()}
    settings = {**_SETTINGS, "distributed.nanny.pre-spawn-environ": spawn_env}
    for name in ("distributed", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with dask.config.set(settings):
        try:
            cluster = _PinnedCluster(
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
        try:
            cluster.scale(request.workers)
            with Client(cluster, set_as_default=False) as client:
                try:
                    client.wait_for_workers(request.workers, timeout=120)
                except TimeoutError as error:
                    raise ClusterError(f"not all of {request.workers} workers started within 120 s") from error
                yield LocalWorkers(cluster, client, environments)
        finally:
            cluster.close()
