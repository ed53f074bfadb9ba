"""Params files from the wild: PtyRAD's own, and the block of its manual with each tunable switched on in turn."""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import pytest
import yaml

from ptydask import config, engines, sampling
from ptydask.config import Overrides
from ptydask.config.ptyrad import params_file
from ptydask.model import StudyPlan
from ptydask.space import ranges, tunables

pytestmark = pytest.mark.ptyrad


def starter_files() -> list[str]:
    """The params files inside the installed PtyRAD."""
    try:
        root = resources.files("ptyrad") / "starter" / "params"
    except ModuleNotFoundError:
        return []
    return sorted(f"{folder.name}/{file.name}" for folder in root.iterdir() for file in folder.iterdir())


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data that the starter files name, right in size and shape, and empty: sparse files hold nothing."""
    raw = tmp_path / "data/tBL_WSe2/Panel_g-h_Themis/scan_x128_y128.raw"
    mat = tmp_path / "data/PSO/sample_data_PrScO3.mat"
    for path in (raw, mat):
        path.parent.mkdir(parents=True)
    with raw.open("wb") as file:
        file.truncate(128 * 128 * (128 * 128 * 4 + 1024))
    with h5py.File(mat, "w") as file:
        file.create_dataset("dp", shape=(64 * 64, 256, 256), dtype="f4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def validated(path: Path, overrides: Overrides = Overrides()) -> StudyPlan:  # noqa: B008
    plan = config.load(path, overrides)
    return engines.get(plan.engine).validate(plan)


@pytest.mark.parametrize("name", starter_files())
def test_starter_file_validates(name: str, stand_ins: Path) -> None:
    """Every params file that PtyRAD ships is valid, and its notices are one line each."""
    text = (resources.files("ptyrad") / "starter" / "params" / name).read_text()
    for loaded in set(_loaded_files(yaml.safe_load(text)["init_params"])):
        path = stand_ins / loaded
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for inside in ("obja", "objp", "probe", "probe_pos_shifts", "obj_tilts"):
                file[f"optimizable_tensors/{inside}"] = 0.0
            file["model_attributes/crop_pos"] = 0
    params = stand_ins / Path(name).name
    params.write_text(text)
    plan = validated(params)
    assert plan.iterations == plan.config["recon_params"]["NITER"]
    assert all("\n" not in notice for notice in plan.notices)
    if "14_hypertune" in name:
        assert set(plan.space) == {"C10", "Nlayer"}
        assert plan.points[0].params["Nlayer"] == 21
        assert ranges.contains(plan.space["C10"], plan.points[0].params["C10"])
    else:
        assert plan.space == {}
        assert plan.budget.trials(workers=8) == 1


def _loaded_files(init: dict[str, Any]) -> list[str]:
    return [init[f"{part}_params"] for part in ("obj", "probe", "pos") if isinstance(init.get(f"{part}_params"), str)]


def test_there_are_starter_files() -> None:
    """The list that the test above runs over is not empty by mistake."""
    assert len(starter_files()) >= 20


# --- the block of PtyRAD's manual, as it was before 1.0 --------------------------------------------

BLOCK = """\
hypertune_params : {
    'if_hypertune'   : true, # the manual has false
    'collate_results': true,
    'append_params'  : true,
    'n_trials'       : 5, # type: int. Number of hypertune trials.
    'timeout'        : null,
    'sampler_params' : {'name': 'TPESampler', 'configs': {'multivariate': true, 'group': true, 'constant_liar': true}},
    'pruner_params'  : {'name': 'HyperbandPruner', 'configs': {'min_resource': 5, 'reduction_factor': 2}},
    'storage_path'   : 'sqlite:///hypertune.sqlite3',
    'study_name'     : 'tBL_WSe2',
    'error_metric'   : 'loss',
    'tune_params'    : {
        'optimizer'  : {'state': false, 'suggest': 'cat', 'kwargs': {'choices': ["Adam", "AdamW", "RMSprop", 'SGD']},
                        'optim_configs': {}},
        'batch_size' : {'state': false, 'suggest': 'int', 'kwargs': {'low': 16, 'high': 512, 'log': true}},
        'plr'        : {'state': false, 'suggest': 'cat', 'kwargs': {'choices': [1.0e-2, 1.0e-4, 1.0e-4]}},
        'oalr'       : {'state': false, 'suggest': 'float', 'kwargs': {'low': 1.0e-4, 'high': 1.0e-2, 'step': null, 'log': true}},
        'oplr'       : {'state': false, 'suggest': 'float', 'kwargs': {'low': 1.0e-4, 'high': 1.0e-2, 'step': null, 'log': true}},
        'slr'        : {'state': false, 'suggest': 'float', 'kwargs': {'low': 1.0e-4, 'high': 1.0e-2, 'step': null, 'log': true}},
        'tlr'        : {'state': false, 'suggest': 'float', 'kwargs': {'low': 1.0e-4, 'high': 1.0e-2, 'step': null, 'log': true}},
        'dzlr'       : {'state': false, 'suggest': 'float', 'kwargs': {'low': 1.0e-4, 'high': 1.0e-2, 'step': null, 'log': true}},
        'dx'         : {'state': false, 'suggest': 'float', 'kwargs': {'low': 0.1400, 'high': 0.1600, 'step': null, 'log': false}},
        'pmode_max'  : {'state': false, 'suggest': 'int', 'kwargs': {'low': 1, 'high': 8, 'step': 1, 'log': false}},
        'conv_angle' : {'state': false, 'suggest': 'float', 'kwargs': {'low': 24, 'high': 26, 'step': 1, 'log': false}},
        'defocus'    : {'state': false, 'suggest': 'float', 'kwargs': {'low': -50, 'high': 50, 'step': 0.1, 'log': false}},
        'c3'         : {'state': false, 'suggest': 'float', 'kwargs': {'low': 4000, 'high': 10000, 'step': null, 'log': false}},
        'c5'         : {'state': false, 'suggest': 'float', 'kwargs': {'low': 50000, 'high': 100000, 'step': 5000, 'log': false}},
        'Nlayer'     : {'state': false, 'suggest': 'int', 'kwargs': {'low': 1, 'high': 8, 'step': 1, 'log': false}},
        'dz'         : {'state': false, 'suggest': 'float', 'kwargs': {'low': 4, 'high': 8, 'step': 0.5, 'log': false}},
        'scale'      : {'state': true, 'suggest': 'float', 'kwargs': {'low': 0.8, 'high': 1.2, 'step': 0.02, 'log': false}},
        'asymmetry'  : {'state': false, 'suggest': 'float', 'kwargs': {'low': -0.2, 'high': 0.2, 'step': 0.05, 'log': false}},
        'rotation'   : {'state': true, 'suggest': 'float', 'kwargs': {'low': -4, 'high': 4, 'step': 0.5, 'log': false}},
        'shear'      : {'state': false, 'suggest': 'float', 'kwargs': {'low': -4, 'high': 4, 'step': 0.5, 'log': false}},
        'tilt_y'     : {'state': false, 'suggest': 'float', 'kwargs': {'low': -5, 'high': 5, 'step': 0.5, 'log': false}},
        'tilt_x'     : {'state': false, 'suggest': 'float', 'kwargs': {'low': -5, 'high': 5, 'step': 0.5, 'log': false}}
    }
}
"""  # noqa: E501
OLD_NAMES = list(yaml.safe_load(BLOCK)["hypertune_params"]["tune_params"])
AROUND: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "probe_conv_angle": 24.9,
        "probe_defocus": 20,
        "meas_Npix": 32,
        "pos_N_scan_slow": 6,
        "pos_N_scan_fast": 6,
        "pos_scan_step_size": 0.4,
        "meas_calibration": {"mode": "dx", "value": 0.15},
        "obj_Nlayer": 2,
        "obj_slice_thickness": 6,
        "meas_params": {"path": "data.h5", "key": "dp"},
    },
    "model_params": {
        "update_params": {"obj_tilts": {"start_iter": 1, "lr": 1e-4}, "slice_thickness": {"start_iter": 1, "lr": 1e-4}}
    },
    "recon_params": {"NITER": 3, "SAVE_ITERS": None, "BATCH_SIZE": {"size": 12}},
}


@pytest.fixture
def small_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 patterns of 32 x 32 pixels, in the working directory."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("dp", shape=(36, 32, 32), dtype="f4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, hypertune: dict[str, Any]) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({**AROUND, "hypertune_params": hypertune}))
    return path


def test_the_manuals_block_as_it_stands(small_data: Path) -> None:
    """The block around a small data set: two parameters, the file's own values first, PtyRAD's sampler."""
    path = small_data / "params.yaml"
    path.write_text(yaml.safe_dump(AROUND) + BLOCK)
    plan = validated(path)
    assert list(plan.space) == ["scale", "rotation"]
    assert plan.points[0].params == {"scale": 1.0, "rotation": 0.0}
    assert plan.sampler.name == "TPESampler"
    assert (plan.name, plan.storage) == ("tBL_WSe2", "sqlite:///hypertune.sqlite3")
    assert plan.results == Path("output/tBL_WSe2.h5")
    assert plan.budget.trials(workers=5) == 25


@pytest.mark.parametrize("name", OLD_NAMES)
def test_each_of_the_manuals_tunables_alone(name: str, small_data: Path) -> None:
    """Switched on alone, every old tunable gives a space under its present name, and a start inside it."""
    hypertune = yaml.safe_load(BLOCK)["hypertune_params"]
    for entry in hypertune["tune_params"].values():
        entry["state"] = False
    hypertune["tune_params"][name]["state"] = True
    plan = validated(write(small_data, hypertune))
    new = tunables.LEGACY.get(name, (name, 1))[0]
    assert list(plan.space) == [new]
    assert list(json.loads(sampling.search_space_json(plan.space))) == [new]
    for parameter, value in plan.points[0].params.items():
        moved = tunables.apply(plan.config, {parameter: value})
        assert tunables.current_value(moved, parameter) == pytest.approx(value)


NEW_NAMES = [name for name in tunables.TUNABLES if name not in OLD_NAMES]


@pytest.mark.parametrize("name", NEW_NAMES)
def test_each_tunable_of_ptyrad_1_alone(name: str, small_data: Path) -> None:
    """The aberrations and z_shift of PtyRAD 1.0, which the manual's block does not have."""
    hypertune = copy.deepcopy(yaml.safe_load(BLOCK)["hypertune_params"])
    hypertune["tune_params"] = {
        name: {"state": True, "suggest": "float", "kwargs": {"low": -100, "high": 100, "step": 1}}
    }
    plan = validated(write(small_data, hypertune))
    assert tuple(plan.space) == tunables.TUNABLES[name].parameters
    assert plan.points[0].params == {n: (-20.0 if n == "C10" else 0.0) for n in plan.space}


def test_all_tunables_at_once(small_data: Path) -> None:
    """All 22 of the old list together: valid, with the manual's advice as a notice."""
    hypertune = yaml.safe_load(BLOCK)["hypertune_params"]
    for entry in hypertune["tune_params"].values():
        entry["state"] = True
    plan = validated(write(small_data, hypertune))
    assert len(plan.space) == len(OLD_NAMES)
    assert any("22 parameters are tuned at once" in notice for notice in plan.notices)
    assert any(notice.startswith("batch_size: 16 to 36") for notice in plan.notices)


def test_the_best_params_file_is_ready_for_ptyrad(small_data: Path) -> None:
    """A file with a trial's values in place reads back, through PtyRAD too, as the params that the trial had."""
    hypertune = yaml.safe_load(BLOCK)["hypertune_params"]
    plan = validated(write(small_data, hypertune))
    values = {"scale": 1.02, "rotation": -1.5, "C12a": 3.25, "C12b": 0.0, "plr": 1e-5, "optimizer": "SGD"}
    best = small_data / "best.yaml"
    best.write_text(params_file.render_params(plan.config, values, header="trial 3"))
    again = validated(best)
    assert again.budget.trials(workers=4) == 1
    wanted = tunables.apply(plan.config, values)
    for name in ("init_params", "model_params", "recon_params", "loss_params", "constraint_params"):
        read = dict(again.config[name])
        if name == "init_params":
            assert read.pop("probe_aberrations") == {"C10": -20.0, "C12": 3.25, "phi12": 0.0}
            wanted[name].pop("probe_aberrations")
        assert read == wanted[name]
