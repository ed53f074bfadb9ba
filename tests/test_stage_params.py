"""The params file of all stages: the user's own file with what every stage found, and not one's cheap look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import staged_files
import store_cases
import yaml

from ptydask import cli, config, demo
from ptydask.analysis.export import params as params_file
from ptydask.analysis.next_study import NextStudy, render_next_study
from ptydask.config import Overrides
from ptydask.config.ptyrad import own_params
from ptydask.config.stages import StageInput
from ptydask.distributions import FloatRange
from ptydask.driver import provenance
from ptydask.lineage import StageLineage
from ptydask.model import Scalar, StudyMeta, TrialRecord
from ptydask.store import Store, reader
from ptydask.store.upkeep.staging import begin_stage

STAGES: Mapping[str, Any] = {
    "stages": [
        {"name": "dz", "tune": {"dz": {"low": 8, "high": 20}}, "trials": 4, "iterations": 3, "scan": {"every": 2}},
        {"name": "scan", "tune": ["scale", "rotation"], "trials": 9, "metric": "contrast", "pixels": {"crop": 32}},
    ],
    "final": {"iterations": 60},
    "search": "file",
}


@pytest.fixture(scope="module")
def demo_params(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's params file beside its data."""
    return demo.write(tmp_path_factory.mktemp("demo") / "demo")


@pytest.fixture(scope="module")
def params(demo_params: Path) -> Path:
    """The same with stages."""
    return write_text(demo_params, f"{demo_params.read_text()}\n{yaml.safe_dump({'ptydask': dict(STAGES)})}", "staged")


def write_text(beside: Path, text: str, name: str) -> Path:
    """A file of this text beside the demo's."""
    path = beside.with_name(name if "." in name else f"{name}.yaml")
    path.write_text(text)
    return path


def write_changed(demo_params: Path, changes: Mapping[str, Any], name: str, own: Mapping[str, Any] = STAGES) -> Path:
    """The demo's params with stages, and with other values of these dotted keys; ``name`` may end in .json."""
    data = yaml.safe_load(demo_params.read_text())
    for key, value in changes.items():
        section, last = key.split(".")
        data[section][last] = value
    data["ptydask"] = own
    is_json = name.endswith(".json")
    return write_text(demo_params, json.dumps(data) if is_json else yaml.safe_dump(data, sort_keys=False), name)


def stage_metas(params: Path, overrides: Overrides | None = None, **found: Scalar) -> dict[str, StudyMeta]:
    """Each stage as its run would describe it; ``found`` are further values, of a stage before all."""
    metas, overrides = {}, overrides or Overrides()
    for stage in config.load_stages(params, overrides):
        lineage = staged_files.lineage(stage.name)
        lineage = replace(
            lineage, values={**found, **lineage.values}, origins={**dict.fromkeys(found, ("dz", 0)), **lineage.origins}
        )
        metas[stage.name] = provenance.study_meta(config.load(params, overrides, StageInput(stage, lineage)))
    return metas


def best_of(stage: str) -> TrialRecord:
    """The stage's best trial."""
    return next(record for record in staged_files.records(stage) if record.number == staged_files.BEST[stage])


def compose(meta: StudyMeta, stage: str, params: Path) -> tuple[str, dict[str, Any]]:
    """The file of the stage's best trial, as text and as it is read."""
    text = params_file.of_trial(meta, best_of(stage), near=params.with_suffix(".h5")).text
    return text, yaml.safe_load(text)


def test_it_is_the_users_own_file(params: Path) -> None:
    """Its iterations, scan, patterns, metric and comments, whatever the stage had; all values, and from where."""
    own = yaml.safe_load(params.read_text())
    for stage, meta in stage_metas(params).items():
        text, data = compose(meta, stage, params)
        assert data["recon_params"] == own["recon_params"] | {"SAVE_ITERS": 12}
        assert "meas_crop" not in data["init_params"]
        assert data["hypertune_params"] == own["hypertune_params"] | {"if_hypertune": False}
        assert data["constraint_params"] == own["constraint_params"]
        assert data["init_params"]["obj_slice_thickness"] == 15.25
        assert data["init_params"]["pos_scan_affine"] == (None if stage == "dz" else [1.02, 0, -1.5, 0])
        assert "ptydask" not in data
        assert "# The microscope, as its operator wrote it down" in text
        assert "# dz 15.25 from stage dz, trial 2\n" in text
        assert ("# scale 1.02, rotation -1.5 from stage scan, trial 3\n" in text) == (stage != "dz")
        assert f"# demo {stage}, trial {staged_files.BEST[stage]} (complete)" in text


CHANGES: Mapping[str, Any] = {
    "recon_params.NITER": 77,
    "recon_params.SAVE_ITERS": 5,
    "recon_params.BATCH_SIZE": {"size": 24, "grad_accumulation": 2},
    "recon_params.INDICES_MODE": {"mode": "center", "subscan_slow": 12, "subscan_fast": 12},
    "init_params.meas_crop": [None, None, [4, 44], [4, 44]],
    "constraint_params.kr_filter": {"start_iter": 1, "radius": 0.2, "width": 0.04},
    "constraint_params.probe_mask_k": {"start_iter": 1, "radius": 0.2, "width": 0.04},
    "constraint_params.obj_rblur": {"start_iter": 1, "std": 0.5},
    "model_params.detector_blur_std": 1.0,
    "hypertune_params.pruner_params": None,
    "hypertune_params.error_metric": "contrast",
}


@pytest.mark.parametrize("name", ["changed.yaml", "changed.json"])
def test_what_a_stage_has_otherwise_is_the_files(demo_params: Path, name: str) -> None:
    """Also where the file is JSON, which is written out anew, without the search."""
    params = write_changed(demo_params, CHANGES, name)
    for stage, meta in stage_metas(params).items():
        data = compose(meta, stage, params)[1]
        assert data["init_params"]["obj_slice_thickness"] == 15.25
        for key, value in CHANGES.items():
            section, last = key.split(".")
            if section != "hypertune_params" or name.endswith(".yaml"):
                assert data[section][last] == value


def test_nothing_of_a_stage_is_forgotten(demo_params: Path) -> None:
    """What the plan of any stage has otherwise than that of the file is among the keys that are put back."""
    scan, *others = STAGES["stages"]
    own = {**STAGES, "stages": [{**scan, "pixels": {"bin": 2}, "batch_size": 16}, *others]}
    focused = {**CHANGES, "init_params.probe_aberrations": {"C10": 100}}  # so that the probe fits into half the window
    params = write_changed(demo_params, focused, "binned.yaml", own)
    whole = own_params.without_values(config.load(params).config, staged_files.FOUND)
    for meta in stage_metas(params).values():
        ran = own_params.without_values(json.loads(meta.config_json), staged_files.FOUND)
        keys = {(section, name) for both in (ran, whole) for section in both for name in both[section]}
        differ = {f"{s}.{n}" for s, n in keys if ran.get(s, {}).get(n) != whole.get(s, {}).get(n)}
        assert {key for key in differ if not key.startswith("hypertune_params.")} <= set(own_params.STAGE_KEYS)
        assert len(differ & set(own_params.STAGE_KEYS)) >= 2
        assert own_params.without_values(params_file.own_config(meta), staged_files.FOUND) == whole


def test_each_kind_of_value_is_put_in_place(demo_params: Path) -> None:
    """Found by earlier stages, so that the configuration of this one has it already."""
    params = write_changed(demo_params, {"init_params.probe_pmode_init_pows": [0.02, 0.05]}, "values.yaml")
    found: dict[str, Scalar] = {"pmode_max": 3, "optimizer": "SGD", "C10": 240.0, "dx": 0.4, "tilt_y": 2.0}
    found |= {"tilt_x": -1.0, "plr": 0.002, "batch_size": 16, "z_shift": 3.0, "conv_angle": 25.5, "Nlayer": 2}
    data = compose(stage_metas(params, **found)["final"], "final", params)[1]
    init, model = data["init_params"], data["model_params"]
    assert (init["probe_pmode_max"], init["probe_pmode_init_pows"]) == (3, [0.02])
    assert model["optimizer_params"] == {"name": "SGD", "configs": {}}
    assert init["probe_aberrations"] == {"C10": 240.0}
    assert init["meas_calibration"] == {"mode": "dx", "value": 0.4}
    assert init["tilt_params"] == {"init_tilts": [[2.0, -1.0]]}
    assert model["update_params"]["probe"]["lr"] == 0.002
    assert data["recon_params"]["BATCH_SIZE"] == {"size": 16, "grad_accumulation": 1}
    assert (init["probe_z_shift"], init["probe_conv_angle"], init["obj_Nlayer"]) == (3.0, 25.5, 2)
    assert (init["obj_slice_thickness"], init["pos_scan_affine"]) == (15.25, [1.02, 0, -1.5, 0])


def test_a_setting_in_a_stages_place_is_told(params: Path) -> None:
    """--set of a key that the stage had otherwise: the results do not have it, and the note says so."""
    meta = stage_metas(params, Overrides(settings=(("recon_params.NITER", 50),)))["dz"]
    exported = params_file.of_trial(meta, best_of("dz"), near=params)
    assert yaml.safe_load(exported.text)["recon_params"]["NITER"] == 12
    assert any("recon_params.NITER" in note and "beside the file" in note for note in exported.notes)


def test_an_exported_file_has_one_header(params: Path) -> None:
    """That of an earlier export goes, with all of its lines."""
    meta = stage_metas(params)["final"]
    text, _ = compose(meta, "final", params)
    again, _ = compose(replace(meta, config_text=text), "final", params)
    assert again.count("from stage dz") == 1
    assert again == text


# --- next ---------------------------------------------------------------------------------------------


def test_the_next_study_has_all_that_was_found(
    params: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the last that tuned something: its metric, its best trial, earlier values, no stages, the study's name."""
    metas = stage_metas(params)
    path = staged_files.staged(tmp_path / "demo.h5", ("dz",), metas)
    begin_stage(path, metas["scan"])
    store = Store.open(path, metas["scan"])
    for number in range(14):
        values: dict[str, Scalar] = {"scale": 0.9 + 0.2 * (number % 7) / 6, "rotation": 4.0 - 0.1 * number}
        contrast = 0.3 - abs(float(str(values["rotation"])) - 4)
        store_cases.put(
            store, store_cases.record(number, contrast, params=values, metrics={"loss": 0.1, "contrast": contrast})
        )
    store.finish()
    store.close()
    assert cli.main(["next", str(path), "-o", "-"]) == 0
    text = capsys.readouterr().out
    data = yaml.safe_load(text)
    assert data["ptydask"] == {"search": "file"}
    assert data["init_params"]["obj_slice_thickness"] == 15.25
    hyper = data["hypertune_params"]
    assert (hyper["if_hypertune"], hyper["study_name"], hyper["error_metric"]) == (True, "demo-2", "contrast")
    assert data["recon_params"]["NITER"] == 12
    assert "meas_crop" not in data["init_params"]
    assert "dz 15.25 from stage dz, trial 2" in text
    (tmp_path / "next.yaml").write_text(text)
    assert config.load(tmp_path / "next.yaml").metric == "contrast"


@pytest.mark.parametrize(("advised", "wanted"), [(6, 12), (24, 24), (None, 12)])
def test_more_iterations_than_a_stage_had(params: Path, advised: int | None, wanted: int) -> None:
    """The file's own are enough where it has as many."""
    meta = stage_metas(params)["scan"]
    following = NextStudy("demo-2", best_of("scan"), {"scale": FloatRange(0.9, 1.1)}, advised)
    text = render_next_study(meta, following, (), near=params).text
    assert yaml.safe_load(text)["recon_params"]["NITER"] == wanted


def test_of_an_engine_that_is_not_ptyrads_there_are_values_alone(tmp_path: Path) -> None:
    """Those of all stages."""
    lineage = StageLineage("b", ("a", "b"), "a", 1, {"x": 2.0}, {"x": ("a", 1)})
    meta = store_cases.meta("toy b", engine="toy", lineage=lineage)
    record = store_cases.record(0, params={"y": 3.0})
    assert yaml.safe_load(params_file.of_trial(meta, record, near=tmp_path).text) == {"x": 2.0, "y": 3.0}


def test_a_stage_goes_on_as_it_was(params: Path, tmp_path: Path) -> None:
    """``resume`` has the stage's own iterations and patterns: its object fits no others."""
    metas = stage_metas(params)
    path = staged_files.staged(tmp_path / "demo.h5", ("dz", "scan"), metas)
    with reader.open(path) as results:
        trial = results.trial(3)
        exported = params_file.resume_params(results.meta, trial, tmp_path / "model.hdf5", near=path, done=2)
    data = yaml.safe_load(exported.text)
    assert data["init_params"]["meas_crop"] == [None, None, [8, 40], [8, 40]]
    assert data["recon_params"]["NITER"] == 10
    assert data["init_params"]["probe_params"] == str(tmp_path / "model.hdf5")


def test_what_a_stage_has_instead_of_what_was_found_stays_with_its_trial(demo_params: Path) -> None:
    """Batches of a cheap look: its trial goes on with them, and the params file of all has those that were found."""
    scan, last = STAGES["stages"]
    own = {**STAGES, "stages": [scan, {**last, "batch_size": 5}]}
    for name in ("batches.yaml", "batches.json"):
        meta = stage_metas(write_changed(demo_params, {}, name, own), batch_size=16)["scan"]
        assert params_file.with_values(meta, best_of("scan"))["recon_params"]["BATCH_SIZE"]["size"] == 5
        assert compose(meta, "scan", demo_params)[1]["recon_params"]["BATCH_SIZE"]["size"] == 16


@pytest.mark.parametrize("key", ["recon_params.BATCH_SIZE.size", "recon_params.INDICES_MODE.mode"])
def test_a_setting_within_a_stages_place_is_told(params: Path, key: str) -> None:
    """As one of the whole key is."""
    value = 16 if key.endswith("size") else "full"
    meta = stage_metas(params, Overrides(settings=((key, value),)))["dz"]
    notes = params_file.of_trial(meta, best_of("dz"), near=params).notes
    assert any(key in note and "beside the file" in note for note in notes)
