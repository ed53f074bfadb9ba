"""What a queue asks of its cluster, and how it ended: what its table and the user's command say."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from queue_cases import SNAPSHOT, queued
from test_queue_view import Told

from ptydask import running
from ptydask.clusters import ClusterRequest
from ptydask.clusters.local import ThisMachine
from ptydask.driver.contract import STOPPING, RunOutcome
from ptydask.driver.execute import execute_run
from ptydask.driver.queue import QueueEnd, StudyEnd, execute_queue, facts_of_queue
from ptydask.errors import ClusterError, DataError, StoppedEarly
from ptydask.progress.queue_view import summary_rows
from ptydask.stop_signals import StopSignals, Terminated

Ends = Callable[..., StudyEnd]


@pytest.fixture
def end(toy_engine: None, toy_params: Callable[..., Path]) -> Ends:
    """How a study ended, by its name."""

    def ended(name: str, **how: object) -> StudyEnd:
        return StudyEnd(queued(toy_params(name=name)).prepared, **how)  # type: ignore[arg-type]

    return ended


def test_workers_are_asked_for_once_for_all(
    toy_engine: None, toy_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that any study imports, each module once; and no more of them than the memory has room for in any."""
    asked = list[ClusterRequest]()

    def refuse(_place: ThisMachine, request: ClusterRequest) -> None:
        asked.append(request)
        raise ClusterError("no workers, says the test")

    monkeypatch.setattr(ThisMachine, "open", refuse)
    studies = list[Any]()
    for name, workers, imports in (("gold", 4, ("torch", "ptyrad")), ("iron", 2, ("ptyrad", "scipy")), ("tin", 3, ())):
        study: Any = queued(toy_params(name=name))
        run = study.prepared
        request = replace(run.cluster_request, workers=workers)
        run = replace(run, plan=replace(run.plan, imports=imports), cluster_request=request)
        studies.append(replace(study, prepared=run))
    with pytest.raises(ClusterError, match="says the test"):
        execute_queue(studies, [Told() for _ in studies], StopSignals())
    assert [(request.imports, request.workers) for request in asked] == [(("torch", "ptyrad", "scipy"), 2)]


@pytest.mark.parametrize("studies", [1, 2])
def test_a_stop_is_answered_while_workers_start(
    studies: int, toy_engine: None, toy_params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, whether one study or several wait for them; nothing is begun then."""
    views = [Told() for _ in range(studies)]
    said = list[str]()

    @contextmanager
    def start(_place: ThisMachine, _request: ClusterRequest) -> Iterator[SimpleNamespace]:
        signal.raise_signal(signal.SIGINT)
        said.append(views[0].stream.getvalue())
        yield SimpleNamespace(stop_workers=lambda: None)

    monkeypatch.setattr(ThisMachine, "open", start)
    prepared = [queued(toy_params(name=name)) for name in ("gold", "iron")[:studies]]
    with StopSignals() as stop:
        if studies == 1:
            with pytest.raises(KeyboardInterrupt):
                execute_run(prepared[0].prepared, views[0], stop)  # type: ignore[arg-type]
        else:
            assert isinstance(execute_queue(prepared, views, stop).stopped, KeyboardInterrupt)
    assert said == [f"{STOPPING}\n"]
    assert "".join(view.stream.getvalue() for view in views).count(STOPPING) == 1


@pytest.mark.parametrize(
    ("how", "code", "trials", "word"),
    [
        ({"outcome": RunOutcome(SNAPSHOT, True), "last": SNAPSHOT}, 0, "2/6", "complete"),
        ({"outcome": RunOutcome(SNAPSHOT, False), "last": SNAPSHOT}, 75, "2/6", "time is over"),
        ({"error": KeyboardInterrupt(), "last": SNAPSHOT}, 130, "2/6", "stopped"),
        ({"error": Terminated(), "last": SNAPSHOT}, 75, "2/6", "stopped"),
        ({}, 75, "0/6", "not begun"),
        ({"error": DataError("holds NaN", file="d.h5")}, 2, "0/6", "holds NaN"),
        ({"error": StoppedEarly("the scheduler is gone")}, 75, "0/6", "gone"),
        ({"error": ZeroDivisionError("by zero")}, 1, "0/6", "by zero"),
    ],
)
def test_each_study_has_a_row(how: dict[str, object], code: int, trials: str, word: str, end: Ends) -> None:
    study = end("gold", **how)
    (row,) = summary_rows([study])
    assert study.exit_code == code
    assert row[:2] == ("gold", trials)
    assert word in row[-1]
    assert len(row[-1]) < 50


def test_a_long_reason_does_not_fill_the_table(end: Ends) -> None:
    """What ended a study was told when it did; the file is in the row already."""
    error = DataError("is damaged: what it holds cannot be read (filter returned failure)", file="d.h5", value="x" * 90)
    row = summary_rows([end("gold", error=error)])[0]
    assert row[-1].startswith("is damaged")
    assert len(row[-1]) < 50


def test_the_command_is_told_of_all_studies(end: Ends) -> None:
    """How many trials they have together, and which have failed or are not complete."""
    whole = end("gold", outcome=RunOutcome(SNAPSHOT, True), last=SNAPSHOT)
    late = end("iron", outcome=RunOutcome(SNAPSHOT, False), last=SNAPSHOT)
    bad = end("lead", error=DataError("holds NaN"))
    facts = facts_of_queue(QueueEnd((whole, late, bad)))
    assert (facts.event, facts.recorded, facts.total) == ("failed", 4, 18)
    assert facts.reason == "lead failed; iron not complete"
    assert facts.results.name == "out"
    assert facts_of_queue(QueueEnd((whole, late))).event == "stopped"
    assert facts_of_queue(QueueEnd((whole,))).event == "finished"


@pytest.mark.parametrize(
    ("error", "event"), [(ClusterError("no jobs"), "failed"), (StoppedEarly("gone"), "stopped"), (OSError(), "failed")]
)
def test_the_command_is_told_where_no_study_could_begin(
    error: Exception,
    event: str,
    toy_engine: None,
    toy_params: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> QueueEnd:
        raise error

    monkeypatch.setattr(running, "execute_queue", fail)
    command = f"echo $PTYDASK_EVENT $PTYDASK_RECORDED/$PTYDASK_TOTAL $PTYDASK_REASON > '{tmp_path / 'told'}'"
    studies = [queued(toy_params(name=name), notify=command) for name in ("gold", "iron")]
    with pytest.raises(type(error)):
        running.carry_out_queue(studies, Told(), StopSignals())
    assert (tmp_path / "told").read_text().startswith(f"{event} 0/12 {error}".rstrip())
