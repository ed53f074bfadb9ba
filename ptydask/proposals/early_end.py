"""Whether a trial under way has told enough: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ptydask.distributions import Distribution
from ptydask.model import Direction
from ptydask.proposals.agreement import CLEARLY, weigh_agreement
from ptydask.proposals.coordinates import UnitCube
from ptydask.proposals.next_point import TrialEvidence, find_lowest_bound, fit_model, on_one_thread

_SHARE = 0.4
"""Of its iterations, after which a trial is judged: with 0.25 the demo's best point is found later, though its
neighbours sooner."""
_AT_REST = 0.1
"""By which share of itself the loss may still fall in the iteration, for slopes to be gone by. It is about the
direction alone: the demo's is right at this point, where a first trial's loss still falls by 3 to 8 %."""
_FREE = 2
"""Trials, or as many as are under way at once, may end early before any has run to its end."""
_LEFT = 5
"""Trials of the study that are still to begin, at least: a short study is better off with whole ones."""
_FAR = 1.5
"""Grid steps, in some coordinate, between the trial and where the search would go instead."""


def judged_after(iterations: int | None) -> int | None:
    """The iteration after which a trial of so many is judged; None where it is too short, or its length is unknown."""
    if iterations is None:
        return None
    step = math.ceil(_SHARE * iterations)
    return step if 2 <= step < iterations else None


@on_one_thread
def has_told_enough(
    space: Mapping[str, Distribution],
    evidence: Sequence[TrialEvidence],
    trial: TrialEvidence,
    *,
    relative_decrease: float | None,
    under_way: int,
    left: int | None,
    direction: Direction,
    seed: int,
) -> bool:
    """Whether the slopes of ``trial`` lead away from it, so that the rest of its iterations is better spent elsewhere.

    ``evidence`` are the trials that have ended; ``under_way`` is how many have not, ``left`` how many are
    still to begin. A trial goes on that is near where the search would go next, whose loss still falls by much, or some
    of whose slopes values have contradicted. A wave
    of trials may end early on its slopes' word alone; after that one may for each that ran to its end, and values and
    slopes have to agree: slopes that lead astray are found out by values only.
    """
    completed = sum(told.error is not None for told in evidence)
    ended_early, free = len(evidence) - completed, max(_FREE, under_way)
    if relative_decrease is None or relative_decrease > _AT_REST or (left is not None and left < _LEFT):
        return False
    if ended_early >= free + max(completed - 1, 0):
        return False
    cube = UnitCube(space)
    told = [*evidence, trial]
    model, seen = fit_model(cube, told, direction)
    if np.isfinite(seen.slopes).sum() < sum(len(each.gradient) for each in told):
        return False
    if ended_early >= free and (completed < 2 or weigh_agreement(model, seen) <= CLEARLY):
        return False
    here, there = cube.encode_point(trial.params), find_lowest_bound(cube, model, seen, told, [], seed)
    axes = [axis for axis in map(cube.place_of, trial.gradient) if axis is not None]
    means, _ = model.predict_values(np.stack([here, there]))
    return bool((np.abs(here - there) > _FAR * cube.spacing)[axes].any() and means[1] < means[0])
