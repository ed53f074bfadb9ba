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

So the last trials of a study, its packing, and the first trials of the next overlap. More than two studies are open
where the last trials of one outlast the next, or where they have fewer trials than there are workers.

A study that fails gives its workers back once its trials under way have ended, and the others go on. A signal is heard
by the main thread, which passes it on to all threads: each stops as a single run stops. Workers are ended once all
have stopped collecting, so that no study takes its trials for lost. The same command goes on with every study from
where its own results file is.

A later study starts from those before it (:mod:`ptydask.driver.succession`): it is prepared again when it is opened.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ptydask.clusters import ClusterRequest
from ptydask.driver.conduct import Prepared, carry_out, run_of
from ptydask.driver.contract import GOES_ON, STOPPING, RunOutcome, View
from ptydask.driver.lending import LendingPlace, LentWorkers
from ptydask.driver.notification import RunFacts
from ptydask.driver.prepare import PreparedRun
from ptydask.driver.stages import PreparedStages, SharedCluster, label_of
from ptydask.driver.succession import QueuedStudy, prepare_after
from ptydask.errors import ConfigError, PtydaskError, StoppedEarly, explain_error
from ptydask.model import StudyPlan, path_beside
from ptydask.run_snapshot import RunSnapshot
from ptydask.stop_signals import StopSignals, Terminated
from ptydask.storage import urls

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
    def total(self) -> int:
        """Trials that it is to have; of stages those of the latest."""
        return run_of(self.prepared).options.total

    @property
    def stopped(self) -> bool:
        """Whether a signal stopped it, or came before it was begun."""
        unbegun = self.error is None and self.outcome is None and not self.prepared.finished
        return unbegun or isinstance(self.error, KeyboardInterrupt | Terminated)

    @property
    def exit_code(self) -> int:
        """What a command with this study alone returns."""
        if self.stopped:
            return 130 if isinstance(self.error, KeyboardInterrupt) else 75
        if self.error is not None:
            return self.error.exit_code if isinstance(self.error, PtydaskError) else 1
        return 0 if self.outcome is None else self.outcome.exit_code


@dataclass(frozen=True, slots=True)
class QueueEnd:
    """How a queue ended."""

    studies: tuple[StudyEnd, ...]
    stopped: KeyboardInterrupt | Terminated | None = None
    """What stopped all of it."""


def combine_exit_codes(codes: Sequence[int]) -> int:
    """One exit code for all: of a study that failed first, then of one that is not complete, then of failed trials."""
    return next((code for code in codes if code not in (0, 3, 75)), next((c for c in (75, 3) if c in codes), 0))


def label_studies(plans: Sequence[StudyPlan]) -> list[str]:
    """What each study is called among the others: its name, or its file where another has the same name."""
    files = [(plan.own_file or plan.source).path for plan in plans]
    names = [plan.name.removesuffix(f" {plan.lineage.name}") if plan.lineage else plan.name for plan in plans]
    return [name if names.count(name) == 1 else str(file) for name, file in zip(names, files, strict=True)]


def facts_of_queue(end: QueueEnd) -> RunFacts:
    """What the user's command is told once all studies are over: trials of all together, and which are not complete."""
    ends, plans = end.studies, [study.prepared.plan for study in end.studies]
    labelled = list(zip(label_studies(plans), ends, strict=True))
    failed = [name for name, study in labelled if study.error and not isinstance(study.error, StoppedEarly)]
    early = [name for name, study in labelled if study.exit_code == 75]
    words = [(failed, "failed"), (early, "not complete")]
    return RunFacts(
        "failed" if failed else "stopped" if early else "finished",
        f"queue of {len(ends)} studies",
        Path(os.path.commonpath([plan.results.absolute().parent for plan in plans])),
        recorded=sum(study.last.recorded for study in ends if study.last),
        total=sum(study.last.total if study.last else study.total for study in ends),
        failed=sum(study.last.counts.get("failed", 0) for study in ends if study.last),
        metric="",
        best=None,
        reason="; ".join(f"{', '.join(names)} {word}" for names, word in words if names),
    )


def check_apart(studies: Sequence[QueuedStudy]) -> None:
    """Raise ConfigError where two of the studies have the same results file."""
    seen: dict[Path, Path] = {}
    for study in studies:
        file, results = study.request.config, study.prepared.plan.results
        if (other := seen.setdefault(results.resolve(), file)) is not file:
            if other.resolve() == file.resolve():
                raise ConfigError("is named twice", file=file)
            rule = f"would write {results.name}, as {other} would"
            raise ConfigError(rule, file=file, hint="give it another study_name or output_dir")


@dataclass(slots=True)
class _Study:
    """One study of the queue, and its thread once it is open."""

    place: int
    queued: QueuedStudy
    before: Sequence[Path]
    """Results of studies that it starts from."""
    view: View
    stop: StopSignals
    prepared: Prepared
    thread: threading.Thread | None = None
    end: StudyEnd | None = None

    @property
    def run(self) -> PreparedRun:
        return run_of(self.prepared)

    @property
    def trials(self) -> int:
        """Trials that it has left, those of later stages included."""
        return self.run.trials_left + self.run.options.upcoming

    def start(self, workers: LentWorkers) -> None:
        """Open it: its thread runs from here on."""
        workers.open_study(self.place, self.trials)

        def conduct() -> None:
            try:
                self.prepared = prepare_after(self.queued, self.before, self.view)
                lent = replace(self.run, place=LendingPlace(self.run.place, workers, self.place))
                prepared = replace(self.prepared, run=lent) if isinstance(self.prepared, PreparedStages) else lent
                self.end = StudyEnd(self.prepared, carry_out(prepared, self.view, self.stop))
            except BaseException as error:  # told in the main thread
                self.end = StudyEnd(self.prepared, error=error)
            finally:
                workers.close_study(self.place)

        self.thread = threading.Thread(target=conduct, name=f"study {self.place + 1}", daemon=True)
        self.thread.start()


def execute_queue(
    queued: Sequence[QueuedStudy], views: Sequence[View], stop: StopSignals, *, independent: bool = False
) -> QueueEnd:
    """Run what is missing of all studies, each with its own view; how each ended, in order.

    Each starts from those before it, unless they are ``independent``. A study's error is in its end, and told its view.
    """
    results = [] if independent else [study.prepared.plan.results for study in queued]
    studies = [
        _Study(place, study, results[:place], view, StopSignals(), study.prepared)
        for place, (study, view) in enumerate(zip(queued, views, strict=True))
    ]
    waiting = [study for study in studies if not study.prepared.finished]
    stopped: KeyboardInterrupt | Terminated | None = None
    if waiting:
        try:
            with stop.deferred(), ExitStack() as stack:
                request = _queue_request(studies)
                shared = stack.enter_context(SharedCluster(studies[0].run.place, request))
                with stop.answered_by(partial(waiting[0].view.notice, STOPPING)):
                    cluster = stack.enter_context(shared.opened(request))
                _open_one_by_one(waiting, LentWorkers(cluster, sum(study.trials for study in waiting)), stop)
                shared.close()
        except (KeyboardInterrupt, Terminated) as error:
            stopped = error
    return QueueEnd(tuple(study.end or StudyEnd(study.prepared) for study in studies), stopped)


def _open_one_by_one(waiting: Sequence[_Study], workers: LentWorkers, stop: StopSignals) -> None:
    """Run the studies; whatever is raised ends all of them first."""
    try:
        _conduct(waiting, workers, stop)
    except BaseException:
        workers.stopping = True
        for study in waiting:
            study.stop.came = stop.came or signal.SIGINT
        for study in waiting:
            if study.thread is not None:
                study.thread.join()
        raise


def _queue_request(studies: Sequence[_Study]) -> ClusterRequest:
    """What is asked of the cluster of all studies. The same files have the same label, however far their studies are.

    Its folder is nobody else's: that of a study, or of its stages, goes when these are over. Where nobody says how many
    workers, there are no more than the memory has room for in any study.
    """
    results = [study.run.plan.results.absolute() for study in studies]
    folder = path_beside(results[0], ".queue")
    smallest = min((study.run.cluster_request for study in studies), key=lambda request: request.workers)
    imports = dict.fromkeys(module for study in studies for module in study.run.plan.imports)
    return replace(smallest, folder=folder, label=label_of(results), imports=tuple(imports))


def _journal_of(study: _Study) -> Path | None:
    plan = study.run.plan
    journal = urls.parse(plan.storage, plan.results).journal
    return None if journal is None else journal.resolve()


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


def _conduct(waiting: Sequence[_Study], workers: LentWorkers, stop: StopSignals) -> None:
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
            study.start(workers)
            under_way.append(study)
        time.sleep(_LOOK)


def _tell_end(study: _Study) -> None:
    error = study.end.error if study.end else None
    if error is not None:
        study.view.notice(explain_error(error))
