"""The memory of workers on one machine: of one data set with a copy each and with one for all; of many trials.

    python benchmarks/memory.py [--scan 64] [--pixels 128] [--workers 1 2] [--repeats 2] [--trials 500]
        [--driver-trials 10000] [--write]

Linux only. Workers are processes that each open a session of PtyRAD on the CPU for the same study and read all of its
patterns. What counts is the proportional set size (PSS): a page that two processes have is half a page of each, so that
the sum is what the machine lacks. "With a copy each" is what workers had before they shared, and have where they
cannot. Then one worker runs many tiny trials, and one driver has two workers run many that do nothing; the memory of
either is taken every now and then.
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

from processes import NeverSaved, run_toy_study, use_toy_engine
from queue_memory import MIB, DataSet, read_memory
from sections import Table, add_write_argument, spread, write_section

SHARED, OWN = "one for all", "one each"
FLAT, DRIVER = "flat", "driver"


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
    from ptydask.engines.ptyrad import loading_place, release
    from ptydask.model import TrialInput

    release.installed()
    if copies == OWN:
        loading_place.SHARED_FROM = 2**62
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


def be_driver(folder: Path, trials: int) -> None:
    """Run a study of trials that do nothing, and say as it grows what memory the driver's process has."""
    import contenders
    import orchestration
    import yaml

    from ptydask.store import Store

    record = Store.add

    def record_and_tell(store: Store, *args: Any) -> None:
        record(store, *args)
        number = len(store.records)
        if number == 100 or number % max(1, trials // 3) == 0:
            print(json.dumps([number, read_memory(os.getpid()).rss, time.process_time()]), flush=True)

    Store.add = record_and_tell  # type: ignore[method-assign]
    use_toy_engine()
    work = contenders.Work(folder, "RandomSampler", trials)
    params = folder / "driver.yaml"
    params.write_text(yaml.safe_dump(orchestration.study_params(work)))
    run_toy_study(params, contenders.WORKERS, trials=trials)


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


def measure_growth(path: Path, what: str, trials: int) -> Table:
    """The memory of a process over many trials: of a worker for a params file, or of a driver for a folder."""
    with _start(path, f"{what} {trials}") as process:
        assert process.stdout is not None
        samples = [json.loads(line) for line in process.stdout if line.startswith("[")]
    if process.returncode != 0:
        raise SystemExit(f"the {what} process with many trials failed")
    rows = tuple((f"{number:,}", f"{rss / MIB:.1f}", f"{cpu:.1f}") for number, rss, cpu in samples)
    return Table(("trials", "resident, MiB", "CPU since its start, s"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=int, default=64, help="positions along a side")
    parser.add_argument("--pixels", type=int, default=128, help="of a pattern's side")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--trials", type=int, default=500, help="of the worker with many")
    parser.add_argument("--driver-trials", type=int, default=10_000, help="of the driver")
    parser.add_argument("--params", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--be", help=argparse.SUPPRESS)
    add_write_argument(parser)
    args = parser.parse_args()
    if args.be is not None:
        what, _, trials = args.be.partition(" ")
        if what == FLAT:
            be_flat(args.params, int(trials))
        elif what == DRIVER:
            be_driver(args.params, int(trials))
        else:
            be_worker(args.params, args.be)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, tiny = DataSet("large", args.scan, args.pixels), DataSet("tiny", 8, 32)
        together = compare_copies(large.write(folder, 1), args.workers, args.repeats)
        print(together, flush=True)
        flat = measure_growth(tiny.write(folder, 1), FLAT, args.trials)
        print(flat, flush=True)
        driver = measure_growth(folder, DRIVER, args.driver_trials)
        print(driver, flush=True)
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
            "One driver and many trials that do nothing, of 6 floats and 3 reports, by two workers. For each it keeps "
            "Optuna's trial (1.8 kB, as every worker does), the record (1.1 kB), and what the index is written of "
            "(0.4 kB): the record's text, compressed, and digests. More parameters, reports (0.1 kB each) and "
            "thumbnails come on top. While an index is written it is 3 kB more; what of it is freed between trials' "
            "own, 1 to 2 kB, the process keeps for the next. The first thousands of trials cost more, until the latest "
            "lines of the journal are there, of which it keeps 3 MiB.",
            driver,
            "On a GPU each worker has a copy of its own. What CUDA hands from one process to others "
            "(`cudaIpcGetMemHandle`) is not defined once the process that allocated it has ended, and a worker may be "
            "killed at any time. Memory of `cuMemCreate`, whose handle is a file descriptor, would outlive it as the "
            "copy on the host does; that takes tensors in memory that PyTorch's allocator did not make, and was not "
            "tried for want of a GPU. `preload_data: false` has each batch of all workers streamed from the machine's "
            "one copy.",
        )


if __name__ == "__main__":
    main()
