"""A point that was tried already: which one is tried instead, on grids, scales, choices and continuous ranges."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.model import Scalar
from ptydask.space import ranges
from ptydask.space.nearest_point import SHARE, count_points, nearest_new_point, point_key

GRID: dict[str, Distribution] = {"scale": FloatRange(0.8, 1.2, 0.02), "rotation": FloatRange(-4.0, 4.0, 0.5)}
MIXED: dict[str, Distribution] = {
    "scale": FloatRange(0.9, 1.1, 0.1),
    "layers": IntRange(1, 16, log=True),
    "opt": Choice(("Adam", "SGD", True, 1)),
    "q": QuantileDistribution("uniform", 0.0, 3.0, 1),
}


def nearest(
    space: Mapping[str, Distribution], wanted: Mapping[str, Scalar], taken: Iterable[Mapping[str, Scalar]], **more: Any
) -> dict[str, Scalar] | None:
    return nearest_new_point(space, wanted, {point_key(space, point) for point in taken}, **more)


def test_a_new_point_is_the_wanted_one() -> None:
    """Nothing changes where nothing repeats."""
    wanted = {"scale": 0.86, "rotation": 1.0}
    assert nearest(GRID, wanted, []) == wanted
    assert nearest(GRID, wanted, [{"scale": 0.86, "rotation": 1.5}]) == wanted


def test_the_nearest_is_the_one_a_step_away_along_the_finer_axis() -> None:
    """A step is 1/20 of one range and 1/16 of the other; both sides come, then the other axis."""
    wanted: dict[str, Scalar] = {"scale": 1.0, "rotation": 0.0}
    taken = [wanted]
    for _ in range(4):
        point = nearest(GRID, wanted, taken, seed=3)
        assert point is not None
        taken.append(point)
    assert {taken[1]["scale"], taken[2]["scale"]} == {0.98, 1.02}
    assert {taken[3]["rotation"], taken[4]["rotation"]} == {-0.5, 0.5}


def distance(space: dict[str, Distribution], a: dict[str, Scalar], b: dict[str, Scalar]) -> float:
    """Written down once more; a quantile is held where it is asked for."""
    total = 0.0
    for name, dist in space.items():
        x, y = a[name], b[name]
        if isinstance(dist, Choice):
            total += not (x == y and isinstance(x, bool) == isinstance(y, bool))
        elif isinstance(dist, IntRange):
            total += (math.log(x / y) / math.log(dist.high / dist.low)) ** 2  # type: ignore[operator]
        elif isinstance(dist, FloatRange):
            total += ((x - y) / (dist.high - dist.low)) ** 2  # type: ignore[operator]
    return total


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_nearest_of_all(seed: int) -> None:
    """Against the whole list of points, some of them taken at random; a fixed value stays."""
    rng = random.Random(seed)
    names = ("scale", "layers", "opt", "q")
    points: list[dict[str, Scalar]] = [
        dict(zip(names, values, strict=True))
        for values in itertools.product(*(ranges.grid(MIXED[name]) or () for name in names))
        if values[3] == 2
    ]
    wanted = rng.choice(points)
    taken = [wanted, *rng.sample(points, 150)]
    new = [point for point in points if point_key(MIXED, point) not in {point_key(MIXED, t) for t in taken}]
    chosen = nearest(MIXED, wanted, taken, fixed=("q",), seed=seed)
    assert chosen in new
    assert distance(MIXED, chosen, wanted) == pytest.approx(min(distance(MIXED, point, wanted) for point in new))


def test_every_point_once_and_then_none() -> None:
    """The whole space is gone through from one point, each point once; then there is none."""
    space = {name: dist for name, dist in MIXED.items() if name != "scale"}
    wanted: dict[str, Scalar] = {"layers": 1, "opt": True, "q": 0}
    taken: list[dict[str, Scalar]] = []
    while (point := nearest(space, wanted, taken)) is not None:
        taken.append(point)
    assert len(taken) == len({point_key(space, p) for p in taken}) == count_points(space) == 16 * 4 * 4
    assert all(ranges.contains(space[name], value) for point in taken for name, value in point.items())


@pytest.mark.parametrize(
    "dist",
    [
        FloatRange(0.0, 10.0),
        FloatRange(1e-4, 1e-1, log=True),
        QuantileDistribution("normal", 0.0, 2.0),
        QuantileDistribution("log_uniform", -3.0, 3.0),
    ],
)
def test_a_continuous_range_moves_by_a_hundredth(dist: Distribution) -> None:
    """As far as tells two trials apart, inside the range, also from its end."""
    space = {"x": dist}
    middle = 5.0 if dist == FloatRange(0.0, 10.0) else 0.05 if isinstance(dist, FloatRange) else 1.0
    taken: list[dict[str, Scalar]] = [{"x": middle}]
    for _ in range(20):
        point = nearest(space, {"x": middle}, taken)
        assert point is not None
        assert ranges.contains(dist, point["x"])
        taken.append(point)
    values = sorted(float(point["x"]) for point in taken)  # type: ignore[arg-type]
    assert len(set(values)) == 21
    if dist == FloatRange(0.0, 10.0):
        assert values == pytest.approx([5.0 + 10 * SHARE * k for k in range(-10, 11)])
    assert count_points(space) is None


def test_a_value_off_the_grid_is_no_point_of_it() -> None:
    """A guess between two steps is another point, however its digits came about; so is True beside 1."""
    assert point_key(GRID, {"scale": 0.8 + 3 * 0.02}) == point_key(GRID, {"scale": 0.86})
    assert point_key(GRID, {"scale": 0.87}) != point_key(GRID, {"scale": 0.86})
    assert point_key(GRID, {"rotation": 0}) == point_key(GRID, {"rotation": 0.0})
    assert point_key(MIXED, {"opt": 1}) == point_key(MIXED, {"opt": 1.0}) != point_key(MIXED, {"opt": True})
    taken = [{"scale": 0.87, "rotation": r} for r in (-0.5, 0.0)]
    point = nearest(GRID, {"scale": 0.87, "rotation": 0.0}, taken, fixed=("scale",))
    assert point == {"scale": 0.87, "rotation": 0.5}


def test_how_many_points_there_are() -> None:
    """Steps, choices that count once and only where they have a weight, what is fixed; nothing tuned is one point."""
    assert count_points(GRID) == 21 * 17
    assert count_points(GRID, ["scale"]) == 17
    assert count_points({"x": Choice((1, 1.0, True))}) == 2
    assert count_points({"x": WeightedChoice(("a", "b"), (1.0, 0.0))}) == 1
    assert count_points({}) == 1
    assert count_points({**GRID, "C10": FloatRange(0.0, 1.0)}) is None
    assert count_points({"x": QuantileDistribution("normal", 0.0, 1.0, 1)}) is None
    assert count_points({"x": QuantileDistribution("log_uniform", 0.0, 709.0, 0.1)}) is None


def test_a_grid_too_large_to_list() -> None:
    """Seven parameters, 10^14 points: only those near by are looked at."""
    space: dict[str, Distribution] = {f"p{i}": FloatRange(0.0, 1.0, 0.01) for i in range(7)}
    wanted: dict[str, Scalar] = dict.fromkeys(space, 0.5)
    taken = [wanted]
    for _ in range(30):
        point = nearest(space, wanted, taken)
        assert point is not None
        taken.append(point)
    assert len({point_key(space, point) for point in taken}) == 31
