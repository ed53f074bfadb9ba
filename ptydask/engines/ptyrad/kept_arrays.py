"""What is kept of a reconstruction: copies on the CPU, in physical units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ptydask.engines.ptyrad import quantities
from ptydask.engines.ptyrad.contrast import ScannedRegion, projected_phase
from ptydask.model import Image, Quantity, Scalar
from ptydask.space import tunables

UNITS = {"Ang": "angstrom", "m": "m"}
"""PtyRAD's length unit (electrons, X-rays) and its name in the results file."""


def length_unit(model: Any) -> str:
    """The unit of every length of this model: ``angstrom`` for electrons, ``m`` for X-rays."""
    return UNITS.get(model.length_unit, model.length_unit)


def arrays(model: Any, dx: float) -> dict[str, Quantity]:
    """The reconstruction as it is now, see :func:`quantities.arrays`."""
    tensors = {
        "objp": model.opt_objp,
        "obja": model.opt_obja,
        "probe": model.get_complex_probe_view(),
        "probe_pos_shifts": model.opt_probe_pos_shifts,
        "slice_thickness": model.opt_slice_thickness,
        "obj_tilts": model.opt_obj_tilts,
    }
    copied = {name: _copy_to_cpu(tensor) for name, tensor in tensors.items()}
    return quantities.arrays(copied, _copy_to_cpu(model.crop_pos), dx, length_unit(model))


def scan_arrays(
    model: Any, batches: Sequence[torch.Tensor], held_out: NDArray[Any] | None = None
) -> dict[str, Quantity]:
    """What does not change from iteration to iteration, see :func:`quantities.scan_arrays`."""
    reconstructed = np.concatenate([_copy_to_cpu(batch) for batch in batches])
    return quantities.scan_arrays(_copy_to_cpu(model.crop_pos), reconstructed, held_out)


def phase_image(model: Any, region: ScannedRegion, dx: float) -> Image:
    """The projected phase of the scanned region; its axes start at the centre of the object's first pixel."""
    rows, columns = slice(region.top, region.bottom + 1), slice(region.left, region.right + 1)
    return quantities.phase_image(_copy_to_cpu(projected_phase(model)), rows, columns, dx, length_unit(model))


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
        "scan_positions_slow": int(variables["N_scan_slow"]),
        "scan_positions_fast": int(variables["N_scan_fast"]),
        "probe_window": int(model.opt_probe.shape[-2]),
        "pattern_window": int(variables.get("meas_Npix", model.opt_probe.shape[-2])),
        "initial_probe_intensity": float(model.probe_int_sum),
        "initial_slice_thickness": float(variables["slice_thickness"]),
    }
    return facts | {f"scan_{name}": float(value) for name, value in zip(tunables.AFFINE, affine, strict=True)}


def _copy_to_cpu(tensor: torch.Tensor) -> NDArray[Any]:
    copied: NDArray[Any] = tensor.detach().to("cpu", copy=True).numpy()
    return copied
