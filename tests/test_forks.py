"""Work that a process shares with forks of itself."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_cases
from threadpoolctl import threadpool_info

from ptydask.analysis import forks
from ptydask.analysis.data import load_study
from ptydask.analysis.forks import count_forks, map_in_forks, shared_with_forks
from ptydask.store import reader, trialgroup

needs_forks = pytest.mark.skipif(sys.platform != "linux", reason="no forks elsewhere")


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """And no threads but those of the test: Dask leaves idle ones behind where it ran before."""
    count, before = threading.active_count, threading.active_count()
    monkeypatch.setattr(threading, "active_count", lambda: count() - before + 1)
    monkeypatch.setattr(forks, "usable_cores", lambda: 2)
    yield
    assert multiprocessing.active_children() == []


@needs_forks
def test_a_fork_works_meanwhile_and_results_come_in_order(tmp_path: Path) -> None:
    """One fork beside this process, and each task is done once."""

    def work(task: int) -> tuple[int, int]:
        (tmp_path / str(task)).touch(exist_ok=False)
        return task, os.getpid()

    with shared_with_forks(work, 7) as results:
        wait_for(tmp_path / "6")
        found = list(results())
    assert [task for task, _ in found] == list(range(7))
    (fork,) = {process for _, process in found}
    assert fork != os.getpid()


@needs_forks
def test_a_list_is_worked_on_in_parts(tmp_path: Path) -> None:
    """In their order; a few items are not worth a fork."""
    few, here = forks._LEAST_PART, os.getpid()

    def work(item: int) -> int:
        if os.getpid() != here:
            (tmp_path / "begun").touch()
        elif len(items) > few:
            wait_for(tmp_path / "begun")
        return -item

    for items in (range(18 * few + 1), range(few + 1), range(few), range(0)):
        (tmp_path / "begun").unlink(missing_ok=True)
        assert map_in_forks(work, items) == [-item for item in items]
        assert (tmp_path / "begun").exists() == (len(items) > few)


@needs_forks
def test_curves_are_read_in_forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is open; a trial that is damaged is left out there, too."""
    monkeypatch.setattr(forks, "_LEAST_PART", 1)
    path = store_cases.packed(tmp_path / "s.h5", [store_cases.record(n) for n in range(9)])
    here, read = os.getpid(), trialgroup.read_curve

    def read_curve(group: Any) -> dict[str, Any]:
        if os.getpid() == here:
            wait_for(tmp_path / "begun")
        (tmp_path / "begun").touch()
        if group.name.endswith("000004"):
            raise OSError("damaged")
        return {**read(group), "fork": np.array([os.getpid() != here])}

    with reader.open(path) as results:
        expected = results.curves()
        monkeypatch.setattr(trialgroup, "read_curve", read_curve)
        curves = load_study(results, on_all_cores=True).curves
        monkeypatch.setattr(forks, "count_forks", lambda _: pytest.fail("a fork of a program that did not ask for it"))
        load_study(results)
    assert list(curves) == [n for n in range(9) if n != 4]
    assert any(curve["fork"].all() for curve in curves.values())
    for number, curve in curves.items():
        np.testing.assert_array_equal(curve["loss"], expected[number]["loss"])


@needs_forks
def test_this_process_does_what_a_fork_could_not(tmp_path: Path) -> None:
    """A fork that is killed takes its results with it; what one cannot do is done here."""
    here = os.getpid()

    def work(task: int) -> int:
        if os.getpid() != here:
            (tmp_path / "begun").touch()
            if task == 1:
                raise ValueError
            if task == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return task

    for count in (2, 3):
        with shared_with_forks(work, count) as results:
            wait_for(tmp_path / "begun")
            assert list(results()) == list(range(count))


@needs_forks
def test_where_no_process_may_be_had_this_one_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refuse)
    with shared_with_forks(lambda task: task, 3) as results:
        assert list(results()) == [0, 1, 2]


@needs_forks
def test_a_fork_computes_on_one_thread(tmp_path: Path) -> None:
    """Those that a library has started in this process it would wait for."""
    here = os.getpid()

    def work(_task: int) -> set[int]:
        if os.getpid() == here:
            wait_for(tmp_path / "begun")
            return {1}
        (tmp_path / "begun").touch()
        return {pool["num_threads"] for pool in threadpool_info()}

    np.ones((2, 2)) @ np.ones((2, 2))
    with shared_with_forks(work, 2) as results:
        wait_for(tmp_path / "begun")
        assert list(results()) == [{1}, {1}]


@needs_forks
def test_errors_are_raised_here_and_forks_end() -> None:
    def work(task: int) -> int:
        if task == 2:
            raise LookupError("two")
        return task

    with shared_with_forks(work, 4) as results:
        given = results()
        assert [next(given), next(given)] == [0, 1]
        with pytest.raises(LookupError, match="two"):
            next(given)
    with pytest.raises(KeyboardInterrupt), shared_with_forks(lambda _: time.sleep(60), 2):
        raise KeyboardInterrupt


def test_forks_are_made_where_they_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a core, this process has one; none beside threads, on a Mac, or for a single task."""
    monkeypatch.setattr(sys, "platform", "linux")
    assert [count_forks(tasks) for tasks in (0, 1, 2, 9)] == [0, 0, 1, 1]
    monkeypatch.setattr(forks, "usable_cores", lambda: 64)
    assert count_forks(9) == 3
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert count_forks(9) == 0
    with shared_with_forks(str, 3) as results:
        assert list(results()) == ["0", "1", "2"]
    stop.set()
    thread.join()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert count_forks(9) == 0


def wait_for(path: Path) -> None:
    """Until a fork has made the file."""
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.005)
