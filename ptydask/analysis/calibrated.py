"""A trial as an xarray Dataset: arrays whose axes are in angstrom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ptydask.analysis import sweep
from ptydask.errors import StoreError, import_optional
from ptydask.model import TrialState
from ptydask.trial import slopes

if TYPE_CHECKING:
    import xarray

    from ptydask.analysis.lazy import LazyArray
    from ptydask.analysis.trial import Trial

Axis = tuple[str, NDArray[Any], dict[str, str]]
"""Dimension, coordinates, attributes."""


def build_dataset(trial: Trial) -> xarray.Dataset:
    """All arrays, the image and the curve of a trial, read into memory. Raises MissingDependency.

    Pixel (i, j) of the object lies at (i, j) * pixel_size, slice k at k * slice_thickness; the probe's centre is 0.
    """
    xarray = import_optional("xarray", "to_xarray needs", "analysis")
    variables: dict[str, Any] = {}
    arrays = trial.arrays
    sizes = {"position": arrays["positions"].shape[0]} if "positions" in arrays and arrays["positions"].ndim else {}
    for name, array in arrays.items():
        dims = _axis_names(name, array, sizes)
        sizes |= dict(zip(dims, array.shape, strict=True))
        variables[name] = (dims, array.read(), _variable_attributes(array.units, array.long_name))
    image = trial.image
    if image is not None:
        variables["image"] = (("image_y", "image_x"), image.data, _variable_attributes(image.units, image.title))
    for column, values in trial.curve.items():
        name = column.replace(slopes.COLUMN, "gradient_", 1)  # NetCDF has no slash in names
        if name != "step" and "step" in trial.curve:
            variables[name if name not in variables else f"curve_{name}"] = ("step", values)
    return xarray.Dataset(variables, coords=_coordinates(trial, sizes), attrs=_netcdf_attributes(trial))


def _axis_names(name: str, array: LazyArray, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Names of the axes; an array's own where nobody has named them, or where the name has another length."""
    dims = array.dims or tuple(f"{name}_{axis}" for axis in range(array.ndim))
    if dims[:1] == ("tilt",) and array.shape[0] == sizes.get("position"):
        dims = ("position", *dims[1:])
    return tuple(
        dim if sizes.get(dim, size) == size else f"{name}_{dim}" for dim, size in zip(dims, array.shape, strict=True)
    )


def _coordinates(trial: Trial, sizes: Mapping[str, int]) -> dict[str, Axis]:
    unit = str(trial.attributes.get("length_unit", "angstrom"))
    coordinates: dict[str, Axis] = {}
    try:
        pixel: float | None = trial.pixel_size
    except StoreError:
        pixel = None
    for dim in ("y", "x", "probe_y", "probe_x"):
        if dim in sizes and pixel is not None:
            first = -(sizes[dim] // 2) if dim.startswith("probe") else 0
            coordinates[dim] = (dim, pixel * (first + np.arange(sizes[dim])), {"units": unit})
    thickness = trial.arrays.get("slice_thickness")
    if "z" in sizes and thickness is not None and thickness.size == 1:
        coordinates["z"] = ("z", float(thickness) * np.arange(sizes["z"]), {"units": unit})
    if sizes.get("yx") == 2:
        coordinates["yx"] = ("yx", np.array(["y", "x"]), {})
    image = trial.image
    if image is not None:
        coordinates["image_y"] = ("image_y", image.y, {"units": image.axis_units})
        coordinates["image_x"] = ("image_x", image.x, {"units": image.axis_units})
    if "step" in trial.curve:
        coordinates["step"] = ("step", trial.curve["step"], {"long_name": sweep.step_word(trial._meta)})
    return coordinates


def _netcdf_attributes(trial: Trial) -> dict[str, Any]:
    """What NetCDF can hold of the trial's numbers."""
    facts: dict[str, Any] = {"number": trial.number, "state": str(trial.state), "error": trial.error}
    facts |= {f"param_{name}": value for name, value in trial.params.items()}
    facts |= dict(trial.attributes)
    if trial.state is not TrialState.COMPLETE:
        facts |= {"reason": str(trial.reason), "message": trial.message}
    present = {name: value for name, value in facts.items() if value is not None}
    return {name: int(value) if isinstance(value, bool) else value for name, value in present.items()}


def _variable_attributes(units: str, long_name: str) -> dict[str, str]:
    return {key: text for key, text in (("units", units), ("long_name", long_name)) if text}
