"""``ptydask run`` from the first worker to the last line."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ptydask.model import TrialState

if TYPE_CHECKING:
    from ptydask.cli.run import Prepared
    from ptydask.cli.view import View
    from ptydask.clusters import ClusterRequest, Place
    from ptydask.driver.contract import Outcome, RunOptions
    from ptydask.model import RunSnapshot, StudyPlan, TrialRecord
    from ptydask.store import Store


class Terminated(BaseException):
    """SIGTERM: the cluster wants this process to end."""


@dataclass(slots=True)
class Asked:
    """Whether SIGTERM has come: what it raises is lost where Python happens to be in a destructor or a callback."""

    came: bool = False

    def heed(self) -> None:
        """Raises :class:`Terminated` where it has come, and nothing is on its way to the end."""
        if self.came and sys.exc_info()[0] is None:
            raise Terminated


def run(
    prepared: Prepared, place: Place, request: ClusterRequest, options: RunOptions, watch: View, asked: Asked
) -> int:
    """Run what is missing, pack the results, say how it ended; returns the exit code."""
    observer = _Last(watch, asked)
    try:
        with _results(prepared) as store:
            try:
                outcome = _trials(prepared, place, request, options, store, observer)
            except (KeyboardInterrupt, Terminated):
                _leave_word(prepared, store, observer)
                raise
            store.finish()
            watch.close(observer.snapshot)
            for damaged in store.damaged:
                watch.notice(damaged)
            return _conclude(outcome, prepared, watch, store.records.values())
    except (KeyboardInterrupt, Terminated) as stop:
        watch.close(observer.snapshot)
        watch.notice(_stopped(prepared, observer.snapshot))
        return 130 if isinstance(stop, KeyboardInterrupt) else 75
    finally:
        watch.close(observer.snapshot)


def _leave_word(prepared: Prepared, store: Store, observer: _Last) -> None:
    """Have ``status`` know how many trials were asked for, where the stop came before the driver could say it."""
    from ptydask.cli.status import snapshot_of

    if observer.snapshot is None:
        records = list(store.records.values())
        store.write_status(replace(snapshot_of(records, store.meta, store.path, False), total=prepared.total))


def _stopped(prepared: Prepared, last: RunSnapshot | None) -> str:
    from ptydask.store import checkpoints, names

    recorded = last.recorded if last else prepared.recorded
    results, folder = prepared.plan.results, names.folder_of(prepared.plan.results.absolute())
    under_way = checkpoints.count(folder)
    in_parts = any(folder.glob("*.h5"))
    text = f"stopped with {recorded} of {prepared.total} trials recorded"
    if recorded:
        text += f" in {results}{f' and {folder.name}/' if in_parts else ''}"
    if under_way:
        text += f", and checkpoints of {under_way} under way"
    if last is None and not recorded:
        return f"{text}; no trial was begun"
    if recorded >= prepared.total or prepared.reached is not None:
        return f"{text}; what is left is to pack them, and the same command does it"
    pack = f", `ptydask pack {shlex.quote(str(results))}` makes one file" if in_parts else ""
    return f"{text}; the same command goes on from here{pack}"


@contextmanager
def _results(prepared: Prepared) -> Iterator[Store]:
    """The results file, held; folders made for it are removed again where nothing came into them."""
    from ptydask.driver import provenance
    from ptydask.store import Store

    path = prepared.plan.results.absolute()
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        store = Store.open(path, prepared.meta)
        try:
            if store.previous is not None:
                provenance.compare(store.previous, prepared.meta, file=path)
            yield store
        finally:
            store.close()
    finally:
        _remove_empty(made)


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _trials(
    prepared: Prepared, place: Place, request: ClusterRequest, options: RunOptions, store: Store, observer: _Last
) -> Outcome | None:
    """Run the trials that are missing; None where only packing was left to do."""
    missing = prepared.total - len(store.records)
    if missing <= 0 or prepared.reached is not None:
        return None
    from ptydask.driver import loop, provenance
    from ptydask.driver.crew import Crew

    label = f"{prepared.plan.name}-{store.id[:8]}"
    with place.open(replace(request, folder=store.folder, label=label)) as cluster:
        crew = Crew(loop.setup_of(prepared.plan, options, store), cluster, observer.notice)
        facts = crew.first(missing)
        if store.previous is not None:
            for notice in provenance.compare_data(store.previous, facts, file=store.path):
                observer.notice(notice)
        store.describe(provenance.meta_of(prepared.plan, facts))
        outcome = loop.run(options, crew, store, observer)
        cluster.stop_workers()
    return outcome


def target_text(record: TrialRecord, plan: StudyPlan) -> str:
    """``target reached by trial 12: SSIM 0.8312 (target 0.8)``."""
    from ptydask.cli.formats import error_text

    return f"target reached by trial {record.number}: {plan.metric} {error_text(record.error)} (target {plan.target:g})"


def nothing_text(records: Iterable[TrialRecord], results: Path) -> str:
    """``no trial completed; `ptydask show s.h5 0` has the reason of the first``: of the first that failed."""
    failed = {record.number: record.state is TrialState.FAIL for record in records}
    first = min(failed, key=lambda number: (not failed[number], number), default=None)
    if first is None:
        return "no trial completed"
    return f"no trial completed; `ptydask show {shlex.quote(str(results))} {first}` has the reason of the first"


def _conclude(outcome: Outcome | None, prepared: Prepared, watch: View, records: Iterable[TrialRecord]) -> int:
    from ptydask.cli import formats

    reached = prepared.reached if outcome is None else outcome.reached
    if reached is not None:
        watch.notice(target_text(reached, prepared.plan))
    if outcome is None:
        recorded = "what was recorded is in one file now"
        watch.notice(recorded if reached else "every trial was recorded already; they are in one file now")
        return 0
    snapshot = outcome.snapshot
    best = snapshot.best
    if best is None:
        watch.notice(nothing_text(records, prepared.plan.results))
    else:
        params = formats.params_text(best.params)
        error = formats.error_text(best.error)
        print(f"best      trial {best.number}: {snapshot.metric} {error}{'  ' + params if params else ''}")
    print(f"results   {snapshot.results}")
    if not outcome.complete:
        watch.notice("the time is over; the same command goes on from here")
        return 75
    return 3 if snapshot.counts.get("failed") else 0


class _Last:
    """Passes everything on and keeps the latest snapshot, for the closing lines of a run that is stopped."""

    def __init__(self, watch: View, asked: Asked) -> None:
        self._watch, self._asked = watch, asked
        self.snapshot: RunSnapshot | None = None

    def update(self, snapshot: RunSnapshot) -> None:
        """See :class:`ptydask.driver.contract.Observer`."""
        self.snapshot = snapshot
        self._watch.update(snapshot)
        self._asked.heed()

    def finished(self, record: TrialRecord, best: bool, snapshot: RunSnapshot) -> None:
        """See :class:`ptydask.driver.contract.Observer`."""
        self.snapshot = snapshot
        self._watch.finished(record, best, snapshot)

    def notice(self, text: str) -> None:
        """See :class:`ptydask.driver.contract.Observer`."""
        self._watch.notice(text)


@contextmanager
def sigterm() -> Iterator[Asked]:
    """SIGTERM raises :class:`Terminated` in here, once."""
    asked = Asked()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        asked.came = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a batch system may say it twice; once is enough
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield asked
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)
