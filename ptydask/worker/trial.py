"""One trial, as one Dask task."""

from __future__ import annotations

import math
import os
import socket
import traceback
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import optuna
from distributed import get_worker
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from ptydask import sampling
from ptydask.engines import TrialFailure
from ptydask.errors import PtydaskError, StorageError, describe_error, one_line
from ptydask.model import UNRANKED_VALUE, Reason, StudyPlan, TrialInput, TrialOutput, TrialRecord, TrialState
from ptydask.storage import transport, urls
from ptydask.store import shard
from ptydask.trial import eviction, reconcile, slopes
from ptydask.trial.search_choice import choose_search
from ptydask.worker.process import OpenSession, session_for_run
from ptydask.worker.step_reports import OptunaFailed, ProgressReporter, TrialCheckpoint, catch_optuna_errors


@dataclass(frozen=True, slots=True)
class TrialDone:
    """What goes back to the driver: the record, and what is in the trial's file, which nobody need open again."""

    record: TrialRecord
    written: shard.Shard
    first: int
    """The first attempt's number, under which the checkpoint lies."""


_JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "OAR_JOB_ID", "JOB_ID")
"""Where batch systems say which job a process belongs to."""


class WorkerLeaving(Exception):  # noqa: N818
    """The trial stopped here because its worker has to go; another goes on from the checkpoint."""


class TrialFailed(Exception):  # noqa: N818
    """Tells Optuna that this trial failed; what happened is in the record."""


def run_trial(run_id: str, task: str, index: int, position: int | None = None) -> TrialDone:
    """Run the next trial of the run's study and write its file.

    Raises WorkerLeaving where this worker has to go first, NotPrepared where it was not made ready for this run.

    ``task`` is the key that the trial's lease carries; ``index`` seeds the sampler; it is another one for
    each task of the study, so that no two draw the same startup trials. ``position`` is how far the driver knew the
    journal when it sent the task: who knows as much need not ask whether a trial waits.
    """
    if eviction.asked.is_set():
        raise WorkerLeaving("this worker has to go")
    ready = session_for_run(run_id)
    try:
        run = _TrialRun(ready, task)
        transport.be_content(ready.storage, position)
        _load_study(ready, index).optimize(run, n_trials=1, catch=(TrialFailed,))
    except eviction.Evicted:
        raise WorkerLeaving("this worker has to go") from None
    except OptunaFailed as failure:
        raise _refusal_error(failure.__cause__) from None
    except PtydaskError:
        raise
    except Exception as error:
        # Optuna failed, before the trial or after it; its file is then written. Where somebody else has closed the
        # trial meanwhile, the driver finds the file and decides.
        raise _refusal_error(error) from None
    assert run.done is not None
    return run.done


def _load_study(ready: OpenSession, index: int) -> optuna.Study:
    plan, seed = ready.setup.plan, mix_seed(ready.setup.plan.seed, index)
    informed = choose_search(plan).informed
    return optuna.load_study(
        study_name=plan.name,
        storage=ready.storage,
        sampler=sampling.build_sampler(
            plan.sampler,
            seed=seed,
            space=plan.space,
            trials=ready.setup.trials,
            informed=informed,
            earlier=plan.earlier,
            remembered=ready.remembered,
        ),
        pruner=sampling.build_pruner(
            plan.pruner,
            iterations=plan.iterations,
            trials=ready.setup.trials,
            informed_by=(plan.sampler, plan.space) if informed else None,
        ),
    )


def _refusal_error(error: BaseException | None) -> PtydaskError:
    what = describe_error(error)
    if urls.is_trouble(error) or isinstance(error, UpdateFinishedTrialError):
        return StorageError(f"a trial could not reach its storage: {what}")
    return PtydaskError(f"Optuna refused a trial: {what}")


def mix_seed(seed: int, index: int) -> int:
    """A seed of 32 bits for the sampler of one trial (Knuth's multiplicative hash)."""
    return (seed * 2654435761 + index * 40503 + 12345) % 2**32


class _TrialRun:
    """The objective that Optuna calls, once."""

    def __init__(self, ready: OpenSession, task: str) -> None:
        self.ready, self.setup, self.task = ready, ready.setup, task
        self.shelf = ready.shelf
        self.done: TrialDone | None = None
        self.first = 0

    def __call__(self, trial: Trial) -> float:
        plan, worker = self.setup.plan, get_worker()
        with catch_optuna_errors():
            record = self._begin_trial(trial, str(worker.name))
            params = sampling.suggest(trial, plan.space, plan.sampler)
            transport.flush(self.ready.storage)  # whoever finds this trial without us knows whose it is
        # Whoever chose the values has signed them.
        seed = plan.trial_seed(params)
        record = replace(record, params=params, seed=seed, origin=trial.user_attrs.get("origin", record.origin))
        reporter = ProgressReporter(trial, plan)
        checkpoint = TrialCheckpoint(trial, params, reporter, self.shelf, self.first, self.setup.checkpoint_every)
        try:
            output = self.ready.session.run(TrialInput(trial.number, params, seed), reporter.report, checkpoint)
            error = _trial_error(output, plan)
            gradient = slopes.check_gradient(output.gradient, plan.space) or reporter.gradient_of(error)
            pruned = reporter.pruned and not output.ended_itself
            ended = replace(
                _add_course(record, reporter, output),
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                reason=Reason.PRUNED if pruned else Reason.NONE,
                error=error,
                metrics=dict(output.metrics),
                gradient=gradient,
                seconds=checkpoint.seconds,
            )
        except Exception as caught:  # whatever it is, the study goes on and the store has the traceback
            partial = caught.output if isinstance(caught, TrialFailure) else None
            partial = partial or reporter.so_far()
            last = {name: value for name, value in (partial.metrics if partial else reporter.last).items() if name}
            ended = replace(
                _failed_record(_add_course(record, reporter, partial), caught),
                error=last.get(plan.metric),
                metrics=dict(last),
                gradient=reporter.gradient_of(last.get(plan.metric)),
                seconds=checkpoint.seconds,
            )
            self._write_trial(ended, partial)
            with catch_optuna_errors():
                trial.set_user_attr("reason", Reason.FAILED.value)
            transport.be_content(self.ready.storage)
            raise TrialFailed(ended.message) from None
        if checkpoint.resumed and not reporter.began_again:
            output = replace(output, attributes={**output.attributes, "resumed_after_step": checkpoint.resumed})
        self._write_trial(ended, output)
        with catch_optuna_errors():
            for name, value in slopes.to_attribute(ended).items():
                trial.set_user_attr(name, value)
        transport.be_content(self.ready.storage)  # whatever others did, this trial ends
        if pruned:
            raise optuna.TrialPruned
        return UNRANKED_VALUE if error is None else error

    def _begin_trial(self, trial: Trial, worker: str) -> TrialRecord:
        host = socket.gethostname()
        job = next((os.environ[name] for name in _JOB_IDS if name in os.environ), "")
        trial.set_user_attr("lease", reconcile.lease(self.setup.store_id, self.task, worker, host, job))
        begun = reconcile.begun_from_attrs(trial.number, "RUNNING", {}, trial.user_attrs)
        self.first = begun.first
        return TrialRecord(
            number=trial.number,
            state=TrialState.FAIL,
            error=None,
            params={},
            attempt=begun.attempt,
            retry_of=begun.retry_of,
            origin=begun.origin,
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            worker=worker,
            host=host,
            job=job,
            device=self.ready.device,
            seed=self.setup.plan.seed,
        )

    def _write_trial(self, record: TrialRecord, output: TrialOutput | None) -> None:
        plan = self.setup.plan
        folder, direction, metric = self.shelf.folder, plan.direction, plan.metric
        self.shelf.check()
        written = shard.write(folder, record, output, plan.keep, direction=direction, metric=metric)
        self.shelf.deliver(record.number)
        self.done = TrialDone(record, written, self.first)


def _trial_error(output: TrialOutput, plan: StudyPlan) -> float | None:
    """The tuned metric's value; None in a study without one. Raises ArithmeticError where it is not finite."""
    if not plan.metric:
        return None
    error = float(output.metrics[plan.metric])
    if not math.isfinite(error):
        raise ArithmeticError(f"the trial's {plan.metric} is {error}")
    return error


def _add_course(record: TrialRecord, reporter: ProgressReporter, output: TrialOutput | None) -> TrialRecord:
    """The record with what its steps amount to: how far it was from rest, and what it cost."""
    facts = {} if output is None else output.attributes
    iterations, share = facts.get("iterations", reporter.last_step), facts.get("scan_share", 1.0)
    more = facts.get("slope_iterations", 0)
    if isinstance(iterations, int | float) and isinstance(more, int | float) and isinstance(share, int | float):
        record = replace(record, iterations=float((iterations + more) * share))
    return replace(record, relative_decrease=reporter.relative_decrease, last_step=reporter.last_step)


def _failed_record(record: TrialRecord, error: Exception) -> TrialRecord:
    if isinstance(error, TrialFailure):
        message, detail = one_line(str(error)), error.detail
    else:
        message = one_line(f"{type(error).__name__}: {error}")[:500]
        detail = "".join(traceback.format_exception(error))
    return replace(record, state=TrialState.FAIL, reason=Reason.FAILED, message=message, traceback=detail)
