"""SIGKILL at any moment: nothing recorded is lost, nothing is recorded twice, the total is exact."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from killed_runs import kill, start, workers_of
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ptydask.store import reader

TOLD = re.compile(r"^trial (\d+) (complete|pruned|failed)", re.MULTILINE)


def check(results: Path, total: int, told: set[int]) -> None:
    """Exactly ``total`` trials, no point of the grid twice, everything that was told is there and readable."""
    with reader.open(results) as found:
        records = found.records()
        assert len(records) == total
        assert {r.number for r in records} >= told
        for record in records:
            trial = found.trial(record.number)
            assert trial.record == record
            assert trial.arrays["object_phase"].read().shape == (1, 1, 16, 16)
    points = [tuple(sorted(r.params.items())) for r in records]
    assert len(set(points)) == len(points), "a point was recorded twice"
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    study = optuna.load_study(study_name="toy", storage=storage)
    ended = {t.number for t in study.trials if t.state.name == "COMPLETE"}
    assert ended == {r.number for r in records}
    assert not [t.number for t in study.trials if t.state.name == "RUNNING"]


def told(log: Path) -> set[int]:
    """The trials that the log tells of."""
    return {int(number) for number, _ in TOLD.findall(log.read_text())} if log.exists() else set()


def interrupted(results: Path) -> list[int]:
    """Trials of the journal that were under way when their driver was killed."""
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    return [t.number for t in optuna.load_study(study_name="toy", storage=storage).trials if t.state.name == "FAIL"]


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.timeout(600)
def test_twenty_kills(toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """Kills at seeded random moments of a study that is packed and extended whenever it ends.

    Every other one waits until trials are under way, however long the start takes.
    """
    grid = {"scale": [0.8 + i / 100 for i in range(40)], "rotation": [0.125 * i - 4 for i in range(60)]}
    hypertune = {"sampler_params": {"name": "GridSampler", "configs": {"search_space": grid}}}
    params = toy_params(sleep=0.03, hypertune=hypertune)
    results, log = tmp_path / "out" / "toy.h5", tmp_path / "log"
    rng = random.Random(20260101)
    total, kills = 16, 0
    while kills < 20:
        before, process = told(log), start(params, log, "--trials", str(total))
        moment = rng.uniform(0.8, 5.0)
        if kills % 2:
            moment /= 5
            while told(log) == before and process.poll() is None:
                time.sleep(0.01)
        try:
            code = process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            kill(process, whole_group=rng.random() < 0.5)
            kills += 1
            continue
        assert code == 0, log.read_text()[-3000:]
        check(results, total, told(log))
        total += 16
    for more in (total, total + 16):
        assert start(params, log, "--trials", str(more)).wait(timeout=120) == 0, log.read_text()[-3000:]
        check(results, more, told(log))
    assert interrupted(results), "no kill came while a trial was under way"
    assert sorted(p.name for p in results.parent.iterdir()) == ["toy.h5", "toy.journal"]


@pytest.mark.slow
@pytest.mark.parametrize("victims", [1, 2])
def test_workers_killed_while_trials_run(victims: int, toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """SIGKILL of one or both workers in the middle of their trials: retried, recorded once, the run goes on."""
    company = tmp_path / "company"  # no trial ends before both workers are there: one killed before that ends the run
    company.mkdir()
    params, log = toy_params(sleep=0.15, company=str(company)), tmp_path / "log"
    results = tmp_path / "out" / "toy.h5"
    process = start(params, log, "--trials", "8")
    while len(TOLD.findall(log.read_text())) < 2:
        time.sleep(0.05)
        assert process.poll() is None, log.read_text()
    time.sleep(0.2)
    for worker in workers_of(process.pid)[:victims]:
        worker.kill()
    assert process.wait(timeout=60) == 0, log.read_text()
    check(results, 8, told(log))
    assert "lost its worker" in log.read_text(), log.read_text()
