"""A sweep's key ``engine``, which is our own, to a study plan."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sweep_plans
from sweep_plans import LR


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See :func:`sweep_plans.made`, without its folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return partial(sweep_plans.made, tmp_path)


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """See :func:`sweep_plans.refusal`, without its folder."""
    return partial(sweep_plans.refusal, tmp_path)


# --- engine -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("objective", "best", "best"),
        ("directory", "trial", "trial"),
        ("devices", "gpu", "gpu"),
        ("outputs", ["*.pt", "logs/**/x.csv"], ["*.pt", "logs/**/x.csv"]),
        ("outputs", [], []),
        ("outputs", None, []),
        ("outputs_limit", "1.5 GB", 1_500_000_000),
        ("outputs_limit", "64MiB", 64 * 2**20),
        ("outputs_limit", "2 kB", 2000),
        ("outputs_limit", 10, 10),
        ("outputs_limit", 0, 0),
        ("start_timeout", None, None),
        ("start_timeout", 30, 30.0),
        ("idle_timeout", 0.5, 0.5),
        ("trial_timeout", 3600, 3600.0),
        ("environment", {"OMP_NUM_THREADS": 1, "A": "b"}, {"OMP_NUM_THREADS": "1", "A": "b"}),
        ("environment", None, {}),
    ],
)
def test_engine_settings(plan: Any, name: str, value: Any, kept: Any) -> None:
    """What our own key says is kept, checked and in one unit; all others have their defaults."""
    made = plan({"gpu": {"value": 0}, **LR}, engine={name: value})
    assert made.config["engine"][name] == kept
    assert type(made.config["engine"][name]) is type(kept)
    assert made.engine == "command"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("command", "engine = 'command': must be a mapping, not text"),
        ({"objektive": "best"}, "engine.objektive = 'best': unknown key; did you mean 'objective'?"),
        ({"callable": "train"}, "must be module:function or file.py:function"),
        ({"callable": "a:b c"}, "must be module:function"),
        ({"callable": 3}, "engine.callable = 3: must be text"),
        ({"objective": "first"}, "must be last or best"),
        ({"gradient": ["lr"]}, "engine.gradient = ['lr']: only a function reports slopes; set engine.callable"),
        ({"gradient": "lr", "callable": "a:b"}, "engine.gradient = 'lr': must be a list"),
        (
            {"gradient": ["rl"], "callable": "a:b"},
            "engine.gradient = 'rl': is no tuned parameter of this sweep; known: lr",
        ),
        ({"directory": ""}, "engine.directory = '': must not be empty"),
        ({"devices": "gpu"}, "engine.devices = 'gpu': is no parameter of this sweep"),
        ({"devices": "lr"}, "engine.devices = 'lr': is tuned"),
        ({"outputs": "*.pt"}, "engine.outputs = '*.pt': must be a list"),
        ({"outputs": ["/etc/*"]}, "engine.outputs[0] = '/etc/*': must be relative"),
        ({"outputs": ["C:\\x"]}, "must be relative"),
        ({"outputs": ["a", "../x"]}, "engine.outputs[1] = '../x': must not lead out"),
        ({"outputs": [3]}, "engine.outputs[0] = 3: must be text"),
        ({"outputs_limit": "64 XB"}, "must be bytes, or text with B, kB, MB"),
        ({"outputs_limit": -1}, "must be a number of bytes"),
        ({"outputs_limit": True}, "must be a number"),
        ({"start_timeout": 0}, "must be seconds above 0, or null for no limit"),
        ({"idle_timeout": "5 min"}, "engine.idle_timeout = '5 min': must be a number"),
        ({"environment": ["A=1"]}, "must be a mapping, not a list"),
        ({"environment": {"A": True}}, "engine.environment.A = True: must be text, not true or false; quote it"),
        ({"environment": {"A=B": "1"}}, "is no name of an environment variable"),
        ({"environment": {"PTYDASK_TRIAL": "1"}}, "is set by ptydask itself"),
        ({"environment": {"A": "\0"}}, "holds a NUL character"),
    ],
)
def test_engine_settings_that_are_refused(refused: Any, given: Any, said: str) -> None:
    """Each in one line."""
    assert said in refused(engine=given)


@pytest.mark.parametrize("function", ["package.module:objective", "train.py:objective", "sub dir/train.py:Model.fit"])
def test_callable(plan: Any, function: str) -> None:
    """A function needs no program; what belongs to programs is said to mean nothing."""
    made = plan(program=..., engine={"callable": function, "objective": "best"})
    assert made.engine == "callable"
    assert made.config["engine"]["callable"] == function
    assert made.notices == ()
    made = plan(engine={"callable": function, "outputs": []})
    assert made.notices == ("engine.outputs, program: without a meaning for engine.callable",)


def test_slopes_are_of_tuned_numbers(plan: Any, refused: Any) -> None:
    """Those of a choice among values are refused."""
    engine = {"callable": "a:b", "gradient": ["lr"]}
    assert plan(engine=engine).config["engine"]["gradient"] == ["lr"]
    said = refused({"lr": {"values": [0.1, 0.2]}}, engine=engine)
    assert "engine.gradient = 'lr': has no slope: it is a choice among values; leave it out" in said


def test_devices_of_ldctbench(plan: Any) -> None:
    """ldctbench-train overwrites CUDA_VISIBLE_DEVICES by its parameter, so that one is the slot's, unless said."""
    gpu = {"devices": {"value": 0}, **LR}
    for program in ("ldctbench-train", "/opt/bin/ldctbench-train"):
        made = plan(gpu, program=program)
        assert made.config["engine"]["devices"] == "devices"
        assert len(made.notices) == 1
    assert plan(LR, program="ldctbench-train").config["engine"]["devices"] is None
    assert plan(gpu).config["engine"]["devices"] is None
