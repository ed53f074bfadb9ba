"""A queue of studies whose worker or driver is killed, or that is stopped, at any moment: exact budgets in all."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from killed_runs import kill, start, workers_of

from ptydask.store import reader

pytestmark = [pytest.mark.slow, pytest.mark.second, pytest.mark.timeout(600)]
DISTURBED, SEED = 6, 20260301
BUDGETS = {"first": 6, "second": 6, "third": 4}


def wait_for_trials(process: subprocess.Popen[bytes], log: Path, count: int) -> None:
    """Until the log tells of so many more trials, or the run has ended."""
    wanted = log.read_bytes().count(b" complete ") + count
    while log.read_bytes().count(b" complete ") < wanted and process.poll() is None:
        time.sleep(0.01)


def kill_a_worker(process: subprocess.Popen[bytes], rng: random.Random) -> None:
    try:
        workers = workers_of(process.pid)
        if workers:
            rng.choice(workers).kill()
    except psutil.NoSuchProcess:
        pass


def disturb(how: str, process: subprocess.Popen[bytes], rng: random.Random) -> int | None:
    """The exit code that is due then; None where the run goes on."""
    if how == "worker":
        kill_a_worker(process, rng)
        return None
    if how == "driver":
        kill(process, whole_group=rng.random() < 0.5)
        return process.returncode
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=60)
    assert not psutil.wait_procs(below, timeout=20)[1], "workers outlive their driver"
    return code


def check_budgets(out: Path) -> None:
    for name, budget in BUDGETS.items():
        with reader.open(out / f"{name}.h5") as results:
            records = results.records()
        assert [record.state for record in records] == ["COMPLETE"] * budget
        assert len({record.number for record in records}) == budget
        assert len({json.dumps(dict(record.params), sort_keys=True) for record in records}) == budget
    assert {path.name for path in out.iterdir()} == {f"{name}{end}" for name in BUDGETS for end in (".h5", ".journal")}


def test_disturbed_at_any_moment(toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """Killed workers cost an attempt; after all else the same command goes on, until every study has its trials."""
    out, log, rng = tmp_path / "out", tmp_path / "log", random.Random(SEED)
    files = [
        toy_params(3, "first", sleep=0.1),
        toy_params(3, "second", sleep=0.05),
        toy_params(2, "third", sleep=0.1),
    ]
    disturbed = 0
    while disturbed < DISTURBED:
        for file in out.iterdir() if out.exists() else ():
            file.unlink()
        process = start(files, log)
        while True:
            wait_for_trials(process, log, rng.randint(0, 5))
            try:
                code = process.wait(timeout=rng.uniform(0.0, 0.6))
            except subprocess.TimeoutExpired:
                how = ("worker", "driver", "Ctrl-C")[disturbed % 3]
                disturbed += 1
                code = disturb(how, process, rng)
                if code is None:
                    continue
                assert code in (130, -signal.SIGKILL, 0), log.read_text()[-3000:]
            if code == 0:
                break
            process = start(files, log)
        check_budgets(out)
    assert "Traceback" not in log.read_text()
