"""What each measurement of the patterns says of a parameter, and how far to trust it: pure decisions."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ptydask.guess.disk import Disk
from ptydask.guess.geometry import Geometry
from ptydask.guess.mass import MassRotation, wrap
from ptydask.guess.patterns import PatternSample, flip
from ptydask.space import tunables

Trust = Literal["good", "fair", "none"]
Value = float | tuple[int, int, int] | None

FLIPS, ABERRATIONS = "meas_flipT", ("C10", "C12a", "C12b")

DISK, MASS, COUNTS = "bright-field disk", "centre of mass", "sums"
CLEAR, FAINT = 0.25, 0.3
"""Curl that is left of a field, as a share of the largest: below the first it is one of a gradient, above the second
it may be of noise."""
_TWIN, _LIKE = 0.2, 0.5
"""Least likeness of phase and dark field by which a turn is chosen of two opposite ones, and by which it is told."""
_MUCH, _EVEN = 0.01, 0.2
"""A specimen that scatters more than the first share of the electrons out of the disk, and that varies by less than the
second share of itself from position to position, may be bright between its atoms: thick, or under a wide probe."""
_COARSE = 2.0
"""Scan steps, in units of what resolves all of the field, from which on a turn is no more than fair: more than half of
the band that the probe lets through is folded back."""
_FOLDED = 1.0
"""Degree by which what is folded back may turn all parts of the field alike."""
_OFF = 0.5
"""Pixels by which the disk is off the middle and counts as in it: flips take it by one."""
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
    """``none``: not determined, and not to be used; a value is that of one method, which another contradicts."""
    why: str
    """Why not more; empty where there is nothing to say."""
    file_value: Value
    """What the params file says; None where it says nothing."""
    unit: str = ""
    opposite: float | None = None
    """What it is if the scan is turned by 180 degrees more, and C10 of the other sign, where that fits as well."""

    @property
    def counts(self) -> bool:
        """Whether it may be used."""
        return self.trust != "none" and self.value is not None

    @property
    def agrees(self) -> bool:
        """Whether the file says the same, within two deviations."""
        if isinstance(self.value, tuple) or isinstance(self.file_value, tuple):
            return self.value == self.file_value
        own = 0.0 if self.file_value is None and self.parameter in ABERRATIONS else self.file_value
        if self.value is None or own is None:
            return False
        return abs(tunables.difference(self.parameter, self.value, own)) <= 2 * (self.deviation or 0.0)


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
        why = f"if probe_conv_angle is {angle:g} mrad"
    else:
        assert own is not None
        value, why = disk.radius * own, f"if dx is {geometry.pixel_size:.4g} angstrom"
    share = disk.radius_deviation / disk.radius
    trust: Trust = "good" if share < 0.03 and disk.seen == 1 else "fair"
    return [Guess(name, value, value * share, DISK, trust, why, file_value, unit)]


def tells_twin(dark: NDArray[np.float64], total: NDArray[np.float64]) -> bool:
    """Whether the dark field of patterns of this sum, (rows, columns), is that of atoms: not so of thick crystals."""
    share = float(dark.mean() / total.mean()) if total.any() else 0.0
    return share > 0 and (share <= _MUCH or float(dark.std() / dark.mean()) >= _EVEN)


def guess_by_mass(
    turn: MassRotation | None, geometry: Geometry, disk: Disk | None = None, *, dark_tells: bool = True
) -> list[Guess]:
    """Rotation and flips of the detector against the scan, from the centres of mass.

    ``disk`` tells which flips leave the beam in the middle, ``dark_tells`` is what :func:`tells_twin` has of the dark
    field.
    """
    own = geometry.affine[2]
    blank = Guess("rotation", None, None, MASS, "none", "", own, "degree")
    flips = Guess(FLIPS, None, None, MASS, "none", "", geometry.flips)
    if any(geometry.scan_flips):
        why = "the file flips the scan (pos_scan_flipT): flip the patterns instead"
        return [replace(blank, why=why), replace(flips, why=why)]
    if turn is None:
        why = "needs 4 x 4 positions" if min(geometry.scan) < 4 else "the centres of mass are the same everywhere"
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
        angle, new = unmirror(geometry, turn.rotation, disk)
    told = dark_tells and turn.twin >= _LIKE
    if turn.twin < _TWIN:
        angle = min((angle, wrap(angle + 180)), key=lambda other: abs(wrap(other - own)))
    if not told:
        reasons.append("or 180 degree more: the dark field does not tell")
    coarse = geometry.coarseness
    folded = coarse is None or coarse > _COARSE
    trust: Trust = "good" if told and turn.left <= CLEAR and turn.deviation <= _SURE and not folded else "fair"
    if turn.left > CLEAR:
        reasons.append(f"{turn.left:.0%} of the curl is left")
    if folded:
        times = "perhaps more than" if coarse is None else f"{coarse:.1f} times"
        reasons.append(f"the scan steps are {times} what resolves the field")
    why = "; ".join(reasons)
    flips = replace(flips, value=new, trust="good" if turn.left <= CLEAR else "fair")
    return [
        replace(
            blank,
            value=angle,
            deviation=turn.deviation,
            trust=trust,
            why=why,
            opposite=None if told else wrap(angle + 180),
        ),
        flips,
    ]


def unmirror(geometry: Geometry, rotation: float, disk: Disk | None) -> tuple[float, tuple[int, int, int]]:
    """The rotation and the ``meas_flipT`` of a mirrored detector, ``rotation`` being that of the transposed patterns.

    Of the four that undo it, those that leave the disk nearest to the middle pixel, and of these that of least
    rotation. Of an even number of pixels a flip takes the middle pixel, ``Npix // 2``, to the one beside it, and for
    PtyRAD the beam is at the middle one: a reconstruction is far behind that has to find a shift by a pixel first.
    """
    options = []
    for quarter in range(4):
        # Patterns turned by a quarter after the transposition: a field (y, x) becomes (-x, y), its angle 90 more.
        flips = combine(geometry.flips, (0, 0, 1), quarter)
        off = 0.0 if disk is None else off_middle(disk, geometry, flips)
        options.append((off, wrap(rotation + 90 * quarter), flips))
    near = min(off for off, _, _ in options) + _OFF
    _, angle, flips = min((one for one in options if one[0] < near), key=lambda one: (abs(one[1]), one[2]))
    return angle, flips


def off_middle(disk: Disk, geometry: Geometry, flips: tuple[int, int, int]) -> float:
    """Pixels from the middle one, ``Npix // 2``, to the disk's centre, were ``meas_flipT`` these ``flips``."""
    last = geometry.pixels - 1
    stored = disk.centre[::-1] if geometry.flips[2] else disk.centre
    moved = [
        last - at if own != new else at for at, own, new in zip(stored, geometry.flips[:2], flips[:2], strict=True)
    ]
    return math.dist(moved[::-1] if flips[2] else moved, geometry.middle)


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
        y, x = (at - middle for at, middle in zip(disk.centre, geometry.middle, strict=True))
        facts += [
            Guess("disk radius", disk.radius, disk.radius_deviation, DISK, "good", "", None, "pixel"),
            Guess("disk centre y", y, disk.radius_deviation, DISK, "good", "from the middle pixel", None, "pixel"),
            Guess("disk centre x", x, disk.radius_deviation, DISK, "good", "from the middle pixel", None, "pixel"),
            Guess("ellipticity", disk.ellipticity, disk.ellipticity_deviation, DISK, "good", "", None),
        ]
    counts = float(sample.total.mean())
    trust: Trust = "fair" if sample.counted else "none"
    why = "if a count is an electron" if sample.counted else "no whole numbers: the detector's gain is not known"
    unit = "count" if sample.counted else "unit"
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


_OVERSAMPLING = "(Npix dx / step)^2, to be well above 1"
