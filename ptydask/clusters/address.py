"""A Dask scheduler that runs already, with the workers that somebody gave it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from distributed import Client, Security

from ptydask.clusters import ClusterRequest, ClusterStatus, Place, WorkerDemand, workers_of
from ptydask.clusters.settings import SETTINGS
from ptydask.errors import ClusterError, UsageError, one_line
from ptydask.stop_signals import close_undisturbed, held_back

_CONNECT = 15
"""Seconds for the scheduler to answer."""
_PATIENCE = 20.0
"""Seconds for a trial to save its state and end, before its worker is restarted."""
_LET_GO = 20.0
"""Seconds for a worker to be restarted."""
_FIELDS = {
    "tls_ca_file": "distributed.comm.tls.ca-file",
    "tls_client_cert": "distributed.comm.tls.client.cert",
    "tls_client_key": "distributed.comm.tls.client.key",
}
_TTL = 3600.0


class RunningScheduler(Place):
    """See :class:`ptydask.clusters.Place`."""

    def __init__(self, address: str) -> None:
        scheme, _, rest = address.partition("://")
        if scheme not in ("tcp", "tls") or ":" not in rest:
            raise UsageError(f"--cluster {address}: a scheduler's address is tls://HOST:PORT or tcp://HOST:PORT")
        self.address = address

    def default_workers(self) -> int:
        """As many as the scheduler has now, at least one. Raises ClusterError where it does not answer."""
        with self._connect() as client:
            return max(1, len(workers_of(client)))

    def describe(self, request: ClusterRequest) -> str:
        """Where the workers are."""
        return f"those of the running scheduler {self.address}, {request.workers} at the most"

    @contextmanager
    def open(self, request: ClusterRequest) -> Iterator[ForeignWorkers]:
        """Connect. Raises ClusterError where the scheduler does not answer in time, or refuses."""
        with self._connect() as client:
            workers = ForeignWorkers(client, self.address)
            with workers.patient():
                yield workers

    @contextmanager
    def _connect(self) -> Iterator[Client]:
        security = self._tls_security()
        with ExitStack() as stack:
            with dask.config.set({"distributed.comm.timeouts.connect": f"{_CONNECT}s"}), held_back():
                try:
                    client = Client(self.address, security=security, timeout=_CONNECT, set_as_default=False)
                except Exception as error:
                    raise ClusterError(
                        f"the scheduler at {self.address} does not answer within {_CONNECT} s, or not to us: "
                        f"{one_line(str(error)) or type(error).__name__}"
                    ) from error
                stack.callback(close_undisturbed, client)
            yield client

    def _tls_security(self) -> Security | None:
        if not self.address.startswith("tls://"):
            return None
        security = Security(require_encryption=True)
        missing = [setting for field, setting in _FIELDS.items() if not getattr(security, field)]
        if missing:
            raise ClusterError(f"{self.address} needs a certificate: set {', '.join(missing)} in Dask's configuration")
        return security


class ForeignWorkers:
    """See :class:`ptydask.clusters.Cluster`. Workers are neither started nor closed."""

    def __init__(self, client: Client, address: str) -> None:
        self.client, self._address = client, address
        self._told: set[str] = set()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """While the run lasts, the scheduler treats long trials and lost workers as one of our own would."""
        failures = int(str(SETTINGS["distributed.scheduler.allowed-failures"]))
        try:
            before = self.client.run_on_scheduler(_exchange_settings, failures, _TTL)
        except Exception as error:  # whatever its Python has, or lacks
            raise ClusterError(
                f"the scheduler at {self._address} cannot run ptydask (is it installed there?): {one_line(str(error))}"
            ) from error
        try:
            self.client.run(_ask_to_go, False, on_error="ignore")  # an earlier run may have been stopped
            yield
        finally:
            if self.client.status == "running":
                self.client.run_on_scheduler(_exchange_settings, *before)

    def tend(self, need: WorkerDemand) -> ClusterStatus:
        """Say what there is. Raises ClusterError where no worker of several, or of one, can do the work."""
        workers = set(workers_of(self.client))
        if workers and workers <= need.unfit.keys():
            raise ClusterError(f"no worker of {self._address} can run this study: {next(iter(need.unfit.values()))}")
        notices = [f"worker {worker} gets no trials: {why}" for worker, why in need.unfit.items()]
        if self._address.startswith("tcp://"):
            notices.insert(0, f"nothing is encrypted at {self._address}, and whoever reaches it can run programs there")
        new = tuple(line for line in notices if line not in self._told)
        self._told.update(new)
        waiting = "" if workers else f"the scheduler at {self._address} has no workers; start some with dask worker"
        return ClusterStatus(notices=new, waiting=waiting)

    def stop_workers(self) -> None:
        """Have trials under way save and end; worker processes that do not let go of theirs are restarted."""
        asked = busy = self._busy()
        if not asked:
            return
        self._run(_ask_to_go, True, asked)
        deadline = time.monotonic() + _PATIENCE
        while busy and time.monotonic() < deadline:
            time.sleep(0.2)
            busy = self._busy()
        workers = self.client.sync(self.client.scheduler.identity, n_workers=-1)["workers"]
        nannies = [worker for worker in busy if workers.get(worker, {}).get("nanny")]
        if nannies:
            self.client.restart_workers(nannies, timeout=_LET_GO, raise_for_error=False)
        self._run(_ask_to_go, False, [worker for worker in asked if worker not in busy])

    def _busy(self) -> list[str]:
        """Workers with tasks of this run; a running scheduler may have others' as well."""
        ours = set(self.client.futures)
        return [worker for worker, tasks in self.client.processing().items() if ours.intersection(tasks)]

    def _run(self, function: Any, argument: object, workers: list[str]) -> None:
        """Call it on the workers that answer."""
        if workers:
            with contextlib.suppress(OSError):
                self.client.sync(
                    self.client._run, function, argument, workers=workers, on_error="ignore", callback_timeout=_CONNECT
                )


def _ask_to_go(asked: bool) -> None:
    from ptydask.trial import eviction

    if asked:
        eviction.asked.set()
    else:
        eviction.asked.clear()


def _exchange_settings(failures: int, ttl: float | None, dask_scheduler: Any = None) -> tuple[int, float | None]:
    before = (dask_scheduler.allowed_failures, dask_scheduler.worker_ttl)
    dask_scheduler.allowed_failures = failures
    if before[1] and ttl:
        dask_scheduler.worker_ttl = ttl
    return before
