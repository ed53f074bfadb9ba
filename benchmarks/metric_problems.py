"""Planted problems for metrics: data whose specimen is known, a parameter, the values to choose from.

Those that are held apart are not for making decisions by: what a metric is, and what the documentation recommends, is
decided on the others and then looked at on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    """Angstrom along y from the middle to either of two places of the source, which are not coherent: two modes."""
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
        seen = [
            np.array(list(pattern_intensities(self.truth, [replace(one, yx=one.yx + (place, 0)) for one in layers])))
            for place in places
        ]
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
    apart: bool = False

    def plan(self, value: Scalar, seed: int, metric: str) -> StudyPlan:
        """The study of one reconstruction with ``value``."""
        settings = {
            **self.data.settings(),
            "recon_params.NITER": self.iterations,
            "hypertune_params.pruner_params": None,
            **self.settings,
        }
        if "." in self.parameter:
            settings[self.parameter] = value
        path = self.data.write(seed)
        return complete_plan(path, Overrides(settings=tuple(settings.items()), metric=metric, seed=seed))

    def params(self, value: Scalar) -> dict[str, Scalar]:
        """What a trial with ``value`` is given, beside the plan's settings."""
        return {} if "." in self.parameter else {self.parameter: value}
