"""Optuna's journal storage over the Dask connection.

The scheduler process owns the :class:`JournalFile`. Everybody else appends and reads through two calls on the
connection that Dask keeps anyway, so its TLS is the only door and no file or lock is shared over a network disk.
An append brings back what others appended meanwhile: the read that Optuna does right after it costs nothing. Of its
own trial a worker waits only for the number, for the lease before it computes, and for the end: see
:mod:`ptydask.storage.ahead`.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import sync

from ptydask.errors import StorageError
from ptydask.storage.ahead import NOTHING, AheadBackend
from ptydask.storage.journal import JournalFile

if TYPE_CHECKING:
    from distributed import Client, Scheduler
    from optuna.storages import BaseStorage

_CALL = "ptydask_journal"
FRESH = 0.01
"""Seconds for which a worker takes what it knows for what there is: Optuna asks five times when a trial begins."""
SOON = 0.5
"""Seconds until what a worker wrote of its trial is sent, where no call takes it along before: others look at it."""


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


class DaskBackend(AheadBackend):
    """Any other process's end: in tasks on a worker, which write of their own trials only, or beside ``client``."""

    def __init__(self, journal: Path, client: Client | None = None) -> None:
        super().__init__(waits=client is not None)
        self._journal, self._client = str(journal), client
        self._asked = -float("inf")
        self._asked_in = ""
        self._due = False

    def _call_journal(self, **message: Any) -> Any:
        return call_scheduler(_CALL, self._client, journal=self._journal, **message)

    def _is_fresh(self) -> bool:
        # The driver corrects what workers did, and has to see all of it. A task has to see what the driver did before
        # it sent the task: a trial that is to be tried again waits there.
        if self._client is not None or self._asked_in != get_worker().get_current_task():
            return False
        return time.monotonic() - self._asked < FRESH

    def _note_answer(self) -> None:
        if self._client is None:
            self._asked, self._asked_in = time.monotonic(), str(get_worker().get_current_task())

    def _send_soon(self) -> None:
        if not self._due:
            self._due, worker = True, get_worker()
            worker.loop.add_callback(worker.loop.call_later, SOON, self._send_unsent, worker.scheduler)

    async def _send_unsent(self, scheduler: Any) -> None:
        self._due = False
        if not self._unsent or not self._calling.acquire(blocking=False):
            return  # the call that is under way takes them along
        try:
            with suppress(Exception):  # the next call that waits sends them again, and the trial hears of it
                sent = self._unsent[:]
                await getattr(scheduler, _CALL)(journal=self._journal, lines=sent, known=NOTHING)
                del self._unsent[: len(sent)]
        finally:
            self._calling.release()


def flush(storage: BaseStorage) -> None:
    """Return when everything that this process wrote is with the journal's owner; nothing to do for a server."""
    backend = _ahead_of(storage)
    if backend is not None:
        backend.flush()


def position(storage: BaseStorage) -> int | None:
    """How many entries of the journal this process knows of; None for a server."""
    backend = _ahead_of(storage)
    return None if backend is None else backend.known


def be_content(storage: BaseStorage, position: int | None = 0) -> None:
    """Take what is known here for all there is until the next call that waits, if it reaches to ``position``."""
    backend = _ahead_of(storage)
    if backend is not None:
        backend.content = position is not None and backend.known >= position


def _ahead_of(storage: BaseStorage) -> AheadBackend | None:
    backend = getattr(storage, "_backend", None)
    return backend if isinstance(backend, AheadBackend) else None
