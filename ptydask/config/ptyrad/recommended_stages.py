"""The stages that are recommended for what a params file tunes, as the file itself would have them. Pure.

The order is PtyRAD's (:mod:`ptydask.space.tuning_order`): slice thickness, scale with rotation, the whole scan affine,
tilts, no more than four parameters at once; loss for the rough search, and what somebody wants tuned by the contrast
last, with object, probe and positions loaded. What PtyRAD's order leaves out: the probe comes first, as a wrong defocus
spoils everything after it, slices and modes come after the geometry and are chosen by held-out data (docs/metrics.md),
learning rates last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ptydask.model import Distribution, FloatRange, IntRange
from ptydask.space.metrics import METRICS
from ptydask.space.reshaping import step_near
from ptydask.space.tunables import AFFINE, DIFFERENTIABLE, PARAMETERS, TENSORS, TILTS, TUNABLES
from ptydask.space.tuning_order import MOST

ITERATIONS = 20
"""Enough to rank trials by."""
_WITHIN = "3 steps"
_FREEDOMS = {"Nlayer": "slices", "pmode_max": "modes"}
_RATES = ("optimizer", "batch_size", *TENSORS)
_REFINED = ("dz", *TILTS, "scale", "rotation", "asymmetry", "shear")
"""What the contrast refines, the first four of them: the probe is loaded then."""


def recommend(config: Mapping[str, Any], tuned: Mapping[str, Distribution], metric: str) -> list[dict[str, Any]]:
    """The list ``stages`` for a file with the sections ``config``, which tunes ``tuned`` by ``metric``.

    ``tuned`` are the ranges by parameter. Nothing else is tuned, and all of it is; empty where that is nothing.
    """
    names = list(dict.fromkeys(PARAMETERS[name].name for name in tuned))
    known = METRICS.get(metric)
    held_out = known is not None and bool(known.held_out)
    fit = metric if metric in ("loss", "data_loss") or held_out else "loss"
    iterations = min(ITERATIONS, (config.get("recon_params") or {}).get("NITER") or ITERATIONS)
    stages: list[dict[str, Any]] = []

    def add(name: str, tune: Sequence[str] | Mapping[str, Any], by: str, **keys: Any) -> None:
        if tune:
            values = tune if isinstance(tune, Mapping) else list(tune)
            stage = {"name": name, "tune": values, "trials": _count_trials(list(tune), tuned), "metric": by}
            stages.append({**stage, "iterations": iterations, **keys})

    geometry = ("dz", *AFFINE, *TILTS)
    probe = [name for name in names if name not in (*geometry, *_FREEDOMS, *_RATES)]
    for part in _parts(probe):
        add(_number("probe", part, probe), part, fit)
    add("thickness", [name for name in names if name == "dz"], fit)
    scan = [name for name in ("scale", "rotation") if name in names]
    add("scan", scan, fit)
    affine = [name for name in AFFINE if name in names]
    if affine != [name for name in AFFINE if name in scan]:
        add("affine", {name: _near_best(name, tuned) if name in scan else None for name in affine}, fit)
    add("tilts", [name for name in TILTS if name in names], fit)
    for freedom, name in _FREEDOMS.items():
        add(name, [freedom] if freedom in names else [], metric if held_out else "heldout")
    rates = [name for name in names if name in _RATES]
    for part in _parts(rates):
        add(_number("rates", part, rates), part, fit)
    if fit != metric and stages:
        refined = [name for name in _REFINED if name in names][:MOST]
        near = {name: _near_best(name, tuned) for name in refined if _near_best(name, tuned)}
        add("refine", near, metric, pruner=None, start_from="best")
    return stages


def recommend_final(config: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The key ``final`` beside them: as many iterations as the file has, where the stages have fewer."""
    iterations = (config.get("recon_params") or {}).get("NITER") or 200
    cheaper = any(stage.get("scan") or stage.get("pixels") or stage["iterations"] < iterations for stage in stages)
    return {"iterations": iterations} if cheaper else None


def _parts(names: list[str]) -> list[list[str]]:
    return [names[start : start + MOST] for start in range(0, len(names), MOST)]


def _number(name: str, part: list[str], names: list[str]) -> str:
    """``probe``, or ``probe 2`` where there are several."""
    return name if len(names) <= MOST else f"{name} {names.index(part[0]) // MOST + 1}"


def _near_best(name: str, tuned: Mapping[str, Distribution]) -> dict[str, Any] | None:
    """A range about the best value; None, the file's own, where steps cannot be counted."""
    dist = tuned[name]
    if not isinstance(dist, FloatRange | IntRange) or dist.log or dist.low == dist.high:
        return None
    near: dict[str, Any] = {"around": "best", "within": _WITHIN}
    return near if dist.step else {**near, "step": step_near((dist.high - dist.low) / 40)}


def _count_trials(names: list[str], tuned: Mapping[str, Distribution]) -> int:
    """With slopes a trial tells as many numbers as there are parameters, and one; without them one."""
    parameters = [parameter for name in names for parameter in TUNABLES[name].parameters if parameter in tuned]
    if all(parameter in DIFFERENTIABLE for parameter in parameters):
        return 6 + 2 * len(parameters)
    return 10 + 10 * len(parameters)
