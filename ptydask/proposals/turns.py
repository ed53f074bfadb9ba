"""Whose turn it is: that of the slopes, or of the file's own sampler. A pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptydask.model import Direction

SLOPES, SAMPLER = "slopes", "sampler"
"""Origins of trials."""
FIRST, EVERY, BEATEN, RARELY = 8, 4, 3, 16
"""The slopes have the first so many trials. Then the sampler has every fourth, and once it was beaten in three of its
own every sixteenth."""


@dataclass(frozen=True, slots=True)
class PastTrial:
    """Who chose a trial's point, and what it came to: None where it is under way, was pruned or failed."""

    origin: str
    error: float | None


def slopes_lead(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the next point is chosen by the slopes, after the trials of ``history`` in any order."""
    chosen = sum(trial.origin == SLOPES for trial in history)
    drawn = sum(trial.origin not in (SLOPES, "start", "near start") for trial in history)
    if chosen < FIRST:
        return True
    every = RARELY if _was_beaten(history, direction) else EVERY
    return drawn >= (chosen - FIRST) // every + 1


def _was_beaten(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the sampler had its chance, and no trial of its own is the best."""
    sign = 1.0 if direction == "minimize" else -1.0
    ended = [(sign * trial.error, trial.origin == SAMPLER) for trial in history if trial.error is not None]
    tried = sum(trial.origin == SAMPLER for trial in history)
    return tried >= BEATEN and bool(ended) and not min(ended)[1]
