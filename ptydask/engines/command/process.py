"""A program and all that descends from it, seen from the worker; ``guard`` is the other side."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ptydask.engines.command import guard

MARK = "PTYDASK_FOLDER"
"""The variable that every process of a trial has in its environment; its value is the trial's own folder."""

_LONGEST = guard.TERM + 4 * guard.PATIENCE
"""Seconds that a guard may take beyond the patience it was given; then it counts as hung."""


@dataclass(frozen=True, slots=True)
class ProgramExit:
    """How a program ended."""

    code: int | None
    """None where it died of a signal."""
    signal: int | None
    seconds: float
    """From its start to its end."""
    stopped: bool = False
    """It was signalled before it ended: it did not end of its own accord."""
    lost: bool = False
    """Its guard was killed, and it with its guard."""


def start(argv: Sequence[str], cwd: Path, environ: Mapping[str, str], log: Path) -> ProgramProcess:
    """Start a program without a shell; both of its outputs go into ``log``, it has nothing to read.

    ``environ`` is all of its environment and must have :data:`MARK`; that folder is removed should this process die.
    Raises OSError where there is no such program, or no such directory.
    """
    watcher = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(log), environ[MARK], "--", *argv],
        cwd=cwd,
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
    )
    process = ProgramProcess(watcher, environ[MARK])
    process.begin()
    return process


class ProgramProcess:
    """A program under way; made by :func:`start`."""

    def __init__(self, watcher: subprocess.Popen[bytes], mark: str) -> None:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        self._guard, self._mark = watcher, mark
        self._orders: IO[bytes] = watcher.stdin
        self._messages: IO[bytes] = watcher.stdout
        self._partial_line = b""
        self._began = time.monotonic()
        self._refused: int | None = None
        self._exit: ProgramExit | None = None
        self.pid = 0
        self.ended = False
        """The program itself has ended; what it started may still be there."""
        self.gone = False
        """Nothing of it is left."""

    def begin(self) -> None:
        """Wait until the program runs. Raises OSError where it cannot be started."""
        while not self.pid and not self.gone and self._refused is None:
            self._read_guard(None)
        if self._refused is not None:
            self.wait()
            raise OSError(self._refused, os.strerror(self._refused))

    def wait(self, seconds: float | None = None) -> ProgramExit | None:
        """How it ended, once nothing of it is left; None if that takes longer than ``seconds``."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self.gone:
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return None
            self._read_guard(remaining)
        return self._exit

    def stop(self, patience: float = 15.0) -> ProgramExit:
        """End the program and all that it started: SIGINT, after ``patience`` seconds SIGTERM, then SIGKILL."""
        with suppress(OSError, ValueError):
            self._orders.write(f"stop {patience}\n".encode())
        if self.wait(patience + _LONGEST) is None:
            self._guard.kill()
        ended = self.wait()
        assert ended is not None
        return ended

    def _read_guard(self, seconds: float | None) -> None:
        """Take in what the guard says within so many seconds."""
        poll = select.poll()
        poll.register(self._messages, select.POLLIN)
        if not poll.poll(None if seconds is None else max(1, int(1000 * seconds))):
            return
        data = self._messages.read(4096)
        *lines, self._partial_line = (self._partial_line + data).split(b"\n")
        for line in lines:
            self._handle_message(line.decode().split())
        if self.gone or not data:
            self._close_guard()

    def _handle_message(self, words: Sequence[str]) -> None:
        match words:
            case ["started", pid]:
                self.pid = int(pid)
            case ["failed", number]:
                self._refused = int(number)
            case ["ended", code, number, seconds, stopped]:
                self._exit = ProgramExit(_parse_number(code), _parse_number(number), float(seconds), stopped == "1")
                self.ended = True
            case ["gone"]:
                self.gone = True

    def _close_guard(self) -> None:
        """The guard has ended; or was killed, and then what is left of the program has to be found."""
        self._orders.close()
        self._messages.close()
        self._guard.wait()
        lost = not self.gone and self._refused is None
        if lost:
            kill_marked(self._mark)
        if self._exit is None:  # or not even SIGKILL has ended it
            seconds = time.monotonic() - self._began
            self._exit = ProgramExit(None, signal.SIGKILL, seconds, stopped=not lost, lost=lost)
        self.ended = self.gone = True


def _parse_number(word: str) -> int | None:
    return None if word == "-" else int(word)


def kill_marked(folder: str, seconds: float = 10.0) -> None:
    """Kill every process whose environment has ``folder`` as its :data:`MARK`, for as long as there are any."""
    deadline = time.monotonic() + seconds
    while (pids := marked_processes(folder)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def marked_processes(folder: str) -> list[int]:
    """Processes whose environment, when they started, had ``folder`` as its :data:`MARK`; Linux only."""
    mark, pids = os.fsencode(f"{MARK}={folder}"), []
    for file in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in file.read_bytes().split(b"\0"):
                pids.append(int(file.parent.name))
    return pids
