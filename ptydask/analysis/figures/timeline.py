"""``timeline``: when which worker was at what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import style, trials
from ptydask.formatting import natural_key
from ptydask.model import TrialRecord

_NAMED = 40
"""Up to so many rows each has its worker's name; more have their hosts'."""
_ROWS = 240
"""Of more workers, those of one host share its rows: a worker whose job ended makes room for the next."""
_UNITS = ((86400.0 * 3, 86400.0, "days"), (5400.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))
_PAUSE = 0.2
"""A time without any trial that is longer than this share of all others is cut out."""


@dataclass(frozen=True)
class TrialBar:
    """A trial in its row, from ``begin`` to ``end`` in seconds since the first began."""

    record: TrialRecord
    host: str
    worker: str
    begin: float
    end: float


@dataclass(frozen=True)
class Pause:
    """A cut at ``at`` seconds of what is drawn, of ``seconds``."""

    at: float
    seconds: float


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    if not data.records:
        return "No trial has ended so far."
    return None if any(map(_begin_of, data.records)) else "No trial says when it began."


def trial_bars(records: Sequence[TrialRecord]) -> list[TrialBar]:
    """The trials whose begin is known, by begin.

    A trial's time is that of all its attempts, its begin that of the last: where it was tried again it ends no later
    than its worker's next trial begins.
    """
    begun = _sort_by_begin(records)
    bars: list[TrialBar] = []
    following: dict[tuple[str, str], float] = {}
    # From the last one back, so that the begin of the worker's next trial is known.
    for moment, record in reversed(begun):
        begin = (moment - begun[0][0]).total_seconds()
        worker = (record.host or "?", record.worker or record.job or "?")
        end = begin + (max(0.0, record.seconds) if math.isfinite(record.seconds) else 0.0)
        if record.attempt > 1:
            end = min(end, following.get(worker, end))
        bars.append(TrialBar(record, *worker, begin, end))
        following[worker] = begin
    return bars[::-1]


def _sort_by_begin(records: Iterable[TrialRecord]) -> list[tuple[datetime, TrialRecord]]:
    """Those of which somebody knows when they began, and in which time zone."""
    placed = [(moment, record) for record in records if (moment := _begin_of(record)) is not None]
    return sorted(placed, key=lambda pair: (pair[0], pair[1].number))


def _begin_of(record: TrialRecord) -> datetime | None:
    moment = record.began
    return None if moment is None or moment.tzinfo is None else moment


def wall_seconds(records: Sequence[TrialRecord]) -> float | None:
    """Seconds from the first trial's start to the last one's end; None where no trial says when it started."""
    return max((bar.end for bar in trial_bars(records)), default=None)


def time_unit(span: float) -> tuple[float, str]:
    """The unit for a time axis of so many seconds: its length in seconds, and its name."""
    return next((seconds, unit) for least, seconds, unit in _UNITS if span >= least)


def without_pauses(bars: Sequence[TrialBar]) -> tuple[list[TrialBar], list[Pause]]:
    """The bars moved together over long times in which no trial ran, and where those were."""
    # The bars come by begin: where one begins after the end of all before it, nothing ran in between.
    idle, covered = [], 0.0
    for bar in bars:
        if bar.begin > covered:
            idle.append((covered, bar.begin - covered))
        covered = max(covered, bar.end)
    busy = covered - sum(length for _, length in idle)
    cuts = [(begin, length) for begin, length in idle if length > max(_PAUSE * busy, 1.0)]
    # Each bar moves back by all cuts before it; a little of each is kept as room for the line that marks it.
    kept = 0.02 * busy
    moved, pauses, removed = [], [], 0.0
    for bar in bars:
        while cuts and bar.begin >= cuts[0][0] + cuts[0][1]:
            begin, length = cuts.pop(0)
            pauses.append(Pause(begin - removed + kept / 2, length))
            removed += length - kept
        moved.append(replace(bar, begin=bar.begin - removed, end=bar.end - removed))
    return moved, pauses


def assign_rows(bars: Sequence[TrialBar]) -> tuple[list[tuple[str, str]], list[int]]:
    """The rows (host, worker), hosts together, and the row of each bar."""
    row_of_bar = [(bar.host, bar.worker) for bar in bars]
    if len(set(row_of_bar)) > _ROWS:
        row_of_bar = _share_lanes(bars)
    rows = sorted(set(row_of_bar), key=lambda row: (natural_key(row[0]), natural_key(row[1])))
    row_numbers = {row: i for i, row in enumerate(rows)}
    return rows, [row_numbers[row] for row in row_of_bar]


def _share_lanes(bars: Sequence[TrialBar]) -> list[tuple[str, str]]:
    """Host and lane of each bar: the first of the host's lanes that is free when the bar begins."""
    lane_ends: dict[str, list[float]] = {}
    lanes = []
    for bar in bars:  # by begin, so that the first lane that is free is a good one
        ends = lane_ends.setdefault(bar.host, [])
        lane = next((i for i, end in enumerate(ends) if end <= bar.begin), len(ends))
        ends[lane : lane + 1] = [bar.end]
        lanes.append((bar.host, f"{lane:06d}"))
    return lanes


def busy_workers(bars: Sequence[TrialBar]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Moments, and how many workers are at a trial from each on, both (2 N,)."""
    moments = np.array([bar.begin for bar in bars] + [bar.end for bar in bars])
    change = np.repeat([1, -1], len(bars))
    order = np.lexsort((change, moments))
    return moments[order], np.cumsum(change[order])


def draw(data: StudyData, _parameters: Sequence[str] | None, link: Any) -> Figure:
    """One row a worker, the workers of a host together; blank is idle. Above: how many workers are busy."""
    title = f"{trials.study_title(data)} \N{EN DASH} what the workers did"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    bars, pauses = without_pauses(trial_bars(data.records))
    rows, places = assign_rows(bars)
    end = max(bar.end for bar in bars) or 1.0
    seconds, unit = time_unit(end)
    height = max(0.055, min(0.26, 6.5 / len(rows))) * len(rows)
    figure = style.new_figure(7.4, 1.9 + height, title)
    above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[0.5, max(0.4, height)])
    _draw_bars(axes, bars, places, seconds, link)
    _label_rows(axes, rows)
    moments, count = busy_workers(bars)
    above.fill_between(moments / seconds, count, step="post", color=style.SKY, linewidth=0, alpha=0.8)
    most = max(1, int(count.max()))
    above.set_ylim(0, most * 1.1)
    above.set_yticks([0, most])
    above.set_ylabel("busy")
    for pause in pauses:
        for panel in (above, axes):
            panel.axvline(pause.at / seconds, color=style.INK, linewidth=0.8, linestyle=(0, (4, 3)))
        above.annotate(
            f"pause: {duration_text(pause.seconds)}",
            (pause.at / seconds, 1),
            (3, -2),
            xycoords=above.get_xaxis_transform(),
            textcoords="offset points",
            va="top",
            fontsize=7,
            bbox={"facecolor": "white", "alpha": 0.8, "pad": 1, "linewidth": 0},
        )
    axes.set_xlim(-0.01 * end / seconds, 1.01 * end / seconds)
    first = _sort_by_begin(data.records)[0][0].strftime("%Y-%m-%d %H:%M %Z").strip()
    axes.set_xlabel(f"{unit} since {first}{', pauses cut out' if pauses else ''}")
    states = {bar.record.state for bar in bars}
    patches = [Patch(color=c, label=s.word) for s, c in style.STATES.items() if s in states]
    style.legend(above, handles=patches)
    without_begin = len(data.records) - len(bars)
    worked = sum(bar.end - bar.begin for bar in bars)
    workers = len({(bar.host, bar.worker) for bar in bars})
    style.note(
        figure,
        [
            f"{style.format_count(workers, 'worker')}, {duration_text(worked)} of work",
            f"{style.format_count(without_begin, 'trial')} whose begin is not known" if without_begin else "",
            "one row for workers of a host that follow each other" if workers > _ROWS else "",
        ],
    )
    return figure


def _draw_bars(axes: Axes, bars: Sequence[TrialBar], places: Sequence[int], seconds: float, link: Any) -> None:
    dense = len(bars) > style.DENSE
    corners = []
    for bar, row in zip(bars, places, strict=True):
        left, right, top, bottom = bar.begin / seconds, bar.end / seconds, row - 0.4, row + 0.4
        corners.append([(left, top), (right, top), (right, bottom), (left, bottom)])
    collection = PolyCollection(
        corners,
        facecolors=[style.STATES[bar.record.state] for bar in bars],
        edgecolors="white",
        linewidths=0.15 if dense else 0.4,
        rasterized=dense,
        zorder=2,
    )
    if link is not None and not dense:
        collection.set_urls([link(bar.record.number) for bar in bars])
    axes.add_collection(collection)


def _label_rows(axes: Axes, rows: Sequence[tuple[str, str]]) -> None:
    """Workers' names where there is room, with the host before the first of each; else the hosts alone."""
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    first = [i for i, row in enumerate(rows) if i == 0 or row[0] != rows[i - 1][0]]
    for i in first[1:]:
        axes.axhline(i - 0.5, color=style.PALE, linewidth=0.6)
    if len(rows) <= _NAMED:
        hosts = {row[0] for row in rows}
        axes.set_yticks(
            range(len(rows)), [style.display_name(w if len(hosts) == 1 else f"{h}: {w}", 24) for h, w in rows]
        )
        axes.set_ylabel("worker")
        return
    every = -(-len(first) // _NAMED)
    middles = [(a + b - 1) / 2 for a, b in zip(first, [*first[1:], len(rows)], strict=True)]
    axes.set_yticks(middles[::every], [style.display_name(rows[i][0], 20) for i in first[::every]], fontsize=7)
    axes.set_ylabel(f"{len(rows)} rows of workers, by host")


def duration_text(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    for least, size, unit in ((172800, 86400, "days"), (5400, 3600, "h"), (90, 60, "min")):
        if seconds >= least:
            return f"{seconds / size:.1f}".removesuffix(".0") + f" {unit}"
    return f"{seconds:.0f} s"
