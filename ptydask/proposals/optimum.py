"""Where the optimum lies between the points that were tried, and how well that is known: a pure decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ptydask.distributions import Distribution
from ptydask.model import Direction, Optimum, TrialRecord, TrialState
from ptydask.proposals.agreement import CLEARLY, weigh_agreement
from ptydask.proposals.coordinates import Floats, UnitCube
from ptydask.proposals.gaussian_process import GaussianProcess, Indices, Observations
from ptydask.proposals.next_point import TrialEvidence, fit_model, on_one_thread
from ptydask.ranking import best_of

_FEWEST = 3
"""Completed trials with slopes, before anything is said."""
_MANY = 10
"""Trials that are no worse than the median, before they are asked alone."""
_SETTLED = 0.5
"""Grid steps that the standard deviation may have at most in a study that is settled."""
AT_REST = 0.05
"""By which share of itself the best trial's loss may still fall in an iteration: the optimum of the demo's loss moves
while that is more."""
_HELD = 1.0
"""Grid steps that the optimum of a settled study may move by at most when trials are left out of the model."""
_BEYOND = 2
"""Trials that have told their slope in each parameter in a settled study, beyond as many as there are parameters."""
_PARTS = 10
"""Into which trials are dealt, at most, of which one is left out at a time: each costs the fit of a model."""
_CURVATURE_STEP = 0.01
"""Share of a length scale over which the curvature is taken."""


def locate_optimum(
    records: Sequence[TrialRecord], space: Mapping[str, Distribution], direction: Direction
) -> Optimum | None:
    """The optimum near the best completed trial; None with fewer than three trials to go by, or without a minimum.

    A loss is seldom one smooth bowl from end to end: where all trials together settle nothing and there are many, the
    better half of them is asked.
    """
    told = [record for record in records if record.gradient and record.error is not None]
    told = [record for record in told if record.params.keys() >= space.keys()]
    whole = _locate(told, space, direction)
    better = _better_half(told, direction)
    if (whole is not None and whole.is_settled) or len(better) < _MANY:
        return whole
    local = _locate(better, space, direction)
    return local if local is not None and local.is_settled else whole


def _better_half(told: Sequence[TrialRecord], direction: Direction) -> list[TrialRecord]:
    """Those that are no worse than the median of the completed ones."""
    sign = 1.0 if direction == "minimize" else -1.0
    completed = [sign * (record.error or 0.0) for record in told if _is_complete(record)]
    if not completed:
        return []
    middle = float(np.median(completed))
    return [record for record in told if sign * (record.error or 0.0) <= middle]


@on_one_thread
def _locate(told: Sequence[TrialRecord], space: Mapping[str, Distribution], direction: Direction) -> Optimum | None:
    """By all trials of ``told`` together, each with an error and slopes.

    The center x is where the model's slope g(x) is zero, found by Newton's method; with the curvature H there, and the
    covariance S of the slope, the covariance of x is H^-1 S H^-1 (the delta method).
    """
    best = best_of(told, direction)
    completed = sum(map(_is_complete, told))
    if best is None or completed < _FEWEST:
        return None
    cube = UnitCube(space)
    names = [name for name in space if name in best.gradient and cube.place_of(name) is not None]
    if not names:
        return None
    model, seen = fit_model(cube, [read_evidence(record) for record in told], direction)
    axes = np.array([cube.place_of(name) for name in names], dtype=np.intp)
    start = cube.encode_point(best.params)
    end = _find_minimum(model, start, axes)
    if end is None:
        return None
    point, curvature = end
    _, covariance = model.predict_slopes(point, axes)
    inverse = np.linalg.inv(curvature)
    deviations = np.sqrt(np.maximum(np.diag(inverse @ covariance @ inverse), 0.0))
    steps = cube.spacing[axes]
    # Where the loss still falls at the end of a range, the model may turn just before it.
    inside = (point[axes] > 0.5 * steps) & (point[axes] < 1 - 0.5 * steps)
    # A loss that says nothing, and slopes of the wrong sign, have minima of the model, too: those are no optimum.
    at_rest = best.relative_decrease is None or best.relative_decrease <= AT_REST
    # Whichever trial is left out, the others have to be enough for a step in every direction.
    believed = np.isfinite(seen.slopes[:, axes]).sum(0) >= len(axes) + _BEYOND
    settled = bool(at_rest and (inside & believed & (deviations <= _SETTLED * steps)).all())
    if settled:
        # Whoever opens the results finds a trial there: the grid point nearest to the optimum, or the one next to it
        # where the optimum lies between the two.
        completed_points = np.stack([cube.encode_point(record.params) for record in told if _is_complete(record)])
        settled = bool((np.abs(completed_points - point)[:, axes] <= 0.5 * steps + deviations).all(1).any())
    params = cube.decode_point(point)
    units = {name: abs(cube.unit_of(name, params)) for name in names}
    center = {name: cube.value_at(name, float(point[axis])) for name, axis in zip(names, axes, strict=True)}
    return Optimum(
        center=center,
        deviation={name: float(d) * units[name] for name, d in zip(names, deviations, strict=True)},
        trial=best.number,
        is_settled=settled and _is_trusted(model, seen, tuple(point), tuple(axes), tuple(_HELD * steps)),
    )


@lru_cache(maxsize=4)
def _is_trusted(
    model: GaussianProcess,
    seen: Observations,
    optimum: tuple[float, ...],
    axes: tuple[int, ...],
    reach: tuple[float, ...],
) -> bool:
    """Whether values and slopes agree, and the optimum stays where it is; asked anew only of another model."""
    places = np.array(axes, dtype=np.intp)
    return weigh_agreement(model, seen) > CLEARLY and _is_held(seen, np.array(optimum), places, np.array(reach))


def _is_held(seen: Observations, optimum: Floats, axes: Indices, reach: Floats) -> bool:
    """Whether the model's optimum stays within ``reach`` (k,) of itself whatever part of the trials is left out.

    The deviations are those of a model that is right. Trials that lie along a line in two parameters that belong
    together (rotation and shear: a valley of the loss slants through both) say nothing of the curvature across it. The
    kernel, whose axes are the parameters', supplies one, and is sure of it: yet it hangs on one far trial or another,
    and its length scales change when that is missing. This is the jackknife, by groups where there are many trials
    (Efron, The Jackknife, the Bootstrap and Other Resampling Plans, 1982, chapters 2 and 3); the hyperparameters are
    fitted anew each time, since with the old ones nothing moves.
    """
    places = np.arange(len(seen.points))
    for part in range(min(_PARTS, len(places))):
        kept = places % _PARTS != part
        rest = replace(
            seen, points=seen.points[kept], values=seen.values[kept], slopes=seen.slopes[kept], doubt=seen.doubt[kept]
        )
        end = _find_minimum(GaussianProcess(rest), optimum, axes)
        if end is None or (np.abs(end[0] - optimum)[axes] > reach).any():
            return False
    return True


def _is_complete(record: TrialRecord) -> bool:
    return record.state is TrialState.COMPLETE


def read_evidence(record: TrialRecord) -> TrialEvidence:
    """What a recorded trial told that completed or was pruned."""
    return TrialEvidence.of_trial(record.params, record.error, record.gradient, pruned=not _is_complete(record))


def _find_minimum(model: GaussianProcess, start: Floats, axes: Indices) -> tuple[Floats, Floats] | None:
    """Newton's method along ``axes`` (k,), within the unit cube; the point (d,) and the curvature there (k, k).

    None where the curvature is not that of a minimum.
    """
    point = start.copy()
    reach = 0.5 * model.lengths[axes]
    for _ in range(20):
        slopes, _ = model.predict_slopes(point, axes)
        curvature = _curvature_at(model, point, axes)
        values, vectors = np.linalg.eigh(curvature)
        if values.min() <= 0:
            # Along a direction that bends the wrong way, go downhill as if it bent the right way.
            values = np.maximum(np.abs(values), 1e-6 * np.abs(values).max() + 1e-300)
        move = -(vectors @ ((vectors.T @ slopes) / values))
        move *= min(1.0, 1.0 / max(float(np.max(np.abs(move) / reach)), 1e-300))
        moved = point.copy()
        moved[axes] = np.clip(point[axes] + move, 0.0, 1.0)
        if np.max(np.abs(moved - point)) < 1e-6:
            break
        point = moved
    curvature = _curvature_at(model, point, axes)
    return (point, curvature) if np.linalg.eigvalsh(curvature).min() > 0 else None


def _curvature_at(model: GaussianProcess, point: Floats, axes: Indices) -> Floats:
    """The second derivatives (k, k) of the model's mean, from differences of its slopes."""
    rows = []
    for axis in axes:
        step = np.zeros(len(point))
        step[axis] = _CURVATURE_STEP * model.lengths[axis]
        above, below = (model.predict_slopes(point + sign * step, axes)[0] for sign in (1.0, -1.0))
        rows.append((above - below) / (2 * step[axis]))
    curvature = np.stack(rows)
    return np.asarray((curvature + curvature.T) / 2)
