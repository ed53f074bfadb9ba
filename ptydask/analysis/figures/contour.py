"""``contour``: the best error over two parameters, or over every pair of several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.tri import Triangulation
from numpy.typing import NDArray

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import importance, scales, style, trials
from ptydask.model import Direction

_MOST = 6
_MANY = 150
"""Points from which on they are gathered in cells, and no longer interpolated between."""
_CELLS = 30
"""So many cells at most along an axis."""
_FEWEST = 4
_LONGEST = 0.45
"""The longest side of a triangle, as a share of the axes, across which is interpolated."""


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data):
        return reason
    if len(trials.with_error(data)) < _FEWEST:
        return f"A contour takes at least {_FEWEST} completed trials ({trials.counts_text(data.records)})."
    if len(scales.select_parameters(data, None)) < 2:
        return "Fewer than two parameters have more than one value."
    return None


def draw(data: StudyData, parameters: Sequence[str] | None, link: Any) -> Figure:
    """Dark is good. Blank is where no trial was; the best trial is a star."""
    title = f"{trials.study_title(data)} \N{EN DASH} best {sweep.error_word(data.meta)} over pairs of parameters"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    selected = _choose_parameters(data, parameters)
    if len(selected) < 2:
        return style.text_figure(title, "Two parameters with more than one value are needed.")
    drawn = selected[:_MOST]
    complete = trials.with_error(data)
    norm = _error_norm(complete.errors, data.meta.direction)
    cmap = "viridis" if data.meta.direction == "minimize" else "viridis_r"
    side = len(drawn) - 1
    size = (5.2, 4.2) if side == 1 else (1.4 + 2.2 * side, 0.9 + 2.0 * side)
    figure = style.new_figure(*size, title)
    grid = figure.subplots(side, side, squeeze=False, sharex="col", sharey="row")
    gathered = False
    for row in range(side):
        for column in range(side):
            axes = grid[row, column]
            if column > row:
                axes.set_axis_off()
                continue
            x, y = drawn[column], drawn[row + 1]
            gathered |= _draw_panel(axes, data, complete, (x, y), norm, cmap, link)
            scales.parameter_axis(axes, x, label=row == side - 1)
            scales.parameter_axis(axes, y, of="y", label=column == 0)
            axes.grid(visible=False)
    extend = "max" if data.meta.direction == "minimize" else "min"
    bar = figure.colorbar(
        ScalarMappable(norm, cmap), ax=grid, label=scales.error_label(data.meta), extend=extend, pad=0.02, aspect=30
    )
    bar.outline.set_visible(False)
    omitted = len(selected) - len(drawn)
    style.note(
        figure,
        [
            f"star: best trial, {best.number}" if (best := trials.best(data)) else "",
            "each cell: the best of its trials" if gathered else "dots: trials; interpolated between near ones",
            "colours end before the worst tenth",
            f"{style.format_count(omitted, 'more parameter')} not shown" if omitted else "",
        ],
    )
    return figure


def _choose_parameters(data: StudyData, names: Sequence[str] | None) -> list[scales.ParameterScale]:
    """Those asked for; else the two most important, or the first two that vary where importances are not known."""
    if names is not None:
        return [parameter for parameter in scales.select_parameters(data, names) if not parameter.single]
    ranked = list(importance.param_importances(data))
    return scales.select_parameters(data, ranked[:2] if len(ranked) > 1 else None)[:2]


def _error_norm(errors: NDArray[np.float64], direction: Direction) -> Normalize:
    """From the best error to the worst but the last tenth and those that are worlds away."""
    limits = scales.robust_limits(errors, direction)
    near = np.sort(errors[~limits.outside(errors)])
    tenth = (len(near) - 1 + 9) // 10
    if direction == "minimize":
        low, high = float(near[0]), float(near[len(near) - 1 - tenth])
    else:
        low, high = float(near[tenth]), float(near[-1])
    return Normalize(low, high) if low < high else Normalize(low - 0.5, high + 0.5)


def _draw_panel(
    axes: Axes,
    data: StudyData,
    complete: trials.TrialErrors,
    pair: tuple[scales.ParameterScale, scales.ParameterScale],
    norm: Normalize,
    cmap: str,
    link: Any,
) -> bool:
    """One pair of parameters; returns whether the trials were gathered in cells."""
    x, y = (parameter.places(trials.parameter_values(complete.records, parameter.name)) for parameter in pair)
    has_values = ~(np.isnan(x) | np.isnan(y))
    x, y, errors, numbers = x[has_values], y[has_values], complete.errors[has_values], complete.numbers[has_values]
    x_edges = cell_edges(pair[0], x, scales.range_step(data.meta, pair[0]))
    y_edges = cell_edges(pair[1], y, scales.range_step(data.meta, pair[1]))
    # Where both have few values, a cell for each pair of values; with many trials, cells of equal size.
    few = x_edges is not None and y_edges is not None and (len(x_edges) - 1) * (len(y_edges) - 1) <= 3 * len(x)
    gathered = few or len(x) > _MANY
    if gathered:
        x_edges = equal_edges(pair[0], len(x)) if x_edges is None else x_edges
        y_edges = equal_edges(pair[1], len(x)) if y_edges is None else y_edges
        best = best_per_cell(x, y, errors, x_edges, y_edges, data.meta.direction)
        axes.pcolormesh(x_edges, y_edges, best.T, norm=norm, cmap=cmap, rasterized=best.size > style.DENSE)
    else:
        _draw_contours(axes, pair, x, y, errors, norm, cmap)
        look = {"c": errors, "norm": norm, "cmap": cmap, "s": 16, "edgecolors": "white", "linewidths": 0.6, "zorder": 3}
        style.scatter_points(axes, x, y, trials.urls(numbers, link), **look)
    if (star := trials.best(data)) is not None:
        at = numbers == star.number
        style.mark_best(axes, x[at], y[at], trials.urls([star.number], link))
    return gathered


def cell_edges(
    parameter: scales.ParameterScale, places: NDArray[np.float64], step: float | None
) -> NDArray[np.float64] | None:
    """(cells + 1,): the edges of a parameter's cells where each value has its own; None where values are too many."""
    if parameter.kind == "categorical":
        return np.asarray(np.arange(len(parameter.choices) + 1) - 0.5)
    if step is None or parameter.kind == "log" or (parameter.high - parameter.low) / step >= _CELLS:
        return None
    steps = (places - parameter.low) / step
    if np.abs(steps - np.round(steps)).max(initial=0) > 1e-6:
        return None
    return np.asarray(parameter.low + step * (np.arange(round((parameter.high - parameter.low) / step) + 2) - 0.5))


def equal_edges(parameter: scales.ParameterScale, points: int) -> NDArray[np.float64]:
    """(cells + 1,): equal shares of the axis, the more trials the more."""
    count = min(_CELLS, max(6, math.isqrt(points // 2)))
    spaced = np.geomspace if parameter.kind == "log" else np.linspace
    return spaced(parameter.low, parameter.high, count + 1)


def best_per_cell(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.float64],
    x_edges: NDArray[np.float64],
    y_edges: NDArray[np.float64],
    direction: Direction,
) -> NDArray[np.float64]:
    """(x cells, y cells): the best error in each cell, NaN where no trial is."""
    column = np.clip(np.searchsorted(x_edges, x, side="right") - 1, 0, len(x_edges) - 2)
    row = np.clip(np.searchsorted(y_edges, y, side="right") - 1, 0, len(y_edges) - 2)
    best = np.full((len(x_edges) - 1, len(y_edges) - 1), np.nan)
    # NumPy lets the last of several values for one cell stand: the best comes last.
    worst_first = trials.best_first(errors, direction)[::-1]
    best[column[worst_first], row[worst_first]] = errors[worst_first]
    return best


def _draw_contours(
    axes: Axes,
    pair: tuple[scales.ParameterScale, scales.ParameterScale],
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    errors: NDArray[np.float64],
    norm: Normalize,
    cmap: str,
) -> None:
    """Filled contours between points that are near each other; nothing where they all lie on a line."""
    shares = np.stack([pair[0].shares(x), pair[1].shares(y)], axis=1)
    # A triangulation wants each point once.
    _, first = np.unique(shares.round(6), axis=0, return_index=True)
    try:
        triangles = Triangulation(*shares[first].T).triangles
    except (ValueError, RuntimeError):
        return
    # Across a long side there was no trial: the triangle is left out, and the contour is blank there.
    corners = shares[first][triangles]
    sides = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
    kept = triangles[sides < _LONGEST]
    if not len(kept):
        return
    levels = MaxNLocator(12).tick_values(norm.vmin or 0.0, norm.vmax or 0.0)
    mesh = Triangulation(x[first], y[first], kept)
    axes.tricontourf(mesh, errors[first], levels=levels, norm=norm, cmap=cmap, extend="both", alpha=0.85)
