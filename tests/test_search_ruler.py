"""The ruler of benchmarks/search.py: what it counts, and that its tables are what the demo gives."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptydask.distributions import FloatRange
from ptydask.model import Budget, ComponentSpec, Point, Scalar, SourceFile, StudyPlan, TrialRecord, TrialState

FOLDER = Path(__file__).parents[1] / "benchmarks"
TRUTH = {"scale": 1.04, "rotation": -1.5}
PLAN = StudyPlan(
    name="ruler",
    source=SourceFile(Path("params.yaml"), "", "ptyrad"),
    engine="ptyrad",
    config={},
    space={"scale": FloatRange(0.9, 1.1, 0.02), "rotation": FloatRange(-4, 4, 0.5)},
    metric="loss",
    direction="minimize",
    sampler=ComponentSpec("TPESampler"),
    pruner=ComponentSpec("HyperbandPruner", {"min_resource": 2, "reduction_factor": 2}),
    budget=Budget(60, total=True),
    storage=None,
    results=Path("ruler.h5"),
    seed=0,
    iterations=6,
    differentiable=frozenset(TRUTH),
    points=(Point({"scale": 1.0, "rotation": 0.0}, "start"),),
)


@pytest.fixture
def ruler(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The modules of the benchmark."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("earlier", "search", "search_courses", "search_problems", "search_replay", "staged")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture
def problem(ruler: SimpleNamespace) -> Any:
    return ruler.search_problems.Problem("ruler", "a bowl", TRUTH, 6, lambda folder: folder)


class Bowl:
    """Courses whose loss is lowest at the truth; every trial falls alike."""

    def __init__(self, ruler: SimpleNamespace) -> None:
        self.ruler = ruler

    def course(self, params: Mapping[str, Scalar]) -> Any:
        off = {name: float(params[name] or 0) - true for name, true in TRUTH.items()}
        height = 0.05 + 5 * off["scale"] ** 2 + 0.002 * off["rotation"] ** 2
        slopes = {"scale": (10 * off["scale"],) * 6, "rotation": (0.004 * off["rotation"],) * 6}
        return self.ruler.search_courses.Course(tuple(height + 0.1 / step for step in range(1, 7)), slopes)


def replay(ruler: SimpleNamespace, problem: Any, search: str, **options: Any) -> Any:
    searches = ruler.search_replay.SEARCHES
    return ruler.search_replay.replay_study(problem, PLAN, Bowl(ruler), searches[search], **options)


def test_iterations_of_one_worker_are_those_of_its_trials(ruler: SimpleNamespace, problem: Any) -> None:
    """Where nothing is pruned each trial costs a whole one, and the study ends with the one at the truth."""
    study = replay(ruler, problem, "random", seed=3)
    found = study.found(problem, PLAN)
    assert found is not None
    assert study.spent == found.spent == 6 * found.trials == 6 * len(study.points)
    assert abs(found.params["scale"] - 1.04) <= 0.0201
    assert abs(found.params["rotation"] + 1.5) <= 0.501
    assert study.points[0] == "[('rotation', 0.0), ('scale', 1.0)]"


def test_trials_under_way_and_pruned_ones_count_for_what_they_computed(ruler: SimpleNamespace, problem: Any) -> None:
    """With more workers than one, all that any of them did until then; with Hyperband, less than whole trials."""
    several = replay(ruler, problem, "random", seed=3, workers=8)
    assert several.spent % 6
    assert 6 * (several.improvements[-1].trials - 8) < several.spent < 6 * several.improvements[-1].trials
    pruned = replay(ruler, problem, "optuna", seed=3)
    assert pruned.spent < 6 * pruned.improvements[-1].trials


def test_one_seed_one_study(ruler: SimpleNamespace, problem: Any) -> None:
    """Replays are the same whenever they are made; another seed gives another one."""
    again = [replay(ruler, problem, "file", seed=seed, workers=3).points for seed in (5, 5, 6)]
    assert again[0] == again[1] != again[2]


def test_slopes_lead_to_the_truth(ruler: SimpleNamespace, problem: Any) -> None:
    """The replayed search hears of the slopes as a run's does, and needs fewer iterations for them."""
    needed = {name: replay(ruler, problem, name, seed=1).spent for name in ("auto", "optuna")}
    assert needed["auto"] <= 6 * 8 < needed["optuna"]


def test_a_study_is_cut_off(ruler: SimpleNamespace, problem: Any) -> None:
    """One that does not come to the truth ends at the limit, and is not found."""
    nowhere = replace(problem, truth={"scale": 5.0})
    study = replay(ruler, nowhere, "random", seed=0, most=30)
    assert (study.spent, study.found(nowhere, PLAN)) == (30, None)


def test_a_study_to_its_own_end(ruler: SimpleNamespace, problem: Any) -> None:
    """All of its trials, past the truth; or until it is over, with what was under way finished."""
    whole = replay(ruler, problem, "random", seed=0, workers=2, trials=9, over=lambda _: False)
    assert (len(whole.records), len(whole.points), whole.spent) == (9, 9, 54)
    assert all(record.relative_decrease > 0 and record.gradient.keys() == TRUTH.keys() for record in whole.records)
    over = replay(ruler, problem, "random", seed=0, workers=2, trials=9, over=lambda study: len(study.records) >= 3)
    assert (len(over.records), len(over.points)) == (4, 4)


def test_a_second_data_set_begins_where_the_first_ended(ruler: SimpleNamespace, problem: Any) -> None:
    """With the first one's results its first trial is at the truth; without them it is as long as the first was."""
    data = ruler.earlier.DataSet(problem, PLAN, Bowl(ruler))
    row = ruler.earlier.measure_seed(data, data, seed=1, workers=1, trials=20)
    assert row.following == 6 < row.first == row.alone


def test_the_second_data_set(ruler: SimpleNamespace) -> None:
    """Another specimen has other tilts and thickness, where they are the problem's; the scan is the same."""
    problems = ruler.search_problems.PROBLEMS
    truth, other = problems["geometry7"].truth, ruler.earlier.second_problem(problems["geometry7"], "other").truth
    assert {name for name, value in truth.items() if other[name] != value} == {"tilt_y", "tilt_x", "dz"}
    assert ruler.earlier.second_problem(problems["affine4"], "other").truth == problems["affine4"].truth


def test_stages_are_counted_by_what_they_found_together(ruler: SimpleNamespace, problem: Any) -> None:
    """When the values found were first at the truth, and since when for good; a later stage may lose it."""
    outcome = ruler.staged.Outcome()
    for spent, rotation in ((5.0, 0.0), (9.0, -1.5), (12.0, 0.0), (14.0, -1.0), (20.0, -2.0)):
        ruler.staged.note(outcome, problem, PLAN.space, {"scale": 1.04, "rotation": rotation}, spent)
    assert (outcome.there, outcome.stays) == (9.0, 14.0)
    ruler.staged.note(outcome, problem, PLAN.space, {"scale": 1.0, "rotation": -1.5}, 25.0)
    assert (outcome.there, outcome.stays) == (9.0, None)


@pytest.mark.parametrize(
    ("value", "entry", "ends"),
    [
        (1.0, {"within": "2 steps"}, (0.96, 1.04, 0.02)),
        (1.08, {"within": "2 steps"}, (1.04, 1.1, 0.02)),
        (0.9, {"within": "1 step"}, (0.9, 0.92, 0.02)),
        (1.0, {"within": "1 step", "step": 0.01}, (0.98, 1.02, 0.01)),
    ],
)
def test_ranges_about_the_best(
    ruler: SimpleNamespace, value: float, entry: dict[str, Any], ends: tuple[float, float, float]
) -> None:
    """On the grid that has the best value on it, within the file's range."""
    scale = PLAN.space["scale"]
    assert tuple(ruler.staged.narrow(scale, scale, value, entry).values()) == pytest.approx(ends)


def test_a_run_is_counted_from_its_records(ruler: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which trials ended; one that was under way counts with its share, a part of the scan as that."""

    def record(number: int, second: int, error: float, state: TrialState = TrialState.COMPLETE) -> TrialRecord:
        return TrialRecord(
            number, state, error, {"scale": 1.0 + number / 100}, iterations=8.0, seconds=10.0,
            started=f"2026-01-01T00:00:{second:02}+00:00",
        )  # fmt: skip

    records = [record(0, 0, 0.5), record(1, 5, 0.4), record(2, 10, 0.1, TrialState.PRUNED), record(3, 15, 0.45)]
    opened = nullcontext(SimpleNamespace(results=SimpleNamespace(records=lambda: records)))
    monkeypatch.setattr(ruler.search.ptydask, "open", lambda _: opened)
    study = ruler.search.count_run(Path("study.h5"))
    assert [(best.spent, best.trials, best.loss) for best in study.improvements] == [(12.0, 3, 0.5), (20.0, 4, 0.4)]
    assert study.spent == 32


def test_the_demos_table_is_of_its_grid(ruler: SimpleNamespace) -> None:
    """Every point of the demo's grid with its whole course; the lowest loss is at the truth, where the slopes turn."""
    with np.load(FOLDER / "tables" / "demo.npz") as table:
        losses, slope = table["losses"], table["slope/rotation"][..., -1]
        assert table["scale"].tolist() == pytest.approx(np.arange(0.9, 1.101, 0.02).tolist())
        assert table["rotation"].tolist() == np.arange(-4, 4.1, 0.5).tolist()
        assert losses.shape == (11, 17, 12)
        assert np.isfinite(losses).all()
        best = np.unravel_index(losses[..., -1].argmin(), (11, 17))
        assert abs(table["scale"][best[0]] - 1.04) < 0.021
        assert table["rotation"][best[1]] == -1.5
        assert (slope[7, :5] < 0).all()
        assert (slope[7, 6:] > 0).all()
    assert (FOLDER / "tables" / "demo.npz").stat().st_size < 300_000
