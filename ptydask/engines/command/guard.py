"""Runs one program and answers for everything that descends from it. A script of its own: `python -I -S guard.py`.

    guard.py LOG FOLDER -- PROGRAM [ARGUMENT ...]

The program gets this process's environment and directory, a session and process group of its own, signals as a shell
would give them, nothing to read, and one pipe for both of its outputs, which goes into LOG (see :class:`Log`).

On its standard output the guard says ``started PID`` or ``failed ERRNO``; ``ended CODE SIGNAL SECONDS STOPPED`` once
the program has, STOPPED being 1 where it was signalled before; and ``gone`` when nothing that it started is left.
``stop SECONDS`` on its standard input ends the program: SIGINT to its group, after so many seconds SIGTERM, then
SIGKILL. Should the worker die, that input ends, and with it everything here: SIGTERM, 2 s, SIGKILL; FOLDER is then
removed.

Linux hands the orphans of a guard's family to the guard (it is their subreaper), so a program that makes itself a
daemon is found as well; and kills the program should the guard be killed. Elsewhere only the process group is stopped.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress

HEAD = 512 * 1024
"""Bytes of the log that are kept from its beginning."""
TAIL = 512 * 1024
"""And from its end."""
TITLE = "ptydask log of {:020d} bytes\n"
SIZE_OF_TITLE = len(TITLE.format(0))

TERM = 5.0
"""Seconds between SIGTERM and SIGKILL for the program; fewer where it had fewer before SIGTERM."""
ABRUPT = 2.0
"""The same, once the worker is dead."""
GRACE = 0.5
"""Seconds for what the program leaves running to end by itself, before SIGTERM."""
SLOW = {"wandb-core": 8.0}
"""Longer ones, by the process's name: W&B's writes the run's file to its end, which takes up to 7 s."""
AFTER_TERM = 2.0
"""Seconds between SIGTERM and SIGKILL for what the program leaves running."""
PATIENCE = 30.0
"""Seconds after which no grace is given any more; and after which what even SIGKILL does not end is left alone."""

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG of linux/prctl.h


class Log:
    """A file of at most :data:`HEAD` + :data:`TAIL` bytes and a title, whatever is written.

    The title has the number of bytes that came; then the first HEAD bytes; then, as a ring, the last TAIL ones.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.size = 0

    def write(self, data: bytes) -> None:
        """Add to the log. A disk that is full costs what was to be written, and nothing else."""
        with suppress(OSError):
            self._put(data)
        self.size += len(data)
        with suppress(OSError):
            os.pwrite(self._file, TITLE.format(self.size).encode(), 0)

    def _put(self, data: bytes) -> None:
        offset, remaining = self.size, memoryview(data)
        while remaining:
            if offset < HEAD:
                place, end = offset, HEAD
            else:  # the ring: what comes now takes the place of the oldest bytes in it
                place, end = HEAD + (offset - HEAD) % TAIL, HEAD + TAIL
            written = os.pwrite(self._file, remaining[: end - place], SIZE_OF_TITLE + place)
            offset, remaining = offset + written, remaining[written:]


def _prctl(option: int, value: int) -> None:
    with suppress(ImportError, OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Guard:
    """One program, from its start until nothing of it is left."""

    def __init__(self, log: str) -> None:
        self.pid = 0
        self.orphaned = False
        """The worker is dead."""
        self.patience: float | None = None
        """Of a stop that was asked for."""
        self.ended: tuple[int | None, int | None] | None = None
        """The program's exit code, or the signal that it died of."""
        self.alone = False
        """This process has no children."""
        self._began, self._stopped = 0.0, False
        self._partial_order = b""
        self._log = Log(log)
        self._output, self._input = os.pipe2(os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(self._output, False)
        self._wake, wake = os.pipe()  # a signal writes a byte into it, which ends a poll
        for end in (self._wake, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        self._poll = select.poll()
        self._worker = _open_pidfd(os.getppid())
        for readable in (0, self._wake, self._output, self._worker):
            if readable >= 0:
                self._poll.register(readable, select.POLLIN)

    # --- the program ----------------------------------------------------------------------------

    def start(self, program: list[str]) -> bool:
        """Start the program; False where there is none, which the worker has then been told."""
        _prctl(_SUBREAPER, 1)
        heard, tell = os.pipe()  # closed by a program that starts
        guard, self._began = os.getpid(), time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _exec_program(program, self._input, guard)
            except OSError as error:
                os.write(tell, str(error.errno).encode())
            except BaseException:
                os.write(tell, b"0")
            os._exit(127)
        os.close(tell)
        os.close(self._input)
        failed = os.read(heard, 100)
        os.close(heard)
        tell_worker(f"failed {failed.decode()}" if failed else f"started {self.pid}")
        return not failed

    def stop(self, steps: list[tuple[int, float]]) -> None:
        """Signal the program's group, one signal after the other with so many seconds between, until it has ended."""
        orphaned = self.orphaned
        for number, seconds in steps:
            self._signal_group(number)
            if number != signal.SIGKILL:
                self._signal_group(signal.SIGCONT)  # a process that is halted hears of no other signal
            self.until(lambda: self.ended is not None or self.orphaned != orphaned, seconds)
            if self.ended is not None or self.orphaned != orphaned:
                return

    def _signal_group(self, number: int) -> None:
        self.reap()
        if self.ended is None:  # its pid, and so its group, cannot be anybody else's
            self._stopped = True
            with suppress(OSError):
                os.killpg(self.pid, number)

    # --- what the program leaves ----------------------------------------------------------------

    def clear(self) -> None:
        """End what the program has left running. Its orphans come to this process, one generation after the other."""
        began, first_seen, terminated = time.monotonic(), dict[int, float](), set[int]()
        while True:
            self.reap()
            now = time.monotonic()
            if self.alone or now - began > 2 * PATIENCE:
                return
            for pid, name in children().items():
                age = now - first_seen.setdefault(pid, now)
                grace = SLOW.get(name, GRACE)  # each process has its own time, from when it first became a child
                if self.orphaned or age >= grace + AFTER_TERM or now - began > PATIENCE:
                    kill(pid, signal.SIGKILL)
                elif age >= grace and pid not in terminated:
                    terminated.add(pid)
                    kill(pid, signal.SIGTERM)
                    kill(pid, signal.SIGCONT)
            self.turn(0.001 if self.orphaned else 0.02)

    def reap(self) -> None:
        """Take note of children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self.alone = True
                return
            if pid == 0:
                self.alone = False
                return
            if pid == self.pid and self.ended is None:
                code = os.waitstatus_to_exitcode(status)
                self.ended = (code, None) if code >= 0 else (None, -code)
                words = " ".join("-" if number is None else str(number) for number in self.ended)
                seconds = time.monotonic() - self._began
                tell_worker(f"ended {words} {seconds:.3f} {int(self._stopped)}")

    # --- what happens ---------------------------------------------------------------------------

    def until(self, condition: Callable[[], bool], seconds: float | None = None) -> None:
        """Attend to what happens until ``condition`` holds, or for so many seconds."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not condition():
            remaining = None if deadline is None else deadline - time.monotonic()
            if remaining is not None and remaining <= 0:
                return
            self.turn(remaining)

    def turn(self, seconds: float | None) -> None:
        """Attend to the next thing that happens within so many seconds."""
        for readable, _ in self._poll.poll(None if seconds is None else max(1, int(1000 * seconds))):
            if readable == self._output:
                self.drain(1)
            elif readable == self._wake:
                os.read(self._wake, 4096)
                self.reap()
            elif readable == self._worker:
                self._poll.unregister(self._worker)
                self.orphaned = True
            else:
                self._read_orders(os.read(0, 4096))

    def drain(self, most: int = 64) -> None:
        """Put into the log what the program has written, in at most so many pieces."""
        if self._output < 0:
            return
        for _ in range(most):
            try:
                data = os.read(self._output, 1 << 18)
            except BlockingIOError:
                return
            if not data:
                self._poll.unregister(self._output)
                os.close(self._output)
                self._output = -1
                return
            self._log.write(data)

    def _read_orders(self, data: bytes) -> None:
        if not data:
            self._poll.unregister(0)
            self.orphaned = True
        *lines, self._partial_order = (self._partial_order + data).split(b"\n")
        for line in lines:
            word, _, value = line.partition(b" ")
            if word == b"stop":
                self.patience = float(value)


def _exec_program(program: list[str], output: int, guard: int) -> None:
    """Turn this process, a child of the guard, into the program. Raises OSError."""
    _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(127)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, descriptor)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGCHLD", "SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvpe(program[0], program, os.environ)


def _open_pidfd(pid: int) -> int:
    """A descriptor that can be read once a process has ended; -1 where the system has none.

    What the worker has forked off may hold the other end of this process's input, which then does not end with it.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def children() -> dict[int, str]:
    """This process's children: pid -> name. Empty where the system does not say."""
    own = os.getpid()
    try:
        with open(f"/proc/{own}/task/{own}/children") as file:  # noqa: PTH123 - pathlib costs 10 ms
            pids = [int(word) for word in file.read().split()]
    except OSError:
        pids = []
        with suppress(OSError):
            pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208
    processes = {pid: _read_stat(pid) for pid in pids}
    return {pid: name for pid, (name, parent) in processes.items() if parent == own}


def _read_stat(pid: int) -> tuple[str, int]:
    """A process's name and parent; its parent is 0 where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:  # noqa: PTH123 - a name may be any bytes
            before, _, after = file.read().rpartition(") ")
    except (OSError, ValueError):
        return "", 0
    return before.partition(" (")[2], int(after.split()[1])


def kill(pid: int, number: int) -> None:
    """Signal a child of this process: until it is waited for, its pid is nobody else's."""
    with suppress(OSError):
        os.kill(pid, number)


def tell_worker(line: str) -> None:
    """Tell the worker, if it is there."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def main(log: str, folder: str, _: str, *program: str) -> None:
    """Run the program to its end, or until it is stopped."""
    guard = Guard(log)
    if not guard.start(list(program)):
        return
    guard.until(lambda: guard.ended is not None or guard.orphaned or guard.patience is not None)
    if guard.patience is not None:
        guard.stop([(signal.SIGINT, guard.patience), (signal.SIGTERM, min(TERM, guard.patience))])
    if guard.orphaned:
        guard.stop([(signal.SIGTERM, ABRUPT)])
    if guard.ended is None:
        guard.stop([(signal.SIGKILL, PATIENCE)])
    guard.drain()
    guard.clear()
    guard.drain()
    if guard.orphaned:
        import runpy

        runpy.run_path(os.path.join(os.path.dirname(__file__), "removal.py"))["remove"](folder)  # noqa: PTH118, PTH120
    tell_worker("gone")


if __name__ == "__main__":
    main(*sys.argv[1:])
