"""What a function prints, kept as its trial's log: the beginning and the end."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

HEAD, TAIL = 32_000, 128_000
"""Characters that are kept of the beginning and of the end."""


class PrintedLog(io.TextIOBase):
    """A text stream that keeps its beginning and its end."""

    def __init__(self) -> None:
        self._head, self._room = list[str](), HEAD
        self._tail, self._size, self._lost = deque[str](), 0, 0

    def writable(self) -> bool:
        """True: a program may ask."""
        return True

    def write(self, text: str) -> int:
        """Keep ``text``; what is no longer the end is let go."""
        # Whole pieces are dropped from the front of the tail, so it may hold up to one piece more than TAIL.
        first, rest = text[: self._room], text[self._room :]
        if first:
            self._head.append(first)
            self._room -= len(first)
        if rest:
            self._tail.append(rest)
            self._size += len(rest)
            while self._size - len(self._tail[0]) >= TAIL:
                dropped = len(self._tail.popleft())
                self._size -= dropped
                self._lost += dropped
        return len(text)

    def text(self) -> str:
        """All that was kept, with a line where something is missing."""
        head, tail = "".join(self._head), "".join(self._tail)
        cut = max(0, len(tail) - TAIL)
        lost = self._lost + cut
        gap = f"\n[... {lost} characters left out ...]\n" if lost else ""
        return head + gap + tail[cut:]


@contextlib.contextmanager
def capture_output() -> Iterator[PrintedLog]:
    """A stream that gets what this process prints and logs inside the ``with``; one trial at a time runs in it."""
    stream = PrintedLog()
    screens = {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}
    redirected = [(handler, handler.stream) for handler in _stream_handlers() if handler.stream in screens]
    for handler, _ in redirected:
        handler.setStream(stream)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield stream
    finally:
        for handler, screen in redirected:
            handler.setStream(screen)
        for handler in _stream_handlers():
            if handler.stream is stream:  # the function itself has added it: the next trial has another stream
                handler.setStream(sys.stderr)


def _stream_handlers() -> Iterator[logging.StreamHandler[Any]]:
    """The handlers that write to a stream, of every logger but Dask's."""
    loggers = logging.root.manager.loggerDict.items()
    others = [logger for name, logger in loggers if name.partition(".")[0] != "distributed"]
    for logger in (logging.root, *others):
        for handler in getattr(logger, "handlers", ()):  # a place that no logger has taken yet has none
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                yield handler
