"""Runs that start from an earlier study and are killed, or whose earlier study is still written, or is gone."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from earlier_cases import at, points_taken
from killed_runs import kill, start
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from stage_cases import write_staged
from store_cases import packed, record

import ptydask as package
from ptydask import demo
from ptydask.model import TrialState
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]

pytestmark = pytest.mark.slow


def origins(results: Path) -> Counter[str]:
    """How many trials were recorded at each earlier point."""
    with reader.open(results) as study:
        return Counter(r.origin for r in study.records() if r.origin.startswith("from "))


def count_recorded(results: Path) -> int:
    """How many trials there are; 0 where there is no results file yet."""
    if not results.exists():
        return 0
    with reader.open(results) as study:
        return len(study.records())


def lined_up(results: Path) -> list[str]:
    """States of the trials that the journal has of earlier points; none where there is no journal yet."""
    journal = results.with_suffix(".journal")
    if not journal.exists():
        return []
    studies = optuna.get_all_study_summaries(storage := JournalStorage(JournalFileBackend(str(journal))))
    trials = [t for study in studies for t in optuna.load_study(study_name=study.study_name, storage=storage).trials]
    return [t.state.name for t in trials if str(t.user_attrs.get("origin")).startswith("from ")]


def wait(process: subprocess.Popen[bytes], log: Path, condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds, while the run is on."""
    end = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


@pytest.mark.timeout(600)
def test_a_killed_driver_tries_each_earlier_point_once(toy_params: Params, tmp_path: Path) -> None:
    """Killed before the points are lined up, before they are handed out, while they run, and once one has ended.

    In the end the earlier file is gone, too: the study has its points.
    """
    last = packed(tmp_path / "last.h5", [record(n) for n in range(4)])
    params, log, results = toy_params(sleep=0.15), tmp_path / "log", tmp_path / "out" / "toy.h5"
    options = ("--trials", "8", "--from", str(last))
    moments: list[Callable[[], bool]] = [
        results.exists,
        lambda: len(lined_up(results)) == 3,
        lambda: "RUNNING" in lined_up(results),
        lambda: count_recorded(results) > 0,
    ]
    for place, moment in enumerate(moments):
        process = start(params, log, *options)
        wait(process, log, moment)
        kill(process, whole_group=place % 2 == 0)
    last.rename(tmp_path / "moved.h5")
    assert start(params, log, *options).wait(timeout=120) == 0, log.read_text()[-3000:]
    assert origins(results) == {f"from last.h5, trial {n}": 1 for n in (3, 2, 1)}
    assert count_recorded(results) == 8
    assert "goes on without it" in log.read_text()


@pytest.mark.timeout(600)
def test_from_a_study_that_is_running(toy_params: Params, tmp_path: Path) -> None:
    """What it has so far is taken; it goes on as if nobody had looked."""
    process = start(toy_params(sleep=0.1), tmp_path / "log", "--trials", "10")
    running = tmp_path / "out" / "toy.h5"
    wait(process, tmp_path / "log", lambda: count_recorded(running) >= 2)
    settings: dict[str, Any] = {"engine": "toy", "workers": 1, "cluster": "local", "progress": False}
    after = package.run(toy_params(), results=tmp_path / "new.h5", trials=3, earlier=running, **settings)
    assert process.wait(timeout=60) == 0
    assert count_recorded(running) == 10
    assert 1 <= len(origins(after.path)) <= 3
    assert set(origins(after.path).values()) == {1}
    assert count_recorded(after.path) == 3


@pytest.mark.ptyrad
@pytest.mark.timeout(600)
def test_stages_on_both_sides(tmp_path: Path) -> None:
    """Each stage gets what it tunes of all that the earlier study's stages came to, by real reconstructions."""
    settings: dict[str, Any] = {"workers": 1, "cluster": "local", "progress": False}
    stages = [
        {"name": "size", "tune": ["scale"], "trials": 2, "iterations": 4},
        {"name": "turn", "tune": ["rotation"], "trials": 2, "iterations": 4},
    ]
    files = [demo.write(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2))]
    for file in files:
        file.write_text(file.read_text() + "\n" + yaml.safe_dump({"ptydask": {"stages": stages}}))
    before = package.run(files[0], tries=[{"scale": 1.04, "rotation": -1.5}], **settings)
    after = package.run(files[1], earlier=before.path, **settings)
    best: dict[str, Any] = {}
    for name in ("size", "turn"):
        with reader.open(before.path, name) as stage:
            done = [r for r in stage.records() if r.state is TrialState.COMPLETE and r.error is not None]
            best |= min(done, key=lambda r: r.error or 0.0).params
    assert best == {"scale": 1.04, "rotation": -1.5}
    for name, parameter in (("size", "scale"), ("turn", "rotation")):
        with reader.open(after.path, name) as stage:
            taken = [r for r in stage.records() if r.origin.startswith("from one/demo.h5 (turn), trial ")]
            assert [r.params for r in taken] == [{parameter: best[parameter]}]
            assert len(stage.records()) == 2


def test_the_first_stage_that_tunes_a_parameter_gets_it(toy_params: Params, tmp_path: Path) -> None:
    """Stage by stage; what an own stage has found is not replaced."""
    last = packed(tmp_path / "last.h5", [record(0, params=at(0.9, 0.5))])
    stages = [
        {"name": "rough", "tune": ["scale"], "trials": 2},
        {"name": "both", "tune": ["scale", "rotation"], "trials": 2},
        {"name": "again", "tune": ["scale"], "trials": 2},
    ]
    params = write_staged(toy_params, stages, final=None)
    last_stages = yaml.safe_load(params.read_text())
    last_stages["ptydask"].pop("final")
    params.write_text(yaml.safe_dump(last_stages))
    study = package.run(params, engine="toy", workers=1, cluster="local", progress=False, earlier=last)
    assert points_taken(study.path, "rough") == {"from last.h5, trial 0": {"scale": 0.9}}
    ((_, both),) = points_taken(study.path, "both").items()
    assert both["rotation"] == 0.5
    assert points_taken(study.path, "again") == {}
    with reader.open(study.path, "again") as again:
        assert len(again.records()) == 2


def test_cma_es_on_workers(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """The earlier trials reach the samplers there: the first points of its own lie around the best of them."""
    points = [at(0.8 + 0.002 * n, -3.0 + 0.1 * n) for n in range(20)]
    last = packed(tmp_path / "last.h5", [record(n, 1 + n, params=point) for n, point in enumerate(points)])
    new = tmp_path / "new.h5"
    options = ["--sampler", "CmaEsSampler", "--trials", 12, "-o", new, "--from", last]
    done = ptydask("run", toy_params(), "--engine", "toy", "--workers", 2, *options)
    assert done.returncode == 0, done.stderr
    assert "CmaEsSampler begins with what 20 trials" in done.stderr
    with reader.open(new) as study:
        own = [float(r.params["rotation"] or 0) for r in study.records() if not r.origin.startswith("from")]
    assert sum(value < 0 for value in own) >= 7


def iterations_until(results: Path, truth: Mapping[str, float]) -> int:
    """Reconstruction iterations of all trials up to the first completed one at the grid point of the truth."""
    spent = 0
    with reader.open(results) as study:
        for trial in study.records():
            spent += int(trial.iterations or 0)
            if trial.state is TrialState.COMPLETE and trial.params == pytest.approx(truth):
                return spent
    raise AssertionError(f"not after {spent} iterations")


@pytest.mark.ptyrad
@pytest.mark.second
@pytest.mark.timeout(600)
def test_a_second_data_set_needs_at_most_half_of_the_iterations(tmp_path: Path) -> None:
    """The demo's settings with other noise: from the best trial of the first study it begins at the truth."""
    truth = {"scale": 1.04, "rotation": -1.5}
    one, two = demo.write(tmp_path / "one", 1), demo.write(tmp_path / "two", 2)
    settings: dict[str, Any] = {"workers": 1, "cluster": "local", "progress": False}
    before = package.run(one, trials=5, **settings)
    after = package.run(two, trials=1, earlier=before.path, **settings)
    assert points_taken(after.path)
    assert 2 * iterations_until(after.path, truth) <= iterations_until(before.path, truth)
