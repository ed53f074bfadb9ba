"""The slopes of a trial's loss: against central differences of whole trials, and without a trace in its results."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_cases import NEVER, SLOT, VARIANTS, assert_same, go_on, params, plan, trial, write_patterns

from ptydask import config, demo
from ptydask.engines.ptyrad import PtyradEngine, release
from ptydask.engines.ptyrad.geometry_gradient import affine_derivatives
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.model import TrialOutput
from ptydask.trial import slopes

pytestmark = pytest.mark.ptyrad

AFFINE = {"scale": 1.0, "asymmetry": 0.0, "rotation": 0.0, "shear": 0.0}
BLOCKS = {**AFFINE, "tilt_y": 0.0, "tilt_x": 0.0, "dz": 5.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


def run(data: Path, changes: dict[str, Any], values: dict[str, float], names: set[str] | None = None) -> TrialOutput:
    names = set(values) if names is None else names
    session = PtyradSession(plan(params(data, changes), differentiable=frozenset(names)), SLOT)
    return session.run(trial(values), go_on, NEVER)


def test_affine_derivatives_are_those_of_ptyrads_matrix() -> None:
    from ptyrad.utils.affine import compose_affine_matrix

    affine, small = np.array([1.03, 0.02, 4.0, -1.5]), 1e-6
    inverse = np.linalg.inv(compose_affine_matrix(*affine))
    for index, derivative in enumerate(affine_derivatives(affine).values()):
        step = small * np.eye(4)[index]
        difference = compose_affine_matrix(*(affine + step)) - compose_affine_matrix(*(affine - step))
        np.testing.assert_allclose(derivative, inverse @ difference / (2 * small), atol=1e-8)


@pytest.mark.slow
def test_slopes_are_central_differences(tmp_path: Path) -> None:
    """Of whole trials, on the demo's data: 12 iterations are near rest."""
    demo.write(tmp_path)
    engine = PtyradEngine()
    ready = engine.validate(config.load(tmp_path / "params.yaml"))
    session = engine.open(ready, SLOT)

    def tuned_loss(**values: float) -> float:
        return session.run(trial(values), go_on, NEVER).metrics["loss"]

    gradient = session.run(trial({"scale": 1.0, "rotation": 0.0}), go_on, NEVER).gradient
    by_scale = (tuned_loss(scale=1.02, rotation=0.0) - tuned_loss(scale=0.98, rotation=0.0)) / 0.04
    by_rotation = (tuned_loss(scale=1.0, rotation=0.5) - tuned_loss(scale=1.0, rotation=-0.5)) / 1.0
    assert gradient == pytest.approx({"scale": by_scale, "rotation": by_rotation}, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["as PtyRAD's defaults", "accumulated gradients", "tilts that are refined", "LBFGS"]
)
def test_slopes_leave_no_trace(variant: str, data: Path) -> None:
    """To the last bit the trial is what it is without them."""
    changes = {"init_params.obj_Nlayer": 2, **VARIANTS[variant]}
    with_slopes, without = run(data, changes, BLOCKS), run(data, changes, BLOCKS, set())
    curve = {name: column for name, column in with_slopes.curve.items() if not name.startswith(slopes.COLUMN)}
    assert_same(replace(with_slopes, curve=curve), without)
    assert with_slopes.gradient.keys() == BLOCKS.keys()
    assert all(math.isfinite(slope) for slope in with_slopes.gradient.values())
    assert without.gradient == {}


def test_a_fixed_geometry_has_the_slopes_of_the_next_iteration(data: Path) -> None:
    """Batch by batch, each at its own moment: those that PtyRAD's own pass has where the tensors are in its graph."""
    common = {
        "init_params.obj_Nlayer": 2,
        "init_params.pos_scan_rand_std": None,
        # Adam's first steps make much of the rounding errors of gradients near zero.
        "model_params.optimizer_params": {"name": "SGD", "configs": {}},
        "model_params.update_params.objp": {"start_iter": 1, "lr": 10.0},
    }
    moved = ("probe_pos_shifts", "obj_tilts", "slice_thickness")
    free = {f"model_params.update_params.{name}": {"start_iter": 1, "lr": 1e-30} for name in moved}
    fixed = {f"model_params.update_params.{name}": {"start_iter": None, "lr": 0} for name in moved}
    heard = run(data, {**common, **free, "recon_params.NITER": 4}, BLOCKS)
    continued = run(data, {**common, **fixed, "recon_params.NITER": 3}, BLOCKS)
    assert {f"gradient/{name}" for name in BLOCKS} <= heard.curve.keys()
    assert not any(name.startswith("gradient/") for name in continued.curve)
    for name in BLOCKS:
        assert heard.gradient[name] == pytest.approx(continued.gradient[name], rel=0.01), name
