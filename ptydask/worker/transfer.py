"""Trial files and checkpoints of workers that do not see the results' folder: they travel on the Dask connection.

The scheduler process, which is the driver's own or sees its disk, writes them as a worker would have.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distributed import get_worker

from ptydask.errors import StoreError, one_line
from ptydask.storage.transport import Service, call_scheduler
from ptydask.store import checkpoints, contents, files, names

if TYPE_CHECKING:
    from distributed import Scheduler

_CALL = "ptydask_file"
PIECE = 1 << 24
"""Bytes in one message."""
Kind = Literal["trial", "checkpoint"]
_PATHS: dict[str, Callable[[Path, int], Path]] = {"trial": names.shard_path, "checkpoint": names.checkpoint_path}


class FileService(Service):
    """The scheduler's end."""

    def __init__(self, folder: Path, store_id: str, client: str = "") -> None:
        super().__init__(store_id, client)
        self.folder, self.store_id = folder, store_id

    async def start(self, scheduler: Scheduler) -> None:
        """Answer calls. Raises StoreError where this process does not see the folder."""
        self.take_place(scheduler)
        if not folder_visible(self.folder, self.store_id):
            raise StoreError(f"{self.folder}: the Dask scheduler does not see this folder; run where it does")
        scheduler.handlers[_CALL] = self.answer

    async def answer(
        self,
        kind: Kind,
        number: int,
        offset: int,
        piece: bytes | None = None,
        upload: str = "",
        sha256: str = "",
        store: str = "",
    ) -> bytes | str:
        """Take a piece of a file (the last one carries the SHA-256 of the whole), or give one.

        An error comes back as its words: a traceback on the scheduler helps nobody.
        """
        if store != self.store_id and (other := self.service_for(store)) is not None:
            told: bytes | str = await other.answer(kind, number, offset, piece, upload, sha256, store)
            return told
        path = _PATHS[kind](self.folder, int(number))
        if store not in ("", self.store_id):  # a trial may outlive its run, which was killed
            return f"{path}: the scheduler serves another study now"
        try:
            if piece is None:
                return await asyncio.to_thread(_read_piece, path, offset)
            await asyncio.to_thread(self._put, path, upload, offset, piece, sha256)
        except OSError as error:
            return f"{path}: {error.strerror or one_line(str(error))}"
        return b""

    def _put(self, path: Path, upload: str, offset: int, piece: bytes, sha256: str) -> None:
        if re.fullmatch("[0-9a-f]{12}", upload) is None:
            raise OSError("not the name of an upload")
        aside = files.aside_of(path, upload)
        try:
            with aside.open("r+b" if offset else "xb") as out:
                out.seek(offset)
                out.write(piece)
                if not sha256:
                    return
                out.flush()
                os.fsync(out.fileno())
            if files.sha256(aside) != sha256:
                raise OSError("the file did not arrive whole")
            aside.replace(path)
        except OSError:  # a full disk least of all can hold what came so far
            aside.unlink(missing_ok=True)
            raise
        files.sync_folder(path.parent)


def _read_piece(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(PIECE)
    except FileNotFoundError:
        return b""


def folder_visible(folder: Path, store_id: str) -> bool:
    """Whether this process sees the folder of that store, and may write into it."""
    try:
        card = contents.read_card(folder)
    except (OSError, StoreError):
        return False
    return card is not None and card[0] == store_id and os.access(folder, os.W_OK)


class SharedFolder:
    """Where a worker's files go: into the results' folder itself."""

    def __init__(self, folder: Path, store_id: str = "") -> None:
        self.folder = folder
        """Trial files are written here."""
        self._store = store_id

    def check(self) -> None:
        """Raise StoreError where the folder is that of another study by now, as of the next stage.

        A worker that everybody has given up may still have come to the end of its trial, of the same number as one of
        theirs.
        """
        card = contents.read_card(self.folder)
        if card is not None and card[0] != self._store:
            raise StoreError(f"{self.folder}: holds trials of another study now")

    def deliver(self, number: int) -> None:
        """Return when the trial's file is durable in the results' folder: it is there already. Raises StoreError."""

    def load(self, number: int) -> bytes | None:
        """A trial's checkpoint; None where there is none. Raises OSError or StoreError."""
        return checkpoints.read(self.folder, number)

    def save(self, number: int, data: bytes) -> None:
        """Keep a checkpoint. Raises OSError or StoreError."""
        checkpoints.write(self.folder, number, data)

    def close(self) -> None:
        """Leave nothing behind that is this worker's."""


class OverTheConnection(SharedFolder):
    """A folder of this worker's own, emptied into the results' folder over the Dask connection."""

    def __init__(self, store_id: str = "") -> None:
        # Dask removes it with the rest of the worker's scratch space, however the worker ends.
        super().__init__(Path(tempfile.mkdtemp(prefix="trials-", dir=get_worker().local_directory)), store_id)

    def deliver(self, number: int) -> None:
        """See :class:`SharedFolder`."""
        path = names.shard_path(self.folder, number)
        _send_file("trial", number, path.read_bytes(), self._store)
        path.unlink()

    def load(self, number: int) -> bytes | None:
        """See :class:`SharedFolder`."""
        pieces, offset = [], 0
        while piece := _ask_scheduler(kind="checkpoint", number=number, offset=offset, store=self._store):
            pieces.append(piece)
            offset += len(piece)
        return b"".join(pieces) or None

    def save(self, number: int, data: bytes) -> None:
        """See :class:`SharedFolder`."""
        _send_file("checkpoint", number, data, self._store)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def choose_shelf(folder: Path, store_id: str) -> SharedFolder:
    """The way for this worker."""
    return SharedFolder(folder, store_id) if folder_visible(folder, store_id) else OverTheConnection(store_id)


def _send_file(kind: Kind, number: int, data: bytes, store: str) -> None:
    upload, digest = secrets.token_hex(6), hashlib.sha256(data).hexdigest()
    for offset in range(0, max(1, len(data)), PIECE):
        _ask_scheduler(
            kind=kind,
            number=number,
            offset=offset,
            piece=data[offset : offset + PIECE],
            upload=upload,
            sha256=digest if offset + PIECE >= len(data) else "",  # with the last piece the file is complete
            store=store,
        )


def _ask_scheduler(**message: Any) -> bytes:
    answer = call_scheduler(_CALL, **message)
    if isinstance(answer, str):
        raise StoreError(answer)
    return bytes(answer)
