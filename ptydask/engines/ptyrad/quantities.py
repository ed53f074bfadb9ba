"""What a results file keeps of a reconstruction, made of PtyRAD's own tensors: names, units, coordinates.

Of arrays, wherever they come from: a worker that has just ended a trial, or a model file that is years old.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Image, Quantity

Array = NDArray[np.generic]


def arrays(tensors: Mapping[str, Array], crop: Array | None, dx: float, unit: str) -> dict[str, Quantity]:
    """The reconstruction; ``tensors`` and ``crop`` are PtyRAD's ``optimizable_tensors`` and ``crop_pos``, in pixels.

    ``object_phase``, ``object_amplitude``: (omode, z, y, x) float32. ``probe``: (pmode, y, x) complex64.
    ``positions``: (N, 2) as (y, x), where the top-left pixel of the probe window lies on the object, so that
    pixel (i, j) of the object lies at (i, j) * ``dx``; the probe's centre is half a window further on.
    ``slice_thickness``: one number. ``object_tilts``: (1, 2) or (N, 2) as (y, x). The last three where they are given.
    """
    quantities = {
        "object_phase": Quantity(tensors["objp"], "rad", "phase of the object, per mode and slice"),
        "object_amplitude": Quantity(tensors["obja"], "1", "amplitude of the object, per mode and slice"),
        "probe": Quantity(tensors["probe"], "1", "probe, per mode, in real space"),
    }
    if crop is not None and "probe_pos_shifts" in tensors:
        corner = crop.astype(np.float64) + tensors["probe_pos_shifts"].astype(np.float64)
        title = "top-left pixel of the probe window on the object (y, x)"
        quantities["positions"] = Quantity(corner * dx, unit, title)
    if "slice_thickness" in tensors:
        quantities["slice_thickness"] = Quantity(tensors["slice_thickness"], unit, "thickness of one slice")
    if "obj_tilts" in tensors:
        quantities["object_tilts"] = Quantity(tensors["obj_tilts"], "mrad", "tilt of the object (y, x)")
    return quantities


def scan_arrays(crop: Array, chosen: Array, held_out: Array | None = None) -> dict[str, Quantity]:
    """What does not change from iteration to iteration; ``chosen`` are the reconstructed positions, in any order.

    ``crop_positions``: (N, 2) int32 pixels, where the probe window is cut out of the object; the rest of ``positions``
    is the shift that PtyRAD refines, which may have grown beyond half a pixel. ``scan_indices``: which positions were
    reconstructed, in rising order; left out where all were. ``heldout_indices``: those that scored it, likewise.
    """
    quantities = {"crop_positions": Quantity(crop, "pixel", "where the probe window is cut out of the object (y, x)")}
    if 0 < len(chosen) < len(crop):
        indices = np.sort(chosen).astype(np.int32)
        quantities["scan_indices"] = Quantity(indices, "", "the scan positions that were reconstructed")
    if held_out is not None:
        title = "the scan positions that were held out and scored the result"
        quantities["heldout_indices"] = Quantity(held_out.astype(np.int32), "", title)
    return quantities


def phase_image(projected: Array, rows: slice, columns: slice, dx: float, unit: str) -> Image:
    """Rows and columns of the ``projected`` phase; the image's axes start at the centre of the object's first pixel."""
    return Image(
        data=projected[rows, columns],
        y=np.arange(rows.start, rows.stop) * dx,
        x=np.arange(columns.start, columns.stop) * dx,
        units="rad",
        axis_units=unit,
        title="Phase, summed over depth",
    )
