"""The whole history of a trial as a file: every row that was logged, live or in W&B's own file, once."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ptydask.engines.command.rows import Row, Tail

NAME = "history.jsonl"
"""Of the artifact."""


def history(live: Path, recorded: Sequence[Row], limit: int) -> tuple[bytes, int]:
    """JSON lines and their size in bytes; empty where they are more than ``limit`` bytes.

    ``live`` is the file that the program's values came in by, ``recorded`` are the rows of W&B's own files. Of a row
    that both have W&B's is taken, and one that only W&B has comes before the next one that both have.
    """
    if not recorded:
        return _whole(live, limit)
    lines, size = [], 0
    for row in _merged(_live(live), [row for row in recorded if not row.final]):
        line = _line(row)
        size += len(line)
        if size <= limit:
            lines.append(line)
    return (b"".join(lines) if size <= limit else b""), size


def _whole(file: Path, limit: int) -> tuple[bytes, int]:
    try:
        size = file.stat().st_size
        return (file.read_bytes() if size <= limit else b""), size
    except OSError:
        return b"", 0


def _live(file: Path) -> Iterator[Row]:
    tail = Tail(file)
    while rows := tail.new():
        yield from rows
    yield from tail.rest()


def _merged(live: Iterable[Row], recorded: Sequence[Row]) -> Iterator[Row]:
    known = {(row.run, row.step) for row in recorded}
    waiting: dict[str, deque[Row]] = {}
    for row in recorded:
        waiting.setdefault(row.run, deque()).append(row)
    for row in live:
        if (row.run, row.step) not in known:
            yield row
            continue
        ahead = waiting[row.run]
        while ahead and (ahead[0].step or 0) <= (row.step or 0):
            yield ahead.popleft()
    for rest in waiting.values():
        yield from rest


def _line(row: Row) -> bytes:
    said: dict[str, object] = {"time": row.time, "step": row.step, "metrics": dict(row.metrics)}
    if row.run:
        said["run"] = row.run
    return json.dumps(said).encode() + b"\n"
