"""The memory of workers on one machine: of one data set with a copy each and with one for all; of many trials.

    python benchmarks/memory.py [--scan 64] [--pixels 128] [--workers 1 2] [--repeats 2] [--trials 500] [--write]

Linux only. Workers are processes that each open a session of PtyRAD on the CPU for the same study and read all of its
patterns. What counts is the proportional set size (PSS): a page that two processes have is half a page of each, so that
the sum is what the machine lacks. "With a copy each" is what workers had before they shared, and have where they
cannot. Then one worker runs many tiny trials, and its memory is taken every now and then.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from processes import NeverSaved
from queue_memory import MIB, DataSet, read_memory
from sections import Table, add_write_argument, spread, write_section

SHARED, OWN = "one for all", "one each"
FLAT = "flat"


def _go_on(*_: object) -> bool:
    return False


def open_session(params: Path) -> Any:
    """PtyRAD's session for a study, as a worker has it."""
    from ptydask import config, engines
    from ptydask.model import Slot

    plan = engines.validate(config.load(params))
    return engines.get(plan.engine).open(plan, Slot(1))


def be_worker(params: Path, copies: str) -> None:
    """Open a session, read all patterns, run one trial, say what that cost; then wait to be ended."""
    from ptydask.engines.ptyrad import measurements, release
    from ptydask.model import TrialInput

    release.installed()
    if copies == OWN:
        measurements.SHARED_FROM = 2**62
    wall, cpu = time.perf_counter(), time.process_time()
    session = open_session(params)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    session.run(TrialInput(0, {}, 7), _go_on, NeverSaved())
    session._measurements.variables["measurements"].max()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps([wall, cpu, peak]), flush=True)
    sys.stdin.read()


def be_flat(params: Path, trials: int) -> None:
    """Run many trials, and say at tenths of them what memory this process has."""
    from ptydask.model import TrialInput

    session = open_session(params)
    for number in range(1, trials + 1):
        session.run(TrialInput(number, {"rotation": number / trials}, number), _go_on, NeverSaved())
        if number in (1, 10) or number % max(1, trials // 10) == 0:
            gc.collect()
            sample = read_memory(os.getpid())
            print(json.dumps([number, sample.rss, time.process_time()]), flush=True)


def _start(params: Path, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--params", str(params), "--be", what]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@dataclass(frozen=True, slots=True)
class Together:
    """Workers that have the same data at the same time; bytes and seconds."""

    pss: int
    """Of all together."""
    peak: int
    """Resident in the one that had most."""
    wall: float
    """Until the last one has its data."""
    cpu: float
    """Of all together."""


def measure_together(params: Path, workers: int, copies: str) -> Together:
    """What so many workers have once all of them are ready."""
    processes = [_start(params, copies) for _ in range(workers)]
    try:
        costs = [json.loads(process.stdout.readline()) for process in processes if process.stdout is not None]
        pss = sum(read_memory(process.pid).pss for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    walls, cpus, peaks = zip(*costs, strict=True)
    return Together(pss, max(peaks), max(walls), sum(cpus))


def compare_copies(params: Path, workers: Sequence[int], repeats: int) -> Table:
    rows = []
    for count in workers:
        runs: dict[str, list[Together]] = {OWN: [], SHARED: []}
        for _ in range(repeats):
            for copies, results in runs.items():  # alternating, so that both have the machine's other work
                results.append(measure_together(params, count, copies))
        for copies, results in runs.items():
            sizes = [spread([getattr(r, what) / MIB for r in results], 0) for what in ("pss", "peak")]
            times = [spread([getattr(r, what) for r in results], 2) for what in ("wall", "cpu")]
            rows.append((f"{count}, {copies}", *sizes, *times))
    columns = ("workers, copies", "memory of all, MiB", "peak of one, MiB", "until ready, s", "CPU of all, s")
    return Table(columns, tuple(rows))


def measure_flat(params: Path, trials: int) -> Table:
    with _start(params, f"{FLAT} {trials}") as process:
        assert process.stdout is not None
        samples = [json.loads(line) for line in process.stdout]
    if process.returncode != 0:
        raise SystemExit("the worker with many trials failed")
    rows = tuple((f"{number}", f"{rss / MIB:.1f}", f"{cpu:.1f}") for number, rss, cpu in samples)
    return Table(("trials", "resident, MiB", "CPU since its start, s"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=int, default=64, help="positions along a side")
    parser.add_argument("--pixels", type=int, default=128, help="of a pattern's side")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=500, help="of the worker with many")
    parser.add_argument("--params", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--be", help=argparse.SUPPRESS)
    add_write_argument(parser)
    args = parser.parse_args()
    if args.be is not None:
        if args.be.startswith(FLAT):
            be_flat(args.params, int(args.be.split()[1]))
        else:
            be_worker(args.params, args.be)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, tiny = DataSet("large", args.scan, args.pixels), DataSet("tiny", 8, 32)
        together = compare_copies(large.write(folder, 1), args.workers, args.repeats)
        print(together, flush=True)
        flat = measure_flat(tiny.write(folder, 1), args.trials)
        print(flat, flush=True)
    if args.write:
        write_section(
            "memory",
            "Memory",
            f"Patterns of {large.bytes / MIB:.0f} MiB ({args.scan} x {args.scan} of {args.pixels} x {args.pixels}), "
            "read by workers of one core on one machine at the same time. The memory of all is the sum of proportional "
            "set sizes: a page that two have counts half for each. The peak is that of the worker that reads the data "
            "for all: where they were, their memory is freed while they are copied.",
            together,
            "One worker and many trials of 2 iterations of 8 x 8 patterns of 32 x 32.",
            flat,
            "On a GPU each worker has a copy of its own. What CUDA hands from one process to others "
            "(`cudaIpcGetMemHandle`) is not defined once the process that allocated it has ended, and a worker may be "
            "killed at any time. Memory of `cuMemCreate`, whose handle is a file descriptor, would outlive it as the "
            "copy on the host does; that takes tensors in memory that PyTorch's allocator did not make, and was not "
            "tried for want of a GPU. `preload_data: false` has each batch of all workers streamed from the machine's "
            "one copy.",
        )


if __name__ == "__main__":
    main()
