"""All of docs/benchmarks.md: its programs one after another, each of which writes its own section.

    ./jobs/bench.sh

A program that fails is said at the end, and makes the exit code 1; its section stays as it was.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sections import ORDER, ROOT

PATIENCE = 10.0
"""Seconds that an interrupted program has to end what it started."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One program."""

    name: str
    code: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.name:<16}{self.seconds:>6.0f} s" + (f"  failed: exit code {self.code}" if self.code else "")


def programs() -> list[str]:
    """The names of ORDER whose programs write a section, in that order."""
    sources = {name: ROOT / "benchmarks" / f"{name}.py" for name in ORDER}
    return [name for name, file in sources.items() if file.exists() and "add_write_argument(" in file.read_text()]


def run_all(names: Sequence[str], run: Callable[[str], int]) -> list[Ran]:
    """Runs each, whatever became of those before; says which one runs, and how long it took."""
    ran = []
    for place, name in enumerate(names, 1):
        print(f"--- {name} ({place} of {len(names)})", flush=True)
        begin = time.monotonic()
        code = run(name)
        ran.append(Ran(name, code, time.monotonic() - begin))
        print(f"--- {ran[-1]}\n", flush=True)
    return ran


def run_program(name: str) -> int:
    """The exit code of ``jobs/bench.sh NAME --write``. Where it is interrupted, so is the program."""
    process = subprocess.Popen([ROOT / "jobs" / "bench.sh", name, "--write"])
    try:
        return process.wait()
    except KeyboardInterrupt:
        for again in (None, signal.SIGINT, signal.SIGKILL):  # a terminal has interrupted it as well
            if again is not None:
                process.send_signal(again)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
                break
        raise


def main() -> int:
    begin = time.monotonic()
    try:
        ran = run_all(programs(), run_program)
    except KeyboardInterrupt:
        print("stopped; the sections of programs that had ended are written", file=sys.stderr)
        return 130
    print(*ran, f"{'all':<16}{time.monotonic() - begin:>6.0f} s", sep="\n")
    return int(any(one.code for one in ran))


if __name__ == "__main__":
    sys.exit(main())
