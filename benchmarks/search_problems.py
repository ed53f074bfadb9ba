"""Planted problems for the ruler: data whose truth is known, what is tuned on them, and where it is to be looked for.

Those that are held out are not for making decisions by: a search is designed on the others and then measured on them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ptydask import demo
from ptydask.config import Overrides
from ptydask.demo import geometry
from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.driver.prepare import complete_plan
from ptydask.model import Scalar, StudyPlan

CACHE = Path(__file__).parent / "cache"
"""Data and reconstructions, which anybody's run makes anew; not committed."""
TUNED = "hypertune_params.tune_params"


@dataclass(frozen=True, slots=True)
class Problem:
    """Data with a planted truth, and the study that looks for it."""

    name: str
    what: str
    truth: Mapping[str, float]
    """Of those tuned parameters that have one; a learning rate has none."""
    iterations: int
    """Of a whole trial."""
    write: Callable[[Path], Path]
    """Makes the data in a folder; returns the params file."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the params file, beyond NITER, that differ."""
    held_out: bool = False

    @property
    def folder(self) -> Path:
        """Where its data are, once :meth:`plan` has made them."""
        return CACHE / self.name

    def overrides(self) -> dict[str, Any]:
        """What ``--set`` gives the params file."""
        settings = {"recon_params.NITER": self.iterations, "hypertune_params.collate_results": False}
        return {**settings, **self.settings}

    def params(self) -> Path:
        """The params file, its data made where they are not there."""
        return self.write(self.folder)

    def plan(self, guess: Literal["point", "ranges"] | None = None) -> StudyPlan:
        """The complete plan of its study, with what ``run --guess`` adds to it."""
        return complete_plan(self.params(), Overrides(settings=tuple(self.overrides().items()), guess=guess))

    def is_found(self, space: Mapping[str, Distribution], params: Mapping[str, Scalar]) -> bool:
        """Whether a point is within a grid step, or 1 % of the range, of the truth in every parameter that has one."""
        return all(abs(float(params[name] or 0) - true) <= _tolerance(space[name]) for name, true in self.truth.items())


def _tolerance(dist: Distribution) -> float:
    assert isinstance(dist, FloatRange | IntRange)
    return (dist.step or (dist.high - dist.low) / 100) * (1 + 1e-9)


def _planted(
    name: str,
    what: str,
    text: str,
    *,
    iterations: int,
    seed: int,
    slices: int | None = None,
    electrons: int | None = None,
    settings: Mapping[str, Any] | None = None,
    held_out: bool = False,
) -> Problem:
    """A problem of ``ptydask demo``."""
    truth = geometry.parse_geometry(text)

    def write(folder: Path) -> Path:
        if (folder / demo.PARAMS).exists():
            return folder / demo.PARAMS
        return demo.write(folder, seed, truth, slices, electrons)

    return Problem(name, what, truth, iterations, write, settings or {}, held_out)


def _demo() -> Problem:
    def write(folder: Path) -> Path:
        return folder / demo.PARAMS if (folder / demo.PARAMS).exists() else demo.write(folder)

    return Problem("demo", "the demo: scale, rotation", geometry.OWN, 12, write)


def _simulated_by_abtem(name: str, what: str, truth: Mapping[str, float], **more: Any) -> Problem:
    def write(folder: Path) -> Path:
        if (folder / demo.PARAMS).exists():
            return folder / demo.PARAMS
        path: Path = importlib.import_module("abtem_data").write(name, folder, truth)
        return path

    return Problem(name, what, truth, write=write, **more)


AFFINE4 = "scale=1.03 asymmetry=0.02 rotation=2 shear=1"
_OBJECT_RATE = {"state": True, "suggest": "float", "kwargs": {"low": 1e-3, "high": 2e-2, "log": True}}

PROBLEMS: Mapping[str, Problem] = {
    problem.name: problem
    for problem in (
        _demo(),
        _planted("affine2", "scale, rotation", "scale=0.95 rotation=2", iterations=12, seed=11, electrons=50_000),
        _planted("affine4", "four affine", AFFINE4, iterations=14, seed=12, electrons=50_000),
        _planted("tilts", "two tilts, 6 slices", "tilt_y=4 tilt_x=-3", iterations=20, seed=13, slices=6),
        _planted("dz", "slice thickness, 6 slices", "dz=15", iterations=20, seed=14, slices=6, held_out=True),
        _planted(
            "geometry7", "four affine, dz, two tilts", f"{AFFINE4} tilt_y=4 tilt_x=-3 dz=15", iterations=20, seed=15
        ),
        *(
            _planted(
                f"geometry6{letter}",
                "dz, scale, rotation, asymmetry, two tilts; staged",
                text,
                iterations=16,
                seed=seed,
                slices=6,
                held_out=letter == "c",
            )
            for letter, seed, text in (
                ("a", 21, "scale=0.96 asymmetry=0.02 rotation=1.5 dz=15 tilt_y=4 tilt_x=-4"),
                ("b", 22, "scale=1.04 asymmetry=-0.02 rotation=-2 dz=9 tilt_y=-4 tilt_x=2"),
                ("c", 23, "scale=1.02 asymmetry=0.03 rotation=-1 dz=14 tilt_y=-6 tilt_x=4"),
            )
        ),
        _planted(
            "noisy6",
            "four affine, C10, a learning rate, at 1e4 electrons",
            "scale=0.97 asymmetry=-0.02 rotation=-2 shear=-1 C10=260",
            iterations=14,
            seed=16,
            electrons=10_000,
            settings={f"{TUNED}.oplr": _OBJECT_RATE},
            held_out=True,
        ),
        _simulated_by_abtem(
            "wse2", "WSe2 at 80 kV by abTEM: scale, rotation", {"scale": 1.03, "rotation": 2.0}, iterations=24
        ),
        # After 24 iterations its loss is lower at scale 1.1 than at the truth, after 60 it is not.
        _simulated_by_abtem(
            "srtio3",
            "SrTiO3, 40 angstrom, at 200 kV by abTEM: four affine",
            {"scale": 1.02, "asymmetry": 0.01, "rotation": -2.5, "shear": 0.5},
            iterations=60,
            held_out=True,
        ),
    )
}
