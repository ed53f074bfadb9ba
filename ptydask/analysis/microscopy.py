"""What a microscopist looks at first in a trial, made of what the results file holds of it; lengths in angstrom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import reciprocal_space, registration, scan_positions
from ptydask.analysis.data import json_object
from ptydask.analysis.reciprocal_space import ReciprocalProbe
from ptydask.analysis.registration import ImageDifference
from ptydask.analysis.scan_positions import PositionShifts
from ptydask.errors import StoreError
from ptydask.model import Image, StudyMeta
from ptydask.space.ranges import is_number
from ptydask.space.tunables import AFFINE
from ptydask.store.reader import StoredArray, TrialData

ANGSTROM: Mapping[str, float] = {"angstrom": 1.0, "Ang": 1.0, "Å": 1.0, "nm": 10.0, "m": 1e10}
"""Units of length, in angstrom."""


@dataclass(frozen=True, slots=True)
class PhaseSlices:
    """The object's phase slice by slice, in the region that was scanned."""

    data: NDArray[Any]
    """(z, y, x), rad; the mean over the object's modes where it has several."""
    z: NDArray[np.float64]
    """Depth of each slice, angstrom, the first one at 0; numbers from 0 where the thickness is not known."""
    y: NDArray[np.float64]
    """Pixel centres, angstrom."""
    x: NDArray[np.float64]
    thickness: float | None
    """Of one slice, angstrom."""


def pixel_size(trial: TrialData) -> float:
    """The width of an object pixel in angstrom. Raises StoreError where it is not known."""
    size = trial.attributes.get("pixel_size")
    if isinstance(size, int | float) and size > 0:
        return float(size) * _angstrom(trial, str(trial.attributes.get("length_unit", "angstrom")))
    image = trial.image
    if image is not None and len(image.x) > 1 and image.axis_units in ANGSTROM:
        return float(image.x[1] - image.x[0]) * ANGSTROM[image.axis_units]
    raise StoreError(f"trial {trial.record.number}: its pixel size is not known")


def scanned_region(trial: TrialData) -> tuple[slice, slice]:
    """The rows and columns of the object that the trial's image shows; all where it has none."""
    pixel = trial.attributes.get("pixel_size")
    if trial.image is None or not isinstance(pixel, int | float) or not pixel > 0:
        return slice(None), slice(None)
    first = [round(float(axis[0]) / pixel) if len(axis) else 0 for axis in (trial.image.y, trial.image.x)]
    rows, columns = trial.image.data.shape
    return slice(first[0], first[0] + rows), slice(first[1], first[1] + columns)


def phase_image(trial: TrialData) -> Image:
    """The phase summed over depth in the scanned region, its axes in angstrom. Raises StoreError without one."""
    image = trial.image
    if image is None:
        slices = phase_slices(trial)
        return Image(slices.data.sum(0), slices.y, slices.x, "rad", "angstrom", "Phase, summed over depth")
    scale = _angstrom(trial, image.axis_units)
    return Image(image.data, image.y * scale, image.x * scale, image.units, "angstrom", image.title)


def phase_slices(trial: TrialData) -> PhaseSlices:
    """The phase of every slice in the scanned region. Raises StoreError where no object was kept."""
    rows, columns = scanned_region(trial)
    stack = _object_modes(trial, "object_phase").mean(0)
    step = trial.arrays.get("slice_thickness")
    scale = ANGSTROM.get(step.units, math.nan) if step is not None else math.nan
    thickness = float(step.read()) * scale if step is not None and step.shape == () else math.nan
    known = thickness if math.isfinite(thickness) else None
    pixel = pixel_size(trial)
    y, x = (
        pixel * ((part.start or 0) + np.arange(size))
        for part, size in zip((rows, columns), stack.shape[-2:], strict=True)
    )
    return PhaseSlices(stack, (known or 1.0) * np.arange(len(stack), dtype=float), y, x, known)


def power_spectrum(trial: TrialData, of: Literal["phase", "object"] = "phase") -> Image:
    """The power spectrum of the scanned region, see :func:`ptydask.analysis.reciprocal_space.power_spectrum`.

    ``phase`` is that of the phase summed over depth; ``object`` of the complex transmission, the product of all
    slices. Raises StoreError where these were not kept, or hold no spectrum.
    """
    try:
        if of == "object":
            amplitude, phase = (_object_modes(trial, name) for name in ("object_amplitude", "object_phase"))
            transmission = (amplitude * np.exp(1j * phase)).prod(1).mean(0)
            return reciprocal_space.power_spectrum(transmission, pixel_size(trial))
        return reciprocal_space.power_spectrum(phase_image(trial).data, pixel_size(trial))
    except ValueError as error:
        raise StoreError(f"trial {trial.record.number}: {error}") from None


def probe_modes(trial: TrialData) -> NDArray[Any]:
    """(pmode, y, x) complex, in real space. Raises StoreError where no probe was kept."""
    probe = _require_array(trial, "probe").read()
    if probe.ndim < 2 or 0 in probe.shape:
        raise StoreError(f"trial {trial.record.number}: its probe is no image")
    return probe.reshape(-1, *probe.shape[-2:])


def probe_shares(trial: TrialData) -> NDArray[np.float64]:
    """(pmode,): the part of each probe mode in the total intensity. Raises StoreError where no probe was kept."""
    return reciprocal_space.mode_shares(probe_modes(trial))


def reciprocal_probe(trial: TrialData) -> ReciprocalProbe:
    """All probe modes in the plane of the aperture, in angles where the file knows the wavelength.

    Raises StoreError where no probe was kept.
    """
    wavelength = trial.attributes.get("wavelength")
    scale = ANGSTROM.get(str(trial.attributes.get("length_unit", "angstrom")), math.nan)
    known = float(wavelength) * scale if isinstance(wavelength, int | float) and wavelength > 0 else math.nan
    return reciprocal_space.transform_probe(
        probe_modes(trial), pixel_size(trial), known if math.isfinite(known) else None
    )


def position_shifts(trial: TrialData, meta: StudyMeta) -> PositionShifts:
    """Refined positions over those that the trial began with. Raises StoreError where no positions were kept.

    The first positions are computed from the params file's raster and the trial's affine, with the random displacement
    that PtyRAD gives them, and are proven by the whole pixels that the file holds; else they are those whole pixels.
    """
    pixel = pixel_size(trial)
    positions = _require_array(trial, "positions")
    refined = np.asarray(positions.read(), dtype=float) * _angstrom(trial, positions.units)
    if not np.isfinite(refined).all():
        raise StoreError(f"trial {trial.record.number}: it has positions that are no numbers")
    crop = _require_array(trial, "crop_positions").read()
    if crop.shape != refined.shape:
        raise StoreError(f"trial {trial.record.number}: its positions and those of the scan differ in number")
    nominal = scan_positions.nominal_positions(crop, _first_positions(trial, meta))
    chosen = trial.arrays["scan_indices"].read() if "scan_indices" in trial.arrays else slice(None)
    first = pixel * (crop.astype(float) if nominal is None else nominal)
    return PositionShifts(first[chosen], refined[chosen], exact=nominal is not None)


def phase_difference(trial: TrialData, other: TrialData) -> ImageDifference:
    """The phase of one trial less that of another, the shift between the two and the mean taken out.

    The shift is that of the objects against the means of the probe's positions, or against the images' middles where no
    positions were kept. Raises StoreError where one has no image, or nothing in common with the other;
    MissingDependency without SciPy.
    """
    images = [phase_image(trial), phase_image(other)]
    middles = [middle for each in (trial, other) if (middle := _scan_middle(each)) is not None]
    if len(middles) < len(images):
        middles = [(float(np.mean(image.y)), float(np.mean(image.x))) for image in images]
    try:
        first, second = (
            replace(image, y=image.y - middle[0], x=image.x - middle[1])
            for image, middle in zip(images, middles, strict=True)
        )
        apart = registration.subtract_images(first, second)
        y, x = middles[0]
        return replace(apart, image=replace(apart.image, y=apart.image.y + y, x=apart.image.x + x))
    except ValueError as error:
        raise StoreError(f"trials {trial.record.number} and {other.record.number}: {error}") from None


def probe_centres(trial: TrialData, positions: NDArray[Any]) -> NDArray[np.float64]:
    """Where the probe's centre lies on the object, of positions of its window, (N, 2) as (y, x), both in angstrom."""
    window = np.array(_require_array(trial, "probe").shape[-2:])
    return np.asarray(positions + window // 2 * pixel_size(trial), dtype=np.float64)


def _scan_middle(trial: TrialData) -> tuple[float, float] | None:
    """The mean of the probe's centres, angstrom; None where no positions were kept."""
    if not {"positions", "probe"} <= trial.arrays.keys():
        return None
    positions = trial.arrays["positions"]
    y, x = probe_centres(trial, positions.read() * _angstrom(trial, positions.units)).mean(0).tolist()
    return y, x


def _require_array(trial: TrialData, name: str) -> StoredArray:
    if name in trial.arrays:
        return trial.arrays[name]
    raise StoreError(trial.lost or trial.dropped or f"no {name} was kept")


def _angstrom(trial: TrialData, unit: str) -> float:
    """A unit of length in angstrom. Raises StoreError for what is none."""
    if unit not in ANGSTROM:
        raise StoreError(f"trial {trial.record.number}: {unit!r} is no unit of length that is known")
    return ANGSTROM[unit]


def _object_modes(trial: TrialData, name: str) -> NDArray[Any]:
    """(omode, z, y, x): of the scanned region. Raises StoreError where it was not kept."""
    rows, columns = scanned_region(trial)
    data = _require_array(trial, name)[(..., rows, columns)]
    return data.reshape(-1, *(data.shape[-3:] if data.ndim > 2 else (1, *data.shape)))


def _first_positions(trial: TrialData, meta: StudyMeta) -> Sequence[NDArray[np.float64]]:
    """What PtyRAD's first positions may be around their middle, in pixels: the likeliest first; none where unknown."""
    facts = trial.attributes
    needed = ("scan_positions_slow", "scan_positions_fast", "scan_step_size", "pixel_size")
    values = [facts.get(name) for name in (*needed, *(f"scan_{name}" for name in AFFINE))]
    numbers = [float(value) for value in values if is_number(value)]
    if len(numbers) < len(values):
        return ()
    slow, fast, step, pixel, *affine = numbers
    init = json_object(meta.config_json).get("init_params") or {}
    flips = init.get("pos_scan_flipT") or (0, 0, 0)
    raster = scan_positions.raster_positions(int(slow), int(fast), step / pixel, flips=flips, affine=affine)
    spread = init.get("pos_scan_rand_std")
    if not spread:
        return (raster,)
    drawn = np.random.RandomState(trial.record.seed % 2**32).randn(*raster.shape)
    return raster + float(spread) * drawn, raster
