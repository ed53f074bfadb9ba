"""The demo's measurements as an HDF5 file, with the truth about them in its attributes."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from numpy.typing import NDArray

from ptydask.store import files

if TYPE_CHECKING:
    from ptydask.demo.microscope import Experiment

DESCRIPTION = (
    "Synthetic data, not a measurement: diffraction patterns of a simulated 4D-STEM scan over a monolayer "
    "of WSe2 with selenium vacancies, with counting noise. `patterns` is (position, ky, kx) in electrons; "
    "`positions` are where the probe truly was, (y, x) in angstrom around the centre of the scan. The scan "
    "was scan_scale times as large as scan_step says, turned by scan_rotation degrees (PtyRAD's sign); "
    "defocus is -C10."
)
GEOMETRY = (
    " With scan_asymmetry and scan_shear the scan is PtyRAD's compose_affine_matrix of the four; the specimen is "
    "a stack of such monolayers, slice_thickness apart, each with its own vacancies, through PtyRAD's propagator "
    "with tilt_y and tilt_x."
)
_PLANTED = ("scan_asymmetry", "scan_shear", "slices", "slice_thickness", "tilt_y", "tilt_x")
"""Attributes that only data with such a geometry have."""
_UNITS = {
    "voltage": "kV",
    "convergence": "mrad",
    "pixel_size": "angstrom",
    "scan_step": "angstrom",
    "scan_rotation": "degree",
    "defocus": "angstrom",
    "dose": "electrons per pattern",
    "wavelength": "angstrom",
    "scan_shear": "degree",
    "slice_thickness": "angstrom",
    "tilt_y": "mrad",
    "tilt_x": "mrad",
}


def write(path: Path, experiment: Experiment, patterns: NDArray[np.uint16], positions: NDArray[np.float64]) -> None:
    """Make ``path`` the data file of ``experiment``, atomically; the same input gives the same bytes.

    ``patterns`` is (N, ky, kx) counts, ``positions`` (N, 2) angstrom. Raises OSError.
    """

    def build(file: h5py.File) -> None:
        own = {field.name: field.default for field in fields(experiment)}
        facts = {name: getattr(experiment, name) for name in own} | {"wavelength": experiment.wavelength}
        if all(facts[name] == own[name] for name in _PLANTED):
            facts = {name: value for name, value in facts.items() if name not in _PLANTED}
        file.attrs["description"] = DESCRIPTION + GEOMETRY * ("slices" in facts)
        for name, value in facts.items():
            file.attrs[name] = value
        for name, unit in _UNITS.items():
            if name in facts:
                file.attrs[f"{name}_units"] = unit
        counts = file.create_dataset(
            "patterns",
            data=patterns,
            chunks=(min(64, len(patterns)), *patterns.shape[1:]),
            compression="gzip",
            shuffle=True,
            fletcher32=True,
        )
        counts.attrs["units"] = "electrons"
        file.create_dataset("positions", data=positions).attrs["units"] = "angstrom"

    files.write_whole(path, build)
