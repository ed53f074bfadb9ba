"""The stages that are recommended for what a params file tunes, as the file itself would have them. Pure.

The order is PtyRAD's (:mod:`ptydask.space.tuning_order`): slice thickness, scale with rotation, the whole scan affine,
tilts, no more than four parameters at once; loss for the rough search, then the contrast, where that is what is tuned,
with object, probe and positions loaded. What PtyRAD's order leaves out: pixel size and probe come first, as a wrong
defocus spoils everything after it; slices and modes come after the geometry, learning rates last. What the loss cannot
tell (docs/metrics.md) is scored by held-out data.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ptydask.config.ptyrad.metric_advice import FITS, FREEDOMS, RESCALED
from ptydask.model import Distribution, FloatRange, IntRange
from ptydask.space.metrics import METRICS
from ptydask.space.reshaping import step_near
from ptydask.space.tunables import AFFINE, DIFFERENTIABLE, PARAMETERS, TENSORS, TILTS, TUNABLES
from ptydask.space.tuning_order import MOST, STEPS

ITERATIONS = 20
"""Enough to rank trials by."""
_WITHIN = "3 steps"
_RATES = ("optimizer", "batch_size", *TENSORS)
_REFINED = ("dz", *TILTS, "scale", "rotation", "asymmetry", "shear")
"""What the contrast refines, the first four of them: the probe is loaded then."""


def recommend(config: Mapping[str, Any], tuned: Mapping[str, Distribution], metric: str) -> list[dict[str, Any]]:
    """The list ``stages`` for a file with the sections ``config``, which tunes ``tuned`` by ``metric``.

    ``tuned`` are the ranges by parameter. Nothing else is tuned, and all of it is; empty where that is nothing.
    """
    names = list(dict.fromkeys(PARAMETERS[name].name for name in tuned))
    known = METRICS.get(metric)
    scored = metric if known is not None and known.held_out else "heldout"
    iterations = min(ITERATIONS, (config.get("recon_params") or {}).get("NITER") or ITERATIONS)
    stages: list[dict[str, Any]] = []

    def add(name: str, tune: Collection[str] | Mapping[str, Any], by: str = "loss", **keys: Any) -> None:
        if tune:
            values = dict(tune) if isinstance(tune, Mapping) else list(tune)
            stage = {"name": name, "tune": values, "trials": _count_trials(tune, tuned), "metric": by}
            stages.append({**stage, "iterations": iterations, **keys})

    def add_in_parts(name: str, tune: list[str], by: str) -> None:
        for place, part in enumerate(parts := [tune[i : i + MOST] for i in range(0, len(tune), MOST)]):
            rescaled = any(other in RESCALED for other in part)
            add(name if len(parts) == 1 else f"{name} {place + 1}", part, scored if rescaled else by)

    scan, affine = ([name for name in group if name in names] for group in (STEPS[1], AFFINE))
    rates = [name for name in names if name in _RATES]
    elsewhere = ("dx", *rates, *FREEDOMS, "dz", *AFFINE, *TILTS)
    add("pixel size", [name for name in names if name == "dx"], scored)
    add_in_parts("probe", [name for name in names if name not in elsewhere], "loss")
    add("thickness", [name for name in names if name == "dz"])
    add("scan", scan)
    if len(affine) > len(scan):
        add("affine", {name: _near_best(tuned[name]) if name in scan else None for name in affine})
    add("tilts", [name for name in TILTS if name in names])
    for freedom, word in FREEDOMS.items():
        add(f"{word}s", [name for name in names if name == freedom], scored)
    add_in_parts("rates", rates, metric if metric in FITS else scored if metric == scored else "loss")
    refined = {name: near for name in _REFINED if name in names and (near := _near_best(tuned[name]))}
    if metric not in FITS and metric != scored:
        add("refine", dict(list(refined.items())[:MOST]), metric, pruner=None, start_from="best")
    return stages


def recommend_final(config: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The key ``final`` beside them: as many iterations as the file has, where the stages have fewer."""
    iterations = (config.get("recon_params") or {}).get("NITER") or 200
    cheaper = any(stage.get("scan") or stage.get("pixels") or stage["iterations"] < iterations for stage in stages)
    return {"iterations": iterations} if cheaper else None


def _near_best(dist: Distribution) -> dict[str, Any] | None:
    """A range about the best value; None, the file's own, where steps cannot be counted."""
    if not isinstance(dist, FloatRange | IntRange) or dist.log or dist.low == dist.high:
        return None
    near: dict[str, Any] = {"around": "best", "within": _WITHIN}
    return near if dist.step else {**near, "step": step_near((dist.high - dist.low) / 40)}


def _count_trials(names: Collection[str], tuned: Mapping[str, Distribution]) -> int:
    """With slopes a trial tells as many numbers as there are parameters, and one; without them one."""
    parameters = [parameter for name in names for parameter in TUNABLES[name].parameters if parameter in tuned]
    return (6 + 2 * len(parameters)) if set(parameters) <= set(DIFFERENTIABLE) else (10 + 10 * len(parameters))
