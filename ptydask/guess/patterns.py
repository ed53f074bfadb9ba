"""The patterns of a params file, read in slabs of scan rows: their mean, their centres of mass, a bounded sample.

PtyRAD's ``meas_permute``, ``meas_reshape``, ``meas_flipT`` and ``meas_crop`` are done to them as PtyRAD does them
(``Initializer._process_meas``), so that all angles are those of the file's own axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.errors import ConfigError, DataError, one_line
from ptydask.space import tunables
from ptydask.store.foreign.links import MissingPart
from ptydask.store.foreign.measurement_array import NoSuchArray, opened_array

MOST_READ = 2**32
"""Bytes of the stored patterns that are read; of a larger scan the rows in its middle."""
MOST_KEPT = 2**29
"""Bytes of the sample, as float32."""
_SLAB = 2**26
"""Bytes as float32 that are in memory at a time; a scan row at least."""
_PATH = "init_params.meas_params.path"


@dataclass(frozen=True, slots=True)
class Geometry:
    """What the params file says of the microscope. Lengths in angstrom, of patterns as they are in the file."""

    scan: tuple[int, int]
    """Positions along the slow and the fast axis, in the file."""
    pixels: int
    """Of a pattern along either direction, in the file."""
    wavelength: float
    step: float
    """From one scan position to the next."""
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

    @property
    def pixel_angle(self) -> float | None:
        """Of a detector pixel, mrad."""
        return None if self.pixel_size is None else 1e3 * self.wavelength / (self.pixels * self.pixel_size)

    @property
    def coarseness(self) -> float | None:
        """The scan step over ``wavelength / (4 alpha)``, above which the finest that a probe shows is folded back."""
        return None if not self.convergence else self.step * 4e-3 * self.convergence / self.wavelength


@dataclass(frozen=True, slots=True)
class PatternSample:
    """What was read of the patterns; every axis as ``meas_flipT`` leaves it, before a crop of the detector."""

    mean: NDArray[np.float64]
    """(ky, kx): the mean pattern."""
    mass: NDArray[np.float64]
    """(2, rows, columns): the centre of mass of each pattern, (y, x) in pixels from the middle of the beam."""
    total: NDArray[np.float64]
    """(rows, columns): the sum of each pattern."""
    dark: NDArray[np.float64]
    """(rows, columns): the sum of each pattern outside of the bright-field disk."""
    patterns: NDArray[np.float32]
    """(rows, columns, ky, kx): neighbouring positions in the middle of what was read, at most ``MOST_KEPT`` bytes."""
    kept: tuple[slice, slice]
    """Which rows and columns of ``mass``, ``total`` and ``dark`` these are."""
    rows: tuple[int, int]
    """Of the scan's rows, those that were read: first, and the one behind the last."""
    counted: bool
    """Whether all values of the sample are whole numbers."""

    @property
    def is_whole(self) -> bool:
        """Whether every row was read that the scan has."""
        return self.rows[0] == 0


def read_geometry(init: Mapping[str, Any]) -> Geometry:
    """The geometry that ``init_params`` states. Raises ConfigError for what is missing or no number."""
    if init.get("probe_illum_type") == "xray":
        rule = "guesses are for electrons"
        raise ConfigError(rule, key="init_params.probe_illum_type", value="xray")
    numbers = {}
    for key in ("pos_N_scan_slow", "pos_N_scan_fast", "meas_Npix", "probe_kv", "pos_scan_step_size"):
        value = init.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ConfigError("must be a number above 0", key=f"init_params.{key}", value=value)
        numbers[key] = value
    calibration = (init.get("meas_calibration") or {}).get("mode", "fitRBF")
    angle = init.get("probe_conv_angle")
    return Geometry(
        scan=(int(numbers["pos_N_scan_slow"]), int(numbers["pos_N_scan_fast"])),
        pixels=int(numbers["meas_Npix"]),
        wavelength=tunables.wavelength(numbers["probe_kv"]),
        step=float(numbers["pos_scan_step_size"]),
        pixel_size=tunables.pixel_size(init),
        convergence=None if angle is None else float(angle),
        calibrated_by_disk=calibration in ("fitRBF", "RBF", "n_alpha"),
        affine=tuple(init.get("pos_scan_affine") or (1.0, 0.0, 0.0, 0.0)),
        flips=_as_flips(init, "meas_flipT"),
        scan_flips=_as_flips(init, "pos_scan_flipT"),
    )


def _as_flips(init: Mapping[str, Any], key: str) -> tuple[int, int, int]:
    flips = init.get(key) or (0, 0, 0)
    if len(flips) != 3 or any(flip not in (0, 1) for flip in flips):
        rule = "must be three of 0 and 1: flipped up-down, left-right, transposed"
        raise ConfigError(rule, key=f"init_params.{key}", value=flips)
    return (int(flips[0]), int(flips[1]), int(flips[2]))


def read_patterns(
    init: Mapping[str, Any], geometry: Geometry, *, most_read: int = MOST_READ, most_kept: int = MOST_KEPT
) -> PatternSample:
    """The patterns that ``init_params`` names, read once, never more than ``most_read`` bytes of them.

    Raises DataError for a file that cannot be read in part, or whose patterns are of another shape than the file says.
    """
    path, params = Path(init["meas_params"]["path"]), init["meas_params"]
    if params.get("selection") is not None:
        raise DataError("patterns with a selection cannot be guessed from", key="init_params.meas_params.selection")
    expected = (math.prod(geometry.scan), geometry.pixels, geometry.pixels)
    try:
        with opened_array(path, params, expected) as array:
            return _read(_Arranged(array, init, geometry), most_read, most_kept)
    except (NoSuchArray, MissingPart) as error:
        raise DataError(error.rule, key=_PATH, value=str(path), hint=error.hint) from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {one_line(str(error))}", key=_PATH, value=str(path)) from None


class _Arranged:
    """The stored array by scan rows, as PtyRAD arranges it."""

    def __init__(self, array: Any, init: Mapping[str, Any], geometry: Geometry) -> None:
        self.array, self.flips = array, geometry.flips
        self.order = tuple(init.get("meas_permute") or range(len(array.shape)))
        shape = tuple(array.shape[axis] for axis in self.order)
        slow, fast, pixels = *geometry.scan, geometry.pixels
        (self.start, stop), (self.left, right) = _scan_crop(init, geometry.scan)
        self.rows, self.columns, self.fast, self.pixels = stop - self.start, right - self.left, fast, pixels
        # What follows the scan's axes must be whole patterns, and the scan's first axis rows or single positions.
        split = next((axis for axis in range(len(shape)) if math.prod(shape[:axis]) == slow * fast), None)
        if array.dtype.kind not in "iuf" or split is None or math.prod(shape[split:]) != pixels**2:
            rule = (
                f"the patterns are {tuple(array.shape)} of {array.dtype}, but {slow} x {fast} of {pixels} x {pixels} "
                "numbers are expected"
            )
            raise DataError(rule, key=_PATH, hint="see pos_N_scan_slow, pos_N_scan_fast, meas_Npix and meas_permute")
        self.by_position = split == 1
        if split > 1 and shape[0] != slow:
            raise DataError("the first axis must be the scan's rows", key="init_params.meas_permute", value=self.order)

    @property
    def row_bytes(self) -> int:
        """That a scan row takes in the file."""
        return int(self.fast * self.pixels**2 * self.array.dtype.itemsize)

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """(last - first, columns, ky, kx) of the rows of the scan, as it is cropped."""
        rows = slice(self.start + first, self.start + last)
        along = slice(rows.start * self.fast, rows.stop * self.fast) if self.by_position else rows
        where: list[Any] = [slice(None)] * len(self.array.shape)
        where[self.order[0]] = along
        slab = np.asarray(self.array[tuple(where)], dtype=np.float32).transpose(self.order)
        slab = slab.reshape(last - first, self.fast, self.pixels, self.pixels)
        slab = slab[:, self.left : self.left + self.columns]
        return flip(slab, self.flips)


def flip(patterns: NDArray[Any], flips: tuple[int, int, int]) -> NDArray[Any]:
    """The last two axes as PtyRAD's ``meas_flipT`` turns them: up-down, left-right, then transposed."""
    if flips[0]:
        patterns = np.flip(patterns, -2)
    if flips[1]:
        patterns = np.flip(patterns, -1)
    return np.swapaxes(patterns, -1, -2) if flips[2] else patterns


def _scan_crop(init: Mapping[str, Any], scan: tuple[int, int]) -> list[tuple[int, int]]:
    """First and last-but-one of the scan's rows and columns that ``meas_crop`` leaves."""
    crop = init.get("meas_crop") or [None] * 4
    bounds = [slice(*(part or (None, None))).indices(size) for part, size in zip(crop[:2], scan, strict=True)]
    if any(stop - start < 1 for start, stop, _ in bounds):
        raise ConfigError("leaves nothing", key="init_params.meas_crop", value=crop)
    return [(start, stop) for start, stop, _ in bounds]


def _read(arranged: _Arranged, most_read: int, most_kept: int) -> PatternSample:
    count = max(1, min(arranged.rows, most_read // arranged.row_bytes))
    begin = (arranged.rows - count) // 2
    pattern_bytes = 4 * arranged.pixels**2
    side = max(1, math.isqrt(most_kept // pattern_bytes))
    kept_rows, kept_columns = min(side, count), min(side, arranged.columns)
    low, left = begin + (count - kept_rows) // 2, (arranged.columns - kept_columns) // 2
    kept = np.empty((kept_rows, kept_columns, arranged.pixels, arranged.pixels), np.float32)
    mean = np.zeros((arranged.pixels, arranged.pixels))
    parts: list[NDArray[np.float64]] = []
    beam: _Beam | None = None
    for first, last in _slabs(begin, begin + count, arranged.row_bytes * 4 // arranged.array.dtype.itemsize):
        slab = arranged.read(first, last)
        slab = np.maximum(slab, 0)  # as PtyRAD clips noise below 0
        mean += slab.sum(axis=(0, 1), dtype=np.float64)
        beam = beam or _Beam(slab.mean(axis=(0, 1), dtype=np.float64))
        parts.append(beam.moments(slab))
        inside = slice(max(first, low) - first, max(min(last, low + kept_rows) - first, 0))
        if inside.start < inside.stop:
            at = first + inside.start - low
            kept[at : at + inside.stop - inside.start] = slab[inside, left : left + kept_columns]
    moments = np.concatenate(parts, axis=1)
    total = moments[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        mass = np.where(total > 0, moments[1:3] / total, 0.0)
    return PatternSample(
        mean=mean / (count * arranged.columns),
        mass=mass,
        total=total,
        dark=moments[3],
        patterns=kept,
        kept=(slice(low - begin, low - begin + kept_rows), slice(left, left + kept_columns)),
        rows=(begin, begin + count),
        counted=bool(np.all(kept[:: max(1, kept_rows // 8)] % 1 == 0)),
    )


def _slabs(begin: int, end: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    rows = max(1, _SLAB // row_bytes)
    for first in range(begin, end, rows):
        yield first, min(first + rows, end)


class _Beam:
    """Weights of a pattern's pixels: one, y, x, and outside of the disk; from the mean of the first rows."""

    def __init__(self, mean: NDArray[np.float64]) -> None:
        pixels = len(mean)
        bright = mean > 0.5 * np.percentile(mean[mean > 0.25 * mean.max()], 50) if mean.max() > 0 else mean > 0
        y, x = np.mgrid[:pixels, :pixels].astype(np.float64)
        centre = (y[bright].mean(), x[bright].mean()) if bright.any() else ((pixels - 1) / 2,) * 2
        radius = math.sqrt(bright.sum() / math.pi)
        y, x = y - centre[0], x - centre[1]
        outside = np.hypot(y, x) > 1.1 * radius + 1
        self.weights = np.stack([np.ones_like(y), y, x, outside]).reshape(4, -1).astype(np.float32)

    def moments(self, slab: NDArray[np.float32]) -> NDArray[np.float64]:
        """(4, rows, columns): the sum of each pattern, its first moments along y and x, its sum outside of the disk."""
        rows, columns = slab.shape[:2]
        sums = slab.reshape(rows * columns, -1) @ self.weights.T
        return np.moveaxis(sums.reshape(rows, columns, 4), -1, 0).astype(np.float64)
