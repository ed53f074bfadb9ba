"""What figures decide before they draw: limits, axes, cells, rows. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from figure_cases import of, study

from ptydask.analysis.figures import contour, importance, scales, slice, style, timeline, trials
from ptydask.model import TrialRecord, TrialState

# --- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "direction", "shown", "below", "above"),
    [
        ([0.06, 0.07, 0.08, 0.11], "minimize", (0.06, 0.11), 0, 0),
        ([0.06, 0.07, 0.08, 1e6], "minimize", (0.06, 0.08), 0, 1),
        ([0.06, 0.08, 0.07, 1e6, 3e5], "minimize", (0.06, 0.08), 0, 2),
        ([5.0, 4.0, 3.0, -1e6], "maximize", (3.0, 5.0), 1, 0),
        ([-1e6, 1.0, 2.0, 3.0], "minimize", (-1e6, 3.0), 0, 0),
        ([7.0, 7.0, 7.0, 7.0], "minimize", (7.0, 7.0), 0, 0),
        ([1.0, 1.0, 1.0, 1e6], "minimize", (1.0, 1.0), 0, 1),
        ([1.0, math.nan, math.inf, 2.0], "minimize", (1.0, 2.0), 0, 0),
    ],
)
def test_limits_hold_the_best_and_what_is_near_it(
    errors: list[float], direction: Any, shown: tuple[float, float], below: int, above: int
) -> None:
    """A diverged trial is cut off and counted; the best one never is."""
    found = scales.robust_limits(errors, direction)
    assert found.low < shown[0] <= shown[1] < found.high
    assert (found.below, found.above) == (below, above)
    assert found.high - found.low <= 1.13 * (shown[1] - shown[0]) or shown[0] == shown[1]


def test_errors_that_rise_by_steps_get_a_logarithmic_axis() -> None:
    """0.001 to 100 without a gap of ten is one world, drawn logarithmically; 0.06 to 0.11 is linear."""
    found = scales.robust_limits([0.001, 0.004, 0.02, 0.1, 0.8, 6.0, 40.0, 100.0], "minimize")
    assert found.log
    assert (found.below, found.above) == (0, 0)
    assert found.low == pytest.approx(0.001 / 1e5**0.06)
    assert not scales.robust_limits([0.06, 0.11], "minimize").log
    assert not scales.robust_limits([-1.0, 100.0, 50.0], "minimize").log


def test_no_values_have_limits_all_the_same() -> None:
    assert scales.robust_limits([], "minimize") == scales.AxisLimits(0.0, 1.0)


def test_outside_is_told_in_words() -> None:
    assert scales.AxisLimits(0, 1, above=3, below=1).words() == "3 trials above, 1 trial below the axis".replace(
        "above,", "above the axis,"
    )
    assert scales.AxisLimits(0, 1).words() == ""


# --- parameters --------------------------------------------------------------------------------------


def test_a_parameter_s_axis_is_its_range() -> None:
    """Scale and ends are those of the search space, and the unit PtyRAD's."""
    data = study(20)
    rotation, rate = scales.parameter_scale(data, "rotation"), scales.parameter_scale(data, "oplr")
    assert (rotation.kind, rotation.low, rotation.high, rotation.label) == ("linear", -4, 4, "rotation (°)")
    assert (rate.kind, rate.low, rate.high, rate.label) == ("log", 1e-4, 1e-1, "oplr")
    assert rate.shares(np.array([1e-4, 1e-1])).tolist() == pytest.approx([0, 1])
    assert scales.parameter_scale(study(20, engine="toy"), "rotation").label == "rotation"


def test_a_choice_has_its_places_in_the_given_order() -> None:
    """Also None is a choice; what is missing has no place, and True is not 1."""
    found = scales.parameter_scale(study(20), "optimizer")
    assert found.choices == ("Adam", "SGD", None)
    assert found.places(["SGD", None, ...]).tolist()[:2] == [1, 2]
    assert math.isnan(found.places([...])[0])
    mixed = scales.parameter_scale(of([1, 2, 3], params=[{"x": True}, {"x": 1}, {"x": "a"}]), "x")
    assert len(mixed.choices) == 3
    assert mixed.places([True, 1, "a"]).tolist() == sorted(mixed.places([True, 1, "a"]).tolist())


def test_a_parameter_outside_its_range_widens_the_axis() -> None:
    data = of([1, 2], params=[{"scale": 0.5}, {"scale": 1.0}], space=None)
    assert (scales.parameter_scale(data, "scale").low, scales.parameter_scale(data, "scale").high) == (0.5, 1.1)


def test_values_without_a_range_are_taken_as_they_are() -> None:
    """Imported trials: many decades are logarithmic, None among numbers is no number, huge integers are words."""
    decades = of([1, 2], params=[{"x": 1e-5}, {"x": 1e-1}])
    assert scales.parameter_scale(decades, "x").kind == "log"
    holes = of([1, 2, 3], params=[{"x": 1.0}, {"x": None}, {"x": 2.0}])
    assert scales.parameter_scale(holes, "x").kind == "linear"
    assert np.isnan(scales.parameter_scale(holes, "x").places([None])).all()
    assert scales.parameter_scale(of([1], params=[{"x": 10**400}]), "x").kind == "categorical"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1e-4, 1e-1, [1e-4, 1e-3, 1e-2, 1e-1]), (0.05, 0.5, [0.05, 0.1, 0.2, 0.5]), (1e-9, 1e9, None)],
)
def test_ticks_of_a_logarithmic_axis(low: float, high: float, ticks: list[float] | None) -> None:
    found = scales.log_ticks(low, high)
    assert 3 <= len(found) <= 8
    assert ticks is None or found == pytest.approx(ticks)


def test_names_are_shown_letter_by_letter() -> None:
    """No formulas, no control characters, and of a long name both ends."""
    assert style.display_name("a_b$\\alpha$") == r"a_b\$\alpha\$"
    assert style.display_name("a\n\x1b[31m") == "a ?[31m"
    assert style.display_name("x" * 90 + "end") == "x" * 17 + "…" + "x" * 6 + "end"
    assert style.display_name("x" * style.NAME_LENGTH) == "x" * style.NAME_LENGTH


# --- decisions of single figures -----------------------------------------------------------------------


def test_best_so_far_goes_the_study_s_way() -> None:
    errors = np.array([3.0, 4.0, 1.0, 2.0])
    assert trials.best_so_far(errors, "minimize").tolist() == [3, 3, 1, 1]
    assert trials.best_so_far(errors, "maximize").tolist() == [3, 4, 4, 4]


def test_a_cell_has_the_best_of_its_trials() -> None:
    x, y, errors = np.array([0.2, 0.3, 1.5]), np.array([0.2, 0.3, 0.4]), np.array([5.0, 4.0, 3.0])
    edges = np.array([0.0, 1.0, 2.0])
    found = contour.best_per_cell(x, y, errors, edges, edges, "minimize")
    assert found[0, 0] == 4
    assert contour.best_per_cell(x, y, errors, edges, edges, "maximize")[0, 0] == 5
    assert found[1, 0] == 3
    assert np.isnan(found[:, 1]).all()


def test_stepped_values_have_a_cell_each() -> None:
    data = study(20)
    found = scales.parameter_scale(data, "scale")
    edges = contour.cell_edges(found, np.array([0.9, 1.1]), scales.range_step(data.meta, found))
    assert edges is not None
    assert edges.tolist() == pytest.approx([0.89 + 0.02 * i for i in range(12)])
    assert contour.cell_edges(found, np.array([0.91]), 0.02) is None
    assert contour.cell_edges(scales.parameter_scale(data, "rotation"), np.array([0.0]), None) is None


def test_the_envelope_is_the_best_of_each_part() -> None:
    found = scales.ParameterScale("x", "x", "linear", 0.0, 1.0)
    x, best = slice.envelope(found, np.array([0.0, 0.01, 0.5, 0.99]), np.array([3.0, 2.0, 5.0, 1.0]), "minimize")
    assert (x.tolist(), best.tolist()) == ([0.01, 0.5, 0.99], [2.0, 5.0, 1.0])


def bar(begin: float, end: float, worker: str = "0", host: str = "a") -> timeline.TrialBar:
    return timeline.TrialBar(TrialRecord(0, TrialState.COMPLETE, 1.0, {}), host, worker, begin, end)


def test_a_long_pause_is_cut_out() -> None:
    """A week between two runs becomes a mark; the minutes between trials stay."""
    moved, pauses = timeline.without_pauses([bar(0, 100), bar(110, 200), bar(604800, 604900)])
    assert [(b.begin, b.end) for b in moved[:2]] == [(0, 100), (110, 200)]
    assert moved[2].begin == pytest.approx(200 + 0.02 * 290)
    assert moved[2].end - moved[2].begin == pytest.approx(100)
    assert [(round(p.at, 1), p.seconds) for p in pauses] == [(202.9, 604600)]


def test_rows_are_workers_by_host() -> None:
    """node2 comes before node10; workers that follow each other share rows once there are too many."""
    found = [bar(0, 1, "0", "node10"), bar(0, 1, "1", "node2"), bar(0, 1, "0", "node2")]
    assert timeline.assign_rows(found) == ([("node2", "0"), ("node2", "1"), ("node10", "0")], [2, 1, 0])
    many = [bar(10 * i, 10 * i + 9, str(i)) for i in range(300)]
    rows, places = timeline.assign_rows(many)
    assert len(rows) == 1
    assert set(places) == {0}


def test_busy_counts_the_workers() -> None:
    """A worker that ends as another begins is not counted twice."""
    moments, count = timeline.busy_workers([bar(0, 10), bar(5, 10, "1"), bar(10, 20)])
    assert moments.tolist() == [0, 5, 10, 10, 10, 20]
    assert count.tolist() == [1, 2, 1, 0, 1, 0]


def test_importance_finds_what_matters() -> None:
    """A parameter without effect comes last; the shares add up to 1."""
    random = np.random.default_rng(0)
    params: list[dict[str, Any]] = [{"much": random.uniform(), "none": random.uniform()} for _ in range(100)]
    found = importance.param_importances(of([float(p["much"] ** 2) for p in params], params=params))
    assert list(found) == ["much", "none"]
    assert sum(found.values()) == pytest.approx(1)
    assert found["much"] > 0.8


def begun(number: int, second: int, **changes: Any) -> TrialRecord:
    started = changes.pop("started", f"2025-01-01T00:00:{second:02d}+00:00")
    return TrialRecord(number, TrialState.COMPLETE, 1.0, {}, started=started, seconds=10.0, worker="0", **changes)


def test_a_trial_that_was_tried_again_does_not_lie_on_the_next() -> None:
    """Its time is that of all attempts, and only the last one's begin is known."""
    found = timeline.trial_bars([begun(0, 0), begun(1, 20, attempt=2), begun(2, 24)])
    assert [(bar.begin, bar.end) for bar in found] == [(0, 10), (20, 24), (24, 34)]


def test_the_time_from_first_start_to_last_end_needs_starts() -> None:
    """None without; a moment without a time zone is none."""
    assert timeline.wall_seconds([begun(0, 0, started="")]) is None
    assert timeline.wall_seconds([begun(0, 0, started="2025-01-01T00:00:00")]) is None
    assert timeline.wall_seconds([begun(0, 0), begun(3, 9)]) == 19
