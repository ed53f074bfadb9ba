"""Workers on this machine: one process each, on its own GPU or its own share of the cores."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed.utils
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.diskutils import WorkSpace

from ptydask.clusters import DIED_LOADING, ClusterRequest, ClusterStatus, WorkerDemand, scaling
from ptydask.clusters.settings import SETTINGS, check_open_files, many_open_files, silence_dask, space_heartbeats
from ptydask.clusters.worker_processes import WorkerStart
from ptydask.errors import ClusterError, one_line
from ptydask.machine import usable_cores
from ptydask.stop_signals import close_undisturbed, for_this_process_only, held_back

_START = 300
"""Seconds for the first worker to come up: programs come from network disks that have not read them lately. Where
others are there, it is the machine that is busy."""


_END, _LOOK = 2.0, 0.02
"""Seconds for processes to show that are started while workers are killed, and between two looks; then Dask waits."""
_CLOSED = (Status.closing, Status.closed, Status.failed)
"""What Dask takes for the end of a nanny."""


class _PinnedCluster(LocalCluster):
    """A LocalCluster whose workers each have an environment of their own."""

    def __init__(self, environments: list[dict[str, str]], start: WorkerStart, **options: Any) -> None:
        self._environments, self.start_of_workers = environments, start
        self._shares: dict[int, int] = {}
        super().__init__(n_workers=0, **options)

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        """The next worker, with the share of the machine that the fewest others have."""
        ((name, spec),) = super().new_worker_spec().items()
        used = [self._shares[other] for other in list(self.worker_spec)]
        share = min(range(len(self._environments)), key=used.count)
        self._shares[name] = share
        return {name: {**spec, "options": {**spec["options"], "env": self._environments[share]}}}


class LocalWorkers:
    """See :class:`ptydask.clusters.Cluster`."""

    def __init__(self, cluster: _PinnedCluster, client: Client, limits: scaling.WorkerLimits) -> None:
        self._cluster, self.client, self._limits = cluster, client, limits
        self._asked: dict[int, float] = {}
        self._closing: set[str] = set()
        self._died = 0
        """Workers that died while they loaded programs and data."""

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        """Start and close workers. Dask's nannies start a worker again that died.

        Raises ClusterError where a worker cannot get ready or does not come up: no other one here would either. That
        one died while it loaded may be chance, as somebody else killed it; a second one has too little memory.
        """
        for why in need.unfit.values():
            self._died += why == DIED_LOADING
            if why != DIED_LOADING or self._died > 1:
                raise ClusterError(f"the workers on this machine cannot run this study: {why}")
        loads = self._worker_loads(need)
        starting = sum(not load.joined for load in loads)
        at_once = scaling.processes_at_once(usable_cores(), starting)
        decision = scaling.decide_scaling(loads, unfinished=need.unfinished, limits=self._limits, at_once=at_once)
        if decision.start:
            self._cluster.scale(len(loads) + decision.start)
        addresses = {int(name): self._worker_address(int(name)) for name in decision.close}
        # One that has no address yet is closed once it has: nobody could be told by then not to get it ready.
        close = {name: address for name, address in addresses.items() if address is not None}
        if close:
            self._closing |= set(close.values())
            self._cluster.loop.add_callback(self._cluster.scale_down, list(close))
        coming = decision.start + starting
        waiting = f"{coming} worker{'s' * (coming != 1)} starting" if coming else ""
        return ClusterStatus(coming=coming, waiting=waiting, closing=self._closing)

    def _worker_address(self, name: int) -> str | None:
        address: str | None = getattr(self._cluster.workers.get(name), "worker_address", None)
        return address

    def _worker_loads(self, need: WorkerDemand) -> list[scaling.JobLoad]:
        now = time.monotonic()
        loads = []
        alone = all(self._worker_address(name) is None for name in list(self._cluster.worker_spec))
        for name in list(self._cluster.worker_spec):
            asked = self._asked.setdefault(name, now)
            nanny = self._cluster.workers.get(name)
            address = self._worker_address(name)
            if address is not None:
                self._asked[name] = now
            elif getattr(nanny, "status", None) is Status.failed:
                raise ClusterError("a worker did not start on this machine: its process ended before it had begun")
            elif alone and now - asked > _START:
                raise ClusterError(f"a worker did not start on this machine within {_START} s")
            loads.append(scaling.JobLoad(str(name), asked, 1, int(address is not None), int(address in need.busy)))
        return loads

    def stop_workers(self) -> None:
        """Kill the worker processes; the scheduler goes on answering."""
        with held_back():  # what Ctrl-C breaks off here, Dask's own closing would wait for
            _kill_workers(self._cluster)
            self._cluster.scale(0)
            self._cluster.sync(self._cluster._correct_state)


def _kill_workers(cluster: _PinnedCluster) -> None:
    with held_back():
        until = time.monotonic() + _END
        while True:
            pids = cluster.sync(_let_nannies_go, cluster)
            for pid in pids:
                if pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            if None not in pids or time.monotonic() > until:
                return
            # What is still to come would be waited for; whoever asks for a process next starts another server.
            cluster.start_of_workers.end_server()
            time.sleep(_LOOK)


async def _let_nannies_go(cluster: _PinnedCluster) -> list[int | None]:
    """Have no worker started any more; returns the processes of those that there are, None for one that is to come.

    In Dask's own thread, in which nannies close: of one that has closed Dask would find that it never did.
    """
    cluster.worker_spec.clear()
    nannies = list(cluster._created)  # ``workers`` lacks those whose processes are starting
    for nanny in nannies:
        if nanny.status not in _CLOSED:
            nanny.close_gracefully("the workers are stopped")
    return [nanny.pid for nanny in nannies if nanny.pid is not None or nanny.status not in _CLOSED]


@contextmanager
def open_workers(
    environments: list[dict[str, str]], request: ClusterRequest, start: WorkerStart
) -> Iterator[LocalWorkers]:
    """A scheduler and the first of ``request.least`` workers, one for each environment in turn, while they are needed.

    Raises ClusterError where the scheduler does not start, or so many workers cannot be had at once.
    """
    silence_dask()
    if start.forks:
        distributed.utils._forkserver_preload_set = True  # Dask would import Pandas here, to have it there, too
    with dask.config.set({**SETTINGS, **start.settings}), many_open_files(), ExitStack() as stack:
        check_open_files(request.workers, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        with held_back():  # what it held back is raised at its end: the stack must know by then what to close
            cluster = _start_cluster(environments, start)
            stack.callback(_remove_leftovers, Path(cluster.scheduler.local_directory).parent)
            stack.callback(close_undisturbed, cluster)
            client = Client(cluster, set_as_default=False)  # it would wait for workers that are asked for already
            stack.callback(close_undisturbed, client)
            stack.callback(_kill_workers, cluster)
            cluster.scale(min(request.least, scaling.processes_at_once(usable_cores(), 0)))
        yield LocalWorkers(cluster, client, scaling.WorkerLimits(request.least, request.workers))


def _remove_leftovers(scratch: Path) -> None:
    """Remove from Dask's scratch space the locks of workers that were killed; else the next of its workers does."""
    with contextlib.suppress(OSError):
        WorkSpace(str(scratch)).new_work_dir(prefix="leftovers-").release()


def _start_cluster(environments: list[dict[str, str]], start: WorkerStart) -> _PinnedCluster:
    # The cluster's thread, and the workers that it starts, inherit from here that they never hear Ctrl-C.
    # (multiprocessing's resource tracker unblocks it in the thread that starts it, so it has to be there before.)
    resource_tracker.ensure_running()
    try:
        with for_this_process_only():
            cluster = _PinnedCluster(
                environments,
                start,
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
    space_heartbeats(cluster.scheduler)
    return cluster
