"""Parameters that do nothing in some trials, because of another one: dz where the object has one slice."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ptydask.distributions import Distribution
from ptydask.model import Scalar
from ptydask.space import ranges, tunables

_MOST_VALUES = 100
"""Values of the other parameter that are looked at; no range of PtyRAD's with more of them switches anything off."""


@dataclass(frozen=True, slots=True)
class Inactivity:
    """``names`` do nothing in trials in which ``under`` has one of ``values``."""

    names: tuple[str, ...]
    under: str
    values: tuple[Scalar, ...]
    reason: str

    @property
    def text(self) -> str:
        """``dz, tilt_x where Nlayer is 1: one slice (obj_Nlayer = 1) is never propagated through``."""
        return f"{', '.join(self.names)} where {self.under} is {' or '.join(map(str, self.values))}: {self.reason}"


def conditional_inactivity(params: Mapping[str, Any], space: Mapping[str, Distribution]) -> tuple[Inactivity, ...]:
    """What does nothing in some trials of a study of PtyRAD, and under which values of which other parameter.

    ``params`` has PtyRAD's defaults filled in, ``space`` PtyRAD's parameters alone. What does nothing in any trial is
    not among it: see :func:`ptydask.space.tunables.ineffective_reason`.
    """
    always = dict(_reasons(params, space, space))
    values: dict[tuple[str, str, str], list[Scalar]] = {}
    for under, dist in space.items():
        others = [name for name in space if name != under]
        for value in _few_values(dist):
            for name, reason in _reasons(tunables.apply(params, {under: value}), others, others):
                if name not in always:
                    values.setdefault((under, name, reason), []).append(value)
    names: dict[tuple[str, tuple[Scalar, ...], str], list[str]] = {}
    for (under, name, reason), where in values.items():
        names.setdefault((under, tuple(where), reason), []).append(name)
    return tuple(Inactivity(tuple(which), under, where, why) for (under, where, why), which in names.items())


def inactive_parameters(params: Mapping[str, Any], values: Mapping[str, Scalar]) -> dict[str, str]:
    """Which tuned parameters did nothing in a trial with these ``values``, and why; ``params`` as above.

    Names that PtyRAD does not have are left out.
    """
    known = {name: value for name, value in values.items() if name in tunables.PARAMETERS}
    return dict(_reasons(tunables.apply(params, known), known, ()))


def _few_values(dist: Distribution) -> tuple[Scalar, ...]:
    size = ranges.grid_size(dist)
    return (ranges.grid(dist) or ()) if size is not None and 1 < size <= _MOST_VALUES else ()


def _reasons(params: Mapping[str, Any], names: Collection[str], varied: Collection[str]) -> Iterator[tuple[str, str]]:
    """Those of ``names`` that do nothing with ``params`` while ``varied`` vary; what to do about it is left out."""
    tuned = {tunables.PARAMETERS[name].name for name in varied}
    for name in names:
        reason = tunables.ineffective_reason(params, tunables.PARAMETERS[name].name, tuned)
        if reason is not None:
            yield name, reason.rpartition("; ")[0] or reason
