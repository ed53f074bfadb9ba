"""What the slopes of a study's trials say: where the error has its optimum, how it bends, which parameters matter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import numpy as np

from ptydask.analysis.data import StudyData, search_space
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.formatting import uncertain_text, value_text
from ptydask.model import Optimum, StudyMeta, TrialRecord, TrialState
from ptydask.proposals import locate_optimum, read_evidence
from ptydask.proposals.coordinates import UnitCube
from ptydask.proposals.gaussian_process import GaussianProcess
from ptydask.proposals.next_point import fit_model
from ptydask.space import ranges
from ptydask.space.nearest_point import share_of

FEWEST = 3
"""Completed trials with slopes from which on a model is made."""
ENOUGH = 50
"""Completed trials from which on importances by ranks can be relied on."""
EDGE = 1e-6
"""An optimum nearer than this share of the range to its end lies there, or beyond."""


def read_space(meta: StudyMeta) -> dict[str, Distribution]:
    """What may be tried, as far as the file says it in Optuna's words."""
    space: dict[str, Distribution] = {}
    for name, entry in search_space(meta).items():
        with suppress(KeyError, TypeError, ValueError):
            space[name] = ranges.from_json(entry)
    return space


def locate_study_optimum(records: Iterable[TrialRecord], meta: StudyMeta) -> Optimum | None:
    """Where the study's error has its optimum, by a model of values and slopes.

    None without slopes, with fewer than three completed trials that have some, or where the model has no optimum.
    """
    told = [record for record in records if record.gradient]
    if not told:
        return None
    space = read_space(meta)
    return locate_optimum(_select_placed(told, space), space, meta.direction)


def is_at_edge(name: str, optimum: Optimum, space: Mapping[str, Distribution]) -> bool:
    """Whether the optimum is at an end of the parameter's range, so that the error's own may be beyond it."""
    share = share_of(cast("FloatRange | IntRange | QuantileDistribution", space[name]), optimum.center[name])
    return not EDGE < share < 1 - EDGE


def optimum_texts(optimum: Optimum, meta: StudyMeta) -> dict[str, str]:
    """Parameter -> ``1.0387 +- 0.0012``, or ``1.1 or beyond, the end of the range``."""
    space = read_space(meta)
    return {
        name: f"{value_text(value)} or beyond, the end of the range"
        if is_at_edge(name, optimum, space)
        else uncertain_text(value, optimum.deviation[name])
        for name, value in optimum.center.items()
    }


def explain_optimum(optimum: Optimum, meta: StudyMeta) -> str:
    """What an optimum by the slopes means, and what it does not; and whether it is settled."""
    how = "lowest" if meta.direction == "minimize" else "highest"
    return (
        f"optimum: where {meta.metric} is {how} between the points that were tried, by a model of values and slopes; "
        "+- is what the model does not know, not how far that is from the truth; "
        + ("it is settled" if optimum.is_settled else "it is not settled: more trials may move it")
    )


# --- the model ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SlopeModel:
    """The error over the search space, by the values and slopes of the trials, and where it has its optimum."""

    cube: UnitCube
    process: GaussianProcess
    """Of the error, its sign turned where that is maximised."""
    records: tuple[TrialRecord, ...]
    """The trials that it was made from, by number: completed or pruned, with slopes."""
    best: TrialRecord
    """The best completed one of them."""
    optimum: Optimum | None


def model_slopes(records: Iterable[TrialRecord], meta: StudyMeta) -> SlopeModel | None:
    """The model of a study; None with fewer than :data:`FEWEST` completed trials that have slopes."""
    told = [r for r in records if r.gradient and r.error is not None and math.isfinite(r.error)]
    if not told:
        return None
    space = read_space(meta)
    placed = _select_placed(told, space)
    completed = [record for record in placed if record.state is TrialState.COMPLETE]
    cube = UnitCube(space)
    if len(completed) < FEWEST or not any(cube.place_of(name) is not None for name in completed[0].gradient):
        return None
    process, _ = fit_model(cube, [read_evidence(record) for record in placed], meta.direction)
    sign = 1.0 if meta.direction == "minimize" else -1.0
    best = min(completed, key=lambda record: (sign * (record.error or 0.0), record.number))
    return SlopeModel(cube, process, tuple(placed), best, locate_optimum(placed, space, meta.direction))


def _select_placed(records: Sequence[TrialRecord], space: Mapping[str, Distribution]) -> list[TrialRecord]:
    """Those that ended well and have a place in the space, by number."""
    ended = [record for record in records if record.state is not TrialState.FAIL]
    placed = [record for record in ended if all(_has_place(record, name, dist) for name, dist in space.items())]
    return sorted(placed, key=lambda record: record.number)


def _has_place(record: TrialRecord, name: str, dist: Distribution) -> bool:
    chosen = isinstance(dist, Choice | WeightedChoice)
    return name in record.params and (chosen or ranges.is_number(record.params[name]))


# --- importances -------------------------------------------------------------------------------------


def slope_importances(records: Iterable[TrialRecord], meta: StudyMeta) -> dict[str, float]:
    """Parameter -> its share in the mean squared slope of the error over the range, the largest first.

    nu_j = mean over the completed trials of (dL/dp_j r_j)^2, with r_j the width of the range (where it is logarithmic,
    p_j times that of the logarithms); the share is nu_j / sum(nu). These are derivative-based global sensitivity
    measures (Sobol and Kucherenko, Math. Comput. Simul. 79 (2009) 3009), with the trials as their sample. {} without
    slopes.
    """
    told = [record for record in records if record.gradient and record.state is TrialState.COMPLETE]
    if not told:
        return {}
    space = read_space(meta)
    cube = UnitCube(space)
    told = _select_placed(told, space)
    if not told:
        return {}
    slopes = np.stack([cube.encode_gradient(record.params, record.gradient) for record in told])
    squares: dict[str, float] = {}
    for name in cube.space:
        place = cube.place_of(name)
        if place is not None and np.isfinite(slopes[:, place]).any():
            squares[name] = float(np.nanmean(slopes[:, place] ** 2))
    total = sum(squares.values())
    if not 0 < total < np.inf:
        return {}
    return {name: squares[name] / total for name in sorted(squares, key=lambda name: -squares[name])}


def study_importances(data: StudyData) -> Mapping[str, float]:
    """Importances by slopes, else by ranks; {} where these are chance, or without Matplotlib, which they import."""
    if shares := slope_importances(data.records, data.meta):
        return shares
    if sum(record.state is TrialState.COMPLETE for record in data.records) < ENOUGH:
        return {}
    with suppress(ImportError):
        from ptydask.analysis.figures.importance import param_importances

        return param_importances(data)
    return {}
