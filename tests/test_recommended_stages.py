"""Which stages are recommended: of what the file tunes and of nothing else, cheap looks first."""

from __future__ import annotations

from typing import Any

import pytest

from ptydask.config.ptyrad.recommended_stages import recommend, recommend_final
from ptydask.config.ptyrad.stage_list import share_out
from ptydask.distributions import Choice, Distribution, FloatRange, IntRange
from ptydask.space.tunables import PARAMETERS
from ptydask.space.tuning_order import MOST

CONFIG: dict[str, Any] = {"recon_params": {"NITER": 200}}
LARGE: dict[str, Any] = {
    "init_params": {
        "probe_kv": 80,
        "probe_conv_angle": 24.9,
        "probe_aberrations": {"C10": 200},
        "pos_N_scan_slow": 64,
        "pos_N_scan_fast": 96,
        "pos_scan_step_size": 1.0,
    },
    "recon_params": {"NITER": 200, "BATCH_SIZE": {"size": 32}},
}
RANGES: dict[str, Distribution] = {
    "dz": FloatRange(4, 20, 1),
    "scale": FloatRange(0.8, 1.2, 0.02),
    "rotation": FloatRange(-4, 4, 0.5),
    "asymmetry": FloatRange(-0.2, 0.2, 0.02),
    "shear": FloatRange(-4, 4),
    "tilt_y": FloatRange(-4, 4, 0.5),
    "tilt_x": FloatRange(-4, 4, 0.5),
    "C10": FloatRange(-40, 40, 5),
    "C12a": FloatRange(-40, 40, 5),
    "C12b": FloatRange(-40, 40, 5),
    "conv_angle": FloatRange(20, 30),
    "dx": FloatRange(0.1, 0.2),
    "Nlayer": IntRange(1, 8),
    "pmode_max": IntRange(1, 8),
    "batch_size": IntRange(16, 512, log=True),
    "oalr": FloatRange(1e-4, 1e-2, log=True),
    "optimizer": Choice(("Adam", "SGD")),
}


def names(*tuned: str, metric: str = "loss") -> list[tuple[str, list[str], str]]:
    stages = recommend(CONFIG, {name: RANGES[name] for name in tuned}, metric)
    return [(stage["name"], list(stage["tune"]), stage["metric"]) for stage in stages]


def test_geometry_is_found_at_once_and_looked_at_on_the_whole_scan() -> None:
    """On a quarter of the scan, in smaller batches; then a step about the best; by the loss."""
    geometry = ["tilt_x", "asymmetry", "rotation", "dz", "scale", "tilt_y"]
    look, whole = recommend(LARGE, {name: RANGES[name] for name in geometry}, "loss")
    assert sorted(look["tune"]) == sorted(whole["tune"]) == sorted(geometry)
    assert (look["scan"], look["batch_size"], look["stop_when"]) == ({"every": 2}, 8, "settled")
    assert "scan" not in whole
    assert (whole["batch_size"], whole["iterations"]) == (8, look["iterations"])
    assert all(near == {"around": "best", "within": "1 step"} for near in whole["tune"].values())
    assert whole["trials"] < look["trials"]
    assert whole["stop_when"] is None, "so few trials do not settle, and nobody is told that they did not"


@pytest.mark.parametrize(
    ("keys", "scan"),
    [
        ({}, {"every": 2}),
        ({"init_params.pos_N_scan_fast": 23}, None),
        ({"init_params.pos_N_scan_slow": None}, None),
        ({"init_params.meas_crop": [[0, 20], None, None, None]}, None),
        ({"recon_params.INDICES_MODE": {"mode": "center", "subscan_slow": 32}}, None),
        ({"recon_params.INDICES_MODE": {"mode": "full"}}, {"every": 2}),
        ({"init_params.pos_scan_step_size": 4.0}, {"center": 32}),
        ({"init_params.pos_scan_step_size": 0.4, "init_params.probe_aberrations": {}}, {"every": 2}),
        ({"init_params.pos_scan_step_size": 0.9, "init_params.probe_aberrations": {}}, {"center": 32}),
        ({"init_params.pos_scan_step_size": None}, {"every": 2}),
        ({"init_params.probe_illum_type": "xray", "init_params.pos_scan_step_size": 9e3}, {"every": 2}),
    ],
)
def test_the_part_of_the_scan(keys: dict[str, Any], scan: dict[str, int] | None) -> None:
    """Every second position, the centre where these would hardly overlap, all where a quarter is few, or chosen."""
    config = {section: dict(values) for section, values in LARGE.items()}
    for key, value in keys.items():
        section, name = key.split(".")
        config[section][name] = value
    stages = recommend(config, {"scale": RANGES["scale"]}, "loss")
    assert stages[0].get("scan") == scan
    assert [stage["name"] for stage in stages] == (["geometry"] if scan is None else ["geometry", "whole scan"])


@pytest.mark.parametrize(
    ("iterations", "batch", "look"),
    [
        (200, 32, (20, 8)),
        (16, 32, (12, 8)),
        (8, 64, (8, 16)),
        (None, 6, (15, 4)),
        (20, 4, (15, None)),
        (20, None, (15, None)),
    ],
)
def test_iterations_and_batches_of_a_quarter(
    iterations: int | None, batch: int | None, look: tuple[int, int | None]
) -> None:
    """As many steps an iteration as the whole scan makes, and never more iterations than the file has."""
    recon = {"NITER": iterations, "BATCH_SIZE": {"size": batch}}
    first = recommend({**LARGE, "recon_params": recon}, {"scale": RANGES["scale"]}, "loss")[0]
    assert (first["iterations"], first.get("batch_size")) == look


@pytest.mark.parametrize(
    ("tuned", "stages"),
    [
        ((), []),
        (("scale", "rotation"), ["geometry"]),
        (("tilt_x",), ["geometry"]),
        (("dz", "C10", "C12a", "C12b", "conv_angle"), ["geometry", "probe"]),
        (("C10", "oalr"), ["probe", "rates"]),
        (("Nlayer", "pmode_max", "oalr", "dx"), ["pixel size", "slices", "modes", "rates"]),
    ],
)
def test_what_is_not_tuned_has_no_stage(tuned: tuple[str, ...], stages: list[str]) -> None:
    """Each that is tuned has one."""
    recommended = recommend(CONFIG, {name: RANGES[name] for name in tuned}, "loss")
    assert [stage["name"] for stage in recommended] == stages
    tunables = {PARAMETERS[name].name for name in tuned}
    assert {name for stage in recommended for name in stage["tune"]} == tunables


@pytest.mark.parametrize("metric", ["loss", "contrast", "heldout", "counts", "data_loss", "sharpness"])
def test_all_at_once(metric: str) -> None:
    """No more than four at a time where no slopes lead; what the loss cannot tell is scored by data not fitted."""
    recommended = recommend(CONFIG, RANGES, metric)
    assert max(len(stage["tune"]) for stage in recommended if stage["name"] != "geometry") <= MOST
    assert len({stage["name"] for stage in recommended}) == len(recommended)
    by = {stage["name"]: stage["metric"] for stage in recommended}
    held_out = metric if metric in ("heldout", "counts") else "heldout"
    assert (by["slices"], by["modes"], by["pixel size"], by["rates"]) == (held_out,) * 4
    assert by["geometry"] == "loss"
    assert ("refine" in by) == (metric in ("contrast", "sharpness"))


def test_the_contrast_refines_what_was_found() -> None:
    """About the best values, from the reconstruction, without a pruner: it does not get better steadily."""
    *_, last = recommend(CONFIG, RANGES, "contrast")
    assert (last["metric"], last["start_from"], last["pruner"]) == ("contrast", "best", None)
    assert all(around["around"] == "best" for around in last["tune"].values())


def test_ranges_about_the_best() -> None:
    """A range without steps gets some; what has no order keeps its own."""
    ranges = {**RANGES, "scale": FloatRange(0.8, 1.2), "rotation": Choice((0.0, 90.0))}
    whole = next(stage for stage in recommend(LARGE, ranges, "loss") if stage["name"] == "whole scan")
    assert whole["tune"]["scale"] == {"around": "best", "within": "1 step", "step": 0.01}
    assert whole["tune"]["rotation"] is None
    assert whole["tune"]["dz"] == {"around": "best", "within": "1 step"}


def test_cheap_looks_are_followed_by_the_picture() -> None:
    """Where the file's trials are no longer than these, they are the picture already."""
    stages = recommend(CONFIG, RANGES, "loss")
    assert recommend_final(CONFIG, stages) == {"iterations": 200}
    short = {"recon_params": {"NITER": 12}}
    stages = recommend(short, RANGES, "loss")
    assert {stage["iterations"] for stage in stages} == {12}
    assert recommend_final(short, stages) is None


@pytest.mark.parametrize(
    ("total", "weights", "shares"),
    [(10, [1, 1], [5, 5]), (7, [2, 1], [5, 2]), (1, [1, 1, 1], [1, 0, 0]), (0, [3, 4], [0, 0])],
)
def test_trials_are_shared_out(total: int, weights: list[int], shares: list[int]) -> None:
    """All of them, in proportion."""
    assert share_out(total, weights) == shares
