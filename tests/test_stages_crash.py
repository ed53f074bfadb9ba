"""SIGKILL at any moment of a staged run, and over its borders: the result is that of the undisturbed one."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_runs import kill, start, workers_of
from stage_cases import summarise, write_staged

from ptydask.store import reader

pytestmark = [pytest.mark.slow, pytest.mark.second, pytest.mark.timeout(900)]
KILLS, SEED = 20, 20260214


def progress(log: Path) -> int:
    """Lines of the log: whatever it tells, something has happened."""
    return log.read_bytes().count(b"\n") if log.exists() else 0


def stages_begun(results: Path) -> int:
    with reader.open(results) as file:
        return len(file.stage_names())


def test_twenty_kills_over_stage_borders(toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """Half of them at a moment after the start, half shortly after the log has told of something new."""
    params, results, log = write_staged(toy_params, sleep=0.02), tmp_path / "out" / "toy.h5", tmp_path / "log"
    assert start(params, log).wait(timeout=120) == 0, log.read_text()[-3000:]
    undisturbed = summarise(results)
    rng, kills, killed_in = random.Random(SEED), 0, set[int]()
    while kills < KILLS:
        for file in results.parent.iterdir():
            file.unlink()
        while True:
            before, process = progress(log), start(params, log)
            moment = rng.uniform(0.8, 4.5)
            if kills % 2:
                moment /= 6
                wanted = before + rng.randint(8, 22)
                while progress(log) < wanted and process.poll() is None:
                    time.sleep(0.005)
            try:
                code = process.wait(timeout=moment)
            except subprocess.TimeoutExpired:
                kill(process, whole_group=rng.random() < 0.5)
                kills += 1
                killed_in.add(stages_begun(results) if results.exists() else 0)
                continue
            assert code == 0, log.read_text()[-3000:]
            break
        assert summarise(results) == undisturbed
        assert sorted(p.name for p in results.parent.iterdir()) == ["toy.h5", "toy.journal"]
    assert len(killed_in) >= 3, "the kills came in too few stages"


def test_a_worker_killed_in_a_later_stage(toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """Another takes its place, and all trials are there."""
    params, results, log = write_staged(toy_params, sleep=0.1), tmp_path / "out" / "toy.h5", tmp_path / "log"
    process = start(params, log)
    while b"stage 2 of 4: turn begins" not in log.read_bytes() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.4)
    workers_of(process.pid)[0].kill()
    assert process.wait(timeout=120) == 0, log.read_text()[-3000:]
    assert [(stage["name"], len(stage["trials"])) for stage in summarise(results)] == [
        ("rough", 4),
        ("turn", 5),
        ("again", 3),
        ("final", 1),
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_at_a_border(number: signal.Signals, toy_params: Callable[..., Path], tmp_path: Path) -> None:
    """As one stage ends and the next begins: the usual exit code, what is to be done, and the same command goes on."""
    params, results, log = write_staged(toy_params, sleep=0.02), tmp_path / "out" / "toy.h5", tmp_path / "log"
    process = start(params, log)
    while b"is over" not in log.read_bytes() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(timeout=60) == (130 if number is signal.SIGINT else 75), log.read_text()[-3000:]
    told = log.read_text()
    assert "Traceback" not in told
    assert "stopped in stage" in told
    assert "the same command goes on" in told
    assert start(params, log).wait(timeout=120) == 0, log.read_text()[-3000:]
    assert [len(stage["trials"]) for stage in summarise(results)] == [4, 5, 3, 1]
