"""What is kept of a reconstruction: copies on the CPU, in physical units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines.ptyrad.contrast import ScannedRegion, projected_phase
from ptydask.model import Image, Quantity, Scalar

_UNITS = {"Ang": "angstrom", "m": "m"}
"""PtyRAD's length unit (electrons, X-rays) and its name in the results file."""

_AFFINE = ("scale", "asymmetry", "rotation", "shear")


def length_unit(model: Any) -> str:
    """The unit of every length of this model: ``angstrom`` for electrons, ``m`` for X-rays."""
    return _UNITS.get(model.length_unit, model.length_unit)


def arrays(model: Any, dx: float) -> dict[str, Quantity]:
    """The reconstruction as it is now.

    ``object_phase``, ``object_amplitude``: (omode, z, y, x) float32. ``probe``: (pmode, y, x) complex64.
    ``positions``: (N, 2) as (y, x), where the top-left pixel of the probe window lies on the object, so that
    pixel (i, j) of the object lies at (i, j) * ``dx``; the probe's centre is half a window further on.
    ``slice_thickness``: one number. ``object_tilts``: (1, 2) or (N, 2) as (y, x).
    """
    unit = length_unit(model)
    corner = _copy(model.crop_pos).astype(np.float64) + _copy(model.opt_probe_pos_shifts)
    return {
        "object_phase": Quantity(_copy(model.opt_objp), "rad", "phase of the object, per mode and slice"),
        "object_amplitude": Quantity(_copy(model.opt_obja), "1", "amplitude of the object, per mode and slice"),
        "probe": Quantity(_copy(model.get_complex_probe_view()), "1", "probe, per mode, in real space"),
        "positions": Quantity(corner * dx, unit, "top-left pixel of the probe window on the object (y, x)"),
        "slice_thickness": Quantity(_copy(model.opt_slice_thickness), unit, "thickness of one slice"),
        "object_tilts": Quantity(_copy(model.opt_obj_tilts), "mrad", "tilt of the object (y, x)"),
    }


def phase_image(model: Any, region: ScannedRegion, dx: float) -> Image:
    """The projected phase of the scanned region; its axes start at the centre of the object's first pixel."""
    rows, columns = slice(region.top, region.bottom + 1), slice(region.left, region.right + 1)
    return Image(
        data=_copy(projected_phase(model)[rows, columns]),
        y=np.arange(region.top, region.bottom + 1) * dx,
        x=np.arange(region.left, region.right + 1) * dx,
        units="rad",
        axis_units=length_unit(model),
        title="Phase, summed over depth",
    )


def geometry(model: Any, variables: Mapping[str, Any]) -> dict[str, Scalar]:
    """Facts about the reconstruction's coordinates: lengths in :func:`length_unit`, angles in degree."""
    affine = model.scan_affine if model.scan_affine is not None else (1.0, 0.0, 0.0, 0.0)
    facts: dict[str, Scalar] = {
        "length_unit": length_unit(model),
        "pixel_size": float(variables["dx"]),
        "reciprocal_pixel_size": float(variables["dk"]),
        "wavelength": float(variables["lambd"]),
        "scan_positions": int(variables["N_scans"]),
        "scan_step_size": float(variables["scan_step_size"]),
        "probe_window": int(model.opt_probe.shape[-2]),
    }
    return facts | {f"scan_{name}": float(value) for name, value in zip(_AFFINE, affine, strict=True)}


def _copy(tensor: torch.Tensor) -> NDArray[Any]:
    copied: NDArray[Any] = tensor.detach().to("cpu", copy=True).numpy()
    return copied
