"""What a trial costs that does nothing: 6 floats, 3 reports, MedianPruner, 2 workers. Prints a table.

    python benchmarks/orchestration.py [--trials 300] [--samplers RandomSampler TPESampler] [--only ptydask optuna]

Each study of ptydask has beside it the same one of plain Optuna, on its own journal file, over two processes.
``wall`` is the time between trials that end, all workers together; ``CPU`` is that of all processes together, which
other work on the machine does not spoil; both in ms a trial, over the whole study without its start, and over its
second and its last tenth: they tell whether a trial costs more the longer the study is. ``calls`` are those of the
journal on the Dask connection, a trial.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("scale", "asymmetry", "rotation", "shear", "tilt_y", "tilt_x")
STEPS, WORKERS, EVERY = 3, 2, 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment of a study."""

    at: float
    ended: int
    cpu: float
    calls: int


HEAD = f"{'':<28}{'trials':>7}{'wall':>8}{'(2nd, last tenth)':>19}{'CPU':>8}{'(2nd, last tenth)':>19}{'calls':>8}"


def row(what: str, samples: list[Sample], trials: int) -> str:
    """The line of one study."""
    ended = np.array([sample.ended for sample in samples], dtype=float)
    ticks, first = np.unique(ended, return_index=True)

    def cost(values: list[float], begin: float, end: float) -> float:
        at = np.interp([begin * trials, end * trials], ticks, np.array(values)[first])
        return float(at[1] - at[0]) / ((end - begin) * trials)

    text = f"{what:<28}{trials:>7}"
    for values in ([1000 * s.at for s in samples], [1000 * s.cpu for s in samples]):
        whole, early, late = (cost(values, *part) for part in ((0.1, 1), (0.1, 0.2), (0.9, 1)))
        text += f"{whole:>8.1f}{f'({early:.1f}, {late:.1f})':>19}"
    calls = cost([float(s.calls) for s in samples], 0.1, 1)
    return text + (f"{calls:>8.1f}" if calls else "")


def sample_while(count: Callable[[], tuple[int, int]], samples: list[Sample], over: threading.Event) -> None:
    """Samples of this process and its children until the study is over; ``count`` gives trials ended, and calls."""
    own, spent = psutil.Process(), dict[int, float]()
    while True:
        last = over.is_set()
        for process in (own, *own.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # one that has ended keeps what it had
                spent[process.pid] = sum(process.cpu_times()[:2])
        ended, calls = count()
        samples.append(Sample(time.monotonic(), ended, sum(spent.values()), calls))
        if last:
            return
        time.sleep(EVERY)


# --- ptydask --------------------------------------------------------------------------------------------


def run_ptydask(folder: Path, sampler: str, trials: int) -> list[Sample]:
    """One study of the toy engine, run from this process."""
    import ptydask
    from ptydask.storage.transport import JournalService

    counted = {"ended": 0, "calls": 0}
    answer = JournalService.answer

    async def counting(self: JournalService, *args: Any, **message: Any) -> Any:
        counted["calls"] += 1
        counted["ended"] += bool(message.get("durable"))
        return await answer(self, *args, **message)

    JournalService.answer = counting  # type: ignore[method-assign]
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(_params(folder, sampler, trials)))
    samples: list[Sample] = []
    over = threading.Event()
    watching = threading.Thread(target=sample_while, args=(lambda: (counted["ended"], counted["calls"]), samples, over))
    watching.start()
    try:
        ptydask.run(
            params, engine="toy", cluster="local", workers=WORKERS, trials=trials, search="file", progress=False
        )
    finally:
        over.set()
        watching.join()
    return samples


def _params(folder: Path, sampler: str, trials: int) -> dict[str, object]:
    float_range = {"state": True, "suggest": "float", "kwargs": {"low": 0.5, "high": 2.0}}
    return {
        "init_params": {"iterations": STEPS, "bare": True},
        "hypertune_params": {
            "if_hypertune": True,
            "n_trials": trials,
            "study_name": "orchestration",
            "pruner_params": {"name": "MedianPruner", "configs": {}},
            "sampler_params": {"name": sampler, "configs": {}},
            "tune_params": dict.fromkeys(NAMES, float_range),
        },
        "recon_params": {"output_dir": str(folder)},
    }


# --- Optuna ---------------------------------------------------------------------------------------------


def run_optuna(folder: Path, sampler: str, trials: int) -> list[Sample]:
    """The same trials by plain Optuna: two processes and its own journal file."""
    import optuna

    journal = folder / "optuna.journal"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal)))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name="orchestration", storage=storage)
    command = [sys.executable, __file__, "--optuna-worker", str(journal), sampler, str(trials)]
    workers = [subprocess.Popen([*command, str(seed)]) for seed in range(WORKERS)]
    samples: list[Sample] = []
    over = threading.Event()
    ends = _Ends(journal)
    watching = threading.Thread(target=sample_while, args=(lambda: (ends.count(), 0), samples, over))
    watching.start()
    for worker in workers:
        worker.wait()
    over.set()
    watching.join()
    return samples


class _Ends:
    """Counts the trials that ended, by the journal's lines, each read once."""

    def __init__(self, journal: Path) -> None:
        self._file, self._ended = journal.open("rb"), 0

    def count(self) -> int:
        self._ended += sum(line.startswith(b'{"op_code":6,') for line in self._file)
        return self._ended


def work_optuna(journal: str, sampler: str, trials: int, seed: int) -> None:
    """One process of them: trials until all are there."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name="orchestration",
        storage=optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(journal)),
        sampler=getattr(optuna.samplers, sampler)(seed=seed),
        pruner=optuna.pruners.MedianPruner(),
    )

    def objective(trial: optuna.Trial) -> float:
        total = sum(trial.suggest_float(name, 0.5, 2.0) ** 2 for name in NAMES)
        for step in range(1, STEPS + 1):
            trial.report(total + 1 / step, step)
            if step < STEPS and trial.should_prune():
                raise optuna.TrialPruned
        return total + 1 / STEPS

    enough = optuna.study.MaxTrialsCallback(trials, states=None)
    study.optimize(objective, callbacks=[enough])


RUNS = {"ptydask": run_ptydask, "optuna": run_optuna}


def measure(args: argparse.Namespace) -> Iterator[str]:
    """The lines of the table: each study in a process of its own, as nothing of one is to weigh on the next."""
    for sampler in args.samplers:
        for what in args.only:
            command = [sys.executable, __file__, "--one", what, sampler, str(args.trials)]
            yield subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.rstrip("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--samplers", nargs="+", default=["RandomSampler", "TPESampler"])
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--optuna-worker", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.optuna_worker:
        journal, sampler, trials, seed = args.optuna_worker
        work_optuna(journal, sampler, int(trials), int(seed))
    elif args.one:
        what, sampler, number = args.one
        with tempfile.TemporaryDirectory(prefix="orchestration.") as folder:
            samples = RUNS[what](Path(folder), sampler, int(number))
        print(row(f"{what}, {sampler}", samples, int(number)))
    else:
        print(HEAD, flush=True)
        for line in measure(args):
            print(line, flush=True)


if __name__ == "__main__":
    plugins = str(ROOT / "tests" / "plugins")  # the toy engine, for this process and its children
    os.environ["PYTHONPATH"] = os.pathsep.join([plugins, *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, plugins)
    main()
