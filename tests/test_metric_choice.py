"""Which metric a study tunes: what a file and a command may name, what the plan says of it, what may not change."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import store_cases
import sweep_plans

from ptydask import config
from ptydask.config import Overrides
from ptydask.config.ptyrad import metric_advice
from ptydask.driver import provenance
from ptydask.errors import ConfigError
from ptydask.model import HeldOut, StudyMeta
from ptydask.space.metrics import METRICS
from ptydask.store.upkeep import merge_plan

TUNE = {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2}}}
PARAMS: dict[str, Any] = {
    "loss_params": {},
    "model_params": {"update_params": {"probe_pos_shifts": {"start_iter": 1, "lr": 1e-3}}},
}


def write(folder: Path, metric: str = "loss", **section: Any) -> Path:
    hypertune = {"if_hypertune": True, "tune_params": TUNE, "error_metric": metric}
    params = {"init_params": {"probe_kv": 80}, "hypertune_params": hypertune, "ptydask": section}
    path = folder / "params.json"
    path.write_text(json.dumps(params))
    return path


def advice(metric: str, *tuned: str, pruned: bool = False, **sections: Any) -> tuple[str, ...]:
    return metric_advice.advise(metric, tuned, {**PARAMS, **sections}, pruner="pruner_params" if pruned else "")


# --- what may be named --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_can_be_tuned(name: str, tmp_path: Path) -> None:
    """By the section and by the option; PtyRAD's own key stays PtyRAD's."""
    for plan in (
        config.load(write(tmp_path, error_metric=name)),
        config.load(write(tmp_path), Overrides(metric=name)),
        config.load(write(tmp_path, "contrast", error_metric="loss"), Overrides(metric=name)),
    ):
        assert (plan.metric, plan.direction) == (name, METRICS[name].direction)
        assert ("" if plan.held_out is None else plan.held_out.kind) == METRICS[name].held_out


@pytest.mark.parametrize(("overrides", "key"), [({}, "ptydask.error_metric"), ({"metric": "los"}, "--metric")])
def test_an_unknown_metric_is_refused_where_it_was_named(overrides: Any, key: str, tmp_path: Path) -> None:
    """With the nearest name that there is."""
    with pytest.raises(ConfigError, match="did you mean 'loss'") as caught:
        config.load(write(tmp_path, error_metric="los"), Overrides(**overrides))
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("section", "metric", "key", "hint"),
    [
        ({"error_metric": "heldout"}, None, "ptydask.error_metric", "metric: {name: heldout"),
        ({"error_metric": "val_loss"}, None, "ptydask.error_metric", "metric.name=val_loss"),
        ({}, "loss", "--metric", "metric: {name: loss"),
        ({"metrics": {"sharpness": "package:function"}}, None, "ptydask.metrics", "program"),
        ({"held_out": {"share": 0.05}}, None, "ptydask.held_out", "program"),
    ],
)
def test_a_sweep_names_its_metric_in_its_own_way(
    section: dict[str, Any], metric: str | None, key: str, hint: str, tmp_path: Path
) -> None:
    """What PtyRAD's trials are scored by has no meaning for a program; the line says what to write."""
    with pytest.raises(ConfigError) as caught:
        sweep_plans.made(tmp_path, overrides=Overrides(metric=metric), ptydask=section)
    assert caught.value.key == key
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"held_out": {"share": 0.05}}, "ptydask.held_out is not used"),
        ({"held_out": {"gain": 2.0}, "error_metric": "contrast"}, "ptydask.held_out is not used"),
        ({"held_out": {"gain": 2.0}, "error_metric": "heldout"}, "ptydask.held_out.gain is not used"),
        ({"held_out": {"gain": 2.0, "share": 0.1}, "error_metric": "counts"}, ""),
        ({"held_out": {"share": 0.05}, "error_metric": "heldout"}, ""),
    ],
)
def test_settings_without_a_use_are_pointed_out(section: dict[str, Any], says: str, tmp_path: Path) -> None:
    """What is held out, in a study whose metric holds nothing out, or not so."""
    notices = [notice for notice in config.load(write(tmp_path, **section)).notices if "held_out" in notice]
    assert [says in notice for notice in notices] == ([True] if says else [])


# --- what the plan says of it -------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["loss", "data_loss"])
@pytest.mark.parametrize(
    ("tuned", "named", "word"),
    [
        (["Nlayer", "dz"], "Nlayer", "slice"),
        (["pmode_max"], "pmode_max", "mode"),
        (["Nlayer", "pmode_max"], "Nlayer, pmode_max", "slice and mode"),
        (["dx", "conv_angle"], "dx", "scale of"),
        (["batch_size"], "batch_size", "scale of"),
    ],
)
def test_a_fit_does_not_choose_freedoms(metric: str, tuned: list[str], named: str, word: str) -> None:
    """The line names what is tuned, the metric, and one that can choose it; another metric has no such line."""
    (notice,) = advice(metric, *tuned)
    assert notice.startswith(f"{named}: ")
    assert metric in notice
    assert word in notice
    assert "--metric heldout" in notice
    assert advice("heldout", *tuned) == advice("contrast", *tuned) == ()


@pytest.mark.parametrize("term", ["loss_sparse", "loss_simlar"])
def test_regularisation_is_no_evidence(term: str) -> None:
    """A term of it that is on is in loss, and in no other metric."""
    on, off = {"loss_params": {term: {"state": True}}}, {"loss_params": {term: {"state": False}}}
    (notice,) = advice("loss", "C10", **on)
    assert notice.startswith(term)
    assert "data_loss" in notice
    assert advice("loss", "C10", **off) == advice("data_loss", "C10", **on) == ()


@pytest.mark.parametrize("metric", METRICS)
def test_a_pruner_needs_a_metric_that_improves(metric: str) -> None:
    """Of an image's metrics the plan says that a pruner may be wrong; misfits get better as long as all is well."""
    notices = {*advice(metric, "C10", pruned=True)} - {*advice(metric, "C10")}
    assert bool(notices) == (metric in metric_advice.UNSTEADY)
    assert all("pruner_params: null" in notice for notice in notices)


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_that_rewards_something_else_is_said_to(metric: str) -> None:
    """Whatever is tuned: emptiness, smoothness, weakness; the notice names what to tune by instead."""
    notices = advice(metric, "C10")
    assert bool(notices) == (metric in metric_advice.MISLEADING)
    assert all("--metric heldout" in notice and notice.startswith(metric) for notice in notices)


def test_slopes_are_those_of_loss() -> None:
    """Geometry alone by held-out data: loss has slopes there; beside something else the search has no choice."""
    (notice,) = advice("counts", "scale", "tilt_y")
    assert notice.startswith("scale, tilt_y: the slopes")
    assert advice("counts", "scale", "Nlayer") == advice("loss", "scale", "tilt_y") == ()


@pytest.mark.parametrize(
    ("tuned", "update", "idle"),
    [
        (["scale"], {"start_iter": None, "lr": 1e-3}, True),
        (["slr"], {"start_iter": None, "lr": 1e-3}, True),
        (["scale"], {"start_iter": 1, "lr": 0.0}, True),
        (["slr"], {"start_iter": 1, "lr": 0.0}, False),
        (["scale"], {"start_iter": 1, "lr": 1e-3}, False),
    ],
)
def test_a_drift_needs_positions_that_move(tuned: Collection[str], update: dict[str, Any], idle: bool) -> None:
    """Where they do not, every trial would have the same error; another metric does not care."""
    params = {"model_params": {"update_params": {"probe_pos_shifts": update}}}
    metric_advice.check_idle_metric("loss", tuned, params)
    if not idle:
        metric_advice.check_idle_metric("position_drift", tuned, params)
        return
    with pytest.raises(ConfigError, match="not refined"):
        metric_advice.check_idle_metric("position_drift", tuned, params)


def test_a_metric_of_ones_own_is_not_judged() -> None:
    """Nothing is known of it."""
    assert advice("sharpness", "Nlayer", "dx", "scale", pruned=True) == ()


# --- what may not change between runs -----------------------------------------------------------------------


def study(metric: str = "heldout", held_out: HeldOut | None = None, **own: str) -> StudyMeta:
    params = json.dumps({"init_params": {}, "recon_params": {}, "hypertune_params": {}})
    plain = StudyMeta("s", "minimize", metric, "ptyrad", "", "yaml", params, "{}")
    return replace(plain, held_out=held_out, own_metrics=own)


HELD = HeldOut("positions", 0.03)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (study("loss"), study("heldout", HELD), "error_metric"),
        (study(held_out=HELD), study(held_out=replace(HELD, share=0.05)), "ptydask.held_out.share"),
        (
            study("counts", HeldOut("counts", 0.03)),
            study("counts", HeldOut("counts", 0.03, 2.0)),
            "ptydask.held_out.gain",
        ),
        (study(held_out=HELD), study(), "ptydask.held_out"),
        (study(), study(held_out=HELD), "ptydask.held_out"),
        (study(sharp="a.b:f"), study(sharp="a.b:g"), "ptydask.metrics.sharp"),
    ],
)
def test_trials_that_were_scored_otherwise_are_not_comparable(old: StudyMeta, new: StudyMeta, key: str) -> None:
    """The first setting that differs is named, with what to do; the same scoring goes on."""
    with pytest.raises(ConfigError, match="--results") as caught:
        provenance.compare(old, new, file=Path("s.h5"))
    assert caught.value.key == key
    assert caught.value.value is not None
    for same in (old, new):
        assert provenance.compare(same, same, file=Path("s.h5")) == []


def test_a_metric_that_only_some_trials_have_is_a_notice() -> None:
    """It is measured, and decides nothing."""
    for old, new in ((study(), study(sharp="a.b:f")), (study(sharp="a.b:f"), study())):
        (notice,) = provenance.compare(old, new, file=Path("s.h5"))
        assert "ptydask.metrics.sharp" in notice


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"held_out": HeldOut("positions", 0.05)}, "held-out data"),
        ({"held_out": HeldOut("counts", 0.03)}, "held-out data"),
        ({"held_out": None}, "held-out data"),
        ({"own_metrics": {"sharpness": "other.py:sharpness"}}, "the metric sharpness"),
        ({"own_metrics": {}}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_trials_that_were_scored_otherwise_are_not_merged(changes: dict[str, Any], words: str) -> None:
    """As they are refused when a study goes on; of a rebuilt file nobody knows."""
    scored = {"held_out": HeldOut("positions", 0.03), "own_metrics": {"sharpness": "configs/metrics.py:sharpness"}}
    first, other = store_cases.meta(**scored), store_cases.meta(**(scored | changes))
    clauses = merge_plan.differences(first, other)
    assert [words in clause for clause in clauses] == [True] * bool(words)
    assert not merge_plan.differences(first, store_cases.meta(**(scored | changes), config_json=""))
