"""Temporary database servers on loopback, each ended by who started it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return folders[-1] if folders else None


@contextmanager
def postgres(password: str) -> Iterator[str]:
    """The URL of an empty database, its user's password in it. PostgreSQL refuses to run as root."""
    programs = postgres_programs()
    assert programs is not None
    user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
    as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if os.getuid() == 0 else []
    folder = Path(tempfile.mkdtemp(prefix="ptydask-pg-"))
    port = free_port()
    try:
        if as_user:
            shutil.chown(folder, user, user)
        (folder / "password").write_text(password)
        (folder / "password").chmod(0o644)
        data, log = str(folder / "data"), str(folder / "log")
        tool = [*as_user, str(programs / "pg_ctl"), "-D", data]
        initdb = f"-U tuner --pwfile={folder / 'password'} -A scram-sha-256 --no-sync"
        _quiet([*tool, "initdb", "-o", initdb])
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        try:
            _quiet([*tool, "start", "-w", "-t", "60", "-l", log, "-o", options])
            yield f"postgresql://tuner:{password}@127.0.0.1:{port}/postgres"
        finally:
            _quiet([*tool, "stop", "-m", "immediate"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis(password: str) -> Iterator[str]:
    """The URL of an empty Redis that wants a password."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="ptydask-redis-"))
    options = [
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--requirepass",
        password,
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield f"redis://:{password}@127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(timeout=20)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert server.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("redis-server did not answer")


def _quiet(command: list[str]) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stdout
