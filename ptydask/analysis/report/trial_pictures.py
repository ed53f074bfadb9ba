"""The pictures that only the best few trials have on the page: spectrum, slices, probe modes, refined positions."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import greys, microscopy, reciprocal_space, scan_positions
from ptydask.analysis.report import pictures
from ptydask.errors import StoreError
from ptydask.model import Image, StudyMeta
from ptydask.store.reader import TrialData

_SPECTRUM, _SLICE, _MODE = 384, 256, 160
"""Pixels along a side, at most."""
_SLICE_QUALITY = 65
_SLICES, _MODES = 24, 8
"""So many, at most: of more slices those at even distances, of more modes the strongest."""
_LARGEST_OBJECT = 2_000_000_000
"""Bytes of an object from which on its slices are not read for the page."""
_POWER = 0.995
"""The part of a probe's power that its pictures in reciprocal space hold, and half as much again around it."""


def encode_trial_pictures(trial: TrialData, meta: StudyMeta) -> dict[str, Any]:
    """``spectrum``, ``slices``, ``modes`` and ``positions`` of a trial for the page, as far as they were kept."""
    encoders: Mapping[str, Callable[[TrialData, StudyMeta], dict[str, Any] | None]] = {
        "spectrum": _encode_spectrum,
        "slices": _encode_slices,
        "modes": _encode_modes,
        "positions": _encode_positions,
    }
    encoded: dict[str, Any] = {}
    for name, encode in encoders.items():
        try:
            picture = encode(trial, meta)
        except (StoreError, ValueError):
            continue  # not kept, which the trial's page says anyway; or of another engine, in a shape of its own
        if picture is not None:
            encoded[name] = picture
    return encoded


def _encode_spectrum(trial: TrialData, _meta: StudyMeta) -> dict[str, Any] | None:
    """An :func:`pictures.encode_image` with ``rings``: radius in 1/angstrom, and what is written beside it."""
    spectrum = microscopy.power_spectrum(trial)
    encoded = pictures.encode_image(_pool_highest(spectrum, _SPECTRUM), _SPECTRUM)
    rings = reciprocal_space.choose_rings(float(min(-spectrum.y[0], -spectrum.x[0])))
    texts = [[ring.frequency, f"{ring.frequency:g} Å⁻¹ ({ring.spacing:.3g} Å)"] for ring in rings]
    return encoded and {**encoded, "rings": texts}


def _encode_slices(trial: TrialData, _meta: StudyMeta) -> dict[str, Any] | None:
    """``pictures`` of slices, their ``numbers`` from 1, of ``count``, ``depths`` in angstrom, and a ``grey`` for all.

    None for an object of one slice.
    """
    stored = trial.arrays.get("object_phase")
    if stored is None or len(stored.shape) < 3 or stored.shape[-3] < 2:
        return None
    if np.prod(stored.shape, dtype=np.int64) * stored.dtype.itemsize > _LARGEST_OBJECT:
        return None
    slices = microscopy.phase_slices(trial)
    count = len(slices.data)
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SLICES)).round().astype(int)).tolist()
    images = (Image(slices.data[k], slices.y, slices.x, "rad", "angstrom", f"slice {k + 1} of {count}") for k in chosen)
    shown = [pictures.encode_image(image, _SLICE, quality=_SLICE_QUALITY) for image in images]
    if None in shown:
        return None
    return {
        "pictures": shown,
        "numbers": [k + 1 for k in chosen],
        "count": count,
        "depths": None if slices.thickness is None else [float(slices.z[k]) for k in chosen],
        "grey": greys.shared_grey_limits(map(pictures.relative_limits, shown)),
    }


def _encode_modes(trial: TrialData, _meta: StudyMeta) -> dict[str, Any] | None:
    """``shown``: number from 1, share of the power, the mode in ``real`` and in ``reciprocal`` space; of ``count``."""
    probe, stack = microscopy.reciprocal_probe(trial), microscopy.probe_modes(trial)
    shares = reciprocal_space.mode_shares(stack)
    if not (np.isfinite(stack).all() and np.isfinite(shares).all()):
        return None
    pixel = microscopy.pixel_size(trial)
    y, x, unit = probe.axes
    rows, columns = _strong_middle(probe.intensity)
    rings = [
        [value, f"{value:g} {'mrad' if unit == 'mrad' else 'Å⁻¹'}"] for value in _rings_within(y[rows], x[columns])
    ]
    height, width = probe.intensity.shape
    real = (pixel * (np.arange(height) - height // 2), pixel * (np.arange(width) - width // 2))
    shown = [
        {
            "number": k + 1,
            "share": float(shares[k]),
            "real": pictures.encode_complex(stack[k], *real, "angstrom", _MODE),
            "reciprocal": pictures.encode_complex(probe.modes[k][rows, columns], y[rows], x[columns], unit, _MODE)
            | {"rings": rings},
        }
        for k in sorted(np.argsort(-shares, kind="stable")[:_MODES].tolist())
    ]
    return {"shown": shown, "count": len(stack)}


def _encode_positions(trial: TrialData, meta: StudyMeta) -> dict[str, Any] | None:
    """``places`` and ``shifts``: base64 of (N, 2) float32 as (y, x) in angstrom, and how large these are.

    Both are means of neighbouring positions where the scan is large. ``mean`` was taken off all shifts.
    """
    moved = microscopy.position_shifts(trial, meta)
    if not len(moved.nominal) or not np.isfinite(moved.shifts).all():
        return None
    centres = microscopy.probe_centres(trial, moved.nominal) if "probe" in trial.arrays else moved.nominal
    places, shifts = scan_positions.mean_shifts(centres, moved.shifts)
    return {
        "places": _encode_floats(places),
        "shifts": _encode_floats(shifts),
        "count": len(moved.nominal),
        "mean": moved.mean.tolist(),
        "rms": moved.rms,
        "median": moved.median,
        "largest": moved.largest,
        "exact": moved.exact,
    }


def _pool_highest(image: Image, most: int) -> Image:
    """The highest of n x n pixels, so that at most ``most`` are left along a side: a mean would dim small spots."""
    n = greys.binning(image.data.shape, most)
    rows, columns = (size // n for size in image.data.shape)
    blocks = image.data[: rows * n, : columns * n].reshape(rows, n, columns, n).max((1, 3))
    y, x = (axis[: size * n].reshape(size, n).mean(1) for axis, size in ((image.y, rows), (image.x, columns)))
    return replace(image, data=blocks, y=y, x=x)


def _strong_middle(intensity: NDArray[np.float64]) -> tuple[slice, slice]:
    """Rows and columns around the middle, a square where there is room, that hold what is bright of a probe."""
    middle = [size // 2 for size in intensity.shape]
    y, x = np.ogrid[: intensity.shape[0], : intensity.shape[1]]
    radius = np.hypot(y - middle[0], x - middle[1]).ravel()
    order = np.argsort(radius)
    within = np.cumsum(intensity.ravel()[order])
    reach = int(np.ceil(1.5 * radius[order][int(np.searchsorted(within, _POWER * within[-1]))])) + 2
    rows, columns = (slice(max(0, m - reach), m + reach + 1) for m in middle)
    return rows, columns


def _rings_within(y: NDArray[Any], x: NDArray[Any]) -> tuple[float, ...]:
    return reciprocal_space.round_values(float(min(-y[0], y[-1], -x[0], x[-1])))


def _encode_floats(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode("ascii")
