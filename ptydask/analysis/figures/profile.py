"""``profile``: the best error at each value of a parameter, and what is as good within luck, one panel a parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptydask import formatting
from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import confirmed, scales, slice, style, trials
from ptydask.analysis.good_region import GoodRegion, ParameterRegion, find_good_region
from ptydask.model import TrialRecord

_MOST = 16
_FEW, _PARTS = 5, 40
"""A range is taken in so many parts, at least and at most."""


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data):
        return reason
    complete = StudyData(data.meta, trials.with_error(data).records)
    return None if scales.select_parameters(complete, None) else "No parameter has more than one value."


def draw(data: StudyData, parameters: Sequence[str] | None, link: Any) -> Figure:
    """The best trial at each value, joined; the trials that are as good within luck lie in what is shaded."""
    title = f"{trials.study_title(data)} \N{EN DASH} best {sweep.error_word(data.meta)} at each value"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    selected = scales.select_parameters(data, parameters or None)
    drawn = selected[:_MOST]
    lower = {parameter.name: best_at_values(data, parameter) for parameter in drawn}
    repeated = confirmed.confirmed_errors(data)
    errors = np.array([record.error for records in lower.values() for record in records], dtype=float)
    limits = confirmed.error_limits(errors, repeated, data.meta.direction)
    region = None if data.confirmation is None else find_good_region(data.confirmation)
    rows = -(-len(drawn) // 4)
    columns = -(-len(drawn) // rows)
    figure = style.new_figure(max(4.6, 0.9 + 2.3 * columns), 0.9 + 2.2 * rows, title)
    for index, axes in enumerate(figure.subplots(rows, columns, sharey=True, squeeze=False).flat):
        if index >= len(drawn):
            axes.set_axis_off()
            continue
        _draw_region(axes, drawn[index], region, limits)
        _draw_profile(axes, data, drawn[index], lower[drawn[index].name], repeated, limits, link)
        if index % columns == 0:
            scales.error_axis(axes, limits, data.meta)
    omitted = len(selected) - len(drawn)
    style.note(
        figure,
        [
            "" if all(_is_stepped(data, p) for p in drawn) else "of a range without steps: the best in each part of it",
            f"star: best trial, {best.number}" if (best := trials.best(data)) else "",
            _region_remark(region, confirmed=data.confirmation is not None),
            confirmed.remark(repeated),
            f"{limits.words()} drawn at its edge" if limits.words() else "",
            f"{style.format_count(omitted, 'more parameter')} not shown" if omitted else "",
        ],
    )
    return figure


def best_at_values(data: StudyData, parameter: scales.ParameterScale) -> list[TrialRecord]:
    """The best completed trial at each of the parameter's values, rising.

    Where values are many, or as good as never come twice since the range has no steps, it is the best in each of equal
    parts of the range: the root of the number of trials, five at least, so that each part has some to choose from.
    """
    complete = trials.with_error(data)
    places = _places(parameter, complete.records)
    known = np.flatnonzero(~np.isnan(places))
    parts = min(_PARTS, max(_FEW, math.isqrt(len(known))))
    by_value = len(np.unique(places[known])) <= (_PARTS if _is_stepped(data, parameter) else _FEW)
    groups = places if by_value else slice.range_parts(parameter, places, parts)
    order = known[trials.best_first(complete.errors[known], data.meta.direction)]
    _, first = np.unique(groups[order], return_index=True)
    chosen = order[first]
    return [complete.records[i] for i in chosen[np.argsort(places[chosen], kind="stable")]]


def _is_stepped(data: StudyData, parameter: scales.ParameterScale) -> bool:
    return parameter.kind == "categorical" or scales.range_step(data.meta, parameter) is not None


def _draw_region(
    axes: Axes,
    parameter: scales.ParameterScale,
    region: GoodRegion | None,
    limits: scales.AxisLimits,
) -> None:
    """Shaded: the values of the good trials. Dashed: the error up to which a trial is as good within luck."""
    if region is None:
        return
    if limits.low <= region.bound <= limits.high:
        axes.axhline(region.bound, color=style.GREY, linewidth=0.9, linestyle="--", zorder=1)
    own = region.parameters.get(parameter.name)
    if own is None:
        return
    axes.set_title(_region_text(own), fontsize=8, color=style.GREY)
    for low, high in shaded_spans(parameter, own):
        axes.axvspan(low, high, facecolor=style.SKY, alpha=0.25, edgecolor=style.SKY, linewidth=1.2, zorder=0)


def shaded_spans(parameter: scales.ParameterScale, region: ParameterRegion) -> list[tuple[float, float]]:
    """From where to where the good trials lie on the axis: one span, of a choice one for each value."""
    places = parameter.places(region.values)
    places = places[~np.isnan(places)]
    if parameter.kind == "categorical":
        return [(float(place) - 0.4, float(place) + 0.4) for place in places]
    return [(float(places.min()), float(places.max()))] if len(places) else []


def _region_text(region: ParameterRegion) -> str:
    if region.is_all:
        return "within luck: all that was tried"
    if region.is_number:
        words = " to ".join(dict.fromkeys(f"{value:.4g}" for value in (region.low, region.high)))
    else:
        words = style.display_name(" or ".join(map(formatting.value_text, region.values)))
    return f"within luck: {words}"


def _region_remark(region: GoodRegion | None, *, confirmed: bool) -> str:
    if region is None:
        return f"how much of this is luck is not known{'' if confirmed else ': ptydask confirm FILE.h5'}"
    count = len(region.trials)
    where = f"where these {count} trials lie" if count > 1 else "where it lies, alone"
    return f"dashed: as good as trial {region.trial} within luck ({region.luck:.2g}); shaded: {where}"


def _draw_profile(
    axes: Axes,
    data: StudyData,
    parameter: scales.ParameterScale,
    lower: Sequence[TrialRecord],
    repeated: confirmed.ConfirmedErrors,
    limits: scales.AxisLimits,
    link: Any,
) -> None:
    places = _places(parameter, lower)
    numbers = [record.number for record in lower]
    errors = limits.clipped(np.array([record.error for record in lower], dtype=float))
    if parameter.kind != "categorical":
        axes.plot(places, errors, color=style.BLUE, linewidth=1.2, zorder=3)
    style.scatter_points(axes, places, errors, trials.urls(numbers, link), s=16, color=style.BLUE, zorder=4)
    confirmed.draw_error_bars(axes, _places(parameter, repeated.records), repeated, limits, link)
    if (star := trials.best(data)) is not None and star.error is not None:
        height = limits.clipped(np.array([star.error]))
        style.mark_best(axes, _places(parameter, [star]), height, trials.urls([star.number], link))
    scales.parameter_axis(axes, parameter)


def _places(parameter: scales.ParameterScale, records: Sequence[TrialRecord]) -> NDArray[np.float64]:
    return parameter.places(trials.parameter_values(records, parameter.name))
