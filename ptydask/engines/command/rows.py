"""What a program logged: rows of metrics, from its file of JSON lines as it grows, and from W&B's own file.

A line is ``{"step": 3, "metrics": {"SSIM": 0.5}}`` or, shorter, ``{"step": 3, "SSIM": 0.5}``. ``step`` may be left out.
The longer form may also have ``time`` (unix seconds) and ``run`` (the W&B run that logged it).
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ptydask.trial.metric_history import LoggedRow

MAX_LINE = 1 << 20
"""Bytes of a line; a longer one is rubbish."""
READ_AT_ONCE = 4 << 20

INTERNAL = frozenset({"_step", "_runtime", "_timestamp", "_wandb"})
"""What W&B logs of its own accord."""
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def flatten_numbers(data: Mapping[Any, Any], prefix: str = "") -> dict[str, float]:
    """The numbers in JSON-like data: names of nested ones joined with dots, all else left out.

    W&B writes NaN and the infinities as text; what it logs of its own accord (``_step`` and so on) is left out.
    """
    numbers: dict[str, float] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if name in INTERNAL:
            continue
        if isinstance(value, Mapping):
            if "_type" not in value:  # a picture, table, histogram ...: its size is no value of the program's
                numbers.update(flatten_numbers(value, f"{name}."))
            continue
        number = _to_number(value)
        if number is not None:
            numbers[name] = number
    return numbers


def _to_number(value: Any) -> float | None:
    if isinstance(value, str):
        return _NON_FINITE.get(value)
    if not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def parse(line: bytes, now: float) -> LoggedRow | None:
    """The row of one line; None where it is none. ``now`` is the time of a row that has none."""
    try:
        data = json.loads(line.decode())
        if not isinstance(data, dict):
            return None
        step = _to_step(data.pop("step", None))
        if not isinstance(data.get("metrics"), dict):
            return LoggedRow(step, flatten_numbers(data), now)
        moment, run = _to_number(data.get("time")), data.get("run")
        if moment is None or not math.isfinite(moment):
            moment = now
        return LoggedRow(step, flatten_numbers(data["metrics"]), moment, run if isinstance(run, str) else "")
    except (ValueError, RecursionError):  # broken JSON, broken UTF-8, an integer too long to read, nested too deep
        return None


def _to_step(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    whole = abs(value) < 2**53 and value == int(value)  # NaN is not below anything
    return int(value) if whole else None


class MetricsTail:
    """The file of JSON lines of a trial, read as it grows. It need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rubbish = 0
        """Lines that were no row: no JSON object, or too long."""
        self._offset = 0
        self._partial = b""
        self._skipping = False
        """The end of a line is awaited that is too long to be kept."""

    def new(self) -> list[LoggedRow]:
        """The rows since the last call, some MB at most; an empty list says that for now there are no more.

        The beginning of a line is kept until the rest is there. A file that became shorter is read anew.
        """
        rows: list[LoggedRow] = []
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset, self._partial, self._skipping = 0, b"", False
                file.seek(self._offset)
                while not rows and (chunk := file.read(READ_AT_ONCE)):
                    self._offset += len(chunk)
                    rows = self._split_rows(chunk)
        except OSError:  # not there yet, or gone
            return []
        return rows

    def rest(self) -> list[LoggedRow]:
        """The row of a last line that no line end followed, once the program has ended."""
        line, self._partial = self._partial, b""
        row = parse(line, time.time()) if line.strip() and not self._skipping else None
        return [] if row is None else [row]

    def _split_rows(self, chunk: bytes) -> list[LoggedRow]:
        *lines, partial = chunk.split(b"\n")
        if lines:
            lines[0] = self._partial + lines[0]
            if self._skipping:
                del lines[0]
            self._partial, self._skipping = b"", False
        if not self._skipping:
            self._partial += partial
            if len(self._partial) > MAX_LINE:
                self._partial, self._skipping = b"", True
                self.rubbish += 1
        now = time.time()
        parsed = [self._parse_row(line, now) for line in lines]
        return [row for row in parsed if row is not None]

    def _parse_row(self, line: bytes, now: float) -> LoggedRow | None:
        if not line.strip():
            return None
        row = parse(line, now) if len(line) <= MAX_LINE else None
        self.rubbish += row is None
        return row


def reconcile_rows(
    live: Iterable[LoggedRow], recorded: Iterable[LoggedRow], finished: Collection[str] = ()
) -> Iterator[LoggedRow]:
    """Every row once, in the order of ``live``: W&B's own, ``recorded``, and of the live ones what these lack.

    W&B writes a run's rows in order and late. A program that was killed leaves a file without the last of them, maybe
    without any; up to the last one that is there, the file is right also where several processes logged to one run,
    of which none knows the step that W&B gives to what it logs. Of the ``finished`` runs the file has all there is.
    """
    last_step: dict[str, float] = {}
    waiting: dict[str, deque[LoggedRow]] = {}
    for row in recorded:
        step = -1 if row.final else row.step or 0
        last_step[row.run] = max(last_step.get(row.run, -1), step)
        waiting.setdefault(row.run, deque()).append(row)
    for row in live:
        queue = waiting.get(row.run)
        if queue is None:  # logged without W&B, or to a run that left no file
            yield row
        elif row.step is not None:
            # The live rows say when, and between which rows of other runs, the recorded ones were logged.
            while queue and (queue[0].step or 0) <= row.step:
                yield queue.popleft()
            if row.step > last_step[row.run] and row.run not in finished:
                yield row  # the file ends before it
    for queue in waiting.values():
        yield from queue


def read_rows(file: Path) -> Iterator[LoggedRow]:
    """All rows of a trial's file of JSON lines, once nobody writes to it any more."""
    tail = MetricsTail(file)
    while rows := tail.new():
        yield from rows
    yield from tail.rest()


def whole_history(
    file: Path, recorded: Sequence[LoggedRow], finished: Collection[str], limit: int
) -> tuple[bytes, int]:
    """A trial's whole history as JSON lines, and their size in bytes; empty where that is more than ``limit``.

    ``file`` is the one that the program's values came in by, ``recorded`` and ``finished`` are as in
    :func:`reconcile_rows`.
    """
    if not recorded:
        try:
            size = file.stat().st_size
            return (file.read_bytes() if size <= limit else b""), size
        except OSError:
            return b"", 0
    lines, size = list[bytes](), 0
    for row in reconcile_rows(read_rows(file), [row for row in recorded if not row.final], finished):
        entry: dict[str, object] = {"time": row.time, "step": row.step, "metrics": dict(row.metrics)}
        if row.run:
            entry["run"] = row.run
        line = json.dumps(entry).encode() + b"\n"
        size += len(line)
        if size <= limit:
            lines.append(line)
        else:
            lines.clear()
    return b"".join(lines), size
