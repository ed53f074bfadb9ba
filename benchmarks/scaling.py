"""How busy workers are with 1 to 50 of them, what they cost, and 200 that sleep. Prints two tables.

    python benchmarks/scaling.py [--workers 1 2 10 50] [--seconds 1.0] [--trials 14] [--sleepers 200] [--write]

A trial is a sleep of ``--seconds``: whenever a worker is not asleep, that is ptydask's doing, or Dask's or Optuna's.
What is counted lies between the first trial of the last worker and the moment when trials run out. ``busy`` is the
share of the workers' time inside trials, ``between`` the time between two trials of a worker; CPU is that of the
driver's process, scheduler in it, and of all workers together, a trial, which other work on the machine hardly changes.
The sleepers' trials last ``--sleep``: what a worker costs that does nothing, and whether its heartbeats come.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml
from processes import run_toy_study, use_toy_engine
from sections import Table, add_write_argument, write_section

from ptydask.machine import usable_cores
from ptydask.model import TrialRecord
from ptydask.store import reader

EVERY, LOOK_AT_MEMORY = 0.5, 10.0
"""Seconds between two samples, and between two of the workers' memory, which are slow."""
START = 1.0
"""Seconds of a core for one worker to come up."""


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds at one moment, and memory in bytes."""

    at: float
    driver: float
    workers: float
    rss: float = 0.0
    """Of one worker, on average; 0 where nobody has looked."""
    share: float = 0.0
    """The same, of which what several processes share counts in parts (PSS)."""


@dataclass(frozen=True, slots=True)
class Heartbeats:
    """What the scheduler has heard of its workers."""

    answered: int = 0
    missing: int = 0
    """From workers that it took for gone."""
    overdue: int = 0
    """Later than twice the time in which they were due."""
    longest: float = 0.0
    """Seconds between two of one worker."""


@dataclass(frozen=True, slots=True)
class Row:
    """One study."""

    workers: int
    trials: int
    busy: float
    gaps: tuple[float, ...]
    """Seconds between two trials of a worker, in order of length."""
    driver: float
    """CPU seconds of the driver's process a second; those of all workers."""
    processes: float
    pace: float
    """Trials a second."""
    starting: float
    """Seconds from the first trial of the first worker to that of the last."""
    lost: int
    memory: Sample
    heartbeats: Heartbeats

    @property
    def busy_cells(self) -> tuple[str, ...]:
        """As the table of busy workers has it."""
        gap = f"{1000 * quantile(self.gaps, 0.5):.0f}", f"{1000 * quantile(self.gaps, 0.9):.0f}"
        cost = f"{1000 * self.driver / self.pace:.1f}", f"{1000 * self.processes / self.pace:.1f}"
        return (str(self.workers), str(self.trials), f"{100 * self.busy:.1f} %", *gap, *cost)

    @property
    def sleeping_cells(self) -> tuple[str, ...]:
        """As the table of sleeping workers has it."""
        beats, memory = self.heartbeats, self.memory
        return (
            str(self.workers),
            f"{beats.missing + beats.overdue} of {beats.answered}",
            str(self.lost),
            f"{100 * self.busy:.1f} %",
            f"{self.starting:.0f}",
            f"{1000 * self.processes / self.workers:.1f}",
            f"{1000 * self.driver:.0f}",
            f"{memory.rss / 2**20:.0f}",
            f"{memory.share / 2**20:.0f}",
        )


BUSY = ("workers", "trials", "busy", "between, ms", "90th percentile", "CPU a trial, driver, ms", "workers, ms")
SLEEPING = ("workers", "heartbeats failed", "workers lost", "busy", "all there after, s", "CPU of a worker, ms/s",
            "of the driver, ms/s", "memory of a worker, MiB", "its share, MiB")  # fmt: skip


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which ``part`` of sorted ``values`` lie; 0 where there are none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def write_params(folder: Path, seconds: float, each: int, steps: int = 0) -> Path:
    """A params file of the toy engine: trials of ``seconds``, with ``steps`` reports that a pruner judges, or none."""
    never = {"name": "MedianPruner", "configs": {"n_startup_trials": 1 << 30}}
    params = {
        "init_params": {"sleep": seconds, "iterations": max(1, steps), "bare": True},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": each,
            "study_name": "scaling",
            "pruner_params": never if steps else None,
            "sampler_params": {"name": "RandomSampler"},
            "tune_params": {"rotation": {"state": True, "suggest": "float", "kwargs": {"low": -4, "high": 4}}},
        },
        "recon_params": {"output_dir": str(folder)},
    }
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    return path


def measure(workers: int, seconds: float, each: int) -> Row:
    """One study of ``each`` trials per worker, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="scaling.") as name:
        folder = Path(name)
        write_params(folder, seconds, each)
        process = subprocess.Popen([sys.executable, __file__, "--one", name, str(workers)], stdout=subprocess.PIPE)
        samples: list[Sample] = []
        watching = threading.Thread(target=_watch, args=(process, samples, workers))
        watching.start()
        told, _ = process.communicate()
        watching.join()
        if process.returncode != 0:
            raise SystemExit(f"the run with {workers} workers failed")
        with reader.open(folder / "results.h5") as done:
            return row_of(done.records(), samples, Heartbeats(**json.loads(told.splitlines()[-1])))


def run_study(folder: Path, workers: int) -> Heartbeats:
    """The study of the params file in ``folder``, in this process; what its scheduler heard."""
    from distributed import Scheduler

    from ptydask.clusters.settings import heartbeat_interval

    last: dict[str, float] = {}
    count = {"answered": 0, "missing": 0, "overdue": 0}
    longest = 0.0
    answer = Scheduler.heartbeat_worker

    def listen(self: Scheduler, *args: Any, address: str, **message: Any) -> Any:
        nonlocal longest
        told, now = answer(self, *args, address=address, **message), time.monotonic()
        count["answered" if told["status"] == "OK" else "missing"] += 1
        gap = now - last.get(address, now)
        last[address], longest = now, max(longest, gap)
        count["overdue"] += gap > 2 * heartbeat_interval(len(self.workers))
        return told

    Scheduler.heartbeat_worker = listen
    run_toy_study(folder / "params.yaml", workers, results=folder / "results.h5")
    return Heartbeats(**count, longest=longest)


def _watch(process: subprocess.Popen[bytes], samples: list[Sample], workers: int) -> None:
    """A sample every half second, for as long as the run lives."""
    main, looked = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            children = main.children(recursive=True)
            now, rss, share = time.time(), 0.0, 0.0
            if len(children) > workers and now - looked > LOOK_AT_MEMORY:  # one child is multiprocessing's own
                looked, memory = now, [child.memory_full_info() for child in children]
                rss, share = (sum(getattr(m, part) for m in memory) / workers for part in ("rss", "pss"))
            cpu = sum(sum(child.cpu_times()[:2]) for child in children)
            samples.append(Sample(time.time(), sum(main.cpu_times()[:2]), cpu, rss, share))
        time.sleep(EVERY)


def row_of(records: Sequence[TrialRecord], samples: Sequence[Sample], heartbeats: Heartbeats) -> Row:
    """What the records and samples of one study amount to, while all workers were there and had trials."""
    spans: dict[str, list[tuple[float, float]]] = {}
    for record in sorted(records, key=lambda r: r.started):
        began = datetime.fromisoformat(record.started).timestamp()
        spans.setdefault(record.worker, []).append((began, began + record.seconds))
    begin = max(mine[0][0] for mine in spans.values())
    end = min(mine[-1][1] for mine in spans.values())
    inside = sum(max(0.0, min(b, end) - max(a, begin)) for mine in spans.values() for a, b in mine)
    gaps = sorted(b[0] - a[1] for mine in spans.values() for a, b in pairwise(mine) if begin <= a[1] and b[0] <= end)
    within = [s for s in samples if begin <= s.at <= end]
    if len(within) < 2:
        raise SystemExit(f"trials ran out before all {len(spans)} workers were there: give more --trials")
    first, last = within[0], within[-1]
    wall = last.at - first.at
    return Row(
        workers=len(spans),
        trials=len(records),
        busy=inside / (len(spans) * (end - begin)),
        gaps=tuple(gaps),
        driver=(last.driver - first.driver) / wall,
        processes=(last.workers - first.workers) / wall,
        pace=sum(begin <= b <= end for mine in spans.values() for _, b in mine) / (end - begin),
        starting=begin - min(mine[0][0] for mine in spans.values()),
        lost=sum(record.retry_of is not None for record in records),
        memory=max(samples, key=lambda sample: sample.share),
        heartbeats=heartbeats,
    )


PARAGRAPHS = (
    "Trials that sleep {seconds:g} s, on workers of this machine: whenever a worker is not asleep, that is "
    "ptydask, Dask or Optuna. Busy is the share of the workers' time inside trials, between the first trial of "
    "the last worker and the moment when trials run out. Between two trials lie the last one's file and its end "
    "in the journal, both on disk before the worker goes on, the way to the driver and back, and the next "
    "trial's number. With many workers a core, what the CPU costs of a trial add up to is the bound: {cores} "
    "cores have {room:.0f} ms for each trial of 50 workers.",
    "Workers that sleep {sleep:g} s a trial: what a process costs that waits. A heartbeat has failed that came "
    "later than after twice the time in which it was due, or from a worker that the scheduler took for gone. "
    "Processes are started some a core at a time; those that are there begin.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 10, 50])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial")
    parser.add_argument("--trials", type=int, default=14, help="of each worker")
    parser.add_argument("--sleepers", type=int, default=200, help="workers that sleep; 0 for none")
    parser.add_argument("--sleep", type=float, default=10.0, help="seconds of their trials")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    add_write_argument(parser)
    args = parser.parse_args()
    use_toy_engine()
    if args.one:
        print(json.dumps(asdict(run_study(Path(args.one[0]), int(args.one[1])))))
        return
    print(" | ".join(BUSY), flush=True)
    busy, sleeping = [], []
    for workers in args.workers:
        busy.append(measure(workers, args.seconds, args.trials).busy_cells)
        print(" | ".join(busy[-1]), flush=True)
    if args.sleepers:
        print(" | ".join(SLEEPING), flush=True)
        # Those that come first sleep a good while before the last is there.
        starting = START * args.sleepers / usable_cores()
        each = round(starting / 2 / args.sleep) + 2
        sleeping.append(measure(args.sleepers, args.sleep, each).sleeping_cells)
        print(" | ".join(sleeping[-1]), flush=True)
    if args.write:
        cores = usable_cores()
        first, second = (
            text.format(seconds=args.seconds, sleep=args.sleep, cores=cores, room=1000 * cores * args.seconds / 50)
            for text in PARAGRAPHS
        )
        title = "Many workers on one machine"
        write_section("scaling", title, first, Table(BUSY, tuple(busy)), second, Table(SLEEPING, tuple(sleeping)))


if __name__ == "__main__":
    main()
