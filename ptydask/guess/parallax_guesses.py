"""What a fit of parallax says of a params file's parameters, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ptydask.guess.disk import Disk
from ptydask.guess.mass import wrap
from ptydask.guess.parallax import ParallaxFit, ParallaxScan, measure_parallax
from ptydask.guess.patterns import Geometry, PatternSample
from ptydask.guess.table import Guess, Trust, Value, unmirror

PARALLAX = "parallax"
TOLD = 3.0
"""Standard errors from which on the dark field tells a turn from the one opposite."""
LEAST_CONTRAST = 0.6
"""Sharpness elsewhere, as a share of the sharpest, above which nothing is known: of the planted scans that are out of
focus the largest share is 0.46, of that in focus it is 0.76."""
SURE, ROUGH = 2.5, 5.0
"""Deviation of a turn in degree up to which it is good, and fair."""


def guess_by_parallax(
    sample: PatternSample, disk: Disk | None, geometry: Geometry, aberrations: Mapping[str, Any]
) -> list[Guess]:
    """Rotation, flips, C10, C12a and C12b of the patterns; ``aberrations`` are the file's ``probe_aberrations``.

    Raises MissingDependency without fast-acbf.
    """
    if any(geometry.scan_flips):
        return _refuse("the file flips the scan (pos_scan_flipT): flip the patterns instead", geometry, aberrations)
    angle = geometry.pixel_angle
    if angle is None and disk is not None and geometry.convergence is not None:
        angle = geometry.convergence / disk.radius
    if disk is None or angle is None:
        return _refuse("the bright-field disk is not known", geometry, aberrations)
    rows, columns = sample.patterns.shape[:2]
    top, left = (sample.dark.shape[0] - rows) // 2, (sample.dark.shape[1] - columns) // 2
    scan = ParallaxScan(
        patterns=sample.patterns,
        dark=sample.dark[top : top + rows, left : left + columns],
        centre=disk.centre,
        pixel_angle=angle,
        convergence=disk.radius * angle,
        wavelength=geometry.wavelength,
        step=geometry.step,
    )
    return judge_parallax(measure_parallax(scan), geometry, aberrations, disk.radius * angle)


def judge_parallax(
    fit: ParallaxFit | None, geometry: Geometry, aberrations: Mapping[str, Any], convergence: float
) -> list[Guess]:
    """What a fit says of the params file's parameters, and how far to trust it. ``convergence`` in mrad."""
    refusal = _why_refused(fit, geometry, convergence)
    if refusal or fit is None:
        return _refuse(refusal, geometry, aberrations)
    own, told = aberrations.get("C10"), fit.twin >= TOLD
    why = ""
    if not told:
        why = "or 180 degree more, and C10 of the other sign: the dark field does not tell"
        if isinstance(own, int | float) and own:
            other = fit.C10 * own < 0
        else:
            other = not fit.mirrored and abs(wrap(fit.rotation - geometry.affine[2])) > 90
        fit = fit.opposite() if other else fit
    rotation, flips = fit.rotation, geometry.flips
    if fit.mirrored:
        rotation, flips = unmirror(geometry.flips, fit.rotation)
    # A quarter turn of the axes reverses the sign of a twofold aberration.
    sign = -1.0 if round((rotation - fit.rotation) / 90) % 2 else 1.0
    sure = told and fit.rotation_deviation <= SURE and fit.elsewhere < 0.5
    share = fit.C10_deviation / abs(fit.C10)
    blank = {guess.parameter: guess for guess in _refuse("", geometry, aberrations)}
    thick = "of the middle of a thick specimen" if told else why
    values: list[tuple[str, Value, float | None, Trust, str]] = [
        ("rotation", rotation, fit.rotation_deviation, "good" if sure else "fair", why),
        ("meas_flipT", flips, None, "good" if fit.mirrored_otherwise < 0.6 else "fair", ""),
        ("C10", fit.C10, fit.C10_deviation, "good" if told and share < 0.1 else "fair", thick),
        ("C12a", sign * fit.C12a, fit.C12_deviation, "fair", why),
        ("C12b", sign * fit.C12b, fit.C12_deviation, "fair", why),
    ]
    return [
        replace(
            blank[name],
            value=value,
            deviation=deviation,
            trust=trust,
            why=reason,
            twin=not told and name != "meas_flipT",
        )
        for name, value, deviation, trust, reason in values
    ]


def _why_refused(fit: ParallaxFit | None, geometry: Geometry, convergence: float) -> str:
    """Empty where the fit says something."""
    if fit is None:
        return "needs 12 x 12 positions and a bright-field disk of 3 pixels' radius"
    shift = abs(fit.C10) * convergence * 1e-3
    if shift < geometry.step or fit.elsewhere > LEAST_CONTRAST:
        return f"in focus, or nearly: images of the disk's edge are moved by {shift:.1f} angstrom, or by nothing sure"
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
