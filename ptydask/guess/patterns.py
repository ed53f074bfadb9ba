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
from scipy.ndimage import median_filter  # type: ignore[import-untyped]

from ptydask.errors import ConfigError, DataError, UnusablePatterns
from ptydask.guess.geometry import Geometry
from ptydask.store.foreign.damage import explain_unreadable
from ptydask.store.foreign.links import MissingPart
from ptydask.store.foreign.measurement_array import NoSuchArray, opened_array

MOST_READ = 2**32
"""Bytes of the stored patterns that are read; of a larger scan the rows in its middle."""
MOST_KEPT = 2**29
"""Bytes of the sample, as float32."""
_SLAB = 2**26
"""Bytes as float32 that are in memory at a time; a scan row at least."""
_PARAMS = "init_params.meas_params"
_PATH = f"{_PARAMS}.path"


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


def read_patterns(
    init: Mapping[str, Any], geometry: Geometry, *, most_read: int = MOST_READ, most_kept: int = MOST_KEPT
) -> PatternSample:
    """The patterns that ``init_params`` names, read once, never more than ``most_read`` bytes of them.

    Raises DataError for a file that cannot be read in part, or whose patterns are of another shape than the file says;
    UnusablePatterns where they cannot be read, are not finite, or empty; ConfigError for a section that does not say
    where they are, or how they lie.
    """
    params = init.get("meas_params")
    if not isinstance(params, Mapping) or not isinstance(params.get("path"), str):
        raise ConfigError("must be a mapping such as {path: FILE, key: DATASET}", key=_PARAMS, value=params)
    path = Path(params["path"])
    _check_params(params)
    expected = (math.prod(geometry.scan), geometry.pixels, geometry.pixels)
    try:
        with opened_array(path, params, expected) as array:
            return _read(_Arranged(array, init, geometry), most_read, most_kept)
    except (NoSuchArray, MissingPart) as error:
        raise DataError(error.rule, key=_PATH, value=str(path), hint=error.hint) from None
    except FileNotFoundError:
        raise DataError("no such file", key=_PATH, value=str(path)) from None
    except (OSError, ValueError, EOFError) as error:
        rule, hint = explain_unreadable(path, error)
        raise UnusablePatterns(rule, key=_PATH, value=str(path), hint=hint) from None


def _check_params(params: Mapping[str, Any]) -> None:
    if params.get("selection") is not None:
        raise DataError("patterns with a selection cannot be guessed from", key=f"{_PARAMS}.selection")
    for name, rule, holds in (
        ("key", "must be the name of a dataset", lambda value: isinstance(value, str)),
        ("zarr_kwargs", "must be a mapping", lambda value: isinstance(value, Mapping)),
        ("shape", "must be three whole numbers: patterns, rows, columns", _is_shape),
        ("gap", "must be a whole number of bytes", lambda value: isinstance(value, int) and value >= 0),
        ("offset", "must be a whole number of bytes", lambda value: isinstance(value, int) and value >= 0),
    ):
        value = params.get(name)
        if value is not None and not holds(value):
            raise ConfigError(rule, key=f"{_PARAMS}.{name}", value=value)


def _is_shape(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(n, int) and n > 0 for n in value)


class _Arranged:
    """The stored array by scan rows, as PtyRAD arranges it."""

    def __init__(self, array: Any, init: Mapping[str, Any], geometry: Geometry) -> None:
        self.array, self.flips, self.path = array, geometry.flips, init["meas_params"]["path"]
        self.order = _read_order(init, len(array.shape))
        shape = tuple(array.shape[axis] for axis in self.order)
        slow, fast, pixels = *geometry.scan, geometry.pixels
        (self.start, stop), (self.left, right) = geometry.crop[:2]
        self.rows, self.columns, self.fast, self.pixels = stop - self.start, right - self.left, fast, pixels
        # What follows the scan's axes must be whole patterns, and the scan's first axis rows or single positions.
        split = next((axis for axis in range(len(shape)) if math.prod(shape[:axis]) == slow * fast), None)
        if array.dtype.kind not in "iuf" or split is None or math.prod(shape[split:]) != pixels**2:
            rule = (
                f"the patterns are {tuple(array.shape)} of {array.dtype}, but {slow} x {fast} of {pixels} x {pixels} "
                "numbers are expected"
            )
            raise DataError(
                rule,
                key=_PATH,
                value=self.path,
                hint="see pos_N_scan_slow, pos_N_scan_fast, meas_Npix and meas_permute",
            )
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
        with np.errstate(over="ignore"):  # what is infinite is refused
            slab = np.asarray(self.array[tuple(where)]).astype(np.float32, copy=False).transpose(self.order)
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


def _read_order(init: Mapping[str, Any], axes: int) -> tuple[int, ...]:
    order = init.get("meas_permute") or tuple(range(axes))
    whole = isinstance(order, list | tuple) and all(isinstance(axis, int) for axis in order)
    if not whole or sorted(order) != list(range(axes)):
        rule = f"must be the patterns' {axes} axes in another order"
        raise ConfigError(rule, key="init_params.meas_permute", value=order)
    return tuple(order)


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
        if not np.isfinite(mean).all():
            rule = f"holds NaN or infinity, or numbers beyond float32, in scan rows {first} to {last - 1}"
            hint = "repair the file, for example with numpy.nan_to_num"
            raise UnusablePatterns(rule, key=_PATH, value=arranged.path, hint=hint)
        beam = beam or _Beam(slab.mean(axis=(0, 1), dtype=np.float64))
        parts.append(beam.moments(slab))
        inside = slice(max(first, low) - first, max(min(last, low + kept_rows) - first, 0))
        if inside.start < inside.stop:
            at = first + inside.start - low
            kept[at : at + inside.stop - inside.start] = slab[inside, left : left + kept_columns]
    moments = np.concatenate(parts, axis=1)
    total = moments[0]
    if not total.any():
        raise UnusablePatterns("holds no value above 0", key=_PATH, value=arranged.path)
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


def find_bright(mean: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where a mean pattern (ky, kx) is brighter than half of what its disk is; single hot pixels do not count."""
    smooth = median_filter(mean, 3)
    return np.asarray(smooth > 0.5 * np.median(smooth[smooth >= 0.25 * smooth.max()]))


class _Beam:
    """Weights of a pattern's pixels: one, y, x, and outside of the disk; from the mean of the first rows."""

    def __init__(self, mean: NDArray[np.float64]) -> None:
        pixels = len(mean)
        bright = find_bright(mean)
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
