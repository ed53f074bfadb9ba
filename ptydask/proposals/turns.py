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
    """Who chose a trial's point, and what it came to."""

    origin: str
    error: float | None
    """None where it is under way, was pruned or failed."""
    ended: bool = True


def slopes_lead(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the next point is chosen by the slopes, after the trials of ``history`` in the order of their numbers."""
    origins = [trial.origin for trial in history]
    if origins.count(BY_SLOPES) < FIRST:
        return True
    last = max((place for place, origin in enumerate(origins) if origin == BY_SAMPLER), default=-1)
    since = origins[last + 1 :].count(BY_SLOPES)
    return since < _turns_between(history, direction)


def _turns_between(history: Sequence[PastTrial], direction: Direction) -> int:
    """Trials of the slopes between two of the sampler's."""
    if sampler_is_ahead(history, direction):
        return 1
    tried = sum(trial.origin == BY_SAMPLER and trial.ended for trial in history)
    return RARELY if tried >= BEATEN else EVERY


def sampler_is_ahead(history: Sequence[PastTrial], direction: Direction) -> bool:
    """Whether the best trial of all is the sampler's, which then has every other turn: after the slopes' first ones."""
    sign = 1.0 if direction == "minimize" else -1.0
    completed = [trial for trial in history if trial.error is not None]
    drawn = [sign * (trial.error or 0.0) for trial in completed if trial.origin == BY_SAMPLER]
    others = [sign * (trial.error or 0.0) for trial in completed if trial.origin != BY_SAMPLER]
    # Those of many workers that are under way have had no chance yet.
    chosen = sum(trial.origin == BY_SLOPES for trial in completed)
    if chosen < BEATEN or sum(trial.origin == BY_SLOPES for trial in history) < FIRST:
        return False
    return bool(drawn) and min(drawn) < min(others)
