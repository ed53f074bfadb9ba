"""A run from what is said of it before it starts to its end: one study, one in stages, or a queue of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ptydask import config
from ptydask.driver.contract import RunOutcome, View, snapshot_of_records
from ptydask.driver.execute import execute_run, exhausted_text
from ptydask.driver.prepare import PreparedRun, RunRequest, prepare_run
from ptydask.driver.queue import StudyEnd, check_apart, execute_queue, run_of
from ptydask.driver.settlement import early_end_text
from ptydask.driver.stages import PreparedStages, execute_stages, prepare_stages
from ptydask.errors import StoreError
from ptydask.progress import plan_text
from ptydask.progress.queue_view import QueueView
from ptydask.progress.stages_text import stages_lines
from ptydask.run_snapshot import RunSnapshot
from ptydask.stop_signals import StopSignals
from ptydask.store import reader


def announce(request: RunRequest, view: View) -> PreparedRun | PreparedStages:
    """Prepare a run and have ``view`` say what will happen, what may surprise, and where nothing is left to do.

    Raises what :func:`ptydask.driver.prepare.prepare_run` raises. Nothing is started.
    """
    prepared = prepare(request)
    _announce_prepared(prepared, view)
    return prepared


def prepare(request: RunRequest) -> PreparedRun | PreparedStages:
    """Prepare a run, in stages where its file has some. Raises what :func:`announce` raises."""
    file = config.read(request.config)
    stages = config.load_stages(request.config, request.overrides, file)
    return prepare_stages(request, file, stages) if stages else prepare_run(request)


def announce_queue(requests: Sequence[RunRequest], view: View) -> tuple[PreparedRun | PreparedStages, ...]:
    """Prepare the runs of a queue and have ``view`` say what will happen in each.

    Raises what :func:`announce` raises for the first file that breaks a rule, and ConfigError where two have the same
    results file; nothing is said then. Nothing is started.
    """
    prepared = tuple(prepare(request) for request in requests)
    check_apart([(request.config, one) for request, one in zip(requests, prepared, strict=True)])
    for place, (request, one) in enumerate(zip(requests, prepared, strict=True), start=1):
        view.plan([f"study     {place} of {len(prepared)}: {one.plan.name} ({request.config})"])
        _announce_prepared(one, view)
    return prepared


def _announce_prepared(prepared: PreparedRun | PreparedStages, view: View) -> None:
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


def carry_out(prepared: PreparedRun | PreparedStages, view: View, stop: StopSignals) -> RunOutcome:
    """Run what is missing. Raises what :func:`ptydask.driver.execute.execute_run` raises."""
    if isinstance(prepared, PreparedStages):
        return execute_stages(prepared, view, stop)
    return execute_run(prepared, view, stop)


def carry_out_queue(
    prepared: Sequence[PreparedRun | PreparedStages], view: View, stop: StopSignals
) -> tuple[StudyEnd, ...]:
    """Run what is missing of all studies on the same workers. Raises what :func:`execute_queue` raises."""
    queue = QueueView(view, [one.plan.name for one in prepared])
    try:
        ends = execute_queue(prepared, queue.views, stop, carry_out)
    finally:
        view.close()
    return tuple(replace(end, last=queue.latest(place) or _recorded_snapshot(end)) for place, end in enumerate(ends))


def _recorded_snapshot(end: StudyEnd) -> RunSnapshot | None:
    """How a study stands of which no trial was run now."""
    results = end.prepared.plan.results
    try:
        with reader.open(results) as recorded:
            snapshot = snapshot_of_records(recorded.records(), recorded.meta, results, complete=True)
    except StoreError:
        return None
    return replace(snapshot, total=run_of(end.prepared).options.total)
