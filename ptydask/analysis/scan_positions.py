"""How far the positions of a trial were refined away from those it began with. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptydask.space.scan_affine import affine_matrix

Positions = NDArray[np.float64]
"""(N, 2) as (y, x)."""

_ROUNDING = 1e-6
"""Of the scan's size: what 32 bits keep of a position."""


@dataclass(frozen=True, slots=True)
class PositionShifts:
    """Refined positions over the nominal ones, (N, 2) as (y, x) in angstrom, of the reconstructed positions alone.

    Where all positions move alike only the object's coordinates change: ``mean`` is that common shift, and all other
    numbers are of what remains.
    """

    nominal: Positions
    refined: Positions
    exact: bool = True
    """False: of the nominal positions only the nearest pixel is known."""

    @property
    def is_refined(self) -> bool:
        """Whether any position moved against the others, by more than numbers are rounded."""
        return self.largest > _ROUNDING * float(np.ptp(self.nominal, axis=0).max())

    @property
    def mean(self) -> NDArray[np.float64]:
        """(2,): by how much all positions moved on average, angstrom."""
        return np.asarray((self.refined - self.nominal).mean(0))

    @property
    def shifts(self) -> Positions:
        """(N, 2): refined less nominal positions, less ``mean``, angstrom."""
        return self.refined - self.nominal - self.mean

    @property
    def distances(self) -> NDArray[np.float64]:
        """(N,): lengths of ``shifts``, angstrom."""
        return np.hypot(*self.shifts.T)

    @property
    def rms(self) -> float:
        """The root of the mean square of ``distances``, angstrom."""
        return float(np.sqrt(np.mean(self.distances**2)))

    @property
    def median(self) -> float:
        """Of ``distances``, angstrom."""
        return float(np.median(self.distances))

    @property
    def largest(self) -> float:
        """Of ``distances``, angstrom."""
        return float(self.distances.max())


def raster_positions(
    slow: int, fast: int, step: float, *, flips: Sequence[int] = (0, 0, 0), affine: Sequence[float] = (1, 0, 0, 0)
) -> Positions:
    """The positions of a raster scan, (slow * fast, 2), around their middle, in units of ``step``'s.

    As PtyRAD makes them (``Initializer._simulate_pos``, ``_process_pos``): ``flips`` reverse the slow axis, the fast
    axis, and y against x; ``affine`` are scale, asymmetry, rotation and shear, both in degree.
    """
    grid = step * np.stack(np.meshgrid(np.arange(slow), np.arange(fast), indexing="ij"), axis=-1).astype(float)
    grid = np.flip(grid, tuple(axis for axis, flip in enumerate(flips) if flip)).reshape(-1, 2)
    return np.asarray((grid - grid.mean(0)) @ affine_matrix(*affine))


def nominal_positions(crop: NDArray[np.integer], centred: Sequence[Positions]) -> Positions | None:
    """The first of the ``centred`` positions that is, after a shift by whole pixels, what was rounded to ``crop``.

    All are (N, 2) in pixels. PtyRAD rounds its first positions to whole pixels, ``crop``, so that a guess at them can
    be proven; None where no guess holds: the positions were no such raster.
    """
    for guess in centred:
        if guess.shape != crop.shape:
            continue
        moved = guess + np.round((crop - guess).mean(0))
        if np.abs(moved - crop).max(initial=0) <= 0.5 + 1e-3:
            return moved
    return None


def mean_shifts(places: Positions, shifts: Positions, most: int = 32) -> tuple[Positions, Positions]:
    """Means of ``places`` and of ``shifts``, both (N, 2), over squares that lie ``most`` along the longer side.

    As they are where that makes them no fewer: neighbouring positions of a large scan are one arrow then.
    """
    if len(places) <= most**2:
        return places, shifts
    side = float(np.ptp(places, axis=0).max()) / most * (1 + 1e-9)
    square = np.floor((places - places.min(0)) / side).astype(int)
    _, square_of = np.unique(square, axis=0, return_inverse=True)
    square_of = square_of.ravel()
    count = np.bincount(square_of)
    means = [
        np.stack([np.bincount(square_of, values[:, axis]) / count for axis in (0, 1)], axis=1)
        for values in (places, shifts)
    ]
    return means[0], means[1]
