"""Reading that may end a process or never return, done by another one: HDF5 is not safe on damaged files."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import IO, Any

PATIENCE = 120.0
"""Seconds for one task."""


def run(module: str, tasks: Sequence[Any], *, patience: float = PATIENCE) -> Iterator[Any]:
    """The result of each task in its turn, None for one that ended the process or took more than ``patience`` seconds.

    ``module`` is run with ``-m`` and calls :func:`serve`. Tasks and results are plain JSON values.
    """
    done = 0
    while done < len(tasks):
        with _process(module) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(json.dumps(tasks[done:]).encode() + b"\n")
                child.stdin.flush()
            for result in _lines(child.stdout, patience):
                done += 1
                yield result
        if done < len(tasks):
            done += 1
            yield None


@contextlib.contextmanager
def _process(module: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as child:
        try:
            yield child
        finally:
            child.kill()
            with contextlib.suppress(BrokenPipeError):
                child.communicate()


def _lines(stream: IO[bytes], patience: float) -> Iterator[Any]:
    rest = b""
    while select.select([stream], [], [], patience)[0]:
        data = os.read(stream.fileno(), 1 << 20)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


def serve(work: Any) -> None:
    """In the other process: say what ``work`` makes of each task that is given."""
    for task in json.loads(sys.stdin.readline()):
        sys.stdout.write(json.dumps(work(task)) + "\n")
        sys.stdout.flush()
