"""A range made anew around a value: as wide as before elsewhere, narrower, or in other steps. Pure."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.model import Scalar
from ptydask.space import ranges, tunables
from ptydask.space.nearest_point import share_of

Range = FloatRange | IntRange
_AT_END = 0.02
"""Share of a range without a step by which a value may miss its end."""
_STEPS_AROUND = 40
"""Values on either side that a range without a step is rounded to: its ends are written short."""


def recentre(dist: Range, value: float, name: str = "") -> Range:
    """A range as wide as ``dist`` (of a logarithmic one: with the same ratio of its ends) with ``value`` in its middle.

    No range goes below the least value that makes sense for the parameter ``name`` of PtyRAD. Of any other parameter
    nothing is known: a positive range stays positive, and one within 0 to 1 stays within it.
    """
    if dist.log:
        ratio = math.sqrt(dist.high / dist.low)
        return _make_range(dist, value / ratio, value * ratio, name)
    half = (dist.high - dist.low) / 2
    return _make_range(dist, value - half, value + half, name)


def surround(dist: Range, low: float, high: float, name: str = "", *, step: float | None = None) -> Range:
    """``low`` to ``high`` outwards to the grid of ``dist``, or to that of another ``step``; never narrower than a step.

    See :func:`recentre` for ``name``.
    """
    return _make_range(dist, low, high, name, step)


def step_near(width: float) -> float:
    """The largest of ... 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1 ... that is not above ``width``."""
    power = math.floor(math.log10(width) + 1e-9)
    leading = next(digit for digit in (5, 2, 1) if digit <= width / 10.0**power * (1 + 1e-9))
    return float(Decimal(leading).scaleb(power))


def is_at_end(dist: Distribution, value: Scalar, name: str = "") -> bool:
    """Whether a trial's value is the end of its range, and a wider range is possible; see :func:`recentre`."""
    if not isinstance(dist, FloatRange | IntRange) or not ranges.is_number(value) or dist.low == dist.high:
        return False
    share = share_of(dist, value)
    near = share_at_end(dist)
    if near < share < 1 - near:
        return False
    wider = recentre(dist, value, name)
    return wider.low < dist.low if share <= near else wider.high > dist.high


def share_at_end(dist: Range) -> float:
    """The share of a range within which a value counts as its end: half a step of it, where it has one."""
    return _AT_END if not dist.step or dist.log else 0.5 * dist.step / (dist.high - dist.low)


def is_same(a: Range, b: Range) -> bool:
    """Whether both allow the same values, but for the last digits of their ends."""
    ends = zip((a.low, a.high, a.step or 0), (b.low, b.high, b.step or 0), strict=True)
    return all(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) for one, other in ends) and a.log == b.log


def _make_range(dist: Range, low: float, high: float, name: str, step: float | None = None) -> Range:
    if dist.log:
        low, high = (float(f"{end:.2g}") for end in (low, high))
        whole = isinstance(dist, IntRange)
        return IntRange(max(1, round(low)), round(high), 1, log=True) if whole else FloatRange(low, high, log=True)
    width = step or dist.step
    # Without a step the ends are rounded all the same, so that they are written short.
    unit = Decimal(str(width if width else step_near((high - low) / _STEPS_AROUND)))
    # The grid of another step begins at 0, so that its values are written short.
    origin = Decimal(str(dist.low)) if width and not step else Decimal(0)
    first = origin + ((Decimal(str(low)) - origin) / unit + _TINY).to_integral_value(ROUND_FLOOR) * unit
    last = origin + ((Decimal(str(high)) - origin) / unit - _TINY).to_integral_value(ROUND_CEILING) * unit
    first = _raise_to_least(first, unit, name, dist)
    if name not in tunables.PARAMETERS and dist.low >= 0 and dist.high <= 1:  # a share, as far as anybody knows
        last = min(last, Decimal(1))
    last = max(last, first + unit)
    if isinstance(dist, IntRange):
        return IntRange(int(first), int(last), max(1, int(unit)))
    return FloatRange(float(first), float(last), float(unit) if width else None)


_TINY = Decimal("1e-6")
"""Share of a step by which an end may miss the grid."""


def _raise_to_least(first: Decimal, unit: Decimal, name: str, dist: Range) -> Decimal:
    """The lowest grid point from ``first`` on that the parameter may have.

    One that is none of PtyRAD's stays positive, or not below 0, where its range was.
    """
    tunable = tunables.PARAMETERS.get(name)
    bound = (0.0 if dist.low >= 0 else None) if tunable is None else tunable.least
    above = dist.low > 0 if tunable is None else tunable.positive
    if bound is None:
        return first
    least = Decimal(str(bound))
    short = least - first
    if short > 0 or (above and short == 0):
        first += (short / unit).to_integral_value(ROUND_CEILING) * unit
        if above and first <= least:
            first += unit
    return first
