"""What is guessed, by which method, and how far to trust it: pure decisions over what was measured of the patterns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ptydask.guess.disk import Disk
from ptydask.guess.mass import MassRotation, wrap
from ptydask.guess.patterns import Geometry, PatternSample, flip

Trust = Literal["good", "fair", "none"]
Value = float | tuple[int, int, int] | None

DISK, MASS, COUNTS = "bright-field disk", "centre of mass", "sums"
CLEAR, FAINT = 0.25, 0.3
"""Curl that is left of a field, as a share of the largest: below the first it is one of a gradient, above the second
it may be of noise."""
_TWIN = 0.2
"""Least likeness of phase and dark field that tells a turn from the one opposite."""
_COARSE = 3.0
"""Scan steps, in units of what resolves all of the field, from which on a turn is no more than fair."""
_SURE, _ROUGH = 2.0, 4.0
"""Deviation of a turn in degree up to which it is good, and fair."""


@dataclass(frozen=True, slots=True)
class Guess:
    """A parameter as one method has it."""

    parameter: str
    """A tunable's name (``rotation``), a key of ``init_params`` (``meas_flipT``), or a fact (``dose``)."""
    value: Value
    """None where it is not determined."""
    deviation: float | None
    """Standard deviation, in the unit of the value; None where there is no such thing."""
    method: str
    trust: Trust
    """``none``: not determined, and not to be used."""
    why: str
    """Why not more; empty where there is nothing to say."""
    file_value: Value
    """What the params file says; None where it says nothing."""
    unit: str = ""

    @property
    def counts(self) -> bool:
        """Whether it may be used."""
        return self.trust != "none" and self.value is not None

    @property
    def agrees(self) -> bool:
        """Whether the file says the same, within two deviations."""
        if isinstance(self.value, tuple) or isinstance(self.file_value, tuple):
            return self.value == self.file_value
        if self.value is None or self.file_value is None:
            return False
        gap = self.value - self.file_value
        return abs(wrap(gap) if self.parameter == "rotation" else gap) <= 2 * (self.deviation or 0.0)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was guessed of a data set."""

    guesses: tuple[Guess, ...]
    warnings: tuple[str, ...]
    facts: tuple[Guess, ...] = ()
    """What is measured and belongs to no parameter."""

    def chosen(self) -> dict[str, Guess]:
        """Of each parameter the guess that counts: the most trusted one, of equals the one of least deviation."""
        best: dict[str, Guess] = {}
        for guess in self.guesses:
            if guess.counts and (guess.parameter not in best or _rank(guess) < _rank(best[guess.parameter])):
                best[guess.parameter] = guess
        return best


def _rank(guess: Guess) -> tuple[bool, float]:
    return guess.trust != "good", math.inf if guess.deviation is None else guess.deviation


# --- one measurement each ----------------------------------------------------------------------------


def guess_by_disk(disk: Disk | None, geometry: Geometry) -> list[Guess]:
    """The convergence angle by the file's pixel size, or the pixel size by the file's convergence angle.

    The disk tells one by the other: ``radius = conv_angle / pixel_angle``, ``dx = wavelength / (Npix pixel_angle)``.
    """
    own, angle = geometry.pixel_angle, geometry.convergence
    name, unit = ("dx", "angstrom") if geometry.calibrated_by_disk or own is None else ("conv_angle", "mrad")
    file_value = geometry.pixel_size if name == "dx" else angle
    if disk is None:
        why = "the disk's edge is not on the detector"
        return [Guess(name, None, None, DISK, "none", why, file_value, unit)]
    if name == "dx":
        if angle is None:
            return [Guess(name, None, None, DISK, "none", "the file has no probe_conv_angle", file_value, unit)]
        value = 1e3 * geometry.wavelength * disk.radius / (geometry.pixels * angle)
        why = f"if probe_conv_angle is {angle:g} mrad: the disk tells one by the other"
    else:
        assert own is not None
        value, why = disk.radius * own, f"if dx is {geometry.pixel_size:.4g} angstrom: the disk tells one by the other"
    share = disk.radius_deviation / disk.radius
    trust: Trust = "good" if share < 0.03 and disk.seen == 1 else "fair"
    return [Guess(name, value, value * share, DISK, trust, why, file_value, unit)]


def guess_by_mass(turn: MassRotation | None, geometry: Geometry, *, dark_seen: bool = True) -> list[Guess]:
    """Rotation and flips of the detector against the scan, from the centres of mass."""
    own = geometry.affine[2]
    blank = Guess("rotation", None, None, MASS, "none", "", own, "degree")
    flips = Guess("meas_flipT", None, None, MASS, "none", "", geometry.flips)
    if any(geometry.scan_flips):
        why = "the file flips the scan (pos_scan_flipT): flip the patterns instead"
        return [replace(blank, why=why), replace(flips, why=why)]
    if turn is None:
        why = "the centres of mass are the same everywhere"
        return [replace(blank, why=why), replace(flips, why=why)]
    if turn.left > FAINT or turn.left > 0.5 * turn.left_otherwise:
        why = f"no turn makes a gradient of the field: {turn.left:.0%} of its curl is left"
        return [replace(blank, why=why), replace(flips, why=why)]
    if turn.deviation > _ROUGH:
        why = f"parts of the scan disagree by {turn.deviation:.1f} degree"
        return [replace(blank, why=why), replace(flips, why=why)]
    angle, new = turn.rotation, geometry.flips
    reasons = []
    if turn.mirrored:
        angle, new = unmirror(geometry.flips, turn.rotation)
    twin_told = turn.twin >= _TWIN
    if not twin_told:
        angle = min((angle, wrap(angle + 180)), key=lambda other: abs(wrap(other - own)))
        reasons.append("or 180 degree more: the dark field does not tell" if dark_seen else "or 180 degree more")
    coarse = geometry.coarseness
    sure = turn.left <= CLEAR and turn.deviation <= _SURE and (coarse is None or coarse <= _COARSE)
    trust: Trust = "good" if sure and twin_told else "fair"
    if turn.left > CLEAR:
        reasons.append(f"{turn.left:.0%} of the curl is left")
    if coarse is not None and coarse > _COARSE:
        reasons.append(f"steps are {coarse:.0f} times what resolves the field")
    why = "; ".join(reasons)
    flips = replace(flips, value=new, trust="good" if turn.left <= CLEAR else "fair")
    return [replace(blank, value=angle, deviation=turn.deviation, trust=trust, why=why), flips]


def unmirror(flips: tuple[int, int, int], rotation: float) -> tuple[float, tuple[int, int, int]]:
    """The rotation and the ``meas_flipT`` of a mirrored detector: of the four that undo it, that of least rotation.

    ``rotation`` is what the patterns have transposed after ``flips``.
    """
    options = []
    for quarter in range(4):
        # Patterns turned by a quarter after the transposition: a field (y, x) becomes (-x, y), its angle 90 more.
        options.append((wrap(rotation + 90 * quarter), combine(flips, (0, 0, 1), quarter)))
    return min(options, key=lambda option: (abs(option[0]), option[1]))


def combine(flips: tuple[int, int, int], more: tuple[int, int, int], quarters: int = 0) -> tuple[int, int, int]:
    """``meas_flipT`` that does ``flips``, then ``more``, then so many quarter turns (y, x) -> (-x, y)."""
    probe = np.arange(9).reshape(3, 3)
    wanted = np.rot90(flip(flip(probe, flips), more), quarters)
    every = [(a, b, c) for c in (0, 1) for a in (0, 1) for b in (0, 1)]
    return next(one for one in every if np.array_equal(flip(probe, one), wanted))


def list_facts(sample: PatternSample, disk: Disk | None, geometry: Geometry) -> list[Guess]:
    """What a microscopist wants to know of a data set: the disk, the dose, how far positions overlap."""
    facts = []
    if disk is not None:
        middle = geometry.pixels // 2
        y, x = disk.centre[0] - middle, disk.centre[1] - middle
        facts += [
            Guess("disk radius", disk.radius, disk.radius_deviation, DISK, "good", "", None, "pixel"),
            Guess("disk centre y", y, disk.radius_deviation, DISK, "good", "from the middle pixel", None, "pixel"),
            Guess("disk centre x", x, disk.radius_deviation, DISK, "good", "from the middle pixel", None, "pixel"),
            Guess("ellipticity", disk.ellipticity, disk.ellipticity_deviation, DISK, "good", "", None),
        ]
    counts = float(sample.total.mean())
    trust: Trust = "good" if sample.counted else "none"
    why = "" if sample.counted else "values are no whole numbers: the detector's gain is not known"
    unit = "electron" if sample.counted else "unit"
    dose = counts / geometry.step**2
    facts += [
        Guess("sum of a pattern", counts, None, COUNTS, "good", "", None, unit),
        Guess("dose", dose, None, COUNTS, trust, why, None, f"{unit}/angstrom^2"),
    ]
    if geometry.pixel_size is not None:
        width = geometry.pixels * geometry.pixel_size
        facts.append(
            Guess("areal oversampling", (width / geometry.step) ** 2, None, COUNTS, "good", _OVERSAMPLING, None)
        )
    return facts


_OVERSAMPLING = "(Npix dx / step)^2; ptychography wants well above 1"

# --- what to say of all of it ------------------------------------------------------------------------


def list_warnings(
    guesses: Sequence[Guess], disk: Disk | None, sample: PatternSample, geometry: Geometry
) -> tuple[str, ...]:
    """What a microscopist would say who looks at the patterns and at the table."""
    warnings = [*_disk_warnings(disk, sample, geometry), *_disagreements(guesses)]
    for guess in guesses:
        if guess.parameter == "rotation" and guess.counts and "180 degree" in guess.why:
            warnings.append("rotation: the turn opposite, by 180 degree, fits the centres of mass as well; try both")
        if guess.parameter == "meas_flipT" and guess.counts and guess.value != guess.file_value:
            warnings.append(f"meas_flipT: the detector is mirrored to the scan; with {_text(guess.value)} it is not")
    rows = sample.rows[1] - sample.rows[0]
    if rows < geometry.scan[0]:
        warnings.append(f"{rows} of the scan's {geometry.scan[0]} rows were read, from its middle")
    return tuple(dict.fromkeys(warnings))


def _disk_warnings(disk: Disk | None, sample: PatternSample, geometry: Geometry) -> Iterable[str]:
    if disk is None:
        yield "the disk is not whole on the detector, or there is none: neither conv_angle nor dx can be told by it"
        return
    middle, pixels = geometry.pixels // 2, geometry.pixels
    off = math.hypot(disk.centre[0] - middle, disk.centre[1] - middle)
    if off > max(1.0, 0.05 * disk.radius):
        yield f"the disk is {off:.1f} pixels off the detector's middle: centre the patterns before a reconstruction"
    if disk.ellipticity > max(0.02, 3 * disk.ellipticity_deviation):
        yield f"the disk is {disk.ellipticity:.1%} longer than wide: distortions of the projector, or a specimen's tilt"
    if min(*disk.centre, pixels - 1 - disk.centre[0], pixels - 1 - disk.centre[1]) < disk.radius:
        yield "the disk reaches over the detector's edge: the detector is clipped"
    edge = np.concatenate([sample.mean[0], sample.mean[-1], sample.mean[:, 0], sample.mean[:, -1]]).mean()
    if edge > 0.1 * sample.mean[round(disk.centre[0]) % pixels, round(disk.centre[1]) % pixels]:
        yield "much intensity reaches the detector's edge: the detector is clipped"
    own = geometry.pixel_angle
    if own and geometry.convergence and abs(disk.radius * own / geometry.convergence - 1) > 0.05:
        says = geometry.convergence / own
        yield f"the disk's radius is {disk.radius:.1f} pixels, by dx and conv_angle of the file it would be {says:.1f}"


def _disagreements(guesses: Sequence[Guess]) -> Iterable[str]:
    for number, one in enumerate(guesses):
        for other in guesses[number + 1 :]:
            if one.parameter != other.parameter or one.method == other.method or not (one.counts and other.counts):
                continue
            if isinstance(one.value, tuple) or isinstance(other.value, tuple):
                apart = one.value != other.value
            else:
                assert one.value is not None
                assert other.value is not None
                gap = one.value - other.value
                gap = wrap(gap) if one.parameter == "rotation" else gap
                spread = math.hypot(one.deviation or 0.0, other.deviation or 0.0)
                apart = abs(gap) > 3 * max(spread, 0.5 if one.parameter == "rotation" else 0.0)
            if apart:
                values = f"{_text(one.value)} by {one.method}, {_text(other.value)} by {other.method}"
                yield f"{one.parameter}: two methods disagree, {values}; trust neither"


def _text(value: Value) -> str:
    if value is None:
        return "not determined"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, tuple) else f"{value:.4g}"
