"""A W&B sweep file to a study plan: every key but ``parameters``; every slip named in one line."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sweep_plans
import yaml
from sweep_plans import LR

from ptydask import config, engines, errors
from ptydask.cli import main
from ptydask.config import Overrides
from ptydask.config.ptyrad.params_file import PtyradFormat
from ptydask.config.sweep.sweep_file import KEYS, SweepFormat
from ptydask.distributions import FloatRange, IntRange
from ptydask.model import Budget, ComponentSpec
from ptydask.space import sweep_values

SEED = Path(__file__).parent / "fixtures" / "sweeps" / "seed-flattened.yaml"
GP = importlib.util.find_spec("scipy") is not None and importlib.util.find_spec("torch") is not None
HEAD = "method: random\nrun_cap: 5\nmetric: {name: loss}\nprogram: t.py\n"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """See :func:`sweep_plans.made`, without its folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return partial(sweep_plans.made, tmp_path)


@pytest.fixture
def refused(tmp_path: Path) -> Any:
    """See :func:`sweep_plans.refusal`, without its folder."""
    return partial(sweep_plans.refusal, tmp_path)


# --- the flattened file -----------------------------------------------------------------------------


def test_flattened_file() -> None:
    """The seed's file, its indentation lost, is the study that was meant, and says so."""
    made = config.load(SEED)
    assert made.space == {
        "lr": FloatRange(1e-5, 0.01, log=True),
        "max_iterations": IntRange(1000, 100000),
        "mbs": IntRange(2, 128),
        "patchsize": IntRange(32, 128),
    }
    values = sweep_values.values(made.config, {"lr": 1e-3, "max_iterations": 2000, "mbs": 8, "patchsize": 64})
    assert len(values) == 16
    assert list(values)[:5] == ["adam_b1", "adam_b2", "data_norm", "data_subset", "devices"]
    assert values["dryrun"] is False
    assert (made.name, made.metric, made.direction, made.engine) == ("cnn10-hpopt", "SSIM", "maximize", "command")
    assert made.config["program"] == "ldctbench-train"
    assert made.config["command"] == ["${program}", "${args_no_boolean_flags}"]
    assert made.config["engine"]["devices"] == "devices"
    assert "indent these lines" in made.notices[0]
    assert made.budget == Budget(0, total=True)


def test_flattened_file_takes_settings() -> None:
    """``--set`` reaches a parameter that lost its indentation by its right name."""
    made = config.load(SEED, Overrides(settings=(("parameters.lr.max", 0.1), ("parameters.seed.value", 7))))
    assert made.space["lr"] == FloatRange(1e-5, 0.1, log=True)
    assert {"name": "seed", "path": ["seed"], "value": 7} in made.config["parameters"]


def test_the_right_indentation_says_the_same(tmp_path: Path) -> None:
    """The same file, indented as it was meant, gives the same study without the notice."""
    lines = SEED.read_text().splitlines()
    cut = lines.index("parameters:") + 1
    path = tmp_path / "indented.yaml"
    path.write_text("\n".join([*lines[:cut], *(f"    {line}" for line in lines[cut:])]))
    flat, right = config.load(SEED), config.load(path)
    assert (right.space, right.config) == (flat.space, flat.config)
    assert right.notices == flat.notices[1:]


def test_stray_parameters_are_not_guessed_at(refused: Any, plan: Any) -> None:
    """Only an empty ``parameters:`` has its parameters put back; beside others a note says what they may be."""
    text = refused(..., lr={"min": 0, "max": 1})
    assert text.startswith("lr = {'min': 0, 'max': 1}: looks like a parameter")
    assert refused({}, lr={"min": 0, "max": 1}).startswith("parameters = {}: holds no parameter")
    beside = plan({"mbs": {"value": 1}, "x": {"values": [1, 2]}}, lr={"min": 0, "max": 1}, data={"path": "a"})
    assert list(beside.space) == ["x"]
    assert [notice.partition(" is no key")[0] for notice in beside.notices] == ["lr", "data"]
    assert "indent it below parameters" in beside.notices[0]
    assert "indent" not in beside.notices[1]


def test_a_stray_parameter_without_a_value(refused: Any) -> None:
    """Of lines that lost their indentation, none may be left without a value."""
    assert "parameters.mbs = None: has no value" in refused(None, lr={"value": 1}, mbs=None)


# --- top level --------------------------------------------------------------------------------------


def test_defaults(plan: Any, tmp_path: Path) -> None:
    """A plan's parts where a sweep says no more than it has to."""
    made = plan()
    assert made.name == "study"
    assert made.results == Path("study.h5")
    assert (made.metric, made.direction, made.target) == ("loss", "minimize", None)
    assert (made.seed, made.storage, made.iterations, made.pruner) == (0, None, None, None)
    assert made.sampler == ComponentSpec("RandomSampler")
    assert made.budget == Budget(4, total=True)
    assert made.keep.arrays is True
    assert made.points == made.notices == ()
    assert made.config == {
        "program": "train.py",
        "command": ["${env}", "${interpreter}", "${program}", "${args}"],
        "parameters": [{"name": "lr", "path": ["lr"]}],
        "directory": str(tmp_path),
        "engine": {
            "callable": None,
            "objective": "last",
            "gradient": [],
            "directory": ".",
            "devices": None,
            "outputs": ["wandb/offline-run-*/files/**"],
            "outputs_limit": 64_000_000,
            "start_timeout": 600.0,
            "idle_timeout": None,
            "trial_timeout": None,
            "environment": {},
        },
    }
    assert json.loads(json.dumps(made.config)) == made.config


def test_overrides(plan: Any) -> None:
    """What the command line says beats the file."""
    said = Overrides(
        settings=(("parameters.lr.max", 5.0), ("metric.goal", "maximize"), ("run_cap", 9)),
        n_trials=7,
        timeout=60.0,
        results=Path("out/x.h5"),
        storage="sqlite:///s.sqlite3",
        engine="toy",
        sampler="TPESampler",
        seed=5,
    )
    made = plan(overrides=said)
    assert made.space["lr"] == FloatRange(0.0, 5.0)
    assert made.direction == "maximize"
    assert made.budget == Budget(7, total=True, timeout=60.0)
    assert (made.results, made.storage, made.engine, made.seed) == (
        Path("out/x.h5"),
        "sqlite:///s.sqlite3",
        "toy",
        5,
    )
    assert made.sampler.name == "TPESampler"
    assert made.sampler.configs["constant_liar"] is True


@pytest.mark.parametrize(
    ("top", "sampler"),
    [
        ({"method": "random"}, "RandomSampler"),
        ({"method": "bayes", "run_cap": 300}, "GPSampler"),
        ({"method": "bayes", "run_cap": 301}, "TPESampler"),
        ({"method": "bayes", "run_cap": ...}, "GPSampler"),
    ],
)
def test_method(plan: Any, top: dict[str, Any], sampler: str) -> None:
    """random draws at random; bayes is a Gaussian process up to 300 trials, then TPE, which is said."""
    if sampler == "GPSampler" and not GP:
        pytest.skip("needs SciPy and PyTorch")
    made = plan(**top)
    assert made.sampler.name == sampler
    assert any("TPESampler" in notice for notice in made.notices) is (sampler == "TPESampler")


def test_bayes_without_scipy(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SciPy TPE takes its place, and the extra is named."""
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "scipy" else real(name, *a))
    made = plan(method="bayes")
    assert made.sampler.name == "TPESampler"
    assert any("ptydask[gp]" in notice for notice in made.notices)


def test_sampler_by_name(plan: Any, refused: Any) -> None:
    """``--sampler`` beats the method: no grid is left of ``method: grid``, and one is made of another method."""
    points = {"x": {"min": 1, "max": 3}}
    made = plan(points, Overrides(sampler="TPESampler"), method="grid", run_cap=...)
    assert (made.sampler.name, made.budget.n_trials) == ("TPESampler", 0)
    made = plan(points, Overrides(sampler="GridSampler"), run_cap=...)
    assert (made.sampler.name, made.budget.n_trials) == ("GridSampler", 3)
    assert "--sampler = 'TPESample'" in refused(points, Overrides(sampler="TPESample"))
    for short, full in (("TPE", "TPE"), ("gp", "GP"), ("Random", "Random"), ("cmaes", "CmaEs"), ("tpesampler", "TPE")):
        assert f"did you mean '{full}Sampler'?" in refused(points, Overrides(sampler=short))


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"method": ...}, "method: is missing; must be grid, random or bayes"),
        ({"method": "Bayes"}, "method = 'Bayes': must be grid, random or bayes; did you mean 'bayes'?"),
        ({"method": None}, "must be grid, random or bayes"),
        ({"method": ["grid"]}, "must be grid, random or bayes"),
        ({"method": "custom"}, "which ptydask does not run; use grid, random or bayes"),
        ({"scheduler": {"engine": "optuna"}}, "scheduler = {'engine': 'optuna'}: a scheduler of W&B Launch is not run"),
        ({"metrics": [{"name": "a"}, {"name": "b"}]}, "several metrics at once are not supported"),
        (
            {"metrics": {"name": "a"}, "metric": ...},
            "metrics = {'name': 'a'}: unknown key; did you mean metric?",
        ),
        ({"metrics": {"name": "a"}}, "metrics = {'name': 'a'}: unknown key; remove it, metric is there too"),
        ({"metrics": ["a", "b"]}, "keep one of them: metric: {name: loss, goal: minimize}"),
        ({"metric": ..., "method": "bayes"}, "metric: is missing; the search (GPSampler) goes by it"),
        ({"metric": None, "method": "bayes"}, "metric: is missing"),
        ({"metric": "loss"}, "must be a mapping, not text; for example metric: {name: loss"),
        ({"metric": {}}, "name is missing"),
        ({"metric": {"name": 3}}, "metric.name = 3: must be text"),
        ({"metric": {"name": " "}}, "must be the name that the program logs it by"),
        ({"metric": {"name": "a", "goal": "max"}}, "metric.goal = 'max': must be minimize or maximize"),
        ({"metric": {"name": "a", "gaol": "maximize"}}, "unknown key; did you mean 'goal'?"),
        ({"metric": {"name": "a", "target": "b"}}, "metric.target = 'b': must be a number"),
        ({"metric": {"name": "a", "impute": "mean"}}, "metric.impute = 'mean': must be latest, best, worst"),
        ({"run_cap": 0}, "run_cap = 0: must be a whole number, at least 1"),
        ({"run_cap": 2.5}, "must be a whole number"),
        ({"run_cap": "10"}, "must be a number, not text; write it without quotes"),
        ({"run_cap": True}, "must be a number"),
        ({"program": ...}, "program: is missing; the command starts it"),
        ({"program": 3}, "program = 3: must be text"),
        ({"program": ""}, "program = '': must not be empty"),
        ({"program": "a\0"}, "holds a NUL character"),
        ({"command": "python train.py"}, "command = 'python train.py': must be a list, not text"),
        ({"command": []}, "must hold at least one item"),
        ({"command": ["python", {"a": 1}]}, "command[1] = {'a': 1}: must be text, not a mapping; quote it"),
        ({"command": ["python", None]}, "command[1] = None: must be text, not null; remove the item"),
        ({"command": [True]}, "must be text, not true or false; quote it"),
        ({"command": ["a\0"]}, "holds a NUL character"),
        ({"name": ""}, "name = '': must not be empty"),
        ({"name": 3}, "name = 3: must be text"),
        ({"name": "x" * 151}, "must be shorter, it becomes a file's name"),
        ({"project": ["a"]}, "project = ['a']: must be text"),
        ({"kind": "job"}, "kind = 'job': must be sweep"),
        ({"controller": {"type": "remote"}}, "must be {type: local} or {type: cloud}"),
        ({"controller": 3}, "must be {type: local} or {type: cloud}"),
    ],
)
def test_top_level_that_is_refused(refused: Any, top: dict[str, Any], said: str) -> None:
    """Each in one line with file, key, value, rule and what to do."""
    assert said in refused(**top)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        ({"early_stop": 3}, "early_stop is no key of a sweep file and changes nothing"),
        ({"runcap": 3}, "did you mean 'run_cap'?"),
        ({"a\nb": 3}, r"'a\nb' is no key of a sweep file"),
        ({"job": "a/b:latest"}, "job belongs to W&B Launch"),
        ({"metric": {"name": "val_acc"}}, "is goal: maximize meant?"),
        ({"metric": {"name": "loss", "impute": "worst"}}, "metric.impute: not used"),
        ({"metric": {"name": "loss", "impute_while_running": "best"}}, "metric.impute_while_running: not used"),
        ({"run_cap": ...}, "neither run_cap nor --trials"),
        ({"early_terminate": None}, "early_terminate is empty"),
        ({"command": None}, "command is empty: ${env} ${interpreter} ${program} ${args}"),
        ({"command": ["python", "${program}"]}, "command has no ${args}"),
    ],
)
def test_top_level_that_is_noticed(plan: Any, top: dict[str, Any], said: str) -> None:
    """What changes nothing, or not what one thinks, is said in one notice."""
    made = plan(**top)
    assert len(made.notices) == 1
    assert said in made.notices[0]


def test_every_key_of_wandb_passes(plan: Any) -> None:
    """A file with every key of W&B's is taken; what belongs to its server changes nothing."""
    made = plan(
        method="bayes",
        metric={"name": "SSIM", "goal": "maximize", "target": 0.9},
        early_terminate={"type": "hyperband", "min_iter": 3},
        command=["${env}", "${interpreter}", "${program}", "--steps", 5, "${args_no_equals}", "", 1.5],
        name="a study",
        description="text",
        project="p",
        entity="e",
        controller={"type": "local"},
        apiVersion="1",
        kind="sweep",
    )
    assert made.notices == ()
    assert made.target == 0.9
    assert made.config["command"][4] == "5"
    assert made.config["command"][-2:] == ["", "1.5"]
    assert {"job", "image_uri", "engine", "ptydask"} == set(KEYS) - {
        *("method", "metric", "parameters", "early_terminate", "command", "program", "name", "description"),
        *("project", "entity", "run_cap", "controller", "apiVersion", "kind"),
    }


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("plain", "plain.h5"),
        ("a/b", "a%2Fb.h5"),
        (".hid", "%2Ehid.h5"),
        ("CNN 10: é", "CNN 10%3A é.h5"),
        ("a\n", "a%0A.h5"),
    ],
)
def test_results_are_named_after_the_study(plan: Any, name: str, file: str) -> None:
    """A name that no file can have is written so that one can; the study keeps it."""
    made = plan(name=name)
    assert (made.name, made.results) == (name, Path(file))


def test_a_typing_error_in_a_key_that_is_needed(refused: Any) -> None:
    """The nearest key is named, not only that one is missing."""
    assert "parametrs" in refused(..., parametrs=LR)
    assert "did you mean 'parameters'?" in refused(..., parametrs=LR)
    assert "did you mean 'method'?" in refused(method=..., metod="grid")


# --- which kind of file -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "ptyrad", "sweep"),
    [
        ({"method": "grid", "parameters": {}}, False, True),
        ({"method": "grid"}, False, True),
        ({"parameters": {}}, False, True),
        ({"metod": "grid", "metric": {}}, False, True),
        ({"program": "a", "command": []}, False, True),
        ({"method": "bayes", "parameters": None, "model_params": {"value": 1}}, False, True),
        ({"init_params": {}}, True, False),
        ({"init_params": {}, "hypertune_params": {}, "parameters": {}}, True, False),
        ({"init_parms": {}, "recon_params": {}, "method": 1}, True, False),
        ({"program": "a"}, False, False),
        ({"services": {}, "version": 3}, False, False),
    ],
)
def test_recognition(data: dict[str, Any], ptyrad: bool, sweep: bool) -> None:
    """Neither kind of file takes what is the other's."""
    assert PtyradFormat().recognises(data) is ptyrad
    assert SweepFormat().recognises(data) is sweep


def test_a_file_of_neither_kind(tmp_path: Path) -> None:
    """The hint names both kinds."""
    path = tmp_path / "other.yaml"
    path.write_text("services: {}\nversion: 3\n")
    with pytest.raises(errors.ConfigError, match=r"init_params.*method and parameters"):
        config.load(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "s.yaml",
            "method: random\nrun_cap: 5\nmetric: {name: loss}\nprogram: t.py\nparameters:\n  lr: {min: 1e-5, max: 1}",
        ),
        (
            "s.yml",
            "method: random\nrun_cap: 5\nmetric: {name: loss}\nprogram: t.py\nparameters: {lr: {min: 0.00001, max: 1}}",
        ),
        (
            "s.json",
            '{"method": "random", "run_cap": 5, "metric": {"name": "loss"}, "program": "t.py",'
            ' "parameters": {"lr": {"min": 1e-5, "max": 1}}}',
        ),
        (
            "s.toml",
            'method = "random"\nrun_cap = 5\nprogram = "t.py"\n[metric]\nname = "loss"\n'
            "[parameters.lr]\nmin = 1e-5\nmax = 1\n",
        ),
    ],
)
def test_every_spelling(tmp_path: Path, name: str, text: str) -> None:
    """YAML, JSON and TOML are one format, and 1e-5 is a number in each."""
    path = tmp_path / name
    path.write_text(text)
    made = config.load(path)
    assert made.space == {"lr": FloatRange(1e-5, 1.0)}
    assert made.name == "s"


def test_anchors(tmp_path: Path) -> None:
    """YAML's anchors and merge keys; a top-level key that only holds an anchor is no stray parameter."""
    path = tmp_path / "s.yaml"
    path.write_text(
        f"{HEAD}_rate: &rate {{min: 0.0, max: 1.0}}\nparameters:\n  a: *rate\n  b: {{<<: *rate, max: 2.0}}\n"
    )
    assert config.load(path).space == {"a": FloatRange(0.0, 1.0), "b": FloatRange(0.0, 2.0)}


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -1, 2**64 - 1, 1.5, "", "text", "\0", [], [None], [[]], {}, {"": None}, {"a": {"b": []}}],
)
@pytest.mark.parametrize("key", [*KEYS, "metrics", "scheduler", "unknown"])
def test_any_value_anywhere(tmp_path: Path, key: str, value: Any) -> None:
    """Whatever stands at a top-level key: a plan, or one line that names the file. Never a traceback."""
    good = {"method": "random", "metric": {"name": "loss"}, "program": "t.py", "run_cap": 2, "parameters": LR}
    path = tmp_path / "s.json"
    path.write_text(json.dumps({**good, key: value}))
    try:
        said = config.load(path).source.path
    except errors.ConfigError as error:
        said = error.file
        text = str(error)
    else:
        text = str(path)
    assert said == path
    assert text.startswith(str(path))
    assert "\n" not in text


# --- the command line -------------------------------------------------------------------------------


@pytest.fixture
def sweep_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of a program that exists, without a number of trials."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.py").write_text("print('hello')\n")
    path = tmp_path / "s.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "method": "random",
                "metric": {"name": "loss", "target": 0.5},
                "program": "t.py",
                "parameters": {**LR, "seed": {"value": 3}},
            }
        )
    )
    return path


def test_validate_says_that_there_is_no_end(sweep_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that leaves the number of trials open is valid, and the note says so."""
    assert main(["validate", str(sweep_file)]) == 0
    said = capsys.readouterr().err
    assert "neither run_cap nor --trials" in said
    assert "fixed     seed=3" in said
    assert "loss, minimized until 0.5 is reached" in said


def test_run_asks_for_the_number_of_trials(sweep_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody has said how many trials, none is started: exit code 2, and what to add."""
    assert main(["run", str(sweep_file), "--cluster", "local"]) == 2
    said = capsys.readouterr().err
    assert "run_cap" in said
    assert "--trials 100" in said
    assert not list(sweep_file.parent.glob("*.h5"))


def test_dry_run(sweep_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --trials it would run; --sampler is taken."""
    args = ["run", str(sweep_file), "--cluster", "local", "--dry-run", "--trials", "9", "--sampler", "TPESampler"]
    assert main(args) == 0
    said = capsys.readouterr().err
    assert "9 trials" in said
    assert "TPESampler" in said


def test_sampler_for_a_params_file(tmp_path: Path) -> None:
    """``--sampler`` beats a params file's too; the file's settings stay where it is the same sampler."""
    params = {
        "init_params": {},
        "hypertune_params": {
            "if_hypertune": True,
            "sampler_params": {"name": "TPESampler", "configs": {"n_startup_trials": 3}},
            "tune_params": {"scale": {"state": True, "suggest": "float", "kwargs": {"low": 0.8, "high": 1.2}}},
        },
    }
    path = tmp_path / "p.json"
    path.write_text(json.dumps(params))
    assert config.load(path, Overrides(sampler="RandomSampler")).sampler == ComponentSpec("RandomSampler")
    assert config.load(path, Overrides(sampler="TPESampler")).sampler.configs == {"n_startup_trials": 3}
    with pytest.raises(errors.ConfigError, match="--sampler = 'Nope': Optuna has no such sampler"):
        config.load(path, Overrides(sampler="Nope"))


def test_macros_are_noticed(plan: Any, tmp_path: Path) -> None:
    """Macros that vanish and variables that are not set are said once, before any worker starts."""
    (tmp_path / "train.py").write_text("")
    items = [
        "${interpreter}",
        "${program}",
        "${agrs}",
        "${envvar:NOT_SET_AT_ALL}",
        "${args}",
        "${envvar:PTYDASK_FOLDER}",
    ]
    made = plan(command=items)
    notices = engines.get("command").validate(made).notices
    assert [("${agrs}" in notice, "NOT_SET_AT_ALL" in notice) for notice in notices] == [(True, False), (False, True)]
