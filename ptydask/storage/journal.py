"""The journal file: Optuna's JSON lines, appended by exactly one process.

The format is that of Optuna's own ``JournalFileBackend``, so stock Optuna and optuna-dashboard open it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from ptydask.errors import StorageError

_FINISHED = {1, 2, 3}  # optuna.trial.TrialState COMPLETE, PRUNED, FAIL
_CREATE_TRIAL, _SET_STATE = 4, 6  # optuna.storages.journal.JournalOperation


PIECE = 1000
"""Entries that are decoded at once where many are read."""
RECENT = 10_000
"""Lines, at least, that are kept in memory, of a journal that has as many: who works asks for the latest only."""


class JournalFile:
    """The lines of one journal: on disk, and the latest in memory.

    A last line that a kill cut short is dropped on opening: whoever wrote it was never told that it was there.
    Raises StorageError where the file cannot be read, written or understood.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b", buffering=0)
            self._lock_file()
            self._recent = self._read_lines()
        except OSError as error:
            raise StorageError(f"{path}: the study's journal cannot be opened: {error.strerror}") from error
        self._starts = array("Q", accumulate((len(line) + 1 for line in self._recent), initial=0))
        """Where each line begins in the file, and the next one will."""
        self._forget()
        self._broken = False
        self.snapshot: bytes | None = None

    def _lock_file(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise StorageError(
                f"{self.path}: another run is writing this journal; wait for it, or give this study its own"
            ) from None
        except OSError as error:
            # Some network disks have no locks; the lock on the results guards the usual case.
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise

    def _read_lines(self) -> list[bytes]:
        self._file.seek(0)
        text = self._file.read()
        end = text.rfind(b"\n") + 1
        if end < len(text):
            self._file.truncate(end)
        lines = text[:end].split(b"\n")[:-1]
        for number, line in enumerate(lines, 1):
            try:
                is_entry = "op_code" in json.loads(line)
            except (ValueError, TypeError):
                is_entry = False
            if not is_entry:
                self._file.close()
                raise StorageError(
                    f"{self.path}:{number}: not a line of an Optuna journal; move the file away or name another"
                )
        return lines

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, lines: Sequence[bytes]) -> None:
        """Hand the lines to the operating system: they outlive this process, not yet a power failure.

        All of them or none: raises StorageError where the disk has no room, with the file as it was before.
        """
        if self._broken:
            raise StorageError(f"{self.path}: an earlier write failed half-way and could not be undone")
        before = self._file.seek(0, os.SEEK_END)
        data = memoryview(b"".join(line + b"\n" for line in lines))
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            try:
                self._file.truncate(before)
            except OSError:
                self._broken = True
            raise StorageError(f"{self.path}: the study's journal cannot be written: {error.strerror}") from error
        self._recent += lines
        self._starts.extend([*accumulate((len(line) + 1 for line in lines), initial=before)][1:])
        self._forget()

    def _forget(self) -> None:
        if len(self._recent) >= RECENT + RECENT // 10:  # a tenth at a time: to move the others up takes its time, too
            del self._recent[:-RECENT]

    def since(self, number: int) -> list[bytes]:
        """Every line from ``number`` (counted from 0) on. Raises StorageError where the disk does not give them."""
        if number >= len(self):
            return []
        forgotten = len(self) - len(self._recent)
        if number >= forgotten:
            return self._recent[number - forgotten :]
        begin, end = self._starts[number], self._starts[forgotten]
        try:
            earlier = os.pread(self._file.fileno(), end - begin, begin).split(b"\n")[:-1]
        except OSError as error:
            raise StorageError(f"{self.path}: the study's journal cannot be read: {error.strerror}") from error
        if len(earlier) < forgotten - number:
            raise StorageError(f"{self.path}: somebody else has cut the study's journal short; start the run again")
        return [*earlier, *self._recent]

    def sync(self) -> None:
        """Wait until the disk has everything that was appended so far."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):
                self.sync()
            self._file.close()


class FileBackend(BaseJournalBackend):
    """The journal where no scheduler serves it: this process owns the file itself."""

    def __init__(self, file: JournalFile) -> None:
        self.file = file

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append; on disk on return where a trial ended."""
        self.file.append(encode(logs))
        if must_last(logs):
            self.file.sync()

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Entries from a number on."""
        return decode(self.file.since(log_number_from))


def encode(logs: Iterable[dict[str, Any]]) -> list[bytes]:
    """Optuna's log entries as lines, as its own file backend writes them."""
    return [json.dumps(log, separators=(",", ":")).encode() for log in logs]


def decode(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The inverse of :func:`encode`, piece by piece: entries need five times the memory of their lines."""
    rest = iter(lines)
    while piece := list(islice(rest, PIECE)):
        yield from json.loads(b"[%s]" % b",".join(piece))  # in half the time of one by one


def must_last(logs: Iterable[dict[str, Any]]) -> bool:
    """Whether an entry says that a trial ended, which has to be on disk before anybody is told."""
    return any(log.get("op_code") in (_CREATE_TRIAL, _SET_STATE) and log.get("state") in _FINISHED for log in logs)
