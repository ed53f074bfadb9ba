"""How much better a trial is than the values that its study came with. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ptydask.formatting import printable_text, value_text
from ptydask.lineage import StageLineage
from ptydask.model import NEAR_VALUES, OWN_VALUES, Direction, StudyMeta, TrialRecord, TrialState

BASELINES = {OWN_VALUES: "the file's own values", NEAR_VALUES: "the allowed values nearest to the file's"}
"""What the trial that others are compared with ran with, by its origin."""
_OF_STAGES = {
    OWN_VALUES: ("the best values of earlier stages", " and the file's own"),
    NEAR_VALUES: ("the allowed values nearest to the best ones of earlier stages", " and the file's"),
}
"""The same where earlier stages found them, and where they found some of them."""


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


def baseline_text(own: TrialRecord, lineage: StageLineage | None) -> str:
    """Whose values the trial ran with that others are compared with: the file's, or those of stages before its own."""
    if lineage is None or is_of_file(own, lineage):
        return BASELINES.get(own.origin, BASELINES[OWN_VALUES])
    found, besides = _OF_STAGES.get(own.origin, _OF_STAGES[OWN_VALUES])
    return found if own.params.keys() <= lineage.values.keys() else f"{found}{besides}"


def is_of_file(own: TrialRecord, lineage: StageLineage | None) -> bool:
    """Whether a trial that others are compared with has the file's values alone, none of earlier stages."""
    return lineage is None or lineage.values.keys().isdisjoint(own.params)


def compute_gain(
    record: TrialRecord,
    own: TrialRecord | None,
    direction: Direction,
    errors: Mapping[int, float] | None = None,
    lineage: StageLineage | None = None,
) -> Gain | None:
    """``record`` beside ``own``, a trial of the stage with this ``lineage``; None without two errors to compare.

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
    return Gain(own, baseline_text(own, lineage), difference, share, step)


def errors_by_step(curve: Mapping[str, Any], metric: str) -> dict[int, float]:
    """Step -> the tuned metric after it, of a trial's curve; empty where the curve has none."""
    if metric not in curve:
        return {}
    return {int(step): float(error) for step, error in zip(curve["step"], curve[metric], strict=True)}


def origin_text(record: TrialRecord, meta: StudyMeta) -> str:
    """Where a trial's values are from: the file, stages before its own, or whoever chose them."""
    inherited = meta.lineage is not None and meta.lineage.values
    if not record.params:
        return "earlier stages" if inherited else "the file itself"
    if record.origin not in BASELINES:
        return printable_text(record.origin)
    of_file = record.origin == OWN_VALUES and is_of_file(record, meta.lineage)
    return "the file itself" if of_file else baseline_text(record, meta.lineage)


def baseline_notes(record: TrialRecord, own: TrialRecord | None, lineage: StageLineage | None) -> dict[str, str]:
    """What each parameter was in the file or an earlier stage; in the trial next to it, where that is not allowed."""
    if own is None or own.number == record.number:
        return {}
    origins = {} if lineage is None else lineage.origins
    words = {name: f"stage {printable_text(origins[name][0])}:" if name in origins else "was" for name in own.params}
    if own.origin == NEAR_VALUES:
        words = dict.fromkeys(own.params, f"trial {own.number}:")
    return {name: f"{words[name]} {value_text(value)}" for name, value in own.params.items()}
