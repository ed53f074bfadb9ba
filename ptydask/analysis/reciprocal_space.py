"""Object and probe in reciprocal space, on axes in 1/angstrom. Pure functions of arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptydask.model import Image

_MOST_RINGS = 4
_SMALLEST = 4
"""Pixels along a side below which a spectrum says nothing."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A circle of the scale of a spectrum."""

    frequency: float
    """Its radius, 1/angstrom."""

    @property
    def spacing(self) -> float:
        """The distance of the lattice planes whose spots lie on it, angstrom."""
        return 1 / self.frequency


@dataclass(frozen=True, slots=True)
class ReciprocalProbe:
    """The modes of a probe in the plane of the aperture, the beam's axis at the pixel where ``ky`` and ``kx`` are 0."""

    modes: NDArray[np.complexfloating]
    """(pmode, ky, kx); the sum of |modes|^2 is that of the probe in real space."""
    ky: NDArray[np.float64]
    """1/angstrom, rising."""
    kx: NDArray[np.float64]
    wavelength: float | None = None
    """angstrom; None where it is not known."""

    @property
    def angles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """``ky`` and ``kx`` as angles to the beam in mrad, wavelength * k; None where the wavelength is not known."""
        if self.wavelength is None:
            return None
        return self.ky * self.wavelength * 1e3, self.kx * self.wavelength * 1e3

    @property
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
        """Both axes and their unit: ``mrad`` where the wavelength is known, else ``1/angstrom``."""
        return (*self.angles, "mrad") if self.angles is not None else (self.ky, self.kx, "1/angstrom")

    @property
    def intensity(self) -> NDArray[np.float64]:
        """(ky, kx): of all modes together."""
        return np.asarray((np.abs(self.modes) ** 2).sum(0), dtype=np.float64)


def power_spectrum(data: NDArray[np.generic], pixel_size: float) -> Image:
    """The power spectral density of a (y, x) image, real or complex, as log10: a lattice is spots at its frequencies.

    The mean is taken off and a Hann window put over the image, so that neither its borders nor its constant show.
    With the window w over N pixels of size d it is ``d^2 |FFT(w (f - mean f))|^2 / sum(w^2)``, whose integral over
    both axes is the windowed mean square of ``f - mean f`` (Press et al., Numerical Recipes, 13.4). ``y`` and ``x``
    of the result are frequencies in 1/angstrom, rising, 0 at pixel n // 2. ``pixel_size`` is in angstrom.
    Raises ValueError for an image smaller than 4 pixels along a side, with other axes, or with NaN in it.
    """
    values = np.asarray(data)
    if values.ndim != 2 or min(values.shape) < _SMALLEST:
        raise ValueError(f"an image of shape {values.shape} has no spectrum: it takes {_SMALLEST} pixels along a side")
    if not np.isfinite(values).all():
        raise ValueError("the image has values that are no numbers")
    window = hann_window(values.shape)
    transform = np.fft.fftshift(np.fft.fft2(window * (values - values.mean(dtype=np.complex128))))
    density = np.abs(transform) ** 2 * pixel_size**2 / (window**2).sum()
    # Sixteen digits below the highest spot there is nothing but rounding, and zero has no logarithm.
    floor = max(float(density.max()) * 1e-16, np.finfo(np.float64).tiny)
    y, x = (np.fft.fftshift(np.fft.fftfreq(size, pixel_size)) for size in values.shape)
    return Image(np.log10(np.maximum(density, floor)), y, x, "log10 of power", "1/angstrom", "Power spectrum")


def choose_rings(limit: float) -> tuple[Ring, ...]:
    """Circles at round frequencies within ``limit`` in 1/angstrom, at most four."""
    return tuple(map(Ring, round_values(limit)))


def round_values(limit: float) -> tuple[float, ...]:
    """Multiples of 1, 2 or 5 times a power of ten up to ``limit``, at most four; none without a limit above 0."""
    if not (math.isfinite(limit) and limit > 0):
        return ()
    power = 10.0 ** math.floor(math.log10(limit / _MOST_RINGS))
    step = next(m * power for m in (1, 2, 5, 10) if limit < (_MOST_RINGS + 1) * m * power)
    return tuple(float(f"{n * step:.6g}") for n in range(1, int(limit / step * (1 + 1e-9)) + 1))


def mode_shares(probe: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """(pmode,): the part of each mode of a (pmode, y, x) probe in the total intensity; their sum is 1.

    All are NaN for a probe without intensity.
    """
    power = (np.abs(probe) ** 2).sum((-2, -1), dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(power / power.sum())


def transform_probe(
    probe: NDArray[np.complexfloating], pixel_size: float, wavelength: float | None = None
) -> ReciprocalProbe:
    """A (pmode, y, x) probe, whose centre is pixel n // 2, in reciprocal space.

    ``pixel_size`` and ``wavelength`` are in angstrom. The transform is unitary.
    """
    axes = (-2, -1)
    modes = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(probe, axes=axes), norm="ortho"), axes=axes)
    ky, kx = (np.fft.fftshift(np.fft.fftfreq(size, pixel_size)) for size in probe.shape[-2:])
    return ReciprocalProbe(modes, ky, kx, wavelength)


def hann_window(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(y, x): 1 in the middle, nearly 0 at the borders."""
    return np.multiply.outer(*(np.hanning(size + 2)[1:-1] for size in shape))
