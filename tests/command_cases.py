"""Plans that run a program, and what is left of it: shared by the tests of the engine ``command``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from ptydask.config.sweep import engine_section
from ptydask.distributions import FloatRange
from ptydask.engines import Session
from ptydask.engines.command import CommandEngine
from ptydask.model import Budget, ComponentSpec, Slot, SourceFile, StudyPlan, TrialInput, TrialOutput

PROGRAMS = Path(__file__).parent / "programs"
COMMAND = ("${interpreter}", "-S", "${program}")
"""Python without its site packages starts in a tenth of the time."""


def plan(
    program: str | None,
    started_in: Path,
    command: Sequence[str] = COMMAND,
    parameters: Sequence[Mapping[str, Any]] = ({"name": "lr", "path": ["lr"]},),
    pruner: ComponentSpec | None = None,
    **engine: Any,
) -> StudyPlan:
    """A study that minimizes ``loss`` over ``lr`` in [0.1, 1]."""
    config = {
        "program": program,
        "command": list(command),
        "parameters": [dict(parameter) for parameter in parameters],
        "directory": str(started_in),
        "engine": {**engine_section.DEFAULTS, **engine},
    }
    return StudyPlan(
        name="study",
        source=SourceFile(started_in / "sweep.yaml", "", "sweep"),
        engine="command",
        config=config,
        space={"lr": FloatRange(0.1, 1.0)},
        metric="loss",
        direction="minimize",
        sampler=ComponentSpec("RandomSampler"),
        pruner=pruner,
        budget=Budget(1, total=True),
        storage=None,
        results=started_in / "study.h5",
        seed=0,
    )


class Reports:
    """Takes note of what a session reports, and asks it to end the trial at ``stop_at``."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.values: dict[int, float] = {}
        self.stop_at = stop_at

    def __call__(self, step: int, metrics: Mapping[str, float]) -> bool:
        self.values[step] = metrics["loss"]
        return self.stop_at is not None and step >= self.stop_at


class NoCheckpoint:
    """No earlier attempt, and none to come."""

    def load(self) -> bytes | None:
        return None

    def due(self) -> bool:
        return False

    def save(self, step: int, state: bytes) -> None:
        raise AssertionError


CPU = Slot(threads=1)


def session(of: StudyPlan, slot: Slot = CPU) -> Session:
    return CommandEngine().open(of, slot)


def run(of: StudyPlan, reports: Reports | None = None, slot: Slot = CPU) -> TrialOutput:
    """One trial, number 7, with lr = 0.5."""
    return session(of, slot).run(TrialInput(7, {"lr": 0.5}, 0), reports or Reports(), NoCheckpoint())


def misbehaving(how: str, started_in: Path, **engine: Any) -> StudyPlan:
    """A study of ``programs/misbehaving.py``, which does ``how``."""
    return plan(str(PROGRAMS / "misbehaving.py"), started_in, (*COMMAND, how, "${args}"), **engine)


def processes(folder: Path) -> list[psutil.Process]:
    """All that belong to trials whose own folders are in ``folder``."""
    found = []
    for process in psutil.process_iter():
        try:
            own = process.environ().get("PTYDASK_FOLDER", "")
            dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue
        if own.startswith(str(folder)) and not dead:
            found.append(process)
    return found


def main() -> None:
    """A worker to be killed: one trial of ``misbehaving.py``, in the folder given second, printing its reports."""
    how, folder = sys.argv[1:]

    def report(step: int, metrics: Mapping[str, float]) -> bool:
        print(step, metrics["loss"], flush=True)
        return False

    session(misbehaving(how, Path(folder))).run(TrialInput(7, {"lr": 0.5}, 0), report, NoCheckpoint())


if __name__ == "__main__":
    main()


def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where trials have their own folders; in the end no folder and no process of theirs is left."""
    folders = tmp_path / "folders"
    folders.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folders))
    monkeypatch.setenv("TMPDIR", str(folders))
    yield folders
    assert [left for left in folders.iterdir() if left.name != "dask-scratch-space"] == []
    assert processes(folders) == []
