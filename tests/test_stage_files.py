"""The stages of a params file: what is read, what is refused, and the plan of each."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ptydask import cli, config, errors
from ptydask.config import Overrides
from ptydask.config.stages import (
    Around,
    PatternPart,
    ScanPart,
    Stage,
    StageInput,
    key_in_stage,
    place_range,
    rehearse_stage,
)
from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.lineage import StageLineage
from ptydask.model import ComponentSpec, Scalar, StudyPlan
from ptydask.ranking import NoGain


def entry(low: float, high: float, step: float | None = None, *, suggest: str = "float", on: bool = True) -> Any:
    return {"state": on, "suggest": suggest, "kwargs": {"low": low, "high": high, "step": step}}


PARAMS: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "pos_N_scan_slow": 32,
        "pos_N_scan_fast": 24,
        "meas_Npix": 64,
        "obj_Nlayer": 4,
        "obj_slice_thickness": 9.0,
        "tilt_params": {"tilt_type": "all", "init_tilts": [[0.0, 2.0]]},
    },
    "hypertune_params": {
        "if_hypertune": True,
        "n_trials": 30,
        "study_name": "demo",
        "tune_params": {
            "dz": entry(4, 20, 1),
            "scale": entry(0.8, 1.2, 0.02),
            "rotation": entry(-4, 4, 0.5),
            "asymmetry": entry(-0.2, 0.2),
            "tilt_y": entry(-4, 4, 0.5, on=False),
            "C12": entry(-40, 40, 5, on=False),
            "Nlayer": entry(1, 8, suggest="int", on=False),
            "oalr": {"state": False, "suggest": "float", "kwargs": {"low": 1e-4, "high": 1e-2, "log": True}},
            "optimizer": {
                "state": False,
                "suggest": "cat",
                "kwargs": {"choices": ["Adam", "SGD"], "optim_configs": {"SGD": {"momentum": 0.9}}},
            },
        },
    },
    "recon_params": {"NITER": 200, "SAVE_ITERS": 50},
}
THICKNESS = {"name": "thickness", "tune": ["dz"], "trials": 8}
SCAN = {"name": "scan", "tune": ["scale", "rotation"], "trials": 12}


def write(folder: Path, stages: Any, final: Any = ..., changes: Mapping[str, Any] | None = None) -> Path:
    """A params file with these stages; ``changes`` has dotted keys, of which ``...`` takes a key out."""
    params = copy.deepcopy(PARAMS)
    params["ptydask"] = {"stages": stages} if final is ... else {"stages": stages, "final": final}
    for key, value in (changes or {}).items():
        *way, last = key.split(".")
        section = params
        for name in way:
            section = section.setdefault(name, {})
        section[last] = value
    path = folder / "params.json"
    path.write_text(json.dumps(params))
    return path


def plans_of(path: Path, overrides: Overrides = Overrides(), **found: Scalar) -> list[StudyPlan]:  # noqa: B008
    """The plan of each stage as a run would make it, with values that the stages before found."""
    stages = config.load_stages(path, overrides)
    ranges: dict[str, Distribution] = {}
    plans = []
    for stage in stages:
        values = {name: found[name] for name in ranges if name in found}
        lineage = StageLineage(stage.name, tuple(other.name for other in stages), values=values)
        plans.append(config.load(path, overrides, StageInput(stage, lineage, dict(ranges))))
        ranges |= plans[-1].space
    return plans


# --- what is read ------------------------------------------------------------------------------------------


def test_a_stage_in_full(tmp_path: Path) -> None:
    """Every key of a stage, in its words and in its numbers."""
    last = {
        "name": "affine",
        "tune": {
            "scale": {"around": "best", "within": "3 steps"},
            "rotation": {"around": "best", "within": 2, "step": 0.1},
            "asymmetry": {"low": -0.1, "high": 0.1, "step": 0.01},
            "shear": {"suggest": "float", "kwargs": {"low": -1, "high": 1}},
        },
        "metric": "contrast",
        "iterations": 30,
        "scan": {"center": 16},
        "pixels": {"bin": 2},
        "sampler": {"name": "TPESampler", "configs": {"n_startup_trials": 3}},
        "pruner": None,
        "search": "auto",
        "start_from": "best",
        "stop_when": {"gain": "1 %", "trials": 20},
    }
    first, second, third, final = config.load_stages(write(tmp_path, [THICKNESS, SCAN, last], {"iterations": 300}))
    assert first == Stage("thickness", {"dz": None}, trials=8)
    assert (second.name, dict(second.tune)) == ("scan", {"scale": None, "rotation": None})
    assert third.tune["scale"] == Around(3.0)
    assert third.tune["rotation"] == Around(2.0, 0.1)
    assert third.tune["asymmetry"] == FloatRange(-0.1, 0.1, 0.01)
    assert third.tune["shear"] == FloatRange(-1.0, 1.0)
    assert (third.pruner, third.search, third.start_from) == (None, "auto", "scan")
    assert (third.until_settled, third.no_gain) == (False, NoGain(0.01, 20))
    assert (final.is_final, final.iterations, dict(final.tune)) == (True, 300, {})


@pytest.mark.parametrize(("gain", "share"), [("1 %", 0.01), ("0.5%", 0.005), (0.02, 0.02)])
def test_gain_as_text_or_number(gain: object, share: float, tmp_path: Path) -> None:
    """Also of a study without stages."""
    path = write(tmp_path, None, ..., {"ptydask": {"stop_when": {"gain": gain, "trials": 5}}})
    assert config.load(path).no_gain == NoGain(share, 5)
    assert config.load_stages(path) == ()


def test_old_names_are_those_of_today(tmp_path: Path) -> None:
    """``defocus`` is ``C10`` with the sign turned; an aberration with a direction is two parameters."""
    tune = {"defocus": {"low": 10, "high": 30, "step": 5}, "C12": None}
    (stage,) = config.load_stages(write(tmp_path, [{"name": "probe", "tune": tune}]))
    assert stage.tune == {"C10": FloatRange(-30.0, -10.0, 5.0), "C12a": None, "C12b": None}


def test_a_file_of_its_own_has_them(tmp_path: Path) -> None:
    """And the errors name it, by its own keys."""
    write(tmp_path, None)
    own = tmp_path / "stages.yaml"
    own.write_text("params: params.json\nstages:\n- {name: scan, tune: [scale]}\n")
    assert [stage.name for stage in config.load_stages(own)] == ["scan"]
    own.write_text("params: params.json\nstages:\n- {name: scan, tune: [scal]}\n")
    with pytest.raises(errors.ConfigError) as caught:
        config.load_stages(own)
    assert (caught.value.file, caught.value.key) == (own, "stages[0].tune")


def test_command_line_switches(tmp_path: Path) -> None:
    """``--stages`` beats the file; ``--set`` reaches into a stage."""
    path = write(tmp_path, [THICKNESS, SCAN])
    assert config.load_stages(path, Overrides(stages="none")) == ()
    names = [stage.name for stage in config.load_stages(path, Overrides(stages="recommended"))]
    assert names == ["geometry", "whole scan", "final"]
    for total in (3, 4, 50):
        plans = plans_of(path, Overrides(stages="recommended", n_trials=total))
        assert sum(plan.budget.trials(8) for plan in plans) == total
    changed = config.load_stages(path, Overrides(settings=(("ptydask.stages.1.trials", 5),)))
    assert [stage.trials for stage in changed] == [8, 5]


# --- the plan of a stage -----------------------------------------------------------------------------------


def test_plans_are_those_of_a_file_for_each_stage(tmp_path: Path) -> None:
    """Name, budget, ranges, values found, part of the data; the results file is one for all."""
    stages = [
        {**THICKNESS, "scan": {"every": 3}, "iterations": 20},
        {**SCAN, "pixels": {"crop": 32}},
        {"name": "affine", "tune": {"scale": {"around": "best", "within": "3 steps"}, "asymmetry": None}},
    ]
    first, second, third, final = plans_of(write(tmp_path, stages, {"iterations": 400}), dz=12.0, scale=1.1, rotation=1)
    assert [plan.name for plan in (first, second, third, final)] == [
        "demo thickness",
        "demo scan",
        "demo affine",
        "demo final",
    ]
    assert {plan.results for plan in (first, second, third, final)} == {Path("output/demo.h5")}
    assert [(plan.budget.n_trials, plan.budget.total) for plan in (first, second, third, final)] == [
        (8, True),
        (12, True),
        (30, True),
        (1, True),
    ]
    assert [plan.iterations for plan in (first, second, third, final)] == [20, 200, 200, 400]
    assert first.config["recon_params"]["INDICES_MODE"] == {"mode": "sub", "subscan_slow": 11, "subscan_fast": 8}
    assert second.config["init_params"]["obj_slice_thickness"] == 12.0
    assert second.config["init_params"]["meas_crop"] == [None, None, [16, 48], [16, 48]]
    assert third.space == {"scale": FloatRange(1.04, 1.16, 0.02), "asymmetry": FloatRange(-0.2, 0.2)}
    assert third.config["init_params"]["pos_scan_affine"] == [1.1, 0.0, 1, 0.0]
    assert "meas_crop" not in final.config["init_params"]
    assert final.config["recon_params"]["INDICES_MODE"]["mode"] == "full"
    assert [plan.keep.snapshot_every for plan in (first, second, third, final)] == [None, None, None, 50]
    assert final.space == {}
    assert final.lineage is not None
    assert final.lineage.number == 4


def test_smaller_batches_are_those_of_their_stage(tmp_path: Path) -> None:
    """The rest of ``BATCH_SIZE`` stays; what an earlier stage found gives way in a stage that says its own."""
    own = {"size": 32, "grad_accumulation": 2}
    tuned = {"name": "size", "tune": {"batch_size": {"low": 8, "high": 64}}}
    stages = [tuned, SCAN, {**SCAN, "name": "again", "batch_size": 4}]
    path = write(tmp_path, stages, {"iterations": 9}, {"recon_params.BATCH_SIZE": own})
    sizes = [plan.config["recon_params"]["BATCH_SIZE"] for plan in plans_of(path, batch_size=64)]
    assert sizes == [own, {**own, "size": 64}, {**own, "size": 4}, {**own, "size": 64}]


@pytest.mark.parametrize(
    ("before", "around", "best", "expected"),
    [
        (entry(0.8, 1.2, 0.02), {"within": "3 steps"}, 1.04, FloatRange(0.98, 1.1, 0.02)),
        (entry(0.8, 1.2, 0.02), {"within": "3 steps"}, 1.2, FloatRange(1.14, 1.26, 0.02)),
        (entry(0.02, 0.2, 0.02), {"within": "3 steps"}, 0.04, FloatRange(0.02, 0.1, 0.02)),
        (entry(0.8, 1.2), {"within": "2 steps", "step": 0.005}, 1.0312, FloatRange(1.02, 1.045, 0.005)),
        (entry(0.8, 1.2, 0.02), {"within": "0.5 steps"}, 1.04, FloatRange(1.02, 1.06, 0.02)),
    ],
)
def test_range_around_the_best(before: Any, around: Any, best: float, expected: FloatRange, tmp_path: Path) -> None:
    """As many steps to either side, outwards to the grid, and no further than the parameter may be: above 0."""
    stages = [{"name": "a", "tune": ["scale"]}, {"name": "b", "tune": {"scale": {"around": "best", **around}}}]
    path = write(tmp_path, stages, ..., {"hypertune_params.tune_params.scale": before})
    assert plans_of(path, scale=best)[1].space == {"scale": expected}


def test_steps_are_those_of_the_latest_range(tmp_path: Path) -> None:
    """A second stage around the best counts in the steps of the first."""
    stages = [
        {"name": "a", "tune": ["rotation", "Nlayer"]},
        {"name": "b", "tune": {"rotation": {"around": "best", "within": "2 steps", "step": 0.1}}},
        {
            "name": "c",
            "tune": {
                "rotation": {"around": "best", "within": "2 steps"},
                "Nlayer": {"around": "best", "within": "1 step"},
            },
        },
    ]
    _, second, third = plans_of(write(tmp_path, stages), rotation=1.0, Nlayer=1)
    assert second.space == {"rotation": FloatRange(0.8, 1.2, 0.1)}
    assert third.space == {"rotation": FloatRange(0.8, 1.2, 0.1), "Nlayer": IntRange(1, 2)}


def test_a_stage_to_come_is_about_the_files_own_value(tmp_path: Path) -> None:
    """What no stage has found yet is the file's: 9 angstrom."""
    stages = [THICKNESS, {"name": "finer", "tune": {"dz": {"around": "best", "within": "2 steps"}}}]
    assert plans_of(write(tmp_path, stages))[1].space == {"dz": FloatRange(7.0, 11.0, 1.0)}


def test_an_aberration_with_a_direction_has_two_ranges(tmp_path: Path) -> None:
    """PtyRAD's own entry has one, as wide as both."""
    stages = [{"name": "a", "tune": ["C12"]}, {"name": "b", "tune": {"C12": {"around": "best", "within": "1 step"}}}]
    plan = plans_of(write(tmp_path, stages), C12a=10.0, C12b=-20.0)[1]
    assert plan.space == {"C12a": FloatRange(5.0, 15.0, 5.0), "C12b": FloatRange(-25.0, -15.0, 5.0)}
    kwargs = plan.config["hypertune_params"]["tune_params"]["C12"]["kwargs"]
    assert (kwargs["low"], kwargs["high"]) == (-25.0, 15.0)


def test_values_found_are_in_place(tmp_path: Path) -> None:
    """Of whatever kind; what is tuned keeps its keywords, a tilt its other half."""
    stages = [
        {"name": "rates", "tune": ["optimizer", "oalr"]},
        {"name": "tilts", "tune": ["tilt_y"]},
        {"name": "scan", "tune": ["scale"]},
    ]
    plans = plans_of(write(tmp_path, stages), optimizer="SGD", oalr=2e-3, tilt_y=1.5)
    entry_of = plans[0].config["hypertune_params"]["tune_params"]["optimizer"]
    assert entry_of["kwargs"]["optim_configs"] == {"SGD": {"momentum": 0.9}}
    model = plans[2].config["model_params"]
    assert model["optimizer_params"] == {"name": "SGD", "configs": {"momentum": 0.9}}
    assert model["update_params"]["obja"]["lr"] == 2e-3
    assert plans[2].config["init_params"]["tilt_params"]["init_tilts"] == [[1.5, 2.0]]


def test_the_command_line_is_for_stages_without_their_own(tmp_path: Path) -> None:
    """Metric, sampler, search, the end for want of progress; the final stage sees all of the data."""
    own = {"metric": "loss", "sampler": "QMCSampler", "stop_when": None}
    stages = [
        {**THICKNESS, **own},
        {**SCAN, "stop_when": {"gain": 0.01, "trials": 4}},
        {"name": "tilt", "tune": ["tilt_y"]},
    ]
    overrides = Overrides(metric="heldout", sampler="RandomSampler", search="auto", until_settled=True)
    first, second, third, final = plans_of(write(tmp_path, stages, {"iterations": 2}), overrides)
    assert (first.metric, first.sampler.name, first.search, first.until_settled) == (
        "loss",
        "QMCSampler",
        "file",
        False,
    )
    assert (second.metric, second.sampler.name, second.search) == ("heldout", "RandomSampler", "auto")
    assert (second.until_settled, second.no_gain) == (False, NoGain(0.01, 4))
    assert (third.until_settled, third.no_gain) == (True, None)
    assert (third.held_out is not None, final.held_out, final.metric) == (True, None, "loss")


def test_points_to_try_are_shared_out(tmp_path: Path) -> None:
    """Each stage tries what it tunes of a point, and none what it does not reach."""
    narrow = {"name": "finer", "tune": {"scale": {"around": "best", "within": "1 step"}}}
    path = write(tmp_path, [THICKNESS, SCAN, narrow])
    first, second, third = plans_of(path, Overrides(tries=({"dz": 11, "scale": 1.1},)), scale=0.9)
    assert [point.params for point in first.points] == [{"dz": 11}]
    assert [point.params for point in second.points] == [{"scale": 1.1}]
    assert third.points == ()
    assert any("does not try it" in notice for notice in third.notices)


def test_a_grid_is_that_of_what_the_stage_tunes(tmp_path: Path) -> None:
    """The file's sampler may name parameters of other stages."""
    sampler = {"name": "GridSampler", "configs": {"search_space": {"dz": [5, 6], "scale": [0.9, 1.0]}}}
    stages = [THICKNESS, {"name": "scan", "tune": ["scale"]}]
    first, second = plans_of(write(tmp_path, stages, ..., {"hypertune_params.sampler_params": sampler}))
    assert first.sampler.configs["search_space"] == {"dz": [5, 6]}
    assert second.sampler.configs["search_space"] == {"scale": [0.9, 1.0]}


def test_hypertune_that_is_switched_off(tmp_path: Path) -> None:
    """The stages tune all the same, and say so; the ranges need not be switched on."""
    path = write(
        tmp_path, [{"name": "tilt", "tune": ["tilt_y"]}], {"iterations": 3}, {"hypertune_params.if_hypertune": False}
    )
    first, final = plans_of(path)
    assert [*first.space] == ["tilt_y"]
    assert any("if_hypertune is false" in notice for notice in first.notices)
    assert final.space == {}


def test_contrast_with_nothing_loaded_is_noticed(tmp_path: Path) -> None:
    """But not where the trials start from a reconstruction."""
    stages = [{**THICKNESS, "metric": "contrast"}, {**SCAN, "metric": "contrast", "start_from": "best"}]
    first, second = plans_of(write(tmp_path, stages))
    (notice,) = (notice for notice in first.notices if "start from nothing" in notice)
    assert "in a later stage" in notice
    assert not any("start from nothing" in notice for notice in second.notices)


def test_what_a_stage_has_of_its_own_is_not_silently_kept(tmp_path: Path) -> None:
    """On the command line, or in the params file beside a file that names it; what comes to the same is no matter."""
    path = write(tmp_path, [THICKNESS | {"metric": "loss", "iterations": 9}, SCAN])
    overrides = Overrides(metric="heldout", settings=(("recon_params.NITER", 50),))
    first, second = ([text for text in plan.notices if "not used" in text] for plan in plans_of(path, overrides))
    assert [text.split(" is ")[0] for text in first] == ["--metric heldout", "--set recon_params.NITER=50"]
    assert second == []
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"params": path.name, "stages": [SCAN]}))
    (plan,) = plans_of(own, Overrides(metric="loss", settings=(("stages.0.trials", 3),)))
    assert plan.budget.n_trials == 3
    assert any(text.startswith("ptydask.stages") and "not used" in text for text in plan.notices)
    own.write_text(json.dumps({"params": path.name, "ptydask": {"stages": [SCAN]}}))
    with pytest.raises(errors.ConfigError, match="write its keys as they are"):
        config.read(own)


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"scan": {"every": 2}, "iterations": 6}, "few steps"),
        ({"scan": {"every": 2}, "iterations": 40}, ""),
        ({"scan": {"every": 2}, "iterations": 6, "batch_size": 8}, ""),
        ({"iterations": 6}, ""),
        ({"trials": 4, "stop_when": {"gain": 0.01, "trials": 4}}, "stop_when"),
        ({"trials": 5, "stop_when": {"gain": 0.01, "trials": 4}}, ""),
    ],
)
def test_what_a_stage_cannot_do_as_it_is_written(keys: dict[str, Any], word: str, tmp_path: Path) -> None:
    """Too few steps over a part of the scan to be near rest; an end that comes after the last trial."""
    changes = {"recon_params.BATCH_SIZE": {"size": 32}}
    (plan,) = plans_of(write(tmp_path, [{**SCAN, **keys}], ..., changes))
    assert [word in notice for notice in plan.notices] == ([True] if word else [])


def test_updates_that_a_short_stage_does_not_reach(tmp_path: Path) -> None:
    """Its trials end before positions are refined."""
    updates = {"probe_pos_shifts": {"start_iter": 50}, "objp": {"start_iter": 1}, "obja": {"start_iter": None}}
    path = write(tmp_path, [{**SCAN, "iterations": 20}, THICKNESS], ..., {"model_params.update_params": updates})
    first, second = plans_of(path)
    assert [notice.partition(":")[0] for notice in first.notices] == ["probe_pos_shifts"]
    assert second.notices == ()


@pytest.mark.parametrize(
    ("crop", "size", "expected"),
    [
        (None, 32, [[16, 48], [16, 48]]),
        (None, 31, [[17, 48], [17, 48]]),
        ([[0, 8], None, [10, 51], [11, 52]], 16, [[22, 38], [23, 39]]),
    ],
)
def test_a_crop_keeps_the_zero_of_reciprocal_space(crop: Any, size: int, expected: Any, tmp_path: Path) -> None:
    """It is pixel N // 2 before and after, also within a crop of the file's own, whose scan stays."""
    path = write(tmp_path, [{**SCAN, "pixels": {"crop": size}}], ..., {"init_params.meas_crop": crop})
    init = plans_of(path)[0].config["init_params"]
    assert init["meas_crop"][2:] == expected
    for axis, (start, _) in enumerate(expected):
        first, last = crop[2 + axis] if crop else (0, 64)
        assert start + size // 2 == first + (last - first) // 2
    assert init["meas_crop"][:2] == (crop[:2] if crop else [None, None])


def test_lengths_of_constraints_stay(tmp_path: Path) -> None:
    """Shares of a pattern grow with a crop, pixels of the object shrink; a sum of pixels leaves both."""
    masks = {"probe_mask_k": {"start_iter": 1, "radius": 0.2}, "kr_filter": {"start_iter": None, "radius": 0.1}}
    stages = [{**SCAN, "pixels": {"crop": 32}}, {**THICKNESS, "pixels": {"bin": 2}}]
    changes = {"constraint_params": masks, "model_params": {"detector_blur_std": 1.0}}
    cropped, summed = plans_of(write(tmp_path, stages, ..., changes))
    constraints = cropped.config["constraint_params"]
    assert constraints["probe_mask_k"] == {"start_iter": 1, "radius": 0.4, "width": 0.1}
    assert constraints["kr_filter"] == masks["kr_filter"]
    assert constraints["obj_rblur"]["std"] == 0.2
    assert summed.config["constraint_params"] == masks
    assert summed.config["init_params"]["meas_resample"] == {"mode": "on_the_fly", "scale_factors": [0.5, 0.5]}
    assert summed.config["model_params"]["detector_blur_std"] == 0.5


# --- what is refused ---------------------------------------------------------------------------------------


def stage(**keys: Any) -> list[dict[str, Any]]:
    return [{"name": "scan", "tune": ["scale", "rotation"], **keys}]


def second(**keys: Any) -> list[dict[str, Any]]:
    return [THICKNESS, *stage(**keys)]


def tune(**ranges: Any) -> list[dict[str, Any]]:
    return [{"name": "a", "tune": ["scale", "Nlayer", "optimizer", "oalr", "asymmetry"]}, {"name": "b", "tune": ranges}]


def best(**more: Any) -> dict[str, Any]:
    return {"around": "best", "within": "3 steps", **more}


S, T = "ptydask.stages", "ptydask.stages[1].tune"
BAD: dict[str, tuple[Any, str, str]] = {
    "not a list": ({"scan": {}}, S, "must be a list"),
    "a word": ("recomended", S, "did you mean 'recommended'"),
    "none at all": ([], S, "at least one"),
    "a stage that is text": (["scan"], f"{S}[0]", "must be a mapping"),
    "a stage that is null": ([None], f"{S}[0]", "must be a mapping"),
    "an unknown key": (stage(trails=3), f"{S}[0].trails", "did you mean 'trials'"),
    "no name": ([{"tune": ["scale"]}], f"{S}[0]", "name is missing"),
    "a name that is a number": (stage(name=1), f"{S}[0].name", "quotes"),
    "an empty name": (stage(name=""), f"{S}[0].name", "letters"),
    "a name with a slash": (stage(name="a/b"), f"{S}[0].name", "letters"),
    "a name like an option": (stage(name="-scan"), f"{S}[0].name", "letters"),
    "a name with a line break": (stage(name="scan\nx"), f"{S}[0].name", "letters"),
    "a very long name": (stage(name="a" * 70), f"{S}[0].name", "at most 60"),
    "the final stage's name": (stage(name="final"), f"{S}[0].name", "is taken"),
    "a confirmation's name": (stage(name="Confirmation"), f"{S}[0].name", "is taken"),
    "the name best": (stage(name="best"), f"{S}[0].name", "is taken"),
    "two of one name": ([*stage(), *stage()], f"{S}[1].name", "earlier stage"),
    "nothing tuned": (stage(tune=[]), f"{S}[0].tune", "must tune something"),
    "tune left out": ([{"name": "scan"}], f"{S}[0].tune", "must tune something"),
    "tune that is text": (stage(tune="scale"), f"{S}[0].tune", "must be a list of names"),
    "an unknown parameter": (stage(tune=["rotatoin"]), f"{S}[0].tune", "did you mean 'rotation'"),
    "an unknown parameter with a range": (tune(scal={"low": 0, "high": 1}), f"{T}.scal", "did you mean 'scale'"),
    "half of an aberration": (stage(tune=["C12a"]), f"{S}[0].tune", "did you mean 'C12'"),
    "a name that is none": (stage(tune=[3]), f"{S}[0].tune", "no such tunable"),
    "a parameter twice": (stage(tune=["scale", "scale"]), f"{S}[0].tune", "twice"),
    "old and new name": (
        stage(tune={"defocus": {"low": 1, "high": 2}, "C10": {"low": 1, "high": 2}}),
        f"{S}[0].tune",
        "twice",
    ),
    "no range anywhere": (stage(tune=["tilt_x"]), f"{S}[0].tune.tilt_x", "has no range"),
    "a range that is a list": (tune(scale=[0.8, 1.2]), f"{T}.scale", "must be a mapping"),
    "half a range": (tune(scale={"low": 0.8}), f"{T}.scale", "high is missing"),
    "an unknown key of a range": (tune(scale={"low": 1, "hihg": 2}), f"{T}.scale.hihg", "did you mean 'high'"),
    "an unknown key of PtyRAD's entry": (
        tune(scale={"suggest": "float", "kwargs": {}, "low": 1}),
        f"{T}.scale.low",
        "unknown key",
    ),
    "a range upside down": (tune(scale={"low": 1.2, "high": 0.8}), f"{T}.scale.low", "must not be above high"),
    "a range outside": (tune(scale={"low": -0.1, "high": 1}), f"{T}.scale.low", "must be above 0"),
    "PtyRAD's entry outside": (
        tune(scale={"suggest": "float", "kwargs": {"low": 0, "high": 1}}),
        f"{T}.scale.kwargs.low",
        "above 0",
    ),
    "a fraction of slices": (tune(Nlayer={"low": 1.5, "high": 4}), f"{T}.Nlayer.low", "whole number"),
    "a step that does not fit": (
        tune(scale={"low": 0.9, "high": 1, "step": 0.5}),
        f"{T}.scale.step",
        "larger than the range",
    ),
    "no choices": (tune(optimizer={"choices": []}), f"{T}.optimizer.choices", "at least one"),
    "an unknown optimizer": (tune(optimizer={"choices": ["Adm"]}), f"{T}.optimizer.choices", "did you mean 'Adam'"),
    "around something": (tune(scale={"around": "worst", "within": 3}), f"{T}.scale.around", "must be best"),
    "around the best of nothing": (tune(rotation=best()), f"{T}.rotation", "no earlier stage tunes it"),
    "around the best, at first": ([{"name": "a", "tune": {"scale": best()}}], f"{S}[0].tune.scale", "no earlier stage"),
    "within nothing": (tune(scale={"around": "best"}), f"{T}.scale.within", "number of grid steps"),
    "within 0 steps": (tune(scale=best(within="0 steps")), f"{T}.scale.within", "above 0"),
    "within a length": (tune(scale=best(within="0.1 angstrom")), f"{T}.scale.within", "number of grid steps"),
    "within true": (tune(scale=best(within=True)), f"{T}.scale.within", "number of grid steps"),
    "a step of 0": (tune(scale=best(step=0)), f"{T}.scale.step", "above 0"),
    "half a slice": (tune(Nlayer=best(step=0.5)), f"{T}.Nlayer.step", "whole number"),
    "around and ends": (tune(scale=best(low=1)), f"{T}.scale.low", "unknown key"),
    "around a choice": (tune(optimizer=best()), f"{T}.optimizer", "choices"),
    "around on a logarithm": (tune(oalr=best(step=1e-4)), f"{T}.oalr", "logarithmic"),
    "around without steps": (tune(asymmetry=best()), f"{T}.asymmetry", "no step to count"),
    "no trials": (stage(trials=0), f"{S}[0].trials", "at least 1"),
    "half a trial": (stage(trials=2.5), f"{S}[0].trials", "whole number"),
    "an unknown metric": (stage(metric="lose"), f"{S}[0].metric", "did you mean 'loss'"),
    "no iterations": (stage(iterations=0), f"{S}[0].iterations", "at least 1"),
    "iterations in quotes": (stage(iterations="20"), f"{S}[0].iterations", "without quotes"),
    "every 0": (stage(scan={"every": 0}), f"{S}[0].scan.every", "at least 1"),
    "every row left out": (stage(scan={"every": 24}), f"{S}[0].scan.every", "less than two"),
    "a centre beyond the scan": (stage(scan={"center": 25}), f"{S}[0].scan.center", "at most 24"),
    "centre and every": (stage(scan={"center": 8, "every": 2}), f"{S}[0].scan", "one of them"),
    "a scan without a part": (stage(scan={}), f"{S}[0].scan", "one of them"),
    "a batch of nothing": (stage(batch_size=0), f"{S}[0].batch_size", "at least 1"),
    "a batch that is a word": (stage(batch_size="small"), f"{S}[0].batch_size", "whole number"),
    "a batch of half a pattern": (stage(batch_size=0.5), f"{S}[0].batch_size", "whole number"),
    "a batch size given and tuned": (
        stage(tune={"batch_size": {"low": 8, "high": 64}}, batch_size=8),
        f"{S}[0].batch_size",
        "is tuned",
    ),
    "a scan that is a word": (stage(scan="half"), f"{S}[0].scan", "must be a mapping"),
    "crop and bin": (stage(pixels={"crop": 32, "bin": 2}), f"{S}[0].pixels", "one of them"),
    "a crop beyond the pattern": (stage(pixels={"crop": 65}), f"{S}[0].pixels.crop", "at most the patterns' 64"),
    "a sum of 3 x 3": (stage(pixels={"bin": 3}), f"{S}[0].pixels.bin", "2 x 2"),
    "sums of pixels for tilts": (
        stage(tune=["tilt_y"], pixels={"bin": 2}),
        f"{S}[0].pixels.bin",
        "half a pixel",
    ),
    "an unknown sampler": (stage(sampler="TPESampl"), f"{S}[0].sampler.name", "TPESampler"),
    "a sampler's unknown setting": (
        stage(sampler={"name": "TPESampler", "configs": {"multi": 1}}),
        f"{S}[0].sampler.configs.multi",
        "",
    ),
    "a sampler that is a number": (stage(sampler=3), f"{S}[0].sampler", "must be a mapping"),
    "an unknown pruner": (stage(pruner="Hyperband"), f"{S}[0].pruner.name", "HyperbandPruner"),
    "an unknown search": (stage(search="fast"), f"{S}[0].search", "auto or file"),
    "a start from itself": (second(start_from="scan"), f"{S}[1].start_from", "itself"),
    "a start from a later stage": (
        [{**THICKNESS, "start_from": "scan"}, *stage()],
        f"{S}[0].start_from",
        "comes later",
    ),
    "a start from the final stage": (second(start_from="final"), f"{S}[1].start_from", "comes later"),
    "a start from nobody": (second(start_from="thicknes"), f"{S}[1].start_from", "did you mean 'thickness'"),
    "a start from the best of nothing": (stage(start_from="best"), f"{S}[0].start_from", "no stage comes before"),
    "a start from a trial": (second(start_from=3), f"{S}[1].start_from", "must be text"),
    "held-out positions that the start has seen": (
        second(start_from="best", metric="heldout"),
        f"{S}[1].start_from",
        "has seen them",
    ),
    "held-out electrons that the start has seen": (
        [*second(start_from="best", metric="loss"), {**SCAN, "name": "last", "start_from": "scan", "metric": "counts"}],
        f"{S}[2].start_from",
        "counts scores by data",
    ),
    "settings of an optimizer": (
        stage(
            tune={
                "optimizer": {
                    "suggest": "cat",
                    "kwargs": {"choices": ["Adam", "SGD"], "optim_configs": {"SGD": {"momentum": 0.5}}},
                }
            }
        ),
        f"{S}[0].tune.optimizer.kwargs.optim_configs",
        "hypertune_params.tune_params.optimizer",
    ),
    "an unknown end": (stage(stop_when="setled"), f"{S}[0].stop_when", "did you mean 'settled'"),
    "an end that is a number": (stage(stop_when=3), f"{S}[0].stop_when", "must be settled"),
    "half an end": (stage(stop_when={"gain": "1 %"}), f"{S}[0].stop_when", "trials is missing"),
    "a gain of all": (stage(stop_when={"gain": 1, "trials": 5}), f"{S}[0].stop_when.gain", "write 1 %"),
    "a gain below nothing": (stage(stop_when={"gain": "-1 %", "trials": 5}), f"{S}[0].stop_when.gain", "share"),
    "a gain of words": (stage(stop_when={"gain": "much %", "trials": 5}), f"{S}[0].stop_when.gain", "share"),
    "an end after no trials": (stage(stop_when={"gain": 0.1, "trials": 0}), f"{S}[0].stop_when.trials", "at least 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_stages_are_one_line(name: str, tmp_path: Path) -> None:
    """File, key, rule and what to do, before anything is started."""
    stages, key, words = BAD[name]
    path = write(tmp_path, stages)
    with pytest.raises(errors.ConfigError) as caught:
        config.load_stages(path)
    assert (caught.value.file, caught.value.key, caught.value.exit_code) == (path, key, 2)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_recommended_stages_are_not_advised_against(tmp_path: Path) -> None:
    """A picture that is scored by the contrast is not advised against; a written stage that tunes by it is."""
    tilt = (("hypertune_params.tune_params.tilt_y.state", True),)
    overrides = Overrides(settings=tilt, stages="recommended", metric="contrast")
    plans = plans_of(write(tmp_path, "recommended"), overrides)
    assert len(plans[0].space) == 5
    assert (plans[-1].space, plans[-1].metric) == ({}, "contrast")
    notices = [notice for plan in plans for notice in plan.notices]
    assert not any("nearly done" in notice for notice in notices)
    own = [{"name": "all", "tune": ["dz", "scale", "rotation", "asymmetry", "tilt_y"]}]
    (written,) = plans_of(write(tmp_path, own), Overrides(metric="contrast"))
    assert sum("nearly done" in notice for notice in written.notices) == 1


def test_what_is_held_out_is_for_the_stages_that_hold_it_out(tmp_path: Path) -> None:
    """The others do not say that it is not used; a study without stages does."""
    settings = (("ptydask.held_out", {"share": 0.1}),)
    path = write(tmp_path, second(metric="heldout"), {"iterations": 9})
    plans = plans_of(path, Overrides(settings=settings))
    assert [None if plan.held_out is None else plan.held_out.share for plan in plans] == [None, 0.1, None]
    assert not any("held_out" in notice for plan in plans for notice in plan.notices)
    flat = config.load(path, Overrides(settings=settings, stages="none"))
    assert any("held_out is not used" in notice for notice in flat.notices)


SLICES = {"name": "slices", "tune": {"Nlayer": {"low": 1, "high": 4}}}
IDLE = {"name": "idle", "tune": {"dz": {"low": 4, "high": 12, "step": 1}, "tilt_y": {"low": -4, "high": 4}}}
SOME = {"name": "some", "tune": {"dz": {"around": "best", "within": "1 step"}, "scale": None}}


@pytest.mark.parametrize("name", ["idle", "some", "again"])
def test_what_does_nothing_in_the_slice_that_was_found_is_not_tuned(name: str, tmp_path: Path) -> None:
    """It would end the run between two stages; where nothing else is tuned it is one reconstruction."""
    again = {"name": "again", "tune": {**SLICES["tune"], "dz": {"around": "best", "within": "1 step"}}}  # type: ignore[dict-item]
    path = write(tmp_path, [SLICES, IDLE, SOME, again])
    stages = config.load_stages(path)
    place = [one.name for one in stages].index(name)
    ranges = {"Nlayer": IntRange(1, 4), "dz": FloatRange(4, 12, 1)}
    found = StageLineage(name, tuple(one.name for one in stages), "slices", 0, {"Nlayer": 1}, {"Nlayer": ("slices", 0)})
    plan = config.load(path, stage=StageInput(stages[place], found, ranges))
    tuned = {"idle": set(), "some": {"scale"}, "again": {"Nlayer", "dz"}}[name]
    assert set(plan.space) == tuned
    assert any("one slice was found" in notice for notice in plan.notices) == (name != "again")
    assert (plan.budget.n_trials == 1) == (name == "idle")


def test_slices_that_are_yet_to_be_found_do_not_count_as_one(tmp_path: Path) -> None:
    """The file's own object has one; a stage that comes later tunes what does nothing there."""
    path = write(tmp_path, [SLICES, IDLE], changes={"init_params.obj_Nlayer": 1})
    stages = config.load_stages(path)
    to_come = StageLineage("idle", ("slices", "idle"), "slices")
    plan = config.load(path, stage=StageInput(stages[1], to_come, {"Nlayer": IntRange(1, 4)}))
    assert plan.config["init_params"]["obj_Nlayer"] == 4
    assert set(plan.space) == {"dz", "tilt_y"}


@pytest.mark.parametrize(
    ("name", "before", "best", "around", "wanted"),
    [
        ("Nlayer", IntRange(1, 9, 2), 1, Around(2, 2), IntRange(1, 5, 2)),
        ("Nlayer", IntRange(1, 9, 1), 2, Around(1, 3), IntRange(2, 5, 3)),
        ("dz", FloatRange(0.02, 0.1, 0.02), 0.04, Around(1, 0.07), FloatRange(0.04, 0.11, 0.07)),
        ("scale", FloatRange(0.9, 1.1, 0.02), 1.02, Around(1, 0.005), FloatRange(1.015, 1.025, 0.005)),
    ],
)
def test_the_best_value_is_within_the_range_about_it(
    name: str, before: Distribution, best: Scalar, around: Around, wanted: Distribution
) -> None:
    """Also where the parameter's least value is nearer than a new step."""
    assert place_range(name, before, around, best) == wanted


def test_what_is_held_out_of_the_whole_study_is_not_seen_by_a_start(tmp_path: Path) -> None:
    """The study's own metric counts where a stage has none; the final stage is scored by the loss."""
    overrides = Overrides(metric="heldout")
    with pytest.raises(errors.ConfigError, match="has seen them"):
        config.load_stages(write(tmp_path, second(start_from="best")), overrides)
    stages = config.load_stages(write(tmp_path, stage(), {"iterations": 9, "start_from": "best"}), overrides)
    assert stages[-1].start_from == "scan"


@pytest.mark.parametrize(
    ("final", "key", "words"),
    [
        ({}, "ptydask.final", "iterations is missing"),
        (200, "ptydask.final", "must be a mapping"),
        ({"iterations": 0}, "ptydask.final.iterations", "at least 1"),
        ({"iterations": 9, "tune": ["scale"]}, "ptydask.final.tune", "unknown key"),
        ({"iterations": 9, "start_from": "final"}, "ptydask.final.start_from", "itself"),
        ({"iterations": 9, "start_from": "nobody"}, "ptydask.final.start_from", "no stage has this name"),
    ],
)
def test_bad_final_stages_are_one_line(final: Any, key: str, words: str, tmp_path: Path) -> None:
    """It reconstructs, and does no more."""
    with pytest.raises(errors.ConfigError) as caught:
        config.load_stages(write(tmp_path, [THICKNESS], final))
    assert caught.value.key == key
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "stages", "key", "words"),
    [
        (
            {"hypertune_params.collate_results": False},
            second(start_from="best"),
            f"{S}[1].start_from",
            "collate_results",
        ),
        ({"init_params.obj_source": "PtyRAD"}, stage(pixels={"crop": 32}), f"{S}[0].pixels", "obj_source"),
        ({"init_params.meas_pad": {"mode": "on_the_fly"}}, stage(pixels={"bin": 2}), f"{S}[0].pixels", "meas_pad"),
        (
            {"init_params.meas_resample": {"mode": "precompute"}},
            stage(pixels={"crop": 8}),
            f"{S}[0].pixels",
            "meas_resample",
        ),
        (
            {
                "init_params.probe_conv_angle": 25,
                "init_params.probe_aberrations": {"C10": -150},
                "init_params.meas_calibration": {"mode": "dx", "value": 0.2},
            },
            stage(pixels={"bin": 2}),
            f"{S}[0].pixels.bin",
            "7.5 angstrom wide",
        ),
        ({"init_params.meas_Npix": 65}, stage(pixels={"bin": 2}), f"{S}[0].pixels.bin", "even"),
        ({"init_params.pos_N_scan_slow": None}, stage(scan={"every": 2}), f"{S}[0].scan", "pos_N_scan_slow"),
        (
            {"init_params.meas_crop": [[0, 4], None, None, None]},
            stage(scan={"center": 8}),
            f"{S}[0].scan.center",
            "at most 4",
        ),
        ({"ptydask.error_metric": "counts"}, stage(pixels={"bin": 2}), f"{S}[0].pixels.bin", "counts"),
        (
            {"init_params.tilt_params": "all"},
            [{"name": "a", "tune": ["tilt_y"]}, THICKNESS],
            "init_params.tilt_params.init_tilts",
            "shape",
        ),
        (
            {"hypertune_params.tune_params.dz.kwargs": {"low": 9}},
            [THICKNESS],
            "hypertune_params.tune_params.dz.kwargs",
            "high",
        ),
        (
            {"hypertune_params.sampler_params": {"name": "TPE"}},
            [THICKNESS],
            "hypertune_params.sampler_params.name",
            "TPESampler",
        ),
        ({"ptydask.stages": None, "ptydask.final": {"iterations": 9}}, None, "ptydask.final", "stages: recommended"),
        ({"recon_params.NITER": "many"}, "recommended", "recon_params.NITER", "whole number"),
    ],
)
def test_stages_that_the_file_cannot_have(changes: Any, stages: Any, key: str, words: str, tmp_path: Path) -> None:
    """The reason is in another section."""
    with pytest.raises(errors.ConfigError) as caught:
        config.load_stages(write(tmp_path, stages, ..., changes))
    assert caught.value.key == key
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (Overrides(n_trials=50), "--trials", "which stage"),
        (Overrides(n_trials=2, stages="recommended"), "--trials", "at least 3"),
        (Overrides(tries=({"tilt_x": 1},)), "--try tilt_x", "any stage"),
        (Overrides(tries=({"tilt_y": 1},), stages="recommended"), "--try tilt_y", "any stage"),
        (Overrides(settings=(("ptydask.stages.7.trials", 3),)), "ptydask.stages.7", "places 0 to 1"),
    ],
)
def test_options_that_stages_do_not_take(overrides: Overrides, key: str, words: str, tmp_path: Path) -> None:
    """One line, and what to write instead."""
    with pytest.raises(errors.ConfigError) as caught:
        config.load_stages(write(tmp_path, [THICKNESS, SCAN]), overrides)
    assert caught.value.key == key
    assert words in str(caught.value)


@pytest.mark.parametrize("keys", [{"stages": "recommended"}, {"final": {"iterations": 5}}, {"stages": stage()}])
def test_a_sweep_has_no_stages(keys: dict[str, Any], tmp_path: Path) -> None:
    """Its parameters are its program's; ``--stages none`` lets it pass."""
    path = tmp_path / "sweep.json"
    sweep = {"method": "random", "program": "train.py", "parameters": {"lr": {"min": 0.1, "max": 1.0}}, "ptydask": keys}
    path.write_text(json.dumps(sweep))
    for load in (config.load, config.load_stages):
        with pytest.raises(errors.ConfigError, match="PtyRAD's params files") as caught:
            load(path)
        assert caught.value.key == f"ptydask.{next(iter(keys))}"
    assert config.load_stages(path, Overrides(stages="none")) == ()


def test_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says the same line, and ends with 2."""
    path = write(tmp_path, tune(scale=best(within="0 steps")))
    assert cli.main(["validate", str(path)]) == 2
    assert "ptydask.stages[1].tune.scale.within" in capsys.readouterr().err


STAGE_KEYS: dict[str, tuple[dict[str, Any], str, str]] = {
    "batch": ({"batch_size": 4}, "recon_params.BATCH_SIZE.size", "batch_size"),
    "the file's batch": ({}, "recon_params.BATCH_SIZE.size", ""),
    "a part too small": ({"scan": ScanPart(every=2)}, "recon_params.BATCH_SIZE.size", "scan"),
    "iterations": ({"iterations": 9}, "recon_params.NITER", "iterations"),
    "the file's iterations": ({}, "recon_params.NITER", ""),
    "scan": ({"scan": ScanPart(every=2)}, "recon_params.INDICES_MODE.subscan_slow", "scan"),
    "crop": ({"pixels": PatternPart(crop=8)}, "init_params.meas_crop[2][0]", "pixels"),
    "metric": ({"metric": "contrast"}, "error_metric", "metric"),
    "range": ({"tune": {"dz": FloatRange(1, 2)}}, "hypertune_params.tune_params.dz", "tune.dz"),
    "the file's range": ({"tune": {"dz": None}}, "hypertune_params.tune_params.dz", ""),
    "other parameters": ({"tune": {"dz": None}}, "the tuned parameters", "tune"),
    "sampler": (
        {"sampler": ComponentSpec("Nix")},
        "hypertune_params.sampler_params.configs.x",
        "sampler.configs.x",
    ),
    "no pruner": ({"pruner": None}, "hypertune_params.pruner_params.name", ""),
    "another key": ({"iterations": 9}, "recon_params.NITERATIONS", ""),
}


@pytest.mark.parametrize("name", STAGE_KEYS)
def test_the_key_of_a_stage_that_is_refused(name: str) -> None:
    """It is the one that was written, in the stage, not where it takes effect; empty where the params file has it."""
    keys, place, expected = STAGE_KEYS[name]
    assert key_in_stage(place, Stage("a", **keys)) == expected


def test_what_is_refused_of_a_stage_names_the_file_that_has_it(tmp_path: Path) -> None:
    """The params file, or the one of ptydask's own beside it; of results, the results and the stage."""
    path = write(tmp_path, [THICKNESS | {"iterations": 3}, SCAN])
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"params": path.name, "stages": [THICKNESS | {"iterations": 3}]}))
    for given, results, key in (
        (path, None, "ptydask.stages[0]"),
        (own, None, "stages[0]"),
        (own, "s.h5", "stages[0]"),
    ):
        stages = config.load_stages(given)
        with (
            pytest.raises(errors.ConfigError) as caught,
            config.naming_stage(stages[0], 0, config.read(given), Overrides()),
        ):
            raise errors.ConfigError("no", file=results or path, key="recon_params.NITER", value=9)
        assert caught.value.key == f"{key}.iterations"
        assert str(caught.value.file) == str(results or given)
        assert ("stage thickness" in caught.value.rule) is (results is not None)
    with (
        pytest.raises(errors.ConfigError, match="stage thickness") as caught,
        config.naming_stage(stages[0], 0, config.read(path), Overrides(stages="recommended")),
    ):
        raise errors.ConfigError("no", file=path, key="recon_params.NITER", value=9)
    assert caught.value.key == "recon_params.NITER"


def test_a_rehearsal_has_a_lineage(tmp_path: Path) -> None:
    """As the run will: the middle of each range stands for what is not found yet."""
    stages = config.load_stages(write(tmp_path, [THICKNESS, {**SCAN, "start_from": "best"}]))
    given = rehearse_stage(stages, 1, {"dz": FloatRange(4.0, 20.0, 1.0)})
    assert given.lineage.values == {"dz": 12.0}
    assert (given.lineage.from_stage, given.lineage.start_stage, given.lineage.number) == ("thickness", "thickness", 2)
