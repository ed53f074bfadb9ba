"""What is asked of a run, who watches it, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ptydask.model import RunSnapshot, TrialRecord

GOES_ON = "the same command goes on from here"
"""How a message ends that says why a run stopped early."""


class Observer(Protocol):
    """Who watches a run; see :mod:`ptydask.cli.view`."""

    def update(self, snapshot: RunSnapshot) -> None:
        """Called about once a second."""

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """A trial was recorded."""

    def notice(self, text: str) -> None:
        """Something that a person should know."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run."""

    total: int
    retries: int = 3
    """Times that a trial is tried again after its worker was lost."""
    checkpoint_every: float = 120.0
    """Seconds between two checkpoints of a trial."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    snapshot: RunSnapshot
    complete: bool
    """Whether every trial that was asked for is recorded; else its time is over."""
