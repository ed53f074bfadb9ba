"""A trial's record and arrays from PtyRAD's files, as the engine ``ptyrad`` would have given them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask.engines.ptyrad import quantities
from ptydask.importers.ptyrad.names import TrialName
from ptydask.model import Image, Quantity, Scalar
from ptydask.space import tunables
from ptydask.store.foreign.ptyrad_model import PtyradModel

HEAVY = ("params", "optim_state_dict", "scheduler_state_dict", "batch_losses", "avg_losses", "convergence_iters")
"""Parts of a model file that nothing here is made of."""


@dataclass(frozen=True, slots=True)
class LengthScale:
    """What turns pixels into lengths."""

    dx: float
    unit: str


def find_length_scale(model: PtyradModel, config: Mapping[str, Any], params: Mapping[str, Scalar]) -> LengthScale:
    """The model's pixel size, which PtyRAD saves with 7 digits; with all where the params file gives the same."""
    init = config.get("init_params") or {}
    saved = np.float32(model.attributes.get("dx", 1.0))
    for exact in (params.get("dx"), _planned_dx(init)):
        if isinstance(exact, float | int) and np.float32(exact) == saved:
            return LengthScale(float(exact), _length_unit(init))
    return LengthScale(float(saved), _length_unit(init))


def _length_unit(init: Mapping[str, Any]) -> str:
    """PtyRAD's unit of length: metre for X-rays."""
    return "m" if init.get("probe_illum_type") == "xray" else "angstrom"


def _planned_dx(init: Mapping[str, Any]) -> float | None:
    try:
        return tunables.pixel_size(init)
    except (TypeError, ZeroDivisionError, AttributeError):
        return None


def model_arrays(model: PtyradModel, scale: LengthScale, *, scan: bool = True) -> dict[str, Quantity]:
    """The reconstruction, in the engine's names and units; ``scan`` adds what no iteration changes."""
    crop = _crop_positions(model)
    arrays = quantities.arrays(model.tensors, crop, scale.dx, scale.unit)
    return arrays | quantities.scan_arrays(crop, model.indices) if scan and crop is not None else arrays


def _crop_positions(model: PtyradModel) -> NDArray[Any] | None:
    crop = model.attributes.get("crop_pos")
    return crop if isinstance(crop, np.ndarray) and crop.ndim == 2 else None


def _projected_phase(model: PtyradModel) -> NDArray[Any]:
    """The phase (y, x) in rad, summed over depth; object modes weighted by their occupancy."""
    phase = model.tensors["objp"].sum(1)
    if phase.shape[0] == 1:
        return np.asarray(phase[0])
    occupancy = np.asarray(model.attributes.get("omode_occu", 1 / phase.shape[0]), phase.dtype)
    return np.asarray((phase * occupancy.reshape(-1, 1, 1)).sum(0))


def _scanned_region(model: PtyradModel) -> tuple[int, int, int, int]:
    """Rows and columns under the probe centres of the chosen positions: top, bottom, left, right, all included."""
    crop = _crop_positions(model)
    if crop is None:
        height, width = model.tensors["objp"].shape[-2:]
        return 0, height - 1, 0, width - 1
    chosen = crop[model.indices] if len(model.indices) else crop
    centres = chosen + np.array(model.tensors["probe"].shape[-2:]) // 2
    (top, left), (bottom, right) = centres.min(0).tolist(), centres.max(0).tolist()
    return top, bottom, left, right


def phase_image(model: PtyradModel, scale: LengthScale) -> Image:
    """The projected phase of the scanned region; its axes start at the centre of the object's first pixel."""
    top, bottom, left, right = _scanned_region(model)
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    return quantities.phase_image(_projected_phase(model), rows, columns, scale.dx, scale.unit)


def contrast(model: PtyradModel) -> float | None:
    """PtyRAD's contrast of the phase, to about six digits: its own sum is in single precision."""
    top, bottom, left, right = _scanned_region(model)
    part = _projected_phase(model)[top - 1 : bottom, left - 1 : right].astype(np.float64)
    if part.size < 2 or not np.isfinite(part).all() or part.min() == part.max():
        return None
    part = (part - part.min()) / (part.max() - part.min())
    return float(part.std(ddof=1) / (part.mean() + 1e-8))


def curve(model: PtyradModel | None, reported: Mapping[int, float], metric: str) -> dict[str, list[float]]:
    """``step`` and the loss of every iteration, and what was reported to the pruner where that is something else."""
    if model is None or not len(model.losses):
        return {"step": list(reported), metric: list(reported.values())} if reported else {}
    steps = [int(step) for step in model.losses[:, 0]]
    columns: dict[str, list[float]] = {"step": list(steps), "loss": model.losses[:, 1].tolist()}
    if metric != "loss" and reported:
        columns[metric] = [reported.get(step, math.nan) for step in steps]
    if len(model.seconds) == len(steps):
        columns["seconds"] = model.seconds.tolist()
    return columns


def trial_attributes(model: PtyradModel, config: Mapping[str, Any], scale: LengthScale) -> dict[str, Scalar]:
    """What the engine says of a reconstruction's coordinates, as far as the files do."""
    init, saved = config.get("init_params") or {}, model.attributes
    window = int(model.tensors["probe"].shape[-1])
    attributes: dict[str, Scalar] = {
        "length_unit": scale.unit,
        "pixel_size": scale.dx,
        "iterations": model.iteration,
        "recon_seconds": float(model.seconds.sum()),
        "probe_window": window,
        "pattern_window": int(saved.get("meas_Npix", window)),
    }
    if "dk" in saved:
        attributes["reciprocal_pixel_size"] = float(saved["dk"])
    if "lambd" in saved:
        attributes["wavelength"] = float(saved["lambd"])
    elif isinstance(init.get("probe_kv"), int | float) and scale.unit == "angstrom":
        attributes["wavelength"] = tunables.wavelength(init["probe_kv"])
    crop = _crop_positions(model)
    if crop is not None:
        attributes["scan_positions"] = len(crop)
        if 0 < len(model.indices) < len(crop):
            attributes["scan_share"] = len(model.indices) / len(crop)
    if isinstance(init.get("pos_scan_step_size"), int | float):
        attributes["scan_step_size"] = float(init["pos_scan_step_size"])
    for name, key, kind in (
        ("scan_positions_slow", "N_scan_slow", int),
        ("scan_positions_fast", "N_scan_fast", int),
        ("initial_probe_intensity", "probe_int_sum", float),
        ("initial_slice_thickness", "slice_thickness", float),
    ):
        if saved.get(key) is not None:
            attributes[name] = kind(saved[key])
    affine = saved.get("scan_affine")
    values = (1.0, 0.0, 0.0, 0.0) if affine is None or len(affine) != 4 else affine
    return attributes | {f"scan_{n}": float(v) for n, v in zip(tunables.AFFINE, values, strict=True)}


def exact_values(model: PtyradModel) -> dict[str, Scalar]:
    """Tuned values that a model file has with every digit: scan affine, learning rates, modes and slices."""
    values: dict[str, Scalar] = {
        "pmode_max": int(model.tensors["probe"].shape[0]),
        "Nlayer": int(model.tensors["objp"].shape[1]),
    }
    affine = model.attributes.get("scan_affine")
    if affine is not None and len(affine) == 4:
        values |= {n: float(v) for n, v in zip(tunables.AFFINE, affine, strict=True)}
    rates = model.attributes.get("lr_params")
    if isinstance(rates, Mapping):
        values |= {n: float(rates[t]) for n, t in tunables.TENSORS.items() if t in rates}
    return values


def close_values(model: PtyradModel) -> dict[str, Scalar]:
    """Tuned values that a model file has in single precision: seven digits."""
    values: dict[str, Scalar] = {}
    tilts, rates = model.tensors.get("obj_tilts"), model.attributes.get("lr_params")
    fixed = isinstance(rates, Mapping) and not rates.get("obj_tilts", 1)
    if tilts is not None and tilts.shape == (1, 2) and fixed:
        values |= {name: float(f"{value:.7g}") for name, value in zip(tunables.TILTS, tilts[0], strict=True)}
    for name, key in (("dz", "slice_thickness"), ("dx", "dx")):
        if model.attributes.get(key) is not None:
            values[name] = float(f"{float(model.attributes[key]):.7g}")
    return values


# --- trials without a model file ------------------------------------------------------------------------

_WORTH = ("", "_32bit", "_16bit", "_08bit")
_SHAPES = ("objp_zsum", "objp_omean_zsum", "objp_omean", "objp", "objp_zstack", "objp_omean_zstack", "objp_ostack_zsum")


def choose_picture(pictures: tuple[tuple[TrialName, Path], ...]) -> tuple[str, Path] | None:
    """Kind and path of the TIFF closest to the projected phase: of the scanned region, unscaled, in two dimensions."""
    ranks = {
        f"{shape}{fov}{bits}": (b, f, s)
        for b, bits in enumerate(_WORTH)
        for f, fov in enumerate(("_crop", ""))
        for s, shape in enumerate(_SHAPES)
    }
    ranked = [(ranks[name.kind], path, name.kind) for name, path in pictures if name.kind in ranks]
    if not ranked:
        return None
    _, path, kind = min(ranked)
    return kind, path


def read_picture(path: Path, kind: str, config: Mapping[str, Any], params: Mapping[str, Scalar]) -> Image:
    """A TIFF as a picture: in rad where PtyRAD wrote it unscaled. Raises OSError or ValueError."""
    import tifffile

    data = np.asarray(tifffile.imread(path))
    if data.ndim == 3:
        data = data.mean(0) if "ostack" in kind else data.sum(0, dtype=np.float32)
    if data.ndim != 2 or data.size == 0:
        raise ValueError(f"an image of shape {data.shape}, not (y, x)")
    scaled = any(bits and kind.endswith(bits) for bits in _WORTH)
    init = config.get("init_params") or {}
    exact = params.get("dx", _planned_dx(init))
    dx, unit = (float(exact), _length_unit(init)) if isinstance(exact, int | float) else (1.0, "pixel")
    return Image(
        data=data,
        y=np.arange(data.shape[0]) * dx,
        x=np.arange(data.shape[1]) * dx,
        units="1" if scaled else "rad",
        axis_units=unit,
        title="Phase, summed over depth" + (", scaled to its range" if scaled else ""),
    )
