"""The real thing: demo data, real PtyRAD, Dask workers, one HDF5 file, and back to PtyRAD."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import forked
import h5py
import numpy as np
import pytest
import yaml

from ptydask import demo
from ptydask.machine import usable_cores

pytestmark = [pytest.mark.ptyrad, pytest.mark.slow]
Ptydask = Callable[..., subprocess.CompletedProcess[str]]

QUICK = ("--set", "recon_params.NITER=3", "--set", "recon_params.SAVE_ITERS=2")

PTYRAD_RUN = """
import json, logging, sys, warnings
warnings.simplefilter("ignore")
import torch
from ptydask.engines.ptyrad import release
release.installed()
from ptyrad.params import load_params
from ptyrad.solver import PtyRADSolver
torch.set_num_threads(int(sys.argv[2]))
params = load_params(sys.argv[1])
params["recon_params"].update(SAVE_ITERS=None, copy_params=False)
solver = PtyRADSolver(params, device="cpu", seed=params["init_params"]["random_seed"])
solver.run()
print(json.dumps([float(loss) for _, loss in solver.reconstruct_results.loss_iters]))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, commands: forked.Commands) -> Path:
    """The results of a quick study on the demo data, two trials on each of two workers."""
    folder = tmp_path_factory.mktemp("study")
    params = demo.write(folder)
    command = ["run", str(params), "--workers", "2"]
    quick = [*QUICK, "--set", "hypertune_params.n_trials=2", "--set", "hypertune_params.pruner_params=null"]
    done = commands.run([*command, *quick], folder, os.environ, 120, forked.PTYRAD)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return folder / "demo.h5"


def test_one_file_with_everything(study: Path) -> None:
    """Four trials with arrays, snapshots, curves of both metrics; best, by_error and by_params lead to them."""
    with h5py.File(study) as file:
        top = file[file.attrs["default"]]
        assert list(top["trials"]) == ["000000", "000001", "000002", "000003"]
        best = min(top["trials"].values(), key=lambda trial: trial.attrs["error"])
        assert top["best"] == best
        assert next(iter(top["by_error"].values())) == best
        for trial in top["trials"].values():
            assert trial["object_phase"].attrs["units"] == b"rad"
            assert trial["probe"].dtype == np.complex64
            assert trial["probe"].shape[-1] == 48
            assert trial["positions"].shape == (24 * 24, 2)
            assert list(trial["snapshots"]) == ["iter_0000002"]
            assert list(trial["curve/step"][()]) == [1, 2, 3]
            assert np.isfinite(trial["curve/loss"][()]).all()
            assert np.isfinite(trial["curve/contrast"][()]).all()
            assert np.isfinite(trial["image/data"][()]).all()
        values = [dict(trial["params"].attrs) for trial in top["trials"].values()]
        assert {"scale": 1.0, "rotation": 0.0} in values, "the file's own values are the first trial"


def test_the_best_params_file_gives_the_same_loss_in_ptyrad(study: Path, ptydask: Ptydask, tmp_path: Path) -> None:
    """PtyRAD's own normal run with the exported params file: every iteration's loss, to the last bit."""
    exported = ptydask("best", study, "--format", "yaml")
    assert exported.returncode == 0, exported.stderr
    (tmp_path / "best.yaml").write_text(exported.stdout)
    assert yaml.safe_load(exported.stdout)["hypertune_params"]["if_hypertune"] is False
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, usable_cores() // 2))
    done = subprocess.run(
        [sys.executable, "-c", PTYRAD_RUN, str(tmp_path / "best.yaml"), threads],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": threads},
    )
    assert done.returncode == 0, done.stderr
    with h5py.File(study) as file:
        assert json.loads(done.stdout.splitlines()[-1]) == list(file[file.attrs["default"]]["best/curve/loss"][()])


def test_one_reconstruction_without_hypertune(study: Path, ptydask: Ptydask) -> None:
    """if_hypertune false: a study of one trial with the file's own values, equal to that trial of the search."""
    params = study.parent / "params.yaml"
    off = ("--set", "hypertune_params.if_hypertune=false", "--set", "hypertune_params.study_name=one", "--workers", 2)
    one = ptydask("run", params, *off, *QUICK)
    assert one.returncode == 0, one.stderr
    own = [t for t in json.loads(ptydask("ls", study, "--format", "json").stdout) if t["origin"] == "start"]
    single = json.loads(ptydask("ls", study.parent / "one.h5", "--format", "json").stdout)
    assert len(single) == len(own) == 1
    assert single[0]["metrics"] == own[0]["metrics"]
    with h5py.File(study) as many, h5py.File(study.parent / "one.h5") as alone:
        a = many[f"demo/trials/{own[0]['number']:06d}/object_phase"][()]
        assert np.array_equal(a, alone["one/trials/000000/object_phase"][()])


def test_numbers_only(study: Path, ptydask: Ptydask) -> None:
    """collate_results false keeps numbers and curves; append_params false leaves parameters out of link names."""
    params = study.parent / "params.yaml"
    flags = [f"hypertune_params.{key}=false" for key in ("collate_results", "append_params", "pruner_params")]
    sets = [part for flag in (*flags, "hypertune_params.study_name=lean") for part in ("--set", flag)]
    done = ptydask("run", params, *sets, *QUICK, "--trials", 2, "--workers", 2)
    assert done.returncode == 0, done.stderr
    with h5py.File(study.parent / "lean.h5") as file:
        for trial in file["lean/trials"].values():
            assert "object_phase" not in trial
            assert "snapshots" not in trial
            assert len(trial["curve/loss"]) == 3
        assert all("scale" not in name for name in file["lean/by_error"])


def test_unreadable_data_end_the_run_before_the_first_trial(study: Path, ptydask: Ptydask, tmp_path: Path) -> None:
    """NaN in the patterns shows when they are read: one line, exit 2, nothing left behind."""
    params = demo.write(tmp_path / "bad")
    with h5py.File(tmp_path / "bad" / "patterns.h5", "a") as file:
        patterns = file["patterns"][()].astype(np.float32)
        patterns[5, 3, 3] = np.nan
        del file["patterns"]
        file["patterns"] = patterns
    before = sorted(path.name for path in (tmp_path / "bad").iterdir())
    done = ptydask("run", params, "--workers", 2)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "patterns.h5" in done.stderr.splitlines()[-1]
    assert "NaN" in done.stderr.splitlines()[-1]
    assert sorted(path.name for path in (tmp_path / "bad").iterdir()) == before


def test_other_data_at_the_same_place_are_refused(study: Path, ptydask: Ptydask, tmp_path: Path) -> None:
    """Trials of two data sets are not comparable, whatever the path says: the checksum is compared."""
    params = demo.write(tmp_path / "same")
    quick = (*QUICK, "--set", "hypertune_params.pruner_params=null", "--workers", 2)
    assert ptydask("run", params, *quick, "--trials", 2).returncode == 0
    with h5py.File(tmp_path / "same" / "patterns.h5", "a") as file:
        file["patterns"][0, 0, 0] += 1
    done = ptydask("run", params, *quick, "--trials", 4)
    assert done.returncode == 2, done.stderr
    assert "other data" in done.stderr.splitlines()[-1]
    assert len(json.loads(ptydask("ls", tmp_path / "same" / "demo.h5", "--format", "json").stdout)) == 2


def test_data_and_results_that_moved(study: Path, ptydask: Ptydask, tmp_path: Path) -> None:
    """The patterns at another path and the results under another name are the same study; what moved is said."""
    params = demo.write(tmp_path / "here")
    quick = (*QUICK, "--set", "hypertune_params.pruner_params=null", "--workers", 2)
    assert ptydask("run", params, *quick, "--trials", 2).returncode == 0
    patterns = (tmp_path / "here" / "patterns.h5").rename(tmp_path / "there.h5")
    (tmp_path / "here" / "demo.h5").rename(tmp_path / "renamed.h5")
    moved = ("--set", f"init_params.meas_params.path={patterns}", "--results", tmp_path / "renamed.h5")
    done = ptydask("run", params, *quick, *moved, "--trials", 3)
    assert done.returncode == 0, done.stderr
    assert f"init_params.meas_params.path: {patterns} has the data that were at" in done.stdout + done.stderr
    assert len(json.loads(ptydask("ls", tmp_path / "renamed.h5", "--format", "json").stdout)) == 3
