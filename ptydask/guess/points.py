"""What guesses do to a study: a point to try first, and ranges that are as narrow as they leave open. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.formatting import uncertain_text
from ptydask.guess.mass import wrap
from ptydask.guess.report import TOGETHER
from ptydask.guess.table import FLIPS, Guess, Value
from ptydask.model import GUESSED, Point, Scalar
from ptydask.space import ranges

_DEVIATIONS = 4.0
"""To either side of a guess that a narrowed range reaches."""
_FEWEST_STEPS = 2
"""To either side, of a range with steps."""


@dataclass(frozen=True, slots=True)
class Guessed:
    """What a study has by its guesses."""

    point: Point | None
    """To be tried among the first; None where nothing that is tuned was guessed."""
    space: Mapping[str, Distribution]
    notices: tuple[str, ...]
    untuned: tuple[str, ...] = ()
    """What is guessed otherwise than the file has it, and is not tuned."""
    good: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Value and deviation of the good guesses of what is tuned."""


def use_guesses(
    chosen: Mapping[str, Guess],
    space: Mapping[str, Distribution],
    start: Mapping[str, Scalar],
    *,
    known: Collection[str] = (),
    narrow: Collection[str] = (),
    kept: Sequence[Point] = (),
) -> Guessed:
    """The guesses that count (:meth:`ptydask.guess.report.Report.chosen`) put to use in a study of ``space``.

    ``start`` fills in what was not guessed. Parameters that are ``known`` better, as an earlier stage found them, keep
    their values and ranges. The ranges of those to ``narrow`` become what lies within four deviations of a good guess,
    and within two steps at least, never more than they were, and never without the points that are to be ``kept``.
    """
    params: dict[str, Scalar] = {}
    good: dict[str, tuple[float, float]] = {}
    narrowed, notices, untuned = dict(space), list[str](), list[str]()
    reason = _why_apart(chosen, space)
    for name, own in chosen.items():
        if name in known:
            continue
        dist = space.get(name)
        value = _turn_into(dist, own.value) if name == "rotation" else own.value
        guess = replace(own, value=value)
        text = f"guess: {name} = {_text(guess)} by {guess.method} ({guess.trust})"
        if name in space and isinstance(value, float) and guess.trust == "good" and guess.deviation:
            good[name] = value, guess.deviation
        if not isinstance(dist, FloatRange | IntRange) or not isinstance(value, float):
            if not guess.agrees:
                says = "nothing" if guess.file_value is None else _plain(guess.file_value)
                untuned.append(f"{text}, the file says {says} and does not tune it")
        elif not dist.low <= value <= dist.high:
            notices.append(f"{text} is beyond its range of {ranges.describe(dist)}")
        elif reason and name in TOGETHER:
            notices.append(f"{text} is not tried: it goes with {reason}")
        else:
            params[name] = ranges.nearest_value(dist, value)
            round_about = name == "rotation" and _goes_round(dist, value, _DEVIATIONS * (guess.deviation or 0.0))
            if name in narrow and guess.trust == "good" and guess.deviation is not None and not round_about:
                wanted = [point.params[name] for point in kept if name in point.params]
                narrowed[name] = narrow_range(dist, value, guess.deviation, filter(ranges.is_number, wanted))
            went = (
                ""
                if narrowed[name] == dist
                else f"; range {ranges.describe(narrowed[name])}, narrowed from {_ends(dist)}"
            )
            notices.append(f"{text}{went}")
    if not params:
        return Guessed(None, space, tuple(notices), (*untuned, "guess: nothing that is tuned was guessed"), good)
    rest = {name: value for name, value in start.items() if ranges.contains(narrowed[name], value)}
    return Guessed(Point({**rest, **params}, GUESSED), narrowed, tuple(notices), tuple(untuned), good)


def values_to_write(chosen: Mapping[str, Guess], space: Mapping[str, Distribution]) -> dict[str, float]:
    """What of the guesses that count the params file has otherwise, rounded to two digits of the deviation.

    Of a parameter that the file tunes with steps the value on its grid, where that reaches so far.
    """
    values: dict[str, float] = {}
    for name, guess in chosen.items():
        dist = space.get(name)
        value = _turn_into(dist, guess.value) if name == "rotation" else guess.value
        if guess.agrees or not isinstance(value, float):
            continue
        if isinstance(dist, FloatRange | IntRange) and dist.step and dist.low <= value <= dist.high:
            near = ranges.nearest_value(dist, value)
            value = float(near) if ranges.is_number(near) else value
        elif guess.deviation:
            value = round(value, max(0, 1 - math.floor(math.log10(guess.deviation))))
        if value != guess.file_value:
            values[name] = value
    return values


def _why_apart(chosen: Mapping[str, Guess], space: Mapping[str, Distribution]) -> str:
    """What rotation and aberrations go with that no trial will have; empty where there is no such thing."""
    flips, rotation = chosen.get(FLIPS), chosen.get("rotation")
    if flips is not None and flips.value != flips.file_value:
        return f"{FLIPS} {_plain(flips.value)}"
    if rotation is None or not isinstance(rotation.value, float):
        return ""
    dist, own = space.get("rotation"), rotation.file_value
    angle = _turn_into(dist, rotation.value)
    tried = isinstance(dist, FloatRange | IntRange) and isinstance(angle, float) and ranges.spans(dist, angle)
    far = isinstance(own, float | int) and abs(wrap(rotation.value - own)) > 90
    return f"a rotation of {_plain(rotation.value)}" if far and not tried else ""


def _turn_into(dist: Distribution | None, angle: Value) -> Value:
    """The same turn as an angle in the range, where that has one: -30 is 330 of a range from 0 to 360."""
    if not isinstance(dist, FloatRange | IntRange) or not isinstance(angle, float):
        return angle
    return next((same for same in (angle, angle + 360, angle - 360) if ranges.spans(dist, same)), angle)


def _goes_round(dist: FloatRange | IntRange, angle: float, reach: float) -> bool:
    """Whether what lies within ``reach`` of the angle goes on at the other end of the range: 179 of -180 to 180."""
    ends = any(ranges.spans(dist, angle + side * (reach - 360)) for side in (1, -1))
    return ends and not (ranges.spans(dist, angle + reach) and ranges.spans(dist, angle - reach))


def narrow_range(
    dist: FloatRange | IntRange, value: float, deviation: float, kept: Iterable[float] = ()
) -> FloatRange | IntRange:
    """The part of ``dist`` within four deviations of ``value``, on the same grid, two steps to either side at least.

    Values in ``dist`` that are to be ``kept`` are in it.
    """
    reach, kept = max(_DEVIATIONS * deviation, _FEWEST_STEPS * (dist.step or 0)), list(kept)
    low, high = max(dist.low, min(value - reach, *kept, math.inf)), min(dist.high, max(value + reach, *kept, -math.inf))
    if dist.step is None:
        return replace(dist, low=low, high=high)
    if dist.log:
        return dist
    ends: list[Any] = [ranges.nearest_value(dist, end) for end in (low, high)]
    return replace(dist, low=ends[0], high=ends[1])


def _text(guess: Guess) -> str:
    """With the digits that its deviation leaves."""
    if isinstance(guess.value, float) and guess.deviation:
        return f"{uncertain_text(guess.value, guess.deviation)} {guess.unit}".rstrip()
    return _plain(guess.value)


def _ends(dist: FloatRange | IntRange) -> str:
    return f"{dist.low:g} to {dist.high:g}"


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
