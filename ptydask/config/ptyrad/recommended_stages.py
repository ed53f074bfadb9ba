"""The stages that are recommended for what a params file tunes, as the file itself would have them. Pure.

The geometry comes first, all of it at once: slopes lead, and a quarter of the scan tells them as well as the whole does
where its batches are smaller by as much, so that an iteration makes as many steps. A few trials on the whole scan look
at what was found (docs/stages.md: what was measured). What has no slopes follows, no more than four at a time, each by
a metric that can tell it (docs/metrics.md); the contrast, where that is what is tuned, comes last, with object, probe
and positions loaded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ptydask.config.ptyrad.metric_advice import FITS, FREEDOMS, RESCALED
from ptydask.config.ptyrad.stage_config import scan_shape
from ptydask.distributions import Distribution, FloatRange, IntRange
from ptydask.space import tunables
from ptydask.space.metrics import METRICS
from ptydask.space.reshaping import step_near
from ptydask.space.tunables import DIFFERENTIABLE, PARAMETERS, TENSORS, TILTS, TUNABLES
from ptydask.space.tuning_order import MOST

ITERATIONS = 20
"""Enough to rank trials by."""
_SMALLEST = 24
"""Positions along either side of a scan of which a quarter is enough."""
_OVERLAP = 0.5
"""Of the probe's diameter, the way from one position of a quarter to the next at most."""
_SHARE, _FEWEST = 0.75, 12
"""Of the file's iterations, and how many at least, of the trials of a quarter: those are nearer to rest."""
SMALLEST_BATCH = 4
"""Patterns in a batch, at least."""
_LAST = 4
"""Trials on the whole scan."""
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
    whole = {"iterations": min(ITERATIONS, (config.get("recon_params") or {}).get("NITER") or ITERATIONS)}
    part, small_batches = _cheap_look(config)
    stages: list[dict[str, Any]] = []

    def add(name: str, tune: Collection[str] | Mapping[str, Any], by: str = "loss", **keys: Any) -> None:
        if tune:
            values = dict(tune) if isinstance(tune, Mapping) else list(tune)
            stages.append({"name": name, "tune": values, "trials": _count_trials(tune, tuned), "metric": by, **keys})

    def add_in_parts(name: str, tune: list[str], by: str, **keys: Any) -> None:
        for place, some in enumerate(parts := [tune[i : i + MOST] for i in range(0, len(tune), MOST)]):
            rescaled = any(other in RESCALED for other in some)
            add(name if len(parts) == 1 else f"{name} {place + 1}", some, scored if rescaled else by, **keys)

    rates = [name for name in names if name in _RATES]
    geometry = [name for name in DIFFERENTIABLE if name in names]
    add("pixel size", [name for name in names if name == "dx"], scored, **whole)
    add("geometry", geometry, **(part | small_batches or whole), stop_when="settled")
    if part:
        near = {name: _near_best(tuned[name], 1) for name in geometry}
        add("whole scan", near, **small_batches, stop_when=None, trials=_LAST)  # so few do not settle
    elsewhere = ("dx", *rates, *FREEDOMS, *geometry)
    add_in_parts("probe", [name for name in names if name not in elsewhere], "loss", **whole)
    for freedom, word in FREEDOMS.items():
        add(f"{word}s", [name for name in names if name == freedom], scored, **whole)
    add_in_parts("rates", rates, metric if metric in FITS else scored if metric == scored else "loss", **whole)
    refined = {name: around for name in _REFINED if name in names and (around := _near_best(tuned[name], 3))}
    if metric not in FITS and metric != scored:
        add("refine", dict(list(refined.items())[:MOST]), metric, **whole, pruner=None, start_from="best")
    return stages


def recommend_final(config: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The key ``final`` beside them: as many iterations as the file has, where the stages have fewer."""
    iterations = (config.get("recon_params") or {}).get("NITER") or 200
    cheaper = any(stage.get("scan") or stage.get("pixels") or stage["iterations"] < iterations for stage in stages)
    return {"iterations": iterations} if cheaper else None


def _cheap_look(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part of the scan, and the iterations and batches of a stage that has it: a quarter of the file's patterns.

    No part where a quarter is too little, or the file itself chooses one.
    """
    init, recon = config.get("init_params") or {}, config.get("recon_params") or {}
    sides = scan_shape(init)
    chosen = (recon.get("INDICES_MODE") or {}).get("mode") or "full"
    if chosen != "full" or min(sides) < _SMALLEST:
        return {}, {}
    step, diameter = init.get("pos_scan_step_size"), _probe_diameter(config)
    sparse = bool(step and diameter and 2 * step > _OVERLAP * diameter)
    part: dict[str, Any] = {"scan": {"center": min(sides) // 2} if sparse else {"every": 2}}
    most = recon.get("NITER") or ITERATIONS
    keys = {"iterations": min(most, max(_FEWEST, min(round(_SHARE * most), ITERATIONS)))}
    size = (recon.get("BATCH_SIZE") or {}).get("size")
    if isinstance(size, int) and size > SMALLEST_BATCH:
        keys["batch_size"] = max(SMALLEST_BATCH, size // 4)
    return part, keys


def _probe_diameter(config: Mapping[str, Any]) -> float | None:
    """About, in angstrom: the shadow of the aperture at the defocus, and the Airy disk. None for X-rays."""
    init = config.get("init_params") or {}
    kilovolts, angle = init.get("probe_kv"), init.get("probe_conv_angle")
    if not kilovolts or not angle or init.get("probe_illum_type", "electron") != "electron":
        return None
    defocus = float(str(tunables.current_value(config, "C10") or 0.0))
    return 2e-3 * abs(defocus) * float(angle) + 1.22e3 * tunables.wavelength(kilovolts) / float(angle)


def _near_best(dist: Distribution, steps: int) -> dict[str, Any] | None:
    """A range about the best value; None, the file's own, where steps cannot be counted."""
    if not isinstance(dist, FloatRange | IntRange) or dist.log or dist.low == dist.high:
        return None
    near: dict[str, Any] = {"around": "best", "within": "1 step" if steps == 1 else f"{steps} steps"}
    return near if dist.step else {**near, "step": step_near((dist.high - dist.low) / 40)}


def _count_trials(names: Collection[str], tuned: Mapping[str, Distribution]) -> int:
    """With slopes a trial tells as many numbers as there are parameters, and one; without them one."""
    parameters = [parameter for name in names for parameter in TUNABLES[name].parameters if parameter in tuned]
    return (6 + 2 * len(parameters)) if set(parameters) <= set(DIFFERENTIABLE) else (10 + 10 * len(parameters))
