"""``slopes``: the trials over two parameters, an arrow downhill at each, and the model of the error that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.analysis.optimum import (
    FEWEST,
    SlopeModel,
    is_at_edge,
    model_slopes,
    optimum_texts,
    slope_importances,
)
from ptydask.model import BY_SAMPLER, BY_SLOPES, NEAR_VALUES, OWN_VALUES, TrialRecord, TrialState

Floats = NDArray[np.float64]

_FINE = 61
"""Points of the surface along a side."""
_LONGEST, _SHORTEST = 0.13, 0.012
"""Arrows, as shares of the axes."""
_TANGENT = 0.035
"""Half of a tangent line, as a share of the axis."""
_MOST = 300
"""The best so many trials have an arrow or a tangent."""
_MARKERS: Mapping[str, tuple[str, str]] = {
    OWN_VALUES: ("s", "start"),
    NEAR_VALUES: ("s", "near the start"),
    BY_SLOPES: ("o", "by the slopes"),
    BY_SAMPLER: ("^", "by the sampler"),
}
"""Who chose the points."""
_OTHER = ("D", "others")


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data):
        return reason
    told = sum(bool(record.gradient) for record in trials.with_error(data).records)
    if not told:
        return (
            f"No trial has slopes of {data.meta.metric}: tune scan affine, tilts or slice thickness with the loss as "
            "the error, or let the engine report a gradient."
        )
    if told < FEWEST:
        return f"It takes at least {FEWEST} completed trials with slopes ({trials.counts_text(data.records)})."
    if not slope_importances(data.records, data.meta):
        return "The slopes are of parameters whose ranges the file does not tell, or all of them are 0."
    return None


def draw(data: StudyData, parameters: Sequence[str] | None, link: Any) -> Figure:
    """Over two parameters as a map, dark is good; of one as a curve. The optimum has its standard deviation."""
    title = f"{trials.study_title(data)} \N{EN DASH} slopes of {style.display_name(data.meta.metric)}"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    model = model_slopes(data.records, data.meta)
    names = _choose_parameters(data, model, parameters) if model is not None else []
    if model is None or not names:
        return style.text_figure(title, "None of these parameters is a number in which the trials have slopes.")
    chosen = [scales.parameter_scale(data, name) for name in names[:2]]
    if len(chosen) == 1:
        figure, drawn = _draw_curve(data, model, chosen[0], title, link), "lines: slopes"
    else:
        figure, drawn = _draw_map(data, model, chosen, title, link), "arrows: downhill, longer where steeper"
    style.note(figure, [drawn, *_remarks(data, model, names)])
    return figure


def _choose_parameters(data: StudyData, model: SlopeModel, names: Sequence[str] | None) -> list[str]:
    """Those asked for that are numbers, if one of them has slopes; else all with slopes, the most important first."""
    ranked = list(slope_importances(data.records, data.meta))
    if names is None:
        return ranked
    numbers = [name for name in dict.fromkeys(names) if model.cube.place_of(name) is not None]
    return numbers if set(numbers[:2]) & set(ranked) else []


def _remarks(data: StudyData, model: SlopeModel, names: Sequence[str]) -> list[str]:
    others = [name for name in model.cube.space if name not in names[:2]]
    at = "the optimum" if model.optimum is not None else "the best trial"
    optimum = []
    if model.optimum is not None:
        texts = optimum_texts(model.optimum, data.meta)
        values = ", ".join(f"{name} {text}" for name, text in texts.items()).replace("+-", "\N{PLUS-MINUS SIGN}")
        optimum = [f"optimum by the model: {values}"]
    omitted = len(names) - 2
    left_out = len(model.records) - _MOST
    return [
        f"{'below' if len(names) > 1 else 'curve'}: a model of values and slopes",
        f"with {style.format_count(len(others), 'other parameter')} as at {at}" if others else "",
        *optimum,
        f"slopes of the best {_MOST} of {len(model.records):,} trials" if left_out > 0 else "",
        f"{style.format_count(omitted, 'more parameter')} not shown" if omitted > 0 else "",
    ]


# --- two parameters ----------------------------------------------------------------------------------


def _draw_map(
    data: StudyData, model: SlopeModel, pair: Sequence[scales.ParameterScale], title: str, link: Any
) -> Figure:
    figure = style.new_figure(6.4, 4.8, title)
    axes = figure.add_subplot()
    scales.parameter_axis(axes, pair[0])
    scales.parameter_axis(axes, pair[1], of="y")
    axes.grid(visible=False)
    norm, cmap = _draw_surface(axes, data, model, pair)
    sign = 1.0 if data.meta.direction == "minimize" else -1.0
    _draw_arrows(axes, _best_first(data, model), pair, sign)
    x, y = (_places_of(parameter, model.records) for parameter in pair)
    errors = _errors_of(model.records)
    _draw_trials(axes, model.records, x, y, link, {"c": errors, "norm": norm, "cmap": cmap})
    _mark_best(axes, model, _places_of(pair[0], [model.best]), _places_of(pair[1], [model.best]), link)
    _draw_optimum(axes, model, pair)
    bar = figure.colorbar(ScalarMappable(norm, cmap), ax=axes, label=scales.error_label(data.meta), pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    style.legend(axes)
    return figure


def _draw_surface(
    axes: Axes, data: StudyData, model: SlopeModel, pair: Sequence[scales.ParameterScale]
) -> tuple[Normalize, str]:
    """Filled contours of the model over both ranges; the colours of its errors."""
    shares = np.linspace(0.0, 1.0, _FINE)
    columns, rows = np.meshgrid(shares, shares)
    mean, _ = _predict(data, model, {pair[0].name: columns.ravel(), pair[1].name: rows.ravel()})
    surface = mean.reshape(_FINE, _FINE)
    x, y = ([model.cube.value_at(parameter.name, float(share)) for share in shares] for parameter in pair)
    limits = scales.robust_limits([*_completed_errors(model), *mean.tolist()], data.meta.direction)
    ends = limits.clipped(np.array([*_completed_errors(model), mean.min(), mean.max()]))
    norm = Normalize(ends.min(), ends.max()) if np.ptp(ends) else Normalize(ends[0] - 0.5, ends[0] + 0.5)
    cmap = "viridis" if data.meta.direction == "minimize" else "viridis_r"
    levels = MaxNLocator(16).tick_values(norm.vmin or 0.0, norm.vmax or 0.0)
    axes.contourf(x, y, surface, levels=levels, norm=norm, cmap=cmap, extend="both", alpha=0.6, zorder=0)
    axes.contour(x, y, surface, levels=levels, colors="white", linewidths=0.6, zorder=0.5)
    return norm, cmap


def _draw_arrows(
    axes: Axes, records: Sequence[TrialRecord], pair: Sequence[scales.ParameterScale], sign: float
) -> None:
    """At each trial the steepest way to better errors on these axes, as long as it is steep, up to a limit."""
    starts = np.stack([_places_of(parameter, records) for parameter in pair], axis=1)
    downhill = np.stack([-sign * _slopes_of(parameter, records) for parameter in pair], axis=1)
    sizes = np.linalg.norm(downhill, axis=1)
    steep = float(np.quantile(sizes, 0.9))
    if not steep > 0:
        return
    feet = (axes.transScale + axes.transLimits).transform(starts)
    for foot, vector, size in zip(feet, downhill, sizes, strict=True):
        if size > 0:
            tip = foot + vector / size * np.clip(_LONGEST * size / steep, _SHORTEST, _LONGEST)
            look: dict[str, Any] = {
                "arrowstyle": "-|>",
                "mutation_scale": 8,
                "shrinkA": 0,
                "shrinkB": 0,
                "linewidth": 1.0,
            }
            axes.add_patch(FancyArrowPatch(foot, tip, transform=axes.transAxes, color=style.INK, zorder=3, **look))


def _draw_optimum(axes: Axes, model: SlopeModel, pair: Sequence[scales.ParameterScale]) -> None:
    """A cross with one standard deviation each way; none in a parameter where it is at the end of the range."""
    optimum = model.optimum
    if optimum is None or not all(parameter.name in optimum.center for parameter in pair):
        return
    x, y = (optimum.center[parameter.name] for parameter in pair)
    bars = [0.0 if is_at_edge(p.name, optimum, model.cube.space) else optimum.deviation[p.name] for p in pair]
    look: dict[str, Any] = {"color": style.VERMILION, "linewidth": 1.6, "capsize": 3, "zorder": 7}
    axes.errorbar([x], [y], xerr=bars[:1], yerr=bars[1:], marker="+", markersize=11, label="optimum", **look)


# --- one parameter -----------------------------------------------------------------------------------


def _draw_curve(data: StudyData, model: SlopeModel, parameter: scales.ParameterScale, title: str, link: Any) -> Figure:
    """Errors over the parameter with short lines at their slopes, the model's mean, and its standard deviation."""
    figure = style.new_figure(6.4, 3.8, title)
    axes = figure.add_subplot()
    shares = np.linspace(0.0, 1.0, 4 * _FINE)
    mean, deviation = _predict(data, model, {parameter.name: shares})
    places = [model.cube.value_at(parameter.name, float(share)) for share in shares]
    limits = scales.robust_limits([*_completed_errors(model), *mean.tolist()], data.meta.direction)
    scales.parameter_axis(axes, parameter)
    scales.error_axis(axes, limits, data.meta)
    axes.fill_between(places, mean - deviation, mean + deviation, color=style.SKY, alpha=0.35, linewidth=0)
    axes.plot(places, mean, color=style.GREY, linewidth=1.2, label="model")
    x, y = _places_of(parameter, model.records), limits.clipped(_errors_of(model.records))
    steepest = _best_first(data, model)
    ends = np.array([-_TANGENT, _TANGENT])
    slopes = _slopes_of(parameter, steepest)
    lines = [
        np.stack([_shift_place(parameter, place, ends), error + slope * ends], axis=1)
        for place, error, slope in zip(_places_of(parameter, steepest), _errors_of(steepest), slopes, strict=True)
    ]
    style.draw_lines(axes, lines, colors=style.INK, linewidths=1.2, zorder=3)
    _draw_trials(axes, model.records, x, y, link, {"facecolors": style.BLUE})
    _mark_best(axes, model, _places_of(parameter, [model.best]), _errors_of([model.best]), link)
    if (optimum := model.optimum) is not None and parameter.name in optimum.center:
        center, deviation_here = optimum.center[parameter.name], optimum.deviation[parameter.name]
        axes.axvline(center, color=style.VERMILION, linewidth=1.2, label="optimum", zorder=2)
        if not is_at_edge(parameter.name, optimum, model.cube.space):
            axes.axvspan(center - deviation_here, center + deviation_here, color=style.VERMILION, alpha=0.2, lw=0)
    style.legend(axes)
    return figure


def _shift_place(parameter: scales.ParameterScale, place: float, shares: Floats) -> Floats:
    """Places that are so many shares of the axis from another."""
    low, high = parameter.limits()
    return place * (high / low) ** shares if parameter.kind == "log" else place + shares * (high - low)


# --- both --------------------------------------------------------------------------------------------


def _predict(data: StudyData, model: SlopeModel, shares: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    """The error's mean (n,) and standard deviation (n,) at ``shares`` of the ranges, all else as at the optimum."""
    center = model.best.params if model.optimum is None else {**model.best.params, **model.optimum.center}
    count = len(next(iter(shares.values())))
    points = np.tile(model.cube.encode_point(center), (count, 1))
    for name, coordinates in shares.items():
        points[:, model.cube.place_of(name)] = coordinates
    mean, deviation = model.process.predict_values(points)
    return (mean if data.meta.direction == "minimize" else -mean), deviation


def _places_of(parameter: scales.ParameterScale, records: Sequence[TrialRecord]) -> Floats:
    return parameter.places(trials.parameter_values(records, parameter.name))


def _errors_of(records: Sequence[TrialRecord]) -> Floats:
    return np.array([np.nan if record.error is None else record.error for record in records])


def _completed_errors(model: SlopeModel) -> list[float]:
    return _errors_of([record for record in model.records if record.state is TrialState.COMPLETE]).tolist()


def _slopes_of(parameter: scales.ParameterScale, records: Sequence[TrialRecord]) -> Floats:
    """Each trial's slope per length of the parameter's axis; 0 where it has none."""
    slopes = np.array([record.gradient.get(parameter.name, 0.0) for record in records])
    low, high = parameter.limits()
    log = parameter.kind == "log"
    return slopes * (_places_of(parameter, records) * np.log(high / low) if log else high - low)


def _best_first(data: StudyData, model: SlopeModel) -> list[TrialRecord]:
    """The trials whose slopes are drawn."""
    order = trials.best_first(_errors_of(model.records), data.meta.direction)
    return [model.records[index] for index in order[:_MOST]]


def _draw_trials(
    axes: Axes, records: Sequence[TrialRecord], x: Floats, y: Floats, link: Any, look: Mapping[str, Any]
) -> None:
    """Completed trials as ``look`` says, pruned ones hollow; the marker tells who chose the point."""
    kinds = [_MARKERS.get(record.origin, _OTHER) for record in records]
    complete = np.array([record.state is TrialState.COMPLETE for record in records])
    numbers = np.array([record.number for record in records])
    colours = look.get("c")
    for marker, label in dict.fromkeys(kinds):
        own = np.array([kind == (marker, label) for kind in kinds])
        axes.scatter([], [], marker=marker, s=34, facecolors=style.PALE, edgecolors=style.INK, label=label)
        for part, hollow in ((own & complete, False), (own & ~complete, True)):
            if not part.any():
                continue
            filled = {**look, "c": colours[part]} if colours is not None else dict(look)
            painted = {"facecolors": "white"} if hollow else filled
            style.scatter_points(
                axes,
                x[part],
                y[part],
                trials.urls(numbers[part], link),
                marker=marker,
                s=34,
                edgecolors=style.GREY if hollow else style.INK,
                linewidths=1.0,
                zorder=4,
                **painted,
            )
    if not complete.all():
        axes.scatter([], [], marker="o", s=34, facecolors="white", edgecolors=style.GREY, label="hollow: pruned")


def _mark_best(axes: Axes, model: SlopeModel, x: Floats, y: Floats, link: Any) -> None:
    number = model.best.number
    style.mark_best(axes, x, y, trials.urls([number], link), label=f"best: trial {number}")
