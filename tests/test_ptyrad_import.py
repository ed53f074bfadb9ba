"""A folder that PtyRAD's own hypertune left becomes a results file: every trial, value and array of it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import forked
import h5py
import numpy as np
import ptyrad_folders
import pytest
import servers
import yaml
from optuna.trial import TrialState as State
from ptyrad_folders import ITERATIONS, Made

from ptydask import cli
from ptydask.engines.ptyrad import image_metrics
from ptydask.errors import ConfigError, PtydaskError, StorageError, UnusableResults, UsageError
from ptydask.importers.ptyrad import ImportedStudy, import_study, output
from ptydask.model import Reason, TrialState
from ptydask.store import reader
from ptydask.store.foreign import ptyrad_model
from ptydask.store.reader import Results, TrialData

STUDIES = {
    "collated": {"n_trials": 5, "error_metric": "loss", "collate_results": True, "SAVE_ITERS": None},
    "apart": {"n_trials": 2, "error_metric": "contrast", "collate_results": False, "SAVE_ITERS": 2},
    "both ways": {"n_trials": 5, "error_metric": "contrast", "collate_results": True, "SAVE_ITERS": 2},
    "numbers": {"n_trials": 2, "error_metric": "loss", "collate_results": False, "SAVE_ITERS": None},
}
PTYRAD = """
import sys
from ptydask.engines.ptyrad.torchvision_schema import make_importable
make_importable()
from ptyrad.params import load_params
from ptyrad.runtime.logging import LoggingManager
from ptyrad.solver import PtyRADSolver
for path in sys.argv[1:]:
    LoggingManager(log_file="ptyrad_log.txt", log_dir="auto", prefix_time="datetime", append_to_file=True,
                   show_timestamp=True)
    params = load_params(path)
    solver = PtyRADSolver(params, device="cpu", seed=3)
    solver.run()
"""
"""As `ptyrad run` does it, which stops on a machine without a GPU."""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results without a path go into the test's own folder."""
    monkeypatch.chdir(tmp_path)


def tree(folder: Path) -> dict[str, tuple[int, str]]:
    """Every file below ``folder``, when it was changed, and what is in it."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def trial(done: ImportedStudy, number: int) -> TrialData:
    with reader.open(done.results) as results:
        return _whole(results, number)


def _whole(results: Results, number: int) -> TrialData:
    data = results.trial(number)
    read = {name: replace(array, _fetch=_held(array.read())) for name, array in data.arrays.items()}
    return replace(data, arrays=read)


def _held(array: Any) -> Callable[[Any], Any]:
    return lambda part: array[part]


# --- what PtyRAD itself left ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ptyrad_runs(tmp_path_factory: pytest.TempPathFactory, commands: forked.Commands) -> Path:
    """A folder with an SQLite file, and for each of STUDIES a params file and what PtyRAD's hypertune made of it."""
    from engine_cases import ALPHA, DX, KV, PIXELS, SCAN, STEP, write_patterns

    folder = tmp_path_factory.mktemp("ptyrad")
    data = write_patterns(folder)
    for name, how in STUDIES.items():
        init = {
            "probe_kv": KV,
            "probe_conv_angle": ALPHA,
            "probe_aberrations": {"C10": -60.0},
            "meas_Npix": PIXELS,
            "pos_N_scan_slow": SCAN,
            "pos_N_scan_fast": SCAN,
            "pos_scan_step_size": STEP,
            "meas_calibration": {"mode": "dx", "value": DX},
            "meas_params": {"path": str(data)},
            "probe_pmode_max": 2,
            "obj_Nlayer": 2,
            "obj_slice_thickness": 5.0,
            "random_seed": 3,
        }
        params = yaml.safe_load(ptyrad_folders.params_text(name, storage=f"sqlite:///{folder}/hypertune.sqlite3"))
        params["init_params"] = init
        params["hypertune_params"] |= {
            "n_trials": how["n_trials"],
            "collate_results": how["collate_results"],
            "error_metric": how["error_metric"],
            "sampler_params": {"name": "TPESampler", "configs": {"seed": 5}},
            "pruner_params": {"name": "HyperbandPruner", "configs": {"min_resource": 1, "reduction_factor": 2}},
        }
        params["hypertune_params"]["tune_params"]["batch_size"]["kwargs"] = {"choices": [8, 16, 32]}
        params["recon_params"] = {
            "NITER": ITERATIONS,
            "BATCH_SIZE": {"size": 16, "grad_accumulation": 1},
            "SAVE_ITERS": how["SAVE_ITERS"],
            "output_dir": str(folder / "output" / name),
            "selected_figs": [],
            "save_result": ["model", "objp"],
            "result_modes": {"obj_dim": [2], "FOV": ["crop"], "bit": ["raw", "8"]},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    params = [str(folder / f"{name}.yaml") for name in STUDIES]
    done = commands.run(params, folder, timeout=280, imports=forked.PTYRAD, code=PTYRAD)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def stored(folder: Path, study: str) -> Iterator[dict[str, Any]]:
    """The trials of a study as Optuna reads them back."""
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/hypertune.sqlite3")
    try:
        for one in optuna.load_study(study_name=study, storage=storage).trials:
            yield {
                "number": one.number,
                "state": one.state.name,
                "value": one.value,
                "params": one.params,
                "reported": one.intermediate_values,
                "begin": one.datetime_start,
                "seconds": one.duration.total_seconds() if one.duration else 0.0,
            }
    finally:
        storage.remove_session()
        storage.engine.dispose()


def models_of(home: Path, number: int) -> dict[int, Path]:
    """Iteration -> PtyRAD's model file of it."""
    collated = home.glob(f"model_error_*_t{number:04d}_*.hdf5")
    apart = home.glob(f"t{number:04d}_*/model_iter*.hdf5")
    return {int(path.stem[-4:]): path for path in [*apart, *collated]}


def assert_same_arrays(arrays: Any, path: Path) -> None:
    """What was imported is what h5py reads in PtyRAD's file, to the last bit and in the same type."""
    with h5py.File(path) as file:
        tensors, attributes = file["optimizable_tensors"], file["model_attributes"]
        expected = {
            "object_phase": tensors["objp"][()],
            "object_amplitude": tensors["obja"][()],
            "probe": tensors["probe"][()],
            "slice_thickness": tensors["slice_thickness"][()],
            "object_tilts": tensors["obj_tilts"][()],
            "positions": (attributes["crop_pos"][()].astype(float) + tensors["probe_pos_shifts"][()]) * 0.25,
        }
    for name, array in expected.items():
        got = arrays[name].read()
        assert got.dtype == array.dtype, name
        assert np.array_equal(got, array), name


@pytest.mark.slow
@pytest.mark.ptyrad
@pytest.mark.parametrize("name", STUDIES)
def test_every_trial_value_and_array_of_ptyrads_own_study(ptyrad_runs: Path, name: str) -> None:
    """Against the database as Optuna reads it, the model files as h5py reads them; PtyRAD's files are untouched."""
    before = tree(ptyrad_runs)
    done = import_study([ptyrad_runs / "output" / name])
    assert tree(ptyrad_runs) == before
    assert not done.tally.skipped
    assert not done.notices
    theirs = list(stored(ptyrad_runs, name))
    sign = -1 if STUDIES[name]["error_metric"] == "contrast" else 1
    with reader.open(done.results) as results:
        assert results.meta.name == name
        assert results.meta.direction == ("maximize" if sign < 0 else "minimize")
        assert results.meta.config_text == (ptyrad_runs / f"{name}.yaml").read_text()
        assert len(results.records()) == len(theirs) == STUDIES[name]["n_trials"]
        for record, trial in zip(results.records(), theirs, strict=True):
            assert (record.number, record.state.value) == (trial["number"], trial["state"])
            assert record.params == trial["params"]
            assert record.error == sign * trial["value"]
            assert record.seconds == trial["seconds"]
            assert record.started == trial["begin"].astimezone().isoformat()
            assert_same_files(_whole(results, record.number), trial, done.folders[0], sign)


def assert_same_files(got: TrialData, trial: dict[str, Any], home: Path, sign: int) -> None:
    """Curve, arrays and snapshots of one trial."""
    metric = "contrast" if sign < 0 else "loss"
    files = models_of(home, trial["number"])
    assert got.attributes["values_exact"] is True
    if not files or max(files) == max(trial["reported"]):
        assert dict(zip(got.curve["step"].tolist(), got.curve[metric].tolist(), strict=True)) == {
            step: sign * value for step, value in trial["reported"].items()
        }
    if not files:
        assert not got.arrays
        return
    assert_same_arrays(got.arrays, files[max(files)])
    assert sorted(got.snapshots) == sorted(files)[:-1]
    for step, arrays in got.snapshots.items():
        assert_same_arrays(arrays, files[step])
    with h5py.File(files[max(files)]) as file:
        if max(files) == max(trial["reported"]):
            assert np.array_equal(got.curve["loss"], file["loss_iters"][:, 1])
            assert np.array_equal(got.curve["seconds"], file["iter_times"][()])


@pytest.mark.slow
@pytest.mark.ptyrad
def test_the_test_covers_what_it_says(ptyrad_runs: Path) -> None:
    """PtyRAD pruned trials in these studies, saved some on the way, and left nothing but numbers of others."""
    assert {t["state"] for name in STUDIES for t in stored(ptyrad_runs, name)} == {"COMPLETE", "PRUNED"}
    homes = {name: next((ptyrad_runs / "output" / name).iterdir()) for name in STUDIES}
    assert len(models_of(homes["both ways"], 0)) == 2
    assert models_of(homes["apart"], 0)
    assert not models_of(homes["numbers"], 0)


@pytest.mark.slow
@pytest.mark.ptyrad
@pytest.mark.parametrize("metric", ["loss", "contrast"])
def test_without_the_database(ptyrad_runs: Path, metric: str) -> None:
    """PtyRAD's log has completed trials in full; of the others only what no file tells is rounded, and is named."""
    name = {"loss": "collated", "contrast": "both ways"}[metric]
    done = import_study([ptyrad_runs / "output" / name], storage="none")
    exact = {t["number"]: t for t in stored(ptyrad_runs, name)}
    assert done.tally.rounded == {"tilt_y"}
    with reader.open(done.results) as results:
        for record in results.records():
            theirs = exact[record.number]
            assert record.state.value == theirs["state"]
            assert record.error == pytest.approx(abs(theirs["value"]), rel=2e-6)
            attributes = results.trial(record.number).attributes
            if record.state is TrialState.COMPLETE:
                assert record.params == theirs["params"]
                assert (attributes["values_exact"], attributes["values_from"]) == (True, "log")
            else:
                assert {**record.params, "tilt_y": 0} == {**theirs["params"], "tilt_y": 0}
                assert record.params["tilt_y"] == pytest.approx(theirs["params"]["tilt_y"], rel=1e-6)
                assert (attributes["values_exact"], attributes["values_rounded"]) == (False, "tilt_y")


@pytest.mark.slow
@pytest.mark.ptyrad
def test_pictures_alone(ptyrad_runs: Path, tmp_path: Path) -> None:
    """Without model files PtyRAD's unscaled TIFF is the image: the phase that the model file would have given."""
    home = tmp_path / next((ptyrad_runs / "output" / "collated").iterdir()).name
    shutil.copytree(next((ptyrad_runs / "output" / "collated").iterdir()), home)
    whole = import_study([home], results=tmp_path / "whole.h5")
    for path in home.glob("*.hdf5"):
        path.unlink()
    done = import_study([home], results=tmp_path / "pictures.h5")
    assert (done.tally.arrays, done.tally.pictures) == (0, 5)
    image, model_image = trial(done, 0).image, trial(whole, 0).image
    assert image is not None
    assert model_image is not None
    assert (image.units, image.axis_units) == ("rad", "angstrom")
    assert image.x[1] - image.x[0] == 0.25
    shared = min(image.data.shape[0], model_image.data.shape[0] - 1)
    nearer = 1 if version("ptyrad").startswith("0.") else 0  # by how many pixels PtyRAD's cut is nearer to the origin
    cut, ours = image.data[nearer:shared, nearer:shared], model_image.data[: shared - nearer, : shared - nearer]
    np.testing.assert_allclose(cut, ours, atol=1e-6)


@pytest.mark.slow
@pytest.mark.ptyrad
def test_the_study_goes_on(ptyrad_runs: Path, ptydask: Callable[..., Any], tmp_path: Path) -> None:
    """``ptydask run`` with PtyRAD's own params file adds to what was imported."""
    done = import_study([ptyrad_runs / "output" / "collated"], results=tmp_path / "study.h5")
    more = ("--set", "hypertune_params.storage_path=null", "--trials", 6, "--workers", 1, "--cluster", "local")
    ran = ptydask("run", done.params, "--results", done.results, *more)
    assert ran.returncode == 0, ran.stderr
    with reader.open(done.results) as results:
        records = results.records()
        assert [record.number for record in records] == list(range(6))
        assert [record.origin for record in records] == ["imported"] * 5 + ["start"]


@pytest.mark.slow
@pytest.mark.ptyrad
@pytest.mark.filterwarnings("ignore")  # PtyRAD's own run warns
def test_there_and_back(ptyrad_runs: Path, tmp_path: Path) -> None:
    """The best trial of an imported study, exported again, is resumed by PtyRAD itself where PtyRAD had stopped."""
    from ptydask.engines.ptyrad import release

    done = import_study([ptyrad_runs / "output" / "collated"], results=tmp_path / "study.h5")
    assert cli.main(["export", str(done.results), "resume", str(tmp_path / "on"), "--iterations", "2"]) == 0
    with reader.open(done.results) as results:
        best = results.best()
        assert best is not None
        before = results.curve(best.number)["loss"]
    release.installed()
    from ptyrad.params import load_params
    from ptyrad.solver import PtyRADSolver

    given = load_params(str(tmp_path / "on" / "params.yaml"))
    given["recon_params"]["SAVE_ITERS"] = None
    solver = PtyRADSolver({**given, "hypertune_params": {"if_hypertune": False}}, device="cpu", seed=3)
    solver.reconstruct()
    losses = [float(loss) for _, loss in solver.reconstruct_results.loss_iters]
    assert len(losses) == 2
    assert losses[0] < before[1], "it goes on; a new start would be back at the first iterations' loss"


@pytest.mark.slow
@pytest.mark.ptyrad
def test_a_trial_looks_as_the_engine_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reconstruction of ours, saved by PtyRAD's own function and imported: arrays, image and facts are the same."""
    import inspect

    import engine_cases
    from engine_cases import NEVER, SLOT, go_on, params, plan, write_patterns

    from ptydask.engines.ptyrad import kept_arrays, release, session

    release.installed()
    from ptyrad.io import save

    config = params(
        write_patterns(tmp_path), {"init_params.obj_Nlayer": 2, "recon_params.INDICES_MODE": {"mode": "center"}}
    )
    kept: list[Any] = []
    drawn = kept_arrays.phase_image

    def keep(model: Any, *rest: Any) -> Any:
        kept.append(model)
        return drawn(model, *rest)

    monkeypatch.setattr(kept_arrays, "phase_image", keep)
    ours = session.PtyradSession(plan(config), SLOT).run(engine_cases.trial(), go_on, NEVER)
    scan = np.arange(64)
    indices = ours.arrays["scan_indices"].data if "scan_indices" in ours.arrays else scan
    given = {
        "output_path": str(tmp_path),
        "model": kept[0],
        "params": config,
        "niter": 3,
        "indices": indices,
        "batch_losses": {},
    }
    wanted = inspect.signature(save.make_save_dict).parameters
    content = save.make_save_dict(**{name: given.get(name) for name in wanted})
    save.save_dict_to_hdf5(content, str(tmp_path / "model.hdf5"))
    model = ptyrad_model.read(tmp_path / "model.hdf5")
    scale = output.find_length_scale(model, config, {})
    arrays, image = output.model_arrays(model, scale), output.phase_image(model, scale)
    assert arrays.keys() <= ours.arrays.keys()
    for name, array in arrays.items():
        assert np.array_equal(array.data, ours.arrays[name].data), name
        assert (array.data.dtype, array.units) == (ours.arrays[name].data.dtype, ours.arrays[name].units), name
    assert ours.image is not None
    for part in ("data", "y", "x"):
        assert np.array_equal(getattr(image, part), getattr(ours.image, part)), part
    assert (image.units, image.axis_units, image.title) == ("rad", ours.image.axis_units, ours.image.title)
    assert image_metrics.measure_image(image.data, scale.dx).items() <= ours.metrics.items()
    assert output.contrast(model) == pytest.approx(ours.metrics["contrast"], rel=1e-5)
    facts = output.trial_attributes(model, config, scale)
    for name in facts.keys() & ours.attributes.keys() - {"recon_seconds"}:
        expected = ours.attributes[name]
        assert facts[name] == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-6)), name
    missing = {"initialisation_seconds", "wall_seconds"}
    assert ours.attributes.keys() - facts.keys() <= missing


# --- folders of every other kind --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials in a folder, with their database beside it."""
    folder, made = tmp_path_factory.mktemp("study"), ptyrad_folders.trials(6)
    url = ptyrad_folders.database(folder / "hypertune.sqlite3", made)
    ptyrad_folders.write(folder / "output", made, storage=url)
    return folder


@pytest.fixture
def study(six_trials: Path, tmp_path: Path) -> Path:
    """A copy of ``six_trials``, for each test its own; returns the hypertune folder."""
    shutil.copytree(six_trials, tmp_path, dirs_exist_ok=True)
    (home,) = (tmp_path / "output").iterdir()
    params = home / "params.yaml"
    params.write_text(params.read_text().replace(str(six_trials), str(tmp_path)))
    return home


def test_a_whole_study(study: Path, tmp_path: Path) -> None:
    """Values of every digit from the database, arrays from the files; the data need not be there any more."""
    before = tree(tmp_path)
    done = import_study([study])
    assert done.results == tmp_path / "tBL_WSe2.h5"
    assert {k: v for k, v in tree(tmp_path).items() if k != "tBL_WSe2.h5"} == before
    assert not done.tally.skipped
    with reader.open(done.results) as results:
        assert results.packed
        for one, record in zip(ptyrad_folders.trials(6), results.records(), strict=True):
            assert (record.params, record.error, record.origin) == (one.params, one.value, "imported")
            phase = results.trial(one.number).arrays["object_phase"].read()
            assert np.array_equal(phase, ptyrad_folders.model(one).tensors["objp"])
        assert json.loads(results.meta.config_json)["recon_params"]["NITER"] == ITERATIONS
        space = json.loads(results.meta.search_space_json)
        assert space["rotation"]["attributes"] == {"low": -4.0, "high": 4.0, "step": 0.5, "log": False}


def test_the_folder_above_and_a_link_do(study: Path, tmp_path: Path) -> None:
    """The output_dir stands for the one hypertune folder in it; of several, the right one has to be named."""
    assert import_study([study.parent], results=tmp_path / "a.h5").folders == (study,)
    (study.parent / "20250607_hypertune_TPESampler_loss").mkdir()
    with pytest.raises(UsageError, match=r"several hypertune folders.*20250606_hypertune"):
        import_study([study.parent], results=tmp_path / "b.h5")


def test_two_folders_of_one_study(study: Path, tmp_path: Path) -> None:
    """Jobs of different days write into folders of their own; together they are one study."""
    other = study.with_name(study.name.replace("20250606", "20250607"))
    other.mkdir()
    for path in list(study.glob("*_t0004_*")):
        path.rename(other / path.name)
    done = import_study([study, other])
    assert (done.trials, done.tally.arrays) == (6, 6)


def test_contrast_gets_its_sign_back(tmp_path: Path) -> None:
    """PtyRAD minimises the negated contrast; here it is positive and the largest is the best."""
    made = ptyrad_folders.trials(4, sign=-1)
    url = ptyrad_folders.database(tmp_path / "h.sqlite3", made)
    done = import_study([ptyrad_folders.write(tmp_path / "out", made, metric="contrast", storage=url)])
    with reader.open(done.results) as results:
        assert results.meta.direction == "maximize"
        best = results.best()
        assert best is not None
        assert best.error == max(-one.value for one in made if one.state is State.COMPLETE and one.value is not None)
        curve = results.curve(0)
        assert curve["contrast"].tolist() == [-value for value in made[0].reported.values()]
        metrics = results.records()[0].metrics
        assert {"loss": 0.5 / ITERATIONS, "contrast": -(made[0].value or 0)}.items() <= metrics.items()
        assert metrics.keys() == {"loss", "contrast", *image_metrics.NAMES}


def test_states_of_a_database(tmp_path: Path) -> None:
    """A running trial was broken off, a failed one says why where the log does, a waiting one is left out."""
    made = ptyrad_folders.trials(3)
    made += [
        Made(3, None, made[0].params, State.RUNNING, {1: 0.7, 2: 0.65}),
        Made(4, None, made[1].params, State.FAIL),
        Made(5, None, made[1].params, State.FAIL),
        Made(6, None, {}, State.WAITING),
    ]
    url = ptyrad_folders.database(tmp_path / "h.sqlite3", made)
    home = ptyrad_folders.write(tmp_path / "out", made, storage=url)
    line = "Trial 4 failed with parameters: {} because of the following error: RuntimeError('out of memory')."
    (home / "20250606_101010_ptyrad_log.txt").write_text(f"2025-06-06 10:10:10,123 - {line}\n")
    done = import_study([home])
    assert done.waiting == 1
    assert done.tally.states == {"complete": 2, "pruned": 1, "interrupted": 1, "failed": 2}
    with reader.open(done.results) as results:
        records = results.records()
        assert [(r.state, r.reason) for r in records[3:]] == [
            (TrialState.FAIL, Reason.INTERRUPTED),
            (TrialState.FAIL, Reason.FAILED),
            (TrialState.FAIL, Reason.FAILED),
        ]
        assert records[3].error == 0.65
        assert results.curve(3)["loss"].tolist() == [0.7, 0.65]
        assert records[4].message == "RuntimeError('out of memory')"
        assert "does not say why" in records[5].message


def test_values_of_names(tmp_path: Path) -> None:
    """Without a database grid points, choices and what the model file has are exact; the rest is called rounded."""
    made = ptyrad_folders.trials(6)
    home = ptyrad_folders.write(tmp_path / "out", made)
    done = import_study([home])
    assert (done.tally.rounded, done.tally.rounded_trials) == ({"tilt_y"}, 6)
    with reader.open(done.results) as results:
        for one, record in zip(made, results.records(), strict=True):
            assert {**record.params, "tilt_y": 0} == {**one.params, "tilt_y": 0}
            assert record.params["tilt_y"] == pytest.approx(one.params["tilt_y"], rel=1e-6)
            assert record.error == one.value, "the model file has the loss in full"
            assert record.state.value == one.state.name
    for path in home.glob("*.hdf5"):
        path.with_suffix(".tif").write_bytes(b"")
        path.unlink()
    bare = import_study([home], results=tmp_path / "bare.h5")
    assert bare.tally.rounded == {"tilt_y", "scale", "oplr"}
    with reader.open(bare.results) as results:
        for one, record in zip(made, results.records(), strict=True):
            assert record.error == round(one.value or 0, 5)
            assert record.params["scale"] == float(f"{one.params['scale']:.3g}")
            assert record.params["oplr"] == float(f"{one.params['oplr']:.1e}")
            assert (record.params["rotation"], record.params["batch_size"]) == (
                one.params["rotation"],
                one.params["batch_size"],
            )


def test_jobs_that_counted_for_themselves(tmp_path: Path) -> None:
    """Without a common database several trials are number 0: the later ones get numbers after the last."""
    first, second = ptyrad_folders.trials(3), ptyrad_folders.trials(6)[3:]
    second = [replace(one, number=number) for number, one in enumerate(second)]
    home = ptyrad_folders.write(tmp_path / "out", [*first, *second])
    done = import_study([home])
    assert (done.trials, done.tally.renumbered) == (6, 3)
    with reader.open(done.results) as results:
        errors = {record.error for record in results.records()}
        assert errors == {one.value for one in [*first, *second]}
        assert [results.trial(n).attributes.get("ptyrad_trial") for n in range(6)] == [None, None, None, 0, 1, 2]


def test_neither_params_nor_database(tmp_path: Path) -> None:
    """The metric is in the folder's name, the ranges are the span of the values."""
    made = ptyrad_folders.trials(4, sign=-1)
    home = ptyrad_folders.write(tmp_path / "out", made, metric="contrast")
    (home / "params.yaml").unlink()
    done = import_study([home])
    with reader.open(done.results) as results:
        assert results.meta.metric == "contrast"
        space = json.loads(results.meta.search_space_json)
        values = [record.params["scale"] for record in results.records()]
        assert (space["scale"]["attributes"]["low"], space["scale"]["attributes"]["high"]) == (min(values), max(values))


def test_files_that_cannot_be_used(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is named with the reason, the trials stay with their numbers; the exit code says that it was not all."""
    models = sorted(study.glob("model_*.hdf5"), key=lambda path: path.name.partition("_t0")[2])
    models[0].write_bytes(models[0].read_bytes()[:3000])
    models[1].write_bytes(b"")
    shutil.copy(models[2], study / models[2].name.replace("_t0002_", "_t0099_"))
    shutil.copy(models[3], study / models[3].name.replace("error_0.", "error_1."))
    (study / "model_iter0004.hdf5").write_bytes(b"not by hypertune")
    (study / "old.pt").write_bytes(b"a pickle")
    ptyrad_model.write(models[4], ptyrad_folders.model(replace(ptyrad_folders.trials(6)[4], reported={1: 0.9, 2: 0.8})))
    assert cli.main(["import-ptyrad", str(study)]) == 3
    said = capsys.readouterr().out
    assert "skipped  7 files:" in said
    for words in (
        f"{models[0].name}: not readable",
        f"{models[1].name}: not readable",
        "the database has no trial 99",
        "its name says error 1.",
        "its name is not one that hypertune gives",
        "old.pt: a .pt file can run any program",
        "its loss at iteration 1 is 0.9, not the trial's",
    ):
        assert words in said
    with reader.open(tmp_path / "tBL_WSe2.h5") as results:
        made = ptyrad_folders.trials(6)
        assert [record.error for record in results.records()] == [one.value for one in made]
        assert [bool(results.trial(n).arrays) for n in range(6)] == [False, False, True, True, False, True]
        assert results.curve(0)["loss"].tolist() == list(made[0].reported.values())
        assert str(results.trial(1).attributes["not_imported"]).startswith(f"{models[1].name}: not readable")


def test_old_names_of_parameters(tmp_path: Path) -> None:
    """``defocus`` of older versions is ``C10`` with the sign turned, in the trials as in the ranges."""
    made = [replace(one, params={"defocus": 10.0 * one.number}) for one in ptyrad_folders.trials(3)]
    home = ptyrad_folders.write(tmp_path / "out", made)
    params = yaml.safe_load((home / "params.yaml").read_text())
    kwargs = {"low": -50, "high": 50, "step": 10}
    params["hypertune_params"]["tune_params"] = {"defocus": {"state": True, "suggest": "float", "kwargs": kwargs}}
    (home / "params.yaml").write_text(yaml.safe_dump(params))
    done = import_study([home])
    with reader.open(done.results) as results:
        assert [record.params for record in results.records()] == [{"C10": 0}, {"C10": -10}, {"C10": -20}]
        assert results.trial(1).attributes["values_exact"] is True


def test_a_database_that_is_elsewhere(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A relative path of the params file is looked for above the folder; one that is gone is said to be."""
    text = (study / "params.yaml").read_text().replace(f"sqlite:///{tmp_path}/", "sqlite:///somewhere/")
    (study / "params.yaml").write_text(text)
    assert import_study([study], results=tmp_path / "a.h5").database == str(tmp_path / "hypertune.sqlite3")
    (tmp_path / "hypertune.sqlite3").rename(tmp_path / "other.db")
    assert cli.main(["import-ptyrad", str(study), "--results", "b.h5"]) == 0
    said = capsys.readouterr().out
    assert "sqlite:///somewhere/hypertune.sqlite3 is not there any more" in said
    assert "0 exact, 6 rounded (tilt_y): 6 from the names of the files" in said
    exact = import_study([study], storage="other.db", results=tmp_path / "c.h5")
    assert exact.tally.sources == {"database": 6}


def test_studies_of_a_database(study: Path, tmp_path: Path) -> None:
    """Of several, the params file's; another where --study says so; a wrong name lists those that are there."""
    ptyrad_folders.database(tmp_path / "hypertune.sqlite3", ptyrad_folders.trials(2), name="other")
    assert import_study([study], results=tmp_path / "a.h5").trials == 6
    other = import_study([study], study="other", results=tmp_path / "b.h5")
    assert (other.study, other.trials) == ("other", 2)
    assert any("the params file calls it 'tBL_WSe2'" in notice for notice in other.notices)
    with pytest.raises(UsageError, match="no study 'wrong'; there are 'other', 'tBL_WSe2'"):
        import_study([study], study="wrong", results=tmp_path / "c.h5")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_in_use(study: Path, tmp_path: Path, journal: str) -> None:
    """Another process is in the middle of writing: what it has finished is read, nothing is left beside its file."""
    path = tmp_path / "hypertune.sqlite3"
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        writer.execute(f"PRAGMA journal_mode={journal}")
        writer.execute("UPDATE trial_values SET value = value WHERE trial_value_id = 1")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM trial_values")
        before = sorted(entry.name for entry in tmp_path.iterdir())
        done = import_study([study])
        assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*before, "tBL_WSe2.h5"])
        assert not done.tally.skipped
    finally:
        writer.rollback()
        writer.close()


def test_databases_of_older_optuna(study: Path, tmp_path: Path) -> None:
    """Before Optuna 3 values had no type column, and distributions other names."""
    connection = sqlite3.connect(tmp_path / "hypertune.sqlite3")
    with connection:
        connection.execute("ALTER TABLE trial_values DROP COLUMN value_type")
        connection.execute("ALTER TABLE trial_intermediate_values DROP COLUMN intermediate_value_type")
        for name, kind in (
            ("scale", {"name": "UniformDistribution", "attributes": {"low": 0.9, "high": 1.1}}),
            ("rotation", {"name": "DiscreteUniformDistribution", "attributes": {"low": -4, "high": 4, "q": 0.5}}),
            ("oplr", {"name": "LogUniformDistribution", "attributes": {"low": 1e-4, "high": 1e-2}}),
        ):
            connection.execute(
                "UPDATE trial_params SET distribution_json = ? WHERE param_name = ?", (json.dumps(kind), name)
            )
    connection.close()
    (study / "params.yaml").unlink()
    done = import_study([study], storage=str(tmp_path / "hypertune.sqlite3"))
    with reader.open(done.results) as results:
        assert [r.params for r in results.records()] == [one.params for one in ptyrad_folders.trials(6)]
        space = json.loads(results.meta.search_space_json)
        assert space["rotation"]["attributes"]["step"] == 0.5
        assert space["oplr"]["attributes"]["log"] is True


def test_trials_that_ptydask_mirrored(study: Path, tmp_path: Path) -> None:
    """A run of ours may have added to PtyRAD's database: the report says where the arrays of those trials are."""
    connection = sqlite3.connect(tmp_path / "hypertune.sqlite3")
    with connection:
        connection.execute("INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (2, 'ptydask', '[]')")
    connection.close()
    assert any("1 of the database's trials were run by ptydask" in notice for notice in import_study([study]).notices)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.skipif(servers.postgres_programs() is None, reason="PostgreSQL's server programs are not installed")
def test_a_database_server(study: Path, tmp_path: Path) -> None:
    """PostgreSQL is asked the same, and its password is not told to anybody."""
    import optuna

    with servers.postgres("s3cret") as url:
        storage = optuna.storages.RDBStorage(url.replace("postgresql", "postgresql+psycopg"))
        optuna.copy_study(
            from_study_name="tBL_WSe2", from_storage=f"sqlite:///{tmp_path}/hypertune.sqlite3", to_storage=storage
        )
        storage.engine.dispose()
        done = import_study([study], storage=url)
        assert "s3cret" not in done.database
        with pytest.raises(StorageError, match=r"refused|failed") as raised:
            import_study([study], storage="postgresql://me:s3cret@127.0.0.1:1/none", results=tmp_path / "b.h5")
        assert "s3cret" not in str(raised.value)
    with reader.open(done.results) as results:
        made = ptyrad_folders.trials(6)
        assert [(r.params, r.error) for r in results.records()] == [(one.params, one.value) for one in made]
        assert results.curve(0)["loss"].tolist() == list(made[0].reported.values())


def test_a_journal_file_as_storage(study: Path, tmp_path: Path) -> None:
    """Studies in Optuna's journal are read through Optuna."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    journal = tmp_path / "study.journal"
    optuna.copy_study(
        from_study_name="tBL_WSe2",
        from_storage=f"sqlite:///{tmp_path}/hypertune.sqlite3",
        to_storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
    )
    done = import_study([study], storage=f"journal:///{journal}")
    with reader.open(done.results) as results:
        assert [r.params for r in results.records()] == [one.params for one in ptyrad_folders.trials(6)]
    assert done.tally.sources == {"database": 6}


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("no folder", UsageError, "no such folder"),
        ("no hypertune", UsageError, "not a folder of PtyRAD's hypertune"),
        ("results there", UnusableResults, "is there already"),
        ("no results folder", UnusableResults, "there is no folder"),
        ("no database", UsageError, "there is no such file"),
        ("not a database", StorageError, "not readable as an SQLite database"),
        ("not Optuna's", StorageError, "not a database of Optuna's"),
        ("wrong params", ConfigError, "no such file"),
        ("unknown storage", ConfigError, "not a storage URL"),
    ],
)
def test_refused_before_anything_is_written(
    study: Path, tmp_path: Path, what: str, error: type[PtydaskError], words: str
) -> None:
    """One line says what to change; no file is left behind."""
    (tmp_path / "junk.db").write_bytes(b"no database" * 100)
    sqlite3.connect(tmp_path / "empty.db").execute("CREATE TABLE t (a)").connection.close()
    (tmp_path / "there.h5").write_text("mine")
    (tmp_path / "empty").mkdir()
    given: dict[str, dict[str, Any]] = {
        "no folder": {"folders": [tmp_path / "outpt"]},
        "no hypertune": {"folders": [tmp_path / "empty"]},
        "results there": {"results": tmp_path / "there.h5"},
        "no results folder": {"results": tmp_path / "none" / "a.h5"},
        "no database": {"storage": "sqlite:///none.db"},
        "not a database": {"storage": "junk.db"},
        "not Optuna's": {"storage": "empty.db"},
        "wrong params": {"params": tmp_path / "none.yaml"},
        "unknown storage": {"storage": "oracle://x"},
    }
    before = tree(tmp_path)
    with pytest.raises(error, match=words):
        import_study(**{"folders": [study], **given[what]})
    assert tree(tmp_path) == before


def test_a_disk_that_fills_up(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and no half file."""
    from ptydask.store import files

    def full(self: files.AsideFile, data: memoryview, offset: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.AsideFile, "put", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UnusableResults, match="No space left on device"):
        import_study([study])
    assert sorted(tmp_path.iterdir()) == before


def test_the_report(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was imported, where the values come from, and how the study goes on."""
    assert cli.main(["import-ptyrad", str(study)]) == 0
    said = capsys.readouterr().out
    assert "study tBL_WSe2, 6 trials (4 complete, 2 pruned)" in said
    assert "all exact: 6 from the database" in said
    assert "arrays   6 trials" in said
    assert "--results tBL_WSe2.h5 --set hypertune_params.storage_path=null" in said


def test_a_password_is_not_kept(tmp_path: Path) -> None:
    """The params file's storage URL goes into the results file without it."""
    home = ptyrad_folders.write(
        tmp_path / "out", ptyrad_folders.trials(2), storage="postgresql://me:s3cret@db.invalid/studies"
    )
    done = import_study([home], storage="none")
    assert b"s3cret" not in done.results.read_bytes()
    assert "s3cret" not in repr(done)


# --- what old folders hold ------------------------------------------------------------------------------


def test_a_folder_named_twice(study: Path) -> None:
    """It is one folder: no file of it is called another's."""
    done = import_study([study, study.parent])
    assert (done.folders, done.tally.arrays, done.tally.skipped) == ((study,), 6, {})


def test_a_trial_that_diverged(tmp_path: Path) -> None:
    """NaN in the database and in the model file are the same loss: its arrays are its own."""
    made = [*ptyrad_folders.trials(2), Made(2, None, ptyrad_folders.trials(3)[2].params, State.FAIL)]
    made[2].reported = {1: 0.5, 2: math.nan}
    url = ptyrad_folders.database(tmp_path / "h.sqlite3", made)
    home = ptyrad_folders.write(tmp_path / "out", made, storage=url)
    ptyrad_model.write(home / f"model{made[2].ending}.hdf5", ptyrad_folders.model(made[2]))
    done = import_study([home])
    assert not done.tally.skipped
    got = trial(done, 2)
    assert got.record.state is TrialState.FAIL
    assert got.arrays
    assert np.array_equal(got.curve["loss"], [0.5, math.nan], equal_nan=True)


def test_arrays_of_an_earlier_iteration_go_on_from_there(tmp_path: Path) -> None:
    """Saved at iteration 2 of 4: what is exported says 2, and PtyRAD goes on with the third."""
    made = ptyrad_folders.trials(1)
    url = ptyrad_folders.database(tmp_path / "h.sqlite3", made)
    home = ptyrad_folders.write(tmp_path / "out", [], storage=url)
    (home / "t0000_full").mkdir()
    ptyrad_model.write(home / "t0000_full" / "model_iter0002.hdf5", ptyrad_folders.model(made[0], iteration=2))
    done = import_study([home])
    assert trial(done, 0).attributes["arrays_iteration"] == 2
    assert cli.main(["export", str(done.results), "resume", "on"]) == 0
    model = ptyrad_model.read(tmp_path / "on" / "model_iter0002.hdf5")
    assert (model.iteration, model.losses[:, 0].tolist()) == (2, [1, 2])
    recon = yaml.safe_load((tmp_path / "on" / "params.yaml").read_text())["recon_params"]
    assert recon["NITER"] == ITERATIONS - 2


def test_the_seed_is_the_models(study: Path) -> None:
    """PtyRAD keeps the seed that it ran with; the params file may have none."""
    assert "random_seed" not in (study / "params.yaml").read_text()
    with reader.open(import_study([study]).results) as results:
        assert {record.seed for record in results.records()} == {3}


def test_links_to_nowhere_and_closed_folders(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are named, and everything else is imported."""
    closed = study / "t0001_full"
    closed.mkdir()
    for name in ("older.yaml", "old_log.txt", "model_error_0.50000_t0001_iter0004.hdf5"):
        (study / name).symlink_to("/nowhere")
    scandir = os.scandir

    def refused(path: Any) -> Any:
        if path in (closed, str(closed)):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    done = import_study([study])
    assert done.tally.arrays == 6
    said = {path.name: why for path, why in done.tally.skipped.items()}
    assert said["t0001_full"] == "the folder cannot be read: Permission denied"
    assert said["old_log.txt"].startswith("the log cannot be read")
    assert said.keys() - {"t0001_full", "old_log.txt"} == {"model_error_0.50000_t0001_iter0004.hdf5"}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"tensors": {"objp": np.zeros((2, 12, 13), np.float32)}}, "objp is of shape"),
        ({"tensors": {"probe": np.zeros((0, 4, 4), np.complex64)}}, "probe is of shape"),
        ({"tensors": {"obja": np.zeros((1, 2, 12, 14), np.float32)}}, "differ in shape"),
        ({"indices": np.array([0, 4])}, "beyond its 4 scan positions"),
        ({"losses": "not a number"}, "not readable"),
    ],
)
def test_model_files_that_contradict_themselves(study: Path, what: dict[str, Any], words: str) -> None:
    """Each is refused with the reason, and the import goes on without it."""
    path = min(study.glob("model_*.hdf5"))
    model = ptyrad_model.read(path)
    changed = {"tensors": {**model.tensors, **what["tensors"]}} if "tensors" in what else what
    ptyrad_model.write(path, replace(model, **changed))
    done = import_study([study])
    assert words in done.tally.skipped[path]
    assert done.tally.arrays == 5


def test_what_a_model_file_says_without_its_arrays(tmp_path: Path) -> None:
    """Ten thousand model files are asked for their values without reading their arrays."""
    made = ptyrad_folders.model(ptyrad_folders.trials(1)[0])
    tensors = {**made.tensors, "objp": np.ones((1, 3, 64, 64), np.float32), "obja": np.ones((1, 3, 64, 64), np.float32)}
    ptyrad_model.write(tmp_path / "m.hdf5", replace(made, tensors=tensors))
    whole, light = (ptyrad_model.read(tmp_path / "m.hdf5", large=large) for large in (True, False))
    assert output.exact_values(light) == output.exact_values(whole)
    assert output.close_values(light) == output.close_values(whole)
    assert (light.tensors["objp"].strides, light.tensors["objp"].shape) == ((0, 0, 0, 0), (1, 3, 64, 64))
    assert (light.iteration, light.seed) == (whole.iteration, whole.seed)


def test_a_damaged_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tifffile raises anything; the trial is imported without an image."""
    import tifffile

    def torn(path: Path) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(tifffile, "imread", torn)
    made = ptyrad_folders.trials(1)
    home = ptyrad_folders.write(tmp_path / "out", [])
    (home / f"objp_zsum_crop_08bit{made[0].ending}.tif").write_bytes(b"II*")
    done = import_study([home])
    assert list(done.tally.skipped.values()) == ["not readable as an image: division by zero"]
    assert trial(done, 0).image is None


def test_a_value_that_is_none_of_the_choices(study: Path, tmp_path: Path) -> None:
    """A database that contradicts itself is refused in one line."""
    connection = sqlite3.connect(tmp_path / "hypertune.sqlite3")
    with connection:
        connection.execute("UPDATE trial_params SET param_value = 7 WHERE param_name = 'batch_size'")
    connection.close()
    with pytest.raises(StorageError, match="not a database of Optuna's"):
        import_study([study])


def test_a_redis_that_is_not_there(study: Path) -> None:
    """One line, and no warning of Optuna's that its backend is experimental."""
    pytest.importorskip("redis", reason="the package redis is not installed")
    with pytest.raises(StorageError, match="refused"):
        import_study([study], storage="redis://127.0.0.1:1")
