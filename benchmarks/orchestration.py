"""What a trial costs that does nothing: 6 floats, 3 reports, a median pruner, 2 workers. Prints a table.

    python benchmarks/orchestration.py [--trials 1000] [--samplers RandomSampler TPESampler] [--only ptydask optuna ray]

Beside each study of ptydask stands the same one of other tuners (contenders.py). ``wall`` is the time between trials
that end, all workers together; ``CPU`` is that of all processes together, which other work on the machine does not
spoil; both in ms a trial, over the whole study without its first tenth, and over its second and its last tenth: they
tell whether a trial costs more the longer the study is. ``calls`` are those of ptydask's journal on the Dask
connection, a trial. A contender that does not install or run has its reason in its row.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import contenders
import numpy as np
import psutil
import sections
import yaml
from contenders import CONTENDERS, Work
from processes import run_toy_study, use_toy_engine, watch_journal

EVERY = 0.1
PATIENCE, EACH = 120.0, 0.2
"""Seconds that a study may take to start, and for each of its trials."""
SAMPLERS = {"RandomSampler": "random", "TPESampler": "TPE"}
QUICK = ("ptydask", "optuna")
"""Tuners that get ``--trials``: what the others cost shows in fewer, ``--slow-trials``."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of a study."""

    at: float
    ended: int
    cpu: float
    calls: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one study, ms a trial: over all but its first tenth, over its second, over its last."""

    trials: int
    wall: tuple[float, float, float]
    cpu: tuple[float, float, float]
    calls: float = 0.0
    """A trial, not ms."""
    version: str = ""

    def cells(self) -> tuple[str, ...]:
        figures = [f"{value:.1f}" for value in (*self.wall, *self.cpu)]
        return f"{self.trials:,}", *figures, f"{self.calls:.1f}" if self.calls else ""


COLUMNS = ("", "trials", "wall", "2nd tenth", "last", "CPU", "2nd tenth", "last", "calls")


def cost_of(samples: Sequence[Sample], trials: int) -> Cost:
    """What the trials of a study cost. Raises ValueError where not all of them ended."""
    ended = np.array([sample.ended for sample in samples], dtype=float)
    if not samples or ended[-1] < trials:
        raise ValueError(f"{int(ended[-1]) if samples else 0} of {trials} trials ended")
    ticks, first = np.unique(ended, return_index=True)

    def cost(values: list[float], begin: float, end: float) -> float:
        at = np.interp([begin * trials, end * trials], ticks, np.array(values)[first])
        return float(at[1] - at[0]) / ((end - begin) * trials)

    def parts(values: list[float]) -> tuple[float, float, float]:
        return cost(values, 0.1, 1), cost(values, 0.1, 0.2), cost(values, 0.9, 1)

    wall, cpu = ([1000 * s.at for s in samples], [1000 * s.cpu for s in samples])
    return Cost(trials, parts(wall), parts(cpu), cost([float(s.calls) for s in samples], 0.1, 1))


@contextmanager
def sampled(count: Callable[[], tuple[int, int]]) -> Iterator[list[Sample]]:
    """Samples of this process and its children; ``count`` gives trials ended, and calls."""
    samples: list[Sample] = []
    over = threading.Event()
    watching = threading.Thread(target=_sample, args=(count, samples, over))
    watching.start()
    try:
        yield samples
    finally:
        over.set()
        watching.join()


def _sample(count: Callable[[], tuple[int, int]], samples: list[Sample], over: threading.Event) -> None:
    own, spent = psutil.Process(), dict[int, float]()
    while True:
        last = over.is_set()
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # one that has ended keeps what it had
                spent[process.pid] = sum(process.cpu_times()[:2])
        samples.append(Sample(time.monotonic(), (now := count())[0], sum(spent.values()), now[1]))
        if last:
            return
        time.sleep(EVERY)


def run_ptydask(work: Work) -> list[Sample]:
    """One study of the toy engine, run from this process."""
    counted = {"ended": 0, "calls": 0}

    def count_call(ends: bool) -> None:
        counted["calls"] += 1
        counted["ended"] += ends

    watch_journal(count_call)
    params = work.folder / "params.yaml"
    params.write_text(yaml.safe_dump(study_params(work)))
    with sampled(lambda: (counted["ended"], counted["calls"])) as samples:
        run_toy_study(params, contenders.WORKERS, trials=work.trials)
    return samples


def study_params(work: Work) -> dict[str, object]:
    """The params file of the study."""
    float_range = {"state": True, "suggest": "float", "kwargs": {"low": contenders.LOW, "high": contenders.HIGH}}
    return {
        "init_params": {"iterations": contenders.STEPS, "bare": True},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": work.trials,
            "study_name": contenders.STUDY,
            "pruner_params": {"name": "MedianPruner", "configs": {}},
            "sampler_params": {"name": work.sampler, "configs": {}},
            "tune_params": dict.fromkeys(contenders.NAMES, float_range),
        },
        "recon_params": {"output_dir": str(work.folder)},
    }


def run_one(what: str, sampler: str, trials: int, out: Path) -> None:
    """One study in this process; its Cost goes into a file, as tuners print what they like."""
    with tempfile.TemporaryDirectory(prefix="orchestration.", ignore_cleanup_errors=True) as folder:
        work = Work(Path(folder), sampler, trials)
        if what == "ptydask":
            cost = asdict(cost_of(run_ptydask(work), trials))
        else:
            contender = CONTENDERS[what]
            with sampled(lambda: (work.count(), 0)) as samples:
                contender.run(work)
            package = (*contender.requirements, "optuna")[0].partition("[")[0]
            cost = asdict(cost_of(samples, trials)) | {"version": f"{package} {version(package)}"}
        out.write_text(json.dumps(cost))


def measure(what: str, sampler: str, trials: int) -> Cost | str:
    """One study in a process of its own, as nothing of one is to weigh on the next; or why there is none."""
    requirements = CONTENDERS[what].requirements if what in CONTENDERS else ()
    try:
        python = contenders.prepare(requirements)
    except (OSError, subprocess.CalledProcessError) as error:
        return (
            f"{' '.join(requirements)} cannot be installed: {last_line(getattr(error, 'stderr', None) or str(error))}"
        )
    limit = PATIENCE + trials * EACH
    with tempfile.TemporaryDirectory(prefix="orchestration.") as folder:
        out = Path(folder) / "cost.json"
        command = [str(python), __file__, "--one", what, sampler, str(trials), str(out)]
        with Path(folder, "said").open("w+") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said)
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                stop(process)
                return f"not done after {limit:.0f} s"
            except KeyboardInterrupt:
                stop(process)
                raise
            if code == 0:
                read = json.loads(out.read_text())
                return Cost(**read | {"wall": tuple(read["wall"]), "cpu": tuple(read["cpu"])})
            said.seek(0)
            return last_line(said.read()) or f"exited with {code}"


def stop(process: subprocess.Popen[Any]) -> None:
    """Ends a study and whatever it started."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    process.kill()
    process.wait()


def last_line(text: str) -> str:
    """What a program said last, in a cell of a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].replace("|", "/")[:160] if lines else ""


def studies(args: argparse.Namespace) -> list[tuple[str, str, int]]:
    """Tuner, sampler and trials of each row."""
    rows = [
        (what, sampler, args.trials if what in QUICK else args.slow_trials)
        for sampler in args.samplers
        for what in args.only
    ]
    return [*rows, ("ptydask", "RandomSampler", args.long)] if args.long else rows


def title_of(what: str, sampler: str) -> str:
    return f"{CONTENDERS[what].title if what in CONTENDERS else what}, {SAMPLERS.get(sampler, sampler)}"


def versions_of(costs: Sequence[tuple[str, str, Cost | str]]) -> str:
    """Of the contenders that ran."""
    return ", ".join(sorted({cost.version for _, _, cost in costs if isinstance(cost, Cost) and cost.version}))


def write(costs: Sequence[tuple[str, str, Cost | str]]) -> None:
    """The section of the page."""
    rows = [
        (title_of(what, sampler), *cost.cells())
        if isinstance(cost, Cost)
        else (f"{title_of(what, sampler)}: {cost}", *[""] * (len(COLUMNS) - 1))
        for what, sampler, cost in costs
    ]
    sections.write_section(
        "orchestration",
        "What a trial costs",
        f"An objective that does nothing, of {len(contenders.NAMES)} floats and {contenders.STEPS} reports, each of "
        f"which may end a trial by the median rule; {contenders.WORKERS} workers. In ms a trial, over a study without "
        "its first tenth, over its second tenth and over its last. Wall time is what lies between the ends of two "
        "trials, all workers together. Calls are those of a worker to ptydask's storage, a trial.",
        sections.Table(COLUMNS, tuple(rows)),
        "A study of ptydask leaves its results file with every trial's curve, attributes and digest, and a journal of "
        "which no entry is lost; the others leave what each keeps on disk by default. Optuna runs as two processes on "
        "one storage; its proxy's server has that storage to itself. optuna-distributed has two Dask workers, and its "
        "driver alone has the journal file. Ray Tune has its own median rule, and its own random search or Optuna's "
        "TPE. TPE costs more the more trials it knows: compare the last tenth of a short study with an early one of a "
        "long one. "
        f"Versions: {versions_of(costs)}.",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="of ptydask and of Optuna's journal file")
    parser.add_argument("--slow-trials", type=int, default=100, help="of the others")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    names = ["ptydask", *CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--long", type=int, default=10_000, help="of one more study of ptydask, at random; 0: none")
    sections.add_write_argument(parser)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        what, sampler, trials, out = args.one
        run_one(what, sampler, int(trials), Path(out))
        return 0
    widths = (34, 7, 8, 11, 8, 8, 11, 8, 7)
    print("".join(f"{cell:>{width}}" for cell, width in zip(COLUMNS, widths, strict=True)), flush=True)
    costs = []
    for what, sampler, trials in studies(args):
        cost = measure(what, sampler, trials)
        costs.append((what, sampler, cost))
        cells = cost.cells() if isinstance(cost, Cost) else (f"  {cost}",)
        numbers = "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=False))
        print(f"{title_of(what, sampler):<34}{numbers}", flush=True)
    print(versions_of(costs))
    if args.write:
        write(costs)
    return int(any(what == "ptydask" and isinstance(cost, str) for what, _, cost in costs))


if __name__ == "__main__":
    use_toy_engine()
    sys.exit(main())
