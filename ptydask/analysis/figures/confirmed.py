"""Trials that were confirmed with other seeds: their mean and how far it is known, for the figures that show it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.model import Direction, TrialRecord

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ConfirmedErrors:
    """Confirmed trials by number: ``numbers``, ``means`` and ``deviations`` of the tuned metric over the seeds, (N,).

    A trial with one repeat has no deviation: NaN.
    """

    records: tuple[TrialRecord, ...]
    numbers: NDArray[np.int64]
    means: Array
    deviations: Array

    def __len__(self) -> int:
        return len(self.records)


def confirmed_errors(data: StudyData) -> ConfirmedErrors:
    """The trials of the study that have a finite mean over other seeds; none where nothing was confirmed."""
    rows: list[tuple[TrialRecord, float, float]] = []
    if data.confirmation is not None:
        wanted = set(data.confirmation.trials)
        for record in data.records:
            known = data.confirmation.mean_sd(record.number) if record.number in wanted else None
            if known is not None and math.isfinite(known[0]):
                mean, deviation, repeats = known
                rows.append((record, mean, deviation if repeats > 1 else math.nan))
    return ConfirmedErrors(
        tuple(record for record, _, _ in rows),
        np.array([record.number for record, _, _ in rows], dtype=np.int64),
        np.array([mean for _, mean, _ in rows], dtype=float),
        np.array([deviation for _, _, deviation in rows], dtype=float),
    )


def draw_error_bars(
    axes: Axes, x: Array, confirmed: ConfirmedErrors, limits: scales.AxisLimits, link: Any, label: str | None = None
) -> None:
    """A square at each confirmed trial's mean, its bar one standard deviation to either side.

    ``x`` (N,) is where each lies; NaN leaves it out. What is beyond the limits ends at the edge.
    """
    shown = ~np.isnan(x)
    if not shown.any():
        return
    means, spread = confirmed.means[shown], np.nan_to_num(confirmed.deviations[shown])
    low, high = limits.clipped(means - spread), limits.clipped(means + spread)
    means = limits.clipped(means)
    bars = axes.errorbar(x[shown], means, (means - low, high - means), fmt="none", ecolor=style.INK, capsize=2.5)
    for part in bars.get_children():
        part.set_zorder(6)
    style.scatter_points(
        axes,
        x[shown],
        means,
        trials.urls(confirmed.numbers[shown], link),
        s=11,
        marker="s",
        facecolors="white",
        edgecolors=style.INK,
        linewidths=1.0,
        zorder=7,
        label=label,
    )


def remark(confirmed: ConfirmedErrors) -> str:
    """What the squares are, in words; "" without any."""
    if not len(confirmed):
        return ""
    return "squares: mean \N{PLUS-MINUS SIGN} standard deviation with other seeds"


def error_limits(errors: Array, confirmed: ConfirmedErrors, direction: Direction) -> scales.AxisLimits:
    """Limits for the trials' errors that hold the error bars as well, but for those that reach into another world."""
    away = np.nan_to_num(confirmed.deviations) * (1.0 if direction == "minimize" else -1.0)
    worse = confirmed.means + away
    near = ~scales.robust_limits([*errors, *worse], direction).outside(worse)
    ends = np.concatenate([worse[near], (confirmed.means - away)[near]])
    return scales.robust_limits(errors, direction, more=ends)
