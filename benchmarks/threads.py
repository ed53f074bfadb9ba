"""Seconds of an iteration: one worker of two threads beside two of one, alone and beside busy processes.

    python benchmarks/threads.py [--scan 16] [--busy 4] [--seconds 4] [--repeats 2] [--write]

Each worker is a process of its own that reconstructs the demo's data on the CPU, in the environment that workers get
("sleeping": threads that wait for each other sleep) or in that which OpenMP would have by itself ("spinning").
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from processes import NeverSaved
from sections import Table, add_write_argument, spread, write_section
from vs_ptyrad import make_data

from ptydask.clusters.settings import THREADS, UNLESS_SET

LEAST = 3
"""Iterations that are waited for, however long they take."""


@dataclass
class Ticks:
    """When each iteration ended, on the wall and on this process's processors."""

    seconds: float
    ends: list[tuple[float, float]] = field(default_factory=list)

    def __call__(self, step: int, metrics: Mapping[str, float], gradient: Any = None) -> bool:
        self.ends.append((time.perf_counter(), time.process_time()))
        return len(self.ends) >= LEAST and self.ends[-1][0] - self.ends[0][0] > self.seconds

    def mean(self) -> tuple[float, float]:
        """Of an iteration: seconds, and seconds of CPU. The first one, in which much is set up, does not count."""
        (begin, begin_cpu), (end, end_cpu) = self.ends[0], self.ends[-1]
        count = len(self.ends) - 1
        return (end - begin) / count, (end_cpu - begin_cpu) / count


def be_worker(params: Path) -> None:
    """Reconstruct for as many seconds as each line of the standard input says; answer with the times."""
    from ptydask import config, engines
    from ptydask.model import TrialInput
    from ptydask.worker.process import slot_of_this_process

    plan = engines.validate(config.load(params))
    session = engines.get(plan.engine).open(plan, slot_of_this_process())
    print("ready", flush=True)
    for line in sys.stdin:
        ticks = Ticks(float(line))
        session.run(TrialInput(0, {}, 1), ticks, NeverSaved())
        print(json.dumps(ticks.mean()), flush=True)


@dataclass(frozen=True)
class Setting:
    """How the workers share two cores, and wait."""

    workers: int
    threads: int
    sleeping: bool

    @property
    def environment(self) -> dict[str, str]:
        own = dict.fromkeys(THREADS, str(self.threads)) | {"CUDA_VISIBLE_DEVICES": ""}
        waiting = UNLESS_SET if self.sleeping else {name: text for name, text in UNLESS_SET.items() if "MALLOC" in name}
        return {name: text for name, text in os.environ.items() if name not in UNLESS_SET} | own | dict(waiting)

    def __str__(self) -> str:
        how = "sleeping" if self.sleeping else "spinning"
        return f"{self.workers} x {self.threads} thread{'s' * (self.threads != 1)}, {how}"


SETTINGS = (Setting(1, 2, False), Setting(1, 2, True), Setting(2, 1, False), Setting(2, 1, True))


@contextmanager
def open_workers(setting: Setting, params: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """The workers, ready."""
    command = [sys.executable, "-W", "ignore", __file__, "--worker", str(params)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, env=setting.environment, **pipes) for _ in range(setting.workers)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            if worker.stdout.readline() != "ready\n":
                raise RuntimeError("a worker did not start")
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """So many processes that each want a core all the time."""
    command = [sys.executable, "-S", "-c", "while True: sum(range(1000))"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(workers: Sequence[subprocess.Popen[str]], seconds: float) -> tuple[float, float]:
    """Of an iteration of the workers side by side: seconds and seconds of CPU, the mean of the workers."""
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(f"{seconds}\n")
        worker.stdin.flush()
    times = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]
    return sum(one for one, _ in times) / len(times), sum(cpu for _, cpu in times) / len(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=int, default=16, help="scan positions along a side (default: 16)")
    parser.add_argument("--busy", type=int, default=4, help="processes beside the workers (default: 4)")
    parser.add_argument("--seconds", type=float, default=4, help="of each measurement (default: 4)")
    parser.add_argument("--repeats", type=int, default=2, help="of each setting, in turn (default: 2)")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    add_write_argument(parser)
    args = parser.parse_args()
    if args.worker is not None:
        be_worker(args.worker)
        return
    loads = (0, args.busy)
    times: dict[tuple[Setting, int], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory(prefix="threads.") as scratch:
        params = make_data(Path(scratch) / "data", args.scan, 48)
        params["recon_params"]["NITER"] = 10**6
        file = Path(scratch) / "params.yaml"
        file.write_text(yaml.safe_dump(params))
        for _ in range(args.repeats):
            for setting in SETTINGS:
                with open_workers(setting, file) as workers:
                    for busy in loads:
                        with busy_processes(busy):
                            times.setdefault((setting, busy), []).append(measure(workers, args.seconds))
                        print(f"{setting}, {busy} busy: {times[setting, busy][-1]}", file=sys.stderr, flush=True)
    rows = [row(setting, busy, runs) for (setting, busy), runs in times.items()]
    columns = ("workers", "busy processes", "ms an iteration", "CPU ms an iteration", "iterations a minute, together")
    table = Table(columns, tuple(sorted(rows, key=lambda cells: int(cells[1]))))
    print(table)
    if args.write:
        write_section("threads", "Threads of a worker beside other work", INTRODUCTION.format(**vars(args)), table)


INTRODUCTION = (
    "The demo's data, {scan} x {scan} patterns, on two cores: one worker of two threads, or two workers of one, alone "
    "and beside {busy} processes that want a core all the time. Threads of OpenMP wait for each other after every "
    'operation: "spinning", which is the way of OpenMP itself, or "sleeping", as those of the workers do.'
)


def row(setting: Setting, busy: int, runs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    """A line of the table."""
    wall, cpu = [1e3 * one for one, _ in runs], [1e3 * one for _, one in runs]
    return str(setting), str(busy), spread(wall), spread(cpu), f"{setting.workers * 60e3 / median(wall):.0f}"


if __name__ == "__main__":
    main()
