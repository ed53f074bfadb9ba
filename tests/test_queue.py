"""Several studies in one command, on real workers, with the quick engine of tests/plugins."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from killed_runs import kill, start
from stage_cases import ROTATIONS, SCALES, summarise, write_staged

from ptydask.cli import main
from ptydask.model import TrialRecord
from ptydask.store import reader

Ptydask = Callable[..., subprocess.CompletedProcess[str]]
Params = Callable[..., Path]
QUEUE = ("--engine", "toy", "--workers", "2", "--cluster", "local")


def records(folder: Path, name: str) -> Sequence[TrialRecord]:
    with reader.open(folder / "out" / f"{name}.h5") as results:
        return results.records()


def attributes(folder: Path, *names: str) -> list[Any]:
    told = []
    for name in names:
        with reader.open(folder / "out" / f"{name}.h5") as results:
            told += [results.trial(record.number).attributes for record in results.records()]
    return told


def wait_for_trials(folder: Path, name: str, count: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if len(list((folder / "out" / f"{name}.trials").glob("0*.h5"))) >= count:
            return
        time.sleep(0.05)
    raise AssertionError((folder / "log").read_text()[-2000:])


@pytest.mark.slow
def test_each_has_its_trials_on_the_same_workers(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """The second begins while the last trial of the first is under way; every process closes one for the next."""
    first = toy_params(1, "first", sleep=0.8, iterations=5)
    second = toy_params(2, "second", sleep=0.05)
    third = toy_params(2, "third")
    done = ptydask("run", first, second, third, *QUEUE, "--trials", 3)
    assert done.returncode == 0, done.stderr
    assert [len(records(tmp_path, name)) for name in ("first", "second", "third")] == [3, 3, 3]
    last = max(records(tmp_path, "first"), key=lambda record: record.started)
    begun = min(datetime.fromisoformat(record.started) for record in records(tmp_path, "second"))
    assert (begun - datetime.fromisoformat(last.started)).total_seconds() < last.seconds
    told = attributes(tmp_path, "first", "second", "third")
    assert len({one["pid"] for one in told}) == 2
    assert {one["loads"] for one in told} == {1}, "a session was closed without word of its successor"
    assert [line.split()[:2] for line in done.stdout.splitlines()[1:]] == [
        ["first", "3/3"],
        ["second", "3/3"],
        ["third", "3/3"],
    ]
    assert sorted(file.suffix for file in (tmp_path / "out").iterdir()) == [".h5"] * 3 + [".journal"] * 3
    again = ptydask("run", first, second, third, *QUEUE, "--trials", 3)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("nothing left to do") == 3


@pytest.mark.parametrize("broken", ["init_params: {", "hypertune_params: {}", "[]", None])
def test_a_broken_file_is_refused_before_anything_starts(
    toy_params: Params, tmp_path: Path, broken: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it stands, also one that is not there."""
    good, bad = toy_params(1, "good"), tmp_path / "bad.yaml"
    if broken is not None:
        bad.write_text(broken)
    assert main(["run", str(good), str(bad), *QUEUE]) == 2
    assert "bad.yaml" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_results_file_for_two_is_refused(toy_params: Params, tmp_path: Path) -> None:
    """The same file twice, two files of one study, and -o."""
    one, copy = toy_params(1, "one"), tmp_path / "copy.yaml"
    copy.write_text(one.read_text())
    for more in ([one, one], [one, copy], [one, toy_params(1, "two"), "-o", "x.h5"]):
        assert main(["run", *map(str, more), *QUEUE]) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_study_that_fails_does_not_end_the_others(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Data that cannot be read, trials that fail alike, and some that fail: the others have all of theirs."""
    files = [
        toy_params(2, "first"),
        toy_params(2, "unread", bad_data=True),
        toy_params(9, "alike", fail=9),
        toy_params(2, "last"),
    ]
    done = ptydask("run", *files, *QUEUE)
    assert done.returncode == 2, done.stderr
    assert [len(records(tmp_path, name)) for name in ("first", "last")] == [4, 4]
    assert len(records(tmp_path, "alike")) < 18
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "holds NaN" in rows["unread"]
    assert "failed alike" in rows["alike"]
    assert "complete" in rows["last"]
    assert "unread: data.h5" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_same_command_goes_on(toy_params: Params, tmp_path: Path, how: signal.Signals) -> None:
    """Stopped while two studies are under way: every trial is there once, none more."""
    files = [toy_params(3, "first", sleep=0.5), toy_params(3, "second", sleep=0.3), toy_params(2, "third")]
    process = start(files, tmp_path / "log", "--cluster", "local")
    wait_for_trials(tmp_path, "first", 5 if how is signal.SIGINT else 2)
    if how is signal.SIGKILL:
        kill(process, whole_group=False)
    else:
        process.send_signal(how)
        assert process.wait(timeout=60) == (130 if how is signal.SIGINT else 75)
        *_, third, last = (tmp_path / "log").read_text().splitlines()
        assert third.split()[:2] == ["third", "0/4"]
        assert "not begun" in third
        assert "goes on" in last
    assert start(files, tmp_path / "log", "--cluster", "local").wait(timeout=100) == 0, (tmp_path / "log").read_text()[
        -3000:
    ]
    assert [len(records(tmp_path, name)) for name in ("first", "second", "third")] == [6, 6, 4]
    assert len([*(tmp_path / "out").iterdir()]) == 6


@pytest.mark.slow
def test_a_lost_worker_costs_an_attempt(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Also where the workers are with the next study by then."""
    first = toy_params(1, "first", sleep=1.2, lose_once=str(tmp_path / "lost"))
    done = ptydask("run", first, toy_params(4, "second", sleep=0.3), *QUEUE, "--trials", 3)
    assert done.returncode == 0, done.stderr
    assert [len(records(tmp_path, name)) for name in ("first", "second")] == [3, 3]
    assert sorted(record.attempt for record in records(tmp_path, "first"))[-1] == 2


@pytest.mark.slow
def test_a_study_in_stages_is_one_of_the_queue(ptydask: Ptydask, toy_params: Params, tmp_path: Path) -> None:
    """Its stages have their trials, and the next study gets the workers after the last one."""
    staged = write_staged(toy_params)
    done = ptydask("run", toy_params(2, "before"), staged, toy_params(2, "after"), *QUEUE)
    assert done.returncode == 0, done.stderr
    trials = [len(stage["trials"]) for stage in summarise(tmp_path / "out" / "toy.h5")]
    assert trials == [len(SCALES), len(ROTATIONS), 3, 1]
    assert [len(records(tmp_path, name)) for name in ("before", "after")] == [4, 4]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [("--workers", 2), ("--adapt", "0:2")])
def test_sweeps_of_a_program_and_of_a_function(ptydask: Ptydask, tmp_path: Path, workers: tuple[object, ...]) -> None:
    """One queue has several engines; the second sweep of a program begins with the best of the first."""
    (tmp_path / "train.py").write_text(
        "import sys, ptydask\n"
        "lr = next(float(word.split('=')[1]) for word in sys.argv if word.startswith('--lr='))\n"
        "ptydask.report(1, loss=lr * lr)\n"
    )
    (tmp_path / "work.py").write_text("def fit(params):\n    return params['lr'] ** 2\n")
    files = []
    for name, program in (("one", {"program": "train.py"}), ("two", {"program": "train.py"}), ("three", {})):
        sweep = {
            **program,
            "name": name,
            "method": "random",
            "metric": {"name": "loss", "goal": "minimize"},
            "parameters": {"lr": {"min": 0.1, "max": 1.0}},
            "run_cap": 3,
        }
        if not program:
            sweep["engine"] = {"callable": "work.py:fit"}
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump(sweep))
    done = ptydask("run", *files, "--cluster", "local", *workers)
    assert done.returncode == 0, done.stderr
    origins = {}
    for name in ("one", "two", "three"):
        with reader.open(tmp_path / f"{name}.h5") as results:
            origins[name] = [record.origin for record in results.records()]
    assert [len(of) for of in origins.values()] == [3, 3, 3]
    assert any(origin.startswith("from one.h5") for origin in origins["two"])
    assert not any(origin.startswith("from") for origin in origins["three"])
