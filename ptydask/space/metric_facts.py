"""What a table needs to know of PtyRAD's metrics: their units, and which have a column only when asked for.

Pure, standard library only: the engine, the store, tables and figures have it from here.
"""

from __future__ import annotations

_UNITS = {"entropy": "bit", "total_variation": "1/angstrom", "position_drift": "angstrom"}
_ANGSTROM = {"angstrom": 1.0, "m": 1e10}
_MINOR = ("data_loss", "robust_contrast", "entropy", "total_variation", "position_drift", "heldout_amplitude")


def metric_unit(name: str, engine: str) -> str:
    """The unit of a metric of PtyRAD's trials; "" for a mere number, and for what another engine reports."""
    return _UNITS.get(name, "") if engine == "ptyrad" else ""


def is_minor(name: str, engine: str) -> bool:
    """Whether a table for people leaves it out at first: a trial of PtyRAD has more metrics than there is room for."""
    return engine == "ptyrad" and name in _MINOR


def to_angstrom(length: float, unit: str) -> float:
    """A length of a reconstruction (``m`` of X-rays, else ``angstrom``) in the unit that metrics have it in."""
    return length * _ANGSTROM[unit]
