"""The same trials through PtyRAD's own hypertune and through ptydask, in turn, on this machine.

    python benchmarks/vs_ptyrad.py [--cases demo large] [--repeats 2] [--write]

PtyRAD's side is what its users do: as many processes as there are workers, all with the same params file, on
one SQLite file, results and figures collated. ptydask's side is `python -m ptydask run --workers N`. Both get
the same parameters beforehand, prune nothing, and compute with the same number of threads.

"whole" counts from the start of the first process to the end of the last; "trials only" from the start of the
first trial to the end of the last, start-up and packing left out; "while at work" ends for each worker with its own
last trial: with two workers, one is idle at the end for half a trial on average. "in recon_step" is the share of the
workers' time that the reconstruction itself took: 1.00 is the floor below which no tuner can get.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from processes import cpu_seconds
from sections import Table, add_write_argument, spread, write_section

from ptydask.machine import usable_cores

Point = dict[str, float]
RANGES = {"scale": (0.9, 1.1), "rotation": (-4.0, 4.0)}
"""The demo's, without its grid: on that points repeat, which PtyRAD computes again and ptydask does not."""
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """One run of one tuner."""

    trials: int
    whole: float
    """Seconds from the start of the first process to the end of the last."""
    start: float
    """Seconds from the start of the first process to the start of the first trial."""
    span: float
    """Seconds from the start of the first trial to the end of the last."""
    recon: float
    """Seconds inside recon_step, all workers together."""
    at_work: float
    """Seconds from the start of a worker's first trial to the end of its last, all workers together."""
    workers: int
    files: int
    size: int
    """Bytes left in files."""
    cpu: float
    """Seconds of processor time, all processes together: what other programs on the machine hardly change."""

    def numbers(self) -> dict[str, float]:
        """What is compared, by the name it has in the table."""
        return {
            "trials an hour, whole": 3600 * self.trials / self.whole,
            "trials an hour, trials only": 3600 * self.trials / self.span,
            "in recon_step, whole": self.recon / (self.workers * self.whole),
            "in recon_step, trials only": self.recon / (self.workers * self.span),
            "in recon_step, while at work": self.recon / self.at_work,
            "start to first trial, s": self.start,
            "last trial to end, s": self.whole - self.span - self.start,
            "recon_step a trial, s": self.recon / self.trials,
            "CPU a trial, s": self.cpu / self.trials,
            "files left": self.files,
            "MB left": self.size / 1e6,
        }


def make_data(folder: Path, scan: int, pixels: int) -> dict[str, Any]:
    """The demo's data with ``scan`` positions and ``pixels`` pixels along a side; returns their params."""
    from ptydask import demo
    from ptydask.demo.microscope import Experiment, scan_positions, simulate_patterns
    from ptydask.store.foreign import demo_data

    demos = Experiment()  # more pixels see the same field of view, and larger angles
    experiment = replace(demos, scan=scan, pixels=pixels, pixel_size=demos.pixel_size * demos.pixels / pixels)
    folder.mkdir(parents=True)
    demo_data.write(folder / demo.DATA, experiment, simulate_patterns(experiment), scan_positions(experiment))
    params: dict[str, Any] = yaml.safe_load(demo.params_text(folder / demo.DATA))
    params["init_params"] |= {"pos_N_scan_slow": scan, "pos_N_scan_fast": scan, "meas_Npix": pixels}
    params["init_params"]["meas_calibration"]["value"] = experiment.pixel_size
    return params


def draw_points(trials: int, workers: int) -> list[list[Point]]:
    """For each process the points that its `RandomSampler(seed=index)` is going to draw.

    (Points enqueued beforehand would be simpler, but on SQLite two processes now and then take the same one,
    and PtyRAD's job then ends with an AssertionError.)
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {name: optuna.distributions.FloatDistribution(low, high) for name, (low, high) in RANGES.items()}
    studies = [optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=n)) for n in range(workers)]
    return [[study.ask(space).params for _ in range(trials // workers)] for study in studies]


def write_params(
    params: dict[str, Any], file: Path, n_trials: int, sampler_seed: int, storage: str | None = None
) -> Path:
    """A params file whose results go into its folder."""
    hypertune = params["hypertune_params"] | {"n_trials": n_trials, "pruner_params": None}
    hypertune["tune_params"] = {
        name: {"state": True, "suggest": "float", "kwargs": {"low": low, "high": high}}
        for name, (low, high) in RANGES.items()
    }
    hypertune |= {"sampler_params": {"name": "RandomSampler", "configs": {"seed": sampler_seed}}}
    if storage is not None:
        hypertune["storage_path"] = storage
    recon = params["recon_params"] | {"output_dir": str(file.parent / "output")}
    file.write_text(yaml.safe_dump(params | {"hypertune_params": hypertune, "recon_params": recon}))
    return file


def environment(threads: int) -> dict[str, str]:
    """The environment of both tuners: the same threads, no display."""
    return os.environ | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "Agg"}


def run_ptyrad(params: dict[str, Any], points: list[list[Point]], folder: Path, threads: int) -> Outcome:
    """A process of PtyRAD's hypertune for each list of points, all on one SQLite file."""
    import optuna

    storage = f"sqlite:///{folder / 'hypertune.sqlite3'}"
    name = params["hypertune_params"]["study_name"]
    optuna.create_study(storage=storage, study_name=name, direction="minimize")
    own = [folder / "stdout.txt"]
    begun, begin, cpu = time.time(), time.perf_counter(), cpu_seconds()
    processes, times = [], []
    with own[0].open("w") as out:
        for number, mine in enumerate(points):
            file = write_params(params, folder / f"params{number}.yaml", len(mine), number, storage)
            times.append(folder / f"times{number}.json")
            own += [file, times[-1]]
            command = [sys.executable, "-W", "ignore", HERE / "ptyrad_hypertune.py", file, times[-1]]
            processes.append(
                subprocess.Popen(command, cwd=folder, env=environment(threads), stdout=out, stderr=subprocess.STDOUT)
            )
        codes = [process.wait() for process in processes]
    whole, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    if any(codes):
        raise RuntimeError(f"PtyRAD's hypertune failed: {own[0].read_text()[-2000:]}")
    done = optuna.load_study(study_name=name, storage=storage).trials
    same_trials([trial.params for trial in done], points)
    first = min(t.datetime_start for t in done)
    span = max(t.datetime_complete for t in done) - first
    process_of = {point_key(point): number for number, mine in enumerate(points) for point in mine}
    at_work = work_seconds(
        (process_of[point_key(t.params)], t.datetime_start.timestamp(), t.datetime_complete.timestamp()) for t in done
    )
    recon = sum(json.loads(t.read_text())["recon_seconds"] for t in times)
    for path in own:
        path.unlink()
    start = first.timestamp() - begun
    return Outcome(len(done), whole, start, span.total_seconds(), recon, at_work, len(points), *left_in(folder), cpu)


def run_ptydask(params: dict[str, Any], points: list[list[Point]], folder: Path, threads: int) -> Outcome:
    """``python -m ptydask run`` with a worker for each list of points."""
    from ptydask.store import reader

    first, *others = [point for row in zip(*points, strict=True) for point in row]
    affine = [first["scale"], 0, first["rotation"], 0]  # the file's own values are the first trial
    params = params | {"init_params": params["init_params"] | {"pos_scan_affine": affine}}
    file = write_params(params, folder / "params.yaml", len(others) + 1, 0)
    results = folder / "results.h5"
    command = [sys.executable, "-m", "ptydask", "run", str(file), "--workers", str(len(points))]
    command += ["--trials", str(len(others) + 1), "--results", str(results)]
    for point in others:
        command += ["--try", " ".join(f"{name}={value}" for name, value in point.items())]
    begun, begin, cpu = time.time(), time.perf_counter(), cpu_seconds()
    said = subprocess.run(command, cwd=folder, env=environment(threads), capture_output=True, text=True, check=False)
    whole, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    if said.returncode:
        raise RuntimeError(f"ptydask exited with {said.returncode}: {said.stderr[-2000:]}")
    with reader.open(results) as stored:
        records = stored.records()
        recon = sum(float(stored.trial(r.number).attributes["recon_seconds"]) for r in records)
    same_trials([record.params for record in records], points)
    starts = [datetime.fromisoformat(record.started).timestamp() for record in records]
    ends = [start + record.seconds for start, record in zip(starts, records, strict=True)]
    file.unlink()
    span = max(ends) - min(starts)
    at_work = work_seconds(zip((record.worker for record in records), starts, ends, strict=True))
    return Outcome(len(records), whole, min(starts) - begun, span, recon, at_work, len(points), *left_in(folder), cpu)


def work_seconds(trials: Iterable[tuple[int | str, float, float]]) -> float:
    """From the start of a worker's first trial to the end of its last, all workers together.

    Each trial is its worker, and when it started and ended, in seconds.
    """
    spans: dict[int | str, tuple[float, float]] = {}
    for worker, start, end in trials:
        first, last = spans.get(worker, (start, end))
        spans[worker] = min(first, start), max(last, end)
    return sum(last - first for first, last in spans.values())


def point_key(point: Mapping[str, Any]) -> tuple[float, float]:
    """The same for a point before and after a tuner has had it."""
    return round(point["scale"], 6), round(point["rotation"], 6)


def same_trials(recorded: Iterable[Mapping[str, Any]], points: list[list[Point]]) -> None:
    """Stops the benchmark where a tuner did not run the trials that it was to run."""
    if sorted(map(point_key, recorded)) != sorted(point_key(point) for mine in points for point in mine):
        raise RuntimeError("not the trials that were asked for")


def left_in(folder: Path) -> tuple[int, int]:
    """Files and bytes that a run left."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def median_numbers(runs: list[Outcome]) -> dict[str, float]:
    """Of what is compared, by its name."""
    return {key: median(run.numbers()[key] for run in runs) for key in runs[0].numbers()}


def compare(theirs: list[Outcome], ours: list[Outcome]) -> Table:
    """Each number of both tuners with its spread, and the ratio of the medians, ptydask's by PtyRAD's."""
    medians = median_numbers(theirs), median_numbers(ours)
    rows = []
    for key in medians[0]:
        digits = 0 if "an hour" in key or "files" in key else 2
        cells = (spread([run.numbers()[key] for run in runs], digits) for runs in (theirs, ours))
        ratio = f"{medians[1][key] / medians[0][key]:.2f}" if medians[0][key] else "-"
        rows.append((key, *cells, ratio))
    return Table(("", "PtyRAD", "ptydask", "ratio"), tuple(rows))


@dataclass(frozen=True)
class Case:
    """Data, and trials of them."""

    pixels: int
    scan: int
    iterations: int
    trials: int

    def describe(self, workers: int, threads: int) -> str:
        """In words."""
        return (
            f"{self.scan} x {self.scan} patterns of {self.pixels} x {self.pixels} pixels, {self.trials} trials of "
            f"{self.iterations} iterations, {workers} workers of {threads} thread{'s' * (threads != 1)}"
        )


CASES = {"demo": Case(48, 24, 12, 40), "large": Case(128, 24, 6, 12)}


def measure(case: Case, folder: Path, workers: int, threads: int, repeats: int) -> dict[str, list[Outcome]]:
    """Both tuners in turn on the same data and trials."""
    points = draw_points(case.trials, workers)
    params = make_data(folder / "data", case.scan, case.pixels)
    params["recon_params"]["NITER"] = case.iterations
    outcomes: dict[str, list[Outcome]] = {"ptyrad": [], "ptydask": []}
    for repeat in range(repeats):
        for tuner, run in {"ptyrad": run_ptyrad, "ptydask": run_ptydask}.items():
            own = folder / f"{tuner}{repeat}"
            own.mkdir()
            outcome = run(params, points, own, threads)
            outcomes[tuner].append(outcome)
            print(f"{tuner} {repeat + 1}: {outcome.trials} trials in {outcome.whole:.1f} s", file=sys.stderr)
            shutil.rmtree(own)
    return outcomes


INTRODUCTION = (
    "The same trials in turn, pruning none, by as many processes of PtyRAD's hypertune as there are workers, all on "
    'one SQLite file, and by `python -m ptydask run`. "Whole" is from the start of the first process to the end of '
    'the last, "trials only" from the start of the first trial to the end of the last, "while at work" for each worker '
    "from its own first to its own last: of two workers one has nothing left at the end for half a trial on average. "
    "\"In recon_step\" is the share of the workers' time that PtyRAD's reconstruction steps took: 1 is the floor below "
    "which no tuner gets."
)

REST = (
    "Inside of a trial nearly all of ptydask's time is PtyRAD's steps (`cProfile` of a worker: the rest prepares the "
    'trial and reads its arrays). "Whole" has the start in it, too: the command and each worker import PyTorch, Optuna '
    "and Dask. That is the same whatever the number of trials, so the ratio of a longer study is that of its trials."
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trials an hour, files and bytes beside PtyRAD's own hypertune.")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="data sets (default: all)")
    parser.add_argument("--trials", type=int, help="of one run, all workers together (default: the case's)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each tuner, in turn (default: 2)")
    parser.add_argument("--workers", type=int, default=2, help="processes of each tuner (default: 2)")
    parser.add_argument("--scan", type=int, help="scan positions along a side (default: the case's)")
    parser.add_argument("--iterations", type=int, help="of a trial (default: the case's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's numbers there")
    add_write_argument(parser)
    args = parser.parse_args()
    asked = {name: getattr(args, name) for name in ("trials", "scan", "iterations") if getattr(args, name)}
    cases = {name: replace(CASES[name], **asked) for name in args.cases}
    if any(case.trials < args.workers or case.trials % args.workers for case in cases.values()):
        parser.error("--trials must be a multiple of --workers")
    threads = max(1, usable_cores() // args.workers)
    parts: list[str | Table] = [INTRODUCTION]
    everything: dict[str, dict[str, list[Outcome]]] = {}
    with tempfile.TemporaryDirectory(prefix="vs_ptyrad.") as scratch:
        for name, case in cases.items():
            folder = Path(scratch) / name
            everything[name] = outcomes = measure(case, folder, args.workers, threads, args.repeats)
            parts += [f"{case.describe(args.workers, threads)}:", compare(outcomes["ptyrad"], outcomes["ptydask"])]
            print(*parts[-2:], sep="\n\n", flush=True)
            shutil.rmtree(folder)
    if args.json:
        runs = {name: {t: [asdict(o) for o in runs_] for t, runs_ in both.items()} for name, both in everything.items()}
        args.json.write_text(json.dumps(runs, indent=1))
    if args.write:
        write_section("vs_ptyrad", "Beside PtyRAD's own hypertune", *parts, REST)


if __name__ == "__main__":
    main()
