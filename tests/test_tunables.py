"""Where each tunable lives in a params file, what it is now, how a value is put there, and when it does nothing."""

from __future__ import annotations

import copy
import importlib
import json
import math
import warnings
from typing import Any

import pytest

from ptydask.distributions import Choice, FloatRange, IntRange
from ptydask.space import inactive, ranges, tunables

PARAMS: dict[str, Any] = {
    "init_params": {
        "probe_illum_type": "electron",
        "probe_kv": 80.0,
        "probe_conv_angle": 24.9,
        "probe_aberrations": {"C10": 200.0, "C12": 10.0, "phi12": 30.0},
        "probe_pmode_max": 4,
        "probe_pmode_init_pows": [0.4, 0.3, 0.2, 0.1],
        "probe_z_shift": None,
        "meas_Npix": 128,
        "meas_calibration": {"mode": "dx", "value": 0.15},
        "obj_Nlayer": 6,
        "obj_slice_thickness": 2.0,
        "obj_source": "simu",
        "obj_z_crop": None,
        "obj_z_pad": None,
        "obj_z_resample": None,
        "probe_source": "simu",
        "pos_source": "simu",
        "pos_scan_affine": None,
        "tilt_source": "simu",
        "tilt_params": {"tilt_type": "each", "init_tilts": [[1.5, -2.5]]},
    },
    "hypertune_params": {
        "tune_params": {"optimizer": {"kwargs": {"optim_configs": {"SGD": {"momentum": 0.9}}}}},
    },
    "model_params": {
        "optimizer_params": {"name": "Adam", "configs": {"betas": [0.8, 0.9]}, "load_state": None},
        "update_params": {
            tensor: {"start_iter": 1, "lr": 5e-4, "end_iter": None} for tensor in tunables.TENSORS.values()
        },
    },
    "recon_params": {"NITER": 20, "BATCH_SIZE": {"size": 32, "grad_accumulation": 1}},
}
VALUES: dict[str, Any] = {
    "optimizer": "SGD",
    "batch_size": 64,
    "pmode_max": 2,
    "Nlayer": 3,
    **dict.fromkeys(tunables.TENSORS, 0.001),
}


def with_init(**init: Any) -> dict[str, Any]:
    params = copy.deepcopy(PARAMS)
    params["init_params"].update(init)
    return params


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", tunables.PARAMETERS)
def test_apply_then_current(name: str) -> None:
    """What is put in place is what is found there, no other tunable has moved, and the file is untouched."""
    value = VALUES.get(name, 1.25)
    before = copy.deepcopy(PARAMS)
    new = tunables.apply(PARAMS, {name: value})
    assert before == PARAMS
    for other in tunables.PARAMETERS:
        expected = value if other == name else tunables.current_value(PARAMS, other)
        assert tunables.current_value(new, other) == (
            pytest.approx(expected, rel=1e-12, abs=1e-12) if ranges.is_number(expected) else expected
        )
    json.dumps(new)


def test_every_place_exists() -> None:
    """The table's keys are keys of PtyRAD's params, and units are given wherever there is one."""
    for tunable in tunables.TUNABLES.values():
        here: Any = PARAMS
        for part in tunable.where.split("."):
            assert part in here, tunable.where
            here = here[part]
        assert tunable.meaning


def test_the_identity_affine_is_applied() -> None:
    """PtyRAD skips [1, 0, 0, 0] and scores the previous trial's affine; here the identity is written out."""
    params = with_init(pos_scan_affine=[1.1, 0.1, 2.0, 3.0])
    values = {"scale": 1.0, "asymmetry": 0.0, "rotation": 0.0, "shear": 0.0}
    assert tunables.apply(params, values)["init_params"]["pos_scan_affine"] == [1.0, 0.0, 0.0, 0.0]
    assert tunables.apply(with_init(), {"rotation": 0.0})["init_params"]["pos_scan_affine"] == [1.0, 0.0, 0.0, 0.0]


def test_an_untuned_part_of_the_affine_keeps_its_value() -> None:
    """Tuning the rotation leaves the file's scale, asymmetry and shear."""
    params = with_init(pos_scan_affine=[1.1, 0.1, 2.0, 3.0])
    assert tunables.apply(params, {"rotation": -1.5})["init_params"]["pos_scan_affine"] == [1.1, 0.1, -1.5, 3.0]


def test_an_untuned_tilt_keeps_its_value() -> None:
    """PtyRAD makes the untuned component 0; here it stays, and so does the tilt type. Zero is applied too."""
    tilt = tunables.apply(PARAMS, {"tilt_x": 0.0})["init_params"]["tilt_params"]
    assert tilt == {"tilt_type": "each", "init_tilts": [[1.5, 0.0]]}


def test_dx_is_where_ptyrad_reads_it() -> None:
    """PtyRAD's hypertune writes ``meas_calib``, which nothing reads."""
    init = tunables.apply(with_init(meas_calibration={"mode": "fitRBF", "value": None}), {"dx": 0.144})["init_params"]
    assert init["meas_calibration"] == {"mode": "dx", "value": 0.144}
    assert "meas_calib" not in init


def test_optimizer_configs() -> None:
    """An optimizer takes its own configs; the file's own keeps the file's; a third one starts with none."""

    def configs(name: str) -> object:
        return tunables.apply(PARAMS, {"optimizer": name})["model_params"]["optimizer_params"]["configs"]

    assert configs("SGD") == {"momentum": 0.9}
    assert configs("Adam") == {"betas": [0.8, 0.9]}
    assert configs("RMSprop") == {}


def test_mode_count_and_powers() -> None:
    """A list of powers for another mode count would be refused by PtyRAD, which heeds the smallest alone."""
    init = tunables.apply(PARAMS, {"pmode_max": 7})["init_params"]
    assert (init["probe_pmode_max"], init["probe_pmode_init_pows"]) == (7, [0.1])


def test_empty_params() -> None:
    """A file that says nothing of a value can still be given one."""
    for name in tunables.PARAMETERS:
        new = tunables.apply({}, {name: VALUES.get(name, 1.25)})
        assert tunables.current_value(new, name) == VALUES.get(name, 1.25)


# --- aberrations ------------------------------------------------------------------------------------

SPELLINGS: list[dict[str, float]] = [
    {"C10": 200, "C12": 10, "phi12": 30},
    {"defocus": -200, "A1": 10, "A1phi": 30},
    {"C1": 200, "C12a": 10 * math.cos(math.pi / 3), "C12b": 10 * math.sin(math.pi / 3)},
    {"C21": 300, "phi21": -75, "C23": 40, "Cs": 1e6},
    {"B2": 100, "B2phi": 12, "S3": 5, "A3": 7, "A3phi": 3, "C3": -4000},
    {"B4": 1, "D4": 2, "A4": 3, "S5": 4, "R5": 5, "A5": 6, "C5": 7, "R5phi": 11, "phi41": 8},
    {"C45a": 3, "C56b": -2},
    {"phi12": 30},
    {},
]


def ptyrad_aberrations(given: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("ptyrad.optics.aberrations").Aberrations(given)


@pytest.mark.ptyrad
@pytest.mark.parametrize("given", SPELLINGS)
def test_aberrations_agree_with_ptyrad(given: dict[str, float]) -> None:
    """Every spelling is read as PtyRAD reads it."""
    theirs = ptyrad_aberrations(given).get_coefficients(style="cartesian")
    params = with_init(probe_aberrations=given)
    for name in tunables.PARAMETERS:
        if name.startswith("C") and name != "conv_angle":
            term = theirs.get((int(name[1]), int(name[2])), 0.0)
            expected = term.get(name[3], 0.0) if isinstance(term, dict) else term
            expected = 0.0 if len(name) == 4 and not isinstance(term, dict) else expected
            assert tunables.current_value(params, name) == pytest.approx(expected, abs=1e-9)


@pytest.mark.ptyrad
@pytest.mark.parametrize("given", SPELLINGS)
def test_tuned_aberrations_are_what_ptyrad_simulates(given: dict[str, float]) -> None:
    """After apply, PtyRAD reads the tuned terms as set, and every other term as before."""
    before = ptyrad_aberrations(given).get_coefficients(style="cartesian")
    new = tunables.apply(with_init(probe_aberrations=given), {"C12b": -4.0, "C21a": 7.0, "C30": 9.0})
    after = ptyrad_aberrations(new["init_params"]["probe_aberrations"]).get_coefficients(style="cartesian")
    assert after[(1, 2)]["b"] == pytest.approx(-4)
    assert after[(1, 2)]["a"] == pytest.approx(before.get((1, 2), {"a": 0})["a"], abs=1e-9)
    assert after[(2, 1)]["a"] == pytest.approx(7)
    assert after[(2, 1)]["b"] == pytest.approx(before.get((2, 1), {"b": 0})["b"], abs=1e-9)
    assert after[(3, 0)] == pytest.approx(9)
    for order in set(before) - {(1, 2), (2, 1), (3, 0)}:
        assert after[order] == pytest.approx(before[order])


def test_old_aberration_keys() -> None:
    """``probe_defocus`` counts where ``probe_aberrations`` is silent, and is gone once C10 is tuned."""
    params = {"init_params": {"probe_defocus": 30, "probe_c3": 5}}
    assert tunables.current_value(params, "C10") == -30
    assert tunables.current_value(params, "C30") == 5
    new = tunables.apply(params, {"C10": 12.0})["init_params"]
    assert new == {"probe_c3": 5, "probe_aberrations": {"C10": 12.0}}
    params["init_params"]["probe_aberrations"] = {"defocus": 7}
    assert tunables.current_value(params, "C10") == -7


# --- pixel size -------------------------------------------------------------------------------------


@pytest.mark.ptyrad
@pytest.mark.parametrize(
    ("mode", "value"),
    [("dx", 0.15), ("dk", 0.052), ("kMax", 3.3), ("da", 2.1), ("angleMax", 140), ("n_alpha", 5.5), ("RBF", 12)],
)
def test_pixel_size_agrees_with_ptyrad(mode: str, value: float) -> None:
    """The pixel size that each calibration mode fixes is the one that PtyRAD infers."""
    constants = importlib.import_module("ptyrad.optics.constants")
    wavelength = constants.get_wavelength_ang(80.0)
    assert tunables.wavelength(80.0) == pytest.approx(wavelength, rel=1e-12)
    dk = {
        "dk": value,
        "kMax": 2 * value / 128,
        "da": value / wavelength / 1e3,
        "angleMax": 2 * value / wavelength / 1e3 / 128,
        "n_alpha": 2 * value * 24.9 / wavelength / 1e3 / 128,
        "RBF": 24.9 / value / 1e3 / wavelength,
    }.get(mode)
    expected = value if dk is None else 1 / (128 * dk)
    params = with_init(meas_calibration={"mode": mode, "value": value})
    assert tunables.current_value(params, "dx") == pytest.approx(expected, rel=1e-9)


def test_a_fitted_pixel_size_is_unknown() -> None:
    """fitRBF needs the data: the first trial leaves dx to the sampler, and says so."""
    params = with_init(meas_calibration={"mode": "fitRBF", "value": None})
    point, notices = tunables.start_point({"dx": FloatRange(0.1, 0.2), "scale": FloatRange(0.8, 1.2)}, params)
    assert (point.params, point.origin) == ({"scale": 1.0}, "near start")
    assert len(notices) == 1
    assert "dx" in notices[0]


# --- the first point --------------------------------------------------------------------------------


def test_start_point_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values inside their range and on their grid are taken as they are, without a notice."""
    where = {"scale": FloatRange(0.8, 1.2, 0.02), "Nlayer": IntRange(1, 8), "optimizer": Choice(("SGD", "Adam"))}
    point, notices = tunables.start_point(where, PARAMS)
    assert (dict(point.params), point.origin) == ({"scale": 1.0, "Nlayer": 6, "optimizer": "Adam"}, "start")
    assert notices == ()


@pytest.mark.parametrize(
    ("name", "dist", "value"),
    [
        ("C10", FloatRange(-100.0, 100.0, 1.0), 100.0),
        ("conv_angle", FloatRange(24.0, 26.0, 1.0), 25.0),
        ("conv_angle", IntRange(20, 23), 23),
        ("Nlayer", IntRange(1, 9, 4), 5),
        ("tilt_x", FloatRange(-2.0, 2.0, 0.5), -2.0),
    ],
)
def test_start_point_is_moved_into_the_range(name: str, dist: Any, value: float) -> None:
    """Outside: the nearest end; off the grid: the nearest grid point; always with a notice."""
    point, notices = tunables.start_point({name: dist}, PARAMS)
    assert point.params == {name: value}
    assert point.origin == "near start", "these are not the file's own values"
    assert len(notices) == 1
    assert name in notices[0]
    assert repr(value) in notices[0]


def test_start_point_without_a_matching_choice() -> None:
    """A value that is none of the choices is left to the sampler, with a notice."""
    point, notices = tunables.start_point({"optimizer": Choice(("SGD",))}, PARAMS)
    assert point.params == {}
    assert "'Adam'" in notices[0]


# --- tuning that does nothing -----------------------------------------------------------------------


@pytest.mark.parametrize("name", tunables.TUNABLES)
def test_nothing_is_wrong_with_a_good_file(name: str) -> None:
    """On a file with everything simulated and every tensor updated, every tunable works."""
    assert tunables.ineffective_reason(PARAMS, name) is None


IDLE: list[tuple[str, dict[str, Any], str]] = [
    ("conv_angle", {"probe_source": "PtyRAD"}, "probe_source"),
    ("C12", {"probe_source": "PtyShv"}, "probe_source"),
    ("C10", {"probe_illum_type": "xray"}, "probe_illum_type"),
    ("dx", {"probe_source": "PtyRAD"}, "probe_source"),
    ("dx", {"pos_source": "PtyRAD"}, "pos_source"),
    ("dx", {"obj_source": "PtyRAD"}, "obj_source"),
    ("conv_angle", {"obj_source": "PtyRAD", "meas_calibration": {"mode": "fitRBF"}}, "meas_calibration"),
    ("Nlayer", {"obj_source": "PtyRAD"}, "obj_source"),
    ("Nlayer", {"obj_z_crop": [0, 2]}, "obj_z_crop"),
    ("dz", {"obj_Nlayer": 1}, "obj_Nlayer"),
    ("tilt_y", {"obj_Nlayer": 1}, "obj_Nlayer"),
    ("tlr", {"obj_Nlayer": 1}, "obj_Nlayer"),
    ("dzlr", {"obj_Nlayer": 1}, "obj_Nlayer"),
    ("tilt_y", {"tilt_source": "file"}, "tilt_source"),
    ("tilt_x", {"tilt_params": {"init_tilts": [[0, 0], [1, 1]]}}, "init_tilts"),
    *((name, {"obj_source": "PtyRAD"}, "obj_source") for name in tunables.AFFINE),
]


@pytest.mark.parametrize(("name", "init", "word"), IDLE)
def test_ineffective(name: str, init: dict[str, Any], word: str) -> None:
    """The reason names the key of the file that is in the way."""
    reason = tunables.ineffective_reason(with_init(**init), name)
    assert reason is not None
    assert word in reason


@pytest.mark.parametrize(
    ("name", "init"),
    [
        ("z_shift", {"probe_source": "PtyRAD"}),
        ("pmode_max", {"probe_source": "PtyRAD"}),
        ("dx", {"pos_source": "foldslice_hdf5"}),
        ("dz", {"obj_source": "PtyRAD", "obj_Nlayer": 1}),
        ("dz", {"obj_Nlayer": 1, "obj_z_pad": {"pad_layers": [1, 1], "pad_types": ["vacuum", "vacuum"]}}),
        ("conv_angle", {"meas_calibration": {"mode": "fitRBF"}}),
        ("slr", {"obj_Nlayer": 1}),
    ],
)
def test_effective_all_the_same(name: str, init: dict[str, Any]) -> None:
    """What PtyRAD does apply is not refused."""
    assert tunables.ineffective_reason(with_init(**init), name) is None


def test_slices_tuned_together() -> None:
    """With Nlayer tuned too, one slice in the file is no reason against dz."""
    params = with_init(obj_Nlayer=1)
    assert tunables.ineffective_reason(params, "dz", ("dz",)) is not None
    assert tunables.ineffective_reason(params, "dz", ("dz", "Nlayer")) is None


@pytest.mark.parametrize(("name", "tensor"), tunables.TENSORS.items())
@pytest.mark.parametrize("update", [{"start_iter": None}, {"start_iter": 21}, {"start_iter": 5, "end_iter": 5}])
def test_a_rate_of_a_tensor_that_is_never_updated(name: str, tensor: str, update: dict[str, Any]) -> None:
    """No start, a start after the last iteration, or an end before the start: nothing is ever updated."""
    params = copy.deepcopy(PARAMS)
    params["model_params"]["update_params"][tensor].update(update)
    assert tensor in (tunables.ineffective_reason(params, name) or "")


def test_rates_that_others_set() -> None:
    """A loaded optimizer state, and cyclic schedulers, bring their own learning rates."""
    params = copy.deepcopy(PARAMS)
    params["model_params"]["optimizer_params"]["load_state"] = "model.h5"
    assert "load_state" in (tunables.ineffective_reason(params, "plr") or "")
    assert "load_state" in (tunables.ineffective_reason(params, "optimizer") or "")
    params = copy.deepcopy(PARAMS)
    params["model_params"]["scheduler_params"] = {"name": "OneCycleLR", "configs": {"max_lr": 1}}
    assert "OneCycleLR" in (tunables.ineffective_reason(params, "plr") or "")


# --- nothing in some trials --------------------------------------------------------------------------


def inactivity(*names: str, params: dict[str, Any] = PARAMS, **space: Any) -> list[tuple[tuple[str, ...], str, Any]]:
    """What does nothing in some trials where ``names`` are tuned and ``space``."""
    tuned = {**dict.fromkeys(names, FloatRange(0.1, 1)), **space}
    return [(found.names, found.under, found.values) for found in inactive.conditional_inactivity(params, tuned)]


@pytest.mark.parametrize(
    ("names", "space", "expected"),
    [
        (("dz",), {"Nlayer": IntRange(1, 4)}, [(("dz",), "Nlayer", (1,))]),
        (("scale", "dz", "tilt_x", "tlr"), {"Nlayer": IntRange(1, 4)}, [(("dz", "tilt_x", "tlr"), "Nlayer", (1,))]),
        (("dz",), {"Nlayer": Choice((6, 1))}, [(("dz",), "Nlayer", (1,))]),
        (("dz",), {"Nlayer": IntRange(2, 4)}, []),
        (("dz",), {"batch_size": IntRange(1, 512)}, []),
        (("scale", "plr", "slr", "C10"), {"Nlayer": IntRange(1, 4), "optimizer": Choice(("SGD", "Adam"))}, []),
    ],
)
def test_inactive_in_some_trials(names: tuple[str, ...], space: dict[str, Any], expected: list[Any]) -> None:
    """One slice has no thickness, tilts, nor learning rates of them, whether Nlayer is a range or choices."""
    assert inactivity(*names, **space) == expected


def test_slices_that_are_padded_or_resampled() -> None:
    """More slices than Nlayer says: nothing is inactive. Nor is it said of what does nothing in all trials."""
    padded = with_init(obj_z_pad={"pad_layers": [1, 1]})
    assert inactivity("dz", params=padded, Nlayer=IntRange(1, 3)) == []
    never = copy.deepcopy(PARAMS)
    never["model_params"]["update_params"]["obj_tilts"]["start_iter"] = None
    assert inactivity("tlr", params=never, Nlayer=IntRange(1, 3)) == []


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"Nlayer": 1, "dz": 2.0, "scale": 1.1}, ["dz"]),
        ({"Nlayer": 2, "dz": 2.0}, []),
        ({"tilt_x": 1.0, "dzlr": 1e-3, "Nlayer": 1}, ["tilt_x", "dzlr"]),
        ({"dz": 2.0, "zoom": 1.0}, []),
    ],
)
def test_inactive_in_one_trial(values: dict[str, Any], names: list[str]) -> None:
    """By the values of the trial alone; a name of somebody else's is passed over."""
    assert list(inactive.inactive_parameters(PARAMS, values)) == names
