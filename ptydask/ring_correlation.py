"""How far two images agree in rings of the spatial frequency, and the resolution that this says. Pure, NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

HALF_BIT, ONE_BIT = 0.2071, 0.5
"""Signal-to-noise ratio of each of the two images, in power, where their mean holds half a bit or one bit a pixel."""
_LEAST_FREQUENCY = 0.05
"""Of the Nyquist frequency: rings below have so few pixels that where they cross the line means nothing."""


@dataclass(frozen=True, slots=True)
class FourierRing:
    """The correlation of two images in rings of the spatial frequency, from the first above 0 to the Nyquist one."""

    spatial_frequency: Array
    """Middle of each ring, in 1/``length_unit``, rising in equal steps."""
    correlation: Array
    """-1 to 1."""
    pixels: NDArray[np.int64]
    """Of the transform, in each ring."""
    length_unit: str = "angstrom"

    @property
    def half_bit(self) -> Array:
        """The threshold above which the mean of both images has half a bit of information a pixel."""
        return threshold(self.pixels, HALF_BIT)

    @property
    def one_bit(self) -> Array:
        """The same for one bit."""
        return threshold(self.pixels, ONE_BIT)

    @property
    def nyquist(self) -> float:
        """The last ring's frequency, in 1/``length_unit``: of a side with an odd number of pixels the one below."""
        return float(self.spatial_frequency[-1])

    @property
    def crossing(self) -> float | None:
        """Where the correlation first falls below the half-bit line, 1/``length_unit``; None where it never does.

        Interpolated between rings; frequencies below 0.05 of the Nyquist frequency do not count. Where the first ring
        that counts is below the line already, it is that ring's.
        """
        above = self.correlation - self.half_bit
        counts = self.spatial_frequency >= _LEAST_FREQUENCY * self.nyquist * (1 - 1e-9)
        below = np.flatnonzero(counts & (above < 0))
        if not below.size:
            return None
        ring = int(below[0])
        if ring == 0 or not counts[ring - 1]:
            return float(self.spatial_frequency[ring])
        high, low = above[ring - 1], above[ring]
        step = self.spatial_frequency[ring] - self.spatial_frequency[ring - 1]
        return float(self.spatial_frequency[ring - 1] + step * high / (high - low))

    @property
    def resolution(self) -> float:
        """The period at the crossing, 1/frequency, in ``length_unit``; without one the last ring's, an upper bound.

        It is a full period; fold_slice's and PtychoShelves' figure is half of it.
        """
        return 1 / (self.crossing or self.nyquist)

    @property
    def area(self) -> float:
        """The mean correlation of all rings, at most 1.

        Steadier than the crossing for crystals, whose power lies in few rings with nothing but noise between them.
        """
        return float(self.correlation.mean())

    def describe(self) -> str:
        """Resolution and area in words."""
        unit = {"angstrom": "Å"}.get(self.length_unit, self.length_unit)
        bound, why = (
            ("", "") if self.crossing is not None else ("better than ", " (the half-bit line is never crossed)")
        )
        return f"resolution {bound}{self.resolution:.3g} {unit}{why}, area {self.area:.3f}"


def threshold(pixels: ArrayLike, signal_to_noise: float) -> Array:
    """The correlation that a signal of this power ratio has in a ring of ``pixels``, its own uncertainty included.

    Van Heel & Schatz 2005, eq. 17: (S + 2 sqrt(S)/sqrt(n) + 1/sqrt(n)) / (S + 2 sqrt(S)/sqrt(n) + 1).
    """
    root = np.sqrt(np.asarray(pixels, dtype=np.float64))
    signal = signal_to_noise + 2 * np.sqrt(signal_to_noise) / root
    return np.asarray((signal + 1 / root) / (signal + 1))
