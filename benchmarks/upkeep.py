"""What is done with large studies after their run, and how long it takes. Prints a table.

    python benchmarks/upkeep.py [--trials 4000] [--report 5000] [--many 10000] [--only NAME ...] [--write]

The trials are tiny, so that what is measured is what each costs whatever it holds: 6 parameters, a curve of 12
iterations, an object and a picture of 32 x 32. Their files are written without anything being run. Each line is one
command, as a user runs it: ``wall`` is from its start to its end, ``CPU`` that of all its processes together, which
other work on the machine does not spoil.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from sections import Table, add_write_argument, write_section

from ptydask.model import Image, KeepOptions, Quantity, StudyMeta, TrialOutput, TrialRecord, TrialState
from ptydask.store import Store, byte_seal, shard
from ptydask.store.upkeep import packing

NAMES = ("scale", "asymmetry", "rotation", "shear", "tilt_y", "tilt_x")
SPACE = {
    name: {"name": "FloatDistribution", "attributes": {"step": None, "low": -4.0, "high": 4.0, "log": False}}
    for name in NAMES
}
META = StudyMeta("upkeep", "minimize", "loss", "ptyrad", "", "ptyrad", "{}", json.dumps(SPACE))
ITERATIONS, SIDE = 12, 32


@dataclass(frozen=True, slots=True)
class Cost:
    """What one command took."""

    what: str
    trials: int
    wall: float
    cpu: float
    """Seconds, of all processes."""
    note: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        a_trial = [f"{1000 * seconds / self.trials:.2f}" for seconds in (self.wall, self.cpu)]
        return (self.what, f"{self.trials}", f"{self.wall:.1f}", f"{self.cpu:.1f}", *a_trial, self.note)


COLUMNS = ("command", "trials", "wall, s", "CPU, s", "wall, ms a trial", "CPU, ms a trial", "")


def trial(number: int) -> tuple[TrialRecord, TrialOutput]:
    """A completed trial of a study that finds its optimum slowly."""
    chance = np.random.default_rng(number)
    values = chance.normal(size=len(NAMES))
    end = float(0.2 + 0.05 * np.square(values).sum())
    curve = (end + np.exp(-np.arange(ITERATIONS) / 3)).tolist()
    metrics = {"loss": curve[-1], "contrast": float(chance.random())}
    record = TrialRecord(
        number,
        TrialState.COMPLETE,
        metrics["loss"],
        dict(zip(NAMES, values.tolist(), strict=True)),
        metrics,
        started=f"2025-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000000+00:00",
        seconds=61.5,
        worker=f"worker-{number % 20}",
        host=f"node{number % 5}",
        device="NVIDIA A100-SXM4-80GB",
        seed=number,
    )
    picture, axis = chance.random((SIDE, SIDE)).astype(np.float32), np.arange(SIDE, dtype=np.float64)
    return record, TrialOutput(
        metrics,
        {"step": list(range(1, ITERATIONS + 1)), "loss": curve},
        arrays={"object_phase": Quantity(picture[None], "rad")},
        image=Image(picture, axis, axis, "rad", "angstrom", "object phase"),
        attributes={"pixel_size": 0.15},
    )


def write_stopped(path: Path, trials: int) -> None:
    """A study that was stopped: an index, and a file for each trial."""
    store = Store.open(path, META)
    for record, output in map(trial, range(trials)):
        shard.write(store.folder, record, output, KeepOptions(), direction=META.direction, metric=META.metric)
        store.add(record)
    store.refresh(force=True)
    store.close()


def measure(what: str, trials: int, *command: str, folder: Path, note: Callable[[], str] = str) -> Cost:
    """Run ``command``, a whole one of its own. Raises RuntimeError where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    begin = time.perf_counter()
    child = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, used = os.wait4(child.pid, 0)  # its own children's time, too
    wall = time.perf_counter() - begin
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"{what}: exit code {child.returncode}: {said}")
    return Cost(what, trials, wall, used.ru_utime + used.ru_stime, note())


def keep_up(folder: Path, trials: int, wanted: Callable[[str], bool]) -> Iterator[Cost]:
    """What is asked of a study that stopped, verifying, thinning and packing."""
    if not any(map(wanted, ("verify", "info", "thin", "pack"))):
        return
    path, program = folder / "stopped.h5", (sys.executable, "-m", "ptydask")
    write_stopped(path, trials)

    def run(what: str, *words: str) -> Iterator[Cost]:
        if wanted(what.split()[0].strip(",:")):
            yield measure(what, trials, *program, *words, folder=folder)

    yield from run("verify, of trials' own files", "verify", "stopped.h5")
    yield from run("info of trials' own files", "info", "stopped.h5")
    yield measure("pack", trials, *program, "pack", "stopped.h5", folder=folder)
    yield from run("verify", "verify", "stopped.h5")
    yield from run("thin: pack --arrays best:10", "pack", "stopped.h5", "--arrays", "best:10", "-o", "thin.h5")
    if wanted("verify"):
        os.truncate(path, path.stat().st_size - byte_seal.SIZE)
        yield from run("verify, trial by trial", "verify", "stopped.h5")


ABOUT = (
    f"Tiny trials ({len(NAMES)} parameters, a curve of {ITERATIONS} iterations, an object and a picture of {SIDE} x "
    f"{SIDE}), written without being run. Each line is one command from its start to its end; CPU is that of all its "
    "processes together.",
)
WHY = (
    "What is verified, packed or thinned carries the SHA-256 of its bytes in its last line as long as nobody changed "
    "it: it is read once, and no trial in it is looked at. Files of more than 256 MiB are not made in memory and have "
    "no such line; there, as in any file that changed, each trial's own digest is computed ('trial by trial'): for "
    "each of its dozens of attributes HDF5 is asked for name, type, shape and value, in calls of some microseconds. A "
    "thinned trial gets a digest of its own, for which what it keeps is read so. Several processes that thin side by "
    "side, or attributes that are read through HDF5's C interface, would lift that.",
    "Of a report about half is Matplotlib (each figure is laid out, then drawn), the rest the trials' curves and their "
    "thumbnails. Curves are read and figures drawn on all cores, four at most. Nothing grows faster than the number of "
    "trials.",
)

IN_PYTHON = {
    "open(), table()": "study.table()",
    "open(), curves()": "study.curves()",
    "open(), study(), of Optuna": "study.study()",
    "open(), best()": "study.best().arrays['object_phase'][()]",
}


def read(folder: Path, report: int, many: int, wanted: Callable[[str], bool]) -> Iterator[Cost]:
    """What shows a study, or makes other files of it."""
    commands = {
        "report": (report, "report {} -o page.html"),
        "ls": (many, "ls {}"),
        "ls --where": (many, "ls {} --where scale>0 --sort loss"),
        "best": (many, "best {}"),
        "show": (many, "show {} 17"),
        "status": (many, "status {}"),
        "info": (many, "info {}"),
        "export csv": (many, "export {} csv --force"),
        "export parquet": (many, "export {} parquet --force"),
        "compare": (many, "compare {} copy.h5"),
        "plot": (many, "plot {} -o figures"),
        "montage": (many, "montage {} -o figure.png"),
    }
    made: dict[int, str] = {}

    def study_of(count: int) -> str:
        if count not in made:
            made[count] = f"of-{count}.h5"
            packing.write_new(folder / made[count], META, map(trial, range(count)))
            (folder / "copy.h5").unlink(missing_ok=True)
            (folder / "copy.h5").hardlink_to(folder / made[count])
        return made[count]

    for what, (count, words) in commands.items():
        if wanted(what.split()[0]):
            line = words.format(study_of(count)).split()
            page = folder / "page.html"
            size = (lambda page=page: f"{page.stat().st_size / 1e6:.1f} MB") if what == "report" else str
            yield measure(what, count, sys.executable, "-m", "ptydask", *line, folder=folder, note=size)
    for what, code in IN_PYTHON.items():
        if wanted("open()"):
            program = f"import ptydask\nstudy = ptydask.open({study_of(many)!r})\n{code}"
            yield measure(what, many, sys.executable, "-c", program, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=4000, help="to be verified, packed and thinned")
    parser.add_argument("--report", type=int, default=5000, help="trials on the page of a report")
    parser.add_argument("--many", type=int, default=10_000, help="trials of the study that is read")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="first words of lines of the table")
    add_write_argument(parser)
    args = parser.parse_args()

    def wanted(word: str) -> bool:
        return not args.only or word in args.only

    costs = []
    print(f"{'':<34}{'trials':>7}{'wall, s':>9}{'CPU, s':>9}{'ms a trial:':>12}{'wall':>8}{'CPU':>8}")
    with tempfile.TemporaryDirectory(prefix="upkeep.") as scratch:
        folder = Path(scratch)
        for cost in chain(keep_up(folder, args.trials, wanted), read(folder, args.report, args.many, wanted)):
            costs.append(cost)
            what, trials, *seconds, wall, cpu, note = cost.cells
            print(
                f"{what:<34}{trials:>7}{''.join(f'{cell:>9}' for cell in seconds)}{wall:>20}{cpu:>8}  {note}".rstrip(),
                flush=True,
            )
    if args.write:
        table = Table(COLUMNS, tuple(cost.cells for cost in costs))
        write_section("upkeep", "Upkeep of large studies", *ABOUT, table, *WHY)


if __name__ == "__main__":
    main()
