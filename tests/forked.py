"""Command lines without a Python's start: one process has imported what others wrote, and forks for each command.

Most of what a small study costs is the import of Dask, Optuna and PyTorch, in the driver and in every worker. A forked
command is a process of its own all the same, with its own folder, environment, streams, arguments and exit code, and
so are its workers. ptydask is imported by each anew. Tests of how processes start and end start Python as anybody does.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

HEAVY = ("distributed", "h5py", "optuna", "yaml")
"""What takes long to import, and is not ours."""
PTYRAD = ("torch", "torch._dynamo", "matplotlib.pyplot", "sklearn.cluster", "ptyrad.params")
"""What PtyRAD takes besides."""
WORKERS = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}


class Commands:
    """Runs ``python -m ptydask ...`` and ``python -c ...``, one at a time."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server

    def run(
        self,
        args: Sequence[str],
        cwd: Path,
        env: Mapping[str, str] = os.environ,
        timeout: float = 120,
        imports: Sequence[str] = (),
        code: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """As subprocess.run with ``capture_output``; raises TimeoutExpired as it does.

        ``imports`` are there when it begins, and from then on. ``code`` is run instead of ptydask.
        """
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            what = {"args": list(args), "cwd": str(cwd), "env": {**WORKERS, **env}, "code": code}
            asked = json.dumps([list(imports), what]).encode()
            socket.send_fds(self._server, [len(asked).to_bytes(8)], [out.fileno(), err.fileno()])
            self._server.sendall(asked)
            pid = _number(self._server)
            self._server.settimeout(timeout)
            try:
                status = _number(self._server)
            except BaseException as error:  # the next command shall not hear of this one's end
                os.kill(pid, signal.SIGKILL)
                self._server.settimeout(None)
                _number(self._server)
                if isinstance(error, TimeoutError):
                    raise subprocess.TimeoutExpired(list(args), timeout) from None
                raise
            self._server.settimeout(None)
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read())
        return subprocess.CompletedProcess(list(args), status, *said)


@contextmanager
def commands() -> Iterator[Commands]:
    """The process that forks, for as long as it is needed; it ends with this one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # No threads where there will be forks.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
        command = [sys.executable, __file__, str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, cwd="/") as server:
            theirs.close()
            try:
                yield Commands(ours)
            finally:
                server.kill()  # it has nothing to put in order


def _number(server: socket.socket) -> int:
    """The next number from the other side, eight bytes; EOFError where it has gone."""
    data = b""
    while len(data) < 8:
        if not (more := server.recv(8 - len(data))):
            raise EOFError
        data += more
    return int.from_bytes(data, signed=True)


def _import(names: Sequence[str]) -> None:
    with warnings.catch_warnings(action="ignore"):
        for name in names:
            with suppress(ImportError):  # where PtyRAD is not installed its own tests say so
                importlib.import_module(name)


def _wait_for_a_command(client: socket.socket) -> tuple[list[int], dict[str, Any]] | None:
    """In a forked process what it is to do; None in the server, once nobody wants more."""
    while True:
        size, streams, _, _ = socket.recv_fds(client, 8, 2)
        if not size:
            return None
        asked = b""
        while len(asked) < int.from_bytes(size):
            asked += client.recv(1 << 16)
        imports, what = json.loads(asked)
        _import(imports)
        with warnings.catch_warnings(action="ignore"):  # Python 3.12 warns of threads; OpenMP's idle one is harmless
            pid = os.fork()
        if pid == 0:
            client.close()
            return streams, what
        for stream in streams:
            os.close(stream)
        client.sendall(pid.to_bytes(8, signed=True))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        client.sendall(code.to_bytes(8, signed=True))


def _become(streams: list[int], args: list[str], cwd: str, env: dict[str, str]) -> None:
    """As if Python had just been started with these arguments."""
    for stream, number in zip(streams, (1, 2), strict=True):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    others = [path for path in sys.path[1:] if path not in before]
    sys.path[:] = [cwd, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *others]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    importlib.invalidate_caches()
    sys.modules["dask"].config.refresh()
    sys.argv = ["ptydask", *args]
    if args[:1] == ["run"]:
        sys.modules["distributed.utils"]._forkserver_preload_set = True  # type: ignore[attr-defined] # it imports Pandas
        _fork_workers()


def _fork_workers() -> None:
    """Have multiprocessing's fork server here, a fork of this process, instead of a Python that it starts."""
    server = forkserver._forkserver  # type: ignore[attr-defined]
    if hasattr(server, "_forkserver_authkey"):  # Python 3.14 talks to it with a key, which only its own start gives it
        return
    alive, server._forkserver_alive_fd = os.pipe()
    server._forkserver_address = connection.arbitrary_address("AF_UNIX")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(server._forkserver_address)
        listener.listen()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as workers have it that ptydask's driver starts
        server._forkserver_pid = os.fork()
        if server._forkserver_pid == 0:
            os.close(server._forkserver_alive_fd)
            forkserver.main(listener.detach(), alive, [])
    os.close(alive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


if __name__ == "__main__":
    _import(HEAVY)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests; they close the socket
    with socket.socket(fileno=int(sys.argv[1])) as tests:
        command = _wait_for_a_command(tests)
    if command is not None:
        code = command[1].pop("code")
        _become(command[0], **command[1])
        if code:
            sys.argv[0] = "-c"
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_module("ptydask", run_name="__main__", alter_sys=True)
