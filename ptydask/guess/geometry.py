"""What a params file says of the microscope, as far as guesses need it, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ptydask.errors import ConfigError
from ptydask.space import ranges, tunables

_BY_DISK = ("fitRBF", "RBF", "n_alpha")
"""Modes of ``meas_calibration`` that take the pixel size from the disk's radius; the others state it."""
_STATED = ("dx", "dk", "kMax", "da", "angleMax")
_READ = (
    *("probe_kv", "probe_conv_angle", "probe_aberrations", "probe_illum_type", "probe_source"),
    *("meas_Npix", "meas_params", "meas_calibration", "meas_permute", "meas_reshape", "meas_flipT", "meas_crop"),
    *("pos_N_scan_slow", "pos_N_scan_fast", "pos_scan_step_size", "pos_scan_affine", "pos_scan_flipT"),
    *("obj_Nlayer", "obj_slice_thickness"),
)
"""Keys of ``init_params`` that guesses read."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the params file says of the microscope. Lengths in angstrom, of patterns as they are in the file."""

    scan: tuple[int, int]
    """Positions along the slow and the fast axis, in the file."""
    pixels: int
    """Of a pattern along either direction, in the file."""
    wavelength: float
    step: float
    """From one scan position to the next, with the scale of the scan affine."""
    pixel_size: float | None
    """``dx``; None where the calibration is fitted to the data."""
    convergence: float | None
    """Semi-angle, mrad."""
    calibrated_by_disk: bool
    """Whether the file takes its pixel size from the disk's radius, so that the convergence angle is what it knows."""
    affine: tuple[float, float, float, float]
    """Scale, asymmetry, rotation and shear (degree) of the scan."""
    flips: tuple[int, int, int]
    """``meas_flipT``: up-down, left-right, then transposed."""
    scan_flips: tuple[int, int, int]
    """``pos_scan_flipT``."""
    crop: tuple[tuple[int, int], ...] = ()
    """``meas_crop``: of scan rows and columns, detector rows and columns the first, and that behind the last."""

    @property
    def middle(self) -> tuple[int, int]:
        """The pixel (y, x) of patterns as they are in the file where the beam is to be: PtyRAD's ``Npix // 2``."""
        if not self.crop:
            return self.pixels // 2, self.pixels // 2
        y, x = (first + (last - first) // 2 for first, last in self.crop[2:])
        return y, x

    @property
    def pixel_angle(self) -> float | None:
        """Of a detector pixel, mrad."""
        return None if self.pixel_size is None else 1e3 * self.wavelength / (self.pixels * self.pixel_size)

    @property
    def coarseness(self) -> float | None:
        """The scan step over ``wavelength / (4 alpha)``, above which the finest that a probe shows is folded back."""
        return None if not self.convergence else self.step * 4e-3 * self.convergence / self.wavelength


def read_geometry(init: Mapping[str, Any]) -> Geometry:
    """The geometry that ``init_params`` states. Raises ConfigError for what is missing, misspelt or no number."""
    _check_spelling(init)
    if init.get("probe_illum_type") == "xray":
        rule = "guesses are for electrons"
        raise ConfigError(rule, key="init_params.probe_illum_type", value="xray")
    angle = init.get("probe_conv_angle")
    mode, affine = _read_calibration(init), _read_affine(init)
    scan = _read_count(init, "pos_N_scan_slow"), _read_count(init, "pos_N_scan_fast")
    pixels = _read_count(init, "meas_Npix")
    return Geometry(
        scan=scan,
        pixels=pixels,
        wavelength=tunables.wavelength(_read_number(init, "probe_kv")),
        step=_read_number(init, "pos_scan_step_size") * affine[0],
        pixel_size=tunables.pixel_size(init),
        convergence=None if angle is None else _read_number(init, "probe_conv_angle"),
        calibrated_by_disk=mode in _BY_DISK,
        affine=affine,
        flips=_read_flips(init, "meas_flipT"),
        scan_flips=_read_flips(init, "pos_scan_flipT"),
        crop=_read_crop(init, (*scan, pixels, pixels)),
    )


def _check_spelling(init: Mapping[str, Any]) -> None:
    """Raises ConfigError for a key that is nearly one that is read and is not there: its value would count for nothing.

    PtyRAD, which knows all keys, need not be installed for guesses.
    """
    absent = [key for key in _READ if key not in init]
    for key in init:
        if key not in _READ and (near := get_close_matches(str(key), absent, n=1, cutoff=0.9)):
            hint = f"did you mean {near[0]!r}?"
            raise ConfigError("unknown key", key=f"init_params.{key}", value=init[key], hint=hint)


def _read_number(init: Mapping[str, Any], key: str) -> float:
    value = init.get(key)
    if not ranges.is_number(value) or not 0 < value < math.inf:
        raise ConfigError("must be a number above 0", key=f"init_params.{key}", value=value)
    return float(value)


def _read_count(init: Mapping[str, Any], key: str) -> int:
    number = _read_number(init, key)
    if number % 1:
        raise ConfigError("must be a whole number", key=f"init_params.{key}", value=init.get(key))
    return int(number)


def _read_calibration(init: Mapping[str, Any]) -> str:
    """The mode of ``meas_calibration``."""
    key = "meas_calibration"
    calibration = {"mode": "fitRBF"} if init.get(key) is None else init[key]
    if not isinstance(calibration, Mapping) or calibration.get("mode") not in (*_BY_DISK, *_STATED):
        rule = f"must have a mode, one of {', '.join((*_BY_DISK, *_STATED))}"
        raise ConfigError(rule, key=f"init_params.{key}", value=calibration)
    if calibration["mode"] != "fitRBF":
        _read_number({f"{key}.value": calibration.get("value")}, f"{key}.value")
    return str(calibration["mode"])


def _read_affine(init: Mapping[str, Any]) -> tuple[float, float, float, float]:
    affine = init.get("pos_scan_affine") or (1.0, 0.0, 0.0, 0.0)
    if not isinstance(affine, list | tuple) or len(affine) != 4 or not all(map(ranges.is_number, affine)):
        raise ConfigError(
            "must be four numbers: scale, asymmetry, rotation, shear", key="init_params.pos_scan_affine", value=affine
        )
    scale, asymmetry, rotation, shear = map(float, affine)
    if not 0 < scale < math.inf:
        raise ConfigError("its scale must be a number above 0", key="init_params.pos_scan_affine", value=affine)
    return scale, asymmetry, rotation, shear


def _read_crop(init: Mapping[str, Any], sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    crop = init.get("meas_crop") or [None] * 4
    try:
        ends = [(None, None) if part is None else tuple(part) for part in crop]
        bounds = [slice(first, last).indices(size)[:2] for (first, last), size in zip(ends, sizes, strict=True)]
    except (TypeError, ValueError):
        rule = "must be four of null and [first, last]: scan rows and columns, detector rows and columns"
        raise ConfigError(rule, key="init_params.meas_crop", value=crop) from None
    if any(last - first < 1 for first, last in bounds):
        raise ConfigError("leaves nothing", key="init_params.meas_crop", value=crop)
    return tuple(bounds)


def _read_flips(init: Mapping[str, Any], key: str) -> tuple[int, int, int]:
    flips = init.get(key) or (0, 0, 0)
    if not isinstance(flips, list | tuple) or len(flips) != 3 or any(flip not in (0, 1) for flip in flips):
        rule = "must be three of 0 and 1: flipped up-down, left-right, transposed"
        raise ConfigError(rule, key=f"init_params.{key}", value=flips)
    return (int(flips[0]), int(flips[1]), int(flips[2]))
