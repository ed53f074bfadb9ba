"""Planted problems for metrics: data whose specimen is known, a parameter, the values to choose from.

Those that are held apart are not for making decisions by: what a metric is, and what the documentation recommends, is
decided on the others and then looked at on them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptydask import demo
from ptydask.analysis.registration import subtract_images
from ptydask.config import Overrides
from ptydask.demo.microscope import Experiment, Specimen, pattern_intensities, scan_positions, specimen_layers
from ptydask.demo.microscope import specimen_phase as phase_of
from ptydask.driver.prepare import complete_plan
from ptydask.model import Image, Scalar, StudyPlan
from ptydask.store.foreign import demo_data

CACHE = Path(__file__).parent / "cache" / "metrics"
"""Data, and what came of each reconstruction; not committed."""
SCAN, PIXELS = 16, 48
"""Positions and detector pixels along a side: small, so that a reconstruction takes seconds."""
GROUPS = ("open", "apart", "share")
"""Problems that decisions were made by, those that are held apart, and some of the first with other shares held out."""
_TWIST = 27.0
"""Degrees by which each layer of a thick specimen is turned against the one before."""
_MARGIN = 6
"""Pixels by which the true image is larger than the reconstructed one, all around."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """A simulated scan; each seed has other vacancies and other noise."""

    name: str
    truth: Experiment
    states: float = 0.0
    """Angstrom along x from the middle to either of two places of the source, which are not coherent: two modes."""
    twist: float = _TWIST
    width: float = 0.42
    """Standard deviation of an atom's phase, angstrom."""

    def layers(self, seed: int) -> list[Specimen]:
        """The specimen."""
        layers = specimen_layers(self.truth, np.random.default_rng((seed, 0)))
        return [replace(_turn(layer, number * self.twist), width=self.width) for number, layer in enumerate(layers)]

    def write(self, seed: int) -> Path:
        """Make data and params file where they are not there; returns the params file."""
        folder = CACHE / "data" / f"{self.name}-{seed}"
        params = folder / demo.PARAMS
        if not params.exists():
            folder.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng((seed, 1))
            counts = rng.poisson(self.truth.dose * self._intensities(seed)).astype(np.uint16)
            truth = replace(self.truth, seed=seed)
            demo_data.write(folder / demo.DATA, truth, counts, scan_positions(truth))
            params.write_text(demo.params_text(folder / demo.DATA))
        return params

    def _intensities(self, seed: int) -> NDArray[np.float64]:
        places = (-self.states, self.states) if self.states else (0.0,)
        layers = self.layers(seed)
        shifted = ([replace(one, yx=one.yx + np.array([0.0, place])) for one in layers] for place in places)
        seen = [np.array(list(pattern_intensities(self.truth, specimen))) for specimen in shifted]
        return np.asarray(np.mean(seen, axis=0))

    def settings(self) -> dict[str, Any]:
        """Of the params file: the truth, but for what a problem then varies."""
        truth = self.truth
        return {
            "init_params.probe_aberrations": {"C10": -truth.defocus},
            "init_params.pos_N_scan_slow": truth.scan,
            "init_params.pos_N_scan_fast": truth.scan,
            "init_params.pos_scan_affine": [truth.scan_scale, 0.0, truth.scan_rotation, 0.0],
            "init_params.tilt_params": {"tilt_type": "all", "init_tilts": [[truth.tilt_y, truth.tilt_x]]},
            "init_params.obj_Nlayer": truth.slices,
            "init_params.obj_slice_thickness": truth.slice_thickness,
            "init_params.probe_pmode_max": 1 + (self.states > 0),
            "recon_params.BATCH_SIZE": {"size": 16, "grad_accumulation": 1},
        }

    def object_error(self, image: Image, seed: int) -> float:
        """How far a reconstructed phase is from the specimen's: the root mean square of their difference, without its
        shift, constant and ramp, over the standard deviation of the truth."""
        centre = np.array([(axis[0] + axis[-1]) / 2 for axis in (image.y, image.x)])
        step = (image.y[-1] - image.y[0]) / (len(image.y) - 1)
        half = max(image.data.shape) / 2 + _MARGIN
        axis = np.asarray(np.arange(-half + 0.5, half) * step)
        layers = self.layers(seed)
        phase = np.sum([phase_of(layer, np.zeros(2), axis) for layer in layers], axis=0)
        truth = Image(phase, axis + centre[0], axis + centre[1], image.units, image.axis_units, "specimen")
        inner = phase[_MARGIN : _MARGIN + len(image.y), _MARGIN : _MARGIN + len(image.x)]
        level = replace(image, data=image.data - _plane(image.data - inner))
        difference = subtract_images(level, truth).image.data
        return float((difference - _plane(difference)).std() / inner.std())


def _turn(layer: Specimen, degrees: float) -> Specimen:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return replace(layer, yx=layer.yx @ np.array([[cos, sin], [-sin, cos]]))


def _plane(data: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The plane through ``data`` by least squares: with a phase, where the beam's tilt and the image's origin go."""
    y, x = np.indices(data.shape).reshape(2, -1)
    terms = np.stack([np.ones_like(y), y, x], axis=1).astype(np.float64)
    plane = np.linalg.lstsq(terms, data.reshape(-1).astype(np.float64), rcond=None)[0]
    return np.asarray((terms @ plane).reshape(data.shape))


@dataclass(frozen=True, slots=True)
class Problem:
    """A parameter, and the values of it that a metric chooses from."""

    name: str
    what: str
    data: DataSet
    parameter: str
    """A tunable, or a key of the params file (with dots)."""
    values: tuple[Scalar, ...]
    iterations: int = 16
    settings: Mapping[str, Any] = field(default_factory=dict)
    group: str = "open"
    """One of :data:`GROUPS`."""

    @property
    def is_setting(self) -> bool:
        """The parameter is nothing that PtyRAD tunes, but a key of the file."""
        return "." in self.parameter

    def plan(self, value: Scalar, seed: int, metric: str) -> StudyPlan:
        """The study of one reconstruction with ``value``."""
        settings = {
            **self.data.settings(),
            "recon_params.NITER": self.iterations,
            "hypertune_params.pruner_params": None,
            **copy.deepcopy(dict(self.settings)),  # its mappings become the plan's, where a value then changes
        }
        if self.is_setting:
            settings[self.parameter] = value
        path = self.data.write(seed)
        settings["init_params.meas_params"] = {"path": str(path.with_name(demo.DATA)), "key": "patterns"}  # it may move
        return complete_plan(path, Overrides(settings=tuple(settings.items()), metric=metric, seed=seed))

    def params(self, value: Scalar) -> dict[str, Scalar]:
        """What a trial with ``value`` is given, beside the plan's settings."""
        return {} if self.is_setting else {self.parameter: value}

    def identity(self, number: int) -> str:
        """Of all that decides what a reconstruction computes, but for the value, and of ``number``."""
        said = [number, self.parameter, self.iterations, self.settings, asdict(self.data)]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _rates(phase: float, probe: float) -> dict[str, Any]:
    """Learning rates with which a reconstruction is at rest after its iterations."""
    rates = {"objp": phase, "obja": phase / 5, "probe": probe}
    return {f"model_params.update_params.{name}.lr": rate for name, rate in rates.items()}


_COUNTED = {
    "loss_params.loss_single": {"state": False},
    "loss_params.loss_poissn": {"state": True, "weight": 1.0, "dp_pow": 1.0, "eps": 1e-6},
}
"""PtyRAD's loss for counted electrons: with the other one the phase shrinks where a pixel has less than a few."""
_BLUR = {"constraint_params.obj_rblur": {"start_iter": 1, "step": 1, "kernel_size": 5, "std": 0.0, "obj_type": "both"}}
_DEPTH = {"constraint_params.obj_zblur": {"start_iter": 1, "step": 1, "kernel_size": 5, "std": 0.0, "obj_type": "both"}}
_COLUMNS = {"constraint_params.obj_zblur": {"start_iter": 1}}
_SPARSE = {"loss_params.loss_sparse": {"state": True, "weight": 0.0, "ln_order": 1}}


def _scan(dose: float, **changes: Any) -> Experiment:
    nominal = {"scan_scale": 1.0, "scan_rotation": 0.0}
    return Experiment(scan=SCAN, pixels=PIXELS, dose=dose, **{**nominal, **changes})


def _thin(dose: float) -> DataSet:
    return DataSet(f"thin-{dose:.0e}", _scan(dose))


def _thick(name: str, dose: float, **changes: Any) -> DataSet:
    return DataSet(f"{name}-{dose:.0e}", _scan(dose, slices=4, slice_thickness=12.0), **changes)


def _regularisers(dose: float, share: float | None = None) -> tuple[Problem, Problem]:
    """Two on the same data, with another share held out than ptydask's own."""
    soft = DataSet(f"soft-{dose:.0e}", _scan(dose), width=0.55)
    settings = {**_COUNTED, **_rates(2e-2, 1e-3)}
    name, what = f"{dose:.0e}", f"{dose:.0e} electrons"
    if share is not None:
        settings["ptydask.held_out.share"] = share
        name, what = f"{name}-{share}", f"{what}, {100 * share:g} % held out"
    group = "open" if share is None else "share"
    weights, widths = (0.0, 0.003, 0.01, 0.03, 0.1), (0.0, 0.3, 0.4, 0.5, 0.6, 0.8)
    where = "loss_params.loss_sparse.weight", "constraint_params.obj_rblur.std"
    return (
        Problem(
            f"sparse-{name}", f"weight of loss_sparse, {what}", soft, where[0], weights, 12,
            {**settings, **_SPARSE}, group,
        ),
        Problem(
            f"blur-{name}", f"std of obj_rblur, {what}", soft, where[1], widths, 12,
            {**settings, **_BLUR}, group,
        ),
    )  # fmt: skip


def _problems() -> tuple[Problem, ...]:
    twisted = _thick("twisted", 1e5)
    layered = {**_COUNTED, **_rates(1e-2, 1e-3)}
    tilted = DataSet("tilted-1e+05", _scan(1e5, slices=4, slice_thickness=12.0, tilt_y=4.0), twist=0.0)
    thin = {**_COUNTED, **_rates(2e-2, 1e-3)}
    columns = DataSet("columns-3e+05", _scan(3e5, slices=6, slice_thickness=8.0), twist=0.0)
    states = {dose: DataSet(f"states-{dose:.0e}", _scan(dose), states=0.4) for dose in (1e4, 1e6)}
    smooth = {dose: DataSet(f"smooth-{dose:.0e}", _scan(dose), width=0.8) for dose in (3e2, 1e3)}
    straight = DataSet("straight-1e+04", _scan(1e4, slices=4, slice_thickness=12.0), twist=0.0)
    modes = [
        Problem(
            f"modes-{dose:.0e}", f"pmode_max, two modes, {dose:.0e} electrons", states[dose], "pmode_max",
            (1, 2, 3, 4, 6, 8), 16, {**_COUNTED, **_rates(1e-2, 1e-3)},
        )
        for dose in states
    ]  # fmt: skip
    return (
        Problem("layers", "Nlayer, 4 twisted layers", twisted, "Nlayer", (1, 2, 3, 4, 5, 6, 8), 14, layered),
        Problem("dz", "dz, 4 twisted layers", twisted, "dz", (6.0, 9.0, 12.0, 15.0, 18.0, 24.0), 14, layered),
        *modes,
        Problem("layers-single", "Nlayer, 4 twisted layers, loss_single", twisted, "Nlayer", (1, 2, 3, 4, 5, 6, 8), 20),
        Problem("modes-single", "pmode_max, two modes, 1e+06 electrons, loss_single", states[1e6], "pmode_max",
                (1, 2, 3, 4, 6, 8), 24),
        *(problem for dose in (1e3, 1e4, 1e5, 1e6) for problem in _regularisers(dose)),
        *(
            Problem(
                f"smooth-{dose:.0e}", f"std of obj_rblur, smooth specimen, {dose:.0e} electrons", data,
                "constraint_params.obj_rblur.std", (0.0, 0.3, 0.4, 0.5, 0.6, 0.8), 12, {**thin, **_BLUR},
            )
            for dose, data in smooth.items()
        ),
        Problem("depth", "std of obj_zblur, 4 layers of columns, 1e+04 electrons", straight,
                "constraint_params.obj_zblur.std", (0.0, 0.3, 0.5, 1.0, 3.0), 12, {**thin, **_DEPTH}),
        Problem(
            "tilt", "tilt_y, 4 layers of columns", tilted, "tilt_y", (-4.0, 0.0, 2.0, 4.0, 6.0, 8.0, 12.0), 14,
            {**layered, **_COLUMNS},
        ),
        Problem("C10", "C10, 1e+04 electrons", _thin(1e4), "C10", (160.0, 200.0, 220.0, 240.0, 260.0, 280.0, 320.0), 12,
                thin),
        Problem("rotation", "rotation, 1e+04 electrons", _thin(1e4), "rotation", (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0),
                12, thin),
        Problem("apart-scale", "scale, loss_single, 3e+03 electrons", _thin(3e3), "scale",
                (0.9, 0.95, 0.975, 1.0, 1.025, 1.05, 1.1), 20, group="apart"),
        Problem("apart-blur", "std of obj_rblur, 4 twisted layers, 2e+04 electrons", _thick("twisted", 2e4),
                "constraint_params.obj_rblur.std", (0.0, 0.3, 0.35, 0.4, 0.5, 0.7), 14, {**layered, **_BLUR},
                group="apart"),
        Problem("apart-layers", "Nlayer, 6 layers of columns, loss_single", columns, "Nlayer", (1, 2, 4, 6, 8, 10), 20,
                _COLUMNS, group="apart"),
        *_regularisers(1e3, share=0.1),
    )  # fmt: skip


PROBLEMS: Mapping[str, Problem] = {problem.name: problem for problem in _problems()}
