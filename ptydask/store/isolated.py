"""Reading that may end a process or never return, done by another one: HDF5 is not safe on damaged files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any

PATIENCE = 120.0
"""Seconds without a sign of life."""
_OFTEN = 1.0
"""Seconds between two signs of life of a task that takes long."""


def run(module: str, tasks: Sequence[Any], *, patience: float = PATIENCE) -> Iterator[Any]:
    """The result of each task in its turn; None for one that ended the process, or was silent for ``patience`` seconds.

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
        yield from map(json.loads, filter(None, lines))


class Sha256:
    """In the other process: a digest that says, while it is made, that work goes on: an empty line now and then."""

    def __init__(self) -> None:
        self._made, self._said = hashlib.sha256(), time.monotonic()

    def update(self, data: Any, /) -> None:
        """Take in ``data``."""
        self._made.update(data)
        if time.monotonic() - self._said > _OFTEN:
            print(flush=True)
            self._said = time.monotonic()

    def hexdigest(self) -> str:
        """The digest of all data so far."""
        return self._made.hexdigest()


def serve(work: Any) -> None:
    """In the other process: say what ``work`` makes of each task that is given."""
    for task in json.loads(sys.stdin.readline()):
        sys.stdout.write(json.dumps(work(task)) + "\n")
        sys.stdout.flush()
