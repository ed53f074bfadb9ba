"""A reconstruction carried into a trial of another geometry: positions, object and probe, as that trial has them.

Lengths stay what they were: the specimen is as large as it was found to be, whatever its pixels are by now. All that
moves is what the new trial says of the scan. A scan position is, in pixels of the object, p = n A + c with the nominal
position n (centred, a row (y, x)), PtyRAD's affine matrix A and the scan's centre c. With another affine B and pixels
of dx' instead of dx it is to be n B s + c' with s = dx / dx', and that is (p - c) M + c' with M = A^-1 B s. The object
goes the same way, so that a probe meets what it met before, and so does what the positions were refined by.

Where the centres are is of no matter, as long as object and positions agree on them: an offset moves both alike. They
are taken at whole pixels, so that where the geometry is the same (M is the identity) nothing is interpolated, and
everything comes out as it went in. Pure NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.lineage import TrialStart
from ptydask.model import Scalar
from ptydask.space import tunables
from ptydask.space.scan_affine import affine_matrix

Array = NDArray[Any]
_SAME = 1e-9
"""Relative difference below which a geometry is the same: rounding errors of the numbers that it is computed from."""
_LEAST_AMPLITUDE = 1e-6
_WIDER = 1.01
"""From this ratio on a window counts as wider than another."""


@dataclass(frozen=True, slots=True)
class FreshTrial:
    """What a trial would begin with if it started anew; positions, lengths and arrays as PtyRAD has them."""

    crop: Array
    """(N, 2) integers: the top-left pixel of the probe window on the object."""
    nominal: Array
    """(N, 2): the same with fractions of a pixel, without PtyRAD's random displacement."""
    object_shape: tuple[int, int, int, int]
    """Modes, slices, rows, columns."""
    probe: Array
    """(modes, y, x) complex."""
    pixel_size: float
    slice_thickness: float
    tilts: Array
    affine: tuple[float, float, float, float]
    params: Mapping[str, Scalar]
    """The value of everything that can be tuned."""
    tuned: Collection[str]
    """Names of the parameters that the stage tunes."""


@dataclass(frozen=True, slots=True)
class CarriedStart:
    """What the trial begins with instead."""

    crop: Array
    shifts: Array
    """(N, 2) float32: what the positions have beyond ``crop``, in pixels."""
    phase: Array
    amplitude: Array
    """(modes, slices, y, x) float32, as the phase is."""
    probe: Array
    slice_thickness: float
    tilts: Array


@dataclass(frozen=True, slots=True)
class ScanMap:
    """Where a point of the old object lies on the new one: (p - ``old_centre``) ``matrix`` + ``new_centre``, pixels."""

    matrix: Array
    """(2, 2), for rows (y, x)."""
    old_centre: NDArray[np.int64]
    new_centre: NDArray[np.int64]

    @property
    def is_shift(self) -> bool:
        """Whether nothing but whole pixels lies between the two."""
        return bool(np.array_equal(self.matrix, np.eye(2)))

    def apply(self, points: Array) -> Array:
        """The points (N, 2) on the new object."""
        return (points - self.old_centre) @ self.matrix + self.new_centre


def carry(start: TrialStart, fresh: FreshTrial) -> CarriedStart:
    """The reconstruction ``start`` in the geometry of the trial ``fresh``.

    Raises ValueError where it is of another scan, of another number of object modes, or in another unit of length.
    """
    arrays = start.arrays
    if len(arrays["positions"]) != len(fresh.crop):
        raise ValueError(
            f"the start has {len(arrays['positions'])} scan positions, and the trial has {len(fresh.crop)}"
        )
    if len(arrays["object_phase"]) != fresh.object_shape[0]:
        had = len(arrays["object_phase"])
        raise ValueError(f"the object of the start has {had} modes, and that of the trial has {fresh.object_shape[0]}")
    scan_map = _scan_map(start, fresh)
    crop, shifts = _carry_positions(start, fresh, scan_map)
    # The canvas is PtyRAD's own, unless positions that were refined have left it.
    window, canvas = np.array(fresh.probe.shape[-2:]), np.array(fresh.object_shape[-2:])
    before = np.maximum(0, -crop.min(0))
    after = np.maximum(0, crop.max(0) + window - canvas)
    scan_map = ScanMap(scan_map.matrix, scan_map.old_centre, scan_map.new_centre + before)
    shape = (int(rows) for rows in canvas + before + after)
    phase, amplitude = _carry_object(arrays, fresh.object_shape[1], scan_map, tuple(shape))
    same_thickness = _stays(start, fresh, ("dz",)) and "slice_thickness" in arrays
    thickness = float(arrays["slice_thickness"]) if same_thickness else fresh.slice_thickness
    tilts = arrays.get("object_tilts", fresh.tilts)
    same_tilts = _stays(start, fresh, tunables.TILTS) and tilts.shape == fresh.tilts.shape
    return CarriedStart(
        crop=(crop + before).astype(fresh.crop.dtype),
        shifts=shifts,
        phase=phase,
        amplitude=amplitude,
        probe=_carry_probe(start, fresh, _middle_depth(start, fresh, thickness)),
        slice_thickness=thickness,
        tilts=tilts if same_tilts else fresh.tilts,
    )


def changed(
    start: TrialStart, params: Mapping[str, Scalar], tuned: Collection[str], names: Collection[str]
) -> list[str]:
    """Those of ``names`` that the new trial does not have from the old one: its stage tunes them, or they differ."""
    before = start.params
    return [name for name in names if name in tuned or (name in before and not _equal(before[name], params.get(name)))]


def _equal(one: Scalar, other: Scalar) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)
    return one == other


def _stays(start: TrialStart, fresh: FreshTrial, names: Collection[str]) -> bool:
    return not changed(start, fresh.params, fresh.tuned, names)


# --- where things lie -------------------------------------------------------------------------------


def _scan_map(start: TrialStart, fresh: FreshTrial) -> ScanMap:
    old = np.array(affine_matrix(*(_number(start, f"scan_{name}") for name in tunables.AFFINE)))
    matrix = np.linalg.solve(old, np.array(affine_matrix(*fresh.affine)))
    matrix *= _number(start, "pixel_size") / fresh.pixel_size
    if np.allclose(matrix, np.eye(2), rtol=0, atol=_SAME):
        matrix = np.eye(2)
    old_centre = _centre(start.arrays["crop_positions"], start.arrays["probe"])
    new_centre = _centre(fresh.nominal, fresh.probe)
    if np.array_equal(matrix, np.eye(2)) and start.arrays["object_phase"].shape[-2:] == fresh.object_shape[-2:]:
        new_centre = old_centre  # the very same canvas
    return ScanMap(matrix, old_centre, new_centre)


def _centre(corners: Array, probe: Array) -> NDArray[np.int64]:
    """The pixel of the object that is nearest to the centre of the scan."""
    return np.rint(corners.mean(0)).astype(np.int64) + _middle(probe)


def _middle(probe: Array) -> NDArray[np.int64]:
    """The pixel of its window that a probe has its centre at."""
    return np.array(probe.shape[-2:]) // 2


def _carry_positions(start: TrialStart, fresh: FreshTrial, scan_map: ScanMap) -> tuple[Array, Array]:
    """Whole pixels, and what is beyond them.

    A position that no batch of the old trial had was refined by nothing. It goes with the others: where the scan has
    it, moved by as much as those are moved in the mean.
    """
    arrays, old_window, new_window = start.arrays, _middle(start.arrays["probe"]), _middle(fresh.probe)
    positions = scan_map.apply(arrays["positions"] / _number(start, "pixel_size") + old_window) - new_window
    if "scan_indices" in arrays:
        seen = np.zeros(len(positions), bool)
        seen[arrays["scan_indices"]] = True
        moved = (positions[seen] - fresh.nominal[seen]).mean(0)
        positions[~seen] = fresh.nominal[~seen] + moved
    if scan_map.is_shift:  # as it was cut out before: refined positions may be more than half a pixel away
        crop = scan_map.apply(arrays["crop_positions"] + old_window) - new_window
    else:
        crop = np.rint(positions)
    return crop.astype(np.int64), (positions - crop).astype(np.float32)


# --- the object -------------------------------------------------------------------------------------


def _carry_object(
    arrays: Mapping[str, Array], slices: int, scan_map: ScanMap, canvas: tuple[int, ...]
) -> tuple[Array, Array]:
    """Phase and amplitude (modes, slices, rows, columns) float32 on the new canvas; vacuum where nothing is known."""
    phase, amplitude = arrays["object_phase"], arrays["object_amplitude"]
    if phase.shape[1] != slices:
        weights = redistribution(phase.shape[1], slices)
        phase = np.einsum("ji,mi...->mj...", weights, phase)
        amplitude = np.exp(np.einsum("ji,mi...->mj...", weights, np.log(np.maximum(amplitude, _LEAST_AMPLITUDE))))
    phase = _carry_image(phase, scan_map, canvas)
    # Its deviation from vacuum: outside there is none.
    amplitude = 1 + _carry_image(amplitude.astype(np.float64) - 1, scan_map, canvas)
    return phase.astype(np.float32), np.maximum(amplitude, 0).astype(np.float32)


def redistribution(old: int, new: int) -> NDArray[np.float64]:
    """(new, old): which share of each old slice lies in each new one, by relative depth.

    Each column sums to 1: phases, and logarithms of amplitudes, add up to the same over the depth.
    """
    old_edges, new_edges = np.arange(old + 1) / old, np.arange(new + 1)[:, None] / new
    overlap = np.minimum(old_edges[1:], new_edges[1:]) - np.maximum(old_edges[:-1], new_edges[:-1])
    return np.maximum(overlap, 0) * old


def _carry_image(stack: Array, scan_map: ScanMap, canvas: tuple[int, ...]) -> Array:
    """Images (..., rows, columns) on the new canvas, zero where nothing is known.

    Phases and amplitudes are interpolated, and not the complex transmission: phases add over the depth, and so do
    their interpolations; and none of them is wrapped, as all began near zero and moved steadily.
    """
    if scan_map.is_shift:
        return _move_image(stack, scan_map.new_centre - scan_map.old_centre, canvas)
    from scipy import ndimage  # type: ignore[import-untyped]  # other trials need not wait for it

    backward = np.linalg.inv(scan_map.matrix).T  # for columns, as SciPy has points
    # Where new pixels are the larger ones, each stands for the mean of several old ones.
    coarsening = abs(np.linalg.det(backward))
    blur = np.sqrt(max(coarsening - 1, 0) / 12)
    images = stack.reshape(-1, *stack.shape[-2:]).astype(np.float64)
    carried = np.empty((len(images), *canvas))
    for image, output in zip(images, carried, strict=True):
        ndimage.affine_transform(
            ndimage.gaussian_filter(image, blur) if blur else image,
            backward,
            offset=scan_map.old_centre - backward @ scan_map.new_centre,
            output_shape=canvas,
            output=output,
            order=3,
        )
    return carried.reshape(*stack.shape[:-2], *canvas)


def _move_image(stack: Array, offset: NDArray[np.int64], canvas: tuple[int, ...]) -> Array:
    moved = np.zeros((*stack.shape[:-2], *canvas), stack.dtype)
    first = np.maximum(offset, 0)
    last = np.minimum(np.array(canvas), np.array(stack.shape[-2:]) + offset)
    (top, left), (bottom, right) = first, last
    dy, dx = offset
    moved[..., top:bottom, left:right] = stack[..., top - dy : bottom - dy, left - dx : right - dx]
    return moved


# --- the probe --------------------------------------------------------------------------------------


def _middle_depth(start: TrialStart, fresh: FreshTrial, thickness: float) -> float:
    """How much deeper the middle of the old specimen lies below its first slice than that of the new one.

    PtyRAD has N slices at the depths 0, dz, ..., (N - 1) dz.
    """
    slices, arrays = fresh.object_shape[1], start.arrays
    initial = _number(start, "initial_slice_thickness")
    old = (arrays["object_phase"].shape[1] - 1) / 2 * float(arrays.get("slice_thickness", initial))
    return old - (slices - 1) / 2 * thickness


def _carry_probe(start: TrialStart, fresh: FreshTrial, depth: float) -> Array:
    """The probe on the new window and pixels, as much brighter as the fresh one is than that of the old trial was.

    It is propagated by ``depth``, so that it meets the middle of the specimen as it did before.

    The fresh one where the new trial says of the probe what the old one did not, or where its window is wider, as after
    patterns that were binned: of a probe that was cut off nobody knows the rest, and it is no good start without.
    Of another ``dx`` the probe keeps its pixels: how large a disk it makes on the detector, in pixels, is what was
    measured, whatever angle they are said to have.
    """
    probe = start.arrays["probe"]
    if len(probe) != len(fresh.probe) or not _stays(start, fresh, tunables.PROBE):
        return fresh.probe
    intensity = np.sum(np.abs(probe) ** 2, dtype=np.float64)
    brighter = np.sum(np.abs(fresh.probe) ** 2, dtype=np.float64) / _number(start, "initial_probe_intensity")
    ratio = fresh.pixel_size / _number(start, "pixel_size") / _recalibration(start, fresh)
    if fresh.probe.shape[-1] * ratio > probe.shape[-1] * _WIDER:
        return fresh.probe
    if probe.shape == fresh.probe.shape and abs(ratio - 1) < _SAME:
        carried = probe
    else:
        carried = resample_probe(probe, fresh.probe.shape[-1], ratio)
        brighter *= intensity / np.sum(np.abs(carried) ** 2)
    if depth:
        carried = propagate(carried, depth, fresh.pixel_size, _number(start, "wavelength"))
    if abs(brighter - 1) < 1e-5:  # single precision
        return carried
    return (carried * np.sqrt(brighter)).astype(np.complex64)


def _recalibration(start: TrialStart, fresh: FreshTrial) -> float:
    """The new trial's pixel size over the old one's, of patterns as they are in the file."""
    old, new = start.params.get("dx"), fresh.params.get("dx")
    return float(new) / float(old) if old and new else 1.0


def resample_probe(probe: Array, window: int, ratio: float) -> Array:
    """(modes, window, window) complex64 of a probe (modes, y, x), with pixels that are ``ratio`` times as large.

    The trigonometric polynomial through the old pixels, without the frequencies that new pixels cannot hold, at the
    new ones; nothing outside the old window. Where both windows are equally wide this cuts, or pads, the probe in
    Fourier space, and where pixels are equally large in real space.
    """
    size = probe.shape[-1]
    frequencies = np.fft.fftfreq(size)  # per old pixel
    kept = frequencies * ratio
    points = (np.arange(window) - window // 2) * ratio + size // 2
    waves = np.exp(2j * np.pi * np.outer(points, frequencies)) / size
    waves[:, (kept >= 0.5) | (kept < -0.5)] = 0
    waves[(points < -0.5) | (points >= size - 0.5)] = 0
    resampled: Array = (waves @ np.fft.fft2(probe) @ waves.T).astype(np.complex64)
    return resampled


def propagate(probe: Array, distance: float, pixel_size: float, wavelength: float) -> Array:
    """The probe (modes, y, x) further along the beam by ``distance``: Fresnel's exp(-i pi wavelength distance k^2)."""
    squares = np.fft.fftfreq(probe.shape[-1], pixel_size) ** 2
    phase = -np.pi * wavelength * distance * (squares[:, None] + squares)
    propagated: Array = np.fft.ifft2(np.fft.fft2(probe) * np.exp(1j * phase)).astype(np.complex64)
    return propagated


def _number(start: TrialStart, name: str) -> float:
    return float(start.attributes[name])  # type: ignore[arg-type]
