"""How much better a trial is than the values that the file came with. Pure, standard library only."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

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


def baseline_trial(records: Iterable[TrialRecord]) -> TrialRecord | None:
    """The trial that ran with the file's own values, or the nearest to them that are allowed."""
    return next((record for record in records if record.origin in BASELINES), None)


def compute_gain(record: TrialRecord, own: TrialRecord | None, direction: Direction) -> Gain | None:
    """``record`` beside ``own``; None where one of them has no error to compare."""
    if own is None or own.state is not TrialState.COMPLETE or own.error is None or record.error is None:
        return None
    if not math.isfinite(own.error):
        return None
    difference = own.error - record.error if direction == "minimize" else record.error - own.error
    share = abs(difference / own.error) if own.error else None
    return Gain(own, BASELINES.get(own.origin, BASELINES[OWN_VALUES]), difference, share)
