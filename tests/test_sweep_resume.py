"""Going on with results after the sweep was edited: what may change, and in which words the rest is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep_plans import made

from ptydask.driver import provenance
from ptydask.errors import ConfigError
from ptydask.progress.plan_text import recorded_text

GIVEN: dict[str, Any] = {
    "lr": {"min": 0.0, "max": 1.0},
    "width": {"values": [1, 2]},
    "data": {"value": "a"},
    "opt": {"parameters": {"beta": {"distribution": "normal"}}},
}


@pytest.fixture
def compared(tmp_path: Path) -> Callable[..., list[str]]:
    """What is said when a sweep with these changes goes on with the trials of the one above."""

    def compare(parameters: Any = GIVEN, **top: Any) -> list[str]:
        old, new = made(tmp_path, GIVEN), made(tmp_path, parameters, **top)
        metas = (provenance.study_meta(plan) for plan in (old, new))
        return provenance.compare(*metas, file=Path("s.h5"))

    return compare


@pytest.mark.parametrize(
    "top",
    [
        {},
        {"run_cap": 9},
        {"method": "bayes"},
        {"description": "longer"},
        {"early_terminate": {"type": "hyperband", "min_iter": 3}},
        {"engine": {"idle_timeout": 60, "outputs": ["*.pt"], "outputs_limit": "1 GB"}},
        {"metric": {"name": "loss", "target": 0.1}},
    ],
)
def test_what_may_change(compared: Callable[..., list[str]], top: dict[str, Any]) -> None:
    """Neither how a sweep searches and ends, nor what is kept, changes the result of a trial."""
    assert compared(**top) == []


def test_the_order_of_parameters_may_change(compared: Callable[..., list[str]]) -> None:
    """A file that was sorted is the same sweep."""
    assert compared(dict(sorted(GIVEN.items(), reverse=True))) == []


def test_a_range_may_move(compared: Callable[..., list[str]]) -> None:
    """It is said, with both ranges."""
    assert compared({**GIVEN, "lr": {"min": 0.0, "max": 2.0}}) == [
        "lr: the range is now 0 to 2, earlier trials were drawn from 0 to 1; they count as well"
    ]


@pytest.mark.parametrize(
    ("parameters", "top", "said"),
    [
        ({"data": {"value": "b"}}, {}, "parameters.data = 'b': the trials in this file were run with 'a'"),
        ({"lr": {"value": 0.1}}, {}, "parameters.lr = 0.1: the trials in this file were run with '(tuned)'"),
        ({"data": {"values": [1, 2]}}, {}, "parameters.data = '(tuned)': the trials in this file were run with 'a'"),
        (
            {"more": {"min": 0, "max": 1}},
            {},
            "parameters.more = '(tuned)': the trials in this file were run with nothing",
        ),
        ({"more": {"value": 1}}, {}, "parameters.more = 1: the trials in this file were run with nothing"),
        ({"width": {"values": [1, 3]}}, {}, "parameters.width = "),
        (
            {"opt": {"parameters": {"beta": {"distribution": "normal", "mu": 1}}}},
            {},
            "parameters.opt.beta = 'normal, mu 1",
        ),
        ({}, {"metric": {"name": "acc"}}, "metric.name = 'acc': the trials in this file were run with 'loss'"),
        ({}, {"metric": {"name": "loss", "goal": "maximize"}}, "metric.goal = 'maximize': "),
        ({}, {"program": "other.py"}, "program = 'other.py': the trials in this file were run with 'train.py'"),
        ({}, {"command": ["${program}", "${args}"]}, "command = "),
        (
            {},
            {"engine": {"objective": "best"}},
            "engine.objective = 'best': the trials in this file were run with 'last'",
        ),
        ({}, {"name": "new"}, "name = 'new': the trials in this file were run with 'study'"),
    ],
)
def test_what_may_not_change(
    compared: Callable[..., list[str]], parameters: dict[str, Any], top: dict[str, Any], said: str
) -> None:
    """One line with the file, the key as the sweep's file has it, and both values."""
    with pytest.raises(ConfigError) as caught:
        compared({**GIVEN, **parameters}, **top)
    assert f"s.h5: {said}" in str(caught.value)
    assert "--results NEW.h5" in str(caught.value)


def test_a_parameter_that_was_removed(compared: Callable[..., list[str]]) -> None:
    """It is named, without a value that it never had."""
    with pytest.raises(ConfigError, match=r"parameters\.data: .*nothing now") as caught:
        compared({name: entry for name, entry in GIVEN.items() if name != "data"})
    assert caught.value.value is ...


def test_words_for_nothing_left_to_do() -> None:
    """Also where the number of trials was lowered below what is recorded."""
    assert recorded_text(3, 3, Path("s.h5")) == "all 3 trials are recorded in s.h5"
    assert recorded_text(2, 3, Path("s.h5")) == "3 trials are recorded in s.h5, and 2 asked for"
