"""The cells that one trial fills, for each kind of picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import greys, microscopy, reciprocal_space, scan_positions
from ptydask.analysis.data import json_object
from ptydask.analysis.montage.picture_kinds import PictureKind
from ptydask.analysis.montage.sheet_layout import CellArrows, CellCircle, MontageCell
from ptydask.errors import StoreError
from ptydask.model import Image, StudyMeta, TrialRecord
from ptydask.store.reader import StoredArray, TrialData

_UNITS = {**microscopy.ANGSTROM, "1/angstrom": 1.0, "mrad": 1.0}


@dataclass(frozen=True)
class CellRequest:
    """What is wanted of each trial."""

    meta: StudyMeta
    what: PictureKind
    crop: float = 1.0
    """The part of each side that is kept, around the middle."""
    pixels: int = 1000
    """Along a side, at most: more are averaged."""
    reference: TrialData | None = None
    """The trial that the others are compared with."""


def read_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    """The pictures of one trial; none where what they are made of was not kept. Raises StoreError, with the reason."""
    readers: Mapping[str, Callable[[TrialData, CellRequest], list[MontageCell]]] = {
        "slices": _slice_cells,
        "spectrum": _spectrum_cells,
        "modes": _mode_cells,
        "probe-reciprocal": _reciprocal_cells,
        "positions": _position_cells,
        "difference": _difference_cells,
    }
    if request.what in readers:
        return readers[request.what](trial, request)
    image = trial.image if request.what == "phase" else None
    if image is None:
        image = project_arrays(trial, trial.arrays, request.what)
    return [] if image is None else [make_cell(trial.record, image, request, lines=_probe_lines(trial, request))]


def project_arrays(trial: TrialData, arrays: Mapping[str, StoredArray], what: PictureKind) -> Image | None:
    """Phase, amplitude or probe as one image, of these arrays of the trial; None where they were not kept."""
    name = {"phase": "object_phase", "amplitude": "object_amplitude", "probe": "probe"}[what]
    if name not in arrays or not 2 <= len(arrays[name].shape) <= 4:
        return None
    rows, columns = (slice(None), slice(None)) if what == "probe" else microscopy.scanned_region(trial)
    data = np.asarray(arrays[name][(..., rows, columns)])
    if what == "phase" and data.ndim > 2:
        data = data.sum(-3)
    layers = data.reshape(-1, *data.shape[-2:])
    data = np.sqrt((np.abs(layers) ** 2).sum(0)) if what == "probe" else layers.mean(0)
    step = trial.attributes.get("pixel_size")
    pixel = float(step) if isinstance(step, int | float) else math.nan
    unit = str(trial.attributes.get("length_unit", "angstrom"))
    y, x = (pixel * np.arange(size) for size in data.shape)
    return Image(data, y, x, "rad" if what == "phase" else "", unit, "")


def make_cell(record: TrialRecord, image: Image, request: CellRequest, **more: Any) -> MontageCell:
    """The middle of an image, averaged to its cell; phases have their median taken off."""
    data = np.asarray(image.data, dtype=np.float32)
    axes = zip((image.y, image.x), data.shape, strict=True)
    lengths = [_side_length(axis, size, image.axis_units) for axis, size in axes]
    kept = crop_middle(data, request.crop)
    n = greys.binning(kept.shape, request.pixels)
    small = greys.binned(kept, n)
    height, width = (
        None if length is None else length * n * remaining / size
        for length, remaining, size in zip(lengths, small.shape, data.shape, strict=True)
    )
    finite = small[np.isfinite(small)]
    if request.what in ("phase", "slices", "positions") and finite.size:
        small = small - np.median(finite)
    unit = image.axis_units if image.axis_units in ("1/angstrom", "mrad") else "angstrom"
    return MontageCell(record, small.astype(np.float32), height, width, image.units, axis_unit=unit, **more)


def crop_middle(data: NDArray[Any], part: float) -> NDArray[Any]:
    """The middle of an image, ``part`` of each side."""
    rows, columns = (_middle(size, part) for size in data.shape)
    return data[rows, columns]


# --- kinds -------------------------------------------------------------------------------------------------


def _slice_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    slices = microscopy.phase_slices(trial)
    cells = []
    for i, (phase, depth) in enumerate(zip(slices.data, slices.z, strict=True)):
        text = f"slice {i + 1} of {len(slices.z)}"
        if slices.thickness is not None:
            text += f", depth {depth:.4g} Å"
        image = Image(phase, slices.y, slices.x, "rad", "angstrom", "")
        cells.append(_strip_cell(trial.record, image, request, i, text))
    return cells


def _mode_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    """Each mode over its own largest amplitude: those that follow the first are far weaker, and their shape counts."""
    modes, pixel = microscopy.probe_modes(trial), microscopy.pixel_size(trial)
    shares = reciprocal_space.mode_shares(modes)
    cells = []
    for i, (mode, share) in enumerate(zip(np.abs(modes), shares, strict=True)):
        y, x = (pixel * np.arange(size) for size in mode.shape)
        image = Image(mode / (mode.max() or 1), y, x, "of its maximum", "angstrom", "")
        cells.append(_strip_cell(trial.record, image, request, i, f"mode {i + 1}: {_percent(share)}"))
    return cells


def _strip_cell(record: TrialRecord, image: Image, request: CellRequest, index: int, text: str) -> MontageCell:
    """One of the pictures of a trial: the first has the trial's own caption."""
    return make_cell(record, image, request, **({"label": text} if index else {"lines": (text,)}))


def _spectrum_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    spectrum = microscopy.power_spectrum(trial)
    limit = request.crop * float(min(-spectrum.y[0], -spectrum.x[0]))
    rings = reciprocal_space.choose_rings(limit)
    circles = [CellCircle(ring.frequency, f"{ring.frequency:g}/Å ({ring.spacing:.3g} Å)") for ring in rings]
    return [_centred_cell(trial.record, spectrum, request, circles)]


def _reciprocal_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    probe = microscopy.reciprocal_probe(trial)
    y, x, unit = probe.axes
    image = Image(np.sqrt(probe.intensity), y, x, "", unit, "")
    limit = request.crop * float(min(-y[0], -x[0]))
    text = "{:g} mrad" if unit == "mrad" else "{:g}/Å"
    circles = [CellCircle(value, text.format(value)) for value in reciprocal_space.round_values(limit)]
    aperture = _semi_angle(trial.record, request.meta)
    if unit == "mrad" and aperture is not None and aperture < limit:
        circles.append(CellCircle(aperture, dashed=True))
    cell = _centred_cell(trial.record, image, request, circles)
    if circles and circles[-1].dashed:
        cell = replace(cell, lines=(f"dashed: semi-angle {aperture:g} mrad",))
    return [cell]


def _centred_cell(record: TrialRecord, image: Image, request: CellRequest, circles: list[CellCircle]) -> MontageCell:
    return make_cell(record, image, request, centre=_zero_from_corner(image, request.crop), circles=tuple(circles))


def _position_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    moved = microscopy.position_shifts(trial, request.meta)
    image = microscopy.phase_image(trial)
    centres = microscopy.probe_centres(trial, moved.nominal)
    places, shifts = scan_positions.mean_shifts(centres, moved.shifts)
    corner = np.array(_zero_from_corner(image, request.crop))
    arrows = CellArrows(places + corner, shifts)
    if not moved.is_refined:
        return [make_cell(trial.record, image, request, lines=("positions were not refined",))]
    lines = [f"moved by {moved.rms:.3g} Å rms, {moved.largest:.3g} Å at most"]
    y, x = (f"{round(value, 3) + 0:g}" for value in moved.mean.tolist())
    lines.append(f"all moved by (y, x) = ({y}, {x}) Å".replace("-", "\N{MINUS SIGN}"))
    if not moved.exact:
        lines.append("nominal ones are known to a pixel")
    if len(places) < len(centres):
        lines.append(f"{len(centres):,} positions, {len(places):,} arrows")
    cell = make_cell(trial.record, image, request, arrows=arrows, lines=tuple(lines))
    inside = (arrows.starts >= 0).all(1) & (arrows.starts <= (cell.height or 0, cell.width or 0)).all(1)
    return [replace(cell, arrows=CellArrows(arrows.starts[inside], arrows.shifts[inside]))]


def _difference_cells(trial: TrialData, request: CellRequest) -> list[MontageCell]:
    if request.reference is None or trial.record.number == request.reference.record.number:
        return []
    apart = microscopy.phase_difference(trial, request.reference)
    lines = (f"rms {apart.rms:.3g} rad, correlation {apart.correlation:.3f}", *textwrap.wrap(apart.removed(), 44))
    return [make_cell(trial.record, apart.image, request, lines=lines)]


# --- pieces ------------------------------------------------------------------------------------------------


def _probe_lines(trial: TrialData, request: CellRequest) -> tuple[str, ...]:
    """The shares of the modes, below a picture of all of them."""
    if request.what != "probe":
        return ()
    try:
        shares = microscopy.probe_shares(trial)
    except StoreError:
        return ()
    told = ", ".join(map(_percent, shares[:5])) + (", \N{HORIZONTAL ELLIPSIS}" if len(shares) > 5 else "")
    return (f"modes {told}",) if len(shares) > 1 else ()


def _semi_angle(record: TrialRecord, meta: StudyMeta) -> float | None:
    """The convergence semi-angle that the trial was given, mrad; None where the params do not say."""
    init = json_object(meta.config_json).get("init_params") or {}
    given = record.params.get("conv_angle", init.get("probe_conv_angle"))
    return float(given) if isinstance(given, int | float) and given > 0 else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %" if share >= 0.001 else f"{100 * share:.1g} %"


def _side_length(axis: NDArray[Any], size: int, unit: str) -> float | None:
    """The length of a side in angstrom (or as its unit is), half a pixel beyond the centres at its ends included."""
    if len(axis) < 2 or len(axis) != size or unit not in _UNITS:
        return None
    pixel = abs(float(axis[-1]) - float(axis[0])) / (size - 1) * _UNITS[unit]
    return pixel * size if math.isfinite(pixel) and pixel > 0 else None


def _zero_from_corner(image: Image, crop: float) -> tuple[float, float]:
    """(y, x): how far 0 of both axes lies from the upper left corner of what is kept of an image.

    Raises StoreError for an image of one line.
    """
    corners = []
    for axis in (image.y, image.x):
        if len(axis) < 2:
            raise StoreError("its image is a single line")
        pixel = float(axis[-1] - axis[0]) / (len(axis) - 1)
        corners.append(pixel / 2 - float(axis[_middle(len(axis), crop).start]))
    return corners[0], corners[1]


def _middle(size: int, part: float) -> slice:
    kept = max(1, round(size * part))
    first = (size - kept) // 2
    return slice(first, first + kept)
