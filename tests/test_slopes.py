"""Slopes, cost and distance from rest: from an engine's report to Optuna, the results file and all who read it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import optuna
import pytest
from store_cases import failed, meta, output, packed, put, record

import ptydask
from ptydask import cli, config, engines
from ptydask.analysis import rehydrate
from ptydask.analysis.data import load_study
from ptydask.driver.optuna_study import OptunaStudy, open_study
from ptydask.model import Reason, TrialOutput, TrialRecord, TrialState
from ptydask.store import Store, reader
from ptydask.store.upkeep import merge, merge_plan, packing, rebuild, retention, verify
from ptydask.trial import slopes

SLOPED = record(
    0,
    gradient={"scale": -0.338, "rotation": 0.01013},
    relative_decrease=0.004,
    iterations=3.0,
    last_step=12,
)
PRUNED = record(
    1,
    state=TrialState.PRUNED,
    reason=Reason.PRUNED,
    gradient={"scale": 0.5},
    iterations=1.25,
    last_step=5,
    origin="slopes",
)
PLAIN = failed(2, iterations=0.5, last_step=2)
CURVE = {
    "step": [1, 2, 3],
    "loss": [3.0, 2.0, 1.0],
    "gradient": [9.0, 9.0, 9.0],
    "gradient/scale": [math.nan, -0.5, -0.338],
    "gradient/rotation": [0.0, 0.01, 0.01013],
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed study of three trials: slopes in two, in one, and in none of the parameters."""
    store = Store.open(tmp_path_factory.mktemp("slopes") / "s.h5", meta())
    put(store, SLOPED, TrialOutput({"loss": 1.0}, CURVE, attributes={"iterations": 12, "scan_share": 0.25}))
    put(store, PRUNED, output(1))
    put(store, PLAIN, None)
    return store.finish()


# --- what is a gradient ------------------------------------------------------------------------------


def test_slopes_that_are_not_finite_are_left_out() -> None:
    """The others are plain floats, whatever type the engine has."""
    given = {"a": np.float32(0.5), "b": math.nan, "c": -math.inf, "d": 2}
    kept = slopes.check_gradient(given, ["a", "b", "c", "d"])
    assert kept == {"a": 0.5, "d": 2.0}
    assert {type(value) for value in kept.values()} == {float}


@pytest.mark.parametrize(
    ("gradient", "error", "words"),
    [
        ({"scael": 1.0}, ValueError, "the gradient names 'scael', which is not tuned; did you mean 'scale'?"),
        ({"scale": "1"}, TypeError, "the gradient in scale is a str, not a number"),
        ({"scale": None}, TypeError, "the gradient in scale is a NoneType, not a number"),
        ({"scale": True}, TypeError, "the gradient in scale is a bool, not a number"),
    ],
)
def test_what_is_no_gradient(gradient: dict[str, Any], error: type[Exception], words: str) -> None:
    """One line says what is wrong."""
    with pytest.raises(error) as raised:
        slopes.check_gradient(gradient, ["scale", "rotation"])
    assert str(raised.value) == words


@pytest.mark.parametrize(
    ("previous", "last", "direction", "wanted"),
    [
        (1.1, 1.0, "minimize", 0.1),
        (1.1, 1.0, "maximize", -0.1),
        (-1.1, -1.0, "maximize", 0.1),
        (-1.0, -1.25, "minimize", 0.2),
        (1.0, 0.0, "minimize", None),
        (math.nan, 1.0, "minimize", None),
        (None, 1.0, "minimize", None),
    ],
)
def test_improving_is_positive(previous: float | None, last: float, direction: Any, wanted: float | None) -> None:
    """Whatever the direction, and whatever the sign of the metric."""
    assert slopes.relative_decrease(previous, last, direction) == (None if wanted is None else pytest.approx(wanted))


def test_optuna_has_one_attribute() -> None:
    """None where a trial has no slopes, and back again."""
    kept = slopes.to_attribute(SLOPED)
    wanted = {"step": 12, "relative_decrease": 0.004, "slopes": {"scale": -0.338, "rotation": 0.01013}}
    assert json.loads(json.dumps(kept)) == {"gradient": wanted}
    assert slopes.from_attribute(kept) == dict(SLOPED.gradient)
    assert slopes.to_attribute(PLAIN) == {}
    assert slopes.from_attribute({}) == {}


# --- in the file -------------------------------------------------------------------------------------


def test_where_they_are(path: Path) -> None:
    """With h5py alone: columns of the table, a group of each trial that has slopes, one in its curve."""
    with h5py.File(path) as file:
        study = file["tBL_WSe2"]
        np.testing.assert_array_equal(study["table/gradient/scale"], [-0.338, 0.5, np.nan])
        np.testing.assert_array_equal(study["table/gradient/rotation"], [0.01013, np.nan, np.nan])
        np.testing.assert_array_equal(study["table/relative_decrease"], [0.004, np.nan, np.nan])
        np.testing.assert_array_equal(study["table/iterations"], [3.0, 1.25, 0.5])
        trial = study["trials/000000"]
        assert {k: v for k, v in trial["gradient"].attrs.items() if k != "NX_class"} == dict(SLOPED.gradient)
        assert (trial.attrs["iterations"], trial.attrs["scan_share"], trial.attrs["relative_decrease"]) == (
            12,
            0.25,
            0.004,
        )
        curve = trial["curve"]
        np.testing.assert_array_equal(curve["gradient/scale"], CURVE["gradient/scale"])
        assert curve.attrs["signal"] == b"loss"
        assert {curve.attrs["signal"], *curve.attrs["auxiliary_signals"]} <= {name.encode() for name in curve}
        assert "gradient" not in study["trials/000002"]


def test_they_are_read_as_they_were_written(path: Path) -> None:
    """Records, columns and curves; the file is verified; a metric called gradient is one still."""
    with reader.open(path) as results:
        assert results.records() == [SLOPED, PRUNED, TrialRecord(**{**fields(PLAIN), "traceback": ""})]
        assert results.trial(0).record == SLOPED
        for name, column in CURVE.items():
            np.testing.assert_array_equal(results.curve(0)[name], column, err_msg=name)
        assert "gradient/scale" not in results.curve(1)
        assert results.columns()["gradient/scale"][1] == 0.5
    assert verify.verify(path).problems == ()


def fields(of: TrialRecord) -> dict[str, Any]:
    return {name: getattr(of, name) for name in of.__dataclass_fields__}


def test_a_study_without_slopes_has_nothing_of_them(tmp_path: Path) -> None:
    """No empty group, no empty column."""
    path = packed(tmp_path / "s.h5", [record(0, iterations=3.0), record(1, iterations=3.0)])
    visited: list[str] = []
    with h5py.File(path) as file:
        file.visit(visited.append)
    assert [name for name in visited if "gradient" in name or "relative" in name] == []
    assert "tBL_WSe2/table/iterations" in visited


def test_slopes_that_came_after_the_index(tmp_path: Path) -> None:
    """A running study: the index knows of no slopes yet, a trial's own file does."""
    store = Store.open(tmp_path / "s.h5", meta())
    put(store, record(0), output(0))
    store.refresh(force=True)
    put(store, SLOPED_LATER, output(1))
    with reader.open(tmp_path / "s.h5") as results:
        np.testing.assert_array_equal(results.columns()["gradient/scale"], [np.nan, 0.25])
        np.testing.assert_array_equal(results.columns()["iterations"], [np.nan, 4.0])
    store.close()


SLOPED_LATER = record(1, gradient={"scale": 0.25}, iterations=4.0)


@pytest.mark.slow
def test_upkeep_keeps_them(path: Path, tmp_path: Path) -> None:
    """Packed without arrays, merged into numbers of other trials, saved from a file that is cut: always the same."""
    packing.pack(path, retention.parse("best:0"), out=tmp_path / "small.h5")
    other = packed(tmp_path / "other.h5", [record(0, 0.5)])
    merge.write(tmp_path / "merged.h5", merge_plan.plan_merge(merge.read([other, path]), "both"))
    copy = tmp_path / "cut.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        del file["tBL_WSe2/table"]
    done = rebuild.rebuild(copy, tmp_path / "rebuilt.h5")
    assert done.path.name == "rebuilt.h5"
    for name, first in (("small", 0), ("merged", 1), ("rebuilt", 0)):
        with reader.open(tmp_path / f"{name}.h5") as results:
            kept = {one.number: one for one in results.records()}
            assert kept[first] == replace(SLOPED, number=first)
            assert kept[first + 1] == replace(PRUNED, number=first + 1)
            assert results.curve(first)["gradient/rotation"].tolist() == CURVE["gradient/rotation"]
        assert verify.verify(tmp_path / f"{name}.h5").problems == ()


# --- for who reads it --------------------------------------------------------------------------------


def test_in_python(path: Path) -> None:
    """``table()``, ``query``, a trial, its xarray, and Optuna's study."""
    with ptydask.open(path) as study:
        table = study.table()
        assert table["gradient.scale"].tolist()[:2] == [-0.338, 0.5]
        assert table["iterations"].sum() == 4.75
        assert list(study.query("`gradient.scale` > 0").index) == [1]
        assert study.trial(0).gradient == dict(SLOPED.gradient)
        assert study.trial(0).to_xarray()["gradient_scale"].shape == (3,)
        assert study.curves("gradient/scale")[0].tolist()[1:] == [-0.5, -0.338]
    with reader.open(path) as results:
        trials = rehydrate.frozen_trials(load_study(results, curves=True))
    assert trials[0].user_attrs["gradient"] == slopes.to_attribute(SLOPED)["gradient"]
    assert trials[0].user_attrs["iterations"] == 3.0
    assert "gradient" not in trials[2].user_attrs


def test_on_the_command_line(path: Path, golden: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """``ls`` and ``show`` as a person reads them; csv and json have every digit."""
    texts = {}
    for line in ("ls", "ls --sort gradient.scale --format csv", "show 0", "show 2"):
        command, *more = line.split()
        assert cli.main([command, str(path), *more]) == 0
        texts[line] = capsys.readouterr().out.replace(str(path.parent), "FOLDER")
    golden("slopes", texts)
    assert cli.main(["ls", str(path), "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed[0]["gradient"] == dict(SLOPED.gradient)
    assert [trial["iterations"] for trial in listed] == [3.0, 1.25, 0.5]


# --- the driver's study ------------------------------------------------------------------------------


@pytest.fixture
def driver(toy_params: Callable[..., Path]) -> OptunaStudy:
    """A study of ``scale`` and ``rotation`` in memory, as the driver has it."""
    plan = config.load(toy_params(gradient=True), config.Overrides(engine="toy"))
    study = open_study(optuna.storages.InMemoryStorage(), plan.name, "minimize")
    return OptunaStudy(study, "store", plan)


def test_the_engine_says_where_it_gives_slopes(driver: OptunaStudy) -> None:
    """The plan has the names, once the engine has seen it."""
    assert engines.get("toy").validate(driver.plan).differentiable == {"scale", "rotation"}


def test_a_lost_journal_costs_no_slopes(driver: OptunaStudy) -> None:
    """What is restored from the file has the attribute that the worker had set; a failed trial has none."""
    driver.restore([SLOPED, PRUNED, replace(PLAIN, gradient={"scale": 1.0})])
    attributes = [trial.user_attrs for trial in driver.trials()]
    assert [a.get("gradient") for a in attributes[:2]] == [slopes.to_attribute(r)["gradient"] for r in (SLOPED, PRUNED)]
    assert "gradient" not in attributes[2]


def test_optuna_hears_of_slopes_when_the_driver_tells_it(driver: OptunaStudy) -> None:
    """The worker was killed between its file and Optuna; the same once more from Optuna, where the file is gone."""
    asked = driver.study.ask({"scale": optuna.distributions.FloatDistribution(0.8, 1.2)})
    for step, value in enumerate((0.5, 0.4), 1):
        asked.report(value, step)
    driver.tell(replace(SLOPED, error=0.4))
    (trial,) = driver.trials()
    assert trial.user_attrs["gradient"] == slopes.to_attribute(SLOPED)["gradient"]
    again = driver.record_of(driver.begun()[0], state=TrialState.COMPLETE, reason=Reason.NONE, message="")
    assert (again.gradient, again.iterations, again.last_step) == (dict(SLOPED.gradient), 2.0, 2)
    assert again.relative_decrease == pytest.approx(0.25)


def test_slopes_of_another_study_inform_this_one(driver: OptunaStudy) -> None:
    """Trials that are taken over bring theirs."""
    dist = {name: optuna.distributions.FloatDistribution(0.8, 1.2, step=0.02) for name in ("scale", "rotation")}
    dist["rotation"] = optuna.distributions.FloatDistribution(-4, 4)
    kept = slopes.to_attribute(SLOPED)
    theirs = optuna.create_trial(value=1.0, params={"scale": 1.0, "rotation": 0.5}, distributions=dist, user_attrs=kept)
    assert driver.adopt_foreign([theirs]) == 1
    assert driver.trials()[0].user_attrs["gradient"] == kept["gradient"]


# --- whole runs --------------------------------------------------------------------------------------

Ptydask = Callable[..., Any]
Params = Callable[..., Path]


def recorded(path: Path) -> list[TrialRecord]:
    with reader.open(path) as results:
        return list(results.records())


def journal(path: Path) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.journal.JournalFileBackend(str(path.with_suffix(".journal")))
    return optuna.load_study(study_name="toy", storage=optuna.storages.JournalStorage(backend)).trials


@pytest.mark.slow
def test_from_the_engine_to_the_file_and_back(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Every trial's slopes are in its record and in Optuna; without the journal, Optuna has them from the file."""
    params = toy_params(n_trials=2, gradient=True, iterations=4, facts={"scan_share": 0.25})
    path = tmp_path / "out" / "toy.h5"
    run = ["run", params, "--engine", "toy", "--workers", 1]
    assert ptydask(*run).returncode == 0
    for one, told in zip(recorded(path), journal(path), strict=True):
        assert one.gradient == pytest.approx({name: 2 * float(value) for name, value in one.params.items()})  # type: ignore[arg-type]
        assert (one.iterations, one.last_step) == (1.0, 4)
        assert one.relative_decrease == pytest.approx((1 / 3 - 1 / 4) / float(one.error or 0))
        assert told.user_attrs["gradient"] == slopes.to_attribute(one)["gradient"]
    before = [slopes.to_attribute(one)["gradient"] for one in recorded(path)]
    path.with_suffix(".journal").unlink()
    assert ptydask(*run, "--trials", 3).returncode == 0
    assert [trial.user_attrs["gradient"] for trial in journal(path)][:2] == before


@pytest.mark.slow
def test_a_gradient_that_is_none_fails_its_trial(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """In one line; the study goes on."""
    for gradient, words in (({"scael": 1.0}, "names 'scael'"), ({"scale": "x"}, "is a str, not a number")):
        name = next(iter(gradient))
        params = toy_params(name=name, n_trials=2, gradient=gradient)
        assert ptydask("run", params, "--engine", "toy", "--workers", 1).returncode == 3
        assert all(
            words in one.message and "\n" not in one.message for one in recorded(tmp_path / "out" / f"{name}.h5")
        )


@pytest.mark.slow
def test_a_lost_worker_costs_no_slopes(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Steps before the checkpoint count, and so does how far the trial was from rest."""
    params = toy_params(n_trials=1, iterations=3, gradient=True, lose_once=str(tmp_path / "lost"))
    assert ptydask("run", params, "--engine", "toy", "--workers", 1, "--checkpoint-every", 0).returncode == 0
    (one,) = recorded(tmp_path / "out" / "toy.h5")
    assert (one.attempt, one.iterations, one.last_step, len(one.gradient)) == (2, 3.0, 3, 2)
    assert one.relative_decrease == pytest.approx((1 / 2 - 1 / 3) / float(one.error or 0))


@pytest.mark.slow
def test_a_trial_that_fails_late_keeps_its_slopes(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Those of its last step, and the curve of all."""
    ptydask("run", toy_params(n_trials=1, gradient=True, fail=1e9, fail_after=2), "--engine", "toy", "--workers", 1)
    path = tmp_path / "out" / "toy.h5"
    (one,) = recorded(path)
    assert (one.state, one.iterations) == (TrialState.FAIL, 2.0)
    with reader.open(path) as results:
        assert results.curve(one.number)["gradient/scale"].tolist() == [one.gradient["scale"]] * 2
