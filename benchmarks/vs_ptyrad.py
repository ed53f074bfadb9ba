"""The same trials through PtyRAD's own hypertune and through ptydask, in turn, on this machine.

    python benchmarks/vs_ptyrad.py                                        the demo's data, and patterns of 128 x 128
    python benchmarks/vs_ptyrad.py --pixels 48 --trials 40 --repeats 3    one of them alone

PtyRAD's side is what its users do: as many processes as there are workers, all with the same params file, on
one SQLite file, results and figures collated. ptydask's side is `python -m ptydask run --workers N`. Both get
the same parameters beforehand, prune nothing, and compute with the same number of threads.

"whole" counts from the start of the first process to the end of the last; "trials only" from the start of the
first trial to the end of the last, start-up and packing left out. "in recon_step" is the share of the workers'
time that the reconstruction itself took: 1.00 is the floor below which no tuner can get.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import sections
import yaml

Point = dict[str, float]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Outcome:
    """One run of one tuner."""

    trials: int
    whole: float
    """Seconds from the start of the first process to the end of the last."""
    span: float
    """Seconds from the start of the first trial to the end of the last."""
    recon: float
    """Seconds inside recon_step, all workers together."""
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
            "start-up and end, s": self.whole - self.span,
            "recon_step a trial, s": self.recon / self.trials,
            "CPU a trial, s": self.cpu / self.trials,
            "files left": self.files,
            "MB left": self.size / 1e6,
        }


@dataclass(frozen=True)
class Case:
    """What both are given."""

    pixels: int
    """Of a pattern, along a side."""
    trials: int
    """Of one run, all workers together."""
    repeats: int
    """Runs of each tuner, in turn."""


CASES = (Case(pixels=48, trials=40, repeats=3), Case(pixels=128, trials=8, repeats=1))
"""Those of the page; the first is the demo's."""


def make_data(folder: Path, scan: int, pixels: int) -> dict[str, Any]:
    """The demo's data with ``scan`` positions and ``pixels`` of a pattern along a side; returns their params."""
    from ptydask import demo
    from ptydask.demo.microscope import Experiment, scan_positions, simulate_patterns
    from ptydask.store.foreign import demo_data

    experiment = replace(Experiment(), scan=scan, pixels=pixels)
    folder.mkdir(parents=True)
    demo_data.write(folder / demo.DATA, experiment, simulate_patterns(experiment), scan_positions(experiment))
    params: dict[str, Any] = yaml.safe_load(demo.params_text(folder / demo.DATA))
    params["init_params"] |= {"pos_N_scan_slow": scan, "pos_N_scan_fast": scan, "meas_Npix": pixels}
    return params


def draw_points(trials: int, workers: int) -> list[list[Point]]:
    """For each process the points that its `RandomSampler(seed=index)` is going to draw.

    (Points enqueued beforehand would be simpler, but on SQLite two processes now and then take the same one,
    and PtyRAD's job then ends with an AssertionError.)
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    grid = {
        "scale": optuna.distributions.FloatDistribution(0.9, 1.1, step=0.02),
        "rotation": optuna.distributions.FloatDistribution(-4, 4, step=0.5),
    }
    studies = [optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=n)) for n in range(workers)]
    return [[study.ask(grid).params for _ in range(trials // workers)] for study in studies]


def write_params(
    params: dict[str, Any], file: Path, n_trials: int, sampler_seed: int, storage: str | None = None
) -> Path:
    """A params file whose results go into its folder."""
    hypertune = params["hypertune_params"] | {"n_trials": n_trials, "pruner_params": None}
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
    begin, cpu = time.perf_counter(), cpu_seconds()
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
    span = max(t.datetime_complete for t in done) - min(t.datetime_start for t in done)
    recon = sum(json.loads(t.read_text())["recon_seconds"] for t in times)
    for path in own:
        path.unlink()
    return Outcome(len(done), whole, span.total_seconds(), recon, len(points), *left_in(folder), cpu)


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
    begin, cpu = time.perf_counter(), cpu_seconds()
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
    return Outcome(len(records), whole, span, recon, len(points), *left_in(folder), cpu)


def same_trials(recorded: Iterable[Mapping[str, Any]], points: list[list[Point]]) -> None:
    """Stops the benchmark where a tuner did not run the trials that it was to run."""

    def key(point: Mapping[str, Any]) -> tuple[float, float]:
        return round(point["scale"], 6), round(point["rotation"], 6)

    if sorted(map(key, recorded)) != sorted(key(point) for mine in points for point in mine):
        raise RuntimeError("not the trials that were asked for")


def cpu_seconds() -> float:
    """Processor time of every process that this one started and that has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def left_in(folder: Path) -> tuple[int, int]:
    """Files and bytes that a run left."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return len(files), sum(path.stat().st_size for path in files)


def compare(outcomes: Mapping[str, Sequence[Outcome]]) -> sections.Table:
    """Medians of each tuner, least and largest in brackets, and the ratio of the medians."""
    rows = []
    for key in outcomes["ptyrad"][0].numbers():
        theirs, ours = ([run.numbers()[key] for run in outcomes[tuner]] for tuner in ("ptyrad", "ptydask"))
        counted = all(isinstance(value, int) for value in theirs)
        digits = 0 if counted else max(0, 2 - int(math.log10(max(median(theirs), 0.01))))
        ratio = f"{median(ours) / median(theirs):.2f}" if median(theirs) else "-"
        rows.append((key, sections.spread(theirs, digits), sections.spread(ours, digits), ratio))
    return sections.Table(("", "PtyRAD", "ptydask", "ratio"), tuple(rows))


def measure(case: Case, workers: int, scan: int, iterations: int) -> dict[str, list[Outcome]]:
    """The runs of each tuner."""
    points = draw_points(case.trials, workers)
    runs = {"ptyrad": run_ptyrad, "ptydask": run_ptydask}
    outcomes: dict[str, list[Outcome]] = {tuner: [] for tuner in runs}
    with tempfile.TemporaryDirectory(prefix="vs_ptyrad.") as scratch:
        params = make_data(Path(scratch) / "data", scan, case.pixels)
        params["recon_params"]["NITER"] = iterations
        for repeat in range(case.repeats):
            for tuner, run in runs.items():
                folder = Path(scratch) / f"{tuner}{repeat}"
                folder.mkdir()
                outcome = run(params, points, folder, threads_of(workers))
                outcomes[tuner].append(outcome)
                print(f"{tuner} {repeat + 1}: {outcome.trials} trials in {outcome.whole:.1f} s", file=sys.stderr)
                shutil.rmtree(folder)
    return outcomes


def threads_of(workers: int) -> int:
    return max(1, (os.cpu_count() or 1) // workers)


def main() -> None:
    parser = argparse.ArgumentParser(description="Trials an hour, files and bytes beside PtyRAD's own hypertune.")
    first = CASES[0]
    parser.add_argument("--pixels", type=int, help="of a pattern, along a side")
    parser.add_argument("--trials", type=int, help="of one run, all workers together")
    parser.add_argument("--repeats", type=int, help="runs of each tuner, in turn")
    parser.add_argument("--workers", type=int, default=2, help="processes of each tuner (default: 2)")
    parser.add_argument("--scan", type=int, default=24, help="scan positions along a side (default: 24)")
    parser.add_argument("--iterations", type=int, default=12, help="of a trial (default: 12)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every run's numbers there")
    sections.add_write_argument(parser)
    args = parser.parse_args()
    cases: tuple[Case, ...] = CASES
    if args.pixels or args.trials or args.repeats:
        cases = (Case(args.pixels or first.pixels, args.trials or first.trials, args.repeats or first.repeats),)
    if any(case.trials % args.workers for case in cases):
        parser.error("--trials must be a multiple of --workers")
    measured = []
    for case in cases:
        outcomes = measure(case, args.workers, args.scan, args.iterations)
        what = (
            f"Patterns of {case.pixels} x {case.pixels}: {case.trials} trials of {args.iterations} iterations, "
            f"{args.workers} workers of {threads_of(args.workers)} thread(s); runs of each, in turn: {case.repeats}."
        )
        measured.append((what, compare(outcomes), outcomes))
        print(f"{what}\n{measured[-1][1]}\n", flush=True)
    if args.json:
        numbers = {
            what: {tuner: [asdict(run) for run in runs] for tuner, runs in of.items()} for what, _, of in measured
        }
        args.json.write_text(json.dumps(numbers, indent=1))
    if args.write:
        sections.write_section(
            "vs_ptyrad",
            "Beside PtyRAD's own hypertune",
            "The same trials by both, on the same data (the demo's, and the same scan with larger patterns), none "
            "pruned. PtyRAD runs as processes on one SQLite file, with its figures and files. `whole` is with start-up "
            "and end, `trials only` from the first trial's start to the last one's end. `in recon_step` is the share "
            "of the workers' time that the reconstruction itself took: 1 is the floor below which no tuner can get.",
            *(part for what, table, _ in measured for part in (what, table)),
        )


if __name__ == "__main__":
    main()
