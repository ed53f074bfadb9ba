"""A study from its request to its end, in stages or not: one way to prepare and to carry out either."""

from __future__ import annotations

from dataclasses import replace

from ptydask import config
from ptydask.config import StudyFile
from ptydask.driver import comparability
from ptydask.driver.contract import RunOutcome, View
from ptydask.driver.execute import execute_run
from ptydask.driver.prepare import ChosenSite, PreparedRun, RunRequest, prepare_run
from ptydask.driver.stages import PreparedStages, execute_stages, prepare_stages
from ptydask.stop_signals import StopSignals

Prepared = PreparedRun | PreparedStages


def prepare(request: RunRequest, file: StudyFile | None = None, site: ChosenSite | None = None) -> Prepared:
    """Prepare a run, in stages where its file has some. Nothing is started.

    ``file`` is what was read of it earlier, ``site`` where it is to be, if these are known. The patterns of a study
    that has nothing left to do are not looked at. Raises what :func:`ptydask.driver.prepare.prepare_run` raises.
    """
    file = file or config.read(request.config)
    return _finished_without_guesses(request, file, site) or _prepare(request, file, site)


def looks_at_patterns(request: RunRequest, file: StudyFile | None = None) -> bool:
    """Whether :func:`prepare` makes guesses, which takes a while; raises what it raises."""
    if request.overrides.guess is None:
        return False
    return _finished_without_guesses(request, file or config.read(request.config), None) is None


def _finished_without_guesses(request: RunRequest, file: StudyFile, site: ChosenSite | None) -> Prepared | None:
    """The run that guesses are asked for, prepared without them, where nothing is left to do; None elsewhere."""
    if request.overrides.guess is None:
        return None
    without = replace(request, overrides=replace(request.overrides, guess=None))
    if not config.load(request.config, without.overrides, file=file).results.exists():
        return None
    prepared = _prepare(without, file, site)
    if not prepared.finished:
        return None
    run = run_of(prepared)
    # Ranges that guesses had narrowed are no others than they were.
    others = tuple(comparability.RANGE_NOTICE.format(name) for name in run.plan.space)
    run = replace(run, notices=tuple(text for text in run.notices if not text.startswith(others)))
    return replace(prepared, run=run) if isinstance(prepared, PreparedStages) else run


def _prepare(request: RunRequest, file: StudyFile, site: ChosenSite | None) -> Prepared:
    stages = config.load_stages(request.config, request.overrides, file)
    return prepare_stages(request, file, stages, site) if stages else prepare_run(request, file, site)


def carry_out(prepared: Prepared, view: View, stop: StopSignals) -> RunOutcome:
    """Run what is missing. Raises what :func:`ptydask.driver.execute.execute_run` raises."""
    if isinstance(prepared, PreparedStages):
        return execute_stages(prepared, view, stop)
    return execute_run(prepared, view, stop)


def run_of(prepared: Prepared) -> PreparedRun:
    """The run itself; of stages that of the next one."""
    return prepared.run if isinstance(prepared, PreparedStages) else prepared
