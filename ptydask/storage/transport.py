"""Optuna's journal storage over the Dask connection.

The scheduler process owns the :class:`JournalFile`. Everybody else appends and reads through two calls on the
connection that Dask keeps anyway, so its TLS is the only door and no file or lock is shared over a network disk.
An append brings back what others appended meanwhile: the read that Optuna does right after it costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import sync
from optuna.storages.journal import BaseJournalBackend
from optuna.storages.journal._base import BaseJournalSnapshot

from ptydask.errors import StorageError
from ptydask.storage.journal import JournalFile, decode, encode, must_last

if TYPE_CHECKING:
    from distributed import Client, Scheduler

_CALL = "ptydask_journal"
FRESH = 0.01
"""Seconds for which a worker takes what it knows for what there is: Optuna asks five times when a trial begins."""


class Service(SchedulerPlugin):
    """Answers one kind of call, for one study: a scheduler that is not the run's own outlives it.

    Register it with ``client.register_plugin``; :func:`withdraw` ends it. A client whose studies share workers has one
    for each: whichever hears a call passes it on to the one that it is meant for.
    """

    idempotent = False
    """Dask would keep the one of a run that was killed."""

    def __init__(self, key: str, client: str = "") -> None:
        self.name = self.name_for(key)
        self._client = client
        """Dask's id of the run's client."""

    @classmethod
    def name_for(cls, key: str) -> str:
        """Dask's name of the service for the study that ``key`` tells from others."""
        return f"ptydask-{cls.__name__} {key}"

    def take_place(self, scheduler: Scheduler) -> None:
        """Take the place of those whose run was killed. Raises StorageError where another run goes on."""
        self._scheduler = scheduler
        for before in [other for other in scheduler.plugins.values() if type(other) is type(self)]:
            if before.name != self.name and before._client and before._client == self._client:
                continue
            if before._client in scheduler.clients:
                raise StorageError("another run of ptydask uses this scheduler; wait for it, or give each its own")
            before.leave(scheduler)

    def service_for(self, key: str) -> Any:
        """The service of the same kind for another study; None where there is none."""
        return self._scheduler.plugins.get(self.name_for(key))

    def leave(self, scheduler: Scheduler) -> None:
        """Answer no more, and let go of everything."""
        scheduler.plugins.pop(self.name, None)


def withdraw(client: Client, name: str) -> None:
    """End the service of that name; nothing where there is none."""
    client.run_on_scheduler(_leave_scheduler, name)


def _leave_scheduler(name: str, dask_scheduler: Any = None) -> None:
    service = dask_scheduler.plugins.get(name)
    if service is not None:
        service.leave(dask_scheduler)


class JournalService(Service):
    """The scheduler's end. Register it before any storage connects."""

    def __init__(self, path: Path, client: str = "") -> None:
        super().__init__(str(path), client)
        self.path = path

    async def start(self, scheduler: Scheduler) -> None:
        """Open the journal and answer calls. Raises StorageError where that cannot be done."""
        self.take_place(scheduler)
        self._file = JournalFile(self.path)
        self._syncing: asyncio.Task[None] | None = None
        scheduler.handlers[_CALL] = self.answer

    def leave(self, scheduler: Scheduler) -> None:
        """See :class:`Service`."""
        super().leave(scheduler)
        self._file.close()

    async def close(self) -> None:
        """Write out and let go of the file."""
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        self._file.close()

    async def answer(
        self,
        journal: str,
        lines: list[bytes] | None = None,
        known: int = 0,
        durable: bool = False,
        snapshot: bytes | None = None,
        want_snapshot: bool = False,
    ) -> list[bytes] | bytes | None:
        """Append ``lines``; give back everything from line ``known`` on (or the latest snapshot).

        Raises StorageError for another ``journal``: a trial may outlive its run, which was killed.
        """
        if journal != str(self.path):
            other = self.service_for(journal)
            if other is None:
                raise StorageError(f"the scheduler serves another study now, not {journal}")
            told: list[bytes] | bytes | None = await other.answer(
                journal, lines, known, durable, snapshot, want_snapshot
            )
            return told
        if snapshot is not None:
            self._file.snapshot = snapshot
            return None
        if want_snapshot:
            return self._file.snapshot
        if lines:
            self._file.append(lines)
            if durable:
                await self._on_disk()
        return self._file.since(known)

    async def _on_disk(self) -> None:
        # One fsync at a time. Whoever comes while one is under way waits for the next, which serves all of them.
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(asyncio.to_thread(self._file.sync))
        await self._syncing


def call_scheduler(handler: str, client: Client | None = None, **message: Any) -> Any:
    """Call a handler of the scheduler: from a task on a worker, or beside ``client``."""
    if client is not None:
        return client.sync(getattr(client.scheduler, handler), **message)
    worker = get_worker()
    return sync(worker.loop, getattr(worker.scheduler, handler), **message)


class DaskBackend(BaseJournalBackend, BaseJournalSnapshot):
    """Any other process's end: in a task on a worker, or beside ``client``."""

    def __init__(self, journal: Path, client: Client | None = None) -> None:
        self._journal, self._client = str(journal), client
        self._brought: tuple[int, list[bytes]] | None = None
        self._known = 0
        self._asked = -float("inf")
        self._asked_in = ""

    def _call_journal(self, **message: Any) -> Any:
        return call_scheduler(_CALL, self._client, journal=self._journal, **message)

    def _is_fresh(self) -> bool:
        # The driver corrects what workers did, and has to see all of it. A task has to see what the driver did before
        # it sent the task: a trial that is to be tried again waits there.
        if self._client is not None or self._asked_in != get_worker().get_current_task():
            return False
        return time.monotonic() - self._asked < FRESH

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append, on the owner's disk on return where a trial ended."""
        lines = self._call_journal(lines=encode(logs), known=self._known, durable=must_last(logs))
        self._brought = (self._known, lines)

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        """Entries from a number on: those that the last append brought, else a call."""
        brought, self._brought = self._brought, None
        if brought is None or brought[0] != log_number_from:
            if log_number_from == self._known and self._is_fresh():
                return []
            brought = (log_number_from, self._call_journal(known=log_number_from))
        self._known = log_number_from + len(brought[1])
        if self._client is None:
            self._asked, self._asked_in = time.monotonic(), str(get_worker().get_current_task())
        return decode(brought[1])

    def save_snapshot(self, snapshot: bytes) -> None:
        """Keep the replayed state for workers that join later."""
        self._call_journal(snapshot=snapshot)

    def load_snapshot(self) -> bytes | None:
        """The latest replayed state; JournalStorage reads on from there."""
        answer: bytes | None = self._call_journal(want_snapshot=True)
        return answer
