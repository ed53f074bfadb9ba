"""A run from what is said of it before it starts to its end: one study, one in stages, or a queue of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ptydask import config
from ptydask.driver.conduct import Prepared, carry_out, looks_at_patterns, prepare, run_of
from ptydask.driver.contract import View, snapshot_of_records
from ptydask.driver.execute import exhausted_text
from ptydask.driver.notification import RunFacts, notify
from ptydask.driver.prepare import RunRequest
from ptydask.driver.queue import QueueEnd, StudyEnd, check_apart, execute_queue, facts_of_queue, label_studies
from ptydask.driver.settlement import early_end_text
from ptydask.driver.stages import PreparedStages
from ptydask.driver.succession import QueuedStudy, foresee_sources, prepare_queued
from ptydask.errors import PtydaskError, StoreError, UsageError, explain_error, raise_all
from ptydask.progress import plan_text, queue_text
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
    """Prepare the runs of a queue and have ``view`` say what will happen in all, and in each.

    Raises what :func:`announce` raises for a file that breaks a rule, FilesRefused for several, and ConfigError where
    two have the same results file; nothing is said then. Nothing is started.
    """
    _say_looking(requests, view)
    queued, notices, errors = list[QueuedStudy](), list[str](), list[PtydaskError]()
    for request in requests:
        try:
            study, notice = prepare_queued(request, config.read(request.config))
        except UsageError as error:
            errors.append(error)
            continue
        queued.append(study)
        notices.append(notice)
    raise_all(errors)
    check_apart(queued)
    studies = [study.prepared for study in queued]
    plans = [queue_text.blocks_of(_plan_lines(study)) for study in studies]
    common = queue_text.common_blocks(plans) if len(plans) > 1 else []
    told = [tuple(filter(None, (notice, *_notices(study)))) for notice, study in zip(notices, studies, strict=True)]
    view.plan(queue_text.common_lines(len(plans), common))
    shared = [notice for notice in told[0] if all(notice in others for others in told[1:])] if len(told) > 1 else []
    for notice in shared:
        view.notice(notice)
    sources = [[] for _ in studies] if independent else foresee_sources(studies)
    names = label_studies([study.plan for study in studies])
    for place, (study, blocks) in enumerate(zip(queued, plans, strict=True)):
        before = [] if study.prepared.finished else queue_text.sources_lines(sources[place])
        own = [block for block in blocks if block not in common]
        view.plan(queue_text.study_lines(place, names, study.request.config, own, before))
        for notice in told[place]:
            if notice not in shared:
                view.notice(notice)
    return tuple(queued)


def _say_looking(requests: Sequence[RunRequest], view: View) -> None:
    """That the time until anything else is said goes into guesses, where some are asked for."""
    waiting = sum(map(looks_at_patterns, requests))
    if waiting and (line := plan_text.looking_line(waiting)):
        view.notice(line)


def _announce_prepared(prepared: Prepared, view: View) -> None:
    view.plan(_plan_lines(prepared))
    for notice in _notices(prepared):
        view.notice(notice)


def _plan_lines(prepared: Prepared) -> list[str]:
    """What will happen: of a study in stages all of these with their cost, then the plan of the one that is next."""
    run, before = run_of(prepared), list[str]()
    if isinstance(prepared, PreparedStages):
        plans, stages = [stage.plan for stage in prepared.stages], [stage.stage for stage in prepared.stages]
        before = stages_lines(plans, stages, prepared.costs)
    plan, total = run.plan, run.options.total
    return [
        *before,
        *plan_text.plan_lines(plan, total),
        plan_text.trials_line(plan.budget, run.cluster_request.workers, total, run.recorded),
        plan_text.workers_line(run.place.describe(run.cluster_request), run.why_there),
        *filter(None, [plan_text.cost_line(run.cost) if run.trials_left and not before else None]),
    ]


def _notices(prepared: Prepared) -> Iterator[str]:
    """What may surprise, and where nothing is left to do."""
    run = run_of(prepared)
    yield from run.notices
    plan, total = run.plan, run.options.total
    if not prepared.finished:
        return
    if isinstance(prepared, PreparedStages):
        recorded = sum(stage.recorded for stage in prepared.stages)
        every = f"all {len(prepared.stages)} stages" if len(prepared.stages) > 1 else "the only stage"
        yield f"{every} with {recorded} trials are recorded in {plan.results}: nothing left to do"
    elif run.early_end:
        yield f"{early_end_text(run.early_end, plan, run.recorded, total)}: nothing left to do in {plan.results}"
    else:
        yield f"{plan_text.recorded_text(total, run.recorded, plan.results)}: nothing left to do"
        if exhausted := exhausted_text(run):
            yield exhausted


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
        tell(replace(facts_of_queue(ends), reason=explain_error(error)))
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
