"""``importance``: which parameters decide whether a trial is among the best tenth (PED-ANOVA), and by slopes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.analysis.optimum import slope_importances
from ptydask.analysis.rank_importances import compute_ped_anova
from ptydask.model import TrialRecord

FEWEST = 10
"""Completed trials below which importances are chance."""
_FEW = 50
_MOST = 25


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
    reason = _lacks_ranks(data)
    return None if reason is None or _importances_by_slopes(data) else reason


def _importances_by_slopes(data: StudyData) -> dict[str, float]:
    """See :func:`slope_importances`; {} for a single parameter, whose share is all."""
    shares = slope_importances(data.records, data.meta)
    return shares if len(shares) > 1 else {}


def _lacks_ranks(data: StudyData) -> str | None:
    """Why the trials' ranks say nothing; None where they do."""
    if reason := trials.nothing_complete(data):
        return reason
    complete = trials.with_error(data)
    if len(complete) < FEWEST:
        return f"Importances take at least {FEWEST} completed trials ({trials.counts_text(data.records)})."
    if not scales.select_parameters(data, None):
        return "No parameter has more than one value."
    if np.ptp(complete.errors) == 0:
        return f"All completed trials have the same {sweep.error_word(data.meta)}: no parameter makes a difference."
    return None


def param_importances(data: StudyData) -> dict[str, float]:
    """Parameter -> its importance, the largest first; they add up to 1. {} where they are chance.

    PED-ANOVA (Watanabe, Bansal, Hutter, IJCAI 2023) asks how the best tenth of the trials is spread differently from
    all of them. It goes by ranks, so that a diverged trial counts as bad and no more than that.
    """
    if "ranks" not in data.importances:
        data.importances["ranks"] = _rank_importances(data)
    return dict(data.importances["ranks"])


def _rank_importances(data: StudyData) -> dict[str, float]:
    if _lacks_ranks(data):
        return {}
    # Optuna makes trials of its own of them: not of what it does not look at.
    bare = tuple(TrialRecord(r.number, r.state, r.error, r.params, {}) for r in trials.with_error(data).records)
    try:
        importances = compute_ped_anova(StudyData(data.meta, bare))
    except (ValueError, OverflowError):  # values that Optuna has no number for
        return {}
    vary = {parameter.name for parameter in scales.select_parameters(data, None)}
    return {name: share for name, share in importances.items() if name in vary}


def draw(data: StudyData, parameters: Sequence[str] | None, _link: Any) -> Figure:
    """One bar a parameter, the most important on top; a second one where trials have slopes."""
    metric = style.display_name(data.meta.metric)
    title = f"{trials.study_title(data)} \N{EN DASH} importance of the parameters for {metric}"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    complete = len(trials.with_error(data))
    kinds = {
        "PED-ANOVA": (style.BLUE, param_importances(data)),
        "mean squared slope over the range": (style.ORANGE, _importances_by_slopes(data)),
    }
    bars = {kind: (colour, shares) for kind, (colour, shares) in kinds.items() if shares}
    named = dict.fromkeys(name for _, shares in bars.values() for name in shares)
    names = [name for name in named if parameters is None or name in parameters]
    if not names:
        return style.text_figure(title, "No importances can be told for these parameters.")
    drawn = names[:_MOST]
    figure = style.new_figure(6.0, 1.2 + (0.1 + 0.2 * len(bars)) * len(drawn), title)
    axes = figure.add_subplot()
    _draw_bars(axes, bars, drawn)
    ranked = _lacks_ranks(data) is None
    few = f"{style.format_count(complete, 'completed trial')}: few to rely on" if ranked and complete < _FEW else ""
    omitted = len(names) - len(drawn)
    style.note(
        figure, [few, f"{style.format_count(omitted, 'parameter')} of less importance not shown" if omitted else ""]
    )
    return figure


def _draw_bars(axes: Axes, bars: Mapping[str, tuple[str, Mapping[str, float]]], names: Sequence[str]) -> None:
    """A group of bars for each of ``names``, the first on top; ``bars``: kind -> colour, shares by parameter."""
    height = 0.62 / len(bars)
    widest = max(share for _, shares in bars.values() for share in shares.values())
    rows = np.arange(len(names))[::-1]
    for index, (kind, (colour, shares)) in enumerate(bars.items()):
        # Where a parameter has no share, its place stays empty.
        own = [(row, shares[name]) for row, name in zip(rows, names, strict=True) if name in shares]
        places = [row + height * ((len(bars) - 1) / 2 - index) for row, _ in own]
        axes.barh(places, [share for _, share in own], height=height, color=colour, label=kind)
        for place, (_, share) in zip(places, own, strict=True):
            axes.text(share + 0.012 * widest, place, f"{share:.2f}", va="center", fontsize=8)
    axes.set_yticks(rows, [style.display_name(name) for name in names])
    axes.set_xlim(0, 1.12 * widest)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    how = next(iter(bars)) if len(bars) == 1 else "either way"
    axes.set_xlabel(f"importance ({how}; the shares add up to 1)")
    if len(bars) > 1:
        style.legend(axes)
