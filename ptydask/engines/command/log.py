"""What a program wrote, as far as the guard has kept it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from ptydask.engines.command.guard import HEAD, SIZE_OF_TITLE, TAIL, TITLE

_PREFIX = len(TITLE.partition("{")[0])
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]")
"""Colours and other orders to a terminal, and characters that no text has."""


def size(path: Path) -> int:
    """Bytes that the program has written so far, kept or not; 0 where there is no log yet."""
    with suppress(OSError, ValueError, IndexError), path.open("rb") as file:
        return int(file.read(SIZE_OF_TITLE)[_PREFIX:].split()[0])
    return 0


def read_text(path: Path) -> str:
    """The log: all of it, or its beginning and its end with a line between them that says how much is missing."""
    try:
        with path.open("rb") as file:
            total = size(path)
            file.seek(SIZE_OF_TITLE)
            head, ring = file.read(HEAD), file.read(TAIL)
    except OSError:
        return ""
    if total <= HEAD + TAIL:
        return _decode_text(head + ring)
    oldest = (total - HEAD) % TAIL  # where in the ring the next byte would go
    missing = f"\n[... {total - HEAD - TAIL:,} bytes left out ...]\n"
    return _decode_text(head) + missing + _decode_text(ring[oldest:] + ring[:oldest])


def _decode_text(data: bytes) -> str:
    return data.decode(errors="replace").replace("\0", "\ufffd")


def lines(text: str) -> list[str]:
    """The lines of a log as a terminal would show them: the last state of a progress bar, no colours; no empty ones."""
    last_states = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    plain = (_CONTROL.sub("", line).rstrip() for line in last_states)
    return [line for line in plain if line]


def tail(text: str, count: int = 20, width: int = 500) -> str:
    """The last lines of a log, long ones cut."""
    return os.linesep.join(line if len(line) <= width else f"{line[:width]}..." for line in lines(text)[-count:])


_HEADING = "Traceback (most recent call last):"
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:: .*)?$")


def find_exception(text: str) -> str:
    """The last line of the last Python traceback in a log, ``ZeroDivisionError: float division by zero``; else empty.

    A program may write more after it: what Python had buffered comes at the very end. Of processes that a pool or a
    launcher started, the traceback can be indented or prefixed (``[rank0]:``); the prefix is left out.
    """
    exception, prefix, inside = "", "", False
    for line in lines(text):
        if line.endswith(_HEADING):
            prefix, inside = line[: -len(_HEADING)], True
            continue
        if not inside:
            continue
        content = line.removeprefix(prefix)
        if not content.startswith((" ", "\t")):  # the first line that is not indented ends a traceback
            inside = False
            if _EXCEPTION.match(content):
                exception = content
    return exception
