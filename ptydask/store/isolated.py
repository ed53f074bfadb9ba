"""Reading that may end a process or never return, done by another one: HDF5 is not safe on damaged files.

Question and answer are one line of JSON each. ``checks`` says which questions there are; every answer has

``problems``  pairs: where in the file, and what is wrong there
``trouble``   in one line why what was asked for is not whole; missing where it is
``unread``    true where no answer could be read, so that nothing else is in it
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from queue import SimpleQueue
from typing import Any

from ptydask.errors import StoreError
from ptydask.machine import usable_cores
from ptydask.store import byte_seal, index

Answer = Mapping[str, Any]
PATIENCE = 120.0
"""Seconds without a sign of life."""
_OFTEN = 1.0
"""Seconds between two signs of life of a question that takes long."""
_PROCESSES = 4
"""Processes that read side by side, at most: each takes as much memory as one that has imported h5py."""
_WORTH = 100
"""Questions for each of them, at least, so that its start is worth its time."""
DEAD: Answer = {
    "problems": [["", "is damaged beyond reading: HDF5 crashes or hangs on it"]],
    "trouble": "HDF5 crashes or hangs on it",
    "unread": True,
}


class ChildReader(AbstractContextManager["ChildReader"]):
    """Another process that reads files and answers questions about them, one after the other.

    It starts with the first question, stays for all that follow, and ends with the ``with`` statement. A question
    that ends it, or keeps it silent for ``patience`` seconds, costs its own answer only: the next one starts another
    process. ``module`` is run with ``-m`` and calls :func:`serve`.
    """

    def __init__(self, module: str = "ptydask.store.checks", *, patience: float = PATIENCE) -> None:
        self._module, self._patience = module, patience
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = False

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process. Another question starts another one."""
        self._drop_child()
        self._ended = False

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def ask(self, **question: Any) -> Answer:
        """The answer; :data:`DEAD` where the question ended the process or kept it silent for too long."""
        used = self._child is not None
        try:
            return self._answer(json.dumps(question).encode())
        except TimeoutError:
            self._drop_child()
        except (EOFError, BrokenPipeError):
            self._drop_child()
            # What was read before may have spoiled the process's memory: in a fresh one it is this question's fault.
            if used and not self._ended:
                return self.ask(**question)
        return DEAD

    def ask_each(self, questions: Sequence[Mapping[str, Any]]) -> Generator[Answer]:
        """The answers, in the order of the questions; to be closed. Of many, several processes read some each."""
        count = min(_PROCESSES, usable_cores(), len(questions) // _WORTH)
        if count < 2:
            yield from (self.ask(**question) for question in questions)
            return
        readers = [self, *(ChildReader(self._module, patience=self._patience) for _ in range(count - 1))]
        free: SimpleQueue[ChildReader] = SimpleQueue()
        for reader in readers:
            free.put(reader)

        def ask(question: Mapping[str, Any]) -> Answer:
            reader = free.get()
            try:
                return reader.ask(**question)
            finally:
                free.put(reader)

        with ExitStack() as stack:
            for reader in readers:
                stack.callback(reader.close)
            pool = stack.enter_context(ThreadPoolExecutor(count))
            for reader in readers:
                stack.callback(reader._end)  # before the threads are waited for: whoever asks is not kept by a question
            yield from pool.map(ask, questions)

    def _end(self) -> None:
        """End the process until :meth:`close`: a question that another thread has asked, or will ask, has no answer."""
        self._ended = True
        if self._child is not None:
            self._child.kill()

    def _answer(self, question: bytes) -> Answer:
        if self._ended:
            raise EOFError
        if self._child is None:
            self._child = _start_child(self._module)
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(question + b"\n")
        self._child.stdin.flush()
        received = bytearray()
        # The signs of life before an answer are empty lines, white space to JSON.
        while received.isspace() or not received.endswith(b"\n"):
            if not select.select([self._child.stdout], [], [], self._patience)[0]:
                raise TimeoutError
            data = os.read(self._child.stdout.fileno(), 1 << 20)
            if not data:
                raise EOFError
            received += data
        answer: Answer = json.loads(received)
        return answer


def _start_child(module: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )


def find_deadly(rows: Sequence[index.TrialRow], intact: byte_seal.IntactFiles) -> dict[int, str]:
    """Why, for each trial whose facts HDF5 crashes or hangs on: it is not to be copied by the process that asks.

    Raises StoreError for one in a packed file. Data of fixed size have checksums, and do no such harm; files that are
    ``intact`` need not be looked into.
    """
    dead: dict[int, str] = {}
    rows = [row for row in rows if row.file not in intact]
    with ChildReader() as child:
        questions = [{"what": "facts", "path": str(row.file), "group": row.group} for row in rows]
        with closing(child.ask_each(questions)) as answers:
            silent = [row for row, answer in zip(rows, answers, strict=True) if answer is DEAD]
    for row in silent:
        if not row.alone:
            raise StoreError(f"{row.file}: trial {row.record.number} cannot be read from it: {DEAD['trouble']}")
        dead[row.record.number] = f"{row.file.name}: {DEAD['trouble']}"
    return dead


def find_altered(rows: Sequence[index.TrialRow]) -> dict[int, str]:
    """Why, for each trial of files whose bytes changed that holds something else, too, than was written.

    Whoever opens a file with ``r+`` changes bytes of its header, and none of its content.
    """
    with ChildReader() as child:
        questions = [{"what": "trial", "path": str(row.file), "group": row.group} for row in rows]
        answers = dict(zip([row.record.number for row in rows], child.ask_each(questions), strict=True))
    seals = {row.record.number: row.sha256 for row in rows}
    return {
        number: "its bytes changed since its worker wrote it"
        for number, answer in answers.items()
        if answer.get("sha256") != seals[number]
    }


# --- in the other process -----------------------------------------------------------------------------


class HeartbeatSha256:
    """A digest that says, while it is made, that work goes on: an empty line now and then."""

    def __init__(self) -> None:
        self._sha, self._last_sign = hashlib.sha256(), time.monotonic()

    def update(self, data: Any, /) -> None:
        """Take in ``data``."""
        self._sha.update(data)
        if time.monotonic() - self._last_sign > _OFTEN:
            print(flush=True)
            self._last_sign = time.monotonic()

    def hexdigest(self) -> str:
        """The digest of all data so far."""
        return self._sha.hexdigest()


def serve(work: Callable[..., Any]) -> None:
    """Answer each question with what ``work`` makes of it, until there are no more."""
    for question in sys.stdin:
        print(json.dumps(work(**json.loads(question))), flush=True)
