"""Planted scans for ``benchmarks/guess.py``: what the microscope did, and a params file that says otherwise.

Lists of twelve: ``TUNED``, by which the thresholds of ``guess/parallax*.py`` were set, and lists of other specimens and
microscopes that were held out of that: to be looked at, not to be tuned to.

The patterns are those of the demo's microscope, with an astigmatic probe where one is planted. They are stored as a
detector would that is mounted mirrored or on its side: PtyRAD's ``meas_flipT`` of the truth brings them back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import yaml
from guess_specimens import SPECIMENS
from numpy.typing import NDArray

from ptydask import demo
from ptydask.demo.microscope import (
    FINER,
    Experiment,
    Specimen,
    pattern_intensities,
    scan_positions,
    simulate_probe,
)

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
    """In a pattern."""
    seed: int = 101
    specimen: str = "tungsten diselenide"
    voltage: float = 80.0
    """kV"""
    convergence: float = 24.9
    """Semi-angle, mrad."""
    step: float = 0.9
    pixel_size: float = 0.42
    slice_thickness: float = 12.0
    scale: float = 1.0
    """The true step over ``step``, which is the file's."""

    def experiment(self) -> Experiment:
        """What the microscope did, but for the astigmatism."""
        return Experiment(
            voltage=self.voltage,
            convergence=self.convergence,
            pixels=64,
            pixel_size=self.pixel_size,
            scan=32,
            scan_step=self.step,
            scan_scale=self.scale,
            scan_rotation=self.rotation,
            defocus=-self.C10,
            dose=self.electrons,
            seed=self.seed,
            slices=self.slices,
            slice_thickness=self.slice_thickness,
        )


TUNED = (
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

_STO, _GOLD, _WSE2 = ({"specimen": name} for name in ("perovskite", "gold on carbon", "tungsten diselenide"))


def _at(voltage: float, convergence: float, step: float, pixel_size: float) -> dict[str, float]:
    """A microscope and its scan: kV, mrad, angstrom, angstrom."""
    return {"voltage": voltage, "convergence": convergence, "step": step, "pixel_size": pixel_size}


HELD_OUT = (
    PlantedSet("lattice", -155, -280, nominal_c10=-220, seed=201, **_STO, **_at(200, 20, 0.6, 0.3)),
    PlantedSet("noLattice", 77, 350, nominal_c10=300, seed=202, **_GOLD, **_at(300, 15, 0.8, 0.35)),
    PlantedSet("wideAngle", 121, 310, nominal_c10=200, seed=203, **_GOLD, **_at(200, 28, 0.7, 0.36)),
    PlantedSet("lowVoltage", -100, -150, nominal_c10=-100, seed=204, **_STO, **_at(60, 30, 0.8, 0.3)),
    PlantedSet(
        "leftRight", 12, -350, (0, 1, 0), nominal_c10=-300, seed=205, **_GOLD, **_at(80, 21, 0.5, 0.42), scale=1.02
    ),
    PlantedSet("onItsSide", 140, 180, (0, 0, 1), nominal_c10=150, seed=206, **_STO, **_at(300, 22, 0.5, 0.3)),
    PlantedSet("allFlips", -60, 240, (1, 1, 1), nominal_c10=200, seed=207, **_GOLD, **_at(200, 22, 0.6, 0.33)),
    PlantedSet(
        "elongated",
        -5,
        -220,
        C12a=-30,
        C12b=35,
        nominal_c10=-200,
        seed=208,
        **_STO,
        **_at(80, 21.4, 0.7, 0.42),
        scale=0.98,
    ),
    PlantedSet("wrongSign", 165, 200, nominal_c10=-200, seed=209, **_GOLD, **_at(300, 25, 0.6, 0.3)),
    PlantedSet("focused", -83, 0, seed=210, **_GOLD, **_at(200, 21, 0.6, 0.33)),
    PlantedSet(
        "slab", 33, -300, nominal_c10=-250, slices=8, slice_thickness=20, seed=211, **_STO, **_at(200, 20, 0.6, 0.3)
    ),
    PlantedSet(
        "fewElectrons", -140, -260, nominal_c10=-200, electrons=200, seed=212, **_GOLD, **_at(200, 20, 0.6, 0.33)
    ),
)
FRESH = (
    PlantedSet("square", -172, 320, nominal_c10=250, seed=301, **_STO, **_at(300, 24, 0.7, 0.3)),
    PlantedSet("clusters", 100, -130, nominal_c10=-150, seed=302, **_GOLD, **_at(80, 21.4, 0.6, 0.42)),
    PlantedSet("lowest", -47, 220, nominal_c10=180, seed=303, **_WSE2, **_at(60, 32, 0.8, 0.33)),
    PlantedSet("widest", 8, -260, nominal_c10=-200, seed=304, **_GOLD, **_at(300, 30, 0.8, 0.3)),
    PlantedSet("halfTurn", 72, -240, (1, 1, 0), nominal_c10=-200, seed=305, **_STO, **_at(200, 20, 0.6, 0.3)),
    PlantedSet("quarterTurn", -20, 370, (0, 1, 1), nominal_c10=300, seed=306, **_GOLD, **_at(80, 21, 0.8, 0.42)),
    PlantedSet("otherQuarter", 118, -190, (1, 0, 1), nominal_c10=-150, seed=307, **_WSE2, **_at(200, 24, 0.6, 0.3)),
    PlantedSet("stretched", -129, 260, C12a=50, C12b=20, nominal_c10=200, seed=308, **_GOLD, **_at(200, 22, 0.7, 0.33)),
    PlantedSet("nearFocus", 55, 30, nominal_c10=50, seed=309, **_STO, **_at(200, 20, 0.6, 0.3)),
    PlantedSet("opposite", 24, -300, nominal_c10=250, seed=310, **_WSE2, **_at(300, 20, 0.7, 0.3)),
    PlantedSet(
        "block", -66, 300, nominal_c10=250, slices=10, slice_thickness=15, seed=311, **_GOLD, **_at(80, 21.4, 0.8, 0.42)
    ),
    PlantedSet("dim", 150, -200, nominal_c10=-150, electrons=400, seed=312, **_WSE2, **_at(60, 28, 0.8, 0.36)),
)
_GAAS, _CERIA = {"specimen": "gallium arsenide"}, {"specimen": "ceria on carbon"}
LAST = (
    PlantedSet("dumbbells", -163, -400, nominal_c10=-300, seed=401, **_GAAS, **_at(200, 20, 0.6, 0.33)),
    PlantedSet("filmEdge", 46, 400, nominal_c10=300, seed=402, **_CERIA, **_at(300, 18, 0.8, 0.35)),
    PlantedSet("rectangle", 109, 150, nominal_c10=100, seed=403, **_GAAS, **_at(120, 24, 0.7, 0.4)),
    PlantedSet("particles", -44, -200, nominal_c10=-250, seed=404, **_CERIA, **_at(80, 22, 0.8, 0.42)),
    PlantedSet("upsideDown", 84, -320, (1, 0, 0), nominal_c10=-250, seed=405, **_CERIA, **_at(200, 25, 0.6, 0.3)),
    PlantedSet("exchanged", -104, 240, (0, 0, 1), nominal_c10=200, seed=406, **_GAAS, **_at(300, 24, 0.5, 0.3)),
    PlantedSet("thirdQuarter", 133, -120, (0, 1, 1), nominal_c10=-100, seed=407, **_CERIA, **_at(60, 28, 0.7, 0.42)),
    PlantedSet("oval", 21, 300, C12a=25, C12b=-45, nominal_c10=250, seed=408, **_GAAS, **_at(200, 22, 0.7, 0.33)),
    PlantedSet("otherSign", -78, 180, nominal_c10=-180, seed=409, **_CERIA, **_at(200, 21, 0.6, 0.33)),
    PlantedSet("sharp", -13, 0, seed=410, **_GAAS, **_at(200, 21, 0.6, 0.33)),
    PlantedSet("tall", 178, -350, nominal_c10=-300, slices=10, seed=411, **_GAAS, **_at(300, 22, 0.6, 0.3)),
    PlantedSet("faint", -131, 260, nominal_c10=200, electrons=300, seed=412, **_CERIA, **_at(80, 21.4, 0.8, 0.42)),
)
BY_ABTEM = (
    PlantedSet("monolayer", 64, -200, nominal_c10=-150, specimen="wse2", slice_thickness=1),
    PlantedSet("tenCells", -110, 180, nominal_c10=150, specimen="srtio3", slice_thickness=40),
    PlantedSet("thirtyCells", 35, -250, nominal_c10=-200, specimen="srtio3", slice_thickness=120),
)
"""Made by abTEM, whose physics is not the demo's: microscopes and doses are those of ``abtem_data.py``."""
LISTS = {"tuned": TUNED, "held out": HELD_OUT, "fresh": FRESH, "last": LAST, "abTEM": BY_ABTEM}
"""By what the table calls them."""


def write(planted: PlantedSet, folder: Path = CACHE) -> Path:
    """Simulate the set where it is not there yet; returns its params file."""
    params, data = folder / f"{planted.name}.yaml", folder / f"{planted.name}.h5"
    if params.exists():
        return params
    if planted in BY_ABTEM:
        return _write_by_abtem(planted, folder / planted.name)
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(data, "w") as file:
        file.create_dataset("patterns", data=_mount(_simulate(planted), planted.flips), compression="gzip")
    params.write_text(_params_text(planted, data))
    return params


def _write_by_abtem(planted: PlantedSet, folder: Path) -> Path:
    if (folder / demo.PARAMS).exists():
        return folder / demo.PARAMS
    import abtem_data

    setup = abtem_data.SETUPS[planted.specimen]
    beam = {"C10": planted.C10, "nominal_c10": planted.nominal_c10}
    changed = replace(setup, **beam, thickness=planted.slice_thickness, slices=1, scan=32)
    truth = {"rotation": planted.rotation}
    return abtem_data.write(planted.specimen, folder, truth, changed)


def _mount(patterns: NDArray[np.uint16], flips: Flips) -> NDArray[np.uint16]:
    """What PtyRAD's ``meas_flipT`` turns back."""
    patterns = np.swapaxes(patterns, -1, -2) if flips[2] else patterns
    patterns = patterns[..., ::-1] if flips[1] else patterns
    return patterns[..., ::-1, :] if flips[0] else patterns


def _simulate(planted: PlantedSet) -> NDArray[np.uint16]:
    """Counted patterns, (N, ky, kx)."""
    experiment = planted.experiment()
    rng = np.random.default_rng(planted.seed)
    layers = _specimen_layers(planted, experiment, rng)
    probe = _add_astigmatism(simulate_probe(experiment), experiment, planted)
    ideal = pattern_intensities(experiment, layers, probe)
    return np.stack([rng.poisson(experiment.dose * intensity).astype(np.uint16) for intensity in ideal])


def _specimen_layers(planted: PlantedSet, experiment: Experiment, rng: np.random.Generator) -> list[Specimen]:
    """As large as any probe of the scan reaches; each layer with its own vacancies."""
    half_side = float(np.abs(scan_positions(experiment)).max()) + experiment.pixels * experiment.pixel_size
    return [SPECIMENS[planted.specimen](half_side, rng) for _ in range(experiment.slices)]


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
        "probe_kv": planted.voltage,
        "probe_conv_angle": planted.convergence,
        "probe_aberrations": {"C10": planted.nominal_c10},
        "meas_calibration": {"mode": "dx", "value": planted.pixel_size},
        "pos_scan_step_size": planted.step,
        "meas_Npix": experiment.pixels,
        "pos_N_scan_slow": experiment.scan,
        "pos_N_scan_fast": experiment.scan,
    }
    return yaml.safe_dump(params, sort_keys=False)
