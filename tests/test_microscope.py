"""Which earlier studies are of the same microscope settings, and what of those of another defocus is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from earlier_cases import earlier, first, plan
from store_cases import meta, record

from ptydask.distributions import Distribution, FloatRange
from ptydask.driver.earlier import EarlierStudy, explain_others, read_studies, select_same_microscope
from ptydask.driver.earlier_points import start_from
from ptydask.lineage import StageLineage
from ptydask.model import OWN_VALUES, Point, Scalar, StudyPlan

INIT: dict[str, Any] = {
    "probe_kv": 80,
    "probe_conv_angle": 24.9,
    "probe_aberrations": {"C10": 230, "C30": 1000},
    "meas_params": {"path": "/data/a.h5"},
    "meas_Npix": 128,
    "meas_calibration": {"mode": "dx", "value": 0.2},
    "pos_N_scan_slow": 24,
    "pos_scan_step_size": 0.9,
    "pos_scan_affine": None,
    "obj_Nlayer": 2,
    "obj_slice_thickness": 5,
}
SPACE: dict[str, Distribution] = {"rotation": FloatRange(-4.0, 4.0, 0.5), "C10": FloatRange(100.0, 500.0, 10.0)}
BEST: dict[str, Scalar] = {"rotation": -1.5, "C10": 240.0}


def config(**init: Any) -> dict[str, Any]:
    return {"init_params": {**INIT, **init}, "recon_params": {"NITER": 12}, "hypertune_params": {}}


def study(best: Mapping[str, Scalar] = BEST, name: str = "a.h5", **init: Any) -> EarlierStudy:
    return earlier([dict(best)], name, engine="ptyrad", config_json=json.dumps(config(**init)))


def next_plan(**init: Any) -> StudyPlan:
    own: dict[str, Scalar] = {"rotation": 0.0, "C10": 400.0}
    return plan(SPACE, engine="ptyrad", config=config(**init), points=(Point(own, OWN_VALUES),))


@pytest.mark.parametrize(
    "init",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"meas_params": {"path": "/data/b.h5", "key": "x"}}, id="data"),
        pytest.param({"pos_N_scan_slow": 99, "meas_crop": [[0, 12], None, None, None]}, id="size of the scan"),
        pytest.param(
            {"obj_Nlayer": 9, "obj_slice_thickness": 2, "tilt_params": {"init_tilts": [[3, 1]]}}, id="specimen"
        ),
        pytest.param({"probe_pmode_max": 6, "random_seed": 4, "meas_pad": {"mode": "on_the_fly"}}, id="reconstruction"),
        pytest.param({"probe_kv": 80.0, "pos_scan_step_size": 0.90001}, id="rounded"),
        pytest.param({"meas_calibration": {"mode": "kMax", "value": 2.5}}, id="calibration in other words"),
        pytest.param({"probe_aberrations": {"defocus": -230, "Cs": 1000}}, id="aberrations in other words"),
        pytest.param({"pos_scan_affine": [1, 0, 0, 0], "meas_flipT": [0, 0, 0]}, id="defaults written out"),
        pytest.param({"probe_aberrations": {"C10": 500, "C30": 1000}, "probe_z_shift": 40}, id="defocus"),
    ],
)
def test_the_same_microscope(init: dict[str, Any]) -> None:
    """What differs between two data sets of one session."""
    assert select_same_microscope(next_plan(**init), [study()]) == (study(),)
    assert select_same_microscope(next_plan(), [study(**init)])
    assert explain_others(next_plan(**init), [study()]) == ()


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ({"probe_kv": 300}, "probe_kv 80 (here 300)"),
        ({"probe_conv_angle": 21.4}, "conv_angle 24.9 (here 21.4)"),
        ({"meas_calibration": {"mode": "dx", "value": 0.21}}, "dx 0.2 (here 0.21)"),
        ({"meas_calibration": {"mode": "fitRBF"}}, "mode 'dx' (here 'fitRBF')"),
        ({"pos_scan_step_size": 0.45}, "pos_scan_step_size 0.9 (here 0.45)"),
        ({"meas_Npix": 64}, "meas_Npix 128 (here 64)"),
        ({"meas_flipT": [1, 0, 0]}, "meas_flipT [0, 0, 0] (here [1, 0, 0])"),
        ({"pos_scan_flipT": [0, 0, 1]}, "pos_scan_flipT"),
        ({"pos_scan_affine": [1, 0, 90, 0]}, "rotation 0 (here 90)"),
        ({"pos_scan_affine": [1.1, 0, 90, 0]}, "scale 1 (here 1.1)"),
        ({"probe_aberrations": {"C10": 230}}, "C30 1000 (here 0)"),
        ({"probe_aberrations": {"C10": 230, "C30": 1000, "C12": 9}}, "C12a 0 (here 9)"),
        ({"probe_kv": None}, "probe_kv 80 (here nothing)"),
    ],
)
def test_another_microscope(init: dict[str, Any], words: str) -> None:
    """The first setting that differs is named, in one line."""
    others = [study(), study(name="b.h5", **init)]
    assert select_same_microscope(next_plan(**init), others) == (others[1],)
    (line,) = explain_others(next_plan(**init), others)
    assert "a.h5" in line
    assert words in line
    assert "\n" not in line


def test_what_was_found_counts_only_as_it_was_found() -> None:
    """Somebody wrote it into the next file; a rotation that the earlier study did not come to is another one."""
    assert select_same_microscope(next_plan(pos_scan_affine=[1, 0, -1.497, 0]), [study()])
    assert not select_same_microscope(next_plan(pos_scan_affine=[1, 0, -1.5, 0]), [study({"C10": 240.0})])
    assert not select_same_microscope(next_plan(pos_scan_affine=[1, 0, 1.5, 0]), [study()])


def test_another_defocus() -> None:
    """As in a series: all else is taken, the defocus is the file's; also where somebody names the study."""
    series = next_plan(probe_aberrations={"C10": 400, "C30": 1000})
    begun = start_from(series, select_same_microscope(series, [study()]))
    assert first(begun) == [("from a.h5, trial 0", {"rotation": -1.5, "C10": 400.0})]
    assert any("defocus" in notice and "C10 230 (here 400)" in notice for notice in begun.notices)
    assert ("from", "a.h5, trial 0: rotation=-1.5") in begun.details
    again = start_from(next_plan(), [study()])
    assert first(again) == [("from a.h5, trial 0", BEST)]
    found = start_from(next_plan(probe_aberrations={"C10": 240, "C30": 1000}), [study()])
    assert first(found) == [("from a.h5, trial 0", BEST)], "it is in the file as it was found"


def test_stages() -> None:
    """An earlier study's first stage has its file's values; what the plan's own stages found is not compared."""
    begun = study()
    later = meta(engine="ptyrad", config_json=json.dumps(config(pos_scan_affine=[1, 0, -2, 0])))
    staged = EarlierStudy(Path("a.h5"), "a.h5 (b)", later, (record(0),), {}, {"a": begun.meta, "b": later})
    assert select_same_microscope(next_plan(), [staged])
    lineage = StageLineage("b", ("a", "b"), values={"rotation": 3.0})
    second = plan(SPACE, engine="ptyrad", config=config(pos_scan_affine=[1, 0, 3, 0]), lineage=lineage)
    assert select_same_microscope(second, [begun])


@pytest.mark.parametrize(
    "text",
    ["{}", "[]", "null", '{"init_params": 3}', "not JSON", '{"init_params": {"probe_kv": {}, "probe_aberrations": 3}}'],
)
def test_settings_that_are_not_known(text: str) -> None:
    """As of a study that was rebuilt: it is not taken, unless somebody names it."""
    unknown = earlier([BEST], engine="ptyrad", config_json=text)
    assert select_same_microscope(next_plan(), [unknown]) == ()
    assert len(explain_others(next_plan(), [unknown])) == 1
    assert first(start_from(next_plan(), [unknown])) == [("from last.h5, trial 0", BEST)]


def test_a_study_that_could_not_be_read(tmp_path: Path) -> None:
    """As one of a queue that has no completed trial."""
    (failed,) = read_studies([tmp_path / "none.h5"])
    assert select_same_microscope(next_plan(), [failed]) == ()
    (line,) = explain_others(next_plan(), [failed])
    assert line.count("none.h5") == 2


SWEEP: dict[str, Any] = {
    "program": "train.py",
    "command": ["${program}"],
    "directory": "/here",
    "parameters": [],
    "engine": {"callable": None},
}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"parameters": [{"name": "data", "value": "b"}]}, True),
        ({"program": "/here/sub/../train.py"}, True),
        ({"program": "test.py"}, False),
        ({"directory": "/there"}, False),
        ({"program": None}, False),
        ({"engine": {"callable": "m:f"}}, False),
    ],
)
def test_sweeps(changes: dict[str, Any], same: bool) -> None:
    """The same program; whatever else is set is what the study is about."""
    now = plan(engine="command", config={**SWEEP, **changes})
    before = earlier([BEST], engine="command", config_json=json.dumps(SWEEP))
    assert bool(select_same_microscope(now, [before])) == same
    assert len(explain_others(now, [before])) == (not same)


def test_another_metric_or_engine() -> None:
    before: dict[str, Any] = {"engine": "command", "config_json": json.dumps(SWEEP)}
    now = plan(engine="command", config=SWEEP)
    others = [
        earlier([BEST], **{**before, "metric": "accuracy"}),
        earlier([BEST], **{**before, "direction": "maximize"}),
        earlier([BEST], **{**before, "engine": "callable"}),
        study(),
    ]
    assert select_same_microscope(now, others) == ()
    words = ["accuracy", "maximized", "engine callable", "engine ptyrad"]
    assert all(word in line for word, line in zip(words, explain_others(now, others), strict=True))
