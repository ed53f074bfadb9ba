"""What the driver tells those who watch a run, and what ``status`` reads: frozen dataclasses, standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptydask.model import Direction, Scalar, TrialRecord, TrialState


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A trial under way, as seen from outside."""

    number: int
    params: Mapping[str, Scalar]
    step: int
    error: float | None
    worker: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The whole run at one moment."""

    study: str
    results: Path
    total: int
    counts: Mapping[str, int]
    """``complete``, ``pruned``, ``failed``, ``running``, ``lost`` (attempts that are run again)."""
    best: TrialRecord | None
    running: tuple[RunningTrial, ...]
    workers: int
    seconds: float
    """Since this run began."""
    remaining: float | None
    """Seconds to the end, by the trials so far; None while unknown."""
    iterations: int | None
    metric: str
    direction: Direction
    waiting: str = ""
    """What keeps more workers from coming, in words; empty where all are there."""
    work: float | None = None
    """Seconds of workers, on GPUs of GPUs, that all trials of this run will have taken; None while unknown."""
    on_gpus: bool = False
    """Whether its trials run on GPUs."""
    repeats: bool = False
    """Whether its trials repeat those of another study: of these none is the best."""
    stage: str = ""
    """``2 of 4: scan``: which stage of its study it is; empty for a study without stages."""
    queue: str = ""
    """``2 of 3: session-b``: which study of a queue it is; empty for one that runs alone."""
    others: tuple[str, ...] = ()
    """The other studies of the queue, in a line each."""

    @property
    def noun(self) -> str:
        """What one of its trials is called."""
        return "repeat" if self.repeats else "trial"

    @property
    def recorded(self) -> int:
        """Trials that have ended and count towards the total."""
        return sum(self.counts.get(state.word, 0) for state in TrialState)
