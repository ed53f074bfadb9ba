"""Lists of stages to be compared, as a file would have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptydask.model import StudyPlan

QUARTER: Mapping[str, Any] = {"scan": {"every": 2}}
NAMES = ("scale", "asymmetry", "rotation", "tilt_y", "tilt_x", "dz")
AFFINE = ("scale", "asymmetry", "rotation", "shear")
TILTS = ("tilt_y", "tilt_x")


def all_of(names: Sequence[str]) -> dict[str, None]:
    return dict.fromkeys(names)


def near(names: Sequence[str], steps: int = 2) -> dict[str, Any]:
    return {name: {"around": "best", "within": f"{steps} steps"} for name in names}


SETTLED = {"stop_when": "settled"}
ORDER = (("dz",), ("scale", "rotation"), ("scale", "asymmetry", "rotation"), TILTS)

LISTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "flat": [{**SETTLED, "trials": 24}],
    "flat, cut": [{"stop_when": "there", "trials": 24}],  # the benchmark's own: no further than the truth
    # PtyRAD's order: each step by itself, on the whole scan.
    "order": [{"tune": all_of(names), "trials": 8, **SETTLED} for names in ORDER],
    # The same on every second position, in smaller batches, and all of it near there in the end.
    "order-quarter": [
        *(
            {"tune": all_of(names), "trials": 8, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12}
            for names in ORDER
        ),
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    "reverse-quarter": [
        *(
            {"tune": all_of(names), "trials": 8, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12}
            for names in (("scale", "asymmetry", "rotation"), TILTS, ("dz",))
        ),
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    # Everything at once on every second position, then near there on the whole scan.
    "quarter-30": [
        {"tune": all_of(NAMES), "trials": 16, **SETTLED, **QUARTER, "iterations": 30},
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    "quarter-15": [
        {"tune": all_of(NAMES), "trials": 16, **SETTLED, **QUARTER, "iterations": 15},
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    **{
        f"quarter-batch, {called}": [
            {"tune": all_of(NAMES), "trials": 16, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12},
            *last,
        ]
        for called, last in {
            "alone": [],
            "1 step, 4": [{"tune": near(NAMES, 1), "trials": 4, **SETTLED}],
            "2 steps, 4": [{"tune": near(NAMES), "trials": 4, **SETTLED}],
            "1 step, no gain": [{"tune": near(NAMES, 1), "trials": 8, "stop_when": {"gain": "1 %", "trials": 2}}],
            "batch_size": [{"tune": near(NAMES, 1), "trials": 4, **SETTLED, "batch_size": 8, "iterations": 10}],
        }.items()
    },
    "quarter-batch": [
        {"tune": all_of(NAMES), "trials": 16, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12},
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    "quarter-batch-20": [
        {"tune": all_of(NAMES), "trials": 16, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 20},
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    "center-batch": [
        {"tune": all_of(NAMES), "trials": 16, **SETTLED, "scan": {"center": 12}, "batch_size": 8, "iterations": 12},
        {"tune": near(NAMES), "trials": 8, **SETTLED},
    ],
    # Where two parameters have no slopes (noisy6): with the geometry, or after it.
    "together": [
        {"trials": 18, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12},
        {"tune": near(AFFINE, 1), "trials": 4, "batch_size": 8, "iterations": 12},
    ],
    "probe with geometry": [
        {"tune": all_of((*AFFINE, "C10")), "trials": 18, **SETTLED, **QUARTER, "batch_size": 8, "iterations": 12},
        {"tune": all_of(("oplr",)), "trials": 20, "stop_when": {"gain": "1 %", "trials": 8}},
        {"tune": near(AFFINE, 1), "trials": 4, "batch_size": 8, "iterations": 12},
    ],
    "flat-batch, cut": [{"stop_when": "there", "trials": 24, "batch_size": 8, "iterations": 12}],
    "flat-batch": [{**SETTLED, "trials": 24, "batch_size": 8, "iterations": 10}],
}


def recommended(plan: StudyPlan) -> Sequence[Mapping[str, Any]]:
    """What ``stages: recommended`` makes of a plan."""
    from ptydask.config.ptyrad.recommended_stages import recommend

    return recommend(plan.config, plan.space, plan.metric)
