"""A prepared run from its first worker to its one results file, whatever ends it."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType

from ptydask import sampling
from ptydask.driver import provenance
from ptydask.driver.contract import GOES_ON, RunOutcome, View, snapshot_of_records
from ptydask.driver.prepare import PreparedRun
from ptydask.driver.settlement import settled_text
from ptydask.errors import one_line, redact
from ptydask.formatting import counted, error_text
from ptydask.model import RunSnapshot, StudyPlan, TrialRecord, TrialState
from ptydask.storage import urls
from ptydask.store import Store, checkpoints, names


class Terminated(BaseException):
    """SIGTERM: the cluster wants this process to end."""


class SigtermFlag:
    """Whether SIGTERM has come: what it raises is lost where Python happens to be in a destructor or a callback."""

    def __init__(self) -> None:
        self.came = False
        self.handler_before: signal._HANDLER = signal.SIG_DFL
        self._being_handled = sys.exc_info()[1]  # by our caller, and no concern of ours

    def raise_if_set(self) -> None:
        """Raises :class:`Terminated` where it has come, and nothing is on its way to the end."""
        if self.came and sys.exc_info()[1] is self._being_handled:
            raise Terminated

    def pass_on(self) -> None:
        """Where SIGTERM has come, give it to the handler that was there before: by default, the process ends."""
        if self.came:
            signal.signal(signal.SIGTERM, self.handler_before)
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def raise_on_sigterm() -> Iterator[SigtermFlag]:
    """SIGTERM raises :class:`Terminated` in here, once; from then on it is ignored, until it is passed on.

    Only the main thread of a process can hear it.
    """
    flag = SigtermFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        flag.came = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system may say it twice; once is enough
        raise Terminated

    flag.handler_before = signal.signal(signal.SIGTERM, stop) or signal.SIG_DFL
    try:
        yield flag
    finally:
        if not flag.came:
            signal.signal(signal.SIGTERM, flag.handler_before)


def execute_run(prepared: PreparedRun, view: View, sigterm: SigtermFlag) -> RunOutcome:
    """Run what is missing, pack the results, tell ``view`` how it went; the view is closed at the end.

    A run that is stopped raises what stopped it, after everything under way has been closed and the view has been told
    how to go on: KeyboardInterrupt, :class:`Terminated`, or an error of ptydask's own.
    """
    watcher = _Watcher(view, sigterm)
    try:
        with _open_results(prepared) as store:
            for notice in store.notices:
                view.notice(notice)
            try:
                outcome = _run_missing_trials(prepared, store, watcher)
            except (KeyboardInterrupt, Terminated):
                _write_total(prepared, store, watcher.snapshot)
                raise
            store.finish()
            view.close(watcher.snapshot)
            for damaged in store.damaged:
                view.notice(damaged)
            _tell_outcome(outcome, prepared, view, store.records.values())
            return outcome
    except (KeyboardInterrupt, Terminated):
        view.close(watcher.snapshot)
        view.notice(_stopped_text(prepared, watcher.snapshot))
        raise
    finally:
        view.close(watcher.snapshot)


@contextmanager
def _open_results(prepared: PreparedRun) -> Iterator[Store]:
    """The results file, held; folders made for it are removed again where nothing came into them."""
    path = prepared.plan.results.absolute()
    new_folders = [folder for folder in path.parents if not folder.exists()]
    try:
        store = Store.open(path, prepared.meta)
        try:
            if store.previous is not None:
                provenance.compare(store.previous, prepared.meta, file=path)
            yield store
        finally:
            store.close()
    finally:
        with suppress(OSError):
            for folder in new_folders:
                folder.rmdir()


def _run_missing_trials(prepared: PreparedRun, store: Store, watcher: _Watcher) -> RunOutcome:
    """Run the trials that are missing."""
    plan = prepared.plan
    missing = prepared.options.total - len(store.records)
    if (missing <= 0 or prepared.ended_by_results) and not store.packed:
        missing = _settle_study(prepared, store, watcher)
    if missing <= 0 or prepared.ended_by_results:
        return RunOutcome(None, complete=True, reached=prepared.reached, settled=prepared.settled)
    from ptydask.driver import crew, loop  # Dask comes in with them

    label = f"{plan.name}-{store.id[:8]}"
    with prepared.place.open(replace(prepared.cluster_request, folder=store.folder, label=label)) as cluster:
        pool = crew.WorkerPool(loop.setup_of(plan, prepared.options, store), cluster, watcher.notice)
        facts = pool.wait_for_first(missing)
        if store.previous is not None:
            for notice in provenance.compare_data(store.previous, facts, file=store.path):
                watcher.notice(notice)
        store.describe(replace(prepared.meta, provenance={**prepared.meta.provenance, **facts}))
        outcome = loop.run(prepared.options, pool, store, watcher)
        cluster.stop_workers()
    return outcome


def _settle_study(prepared: PreparedRun, store: Store, watcher: _Watcher) -> int:
    """Tell Optuna what a killed run could not tell it any more; the number of trials that are missing after it."""
    from ptydask.driver import loop

    try:
        loop.settle_study(prepared.plan, store, prepared.options.retries)
    except Exception as error:  # the results do not depend on it
        if not urls.is_trouble(error):
            raise
        watcher.notice(f"the last trials were not told to the study: {redact(one_line(str(error)))[:300]}")
    return prepared.options.total - len(store.records)


def _tell_outcome(outcome: RunOutcome, prepared: PreparedRun, view: View, records: Collection[TrialRecord]) -> None:
    plan = prepared.plan
    if outcome.reached is not None:
        view.notice(target_text(outcome.reached, plan))
    elif outcome.settled is not None:
        view.notice(settled_text(outcome.settled, len(records), prepared.options.total))
    elif outcome.complete and sampling.count_new_points(plan, records) == 0 and (text := exhausted_text(prepared)):
        view.notice(text)
    elif outcome.complete and plan.until_settled and outcome.snapshot is not None:
        view.notice(f"not settled by {counted(len(records), 'trial')}: the optimum by the slopes may still move")
    if outcome.snapshot is None:
        subject = (
            "what was recorded is"
            if outcome.reached or outcome.settled
            else "every trial was recorded already; they are"
        )
        view.notice(f"{subject} in one file now")
    elif outcome.snapshot.best is None:
        view.notice(none_completed_text(records, plan.results))


# --- words -----------------------------------------------------------------------------------------


def target_text(record: TrialRecord, plan: StudyPlan) -> str:
    """``target reached by trial 12: SSIM 0.8312 (target 0.8)``."""
    return f"target reached by trial {record.number}: {plan.metric} {error_text(record.error)} (target {plan.target:g})"


def exhausted_text(prepared: PreparedRun) -> str:
    """``all 9 points of the search space are recorded; 51 of the 60 trials asked for are left unspent``.

    Empty where as many trials were asked for as there are points, or fewer.
    """
    unspent = prepared.asked - prepared.options.total
    if prepared.points is None or unspent <= 0:
        return ""
    points = f"all {prepared.points} points of the search space are" if prepared.points > 1 else "the only point is"
    return f"{points} recorded; {unspent} of the {prepared.asked} trials asked for are left unspent"


def none_completed_text(records: Iterable[TrialRecord], results: Path) -> str:
    """``no trial completed; `ptydask show s.h5 0` has the reason of the first``: of the first that failed."""
    failed = {record.number: record.state is TrialState.FAIL for record in records}
    first = min(failed, key=lambda number: (not failed[number], number), default=None)
    if first is None:
        return "no trial completed"
    return f"no trial completed; `ptydask show {shlex.quote(str(results))} {first}` has the reason of the first"


def _stopped_text(prepared: PreparedRun, last: RunSnapshot | None) -> str:
    """How far a run got that was stopped, where its parts lie, and how it goes on."""
    total = prepared.options.total
    recorded = last.recorded if last else prepared.recorded
    results, folder = prepared.plan.results, names.folder_of(prepared.plan.results.absolute())
    under_way = checkpoints.count(folder)
    in_parts = any(folder.glob("*.h5"))
    text = f"stopped with {recorded} of {total} trials recorded"
    if recorded:
        text += f" in {results}"
    if recorded and in_parts:
        text += f" and {folder.name}/"
    if under_way:
        text += f", and checkpoints of {under_way} under way"
    if last is None and not recorded:
        return f"{text}; no trial was begun"
    if recorded >= total or prepared.ended_by_results:
        return f"{text}; what is left is to pack them, and the same command does it"
    text += f"; {GOES_ON}"
    if in_parts:
        text += f", `ptydask pack {shlex.quote(str(results))}` makes one file"
    return text


def _write_total(prepared: PreparedRun, store: Store, last: RunSnapshot | None) -> None:
    """Have ``status`` know how many trials were asked for, where the stop came before the driver could say it."""
    if last is None:
        records = list(store.records.values())
        snapshot = snapshot_of_records(records, store.meta, store.path, complete=False)
        store.write_status(replace(snapshot, total=prepared.options.total))


class _Watcher:
    """An Observer: passes everything on and keeps the latest snapshot, for the closing lines of a stopped run."""

    def __init__(self, view: View, sigterm: SigtermFlag) -> None:
        self._view, self._sigterm = view, sigterm
        self.snapshot: RunSnapshot | None = None

    def update(self, snapshot: RunSnapshot) -> None:
        self.snapshot = snapshot
        self._view.update(snapshot)
        self._sigterm.raise_if_set()

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        self.snapshot = snapshot
        self._view.finished(record, best, snapshot)

    def notice(self, text: str) -> None:
        self._view.notice(text)
