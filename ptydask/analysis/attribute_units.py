"""Units of the facts that an engine states of a trial as plain numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ptydask.model import Scalar

_LENGTHS = ("pixel_size", "scan_step_size", "wavelength", "initial_slice_thickness")
_UNITS = {
    "initialisation_seconds": "s",
    "recon_seconds": "s",
    "own_metrics_seconds": "s",
    "wall_seconds": "s",
    "peak_gpu_memory": "byte",
    "probe_window": "px",
    "pattern_window": "px",
    "scan_rotation": "degree",
    "scan_shear": "degree",
}


def attribute_units(attributes: Mapping[str, Scalar]) -> dict[str, str]:
    """The unit of each attribute of PtyRAD's trials that has one: ``angstrom`` (``m`` of X-rays), ``degree``, ``s`` ...

    ``length_unit`` among the attributes is the unit of all lengths; without it they are in angstrom.
    """
    length = str(attributes.get("length_unit") or "angstrom")
    lengths = {**dict.fromkeys(_LENGTHS, length), "reciprocal_pixel_size": f"1/{length}"}
    return {name: unit for name, unit in {**_UNITS, **lengths}.items() if name in attributes}
