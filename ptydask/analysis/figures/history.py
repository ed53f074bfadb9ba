"""``history``: the error of every trial over its number, and the best so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import confirmed, scales, style, trials
from ptydask.analysis.stages import whole_name
from ptydask.model import TrialState

_SIZES = {TrialState.COMPLETE: 22.0, TrialState.PRUNED: 13.0}


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if any(lacks(stage) is None for stage in data.stages):
        return None
    if len(trials.with_error(data, TrialState.COMPLETE, TrialState.PRUNED)):
        return None
    return trials.nothing_complete(data)


def draw(data: StudyData, _parameters: Sequence[str] | None, link: Any) -> Figure:
    """Completed trials as discs, pruned ones as diamonds, failed ones as crosses beyond the axis."""
    drawable = [stage for stage in data.stages if lacks(stage) is None]
    if len(drawable) > 1 or (drawable and lacks(replace(data, stages=()))):
        return _draw_stages(data, drawable, link)
    title = f"{trials.study_title(data)} \N{EN DASH} history of {trials.counts_text(data.records)}"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    figure = style.new_figure(6.8, 3.6, title)
    axes = figure.add_subplot()
    remarks = _draw_study(axes, data, link)
    failed = data.meta.direction == "minimize" and any(r.state is TrialState.FAIL for r in data.records)
    style.legend(axes, above=1.06 if failed else 1.02)
    style.note(figure, remarks)
    return figure


def _draw_stages(data: StudyData, stages: Sequence[StudyData], link: Any) -> Figure:
    """A panel a stage, in their order, each with errors of its own: those of other iterations or positions differ.

    ``link`` leads to trials of the study ``data`` alone. A panel is as wide as its stage has trials, within limits.
    """
    counts = trials.counts_text([record for stage in stages for record in stage.records])
    title = f"{style.display_name(whole_name(data.meta), 36)} \N{EN DASH} history of {counts} in {len(stages)} stages"
    figure = style.new_figure(max(6.8, 2.6 * len(stages)), 3.6, title)
    most = max(len(stage.records) for stage in stages)
    widths = [max(0.35, len(stage.records) / most) for stage in stages]
    for axes, stage in zip(figure.subplots(1, len(stages), width_ratios=widths, squeeze=False)[0], stages, strict=True):
        _draw_study(axes, stage, link if stage.meta.name == data.meta.name else None)
        axes.set_title(style.display_name(stage.meta.stage, 24), pad=10)
    entries = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    handles = {label.partition(":")[0]: handle for pairs in entries for handle, label in pairs}
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=len(handles), frameon=False)
    return figure


def _draw_study(axes: Axes, data: StudyData, link: Any) -> list[str]:
    """The trials of one study over their numbers; what a reader must know of them besides."""
    both = trials.with_error(data, TrialState.COMPLETE, TrialState.PRUNED)
    repeated = confirmed.confirmed_errors(data)
    limits = confirmed.error_limits(both.errors, repeated, data.meta.direction)
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        _draw_points(axes, data, state, limits, link, dense=len(data.records) > style.DENSE)
    _draw_failed(axes, data, link)
    _draw_best_so_far(axes, data, limits, link)
    confirmed.draw_error_bars(axes, repeated.numbers.astype(float), repeated, limits, link, "with other seeds")
    numbers = [record.number for record in data.records]
    spare = max(0.5, 0.02 * (numbers[-1] - numbers[0]))
    axes.set_xlim(numbers[0] - spare, numbers[-1] + spare)
    several = MaxNLocator(8, integer=True, steps=[1, 2, 5, 10])
    axes.xaxis.set_major_locator(several if len(numbers) > 1 else FixedLocator(numbers))
    axes.set_xlabel("trial")
    scales.error_axis(axes, limits, data.meta)
    pruned = any(record.state is TrialState.PRUNED for record in data.records)
    return [
        f"{limits.words()} drawn at its edge" if limits.words() else "",
        confirmed.remark(repeated),
        trials.without_error(data),
        f"the {sweep.error_word(data.meta)} of a pruned trial is that of its last {sweep.step_word(data.meta)}"
        if pruned
        else "",
    ]


def _draw_points(
    axes: Axes, data: StudyData, state: TrialState, limits: scales.AxisLimits, link: Any, *, dense: bool
) -> None:
    selected = trials.with_error(data, state)
    if not len(selected):
        return
    outside = limits.outside(selected.errors)
    for part, marker in (
        (~outside, style.MARKERS[state]),
        (outside, "^" if data.meta.direction == "minimize" else "v"),
    ):
        if not part.any():
            continue
        style.scatter_points(
            axes,
            selected.numbers[part],
            limits.clipped(selected.errors[part]),
            trials.urls(selected.numbers[part], link),
            s=_SIZES[state] * (0.4 if dense else 1.0),
            marker=marker,
            color=style.STATES[state],
            alpha=0.45 if dense else 0.85,
            linewidths=0,
            label=state.word if part is not outside else None,
            rasterized=dense,
            clip_on=part is not outside,
            zorder=2 if state is TrialState.PRUNED else 3,
        )


def _draw_failed(axes: Axes, data: StudyData, link: Any) -> None:
    """Failed trials have no error to be drawn at: they lie beyond the edge where the worst errors are."""
    failed = [record.number for record in data.records if record.state is TrialState.FAIL]
    if not failed:
        return
    edge = 1.03 if data.meta.direction == "minimize" else -0.03
    style.scatter_points(
        axes,
        failed,
        np.full(len(failed), edge),
        trials.urls(failed, link),
        s=20,
        marker="x",
        color=style.STATES[TrialState.FAIL],
        linewidths=1.2,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        label="failed",
        rasterized=len(failed) > style.DENSE,
        zorder=4,
    )


def _draw_best_so_far(axes: Axes, data: StudyData, limits: scales.AxisLimits, link: Any) -> None:
    complete, best = trials.with_error(data), trials.best(data)
    if best is None or best.error is None or not len(complete):
        return
    so_far = trials.best_so_far(complete.errors, data.meta.direction)
    last = data.records[-1].number
    axes.step(
        [*complete.numbers, last],
        limits.clipped(np.append(so_far, so_far[-1])),
        where="post",
        color=style.INK,
        linewidth=1.3,
        label="best so far",
        zorder=5,
    )
    label = f"best: trial {best.number}, {best.error:.5g}"
    height = limits.clipped(np.array([best.error]))
    style.mark_best(axes, [best.number], height, trials.urls([best.number], link), label=label)
