"""A study from its request to its end, in stages or not: one way to prepare and to carry out either."""

from __future__ import annotations

from ptydask import config
from ptydask.config import StudyFile
from ptydask.driver.contract import RunOutcome, View
from ptydask.driver.execute import execute_run
from ptydask.driver.prepare import ChosenSite, PreparedRun, RunRequest, prepare_run
from ptydask.driver.stages import PreparedStages, execute_stages, prepare_stages
from ptydask.stop_signals import StopSignals

Prepared = PreparedRun | PreparedStages


def prepare(request: RunRequest, file: StudyFile | None = None, site: ChosenSite | None = None) -> Prepared:
    """Prepare a run, in stages where its file has some. Nothing is started.

    ``file`` is what was read of it earlier, ``site`` where it is to be, if these are known. Raises what
    :func:`ptydask.driver.prepare.prepare_run` raises.
    """
    file = file or config.read(request.config)
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
