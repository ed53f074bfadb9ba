"""Broken params files: each is refused with one line that says file, key, value and rule, and leaves nothing behind."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from ptydask import cli, config, engines
from ptydask.engines.ptyrad import datafiles, schema
from ptydask.errors import ConfigError
from ptydask.progress.plan_text import plan_lines

pytestmark = pytest.mark.ptyrad

GOOD: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "probe_conv_angle": 24.9,
        "meas_Npix": 32,
        "pos_N_scan_slow": 6,
        "pos_N_scan_fast": 6,
        "pos_scan_step_size": 0.4,
        "obj_Nlayer": 2,
        "obj_slice_thickness": 6,
        "meas_params": {"path": "data.h5", "key": "entry/dp"},
    },
    "hypertune_params": {
        "if_hypertune": True,
        "n_trials": 2,
        "tune_params": {
            "scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2, "step": 0.02}}
        },
    },
    "recon_params": {"NITER": 6, "BATCH_SIZE": {"size": 12}, "SAVE_ITERS": None},
}
GONE = object()
INIT, HYPER, TUNE = "init_params.", "hypertune_params.", "hypertune_params.tune_params."
SCALE = f"{TUNE}scale."
SAMPLER, PRUNER = f"{HYPER}sampler_params", f"{HYPER}pruner_params"
MODEL, RECON = "model_params.", "recon_params."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with 36 patterns of 32 x 32 pixels and other files that a params file may name."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["entry/dp"] = np.zeros((36, 32, 32), "f4")
        file["entry/four"] = np.zeros((6, 6, 32, 32), "f4")
    with h5py.File(tmp_path / "pair.h5", "w") as file:
        file["a"], file["b"] = np.ones((2, 36, 32, 32), "f4")
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/d_000001"] = h5py.ExternalLink("gone.h5", "/entry/data")
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with h5py.File(tmp_path / "result.h5", "w") as file:
        for name in ("obja", "objp", "probe"):
            file[f"optimizable_tensors/{name}"] = 0.0
    np.save(tmp_path / "data.npy", np.zeros((35, 32, 32), "f4"))
    (tmp_path / "data.raw").write_bytes(bytes(1000))
    (tmp_path / "model.pt").write_bytes(b"a pickle")
    (tmp_path / "data.csv").write_text("1,2,3")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The good params with dotted keys set, or taken out."""
    params = copy.deepcopy(GOOD)
    for key, value in changes:
        *way, last = key.split(".")
        here = params
        for part in way:
            here = here.setdefault(part, {})
        if value is GONE:
            del here[last]
        else:
            here[last] = value
    return params


def validate(path: Path) -> None:
    plan = config.load(path)
    engines.get(plan.engine).validate(plan)


def entry(**kwargs: Any) -> dict[str, Any]:
    return {"state": True, "suggest": "float", "kwargs": kwargs}


def cat(*choices: Any) -> dict[str, Any]:
    return {"state": True, "suggest": "cat", "kwargs": {"choices": list(choices)}}


def spec(name: str, **configs: Any) -> dict[str, Any]:
    return {"name": name, "configs": configs}


# Each row: the key that is set, to what, the words that the error must hold besides the file's name and the key.
VALUES: list[tuple[str, Any, str]] = [
    # types
    (f"{INIT}probe_kv", "abc", "'abc' must be valid number"),
    (f"{INIT}probe_kv", None, "None provided"),
    (f"{INIT}meas_Npix", 0, "0 at least 1"),
    (f"{INIT}meas_Npix", "32", "'32' whole number"),
    (f"{INIT}pos_N_scan_slow", "aaaa", "'aaaa' whole number"),
    (f"{INIT}pos_N_scan_fast", True, "True whole number"),
    (f"{INIT}obj_Nlayer", 2.5, "2.5 integer"),
    (f"{INIT}obj_slice_thickness", -1, "-1 greater than 0"),
    (f"{INIT}pos_scan_step_size", [0.4], "[0.4] number"),
    (f"{INIT}random_seed", -1, "-1 from 0 to 4294967295"),
    (f"{INIT}meas_calibration", 5, "5 must be a mapping"),
    (f"{INIT}meas_calibration", {"mode": "dx"}, "{'mode': 'dx'} 'value' is required"),
    (f"{INIT}meas_calibration", {"mode": "dxx", "value": 1}, ".mode 'dxx' did you mean 'dx'?"),
    (f"{INIT}tilt_params", 3, "3 must be a mapping with tilt_type"),
    (f"{INIT}pos_scan_affine", [1, 0], "[1, 0] list of 4"),
    (f"{INIT}meas_flipT", [0, 1, 2], "[0, 1, 2] binary"),
    (f"{INIT}probe_aberrations", [200], "[200] must be a mapping"),
    (f"{INIT}probe_aberrations.C10", "far", "'far' must be a number"),
    (f"{INIT}probe_aberrations", {"C99": 1}, "{'C99': 1} 99"),
    (f"{INIT}probe_aberrations", {"C12": 3, "C12a": 3}, "Conflicting"),
    (f"{INIT}probe_pmode_init_pows", [0.5, 0.5], "[0.5, 0.5] probe_pmode_max"),
    (f"{INIT}obj_source", "PtyRADD", "'PtyRADD' did you mean 'PtyRAD'?"),
    (f"{INIT}obj_params", [1, 2, 60, 60], "[1, 2, 60, 60] must be null"),
    (f"{INIT}meas_source", "custom", "'custom' array in memory"),
    (f"{INIT}obj_z_crop", [5, 9], "[5, 9] leaves none of obj_Nlayer = 2"),
    (f"{MODEL}optimizer_params.name", "Adaam", "'Adaam' did you mean 'Adam'?"),
    (f"{MODEL}optimizer_params.configs", {"beta": 0.9}, ".beta 0.9 no such setting did you mean 'betas'?"),
    (f"{MODEL}update_params.probe", {"start_iter": 0, "lr": 1e-3}, "start_iter >= 1"),
    (f"{MODEL}update_params.probe", {"start_iter": 1, "lr": 1e-3, "stop": 5}, ".stop 5 unknown key"),
    ("constraint_params.ortho_pmode", 5, "5 must be a mapping"),
    ("loss_params.loss_single", {"weight": -1}, ".weight -1 greater than or equal to 0"),
    (f"{MODEL}update_params.probe", {"start_iter": 1, "lr": float("inf")}, ".lr inf finite"),
    (f"{INIT}tilt_params", {"tilt_type": "all", "init_tilts": [[1]]}, ".init_tilts [[1 two finite numbers"),
    (f"{INIT}tilt_params", {"tilt_type": "all", "init_tilts": []}, ".init_tilts [] two finite numbers"),
    (f"{MODEL}optimizer_params", {"name": "Adam", "load_state": "model.pt"}, ".load_state 'model.pt' .h5 program"),
    (f"{RECON}NITER", 0, "0 at least 1"),
    (f"{RECON}NITER", 20.5, "20.5 whole number"),
    (f"{RECON}SAVE_ITERS", 0, "0 at least 1"),
    (f"{RECON}GROUP_MODE", "rand", "'rand' did you mean 'random'?"),
    (f"{RECON}BATCH_SIZE.size", 37, "37 at most the 36 patterns"),
    # unknown keys
    ("inti_params", {}, "{} unknown key did you mean 'init_params'?"),
    (f"{INIT}probe_kvv", 3, "3 unknown key did you mean 'probe_kv'?"),
    (f"{INIT}meas_params.keyy", "dp", "'dp' unknown key did you mean 'key'?"),
    (f"{INIT}tilt_params", {"init_tilt": [[0, 0]]}, ".init_tilt did you mean 'init_tilts'?"),
    (f"{HYPER}if_hypertunes", True, "True did you mean 'if_hypertune'?"),
    (f"{TUNE}scal", entry(low=1, high=2), "did you mean 'scale'?"),
    (f"{SCALE}kwargs.stepp", 0.1, "0.1 did you mean 'step'?"),
    (f"{SCALE}stat", True, "True did you mean 'state'?"),
    ("constraint_params.orto_pmode", {"start_iter": 1}, "did you mean 'ortho_pmode'?"),
    # data files
    (f"{INIT}meas_params", "data.h5", "'data.h5' must be a mapping"),
    (f"{INIT}meas_params", {"key": "dp"}, "path is missing"),
    (f"{INIT}meas_params.path", 3, "3 must be the path"),
    (f"{INIT}meas_params.path", "dat.h5", "'dat.h5' no such file did you mean 'data.h5'?"),
    (f"{INIT}meas_params.path", "nowhere/data.h5", "no such file 'nowhere' does not exist"),
    (f"{INIT}meas_params.path", ".", "'.' is a folder"),
    (f"{INIT}meas_params.path", "x" * 300, "cannot be looked up: too long"),
    (f"{INIT}meas_params.path", "text.h5", "'text.h5' cannot be read as .h5"),
    (f"{INIT}meas_params.path", "data.csv", "'data.csv' PtyRAD reads .h5"),
    (f"{INIT}meas_params.path", "data.npy", "'data.npy' (35, 32, 32)"),
    (f"{INIT}meas_params.path", "data.raw", "'data.raw' has 1000 bytes"),
    (f"{INIT}meas_params.key", "entry/dpp", "'entry/dpp' no such dataset did you mean 'entry/dp'?"),
    (f"{INIT}meas_params.key", "entry", "'entry' no such dataset group entry/dp, entry/four"),
    (f"{INIT}meas_params", {"path": "pair.h5"}, "None must name one of the 2 that fit a, b"),
    (f"{INIT}meas_params", {"path": "master.h5"}, "master.h5 d_000001 gone.h5, which is not there"),
    (f"{INIT}meas_params", {"path": "master.h5", "key": "entry/d_000001"}, "gone.h5, which is not there copy it"),
    (f"{INIT}probe_params", "probe.h5", "'probe.h5' no such file"),
    (f"{INIT}meas_permute", [0, 1], "[0, 1] each of 0 to 2 once"),
    (f"{INIT}meas_reshape", [-1, 5, 5], "[-1, 5, 5] does not fit"),
    (f"{INIT}meas_crop", [[3, 3], None, None, None], "leaves nothing"),
    (f"{INIT}meas_crop", [None, None, [0, 20], None], "square"),
    (f"{INIT}meas_pad", {"target_Npix": 16}, ".target_Npix 16 at least the patterns' 32"),
    # hypertune_params
    (f"{HYPER}if_hypertune", "yes please", "'yes please' true or false"),
    (f"{HYPER}n_trials", 0, "0 at least 1"),
    (f"{HYPER}n_trials", 2.5, "2.5 whole number"),
    (f"{HYPER}timeout", -1, "-1 above 0"),
    (f"{HYPER}timeout", "1h", "'1h' seconds"),
    (f"{HYPER}error_metric", "los", "'los' did you mean 'loss'?"),
    (f"{HYPER}study_name", "", "'' must not be empty"),
    (f"{HYPER}study_name", 5, "5 must be text put it in quotes"),
    (f"{HYPER}storage_path", "hypertune.sqlite3", "'hypertune.sqlite3' URL sqlite:///"),
    (f"{HYPER}storage_path", "sqlit:///x.db", "'sqlit:///x.db' did you mean 'sqlite'?"),
    (f"{HYPER}tune_params", {}, "nothing is switched on"),
    (f"{HYPER}tune_params", [1], "[1] must be a mapping"),
    (SAMPLER, None, "None needs a sampler"),
    (SAMPLER, "TPESampler", "'TPESampler' must be a mapping"),
    (SAMPLER, spec("TPEsampler"), ".name 'TPEsampler' did you mean 'TPESampler'?"),
    (SAMPLER, spec("TPESampler", n_startup=3), ".n_startup 3 did you mean 'n_startup_trials'?"),
    (SAMPLER, spec("TPESampler", n_startup_trials="ten"), ".n_startup_trials 'ten' must be int"),
    (SAMPLER, spec("TPESampler", group=True, multivariate=False), "multivariate"),
    (SAMPLER, spec("TPESampler", gamma="x"), ".gamma 'x' Python object"),
    (SAMPLER, spec("CmaEsSampler", popsize=-3), "-3 popsize"),
    (SAMPLER, spec("NSGAIISampler", population_size=1), "population_size"),
    (SAMPLER, spec("PartialFixedSampler", fixed_params={"scale": 1.0}), "needs base_sampler"),
    (SAMPLER, spec("GridSampler", search_space={"rotation": [1]}), ".rotation [1] not tuned"),
    (SAMPLER, spec("GridSampler", search_space={"scale": []}), ".scale [] at least one"),
    (PRUNER, True, "True must be a mapping"),
    (PRUNER, spec("HyperbandPrunr"), "'HyperbandPrunr' did you mean 'HyperbandPruner'?"),
    (PRUNER, spec("WilcoxonPruner"), "'WilcoxonPruner' problem by problem"),
    (PRUNER, spec("PercentilePruner"), "needs percentile"),
    (PRUNER, spec("PercentilePruner", percentile=200), "200 between 0 and 100"),
    (PRUNER, spec("PatientPruner", patience=1, wrapped_pruner_configs=spec("Median")), "wrapped_pruner.name 'Median'"),
    (PRUNER, spec("HyperbandPruner", reduction_factor=1), "1 HyperbandPruner"),
    # distributions
    (f"{TUNE}scale", 5, "5 must be a mapping"),
    (f"{SCALE}state", "true", "'true' true or false"),
    (f"{SCALE}state", GONE, "state is missing"),
    (f"{SCALE}suggest", "flaot", "'flaot' float, int or cat"),
    (f"{SCALE}kwargs", {"low": 1}, "{'low': 1} high is missing"),
    (f"{SCALE}kwargs.low", 2, "2 must not be above high = 1.2"),
    (f"{SCALE}kwargs.low", "wide", "'wide' must be a number"),
    (f"{SCALE}kwargs.low", True, "True must be a number"),
    (f"{SCALE}kwargs.low", -1, "-1 above 0"),
    (f"{SCALE}kwargs.high", float("inf"), "inf finite"),
    (f"{SCALE}kwargs.step", 0, "0 must be above 0"),
    (f"{SCALE}kwargs.step", 3, "3 larger than the range"),
    (f"{SCALE}kwargs", {"low": 0, "high": 1, "log": True}, ".low 0 above 0"),
    (f"{TUNE}scale", cat(), ".choices [] at least one"),
    (f"{TUNE}scale", cat("big"), ".choices 'big' must be a number"),
    (f"{TUNE}optimizer", cat("Adaam"), ".choices 'Adaam' did you mean 'Adam'?"),
    (f"{TUNE}optimizer", cat("Nadam"), ".choices 'Nadam' PyTorch"),
    (f"{TUNE}batch_size", entry(low=4, high=8), ".suggest 'float' must be int"),
    (f"{TUNE}defocus", entry(low=1, high=9, log=True), ".log True C10"),
    # tuning it would do nothing
    (f"{TUNE}tlr", entry(low=1e-4, high=1e-2, log=True), ".state no effect start_iter is null"),
]


@pytest.mark.parametrize(("key", "value", "words"), VALUES, ids=[f"{k}={v!r}"[:70] for k, v, _ in VALUES])
def test_one_value_is_wrong(key: str, value: Any, words: str, folder: Path) -> None:
    """The error is one line with file, key, value and rule; the folder is as it was."""
    path = folder / "params.json"
    path.write_text(json.dumps(changed((key, value))))
    said = refused(path, folder)
    assert said.startswith(str(path))
    assert (key.rpartition(".")[0] if value is GONE else key) in said
    for word in words.split():
        assert word in said, f"{word!r} is not in: {said}"


def refused(path: Path, folder: Path) -> str:
    """The line with which ``path`` is refused; the folder must be as before."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(ConfigError) as caught:
        validate(path)
    assert sorted(folder.rglob("*")) == before
    said = str(caught.value)
    assert "\n" not in said
    assert "Traceback" not in said
    assert "object at 0x" not in said
    assert len(said) < 700
    return said


def test_the_good_file_is_good(folder: Path) -> None:
    """What the cases above break is valid as it stands."""
    path = folder / "params.json"
    path.write_text(json.dumps(GOOD))
    before = sorted(folder.rglob("*"))
    validate(path)
    assert sorted(folder.rglob("*")) == before


def test_whole_numbers_with_a_point(folder: Path) -> None:
    """6.0 scan points are 6, as PtyRAD reads it."""
    path = folder / "params.json"
    path.write_text(json.dumps(changed((f"{INIT}pos_N_scan_slow", 6.0), (f"{INIT}meas_Npix", 32.0))))
    plan = config.load(path)
    init = engines.get(plan.engine).validate(plan).config["init_params"]
    assert (repr(init["pos_N_scan_slow"]), repr(init["meas_Npix"])) == ("6", "32")


@pytest.mark.parametrize("reads", [True, False])
def test_zarr_where_ptyrad_reads_it(reads: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of chunks is refused by name for a PtyRAD that cannot read it, and left to one that can."""
    fields = ["path", "key", *(["zarr_kwargs"] if reads else [])]
    monkeypatch.setattr(schema, "known_fields", lambda *way: fields)
    init = {**GOOD["init_params"], "meas_params": {"path": "data.zarr"}}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # as where PtyRAD did not bring zarr
    if reads:
        datafiles.check_measurements(init)
        return
    with pytest.raises(ConfigError, match=r"data\.zarr.*PtyRAD reads [^z]*$"):
        datafiles.check_measurements(init)


def test_the_plan_prints_the_files_value(folder: Path) -> None:
    """A value off the range is printed as the file has it; the first trial's origin says that it was moved."""
    path = folder / "params.json"
    path.write_text(json.dumps(changed((f"{INIT}pos_scan_affine", [1.5, 0, 0, 0]))))
    plan = config.load(path)
    plan = engines.get(plan.engine).validate(plan)
    assert [(dict(p.params), p.origin) for p in plan.points] == [({"scale": 1.2}, "near start")]
    assert "tuning    scale  0.8 to 1.2, step 0.02  (file: 1.5)" in plan_lines(plan)


def test_a_tuned_optimizers_settings_are_essential() -> None:
    """Trials with other settings of an optimizer are not comparable; another range of the search is no matter."""
    engine = engines.get("ptyrad")

    def essential(momentum: float, low: float) -> Any:
        optimizer = {"state": True, "suggest": "cat", "kwargs": {"optim_configs": {"SGD": {"momentum": momentum}}}}
        return engine.essential(changed((f"{TUNE}optimizer", optimizer), (f"{SCALE}kwargs.low", low)))

    assert essential(0.9, 0.8) == essential(0.9, 0.7)
    assert essential(0.9, 0.8) != essential(0.8, 0.8)


# --- two values that do not go together ------------------------------------------------------------

LOADED = {"obj_source": "PtyRAD", "obj_params": "result.h5"}
PAIRS: dict[str, tuple[list[tuple[str, Any]], str]] = {
    "one slice has no thickness": (
        [(f"{INIT}obj_Nlayer", 1), (f"{TUNE}dz", entry(low=4, high=8))],
        "tune_params.dz obj_Nlayer is 1",
    ),
    "one slice has no tilt": (
        [(f"{INIT}obj_Nlayer", 1), (f"{TUNE}tilt_x", entry(low=-4, high=8))],
        "tune_params.tilt_x obj_Nlayer is 1",
    ),
    "a loaded object keeps its positions": (
        [(f"{INIT}{k}", v) for k, v in LOADED.items()],
        "tune_params.scale obj_source is 'PtyRAD'",
    ),
    "a loaded object has its slices": (
        [
            *((f"{INIT}{k}", v) for k, v in LOADED.items()),
            (f"{HYPER}tune_params", {"Nlayer": {"state": True, "suggest": "int", "kwargs": {"low": 1, "high": 4}}}),
        ],
        "tune_params.Nlayer obj_source",
    ),
    "a loaded probe has no aberrations": (
        [
            (f"{INIT}probe_source", "PtyRAD"),
            (f"{INIT}probe_params", "result.h5"),
            (f"{TUNE}C10", entry(low=-5, high=5)),
        ],
        "tune_params.C10 probe_source",
    ),
    "a loaded probe that is none": (
        [(f"{INIT}probe_source", "PtyRAD"), (f"{INIT}probe_params", "data.h5")],
        "init_params.probe_params 'data.h5' no reconstruction of PtyRAD optimizable_tensors/probe",
    ),
    "loaded positions that are no HDF5": (
        [(f"{INIT}pos_source", "PtyRAD"), (f"{INIT}pos_params", "text.h5")],
        "init_params.pos_params 'text.h5' cannot be read as HDF5",
    ),
    **{
        f"loaded {part} that could run a program": (
            [(f"{INIT}{part}_source", "PtyRAD"), (f"{INIT}{part}_params", "model.pt")],
            f"init_params.{part}_params 'model.pt' .h5 program",
        )
        for part in ("obj", "probe", "pos", "tilt")
    },
    "a tuned tilt beside an empty one": (
        [(f"{INIT}tilt_params", {"tilt_type": "all", "init_tilts": [[]]}), (f"{TUNE}tilt_x", entry(low=-4, high=8))],
        "init_params.tilt_params.init_tilts [[]] two finite numbers",
    ),
    "an old name and its new one": (
        [(f"{TUNE}defocus", entry(low=-5, high=5)), (f"{TUNE}C10", entry(low=-5, high=5))],
        "tune_params.defocus C10 keep one",
    ),
    "grid without steps": (
        [(SAMPLER, {"name": "GridSampler"}), (f"{TUNE}rotation", entry(low=-5, high=5))],
        "'GridSampler' cannot count off rotation",
    ),
    "grid without end": (
        [
            (SAMPLER, {"name": "BruteForceSampler"}),
            *((f"{TUNE}{n}", entry(low=-5, high=5, step=0.01)) for n in ("rotation", "shear", "tilt_x", "tilt_y")),
        ],
        "'BruteForceSampler' the grid has",
    ),
    "batches larger than the scan": (
        [
            (f"{HYPER}tune_params", {}),
            (f"{TUNE}batch_size", {"state": True, "suggest": "int", "kwargs": {"low": 50, "high": 90}}),
        ],
        "tune_params.batch_size 36 patterns",
    ),
    "a pattern of another size": ([(f"{INIT}meas_Npix", 16)], "meas_params.path (36, 32, 32) (6 x 6, 16, 16)"),
    "a scan of another size": ([(f"{INIT}pos_N_scan_slow", 7)], "meas_params.path (36, 32, 32) (7 x 6, 32, 32)"),
    "four dimensions": (
        [(f"{INIT}meas_params.key", "entry/four")],
        "meas_params.path (6, 6, 32, 32) set meas_reshape: [-1, 32, 32]",
    ),
    "a step and log": ([(f"{SCALE}kwargs.log", True)], "kwargs.step 0.02 not both"),
    "no params for a loaded object": ([(f"{INIT}obj_source", "PtyRAD")], "init_params.obj_params path of a file"),
    "output folder is a file": ([(f"{RECON}output_dir", "data.h5")], "recon_params.output_dir 'data.h5' not a folder"),
    "output below a file": ([(f"{RECON}output_dir", "data.h5/out")], "recon_params.output_dir 'data.h5/out' a file"),
    "output where nobody writes": ([(f"{RECON}output_dir", "/proc/here")], "recon_params.output_dir '/proc/here'"),
    "no section for the data": ([("init_params", GONE)], "init_params missing"),
}


@pytest.mark.parametrize("name", PAIRS)
def test_values_do_not_go_together(name: str, folder: Path) -> None:
    """The error names the key to change and the other one that forbids it."""
    changes, words = PAIRS[name]
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(changed(*changes)))
    said = refused(path, folder)
    for word in words.split():
        assert word in said, f"{word!r} is not in: {said}"


# --- files that cannot be read at all ---------------------------------------------------------------


def text(raw: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(raw) and None


def binary(raw: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(raw) and None


ALIASES = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "empty": ("p.yaml", text(""), "the file is empty"),
    "blank": ("p.yaml", text(" \n\n"), "the file is empty"),
    "comments only": ("p.yaml", text("# nothing\n"), "holds no settings"),
    "a list": ("p.yaml", text("- init_params\n"), "must be a mapping of sections, not a list"),
    "a word": ("p.yaml", text("init_params\n"), "must be a mapping of sections, not text"),
    "a tab": ("p.yaml", text("init_params:\n\tprobe_kv: 80\n"), ":2 blanks, never with tabs"),
    "a brace too few": ("p.yaml", text("init_params: {probe_kv: 80\nx: 1\n"), ":2 cannot be read as YAML"),
    "a quote too few": ("p.yaml", text("init_params: 'x\n"), "cannot be read as YAML"),
    "wrong indentation": ("p.yaml", text("init_params:\n  a: 1\n b: 2\n"), ":3 cannot be read as YAML"),
    "a key twice": ("p.yaml", text("init_params:\n  a: 1\n  b: 2\n  a: 3\n"), ":4 'a' is there twice"),
    "two documents": ("p.yaml", text("a: 1\n---\nb: 2\n"), "single document"),
    "Python in YAML": ("p.yaml", text("a: !!python/object/apply:os.system ['touch hacked']\n"), ":1 nothing is run"),
    "a key that is a number": ("p.yaml", text("init_params: {1: 2}\n"), "init_params must be text '1' in quotes"),
    "not a number": ("p.yaml", text("init_params: {probe_kv: .nan}\n"), "init_params.probe_kv nan number"),
    "bytes": ("p.yaml", text("init_params: {probe_kv: !!binary aGk=}\n"), "init_params.probe_kv b'hi'"),
    "aliases that blow up": ("p.yaml", text(ALIASES), "200000 values"),
    "an alias of itself": ("p.yaml", text("a: &a [*a]\n"), ":1 alias"),
    "deep": ("p.yaml", text("a: " + "[" * 5000 + "]" * 5000), "nested too deeply"),
    "a number without end": ("p.yaml", text("a: " + "9" * 6000), "cannot be read as YAML"),
    "another program's file": (
        "p.yaml",
        text("services: {web: {image: x}}\n"),
        "services is no file that ptydask knows",
    ),
    "binary": ("p.yaml", binary(b"\x89HDF\r\n\x1a\n\xff\xfe"), "not UTF-8"),
    "zero bytes": ("p.yaml", binary(b"init_params: \0\n"), ":1 binary"),
    "UTF-16": ("p.yaml", binary("init_params: {}\n".encode("utf-16")), ":1 not UTF-8"),
    "JSON with a comma too many": ("p.json", text('{"a": 1,}\n'), ":1 cannot be read as JSON"),
    "JSON with a key twice": ("p.json", text('{"a": 1, "a": 2}'), "'a' is there twice"),
    "deep JSON": ("p.json", text("[" * 100000), "nested too deeply"),
    "TOML without a value": ("p.toml", text("[init_params]\nprobe_kv =\n"), ":2 cannot be read as TOML"),
    "TOML with a date": ("p.toml", text("[init_params]\nprobe_kv = 2024-01-01\n"), "init_params.probe_kv a date"),
    "a folder": ("p.yaml", Path.mkdir, "is a folder"),
    "a pipe": ("p.yaml", os.mkfifo, "not an ordinary file"),
    "a Python file": ("p.py", text("open('hacked', 'w')\n"), "run as a program"),
    "a text file": ("p.txt", text("a: 1\n"), "'.txt' .yaml"),
    "5 MB": ("p.yaml", text("# x\n" * 1_300_000), "5200000 bytes"),
}


@pytest.mark.parametrize("name", FILES)
def test_the_file_cannot_be_read(name: str, folder: Path) -> None:
    """The error names the file, the line where there is one, and what is wrong; nothing in the file is run."""
    file, make, words = FILES[name]
    path = folder / file
    make(path)
    said = refused(path, folder)
    assert said.startswith(str(path))
    for word in words.split():
        assert word in said, f"{word!r} is not in: {said}"
    assert not (folder / "hacked").exists()


def test_the_file_is_not_there(folder: Path) -> None:
    """The nearest name in the folder is offered."""
    (folder / "params.yaml").write_text("a: 1")
    assert "no such file; did you mean" in refused(folder / "parms.yaml", folder)
    assert "does not exist either" in refused(folder / "sub" / "params.yaml", folder)


def test_results_that_cannot_be_written(folder: Path) -> None:
    """Where ``--results`` says so, the error speaks of ``--results``."""
    path = folder / "params.json"
    path.write_text(json.dumps(GOOD))
    for results in ("data.h5/r.h5", ".", "/proc/r.h5"):
        with pytest.raises(ConfigError, match="--results"):
            engines.get("ptyrad").validate(config.load(path, config.Overrides(results=Path(results))))


def test_there_are_enough() -> None:
    """At least 60 broken files, whatever is taken out one day."""
    assert len(VALUES) + len(PAIRS) + len(FILES) >= 150


# --- through the command line -----------------------------------------------------------------------


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(("key", "value"), [(f"{SCALE}kwargs.step", 0), (f"{INIT}meas_params.path", "dat.h5")])
def test_exit_code(command: str, key: str, value: Any, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``validate`` and ``run`` return 2, say one line on stderr, nothing on stdout, and leave nothing behind."""
    path = folder / "params.json"
    path.write_text(json.dumps(changed((key, value))))
    before = sorted(folder.rglob("*"))
    assert cli.main([command, str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert key in err
    assert repr(value) in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a tab", "Python in YAML", "a Python file", "deep", "binary"])
def test_exit_code_of_a_process(name: str, folder: Path, ptydask: Callable[..., Any]) -> None:
    """The same in a process of its own: 2, one line, no traceback, and no file that was not there before."""
    file, make, _ = FILES[name]
    make(folder / file)
    before = sorted(folder.rglob("*"))
    done = ptydask("run", file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert file in done.stderr
    assert sorted(folder.rglob("*")) == before
