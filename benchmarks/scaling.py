"""How busy workers are with 1 to 50 of them, and what the scheduler costs. Prints a table.

    python benchmarks/scaling.py [--workers 1 2 5 10 20 50] [--seconds 1.0] [--trials 12]

A trial is a sleep of ``--seconds``: whenever a worker is not asleep, that is ptydask's doing, or Dask's or Optuna's.
What is counted lies between the first trial of the last worker and the moment when trials run out. ``busy`` is the
share of the workers' time inside trials; ``driver`` and ``scheduler`` are the CPU time of the driver process's main
thread and of its other threads, ``workers`` that of all worker processes together, each in per cent of one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil
import yaml

from ptydask.model import TrialRecord
from ptydask.store import reader

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Sample:
    """CPU seconds at one moment."""

    at: float
    driver: float
    scheduler: float
    workers: float


@dataclass(frozen=True, slots=True)
class Row:
    workers: int
    trials: int
    busy: float
    gap: float
    """Median seconds between two trials of a worker."""
    driver: float
    scheduler: float
    processes: float

    def __str__(self) -> str:
        return (
            f"{self.workers:>7}  {self.trials:>6}  {100 * self.busy:>6.1f} %  {1000 * self.gap:>7.0f} ms"
            f"  {100 * self.driver:>6.1f} %  {100 * self.scheduler:>8.1f} %  {100 * self.processes:>7.1f} %"
        )


HEAD = "workers  trials     busy    between    driver  scheduler   workers"


def measure(workers: int, seconds: float, each: int, folder: Path) -> Row:
    """One study of ``each`` trials per worker."""
    params = folder / f"scaling{workers}.yaml"
    params.write_text(yaml.safe_dump(_params(seconds, each, folder)))
    results = folder / f"scaling{workers}.h5"
    paths = [str(ROOT / "tests" / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--cluster", "local"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers), "--results", str(results)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    samples: list[Sample] = []
    watching = threading.Thread(target=_watch, args=(process, samples))
    watching.start()
    _, said = process.communicate()
    watching.join()
    if process.returncode != 0:
        raise SystemExit(f"the run with {workers} workers failed:\n{said}")
    with reader.open(results) as done:
        return _row(workers, done.records(), samples)


def _params(seconds: float, each: int, folder: Path) -> dict[str, object]:
    return {
        "init_params": {"sleep": seconds, "iterations": 1},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": each,
            "study_name": "scaling",
            "pruner_params": None,
            "sampler_params": {"name": "RandomSampler"},
            "tune_params": {
                name: {"state": True, "suggest": "float", "kwargs": {"low": -4, "high": 4}} for name in ("rotation",)
            },
        },
        "recon_params": {"output_dir": str(folder)},
    }


def _watch(process: subprocess.Popen[str], samples: list[Sample]) -> None:
    """A sample every half second, for as long as the run lives."""
    main = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            threads = {t.id: t.user_time + t.system_time for t in main.threads()}
            own = threads.pop(process.pid, 0.0)
            rest = sum(threads.values())
            children = sum(sum(child.cpu_times()[:2]) for child in main.children(recursive=True))
            samples.append(Sample(time.time(), own, rest, children))
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.5)


def _row(workers: int, records: list[TrialRecord], samples: list[Sample]) -> Row:
    spans: dict[str, list[tuple[float, float]]] = {}
    for record in sorted(records, key=lambda r: r.started):
        began = datetime.fromisoformat(record.started).timestamp()
        spans.setdefault(record.worker, []).append((began, began + record.seconds))
    begin = max(mine[0][0] for mine in spans.values())
    end = min(mine[-1][1] for mine in spans.values())
    inside = sum(max(0.0, min(b, end) - max(a, begin)) for mine in spans.values() for a, b in mine)
    gaps = sorted(b[0] - a[1] for mine in spans.values() for a, b in pairwise(mine))
    within = [s for s in samples if begin <= s.at <= end]
    first, last = within[0], within[-1]
    wall = last.at - first.at
    return Row(
        len(spans),
        len(records),
        inside / (len(spans) * (end - begin)),
        gaps[len(gaps) // 2],
        (last.driver - first.driver) / wall,
        (last.scheduler - first.scheduler) / wall,
        (last.workers - first.workers) / wall,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a trial")
    parser.add_argument("--trials", type=int, default=20, help="of each worker")
    args = parser.parse_args()
    print(f"trials of {args.seconds:g} s on {os.cpu_count()} cores")
    print(HEAD)
    for workers in args.workers:
        with tempfile.TemporaryDirectory() as folder:
            print(measure(workers, args.seconds, args.trials, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
