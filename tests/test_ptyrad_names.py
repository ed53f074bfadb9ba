"""What PtyRAD's names of files, and Optuna's lines in its log, tell of trials."""

from __future__ import annotations

import math

import pytest

from ptydask.analysis.export import ptyrad_names
from ptydask.importers.ptyrad import log, names


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("model_error_0.01234_t0012_scale_0.98_rotation_-1.5_iter0020.hdf5", {"scale": "0.98", "rotation": "-1.5"}),
        (
            "model_error_0.01234_t0012_tilt_y_-2.05_batch_size_16_pmode_max_6_oplr_1.0e-03_iter0020.hdf5",
            {"tilt_y": "-2.05", "batch_size": "16", "pmode_max": "6", "oplr": "1.0e-03"},
        ),
        (
            "model_error_0.01234_t0012_optimizer_AdamW_C10_-1e+03_C12a_5_C12b_-5_iter0020.hdf5",
            {"optimizer": "AdamW", "C10": "-1e+03", "C12a": "5", "C12b": "-5"},
        ),
        ("model_error_0.01234_t0012_defocus_-100_z_shift_0_iter0020.hdf5", {"defocus": "-100", "z_shift": "0"}),
        ("model_error_0.01234_t0012_new_thing_1.5e+05_dx_0.15_iter0020.hdf5", {"new_thing": "1.5e+05", "dx": "0.15"}),
        ("model_error_0.01234_t0012_iter0020.hdf5", {}),
    ],
)
def test_names(name: str, params: dict[str, str]) -> None:
    """Number, error, iteration and parameters of PtyRAD's names."""
    found = names.trial_name(name)
    assert found is not None
    assert (found.kind, found.number, found.error, found.iteration, found.params) == (
        "model",
        12,
        "0.01234",
        20,
        params,
    )


def test_names_that_were_cut() -> None:
    """At 255 characters the last parameter may have lost digits, so it does not count."""
    params = dict.fromkeys(("scale", "rotation", "shear", "asymmetry", "tilt_y", "tilt_x"), 0.123456)
    params |= {f"C{n}{part}": -12345.6 for n in (12, 21, 23, 32, 34, 41, 43, 45, 52, 54, 56) for part in "ab"}
    stem = "objp_zsum_crop_08bit_error_-0.01234_t0012"
    stem += "".join(f"_{name}_{ptyrad_names.value_text(name, value)}" for name, value in params.items()) + "_iter0020"
    found = names.trial_name(stem[:251] + ".tif")
    assert found is not None
    assert found.cut
    assert found.iteration is None
    assert 10 < len(found.params) < len(params)
    assert all(found.params[name] == ptyrad_names.value_text(name, params[name]) for name in found.params)


@pytest.mark.parametrize(
    "name",
    ["model_iter0020.hdf5", "model_error_0.01234_t12_iter0020.hdf5", "error.hdf5", "model_error_x_t0012_iter0020.hdf5"],
)
def test_names_of_other_files(name: str) -> None:
    """Nothing is made of a name that hypertune does not give."""
    assert names.trial_name(name) is None


def test_lines_of_the_log() -> None:
    """Optuna's lines in PtyRAD's log, with and without time, and nothing else."""
    text = (
        "2026-11-22 12:11:41,829 - Trial 0 finished with value: 0.5255240201950073 and parameters: "
        "{'batch_size': 16, 'oplr': 0.006874194498027425, 'optimizer': 'Adam'}. Best is trial 0 with value: 0.52.\n"
        "Trial 3 pruned. \n"
        "Trial 4 failed with parameters: {'scale': 1.0} because of the following error: RuntimeError('a. b').\n"
        "### Trial 5 of something else finished\n"
        "Trial 6 finished with value: 1.0 and parameters: {broken. Best is trial 0 with value: 0.52.\n"
    )
    found = list(log.parse_log(text.splitlines(keepends=True)))
    assert [(line.number, line.state) for line in found] == [(0, "COMPLETE"), (3, "PRUNED"), (4, "FAIL")]
    assert found[0].params == {"batch_size": 16, "oplr": 0.006874194498027425, "optimizer": "Adam"}
    assert found[0].ended is not None
    assert found[2].why == "RuntimeError('a. b')"
    assert math.isclose(found[0].value or 0, 0.5255240201950073, rel_tol=0)
