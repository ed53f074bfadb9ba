"""Several studies, one after the other on the same workers, without a worker that waits for the last trial of one.

Each study is run by a thread of its own, exactly as it would be run alone: prepared, executed (in stages or not) and
packed. The threads share nothing but the workers and the view. A study's cluster is a share of the one that is open
(:mod:`ptydask.driver.lending`): its WorkerPool sees the workers that are lent to it, and no other.

How a worker goes from study to study: the first study is opened, and has all workers for which it has trials. Once a
second a study says how many trials it has not recorded (``Cluster.tend``); of idle workers beyond these it is told that
they are closing, so it sends them nothing more, and they are free. A free worker goes to the first open study that has
a trial for it; where none has, the next study of the queue is opened. There the worker gets ready as any new one does,
and its process closes the former study's session first (``Session.close_for``): it has the measurements of one study
at a time. A study whose trial was lost after its workers had gone gets one back: the later study gives up that many,
each after the trial that it has.

So the last trials of a study, its packing, and the first trials of the next overlap. No more than two or three studies
are open at a time, where the last trials of one outlast the next.

A study that fails gives its workers back once its trials under way have ended, and the others go on. A signal is heard
by the main thread, which passes it on to all threads: each stops as a single run stops. Workers are ended once all
have stopped collecting, so that no study takes its trials for lost. The same command goes on with every study from
where its own results file is.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ptydask.clusters import ClusterRequest
from ptydask.clusters.settings import import_dask
from ptydask.driver.contract import GOES_ON, RunOutcome, View
from ptydask.driver.lending import LendingPlace, LentWorkers
from ptydask.driver.prepare import PreparedRun
from ptydask.driver.stages import PreparedStages, SharedCluster, label_of
from ptydask.errors import ConfigError, PtydaskError, StoppedEarly, describe_error
from ptydask.model import path_beside
from ptydask.run_snapshot import RunSnapshot
from ptydask.stop_signals import StopSignals
from ptydask.storage import urls

Prepared = PreparedRun | PreparedStages
CarryOut = Callable[[Prepared, View, StopSignals], RunOutcome]

_LOOK = 0.2
"""Seconds between two looks at signals and workers."""


@dataclass(frozen=True, slots=True)
class StudyEnd:
    """How one study of a queue ended."""

    prepared: Prepared
    outcome: RunOutcome | None = None
    """None where there was nothing left to do, or it failed, or it was not begun."""
    error: BaseException | None = None
    """What ended it early."""
    last: RunSnapshot | None = None
    """How it was at the end; None where nothing is recorded."""

    @property
    def exit_code(self) -> int:
        """What a command with this study alone returns."""
        if self.error is not None:
            return self.error.exit_code if isinstance(self.error, PtydaskError) else 1
        if self.outcome is None:
            return 0
        if not self.outcome.complete or self.outcome.behind:
            return 75
        return 3 if self.outcome.failed else 0


def combine_exit_codes(codes: Sequence[int]) -> int:
    """One exit code for all: of a study that failed first, then of one that is not complete, then of failed trials."""
    return next((code for code in codes if code not in (0, 3, 75)), next((c for c in (75, 3) if c in codes), 0))


def check_apart(studies: Sequence[tuple[Path, Prepared]]) -> None:
    """Raise ConfigError where two of the files, by their paths, name one results file."""
    seen: dict[Path, Path] = {}
    for file, prepared in studies:
        results = prepared.plan.results.resolve()
        if (other := seen.setdefault(results, file)) is not file:
            rule = f"would write {prepared.plan.results}, as {other} would: each study of a queue has its own"
            hint = "give each file another study_name or output_dir, and name each file once"
            raise ConfigError(rule, file=file, hint=hint)


@dataclass(slots=True)
class _Study:
    """One study of the queue, and its thread once it is open."""

    place: int
    prepared: Prepared
    view: View
    stop: StopSignals
    thread: threading.Thread | None = None
    end: StudyEnd | None = None

    @property
    def run(self) -> PreparedRun:
        return run_of(self.prepared)

    @property
    def trials(self) -> int:
        """Trials that it has left, those of later stages included."""
        return self.run.trials_left + self.run.options.upcoming

    def start(self, carry_out: CarryOut, workers: LentWorkers) -> None:
        """Open it: its thread runs from here on."""
        workers.open_study(self.place, self.trials)
        lent = replace(self.run, place=LendingPlace(self.run.place, workers, self.place))
        prepared = replace(self.prepared, run=lent) if isinstance(self.prepared, PreparedStages) else lent

        def conduct() -> None:
            try:
                self.end = StudyEnd(self.prepared, carry_out(prepared, self.view, self.stop))
            except BaseException as error:  # told in the main thread
                self.end = StudyEnd(self.prepared, error=error)
            finally:
                workers.close_study(self.place)

        self.thread = threading.Thread(target=conduct, name=f"study {self.place + 1}", daemon=True)
        self.thread.start()


def run_of(prepared: Prepared) -> PreparedRun:
    """The run itself; of stages that of the next one."""
    return prepared.run if isinstance(prepared, PreparedStages) else prepared


def execute_queue(
    prepared: Sequence[Prepared], views: Sequence[View], stop: StopSignals, carry_out: CarryOut
) -> tuple[StudyEnd, ...]:
    """Run what is missing of all studies, each by ``carry_out`` with its own view; how each ended, in order.

    A study's error is in its end, and told its view. Raises KeyboardInterrupt or Terminated where that stops all, after
    everything under way has been closed.
    """
    studies = [
        _Study(place, one, view, StopSignals()) for place, (one, view) in enumerate(zip(prepared, views, strict=True))
    ]
    for study in studies:
        if study.prepared.finished:
            study.end = StudyEnd(study.prepared)
    waiting = [study for study in studies if study.end is None]
    if waiting:
        import_dask()
        with stop.deferred(), ExitStack() as stack:
            request = _queue_request(studies)
            shared = stack.enter_context(SharedCluster(studies[0].run.place, request))
            cluster = stack.enter_context(shared.opened(request))
            workers = LentWorkers(cluster, sum(study.trials for study in waiting))
            try:
                _conduct(waiting, workers, stop, carry_out)
            except BaseException:
                workers.stopping = True
                for study in waiting:
                    study.stop.came = stop.came or signal.SIGINT
                for study in waiting:
                    if study.thread is None:
                        study.view.notice(f"no trial was begun; {GOES_ON}")
                    else:
                        study.thread.join()
                raise
            shared.close()
    return tuple(study.end or StudyEnd(study.prepared) for study in studies)


def _queue_request(studies: Sequence[_Study]) -> ClusterRequest:
    """What is asked of the cluster of all studies. The same files have the same label, however far their studies are.

    Its folder is nobody else's: that of a study, or of its stages, goes when these are over.
    """
    results = [study.run.plan.results.absolute() for study in studies]
    folder = path_beside(results[0], ".queue")
    return replace(studies[0].run.cluster_request, folder=folder, label=label_of(results))


def _journal_of(study: _Study) -> Path | None:
    plan = study.run.plan
    journal = urls.parse(plan.storage, plan.results).journal
    return None if journal is None else journal.absolute()


def _may_open(study: _Study, under_way: Sequence[_Study], workers: LentWorkers) -> bool:
    """Whether a study can be opened now: a worker has nothing to do, and no other has its journal."""
    if not under_way:
        return True
    journal = _journal_of(study)
    if journal is not None and journal in map(_journal_of, under_way):
        return False
    try:
        return workers.find_spare()
    except OSError:  # the scheduler does not answer: each study under way finds out for itself
        return False


def _conduct(waiting: Sequence[_Study], workers: LentWorkers, stop: StopSignals, carry_out: CarryOut) -> None:
    """Open one study after the other, until all have ended."""
    later, under_way = list(waiting), list[_Study]()
    while later or under_way:
        stop.raise_if_asked()
        for study in [study for study in under_way if study.end is not None]:
            under_way.remove(study)
            _tell_end(study)
        if later and workers.cluster.client.status != "running":
            lost = StoppedEarly(f"the Dask scheduler is gone; {GOES_ON}")
            for study in later:
                study.end = StudyEnd(study.prepared, error=lost)
            later.clear()
        if later and _may_open(later[0], under_way, workers):
            study = later.pop(0)
            study.start(carry_out, workers)
            under_way.append(study)
        time.sleep(_LOOK)


def _tell_end(study: _Study) -> None:
    error = study.end.error if study.end else None
    if isinstance(error, PtydaskError):
        study.view.notice(str(error))
    elif error is not None:
        study.view.notice(describe_error(error))
