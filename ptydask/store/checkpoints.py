"""Checkpoints of trials under way, in the folder of the trials' files."""

from __future__ import annotations

from pathlib import Path

from ptydask.store import files, names
from ptydask.trial import checkpoint


def read(folder: Path, number: int) -> bytes | None:
    """What was saved last; None where nothing was."""
    try:
        return names.checkpoint_path(folder, number).read_bytes()
    except FileNotFoundError:
        return None


def write(folder: Path, number: int, data: bytes) -> None:
    """Keep ``data`` instead of what was saved before; durable on return. Raises OSError."""
    files.write_bytes(names.checkpoint_path(folder, number), data)


def step(folder: Path, number: int) -> int:
    """After which step the last checkpoint was taken; 0 where there is none."""
    try:
        with names.checkpoint_path(folder, number).open("rb") as file:
            return checkpoint.step_of(file.read(checkpoint.FIRST_LINE))
    except OSError:
        return 0


def drop(folder: Path, number: int) -> None:
    """Remove the checkpoint of a trial that is over."""
    names.checkpoint_path(folder, number).unlink(missing_ok=True)


def count(folder: Path) -> int:
    """How many trials have one."""
    return sum(1 for _ in folder.glob("*.checkpoint"))
