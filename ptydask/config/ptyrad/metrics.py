"""The metrics of a PtyRAD reconstruction by name: which way is better, and what each says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ptydask.model import Direction


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a reconstruction."""

    direction: Direction
    meaning: str
    held_out: Literal["", "positions", "counts"] = ""
    """What the reconstruction must not see, so that the metric can be computed."""


METRICS: Mapping[str, Metric] = {
    "loss": Metric("minimize", "PtyRAD's loss, terms of regularisation included"),
    "data_loss": Metric("minimize", "the part of PtyRAD's loss that compares patterns, without regularisation"),
    "contrast": Metric("maximize", "standard deviation over mean of the projected phase, as PtyRAD has it"),
    "robust_contrast": Metric("maximize", "contrast over a low percentile in place of the least pixel"),
    "entropy": Metric("minimize", "entropy of the projected phase's values"),
    "total_variation": Metric("minimize", "mean gradient of the projected phase over its standard deviation"),
    "position_drift": Metric("minimize", "how far the positions moved from where they began"),
    "heldout": Metric("minimize", "deviance at scan positions that the reconstruction did not see", "positions"),
    "heldout_amplitude": Metric("minimize", "misfit of amplitudes at scan positions that it did not see", "positions"),
    "counts": Metric("minimize", "misfit to electrons that the reconstruction did not see", "counts"),
}
OF_PTYRAD = ("loss", "contrast")
"""What PtyRAD itself can tune by: the values of ``hypertune_params.error_metric``."""
