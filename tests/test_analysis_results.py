"""``ptydask.open``: a study in Python, finished or running."""

from __future__ import annotations

import math
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import store_cases as cases

import ptydask
from ptydask import sampling
from ptydask.analysis.results import StudyResults
from ptydask.distributions import FloatRange
from ptydask.errors import MissingDependency, StoreError, UsageError, import_optional
from ptydask.model import Image, Quantity, Reason, TrialOutput, TrialRecord, TrialState
from ptydask.store import Store

SPACE = sampling.search_space_json({"scale": FloatRange(0.5, 1.5), "lr": FloatRange(1e-5, 1.0, log=True)})


def made(number: int) -> TrialOutput:
    """What PtyRAD's trials have."""
    phase = cases.phase(number)
    arrays = {**cases.output(number).arrays, "object_amplitude": Quantity(np.full(phase.shape, 2.0, np.float32), "1")}
    arrays["object_tilts"] = Quantity(np.array([[0.5, -0.5]], np.float32), "mrad")
    return cases.output(number, arrays=arrays, attributes={"pixel_size": 0.15, "probe_window": 8})


def ended(number: int, **changes: Any) -> TrialRecord:
    params = {"scale": round(0.9 + 0.05 * number, 2), "lr": 10.0**-number}
    return cases.record(number, **{"params": params, **changes})


PRUNED: dict[str, Any] = {"state": TrialState.PRUNED, "reason": Reason.PRUNED}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trials 0 to 3 and 5: complete, complete, pruned with the lowest error, failed, complete."""
    store = Store.open(tmp_path_factory.mktemp("packed") / "s.h5", cases.meta(search_space_json=SPACE))
    records = [ended(0), ended(1), ended(2, error=0.01, **PRUNED), cases.failed(3), ended(5, error=0.1)]
    for one in records:
        cases.put(store, one, made(one.number) if one.state is not TrialState.FAIL else None)
    return store.finish()


@pytest.fixture
def study(packed: Path, tmp_path: Path) -> StudyResults:
    """A copy of ``packed``, for each test its own."""
    return ptydask.open(shutil.copy(packed, tmp_path / "s.h5"))


# --- opening -----------------------------------------------------------------------------------------


def test_importing_is_light() -> None:
    """``import ptydask`` loads neither NumPy nor Optuna: the command line answers at once."""
    code = "import ptydask, sys; print(sorted({'numpy', 'h5py', 'optuna', 'pandas', 'dask'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("content", [None, b"", b"not HDF5"])
def test_no_results(tmp_path: Path, content: bytes | None) -> None:
    """One line that names the file."""
    if content is not None:
        (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.h5") as caught:
        ptydask.open(tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


def test_closing(study: StudyResults) -> None:
    """``with`` closes; what needs the file then says so; what was read stays."""
    with study as same:
        phase = same.trial(0).object_phase
        table = same.table()
    assert len(table) == 5
    with pytest.raises(StoreError, match="was closed"):
        study.trial(0).params  # noqa: B018
    assert "closed" in repr(study)
    with pytest.raises(StoreError, match="was closed"):
        phase.read()
    assert phase.shape == (1, 2, 24, 16)


def test_pickled(study: StudyResults) -> None:
    """Another process gets the study by its file."""
    again = pickle.loads(pickle.dumps(study))
    assert again.numbers == study.numbers
    assert pickle.loads(pickle.dumps(study.trial(1))).params == study.trial(1).params


# --- tables ------------------------------------------------------------------------------------------


def test_table(study: StudyResults) -> None:
    """One row a trial by number, parameters and metrics by their own names, times as times."""
    table = study.table()
    assert table.index.tolist() == study.numbers == [0, 1, 2, 3, 5]
    assert table.columns[:5].tolist() == ["state", "error", "scale", "lr", "rotation"], "as the search space has them"
    assert table.loc[1, "scale"] == 0.95
    assert math.isnan(table.loc[3, "error"])
    assert table.loc[3, "message"] == "RuntimeError: out of memory"
    assert table.loc[0, "started"] == pd.Timestamp("2025-01-01T00:00:01Z")
    assert table["retry_of"].isna().all()
    assert table.loc[1, "contrast"] == cases.record(1).metrics["contrast"]
    table.loc[1, "scale"] = 7
    assert study.table().loc[1, "scale"] != 7, "a table that is given out is the caller's"


def test_names_that_are_taken(tmp_path: Path) -> None:
    """A parameter called like a fact or a metric keeps its place in front of its name."""
    record = cases.record(0, params={"error": 1.0, "loss": 2.0, "a b": 3.0}, metrics={"loss": 0.5})
    study = ptydask.open(cases.packed(tmp_path / "s.h5", [record]))
    row = study.table().loc[0]
    assert (row["error"], row["params.error"], row["params.loss"], row["metrics.loss"]) == (record.error, 1.0, 2.0, 0.5)
    assert len(study.query("`a b` == 3 and `params.error` == 1")) == 1
    assert study.by("params.loss").index.tolist() == [2.0]


def test_mixed_values(tmp_path: Path) -> None:
    """Words, switches, None and whole numbers come back as they were."""
    values: list[Any] = ["Adam", None, True, 3]
    records = [cases.record(n, params={"mix": v, "whole": n, "flag": n > 1}) for n, v in enumerate(values)]
    study = ptydask.open(cases.packed(tmp_path / "s.h5", records))
    assert study.table()["mix"].tolist() == values
    assert study.table()["whole"].dtype == np.int64
    assert study.query("flag").index.tolist() == [2, 3]
    assert [study.trial(n).params["mix"] for n in range(4)] == values


def test_query(study: StudyResults) -> None:
    """Conditions in pandas's words, with Python's variables."""
    least = 0.12
    assert study.query("scale < 1 and error < 0.3").index.tolist() == [1]
    assert study.query("error < @least and state == 'COMPLETE'").index.tolist() == [5]
    assert study.query("number in [1, 3]").index.tolist() == [1, 3]
    assert study.trials(study.query("error < @least")).numbers == [2, 5]
    assert least


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("scal < 1", "there is no column 'scal'; did you mean 'scale'?"),
        ("scale <", "is not a condition"),
        ("scale = 1", "is not .*; for example: scale < 1"),
        ("", "is not a condition|expr cannot be"),
        ("scale + 1", "is not true or false for each trial"),
        ("1 < 2", "is not true or false for each trial"),
        ("scale < @nothing", "there is no variable 'nothing'"),
        ("scale < 'x'", "query"),
    ],
)
def test_bad_query(study: StudyResults, expression: str, said: str) -> None:
    """One line that says what is wrong, and which name was meant."""
    with pytest.raises(UsageError, match=said) as caught:
        study.query(expression)
    assert "\n" not in str(caught.value)


def test_by(study: StudyResults) -> None:
    """Best error and its trial for each value; pruned trials count, but have no best."""
    table = study.by("scale")
    assert table.columns.tolist() == ["best", "number", "median", "complete", "pruned", "failed", "trials"]
    assert table.loc[0.95, "number"] == 1
    assert table.loc[1.0, ["complete", "pruned"]].tolist() == [0, 1]
    assert math.isnan(table.loc[1.0, "best"])
    assert table.loc[1.0, "trials"] == [2]
    two = study.by("scale", "lr", bins=1)
    assert two.index.names == ["scale", "lr"]
    assert two["complete"].sum() == 3
    with pytest.raises(UsageError, match="did you mean 'scale'"):
        study.by("scal")


def test_by_in_intervals(tmp_path: Path) -> None:
    """Many real values are grouped in ten intervals, evenly on the scale of their range; every trial is in one."""
    records = [cases.record(n, params={"scale": 0.5 + n / 60, "lr": 10 ** (-n / 12)}) for n in range(60)]
    study = ptydask.open(cases.packed(tmp_path / "s.h5", records, search_space_json=SPACE))
    for name in ("scale", "lr"):
        table = study.by(name)
        assert len(table) == 10
        assert table["complete"].tolist() == [6] * 10
    assert len(study.by("scale", bins=3)) == 3


@pytest.mark.parametrize("bins", [0, -1, 2.5, True])
def test_by_needs_a_number_of_intervals(study: StudyResults, bins: Any) -> None:
    """Anything else is refused in one line."""
    with pytest.raises(UsageError, match="whole number, at least 1"):
        study.by("scale", bins=bins)


def test_by_of_values_without_end(tmp_path: Path) -> None:
    """An infinite value is in no interval, and spoils none."""
    values = [1.0, 2.0, 3.0, 4.0, math.inf]
    records = [cases.record(n, params={"scale": value}) for n, value in enumerate(values)]
    table = ptydask.open(cases.packed(tmp_path / "s.h5", records)).by("scale", bins=3)
    assert table["complete"].tolist() == [2, 1, 1, 1]
    assert table["trials"].iloc[-1] == [4]


def test_names_as_in_files_of_the_table(tmp_path: Path) -> None:
    """``params.scale`` is always understood; where ``scale`` says too little, both are told."""
    record = cases.record(0, params={"scale": 1.5, "rotation": 1.0}, metrics={"loss": 0.1, "rotation": 7.0})
    study = ptydask.open(cases.packed(tmp_path / "s.h5", [record]))
    assert study.query("`params.scale` > 1 and `metrics.loss` < 1").index.tolist() == [0]
    assert study.by("params.rotation").index.tolist() == [1.0]
    with pytest.raises(UsageError, match=r"params\.rotation and metrics\.rotation"):
        study.by("rotation")
    with pytest.raises(UsageError, match="no column"):
        study.by("params.state")


def test_curves(study: StudyResults) -> None:
    """One row a step, one column a trial; a metric that nobody has is named with the nearest."""
    curves = study.curves()
    assert curves.columns.tolist() == [0, 1, 2, 5]
    assert curves.loc[3].tolist() == [0.5] * 4
    assert study.curves("contrast").loc[1, 0] == 0.3
    with pytest.raises(UsageError, match="did you mean 'contrast'"):
        study.curves("contrasts")


# --- trials ------------------------------------------------------------------------------------------


def test_best(study: StudyResults) -> None:
    """Completed trials by error; the pruned one with the lowest error has no rank."""
    assert study.best().number == 5
    assert study.best(2).numbers == [5, 1]
    assert study.best(10).numbers == [5, 1, 0]
    assert study.best(10)[1:].table()["error"].tolist() == [0.25, 1 / 3]
    assert [trial.number for trial in study] == [0, 1, 2, 3, 5]


def test_best_of_a_maximised_study(tmp_path: Path) -> None:
    """The largest error is the best, the earlier trial on a tie."""
    records = [cases.record(0, error=1.0), cases.record(1, error=2.0), cases.record(2, error=2.0)]
    study = ptydask.open(cases.packed(tmp_path / "s.h5", records, direction="maximize"))
    assert study.best(3).numbers == [1, 2, 0]
    assert study.by("scale").loc[0.98, "number"] == 1


def test_nothing_completed(tmp_path: Path) -> None:
    """Says so, in one line, and shows itself all the same."""
    study = ptydask.open(cases.packed(tmp_path / "s.h5", [cases.failed(0)]))
    with pytest.raises(StoreError, match=r"no trial has completed so far \(1 recorded\)"):
        study.best()
    assert len(study.best(3)) == 0
    assert "1 failed" in repr(study)
    assert "1 failed" in study._repr_html_()


@pytest.mark.parametrize("number", [4, -1, 99])
def test_unknown_trial(study: StudyResults, number: int) -> None:
    """Names the nearest."""
    nearest = {4: 3, -1: 0, 99: 5}[number]
    with pytest.raises(
        StoreError, match=f"there is no trial {number}; the nearest is {nearest}, of 5 trials from 0 to 5"
    ):
        study.trial(number)


def test_trial(study: StudyResults) -> None:
    """Everything of a trial, in its units."""
    trial = study.trial(1)
    assert trial.params == {"scale": 0.95, "lr": 0.1}
    assert (trial.error, trial.state, trial.reason) == (0.25, "COMPLETE", "")
    assert trial.curve["loss"].tolist() == [0.9, 0.7, 0.5]
    assert (trial.pixel_size, trial.slice_thickness) == (0.15, 6.5)
    assert trial.positions.units == "angstrom"
    np.testing.assert_array_equal(trial.probe_centres, np.arange(600.0).reshape(300, 2) + 4 * 0.15)
    np.testing.assert_array_equal(trial.object_phase, cases.phase(1))
    np.testing.assert_allclose(trial.object, 2 * np.exp(1j * cases.phase(1)), rtol=1e-6)
    assert np.asarray(trial.object).dtype == np.complex64
    assert isinstance(trial.image, Image)
    np.testing.assert_array_equal(trial.snapshots[20]["object_phase"], 2 * cases.phase(1))
    assert trial.log == "one line\nanother\n"
    assert trial.started is not None
    assert trial.started.isoformat() == "2025-01-01T00:00:01+00:00"
    assert repr(trial) == "<Trial 1 COMPLETE loss=0.25 scale=0.95 lr=0.1>"


def test_failed_trial(study: StudyResults) -> None:
    """Has its traceback; what it never made is missed with the reason."""
    trial = study[3]
    assert (trial.state, trial.reason, trial.error) == ("FAIL", "failed", None)
    assert trial.traceback.startswith("Traceback")
    assert trial.curve == {}
    assert trial.image is None
    with pytest.raises(StoreError, match=r"trial 3 has no probe: it failed \(RuntimeError: out of memory\)"):
        trial.probe  # noqa: B018


def test_arrays_are_read_when_used(study: StudyResults) -> None:
    """Shape and type cost nothing; an index reads that part; NumPy, arithmetic and iteration work."""
    phase, whole = study.trial(0).object_phase, cases.phase(0)
    assert (phase.shape, phase.dtype, phase.ndim, phase.size, phase.nbytes) == (*_facts(whole), whole.nbytes)
    assert repr(phase) == "<LazyArray (omode: 1, z: 2, y: 24, x: 16) float32 rad>"
    for part in ((0, 1), (0, 1, slice(2, 9, 3)), (..., slice(None, None, -1)), (0, 0, [3, 1]), (0, 0, whole[0, 0] > 0)):
        np.testing.assert_array_equal(phase[part], whole[part])
    np.testing.assert_array_equal(1 - phase * 2, 1 - whole * 2)
    np.testing.assert_array_equal(np.sum(phase, axis=(0, 1)), whole.sum((0, 1)))
    np.testing.assert_array_equal(np.abs(phase), np.abs(whole))
    np.testing.assert_array_equal(next(iter(phase)), whole[0])
    assert np.asarray(phase, dtype=np.float64).dtype == np.float64
    with pytest.raises(ValueError, match="copy"):
        np.array(phase, copy=False)
    polar = study.trial(0).object
    np.testing.assert_array_equal(polar[0, 1, 3:5], np.asarray(polar)[0, 1, 3:5])


@pytest.mark.parametrize("part", [(0, 0, 0, 0, 0), (0, 9), "a", (..., ...), (0.5,)])
def test_an_index_that_is_none(study: StudyResults, part: Any) -> None:
    """NumPy's own error, and not a word of a damaged file; a truth value is a mask, as in NumPy."""
    phase = study.best().object_phase
    with pytest.raises(IndexError):
        phase[part]
    assert phase[True].shape == (1, *phase.shape)


def test_a_trial_travels_to_another_process(study: StudyResults) -> None:
    """Also one that was looked at; it is the same trial wherever one has it from."""
    trial = study.best()
    again = pickle.loads(pickle.dumps(trial if trial.error else None))
    assert (again.number, again.error) == (trial.number, trial.error)
    assert np.array_equal(again.object_phase, trial.object_phase)
    assert trial == study.trial(trial.number) != study.trials()[0]
    assert trial in study.best(2)
    assert trial in study
    assert trial.number in study
    assert 999 not in study


def test_a_number_as_pandas_has_it(study: StudyResults) -> None:
    """A whole float and a NumPy integer are numbers of trials; a text and half a trial are none."""
    number = study.best().number
    assert study.trial(float(number)) == study.trial(np.int64(number)) == study.best()  # type: ignore[arg-type]
    for wrong in ("0", 0.5):
        with pytest.raises(TypeError):
            study.trial(wrong)  # type: ignore[arg-type]


def _facts(array: Any) -> tuple[Any, ...]:
    return array.shape, array.dtype, array.ndim, array.size


def test_xarray(study: StudyResults) -> None:
    """Calibrated coordinates with units, and names for every axis."""
    data = study.trial(1).to_xarray()
    assert data["object_phase"].dims == ("omode", "z", "y", "x")
    assert data["probe"].dims == ("pmode", "probe_y", "probe_x")
    assert data["positions"].dims == ("position", "yx")
    assert data["object_tilts"].dims == ("tilt", "yx")
    np.testing.assert_allclose(data["x"], 0.15 * np.arange(16))
    np.testing.assert_allclose(data["z"], [0.0, 6.5])
    assert float(data["probe_x"][4]) == 0.0
    assert data["x"].attrs == {"units": "angstrom"}
    assert data["object_phase"].attrs["units"] == "rad"
    assert data["positions"].sel(yx="x").values[1] == 3.0
    assert data["loss"].sel(step=2).item() == 0.7
    assert data["image"].dims == ("image_y", "image_x")
    assert data.attrs["param_scale"] == 0.95
    failed = study.trial(3).to_xarray()
    assert not failed.data_vars
    assert failed.attrs["reason"] == "failed"


def test_xarray_of_another_engine(tmp_path: Path) -> None:
    """Arrays that nobody has named axes for, and axes of one name with two lengths, are there too."""
    arrays = {
        "weights": Quantity(np.zeros((2, 3))),
        "probe": Quantity(np.zeros(5)),
        "object_phase": Quantity(np.zeros((1, 1, 4, 4))),
    }
    arrays["object_amplitude"] = Quantity(np.zeros((1, 1, 6, 6)))
    store = Store.open(tmp_path / "s.h5", cases.meta())
    cases.put(store, cases.record(0), TrialOutput({}, {}, arrays=arrays))
    data = ptydask.open(store.finish()).trial(0).to_xarray()
    assert {name: array.shape for name, array in data.data_vars.items()} == {n: q.data.shape for n, q in arrays.items()}


@pytest.mark.parametrize(("package", "use"), [("pandas", "table"), ("xarray", "xarray")])
def test_package_is_missing(study: StudyResults, package: str, use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install; trials can be looked at without."""
    monkeypatch.setitem(sys.modules, package, None)
    assert study.best().error == 0.1
    with pytest.raises(MissingDependency, match=r"pip install 'ptydask\[analysis\]'"):
        study.table() if use == "table" else study.best().to_xarray()


def test_config(tmp_path: Path) -> None:
    """The complete params with the trial's values and seed in place; the study's own stay as they are."""
    config = '{"init_params": {"pos_scan_affine": null, "random_seed": 1}, "hypertune_params": {"if_hypertune": true}}'
    record = cases.record(3, params={"scale": 1.02, "plr": 0.001})
    study = ptydask.open(cases.packed(tmp_path / "s.h5", [record], config_json=config))
    made = study.trial(3).config
    assert made["init_params"] == {"pos_scan_affine": [1.02, 0.0, 0.0, 0.0], "random_seed": 3}
    assert made["model_params"]["update_params"]["probe"]["lr"] == 0.001
    assert made["hypertune_params"] == {"if_hypertune": False}
    assert study.meta.config_json == config


# --- a study that is running ---------------------------------------------------------------------------


def test_running(tmp_path: Path) -> None:
    """Shows what was there when it was opened; ``refresh`` takes in the rest; nothing waits for anything."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    for number in range(3):
        cases.put(store, cases.record(number), made(number))
    store.refresh(force=True)
    study = ptydask.open(tmp_path / "s.h5")
    assert study.live
    assert study.status.state == "running"
    cases.put(store, cases.record(3), made(3))
    assert (study.numbers, study.status.recorded) == ([0, 1, 2], 4)
    assert [t.number for t in study.study().trials] == [0, 1, 2]
    assert study.refresh().numbers == [0, 1, 2, 3]
    assert study.table().index.tolist() == [0, 1, 2, 3]
    assert study.best().number == 3
    store.finish()
    assert study.refresh().status.state == "finished"


def test_arrays_survive_packing(tmp_path: Path) -> None:
    """An array of a running study is read after its file has moved into the packed one, also across a refresh."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    cases.put(store, cases.record(0), made(0))
    cases.put(store, cases.record(1), made(1))
    store.refresh(force=True)
    study = ptydask.open(tmp_path / "s.h5")
    trial = study.trial(1)
    phase, snapshot, whole = trial.object_phase, trial.snapshots[20]["object_phase"], trial.object
    store.finish()
    np.testing.assert_array_equal(phase, cases.phase(1))
    study.refresh()
    np.testing.assert_array_equal(snapshot[0], 2 * cases.phase(1)[0])
    assert whole[0, 0].shape == (24, 16)
    assert study.trial(0).log == trial.log


def test_stopped(tmp_path: Path) -> None:
    """A run that ended before its study: what is recorded is there."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    cases.put(store, cases.record(0))
    store.close()
    study = ptydask.open(tmp_path / "s.h5")
    assert str(study.status) == "stopped: 1 trials (1 complete, 0 pruned, 0 failed)"


# --- Optuna, pictures, notebooks -----------------------------------------------------------------------


def test_optuna(study: StudyResults) -> None:
    """Trials under their own numbers, and the missing one as a failed trial."""
    again = study.study()
    assert [t.state.name for t in again.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL", "COMPLETE"]
    assert again.best_trial.number == 5
    assert again.trials[1].intermediate_values == {1: 0.9, 2: 0.7, 3: 0.5}


@pytest.mark.slow
def test_pictures(study: StudyResults, tmp_path: Path) -> None:
    """Figures, the montage and the report are one call away."""
    figure: Any = study.plot("history")
    assert figure.axes
    assert figure._repr_png_().startswith(b"\x89PNG"), "a notebook shows it, with or without pyplot"
    assert study.plot("slice", parameters=["scale"]).axes
    assert study.montage(2).axes
    assert study.montage(study.query("error < 0.2")).axes
    page = study.report()
    assert page == tmp_path / "s.html"
    assert b"<html" in page.read_bytes()[:2000].lower()
    with pytest.raises(UsageError, match="history"):
        study.plot("histry")


def test_picture_arguments(study: StudyResults) -> None:
    """One parameter need not be in a list; a NumPy integer counts trials; an unknown array is told with the nearest."""
    assert len(study.plot("slice", "scale").axes) == len(study.plot("slice", ["scale"]).axes)
    assert study.montage(np.int64(1)).axes
    with pytest.raises(UsageError, match="'phase'"):
        study.montage(what="phas")  # type: ignore[arg-type]


def test_notebook(study: StudyResults) -> None:
    """The best trial's image as a picture in the page, parameters and counts; a dozen trials with their images."""
    shown = study._repr_html_()
    assert "data:image/png;base64,iVBOR" in shown
    assert "3 complete, 1 pruned, 1 failed" in shown
    assert "Best trial 5" in shown
    table = study.trials()._repr_html_()
    assert table.count("<img") == 4
    assert table.count("<tr>") == 6
    assert "out of memory" in study.trial(3)._repr_html_()
    assert repr(study).startswith(
        "<StudyResults 'tBL_WSe2' finished: 5 trials (3 complete, 1 pruned, 1 failed); best <"
    )


def test_notebook_of_hostile_names(tmp_path: Path) -> None:
    """No text of a file becomes a tag or leaves its attribute."""
    evil = "<script>alert(1)</script>"
    quote = "\" onload='x'"
    params = {evil: evil, quote: quote}
    record = cases.record(0, params=params, metrics={evil: 1.0})
    failed = cases.failed(1, message=evil, params=params)
    image = Image(np.eye(4), np.arange(4.0), np.arange(4.0), evil, quote, evil + quote)
    store = Store.open(tmp_path / "s.h5", cases.meta(f"{evil}{quote}", metric=evil))
    cases.put(store, record, cases.output(0, image=image))
    cases.put(store, failed)
    study = ptydask.open(store.finish())
    for shown in (study, study.trial(0), study.trial(1), study.trials()):
        text = shown._repr_html_()
        assert "<script" not in text
        assert "onload='x'" not in text
        assert '" onload' not in text


def test_notebook_without_matplotlib(study: StudyResults, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers are shown without the image."""
    monkeypatch.setitem(sys.modules, "matplotlib.image", None)
    assert "<img" not in study._repr_html_()
    assert "Best trial 5" in study._repr_html_()


@pytest.mark.parametrize(
    "data", [np.zeros((3, 4)), np.full((3, 4), np.nan), np.ones((1, 1)), np.ones((3000, 20))], ids=str
)
def test_odd_images(tmp_path: Path, data: Any) -> None:
    """A flat, broken, tiny or huge image is no reason not to show a trial."""
    image = Image(data, np.arange(len(data)) * 0.1, np.arange(data.shape[1]) * 0.1, "rad", "angstrom", "t")
    store = Store.open(tmp_path / "s.h5", cases.meta())
    cases.put(store, cases.record(0), cases.output(0, image=image))
    assert "Trial 0" in ptydask.open(store.finish()).trial(0)._repr_html_()


def test_a_damaged_trial(tmp_path: Path) -> None:
    """It is named where it is shown, and the others are there."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    for number in range(3):
        cases.put(store, cases.record(number), made(number))
    store.refresh(force=True)
    study = ptydask.open(tmp_path / "s.h5")
    (best,) = store.folder.glob("*2.h5")
    best.write_bytes(b"damaged" * 100)
    assert best.name in repr(study)
    assert best.name in study._repr_html_()
    assert study.trials()._repr_html_().count("<img") == 2
    assert study.table().loc[2, "error"] == study.table()["error"].min()
    np.testing.assert_array_equal(study.trial(1).object_phase, cases.phase(1))
    store.close()


def test_a_young_study_has_its_parameters(tmp_path: Path) -> None:
    """Before the first trial has ended, a table has the columns that it is going to have, in their order."""
    store = Store.open(tmp_path / "s.h5", cases.meta())
    with ptydask.open(tmp_path / "s.h5") as study:
        assert study.table().columns[:4].tolist() == ["state", "error", "scale", "rotation"]
        assert len(study.query("scale > 1")) == 0
    store.close()


def test_a_package_that_is_installed_and_broken_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that its binary part does not find is no traceback."""
    (tmp_path / "brokenpackage.py").write_text("raise ImportError('GLIBCXX_3.4.99 not found\\n(required by it)')\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = "tables need the package brokenpackage, .* GLIBCXX_3.4.99 not found"
    with pytest.raises(MissingDependency, match=words) as caught:
        import_optional("brokenpackage", "tables need", "analysis")
    assert "\n" not in str(caught.value)
