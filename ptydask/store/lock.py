"""One driver a store: the lock in its folder, and who holds it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from ptydask.errors import StoreError

NAME = "driver.lock"
PATIENCE = 12.0
"""Seconds for a driver on another host to show that it lives: some network disks lock on each host apart."""
SILENT = 60.0
"""Seconds without a sign of life after which a driver on another host counts as gone."""


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The driver that holds a store."""

    host: str
    pid: int
    since: str
    born: str = ""
    """The process's start, by its system's clock: process numbers are used again."""
    inode: int = 0
    """Of the lock's file: one with another number is a copy, whose folder nobody holds."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


def current_owner() -> LockOwner:
    """This process, from now on."""
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    return LockOwner(socket.gethostname(), os.getpid(), now, _process_start(os.getpid()))


class Lock:
    """The lock, held. It ends with :meth:`release` or with the process."""

    def __init__(self, fd: int, owner: LockOwner) -> None:
        self._fd, self.owner = fd, owner

    def beat(self) -> None:
        """Show that this driver lives."""
        with contextlib.suppress(OSError):
            os.utime(self._fd)

    def release(self) -> None:
        """Give the lock back. Harmless the second time."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = -1


def acquire(folder: Path, *, sleep: Callable[[float], None] = time.sleep) -> Lock:
    """Take the store whose folder this is (made where it is missing).

    Raises StoreError where another driver has it, naming host, process and time; OSError where the folder
    cannot be written.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # a driver that had just finished took the folder away
        try:
            _flock(fd, folder)
            # A driver that finished between opening and locking has removed the folder: what is locked then is a file
            # that nobody finds any more, and another driver would lock the next one.
            if _same_file(fd, folder / NAME):
                _wait_for_other_host(fd, folder, sleep)
                owner = replace(current_owner(), inode=os.fstat(fd).st_ino)
                text = json.dumps(asdict(owner)).encode()
                # Written first and cut to length then: between the two a reader must not find an empty file.
                os.pwrite(fd, text, 0)
                os.ftruncate(fd, len(text))
                return Lock(fd, owner)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def owner_of(folder: Path) -> LockOwner | None:
    """The driver that holds the store now, as far as a reader can tell without touching the lock."""
    path = folder / NAME
    try:
        owner, status = _parse_owner(path.read_bytes()), path.stat()
    except OSError:
        return None
    if owner is None or owner.inode not in (0, status.st_ino):
        return None
    return owner if is_alive(owner, time.time() - status.st_mtime) else None


def is_alive(owner: LockOwner, silent: float) -> bool:
    """Whether the driver still runs: by its process on this host, by its last sign of life on another."""
    if owner.host != socket.gethostname():
        return silent < SILENT
    return _process_exists(owner.pid) and owner.born == _process_start(owner.pid)


def _flock(fd: int, folder: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise _held_error(folder, _parse_owner(os.pread(fd, 4096, 0))) from error
    except OSError:
        # This disk knows no locks: what the file says has to do.
        owner = _parse_owner(os.pread(fd, 4096, 0))
        if owner is not None and owner.host == socket.gethostname() and is_alive(owner, 0):
            raise _held_error(folder, owner) from None


def _wait_for_other_host(fd: int, folder: Path, sleep: Callable[[float], None]) -> None:
    owner = _parse_owner(os.pread(fd, 4096, 0))
    if owner is None or owner.host == socket.gethostname() or owner.inode not in (0, os.fstat(fd).st_ino):
        return
    # The other driver sets the file's time again and again. One older than SILENT says that it is gone; a younger one
    # leaves that open, and is watched: a new time is a sign of life, however wrong the clocks of the hosts are.
    before = (folder / NAME).stat().st_mtime_ns
    if time.time() - before / 1e9 > SILENT:
        return
    for _ in range(4):
        sleep(PATIENCE / 4)
        if (folder / NAME).stat().st_mtime_ns != before:
            raise _held_error(folder, owner)


def _held_error(folder: Path, owner: LockOwner | None) -> StoreError:
    who = f"by another driver: {owner}" if owner is not None else "by another driver"
    return StoreError(f"{folder}: this study is being run {who}; wait for it to end, or stop it first")


def _parse_owner(text: bytes) -> LockOwner | None:
    try:
        return LockOwner(**json.loads(text))
    except (ValueError, TypeError):
        return None


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _process_start(pid: int) -> str:
    """Empty also for one that was killed, and that its parent has not yet taken notice of."""
    try:
        # The fields after the command's name, which may hold blanks and brackets; see proc(5).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZXx" else fields[19]
    except (OSError, IndexError):
        return ""
