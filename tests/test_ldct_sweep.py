"""Sweeps of ldct-benchmark's own training program, unmodified, on CPU with synthetic data."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ldct_cases
import numpy as np
import pytest
import yaml

from ptydask.model import Reason, TrialState
from ptydask.store import reader
from ptydask.store.reader import TrialData

pytestmark = [pytest.mark.ldct, pytest.mark.slow, pytest.mark.second, pytest.mark.timeout(420)]

DEMO = ldct_cases.ROOT / "configs" / "cnn10-demo.yaml"
METRICS = ("SSIM", "PSNR", "RMSE")
COLUMNS = {"Metrics.csv": dict(zip(METRICS, METRICS, strict=True))} | {
    "Losses.csv": {"loss train": "loss (train)", "loss val": "loss (val)"}
}


class Ran(NamedTuple):
    """A sweep that ended: its results, and what it said."""

    results: Path
    said: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ldct") / "data"
    ldct_cases.python(
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
        ldct_cases.SCRIPT,
        folder,
        cwd=folder.parent,
    )
    return folder


def ptydask(data: Path, cwd: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ptydask", *map(str, args)]
    env = ldct_cases.environment(data)
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def run(data: Path, cwd: Path, *args: object) -> Ran:
    said = ptydask(data, cwd, "run", *args, "--cluster", "local", "--results", "sweep.h5")
    return Ran(cwd / "sweep.h5", said)


@pytest.fixture(scope="module")
def sweep(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """configs/cnn10-demo.yaml as it is: a trial on each of two workers."""
    return run(data, tmp_path_factory.mktemp("sweep"), DEMO, "--trials", 2, "--workers", 2)


class Trial(NamedTuple):
    """What the store has of a trial, and its files."""

    kept: TrialData
    files: dict[str, bytes]


def trials(results: Path) -> list[Trial]:
    with reader.open(results) as file:
        found = [file.trial(record.number) for record in file.records()]
        return [Trial(kept, {path: stored.read() for path, stored in kept.artifacts.items()}) for kept in found]


def content(trial: Trial, name: str) -> str:
    """The text of a file in the folder of the trial's run."""
    [path] = [path for path in trial.files if path.endswith(f"/files/{name}")]
    return trial.files[path].decode()


def written(trial: Trial, name: str) -> list[dict[str, float]]:
    """The rows of a table that ldctbench wrote."""
    rows = csv.DictReader(io.StringIO(content(trial, name)))
    return [{column: float(text) for column, text in row.items()} for row in rows]


# --- two trials ------------------------------------------------------------------------------------------------------


def test_two_trials_complete(sweep: Ran) -> None:
    """Exit 0, two complete trials with the command that ran, nothing left beside it."""
    assert sweep.said.returncode == 0, sweep.said.stderr
    with reader.open(sweep.results) as file:
        records = file.records()
    assert [record.state for record in records] == 2 * [TrialState.COMPLETE]
    assert len({record.worker for record in records}) == 2
    for trial in trials(sweep.results):
        lr = trial.kept.record.params["lr"]
        assert trial.kept.command.startswith("ldctbench-train --")
        assert f"--lr={lr} " in f"{trial.kept.command} "
        assert "--no-cuda" in trial.kept.command.split()
        assert "Start training..." in trial.kept.log
    assert {path.name for path in sweep.results.parent.iterdir()} == {"sweep.h5", "sweep.journal"}


def test_the_store_has_what_ldctbench_wrote(sweep: Ran) -> None:
    """SSIM, PSNR, RMSE and both losses of every validation: bit for bit those of Metrics.csv and Losses.csv."""
    for trial in trials(sweep.results):
        assert set(trial.kept.curve) == {"step", *METRICS, "loss (train)", "loss (val)"}
        for name, columns in COLUMNS.items():
            rows = written(trial, name)
            assert len(rows) >= 2
            assert list(trial.kept.curve["step"]) == [row["Iteration"] for row in rows]
            for theirs, ours in columns.items():
                assert list(trial.kept.curve[ours]) == [row[theirs] for row in rows]
                assert trial.kept.record.metrics[ours] == rows[-1][theirs]
        ssim = [row["SSIM"] for row in written(trial, "Metrics.csv")]
        assert trial.kept.record.error == ssim[-1]
        assert set(trial.kept.record.metrics) == {"SSIM (best)", *trial.kept.curve} - {"step"}
        assert trial.kept.record.metrics["SSIM (best)"] == max(ssim)


def test_the_parameters_are_those_that_ran(sweep: Ran) -> None:
    """args.yaml, which ldctbench itself wrote, has every parameter of the trial's record."""
    for trial in trials(sweep.results):
        args = yaml.safe_load(content(trial, "args.yaml"))
        assert {name: args[name] for name in trial.kept.record.params} == dict(trial.kept.record.params)
        assert args["cuda"] is False


def test_best(sweep: Ran, data: Path) -> None:
    """``best`` prints the trial with the largest SSIM, with its SSIM, PSNR and RMSE."""
    records = [trial.kept.record for trial in trials(sweep.results)]
    top = max(records, key=lambda record: record.error or 0)
    said = ptydask(data, sweep.results.parent, "best", sweep.results)
    assert said.returncode == 0, said.stderr
    for name in METRICS:
        assert name in said.stdout
        assert f"{top.metrics[name]:.6g}" in said.stdout
    listed = json.loads(ptydask(data, sweep.results.parent, "best", sweep.results, "--format", "json").stdout)
    assert listed[0]["number"] == top.number
    assert {name: listed[0]["metrics"][name] for name in METRICS} == {name: top.metrics[name] for name in METRICS}


LOAD = """
import json, sys, torch
from ldctbench.data import LDCTMayo
from ldctbench.evaluate import setup_trained_model
net, args = setup_trained_model("best", torch.device("cpu"), "Model", "best_SSIM", return_args=True)
slices = LDCTMayo("val", args)
images = [(item["x"][None], item["y"][None]) for item in (slices[n] for n in range(4))]
with torch.no_grad():
    made = [(net(low), low, full) for low, full in images]
assert all(image.shape == (1, 1, 128, 128) and image.isfinite().all() for image, _, _ in made)
print(json.dumps([vars(args), [float((image - low).std()) for image, low, _ in made]]))
"""


def test_export_is_loaded_by_ldctbench(sweep: Ran, data: Path, tmp_path: Path) -> None:
    """``export run --trial best wandb/best``: what ldctbench-test loads a run with makes an image of every slice."""
    said = ptydask(data, tmp_path, "export", sweep.results, "run", "--trial", "best", tmp_path / "wandb" / "best")
    assert said.returncode == 0, said.stderr
    files = tmp_path / "wandb" / "best" / "files"
    assert {"args.yaml", "best_SSIM.pt", "Metrics.csv", "Losses.csv"} <= {path.name for path in files.iterdir()}
    *said_by_ldctbench, made = ldct_cases.python(LOAD, cwd=tmp_path, data=data).splitlines()
    args, changes = json.loads(made)
    top = max(trials(sweep.results), key=lambda trial: trial.kept.record.error or 0)
    best = max(written(top, "Metrics.csv"), key=lambda row: row["SSIM"])
    assert f"Restore state dict best_SSIM of Model from iteration {best['Iteration']:.0f}" in said_by_ldctbench
    params = top.kept.record.params
    assert {name: args[name] for name in params} == dict(params)
    assert min(changes) > 0, "an image of the network, not the one it was given"


# --- a good, a bad and a hopeless learning rate --------------------------------------------------------------------


@pytest.fixture(scope="module")
def pruned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Three learning rates one after the other, stopped early by W&B's hyperband."""
    folder = tmp_path_factory.mktemp("pruned")
    asked = yaml.safe_load(DEMO.read_text())
    asked["method"] = "grid"
    asked["early_terminate"] = {"type": "hyperband", "min_iter": 1}
    asked["parameters"] |= {
        "lr": {"values": [1e-3, 1e-5, 1e30]},
        "mbs": {"value": 8},
        "max_iterations": {"value": 8},
        "iterations_before_val": {"value": 2},
        "patchsize": {"value": 32},
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump(asked))
    return run(data, folder, "sweep.yaml", "--workers", 1)


def test_early_terminate_stops_a_training(pruned: Ran) -> None:
    """The learning rate that learns nothing is stopped by its first validations; the better one ran to its end."""
    good, bad, _ = trials(pruned.results)
    assert (good.kept.record.params["lr"], bad.kept.record.params["lr"]) == (1e-3, 1e-5)
    assert good.kept.record.state is TrialState.COMPLETE
    assert list(good.kept.curve["step"]) == [2, 4, 6, 8]
    assert (bad.kept.record.state, bad.kept.record.reason) == (TrialState.PRUNED, Reason.PRUNED)
    assert 1 <= len(bad.kept.curve["step"]) < 4
    assert bad.kept.record.error is not None
    assert bad.kept.record.error < good.kept.curve["SSIM"][0]


def test_a_training_without_a_result_has_failed(pruned: Ran) -> None:
    """A learning rate so large that SSIM is nan: a failed trial that says so, though ldctbench-train exits 0."""
    hopeless = trials(pruned.results)[2]
    assert pruned.said.returncode == 3, pruned.said.stderr
    assert (hopeless.kept.record.state, hopeless.kept.record.reason) == (TrialState.FAIL, Reason.FAILED)
    assert "ldctbench-train" in hopeless.kept.record.message
    assert "SSIM" in hopeless.kept.record.message
    assert "nan" in hopeless.kept.record.message.lower()
    assert np.isnan([row["SSIM"] for row in written(hopeless, "Metrics.csv")]).all()
    assert "1e+30" in hopeless.kept.command
