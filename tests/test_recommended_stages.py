"""Which stages are recommended: PtyRAD's order, of what the file tunes and of nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from ptydask.config.ptyrad.recommended_stages import recommend, recommend_final
from ptydask.config.ptyrad.stage_list import share_out
from ptydask.model import Choice, Distribution, FloatRange, IntRange
from ptydask.space.tunables import PARAMETERS
from ptydask.space.tuning_order import MOST

CONFIG: dict[str, Any] = {"recon_params": {"NITER": 200}}
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


def test_geometry_is_in_ptyrads_order() -> None:
    """Slice thickness, scale with rotation, the whole affine, the tilts; by the loss."""
    assert names("tilt_x", "asymmetry", "rotation", "dz", "scale", "tilt_y") == [
        ("thickness", ["dz"], "loss"),
        ("scan", ["scale", "rotation"], "loss"),
        ("affine", ["scale", "asymmetry", "rotation"], "loss"),
        ("tilts", ["tilt_y", "tilt_x"], "loss"),
    ]


@pytest.mark.parametrize(
    ("tuned", "stages"),
    [
        ((), []),
        (("scale", "rotation"), ["scan"]),
        (("scale",), ["scan"]),
        (("asymmetry", "shear"), ["affine"]),
        (("rotation", "shear"), ["scan", "affine"]),
        (("dz", "C10", "C12a", "C12b", "conv_angle"), ["probe", "thickness"]),
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
    """No more than four at a time, each name once, and what the loss cannot tell is scored by data not fitted."""
    recommended = recommend(CONFIG, RANGES, metric)
    assert max(len(stage["tune"]) for stage in recommended) <= MOST
    assert len({stage["name"] for stage in recommended}) == len(recommended)
    by = {stage["name"]: stage["metric"] for stage in recommended}
    held_out = metric if metric in ("heldout", "counts") else "heldout"
    assert (by["slices"], by["modes"], by["pixel size"], by["rates"]) == (held_out,) * 4
    assert by["scan"] == by["tilts"] == "loss"
    assert ("refine" in by) == (metric in ("contrast", "sharpness"))


def test_the_contrast_refines_what_was_found() -> None:
    """About the best values, from the reconstruction, without a pruner: it does not get better steadily."""
    *_, last = recommend(CONFIG, RANGES, "contrast")
    assert (last["metric"], last["start_from"], last["pruner"]) == ("contrast", "best", None)
    assert all(around["around"] == "best" for around in last["tune"].values())


def test_ranges_about_the_best() -> None:
    """Of what the stage before tuned; a range without steps gets some."""
    affine = next(stage for stage in recommend(CONFIG, RANGES, "loss") if stage["name"] == "affine")
    assert affine["tune"] == {
        "scale": {"around": "best", "within": "3 steps"},
        "asymmetry": None,
        "rotation": {"around": "best", "within": "3 steps"},
        "shear": None,
    }
    ranges = {**RANGES, "scale": FloatRange(0.8, 1.2), "rotation": Choice((0.0, 90.0))}
    affine = next(stage for stage in recommend(CONFIG, ranges, "loss") if stage["name"] == "affine")
    assert affine["tune"]["scale"] == {"around": "best", "within": "3 steps", "step": 0.01}
    assert affine["tune"]["rotation"] is None


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
