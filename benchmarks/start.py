"""How long commands take to begin, and to end: wall time, and processor time of all their processes together.

    python benchmarks/start.py --repeats 5

The demo's data and params file. "First iteration" is the time from the start of the command to the end of the first
iteration of its first trial, "the end" that from the end of the last trial to the end of the command. What a command
imports is what its own process has imported at its end; a run's workers are forks of another.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from processes import cpu_seconds
from sections import Table, add_write_argument, spread, write_section

from ptydask.distributions import FloatRange
from ptydask.model import ComponentSpec

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from ptydask.storage.urls import StorageSpec

HEAVY = ("numpy", "h5py", "optuna", "pydantic", "ptyrad", "distributed", "scipy", "pandas", "matplotlib", "torch")
_TELL = (
    "import sys; from ptydask.cli import main; code = main(sys.argv[1:]);"
    f"print('imported', *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr); sys.exit(code)"
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One call of a command, in seconds."""

    wall: float
    cpu: float
    first: float = 0.0
    """To the end of the first iteration."""
    end: float = 0.0
    """From the end of the last trial."""


def call_command(args: Sequence[str], folder: Path) -> Taken:
    """Run it as a user does."""
    begin, before = time.perf_counter(), cpu_seconds()
    command = [sys.executable, "-m", "ptydask", *args]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
    return Taken(time.perf_counter() - begin, cpu_seconds() - before)


def call_run(params: Path, results: Path, workers: int) -> Taken:
    """A run of one trial for each worker."""
    from ptydask.store import reader

    args = ["run", str(params), "--workers", str(workers), "--trials", str(workers), "-o", str(results)]
    begin = time.time()
    taken = call_command([*args, "--search", "file", "--sampler", "RandomSampler"], params.parent)
    over = time.time()
    firsts, ends = [], []
    with reader.open(results) as stored:
        for record in stored.records():
            started = datetime.fromisoformat(record.started).timestamp()
            facts, curve = stored.trial(record.number).attributes, stored.curve(record.number)
            firsts.append(started + float(facts["initialisation_seconds"]) + float(curve["seconds"][0]))
            ends.append(started + record.seconds)
    return Taken(taken.wall, taken.cpu, min(firsts) - begin, over - max(ends))


def imported_by(args: Sequence[str], folder: Path) -> str:
    """Which heavy packages the command's own process imports."""
    done = subprocess.run([sys.executable, "-c", _TELL, *args], cwd=folder, check=True, capture_output=True, text=True)
    return ", ".join(done.stderr.splitlines()[-1].split()[1:]) or "none"


# --- workers that come late -----------------------------------------------------------------------------

SPACE = {f"x{index}": FloatRange(0.0, 1.0) for index in range(6)}
STUDY = "late"
LATE = 10_000
"""Trials of the study that they come to."""


def call_late_workers(folder: Path, trials: int, repeats: int) -> dict[str, list[float]]:
    """Seconds in which a worker has the values of its first trial, in a study of ``trials``, by sampler."""
    import optuna

    from ptydask.clusters import ClusterRequest
    from ptydask.clusters.local import ThisMachine
    from ptydask.storage import urls
    from ptydask.storage.transport import JournalService, withdraw

    spec = urls.StorageSpec("journal", folder / "late.journal")
    seconds: dict[str, list[float]] = {name: [] for name in ("RandomSampler", "TPESampler")}
    with ThisMachine().open(ClusterRequest(1, 1)) as cluster:
        client = cluster.client
        client.wait_for_workers(1, timeout=120)
        service = JournalService(spec.journal, client.id)
        client.register_plugin(service)
        storage = urls.connect(spec, client)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(storage=storage, study_name=STUDY)
        study.add_trials(ended_trials(trials))
        for _ in range(repeats):
            for sampler, taken in seconds.items():
                taken.append(client.submit(sample_first, spec, sampler, pure=False).result())
        withdraw(client, service.name)
    return seconds


def ended_trials(number: int) -> list[FrozenTrial]:
    """Trials of 6 parameters and 3 reports, with values that a sampler can learn from."""
    import optuna
    from optuna.distributions import BaseDistribution

    trials = []
    distributions: dict[str, BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(dist.low, dist.high) for name, dist in SPACE.items()
    }
    for index in range(number):
        params = {name: (index * 7919 % (1009 + 2 * place)) / 1100 for place, name in enumerate(SPACE)}
        value = sum(each**2 for each in params.values())
        reports = {step: value + 1 / step for step in (1, 2, 3)}
        trials.append(
            optuna.trial.create_trial(
                value=value, params=params, distributions=distributions, intermediate_values=reports
            )
        )
    return trials


def sample_first(spec: StorageSpec, sampler: str) -> float:
    """On a worker that knows nothing of the study: the seconds until its first trial has values."""
    import optuna

    from ptydask import sampling
    from ptydask.storage import urls

    begin = time.perf_counter()
    storage = urls.connect(spec)
    chosen = ComponentSpec(sampler)
    draw = sampling.build_sampler(chosen, seed=7, space=SPACE)
    sampling.suggest(optuna.load_study(study_name=STUDY, storage=storage, sampler=draw).ask(), SPACE, chosen)
    taken = time.perf_counter() - begin
    urls.disconnect(storage)
    return taken


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    add_write_argument(parser)
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call_command(["demo", "."], folder)
        params, results = folder / "params.yaml", folder / "runs" / "study.h5"
        study = ["run", "params.yaml", "--workers", "2", "--trials", "2", "-o", str(results)]
        call_command(study, folder)
        commands = {
            "`--help`": ["--help"],
            "`validate`": ["validate", "params.yaml"],
            "`run --dry-run`": ["run", "params.yaml", "--workers", "2", "--dry-run"],
            "`run`, nothing left to do": study,
            "`ls`": ["ls", str(results)],
            "`best`": ["best", str(results)],
            "`status`": ["status", str(results)],
        }
        taken: dict[str, list[Taken]] = {command: [] for command in commands}
        runs: list[Taken] = []
        for repeat in range(args.repeats):  # in turn: what else the machine does falls on all of them
            for command, words in commands.items():
                taken[command].append(call_command(words, folder))
            runs.append(call_run(params, folder / f"run{repeat}" / "study.h5", 2))
        late = call_late_workers(folder, LATE, args.repeats)
        rows = [
            (
                command,
                spread([one.wall for one in taken[command]], 2),
                spread([one.cpu for one in taken[command]], 2),
                imported_by(words, folder),
            )
            for command, words in commands.items()
        ]
    first = Table(("command", "s", "CPU s", "imports, of the heavy packages"), tuple(rows))
    second = Table(
        ("`run --workers 2 --trials 2`", "s"),
        (
            ("to the end of the first iteration", spread([one.first for one in runs], 2)),
            ("from the end of the last trial to the end of the command", spread([one.end for one in runs], 2)),
            ("whole", spread([one.wall for one in runs], 2)),
            ("CPU of all processes, trials included", spread([one.cpu for one in runs], 2)),
        ),
    )
    third = Table(
        (f"a worker that comes to a study of {LATE:,} trials", "s"),
        tuple((f"to the values of its first trial, {name}", spread(taken, 2)) for name, taken in late.items()),
    )
    print(first, second, third, sep="\n\n")
    if args.write:
        whole, run, worker = _PARAGRAPHS
        write_section("start", "How long commands take to begin", whole, first, run, second, worker, third)


_PARAGRAPHS = (
    "The demo's study, median (least-largest) of calls in turn, with everything in the disk cache. What a command does "
    "not need it does not import: a plan is checked by PtyRAD's own schema, which needs no PyTorch.",
    "Of a run nearly all of that time is the import of PyTorch and PtyRAD. One process does it, beside the driver, and "
    "the workers are its forks. What PtyRAD imports and does not use (scikit-learn for any order of batches, pyplot, "
    "PyTorch's compiler where nothing is compiled) comes in when it is used, and Python's garbage collector rests "
    "meanwhile. What is left is PyTorch with its dynamo, which any optimizer imports. With GPUs each worker imports "
    "for itself, as CUDA cannot be used in a fork.",
    "A worker that comes late reads what others have replayed of the journal, a snapshot, and what was added since, "
    "once, at its first trial. TPE then sorts all trials by their values, as for any trial of a study so large.",
)


if __name__ == "__main__":
    main()
