"""A reconstruction as a metric of one's own is given it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Image, Scalar

_Type = TypeVar("_Type")


@dataclass(frozen=True, slots=True, eq=False)
class ReconstructedTrial:
    """What a trial has come to. Its arrays are those that are stored, so they are read-only: change a copy.

    Pixel (i, j) of the object lies at (i, j) * ``pixel_size``, slice k at depth k * ``slice_thickness``.
    """

    number: int
    params: Mapping[str, Scalar]
    """The values that were tried, in the units of the params file."""
    object_phase: NDArray[np.float32]
    """(omode, z, y, x), rad: per object mode and slice."""
    object_amplitude: NDArray[np.float32]
    """(omode, z, y, x): 1 where nothing is absorbed."""
    probe: NDArray[np.complex64]
    """(pmode, y, x), in real space; its centre is pixel n // 2."""
    positions: NDArray[np.float64]
    """(N, 2) as (y, x) in ``length_unit``: where the top-left pixel of the probe's window lies on the object."""
    crop_positions: NDArray[np.int32]
    """(N, 2) as (y, x) in pixels: the same before the positions were refined, in whole pixels."""
    scan_indices: NDArray[np.int32]
    """(M,): which of the N positions were reconstructed, in rising order."""
    object_tilts: NDArray[np.float32]
    """(1, 2), or (N, 2) one a position, as (y, x) in mrad."""
    slice_thickness: float
    """In ``length_unit``."""
    pixel_size: float
    """Of the object, in ``length_unit``."""
    wavelength: float
    """In ``length_unit``."""
    length_unit: str
    """``angstrom`` for electrons, ``m`` for X-rays."""
    image: Image
    """The phase summed over depth (y, x) in rad, where it was scanned, with axes in ``length_unit``."""
    metrics: Mapping[str, float]
    """What is known by now: ``loss``, ``contrast`` and so on."""
    attributes: Mapping[str, Scalar]
    """Facts that are stored with the trial: ``scan_step_size``, ``iterations`` and so on."""

    @property
    def scanned_region(self) -> tuple[slice, slice]:
        """The rows and columns of the object that ``image`` shows: ``object_phase[..., *scanned_region]``."""
        first = [round(float(axis[0]) / self.pixel_size) for axis in (self.image.y, self.image.x)]
        rows, columns = self.image.data.shape
        return slice(first[0], first[0] + rows), slice(first[1], first[1] + columns)


def assemble(
    number: int,
    params: Mapping[str, Scalar],
    arrays: Mapping[str, NDArray[Any]],
    image: Image | None,
    metrics: Mapping[str, float],
    attributes: Mapping[str, Scalar],
) -> ReconstructedTrial:
    """A trial of its arrays and facts, by the names that they have in the results file.

    Raises LookupError, naming what is missing, for a trial that did not keep all of it.
    """
    if image is None:
        raise LookupError("image")
    positions = _require(arrays, "positions")
    everywhere = np.arange(len(positions), dtype=np.int32)
    named = {
        name: _read_only(_require(arrays, name))
        for name in ("object_phase", "object_amplitude", "probe", "positions", "crop_positions", "object_tilts")
    }
    return ReconstructedTrial(
        number=number,
        params=params,
        **named,
        scan_indices=_read_only(arrays.get("scan_indices", everywhere)),
        slice_thickness=float(_require(arrays, "slice_thickness")),
        pixel_size=_number(attributes, "pixel_size"),
        wavelength=_number(attributes, "wavelength"),
        length_unit=str(attributes.get("length_unit", "angstrom")),
        image=replace(image, data=_read_only(image.data), y=_read_only(image.y), x=_read_only(image.x)),
        metrics=metrics,
        attributes=attributes,
    )


def _require(values: Mapping[str, _Type], name: str) -> _Type:
    if name not in values:
        raise LookupError(name)
    return values[name]


def _number(attributes: Mapping[str, Scalar], name: str) -> float:
    value = _require(attributes, name)
    if not isinstance(value, int | float):
        raise LookupError(name)
    return float(value)


def _read_only(data: NDArray[Any]) -> NDArray[Any]:
    view = data.view()
    view.flags.writeable = False
    return view
