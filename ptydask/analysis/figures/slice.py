"""``slice``: the error over each parameter, one panel a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import confirmed, scales, style, trials
from ptydask.model import Direction

_MOST = 16
_MANY = 200
"""Completed trials from which on a line shows the best of each part of a parameter's range."""
_BINS = 25
_GOLDEN = 0.6180339887498949


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data):
        return reason
    return None if data.parameters else "The trials have no parameters."


def draw(data: StudyData, parameters: Sequence[str] | None, link: Any) -> Figure:
    """Completed trials as discs, dark ones late; the best trial as a star."""
    title = f"{trials.study_title(data)} \N{EN DASH} {sweep.error_word(data.meta)} over each parameter"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    selected = scales.select_parameters(data, parameters) or scales.select_parameters(data, data.parameters)
    drawn = selected[:_MOST]
    complete = trials.with_error(data)
    repeated = confirmed.confirmed_errors(data)
    limits = confirmed.error_limits(complete.errors, repeated, data.meta.direction)
    rows = -(-len(drawn) // 4)
    columns = -(-len(drawn) // rows)
    figure = style.new_figure(max(4.6, 0.9 + 2.3 * columns), 0.9 + 2.1 * rows, title)
    norm = Normalize(complete.numbers[0], max(complete.numbers[-1], complete.numbers[0] + 1))
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    missing = []
    for index, axes in enumerate(grid.flat):
        if index >= len(drawn):
            axes.set_axis_off()
            continue
        dense = len(complete) * len(drawn) > style.DENSE
        lost = _draw_panel(axes, data, complete, drawn[index], limits, norm, link, dense=dense)
        missing += [f"{drawn[index].name}: {style.format_count(lost, 'trial')} without a value"] if lost else []
        if index % columns == 0:
            scales.error_axis(axes, limits, data.meta)
    bar = figure.colorbar(ScalarMappable(norm, "viridis_r"), ax=grid, label="trial", fraction=0.03, pad=0.01, aspect=30)
    bar.outline.set_visible(False)
    omitted = len(selected) - len(drawn)
    many = len(complete) >= _MANY
    style.note(
        figure,
        [
            f"star: best trial, {best.number}" if (best := trials.best(data)) else "",
            f"line: best {sweep.error_word(data.meta)} in each part of the range" if many else "",
            confirmed.remark(repeated),
            f"{limits.words()} drawn at its edge" if limits.words() else "",
            "values of a choice are spread sideways" if any(p.kind == "categorical" for p in drawn) else "",
            *missing,
            f"{style.format_count(omitted, 'more parameter')} not shown" if omitted else "",
        ],
    )
    return figure


def _draw_panel(
    axes: Axes,
    data: StudyData,
    complete: trials.TrialErrors,
    parameter: scales.ParameterScale,
    limits: scales.AxisLimits,
    norm: Normalize,
    link: Any,
    *,
    dense: bool,
) -> int:
    """One parameter; returns how many trials have no value of it."""
    places = parameter.places(trials.parameter_values(complete.records, parameter.name))
    has_value = ~np.isnan(places)
    spread = _jitter_offsets(parameter, complete.numbers)
    style.scatter_points(
        axes,
        (places + spread)[has_value],
        limits.clipped(complete.errors[has_value]),
        trials.urls(complete.numbers[has_value], link),
        c=complete.numbers[has_value],
        norm=norm,
        cmap="viridis_r",
        s=8 if dense else 20,
        alpha=0.6 if dense else 0.9,
        linewidths=0 if dense else 0.4,
        edgecolors="none" if dense else "white",
        rasterized=dense,
        clip_on=False,
    )
    if len(complete) >= _MANY:
        x, best = envelope(parameter, places[has_value], complete.errors[has_value], data.meta.direction)
        axes.plot(x, limits.clipped(best), color=style.VERMILION, linewidth=1.2, marker="." if len(x) < 12 else None)
    repeated = confirmed.confirmed_errors(data)
    bars = parameter.places(trials.parameter_values(repeated.records, parameter.name))
    confirmed.draw_error_bars(axes, bars + _jitter_offsets(parameter, repeated.numbers), repeated, limits, link)
    if (star := trials.best(data)) is not None:
        at = (places + spread)[complete.numbers == star.number]
        style.mark_best(axes, at, np.full(len(at), star.error), trials.urls([star.number], link))
    scales.parameter_axis(axes, parameter)
    return int((~has_value).sum())


def envelope(
    parameter: scales.ParameterScale, places: NDArray[np.float64], errors: NDArray[np.float64], direction: Direction
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The best error in each part of a parameter's range that has trials, and where that trial lies, both (parts,)."""
    parts = range_parts(parameter, places, _BINS)
    order = trials.best_first(errors, direction)
    _, first = np.unique(parts[order], return_index=True)
    chosen = order[first]
    chosen = chosen[np.argsort(places[chosen], kind="stable")]
    return places[chosen], errors[chosen]


def range_parts(parameter: scales.ParameterScale, places: NDArray[np.float64], parts: int) -> NDArray[np.float64]:
    """(N,): in which of so many equal parts of its axis each place lies; a choice is a part. NaN stays NaN."""
    if parameter.kind == "categorical":
        return places
    return np.clip(np.floor(parameter.shares(places) * parts), 0, parts - 1)


def _jitter_offsets(parameter: scales.ParameterScale, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,): within 0.3 of 0, always the same for a trial, neighbours far apart; 0 on an axis of numbers."""
    width = 0.6 if parameter.kind == "categorical" else 0.0
    return width * np.asarray(np.mod(numbers * _GOLDEN, 1.0) - 0.5)
