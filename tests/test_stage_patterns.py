"""Cropped and summed patterns of a stage, as PtyRAD reads them: the geometry is that of the whole patterns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import engine_cases
import numpy as np
import pytest

from ptydask.config.ptyrad.stage_config import with_patterns
from ptydask.config.stages import PatternPart

pytestmark = [pytest.mark.ptyrad, pytest.mark.filterwarnings("ignore")]  # PtyRAD's own
CALIBRATIONS: list[dict[str, Any]] = [
    {"mode": "dx", "value": engine_cases.DX},
    {"mode": "kMax", "value": 2.0},
    {"mode": "dk", "value": 0.125},
    {"mode": "RBF", "value": 5.0},
    {"mode": "n_alpha", "value": 3.2},
    {"mode": "fitRBF", "value": None},
]


def read(folder: Path, part: PatternPart | None, **changes: Any) -> tuple[dict[str, Any], np.ndarray]:
    """PtyRAD's variables, and the patterns as its model gets them, (N, ky, kx)."""
    from ptydask.engines.ptyrad import release

    release.installed()
    from ptyrad.init.initializer import Initializer
    from ptyrad.io.dataloader import MeasDataLoader

    path = folder / "patterns.npy"
    config = engine_cases.params(path if path.exists() else engine_cases.write_patterns(folder), changes)
    init = Initializer((config if part is None else with_patterns(config, part))["init_params"], seed=0)
    for step in ("init_cache", "init_measurements", "init_calibration", "set_variables_dict", "init_probe"):
        getattr(init, step)()
    variables = init.init_variables
    loader = MeasDataLoader(
        variables["measurements"],
        device="cpu",
        meas_scale_factors=variables.get("on_the_fly_meas_scale_factors"),
    )
    return variables, loader[list(range(len(variables["measurements"])))].numpy()


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda calibration: calibration["mode"])
def test_calibration_is_that_of_the_whole_patterns(calibration: dict[str, Any], tmp_path: Path) -> None:
    """A crop leaves the pixels of reciprocal space, a sum those of the object, however the file says their size."""
    changes = {"init_params.meas_calibration": calibration}
    whole, _ = read(tmp_path, None, **changes)
    cropped, _ = read(tmp_path, PatternPart(crop=24), **changes)
    summed, _ = read(tmp_path, PatternPart(bin=2), **changes)
    assert (cropped["Npix"], summed["Npix"]) == (24, 16)
    assert cropped["dk"] == pytest.approx(whole["dk"])
    assert cropped["dx"] == pytest.approx(whole["dx"] * 32 / 24)
    assert summed["dk"] == pytest.approx(2 * whole["dk"])
    assert summed["dx"] == pytest.approx(whole["dx"])


def test_patterns_are_parts_and_sums_of_the_whole(tmp_path: Path) -> None:
    """To a factor, as PtyRAD normalises them."""
    _, whole = read(tmp_path, None)
    _, cropped = read(tmp_path, PatternPart(crop=24))
    _, summed = read(tmp_path, PatternPart(bin=2))
    middle = whole[:, 4:28, 4:28]
    pairs = whole.reshape(len(whole), 16, 2, 16, 2).sum((2, 4))
    np.testing.assert_allclose(cropped / cropped.sum(), middle / middle.sum(), rtol=1e-5)
    np.testing.assert_allclose(summed / summed.sum(), pairs / pairs.sum(), rtol=1e-5, atol=1e-12)


def test_the_aperture_is_where_the_probe_has_it(tmp_path: Path) -> None:
    """The mean pattern of a thin object is mostly the bright disk: as wide in it as in the simulated probe."""
    for part in (None, PatternPart(crop=24), PatternPart(bin=2)):
        variables, patterns = read(tmp_path, part)
        aperture = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(variables["probe"][0])))) ** 2
        mean = patterns.mean(0)
        rim = aperture > aperture.max() / 2
        assert mean[rim].sum() > 0.6 * mean.sum()
        assert rim.sum() * variables["dk"] ** 2 == pytest.approx(
            np.pi * (engine_cases.ALPHA * 1e-3 / variables["lambd"]) ** 2, rel=0.25
        )
