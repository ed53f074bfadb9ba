"""Axes: robust limits of errors, and where a parameter's value lies. Pure decisions, and the one way to apply them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData, search_space
from ptydask.analysis.figures import style
from ptydask.model import Direction, StudyMeta
from ptydask.space import ranges, tunables
from ptydask.space.metrics import metric_unit

_GAP = 10.0
"""An error that lies more than so many times further off than the one before it begins another world."""
_LEAST = 0.05
"""A gap below this share of the best error is none."""
_LARGEST = 709.0
"""The logarithm of almost the largest number there is."""
_WIDE = 5.0
_MOST_NAMES = {"x": 10, "y": 20}
_UNITS = {"angstrom": "Å", "1/angstrom": "Å⁻¹", "degree": "°"}


# --- errors -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AxisLimits:
    """An axis from ``low`` to ``high``; ``below`` and ``above`` values lie outside."""

    low: float
    high: float
    log: bool = False
    below: int = 0
    above: int = 0

    def clipped(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The values, those outside moved to the edge."""
        return np.clip(values, self.low, self.high)

    def outside(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which values lie outside."""
        return (values < self.low) | (values > self.high)

    def words(self) -> str:
        """How many trials lie outside; "" where none does."""
        ends = [(self.above, "above"), (self.below, "below")]
        return ", ".join(f"{style.format_count(count, 'trial')} {side} the axis" for count, side in ends if count)


def robust_limits(values: Iterable[float], direction: Direction, more: Iterable[float] = ()) -> AxisLimits:
    """Limits that hold the best values and all that are not worlds away from them.

    From the best value outwards, past the median, the first gap that is ten times as wide as everything before it
    ends the axis: a diverged trial with an error of 1e6 flattens nothing. Values of one sign that span a factor of
    five and more get a logarithmic axis. ``more`` are to be on the axis as well, and are no trials to be counted.
    """
    errors = np.asarray(list(values), dtype=float)
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return AxisLimits(0.0, 1.0)
    shown = np.concatenate([errors, np.asarray(list(more), dtype=float)])
    shown = shown[np.isfinite(shown)]
    sign = 1.0 if direction == "minimize" else -1.0
    best = sign * float((sign * shown).min())
    # Distances from the best error, rising, whichever way is better.
    distances = np.sort(sign * (shown - best))
    kept = distances[: _count_before_gap(distances, abs(best))]
    ends = sorted((best, best + sign * float(kept[-1])))
    log = ends[0] > 0 and math.log(ends[1]) - math.log(ends[0]) >= math.log(_WIDE)
    low, high = _pad_limits(ends[0], ends[1], log)
    return AxisLimits(low, high, log, int((errors < low).sum()), int((errors > high).sum()))


def _count_before_gap(distances: NDArray[np.float64], best: float) -> int:
    """How many of the sorted distances from the best lie on the axis: at least the better half, and two."""
    for count in range(max(2, -(-len(distances) // 2)), len(distances)):
        # Where all so far are next to the best, a gap counts by the size of the best error.
        before = max(float(distances[count - 1]), _LEAST * best / _GAP)
        if distances[count] > _GAP * before and distances[count - 1] < distances[count]:
            return count
    return len(distances)


def _pad_limits(low: float, high: float, log: bool) -> tuple[float, float]:
    if log:
        spare = 0.06 * (math.log(high) - math.log(low))
        return math.exp(math.log(low) - spare), math.exp(min(math.log(high) + spare, _LARGEST))
    spare = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - spare, high + spare


def error_axis(axes: Axes, limits: AxisLimits, meta: StudyMeta) -> None:
    """Limits, scale and label of the vertical axis, which is one of errors."""
    axes.set_yscale("log" if limits.log else "linear")
    axes.set_ylim(limits.low, limits.high)
    axes.set_ylabel(error_label(meta))
    if limits.log:
        _log_ticks(axes.yaxis, limits.low, limits.high)


def error_label(meta: StudyMeta) -> str:
    """``loss``, ``entropy (bit)``, and ``contrast (larger is better)``."""
    unit = metric_unit(meta.metric, meta.engine)
    notes = [_UNITS.get(unit, unit)] if unit else []
    notes += ["larger is better"] if meta.direction == "maximize" else []
    return style.display_name(meta.metric) + (f" ({', '.join(notes)})" if notes else "")


def _log_ticks(axis: Any, low: float, high: float) -> None:
    """Labels at powers of ten; over little more than one decade also between."""
    if math.log10(high) - math.log10(low) < 2.5:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(0, 0)))


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between the ends; 1, 2 and 5 times them where there are few."""
    decades = math.log10(high) - math.log10(low)
    multiples = (1, 2, 5) if decades < 2.5 else (1,)
    every = max(1, math.ceil(decades / 8))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    return [m * 10.0**power for power in powers for m in multiples if low <= m * 10.0**power <= high]


# --- parameters -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParameterScale:
    """How a parameter's values lie on an axis: numbers as they are, anything else at 0, 1, 2 in turn."""

    name: str
    label: str
    kind: Literal["linear", "log", "categorical"]
    low: float
    high: float
    choices: tuple[Any, ...] = ()

    @property
    def single(self) -> bool:
        """Whether there is one value only."""
        return self.low == self.high if self.kind != "categorical" else len(self.choices) < 2

    def places(self, values: Sequence[Any]) -> NDArray[np.float64]:
        """(N,): where each value lies; NaN where it is missing or not a number on an axis of numbers."""
        if self.kind == "categorical":
            positions = {_choice_key(choice): float(i) for i, choice in enumerate(self.choices)}
            return np.array(
                [math.nan if value is ... else positions.get(_choice_key(value), math.nan) for value in values]
            )
        places = np.array([v if type(v) is float else _float_or_nan(v) for v in values], np.float64)
        places[~(np.abs(places) < _DRAWN) | ((places <= 0) & (self.kind == "log"))] = math.nan
        return places

    def shares(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Places as shares of the axis, 0 at its low end and 1 at its high end."""
        low, high = self.low, self.high
        if self.kind == "log":
            places, low, high = np.log(places), math.log(low), math.log(high)
        return (places - low) / (high - low) if high > low else np.where(np.isnan(places), np.nan, 0.5)

    def limits(self) -> tuple[float, float]:
        """The ends of its axis, with a little room."""
        if self.kind == "categorical":
            return -0.6, self.high + 0.6
        if self.low < self.high:
            return _pad_limits(self.low, self.high, self.kind == "log")
        spare = 0.05 * abs(self.low) or 0.5
        return self.low - spare, self.low + spare


def parameter_scale(data: StudyData, name: str) -> ParameterScale:
    """The axis of a parameter: the study's own range and scale, widened by the values that trials have."""
    if name not in data.scales:
        data.scales[name] = _find_scale(data, name)
    scale: ParameterScale = data.scales[name]
    return scale


def _find_scale(data: StudyData, name: str) -> ParameterScale:
    values = [record.params[name] for record in data.records if name in record.params]
    attributes = _range_attributes(data.meta, name)
    label = _axis_label(name, data.meta)
    choices = attributes.get("choices")
    if choices is None and all(ranges.is_number(v) for v in values if v is not None):
        ends = [
            v for v in map(_float_or_nan, [*values, attributes.get("low"), attributes.get("high")]) if math.isfinite(v)
        ]
        if ends:
            wide = not attributes and max(ends) >= 1000 * min(ends)
            log = min(ends) > 0 and bool(attributes.get("log", wide))
            return ParameterScale(name, label, "log" if log else "linear", min(ends), max(ends))
    distinct = {_choice_key(value): value for value in [*(choices or ()), *values]}
    ordered = tuple(distinct.values()) if choices else tuple(sorted(distinct.values(), key=_sort_key))
    return ParameterScale(name, label, "categorical", 0.0, float(max(0, len(ordered) - 1)), ordered)


def select_parameters(data: StudyData, names: Sequence[str] | None) -> list[ParameterScale]:
    """The parameters asked for; all that vary where none are."""
    if names is not None:
        return [parameter_scale(data, name) for name in dict.fromkeys(names)]
    scales = (parameter_scale(data, name) for name in data.parameters)
    return [scale for scale in scales if not scale.single]


def parameter_axis(axes: Axes, parameter: ParameterScale, *, of: Literal["x", "y"] = "x", label: bool = True) -> None:
    """Limits, scale, ticks and label of a parameter's axis."""
    axis = axes.xaxis if of == "x" else axes.yaxis
    axes.set(**{f"{of}scale": "log" if parameter.kind == "log" else "linear"})
    axes.set(**{f"{of}lim": parameter.limits()})
    if label:
        axis.set_label_text(parameter.label)
    if parameter.kind == "categorical":
        places, names = choice_ticks(parameter, of)
        longest = max(map(len, names), default=0) * len(names)
        turned: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axis.set_ticks(places, names, **(turned if of == "x" and longest > 24 else {}))
        axes.grid(visible=False, axis=of)
    elif parameter.kind == "log":
        _log_ticks(axis, parameter.low, max(parameter.high, parameter.low * 1.01))
    else:
        whole = (
            float(parameter.low).is_integer()
            and float(parameter.high).is_integer()
            and parameter.high - parameter.low < 8
        )
        axis.set_major_locator(MaxNLocator(4, integer=whole, steps=[1, 2, 2.5, 5, 10]))
        if (
            not 1e-4 <= max(abs(parameter.low), abs(parameter.high)) < 1e5
        ):  # else Matplotlib's power of ten lies on the label
            axis.set_major_locator(MaxNLocator(3))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def choice_ticks(parameter: ParameterScale, of: Literal["x", "y"] = "y") -> tuple[list[float], list[str]]:
    """Where the choices lie and what they are called; of very many, every so-manieth."""
    step = -(-len(parameter.choices) // _MOST_NAMES[of]) or 1
    labelled = list(enumerate(parameter.choices))[::step]
    return [float(i) for i, _ in labelled], [value_text(value, 14) for _, value in labelled]


def value_text(value: Any, length: int = 24) -> str:
    """A parameter's value as a person writes it, up to six digits."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "\N{MINUS SIGN}", 1) if value < 0 else f"{value:.6g}"
    return style.display_name(str(value), length)


def parameter_unit(name: str, meta: StudyMeta) -> str:
    """The unit of one of PtyRAD's parameters as it is printed; "" where it has none, or is not known."""
    unit = tunables.unit_of(name, meta.engine)
    return "" if unit in ("patterns", "modes", "slices") else unit_symbol(unit)


def unit_symbol(unit: str) -> str:
    """A unit as it is printed: ``Å`` for ``angstrom``."""
    return _UNITS.get(unit, unit)


def _axis_label(name: str, meta: StudyMeta) -> str:
    unit = parameter_unit(name, meta)
    return f"{style.display_name(name)} ({unit})" if unit else style.display_name(name)


def _range_attributes(meta: StudyMeta, name: str) -> Mapping[str, Any]:
    """The attributes of Optuna's JSON of a parameter's range: low, high, log, step or choices; {} where unknown."""
    attributes = search_space(meta).get(name, {}).get("attributes")
    return attributes if isinstance(attributes, dict) else {}


def range_step(meta: StudyMeta, parameter: ParameterScale) -> float | None:
    """The step of a stepped range; None where it is not stepped or not known."""
    step = _range_attributes(meta, parameter.name).get("step")
    return float(step) if isinstance(step, int | float) and step > 0 else None


def _float_or_nan(value: Any) -> float:
    """A number as a float; NaN for anything else, and for one that is too large to be drawn."""
    try:
        number = float(value) if ranges.is_number(value) else math.nan
    except OverflowError:
        return math.nan
    return number if abs(number) < _DRAWN else math.nan


_DRAWN = 1e300
"""Numbers beyond that are not drawn."""


def _choice_key(value: Any) -> tuple[str, Any]:
    """True is not 1, and 1 is 1.0."""
    return ("bool" if isinstance(value, bool) else "value", value)


def _sort_key(value: Any) -> tuple[int, Any]:
    """Nothing, then numbers, then words."""
    if value is None:
        return 0, 0
    return (1, value) if isinstance(value, int | float) else (2, str(value))
