"""The model of benchmarks/messages.py, by which docs/scale.md says how many workers one driver carries; its rows."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ptydask.store import reader

ROOT = Path(__file__).parents[1]
pytest.importorskip("psutil")


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("messages")


@pytest.fixture
def scaling(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The benchmark as a module."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("scaling")


def test_the_load_is_that_of_its_messages(messages: ModuleType) -> None:
    """10 trials a second of 8 ms with 5 reports of 2 ms, 10 heartbeats a second of 1 ms, and 20 ms."""
    costs = messages.Costs(trial=0.008, report=0.002, heartbeat=0.001, second=0.02)
    assert messages.driver_load(costs, 100, 10.0, 5.0) == pytest.approx(0.08 + 0.1 + 0.01 + 0.02)


@pytest.mark.parametrize("seconds", [0.5, 1.0, 60.0, 3600.0])
@pytest.mark.parametrize("reports", [0.0, 1.0, 500.0])
def test_the_most_workers_are_the_last_that_fit(messages: ModuleType, seconds: float, reports: float) -> None:
    """One more is too many; longer trials let there be more, reports fewer."""
    costs = messages.TYPICAL
    most = messages.most_workers(costs, seconds, reports)
    assert messages.driver_load(costs, most + 1, seconds, reports) > messages.SHARE
    assert most == 0 or messages.driver_load(costs, most, seconds, reports) <= messages.SHARE
    assert messages.most_workers(costs, 2 * seconds, reports) >= most
    assert messages.most_workers(costs, seconds, reports + 1) <= most


@pytest.mark.parametrize(("costs", "seconds"), [((1.0, 0.0, 0.0, 0.0), 1.0), ((0.0, 0.0, 0.0, 0.9), 60.0)])
def test_a_driver_that_carries_nobody(messages: ModuleType, costs: tuple[float, ...], seconds: float) -> None:
    """Not even one worker."""
    assert messages.most_workers(messages.Costs(*costs), seconds) == 0


def test_the_page_has_the_table_of_the_model(messages: ModuleType) -> None:
    """docs/scale.md: its costs, its share of a core and its rows."""
    page, costs = (ROOT / "docs" / "scale.md").read_text(), messages.TYPICAL
    assert str(messages.capacity_table(costs)) in page
    named = [f"{1000 * cost:g} ms" for cost in (costs.trial, costs.report, costs.heartbeat)]
    assert [text for text in (*named, f"{messages.SHARE:.0%}") if text.replace("%", " %") not in page] == []


def record(worker: str, began: float, seconds: float = 1.0, retry_of: int | None = None) -> Any:
    """What :func:`row_of` reads of a trial's record; ``began`` in seconds of one minute."""
    started = f"2030-01-01T00:00:{began:06.3f}+00:00"
    return SimpleNamespace(worker=worker, started=started, seconds=seconds, retry_of=retry_of)


def test_a_row_counts_while_all_workers_are_there(scaling: ModuleType) -> None:
    """Gaps, share and CPU between the last worker's first trial and the end of the first that has no more."""
    records = [record("a", 0.0), record("a", 1.5), record("a", 2.6), record("a", 3.7)]
    records += [record("b", 1.5), record("b", 2.6), record("b", 3.7, retry_of=1)]
    at = scaling.datetime.fromisoformat("2030-01-01T00:00:00+00:00").timestamp()
    samples = [scaling.Sample(at + second, 0.1 * second, 0.2 * second, rss=2.0, share=1.0) for second in range(6)]
    row = scaling.row_of(records, samples, scaling.Heartbeats(9))
    assert (row.workers, row.trials, row.lost, row.starting) == (2, 7, 1, 1.5)
    assert row.gaps == pytest.approx([0.1] * 4, abs=1e-6)  # not the half second before b was there
    assert row.busy == pytest.approx(6 / 6.4)
    assert (row.driver, row.processes) == pytest.approx((0.1, 0.2))
    assert len(row.busy_cells) == len(scaling.BUSY)
    assert len(row.sleeping_cells) == len(scaling.SLEEPING)


def test_quantiles_of_gaps(scaling: ModuleType) -> None:
    """In order, also where there are few or none."""
    values = [float(value) for value in range(10)]
    assert all(a <= b for a, b in pairwise(scaling.quantile(values, part / 10) for part in range(11)))
    assert (scaling.quantile(values, 0.5), scaling.quantile(values, 1.0), scaling.quantile([], 0.9)) == (5.0, 9.0, 0.0)


@pytest.mark.slow
@pytest.mark.second
@pytest.mark.timeout(600)
def test_many_sleeping_workers_are_all_heard_of(scaling: ModuleType, tmp_path: Path) -> None:
    """More than start at once: all come, none is lost, no heartbeat fails."""
    scaling.write_params(tmp_path, 10.0, 4)
    done = subprocess.run(
        [sys.executable, scaling.__file__, "--one", str(tmp_path), "24"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    heartbeats = scaling.Heartbeats(**json.loads(done.stdout.splitlines()[-1]))
    with reader.open(tmp_path / "results.h5") as results:
        records = results.records()
    assert len(records) == 96
    assert [record.number for record in records if record.retry_of is not None] == []
    assert (heartbeats.missing, heartbeats.overdue) == (0, 0)
    assert heartbeats.answered >= len({record.worker for record in records}) > 12
