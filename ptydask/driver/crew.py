"""The workers as the driver sees them: who is getting ready, who is idle, who has which trial."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import dask
from dask.utils import key_split
from distributed import Client, Future, KilledWorker

from ptydask import worker
from ptydask.clusters import DIED_LOADING, Cluster, ClusterStatus, WorkerDemand, workers_of
from ptydask.driver.contract import GOES_ON
from ptydask.driver.lending import LentCluster
from ptydask.errors import ClusterError, PtydaskError, StoppedEarly, describe_error
from ptydask.trial import reconcile

TICK = 1.0
"""Seconds between two looks at everything."""
_SHARED = 0.2
"""The same at workers, where other studies have some of them: no worker shall wait long between two studies."""
_STEP = 0.1
"""The same, while there is no worker yet."""
_FETCH = 5.0
"""Seconds for the few bytes that a worker says when it is ready."""
_SILENCE = 5.0
"""Seconds for workers to get ready before a person is told that they do."""
PATIENCE = 120.0
"""Seconds without any worker, and without any on its way, after which the run ends."""


NO_ANSWER = (TimeoutError, CancelledError, UnboundLocalError)
"""What Dask raises where a result does not come in time; the last of them where that was cancelled beneath it, as on a
machine so busy that its own timeouts end first (``distributed.utils.sync`` then has neither a result nor an error)."""
_DASK_SETTINGS = threading.Lock()
"""They are the process's, and each study of a queue has a thread."""


class _NoWorkers(StoppedEarly):
    """All workers are gone and none comes."""


@dataclass(slots=True)
class _PoolWorker:
    """One worker."""

    preparing: Future | None
    """None once it is ready."""
    task: str = ""
    """The key of its trial; empty while it is idle."""
    trials: int = 0
    """How many it was given."""

    @property
    def free(self) -> bool:
        """Whether it is ready and has no trial."""
        return self.preparing is None and not self.task


@dataclass(slots=True)
class WorkerPool:
    """Everybody who works for a run. One thread uses it, that of the driver."""

    setup: worker.RunSetup
    """Sent to each worker when it gets ready."""
    cluster: Cluster
    notice: Callable[[str], None]
    members: dict[str, _PoolWorker] = field(default_factory=dict)
    """By Dask's address."""
    tended: ClusterStatus = field(default_factory=ClusterStatus)
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the first worker that was ready said of itself and of the data."""
    _unfit: dict[str, str] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)
    _joined: float | None = None
    """When the first worker came; infinite once a person was told that it takes its time."""
    _seen: float = field(default_factory=time.monotonic)

    @property
    def client(self) -> Client:
        """The connection to the scheduler."""
        return self.cluster.client

    @property
    def interval(self) -> float:
        """Seconds between two calls of :meth:`update`."""
        return _SHARED if isinstance(self.cluster, LentCluster) else TICK

    def wait_for_first(self, unfinished: int, between: Callable[[], None] = lambda: None) -> Mapping[str, str]:
        """Wait until one worker is ready; what it says of itself and of the data.

        ``between`` is called ten times a second, and ends the waiting by what it raises.
        Raises DataError where the measurements cannot be used, ClusterError where no worker gets ready.
        """
        with self.stop_without_scheduler():
            try:
                while not self.facts:
                    self.update(unfinished)
                    self._tell_of_preparation()
                    between()
                    time.sleep(_STEP)
            except _NoWorkers as error:
                raise ClusterError(f"no worker came up within {PATIENCE:.0f} s") from error
        if self.facts.get("gpu") and self.facts.get("device") == "cpu":
            self.notice(
                f"the worker on {self.facts['host']} was given GPU {self.facts['gpu']} and computes on the CPU: "
                "its torch finds no CUDA device"
            )
        return self.facts

    def _tell_of_preparation(self) -> None:
        count, now = len(self.members), time.monotonic()
        if not count:
            return
        if self._joined is None:
            self._joined = now
        if now - self._joined > _SILENCE:
            self._joined = float("inf")
            self.notice(f"{count} worker{'s' * (count > 1)} there, loading programs and data")

    @contextmanager
    def stop_without_scheduler(self) -> Iterator[None]:
        """Whatever Dask raises in here because its scheduler is gone becomes StoppedEarly."""
        try:
            yield
        except PtydaskError:
            raise
        except Exception as error:
            if self.client.status == "running":
                raise
            raise StoppedEarly(f"the Dask scheduler is gone; {GOES_ON}") from error

    def update(self, unfinished: int, longest: float = 0.0) -> list[str]:
        """Who came, who is ready, who went; let the cluster do its part. Returns the tasks of those who went.

        ``longest`` is the time of the longest trial so far, in seconds. Raises what :meth:`wait_for_first` raises, and
        StoppedEarly where all workers are gone and none comes.
        """
        connected = self._connected_workers()
        gone = [address for address in self.members if address not in connected]
        lost = [self.members[address].task for address in gone if self.members[address].task]
        for address in gone:
            self._remove_worker(address)
        self._refused &= connected.keys()  # addresses are used again: whoever comes after one that was refused is new
        for address in connected:
            if address not in self.members and address not in self._refused and address not in self.tended.closing:
                self.members[address] = _PoolWorker(self._send_preparation(address))
        for address, member in list(self.members.items()):
            if member.preparing is not None and member.preparing.done():
                self._collect_preparation(address, member)
        self._tend_cluster(unfinished, longest)
        self._check_any_worker()
        key_split.cache_clear()  # Dask remembers the keys of 100,000 tasks there; each of ours is seen once
        return lost

    def idle_workers(self, longest: float = 0.0) -> list[str]:
        """The workers that may begin a trial now."""
        return [
            address
            for address, member in self.members.items()
            if member.free and self._in_time(address, longest) and address not in self.tended.closing
        ]

    def send_trial(self, address: str, task: str, index: int, position: int | None = None) -> Future:
        """Have this worker, and no other, run a trial; see :func:`ptydask.worker.run_trial`."""
        member = self.members[address]
        member.task, member.trials = task, member.trials + 1
        return self._submit_task(address, task, worker.run_trial, self.setup.run_id, task, index, position)

    def _submit_task(self, address: str, task: str, function: Callable[..., Any], *arguments: Any) -> Future:
        return self.client.submit(
            function, *arguments, key=task, pure=False, workers=[address], allow_other_workers=False
        )

    def set_idle(self, task: str) -> None:
        """The worker of this task may begin another trial. Not for one that went, or is going."""
        for member in self.members.values():
            if member.task == task:
                member.task = ""

    def remove_worker_of(self, task: str) -> None:
        """The worker of this task is gone, or not ready after all; whoever has its address now has to get ready."""
        for address, member in list(self.members.items()):
            if member.task == task:
                del self.members[address]

    def is_connected(self, address: str) -> bool:
        """Whether this worker is there, asked anew."""
        return address in self._connected_workers()

    def _connected_workers(self) -> Mapping[str, Any]:
        try:
            return self.cluster.connected() if isinstance(self.cluster, LentCluster) else workers_of(self.client)
        except OSError as error:
            raise StoppedEarly(f"the Dask scheduler does not answer; {GOES_ON}") from error

    def __len__(self) -> int:
        """The workers that are there and not found unfit."""
        return len(self.members)

    # --- getting ready ---

    def _send_preparation(self, address: str) -> Future:
        key = f"prepare-{uuid.uuid4().hex}"
        # The plan of a stage may hold a whole reconstruction. It is sent once, and Dask need not advise against that.
        with _DASK_SETTINGS, dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return self._submit_task(address, key, worker.prepare, self.setup, worker.versions())

    def _collect_preparation(self, address: str, member: _PoolWorker) -> None:
        assert member.preparing is not None
        if member.preparing.status == "finished":
            with suppress(*NO_ANSWER):  # it may have died since: the next look shows
                self.facts = self.facts or member.preparing.result(timeout=_FETCH)
                member.preparing = None
            return
        error = member.preparing.exception(timeout=PATIENCE)
        if isinstance(error, PtydaskError) and not self.facts:
            raise error  # what is wrong with the study, or with the environment, is so on every worker
        del self.members[address]
        self._refused.add(address)
        self._unfit[address] = _unfit_reason(error)

    def _remove_worker(self, address: str) -> None:
        member = self.members.pop(address)
        if member.preparing is not None:
            self._unfit[address] = _unfit_reason(None)
            member.preparing.cancel()

    # --- looking after them ---

    def _in_time(self, address: str, longest: float) -> bool:
        deadline = self.tended.deadlines.get(address)
        seconds = None if deadline is None else deadline - time.time()
        return reconcile.time_for_another(seconds, longest, self.members[address].trials)

    def _tend_cluster(self, unfinished: int, longest: float) -> None:
        need = WorkerDemand(
            unfinished=unfinished,
            busy=[a for a, member in self.members.items() if not member.free],
            unfit=dict(self._unfit),
            expired=[a for a, member in self.members.items() if member.free and not self._in_time(a, longest)],
        )
        self._unfit.clear()
        self.tended = self.cluster.tend(need)
        for text in self.tended.notices:
            self.notice(text)

    def _check_any_worker(self) -> None:
        now = time.monotonic()
        if self.members or self.tended.coming:
            self._seen = now
        elif now - self._seen > PATIENCE:
            raise _NoWorkers(f"no worker for {PATIENCE:.0f} s; {GOES_ON}")


def _unfit_reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, KilledWorker):
        return DIED_LOADING
    if isinstance(error, PtydaskError):
        return str(error)
    return f"it could not get ready: {describe_error(error)[:300]}"
