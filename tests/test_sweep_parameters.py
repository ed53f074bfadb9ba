"""A sweep's ``parameters``: every distribution, named or inferred, nesting, names; every slip named in one line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sweep_plans
from sweep_plans import LR

from ptydask import sampling
from ptydask.config import Overrides
from ptydask.config.sweep.distributions import FIELDS
from ptydask.distributions import Choice, FloatRange, IntRange, QuantileDistribution, WeightedChoice
from ptydask.engines.command.arguments import expand
from ptydask.model import Budget
from ptydask.space import sweep_values


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See :func:`sweep_plans.made`, without its folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return partial(sweep_plans.made, tmp_path)


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """See :func:`sweep_plans.refusal`, without its folder."""
    return partial(sweep_plans.refusal, tmp_path)


# --- distributions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        # inferred
        ({"values": [1, 2.5, "a", None, True]}, Choice((1, 2.5, "a", None, "true"))),
        ({"values": ["adam", "sgd"]}, Choice(("adam", "sgd"))),
        ({"values": [True, False]}, Choice((True, False))),
        ({"values": ["a", "b"], "probabilities": [0.25, 0.75]}, WeightedChoice(("a", "b"), (0.25, 0.75))),
        ({"min": 1, "max": 8}, IntRange(1, 8)),
        ({"min": 1.0, "max": 8}, FloatRange(1.0, 8.0)),
        ({"min": 1, "max": 8.5}, FloatRange(1.0, 8.5)),
        ({"min": -1e-5, "max": 1e-5}, FloatRange(-1e-5, 1e-5)),
        # named
        ({"distribution": "categorical", "values": [32, 64]}, Choice((32, 64))),
        (
            {"distribution": "categorical", "values": [1, 2], "probabilities": [0.1, 0.9]},
            WeightedChoice((1, 2), (0.1, 0.9)),
        ),
        (
            {"distribution": "categorical_w_probabilities", "values": [1, 2], "probabilities": [0.1, 0.9]},
            WeightedChoice((1, 2), (0.1, 0.9)),
        ),
        ({"distribution": "int_uniform", "min": 2, "max": 128}, IntRange(2, 128)),
        ({"distribution": "int_uniform", "min": 1e3, "max": 1e5}, IntRange(1000, 100000)),
        ({"distribution": "uniform", "min": 0, "max": 1}, FloatRange(0.0, 1.0)),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, QuantileDistribution("uniform", 0.0, 1.0, 0.25)),
        ({"distribution": "q_uniform", "min": 0, "max": 9}, QuantileDistribution("uniform", 0.0, 9.0, 1)),
        (
            {"distribution": "log_uniform", "min": -9.0, "max": -2.0},
            FloatRange(math.exp(-9.0), math.exp(-2.0), log=True),
        ),
        ({"distribution": "log_uniform_values", "min": 1e-5, "max": 0.01}, FloatRange(1e-5, 0.01, log=True)),
        (
            {"distribution": "q_log_uniform", "min": 0, "max": 6.5, "q": 2},
            QuantileDistribution("log_uniform", 0.0, 6.5, 2),
        ),
        (
            {"distribution": "q_log_uniform_values", "min": 16, "max": 512, "q": 8.0},
            QuantileDistribution("log_uniform", math.log(16), math.log(512), 8.0),
        ),
        (
            {"distribution": "inv_log_uniform", "min": 2.0, "max": 9.0},
            FloatRange(math.exp(-9.0), math.exp(-2.0), log=True),
        ),
        ({"distribution": "inv_log_uniform_values", "min": 1e-5, "max": 0.01}, FloatRange(1e-5, 0.01, log=True)),
        ({"distribution": "normal"}, QuantileDistribution("normal", 0.0, 1.0)),
        ({"distribution": "normal", "mu": 3, "sigma": 0.5}, QuantileDistribution("normal", 3.0, 0.5)),
        ({"distribution": "q_normal", "mu": 3, "sigma": 5}, QuantileDistribution("normal", 3.0, 5.0, 1)),
        ({"distribution": "log_normal", "mu": -7, "sigma": 1}, QuantileDistribution("log_normal", -7.0, 1.0)),
        ({"distribution": "q_log_normal", "q": 0.5}, QuantileDistribution("log_normal", 0.0, 1.0, 0.5)),
        ({"distribution": "beta"}, QuantileDistribution("beta", 1.0, 1.0)),
        ({"distribution": "beta", "a": 2, "b": 0.5}, QuantileDistribution("beta", 2.0, 0.5)),
        ({"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1}, QuantileDistribution("beta", 2.0, 5.0, 0.1)),
    ],
)
def test_distribution(plan: Any, entry: dict[str, Any], expected: object) -> None:
    """Each of W&B's distributions, named or inferred, becomes the very same one, ints staying ints."""
    made = plan({"x": entry})
    assert made.space["x"] == expected
    assert repr(made.space["x"]) == repr(expected)
    assert made.config["parameters"][0]["name"] == "x"
    assert "value" not in made.config["parameters"][0]


@pytest.mark.parametrize("value", [0.9, 3, True, False, None, "adam", [1, [2]], {"a": {"b": 1}}, "1e-5", ""])
@pytest.mark.parametrize("named", [{}, {"distribution": "constant"}])
def test_constants(plan: Any, value: Any, named: dict[str, str]) -> None:
    """A constant is no part of the search; its value reaches the program as it is, whatever it is."""
    made = plan({"x": {**named, "value": value}, **LR})
    assert list(made.space) == ["lr"]
    assert sweep_values.values(made.config, {"lr": 0.5}) == {"x": value, "lr": 0.5}
    assert type(sweep_values.values(made.config, {"lr": 0.5})["x"]) is type(value)


def test_every_distribution_is_tested() -> None:
    """The table above names every distribution that is known."""
    tested = {row[0].get("distribution") for row in test_distribution.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    assert set(FIELDS) - tested == {"constant"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"values": [1, 2, 3]}, (1, 2, 3)),
        ({"min": 3, "max": 6}, (3, 4, 5, 6)),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 5}, (0, 5)),
        ({"distribution": "q_uniform", "min": 0, "max": 11, "q": 5}, (0, 5, 10)),
        ({"distribution": "q_uniform", "min": 0, "max": 3}, (0, 1, 2)),
        ({"distribution": "q_uniform", "min": 0.1, "max": 0.5, "q": 0.1}, (0.1, 0.2, 0.3, 0.4)),
        ({"distribution": "q_uniform", "min": 1, "max": 2, "q": 0.5}, (1.0, 1.5)),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 7}, (0,)),
        ({"values": [1, 1.0, 2, 1]}, (1, 2)),
        ({"values": [[1], {"a": 1}, "a"]}, ("[1]", '{"a": 1}', "a")),
    ],
)
def test_grid_values(plan: Any, entry: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """A grid counts off integers with both ends and ``arange(min, max, q)`` without max; equal values are one."""
    made = plan({"x": entry}, method="grid", run_cap=...)
    points = sampling.grid_points(made)
    assert points is not None
    assert [point.params["x"] for point in points] == list(expected)
    assert repr(tuple(point.params["x"] for point in points)) == repr(expected)
    assert made.budget == Budget(len(expected), total=True)
    assert made.sampler.name == "GridSampler"


def test_grid_order(plan: Any) -> None:
    """Parameters in alphabetical order, the last one fastest, constants aside, whatever the file's order."""
    made = plan(
        {"b": {"values": [3, 1]}, "c": {"value": 0}, "a": {"values": ["x", "y"]}, "n": {"min": 1, "max": 2}},
        method="grid",
        run_cap=...,
    )
    points = sampling.grid_points(made)
    assert points is not None
    assert [tuple(p.params[name] for name in "abn") for p in points] == list(
        itertools.product(["x", "y"], [3, 1], [1, 2])
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"values": [1, 1.0, 2]}, "x: values has 3 values, 2 of them different"),
        ({"values": [[1], 2]}, "1 of its values are shown as JSON text"),
        ({"values": [1, 2, 3], "probabilities": [0.5, 0.5, 0]}, "have the probability 0"),
        ({"min": 2, "max": 2}, "x: min = max = 2"),
        ({"value": [16, 32, 64]}, "x: a constant list; write values: to try each"),
        ({"distribution": "log_uniform", "min": 1e-5, "max": 0.1}, "it samples 1.00001 to 1.10517"),
        ({"distribution": "log_uniform", "min": 1e-5, "max": 10}, "use log_uniform_values"),
        ({"distribution": "q_log_uniform", "min": 16, "max": 256}, "use q_log_uniform_values"),
        ({"distribution": "inv_log_uniform", "min": 1e-5, "max": 0.1}, "use inv_log_uniform_values"),
    ],
)
def test_what_is_said_of_a_parameter(plan: Any, entry: dict[str, Any], said: str) -> None:
    """What may surprise is said, in one notice."""
    assert [said in notice for notice in plan({"x": entry}).notices].count(True) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"distribution": "log_uniform", "min": -9.21, "max": -2.3},
        {"distribution": "q_log_uniform", "min": 0, "max": 6.93},
        {"distribution": "q_log_uniform", "min": 2.77, "max": 5.55, "q": 1},
        {"values": [1, 2, 3]},
        {"min": 0, "max": 1},
        {"value": [16]},
        {"value": [[1, 2], [3, 4]]},
        {"distribution": "constant", "value": [0.9, 0.999]},
    ],
)
def test_nothing_is_said_of_a_good_parameter(plan: Any, entry: dict[str, Any]) -> None:
    """Exponents that are exponents, and all that is usual, pass without a word."""
    assert plan({"x": entry}).notices == ()


def test_equal_values_keep_their_share(plan: Any) -> None:
    """W&B draws each item of ``values`` alike, so a value that is there twice is twice as likely; true is not 1."""
    assert plan({"x": {"values": ["a", "b", "a"]}}).space["x"] == WeightedChoice(("a", "b"), (2 / 3, 1 / 3))
    assert plan({"x": {"values": [1, 2, 1.0, 2]}}).space["x"] == Choice((1, 2))
    assert plan({"x": {"values": ["a", "b", "a"]}}, method="grid").space["x"] == Choice(("a", "b"))
    made = plan({"x": {"values": [1, True, 0, False, "true"]}})
    assert made.space["x"] == Choice((1, "(true)", 0, "false", "true"))
    assert [sweep_values.values(made.config, {"x": label})["x"] for label in made.space["x"].choices] == [
        1,
        True,
        0,
        False,
        "true",
    ]


def test_labels(plan: Any) -> None:
    """Lists and mappings are text to the sampler and themselves to the program, also beside text that looks alike."""
    values = [[64, 64], {"a": {"b": None}}, "[64, 64]", [], "é"]
    made = plan({"layers": {"values": values}})
    choices = made.space["layers"].choices
    assert len(set(choices)) == 5
    assert all(isinstance(choice, str) for choice in choices)
    assert [sweep_values.values(made.config, {"layers": choice})["layers"] for choice in choices] == values


@pytest.mark.parametrize("count", [10_000])
def test_many_values(plan: Any, count: int) -> None:
    """Thousands of values are a choice like any other."""
    made = plan({"x": {"values": list(range(count))}}, method="grid", run_cap=...)
    assert made.space["x"] == Choice(tuple(range(count)))
    assert made.budget.n_trials == count


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        # neither fish nor fowl
        (None, "parameters.x = None: has no value: every line below it is a comment"),
        (0.1, "parameters.x = 0.1: must be a mapping, not a number; write {value: ...}"),
        ("a", "must be a mapping, not text"),
        ([1, 2], "must be a mapping, not a list; write {values: ...}"),
        ({}, "says nothing of what to try"),
        ({"mu": 1}, "says nothing of what to try"),
        ({"value": 1, "values": [1]}, "has both value and values"),
        ({"min": 1}, "max is missing"),
        ({"max": 1}, "min is missing"),
        ({"min": 0, "max": 1, "vaules": [1]}, "parameters.x.vaules = [1]: unknown key; did you mean 'values'?"),
        (
            {"min": 0, "max": 1, "mbs": {"value": 3}},
            "parameters.x.mbs = {'value': 3}: is indented into the parameter x",
        ),
        ({"value": 3, "mbs": {"lr": {"value": 3}}}, "is indented into the parameter x"),
        ({"parameters": {"a": {"value": 1}}, "min": 0}, "holds parameters of its own, so it cannot have min too"),
        ({"parameters": None}, "parameters.x.parameters = None: holds no parameter"),
        ({"parameters": {}}, "holds no parameter"),
        ({"parameters": 3}, "parameters.x.parameters = 3: must be a mapping"),
        # distribution
        ({"distribution": "log-uniform", "min": 0, "max": 1}, "W&B has no such distribution; did you mean"),
        ({"distribution": "loguniform", "min": 1e-5, "max": 1}, "did you mean 'log_uniform_values'? (min and max of"),
        ({"distribution": "LogUniform", "min": -9, "max": -2}, "did you mean 'log_uniform'?"),
        ({"distribution": "xyz"}, "known: constant, categorical"),
        ({"distribution": None, "min": 0, "max": 1}, "W&B has no such distribution"),
        ({"distribution": ["uniform"], "min": 0, "max": 1}, "W&B has no such distribution"),
        ({"distribution": "uniform", "min": 0, "max": 1, "q": 0.1}, "does not belong to the distribution uniform"),
        ({"min": 0, "max": 1, "q": 0.1}, "did you mean q_uniform?"),
        ({"distribution": "uniform", "values": [1]}, "does not belong to the distribution uniform"),
        ({"distribution": "constant", "values": [1]}, "does not belong to the distribution constant"),
        ({"distribution": "constant"}, "value is missing"),
        ({"distribution": "categorical"}, "values is missing"),
        ({"distribution": "categorical_w_probabilities", "values": [1]}, "probabilities is missing"),
        ({"distribution": "uniform", "min": 0}, "max is missing"),
        ({"distribution": "normal", "min": 0, "max": 1}, "does not belong to the distribution normal"),
        # ranges
        ({"min": 3, "max": 1}, "parameters.x.min = 3: must not be above max = 1"),
        ({"min": "1e-5", "max": 1}, "must be a number, not text; write it without quotes"),
        ({"min": "low", "max": 1}, "must be a number, not text"),
        ({"min": True, "max": 1}, "must be a number, not true or false"),
        ({"min": None, "max": 1}, "must be a number, not null"),
        ({"min": [1], "max": 1}, "must be a number, not a list"),
        ({"min": 0, "max": float("inf")}, "must be a finite number"),
        ({"min": 0, "max": float("nan")}, "must be a number"),
        ({"min": 0, "max": 2**63}, "must lie within 2**53"),
        ({"min": 0, "max": 2**70}, "at most 64 bits"),
        ({"min": 0.0, "max": 1e305}, "must be a finite number"),
        ({"distribution": "int_uniform", "min": 0, "max": 1.5}, "must be a whole number for int_uniform"),
        ({"distribution": "log_uniform_values", "min": 0, "max": 1}, "must be above 0 for log_uniform_values"),
        ({"distribution": "inv_log_uniform_values", "min": -1, "max": 1}, "must be above 0"),
        ({"distribution": "log_uniform", "min": 1, "max": 1000}, "parameters.x.max = 1000: is an exponent"),
        ({"distribution": "log_uniform", "min": -1000, "max": 0}, "parameters.x.min = -1000: is an exponent"),
        ({"distribution": "inv_log_uniform", "min": 1, "max": 1000}, "parameters.x.max = 1000: is an exponent"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0}, "parameters.x.q = 0: must be above 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": -1}, "must be above 0"),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": "a"}, "parameters.x.q = 'a': must be a number"),
        ({"distribution": "q_uniform", "min": 0, "max": 1e200, "q": 1e-200}, "is too small"),
        ({"distribution": "normal", "sigma": 0}, "parameters.x.sigma = 0: must be above 0"),
        ({"distribution": "normal", "mu": "a"}, "parameters.x.mu = 'a': must be a number"),
        ({"distribution": "log_normal", "mu": 700, "sigma": 9}, "is no number a computer holds"),
        ({"distribution": "beta", "a": 0}, "parameters.x.a = 0: must be above 0"),
        ({"distribution": "q_beta", "b": 1e300}, "parameters.x.b = 1e+300: must lie between 1e-6 and 1e6"),
        # values
        ({"values": []}, "parameters.x.values = []: must hold at least one value"),
        ({"values": 3}, "must be a list, not a number; write values: [3]"),
        ({"values": "abc"}, "must be a list, not text"),
        ({"values": None}, "must be a list, not null"),
        ({"values": {"a": 1}}, "must be a list, not a mapping"),
        ({"values": [1, float("inf")]}, "parameters.x.values[1] = inf: must be a finite number"),
        ({"values": [[1, float("-inf")]]}, "must be a finite number"),
        ({"values": ["a\0b"]}, "holds a character that no program can be given"),
        ({"values": ["\ud800"]}, "holds a character that no program can be given"),
        ({"value": float("inf")}, "parameters.x.value = inf: must be a finite number; write it in quotes"),
        ({"values": [1, 2], "probabilities": [0.5, 0.6]}, "must sum to 1, not 1.1"),
        ({"values": [1, 2], "probabilities": [1]}, "must have one number for each of the 2 values, not 1"),
        ({"values": [1, 2], "probabilities": [1.5, -0.5]}, "must hold numbers from 0 to 1"),
        ({"values": [1, 2], "probabilities": ["a", "b"]}, "must hold numbers from 0 to 1"),
        ({"values": [1, 2], "probabilities": 0.5}, "must be a list, not a number"),
        ({"values": [1, 2], "probabilities": None}, "must be a list, not null"),
    ],
)
def test_parameters_that_are_refused(refused: Any, entry: Any, said: str) -> None:
    """Each in one line with file, key, value, rule."""
    assert said in refused({"x": entry})


@pytest.mark.parametrize(
    "entry",
    [
        {"min": 0.0, "max": 1.0},
        {"distribution": "normal"},
        {"distribution": "log_uniform_values", "min": 1, "max": 2},
        {"distribution": "q_log_uniform_values", "min": 1, "max": 2},
    ],
)
def test_what_no_grid_can_count(refused: Any, entry: dict[str, Any]) -> None:
    """A grid of a continuous range is refused, as W&B does, and says what else to do."""
    text = refused({"x": entry}, method="grid")
    assert "a grid cannot count off" in text
    assert "method: random" in text


def test_grids_that_are_refused(refused: Any) -> None:
    """Probabilities have no place in a grid; nor have more points than anyone runs, or none."""
    assert "probabilities" in refused({"x": {"values": [1, 2], "probabilities": [0.5, 0.5]}}, method="grid")
    million = {"x": {"min": 1, "max": 1000}, "y": {"min": 1, "max": 1000}}
    assert "the grid has 1000000 points (x 1000 x y 1000)" in refused(million, method="grid")
    nothing = {"x": {"distribution": "q_uniform", "min": 1, "max": 1}}
    assert "leaves a grid no point" in refused(nothing, method="grid")


# --- names and nesting ------------------------------------------------------------------------------


def test_nested_parameters(plan: Any) -> None:
    """Names are joined with dots, the program gets the nesting back, by name as from W&B."""
    inner = {"lr": {"min": 0.0, "max": 1.0}, "name": {"value": "adam"}, "deep": {"parameters": {"x": {"values": [1]}}}}
    made = plan({"b": {"value": 1}, "optim": {"parameters": inner}, "a.b": {"value": 2}})
    assert list(made.space) == ["optim.lr", "optim.deep.x"]
    assert made.config["parameters"][1] == {"name": "optim.lr", "path": ["optim", "lr"]}
    values = sweep_values.values(made.config, {"optim.lr": 0.5, "optim.deep.x": 1})
    assert values == {"b": 1, "optim": {"lr": 0.5, "name": "adam", "deep": {"x": 1}}, "a.b": 2}
    assert list(values) == ["a.b", "b", "optim"]
    assert list(values["optim"]) == ["deep", "lr", "name"]


COLLIDING: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a dot and nesting": ({"a": {"parameters": {"b": {"values": [1, 2]}}}, "a.b": {"values": [3, 4]}}, ["a:b", "a.b"]),
    "the other way round": ({"a.b": {"values": [3, 4]}, "a": {"parameters": {"b": {"value": 1}}}}, ["a.b", "a:b"]),
    "two that are nested": (
        {"a": {"parameters": {"b.c": {"value": 1}}}, "a.b": {"parameters": {"c": {"values": [1, 2]}}}},
        ["a:b.c", "a.b:c"],
    ),
    "as deep as that": (
        {"a": {"parameters": {"b": {"parameters": {"c": {"value": 1}}}}}, "a.b.c": {"value": 2}, "x": {"values": [1]}},
        ["a:b:c", "a.b.c", "x"],
    ),
}


@pytest.mark.parametrize("what", COLLIDING)
def test_dots_and_nesting_are_two_parameters(plan: Any, what: str) -> None:
    """W&B keeps both; the program gets each where it belongs, and a note says how the nested one is called."""
    section, names = COLLIDING[what]
    made = plan(section)
    assert [entry["name"] for entry in made.config["parameters"]] == names
    assert [entry["path"] for entry in made.config["parameters"]] == list(_paths(section))
    assert sum(" is there twice" in notice for notice in made.notices) >= 1
    chosen = {name: dist.choices[0] for name, dist in made.space.items()}
    assert set(sweep_values.values(made.config, chosen)) == {path[0] for path in _paths(section)}


def _paths(section: dict[str, Any], *way: str) -> Iterator[list[str]]:
    for name, entry in section.items():
        if "parameters" in entry:
            yield from _paths(entry["parameters"], *way, name)
        else:
            yield [*way, name]


def test_names_that_collide_nevertheless(refused: Any) -> None:
    """A third name is not made up."""
    section = {"a.b": {"value": 1}, "a": {"parameters": {"b": {"value": 2}}}, "a:b": {"value": 3}}
    assert "two parameters have the same name" in refused(section)


@pytest.mark.parametrize(
    ("section", "arguments"),
    [
        ({"model.init_args.lr": 0.1, "model.class_path": "A"}, ["--model.class_path=A", "--model.init_args.lr=0.1"]),
        ({"b": 1, "a": 2, "B": 3, "_c": 4}, ["--B=3", "--_c=4", "--a=2", "--b=1"]),
        ({"x10": 1, "x9": 2}, ["--x10=1", "--x9=2"]),
        ({"m": {"z": 1, "a": 2}, "a.z": 3}, ["--a.z=3", "--m={'a': 2, 'z': 1}"]),
    ],
)
def test_arguments_are_in_the_order_of_names(plan: Any, section: dict[str, Any], arguments: list[str]) -> None:
    """As W&B sorts them, whatever the order of the file."""
    entries: dict[str, Any] = {
        name: {"parameters": {k: {"value": v} for k, v in value.items()}}
        if isinstance(value, dict)
        else {"value": value}
        for name, value in section.items()
    }
    made = plan(entries)
    values = sweep_values.values(made.config, {})
    assert list(expand(["${args}"], None, values, {}, None).argv) == arguments


@pytest.mark.parametrize("depth", [21, 60, 247, 250, 400])
def test_deep_nesting(refused: Any, depth: int) -> None:
    """However deep, one line."""
    body: dict[str, Any] = {"value": 1}
    for _ in range(depth):
        body = {"parameters": {"a": body}}
    assert "deep" in refused({"a": body})


@pytest.mark.parametrize("name", ["", " ", "a b", "a=b", "-lr", "--lr", "a\nb", "a\0", "x" * 201, "'a'"])
def test_names_that_are_refused(refused: Any, name: str) -> None:
    """What cannot be an argument's name is refused."""
    text = refused({name: {"value": 1}})
    assert text.startswith("parameters = ")
    assert "hyphen" in text if name.startswith("-") else "a parameter's name is" in text


@pytest.mark.parametrize(("name", "said"), [("lr", 0), ("_a.b-c", 0), ("model/depth", 1), ("lärm", 1), ("+x", 1)])
def test_names_that_wandb_would_not_take(plan: Any, name: str, said: int) -> None:
    """Names that W&B's schema refuses are used and noticed."""
    made = plan({name: {"values": [1, 2]}})
    assert list(made.space) == [name]
    assert len(made.notices) == said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (..., "parameters: is missing"),
        (None, "parameters = None: holds no parameter: every line below it is a comment, or is not indented"),
        ({}, "holds no parameter"),
        ([{"lr": {"value": 1}}], "must be a mapping, not a list"),
        ("lr", "must be a mapping, not text"),
    ],
)
def test_no_parameters(refused: Any, given: Any, said: str) -> None:
    """A sweep without parameters is refused: nothing is guessed at."""
    assert said in refused(given)


def test_nothing_tuned(plan: Any) -> None:
    """Constants alone are one trial, or as many as are asked for; a grid of them has one point."""
    fixed = {"lr": {"value": 1}}
    assert plan(fixed, method="grid").budget == Budget(1, total=True)
    assert plan(fixed, method="bayes", run_cap=...).budget == Budget(1, total=True)
    assert plan(fixed, run_cap=3).budget == Budget(3, total=True)
    made = plan(fixed, Overrides(n_trials=7), method="bayes")
    assert (made.budget, made.space, made.sampler.name) == (Budget(7, total=True), {}, "RandomSampler")
