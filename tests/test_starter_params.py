"""Params files from the wild: PtyRAD's own, and the block of its manual with each tunable switched on in turn."""

from __future__ import annotations

import copy
import json
import warnings
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import h5py
import pytest
import store_cases
import yaml

from ptydask import config, engines, sampling
from ptydask.analysis.export import params as trial_params
from ptydask.config import Overrides
from ptydask.config.ptyrad import params_file
from ptydask.config.stages import rehearse_stage
from ptydask.distributions import Distribution, FloatRange
from ptydask.driver import provenance
from ptydask.driver.stages import plan_stages
from ptydask.errors import ConfigError
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


def test_what_does_nothing_in_some_trials_is_said(small_data: Path) -> None:
    """In the plan by the other parameter's value; of a rate that begins late, where trials are pruned before."""
    entries = yaml.safe_load(BLOCK)["hypertune_params"]["tune_params"]
    tuned = {name: {**entries[name], "state": True} for name in ("dz", "Nlayer", "tlr")}
    path = write(small_data, {"if_hypertune": True, "tune_params": tuned})
    late = (("model_params.update_params.obj_tilts.start_iter", 30), ("recon_params.NITER", 40))
    plan = validated(path, Overrides(settings=late))
    assert dict(plan.details)["inactive"].startswith("dz, tlr where Nlayer is 1: ")
    assert any(notice.startswith("tlr: ") and "before iteration 30" in notice for notice in plan.notices)
    never_pruned = validated(path, Overrides(settings=(*late, ("hypertune_params.pruner_params", None))))
    assert not any("pruned before" in notice for notice in never_pruned.notices)


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
    """All 22 of the old list together: valid, with the manual's advice as a notice for those without slopes."""
    hypertune = yaml.safe_load(BLOCK)["hypertune_params"]
    for entry in hypertune["tune_params"].values():
        entry["state"] = True
    plan = validated(write(small_data, hypertune))
    assert len(plan.space) == len(OLD_NAMES)
    assert any("15 parameters are tuned at once" in notice for notice in plan.notices)
    assert any(notice.startswith("batch_size: 16 to 36") for notice in plan.notices)


@pytest.mark.parametrize(
    ("search", "names", "advised"),
    [
        ("auto", ("scale", "asymmetry", "rotation", "shear", "dx"), False),
        ("file", ("scale", "asymmetry", "rotation", "shear", "dx"), True),
        ("file", ("scale", "asymmetry", "rotation", "shear"), False),
        ("auto", ("plr", "oalr", "oplr", "slr", "dx"), True),
        ("auto", ("plr", "oalr", "oplr", "slr", "scale"), False),
    ],
)
def test_advice_beyond_four(search: Any, names: tuple[str, ...], advised: bool, small_data: Path) -> None:
    """The manual's, where that many are tuned without slopes that lead."""
    entry = {"state": True, "suggest": "float", "kwargs": {"low": 0.1, "high": 0.9}}
    hypertune = yaml.safe_load(BLOCK)["hypertune_params"] | {"tune_params": dict.fromkeys(names, entry)}
    notices = validated(write(small_data, hypertune), Overrides(search=search)).notices
    assert any("no more than 4" in notice for notice in notices) is advised


def test_nothing_is_said_of_values_that_a_stage_is_yet_to_find(small_data: Path) -> None:
    """What is said of the others names their stages; what no stage found before is the file's."""
    path = write(small_data, yaml.safe_load(BLOCK)["hypertune_params"])
    batch = {"choices": [8, 16]}
    away = {"scale": {"low": 1.05, "high": 1.1}, "rotation": {"low": 1, "high": 2}}
    own = small_data / "stages.yaml"
    stages = [
        {"name": "a", "tune": {"scale": None, "batch_size": batch}},
        {"name": "b", "tune": away | {"batch_size": batch}},
    ]
    own.write_text(yaml.safe_dump({"params": path.name, "stages": stages}))
    first, second = (stage.plan.notices for stage in plan_stages(own, Overrides()))
    assert any(text.startswith("stage b: rotation: the file's value") for text in second)
    assert not any("scale: the file's value" in text for text in second)
    shared = [text for text in first if text.startswith("batch_size: ")]
    assert shared
    assert set(shared) <= set(second)
    stages[1] |= {"batch_size": None, "scan": {"every": 4}, "tune": away}
    own.write_text(yaml.safe_dump({"params": path.name, "stages": stages}))
    with pytest.raises(ConfigError) as caught:
        plan_stages(own, Overrides(settings=(("recon_params.BATCH_SIZE.size", 30),)))
    assert (caught.value.file, caught.value.key) == (own, "stages[1].scan")
    found, notices = tunables.start_point({"scale": FloatRange(1.05, 1.1)}, validated(path).config, ("scale",))
    assert found.params == {"scale": 1.05}
    assert "found" in notices[0]


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


# --- exported with its comments ----------------------------------------------------------------------

VALUES: dict[str, Any] = {"scale": 1.02, "rotation": -1.5, "plr": 1e-5, "C30": 7.0, "dz": 3.5, "conv_angle": 25.5}


def exported(plan: StudyPlan, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The params file of a trial with these values, and what PtyRAD reads from the file with every key written out."""
    meta = provenance.study_meta(plan)
    record = store_cases.record(3, params=values, seed=11)
    text = trial_params.of_trial(meta, record, near=Path("study.h5")).text
    meta = replace(meta, config_format="json")  # of which no comment is kept
    whole = trial_params.of_trial(meta, record, near=Path("study.h5")).text
    return text, read_by_ptyrad(whole)


def read_by_ptyrad(text: str) -> dict[str, Any]:
    """What PtyRAD makes of a file, but for ``hypertune_params``, which is off."""
    path = Path("exported.yaml")
    path.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ptyrad.params import load_params
    loaded = load_params(str(path))
    assert loaded.pop("hypertune_params")["if_hypertune"] is False
    return {name: part for name, part in loaded.items() if name != "params_path"}


@pytest.mark.parametrize("name", ["templates/full.yaml", "templates/minimal.yaml", "walkthrough/14_hypertune.yaml"])
def test_an_exported_file_keeps_its_comments(name: str, stand_ins: Path) -> None:
    """PtyRAD reads the same from it as from one with every key; of its lines only those with other values differ."""
    params = stand_ins / Path(name).name
    params.write_text((resources.files("ptyrad") / "starter" / "params" / name).read_text())
    plan = validated(params, Overrides(settings=(("recon_params.NITER", 7), ("loss_params.loss_pacbed.state", True))))
    text, wanted = exported(plan, VALUES)
    assert read_by_ptyrad(text) == wanted
    assert wanted["recon_params"]["NITER"] == 7
    before, after = params.read_text().splitlines(), text.splitlines()
    assert [line for line in before if line.lstrip().startswith("#")] == [
        line for line in after if line.lstrip().startswith("#")
    ][2:]
    assert len(set(before) - set(after)) <= 14
    assert len(after) - len(before) <= 20


OLD = """\
init_params:
    # of the microscope
    probe_kv       : 80
    probe_conv_angle: 24.9
    probe_defocus  : 20   # underfocus
    probe_c3       : 1e4  # as the corrector said
    meas_Npix      : 32
    pos_N_scan_slow: 6
    pos_N_scan_fast: 6
    pos_scan_step_size: 0.4
    meas_calibration: {'mode': 'dx', 'value': 1.5e-1}
    obj_Nlayer     : 2
    obj_slice_thickness: 6
    meas_params    : &data {'path': data.h5, 'key': 'dp'}
hypertune_params:
    if_hypertune: true # the switch
    sampler_params: {name: NSGAIISampler}
    pruner_params: false
    storage_path: null
    tune_params:
        # first
        defocus: {state: true, suggest: float, kwargs: {low: -50, high: 50}}
        c3: {state: false, suggest: float, kwargs: {low: 0, high: 1e4}} # later
        scale: {state: true, suggest: float, kwargs: {low: 0.9, high: 1.1}}
ptydask:
    search: file # ours
loss_params:
    # loss_single: {state: true}
constraint_params:
    obj_rblur: {'freq': 2, 'std': 0.4} # each second
recon_params: {NITER: 3, SAVE_ITERS: null, BATCH_SIZE: {size: 12}, if_quiet: true}
"""


@pytest.mark.parametrize("values", [{"C10": -12.5, "scale": 1.04}, {"scale": 1.04}, {"C10": 7.0, "C30": 5.0}])
def test_an_old_file_is_exported_in_ptyrads_spelling(values: dict[str, Any], small_data: Path) -> None:
    """Old names go where the trial has another value, nothing is said twice, and what is ptydask's own is gone."""
    path = small_data / "params.yaml"
    path.write_text(OLD)
    text, wanted = exported(validated(path), values)
    assert read_by_ptyrad(text) == wanted
    read = yaml.safe_load(text)
    assert ("probe_defocus" in read["init_params"]) == ("C10" not in values)
    assert "ptydask" not in read
    assert set(read["hypertune_params"]["tune_params"]) == {"C10", "scale"}
    for comment in ("# of the microscope", "# the switch", "# first", "# loss_single", "# each second"):
        assert comment in text
    assert "{'mode': 'dx', 'value': 1.5e-1}" in text


@pytest.mark.parametrize(("storage", "kept"), [("sqlite:///h.sqlite3", True), ("redis://:S3CRET@h", False)])
def test_a_storage_is_exported_without_password(storage: str, kept: bool, small_data: Path) -> None:
    """With a password it is left out, as nobody could connect with what the results hold of it."""
    path = small_data / "params.yaml"
    path.write_text(OLD.replace("storage_path: null", f"storage_path: {storage}"))
    text, _ = exported(validated(path), {"scale": 1.04})
    assert ("storage_path" in text) == kept
    assert "S3CRET" not in text
    assert "# the switch" in text


def test_an_exported_file_can_be_exported_again(small_data: Path) -> None:
    """A study of it has one header in its own export, and the same text below."""
    path = small_data / "params.yaml"
    path.write_text(OLD)
    once, _ = exported(validated(path), {"scale": 1.04})
    path.write_text(once)
    twice, _ = exported(validated(path), {})
    assert twice == once


def test_results_of_before_have_every_key(small_data: Path) -> None:
    """Where the results do not tell what was set beside the file, nothing is left to defaults."""
    path = small_data / "params.yaml"
    path.write_text(OLD)
    plan = validated(path, Overrides(settings=(("recon_params.NITER", 7), ("model_params.detector_blur_std", 0.5))))
    meta = provenance.study_meta(plan)
    facts = {name: value for name, value in meta.provenance.items() if name != "settings"}
    record = store_cases.record(3, params={"scale": 1.04})
    text = trial_params.of_trial(replace(meta, provenance=facts), record, near=Path("study.h5")).text
    read = read_by_ptyrad(text)
    assert (read["recon_params"]["NITER"], read["model_params"]["detector_blur_std"]) == (7, 0.5)
    assert "# of the microscope" in text


def test_a_file_that_tunes_again(small_data: Path) -> None:
    """Other keys of ``hypertune_params`` are put into the file's own section."""
    path = small_data / "params.yaml"
    path.write_text(OLD)
    entries = {"dz": {"state": True, "suggest": "float", "kwargs": {"low": 2, "high": 8, "step": 0.5}}}
    record = store_cases.record(3, params={"scale": 1.04})
    text = trial_params.of_trial(
        provenance.study_meta(validated(path)),
        record,
        near=Path("study.h5"),
        hypertune={"if_hypertune": True, "tune_params": entries, "study_name": "next"},
    ).text
    path.write_text(text)
    plan = validated(path)
    assert (list(plan.space), plan.name) == (["dz"], "next")
    assert plan.config["init_params"]["pos_scan_affine"] == [1.04, 0, 0, 0]
    assert "# the switch" in text
    assert "search: file # ours" in text
    assert plan.search == "file"


# --- in stages -------------------------------------------------------------------------------------------------------


def staged(path: Path) -> list[StudyPlan]:
    """The plan of every stage that is recommended, as a run would make it before any has begun."""
    overrides = Overrides(stages="recommended")
    stages = config.load_stages(path, overrides)
    plans: list[StudyPlan] = []
    ranges: dict[str, Distribution] = {}
    for place in range(len(stages)):
        given = rehearse_stage(stages, place, dict(ranges))
        plans.append(engines.get("ptyrad").validate(config.load(path, overrides, given)))
        ranges |= plans[-1].space
    return plans


@pytest.mark.parametrize("name", starter_files())
def test_starter_file_in_recommended_stages(name: str, stand_ins: Path) -> None:
    """What the file tunes is tuned, and where that is nothing the plan is one reconstruction, and says why."""
    path = Path(str(resources.files("ptyrad") / "starter" / "params" / name))
    plans, flat = staged(path), config.load(path, Overrides(stages="recommended"))
    assert {name for plan in plans for name in plan.space} == set(flat.space)
    if not flat.space:
        assert plans == []
        assert any("no stages are recommended" in notice for notice in flat.notices)
        return
    assert all(plan.results == flat.results and plan.budget.total for plan in plans)
    assert plans[-1].iterations == flat.iterations
    assert all("\n" not in notice for plan in plans for notice in plan.notices)


def test_the_template_with_its_geometry_switched_on(stand_ins: Path) -> None:
    """PtyRAD's full template, all of whose ranges are switched off as it comes."""
    data = yaml.safe_load((resources.files("ptyrad") / "starter" / "params" / "templates" / "full.yaml").read_text())
    for tunable in ("dz", *tunables.AFFINE, *tunables.TILTS, "C10", "conv_angle", "Nlayer", "pmode_max", "oalr"):
        data["hypertune_params"]["tune_params"][tunable]["state"] = True
    data["init_params"]["obj_Nlayer"] = 6
    path = stand_ins / "full.yaml"
    path.write_text(yaml.safe_dump(data))
    plans = staged(path)
    assert [plan.name.removeprefix("tBL_WSe2 ") for plan in plans] == [
        *("geometry", "whole scan", "probe", "slices", "modes", "rates", "final"),
    ]
    assert any("the stages tune all the same" in notice for notice in plans[0].notices)
