"""A sweep without a metric, which W&B needs for ``bayes`` and hyperband alone: run, recorded and ranked by nothing."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sweep_plans

from ptydask import ranking
from ptydask.analysis import rehydrate
from ptydask.analysis.data import StudyData
from ptydask.config import Overrides
from ptydask.driver.optuna_study import OptunaStudy, open_study
from ptydask.errors import StoreError
from ptydask.model import UNRANKED_VALUE, StudyMeta, TrialRecord, TrialState
from ptydask.progress.plan_text import plan_lines
from ptydask.trial.metric_history import LoggedRow, MetricHistory

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
CHOICES = {"x": {"values": [1, 2, 3]}}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See :func:`sweep_plans.made`, without its folder, in which the test runs, and without a metric."""
    monkeypatch.chdir(tmp_path)
    return partial(sweep_plans.made, tmp_path, metric=...)


# --- where a metric is needed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "sampler"),
    [
        ({"method": "random"}, None),
        ({"method": "grid"}, None),
        ({"method": "grid", "metric": None}, None),
        ({"method": "bayes"}, "RandomSampler"),
        ({"method": "random"}, "BruteForceSampler"),
    ],
)
def test_where_none_is_needed(plan: Any, top: dict[str, Any], sampler: str | None) -> None:
    """The plan says in words that nothing is ranked, and how to have it."""
    made = plan(CHOICES, Overrides(sampler=sampler), **top)
    assert (made.metric, made.direction, made.target) == ("", "minimize", None)
    assert any("ranked by nothing" in notice for notice in made.notices)
    error = next(line for line in plan_lines(made) if line.startswith("error"))
    assert "ranked by nothing" in error
    assert "minimized" not in error


@pytest.mark.parametrize(
    ("top", "sampler", "words"),
    [
        ({"method": "bayes"}, None, "the search (GPSampler) goes by it"),
        ({"method": "random"}, "TPESampler", "the search (TPESampler) goes by it"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 3}}, None, "early_terminate compares trials by it"),
        ({"engine": {"callable": "a.py:f"}}, None, "a function returns its value"),
        ({"engine": {"objective": "best"}}, None, "engine.objective"),
    ],
)
def test_where_one_is_needed(tmp_path: Path, top: dict[str, Any], sampler: str | None, words: str) -> None:
    refusal = sweep_plans.refusal(tmp_path, sweep_plans.LR, Overrides(sampler=sampler), **{"metric": ..., **top})
    assert refusal.startswith("metric: is missing; ")
    assert words in refusal


# --- what is recorded, and what Optuna is told -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "metrics", "curve"),
    [
        ([], {}, {}),
        ([{"a": 1.0}, {"a": 2.0, "b": 3.0}], {"a": 2.0, "b": 3.0}, {"step": [1.0, 2.0], "a": [1.0, 2.0]}),
        (
            [{"a": float("nan")}],
            {"a": pytest.approx(float("nan"), nan_ok=True)},
            {"step": [1.0], "a": [pytest.approx(float("nan"), nan_ok=True)]},
        ),
        ([{"error": 1.0}] * 2, {"error": 1.0}, {"step": [1.0, 2.0], "error": [1.0, 1.0]}),
    ],
)
def test_every_row_is_kept(rows: list[Mapping[str, float]], metrics: dict[str, float], curve: dict[str, Any]) -> None:
    """All metrics with their last values, and a curve of every row: none of them is the one that counts."""
    history = MetricHistory("", "last", "minimize")
    for step, row in enumerate(rows, start=1):
        history.add(LoggedRow(step, row))
    assert history.count == len(rows)
    assert history.metrics() == metrics
    assert history.curve() == curve
    assert "" not in history.seen


def test_optuna_has_its_trials(plan: Any, tmp_path: Path) -> None:
    """It knows no completed trial without a value, so each has the same; a record made of Optuna's has none."""
    import optuna

    made = plan(CHOICES, method="grid")
    study = OptunaStudy(open_study(optuna.storages.InMemoryStorage(), made.name, made.direction), "s", made)
    records = [
        TrialRecord(0, TrialState.COMPLETE, None, {"x": 1}, metrics={"loss": 3.0}),
        TrialRecord(1, TrialState.FAIL, None, {"x": 2}),
    ]
    assert study.restore(records) == 2
    told = study.trials()
    assert [trial.state.name for trial in told] == ["COMPLETE", "FAIL"]
    assert told[0].value == UNRANKED_VALUE
    again = study.record_of(study.begun()[0], state=TrialState.COMPLETE, reason=records[0].reason, message="")
    assert (again.error, again.metrics) == (None, {})
    meta = StudyMeta("s", "minimize", "", "command", "", "yaml", "{}", "{}")
    data = StudyData(meta, tuple(records), {})
    assert [trial.state.name for trial in rehydrate.frozen_trials(data)] == ["COMPLETE", "FAIL"]
    assert len(rehydrate.create_empty_study(meta, optuna.storages.InMemoryStorage()).trials) == 0


def test_why_none_is_best() -> None:
    """A study with a metric has no best trial before one completed; one without never has."""
    assert "no trial has completed" in ranking.why_none_is_best("loss", 3)
    assert "names no metric" in ranking.why_none_is_best("", 3)


# --- a whole study -----------------------------------------------------------------------------------------------

PROGRAM = """\
import json, os, sys
x = int(sys.argv[1].partition("=")[2])
with open(os.environ["PTYDASK_METRICS"], "a") as file:
    for step in (1, 2):
        print(json.dumps({"step": step, "loss": x / step, "acc": 1.0}), file=file)
"""


@pytest.mark.slow
@pytest.mark.second
def test_a_study_and_every_command_on_it(tmp_path: Path, ptydask: Ptydask) -> None:
    """It runs, goes on, and is read by every command; those that want the best trial say why there is none."""
    (tmp_path / "p.py").write_text(PROGRAM)
    sweep = {"program": "p.py", "method": "grid", "parameters": CHOICES, "name": "s"}
    (tmp_path / "s.json").write_text(json.dumps(sweep))
    first = ptydask("run", "s.json", "--workers", "1", "--trials", "2")
    assert first.returncode == 0, first.stderr
    assert "none completed" not in first.stderr + first.stdout
    more = ptydask("run", "s.json", "--workers", "1", "--trials", "3")
    assert more.returncode == 0, more.stderr
    rows = list(csv.DictReader(io.StringIO(ptydask("ls", "s.h5", "--sort", "loss", "--format", "csv").stdout)))
    assert [(row["params.x"], row["error"], row["metrics.loss"]) for row in rows] == [
        ("1", "", "0.5"),
        ("2", "", "1.0"),
        ("3", "", "1.5"),
    ]
    table = ptydask("ls", "s.h5").stdout.splitlines()
    assert "error" not in table[0].split()
    for command in ("best s.h5", "best s.h5 --format yaml", "show s.h5 best", "export s.h5 params"):
        ended = ptydask(*command.split())
        assert ended.returncode == 1, command
        assert "names no metric" in ended.stderr
    for command in (
        "show s.h5 1",
        "status s.h5",
        "info s.h5",
        "verify s.h5",
        "plot s.h5 history curves importance slice contour parallel timeline slopes",
        "report s.h5",
        "export s.h5 csv",
        "export s.h5 params --trial 1",
        "export s.h5 artifacts --trial 1 out",
    ):
        ended = ptydask(*command.split())
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
        assert "Traceback" not in ended.stderr
    from ptydask import open as open_results

    study = open_results(tmp_path / "s.h5")
    assert len(study.best(3)) == 0
    with pytest.raises(StoreError, match="names no metric"):
        study.best()
    assert list(study.curves().index) == [1, 2]
    assert len(study.study().trials) == 3
