"""A simulated 4D-STEM experiment in numpy: specimen, probe, scan, counted electrons.

Axes and signs are PtyRAD's: positions are rows of (y, x); the scan affine multiplies a centred row from
the right; the phase of the probe is ``exp(-i chi)`` with ``C10 = -defocus``; the beam is at the centre of
a pattern; a tilt is in PtyRAD's propagator. The phase of the specimen is evaluated at the exact positions
and on a grid twice as fine as the reconstruction's, so that the data do not come from the very model that
fits them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptydask.space.scan_affine import affine_matrix

FINER = 2
"""Grid points of the simulation for each pixel of the reconstruction."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the microscope did. Lengths in angstrom, angles as named."""

    voltage: float = 80.0
    """kV"""
    convergence: float = 24.9
    """Semi-angle, mrad."""
    pixels: int = 48
    """Detector pixels along a side."""
    pixel_size: float = 0.42
    """Of the reconstruction: the detector reaches ``wavelength / (2 * pixel_size)`` rad."""
    scan: int = 24
    """Positions along a side."""
    scan_step: float = 0.9
    """As the scan generator's dial says; the true one is ``scan_scale`` times this."""
    scan_scale: float = 1.04
    scan_rotation: float = -1.5
    """Degrees."""
    defocus: float = -240.0
    """``-C10``: negative is overfocus."""
    dose: float = 1.0e6
    """Electrons in a pattern."""
    seed: int = 1
    scan_asymmetry: float = 0.0
    scan_shear: float = 0.0
    """Degrees."""
    slices: int = 1
    """Layers of the specimen, one above the other."""
    slice_thickness: float = 12.0
    """From one layer to the next."""
    tilt_y: float = 0.0
    """Of the specimen, mrad, as ``tilt_x``."""
    tilt_x: float = 0.0

    @property
    def wavelength(self) -> float:
        """Of the electron, relativistic, angstrom (Kirkland, Advanced Computing in Electron Microscopy, eq. 2.5)."""
        hc, rest = 12.398419843320026, 510.99895
        return hc / math.sqrt(self.voltage * (2 * rest + self.voltage))


@dataclass(frozen=True, slots=True)
class Specimen:
    """Projected atoms: each a Gaussian of the transmitted wave's phase."""

    yx: NDArray[np.float64]
    """(atoms, 2), angstrom."""
    phase: NDArray[np.float64]
    """(atoms,), the peak in rad."""
    width: float = 0.42
    """Standard deviation, angstrom."""


def tungsten_diselenide(half_side: float, rng: np.random.Generator) -> Specimen:
    """A monolayer of 1H-WSe2 in plan view, turned, with selenium vacancies, over (-half_side, half_side).

    Without the vacancies a scan that is off by a lattice vector at its far end would fit as well.
    """
    a, turn = 3.28, math.radians(11.0)
    reach = math.ceil(2 * half_side / a) + 2
    i, j = (grid.ravel() for grid in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    metal = np.stack([j * a * math.sqrt(3) / 2, (i + j / 2) * a], axis=1)
    chalcogen = metal + np.array([a / math.sqrt(3), 0.0])
    kind = rng.choice([1.0, 0.5, 0.0], size=len(chalcogen), p=[0.90, 0.07, 0.03])
    yx = np.concatenate([metal, chalcogen])
    yx = yx @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    phase = np.concatenate([np.full(len(metal), 0.55), 0.45 * kind])
    inside = (np.abs(yx).max(axis=1) < half_side) & (phase > 0)
    return Specimen(yx[inside], phase[inside])


def simulate_probe(experiment: Experiment) -> NDArray[np.complex128]:
    """The wave at the specimen, (FINER * pixels) squared, centred, of intensity 1."""
    points, step = FINER * experiment.pixels, experiment.pixel_size / FINER
    k = np.fft.fftfreq(points, step)
    angle = np.hypot(k[:, None], k[None, :]) * experiment.wavelength
    chi = 2 * np.pi / experiment.wavelength * (-experiment.defocus) * angle**2 / 2
    wave = np.fft.ifft2((angle <= experiment.convergence * 1e-3) * np.exp(-1j * chi))
    wave = np.fft.fftshift(wave)
    return np.asarray(wave / np.sqrt(np.sum(np.abs(wave) ** 2)))


def scan_positions(experiment: Experiment) -> NDArray[np.float64]:
    """Where the probe truly was: (scan * scan, 2), (y, x) in angstrom around the centre, slow axis first."""
    line = (np.arange(experiment.scan) - (experiment.scan - 1) / 2) * experiment.scan_step
    dial = np.stack([axis.ravel() for axis in np.meshgrid(line, line, indexing="ij")], axis=1)
    return np.asarray(dial @ scan_affine(experiment))


def scan_affine(experiment: Experiment) -> NDArray[np.float64]:
    """(2, 2): what turns the dial's positions into the true ones."""
    scale, asymmetry = experiment.scan_scale, experiment.scan_asymmetry
    return np.array(affine_matrix(scale, asymmetry, experiment.scan_rotation, experiment.scan_shear))


def slice_propagator(experiment: Experiment) -> NDArray[np.complex128]:
    """What takes a wave's Fourier transform from one layer to the next, (FINER * pixels) squared, zero at the corner.

    The angular spectrum with a tilt, on PtyRAD's grid (``PtychoModel.create_grids``, ``get_propagators``): that grid
    lies half a pixel beside the frequencies of the transform, which acts as a tilt of its own, of
    ``-wavelength / (2 * pixels * pixel_size)`` rad along both axes. A tilt planted here is the one that PtyRAD finds.
    """
    points, window = FINER * experiment.pixels, experiment.pixels * experiment.pixel_size
    k = 2 * np.pi * np.fft.ifftshift(np.arange(-points // 2, points // 2) + 0.5) / window
    ky, kx = k[:, None], k[None, :]
    along = np.sqrt((2 * np.pi / experiment.wavelength) ** 2 - ky**2 - kx**2)
    tilt = ky * math.tan(experiment.tilt_y * 1e-3) + kx * math.tan(experiment.tilt_x * 1e-3)
    return np.asarray(np.exp(1j * experiment.slice_thickness * (along + tilt)))


def simulate_patterns(experiment: Experiment) -> NDArray[np.uint16]:
    """The counted diffraction patterns, (scan * scan, pixels, pixels)."""
    rng = np.random.default_rng(experiment.seed)
    layers = specimen_layers(experiment, rng)
    counts = np.empty((experiment.scan**2, experiment.pixels, experiment.pixels), dtype=np.uint16)
    for number, intensity in enumerate(pattern_intensities(experiment, layers)):
        counts[number] = rng.poisson(experiment.dose * intensity)
    return counts


def specimen_layers(experiment: Experiment, rng: np.random.Generator) -> list[Specimen]:
    """The experiment's specimen, as large as any probe of the scan reaches; each layer with its own vacancies."""
    window = experiment.pixels * experiment.pixel_size
    half_side = float(np.abs(scan_positions(experiment)).max()) + window
    return [tungsten_diselenide(half_side, rng) for _ in range(experiment.slices)]


def pattern_intensities(
    experiment: Experiment, layers: Sequence[Specimen], probe: NDArray[np.complex128] | None = None
) -> Iterator[NDArray[np.float64]]:
    """What the detector would see of each position's beam of intensity 1 without counting: (pixels, pixels) each.

    ``probe`` is the wave at the specimen, as :func:`simulate_probe` gives it; None is the experiment's own.
    """
    probe, propagator = simulate_probe(experiment) if probe is None else probe, slice_propagator(experiment)
    points, step = FINER * experiment.pixels, experiment.pixel_size / FINER
    axis = np.asarray((np.arange(points) - points // 2) * step, dtype=np.float64)
    for centre in scan_positions(experiment):
        exit_wave = probe * np.exp(1j * specimen_phase(layers[0], centre, axis))
        for layer in layers[1:]:
            exit_wave = np.fft.ifft2(propagator * np.fft.fft2(exit_wave))
            exit_wave *= np.exp(1j * specimen_phase(layer, centre, axis))
        intensity = np.fft.fftshift(np.abs(np.fft.fft2(exit_wave, norm="ortho")) ** 2)
        edge = (FINER - 1) * experiment.pixels // 2
        yield intensity[edge : edge + experiment.pixels, edge : edge + experiment.pixels]


def specimen_phase(specimen: Specimen, centre: NDArray[np.float64], axis: NDArray[np.float64]) -> NDArray[np.float64]:
    """The specimen's phase in rad on the square grid ``centre + axis`` (angstrom): a sum of separable Gaussians."""
    near = np.abs(specimen.yx - centre).max(axis=1) < np.abs(axis).max() + 4 * specimen.width
    offset = (specimen.yx[near] - centre)[:, :, None] - axis
    y, x = np.moveaxis(np.exp(-(offset**2) / (2 * specimen.width**2)), 1, 0)
    return np.asarray(np.einsum("a,ay,ax->yx", specimen.phase[near], y, x, optimize=True))
