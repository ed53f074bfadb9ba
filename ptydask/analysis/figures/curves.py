"""``curves``: the error at every iteration, the best trials in colour, pruned ones marked where they ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.model import TrialRecord, TrialState

_BEST = 10
_LINES = 300
"""More lines than this of one state are drawn as a picture; of more than ten times as many, every n-th is drawn."""


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if not data.records:
        return "No trial has ended so far."
    column = _drawn_column(data)
    if all(_curve_line(curve, column) is None for curve in data.curves.values()):
        return f"No trial has a curve: none reported an error at every {sweep.step_word(data.meta)}."
    return None


def curve_lines(data: StudyData) -> tuple[str, dict[int, NDArray[np.float64]]]:
    """The column that is drawn, and trial number -> (steps, 2) of step and value.

    It is the tuned metric, or, where no trial has that at every step, ``loss`` or the first column there is.
    """
    named = _drawn_column(data)
    lines = {number: _curve_line(curve, named) for number, curve in data.curves.items()}
    return named, {number: line for number, line in lines.items() if line is not None}


def _drawn_column(data: StudyData) -> str:
    """See :func:`curve_lines`; empty where no trial has a curve."""
    columns = dict.fromkeys(name for curve in data.curves.values() for name in curve if name not in ("step", "seconds"))
    return next((name for name in (data.meta.metric, "error", "loss", *columns) if name in columns), "")


def _curve_line(curve: Mapping[str, NDArray[Any]], named: str) -> NDArray[np.float64] | None:
    if named not in curve or not len(curve[named]):
        return None
    values = np.asarray(curve[named], dtype=float)
    steps = np.asarray(curve.get("step", np.arange(1, len(values) + 1)), dtype=float)
    values = np.where(np.isfinite(values), values, np.nan)
    return None if np.isnan(values).all() else np.stack([steps, values], axis=1)


def draw(data: StudyData, _parameters: Sequence[str] | None, link: Any) -> Figure:
    """Completed trials grey, the best ten green to blue, the best on top; pruned ones orange to their diamonds."""
    named, lines = curve_lines(data)
    title = f"{trials.study_title(data)} \N{EN DASH} {named or data.meta.metric} at every {sweep.step_word(data.meta)}"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    figure = style.new_figure(6.8, 3.9, title)
    axes = figure.add_subplot()
    limits = scales.robust_limits(np.concatenate([line[:, 1] for line in lines.values()]), data.meta.direction)
    by_state = {s: [r for r in data.records if r.state is s and r.number in lines] for s in style.STATES}
    complete = trials.with_error(StudyData(data.meta, tuple(by_state[TrialState.COMPLETE])))
    order = trials.best_first(complete.errors, data.meta.direction)
    best = [complete.records[i] for i in order[:_BEST]]
    others = [r for r in by_state[TrialState.COMPLETE] if r not in best]
    thinned = [
        _draw_thin_lines(axes, others, lines, style.GREY, link, zorder=2),
        _draw_thin_lines(axes, by_state[TrialState.PRUNED], lines, style.ORANGE, link, zorder=1),
        _draw_thin_lines(axes, by_state[TrialState.FAIL], lines, style.VERMILION, link, zorder=1),
    ]
    for state, marker in ((TrialState.PRUNED, "D"), (TrialState.FAIL, "x")):
        _mark_ends(axes, by_state[state], lines, marker, state, limits, link)
    _draw_best(axes, best, lines, link)
    _format_axes(axes, data, named, lines, limits)
    style.legend(axes, handles=_legend_handles(by_state, best, others))
    without = sum(record.number not in lines for record in data.records)
    style.note(
        figure,
        [
            f"drawn are {', '.join(t for t in thinned if t)}" if any(thinned) else "",
            f"{style.format_count(limits.above + limits.below, 'value')} outside the axis" if limits.words() else "",
            f"{style.format_count(without, 'trial')} without a curve" if without else "",
            f"{data.meta.metric} is not known at every {sweep.step_word(data.meta)}"
            if named != data.meta.metric and data.meta.metric
            else "",
        ],
    )
    return figure


def _draw_thin_lines(
    axes: Axes,
    records: Sequence[TrialRecord],
    lines: Mapping[int, NDArray[np.float64]],
    colour: str,
    link: Any,
    *,
    zorder: int,
) -> str:
    """Thin lines, the fainter the more; returns in words that not all are drawn."""
    if not records:
        return ""
    every = -(-len(records) // (10 * _LINES))
    drawn = records[::every]
    dense = len(drawn) > _LINES
    style.draw_lines(
        axes,
        [lines[record.number] for record in drawn],
        trials.urls((record.number for record in drawn), link),
        colors=colour,
        linewidths=0.5 if dense else 0.8,
        alpha=max(0.025, min(0.6, 40 / len(drawn))),
        rasterized=dense,
        zorder=zorder,
    )
    return f"{len(drawn):,} of {len(records):,} {records[0].state.word} trials" if every > 1 else ""


def _mark_ends(
    axes: Axes,
    records: Sequence[TrialRecord],
    lines: Mapping[int, NDArray[np.float64]],
    marker: str,
    state: TrialState,
    limits: scales.AxisLimits,
    link: Any,
) -> None:
    """A mark where each trial was stopped."""
    if not records:
        return
    ends = np.array([lines[r.number][~np.isnan(lines[r.number][:, 1])][-1] for r in records])
    dense = len(records) > _LINES
    style.scatter_points(
        axes,
        ends[:, 0],
        limits.clipped(ends[:, 1]),
        trials.urls((r.number for r in records), link),
        s=7 if dense else 16,
        marker=marker,
        color=style.STATES[state],
        linewidths=1.0 if marker == "x" else 0,
        alpha=0.6 if dense else 0.9,
        rasterized=dense,
        zorder=4,
        clip_on=False,
    )


def _draw_best(axes: Axes, best: Sequence[TrialRecord], lines: Mapping[int, NDArray[np.float64]], link: Any) -> None:
    if not best:
        return
    numbers = [record.number for record in reversed(best)]  # the best last, on top of the others
    style.draw_lines(
        axes,
        [lines[number] for number in numbers],
        trials.urls(numbers, link),
        colors=[*[style.SKY] * (len(best) - 1), style.BLUE],
        linewidths=[*[1.0] * (len(best) - 1), 2.2],
        zorder=5,
    )


def _format_axes(
    axes: Axes,
    data: StudyData,
    named: str,
    lines: Mapping[int, NDArray[np.float64]],
    limits: scales.AxisLimits,
) -> None:
    first = min(float(line[0, 0]) for line in lines.values())
    last = max(float(line[-1, 0]) for line in lines.values())
    spare = max(0.3, 0.02 * (last - first))
    axes.set_xlim(first - spare, last + spare)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel(sweep.step_word(data.meta))
    scales.error_axis(axes, limits, data.meta)
    if named != data.meta.metric:
        axes.set_ylabel(style.display_name(named))


def _legend_handles(
    by_state: Mapping[TrialState, Sequence[TrialRecord]], best: Sequence[TrialRecord], others: Sequence[TrialRecord]
) -> list[Line2D]:
    """The legend's lines: what was drawn, in words."""
    entries = []
    if best:
        entries.append((style.BLUE, 2.2, "", f"best: trial {best[0].number}"))
    if len(best) > 1:
        text = f"next {len(best) - 1} best" if len(best) > 2 else "next best"
        entries.append((style.SKY, 1.0, "", text))
    if others:
        entries.append((style.GREY, 0.8, "", "other complete"))
    for state, marker in ((TrialState.PRUNED, "D"), (TrialState.FAIL, "x")):
        if by_state[state]:
            entries.append((style.STATES[state], 0.8, marker, state.word))
    return [
        Line2D([], [], color=colour, linewidth=width, marker=marker, markersize=4, label=text)
        for colour, width, marker, text in entries
    ]
