"""A run from what is said of it before it starts to its end: one study, one in stages, or a queue of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptydask import config
from ptydask.driver.conduct import Prepared, carry_out, looks_at_patterns, prepare, run_of
from ptydask.driver.contract import View, snapshot_of_records
from ptydask.driver.execute import exhausted_text
from ptydask.driver.notification import RunFacts, notify
from ptydask.driver.prepare import PreparedRun, RunRequest
from ptydask.driver.queue import QueueEnd, StudyEnd, check_apart, execute_queue, facts_of_queue, label_studies
from ptydask.driver.settlement import early_end_text
from ptydask.driver.stages import PreparedStages
from ptydask.driver.succession import QueuedStudy
from ptydask.errors import PtydaskError, StoreError, describe_error
from ptydask.progress import plan_text
from ptydask.progress.queue_view import QueueView
from ptydask.progress.stages_text import stages_lines
from ptydask.run_snapshot import RunSnapshot
from ptydask.stop_signals import StopSignals
from ptydask.store import reader

__all__ = ["announce", "announce_queue", "carry_out", "carry_out_queue"]


def announce(request: RunRequest, view: View) -> Prepared:
    """Prepare a run and have ``view`` say what will happen, what may surprise, and where nothing is left to do.

    Raises what :func:`ptydask.driver.prepare.prepare_run` raises. Nothing is started.
    """
    _say_looking([request], view)
    prepared = prepare(request)
    _announce_prepared(prepared, view)
    return prepared


def announce_queue(requests: Sequence[RunRequest], view: View, *, independent: bool = False) -> tuple[QueuedStudy, ...]:
    """Prepare the runs of a queue and have ``view`` say what will happen in each.

    Raises what :func:`announce` raises for the first file that breaks a rule, and ConfigError where two have the same
    results file; nothing is said then. Nothing is started.
    """
    _say_looking(requests, view)
    queued = []
    for request in requests:
        file = config.read(request.config)
        queued.append(QueuedStudy(request, file, prepare(request, file)))
    check_apart(queued)
    for place, study in enumerate(queued, start=1):
        head = [f"study     {place} of {len(queued)}: {study.prepared.plan.name} ({study.request.config})"]
        engines = {other.prepared.plan.engine for other in queued[: place - 1]}
        if study.prepared.plan.engine in engines and not independent and not study.prepared.finished:
            head.append(plan_text.labelled_line("from", "those before it of the same settings (--independent: not)"))
        view.plan(head)
        _announce_prepared(study.prepared, view)
    return tuple(queued)


def _say_looking(requests: Sequence[RunRequest], view: View) -> None:
    """That the time until anything else is said goes into guesses, where some are asked for."""
    waiting = sum(map(looks_at_patterns, requests))
    if waiting and (line := plan_text.looking_line(waiting)):
        view.notice(line)


def _announce_prepared(prepared: Prepared, view: View) -> None:
    if isinstance(prepared, PreparedStages):
        _announce_stages(prepared, view)
        return
    plan, total = prepared.plan, prepared.options.total
    _announce_plan(prepared, view)
    if prepared.finished and prepared.early_end:
        end = early_end_text(prepared.early_end, plan, prepared.recorded, total)
        view.notice(f"{end}: nothing left to do in {plan.results}")
    elif prepared.finished:
        recorded = plan_text.recorded_text(total, prepared.recorded, plan.results)
        view.notice(f"{recorded}: nothing left to do")
        if exhausted := exhausted_text(prepared):
            view.notice(exhausted)


def _announce_plan(prepared: PreparedRun, view: View, before: Sequence[str] = ()) -> None:
    """The plan of a run, after the lines that come ``before`` and have its cost, and what may surprise."""
    plan, total = prepared.plan, prepared.options.total
    view.plan(
        [
            *before,
            *plan_text.plan_lines(plan, total),
            plan_text.trials_line(plan.budget, prepared.cluster_request.workers, total, prepared.recorded),
            plan_text.workers_line(prepared.place.describe(prepared.cluster_request), prepared.why_there),
            *filter(None, [plan_text.cost_line(prepared.cost) if prepared.trials_left and not before else None]),
        ]
    )
    for notice in prepared.notices:
        view.notice(notice)


def _announce_stages(prepared: PreparedStages, view: View) -> None:
    """All stages, and the plan of the one that is to be run next."""
    plans, stages = [stage.plan for stage in prepared.stages], [stage.stage for stage in prepared.stages]
    _announce_plan(prepared.run, view, stages_lines(plans, stages, prepared.costs))
    if prepared.finished:
        recorded = sum(stage.recorded for stage in prepared.stages)
        every = f"all {len(prepared.stages)} stages" if len(prepared.stages) > 1 else "the only stage"
        view.notice(f"{every} with {recorded} trials are recorded in {prepared.plan.results}: nothing left to do")


def carry_out_queue(
    queued: Sequence[QueuedStudy], view: View, stop: StopSignals, *, independent: bool = False
) -> QueueEnd:
    """Run what is missing of all studies on the same workers.

    Each tells the user's command of its end as it would alone; once all are over, that is told, too, and where there
    is no cluster for them to begin on.
    """
    shown = QueueView(view, label_studies([study.prepared.plan for study in queued]))

    def complete_end(end: QueueEnd) -> QueueEnd:
        last = [shown.latest(place) or _recorded_snapshot(study) for place, study in enumerate(end.studies)]
        studies = (replace(study, last=known) for study, known in zip(end.studies, last, strict=True))
        return replace(end, studies=tuple(studies))

    def tell(facts: RunFacts) -> None:
        command = run_of(queued[0].prepared).notify
        if command and (trouble := notify(command, facts)):
            view.notice(trouble)

    try:
        end = complete_end(execute_queue(queued, shown.views, stop, independent=independent))
    except Exception as error:
        ends = complete_end(QueueEnd(tuple(StudyEnd(study.prepared, error=error) for study in queued)))
        reason = str(error) if isinstance(error, PtydaskError) else describe_error(error)
        tell(replace(facts_of_queue(ends), reason=reason))
        raise
    finally:
        view.close()
    if end.stopped is None and any(study.outcome or study.error for study in end.studies):
        tell(facts_of_queue(end))
    return end


def _recorded_snapshot(end: StudyEnd) -> RunSnapshot | None:
    """How a study stands of which no trial was run now."""
    results = end.prepared.plan.results
    try:
        with reader.open(results) as recorded:
            snapshot = snapshot_of_records(recorded.records(), recorded.meta, results, complete=True)
    except StoreError:
        return None
    return replace(snapshot, total=end.total)
