"""Every point of a grid, listed before the run."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from ptydask.errors import ConfigError, nearest_hint
from ptydask.model import NEAR_VALUES, OWN_VALUES, ComponentSpec, Distribution, Point, Scalar, StudyPlan
from ptydask.sampling.factory import EXHAUSTIVE
from ptydask.space import ranges as spaces

_MOST_POINTS = 100_000


def check_grid(plan: StudyPlan) -> None:
    """Raise ConfigError where a GridSampler or BruteForceSampler has a range without steps, or more points than anyone
    can run; no point is listed."""
    _grid_values(plan)


def grid_points(plan: StudyPlan) -> tuple[Point, ...] | None:
    """Every point of a GridSampler or BruteForceSampler once, in a fixed order; None for another sampler.

    The plan's own points come first: tries as they are where they are complete, the start where it is on the grid.
    The driver enqueues these points, so that no two workers run the same one. Raises what :func:`check_grid` raises.
    """
    values = _grid_values(plan)
    if values is None:
        return None
    names = _parameter_order(plan)
    grid = [dict(zip(names, point, strict=True)) for point in itertools.product(*(values[n] for n in names))]
    points = {point_identity(point): Point(point, "grid") for point in grid}
    ours = (OWN_VALUES, NEAR_VALUES)
    whole = [p for p in plan.points if set(p.params) == set(names)]
    first = [p for p in whole if p.origin not in ours or point_identity(p.params) in points]
    taken = {point_identity(p.params) for p in first}
    return (*first, *(point for key, point in points.items() if key not in taken))


def _grid_values(plan: StudyPlan) -> dict[str, tuple[Scalar, ...]] | None:
    """The values of each parameter on the grid; None where the plan's sampler tries no grid."""
    spec, fixed = plan.sampler, dict[str, Scalar]()
    if spec.name == "PartialFixedSampler" and isinstance(spec.configs.get("base_sampler"), Mapping):
        base = spec.configs["base_sampler"]
        fixed = dict(spec.configs.get("fixed_params") or {})
        spec = ComponentSpec(str(base.get("name")), base.get("configs") or {})
    if spec.name not in EXHAUSTIVE or not plan.space:
        return None
    _check_settings(spec)
    values = {name: _axis_values(spec, name, dist, fixed) for name, dist in plan.space.items()}
    size = math.prod(len(v) for v in values.values())
    if size > _MOST_POINTS:
        sizes = " x ".join(f"{name} {len(v)}" for name, v in values.items())
        raise ConfigError(f"the grid has {size} points ({sizes})", key="sampler_params.name", value=spec.name)
    return values


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
            if not spaces.contains(dist, value):
                raise ConfigError(f"must be {spaces.describe(dist)}", key=key, value=value)
        return _distinct_values(values)
    if (spaces.grid_size(dist) or 0) > _MOST_POINTS or (points := spaces.grid(dist)) is None:
        hint = f"give {name} a step in tune_params, or values in the sampler's search_space"
        raise ConfigError(f"{spec.name} cannot count off {name}", key="sampler_params.name", value=spec.name, hint=hint)
    return _distinct_values(points)


def _distinct_values(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    """Each value once, where it first appears; of 1 and 1.0 the last, as W&B has it. True is not 1."""
    return tuple({(isinstance(value, bool), value): value for value in values}.values())
