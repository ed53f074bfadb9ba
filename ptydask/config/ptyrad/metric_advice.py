"""Whether the metric of a study can tell what is tuned: lines for its plan, and what is refused. Pure.

The reasons, and the evidence for them, are in docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ptydask.errors import ConfigError
from ptydask.space.metrics import METRICS
from ptydask.space.tunables import DIFFERENTIABLE

FITS = ("loss", "data_loss")
"""Misfits to the data that the reconstruction sees: they fall with every freedom that it gets."""
FREEDOMS = {"Nlayer": "slice", "pmode_max": "mode"}
RESCALED = ("dx", "batch_size")
"""Tuned values with which the loss's own scale changes."""
UNSTEADY = ("contrast", "robust_contrast", "entropy", "total_variation", "position_drift")
"""Metrics that may get worse while the reconstruction gets better, so that a pruner is wrong about them."""
MISLEADING = {
    "entropy": "the emptier the object is",
    "total_variation": "the smoother the object is",
    "heldout_amplitude": "with few electrons the weaker and smoother the object is",
}
"""Metrics that reward something else than agreement with the specimen, and when they get better."""
_SHIFTS = "model_params.update_params.probe_pos_shifts"


def advise(metric: str, tuned: Collection[str], config: Mapping[str, Any], *, pruner: str) -> tuple[str, ...]:
    """Notices for a study of the parameters ``tuned``: what its ``metric`` gets wrong, and which one would not.

    ``config`` is the complete params file, ``pruner`` the key that has the pruner, empty where there is none. A metric
    of the user's own is not judged.
    """
    notices = []
    if metric in FITS:
        notices += _advise_fit(metric, tuned, config)
    if pruner and metric in UNSTEADY:
        notices.append(
            f"{metric} does not get better steadily with iterations, so that the pruner may end good trials; "
            f"{pruner}: null tunes it without"
        )
    if metric in MISLEADING:
        notices.append(
            f"{metric} gets better {MISLEADING[metric]}, right or not, and is for looking at; --metric heldout, or "
            "counts for counted electrons, scores by data"
        )
    if metric == "position_drift" and "slr" in tuned:
        notices.append("slr: position_drift is least where positions hardly move, right or not")
    kind = METRICS[metric].held_out if metric in METRICS else ""
    sloped = [name for name in tuned if name in DIFFERENTIABLE]
    if kind and sloped and len(sloped) == len(tuned):
        notices.append(f"{', '.join(sloped)}: the slopes are those of loss, which suits them; {metric} has none")
    return tuple(notices)


def _advise_fit(metric: str, tuned: Collection[str], config: Mapping[str, Any]) -> list[str]:
    notices = []
    freedoms = [name for name in tuned if name in FREEDOMS]
    if freedoms:
        words = " and ".join(FREEDOMS[name] for name in freedoms)
        notices.append(
            f"{', '.join(freedoms)}: {metric} falls with every {words} more, right or not; --metric heldout, or counts "
            "for counted electrons, scores by data that were not fitted"
        )
    rescaled = [name for name in tuned if name in RESCALED]
    if rescaled:
        them = "it" if len(rescaled) == 1 else "them"
        notices.append(
            f"{', '.join(rescaled)}: the scale of {metric} itself changes with {them}, so that its values do not quite "
            "compare; --metric heldout scores all trials alike"
        )
    terms = config.get("loss_params") or {}
    active = [name for name in ("loss_sparse", "loss_simlar") if (terms.get(name) or {}).get("state")]
    if active and metric == "loss":
        notices.append(
            f"{', '.join(active)}: loss has the regularisation in it, so that less of it wins whatever the data say; "
            "--metric data_loss leaves it out"
        )
    return notices


def check_idle_metric(metric: str, tuned: Collection[str], config: Mapping[str, Any]) -> None:
    """Raises ConfigError for a metric that would be the same in every trial."""
    update = config["model_params"]["update_params"]["probe_pos_shifts"]
    if metric == "position_drift" and (update["start_iter"] is None or not (update["lr"] or "slr" in tuned)):
        rule = "is 0 in every trial, as the positions are not refined"
        hint = f"set start_iter and lr of {_SHIFTS}, or tune another metric"
        raise ConfigError(rule, key="ptydask.error_metric", value=metric, hint=hint)
