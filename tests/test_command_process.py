"""A program and all that it starts: begun without a shell, ended completely, heard in bounded space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_cases import PROGRAMS, processes

from ptydask.engines.command import guard, log, process
from ptydask.engines.command.process import ProgramProcess

PROGRAM = PROGRAMS / "misbehaving.py"
Start = Callable[..., ProgramProcess]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The trial's own folder."""
    made = tmp_path / "own"
    made.mkdir()
    return made


@pytest.fixture
def start(own: Path) -> Iterator[Start]:
    """Starts ``misbehaving.py``; nothing of it may be left in the end."""
    started = []

    def begin(*how: str, **environ: str) -> ProgramProcess:
        whole = {**os.environ, "PTYDASK_FOLDER": str(own), "PTYDASK_METRICS": str(own / "metrics"), **environ}
        argv = [sys.executable, "-S", str(PROGRAM), *how] if how else [sys.executable, "-c", "pass"]
        started.append(process.start(argv, own, whole, own / "log"))
        return started[-1]

    yield begin
    for one in started:
        one.stop(0.1)
    assert processes(own) == []


def until(true: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- starting and ending --------------------------------------------------------------------------


def test_exit_codes_and_signals_are_told(start: Start) -> None:
    """The code, or the signal, and seconds; a program that ends by itself was not stopped."""
    for how, code, number in (("well", 0, None), ("raises", 1, None), ("rejects", 2, None), ("dies", None, 11)):
        ended = start(how).wait()
        assert ended is not None
        assert (ended.code, ended.signal, ended.stopped, ended.lost) == (code, number, False, False)
        assert 0 < ended.seconds < 20


def test_a_program_that_is_not_there(own: Path) -> None:
    """The system's own error, and no process."""
    environ = {"PTYDASK_FOLDER": str(own), "PATH": os.environ["PATH"]}
    (own / "text").write_text("no program")
    for argv, error in ((["/no/such/program"], FileNotFoundError), ([str(own / "text")], PermissionError)):
        with pytest.raises(error):
            process.start(argv, own, environ, own / "log")
    with pytest.raises(FileNotFoundError):
        process.start(["true"], own / "nowhere", environ, own / "log")
    (own / "text").chmod(0o700)
    with pytest.raises(OSError, match="Exec format error"):
        process.start([str(own / "text")], own, environ, own / "log")
    assert processes(own) == []


def test_waiting_has_an_end(start: Start, own: Path) -> None:
    """None within so many seconds; a program that runs is stopped by one SIGINT."""
    running = start("gentle")
    until((own / "metrics").exists)
    assert running.wait(0.05) is None
    ended = running.stop()
    assert (ended.code, ended.stopped) == (3, True)
    assert running.stop() == ended


@pytest.mark.slow
def test_what_ignores_all_signals_is_killed(start: Start, own: Path) -> None:
    """A program and its daemon that ignore SIGINT and SIGTERM, in time."""
    running = start("stubborn")
    until((own / "metrics").exists)
    began = time.monotonic()
    ended = running.stop(0.3)
    assert (ended.code, ended.signal, ended.stopped) == (None, signal.SIGKILL, True)
    assert processes(own) == []
    assert time.monotonic() - began < 8


def test_a_program_that_is_halted_is_stopped(start: Start, own: Path) -> None:
    """SIGSTOP does not protect from being asked to end."""
    running = start("gentle")
    until((own / "metrics").exists)
    os.killpg(running.pid, signal.SIGSTOP)
    assert running.stop().code == 3


@pytest.mark.parametrize("how", ["forks", "daemon"])
@pytest.mark.slow
def test_what_a_program_leaves_running_is_ended(start: Start, own: Path, how: str) -> None:
    """Children, and grandchildren in a session of their own; the program's own exit counts."""
    ended = start(how).wait(20)
    assert ended is not None
    assert (ended.code, ended.stopped) == (0, False)
    assert processes(own) == []


@pytest.mark.slow
def test_what_ends_by_itself_is_given_time(start: Start, own: Path) -> None:
    """W&B's own process, by its name, has seconds to write its file; another one half of one."""
    helper = own / "wandb-core"
    helper.write_text('import os, time\nos.setsid()\ntime.sleep(1.5)\nopen("written", "w").close()\n')
    code = (
        "import os, ctypes\nif os.fork() == 0:\n"
        " ctypes.CDLL(None).prctl(15, b'{}', 0, 0, 0)\n exec(open('wandb-core').read())"
    )
    environ = {**os.environ, "PTYDASK_FOLDER": str(own)}
    for name, written in (("wandb-core", True), ("other", False)):
        (own / "written").unlink(missing_ok=True)
        process.start([sys.executable, "-c", code.format(name)], own, environ, own / "log").wait()
        assert (own / "written").exists() == written


@pytest.mark.slow
def test_a_process_of_any_name_is_ended(own: Path) -> None:
    """Also where its name is no text, or looks like the rest of what the system says of it."""
    for name in (r"\xff\xfe", ") R 1 (", r"a\nb"):
        child = f"ctypes.CDLL(None).prctl(15, b'{name}', 0, 0, 0); time.sleep(1000)"
        code = f"import os, ctypes, time\nif not os.fork():\n {child}"
        environ = {**os.environ, "PTYDASK_FOLDER": str(own)}
        process.start([sys.executable, "-S", "-c", code], own, environ, own / "log").wait()
        assert processes(own) == []


def test_a_killed_guard_takes_the_program_with_it(start: Start, own: Path) -> None:
    """And its daemon, which its environment gives away."""
    running = start("daemon_and_waits")
    until((own / "metrics").exists)
    running._guard.kill()
    ended = running.wait(20)
    assert ended is not None
    assert ended.lost
    assert processes(own) == []


FORKED = """
if not os.fork():
    for _ in range(600):
        time.sleep(0.05 if own.exists() else 0)
    os._exit(0)
"""


@pytest.mark.parametrize("forked", ["", FORKED], ids=["", "forked"])
@pytest.mark.slow
def test_a_dead_worker_leaves_nothing(own: Path, forked: str) -> None:
    """The worker killed, a program and a daemon that ignore signals: all gone in seconds, and the folder too.

    Also where something else was forked off the worker, and holds all of its pipes.
    """
    outside = own.parent / "outside"
    outside.mkdir()
    (own / "link").symlink_to(outside)
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom ptydask.engines.command import process\n"
        "own = Path(sys.argv[1])\n"
        "environ = {**os.environ, 'PTYDASK_FOLDER': str(own), 'PTYDASK_METRICS': sys.argv[2]}\n"
        "process.start([sys.executable, '-S', sys.argv[3], 'stubborn'], own, environ, own / 'log')\n"
        f"{forked}time.sleep(1000)\n"
    )
    values = own.parent / "metrics"
    with subprocess.Popen([sys.executable, "-c", code, str(own), str(values), str(PROGRAM)]) as worker:
        until(values.exists)
        assert len(processes(own)) >= 3
        worker.kill()
    until(lambda: not own.exists(), 10)
    until(lambda: not processes(own), 5)
    assert outside.is_dir()


def test_a_program_does_not_outlive_its_guard(own: Path) -> None:
    """Also where nobody is left to look for it: worker and guard killed at once."""
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom ptydask.engines.command import process\n"
        "own = Path(sys.argv[1])\nenviron = {**os.environ, 'PTYDASK_FOLDER': str(own)}\n"
        "print(process.start(['sleep', '1000'], own, environ, own / 'log').pid, flush=True)\ntime.sleep(1000)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(own)], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        program = int(worker.stdout.readline())
        (watcher,) = (one for one in processes(own) if one.pid != program)
        watcher.suspend()
        worker.kill()
        watcher.kill()
    until(lambda: not processes(own), 5)


def test_signals_are_as_a_shell_leaves_them(own: Path) -> None:
    """Also where the worker blocks Ctrl-C and ignores others, as workers on this machine do."""
    environ = {**os.environ, "PTYDASK_FOLDER": str(own), "PTYDASK_METRICS": str(own / "metrics")}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        running = process.start([sys.executable, "-S", str(PROGRAM), "environment"], own, environ, own / "log")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    running.wait()
    said = json.loads(log.read_text(own / "log"))
    assert (said["blocked"], said["interrupt"], said["group"]) == ([], True, True)
    assert said["cwd"] == str(own.resolve())


# --- the log --------------------------------------------------------------------------------------


def test_gigabytes_cost_a_megabyte(start: Start, own: Path) -> None:
    """400 MB: the beginning and the end are there, the size of the rest is said, the file stays small."""
    began = time.monotonic()
    running = start("gigabytes")
    largest = 0
    while running.wait(0.05) is None:
        largest = max(largest, (own / "log").stat().st_size)
    assert largest <= guard.HEAD + guard.TAIL + guard.SIZE_OF_TITLE
    text = log.read_text(own / "log")
    assert text.startswith("the very first line\n")
    assert text.endswith("the very last line\n")
    total = 400 * 2**20 + 39
    assert log.size(own / "log") == total
    assert f"\n[... {total - guard.HEAD - guard.TAIL:,} bytes left out ...]\n" in text
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("size", [0, 1, guard.HEAD, guard.HEAD + 1, guard.HEAD + guard.TAIL])
def test_a_log_that_fits_is_kept_whole(tmp_path: Path, size: int) -> None:
    """To the byte, however it was cut when it came."""
    data = bytes(32 + n % 90 for n in range(size))
    writer = guard.Log(str(tmp_path / "log"))
    for at in range(0, size, 77_777):
        writer.write(data[at : at + 77_777])
    assert log.read_text(tmp_path / "log") == data.decode()


@pytest.mark.parametrize("piece", [1 << 18, 100_001, 3_000_000])
def test_a_long_log_keeps_its_ends(tmp_path: Path, piece: int) -> None:
    """The first and the last half megabyte, in order."""
    size = guard.HEAD + 3 * guard.TAIL + 12_345
    data = b"".join(b"%08d" % n for n in range(size // 8 + 1))[:size]
    writer = guard.Log(str(tmp_path / "log"))
    for at in range(0, size, piece):
        writer.write(data[at : at + piece])
    head, _, tail = log.read_text(tmp_path / "log").partition("\n")
    assert head.encode() == data[: guard.HEAD]
    assert tail.partition("\n")[2].encode() == data[-guard.TAIL :]


def test_a_log_of_no_text(start: Start, own: Path) -> None:
    """Bytes that are no text are shown as such, without a NUL; a progress bar as its last state; no colours."""
    start("rubbish").wait()
    text = log.read_text(own / "log")
    assert "\0" not in text
    assert log.lines(text)[-1] == "100%"
    assert log.lines("\x1b[31mRed\x1b[0m\r\n\n  \n") == ["Red"]
