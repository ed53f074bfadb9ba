"""The parameters of a study as coordinates, each from 0 to 1 over its range, and the slopes in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ptydask.distributions import Choice, Distribution, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.model import Scalar
from ptydask.space import quantiles, ranges
from ptydask.space.nearest_point import share_of, value_at_share

Floats = NDArray[np.float64]

_SMALL = 1e-4
"""Share of a range over which the derivative of a scale that is not linear is taken."""

_CONTINUOUS_STEP = 0.01
"""Of a range without steps, the share that stands for one."""


class UnitCube:
    """Between the points of a search space and coordinates (d,): one a number, and one for each of several choices.

    A number's coordinate is its share of the range, of the logarithms where the range is logarithmic. Of n choices
    each has a coordinate that is 0 or 1 / sqrt(2), so that two choices are 1 apart, as are the ends of a range.
    """

    def __init__(self, space: Mapping[str, Distribution]) -> None:
        self.space = {name: dist for name, dist in space.items() if ranges.grid_size(dist) != 1}
        self._fixed = {name: _only_value(dist) for name, dist in space.items() if name not in self.space}
        self._places: dict[str, slice] = {}
        size = 0
        for name, dist in self.space.items():
            width = len(dist.choices) if isinstance(dist, Choice | WeightedChoice) else 1
            self._places[name] = slice(size, size + width)
            size += width
        self.size = size
        """d, the number of coordinates."""
        self.steps = np.array(
            [self._step(name) for name in self.space for _ in range(*self._places[name].indices(size))]
        )
        """One grid step in each coordinate, (d,); 0 where there is no grid, or it is not evenly spaced."""
        self.spacing = np.where(self.steps > 0, self.steps, _CONTINUOUS_STEP)
        """The same, with a hundredth of the range where there is no step, (d,): how near is near."""
        self.is_choice = np.zeros(size, dtype=bool)
        """Whether a coordinate stands for one of several choices, (d,)."""
        for name, dist in self.space.items():
            self.is_choice[self._places[name]] = isinstance(dist, Choice | WeightedChoice)

    def _step(self, name: str) -> float:
        dist = self.space[name]
        if isinstance(dist, Choice | WeightedChoice):
            return 0.0
        size = ranges.grid_size(dist)
        log = isinstance(dist, FloatRange | IntRange) and dist.log
        return 0.0 if size is None or log else 1.0 / (size - 1)

    def place_of(self, name: str) -> int | None:
        """The coordinate of a number; None for choices and for what has one value only."""
        dist = self.space.get(name)
        return None if dist is None or isinstance(dist, Choice | WeightedChoice) else self._places[name].start

    def encode_point(self, params: Mapping[str, Scalar]) -> Floats:
        """The coordinates (d,) of a point; outside of 0 to 1 where the point is outside of its range."""
        coordinates = np.zeros(self.size)
        for name, dist in self.space.items():
            place = self._places[name]
            if isinstance(dist, Choice | WeightedChoice):
                index = quantiles.find_choice(dist.choices, params[name])
                if index is not None:
                    coordinates[place.start + index] = math.sqrt(0.5)
            else:
                coordinates[place] = share_of(dist, cast(float, params[name]))
        return coordinates

    def decode_point(self, coordinates: Floats) -> dict[str, Scalar]:
        """The allowed point nearest to coordinates (d,)."""
        point: dict[str, Scalar] = {}
        for name, dist in self.space.items():
            part = coordinates[self._places[name]]
            if isinstance(dist, Choice | WeightedChoice):
                point[name] = dist.choices[int(np.argmax(part))]
            else:
                share = min(max(float(part[0]), 0.0), 1.0)
                point[name] = ranges.nearest_value(dist, value_at_share(dist, share))
        return {**self._fixed, **point}

    def encode_gradient(self, params: Mapping[str, Scalar], gradient: Mapping[str, float]) -> Floats:
        """The slopes (d,) per unit of each coordinate, from those per unit of the parameter; NaN for none."""
        slopes = np.full(self.size, np.nan)
        for name, slope in gradient.items():
            place = self.place_of(name)
            if place is not None:
                slopes[place] = slope * self.unit_of(name, params)
        return slopes

    def unit_of(self, name: str, params: Mapping[str, Scalar]) -> float:
        """By how much a number changes per unit of its coordinate, at a point."""
        dist = cast("FloatRange | IntRange | QuantileDistribution", self.space[name])
        if isinstance(dist, FloatRange | IntRange):
            number = cast(float, params[name])
            return number * math.log(dist.high / dist.low) if dist.log else dist.high - dist.low
        share = share_of(dist, cast(float, params[name]))
        low, high = max(share - _SMALL, 0.0), min(share + _SMALL, 1.0)
        return (value_at_share(dist, high) - value_at_share(dist, low)) / (high - low)

    def value_at(self, name: str, coordinate: float) -> float:
        """The number at a coordinate, on a grid or between its points."""
        dist = cast("FloatRange | IntRange | QuantileDistribution", self.space[name])
        return float(value_at_share(dist, min(max(coordinate, 0.0), 1.0)))

    def snap_points(self, coordinates: Floats) -> Floats:
        """The coordinates (n, d) moved to allowed values, as far as that is cheap: choices, evenly spaced grids."""
        snapped = np.clip(coordinates, 0.0, 1.0)
        stepped = self.steps > 0
        snapped[:, stepped] = np.round(snapped[:, stepped] / self.steps[stepped]) * self.steps[stepped]
        for name, dist in self.space.items():
            if isinstance(dist, Choice | WeightedChoice):
                part = coordinates[:, self._places[name]]
                snapped[:, self._places[name]] = np.eye(part.shape[1])[part.argmax(1)] * math.sqrt(0.5)
        return snapped

    def list_points(self, most: int) -> Floats | None:
        """The coordinates (n, d) of every point; None where there are more than ``most``, or they cannot be listed."""
        axes: list[Floats] = []
        count = 1
        for name, dist in self.space.items():
            size = ranges.grid_size(dist)
            count *= size or most + 1
            if count > most:
                return None
            axes.append(np.stack([self._encode_value(name, value) for value in ranges.grid(dist) or ()]))
        rows = np.stack(np.meshgrid(*[np.arange(len(axis)) for axis in axes], indexing="ij"), -1).reshape(-1, len(axes))
        return np.concatenate([axis[rows[:, i]] for i, axis in enumerate(axes)], axis=1)

    def _encode_value(self, name: str, value: Scalar) -> Floats:
        dist = self.space[name]
        if isinstance(dist, Choice | WeightedChoice):
            place = quantiles.find_choice(dist.choices, value) or 0
            return np.asarray(np.eye(len(dist.choices))[place] * math.sqrt(0.5))
        return np.array([share_of(dist, cast(float, value))])


def _only_value(dist: Distribution) -> Scalar:
    return (ranges.grid(dist) or (None,))[0]
