"""A trial that lost its worker goes on from its checkpoint, to the very result that it would have had."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ptydask.model import TrialInput, TrialRecord
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]

pytestmark = pytest.mark.slow


def run(ptydask: Ptydask, params: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--cluster", "local", "--workers", 2, *args)


def expect_undisturbed(path: Path, iterations: int) -> None:
    """Every trial has the random walk that its parameters and seed lead to, bit for bit."""
    import toy_engine  # on the path of the tests

    with reader.open(path) as results:
        for record in results.records():
            course = toy_engine.Course.resumed(TrialInput(0, record.params, record.seed), None)
            for _ in range(iterations):
                course.go(0.0)
            np.testing.assert_array_equal(results.trial(record.number).arrays["walk"].read(), course.walk)


def records(path: Path) -> list[TrialRecord]:
    with reader.open(path) as results:
        return list(results.records())


def started(params: Path, cwd: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """A run in the background that has saved its first checkpoint, and the folder with it."""
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--cluster", "local"]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--checkpoint-every", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=cwd,
    )
    folder = cwd / "out" / "stopped.trials"
    while not list(folder.glob("*.checkpoint")):
        assert process.poll() is None
    return process, folder


@pytest.mark.parametrize("more", [{}, {"blind": True, "array": 5_000_000}], ids=["shared folder", "no shared folder"])
def test_lost_worker(more: dict[str, object], ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """At its second step; the checkpoint of the first one is taken up by whoever tries it again."""
    once = {"lose_once": str(tmp_path / "lost"), "sleep": 0.05}
    params = toy_params(name="lossy", n_trials=2, iterations=4, walk=True, **once, **more)
    done = run(ptydask, params, "--checkpoint-every", 0)
    assert done.returncode == 0, done.stderr
    assert "its parameters are tried again from step 1 on" in done.stderr
    path = tmp_path / "out" / "lossy.h5"
    expect_undisturbed(path, 4)
    (again,) = (r for r in records(path) if r.attempt > 1)
    with reader.open(path) as results:
        trial = results.trial(again.number)
        assert trial.attributes["resumed_after_step"] == 1
        assert list(trial.curve["step"]) == [1, 2, 3, 4]
        assert "noise" not in trial.arrays or trial.arrays["noise"].shape == (5_000_000,)
    assert sorted(p.name for p in path.parent.iterdir()) == ["lossy.h5", "lossy.journal"]


def test_a_study_that_was_stopped_goes_on_within_its_trials(
    ptydask: Ptydask, toy_params: Params, tmp_path: Path
) -> None:
    """Ctrl-C, or the driver's own walltime: the checkpoints are there when the same command is given again."""
    params = toy_params(name="stopped", n_trials=2, iterations=4, walk=True, sleep=0.5)
    process, folder = started(params, tmp_path)
    process.terminate()
    assert process.wait(timeout=60) == 75
    assert list(folder.glob("*.checkpoint"))
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "stopped.h5"
    expect_undisturbed(path, 4)
    with reader.open(path) as results:
        resumed = [results.trial(r.number).attributes.get("resumed_after_step", 0) for r in results.records()]
    assert max(resumed) >= 1
    assert not folder.exists()


def test_a_damaged_checkpoint_costs_only_time(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """The trial begins again."""
    params = toy_params(name="stopped", n_trials=2, iterations=4, walk=True, sleep=0.5)
    process, folder = started(params, tmp_path)
    process.kill()
    process.wait(timeout=60)
    for path in folder.glob("*.checkpoint"):
        path.write_bytes(path.read_bytes()[:-5])
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    expect_undisturbed(tmp_path / "out" / "stopped.h5", 4)


def test_checkpoints_of_a_packed_study_survive_a_stop(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """More trials are added to a finished file, and stopped before the first of them has ended."""
    params = toy_params(name="stopped", n_trials=1, iterations=4, walk=True)
    assert run(ptydask, params).returncode == 0
    params = toy_params(name="stopped", n_trials=2, iterations=4, walk=True, sleep=0.7)
    process, folder = started(params, tmp_path)
    process.terminate()
    assert process.wait(timeout=60) == 75
    assert list(folder.glob("*.checkpoint"))
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "stopped.h5"
    expect_undisturbed(path, 4)
    assert len(records(path)) == 4
    assert not folder.exists()
