"""Twelve planted scans for ``benchmarks/guess.py``: what the microscope did, and a params file that says otherwise.

The patterns are those of the demo's microscope, with an astigmatic probe where one is planted. They are stored as a
detector would that is mounted mirrored or on its side: PtyRAD's ``meas_flipT`` of the truth brings them back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from ptydask import demo
from ptydask.demo.microscope import FINER, Experiment, pattern_intensities, simulate_probe, specimen_layers

CACHE = Path(__file__).parent / "cache" / "guess"
Flips = tuple[int, int, int]
"""PtyRAD's ``meas_flipT``: up and down, left and right, transposed, in this order."""


@dataclass(frozen=True, slots=True)
class PlantedSet:
    """The truth of one data set. Angstrom and degree; the file says rotation 0, no flips and ``nominal_c10``."""

    name: str
    rotation: float
    C10: float
    flips: Flips = (0, 0, 0)
    C12a: float = 0.0
    C12b: float = 0.0
    nominal_c10: float = 0.0
    slices: int = 1
    electrons: float = 50_000
    seed: int = 101

    def experiment(self) -> Experiment:
        """What the microscope did, but for the astigmatism."""
        return Experiment(
            pixels=64,
            scan=32,
            scan_scale=1.0,
            scan_rotation=self.rotation,
            defocus=-self.C10,
            dose=self.electrons,
            seed=self.seed,
            slices=self.slices,
        )


SETS = (
    PlantedSet("under", 17, -240, nominal_c10=-200, seed=101),
    PlantedSet("over", -38, 300, nominal_c10=250, seed=102),
    PlantedSet("quarter", 93, 200, nominal_c10=150, seed=103),
    PlantedSet("turned", 171, -320, nominal_c10=-250, seed=104),
    PlantedSet("back", -126, 400, nominal_c10=300, seed=105),
    PlantedSet("mirrored", 28, -400, (1, 0, 0), nominal_c10=-300, seed=106),
    PlantedSet("transposed", -71, 260, (0, 0, 1), nominal_c10=200, seed=107),
    PlantedSet("astigmatic", 52, 280, C12a=40, C12b=-25, nominal_c10=250, seed=108),
    PlantedSet("signwrong", -9, -160, nominal_c10=160, seed=109),
    PlantedSet("infocus", 40, 0, nominal_c10=0, seed=110),
    PlantedSet("thick", -22, -260, nominal_c10=-200, slices=12, seed=111),
    PlantedSet("lowdose", 64, 220, nominal_c10=200, electrons=300, seed=112),
)


def write(planted: PlantedSet, folder: Path = CACHE) -> Path:
    """Simulate the set where it is not there yet; returns its params file."""
    params, data = folder / f"{planted.name}.yaml", folder / f"{planted.name}.h5"
    if params.exists():
        return params
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(data, "w") as file:
        file.create_dataset("patterns", data=_mount(_simulate(planted), planted.flips), compression="gzip")
    params.write_text(_params_text(planted, data))
    return params


def unmount(patterns: NDArray[np.generic], flips: Flips) -> NDArray[np.generic]:
    """PtyRAD's ``meas_flipT`` of patterns (..., ky, kx)."""
    patterns = patterns[..., ::-1, :] if flips[0] else patterns
    patterns = patterns[..., ::-1] if flips[1] else patterns
    return np.swapaxes(patterns, -1, -2) if flips[2] else patterns


def _mount(patterns: NDArray[np.uint16], flips: Flips) -> NDArray[np.uint16]:
    """What ``unmount`` turns back."""
    patterns = np.swapaxes(patterns, -1, -2) if flips[2] else patterns
    patterns = patterns[..., ::-1] if flips[1] else patterns
    return patterns[..., ::-1, :] if flips[0] else patterns


def _simulate(planted: PlantedSet) -> NDArray[np.uint16]:
    """Counted patterns, (N, ky, kx)."""
    experiment = planted.experiment()
    rng = np.random.default_rng(planted.seed)
    layers = specimen_layers(experiment, rng)
    probe = _add_astigmatism(simulate_probe(experiment), experiment, planted)
    ideal = pattern_intensities(experiment, layers, probe)
    return np.stack([rng.poisson(experiment.dose * intensity).astype(np.uint16) for intensity in ideal])


def _add_astigmatism(
    probe: NDArray[np.complex128], experiment: Experiment, planted: PlantedSet
) -> NDArray[np.complex128]:
    """``probe`` with C12 of Krivanek's Cartesian notation, PtyRAD's ``C12a`` and ``C12b``."""
    angle = np.fft.fftfreq(FINER * experiment.pixels, experiment.pixel_size / FINER) * experiment.wavelength
    y, x = angle[:, None], angle[None, :]
    chi = np.pi / experiment.wavelength * (planted.C12a * (x**2 - y**2) + planted.C12b * 2 * x * y)
    wave = np.fft.fft2(np.fft.ifftshift(probe)) * np.exp(-1j * chi)
    return np.asarray(np.fft.fftshift(np.fft.ifft2(wave)))


def _params_text(planted: PlantedSet, data: Path) -> str:
    experiment = planted.experiment()
    params = yaml.safe_load(demo.params_text(data))
    params["init_params"] |= {
        "probe_aberrations": {"C10": planted.nominal_c10},
        "meas_Npix": experiment.pixels,
        "pos_N_scan_slow": experiment.scan,
        "pos_N_scan_fast": experiment.scan,
    }
    return yaml.safe_dump(params, sort_keys=False)
