"""Whole runs through the command line, on real workers, with the quick engine of tests/plugins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]


def rows(ptydask: Ptydask, results: Path) -> list[dict[str, object]]:
    """All recorded trials, as the command line lists them."""
    found = ptydask("ls", results, "--format", "json")
    assert found.returncode == 0, found.stderr
    listed: list[dict[str, object]] = json.loads(found.stdout)
    return listed


def run(ptydask: Ptydask, params: Path, *args: object, **more: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--workers", 2, *args, **more)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy.h5"


def test_a_study_ends_in_one_file(ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path) -> None:
    """n_trials counts per worker; what is left is one packed file and the journal; stdout is the outcome."""
    (tmp_path / "company").mkdir()
    done = run(ptydask, toy_params(n_trials=3, company=str(tmp_path / "company")))
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in results.parent.iterdir()) == ["toy.h5", "toy.journal"]
    trials = rows(ptydask, results)
    assert sorted(t["number"] for t in trials) == list(range(6))  # type: ignore[type-var]
    assert {t["worker"] for t in trials} == {"0", "1"}
    assert "2 workers x 3 trials = 6 trials" in done.stderr
    assert done.stdout.startswith("best ")
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.slow
def test_the_same_command_again_has_nothing_to_do(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """It says so, touches nothing and starts no worker."""
    params = toy_params(n_trials=2)
    run(ptydask, params)
    before = [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(results.parent.iterdir())]
    again = run(ptydask, params)
    assert again.returncode == 0
    assert "nothing left to do" in again.stderr
    assert [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(results.parent.iterdir())] == before


@pytest.mark.slow
def test_more_trials_are_added_to_a_packed_file(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """--trials raises the total: old trials stay as they are, the new ones are numbered on."""
    params = toy_params(n_trials=2)
    run(ptydask, params)
    before = rows(ptydask, results)
    more = run(ptydask, params, "--trials", 7)
    assert more.returncode == 0, more.stderr
    after = rows(ptydask, results)
    assert sorted(t["number"] for t in after) == list(range(7))  # type: ignore[type-var]
    assert all(t in after for t in before)


@pytest.mark.slow
def test_journal_lost_or_results_lost(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Without its journal a study goes on from the results; without its results it starts anew, informed."""
    params = toy_params(n_trials=2)
    run(ptydask, params)
    results.with_suffix(".journal").unlink()
    assert "nothing left to do" in run(ptydask, params).stderr
    assert run(ptydask, params, "--trials", 6).returncode == 0
    assert sorted(t["number"] for t in rows(ptydask, results)) == list(range(6))  # type: ignore[type-var]
    results.unlink()
    assert run(ptydask, params).returncode == 0
    assert len(rows(ptydask, results)) == 4


@pytest.mark.slow
def test_failing_trials_are_recorded_and_the_study_goes_on(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """An exception is that trial's state, with its traceback; exit code 3."""
    done = run(ptydask, toy_params(n_trials=6, fail=0.0))
    assert done.returncode == 3, done.stderr
    trials = rows(ptydask, results)
    assert len(trials) == 12
    failed = [t for t in trials if t["state"] == "FAIL"]
    assert failed
    assert {t["reason"] for t in failed} == {"failed"}
    assert all("out of memory" in str(t["message"]) for t in failed)
    shown = ptydask("show", results, failed[0]["number"])
    assert "MemoryError: CUDA out of memory, says the toy" in shown.stdout
    assert "Traceback" in shown.stdout


@pytest.mark.slow
def test_a_trial_that_fails_late_keeps_its_curve(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """What it reported until then is in its group."""
    run(ptydask, toy_params(n_trials=2, fail=1e9, fail_after=2))
    with reader.open(results) as found:
        curves, records = found.curves(), found.records()
    assert [list(curves[record.number]["step"]) for record in records] == [[1, 2]] * len(records) != []
    assert [record.error for record in records] == [curves[record.number]["loss"][-1] for record in records]


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_is_tried_again(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """The same parameters, a new attempt; the total is exact and the loss is told."""
    done = run(ptydask, toy_params(n_trials=3, sleep=0.05, lose_once=str(tmp_path / "lost")))
    assert done.returncode == 0, done.stderr
    trials = rows(ptydask, results)
    assert len(trials) == 6
    retried = [t for t in trials if t["attempt"] == 2]
    assert len(retried) == 1
    assert "lost its worker" in done.stderr
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    lost = optuna.load_study(study_name="toy", storage=storage).trials[retried[0]["retry_of"]]  # type: ignore[call-overload]
    assert lost.state.name == "FAIL"
    assert lost.user_attrs["reason"] == "lost"
    assert lost.params == retried[0]["params"]


@pytest.mark.slow
def test_a_trial_that_always_kills_its_worker_is_given_up(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """After --retries it is recorded as failed, reason lost; the study ends with the exact total."""
    done = run(ptydask, toy_params(n_trials=2, lose=0.0), "--retries", 1)
    assert done.returncode == 3, done.stderr
    trials = rows(ptydask, results)
    assert len(trials) == 4
    lost = [t for t in trials if t["reason"] == "lost"]
    assert lost
    assert all(t["state"] == "FAIL" and t["attempt"] == 2 for t in lost)


@pytest.mark.slow
def test_bad_data_end_the_run_before_the_first_trial(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """What only shows when the data are read: one line, exit 2, nothing left behind."""
    done = run(ptydask, toy_params(bad_data=True))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "ptydask: data.h5: init_params.meas_params: holds NaN; mask bad pixels"
    assert "Traceback" not in done.stderr
    assert not results.parent.exists()


@pytest.mark.slow
def test_timeout_stops_early_and_can_go_on(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """No trial is begun after the time; exit 75; the same command without it does the rest."""
    params = toy_params(n_trials=4, sleep=0.3)
    done = run(ptydask, params, "--timeout", 1)
    assert done.returncode == 75, done.stderr
    some = rows(ptydask, results)
    assert 0 < len(some) < 8
    assert run(ptydask, params).returncode == 0
    assert len(rows(ptydask, results)) == 8


@pytest.mark.slow
def test_first_points_are_tried_first(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """--try points come before the sampler's, in their order."""
    done = run(ptydask, toy_params(n_trials=2), "--try", "scale=1.02 rotation=-1.5", "--try", "rotation=0.25")
    assert done.returncode == 0, done.stderr
    trials = {t["number"]: t for t in rows(ptydask, results)}
    assert trials[0]["params"] == {"scale": 1.02, "rotation": -1.5}
    assert trials[0]["origin"] == "try"
    assert trials[1]["params"]["rotation"] == 0.25  # type: ignore[index]


@pytest.mark.slow
def test_a_grid_is_run_once(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Every point of a grid exactly once, on several workers, and then the study is over."""
    grid = {"scale": [0.9, 1.0, 1.1], "rotation": [-1, 0]}
    hypertune = {"sampler_params": {"name": "GridSampler", "configs": {"search_space": grid}}}
    done = run(ptydask, toy_params(n_trials=50, hypertune=hypertune))
    assert done.returncode == 0, done.stderr
    found = sorted((t["params"]["scale"], t["params"]["rotation"]) for t in rows(ptydask, results))  # type: ignore[index]
    assert found == sorted((s, r) for s in grid["scale"] for r in grid["rotation"])


def steps(**sizes: int) -> dict[str, object]:
    """``tune_params`` with so many values each, 1 apart."""
    return {
        name: {"state": True, "suggest": "float", "kwargs": {"low": 1, "high": size, "step": 1}}
        for name, size in sizes.items()
    }


@pytest.mark.slow
def test_a_search_space_that_is_exhausted_ends_the_study(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """TPE on nine points, 60 trials asked for: nine trials, exit 0; again the same words, and no worker."""
    sampler = {"name": "TPESampler", "configs": {"multivariate": True, "constant_liar": True}}
    hypertune = {"sampler_params": sampler, "tune_params": steps(scale=3, rotation=3)}
    (tmp_path / "company").mkdir()
    params = toy_params(n_trials=30, hypertune=hypertune, company=str(tmp_path / "company"))
    words = "all 9 points of the search space are recorded; 51 of the 60 trials asked for are left unspent"
    done = run(ptydask, params, "--try", "scale=1")
    assert done.returncode == 0, done.stderr
    assert "9 trials, then all points of the search space are recorded (asked for: 2 workers x 30" in done.stderr
    assert "TPESampler after 2 random trials" in done.stderr
    assert words in done.stderr.splitlines()
    trials = rows(ptydask, results)
    assert len({tuple(t["params"].values()) for t in trials}) == len(trials) == 9  # type: ignore[attr-defined]
    assert {t["worker"] for t in trials} == {"0", "1"}
    before = results.stat().st_mtime_ns
    again = run(ptydask, params, "--try", "scale=1")
    assert again.returncode == 0, again.stderr
    assert words in again.stderr.splitlines()
    assert results.stat().st_mtime_ns == before


@pytest.mark.slow
def test_no_point_twice_over_kills(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Killed three times with trials under way, gone on with: each of 24 points once, and every trial asked for."""
    params = toy_params(n_trials=24, sleep=0.1, hypertune={"tune_params": steps(scale=6, rotation=4)})
    for recorded in (2, 9, 17):
        process = start(params)
        wait_for_trials(process, recorded - len(rows(ptydask, results)) if results.exists() else recorded)
        for member in family(process.pid):
            with suppress(psutil.NoSuchProcess):  # workers end with the driver that they have lost
                member.kill()
        process.communicate(timeout=30)
    assert run(ptydask, params).returncode == 0
    trials = rows(ptydask, results)
    assert len({tuple(t["params"].values()) for t in trials}) == len(trials) == 24  # type: ignore[attr-defined]


@pytest.mark.slow
def test_another_configuration_is_refused(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Trials with other settings are not comparable: file, key and value are named, nothing is touched."""
    run(ptydask, toy_params(n_trials=1, iterations=3))
    before = results.read_bytes()
    done = run(ptydask, toy_params(n_trials=2, iterations=4))
    assert done.returncode == 2
    assert "iterations = 4" in done.stderr
    assert "--results" in done.stderr
    assert results.read_bytes() == before


def test_dry_run_starts_nothing(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """It prints the plan and leaves no file."""
    done = run(ptydask, toy_params(), "--dry-run")
    assert done.returncode == 0
    assert "scale" in done.stderr
    assert not results.parent.exists()


def start(params: Path, *args: object) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a terminal starts it."""
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--workers", "2"]
    return subprocess.Popen(
        [*command, *map(str, args)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def family(pid: int) -> list[psutil.Process]:
    """A process and everything below it."""
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def wait_for_trials(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read stderr until so many trials have been told."""
    assert process.stderr is not None
    lines: list[str] = []
    while sum(line.startswith("trial ") for line in lines) < count:
        line = process.stderr.readline()
        assert line, "".join(lines)
        lines.append(line)
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopping_and_going_on(
    sent: signal.Signals, ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """Ctrl-C on the process group: 130, finished trials kept, running ones closed as interrupted and run again."""
    params = toy_params(n_trials=5, sleep=0.2)
    process = start(params)
    wait_for_trials(process, 3)
    time.sleep(0.3)  # into the middle of the next two
    members = family(process.pid)
    if sent is signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    _, err = process.communicate(timeout=30)
    assert process.returncode == (130 if sent is signal.SIGINT else 75), err
    assert "Traceback" not in err
    assert "the same command goes on" in err
    assert not psutil.wait_procs(members, timeout=5)[1]
    kept = rows(ptydask, results)
    assert 3 <= len(kept) < 10
    done = run(ptydask, params)
    assert done.returncode == 0, done.stderr
    trials = rows(ptydask, results)
    assert len(trials) == 10
    assert all(t in trials for t in kept)
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    study = optuna.load_study(study_name="toy", storage=storage)
    reasons = [t.user_attrs.get("reason") for t in study.trials if t.state.name == "FAIL"]
    assert reasons
    assert set(reasons) == {"interrupted"}
    assert not [t for t in study.trials if t.state.name in ("RUNNING", "WAITING")]


@pytest.mark.slow
def test_status_from_another_shell(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """While the run is on: how many, the best so far, what is running. A second driver is told who has the file."""
    params = toy_params(n_trials=100, sleep=0.3)
    process = start(params)
    wait_for_trials(process, 2)
    time.sleep(1.5)
    second = run(ptydask, params)
    status = ptydask("status", results)
    listed = rows(ptydask, results)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert second.returncode == 1, second.stderr
    assert str(process.pid) in second.stderr.splitlines()[-1]
    assert status.returncode == 0, status.stderr
    assert "running" in status.stdout
    assert len(listed) >= 2
    assert "running" not in ptydask("status", results).stdout


def test_help_is_quick_and_light() -> None:
    """--help loads none of the heavy packages."""
    code = (
        "import sys; from ptydask.cli import main; main(['--help']); main(['run', '--help']);"
        "print(sorted({'torch','dask','distributed','optuna','h5py','numpy','rich','yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
@pytest.mark.ptyrad
def test_dask_and_pytorch_come_with_the_first_worker(
    ptydask: Ptydask, toy_params: Params, results: Path, tmp_path: Path
) -> None:
    """Whatever starts none imports neither: a check, a plan, a run that is complete, a look at results."""
    pytest.importorskip("ptyrad")
    params, demo = toy_params(n_trials=1), str(tmp_path / "demo" / "params.yaml")
    assert run(ptydask, params, "--trials", 1).returncode == 0
    assert ptydask("demo", tmp_path / "demo").returncode == 0
    complete = ["run", str(params), "--engine", "toy", "--workers", "2", "--trials", "1"]
    looks = [[command, str(results)] for command in ("ls", "best", "status")]
    own_metric = ["--set", "ptydask.metrics.mine=json.dumps"]
    commands = [["validate", demo], ["validate", demo, *own_metric], ["run", demo, "--dry-run"], complete, *looks]
    code = (
        "import json, sys; from ptydask.cli import main\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    assert main(words) in (0, 2), words\n"
        "    heavy = {'torch', 'dask', 'distributed', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_study_that_goes_on_draws_nothing_twice(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Trials of the first points took a task each as well: the sampler's seeds of the next run begin beyond theirs."""
    params = toy_params(n_trials=2)
    for total in (4, 8):
        done = run(ptydask, params, "--trials", total, "--try", "scale=1 rotation=0.5")
        assert done.returncode == 0, done.stderr
    drawn = [t["params"]["rotation"] for t in rows(ptydask, results)]  # type: ignore[index]
    assert len(set(drawn)) == 8
