"""The next point of a search that knows the slopes of its trials: a pure decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptydask.distributions import Distribution
from ptydask.model import Direction, Scalar
from ptydask.proposals.agreement import find_contradicted
from ptydask.proposals.coordinates import Floats, UnitCube
from ptydask.proposals.gaussian_process import GaussianProcess, Observations

_MOST_NUMBERS = 260
"""Values and slopes that the model is made from: a proposal has to come within half a second."""
_LISTED = 4000
"""A grid of so many points is looked at whole."""
_DRAWN = 1500
"""Points that are drawn otherwise: in the whole space, and so many again around the best trials."""
_REACHES = (0.03, 0.1, 0.3)
"""Standard deviations of those around the best trials, in length scales."""
_CLIMBERS = 3
"""Of those drawn, the best so many are improved step by step."""
_HALVINGS, _MOVES = 6, 10
"""Of a climber: how often its steps are halved, and the most steps of one size."""
CONFIDENCE = 1.0
"""The point of the lowest mean less so many standard deviations is next (lower confidence bound)."""
_NEIGHBOUR = 1.5
"""No nearer than so many grid steps, in every coordinate, to a trial under way, unless it promises more."""
PRUNED_DOUBT = 3.0
"""By how much the slopes of a trial that was ended early are less certain."""
_OUTLIER = 10.0
"""No value counts as further above the best than so many times the median."""
_SAME = 1e-6
_SAME_LENGTHS = 0.05
"""Length scales within which trials off any grid are the same."""

Bound = Callable[[Floats], Floats]

_P = ParamSpec("_P")
_R = TypeVar("_R")


def on_one_thread(decide: Callable[_P, _R]) -> Callable[_P, _R]:
    """The same, with one thread for its matrices.

    They are small: threads would wait for each other, seconds on a busy machine, and differ in the last bit.
    """

    @wraps(decide)
    def decide_alone(*args: _P.args, **named: _P.kwargs) -> _R:
        from threadpoolctl import threadpool_limits  # which sets a variable of the process as it is imported

        with threadpool_limits(limits=1, user_api="blas"):
            return decide(*args, **named)

    return decide_alone


@dataclass(frozen=True, slots=True)
class TrialEvidence:
    """What one trial told."""

    params: Mapping[str, Scalar]
    error: float | None
    """None for a trial that was pruned: its last value is not comparable."""
    gradient: Mapping[str, float] = field(default_factory=dict)
    doubt: float = 1.0
    """By how much its slopes are less certain than those of a trial that ran to its end."""

    @classmethod
    def of_trial(
        cls, params: Mapping[str, Scalar], error: float | None, gradient: Mapping[str, float], *, pruned: bool
    ) -> TrialEvidence:
        """What a trial told that ran to its end, or was pruned with this error."""
        return cls(params, None, gradient, PRUNED_DOUBT) if pruned else cls(params, error, gradient)


@on_one_thread
def propose_point(
    space: Mapping[str, Distribution],
    evidence: Sequence[TrialEvidence],
    running: Sequence[Mapping[str, Scalar]],
    *,
    direction: Direction,
    seed: int,
) -> dict[str, Scalar] | None:
    """Where the error is likely lowest (``maximize``: highest), or could be; None without any evidence.

    ``running`` are points whose trials have not ended. They are not proposed, nor are their neighbours unless one
    promises more than all of them. The model takes them to come out as it predicts, so that several proposals in a
    row spread over what is uncertain (the "kriging believer" of Ginsbourger, Le Riche and Carraro, 2010).
    """
    if not evidence:
        return None
    cube = UnitCube(space)
    if cube.size == 0:
        return cube.decode_point(np.empty(0))
    model, seen = fit_model(cube, evidence, direction)
    under_way = [cube.encode_point(point) for point in running]
    if under_way:
        model = _believe(model, seen, under_way)
    return cube.decode_point(find_lowest_bound(cube, model, seen, evidence, under_way, seed))


@on_one_thread
def fit_model(
    cube: UnitCube, evidence: Sequence[TrialEvidence], direction: Direction
) -> tuple[GaussianProcess, Observations]:
    """The model of the error, to be minimised, and what it was made from.

    That is the best trials where there are many, without the slopes that their values contradict.
    """
    sign = 1.0 if direction == "minimize" else -1.0
    per_trial = 1 + max((len(trial.gradient) for trial in evidence), default=0)
    ranked = sorted(evidence, key=lambda trial: np.inf if trial.error is None else sign * trial.error)
    chosen = ranked[: max(_MOST_NUMBERS // per_trial, 10)]
    values = np.array([np.nan if trial.error is None else sign * trial.error for trial in chosen])
    slopes = sign * np.stack([cube.encode_gradient(trial.params, trial.gradient) for trial in chosen])
    values, slopes = _cap_outliers(values, slopes)
    points = np.stack([cube.encode_point(trial.params) for trial in chosen])
    doubt = np.array([trial.doubt for trial in chosen])
    return _fit_arrays(cube.size, *(array.tobytes() for array in (points, values, slopes, doubt, cube.is_choice)))


@lru_cache(maxsize=8)
def _fit_arrays(
    size: int, points: bytes, values: bytes, slopes: bytes, doubt: bytes, is_choice: bytes
) -> tuple[GaussianProcess, Observations]:
    """The model of arrays of float64 and, the last one, bool.

    The best of many trials are seldom others after one more: the model of a large study is kept for most of its trials.
    """
    told = np.frombuffer(values)
    observations = Observations(
        points=np.frombuffer(points).reshape(len(told), size),
        values=told,
        slopes=np.frombuffer(slopes).reshape(len(told), size),
        is_choice=np.frombuffer(is_choice, dtype=np.bool_),
        doubt=np.frombuffer(doubt),
    )
    model = GaussianProcess(observations)
    contradicted = find_contradicted(model, observations)
    if contradicted.any():  # whatever these slopes are, the values are what is looked for
        observations = replace(observations, slopes=np.where(contradicted, np.nan, observations.slopes))
        model = GaussianProcess(observations)
    return model, observations


def _cap_outliers(values: Floats, slopes: Floats) -> tuple[Floats, Floats]:
    """The values (n,), none far above the others, and the slopes (n, d) without those of a trial that was.

    A trial that all but diverged would be the measure of all others.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return values, slopes
    cap = known.min() + _OUTLIER * (np.median(known) - known.min())
    if not known.min() < cap < known.max():
        return values, slopes
    return np.minimum(values, cap), np.where((values > cap)[:, None], np.nan, slopes)


def _believe(model: GaussianProcess, seen: Observations, under_way: Sequence[Floats]) -> GaussianProcess:
    """The model as if the trials under way had come out as it predicts."""
    points = np.stack(under_way)
    means, _ = model.predict_values(points)
    return GaussianProcess(
        Observations(
            points=np.concatenate([seen.points, points]),
            values=np.concatenate([seen.values, means]),
            slopes=np.concatenate([seen.slopes, np.full(points.shape, np.nan)]),
            is_choice=seen.is_choice,
            doubt=np.concatenate([seen.doubt, np.ones(len(points))]),
        ),
        like=model,
    )


def find_lowest_bound(
    cube: UnitCube,
    model: GaussianProcess,
    seen: Observations,
    evidence: Sequence[TrialEvidence],
    under_way: Sequence[Floats],
    seed: int,
) -> Floats:
    """The new point (d,) of the lowest confidence bound, by the model that was made of ``evidence``."""
    taken = np.stack([*(cube.encode_point(trial.params) for trial in evidence), *under_way])

    def bound(points: Floats) -> Floats:
        mean, deviation = model.predict_values(points)
        bounds = mean - CONFIDENCE * deviation
        # Where there is no grid, trials that are this near tell the same.
        same = np.where(cube.steps > 0, 0.0, _SAME_LENGTHS * model.lengths)
        bounds[_is_near(points, taken, np.maximum(same, _SAME))] = np.inf
        if under_way:
            running = np.stack(under_way)
            beside = _is_near(points, running, np.maximum(same, _NEIGHBOUR * cube.steps))
            # What promises more than all that is under way is not kept waiting: else workers would circle the optimum.
            bounds[beside & (mean >= model.predict_values(running)[0].min())] = np.inf
        return bounds

    listed = cube.list_points(_LISTED)
    if listed is not None:
        return np.asarray(listed[int(np.argmin(bound(listed)))])
    drawn = _draw_points(cube, model, seen, np.random.default_rng(seed))
    bounds = bound(drawn)
    climbers = drawn[np.argsort(bounds, kind="stable")[:_CLIMBERS]]
    return min((_climb(cube, climber, bound, 0.3 * model.lengths) for climber in climbers), key=lambda end: end[0])[1]


def _is_near(points: Floats, others: Floats, reach: Floats) -> NDArray[np.bool_]:
    """Whether each of ``points`` (m, d) is within ``reach`` (d,) of one of ``others`` (n, d) in every coordinate."""
    if len(points) < len(others):
        return np.array([(np.abs(point - others) <= reach).all(1).any() for point in points], dtype=bool)
    # Of many points those alone are compared that are near in the first coordinate.
    order = np.argsort(points[:, 0])
    sorted_points, span = points[order], reach[0] + _SAME
    begins = np.searchsorted(sorted_points[:, 0], others[:, 0] - span, side="left")
    ends = np.searchsorted(sorted_points[:, 0], others[:, 0] + span, side="right")
    near = np.zeros(len(points), dtype=bool)
    for other, begin, end in zip(others, begins, ends, strict=True):
        near[order[begin:end]] |= (np.abs(sorted_points[begin:end] - other) <= reach).all(1)
    return near


def _draw_points(cube: UnitCube, model: GaussianProcess, seen: Observations, rng: np.random.Generator) -> Floats:
    """Points in the whole space, and around the best trials at several distances."""
    anywhere = rng.random((_DRAWN, cube.size))
    best = seen.points[np.argsort(np.where(np.isfinite(seen.values), seen.values, np.inf), kind="stable")[:5]]
    centres = best[rng.integers(len(best), size=_DRAWN)]
    reaches = rng.choice(_REACHES, size=(_DRAWN, 1)) * model.lengths
    return cube.snap_points(np.concatenate([anywhere, centres + reaches * rng.normal(size=centres.shape)]))


def _climb(cube: UnitCube, point: Floats, bound: Bound, reach: Floats) -> tuple[float, Floats]:
    """The lowest bound that single steps along the numbers' coordinates lead to, ``reach`` (d,) wide and then less."""
    value = float(bound(point[None])[0])
    numbers = [place for place in map(cube.place_of, cube.space) if place is not None]
    if not numbers:
        return value, point
    signed = np.concatenate([np.eye(cube.size)[numbers], -np.eye(cube.size)[numbers]])
    for halving in range(_HALVINGS):
        steps = np.maximum(reach / 2**halving, cube.steps)
        for _ in range(_MOVES):
            moves = cube.snap_points(point + signed * steps)
            bounds = bound(moves)
            if bounds.min() >= value:
                break
            value, point = float(bounds.min()), moves[int(np.argmin(bounds))]
    return value, point
