"""``frc``: up to which spatial frequency two reconstructions agree that have half of the data each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.analysis.fourier_ring import FourierRing

_COLOURS = (style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.INK)


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if not data.records:
        return "No trial has ended so far."
    if data.confirmation is None:
        return (
            "No trial was confirmed: ptydask confirm FILE.h5 --frc reconstructs the best ones from halves of the data."
        )
    if not rings_in_order(data):
        return "The trials were confirmed without halves of the data: ptydask confirm FILE.h5 --frc adds them."
    return None


def draw(data: StudyData, _parameters: Sequence[str] | None, _link: Any) -> Figure:
    """A line a trial, best first, with a dot where it falls below the half-bit line, which is dashed."""
    title = f"{trials.study_title(data)} \N{EN DASH} Fourier ring correlation of two halves of the data"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    rings = rings_in_order(data)
    drawn = dict(zip(list(rings)[: len(_COLOURS)], _COLOURS, strict=False))
    figure = style.new_figure(6.8, 3.9, title)
    axes = figure.add_subplot()
    for number, colour in reversed(drawn.items()):  # the best on top
        _draw_ring(axes, rings[number], colour, f"trial {number}: {resolution_text(rings[number])}")
    handles = axes.get_legend_handles_labels()[0][::-1]
    handles += _draw_half_bit(axes, [rings[number] for number in drawn])
    _format_axes(axes, [rings[number] for number in drawn])
    style.legend(axes, handles=handles, entry=2.3)
    omitted = len(rings) - len(drawn)
    style.note(
        figure,
        [
            "dot: where it falls below the half-bit line; area: the mean of the curve",
            "both halves share what is wrong in the model: it measures consistency, not truth",
            f"{style.format_count(omitted, 'more trial')} not shown" if omitted else "",
        ],
    )
    return figure


def rings_in_order(data: StudyData) -> dict[int, FourierRing]:
    """Trial -> its ring, the best mean first; {} where nothing was confirmed from halves."""
    if data.confirmation is None:
        return {}
    rings = data.confirmation.frc
    return {number: rings[number] for number in data.confirmation.trials if number in rings}


def resolution_text(ring: FourierRing) -> str:
    """``0.82 Å, area 0.61``; ``better than 0.4 Å`` where the half-bit line is never crossed."""
    unit = scales.unit_symbol(ring.length_unit)
    never = "better than " if ring.crossing is None else ""
    return f"{never}{ring.resolution:.3g} {unit}, area {ring.area:.2f}"


def _draw_ring(axes: Axes, ring: FourierRing, colour: str, label: str) -> None:
    axes.plot(ring.spatial_frequency, ring.correlation, color=colour, linewidth=1.3, label=label)
    if ring.crossing is not None:
        height = np.interp(ring.crossing, ring.spatial_frequency, ring.half_bit)
        axes.plot([ring.crossing], [height], "o", color=colour, markersize=5, zorder=4)


def _draw_half_bit(axes: Axes, rings: Sequence[FourierRing]) -> list[Line2D]:
    """One line for all trials whose images have as many pixels; returns the first, for the legend."""
    lines = {ring.half_bit.tobytes() + ring.spatial_frequency.tobytes(): ring for ring in rings}
    look: dict[str, Any] = {"color": style.GREY, "linewidth": 1.0, "linestyle": "--", "label": "half-bit line"}
    drawn = [axes.plot(ring.spatial_frequency, ring.half_bit, **look)[0] for ring in lines.values()]
    return drawn[:1]


def _format_axes(axes: Axes, rings: Sequence[FourierRing]) -> None:
    axes.set_xlim(0, max(ring.nyquist for ring in rings))
    axes.set_ylim(min(0.0, *(float(ring.correlation.min()) for ring in rings)) - 0.03, 1.03)
    axes.axhline(0, color=style.PALE, linewidth=0.8, zorder=1)
    axes.set_xlabel(f"spatial frequency (1/{scales.unit_symbol(rings[0].length_unit)})")
    axes.set_ylabel("correlation of the rings")
