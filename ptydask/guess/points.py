"""What guesses do to a study: a point to try first, and ranges that are as narrow as they leave open. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.guess.table import Guess
from ptydask.model import Point, Scalar
from ptydask.space import ranges

GUESSED = "guess"
"""Origin of a point that was guessed from the patterns."""
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


def use_guesses(
    chosen: Mapping[str, Guess], space: Mapping[str, Distribution], start: Mapping[str, Scalar], *, narrow: bool
) -> Guessed:
    """The guesses that count (:meth:`ptydask.guess.table.Report.chosen`) put to use in a study of ``space``.

    ``start`` fills in what was not guessed. With ``narrow`` a range becomes what lies within four deviations of a good
    guess, and within two steps at least, never more than it was.
    """
    params: dict[str, Scalar] = {}
    narrowed, notices = dict(space), []
    for name, guess in chosen.items():
        dist, value = space.get(name), guess.value
        text = f"guess: {name} = {_text(guess)} by {guess.method} ({guess.trust})"
        if not isinstance(dist, FloatRange | IntRange) or not isinstance(value, float):
            if not guess.agrees:
                notices.append(f"{text}, the file says {_plain(guess.file_value)} and does not tune it")
            continue
        if not dist.low <= value <= dist.high:
            notices.append(f"{text} is beyond its range of {ranges.describe(dist)}")
            continue
        params[name] = ranges.nearest_value(dist, value)
        if narrow and guess.trust == "good" and guess.deviation is not None:
            narrowed[name] = narrow_range(dist, value, guess.deviation)
        went = "" if narrowed[name] == dist else f"; its range is now {ranges.describe(narrowed[name])}"
        notices.append(f"{text} is tried first{went}")
    if not params:
        return Guessed(None, space, (*notices, "guess: nothing that is tuned was guessed"))
    rest = {name: value for name, value in start.items() if ranges.contains(narrowed[name], value)}
    return Guessed(Point({**rest, **params}, GUESSED), narrowed, tuple(notices))


def narrow_range(dist: FloatRange | IntRange, value: float, deviation: float) -> FloatRange | IntRange:
    """The part of ``dist`` within four deviations of ``value``, on the same grid, two steps to either side at least."""
    reach = max(_DEVIATIONS * deviation, _FEWEST_STEPS * (dist.step or 0))
    low, high = max(dist.low, value - reach), min(dist.high, value + reach)
    if dist.step is None:
        return replace(dist, low=low, high=high)
    if dist.log:
        return dist
    ends: list[Any] = [ranges.nearest_value(dist, end) for end in (low, high)]
    return replace(dist, low=ends[0], high=ends[1])


def _text(guess: Guess) -> str:
    return _plain(guess.value) + ("" if guess.deviation is None else f" +- {guess.deviation:.2g}")


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(list(value) if isinstance(value, tuple) else value)
