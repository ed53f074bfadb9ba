"""What several methods guessed, taken together: which counts, where they disagree, what to say of it. Pure decisions.

A rotation holds for patterns flipped as ``meas_flipT`` says, and a scan turned by 180 degrees more looks the same with
C10 and C12 of the other sign: these are taken from one method, or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ptydask.formatting import counted
from ptydask.guess.disk import Disk
from ptydask.guess.geometry import Geometry
from ptydask.guess.mass import wrap
from ptydask.guess.patterns import PatternSample, find_bright, flip
from ptydask.guess.table import ABERRATIONS, FLIPS, Guess, Value, off_middle

TOGETHER = ("rotation", FLIPS, *ABERRATIONS)
_CLOSE = 3.0
"""Standard deviations of their difference by which two methods may differ and still agree ..."""
_AT_LEAST = 0.5
"""... and the least that one is taken as, in degree."""

_OFF_MIDDLE = 0.75
"""Pixels: more than those of a disk in the middle between four pixels, less than those of a flip too many."""
_HOT, _FEW = 5.0, 0.001
"""A pixel so many times as bright as the disk is hot, if no more than this share of all are."""

RADIUS = "the disk's radius is"
"""What the warning begins with that says the same as a convergence angle."""

_Turn = Mapping[str, Guess]
"""What one method has of :data:`TOGETHER`; a rotation and flips always."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was guessed of a data set."""

    guesses: tuple[Guess, ...]
    warnings: tuple[str, ...]
    facts: tuple[Guess, ...] = ()
    """What is measured and belongs to no parameter."""

    def chosen(self) -> dict[str, Guess]:
        """Of each parameter the guess that counts; rotation, flips and aberrations belong together."""
        lone = {guess.parameter: guess for guess in self.guesses if guess.counts and guess.parameter not in TOGETHER}
        return {**lone, **choose_turn(self.guesses)}


# --- methods compared --------------------------------------------------------------------------------


def reconcile(guesses: Sequence[Guess]) -> tuple[tuple[Guess, ...], tuple[str, ...]]:
    """The guesses as they are to be trusted beside each other, and what to warn of.

    Where two methods agree but for 180 degrees, the one that cannot tell these follows the other; where neither can, or
    both do, and where they disagree otherwise, nothing of the turn is determined.
    """
    turns = _turns_of(guesses)
    if len(turns) < 2:
        return tuple(guesses), ()
    one, other = turns.values()
    gap = _angle_between(one, other)
    if gap is not None and _is_close(abs(gap) - 180, one, other):
        if _is_twin(one) and not _is_twin(other):
            one = _opposite(one)
        elif _is_twin(other) and not _is_twin(one):
            other = _opposite(other)
        gap = _angle_between(one, other)
    warnings = []
    if gap is not None and _is_close(gap, one, other):
        one, other = _follow(one, other), _follow(other, one)
    else:
        warnings.append(_describe_disagreement(one, other, gap))
        names = TOGETHER if gap is None else ("rotation", *ABERRATIONS)
        one, other = _refuse(one, other, names), _refuse(other, one, names)
    new = {(guess.method, name): guess for turn in (one, other) for name, guess in turn.items()}
    return tuple(new.get((guess.method, guess.parameter), guess) for guess in guesses), tuple(warnings)


def choose_turn(guesses: Iterable[Guess]) -> dict[str, Guess]:
    """Rotation, flips and aberrations by the method whose rotation is most trusted, of equals that of least deviation.

    Aberrations that it has not are those of one that agrees.
    """
    turns = sorted(_turns_of(guesses).values(), key=lambda turn: _rank(turn["rotation"]))
    if not turns:
        return {}
    best, *others = turns
    chosen = dict(best)
    for other in others:
        gap, quarters = _angle_between(best, other), _quarters(best, other)
        if gap is not None and quarters is not None and _is_close(gap, best, other):
            for name in ABERRATIONS:
                if name in other and name not in chosen:
                    value = other[name].value
                    # A quarter turn of the axes reverses the sign of a twofold aberration.
                    turned = -value if quarters % 2 and name != "C10" and isinstance(value, float) else value
                    chosen[name] = replace(other[name], value=turned)
    return chosen


def _rank(guess: Guess) -> tuple[bool, float]:
    return guess.trust != "good", math.inf if guess.deviation is None else guess.deviation


def _turns_of(guesses: Iterable[Guess]) -> dict[str, dict[str, Guess]]:
    """Method -> what it has, of those that have a rotation and flips."""
    turns: dict[str, dict[str, Guess]] = {}
    for guess in guesses:
        if guess.parameter in TOGETHER and guess.counts:
            turns.setdefault(guess.method, {})[guess.parameter] = guess
    return {method: turn for method, turn in turns.items() if "rotation" in turn and FLIPS in turn}


def _quarters(one: _Turn, other: _Turn) -> int | None:
    """By how many quarter turns (y, x) -> (-x, y) the one's flips go beyond the other's; None if one is mirrored."""
    apart = np.arange(4).reshape(2, 2)
    given, wanted = (flip(apart, _flips(turn)) for turn in (one, other))
    return next((n for n in range(4) if np.array_equal(np.rot90(wanted, n), given)), None)


def _angle_between(one: _Turn, other: _Turn) -> float | None:
    """Degree from the other's turn to the one's; None if one is mirrored."""
    quarters = _quarters(one, other)
    return None if quarters is None else wrap(_float(one["rotation"]) - _float(other["rotation"]) - 90 * quarters)


def _flips(turn: _Turn) -> tuple[int, int, int]:
    value = turn[FLIPS].value
    assert isinstance(value, tuple)
    return value


def _float(guess: Guess) -> float:
    assert isinstance(guess.value, float)
    return guess.value


def _is_twin(turn: _Turn) -> bool:
    """Whether it cannot tell its rotation from the opposite one."""
    return turn["rotation"].opposite is not None


def _is_close(gap: float, one: _Turn, other: _Turn) -> bool:
    spread = math.hypot(one["rotation"].deviation or 0.0, other["rotation"].deviation or 0.0)
    return abs(gap) <= _CLOSE * max(spread, _AT_LEAST)


def _opposite(turn: _Turn) -> dict[str, Guess]:
    return {
        name: guess if guess.opposite is None else replace(guess, value=guess.opposite, opposite=_float(guess))
        for name, guess in turn.items()
    }


def _follow(turn: _Turn, leader: _Turn) -> dict[str, Guess]:
    """``turn``, of its two opposites told by the ``leader``, which agrees, where it does not tell them itself."""
    if _is_twin(leader):
        return dict(turn)
    why = f"of two opposite turns that of {leader['rotation'].method}"
    return {
        name: guess if guess.opposite is None else replace(guess, why=why, opposite=None)
        for name, guess in turn.items()
    }


def _refuse(turn: _Turn, other: _Turn, names: Sequence[str]) -> dict[str, Guess]:
    """``turn``, of which these ``names`` are not determined, as the ``other`` disagrees."""
    why = f"rotation is {_describe_turn(other)}"
    return {name: replace(guess, trust="none", why=why) if name in names else guess for name, guess in turn.items()}


def _describe_disagreement(one: _Turn, other: _Turn, gap: float | None) -> str:
    """Both turns and, of opposite ones, what decides between them: the sign of C10."""
    turns = f"{_describe_turn(one)}, {_describe_turn(other)}"
    if gap is None or not _is_close(abs(gap) - 180, one, other):
        return f"rotation is not determined: {turns}; none of the two is used"
    told = f"rotation is not determined: {turns}, the opposite turn, which fits as well with C10 of the other sign"
    focus = next((turn for turn in (one, other) if "C10" in turn), None)
    if focus is None:
        return f"{told}; none of the two is used"
    seen, beside = _float(focus["C10"]), other if focus is one else one
    signs = " or ".join(
        f"C10 {value:+.0f} with {_text(turn['rotation'].value)}" for turn, value in ((focus, seen), (beside, -seen))
    )
    own = focus["C10"].file_value
    says = f"; the file says {own:+g}, which may have the wrong sign" if isinstance(own, float | int) else ""
    return f"{told}: {signs}{says}; none of the two is used"


def _describe_turn(turn: _Turn) -> str:
    """``-1.3 +- 0.6 degree by centre of mass``."""
    rotation, flips = turn["rotation"], _flips(turn)
    spread = "" if rotation.deviation is None else f" +- {rotation.deviation:.2g}"
    mirrored = f" with {FLIPS} {_text(flips)}" if flips != turn[FLIPS].file_value else ""
    return f"{_text(rotation.value)}{spread} degree{mirrored} by {rotation.method}"


# --- what to say of all of it ------------------------------------------------------------------------


def list_warnings(
    guesses: Sequence[Guess], disk: Disk | None, sample: PatternSample, geometry: Geometry
) -> tuple[str, ...]:
    """What a microscopist would say who looks at the patterns and at the table."""
    chosen = Report(tuple(guesses), ()).chosen()
    flips = chosen.get(FLIPS)
    mounted = flips.value if flips is not None and isinstance(flips.value, tuple) else geometry.flips
    warnings = list(_disk_warnings(disk, sample, geometry, mounted))
    if "rotation" in chosen and chosen["rotation"].opposite is not None:
        warnings.append("rotation: the turn opposite, by 180 degree, with C10 of the other sign, fits as well")
    if flips and flips.value != flips.file_value:
        warnings.append(f"{FLIPS}: the detector is mirrored to the scan; with {_text(flips.value)} it is not")
    for guess in guesses:
        if guess.parameter == "C10" and guess.value is None:
            warnings.append(f"C10 is not determined: {guess.why}")
    rows = sample.rows[1] - sample.rows[0]
    if rows < geometry.scan[0]:
        warnings.append(f"{rows} of the scan's {geometry.scan[0]} rows were read, from its middle")
    return tuple(dict.fromkeys(warnings))


def _disk_warnings(
    disk: Disk | None, sample: PatternSample, geometry: Geometry, flips: tuple[int, int, int]
) -> Iterable[str]:
    if disk is None:
        yield "the disk is clipped by the detector, or there is none: neither conv_angle nor dx can be told by it"
        return
    pixels, off = geometry.pixels, off_middle(disk, geometry, flips)
    if off > _OFF_MIDDLE:
        yield f"the disk is {off:.1f} pixels off the detector's middle: centre the patterns before a reconstruction"
    if disk.ellipticity > max(0.02, 3 * disk.ellipticity_deviation):
        yield f"the disk is {disk.ellipticity:.1%} longer than wide: distortions of the projector, or a specimen's tilt"
    if min(*disk.centre, pixels - 1 - disk.centre[0], pixels - 1 - disk.centre[1]) < disk.radius:
        yield "the disk reaches over the detector's edge: the detector is clipped"
    edge = np.concatenate([sample.mean[0], sample.mean[-1], sample.mean[:, 0], sample.mean[:, -1]]).mean()
    if edge > 0.1 * sample.mean[round(disk.centre[0]) % pixels, round(disk.centre[1]) % pixels]:
        yield "much intensity reaches the detector's edge: the detector is clipped"
    inside = np.median(sample.mean[find_bright(sample.mean)])
    if (hot := int((sample.mean > _HOT * inside).sum())) and hot <= _FEW * sample.mean.size:
        yield f"{counted(hot, 'pixel')} brighter than the disk {_HOT:g} times over: hot ones, to be masked"
    own = geometry.pixel_angle
    if own and geometry.convergence and abs(disk.radius * own / geometry.convergence - 1) > 0.05:
        says = geometry.convergence / own
        yield f"{RADIUS} {disk.radius:.1f} pixels, by dx and conv_angle of the file it would be {says:.1f}"


def _text(value: Value) -> str:
    if value is None:
        return "not determined"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else f"{value:.4g}"
