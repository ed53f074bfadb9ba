"""What a fit of parallax says of a params file's parameters, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ptydask.guess.disk import Disk
from ptydask.guess.geometry import Geometry
from ptydask.guess.mass import wrap
from ptydask.guess.parallax import ParallaxFit, ParallaxScan, measure_parallax
from ptydask.guess.patterns import PatternSample
from ptydask.guess.table import Guess, Trust, Value, unmirror

PARALLAX = "parallax"
TOLD = 3.0
"""Standard errors from which on the dark field tells a turn from the one opposite."""
LEAST_CONTRAST = 0.6
"""Sharpness elsewhere, as a share of the sharpest, above which nothing is known: of the planted scans that are out of
focus the largest share is 0.46, of that in focus it is 0.76."""
SURE, ROUGH = 2.5, 5.0
"""Deviation of a turn in degree up to which it is good, and fair."""
ELSEWHERE = 0.5
"""Sharpness elsewhere from which on a turn is no more than fair."""
LOOSE = 0.1
"""Deviation of C10, as a share of it, from which on it is no more than fair."""
STRONG = 0.25
"""Contrast from which on a specimen is no weak phase object, whose contrast is far below 1: what goes with its square
is no longer small, the phase may be reversed, and C10 is of a plane somewhere within."""


def guess_by_parallax(
    sample: PatternSample, disk: Disk | None, geometry: Geometry, init: Mapping[str, Any]
) -> tuple[list[Guess], ParallaxFit | None]:
    """Rotation, flips, C10, C12a and C12b of the patterns, and the fit they are from, where there is one.

    ``init`` are the file's ``init_params``. Raises MissingDependency without fast-acbf.
    """
    aberrations, thickness = init.get("probe_aberrations") or {}, read_thickness(init)
    if any(geometry.scan_flips):
        why = "the file flips the scan (pos_scan_flipT): flip the patterns instead"
        return _refuse(why, geometry, aberrations), None
    angle = geometry.pixel_angle
    if angle is None and disk is not None and geometry.convergence is not None:
        angle = geometry.convergence / disk.radius
    if disk is None or angle is None:
        return _refuse("the bright-field disk is not known", geometry, aberrations), None
    scan = ParallaxScan(
        patterns=sample.patterns,
        dark=sample.dark[sample.kept],
        centre=disk.centre,
        pixel_angle=angle,
        convergence=disk.radius * angle,
        wavelength=geometry.wavelength,
        step=geometry.step,
    )
    fit = measure_parallax(scan)
    guesses = judge_parallax(fit, geometry, aberrations, scan.convergence, thickness, disk)
    return guesses, None if fit is None else choose_twin(fit, geometry, aberrations, thickness)


def read_thickness(init: Mapping[str, Any]) -> float:
    """Of the specimen, angstrom, where the file gives it several slices; 0 where it has one."""
    slices, each = init.get("obj_Nlayer"), init.get("obj_slice_thickness")
    if not isinstance(slices, int) or not isinstance(each, int | float) or slices < 2:
        return 0.0
    return float(slices * each)


def is_told(fit: ParallaxFit) -> bool:
    """Whether the dark field tells a turn from the opposite one: only where it is bright as the phase is large."""
    return fit.twin >= TOLD and fit.contrast < STRONG


def choose_twin(
    fit: ParallaxFit, geometry: Geometry, aberrations: Mapping[str, Any], thickness: float = 0.0
) -> ParallaxFit:
    """The fit, or that of the opposite turn where the dark field does not tell them apart and the file does.

    A fit's C10 is that in the middle of the thickness, PtyRAD's that at the entrance.
    """
    own = aberrations.get("C10")
    if is_told(fit):
        return fit
    if isinstance(own, int | float) and own:
        other = fit.C10 * (own + thickness / 2) < 0
    else:
        other = not fit.mirrored and abs(wrap(fit.rotation - geometry.affine[2])) > 90
    return fit.opposite() if other else fit


def judge_parallax(
    fit: ParallaxFit | None,
    geometry: Geometry,
    aberrations: Mapping[str, Any],
    convergence: float,
    thickness: float = 0.0,
    disk: Disk | None = None,
) -> list[Guess]:
    """What a fit says of the params file's parameters, and how far to trust it.

    ``disk`` tells which flips leave the beam in the middle. ``convergence`` in mrad. ``thickness`` in angstrom: of the
    slices that the file gives the specimen, for C10 is that at its entrance, and the images are moved by that of its
    middle, or of another plane where it scatters strongly.
    """
    refusal = _why_refused(fit, geometry, convergence)
    if refusal or fit is None:
        return _refuse(refusal, geometry, aberrations)
    fit, told, strong = choose_twin(fit, geometry, aberrations, thickness), is_told(fit), fit.contrast >= STRONG
    both, turn, defocus = [], [], []
    if strong:
        both.append(f"images of single pixels vary by {fit.contrast:.0%}: it scatters strongly, or is thick")
    if not told:
        both.append("or 180 degree more, and C10 of the other sign: the dark field does not tell")
    if fit.rotation_deviation > SURE:
        turn.append(f"parts of the disk disagree by {fit.rotation_deviation:.1f} degree")
    if fit.elsewhere >= ELSEWHERE:
        turn.append(f"at another turn the sum is {fit.elsewhere:.0%} as sharp")
    # Thinner than the depth of field a specimen has one defocus; what is told of a strong one is no better than that.
    depth = geometry.wavelength / (convergence * 1e-3) ** 2 if strong else 0.0
    deviation = math.hypot(fit.C10_deviation, thickness / 4 if thickness else depth)
    if fit.C10_deviation >= LOOSE * abs(fit.C10):
        defocus.append(f"parts of the disk disagree by {fit.C10_deviation:.0f} angstrom")
    if thickness:
        defocus.append(f"at the entrance, if it is {thickness:.0f} angstrom thick")
    elif strong:
        defocus.append("of a plane within the specimen")
    else:
        defocus.append("in the specimen's middle, if it is thick")
    rotation, flips = fit.rotation, geometry.flips
    if fit.mirrored:
        rotation, flips = unmirror(geometry, fit.rotation, disk)
    # A quarter turn of the axes reverses the sign of a twofold aberration.
    sign = -1.0 if round((rotation - fit.rotation) / 90) % 2 else 1.0
    blank = {guess.parameter: guess for guess in _refuse("", geometry, aberrations)}
    mirror: Trust = "good" if fit.mirrored_otherwise < 0.6 else "fair"
    close: Trust = "good" if told and deviation < LOOSE * abs(fit.C10) else "fair"
    values: list[tuple[str, Value, float | None, Trust, list[str]]] = [
        ("rotation", rotation, fit.rotation_deviation, "fair" if both or turn else "good", both + turn),
        ("meas_flipT", flips, None, mirror, []),
        ("C10", fit.C10 - thickness / 2, deviation, close, both + defocus),
        ("C12a", sign * fit.C12a, fit.C12_deviation, "fair", both),
        ("C12b", sign * fit.C12b, fit.C12_deviation, "fair", both),
    ]
    opposite = (
        {}
        if told
        else {
            "rotation": wrap(rotation + 180),
            "C10": -fit.C10 - thickness / 2,
            "C12a": -sign * fit.C12a,
            "C12b": -sign * fit.C12b,
        }
    )
    return [
        replace(
            blank[name], value=value, deviation=spread, trust=trust, why="; ".join(reasons), opposite=opposite.get(name)
        )
        for name, value, spread, trust, reasons in values
    ]


def _why_refused(fit: ParallaxFit | None, geometry: Geometry, convergence: float) -> str:
    """Empty where the fit says something."""
    if fit is None:
        return "needs 12 x 12 positions and a bright-field disk of 3 pixels' radius"
    shift = abs(fit.C10) * convergence * 1e-3
    if shift < geometry.step:
        return (
            f"in focus, or nearly: images of the disk's edge are moved by {shift:.1f} angstrom, less than a scan step"
        )
    if fit.elsewhere > LEAST_CONTRAST:
        rest = "in focus, strongly astigmatic, or of too few electrons"
        return f"at another turn the sum is {fit.elsewhere:.0%} as sharp: {rest}"
    if fit.mirrored_otherwise > 0.85:
        return "mirrored or not, the sum is as sharp"
    if fit.rotation_deviation > ROUGH:
        return f"parts of the disk disagree by {fit.rotation_deviation:.1f} degree"
    return ""


def _refuse(why: str, geometry: Geometry, aberrations: Mapping[str, Any]) -> list[Guess]:
    own = {name: value for name, value in aberrations.items() if isinstance(value, int | float)}
    return [
        Guess("rotation", None, None, PARALLAX, "none", why, geometry.affine[2], "degree"),
        Guess("meas_flipT", None, None, PARALLAX, "none", why, geometry.flips),
        *(
            Guess(name, None, None, PARALLAX, "none", why, own.get(name), "angstrom")
            for name in ("C10", "C12a", "C12b")
        ),
    ]
