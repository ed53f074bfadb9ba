"""``progress``: the best so far over the time since the study began, and over the workers' time that it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, timeline, trials
from ptydask.analysis.figures.timeline import TrialBar
from ptydask.model import Direction, TrialRecord
from ptydask.ranking import is_better


@dataclass(frozen=True)
class StudyProgress:
    """The completed trials that were the best when they ended, by their ends."""

    records: tuple[TrialRecord, ...]
    errors: NDArray[np.float64]
    """(N,): each better than the one before."""
    ends: NDArray[np.float64]
    """(N,): seconds since the first trial began."""
    work: NDArray[np.float64]
    """(N,): seconds that all workers together had been at trials by then."""
    end: float
    """The last trial's end, completed or not."""
    total_work: float
    """Worker seconds of all trials."""


def study_progress(bars: Sequence[TrialBar], direction: Direction) -> StudyProgress:
    """When the study came to which error, of trials in time; a tie is no progress."""
    moments, busy = timeline.busy_workers(bars)
    work = np.concatenate([[0.0], np.cumsum(busy[:-1] * np.diff(moments))])
    complete = {record.number for record in trials.completed([bar.record for bar in bars])}
    best: list[TrialBar] = []
    errors: list[float] = []
    for bar in sorted((bar for bar in bars if bar.record.number in complete), key=lambda bar: bar.end):
        error = bar.record.error
        if error is not None and (not best or is_better(error, errors[-1], direction)):
            best.append(bar)
            errors.append(error)
    ends = np.array([bar.end for bar in best])
    spent = np.interp(ends, moments, work)
    records = tuple(bar.record for bar in best)
    return StudyProgress(records, np.array(errors), ends, spent, float(moments[-1]), float(work[-1]))


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if reason := trials.nothing_complete(data) or timeline.lacks(data):
        return reason
    placed = [bar.record for bar in timeline.trial_bars(data.records)]
    return None if trials.completed(placed) else "No completed trial says when it began."


def draw(data: StudyData, _parameters: Sequence[str] | None, link: Any) -> Figure:
    """Left over the time of the clock, long pauses cut out; right over worker hours. A dot where the best improved."""
    title = f"{trials.study_title(data)} \N{EN DASH} the best so far, over time"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    bars, pauses = timeline.without_pauses(timeline.trial_bars(data.records))
    progress = study_progress(bars, data.meta.direction)
    limits = _error_limits(data, progress)
    figure = style.new_figure(6.8, 3.2, title)
    left, right = figure.subplots(1, 2, sharey=True)
    unit = timeline.time_unit(progress.end)
    _draw_steps(left, progress, progress.ends, progress.end, unit[0], limits, link)
    left.set_xlabel(f"{unit[1]} since the start{', pauses cut out' if pauses else ''}")
    for pause in pauses:
        left.axvline(pause.at / unit[0], color=style.INK, linewidth=0.8, linestyle=(0, (4, 3)))
    unit = timeline.time_unit(progress.total_work)
    _draw_steps(right, progress, progress.work, progress.total_work, unit[0], limits, link)
    right.set_xlabel(f"worker {unit[1]}")
    scales.error_axis(left, limits, data.meta)
    best = progress.records[-1]
    style.note(
        figure,
        [
            f"best: trial {best.number}, {best.error:.5g}, after {timeline.duration_text(progress.work[-1])} of "
            f"{timeline.duration_text(progress.total_work)} of worker time",
            f"{limits.words()} drawn at its edge" if limits.words() else "",
            trials.without_error(data),
        ],
    )
    return figure


def _error_limits(data: StudyData, progress: StudyProgress) -> scales.AxisLimits:
    """By all trials that are no worse than the first: of the few best alone, the first ones would be worlds away."""
    errors = trials.with_error(data).errors
    minimized = data.meta.direction == "minimize"
    return scales.robust_limits(
        errors[errors <= progress.errors[0]] if minimized else errors[errors >= progress.errors[0]], data.meta.direction
    )


def _draw_steps(
    axes: Axes,
    progress: StudyProgress,
    times: NDArray[np.float64],
    end: float,
    seconds: float,
    limits: scales.AxisLimits,
    link: Any,
) -> None:
    heights = limits.clipped(np.append(progress.errors, progress.errors[-1]))
    axes.step(np.append(times, end) / seconds, heights, where="post", color=style.INK, linewidth=1.3)
    urls = trials.urls([record.number for record in progress.records], link)
    style.scatter_points(
        axes, times / seconds, heights[:-1], urls, s=18, color=style.BLUE, linewidths=0, zorder=3, clip_on=False
    )
    style.mark_best(axes, times[-1:] / seconds, heights[-1:], urls and urls[-1:])
    axes.set_xlim(0, 1.03 * end / seconds or 1.0)
