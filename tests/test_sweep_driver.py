"""Runs that end by their results: a target reached, or first trials that all fail alike."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import store_cases as cases

from ptydask.distributions import FloatRange
from ptydask.driver.contract import hopeless_error
from ptydask.driver.execute import none_completed_text
from ptydask.driver.prepare import count_trials
from ptydask.model import (
    Budget,
    ComponentSpec,
    Direction,
    Point,
    Reason,
    Scalar,
    SourceFile,
    StudyPlan,
    TrialRecord,
    TrialState,
)
from ptydask.ranking import target_met
from ptydask.run_snapshot import RunningTrial
from ptydask.store import reader
from ptydask.trial.reconcile import Failures, Prospect, message_pattern

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]
COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def failed(message: str = "no battery", seconds: float = 1.0, reason: Reason = Reason.FAILED) -> TrialRecord:
    return TrialRecord(0, FAIL, None, {}, reason=reason, message=message, seconds=seconds)


def running(seconds: float) -> RunningTrial:
    return RunningTrial(9, {}, 0, None, "", seconds)


def after(records: Iterable[TrialRecord]) -> Failures:
    found = Failures()
    for record in records:
        found = found.then(record)
    return found


# --- decisions: first trials that fail alike ---------------------------------------------------------------


def test_three_that_fail_alike_are_enough() -> None:
    """Two may be chance. While any trial is under way nothing more is started; without one it is over."""
    assert after([failed()] * 2).prospect([], 0) is Prospect.GOES_ON
    assert after([failed()] * 3).prospect([], 0) is Prospect.HOPELESS
    assert after([failed()] * 3).prospect([], 1) is Prospect.WAITS
    assert after([failed()] * 8).prospect([], 0) is Prospect.HOPELESS


@pytest.mark.parametrize(
    "other",
    [
        TrialRecord(0, COMPLETE, 0.5, {}),
        TrialRecord(0, PRUNED, 0.5, {}, reason=Reason.PRUNED),
        failed("out of memory"),
        failed(reason=Reason.LOST),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_any_other_end_disproves_it_for_good(other: TrialRecord, place: int) -> None:
    """A trial that ended well, or in another way: from then on every trial is its own affair."""
    first = [failed()] * 3
    first[place] = other
    assert after([*first, *[failed()] * 9]).prospect([], 0) is Prospect.GOES_ON


def test_a_trial_that_outlives_them_speaks_for_the_study() -> None:
    """Under way for more than 1.25 times the longest failure and 2 s; one that began with them has to get there."""
    found = after([failed(seconds=4.0), failed(seconds=8.0), failed(seconds=6.0)])
    assert found.prospect([running(1.0), running(12.1)], 2) is Prospect.GOES_ON
    assert found.prospect([running(1.0), running(11.9)], 2) is Prospect.WAITS


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("program exited 1 after 12 s: KeyError: 'lr'", "program exited 1 after 7.25 s: KeyError: 'lr'", True),
        ("no file /tmp/ptydask-trial-x7_ab3q/in.csv", "no file /tmp/ptydask-trial-81kk0d_z/in.csv", True),
        ("<Net at 0x7f3a10> is on cuda:0", "<Net at 0x7f3bff> is on cuda:1", True),
        ("lr 1e-05 is too small", "lr 0.5 is too small", True),
        ("process 4242 was killed by SIGKILL", "process 77 was killed by SIGSEGV", False),
        ("KeyError: 'lr'", "KeyError: 'mbs'", False),
    ],
)
def test_what_counts_as_alike(one: str, other: str, same: bool) -> None:
    """Numbers, addresses and the name of the trial's own folder differ from trial to trial; words do not."""
    assert (message_pattern(one) == message_pattern(other)) is same


@pytest.mark.parametrize(
    ("params", "others", "message", "same"),
    [
        ({"act": "relu"}, {"act": "gelu"}, "ValueError: bad --act={act}", True),
        ({"act": "relu", "opt": "adam"}, {"act": "tanh", "opt": "adamw"}, "no {opt} with {act}", True),
        ({"data": "/d/a.npz"}, {"data": "/d/b c.npz"}, "FileNotFoundError: '{data}'", True),
        ({"amp": True}, {"amp": False}, "ignored explicit argument '{amp}'", True),
        ({"layers": "[1, 2]"}, {"layers": "[3]"}, "bad layers {layers}", True),
        ({"c": '{"a": "x"}'}, {"c": '{"b": "y"}'}, "bad {c}", True),
        ({"x": -0.5}, {"x": 0.25}, "bad {x}", True),
        ({"x": None}, {"x": "none"}, "bad {x}", True),
        ({"act": "a"}, {"act": "b"}, "ValueError: bad, a sad {act}", True),
        ({"act": "relu"}, {"act": "gelu"}, "{act}x is none", False),
    ],
)
def test_a_trials_own_values_are_no_difference(
    params: dict[str, Scalar], others: dict[str, Scalar], message: str, same: bool
) -> None:
    """Messages that repeat what the trial was given are alike; a part of a word is no value."""
    records = [replace(failed(message.format(**values)), params=values) for values in (params, others, params)]
    assert (after(records).prospect([], 0) is Prospect.HOPELESS) is same


# --- decisions: the target, the number of trials -------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "target", "errors", "number"),
    [
        ("minimize", 0.5, [0.7, 0.6], None),
        ("minimize", 0.5, [0.7, 0.5], 1),
        ("minimize", 0.5, [0.4, 0.5, 0.3], 2),
        ("maximize", 0.5, [0.4, 0.5], 1),
        ("maximize", 0.5, [0.4, 0.49], None),
        ("minimize", None, [0.0], None),
        ("minimize", 0.0, [-1.0], 0),
        ("minimize", 0.5, [], None),
    ],
)
def test_when_a_target_is_reached(
    direction: Direction, target: float | None, errors: Sequence[float], number: int | None
) -> None:
    """As good as the target is enough; of several the best one is named."""
    found = target_met([TrialRecord(i, COMPLETE, e, {}) for i, e in enumerate(errors)], target, direction)
    assert (None if found is None else found.number) == number


def test_only_completed_trials_reach_a_target() -> None:
    """A pruned or failed trial had a good value on the way, no result."""
    others = [TrialRecord(0, PRUNED, 0.1, {}), TrialRecord(1, FAIL, 0.1, {}), TrialRecord(2, COMPLETE, None, {})]
    assert target_met(others, 0.5, "minimize") is None


def plan_with(budget: Budget, points: int | None = None) -> StudyPlan:
    return StudyPlan(
        name="s",
        source=SourceFile(Path("sweep.yaml"), "", "sweep"),
        engine="command",
        config={},
        space={"x": FloatRange(0.0, 10.0)},
        metric="loss",
        direction="minimize",
        sampler=ComponentSpec("RandomSampler"),
        pruner=None,
        budget=budget,
        storage=None,
        results=Path("my results/s.h5"),
        seed=0,
        points=tuple(Point({"x": i}, "grid") for i in range(points or 0)),
        exhaustive=points is not None,
    )


@pytest.mark.parametrize(
    ("budget", "points", "total"),
    [
        (Budget(4, total=True), None, 4),
        (Budget(4), None, 12),
        (Budget(4, total=True), 6, 4),
        (Budget(9, total=True), 6, 6),
    ],
)
def test_how_many_trials(budget: Budget, points: int | None, total: int) -> None:
    """On 3 workers; a grid ends with its points, or with run_cap before."""
    assert count_trials(plan_with(budget, points), 3) == total


def test_a_grid_runs_every_point_whatever_was_recorded() -> None:
    """Trials beyond the grid, of another search or a grid that was moved, take no point's place; run_cap is exact."""
    records = [cases.record(number, params={"x": x}) for number, x in enumerate([1, 2.0, 7, 8])]
    assert count_trials(plan_with(Budget(6, total=True), 6), 1, records) == 8
    assert count_trials(plan_with(Budget(5, total=True), 6), 1, records) == 5
    assert count_trials(plan_with(Budget(5, total=True)), 1, records) == 5


def test_the_error_of_a_hopeless_run() -> None:
    """One line: what failed, how many were not run, what to do; the command can be pasted."""
    error = hopeless_error(plan_with(Budget(20, total=True)), after([failed("exit 2")] * 4), 20, 4)
    assert str(error) == (
        "the first 4 trials failed alike: exit 2; 16 of 20 trials were not run; `ptydask show 'my results/s.h5' 0` "
        "has the log and the error in full; once it is mended, the same command goes on "
        "(these 4 stay recorded and count, --trials raises the number)"
    )
    assert error.exit_code == 1


def test_a_second_hopeless_run() -> None:
    """The failures of this run and all that is recorded are told apart."""
    error = hopeless_error(plan_with(Budget(20, total=True)), after([failed("exit 2")] * 4), 20, 8)
    assert str(error).startswith("the first 4 trials of this run failed alike: exit 2; 12 of 20 trials were not run; ")
    assert str(error).endswith("(all 8 stay recorded and count, --trials raises the number)")


def test_where_no_trial_completed() -> None:
    """The last line can be pasted, and names the first that failed."""
    states = (TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL)
    records = [cases.record(number, params={}, state=state) for number, state in enumerate(states)]
    said = "no trial completed; `ptydask show 'my results/s.h5' 1` has the reason of the first"
    assert none_completed_text(records, Path("my results/s.h5")) == said


def test_hopeless_repeats_are_not_told_of_results_that_they_have_no_choice_of() -> None:
    plan = replace(plan_with(Budget(0, total=True), points=9), engine="repeat", results=Path("my s.confirmation.h5"))
    error = str(hopeless_error(plan, after([failed("exit 2")] * 3), 9, 3))
    assert "--results" not in error
    assert "rm -r 'my s.confirmation.h5' 'my s.confirmation.trials'" in error
    assert "the first 3 repeats" in error


def test_a_hopeless_grid_is_not_told_to_raise_the_number() -> None:
    """It has no more trials than points, and those that failed are not tried again."""
    error = hopeless_error(plan_with(Budget(0, total=True), points=9), after([failed("exit 2")] * 3), 9, 3)
    assert str(error).endswith("(these 3 stay recorded and count, another --results begins with all points)")


# --- whole runs -----------------------------------------------------------------------------------------------


def run(ptydask: Ptydask, params: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--workers", 2, *args)


def rows(ptydask: Ptydask, results: Path) -> list[dict[str, Any]]:
    found = ptydask("ls", results, "--format", "json")
    assert found.returncode == 0, found.stderr
    listed: list[dict[str, Any]] = json.loads(found.stdout)
    return listed


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy.h5"


@pytest.mark.slow
def test_a_target_ends_the_study(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Of 40 points only those are run that were begun before the second reached the target; packed, exit 0.

    The same command again has nothing to do and says why; another target lets the study go on.
    """
    tries = [f"rotation={3 if i == 0 else 0} scale=0.8" for i in range(40)]  # 3 is far from the target, 0 reaches it
    more = [word for i, text in enumerate(tries) for word in ("--try", text.replace("0.8", f"{0.8 + i / 100:.2f}"))]
    params = toy_params(n_trials=20, target=2.5, sleep=0.02)
    done = run(ptydask, params, *more[:42])
    assert done.returncode == 0, done.stderr
    there = rows(ptydask, results)
    assert 2 <= len(there) <= 8
    assert {t["state"] for t in there} == {"COMPLETE"}
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("target reached by trial ")]
    assert line.endswith("(target 2.5)")
    assert not results.with_suffix(".trials").exists()
    before = results.read_bytes()
    again = run(ptydask, params, *more[:42])
    assert again.returncode == 0, again.stderr
    assert "target reached by trial " in again.stderr.splitlines()[-1]
    assert "nothing left to do" in again.stderr.splitlines()[-1]
    assert results.read_bytes() == before
    on = run(ptydask, toy_params(n_trials=20, sleep=0.02), "--trials", len(there) + 3)
    assert on.returncode == 0, on.stderr
    assert [t for t in rows(ptydask, results) if t in there] == there
    assert len(rows(ptydask, results)) == len(there) + 3
    assert ptydask("verify", results).returncode == 0


@pytest.mark.slow
def test_first_trials_that_fail_alike_end_the_run(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """Exit 1 and one line after three or four of 20; what they left can be read; mended, the same command goes on."""
    battery = tmp_path / "battery"
    params = toy_params(n_trials=10, needs=str(battery))
    done = run(ptydask, params)
    assert done.returncode == 1, done.stderr
    there = rows(ptydask, results)
    assert 3 <= len(there) <= 4, "the other worker had one when the third had failed"
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"ptydask: the first {len(there)} trials failed alike: the toy exited ")
    assert "there is no battery" in last
    assert f"{20 - len(there)} of 20 trials were not run" in last
    assert re.search(rf"`ptydask show \S*{results.name} [01]`", last), "whichever ended first"
    assert "Traceback" not in done.stderr
    assert "no battery" in ptydask("show", results, 0).stdout
    battery.touch()
    mended = run(ptydask, params)
    assert mended.returncode == 3, mended.stderr
    after = rows(ptydask, results)
    assert [t for t in after if t in there] == there
    assert [t["state"] for t in after if t not in there] == ["COMPLETE"] * (20 - len(there))
    assert ptydask("verify", results).returncode == 0


@pytest.mark.slow
def test_three_trials_in_all_end_as_any_study_does(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """Nothing is left that could be spared: finished, packed, exit 3."""
    done = run(ptydask, toy_params(needs=str(tmp_path / "battery")), "--trials", 3)
    assert done.returncode == 3, done.stderr
    assert len(rows(ptydask, results)) == 3
    assert not results.with_suffix(".trials").exists()


@pytest.mark.slow
def test_a_good_trial_under_way_keeps_the_study_alive(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """One worker is busy with a trial that works: the other waits for a moment, goes on, and nothing is killed."""
    params = toy_params(needs=str(tmp_path / "battery"), despite=0.7, sleep=1.2)
    done = run(ptydask, params, "--trials", 8, "--try", "rotation=1 scale=0.8", "--try", "rotation=-1 scale=0.8")
    assert done.returncode == 3, done.stderr
    trials = rows(ptydask, results)
    assert len(trials) == 8
    good = min(t["number"] for t in trials if t["state"] == "COMPLETE")
    assert good <= 1, "the workers may come up in any order"
    assert {t["attempt"] for t in trials} == {1}
    assert sum(t["state"] == "FAIL" for t in trials) >= 3


@pytest.mark.slow
def test_hyperband_in_a_run_of_unknown_length(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """W&B's bands through the whole way: trials that are worse at band 2 end there."""
    hypertune = {"pruner_params": {"name": "SweepHyperbandPruner", "configs": {"bands": [2, 6], "eta": 3}}}
    tries = [word for i in range(4) for word in ("--try", f"rotation={i} scale=1")]
    params = toy_params(iterations=8, endless=True, hypertune=hypertune)
    done = ptydask("run", params, "--engine", "toy", "--workers", 1, "--trials", 4, *tries)
    assert done.returncode == 0, done.stderr
    assert [t["state"] for t in rows(ptydask, results)] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]
    with reader.open(results) as found:
        steps = {number: list(curve["step"])[-1] for number, curve in found.curves().items()}
    assert steps == {0: 8, 1: 2, 2: 2, 3: 2}
