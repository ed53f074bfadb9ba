"""Figures of the metrics and of confirmed trials: what is on them, and what they decide before they draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from figure_cases import meta, of
from matplotlib.figure import Figure
from matplotlib.text import Text

from ptydask.analysis import figures
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import metrics
from ptydask.model import Direction, TrialState


def texts(figure: Figure) -> str:
    """All words of a figure, in one line."""
    return " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")


def judged(errors: list[float], columns: Mapping[str, Sequence[float | None]], **changes: Any) -> StudyData:
    """Completed trials with these errors, and further metrics; None where a trial lacks one."""
    data = of(errors, **changes)
    records = tuple(
        replace(record, metrics={name: value for name, column in columns.items() if (value := column[i]) is not None})
        for i, record in enumerate(data.records)
    )
    return replace(data, records=records)


# --- do the metrics agree ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "direction", "correlation"),
    [
        ("data_loss", "minimize", 1.0),
        ("contrast", "minimize", -1.0),
        ("contrast", "maximize", 1.0),
        ("sharpness", "minimize", 1.0),
        ("sharpness", "maximize", -1.0),
    ],
)
def test_metrics_agree_where_both_prefer_the_same_trials(column: str, direction: Direction, correlation: float) -> None:
    """A metric that is larger is better is turned round; one without a known direction is taken as it is."""
    values: list[float | None] = [1.0, 2.0, 4.0, 8.0, 16.0]
    agreement = metrics.metric_agreement(judged([5.0, 6.0, 7.0, 9.0, 10.0], {column: values}, direction=direction))
    assert agreement.names == ("loss", column)
    assert agreement.correlation[0, 1] == agreement.correlation[1, 0] == pytest.approx(correlation)
    assert math.isnan(agreement.correlation[0, 0])


def test_the_correlation_is_spearman_s() -> None:
    """By hand: the squared differences of the ranks add up to 4; 1 - 6 * 4 / (5 * 24) = 0.8."""
    agreement = metrics.metric_agreement(
        judged([1.0, 2.0, 3.0, 4.0, 5.0], {"entropy": [20.0, 10.0, 40.0, 30.0, 900.0]})
    )
    assert agreement.correlation[0, 1] == pytest.approx(0.8)


def test_each_pair_counts_the_trials_that_have_both() -> None:
    """One that is missing, or NaN, is left out of its own pairs alone; four trials are too few."""
    few: list[float | None] = [None, math.nan, 3.0, 2.0, 1.0, 0.0]
    most: list[float | None] = [None, 1.0, 2.0, 3.0, 4.0, math.inf]
    agreement = metrics.metric_agreement(judged([float(i) for i in range(6)], {"entropy": few, "data_loss": most}))
    index = {name: i for i, name in enumerate(agreement.names)}
    assert agreement.counts[0, index["entropy"]] == 4
    assert math.isnan(agreement.correlation[0, index["entropy"]])
    assert agreement.counts[0, index["data_loss"]] == 5
    assert agreement.correlation[0, index["data_loss"]] == 1


def test_only_completed_trials_count() -> None:
    """A pruned trial's metrics are of fewer iterations."""
    data = judged([float(i) for i in range(8)], {"entropy": [float(i) for i in range(7)] + [-1.0]})
    records = (*data.records[:7], replace(data.records[7], state=TrialState.PRUNED))
    agreement = metrics.metric_agreement(StudyData(data.meta, records))
    assert (agreement.counts[0, 1], agreement.correlation[0, 1]) == (7, 1)


def test_what_is_the_same_in_all_trials_is_named() -> None:
    data = judged([float(i) for i in range(6)], {"data_loss": [1.0 * i for i in range(6)], "position_drift": [0.0] * 6})
    assert metrics.metric_agreement(data).constant == ("position_drift",)
    assert "the same in all trials: position_drift" in texts(figures.draw("metrics", data))


def test_a_study_without_a_metric_compares_those_it_has() -> None:
    """A sweep whose trials are ranked by nothing: directions are not known, and that is said."""
    values: list[float | None] = [1.0, 2.0, 3.0, 4.0, 5.0]
    data = judged([math.nan] * 5, {"a": values, "b": values[::-1]}, metric="", engine="command")
    data = replace(data, records=tuple(replace(record, error=None) for record in data.records))
    assert metrics.metric_agreement(data).correlation[0, 1] == -1
    assert "no direction known, taken as better where less: a, b" in texts(figures.draw("metrics", data))


def test_a_cell_says_the_correlation_and_whether_it_may_be_chance() -> None:
    """With 26 trials, 0.39 is what chance gives: a weak correlation is in italics, a strong one is not."""
    random = np.random.default_rng(0)
    errors = [float(i) for i in range(26)]
    columns = {"data_loss": [e + 0.1 for e in errors], "entropy": random.normal(size=26).tolist()}
    figure = figures.draw("metrics", judged(errors, columns))
    cells = {text.get_text(): text.get_fontstyle() for text in figure.axes[0].texts}
    assert cells["+1.00"] == "normal"
    assert set(cells.values()) == {"normal", "italic"}
    assert metrics.chance_limit(26) == pytest.approx(0.392)
    said = texts(figure)
    assert "over 26 completed trials" in said
    assert "±0.39" in said


def test_many_metrics_are_cut_and_counted() -> None:
    columns: dict[str, list[float | None]] = {
        f"m{i}": [float(i * j % 7) for j in range(8)] for i in range(1, 30) if i % 7
    }
    assert "more metrics not shown" in texts(figures.draw("metrics", judged([float(i) for i in range(8)], columns)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (StudyData(meta(), ()), "No trial has ended"),
        (of([1.0, 2.0, 3.0, 4.0, 5.0]), "no two metrics"),
        (judged([1.0, 2.0], {"entropy": [1.0, 2.0]}), "at least 5 completed trials"),
        (judged([1.0] * 9, {"entropy": [1.0] * 9}), "no two metrics"),
    ],
)
def test_no_correlations_say_why(data: StudyData, words: str) -> None:
    assert words in str(metrics.lacks(data))
    assert words in texts(figures.draw("metrics", data))
