"""What is wrong with the range of one parameter, and the range that it should have next. Pure decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from ptydask.analysis.optimum import EDGE
from ptydask.config.ptyrad.search_space import tune_params
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.errors import ConfigError
from ptydask.formatting import uncertain_text, value_text
from ptydask.model import Optimum, TrialRecord
from ptydask.space import ranges, tunables
from ptydask.space.inactive import conditional_inactivity
from ptydask.space.nearest_point import share_of
from ptydask.space.reshaping import Range, is_same, recentre, share_at_end, step_near, surround

RANGES = (FloatRange, IntRange)
_SMALL = 0.3
"""Share of a range from which on a smaller one would have done."""
_OUTSIDE, _TRIED = 5, 20
"""Trials outside of a small part, and in all, before it is said that nothing good lies elsewhere."""
_BETWEEN = 0.3
"""Grid steps by which the optimum lies off the grid, before the step is too coarse."""


@dataclass(frozen=True, slots=True)
class RangeChange:
    """A fault of a range in words, and the range without it."""

    kind: Literal["range too narrow", "range too wide", "step too coarse", "step too fine"]
    words: str
    range: Range


# --- a range that is wrong ---------------------------------------------------------------------------


def where_idle(
    name: str, space: Mapping[str, Distribution], config: Mapping[str, Any]
) -> Callable[[TrialRecord], bool]:
    """In which trials a parameter did nothing; in none where there is no params file of PtyRAD's, ``config``."""
    known = {other: dist for other, dist in space.items() if other in tunables.PARAMETERS} if config else {}
    idle = [one for one in conditional_inactivity(config, known) if name in one.names]
    return lambda record: any(record.params.get(one.under) in one.values for one in idle)


def by_optimum(dist: Range, name: str, center: float, deviation: float, *, settled: bool) -> RangeChange | None:
    """The fault of a range whose optimum is known by slopes: ``center`` and one standard ``deviation``.

    A study that is ``settled`` has got by with its range, however wide.
    """
    where = uncertain_text(center, deviation)
    share = share_of(dist, center)
    down, up = share_of(dist, center - 2 * deviation), share_of(dist, center + 2 * deviation)
    known = up - down < 0.5
    for at_end, reaches, end in ((share < EDGE, down < 0, dist.low), (share > 1 - EDGE, up > 1, dist.high)):
        if at_end:
            words = f"its optimum is at or beyond {value_text(end)}, the end of its range"
            return _narrow(dist, name, center, words)
        if known and reaches:
            words = f"its optimum, {where} by the slopes, may be beyond {value_text(end)}, the end of its range"
            return _narrow(dist, name, center, words)
    if dist.step and isinstance(dist, FloatRange) and not dist.log:
        index = (center - dist.low) / dist.step
        off = abs(index - round(index))
        if off > _BETWEEN and deviation < 0.5 * (off * dist.step):
            words = f"its optimum, {where} by the slopes, lies between two steps of {value_text(dist.step)}"
            step = step_near(max(dist.step / 5, min(2 * deviation, dist.step / 2)))
            return RangeChange("step too coarse", words, _around(dist, name, center, 2 * dist.step, step))
        if deviation > 3 * dist.step and (ranges.grid_size(dist) or 0) > 20:
            words = f"its optimum is {where} by the slopes, which does not tell steps of {value_text(dist.step)} apart"
            wide = surround(dist, dist.low, dist.high, name, step=step_near(deviation))
            return RangeChange("step too fine", words, wide)
    half = max(4 * deviation, 2 * dist.step if dist.step else 0.05 * (dist.high - dist.low))
    new = _around(dist, name, center, half, None)
    if settled or _size(dist, new) > _SMALL:
        return None
    return RangeChange("range too wide", f"its optimum is {where} by the slopes", new)


def by_good_trials(
    dist: Range, name: str, good: Sequence[float], tried: Sequence[float], rise: float | None = None
) -> RangeChange | None:
    """The fault of a range by its values in the ``good`` trials, the best one first, and in all that were ``tried``.

    ``rise``: the derivative of what is minimised at the best trial, where that is known.
    """
    best, shares = good[0], [share_of(dist, value) for value in good]
    near = share_at_end(dist)
    for at_end, end, outer, falls in (
        (shares[0] < near, dist.low, sum(share < 0.25 for share in shares), rise is not None and rise > 0),
        (shares[0] > 1 - near, dist.high, sum(share > 0.75 for share in shares), rise is not None and rise < 0),
    ):
        if at_end and (falls if rise is not None else 2 * outer >= len(good)):
            words = f"the best trial has {value_text(best)}, at the end {value_text(end)} of its range"
            return _narrow(dist, name, best, words)
    low, high = min(good), max(good)
    several = f"the best {len(good)} trials"
    if dist.step and not dist.log and isinstance(dist, FloatRange):
        neighbours = [value for value in tried if 0.5 < abs(value - best) / dist.step < 1.5]
        if low == high and len(good) >= _OUTSIDE and len(neighbours) >= _OUTSIDE:
            words = f"{several} all have {value_text(best)}, so that its optimum is narrower than a step"
            step = step_near(dist.step / 4)
            return RangeChange("step too coarse", words, _around(dist, name, best, 2 * dist.step, step))
        # Good trials all over the range say that it does not matter, not that its steps are fine.
        if (high - low) / dist.step >= _TRIED and max(shares) - min(shares) <= 0.5:
            span = f"from {value_text(low)} to {value_text(high)}"
            words = f"{several} lie over {round((high - low) / dist.step)} steps, {span}"
            return RangeChange(
                "step too fine", words, surround(dist, dist.low, dist.high, name, step=step_near((high - low) / 10))
            )
    if len(tried) < _TRIED or min(shares) < near or max(shares) > 1 - near:  # at an end, the part may go on beyond it
        return None
    margin = max((high - low) / 2, 2 * dist.step if dist.step else 0.0)
    if dist.log:
        factor = max(math.sqrt(high / low), (dist.high / dist.low) ** 0.05)
        new = surround(dist, max(low / factor, dist.low), min(high * factor, dist.high), name)
    else:
        margin = max(margin, 0.05 * (dist.high - dist.low))
        new = surround(dist, max(low - margin, dist.low), min(high + margin, dist.high), name)
    outside = sum(not new.low <= value <= new.high for value in tried)
    if _size(dist, new) > 2 * _SMALL or max(shares) - min(shares) > _SMALL or outside < _OUTSIDE:
        return None
    span = value_text(low) if low == high else f"{value_text(low)} to {value_text(high)}"
    words = f"{several} lie at {span}, and {outside} were tried farther off"
    return RangeChange("range too wide", words, new)


def without_failures(
    dist: Distribution, name: str, failed: Sequence[float], ended: Sequence[float]
) -> RangeChange | None:
    """The range without the end at which all ``failed`` trials lie, and none of those that ``ended`` well."""
    if not isinstance(dist, RANGES) or len(ended) < 3 or not failed:
        return None
    if min(failed) > max(ended) > dist.low:
        return _cut(dist, "above", dist.low, max(ended))
    if max(failed) < min(ended) < dist.high:
        return _cut(dist, "below", min(ended), dist.high)
    return None


def _cut(dist: Range, word: Literal["above", "below"], low: float, high: float) -> RangeChange:
    words = f"{word} {value_text(high if word == 'above' else low)}"
    if isinstance(dist, IntRange):
        return RangeChange("range too wide", words, replace(dist, low=int(low), high=int(high)))
    return RangeChange("range too wide", words, replace(dist, low=low, high=high))


def _narrow(dist: Range, name: str, value: float, words: str) -> RangeChange | None:
    """None where the range ends there for good: there are no fewer than one probe mode."""
    new = recentre(dist, value, name)
    within = new.low >= dist.low and new.high <= dist.high
    return None if within or is_same(new, dist) else RangeChange("range too narrow", words, new)


def _around(dist: Range, name: str, center: float, half: float, step: float | None) -> Range:
    """``half`` on either side of the center, within the range."""
    low, high = max(center - half, dist.low), min(center + half, dist.high)
    return surround(dist, low, high, name, step=step)


def _size(dist: Range, part: Range) -> float:
    """The share of ``dist`` that ``part`` is."""
    return share_of(dist, part.high) - share_of(dist, part.low)


# --- a range of the next step ------------------------------------------------------------------------

_TEMPLATES: Mapping[str, tuple[float, float]] = {
    "scale": (0.2, 0.02),
    "asymmetry": (0.2, 0.05),
    "rotation": (4.0, 0.5),
    "shear": (4.0, 0.5),
    "tilt_y": (5.0, 0.5),
    "tilt_x": (5.0, 0.5),
}
"""Half a range and its step, as the template of PtyRAD's params file has them."""
_CARRIED = 0.1
"""Of a continuous range that is tuned again, the share on either side of the optimum."""


def in_next_step(
    name: str,
    space: Mapping[str, Distribution],
    best: TrialRecord,
    optimum: Optimum | None,
    config: Mapping[str, Any],
) -> Distribution:
    """The range in which to tune a parameter of PtyRAD's next: close to what is known of it, in finer steps.

    One that was not tuned so far has the range of the params file, or else of PtyRAD's template, around its value.
    """
    dist = space.get(name)
    tried = best.params.get(name)
    if isinstance(dist, RANGES) and ranges.is_number(tried):
        center, deviation = float(tried), 0.0
        if optimum is not None and name in optimum.center:
            center, deviation = optimum.center[name], optimum.deviation[name]
        half = max(4 * deviation, 2 * dist.step if dist.step else _CARRIED * (dist.high - dist.low))
        step = step_near(dist.step / 4) if isinstance(dist, FloatRange) and dist.step else None
        return surround(dist, center - half, center + half, name, step=step)
    if dist is not None:
        return dist
    value = float(cast(float, tunables.current_value(config, name) or 0.0))
    entry = _own_range(name, config)
    if isinstance(entry, Choice):
        return entry
    if entry is not None:
        return entry if 0.1 <= share_of(entry, value) <= 0.9 else recentre(entry, value, name)
    half, step = _TEMPLATES.get(name, (value / 2, step_near(max(abs(value), 1e-3) / 20)))
    return surround(FloatRange(value - half, value + half, step), value - half, value + half, name)


def _own_range(name: str, config: Mapping[str, Any]) -> FloatRange | IntRange | Choice | None:
    """The range that the file has for a parameter that is not switched on."""
    with suppress(ConfigError, KeyError, TypeError):
        entry = config["hypertune_params"]["tune_params"][name]
        return cast("FloatRange | IntRange | Choice", tune_params({name: {**entry, "state": True}}).space[name])
    return None
