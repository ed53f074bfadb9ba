"""A prepared run from its first worker to its one results file, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from ptydask import sampling
from ptydask.clusters import Cluster, ClusterRequest
from ptydask.clusters.settings import import_dask
from ptydask.driver import notification, provenance
from ptydask.driver.contract import GOES_ON, STOPPING, TIME_IS_OVER, Observer, RunOutcome, View, snapshot_of_records
from ptydask.driver.prepare import PreparedRun
from ptydask.driver.settlement import early_end_text
from ptydask.driver.stillness import Stillness, mark_of, stuck_text
from ptydask.errors import ConfigError, StoppedEarly, explain_error, one_line, redact
from ptydask.formatting import counted, shell_path
from ptydask.model import StudyPlan, TrialRecord, TrialState
from ptydask.run_snapshot import RunSnapshot
from ptydask.stop_signals import StopSignals, Terminated
from ptydask.storage import urls
from ptydask.store import Store, checkpoints, names

OpenCluster = Callable[[ClusterRequest], AbstractContextManager[Cluster]]
"""Gives the workers that are asked for, while it is entered."""


def execute_run(prepared: PreparedRun, view: View, stop: StopSignals) -> RunOutcome:
    """Run what is missing, pack the results, tell ``view`` how it went; the view is closed at the end.

    A run that is stopped raises what stopped it, after everything under way has been closed and the view has been told
    how to go on: KeyboardInterrupt, Terminated, or an error of ptydask's own.
    """

    @contextmanager
    def open_cluster(request: ClusterRequest) -> Iterator[Cluster]:
        with prepared.place.open(request) as cluster:
            yield cluster
            cluster.stop_workers()

    watcher = Watcher(prepared, view, stop)
    with watcher.telling_the_end(), stop.deferred():
        outcome = run_and_pack(prepared, watcher, open_cluster, packed=view.close)
        watcher.notify_end(outcome)
        return outcome


def run_and_pack(
    prepared: PreparedRun,
    watcher: Watcher,
    open_cluster: OpenCluster,
    *,
    ended: Callable[[RunOutcome], None] = lambda outcome: None,
    packed: Callable[[RunSnapshot | None], None] = lambda snapshot: None,
) -> RunOutcome:
    """Run what is missing, pack the results, tell how it went.

    ``ended`` is called once the last trial has ended, ``packed`` before the telling. To be called where
    ``watcher.stop`` is deferred.
    """
    with _open_results(prepared) as store:
        for notice in store.notices:
            watcher.notice(notice)
        try:
            outcome = _run_missing_trials(prepared, store, watcher, open_cluster)
        except (KeyboardInterrupt, Terminated):
            _write_total(prepared, store, watcher.snapshot)
            raise
        ended(outcome)
        with watcher.stop.at_once():
            store.finish()
        packed(watcher.snapshot)
        for damaged in store.damaged:
            watcher.notice(damaged)
        _tell_outcome(outcome, prepared, watcher, store.records.values())
        return outcome


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


def _run_missing_trials(prepared: PreparedRun, store: Store, watcher: Watcher, open_cluster: OpenCluster) -> RunOutcome:
    """Run the trials that are missing."""
    plan = prepared.plan
    missing = prepared.options.total - len(store.records)
    behind = ""
    if (missing <= 0 or prepared.early_end) and (prepared.mirror_behind or not store.packed):
        behind = _settle_study(prepared, store, watcher)
        missing = prepared.options.total - len(store.records)
    if missing <= 0 or prepared.early_end:
        return RunOutcome(None, True, prepared.early_end, behind)
    if urls.parse(plan.storage, store.path).mirror:
        import_dask()
        from ptydask.driver import loop

        loop.check_mirror(plan, store, watcher.tell_waiting)
    label = f"{plan.name}-{store.id[:8]}"
    with ExitStack() as stack:
        with watcher.stop.answered_by(partial(watcher.notice, STOPPING)):
            request = replace(prepared.cluster_request, folder=store.folder, label=label)
            cluster = stack.enter_context(open_cluster(request))
        from ptydask.driver import crew, loop

        pool = crew.WorkerPool(loop.setup_of(plan, prepared.options, store), cluster, watcher.notice)
        facts = pool.wait_for_first(missing + prepared.options.upcoming, watcher.wait_for_workers)
        watcher.note_ready()
        known = store.previous or prepared.origin
        if known is not None:
            try:
                notices = provenance.compare_data(known, facts, file=store.path)
            except ConfigError as error:
                raise (error if prepared.origin is None else provenance.as_of_a_confirmation(error)) from None
            for notice in notices:
                watcher.notice(notice)
        store.describe(replace(prepared.meta, provenance={**prepared.meta.provenance, **facts}))
        return loop.run(prepared.options, pool, store, watcher)


def _settle_study(prepared: PreparedRun, store: Store, watcher: Watcher) -> str:
    """Tell Optuna what an earlier run could not tell it any more; why an SQLite study is behind all the same."""
    import_dask()
    from ptydask.driver import loop

    try:
        return loop.settle_study(prepared.plan, store, prepared.options.retries, watcher.tell_waiting)
    except Exception as error:  # the results do not depend on it
        if not urls.is_trouble(error):
            raise
        watcher.notice(f"the last trials were not told to the study: {redact(one_line(str(error)))[:300]}")
    return ""


def _tell_outcome(outcome: RunOutcome, prepared: PreparedRun, view: Observer, records: Collection[TrialRecord]) -> None:
    plan = prepared.plan
    if outcome.early_end:
        view.notice(early_end_text(outcome.early_end, plan, len(records), prepared.options.total))
    elif outcome.complete and sampling.count_new_points(plan, records) == 0 and (text := exhausted_text(prepared)):
        view.notice(text)
    elif outcome.complete and plan.until_settled and outcome.snapshot is not None:
        view.notice(f"not settled by {counted(len(records), 'trial')}: the optimum by the slopes may still move")
    if outcome.behind:
        view.notice(
            f"{outcome.behind}; the results file has everything, and the same command brings the study up to date"
        )
    elif prepared.mirror_behind:
        view.notice(f"{counted(len(records), 'trial')} in the SQLite study, as in the results file")
    elif outcome.snapshot is None:
        subject = "what was recorded is" if outcome.early_end else "every trial was recorded already; they are"
        view.notice(f"{subject} in one file now")
    elif outcome.snapshot.best is None and (
        (plan.metric and not outcome.snapshot.repeats) or not outcome.snapshot.counts.get("complete")
    ):
        view.notice(none_completed_text(records, plan.results))


# --- words -----------------------------------------------------------------------------------------


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
    return f"no trial completed; `ptydask show {shell_path(results)} {first}` has the reason of the first"


def _stopped_text(prepared: PreparedRun, last: RunSnapshot | None) -> str:
    """How far a run got that was stopped, where its parts lie, and how it goes on."""
    total = prepared.options.total
    recorded = last.recorded if last else prepared.recorded
    results, folder = prepared.plan.results, names.folder_of(prepared.plan.results.absolute())
    under_way = checkpoints.count(folder)
    in_parts = any(folder.glob("*.h5"))
    repeats = prepared.origin is not None
    lineage = prepared.plan.lineage
    where = f" in stage {lineage.place}" if lineage else ""
    text = f"stopped{where} with {recorded} of {total} {'repeats' if repeats else 'trials'} recorded"
    if recorded:
        text += f" in {results}"
    if recorded and in_parts:
        text += f" and {folder.name}/"
    if under_way:
        text += f", and checkpoints of {under_way} under way"
    if last is None and not recorded:
        text += f"; no {'repeat' if repeats else 'trial'} was begun"
        return f"{text}; {GOES_ON}" if lineage and lineage.number > 1 else text
    if repeats:  # packed they would be a file of their own, of no use beside the study's
        return f"{text}; {GOES_ON}"
    if recorded >= total or prepared.early_end:
        more = " and goes on with the next stage" if prepared.options.upcoming else ""
        return f"{text}; what is left is to pack them, and the same command does it{more}"
    text += f"; {GOES_ON}"
    if in_parts:
        text += f", `ptydask pack {shell_path(results)}` makes one file"
    return text


def _write_total(prepared: PreparedRun, store: Store, last: RunSnapshot | None) -> None:
    """Have ``status`` know how many trials were asked for, where the stop came before the driver could say it."""
    if last is None:
        records = list(store.records.values())
        snapshot = snapshot_of_records(records, store.meta, store.path, complete=False)
        store.write_status(replace(snapshot, total=prepared.options.total))


class Watcher:
    """A Supervisor: passes everything on and keeps the latest snapshot, for the closing lines of a stopped run."""

    def __init__(self, prepared: PreparedRun, view: View, stop: StopSignals) -> None:
        self._prepared, self._view, self.stop = prepared, view, stop
        self.snapshot: RunSnapshot | None = None
        self.ready_at: float | None = None
        """When the first worker was ready, on the monotonic clock: the time that a run has counts from there."""
        self._waits_for = ""
        self._stillness = Stillness(None, time.monotonic())

    def go_on_with(self, prepared: PreparedRun) -> None:
        """Watch the next stage from here on."""
        self._prepared, self.snapshot = prepared, None
        self._stillness = Stillness(None, time.monotonic())

    def note_ready(self) -> None:
        """The first worker is ready; only the first call counts."""
        self.ready_at = self.ready_at or time.monotonic()

    def time_left(self, plan: StudyPlan) -> float | None:
        """Seconds that are left of the time that ``plan`` has for the whole run; None where it has no end."""
        limit = plan.budget.timeout
        if limit is None or self.ready_at is None:
            return limit
        return max(0.0, limit - (time.monotonic() - self.ready_at))

    @contextmanager
    def telling_the_end(self) -> Iterator[None]:
        """Whatever ends a run in here closes the view, and is told where it is no success."""
        view = self._view
        try:
            yield
        except (KeyboardInterrupt, Terminated) as stopped:
            view.close(self.snapshot)
            view.notice(_stopped_text(self._prepared, self.snapshot))
            self.notify("stopped", "Ctrl-C" if isinstance(stopped, KeyboardInterrupt) else "SIGTERM")
            raise
        except Exception as error:
            view.close(self.snapshot)
            self.notify("stopped" if isinstance(error, StoppedEarly) else "failed", explain_error(error))
            raise
        finally:
            view.close(self.snapshot)

    def notify_end(self, outcome: RunOutcome) -> None:
        """Tell the user's command of a run that came to its end, or whose time is over."""
        if outcome.complete:
            self.notify("finished", outcome.behind)
        else:
            self.notify("stopped", TIME_IS_OVER)

    def update(self, snapshot: RunSnapshot) -> None:
        """Pass it on; raises where the run is to stop."""
        self.snapshot = snapshot
        self._view.update(snapshot)
        self._stillness = self._stillness.then(mark_of(snapshot), time.monotonic())
        self._tell_if_stuck()
        self.stop.raise_if_asked()

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """Pass it on."""
        self.snapshot = snapshot
        self._view.finished(record, best, snapshot)

    def notice(self, text: str) -> None:
        """Pass it on."""
        self._view.notice(text)

    def tell_waiting(self, why: str) -> None:
        """Tell once why an SQLite file is waited for; raises where the run is to stop."""
        if why != self._waits_for:
            self._waits_for = why
            from ptydask.storage import mirror

            self._view.notice(f"the SQLite study: {why}; waiting for it, {mirror.PATIENCE:.0f} s at the most")
        self.stop.raise_if_asked()

    def wait_for_workers(self) -> None:
        """Called while there is no worker yet; raises where the run is to stop."""
        self._tell_if_stuck()
        try:
            self.stop.raise_if_asked()
        except (KeyboardInterrupt, Terminated):
            self._view.notice(STOPPING)
            raise

    def _tell_if_stuck(self) -> None:
        now = time.monotonic()
        if self._stillness.is_stuck(now):
            text = stuck_text(self.snapshot, now - self._stillness.since)
            self._stillness = self._stillness.after_telling()
            self._view.notice(text)
            self.notify("stuck", text)

    def notify(self, event: notification.Event, reason: str = "") -> None:
        """Run the user's command, where there is one. What goes wrong with it is a notice."""
        if not self._prepared.notify:
            return
        last, plan = self.snapshot, self._prepared.plan
        facts = notification.RunFacts(
            event,
            plan.name,
            plan.results.absolute(),
            recorded=last.recorded if last else self._prepared.recorded,
            total=self._prepared.options.total,
            failed=last.counts.get("failed", 0) if last else 0,
            metric=plan.metric,
            best=last.best if last else None,
            reason=reason,
            noun="trial" if self._prepared.origin is None else "repeat",
        )
        if trouble := notification.notify(self._prepared.notify, facts):
            self._view.notice(trouble)
