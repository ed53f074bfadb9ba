"""This machine as a place to run. Light to import: Dask comes in with the first worker."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ptydask.clusters import ClusterRequest, Place
from ptydask.clusters.settings import THREADS, import_dask
from ptydask.clusters.worker_processes import starting_workers

if TYPE_CHECKING:
    from ptydask.clusters.local_workers import LocalWorkers


def visible_gpus(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The CUDA devices that this process may use, without loading torch: names for CUDA_VISIBLE_DEVICES."""
    names = environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None:
        return tuple(name for name in names.split(",") if name and name != "-1")
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(answer.stdout.split())


def worker_environments(workers: int, gpus: Sequence[str], cores: int) -> list[dict[str, str]]:
    """The environment of each worker: GPUs in turn, cores in equal parts (at least one each)."""
    threads = str(max(1, cores // workers))
    common = dict.fromkeys(THREADS, threads)
    shares = gpus or [""]
    return [{**common, "CUDA_VISIBLE_DEVICES": shares[i % len(shares)]} for i in range(workers)]


def describe_workers(environments: Sequence[Mapping[str, str]]) -> str:
    """``2 workers on this machine, 1 core each``, or with the GPUs."""
    workers = len(environments)
    gpus = sorted({env["CUDA_VISIBLE_DEVICES"] for env in environments} - {""})
    threads = int(environments[0]["PTYDASK_THREADS"])
    share = f"GPU {', '.join(gpus)}" if gpus else f"{threads} core{'s' * (threads != 1)} each"
    return f"{workers} worker{'s' * (workers != 1)} on this machine, {share}"


class ThisMachine(Place):
    """See :class:`ptydask.clusters.Place`."""

    def default_workers(self) -> int:
        """One for each GPU, else one."""
        return max(1, len(visible_gpus()))

    def describe(self, request: ClusterRequest) -> str:
        """What each worker gets."""
        return describe_workers(self._environments(request))

    def _environments(self, request: ClusterRequest) -> list[dict[str, str]]:
        return worker_environments(request.workers, visible_gpus(), len(os.sched_getaffinity(0)))

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[LocalWorkers]:
        """Start the scheduler, and as many workers as there always are. Raises ClusterError where it does not start."""
        environments = self._environments(request)
        with starting_workers(environments, request.imports) as start:
            import_dask()
            from ptydask.clusters.local_workers import open_workers

            with open_workers(environments, request, start) as workers:
                yield workers
