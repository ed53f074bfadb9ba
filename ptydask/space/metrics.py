"""The metrics of a PtyRAD reconstruction by name: which way is better, its unit, what it must not see.

Formats, the engine, the store, tables and figures have it from here; docs/metrics.md says what each is. Pure, standard
library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ptydask.model import Direction


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a reconstruction."""

    direction: Direction
    unit: str = ""
    minor: bool = False
    """Whether tables for people leave it out at first: a trial has more metrics than there is room for."""
    held_out: Literal["", "positions", "counts"] = ""
    """What the reconstruction must not see, so that the metric can be computed."""


METRICS: Mapping[str, Metric] = {
    "loss": Metric("minimize"),
    "data_loss": Metric("minimize", minor=True),
    "contrast": Metric("maximize"),
    "robust_contrast": Metric("maximize", minor=True),
    "entropy": Metric("minimize", "bit", minor=True),
    "total_variation": Metric("minimize", "1/angstrom", minor=True),
    "position_drift": Metric("minimize", "angstrom", minor=True),
    "heldout": Metric("minimize", held_out="positions"),
    "heldout_amplitude": Metric("minimize", minor=True, held_out="positions"),
    "counts": Metric("minimize", held_out="counts"),
}
HELD_OUT_SHARES = (0.005, 0.5)
"""The least and the largest share of the data that may be held out."""
OF_PTYRAD = ("loss", "contrast")
"""What PtyRAD itself can tune by: the values of ``hypertune_params.error_metric``."""
_ANGSTROM = {"angstrom": 1.0, "m": 1e10}


def metrics_of(engine: str) -> Mapping[str, Metric]:
    """What is known of the metrics of an engine's trials: of PtyRAD's alone, others report what they like."""
    return METRICS if engine == "ptyrad" else {}


def metric_unit(name: str, engine: str) -> str:
    """The unit of a metric; "" for a mere number, and where nothing is known of it."""
    metric = metrics_of(engine).get(name)
    return "" if metric is None else metric.unit


def is_minor(name: str, engine: str) -> bool:
    """See :attr:`Metric.minor`."""
    metric = metrics_of(engine).get(name)
    return metric is not None and metric.minor


def to_angstrom(length: float, unit: str) -> float:
    """A length of a reconstruction (``m`` of X-rays, else ``angstrom``) in the unit that metrics have it in."""
    return length * _ANGSTROM[unit]
