"""``ls --where``: a condition on the columns of trials, read without running anything."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import store_cases as cases

from ptydask.cli import main as run_command
from ptydask.cli import where
from ptydask.errors import UsageError
from ptydask.model import Reason, TrialRecord, TrialState


def trial(number: int, state: str = "COMPLETE", error: float | None = 1.0, **changes: Any) -> TrialRecord:
    return TrialRecord(number, TrialState(state), error, **changes)


TRIALS = [
    trial(
        0,
        params={"scale": 0.98, "model.depth": 2, "opt": "adam", "amp": True},
        metrics={"loss": 1.0, "loss (val)": 3.0},
    ),
    trial(1, params={"scale": 0.1 + 0.2, "model.depth": 3, "opt": "sgd", "amp": False}, error=0.5, origin="slopes"),
    trial(2, "PRUNED", params={"scale": 1.04, "learning-rate": 1e-5, "opt": None}, error=2.0, iterations=12.0),
    trial(
        3, "FAIL", None, params={"scale": 1.06}, message="no battery", reason=Reason.FAILED, gradient={"scale": -2.0}
    ),
    trial(4, error=float("nan"), params={"µ": 7, "3d": 1, "lambda": 2, "error": 9, "a b": "it's `so`"}),
]


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("(scale > 1) & ~(state == 'pruned') | (scale < 0.5)", [1, 3]),
        ("scale > 1.02", [2, 3]),
        ('scale > 1.02 and state == "complete"', []),
        ("scale > 1.02 and state == 'pruned'", [2]),
        ("state == 'FAIL' or state == 'failed'", [3]),
        ("state in ('complete', 'pruned') and not scale < 1", [2, 4]),
        ("state != 'complete'", [2, 3]),
        ("scale == 0.3", [1]),
        ("1.05 > scale >= 0.98", [0, 2]),
        ("error < 1", [1]),
        ("error != 1", [1, 2]),
        ("error == null", [3, 4]),
        ("error is None", [3, 4]),
        ("error != null and error > 0.5", [0, 2]),
        ("params.error == 9", [4]),
        ("metrics.loss == 1", [0]),
        ("model.depth >= 3", [1]),
        ("params.model.depth == 2", [0]),
        ("`loss (val)` > 1", [0]),
        ("metrics['loss (val)'] > 1", [0]),
        ('params["learning-rate"] < 1e-4', [2]),
        ("`learning-rate` < 1e-4", [2]),
        ("`3d` == 1 and `lambda` == 2 and `µ` == 7", [4]),
        ("µ == 7", [4]),
        ("`a b` == 'it\\'s `so`'", [4]),
        ("amp", [0]),
        ("amp == true", [0]),
        ("amp == false", [1]),
        ("opt in ['adam', 'sgd']", [0, 1]),
        ("opt not in ['adam']", [1]),
        ("opt == 'adam' or opt == 'sgd' and error > 1", [0]),
        ("'battery' in message", [3]),
        ("message == ''", [0, 1, 2, 4]),
        ("origin == 'slopes'", [1]),
        ("iterations >= 12", [2]),
        ("gradient.scale < -1", [3]),
        ("number in [1, 3] or number == 4.0", [1, 3, 4]),
        ("reason == 'failed'", [3]),
        (" \t scale>1.05 ", [3]),
    ],
)
def test_which_trials(condition: str, numbers: list[int]) -> None:
    """By facts, parameters, metrics and slopes, whatever is in their names; what is missing fulfils nothing."""
    assert [record.number for record in where.select_where(TRIALS, condition)] == numbers


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("scal > 1", "no trial has a column 'scal'; did you mean 'scale'?"),
        ("state == complete", 'a text stands in quotes: "complete"'),
        ("metrics.los > 1", "'metrics.los'"),
        ("state == 'compelte'", "no trial ends as 'compelte'; did you mean 'complete'?"),
        ("state == 3", "known: complete, failed, pruned"),
        ("scale = 1", "equal is =="),
        ("scale > 1 & error < 2", "write and and or for & and |"),
        ("learning-rate < 1", "between backticks"),
        ("loss (val) > 1", "must be comparisons"),
        ("scale > 'big'", "have no order"),
        ("scale in 3", "on the right of in"),
        ("", "must be comparisons"),
        ("scale >", "for example"),
        ("scale", None),
        ("__import__('os').system('id')", "must be comparisons"),
        ("(lambda: 1)() == 1", "must be comparisons"),
        ("[x for x in (1,)] == 1", "must be comparisons"),
        ("scale.__class__ == 1", "no trial has a column"),
        ("f'{scale}' == 1", "must be comparisons"),
        ("scale == 9**9**9", "must be comparisons"),
        ("@scale == 1", "must be comparisons"),
        ("(" * 1500 + "scale" + ")" * 400, "must be comparisons"),
        ("not " * 490 + "scale > 1", None),
        ("x" * 3000, "must be comparisons"),
        ("scale > 1\nerror < 1", "must be comparisons"),
        ("scale > 1; error", "must be comparisons"),
    ],
)
def test_what_is_refused(condition: str, words: str | None) -> None:
    """One line, which says what there is instead; nothing is run."""
    if words is None:
        where.select_where(TRIALS, condition)
        return
    with pytest.raises(UsageError) as caught:
        where.select_where(TRIALS, condition)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_of_no_trials_every_column_is_one() -> None:
    """A study that has just begun is no reason for an error."""
    assert where.select_where([], "scale > 1") == []


def test_ls_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the other options, in every format; none is no error."""
    path = cases.packed(tmp_path / "s.h5", [cases.record(0), cases.record(1), cases.failed(2)])
    arguments = ["ls", str(path), "--where", "rotation >= -1", "--sort", "number", "--reverse"]
    assert run_command([*arguments, "--format", "json"]) == 0
    assert [row["number"] for row in json.loads(capsys.readouterr().out)] == [
        record.number
        for record in (cases.failed(2), cases.record(1))
        if record.params["rotation"] >= -1  # type: ignore[operator]
    ]
    assert run_command([*arguments, "--state", "complete", "--top", "1", "--format", "csv"]) == 0
    assert [row["number"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == ["1"]
    assert run_command(["ls", str(path), "--where", "rotation > 99"]) == 0
    assert "no trials where rotation > 99" in capsys.readouterr().err
    assert run_command(["ls", str(path), "--where", "rotatoin > 99"]) == 2
    assert "did you mean 'rotation'?" in capsys.readouterr().err
