"""A sweep's ``early_terminate``, and points to try first, to a study plan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sweep_plans

from ptydask import config, sampling
from ptydask.config import Overrides
from ptydask.model import ComponentSpec, Point
from ptydask.trial import hyperband_bands


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See :func:`sweep_plans.made`, without its folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return partial(sweep_plans.made, tmp_path)


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """See :func:`sweep_plans.refusal`, without its folder."""
    return partial(sweep_plans.refusal, tmp_path)


# --- trying points ----------------------------------------------------------------------------------

TRIED = {
    "layers": {"values": [[64, 64], {"a": 1}, "adam", None, 3]},
    "n": {"min": 1, "max": 9},
    "x": {"min": 0.0, "max": 1.0},
    "q": {"distribution": "q_uniform", "min": 0, "max": 100, "q": 10},
    "w": {"values": ["a", "b"], "probabilities": [0.2, 0.8]},
    "z": {"distribution": "normal"},
    "e": {"distribution": "log_normal"},
    "c": {"value": 7},
}


@pytest.mark.parametrize(
    ("given", "tried"),
    [
        ({"x": 0.25}, {"x": 0.25}),
        ({"x": 1}, {"x": 1.0}),
        ({"n": 5.0}, {"n": 5}),
        ({"layers": "[64,64]"}, {"layers": "[64, 64]"}),
        ({"layers": "{a: 1}"}, {"layers": '{"a": 1}'}),
        ({"layers": "adam"}, {"layers": "adam"}),
        ({"layers": None}, {"layers": None}),
        ({"layers": 3}, {"layers": 3}),
        ({"q": 40}, {"q": 40}),
        ({"w": "b", "z": -2.5}, {"w": "b", "z": -2.5}),
    ],
)
def test_tried_points(plan: Any, given: dict[str, Any], tried: dict[str, Any]) -> None:
    """A guess is given in the program's own values; lists and mappings as YAML spells them."""
    made = plan(TRIED, Overrides(tries=(given,)))
    (point,) = made.points
    assert point.origin == "try"
    assert point.params == pytest.approx(tried) if "z" in tried else point == Point(tried, "try")
    assert not any("--try" in notice for notice in made.notices)


def test_tried_points_are_rounded_to_a_step(plan: Any) -> None:
    """A guess beside a step is put on it, and that is said."""
    made = plan(TRIED, Overrides(tries=({"q": 42},)))
    assert made.points == (Point({"q": 40}, "try"),)
    assert any("--try q: 42" in notice for notice in made.notices)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"y": 1}, "--try y = 1: is not tuned in this study"),
        ({"c": 1}, "--try c = 1: is a constant in this sweep"),
        ({"x": 2}, "--try x = 2: must be 0 to 1"),
        ({"x": "a"}, "--try x = 'a': must be 0 to 1"),
        ({"x": None}, "--try x = None: must be 0 to 1"),
        ({"n": 12}, "--try n = 12: must be 1 to 9"),
        ({"n": True}, "must be 1 to 9"),
        ({"q": 200}, "--try q = 200: must be 0 to 100"),
        ({"w": "c"}, "--try w = 'c': must be"),
        ({"layers": "[1]"}, "--try layers = '[1]': must be one of"),
        ({"e": -1}, "--try e = -1: must be"),
    ],
)
def test_points_that_cannot_be_tried(refused: Any, given: dict[str, Any], said: str) -> None:
    """Each in one line."""
    assert said in refused(TRIED, Overrides(tries=(given,)))


def test_tried_points_of_a_grid(plan: Any, refused: Any) -> None:
    """A grid is run whole after the guess, which has to be whole too."""
    grid = {"a": {"values": [1, 2]}, "b": {"values": [3, 4]}}
    made = plan(grid, Overrides(tries=({"a": 2, "b": 4},)), method="grid", run_cap=...)
    points = sampling.grid_points(made)
    assert points is not None
    assert [tuple(point.params.values()) for point in points] == [(2, 4), (1, 3), (1, 4), (2, 3)]
    assert made.budget.n_trials >= 4
    assert "b is missing" in refused(grid, Overrides(tries=({"a": 2},)), method="grid")


def test_a_list_on_the_command_line() -> None:
    """A list within quotes is one word, commas and blanks in it or not."""
    assert config.parse_point("layers='[64, 64]' x=1,name=\"a b\"") == {"layers": "[64, 64]", "x": 1, "name": "a b"}


# --- early_terminate --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"max_iter": 27, "s": 2}, {"bands": [3, 9], "eta": 3, "strict": True}),
        ({"max_iter": 5, "s": 2, "eta": 2}, {"bands": [1, 2], "eta": 2, "strict": True}),
        ({"max_iter": 81, "s": 9}, {"bands": [1, 3, 9, 27], "eta": 3, "strict": True}),
        ({"max_iter": 81, "s": 1, "strict": False}, {"bands": [27], "eta": 3, "strict": False}),
        ({"max_iter": 10, "s": 2, "eta": 1.5}, {"bands": [4, 6], "eta": 1.5, "strict": True}),
    ],
)
def test_bands_below_max_iter(plan: Any, given: dict[str, Any], expected: dict[str, Any]) -> None:
    """``int(max_iter / eta**k)``, worked out by hand."""
    made = plan(early_terminate={"type": "hyperband", **given})
    assert made.pruner == ComponentSpec("SweepHyperbandPruner", expected)
    assert made.notices == ()


def test_bands_from_min_iter(plan: Any) -> None:
    """``int(min_iter * eta**k)``: 3, 9, 27 ... without an end that a program reaches."""
    made = plan(early_terminate={"type": "hyperband", "min_iter": 3})
    assert made.pruner.configs["bands"][:5] == [3, 9, 27, 81, 243]
    assert made.pruner.configs["bands"] == list(hyperband_bands.of_min_iter(3, 3))
    assert made.pruner.configs["bands"][-1] > 1e9
    made = plan(early_terminate={"type": "hyperband", "min_iter": 2, "eta": 1.5})
    assert made.pruner.configs["bands"][:5] == [2, 3, 4, 6, 10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "hyperband", "min_iter": 3, "s": 2}, "s belongs to max_iter"),
        ({"type": "hyperband", "min_iter": 3, "max_iter": 27, "s": 2}, "min_iter is not used"),
        ({"type": "hyperband", "min_iter": 3, "mini": 4}, "early_terminate.mini is no key of hyperband"),
    ],
)
def test_early_terminate_that_is_noticed(plan: Any, given: dict[str, Any], said: str) -> None:
    """What changes nothing is said."""
    made = plan(early_terminate=given)
    assert len(made.notices) == 1
    assert said in made.notices[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "type is missing; it must be hyperband"),
        ("hyperband", "must be a mapping, not text"),
        ({"type": "median"}, "early_terminate.type = 'median': must be hyperband"),
        ({"type": "hyperband"}, "needs min_iter, or max_iter and s; for example"),
        ({"type": "hyperband", "s": 2}, "needs min_iter, or max_iter and s"),
        ({"type": "hyperband", "min_itr": 3}, "early_terminate.min_itr = 3: unknown key; did you mean 'min_iter'?"),
        ({"typ": "hyperband", "min_iter": 3}, "early_terminate.typ = 'hyperband': unknown key; did you mean 'type'?"),
        ({"type": "hyperband", "max_iter": 27}, "s is missing: max_iter needs it"),
        ({"type": "hyperband", "max_iter": 27, "min_iter": 3}, "s is missing: max_iter needs it"),
        ({"type": "hyperband", "max_iter": 2, "s": 2}, "leaves no band: max_iter / eta = 2 / 3 is below 1"),
        ({"type": "hyperband", "max_iter": 27, "s": 0}, "early_terminate.s = 0: must be a whole number, at least 1"),
        ({"type": "hyperband", "max_iter": 27, "s": 1.5}, "must be a whole number"),
        ({"type": "hyperband", "min_iter": 0}, "early_terminate.min_iter = 0: must be a whole number, at least 1"),
        ({"type": "hyperband", "min_iter": "3"}, "must be a number, not text"),
        ({"type": "hyperband", "min_iter": None}, "must be a number, not null"),
        ({"type": "hyperband", "min_iter": 3, "eta": 1}, "early_terminate.eta = 1: must be above 1"),
        ({"type": "hyperband", "min_iter": 3, "strict": "yes"}, "must be true or false"),
    ],
)
def test_early_terminate_that_is_refused(refused: Any, given: Any, said: str) -> None:
    """Each in one line, where W&B itself ends in a KeyError."""
    assert said in refused(early_terminate=given)
