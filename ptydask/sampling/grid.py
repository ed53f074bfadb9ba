"""Every point of a grid, listed before the run; how many points there are to any search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from ptydask.distributions import Choice, Distribution
from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import GUESSED, NEAR_VALUES, OWN_VALUES, ComponentSpec, Point, Scalar, StudyPlan, TrialRecord
from ptydask.sampling.factory import EXHAUSTIVE
from ptydask.sampling.startup import unwrap_fixed
from ptydask.space import nearest_point, ranges

_MOST_POINTS = 100_000


def grid_points(plan: StudyPlan) -> tuple[Point, ...] | None:
    """Every point of a GridSampler or BruteForceSampler once, in a fixed order; None for another sampler.

    The plan's own points come first: tries as they are where they are complete, the start where it is on the grid.
    The driver enqueues these points, so that no two workers run the same one. Raises what :func:`grid_axes` raises.
    """
    axes = grid_axes(plan)
    if axes is None:
        return None
    names = _parameter_order(plan)
    grid = [dict(zip(names, values, strict=True)) for values in itertools.product(*(axes[name] for name in names))]
    points = {point_identity(params): Point(params, "grid") for params in grid}
    first = []
    for point in plan.points:
        whole = set(point.params) == set(names)
        own = point.origin in (OWN_VALUES, NEAR_VALUES, GUESSED)
        # What a person asks for is tried even off the grid, the file's own values, and guesses, only where it has them.
        if whole and (not own or point_identity(point.params) in points):
            first.append(point)
    taken = {point_identity(point.params) for point in first}
    return (*first, *(point for key, point in points.items() if key not in taken))


def grid_axes(plan: StudyPlan) -> dict[str, tuple[Scalar, ...]] | None:
    """The values of each parameter on the grid; None where the plan's sampler tries no grid.

    Raises ConfigError for a range without steps, and for more points than anyone can run; no point is listed.
    """
    spec, fixed = unwrap_fixed(plan.sampler)
    if spec.name not in EXHAUSTIVE or not plan.space:
        return None
    _check_settings(spec)
    values = {name: _axis_values(spec, name, dist, fixed) for name, dist in plan.space.items()}
    size = math.prod(len(v) for v in values.values())
    if size > _MOST_POINTS:
        sizes = " x ".join(f"{name} {len(v)}" for name, v in values.items())
        raise ConfigError(f"the grid has {size} points ({sizes})", key="sampler_params.name", value=spec.name)
    return values


def count_points(plan: StudyPlan) -> int | None:
    """How many points the search of ``plan`` has, a grid's tries included; None where there is no end of them."""
    if plan.exhaustive:
        return len(plan.points)
    _, fixed = unwrap_fixed(plan.sampler)
    return nearest_point.count_points(plan.space, fixed)


def count_new_points(plan: StudyPlan, records: Iterable[TrialRecord]) -> int | None:
    """How many points are still to be tried beside ``records``; None where there is no end of them.

    A try that is none of the search's points, as it lies between two steps, counts beside these.
    """
    size, params = count_points(plan), [record.params for record in records]
    if size is None:
        return None
    if plan.exhaustive:
        recorded = {point_identity(point) for point in params}
        return sum(point_identity(point.params) not in recorded for point in plan.points)
    _, fixed = unwrap_fixed(plan.sampler)
    space = {name: Choice((fixed[name],)) if name in fixed else dist for name, dist in plan.space.items()}
    whole = [point for point in params if point.keys() >= space.keys()]
    recorded_keys = {nearest_point.point_key(plan.space, point) for point in whole if _lies_in(space, point)}
    others = [nearest_point.point_key(plan.space, point) for point in whole if not _lies_in(space, point)]
    tries = {nearest_point.point_key(plan.space, p.params) for p in plan.points if not _lies_in(space, p.params)}
    return size - len(recorded_keys) + sum(not any(key <= other for other in others) for key in tries)


def _lies_in(space: Mapping[str, Distribution], params: Mapping[str, Scalar]) -> bool:
    return all(name in space and ranges.contains(space[name], value) for name, value in params.items())


def _parameter_order(plan: StudyPlan) -> list[str]:
    """The parameters in alphabetical order, the first changing slowest; nested ones level by level, as W&B has it."""
    described = plan.config.get("parameters")
    ways = {p["name"]: tuple(p["path"]) for p in described} if isinstance(described, Sequence) else {}
    return sorted(plan.space, key=lambda name: ways.get(name, (name,)))


def point_identity(params: Mapping[str, Scalar]) -> frozenset[object]:
    """The same for the same values: 1 is 1.0, but not True."""
    return frozenset((name, isinstance(value, bool), value) for name, value in params.items())


def _check_settings(spec: ComponentSpec) -> None:
    known = ("search_space", "seed") if spec.name == "GridSampler" else ("seed", "avoid_premature_stop")
    for name, value in spec.configs.items():
        if name not in known:
            key = f"sampler_params.configs.{name}"
            raise ConfigError(f"{spec.name} has no such setting", key=key, value=value, hint=nearest_hint(name, known))


def _axis_values(spec: ComponentSpec, name: str, dist: Distribution, fixed: Mapping[str, Scalar]) -> tuple[Scalar, ...]:
    if name in fixed:
        return (fixed[name],)
    key = f"sampler_params.configs.search_space.{name}"
    axes = spec.configs.get("search_space") or {}
    if not isinstance(axes, Mapping):
        raise ConfigError("must be a mapping", key="sampler_params.configs.search_space", value=axes)
    if name in axes:
        values = axes[name]
        if not isinstance(values, list) or not values or any(isinstance(v, list | dict) for v in values):
            raise ConfigError("must be a list of values, at least one", key=key, value=values)
        for value in values:
            if not ranges.contains(dist, value):
                raise ConfigError(f"must be {ranges.describe(dist)}", key=key, value=value)
        return _distinct_values(values)
    size = ranges.grid_size(dist)
    if size is None or size > _MOST_POINTS:
        hint = f"give {name} a step in tune_params, or values in the sampler's search_space"
        raise ConfigError(f"{spec.name} cannot count off {name}", key="sampler_params.name", value=spec.name, hint=hint)
    return _distinct_values(ranges.grid(dist) or ())


def _distinct_values(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Each value once, where it first appears; of 1 and 1.0 the last, as W&B has it. True is not 1."""
    return tuple({(isinstance(value, bool), value): value for value in values}.values())
