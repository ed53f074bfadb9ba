"""``metrics``: whether the metrics put the trials into the same order, by their rank correlation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ptydask.analysis.data import StudyData, known_directions
from ptydask.analysis.figures import style, trials
from ptydask.model import Direction, StudyMeta, TrialRecord, TrialState
from ptydask.ranking import metric_names, rank_correlation

FEWEST = 5
"""Trials that have both metrics, below which a correlation is chance."""
_MOST = 16
_ARROWS: Mapping[Direction | None, str] = {
    "minimize": " \N{DOWNWARDS ARROW}",
    "maximize": " \N{UPWARDS ARROW}",
    None: "",
}


@dataclass(frozen=True)
class MetricAgreement:
    """How far each two of the metrics agree on which trials are good.

    ``correlation`` (metrics, metrics): Spearman's rank correlation over the completed trials that have both, every
    metric turned so that less is better: 1 where both put the trials into the same order, -1 where one's best is the
    other's worst. NaN where fewer than :data:`FEWEST` trials have both, where one is the same in all of these, and on
    the diagonal. ``counts`` (metrics, metrics): how many have both. ``constant`` and ``more`` metrics are left out:
    they are the same in all trials, or too many.
    """

    names: tuple[str, ...]
    correlation: NDArray[np.float64]
    counts: NDArray[np.int64]
    constant: tuple[str, ...] = ()
    more: int = 0


def metric_agreement(data: StudyData) -> MetricAgreement:
    """Of the metrics that the completed trials have, the tuned one first."""
    records = trials.with_error(data).records if data.meta.metric else data.records
    records = tuple(record for record in records if record.state is TrialState.COMPLETE)
    directions = known_directions(data.meta)
    tuned = [data.meta.metric] if data.meta.metric and records else []
    values = {
        name: [_badness(record, name, data.meta, directions) for record in records]
        for name in dict.fromkeys([*tuned, *metric_names(records)])
    }
    vary = [name for name, column in values.items() if len({value for value in column if value == value}) > 1]
    names = tuple(vary[:_MOST])
    correlation = np.full((len(names), len(names)), math.nan)
    counts = np.zeros(correlation.shape, dtype=np.int64)
    for i, j in combinations(range(len(names)), 2):
        pairs = zip(values[names[i]], values[names[j]], strict=True)
        both = [(a, b) for a, b in pairs if a == a and b == b]
        counts[i, j] = counts[j, i] = len(both)
        a, b = [one for one, _ in both], [other for _, other in both]
        if len(both) >= FEWEST and min(len(set(a)), len(set(b))) > 1:
            correlation[i, j] = correlation[j, i] = rank_correlation(a, b)
    constant = tuple(name for name in values if name not in vary)
    return MetricAgreement(names, correlation, counts, constant, len(vary) - len(names))


def _badness(record: TrialRecord, name: str, meta: StudyMeta, directions: Mapping[str, Direction]) -> float:
    """The metric's value, less where it is better; NaN where the trial has none."""
    value = record.error if name == meta.metric else record.metrics.get(name)
    if value is None:
        return math.nan
    return -value if directions.get(name) == "maximize" else value


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    return _why_nothing(data, metric_agreement(data))


def _why_nothing(data: StudyData, agreement: MetricAgreement) -> str | None:
    if not agreement.names and not agreement.constant:
        return trials.nothing_complete(data) or f"The trials have no metrics ({trials.counts_text(data.records)})."
    if len(agreement.names) < 2:
        return "There are no two metrics that differ from trial to trial, so that their orders could be compared."
    if agreement.counts.max() < FEWEST:
        words = f"at least {FEWEST} completed trials that have both metrics"
        return f"Correlations take {words} ({trials.counts_text(data.records)})."
    return None


def draw(data: StudyData, _parameters: Sequence[str] | None, _link: Any) -> Figure:
    """A cell a pair of metrics: blue if they agree, red if they contradict each other, italic if it may be chance."""
    title = f"{trials.study_title(data)} \N{EN DASH} do the metrics agree on which trials are good?"
    agreement = metric_agreement(data)
    if reason := _why_nothing(data, agreement):
        return style.text_figure(title, reason)
    directions = known_directions(data.meta)
    count = len(agreement.names)
    figure = style.new_figure(max(4.8, 2.6 + 0.55 * count), 1.7 + 0.4 * count, title)
    axes = figure.add_subplot()
    _draw_cells(axes, agreement, directions)
    scale = ScalarMappable(Normalize(-1, 1), "RdBu")
    bar = figure.colorbar(
        scale, ax=axes, label="rank correlation", fraction=0.05, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1]
    )
    bar.outline.set_visible(False)
    style.note(figure, _remarks(agreement, directions))
    return figure


def _draw_cells(axes: Axes, agreement: MetricAgreement, directions: Mapping[str, Direction]) -> None:
    axes.imshow(agreement.correlation, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(agreement.correlation):
        if row == column:
            continue
        chance = abs(value) < chance_limit(int(agreement.counts[row, column]))
        said = "\N{EN DASH}" if math.isnan(value) else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
        colour = "white" if abs(value) > 0.65 else style.INK
        slant = "italic" if chance else "normal"
        axes.text(column, row, said, color=colour, fontstyle=slant, fontsize=8, ha="center", va="center")
    labels = [style.display_name(name) + _ARROWS[directions.get(name)] for name in agreement.names]
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def chance_limit(count: int) -> float:
    """The rank correlation under which 95 % of pairs of metrics stay that have no connection, over so many trials.

    Without any, Spearman's correlation has mean 0 and variance 1 / (n - 1) (Kendall and Gibbons, Rank Correlation
    Methods, 1990, chapter 4), and is close to normal from ten trials on.
    """
    return 1.96 / math.sqrt(count - 1) if count > 1 else math.inf


def _remarks(agreement: MetricAgreement, directions: Mapping[str, Direction]) -> list[str]:
    pairs = agreement.counts[np.triu_indices(len(agreement.names), 1)]
    least, most = int(pairs.min()), int(pairs.max())
    unknown = [name for name in agreement.names if name not in directions]
    return [
        f"over {f'{least:,} to ' if least < most else ''}{style.format_count(most, 'completed trial')}",
        "1: the same order of trials, \N{MINUS SIGN}1: the opposite one",
        "arrows: which way is better" if len(unknown) < len(agreement.names) else "",
        f"in italics: as much as chance gives, \N{PLUS-MINUS SIGN}{min(1, chance_limit(most)):.2f}",
        f"no direction known, taken as better where less: {', '.join(unknown)}" if unknown else "",
        f"the same in all trials: {', '.join(agreement.constant)}" if agreement.constant else "",
        f"{style.format_count(agreement.more, 'more metric')} not shown" if agreement.more else "",
    ]
