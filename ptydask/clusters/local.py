"""This machine as a place to run. Light to import: Dask comes in with the first worker."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ptydask import machine
from ptydask.clusters import ClusterRequest, DefaultWorkers, Place, StudyDemand
from ptydask.clusters.settings import THREADS, import_dask, threads_asked_for
from ptydask.clusters.worker_processes import starting_workers
from ptydask.errors import UsageError
from ptydask.formatting import counted

if TYPE_CHECKING:
    from ptydask.clusters.local_workers import LocalWorkers

TRIALS_EACH = 4
"""Trials of each worker, at the least, where later ones learn of earlier ones: what begins together learns nothing."""
MEMORY_SHARE = 0.8
"""Of the memory that is free: files that are read want some, too."""


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


def worker_environments(
    workers: int, gpus: Sequence[str], cores: int, threads: int | None = None
) -> list[dict[str, str]]:
    """The environment of each worker: GPUs in turn, and the ``threads`` that were asked for.

    None were: cores in equal parts, at least one each.
    """
    common = dict.fromkeys(THREADS, str(threads or max(1, cores // workers)))
    shares = gpus or [""]
    return [{**common, "CUDA_VISIBLE_DEVICES": shares[i % len(shares)]} for i in range(workers)]


def describe_workers(environments: Sequence[Mapping[str, str]], asked: int | None) -> str:
    """``2 workers on this machine, 1 core each``, or the GPUs; threads that were ``asked`` for in place of cores."""
    workers = len(environments)
    gpus = sorted({env["CUDA_VISIBLE_DEVICES"] for env in environments} - {""})
    each = " each" if workers > 1 else ""
    parts = [f"GPU {', '.join(gpus)}"] if gpus else []
    if asked is not None:
        parts.append(f"{counted(asked, 'thread')}{each} by OMP_NUM_THREADS")
    elif not gpus:
        parts.append(f"{counted(int(environments[0][THREADS[0]]), 'core')}{each}")
    return f"{counted(workers, 'worker')} on this machine, {', '.join(parts)}"


def share_out_cores(cores: int, asked: int | None, free: float, demand: StudyDemand) -> DefaultWorkers:
    """Workers on a machine's cores, ``free`` bytes of memory, where nobody says how many.

    Trials side by side need nothing of each other, threads of one trial wait for each other at every operation: as
    many workers as there are cores, so far as memory and trials go. One, where the demand for memory is unknown.
    ``asked`` is the number of their threads, where somebody says that.
    """
    if demand.memory is None:
        return DefaultWorkers(1)
    room = MEMORY_SHARE * free - demand.memory.shared
    by_memory = int(min(room / demand.memory.own, cores)) if room > 0 else 1
    threads, each = asked or 1, TRIALS_EACH if demand.learns else 1
    limits = {
        "one for each core" if threads == 1 else f"one for every {threads} cores": cores // threads,
        "one for each trial" if each == 1 else f"one for every {each} trials": demand.trials // each,
        "the memory that is free has room for no more": by_memory,
    }
    why, workers = min(limits.items(), key=lambda limit: limit[1])
    return DefaultWorkers(max(1, workers), why)


class ThisMachine(Place):
    """See :class:`ptydask.clusters.Place`."""

    here = True

    def default_workers(self) -> int:
        """One for each GPU, else one."""
        return max(1, len(visible_gpus()))

    def share_out(self, demand: StudyDemand) -> DefaultWorkers:
        """One for each GPU; without any, as many as cores, memory and trials go round."""
        if gpus := visible_gpus():
            return DefaultWorkers(len(gpus))
        asked = threads_asked_for(os.environ)
        return share_out_cores(machine.usable_cores(), asked, machine.free_memory(), demand)

    def describe(self, request: ClusterRequest) -> str:
        """What each worker gets."""
        return describe_workers(self._environments(request), threads_asked_for(os.environ))

    def _environments(self, request: ClusterRequest) -> list[dict[str, str]]:
        return worker_environments(
            request.workers, visible_gpus(), machine.usable_cores(), threads_asked_for(os.environ)
        )

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[LocalWorkers]:
        """Start the scheduler, and as many workers as there always are.

        Raises ClusterError where it does not start, UsageError in a process that may start no others.
        """
        if multiprocessing.current_process().daemon:
            raise UsageError(
                "a daemonic process of multiprocessing may start no others, as workers on this machine are: "
                "start it with daemon=False (a Pool has only such, concurrent.futures.ProcessPoolExecutor others)"
            )
        environments = self._environments(request)
        with starting_workers(environments, request.imports) as start:
            import_dask()
            from ptydask.clusters.local_workers import open_workers

            with open_workers(environments, request, start) as workers:
                yield workers
