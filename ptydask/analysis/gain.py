"""How much better a trial is than the values that the file came with. Pure, standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ptydask.model import NEAR_VALUES, OWN_VALUES, Direction, TrialRecord, TrialState

BASELINES = {OWN_VALUES: "the file's own values", NEAR_VALUES: "the allowed values nearest to the file's"}
"""What the trial that others are compared with ran with, by its origin."""


@dataclass(frozen=True, slots=True)
class Gain:
    """One trial beside the one with the file's own values, or the nearest to them that are allowed."""

    own: TrialRecord
    values: str
    """Whose values those are, in words."""
    difference: float
    """By how much the error is better; negative where it is worse."""
    share: float | None
    """The same as a share of the other's error; None where that is 0."""
    step: int | None = None
    """After which step the two are compared, where the other was ended early; else each at its own end."""


def baseline_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial that ran with the file's own values, or the nearest to them that are allowed."""
    return next((record for record in records if record.origin in BASELINES), None)


def compute_gain(
    record: TrialRecord, own: TrialRecord | None, direction: Direction, errors: Mapping[int, float] | None = None
) -> Gain | None:
    """``record`` beside ``own``; None where one of them has no error to compare.

    Where ``own`` was ended early they are compared after the same step; ``errors`` are what ``record`` had after each.
    """
    if own is None or own.error is None or not math.isfinite(own.error) or own.state is TrialState.FAIL:
        return None
    step = own.last_step if own.state is TrialState.PRUNED else None
    reached = record.error if own.state is TrialState.COMPLETE else (errors or {}).get(step or 0)
    if reached is None or not math.isfinite(reached):
        return None
    difference = own.error - reached if direction == "minimize" else reached - own.error
    share = abs(difference / own.error) if own.error else None
    return Gain(own, BASELINES.get(own.origin, BASELINES[OWN_VALUES]), difference, share, step)


def errors_by_step(curve: Mapping[str, Any], metric: str) -> dict[int, float]:
    """Step -> the tuned metric after it, of a trial's curve; empty where the curve has none."""
    if metric not in curve:
        return {}
    return {int(step): float(error) for step, error in zip(curve["step"], curve[metric], strict=True)}
