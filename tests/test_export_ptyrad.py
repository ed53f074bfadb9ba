"""What is exported for PtyRAD is what PtyRAD itself writes, and PtyRAD goes on from it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_cases
import tifffile
from engine_cases import NEVER, SLOT, go_on, params, plan, trial, write_patterns

from ptydask.analysis.export import model as export_model
from ptydask.cli import main
from ptydask.engines.ptyrad import release
from ptydask.engines.ptyrad.session import PtyradSession
from ptydask.errors import StoreError
from ptydask.model import KeepOptions, Scalar, TrialOutput
from ptydask.space import tunables
from ptydask.store import Store, reader
from ptydask.store.foreign import ptyrad_model

pytestmark = [
    pytest.mark.ptyrad,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # PtyRAD's own run warns; that ours does not is tested elsewhere
]

SEED = 7
FAST = {f"model_params.update_params.{name}.lr": 2e-2 for name in ("objp", "probe")}
MADE: dict[str, tuple[dict[str, Any], dict[str, Scalar]]] = {
    "plain": (
        {"model_params.update_params.probe": {"start_iter": 3, "end_iter": 10, "lr": 2e-2}},
        {"plr": 1e-3, "scale": 1.02, "rotation": -1.5},
    ),
    "slices, modes, tilts": (
        {
            "init_params.obj_Nlayer": 3,
            "init_params.obj_slice_thickness": 6.7,
            "init_params.obj_omode_max": 2,
            "init_params.tilt_params": {"tilt_type": "each", "init_tilts": [[3.0, -2.0]]},
            "model_params.update_params.slice_thickness": {"start_iter": 1, "lr": 1e-2},
            "model_params.update_params.obj_tilts": {"start_iter": 1, "lr": 1e-2},
            "recon_params.INDICES_MODE": {"mode": "center"},
            "recon_params.BATCH_SIZE.size": 4,
        },
        {"batch_size": 8, "C10": -65.0, "scale": 0.99},
    ),
    "cropped scan": ({"init_params.meas_crop": [[0, 6], None, [4, 28], [4, 28]]}, {"dx": 0.26}),
}
EVERYTHING = {
    "save_result": ["model", "objp", "obja", "probe"],
    "result_modes": {"obj_dim": [2, 3, 4], "FOV": ["crop", "full"], "bit": ["raw", "8", "16", "32"]},
}


@dataclass(frozen=True)
class Case:
    """A study of one trial, and PtyRAD's own reconstruction with the same values."""

    results: Path
    config: dict[str, Any]
    values: dict[str, Scalar]
    output: TrialOutput
    theirs: Any
    """PtyRAD's solver, at its end."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    release.installed()
    return write_patterns(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cases(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {name: made(data, tmp_path_factory.mktemp("case"), *given) for name, given in MADE.items()}


def made(data: Path, folder: Path, changes: Mapping[str, Any], values: dict[str, Scalar]) -> Case:
    config = params(data, {**FAST, **changes, "recon_params.NITER": 6})
    config["recon_params"] |= EVERYTHING
    output = PtyradSession(plan(config), SLOT).run(trial(values, seed=SEED), go_on, NEVER)
    theirs = ptyrad_run(tunables.apply(config, values))
    turned = dict(reversed(values.items()))  # a study's order of parameters need not be PtyRAD's
    return Case(stored(folder / "study.h5", config, turned, output), config, values, output, theirs)


def stored(path: Path, config: Any, values: dict[str, Scalar], output: TrialOutput) -> Path:
    provenance = {"ptyrad": release.installed().version}
    store = Store.open(path, store_cases.meta(config_json=json.dumps(config), provenance=provenance))
    record = store_cases.record(0, output.metrics["loss"], params=values, metrics=output.metrics, seed=SEED)
    store_cases.put(store, record, output)
    return store.finish()


def ptyrad_run(config: dict[str, Any], seed: int = SEED) -> Any:
    """PtyRAD's solver after its own reconstruction on the CPU."""
    from ptyrad.solver import PtyRADSolver

    solver = PtyRADSolver({**config, "hypertune_params": {"if_hypertune": False}}, device="cpu", seed=seed)
    solver.reconstruct()
    return solver


def ptyrad_saves(case: Case, folder: Path) -> None:
    """Let PtyRAD write its files of the trial, as its hypertune does."""
    from ptyrad.io.save import save_results
    from ptyrad.solver.hypertune import parse_hypertune_params_to_str
    from ptyrad.solver.reconstruction import select_scan_indices

    folder.mkdir()
    solver, model = case.theirs, case.theirs.reconstruct_results
    mode = case.config["recon_params"]["INDICES_MODE"]["mode"]
    indices = select_scan_indices(int(model.N_scan_slow), int(model.N_scan_fast), mode=mode)
    error, told = float(model.loss_iters[-1][1]), parse_hypertune_params_to_str(case.values)
    scheduler = [None] if release.installed().schedules else []
    save_results(
        str(folder),
        model,
        tunables.apply(case.config, case.values),
        solver.optimizer,
        *scheduler,
        len(model.loss_iters),
        indices,
        {},
        collate_str=f"_error_{error:.5f}_t0000{told}",
    )


def export(*args: object) -> None:
    assert main(["export", *map(str, args)]) == 0


def assert_equal(ours: Any, theirs: Any, where: str = "") -> None:
    """Equal to the last bit, and of the same kind, however deep."""
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), where
        assert theirs.keys() <= ours.keys(), f"{where}: {theirs.keys() - ours.keys()}"
        for name in theirs:
            assert_equal(ours[name], theirs[name], f"{where}/{name}")
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
        np.testing.assert_array_equal(ours, theirs, err_msg=where)
    else:
        assert ours == theirs, where


@pytest.mark.parametrize("name", MADE)
def test_the_model_file_is_ptyrads_own(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    """PtyRAD's loader finds in it everything that it finds in its own file, equal to the last bit.

    But for times, the path, and what a trial does not keep: the losses of single batches, and PtyRAD 1.0's histories.
    """
    from ptyrad.io.load import load_ptyrad

    ptyrad_saves(cases[name], tmp_path / "theirs")
    (file,) = (tmp_path / "theirs").glob("model_*.hdf5")
    export(cases[name].results, "model", tmp_path / "ours.hdf5")
    ours, theirs = load_ptyrad(str(tmp_path / "ours.hdf5")), load_ptyrad(str(file))
    if release.installed().schedules:
        for key in ("lr_iters", "avg_tilt_iters", "convergence_iters"):
            del theirs[key]
    assert theirs.keys() <= ours.keys()
    for key in ("iter_times", "avg_iter_t"):
        assert np.shape(ours.pop(key)) == np.shape(theirs.pop(key))
    if "slice_thickness" in str(MADE[name][0]):  # its course is not kept, its last value is
        thickness = ours.pop("dz_iters"), theirs.pop("dz_iters")
        np.testing.assert_array_equal(thickness[0], thickness[1][-1:])
    del theirs["output_path"]
    assert_equal(ours, theirs)


@pytest.mark.parametrize("name", MADE)
def test_pictures_are_ptyrads_own(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    """--ptyrad-names leaves the files that PtyRAD leaves: every name, every pixel.

    The probe's amplitude is torch's there and numpy's here, which differ in the last bit.
    """
    ptyrad_saves(cases[name], tmp_path / "theirs")
    export(cases[name].results, "tiff", tmp_path / "ours", "--ptyrad-names")
    ours, theirs = (
        {path.name: tifffile.imread(path) for path in (tmp_path / whose).glob("*.tif")} for whose in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys()
    assert len(theirs) >= 20
    for picture, pixels in theirs.items():
        if picture.startswith("probe"):
            assert ours[picture].dtype == pixels.dtype
            last = 1 if pixels.dtype.kind == "u" else 1e-6 * float(pixels.max())
            np.testing.assert_allclose(ours[picture].astype(float), pixels.astype(float), atol=last, rtol=0)
        else:
            assert_equal(ours[picture], pixels, picture)


@pytest.mark.parametrize("name", MADE)
def test_ptyrad_goes_on_from_a_trial(cases: dict[str, Case], name: str, tmp_path: Path) -> None:
    """With what ``export resume`` writes, PtyRAD's first loss is that of the iteration after the trial's last.

    It is compared with PtyRAD's own run of one iteration more; the optimizer's lost memory may cost a little. And the
    reconstruction starts where the trial ended: the same object and probe, the positions not turned twice.
    """
    from ptyrad.params import load_params

    case = cases[name]
    export(case.results, "resume", tmp_path, "--iterations", 2)
    given = load_params(str(tmp_path / "params.yaml"))
    assert given["recon_params"]["NITER"] == given["recon_params"]["SAVE_ITERS"] == 2
    given["recon_params"]["SAVE_ITERS"] = None
    solver = ptyrad_run(given)
    if name == "plain":  # the probe is refined from 3 to 10: in the next 4 iterations
        probe_update = given["model_params"]["update_params"]["probe"]
        assert (probe_update["start_iter"], probe_update["end_iter"]) == (1, 4)

    whole = tunables.apply(case.config, case.values)
    whole["recon_params"]["NITER"] = 7
    through = [float(loss) for _, loss in ptyrad_run(whole).reconstruct_results.loss_iters]
    resumed = [float(loss) for _, loss in solver.reconstruct_results.loss_iters]
    first, last, following = through[0], through[5], through[6]
    assert abs(resumed[0] - following) < 0.15 * (first - last)
    assert resumed[1] < resumed[0] < last

    began, arrays = solver.init.init_variables, case.output.arrays
    shown = arrays["object_amplitude"].data * np.exp(1j * arrays["object_phase"].data)
    np.testing.assert_allclose(began["obj"], shown, atol=1e-6)
    for ours, theirs in (("object_tilts", "obj_tilts"), ("slice_thickness", "slice_thickness")):
        np.testing.assert_allclose(began[theirs], arrays[ours].data, rtol=1e-6)
    positions = (began["crop_pos"] + began["probe_pos_shifts"]) * began["dx"]
    np.testing.assert_allclose(positions, arrays["positions"].data, atol=1e-5)
    probe = arrays["probe"].data
    np.testing.assert_allclose(
        np.abs(began["probe"]) ** 2, np.abs(probe) ** 2, rtol=2e-2, atol=1e-3 * np.ptp(abs(probe))
    )


def test_params_give_the_trial_again(cases: dict[str, Case], tmp_path: Path) -> None:
    """PtyRAD's run on the exported params file has the trial's losses, to the last bit."""
    from ptyrad.params import load_params

    case = cases["plain"]
    export(case.results, "params", tmp_path / "trial.yaml")
    given = load_params(str(tmp_path / "trial.yaml"))
    given["recon_params"]["SAVE_ITERS"] = None
    losses = [
        float(loss) for _, loss in ptyrad_run(given, given["init_params"]["random_seed"]).reconstruct_results.loss_iters
    ]
    assert losses == list(case.output.curve["loss"])


def test_a_trial_of_an_older_file_goes_on_too(cases: dict[str, Case], tmp_path: Path, capsys: Any) -> None:
    """What a trial does not say is derived, and told; positions are the same, shared otherwise by crop and shift."""
    case = cases["plain"]
    new = ("crop_positions", "scan_indices")
    facts = ("initial_slice_thickness", "initial_probe_intensity", "scan_positions_slow", "scan_positions_fast")
    older = replace(
        case.output,
        arrays={name: array for name, array in case.output.arrays.items() if name not in new},
        attributes={name: value for name, value in case.output.attributes.items() if name not in facts},
    )
    path = stored(tmp_path / "old.h5", case.config, case.values, older)
    export(path, "model", tmp_path / "old.hdf5")
    err = capsys.readouterr().err
    assert all(name in err for name in ("crop_positions", *facts))
    export(case.results, "model", tmp_path / "new.hdf5")
    assert capsys.readouterr().err == ""
    old, known = (ptyrad_model.read(tmp_path / name) for name in ("old.hdf5", "new.hdf5"))
    for one in ("N_scan_slow", "N_scan_fast", "slice_thickness", "H"):
        assert_equal(old.attributes[one], known.attributes[one], one)
    assert old.attributes["probe_int_sum"] == pytest.approx(known.attributes["probe_int_sum"], rel=1e-3)
    positions = [m.attributes["crop_pos"] + m.tensors["probe_pos_shifts"] for m in (old, known)]
    np.testing.assert_allclose(positions[0], positions[1], atol=1e-5)


def test_what_is_written_is_read_again(cases: dict[str, Case], tmp_path: Path) -> None:
    """Our reader gives back the model that was written, and reads PtyRAD's own files alike."""
    case = cases["slices, modes, tilts"]
    with reader.open(case.results) as results:
        one = export_model.of_trial(results.meta, results.trial(0)).model
    ptyrad_model.write(tmp_path / "ours.hdf5", one)
    again = ptyrad_model.read(tmp_path / "ours.hdf5")
    assert again.version == release.installed().version
    assert (again.iteration, again.seed, again.provenance) == (6, SEED, one.provenance)
    assert_equal(again.tensors, {name: np.asarray(value) for name, value in one.tensors.items()})
    assert_equal(again.params, json.loads(json.dumps(one.params)))
    ptyrad_saves(case, tmp_path / "theirs")
    theirs = ptyrad_model.read(next((tmp_path / "theirs").glob("model_*.hdf5")))
    assert_equal(again.tensors, dict(theirs.tensors))
    np.testing.assert_array_equal(again.losses, theirs.losses)
    np.testing.assert_array_equal(again.indices, theirs.indices)
    assert json.loads(theirs.provenance).keys() == json.loads(again.provenance).keys()


def test_what_is_no_model_file(tmp_path: Path) -> None:
    """A text, a results file and half a model file are refused in one line that names the file."""
    (tmp_path / "text.hdf5").write_text("no HDF5")
    results = store_cases.packed(tmp_path / "results.h5", [store_cases.record(0)])
    for path in (tmp_path / "text.hdf5", results, tmp_path / "missing.hdf5"):
        with pytest.raises(StoreError, match=path.name) as caught:
            ptyrad_model.read(path)
        assert "\n" not in str(caught.value)


def test_a_model_file_has_ptyrads_suffix(cases: dict[str, Case], tmp_path: Path, capsys: Any) -> None:
    """PtyRAD tells by the name how to read it."""
    assert main(["export", str(cases["plain"].results), "model", str(tmp_path / "model.txt")]) == 2
    assert ".hdf5" in capsys.readouterr().err


def test_numbers_alone_are_no_model(data: Path, tmp_path: Path) -> None:
    """collate_results: false keeps no arrays: no model file, and the error says so."""
    config = params(data, {"recon_params.NITER": 1})
    output = PtyradSession(plan(config, keep=KeepOptions(arrays=False)), SLOT).run(trial(), go_on, NEVER)
    path = stored(tmp_path / "study.h5", config, {}, output)
    with reader.open(path) as results, pytest.raises(StoreError, match="arrays were not kept"):
        export_model.of_trial(results.meta, results.trial(0))
