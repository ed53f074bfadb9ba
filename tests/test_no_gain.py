"""A study that ends once its last trials have made its best error no better."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ptydask import config, engines
from ptydask.driver import execute, provenance
from ptydask.driver.contract import RunOutcome
from ptydask.driver.prepare import RunRequest, complete_plan, prepare_plan
from ptydask.driver.run_progress import RunProgress
from ptydask.driver.settlement import EarlyEnd, gain_text, unbeaten_text, unbeaten_trial
from ptydask.lineage import StageLineage
from ptydask.model import Direction, Reason, StudyPlan, TrialRecord, TrialState
from ptydask.progress.plan_text import plan_lines
from ptydask.ranking import NoGain, lacks_gain
from ptydask.run_snapshot import RunSnapshot
from ptydask.running import announce

INF, NAN = float("inf"), float("nan")
ONE_PERCENT = NoGain(0.01, 3)
Params = Callable[..., Path]


def trials(*errors: float | str | None) -> list[TrialRecord]:
    """Trials that completed with these errors; ``p0.5`` was pruned there, None failed."""
    made = []
    for number, error in enumerate(errors):
        match error:
            case None:
                made.append(TrialRecord(number, TrialState.FAIL, None, {}, reason=Reason.FAILED))
            case str():
                made.append(TrialRecord(number, TrialState.PRUNED, float(error[1:]), {}, reason=Reason.PRUNED))
            case _:
                made.append(TrialRecord(number, TrialState.COMPLETE, error, {}))
    return made


# --- the decision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "over"),
    [
        ([], False),
        ([1.0, 1.0, 1.0], False),  # two after the first are not three
        ([1.0, 1.0, 1.0, 1.0], True),
        ([1.0, 2.0, 0.995, 3.0], True),  # less than a hundredth
        ([1.0, 2.0, 0.98, 3.0], False),
        ([1.0, 0.5, 2.0, 2.0], False),
        ([1.0, 0.5, 2.0, 2.0, 2.0], True),  # the gain is before the last three
        ([1.0, "p0.1", "p0.1", "p0.1"], True),  # pruned trials count, and their errors do not
        (["p0.1", "p0.1", "p0.1", 1.0], False),
        (["p0.1", 1.0, "p0.1", "p0.1", "p0.1"], True),
        ([1.0, None, None, None], False),  # failed ones tell nothing
        ([1.0, None, 1.0, None, 1.0, None, 1.0], True),
        ([None, None, None, None], False),
        ([0.0, 1.0, 1.0, 1.0], True),
        ([0.0, -1e-300, 1.0, 1.0], False),  # of nought any gain is one
        ([-1.0, -1.005, -1.0, -1.0], True),
        ([-1.0, -1.02, -1.0, -1.0], False),
        ([1.0, -1.0, 1.0, 1.0], False),
        ([INF, INF, INF, INF], False),  # nothing to gain upon so far
        ([INF, INF, INF, 1.0], False),
        ([-INF, 1.0, 1.0, 1.0], True),
        ([1.0, -INF, 1.0, 1.0], False),
        ([1.0, INF, INF, INF], True),
        ([NAN, NAN, NAN, NAN, NAN], False),
        ([NAN, 1.0, NAN, NAN], False),
        ([1.0, NAN, NAN, NAN], True),
        ([1e308, -1e308, 0.0, 0.0], False),
    ],
)
def test_the_last_trials_bring_no_gain(errors: list[float | str | None], over: bool) -> None:
    """By number, whatever the order; and alike for what is maximized."""
    records = trials(*errors)
    assert lacks_gain(records, "minimize", ONE_PERCENT) is over
    shuffled = random.Random(1).sample(records, len(records))
    assert lacks_gain(shuffled, "minimize", ONE_PERCENT) is over
    mirrored = [replace(r, error=None if r.error is None else -r.error) for r in shuffled]
    assert lacks_gain(mirrored, "maximize", ONE_PERCENT) is over
    assert not lacks_gain(records, "minimize", None)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_any_gain_is_enough_where_no_share_is_asked_for(direction: Direction) -> None:
    """And more trials than there are end nothing."""
    sign = 1 if direction == "minimize" else -1
    steady = [replace(r, error=sign * (1 - 1e-9 * r.number)) for r in trials(1.0, 1.0, 1.0)]
    assert not lacks_gain(steady, direction, NoGain(0.0, 1))
    assert lacks_gain([*steady, replace(steady[-1], number=3)], direction, NoGain(0.0, 1))
    assert not lacks_gain(steady, direction, NoGain(0.5, 100))


def test_a_study_that_goes_on_ends_where_it_would_have() -> None:
    """Once over it stays over, as long as nothing new brings a gain."""
    records = trials(1.0, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8)
    first = next(n for n in range(len(records) + 1) if lacks_gain(records[:n], "minimize", ONE_PERCENT))
    assert first == 6
    assert lacks_gain(records, "minimize", ONE_PERCENT)
    assert not lacks_gain([*records, *(replace(r, number=7, error=0.1) for r in records[:1])], "minimize", ONE_PERCENT)


# --- where it is heeded --------------------------------------------------------------------------------------


@pytest.fixture
def plan(toy_params: Params) -> StudyPlan:
    """A study that three trials without a gain of 1 % end."""
    return replace(config.load(toy_params()), no_gain=ONE_PERCENT)


def test_no_metric_no_gain(plan: StudyPlan) -> None:
    """Trials that are ranked by nothing end nothing, though Optuna is told of equal values; the plan says so."""
    records = trials(0.0, 0.0, 0.0, 0.0)
    assert unbeaten_trial(records, plan) == records[0]
    assert unbeaten_trial(records, replace(plan, metric="")) is None
    assert unbeaten_trial(records, replace(plan, no_gain=None)) is None


def test_the_plan_says_when_it_ends(plan: StudyPlan) -> None:
    """Beside its other ends."""
    assert any(line.endswith("minimized until the last 3 trials bring no gain of 1 %") for line in plan_lines(plan))
    both = plan_lines(replace(plan, target=0.1))
    assert any("until 0.1 is reached or the last 3 trials bring no gain of 1 %" in line for line in both)
    assert gain_text(NoGain(0.005, 1)) == "trial brings no gain of 0.5 %"
    assert gain_text(NoGain(0.0, 20)) == "20 trials bring no gain"


def test_nothing_to_gain_without_a_metric(toy_params: Params, plan: StudyPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all trials are run, and the plan says so beforehand."""
    unranked = replace(plan, metric="")
    monkeypatch.setattr(config, "load", lambda *_: unranked)
    monkeypatch.setattr(engines, "get", lambda _: SimpleNamespace(validate=lambda plan: plan))
    notices = complete_plan(toy_params(), config.Overrides()).notices
    assert any("no metric" in text and "all trials are run" in text for text in notices)


def test_a_run_is_over_then(plan: StudyPlan) -> None:
    """Nothing more is started; what is under way may bring a gain, and it goes on: both are said."""
    told: list[str] = []
    shown: list[RunSnapshot] = []
    observer = SimpleNamespace(notice=told.append, update=shown.append)
    plan = replace(plan, lineage=StageLineage("dz", ("dz", "final")))

    class Crew(SimpleNamespace):
        def __len__(self) -> int:
            return 1

    crew = Crew(setup=SimpleNamespace(plan=plan), tended=SimpleNamespace(waiting=""))
    store = SimpleNamespace(
        records={r.number: r for r in trials(1.0, 1.0, 1.0)},
        path=Path("s.h5"),
        write_status=lambda _: None,
        refresh=lambda: None,
        trouble="",
    )
    optuna_study = SimpleNamespace(running=lambda _: ())
    progress = RunProgress(60, crew, store, optuna_study, observer, None)  # type: ignore[arg-type]
    assert not progress.over()
    store.records[3] = trials(*[1.0] * 4)[3]
    assert progress.over()
    assert progress.complete()
    progress.tell(1)
    progress.tell(1)
    assert len(told) == 1
    assert "no gain of 1 %" in told[0]
    store.records[4] = replace(store.records[3], number=4, error=0.5)
    assert not progress.over()
    progress.tell(0)
    assert "goes on" in told[1]
    assert {snapshot.stage for snapshot in shown} == {"1 of 2: dz"}


def test_what_is_said_of_it(plan: StudyPlan) -> None:
    """What is best, and what was left."""
    best = trials(0.0123)[0]
    text = unbeaten_text(replace(best, number=12), plan, 34, 60)
    assert (
        text == "the last 3 trials bring no gain of 1 %: best loss 0.0123000 (trial 12); 26 of 60 trials were not run"
    )
    assert unbeaten_text(best, plan, 60, 60).endswith("all 60 trials were run")


def test_a_finished_study_has_nothing_left(
    toy_params: Params, plan: StudyPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file says so when it is asked again; without the key it goes on."""
    plan = replace(plan, results=tmp_path / "s.h5")
    results = SimpleNamespace(
        records=lambda: trials(1.0, 1.0, 1.0, 1.0), packed=True, begun=True, id="a", meta=provenance.study_meta(plan)
    )
    request = RunRequest(toy_params(), config.Overrides(), cluster="local", workers=1)
    ended = prepare_plan(plan, request, results)  # type: ignore[arg-type]
    assert ended.early_end.unbeaten is not None
    assert ended.trials_left == 0
    assert ended.finished
    monkeypatch.setattr("ptydask.driver.conduct.prepare_run", lambda *_: ended)
    told: list[str] = []
    announce(request, SimpleNamespace(plan=lambda _: None, notice=told.append))
    assert any("no gain of 1 %" in text and "nothing left to do" in text for text in told)
    monkeypatch.setattr("ptydask.engines.check_machine", lambda _: None)  # no engine has completed this plan
    goes_on = prepare_plan(replace(plan, no_gain=None), request, results)  # type: ignore[arg-type]
    assert goes_on.trials_left > 0


def test_how_it_ended_is_told(plan: StudyPlan) -> None:
    """Once, by the outcome of the run."""
    records = trials(1.0, 1.0, 1.0, 1.0)
    told: list[str] = []
    prepared: Any = SimpleNamespace(plan=plan, options=SimpleNamespace(total=60), mirror_behind=False)
    view: Any = SimpleNamespace(notice=told.append)
    outcome = RunOutcome(None, True, EarlyEnd(unbeaten=records[0]))
    assert not RunOutcome(None, True).early_end
    execute._tell_outcome(outcome, prepared, view, records)
    assert told == [unbeaten_text(records[0], plan, 4, 60), "what was recorded is in one file now"]


@pytest.mark.slow
def test_a_study_ends_without_gain(
    toy_params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says why, packs what it has, and has nothing to do when asked again."""
    import ptydask

    load = config.load
    monkeypatch.setattr(config, "load", lambda *args: replace(load(*args), no_gain=NoGain(0.99, 3)))
    params, results = toy_params(n_trials=40, sleep=0.02), tmp_path / "s.h5"
    arguments: dict[str, Any] = {"engine": "toy", "cluster": "local", "results": results, "trials": 40, "workers": 2}
    recorded = len(ptydask.run(params, **arguments))
    assert 4 <= recorded <= 8
    assert "no gain of 99 %" in capsys.readouterr().err
    assert len(ptydask.run(params, **arguments)) == recorded
    assert "nothing left to do" in capsys.readouterr().err
