"""Figures of the metrics and of confirmed trials: what is on them, and what they decide before they draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from figure_cases import confirmed, meta, of, ring
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from ptydask.analysis import figures
from ptydask.analysis.data import StudyData
from ptydask.analysis.figures import frc, metrics, profile, scales
from ptydask.analysis.good_region import find_good_region
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


def test_metrics_that_are_alike_where_both_are_known_have_no_correlation() -> None:
    data = judged([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], {"entropy": [1.0] * 5 + [None], "data_loss": [None, *[2.0] * 4, 3.0]})
    agreement = metrics.metric_agreement(data)
    assert agreement.names == ("loss", "data_loss")
    assert agreement.correlation[0, 1] == pytest.approx(2**-0.5)
    apart = judged([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], {"a": [1.0] * 5 + [2.0], "b": [1.0, 2.0, 3.0, 4.0, 5.0, None]})
    assert math.isnan(metrics.metric_agreement(apart).correlation[1, 2])


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


# --- trials that were confirmed --------------------------------------------------------------------------


def bars(figure: Figure, axes: int = 0) -> dict[float, tuple[float, float]]:
    """Where each error bar stands -> its ends."""
    (lines,) = [c for c in figure.axes[axes].collections if isinstance(c, LineCollection)]
    return {float(line[0][0]): (float(line[0][1]), float(line[1][1])) for line in lines.get_segments()}


def squares(figure: Figure, axes: int = 0) -> dict[float, float]:
    """Where each confirmed trial's mean stands -> its height."""
    drawn = [c for c in figure.axes[axes].collections if isinstance(c, PathCollection) and c.get_facecolor().all()]
    return {float(x): float(y) for c in drawn for x, y in c.get_offsets() if c.get_zorder() == 7}


REPEATED = {1: [0.20, 0.22, 0.24], 2: [0.25, math.nan]}


def test_confirmed_trials_have_a_mean_and_a_bar_of_one_deviation() -> None:
    """In the history at their number, in a slice at their value; one repeat, as the other failed, has no bar."""
    data = confirmed(of([0.5, 0.2, 0.21, 0.4], params=[{"x": 10.0 * i} for i in range(4)]), REPEATED)
    for kind, scale in (("history", 1), ("slice", 10)):
        figure = figures.draw(kind, data)
        assert squares(figure) == {1.0 * scale: pytest.approx(0.22), 2.0 * scale: pytest.approx(0.25)}
        assert bars(figure)[scale] == (pytest.approx(0.20), pytest.approx(0.24))
        assert len(set(bars(figure)[2 * scale])) == 1
        assert "squares: mean ± standard deviation with other seeds" in texts(figure)


def test_by_another_metric_the_bars_are_of_that_one() -> None:
    """The repeats have twice the error as their loss: mean, bar and profile by the loss are of it."""
    data = judged([0.5, 0.2, 0.4], {"loss": [0.9, 0.41, 0.8]}, metric="heldout")
    by_loss = confirmed(data, {1: [0.2, 0.3], 2: [0.4, math.nan]}).by_metric("loss")
    figure = figures.draw("history", by_loss)
    assert squares(figure) == {1.0: pytest.approx(0.5), 2.0: pytest.approx(0.8)}
    assert by_loss.confirmation is not None
    assert by_loss.confirmation.trials == (1, 2)
    assert squares(figures.draw("profile", by_loss)) == squares(figure)


def test_nothing_is_said_of_other_seeds_where_there_are_none() -> None:
    for kind in ("history", "slice"):
        assert "other seeds" not in texts(figures.draw(kind, of([1.0, 2.0, 3.0])))


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_bar_sets_the_axis_unless_it_is_worlds_away(direction: Direction) -> None:
    """A bar beyond all errors is seen whole; one repeat that diverged flattens nothing."""
    errors = [0.5, 0.52, 0.56, 0.6]
    near = figures.draw("history", confirmed(of(errors, direction=direction), {0: [0.42, 0.66]})).axes[0].get_ylim()
    assert near[0] < min(bars_of(0.42, 0.66)) < max(bars_of(0.42, 0.66)) < near[1]
    wrong = 1e6 if direction == "minimize" else -1e6
    far = figures.draw("history", confirmed(of(errors, direction=direction), {0: [0.5, wrong], 1: [0.51, 0.53]}))
    low, high = far.axes[0].get_ylim()
    assert high - low < 1


def bars_of(*values: float) -> tuple[float, float]:
    return float(np.mean(values) - np.std(values, ddof=1)), float(np.mean(values) + np.std(values, ddof=1))


def test_repeats_of_trials_that_are_not_there_are_left_out() -> None:
    """A table without some trials, as a filter makes it, draws the others."""
    data = confirmed(of([0.5, 0.2, 0.21]), {1: [0.2, 0.3], 9: [0.1, 0.2]})
    assert squares(figures.draw("history", data)).keys() == {1.0}
    none = confirmed(of([0.5, 0.2]), {1: [math.nan, math.nan]})
    assert not squares(figures.draw("history", none))


# --- Fourier rings --------------------------------------------------------------------------------------


def test_each_confirmed_trial_has_its_ring() -> None:
    """The best mean first, a dot at the half-bit line, the resolution in words; the line itself is dashed, once."""
    data = confirmed(of([0.2, 0.21, 0.3]), {0: [0.3, 0.31], 1: [0.2, 0.22]}, {0: ring(0.5), 1: ring(0.7), 7: ring(0.1)})
    figure = figures.draw("frc", data)
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    (first, second) = [label for label in lines if label.startswith("trial")][::-1]
    assert first.startswith(f"trial 1: {ring(0.7).resolution:.3g} Å, area {ring(0.7).area:.2f}")
    assert second.startswith("trial 0: ")
    assert lines[first].get_ydata().tolist() == ring(0.7).correlation.tolist()
    assert [line.get_linestyle() for line in figure.axes[0].lines].count("--") == 1
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert sorted(dots) == pytest.approx([ring(0.5).crossing, ring(0.7).crossing])
    assert figure.axes[0].get_xlabel() == "spatial frequency (1/Å)"
    assert figure.axes[0].get_legend().get_texts()[-1].get_text() == "half-bit line"


def test_a_ring_that_never_falls_has_a_bound_for_a_resolution() -> None:
    data = confirmed(of([0.2]), {0: [0.3, 0.31]}, {0: ring(2.0, unit="m")})
    assert "trial 0: better than 0.4 m, area 1.00" in texts(figures.draw("frc", data))


def test_images_of_other_sizes_have_a_half_bit_line_each() -> None:
    data = confirmed(of([0.2, 0.3]), {0: [0.3], 1: [0.4]}, {0: ring(0.5), 1: ring(0.5, pixels=48)})
    axes = figures.draw("frc", data).axes[0]
    assert [line.get_linestyle() for line in axes.lines].count("--") == 2
    assert [text.get_text() for text in axes.get_legend().get_texts()].count("half-bit line") == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (StudyData(meta(), ()), "No trial has ended"),
        (of([0.2]), "No trial was confirmed"),
        (confirmed(of([0.2]), {0: [0.3]}), "confirmed without halves"),
        (confirmed(of([0.2]), {}), "confirmed without halves"),
    ],
)
def test_no_rings_say_why(data: StudyData, words: str) -> None:
    assert words in str(frc.lacks(data))
    assert words in texts(figures.draw("frc", data))


# --- the profile ------------------------------------------------------------------------------------------


def profile_of(data: StudyData, name: str) -> list[int]:
    return [record.number for record in profile.best_at_values(data, scales.parameter_scale(data, name))]


def test_the_profile_is_the_best_trial_at_each_value() -> None:
    """Of a stepped range and of a choice; rising, the earlier trial on a tie, no pruned one, maximised as well."""
    params: list[dict[str, Any]] = [{"n": n, "how": how} for n, how in zip([3, 1, 2, 1, 2, 2], "ababba", strict=True)]
    space = {"n": {"name": "IntDistribution", "attributes": {"low": 1, "high": 3, "step": 1, "log": False}}}
    data = of([0.5, 0.4, 0.3, 0.2, 0.3, 0.1], params=params, space=space)
    assert profile_of(data, "n") == [3, 5, 0]
    assert profile_of(data, "how") == [5, 3]
    pruned = replace(data, records=(*data.records[:5], replace(data.records[5], state=TrialState.PRUNED)))
    assert profile_of(pruned, "n") == [3, 2, 0]
    assert profile_of(replace(data, meta=meta({}, direction="maximize")), "n") == [1, 2, 0]


def test_of_a_range_without_steps_it_is_the_best_of_each_part() -> None:
    """Else every trial would be the best at its own value: 25 trials have five parts."""
    random = np.random.default_rng(3)
    params = [{"x": float(random.uniform())} for _ in range(25)]
    errors = [(p["x"] - 0.4) ** 2 for p in params]
    data = of(
        errors, params=params, space={"x": {"name": "FloatDistribution", "attributes": {"low": 0.0, "high": 1.0}}}
    )
    chosen = profile_of(data, "x")
    assert len(chosen) == 5
    assert int(np.argmin(errors)) in chosen
    shown = [params[i]["x"] for i in chosen]
    assert shown == sorted(shown)


def test_what_is_as_good_within_luck_is_shaded() -> None:
    """Trials 2 to 4 are within luck of the best: their values, the bound, and the width in words."""
    errors = [0.9, 0.7, 0.501, 0.5, 0.502, 0.8]
    params: list[dict[str, Any]] = [{"n": i, "how": "abcbcb"[i], "off": i % 2} for i in range(6)]
    data = confirmed(of(errors, params=params), {3: [0.51, 0.52, 0.515], 2: [0.512, 0.519, 0.516]})
    assert data.confirmation is not None
    region = find_good_region(data.confirmation)
    assert region is not None
    assert set(region.trials) == {2, 3, 4}
    figure = figures.draw("profile", data)
    words = [axes.get_title(loc="left") for axes in figure.axes]
    assert words == ["within luck: 2 to 4", "within luck: b or c", "within luck: all that was tried"]
    spans = [[(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches] for axes in figure.axes]
    assert spans[0] == [(2.0, 4.0)]
    assert [low for low, _ in sorted(spans[1])] == pytest.approx([0.6, 1.6])
    dashed = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert dashed == [region.bound]
    assert "where these 3 trials lie" in texts(figure)


def test_a_profile_without_a_confirmation_says_how_to_get_one() -> None:
    figure = figures.draw("profile", of([0.3, 0.2, 0.4]))
    assert "ptydask confirm" in texts(figure)
    assert not figure.axes[0].patches


def test_a_profile_of_repeats_that_tell_no_luck_does_not_ask_for_them_again() -> None:
    figure = figures.draw("profile", confirmed(of([0.3, 0.2, 0.4]), {1: [0.2, 0.2], 0: [0.3, 0.3]}))
    assert "luck is not known" in texts(figure)
    assert "ptydask confirm" not in texts(figure)


def test_a_region_that_is_one_value_is_seen() -> None:
    """A clear winner: no width, but a line at its value."""
    data = confirmed(of([0.9, 0.1, 0.8]), {1: [0.1, 0.101, 0.102], 2: [0.8, 0.801, 0.802]})
    figure = figures.draw("profile", data)
    (patch,) = figure.axes[0].patches
    assert "1 trial lie" not in texts(figure)
    assert "where it lies" in texts(figure)
    assert (patch.get_x(), patch.get_width()) == (1.0, 0.0)
    assert patch.get_linewidth() > 0
