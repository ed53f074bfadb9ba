"""Which point is tried instead of one that was tried already. Pure, standard library only."""

from __future__ import annotations

import functools
import heapq
import math
import random
from collections.abc import Collection, Mapping
from typing import cast

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.model import Scalar
from ptydask.space import quantiles, ranges

SHARE = 0.01
"""Share of a continuous range by which a point moves at least: nearer than that it would be the same trial again."""
_DIGITS = 9
"""Decimals of the share of a continuous range to which two values are one; also of distances that are equal."""


def point_key(space: Mapping[str, Distribution], params: Mapping[str, Scalar]) -> frozenset[object]:
    """The same for the same values: 0 and 0.0, two floats on one grid point, but not 1 and True.

    ``params`` may be a part of a point, and lie outside of ``space``.
    """
    return frozenset((name, _value_key(space[name], value)) for name, value in params.items() if name in space)


def _value_key(dist: Distribution, value: Scalar) -> object:
    if isinstance(dist, Choice | WeightedChoice) or not ranges.is_number(value):
        return isinstance(value, bool), value
    return round(share_of(dist, value) if _is_continuous(dist) else ranges.grid_index(dist, value), _DIGITS)


def count_points(space: Mapping[str, Distribution], fixed: Collection[str] = ()) -> int | None:
    """How many points ``space`` has, its ``fixed`` parameters held; None where they cannot be counted."""
    sizes = [1 if name in fixed else _count_values(dist) for name, dist in space.items()]
    return None if None in sizes else math.prod(cast(list[int], sizes))


def _count_values(dist: Distribution) -> int | None:
    if isinstance(dist, Choice | WeightedChoice):
        return len({_value_key(dist, value) for value in ranges.grid(dist) or ()})
    return ranges.grid_size(dist)


def nearest_new_point(
    space: Mapping[str, Distribution],
    wanted: Mapping[str, Scalar],
    taken: Collection[frozenset[object]],
    *,
    fixed: Collection[str] = (),
    seed: int = 0,
) -> dict[str, Scalar] | None:
    """``wanted`` where it is none of the points ``taken``, else the nearest point that is new.

    Points are ``taken`` as :func:`point_key` tells them apart.
    ``wanted`` has a value of every parameter; those of the ``fixed`` ones, which may be off the grid, stay. Distance is
    counted in units of each range, on a logarithmic scale where the range has one; a choice is 1 from any other. On a
    continuous range only values in steps of :data:`SHARE` from the wanted one count. Of points equally near ``seed``
    chooses. None where all are taken.
    """
    if point_key(space, wanted) not in taken:
        return dict(wanted)
    # A point that is new is among the nearest len(taken) + 1 ones: no axis needs more values than these.
    rng, names = random.Random(seed), list(space)
    axes = [
        [(0.0, wanted[name])] if name in fixed else _nearest_values(space[name], wanted[name], len(taken), rng)
        for name in names
    ]
    # Best first: each axis rises, so the points one value further along one axis are the only ones that can come next.
    start = (0,) * len(axes)
    queue, seen = [(0.0, 0.0, start)], {start}
    while queue:
        _, _, place = heapq.heappop(queue)
        point = {name: axis[index][1] for name, axis, index in zip(names, axes, place, strict=True)}
        if point_key(space, point) not in taken:
            return point
        for i, axis in enumerate(axes):
            further = (*place[:i], place[i] + 1, *place[i + 1 :])
            if further[i] < len(axis) and further not in seen:
                seen.add(further)
                squares = (each[index][0] ** 2 for each, index in zip(axes, further, strict=True))
                heapq.heappush(queue, (round(sum(squares), _DIGITS), rng.random(), further))
    return None


def _nearest_values(dist: Distribution, wanted: Scalar, count: int, rng: random.Random) -> list[tuple[float, Scalar]]:
    """``wanted`` and at least the ``count`` other values that are nearest, with their distances, which rise."""
    if isinstance(dist, Choice | WeightedChoice):
        others: dict[object, tuple[float, Scalar]] = {_value_key(dist, v): (1.0, v) for v in ranges.grid(dist) or ()}
    else:
        number = cast(float, wanted)
        near = _values_in_steps(dist, number) if _is_continuous(dist) else _values_on_grid(dist, number, count)
        share = share_of(dist, number)
        others = {_value_key(dist, v): (round(abs(share_of(dist, v) - share), _DIGITS), v) for v in near}
    others.pop(_value_key(dist, wanted), None)
    rest = list(others.values())
    rng.shuffle(rest)
    return [(0.0, wanted), *sorted(rest, key=lambda value: value[0])]


def _values_on_grid(dist: FloatRange | IntRange | QuantileDistribution, number: float, count: int) -> list[int | float]:
    size, index = ranges.grid_size(dist) or 1, round(ranges.grid_index(dist, number))
    # On a logarithmic scale the nearest may all be on one side.
    first, last = max(index - count, 0), min(index + count, size - 1)
    return [ranges.grid_value(dist, i) for i in range(first, last + 1)]


def _values_in_steps(dist: FloatRange | IntRange | QuantileDistribution, number: float) -> list[int | float]:
    share, steps = share_of(dist, number), round(1 / SHARE)
    shares = (share + k * SHARE for k in range(-steps, steps + 1))
    return [value_at_share(dist, min(s, 1.0)) for s in shares if -SHARE / 1000 <= s <= 1 + SHARE / 1000]


@functools.lru_cache
def _is_continuous(dist: FloatRange | IntRange | QuantileDistribution) -> bool:
    """Whether the values cannot be counted off: a range without steps, or one without ends."""
    return ranges.grid_size(dist) is None


def share_of(dist: FloatRange | IntRange | QuantileDistribution, number: float) -> float:
    """Where in the range ``number`` lies: 0 at its low end, 1 at its high one; of quantiles the share below it."""
    if isinstance(dist, QuantileDistribution):
        return quantiles.unit_of_number(dist, number)
    if dist.low == dist.high:
        return number - dist.low
    if dist.log and number > 0:
        return math.log(number / dist.low) / math.log(dist.high / dist.low)
    return (number - dist.low) / (dist.high - dist.low)


def value_at_share(dist: FloatRange | IntRange | QuantileDistribution, share: float) -> int | float:
    """The inverse of :func:`share_of`, for a range that is continuous."""
    if isinstance(dist, QuantileDistribution):
        return quantiles.value_at(dist, share)
    share = max(share, 0.0)
    if dist.log:
        return min(max(dist.low * math.pow(dist.high / dist.low, share), dist.low), dist.high)
    return min(dist.low + share * (dist.high - dist.low), dist.high)
