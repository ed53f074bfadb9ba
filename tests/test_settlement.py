"""Who leads the search of a study, and when its optimum is known well enough to end it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import store_cases as cases

import ptydask
from ptydask import config, proposals
from ptydask.driver import settlement
from ptydask.driver.prepare import complete_plan
from ptydask.driver.run_progress import RunProgress
from ptydask.formatting import uncertain_text
from ptydask.model import Optimum, StudyPlan, TrialRecord
from ptydask.progress.plan_text import plan_lines
from ptydask.trial.search_choice import choose_search

Params = Callable[..., Path]


HERE = Optimum({"scale": 1.03871, "rotation": -1.5}, {"scale": 0.00123}, trial=1, is_settled=True)


@pytest.fixture
def plan(toy_params: Params) -> StudyPlan:
    """Scale and rotation tuned, both with slopes."""
    made = config.load(toy_params())
    return replace(made, iterations=3, differentiable=frozenset({"rotation", "scale", "shear"}))


def settled_after(count: int) -> Any:
    """A stand-in for ``locate_optimum``, and the numbers of the trials that it was asked with."""
    asked: list[list[int]] = []

    def locate(records: Sequence[TrialRecord], _space: Any, _direction: str) -> Optimum:
        asked.append([record.number for record in records])
        return replace(HERE, is_settled=len(records) >= count)

    return locate, asked


# --- who leads ---------------------------------------------------------------------------------------------


def test_the_slopes_lead_where_a_tuned_parameter_has_some(plan: StudyPlan) -> None:
    """In the plan's order; who else has a turn, and how to have it otherwise."""
    choice = choose_search(replace(plan, differentiable=frozenset({"scale"})))
    assert choice.informed
    why = "slopes of scale lead, RandomSampler has a turn now and then (--search file: RandomSampler alone)"
    assert choice.why == why
    assert choose_search(plan).why == why.replace("scale lead", "scale, rotation lead")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"space": {}}, "nothing is tuned"),
        ({"exhaustive": True}, "every point of the grid once"),
        ({"differentiable": frozenset({"shear"})}, "loss has no slopes in scale, rotation"),
        ({"search": "file"}, "alone, as was asked for; --search auto: slopes of scale, rotation lead"),
    ],
)
def test_else_the_files_sampler_is_alone(plan: StudyPlan, changed: dict[str, Any], why: str) -> None:
    """With the reason."""
    choice = choose_search(replace(plan, **changed))
    assert (choice.informed, choice.why) == (False, why)


def test_the_plan_says_who_and_why(plan: StudyPlan) -> None:
    """And that the study may end before its trials do."""
    lines = plan_lines(replace(plan, until_settled=True))
    start = lines.index("error     loss after 3 iterations, minimized until its optimum is settled")
    said = " ".join(" ".join(lines[start + 1 :]).split())
    assert said.startswith(f"search {choose_search(plan).why} no pruning, seed 0")
    assert any("after 1 iteration," in line for line in plan_lines(replace(plan, until_settled=True, iterations=1)))
    alone = plan_lines(replace(plan, exhaustive=True))
    assert "search    RandomSampler, no pruning, seed 0 (every point of the grid once)" in alone


# --- when it is settled ------------------------------------------------------------------------------------


def test_settled_is_a_matter_of_the_records(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, with slopes, and in the order of the trials, however they were recorded."""
    locate, asked = settled_after(2)
    monkeypatch.setattr(proposals, "locate_optimum", locate)
    records = [cases.record(number) for number in (4, 0)]
    until = replace(plan, until_settled=True)
    assert settlement.settled_optimum(records, plan) is None
    assert settlement.settled_optimum(records, replace(until, differentiable=frozenset())) is None
    assert settlement.settled_optimum(records[:1], until) is None
    assert settlement.settled_optimum(records, until) == HERE
    assert asked == [[4], [0, 4]]


def test_the_optimum_is_located_once_a_trial(plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often the driver asks; and a study that is settled is over."""
    locate, asked = settled_after(2)
    monkeypatch.setattr(proposals, "locate_optimum", locate)
    crew = SimpleNamespace(setup=SimpleNamespace(plan=replace(plan, until_settled=True)))
    store = SimpleNamespace(records={0: cases.record(0)})
    progress = RunProgress(60, crew, store, None, None, None)  # type: ignore[arg-type]
    assert not progress.over()
    store.records[1] = cases.record(1)
    assert progress.over()
    assert progress.complete()
    assert progress.early_end.settled == HERE
    assert asked == [[0], [0, 1]]


def test_what_is_said_of_it() -> None:
    """Where the optimum is, as exactly as it is known, and what was left."""
    where = "optimum at scale 1.0387 +- 0.0012, rotation -1.5"
    assert settlement.settled_text(HERE, 14, 60) == f"settled by 14 trials: {where}; 46 of 60 trials were not run"
    assert settlement.settled_text(HERE, 60, 60) == f"settled by 60 trials: {where}; all 60 trials were run"


@pytest.mark.parametrize(
    ("value", "deviation", "text"),
    [
        (1.03871, 0.00123, "1.0387 +- 0.0012"),
        (-1.5, 0.26, "-1.50 +- 0.26"),
        (2310.4, 120.0, "2310 +- 120"),
        (1.0, 0.0, "1"),
        (1.0, float("inf"), "1"),
        (1.2e-10, 3e-11, "1.2e-10 +- 3e-11"),
    ],
)
def test_a_value_and_its_deviation(value: float, deviation: float, text: str) -> None:
    """Two digits of the deviation; none where it is not known."""
    assert uncertain_text(value, deviation) == text


@pytest.mark.slow
def test_a_settled_study_ends(
    toy_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says where the optimum is and what it left, and has nothing to do when asked again; else it goes on."""
    locate, _ = settled_after(4)
    monkeypatch.setattr(proposals, "locate_optimum", locate)
    monkeypatch.setattr(settlement, "parameters_with_slopes", lambda _plan: ("scale",))
    params, results = toy_params(n_trials=40, sleep=0.02), tmp_path / "s.h5"
    arguments: dict[str, Any] = {"engine": "toy", "cluster": "local", "results": results, "trials": 40}
    recorded = len(ptydask.run(params, until_settled=True, workers=2, **arguments))
    assert 4 <= recorded <= 6
    said = capsys.readouterr().err.splitlines()
    text = settlement.settled_text(HERE, recorded, 40)
    assert text in said
    before = results.read_bytes()
    assert len(ptydask.run(params, until_settled=True, workers=2, **arguments)) == recorded
    assert f"{text}: nothing left to do in {results}" in capsys.readouterr().err
    assert results.read_bytes() == before
    assert len(ptydask.run(params, workers=2, **{**arguments, "trials": recorded + 1})) == recorded + 1


def test_nothing_settles_without_slopes(toy_params: Params) -> None:
    """The plan says so beforehand."""
    overrides = config.Overrides(
        engine="toy", until_settled=True, settings=(("hypertune_params.error_metric", "contrast"),)
    )
    notice = "contrast has no slopes in any tuned parameter, so nothing can settle: all trials are run"
    assert notice in complete_plan(toy_params(), overrides).notices
