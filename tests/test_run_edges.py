"""Runs at the edges: stopped while they start or pack, files that do not belong together, a storage that goes away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import psutil
import pytest
import servers
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from ptydask.errors import hide_password, redact
from ptydask.model import path_beside
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "toy.h5"


def run(ptydask: Ptydask, params: Path, *args: object) -> subprocess.CompletedProcess[str]:
    return ptydask("run", params, "--engine", "toy", "--workers", 2, *args)


def start(params: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ptydask", "run", str(params), "--engine", "toy", "--workers", "2", *args]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def listed(ptydask: Ptydask, file: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(ptydask("ls", file, "--format", "json").stdout)
    return found


def assert_whole(results: Path, total: int) -> None:
    """All trials are there, each with its arrays, its image and its curve."""
    with reader.open(results) as found:
        assert len(found.records()) == total
        for record in found.records():
            trial = found.trial(record.number)
            assert trial.arrays["object_phase"].read().shape == (1, 1, 16, 16), record
            assert trial.image is not None
            assert len(trial.curve["loss"]) == 3


@pytest.mark.slow
def test_stopping_quick_trials_costs_no_arrays(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Trials that have ended in Optuna, and that the driver has not collected yet, are recorded from their files."""
    params = toy_params(n_trials=100)
    for seconds in (3.5, 4.5):
        process = start(params)
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break
        assert process.returncode == 130
    assert run(ptydask, params).returncode == 0
    assert_whole(results, 200)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    (caught,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("sent", "first"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_stopping_while_it_starts(sent: signal.Signals, first: int, toy_params: Params) -> None:
    """At any moment since it hears: soon over, no traceback, the right exit code, no process left."""
    params = toy_params(n_trials=50, sleep=0.1)
    for tenth in range(first, 20, 4):  # by the one signal or by the other
        process = start(params)
        while not catches(process.pid, signal.SIGTERM):
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(tenth / 10)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        os.killpg(process.pid, sent) if sent is signal.SIGINT else process.send_signal(sent)
        out, err = process.communicate(timeout=30)
        # Where Ctrl-C came within `exec`, as in dataclasses, CPython ends by the signal itself: 130 to a shell.
        assert process.returncode in ((130, -sent) if sent is signal.SIGINT else (75,)), f"{tenth}: {out}{err}"
        assert "Traceback" not in err, f"{tenth}: {err}"
        assert not psutil.wait_procs(family, timeout=10)[1]


@pytest.mark.slow
def test_a_study_stopped_before_packing_is_packed(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """All trials recorded, the folder still there, Optuna not told of one: put right, without a worker."""
    params = toy_params(n_trials=4)
    half = run(ptydask, params, "--trials", 3)
    assert half.returncode == 0, half.stderr
    process = start(params)
    assert process.stderr is not None
    while "8/8" not in process.stderr.readline():
        pass
    process.kill()
    process.communicate()
    journal = results.with_suffix(".journal")
    lines = journal.read_text().splitlines(keepends=True)
    lines.remove([line for line in lines if '"op_code":6' in line and '"state":1' in line][-1])
    journal.write_text("".join(lines))
    again = run(ptydask, params)
    assert again.returncode == 0, again.stderr
    study = optuna.load_study(study_name="toy", storage=JournalStorage(JournalFileBackend(str(journal))))
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 8
    assert sorted(p.name for p in results.parent.iterdir()) == ["toy.h5", "toy.journal"]
    assert_whole(results, 8)
    assert "nothing left to do" in run(ptydask, params).stderr


@pytest.mark.slow
def test_a_grid_goes_on_without_its_journal(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """What the results hold is not tried again, and the rest of the grid is."""
    grid = {"scale": [0.8, 0.9, 1.0, 1.1, 1.2], "rotation": [0]}
    params = toy_params(hypertune={"sampler_params": {"name": "GridSampler", "configs": {"search_space": grid}}})
    assert run(ptydask, params, "--trials", 3).returncode == 0
    results.with_suffix(".journal").unlink()
    assert run(ptydask, params, "--trials", 5).returncode == 0
    tried = sorted(row["params"]["scale"] for row in listed(ptydask, results))  # type: ignore[index]
    assert tried == [0.8, 0.9, 1.0, 1.1, 1.2]


@pytest.mark.slow
def test_a_linear_range_does_not_become_logarithmic(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """Optuna refuses the mixture at every trial; here it is refused once, before the run, by its name."""
    among = {"low": 1.0, "high": 4.0}
    tune = {"scale": {"state": True, "suggest": "float", "kwargs": among}}
    assert run(ptydask, toy_params(n_trials=1, hypertune={"tune_params": tune})).returncode == 0
    tune["scale"]["kwargs"] = {**among, "log": True}
    done = run(ptydask, toy_params(n_trials=2, hypertune={"tune_params": tune}))
    assert done.returncode == 2, done.stderr
    assert "tune_params.scale" in done.stderr
    results.unlink()
    journal_only = run(ptydask, toy_params(n_trials=2, hypertune={"tune_params": tune}))
    assert journal_only.returncode == 2, journal_only.stderr
    assert "scale" in journal_only.stderr.splitlines()[-1]
    assert "Traceback" not in journal_only.stderr


@pytest.mark.slow
def test_a_new_results_file_on_an_old_journal(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """It says that the earlier trials inform the search, and none of them is left open."""
    params = toy_params(n_trials=2)
    assert run(ptydask, params).returncode == 0
    results.unlink()
    done = run(ptydask, params)
    assert done.returncode == 0
    assert "4 trials of study 'toy' from another results file inform the search" in done.stderr
    assert len(listed(ptydask, results)) == 4


@pytest.mark.slow
def test_a_second_results_file_on_one_sqlite(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Its trials are added to the SQLite study too, beside those of the first."""
    params = toy_params(n_trials=2, hypertune={"storage_path": "sqlite:///h.sqlite3"})
    assert run(ptydask, params, "--results", "a.h5").returncode == 0
    second = run(ptydask, params, "--results", "b.h5")
    assert second.returncode == 0
    assert "4 trials of study 'toy'" in second.stderr
    storage = RDBStorage(f"sqlite:///{tmp_path / 'h.sqlite3'}")
    study = optuna.load_study(study_name="toy", storage=storage)
    values = sorted(t.value for t in study.trials if t.value is not None)
    storage.remove_session()
    storage.engine.dispose()
    ours = [row["error"] for name in ("a.h5", "b.h5") for row in listed(ptydask, tmp_path / name)]
    assert values == sorted(ours)  # type: ignore[type-var]


@pytest.mark.parametrize("where", ["/dev/null/x.h5", "/proc/x.h5"])
def test_results_that_cannot_be_there(where: str, ptydask: Ptydask, toy_params: Params) -> None:
    """Exit 2 and one line, before any worker starts."""
    done = run(ptydask, toy_params(), "--results", where)
    assert done.returncode == 2, done.stderr
    assert where.split("/x")[0] in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_somebody_elses_file_is_left_alone(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """A file of that name that ptydask did not make: exit 2, and not a byte of it changes."""
    (tmp_path / "data.h5").write_bytes(b"precious")
    done = run(ptydask, toy_params(), "--results", "data.h5")
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "data.h5").read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.h5", "toy.yaml"]


def test_unknown_cluster(ptydask: Ptydask, toy_params: Params) -> None:
    """Named with what there is, also in a dry run."""
    done = run(ptydask, toy_params(), "--cluster", "locale", "--dry-run")
    assert done.returncode == 2
    assert "did you mean 'local'?" in done.stderr


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.skipif(servers.postgres_programs() is None, reason="PostgreSQL's server programs are not installed")
def test_the_server_goes_away(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """PostgreSQL stops in the middle: one line, exit 75, no traceback; what was recorded is kept."""
    pytest.importorskip("psycopg", reason="needs the package psycopg")
    with servers.postgres("pa55word") as url:
        process = start(toy_params(n_trials=40, sleep=0.1, hypertune={"storage_path": url}))
        assert process.stderr is not None
        while "3/80" not in process.stderr.readline():
            assert process.poll() is None
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "Traceback" not in err
    assert "pa55word" not in err
    assert "the same command goes on" in err
    assert len(listed(ptydask, results)) >= 3


def test_names_beside_the_results() -> None:
    """No two results files share a journal or a folder unless only their HDF5 suffix differs."""
    assert path_beside(Path("d/a.1"), ".journal") == Path("d/a.1.journal")
    assert path_beside(Path("d/v1.0.h5"), ".journal") == Path("d/v1.0.journal")
    assert path_beside(Path("d/a"), ".trials") == Path("d/a.trials")


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("postgresql://u:p4ss/word@h/db", "p4ss/word"),
        ("postgresql://u:p%40ss1@h/db", "p@ss1"),
        ("postgresql://h/db?user=u&password=s3cret9", "s3cret9"),
        ("redis://:it's a s3cret@h/0", "it's a s3cret"),
    ],
)
def test_hidden_passwords(url: str, secret: str) -> None:
    """Once a URL is known its password is blanked out however it is written, and wherever."""
    hide_password(url)
    assert secret not in redact(f"could not connect to {url}: password {secret!r} refused for {secret}")


@pytest.mark.slow
def test_an_interrupted_study_has_nothing_open(ptydask: Ptydask, toy_params: Params, results: Path) -> None:
    """After Ctrl-C no trial is RUNNING in the journal, and its parameters wait to be tried again."""
    process = start(toy_params(n_trials=10, sleep=0.6))
    assert process.stderr is not None
    while "2/20" not in process.stderr.readline():
        pass
    time.sleep(0.4)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    storage = JournalStorage(JournalFileBackend(str(results.with_suffix(".journal"))))
    trials = optuna.load_study(study_name="toy", storage=storage).trials
    assert not [t for t in trials if t.state.name == "RUNNING"]
    again = [t.user_attrs["retry_of"] for t in trials if t.state.name == "WAITING"]
    assert again
    assert all(trials[n].user_attrs["reason"] == "interrupted" for n in again)


@pytest.mark.slow
def test_nowhere_to_write_to(tmp_path: Path) -> None:
    """A full disk behind stdout is one line and exit 1; a closed stdout is nobody's business."""
    full = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ptydask demo {tmp_path / 'demo'} > /dev/full"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert "No space left on device" in full.stderr.splitlines()[-1]
    assert "Traceback" not in full.stderr
    closed = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m ptydask demo {tmp_path / 'other'} >&-"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (closed.returncode, "Traceback" in closed.stderr) == (0, False), closed.stderr
