"""What the results file costs, at ten thousand trials. Prints a table, each line beside what it may be.

    python benchmarks/store.py [--trials 10000] [--parameters 12] [--seconds 1] [--ptyrad 4]

A study is recorded as a driver does it, trial by trial and refreshing the index in between, with the trials' files
written before the clock runs: that is the workers' time, not the driver's. ``--seconds`` is how long the driver has
between two trials: 60 workers with trials of a minute end one a second. (The store's clock is put forward.) Then the
file is packed and read. With ``--ptyrad N``, N trials are reconstructed by PtyRAD's own hypertune and by ptydask, and
what they leave on the disk is compared; 0 leaves that out.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
from processes import cpu_seconds
from rows import HEADER, Row

from ptydask.model import KeepOptions, StudyMeta, TrialOutput, TrialRecord, TrialState
from ptydask.store import Store, names, reader, shard, study
from ptydask.store.upkeep import packing, retention, verify

META = StudyMeta("benchmark", "minimize", "loss", "ptyrad", "", "ptyrad", "{}", "{}")
ITERATIONS = 20


def trial(number: int, parameters: int) -> tuple[TrialRecord, TrialOutput]:
    """A completed trial with a curve and no arrays."""
    chance = np.random.default_rng(number)
    params = {f"parameter_{n}": float(value) for n, value in enumerate(chance.normal(size=parameters))}
    curve = np.sort(chance.random(ITERATIONS))[::-1]
    record = TrialRecord(
        number,
        TrialState.COMPLETE,
        float(curve[-1]),
        params,
        {"loss": float(curve[-1]), "contrast": 0.1},
        started="2025-01-01T00:00:00.000000+00:00",
        seconds=61.5,
        worker=f"worker-{number % 20}",
        host=f"node{number % 5}",
        job=str(4_000_000 + number % 20),
        device="NVIDIA A100-SXM4-80GB",
        seed=number,
    )
    given = {"step": list(range(1, ITERATIONS + 1)), "loss": curve.tolist(), "contrast": curve.tolist()}
    return record, TrialOutput(record.metrics, given, attributes={"pixel_size": 0.15})


def record_all(path: Path, trials: int, parameters: int, pause: float) -> Iterator[Row]:
    """Record a study; what recording costs, early and late, and what share of the driver's time the index takes."""
    store = Store.open(path, META)
    made = [trial(number, parameters) for number in range(trials)]
    tenth, writing, busy = max(1, trials // 10), [], time.process_time()
    for record, output in made:
        begin = time.perf_counter()
        shard.write(store.folder, record, output, KeepOptions(), direction="minimize", metric="loss")
        writing.append(time.perf_counter() - begin)
    yield Row("a trial's own file, by its worker, CPU", 1000 * (time.process_time() - busy) / trials, "ms")
    early, late = median(writing[:tenth]), median(writing[-tenth:])
    yield Row("a trial's own file, by its worker, the first tenth", 1000 * early, "ms")
    yield Row("a trial's own file, by its worker, the last tenth", 1000 * late, "ms", 1000 * 2 * early)
    adding, refreshing, worst = [], 0.0, 0.0
    begin, slept = time.perf_counter(), 0.0
    with mock.patch.object(study, "time") as clock:
        clock.monotonic = lambda: time.perf_counter() + slept
        for record, _ in made:
            started = time.perf_counter()
            store.add(record)
            added = time.perf_counter()
            store.refresh()
            took = time.perf_counter() - added
            adding.append(added - started)
            refreshing, worst, slept = refreshing + took, max(worst, took), slept + pause
    whole = time.perf_counter() - begin + slept
    early, late = median(adding[:tenth]), median(adding[-tenth:])
    yield Row("recording a trial, the first tenth", 1e6 * early, "us")
    yield Row("recording a trial, the last tenth", 1e6 * late, "us", 1e6 * 2 * early)
    yield Row("the longest refresh of the index", 1000 * worst, "ms")
    yield Row("refreshes of the index, share of the driver's time", 100 * refreshing / whole, "%", 2.0)
    store.refresh(force=True)
    size = path.stat().st_size + sum(names.shard_path(store.folder, r.number).stat().st_size for r, _ in made)
    with reader.open(path) as results:
        begin = time.perf_counter()
        assert len(results.columns()["number"]) == trials
        yield Row("columns of the index, also while the study runs", 1000 * (time.perf_counter() - begin), "ms")
    begin = time.perf_counter()
    store.finish()
    yield Row("packing, a trial", 1000 * (time.perf_counter() - begin) / trials, "ms")
    yield Row("the packed file over the trials' files", path.stat().st_size / size, "")


def read(path: Path) -> Iterator[Row]:
    """What reading the packed file costs, the fastest of nine times."""

    def timed(what: str, work: Callable[[reader.Results], Any], most: float = math.inf) -> Row:
        took = []
        for _ in range(9):
            begin = time.perf_counter()
            with reader.open(path) as results:
                work(results)
                took.append(time.perf_counter() - begin)
        return Row(what, 1000 * min(took), "ms", most)

    yield timed("opening", lambda results: None, 30)
    yield timed("opening and the ten best", lambda results: results.ranked(10), 100)
    yield timed("opening and all columns", lambda results: results.columns())
    yield timed("opening and the table as a pandas frame", _frame, 50)
    yield timed("opening and all records", lambda results: results.records())
    begin = time.perf_counter()
    with reader.open(path) as results:
        results.curves()
    yield Row("opening and all curves", time.perf_counter() - begin, "s", 10)


def keep_up(path: Path, trials: int) -> Iterator[Row]:
    """What a trial costs to be verified and to be taken over into a smaller file, CPU of all processes."""
    for what, work in {
        "verifying": lambda: verify.verify(path),
        "thinning": lambda: packing.pack(path, retention.NONE, out=path.with_name("thin.h5")),
    }.items():
        begin = cpu_seconds(own=True)
        work()
        yield Row(f"{what}, a trial, CPU", 1000 * (cpu_seconds(own=True) - begin) / trials, "ms")


def _frame(results: reader.Results) -> None:
    import pandas

    columns = results.columns()
    frame = pandas.DataFrame(dict(columns), copy=False)
    assert len(frame) == len(columns["number"])


def beside_ptyrad(folder: Path, trials: int) -> Iterator[Row]:
    """Bytes that PtyRAD's hypertune leaves, over those of the results file, for the same trials."""
    import vs_ptyrad

    points = vs_ptyrad.draw_points(trials, 1)
    params = vs_ptyrad.make_data(folder / "data", 24)
    params["recon_params"]["NITER"] = 4
    sizes = {}
    for name, run in (("ptyrad", vs_ptyrad.run_ptyrad), ("ptydask", vs_ptyrad.run_ptydask)):
        (folder / name).mkdir()
        sizes[name] = run(params, points, folder / name, 1).size
    file = folder / "ptydask" / "results.h5"
    yield Row(f"PtyRAD's folder of {trials} trials", sizes["ptyrad"] / 1e6, "MB")
    yield Row("the results file of the same trials", file.stat().st_size / 1e6, "MB", sizes["ptyrad"] / 3e6)
    yield Row("how many times smaller", sizes["ptyrad"] / file.stat().st_size, "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--parameters", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0, help="between two trials")
    parser.add_argument("--ptyrad", type=int, default=4, help="trials beside PtyRAD's hypertune; 0 for none")
    args = parser.parse_args()
    print(f"{args.trials} trials x {args.parameters} parameters, {ITERATIONS} iterations")
    print(HEADER)
    with tempfile.TemporaryDirectory(prefix="store.") as scratch:
        path = Path(scratch) / "results.h5"
        for row in record_all(path, args.trials, args.parameters, args.seconds):
            print(row, flush=True)
        for row in read(path):
            print(row, flush=True)
        for row in keep_up(path, args.trials):
            print(row, flush=True)
        if args.ptyrad:
            for row in beside_ptyrad(Path(scratch), args.ptyrad):
                print(row, flush=True)


if __name__ == "__main__":
    main()
