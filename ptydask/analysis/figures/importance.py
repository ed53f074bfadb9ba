"""``importance``: which parameters decide whether a trial is among the best tenth (PED-ANOVA)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from matplotlib.figure import Figure

from ptydask.analysis import sweep
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import scales, style, trials
from ptydask.analysis.rehydrate import to_optuna_study

FEWEST = 10
"""Completed trials below which importances are chance."""
_FEW = 50
_MOST = 25


def lacks(data: StudyData) -> str | None:
    """Why there is nothing to draw; None where there is."""
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
    """Parameter -> its importance, the largest first; they add up to 1. {} where :func:`lacks` says why.

    PED-ANOVA (Watanabe, Bansal, Hutter, IJCAI 2023) asks how the best tenth of the trials is spread differently from
    all of them. It goes by ranks, so that a diverged trial counts as bad and no more than that.
    """
    if lacks(data):
        return {}
    try:
        study = to_optuna_study(StudyData(data.meta, trials.with_error(data).records))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            importances = optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, OverflowError):  # values that Optuna has no number for
        return {}
    vary = {parameter.name for parameter in scales.select_parameters(data, None)}
    return {name: float(share) for name, share in importances.items() if name in vary}


def draw(data: StudyData, parameters: Sequence[str] | None, _link: Any) -> Figure:
    """One bar a parameter, the most important on top."""
    metric = style.display_name(data.meta.metric)
    title = f"{trials.study_title(data)} \N{EN DASH} importance of the parameters for {metric}"
    if reason := lacks(data):
        return style.text_figure(title, reason)
    complete = len(trials.with_error(data))
    importances = {
        name: share for name, share in param_importances(data).items() if parameters is None or name in parameters
    }
    if not importances:
        return style.text_figure(title, "No importances can be told for these parameters.")
    drawn = list(importances.items())[:_MOST]
    figure = style.new_figure(6.0, 1.2 + 0.3 * len(drawn), title)
    axes = figure.add_subplot()
    places = np.arange(len(drawn))[::-1]
    shares = [share for _, share in drawn]
    axes.barh(places, shares, height=0.62, color=style.BLUE)
    for place, share in zip(places, shares, strict=True):
        axes.text(share + 0.012 * max(shares), place, f"{share:.2f}", va="center", fontsize=8)
    axes.set_yticks(places, [style.display_name(name) for name, _ in drawn])
    axes.set_xlim(0, 1.12 * max(shares))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("importance (PED-ANOVA, the shares of all parameters add up to 1)")
    few = f"{style.format_count(complete, 'completed trial')}: few to rely on" if complete < _FEW else ""
    omitted = len(importances) - len(drawn)
    style.note(
        figure, [few, f"{style.format_count(omitted, 'parameter')} of less importance not shown" if omitted else ""]
    )
    return figure
