"""Fourier ring correlation: to which spatial frequency two independent reconstructions agree. Pure, NumPy alone.

It measures whether a reconstruction comes back, not whether it is true: what both have in common, such as a wrong slice
thickness, tilt or scan affine, or a strong regulariser, does not show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptydask.analysis import registration
from ptydask.model import Image

Array = NDArray[np.float64]

HALF_BIT, ONE_BIT = 0.2071, 0.5
"""Signal-to-noise ratio of each of the two images, in power, where their mean holds half a bit or one bit a pixel."""
TAPER = 20
"""Pixels along each border over which an image falls to nothing; at most a quarter of the side."""
_LEAST_FREQUENCY = 0.05
"""Of the Nyquist frequency: rings below have so few pixels that where they cross the line means nothing."""
_SMALLEST = 8
"""Pixels along a side below which there are no rings to speak of."""


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
        """The highest frequency, in 1/``length_unit``."""
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
        """The period at the crossing, 1/frequency, in ``length_unit``; that of the Nyquist frequency without one.

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
        limit = "" if self.crossing is not None else " (the Nyquist frequency: the half-bit line is never crossed)"
        return f"resolution {self.resolution:.3g} {unit}{limit}, area {self.area:.3f}"


def compare_images(first: Image, other: Image) -> FourierRing:
    """The Fourier ring correlation of two images of one region, which have pixels of one size.

    The best plane is taken off each (a phase has no zero, and a ramp of it is the probe's tilt), ``other`` is moved
    onto ``first`` by parts of a pixel, both are cropped to what they have in common and tapered. Raises ValueError
    for images without axes, with NaN, of pixels that differ in size or are not square, or with less than 8 pixels in
    common along a side; MissingDependency without SciPy.
    """
    mine, theirs, shift, pixel_size = register(first, other)
    moved = _move(prepare(theirs, shift), shift)
    return fourier_ring_correlation(prepare(mine), moved, pixel_size, first.axis_units)


def prepare(data: ArrayLike, shift: tuple[float, float] = (0.0, 0.0)) -> Array:
    """A (y, x) image without its best plane, falling to 0 at the borders, which lie ``shift`` pixels farther on."""
    values = remove_ramp(data)
    return values * np.multiply.outer(*map(_taper, values.shape, shift))


def remove_ramp(data: ArrayLike) -> Array:
    """A (y, x) image less the plane that fits it best, by least squares."""
    values = np.asarray(data, dtype=np.float64)
    y, x = (np.arange(size) - (size - 1) / 2 for size in values.shape)
    # Centred coordinates of a rectangle are orthogonal to each other and to the constant: three projections fit.
    slope_y = (y @ values).sum() / ((y @ y) * len(x))
    slope_x = (values @ x).sum() / ((x @ x) * len(y))
    return values - values.mean() - slope_y * y[:, None] - slope_x * x


def register(first: Image, other: Image) -> tuple[Array, Array, tuple[float, float], float]:
    """The part that both show, of each, cropped to whole pixels; the rest of the shift; and the pixel size.

    ``other`` shows (y, x) of the shift, parts of a pixel, beyond where ``first`` shows it. Errors are those of
    :func:`compare_images`.
    """
    flat = [replace(image, data=remove_ramp(image.data)) for image in (first, other)]
    place = registration.align_images(*flat)
    pixel_y, pixel_x = ((axis[-1] - axis[0]) / (len(axis) - 1) for axis in (first.y, first.x))
    if not place.alike:
        raise ValueError("the pixels of the two images differ in size")
    if not np.isclose(pixel_y, pixel_x, rtol=1e-6):
        raise ValueError("the pixels are not square")
    whole = np.round(place.offset).astype(int)
    a, b = flat[0].data, flat[1].data
    low, high = np.maximum(0, -whole), np.minimum(a.shape, b.shape - whole)
    if (high - low < _SMALLEST).any():
        raise ValueError(f"the two images have less than {_SMALLEST} pixels in common along a side")
    mine = a[low[0] : high[0], low[1] : high[1]]
    theirs = b[low[0] + whole[0] : high[0] + whole[0], low[1] + whole[1] : high[1] + whole[1]]
    y, x = (place.offset - whole).tolist()
    return mine, theirs, (y, x), float(pixel_x)


def fourier_ring_correlation(
    a: NDArray[np.generic], b: NDArray[np.generic], pixel_size: float, length_unit: str = "angstrom"
) -> FourierRing:
    """The correlation of two (y, x) images, real or complex, of one shape, as they are: see :func:`compare_images`.

    ``Re sum F1 F2* / sqrt(sum |F1|^2 sum |F2|^2)`` over the pixels of each ring (van Heel & Schatz, J. Struct. Biol.
    151, 250, 2005). A pixel belongs to the ring nearest to its frequency; rings are one pixel of the shorter side
    wide. Of real images the sum is real, and fold_slice's ``fourier_shell_corr_3D_2`` has its absolute value, which
    cannot tell noise from agreement by its sign. A ring without power in one of the images has 0. Raises ValueError
    for images that differ in shape, are smaller than 8 pixels along a side, or have NaN.
    """
    if a.shape != b.shape or a.ndim != 2 or min(a.shape) < _SMALLEST:
        raise ValueError(f"images of shapes {a.shape} and {b.shape}: it takes two alike, {_SMALLEST} pixels or more")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("an image has values that are no numbers")
    side = min(a.shape)
    radius = np.hypot.outer(*(np.fft.fftfreq(size, 1 / side) for size in a.shape))
    rings = np.rint(radius).astype(int).ravel()
    count = side // 2 + 1
    first, other = np.fft.fft2(a).ravel(), np.fft.fft2(b).ravel()

    def total(values: Array) -> Array:
        return np.asarray(np.bincount(rings, values, minlength=count)[1:count], dtype=np.float64)

    power = np.sqrt(total(np.abs(first) ** 2) * total(np.abs(other) ** 2))
    common = total((first * other.conj()).real)
    correlation = np.divide(common, power, out=np.zeros_like(common), where=power > 0)
    pixels = np.bincount(rings, minlength=count)[1:count]
    return FourierRing(np.arange(1, count) / (side * pixel_size), correlation, pixels, length_unit)


def threshold(pixels: ArrayLike, signal_to_noise: float) -> Array:
    """The correlation that a signal of this power ratio has in a ring of ``pixels``, its own uncertainty included.

    Van Heel & Schatz 2005, eq. 17: (S + 2 sqrt(S)/sqrt(n) + 1/sqrt(n)) / (S + 2 sqrt(S)/sqrt(n) + 1).
    """
    root = np.sqrt(np.asarray(pixels, dtype=np.float64))
    signal = signal_to_noise + 2 * np.sqrt(signal_to_noise) / root
    return np.asarray((signal + 1 / root) / (signal + 1))


def _taper(size: int, shift: float = 0.0) -> Array:
    """(size,): 1 but for Hann flanks at both ends, which lie ``shift`` farther on."""
    width = min(TAPER, size // 4)
    middles = np.arange(size) + 0.5 - shift
    border = np.minimum(middles, size - middles)
    return np.asarray(np.sin(np.pi / 2 * np.clip(border / width, 0, 1)) ** 2)


def _move(data: Array, shift: tuple[float, float]) -> Array:
    """``data`` at ``shift`` (y, x) pixels beyond each of its pixels, as if it went on periodically.

    A phase ramp in Fourier space: unlike an interpolation it damps no frequency. What is moved has to fall to 0 at
    its borders, else their step rings through all of it.
    """
    if not any(shift):
        return data
    y, x = (np.fft.fftfreq(size) for size in data.shape)
    ramp = np.exp(2j * np.pi * np.add.outer(shift[0] * y, shift[1] * x))
    return np.fft.ifft2(np.fft.fft2(data) * ramp).real
