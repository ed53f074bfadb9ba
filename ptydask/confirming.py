"""A confirmation from its plan to its place in the study's file: see docs/confirm.md."""

from __future__ import annotations

from ptydask.analysis.confirmation import few_repeats_text
from ptydask.analysis.half_rings import correlate_halves
from ptydask.driver.confirmation import ConfirmOptions, PreparedConfirmation, prepare_confirmation
from ptydask.driver.contract import RunOutcome, View
from ptydask.driver.execute import execute_run
from ptydask.driver.prepare import RunRequest
from ptydask.errors import MissingDependency, StoreError
from ptydask.formatting import counted
from ptydask.progress import plan_text
from ptydask.progress.repeats_text import describe_repeats
from ptydask.stop_signals import StopSignals
from ptydask.store import reader
from ptydask.store.upkeep import embedding


def announce(request: RunRequest, options: ConfirmOptions, view: View) -> PreparedConfirmation:
    """Prepare a confirmation and have ``view`` say what will happen, or that nothing is left to do.

    Raises what :func:`ptydask.driver.confirmation.prepare_confirmation` raises. Nothing is started.
    """
    prepared = prepare_confirmation(request, options)
    run = prepared.run
    view.plan(
        [
            *(plan_text.labelled_line(label, text) for label, text in describe_repeats(prepared)),
            plan_text.workers_line(run.place.describe(run.cluster_request), run.why_there),
            *filter(None, [plan_text.cost_line(run.cost) if run.trials_left else None]),
        ]
    )
    for notice in run.notices:
        view.notice(notice)
    if run.trials_left and run.plan.metric and (text := few_repeats_text(prepared.seeds_by_trial)):
        view.notice(text)
    if prepared.finished:
        view.notice(f"{counted(run.recorded, 'repeat')} recorded in {prepared.study}: nothing left to do")
    return prepared


def carry_out(prepared: PreparedConfirmation, view: View, stop: StopSignals) -> RunOutcome:
    """Run the repeats that are missing, and make them part of the study's file. Raises what ``execute_run`` raises."""
    outcome = RunOutcome(None, True)
    if prepared.run.trials_left or not prepared.run.packed:
        embedding.take_out(prepared.study, prepared.store_id)
        outcome = execute_run(prepared.run, view, stop)
    if outcome.complete:
        _embed(prepared, view)
    return outcome


def _embed(prepared: PreparedConfirmation, view: View) -> None:
    """Move the repeats into the study's file; a notice where that cannot be, and where they are then."""
    companion = prepared.run.plan.results
    try:
        with reader.open(companion) as confirmed:
            curves, troubles = correlate_halves(confirmed)
        for trouble in troubles:
            view.notice(trouble)
        embedding.embed(prepared.study, curves)
    except (StoreError, MissingDependency) as error:
        view.notice(
            f"the repeats are in {companion.name}, and count there, too; the same command puts them into "
            f"{prepared.study.name} later: {error}"
        )
