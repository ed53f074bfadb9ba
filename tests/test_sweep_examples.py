"""The examples in configs/sweeps through the command line: each study is what its program says by itself."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ptydask import open as open_study
from ptydask.analysis.results import StudyResults
from ptydask.model import TrialState

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "configs" / "sweeps"
TESTED = {"mlp-random", "ridge-bayes", "decay-grid", "denoise-hyperband"}
Ptydask = Callable[..., subprocess.CompletedProcess[str]]

STUB = """
import json, os, pathlib

class Config(dict):
    __getattr__ = dict.__getitem__

class Run:
    config = Config(json.loads(os.environ["STUB_CONFIG"]))

    def log(self, row, step):
        with pathlib.Path(os.environ["STUB_ROWS"]).open("a") as file:
            print(json.dumps(row), file=file)

    def finish(self):
        pass

def init(project, config):
    Run.config = Config(config | Run.config)
    return Run()
"""
"""Takes the place of wandb: the program gets its parameters and leaves its rows without any of ptydask or W&B."""


@pytest.fixture
def study(tmp_path: Path, ptydask: Ptydask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., StudyResults]:
    """Runs an example on two workers, from a folder that has ``configs`` below it."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(name: str, trials: int = 6) -> StudyResults:
        where = ("--workers", "2", "--cluster", "local")
        done = ptydask("run", f"configs/sweeps/{name}.yaml", "--trials", trials, *where)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return open_study(tmp_path / f"{name}.h5")

    return run


def program_rows(program: str, *arguments: str, folder: Path, **more: str) -> list[dict[str, float]]:
    """What a program logs by itself, into a file in ``folder``."""
    rows = folder / "rows.jsonl"
    rows.unlink(missing_ok=True)
    interpreter = "bash" if program.endswith(".sh") else sys.executable
    environ = {**os.environ, "PTYDASK_METRICS": str(rows), "STUB_ROWS": str(rows), **more}
    subprocess.run([interpreter, str(EXAMPLES / program), *arguments], env=environ, check=True, capture_output=True)
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    return [row.get("metrics", row) for row in found]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_every_example_is_tested() -> None:
    """A sweep file that is added here gets a test, too."""
    assert {path.stem for path in EXAMPLES.glob("*.yaml")} == TESTED


@pytest.mark.slow
def test_a_grid_of_a_shell_script(study: Callable[..., StudyResults], tmp_path: Path) -> None:
    """Each point once, in W&B's order; every step of every trial as the script itself prints it."""
    found = study("decay-grid")
    wanted = list(itertools.product([0.0, 0.8], [0.03, 0.1, 0.3]))
    assert [(trial.params["momentum"], trial.params["rate"]) for trial in found] == wanted
    for trial in found:
        words = [f"{name}={value}" for name, value in trial.params.items()]
        rows = program_rows("decay.sh", *words, folder=tmp_path)
        assert [row["loss"] for row in rows] == list(trial.curve["loss"])
        assert trial.error == rows[-1]["loss"]
        assert trial.metrics["lifetime"] == rows[-1]["lifetime"]


@pytest.mark.slow
def test_a_program_that_reports(study: Callable[..., StudyResults], tmp_path: Path) -> None:
    """argparse in, ptydask.report out, a Gaussian process between: 6 trials, each as the program runs alone."""
    found = study("ridge-bayes")
    assert len(found) == 6
    for trial in found:
        words = [f"--alpha={trial.params['alpha']}", "--nesterov", f"--rate={trial.params['rate']}", "--seed=3"]
        rows = program_rows("ridge_argparse.py", *words, folder=tmp_path)
        assert list(trial.curve["step"]) == list(range(10, 201, 10))
        assert [row["val_rmse"] for row in rows] == list(trial.curve["val_rmse"])
        assert trial.error == rows[-1]["val_rmse"]


@pytest.mark.slow
def test_a_function_under_hyperband(study: Callable[..., StudyResults]) -> None:
    """Trials that fall behind stop at a band; all values are those of the function, and what it prints is the log."""
    found = study("denoise-hyperband")
    states = [trial.state for trial in found]
    assert len(states) == 6
    assert TrialState.PRUNED in states
    assert TrialState.COMPLETE in states
    objective = module("denoise").objective
    for trial in found:
        told: list[float] = []
        descent = {"step": trial.params["descent.step"], "epsilon": 0.05, "iterations": 200}
        params = {"weight": trial.params["weight"], "descent": descent, "noise": 0.15, "seed": 11}
        objective(params, lambda step, told=told, **metrics: told.append(float(metrics["psnr"])))
        curve = list(trial.curve["psnr"])
        assert curve == told[: len(curve)]
        if trial.state is TrialState.PRUNED:
            assert 4 <= len(curve) < 20
        else:
            assert len(curve) == 20
            assert trial.log.startswith("weight ")


@pytest.mark.slow
@pytest.mark.wandb
def test_a_program_that_uses_wandb(study: Callable[..., StudyResults], tmp_path: Path) -> None:
    """wandb.config has the trial's values, and every logged row is in the results, to the last bit."""
    found = study("mlp-random", 4)
    assert len(found) == 4
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "wandb.py").write_text(STUB)
    for trial in found:
        config = json.dumps({**trial.params, "epochs": 20})
        more = {"PYTHONPATH": str(tmp_path / "stub"), "STUB_CONFIG": config}
        rows = program_rows("mlp_wandb.py", folder=tmp_path, **more)
        assert [row["val_loss"] for row in rows] == list(trial.curve["val_loss"])
        assert [row["train_loss"] for row in rows] == list(trial.curve["train_loss"])
        assert isinstance(trial.params["width"], int)
        assert trial.error == rows[-1]["val_loss"]
