"""Data by abTEM, whose physics is not the demo's: patterns of a planted scan, and a params file that PtyRAD reads.

    python benchmarks/abtem_data.py wse2 FOLDER

Needs the extra ``bench``. abTEM's first axis is called y here, and its second x, throughout: a scan affine keeps its
sense. The wave fills a cell that is a whole number of times as wide as the reconstruction's window; every so many-th
point of its diffraction pattern is where the detector has a pixel. abTEM's probe and propagator have the signs of
PtyRAD's (C10 = -defocus).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from numpy.typing import NDArray

from ptydask import demo
from ptydask.demo.geometry import RANGES
from ptydask.demo.microscope import Experiment, scan_affine
from ptydask.errors import import_optional

BATCH = 48
"""Positions that are computed together."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A microscope and its specimen. Lengths in angstrom."""

    voltage: float
    """kV"""
    convergence: float
    """mrad"""
    C10: float
    nominal_c10: float
    """What the params file takes it for."""
    pixel_size: float
    scan_step: float
    electrons: float
    """In a pattern."""
    slices: int
    """Of the reconstruction."""
    thickness: float
    cells: int = 2
    """Windows along a side of the simulated cell."""
    finer: int = 2
    pixels: int = 64
    scan: int = 24
    seed: int = 1

    @property
    def width(self) -> float:
        """Of the simulated cell."""
        return self.cells * self.pixels * self.pixel_size


SETUPS = {
    "wse2": Setup(80, 24.9, 150, 140, 0.3, 0.85, 50_000, slices=1, thickness=1.0),
    "srtio3": Setup(200, 20.0, 100, 90, 0.2, 0.4, 100_000, slices=4, thickness=40.0),
}


def write(name: str, folder: Path, truth: Mapping[str, float], setup: Setup | None = None) -> Path:
    """Simulate the scan of the specimen ``name`` with the affine ``truth``; returns the params file.

    ``setup`` is another than that of ``SETUPS``. Raises MissingDependency without abTEM.
    """
    setup = setup or SETUPS[name]
    affine = {f"scan_{key}": value for key, value in truth.items()}
    experiment = Experiment(scan=setup.scan, scan_step=setup.scan_step, **{"scan_rotation": 0.0, **affine})
    line = (np.arange(setup.scan) - (setup.scan - 1) / 2) * setup.scan_step
    dial = np.stack([axis.ravel() for axis in np.meshgrid(line, line, indexing="ij")], axis=1)
    positions = dial @ scan_affine(experiment)
    patterns = _simulate(name, setup, positions)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / demo.DATA, "w") as file:
        file.create_dataset("patterns", data=patterns, compression="gzip", shuffle=True)
        file.create_dataset("positions", data=positions)
        file.attrs.update({f"planted_{key}": value for key, value in truth.items()})
    params = folder / demo.PARAMS
    params.write_text(_params_text(setup, folder / demo.DATA, truth))
    return params


def _simulate(name: str, setup: Setup, positions: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Counted patterns, (N, ky, kx)."""
    abtem = import_optional("abtem", "data by abTEM need", "bench")
    abtem.config.set({"device": "cpu", "fft": "numpy", "local_diagnostics.progress_bar": False})
    rng = np.random.default_rng(setup.seed)
    points, centre = setup.cells * setup.finer * setup.pixels, setup.width / 2
    atoms = (_tungsten_diselenide if name == "wse2" else _strontium_titanate)(setup, rng)
    potential = abtem.Potential(atoms, gpts=points, slice_thickness=2.0, projection="infinite").build(lazy=False)
    probe = abtem.Probe(energy=1e3 * setup.voltage, semiangle_cutoff=setup.convergence, defocus=-setup.C10)
    probe.grid.match(potential)
    counts = np.empty((len(positions), setup.pixels, setup.pixels), dtype=np.uint16)
    for start in range(0, len(positions), BATCH):
        scan = abtem.CustomScan(positions[start : start + BATCH] + centre)
        waves = probe.multislice(potential, scan=scan, lazy=False).array
        intensity = np.abs(np.fft.fft2(waves)) ** 2
        intensity /= intensity.sum((1, 2), keepdims=True)
        seen = np.fft.fftshift(intensity[:, :: setup.cells, :: setup.cells], axes=(1, 2)) * setup.cells**2
        edge = (setup.finer - 1) * setup.pixels // 2
        seen = seen[:, edge : edge + setup.pixels, edge : edge + setup.pixels]
        counts[start : start + BATCH] = rng.poisson(setup.electrons * seen)
    return counts


def _tungsten_diselenide(setup: Setup, rng: np.random.Generator) -> Any:
    """A monolayer, turned by 11 degrees, every twelfth selenium atom missing."""
    build = import_optional("ase.build", "data by abTEM need", "bench", "ase")
    cells = int(setup.width / 2.5) + 4
    atoms = build.mx2("WSe2", kind="2H", a=3.297, thickness=3.34, vacuum=2.0).repeat((cells, cells, 1))
    atoms = atoms[(atoms.numbers != 34) | (rng.random(len(atoms)) > 1 / 12)]
    atoms.rotate(11.0, "z")
    return _cut(atoms, setup.width, 7.34)


def _strontium_titanate(setup: Setup, _: np.random.Generator) -> Any:
    """Along [001], turned by 7 degrees, as thick as the setup says to within half a cell."""
    spacegroup = import_optional("ase.spacegroup", "data by abTEM need", "bench", "ase")
    a = 3.905
    basis = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
    cell = spacegroup.crystal(("Sr", "Ti", "O"), basis=basis, spacegroup=221, cellpar=[a, a, a, 90, 90, 90])
    across, along = int(1.5 * setup.width / a) + 4, round(setup.thickness / a)
    atoms = cell.repeat((across, across, along))
    atoms.rotate(7.0, "z")
    return _cut(atoms, setup.width, along * a)


def _cut(atoms: Any, width: float, thickness: float) -> Any:
    """The atoms within a box of ``width`` around their middle."""
    atoms.positions[:, :2] += width / 2 - atoms.positions[:, :2].mean(0)
    inside = (atoms.positions[:, :2] >= 0).all(1) & (atoms.positions[:, :2] < width).all(1)
    atoms = atoms[inside]
    atoms.set_cell([width, width, thickness])
    atoms.set_pbc(True)
    return atoms


def _params_text(setup: Setup, data: Path, truth: Mapping[str, float]) -> str:
    params = yaml.safe_load(demo.params_text(data))
    params["init_params"] |= {
        "probe_kv": setup.voltage,
        "probe_conv_angle": setup.convergence,
        "probe_aberrations": {"C10": setup.nominal_c10},
        "meas_Npix": setup.pixels,
        "meas_calibration": {"mode": "dx", "value": setup.pixel_size},
        "pos_N_scan_slow": setup.scan,
        "pos_N_scan_fast": setup.scan,
        "pos_scan_step_size": setup.scan_step,
        "obj_Nlayer": setup.slices,
        "obj_slice_thickness": setup.thickness / setup.slices,
    }
    params["hypertune_params"]["tune_params"] = {name: _tuned(name) for name in truth}
    return yaml.safe_dump(params, sort_keys=False)


def _tuned(name: str) -> dict[str, Any]:
    limits = RANGES[name]
    kwargs = {"low": limits.low, "high": limits.high, "step": limits.step}
    return {"state": True, "suggest": "float", "kwargs": kwargs}


if __name__ == "__main__":
    from search_problems import PROBLEMS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SETUPS)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    print(write(args.name, args.folder, PROBLEMS[args.name].truth))
