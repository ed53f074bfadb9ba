"""What a trial of a program costs beyond the program itself, and how soon its values are heard. Prints a table.

    python benchmarks/command.py [--pairs 15] [--values 20]

A pair is the same program run twice, by itself and as a trial of the engine ``command``, one right after the other:
what the trial takes longer is ptydask's doing (folder, environment, guard, import hook, clearing up). A value's delay
is from the program's log call to the engine's report.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from rows import HEADER, Row

from ptydask.distributions import FloatRange
from ptydask.engines.command import CommandEngine
from ptydask.model import Budget, ComponentSpec, Slot, SourceFile, StudyPlan, TrialInput

PLAIN = """\
import ptydask, sys, time
ptydask.report(1, loss=1.0)
"""
VALUES = """\
import ptydask, sys, time
for step in range({values}):
    time.sleep(0.03 + 0.037 * (step % 13))
    ptydask.report(step, loss=time.time())
"""
WANDB = """\
import time, wandb
with wandb.init(project="benchmark", mode="offline") as run:
    for step in range({values}):
        time.sleep(0.03 + 0.037 * (step % 13))
        run.log({{"loss": time.time()}})
"""


class Trials:
    """One program as trials of a study, in ``folder``."""

    def __init__(self, folder: Path, text: str) -> None:
        (folder / "program.py").write_text(text)
        self.argv = [sys.executable, str(folder / "program.py"), "--lr=0.5"]
        settings = {"callable": None, "objective": "last", "directory": ".", "devices": None, "outputs": ["files/**"]}
        limits = {"outputs_limit": 10**6, "start_timeout": 600.0, "idle_timeout": None, "trial_timeout": None}
        plan = StudyPlan(
            name="benchmark",
            source=SourceFile(folder / "sweep.yaml", "", "sweep"),
            engine="command",
            config={
                "program": "program.py",
                "command": ["${interpreter}", "${program}", "${args}"],
                "parameters": [{"name": "lr", "path": ["lr"]}],
                "directory": str(folder),
                "engine": {**settings, **limits, "environment": {}},
            },
            space={"lr": FloatRange(0, 1)},
            metric="loss",
            direction="minimize",
            sampler=ComponentSpec("RandomSampler"),
            pruner=None,
            budget=Budget(1, total=True),
            storage=None,
            results=folder / "study.h5",
            seed=0,
        )
        self._session = CommandEngine().open(plan, Slot(threads=1))
        self.delays: list[float] = []

    def run(self) -> float:
        """Seconds of one trial."""
        begin = time.perf_counter()
        self._session.run(TrialInput(0, {"lr": 0.5}, 0), self._report, None)  # type: ignore[arg-type]
        return time.perf_counter() - begin

    def _report(self, step: int, metrics: Mapping[str, float]) -> bool:
        self.delays.append(time.time() - metrics["loss"])
        return False

    def alone(self) -> float:
        """Seconds of the program by itself."""
        begin = time.perf_counter()
        subprocess.run(self.argv, check=True, env={**os.environ, "PTYDASK_METRICS": os.devnull})
        return time.perf_counter() - begin


def overhead(folder: Path, pairs: int) -> Iterator[Row]:
    """What a trial takes longer than its program."""
    trials = Trials(folder, PLAIN)
    trials.run()
    alone, beyond = [], []
    for pair in range(pairs):
        both = (trials.alone, trials.run) if pair % 2 else (trials.run, trials.alone)
        took = [one() for one in both]
        own, whole = took if pair % 2 else reversed(took)
        alone.append(own)
        beyond.append(whole - own)
    yield Row("the program by itself, median", 1000 * median(alone), "ms")
    yield Row(f"a trial beyond that, median of {pairs} pairs", 1000 * median(beyond), "ms", 150)
    yield Row("a trial over its program alone, ratio", 1 + median(beyond) / median(alone), "")


def delay(folder: Path, what: str, text: str, values: int) -> Iterator[Row]:
    """How long after the log call a value is reported."""
    trials = Trials(folder, text.format(values=values))
    trials.run()
    assert len(trials.delays) == values
    yield Row(f"{what}: from its call to the report, median", 1000 * median(trials.delays), "ms", 500)
    yield Row(f"{what}: the longest of {values}", 1000 * max(trials.delays), "ms", 500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--values", type=int, default=20)
    args = parser.parse_args()
    print(HEADER)
    with tempfile.TemporaryDirectory(prefix="command.") as scratch:
        folder = Path(scratch)
        for row in overhead(folder, args.pairs):
            print(row, flush=True)
        for row in delay(folder, "ptydask.report", VALUES, args.values):
            print(row, flush=True)
        if find_spec("wandb") is not None:
            for row in delay(folder, "wandb.log", WANDB, args.values):
                print(row, flush=True)


if __name__ == "__main__":
    main()
