"""Whose turn it is: that of the slopes, or of the file's own sampler. A pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ptydask.model import BY_SAMPLER, BY_SLOPES, Direction

FIRST, EVERY, BEATEN, RARELY = 8, 4, 3, 16
"""The slopes have the first so many trials. Then the sampler has a trial after every fourth of theirs, after every
sixteenth once it was beaten in three of its own, and after each as long as the best trial of all is one of its own."""


@dataclass(frozen=True, slots=True)
class PastTrial:
    """Who chose a trial's point, and what it came to: None where it is under way, was pruned or failed."""

    origin: str
    error: float | None


def slopes_lead(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the next point is chosen by the slopes, after the trials of ``history`` in any order."""
    chosen = sum(trial.origin == BY_SLOPES for trial in history)
    drawn = sum(trial.origin == BY_SAMPLER for trial in history)
    if chosen < FIRST:
        return True
    every = 1 if sampler_is_ahead(history, direction) else RARELY if drawn >= BEATEN else EVERY
    return drawn >= (chosen - FIRST) // every + 1


def sampler_is_ahead(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the best trial of all is the sampler's, which then has every other turn: after the slopes' first ones."""
    sign = 1.0 if direction == "minimize" else -1.0
    ended = [(sign * trial.error, trial.origin) for trial in history if trial.error is not None]
    # Those of many workers that are under way have had no chance yet.
    completed = sum(trial.origin == BY_SLOPES and trial.error is not None for trial in history)
    had_their_turns = completed >= BEATEN and sum(trial.origin == BY_SLOPES for trial in history) >= FIRST
    return had_their_turns and bool(ended) and min(ended)[1] == BY_SAMPLER
