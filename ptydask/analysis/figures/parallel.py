"""``parallel``: one line a trial across all parameters, the error last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials

_MOST = 14
_COLOURED = 100
"""The best so many trials are in colour; of more trials the others are grey."""


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data):
        return reason
    return None if scales.select_parameters(data, None) else "No parameter has more than one value."


def draw(data: StudyData, parameters: Sequence[str] | None, link: Any) -> Figure:
    """The best lines on top and dark; a trial without a value of a parameter has a gap there."""
    title = f"{trials.study_title(data)} \N{EN DASH} parameters of the completed trials"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    selected = scales.select_parameters(data, parameters)
    drawn = selected[:_MOST]
    complete = trials.with_error(data)
    order = trials.best_first(complete.errors, data.meta.direction)
    limits = scales.robust_limits(complete.errors, data.meta.direction)
    error_heights = _error_scale(limits).shares(limits.clipped(complete.errors))
    heights = np.stack([*(_parameter_heights(p, complete) for p in drawn), error_heights], axis=1)
    figure = style.new_figure(max(5.0, 1.6 + 1.25 * len(drawn)), 4.0, title)
    axes = figure.add_subplot()
    bar = _draw_lines(figure, axes, complete, heights, order, data, link)
    _draw_axes(axes, drawn, limits, data)
    bar.outline.set_visible(False)
    omitted, missing = len(selected) - len(drawn), int(np.isnan(heights[:, :-1]).any(axis=1).sum())
    style.note(
        figure,
        [
            f"grey: all but the best {_COLOURED} of {len(complete):,} trials" if len(complete) > _COLOURED else "",
            "red: the best trial",
            limits.words(),
            f"gaps: {style.format_count(missing, 'trial')} without a value of some parameter" if missing else "",
            f"{style.format_count(omitted, 'more parameter')} not shown" if omitted else "",
        ],
    )
    return figure


def _parameter_heights(parameter: scales.ParameterScale, complete: trials.TrialErrors) -> NDArray[np.float64]:
    """(N,): the height at which each trial crosses the parameter's axis, 0 to 1."""
    places = parameter.places(trials.parameter_values(complete.records, parameter.name))
    return np.asarray(parameter.shares(places)) if not parameter.single else np.where(np.isnan(places), np.nan, 0.5)


def _error_scale(limits: scales.AxisLimits) -> scales.ParameterScale:
    return scales.ParameterScale("", "", "log" if limits.log else "linear", limits.low, limits.high)


def _draw_lines(
    figure: Figure,
    axes: Axes,
    complete: trials.TrialErrors,
    heights: NDArray[np.float64],
    order: NDArray[np.int64],
    data: StudyData,
    link: Any,
) -> Any:
    """All lines, the worst first; returns the colour bar."""
    across = np.arange(heights.shape[1], dtype=float)
    lines = np.stack([np.broadcast_to(across, heights.shape), heights], axis=2)
    coloured, others = order[:_COLOURED][::-1], order[_COLOURED:]
    if len(others):
        faint = max(0.03, min(0.35, 60 / len(others)))
        style.draw_lines(axes, lines[others], colors=style.GREY, linewidths=0.5, alpha=faint, rasterized=True)
    errors = complete.errors[coloured]
    # A diverged trial among them must not take all the colours.
    kept = scales.robust_limits(errors, data.meta.direction)
    near = errors[~kept.outside(errors)]
    norm = Normalize(near.min(), near.max()) if np.ptp(near) else Normalize(near[0] - 0.5, near[0] + 0.5)
    cmap = "viridis" if data.meta.direction == "minimize" else "viridis_r"
    urls = trials.urls(complete.numbers[coloured], link)
    look = {"norm": norm, "cmap": cmap, "linewidths": 0.9, "alpha": 0.8, "zorder": 3}
    style.draw_lines(axes, lines[coloured], urls, array=errors, **look)
    best_url = trials.urls(complete.numbers[order[:1]], link)
    style.draw_lines(axes, lines[order[:1]], best_url, colors=style.VERMILION, linewidths=2.2, zorder=4)
    return figure.colorbar(
        ScalarMappable(norm, cmap), ax=axes, label=scales.error_label(data.meta), pad=0.03, aspect=30, fraction=0.04
    )


def _draw_axes(
    axes: Axes, parameters: Sequence[scales.ParameterScale], limits: scales.AxisLimits, data: StudyData
) -> None:
    """The axes of the parameters and of the error, with their own ticks, and names above them."""
    axes.set_xlim(-0.35, len(parameters) + 0.12)
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    for position, scale in enumerate([*parameters, _error_scale(limits)]):
        axes.plot([position, position], [0, 1], color=style.INK, linewidth=0.9, zorder=5)
        for height, text in _axis_ticks(scale):
            axes.plot([position - 0.03, position], [height, height], color=style.INK, linewidth=0.8, zorder=5)
            box = {"facecolor": "white", "alpha": 0.75, "pad": 0.6, "linewidth": 0}
            axes.text(position - 0.05, height, text, ha="right", va="center", fontsize=7, zorder=6, bbox=box)
    labels = [*(scale.label for scale in parameters), style.display_name(data.meta.metric)]
    turned = max(map(len, labels)) > 17
    look: dict[str, Any] = {"rotation": 20, "ha": "left"} if turned else {}
    axes.set_xticks(range(len(labels)), labels, **look)
    axes.tick_params(axis="x", length=0, top=False, labeltop=True, labelbottom=False)
    axes.grid(visible=False)


def _axis_ticks(scale: scales.ParameterScale) -> list[tuple[float, str]]:
    """Heights and texts of the ticks of one axis."""
    if scale.kind == "categorical":
        places, names = scales.choice_ticks(scale)
        return list(zip(scale.shares(np.array(places)).tolist(), names, strict=True))
    if scale.single:
        return [(0.5, scales.value_text(scale.low))]
    if scale.kind == "log":
        values = np.array(scales.log_ticks(scale.low, scale.high))
    else:
        values = np.asarray(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(scale.low, scale.high))
    values = values[(values >= scale.low) & (values <= scale.high)]
    return [(float(h), scales.value_text(float(v))) for h, v in zip(scale.shares(values), values, strict=True)]
