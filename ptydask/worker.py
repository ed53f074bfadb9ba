"""What runs on a worker: one trial, as one Dask task.

The measurements and the storage connection live as long as the worker process; a trial leaves nothing else behind.
"""

from __future__ import annotations

import math
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from distributed import get_worker
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial

from ptydask import engines, reconcile, sampling
from ptydask.errors import PtydaskError, StorageError, one_line, redact
from ptydask.model import (
    Choice,
    Distribution,
    FloatRange,
    IntRange,
    Reason,
    Scalar,
    Slot,
    StudyPlan,
    TrialInput,
    TrialOutput,
    TrialRecord,
    TrialState,
)
from ptydask.storage import urls

if TYPE_CHECKING:
    from ptydask.engines import Session


@dataclass(frozen=True, slots=True)
class RunSetup:
    """What all trials of a run share. ``plan.storage`` is None: the URL travels in ``storage`` alone."""

    plan: StudyPlan = field(repr=False)
    storage: urls.StorageSpec
    store_id: str
    shards: Path
    run: str
    """Differs from run to run, so that no worker takes up what it kept from another."""


@dataclass(frozen=True, slots=True)
class TrialDone:
    """What goes back to the driver: the record, and where its arrays lie."""

    record: TrialRecord
    sha256: str
    lost: str = ""
    """What could not be kept, in words; empty where everything was."""


class TrialFailed(Exception):  # noqa: N818
    """Tells Optuna that this trial failed; what happened is in the record."""


class _Unheard(BaseException):
    """Optuna did not take what the trial had to say: no fault of the trial, so no engine may catch it."""


@dataclass(slots=True)
class _Open:
    """What a worker process keeps between trials."""

    run: str
    session: Session
    slot: Slot
    storage: optuna.storages.BaseStorage | None = None


_open: _Open | None = None
_opening = threading.Lock()


def slot_of_this_process() -> Slot:
    """The share of the machine that the cluster gave to this worker, from its environment."""
    threads = os.environ.get("PTYDASK_THREADS") or os.environ.get("OMP_NUM_THREADS") or "1"
    cuda = os.environ.get("CUDA_VISIBLE_DEVICES")
    return Slot(max(1, int(threads)), cuda if cuda not in (None, "", "-1") else None)


def prepare(plan: StudyPlan, run: str) -> dict[str, str]:
    """Load the measurements. Returns the session's provenance.

    Raises DataError where the measurements cannot be used.
    """
    return {**_opened(plan, run).session.provenance(), "host": socket.gethostname()}


def _opened(plan: StudyPlan, run: str) -> _Open:
    global _open
    with _opening:
        if _open is None or _open.run != run:
            if _open is not None:
                _open.session.close()
                _open = None
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            slot = slot_of_this_process()
            _open = _Open(run, engines.get(plan.engine).open(plan, slot), slot)
        return _open


def _storage(ready: _Open, setup: RunSetup) -> optuna.storages.BaseStorage:
    if ready.storage is None:
        ready.storage = urls.connect(setup.storage)
    return ready.storage


def run_trial(setup: RunSetup, task: str, index: int) -> TrialDone:
    """Run the next trial of the study and write its file.

    ``task`` is the key that the trial's lease carries; ``index`` counts the trials of the study and seeds the
    sampler, so that no two workers draw the same startup trials.
    """
    plan = setup.plan
    ready = _opened(plan, setup.run)
    study = optuna.load_study(
        study_name=plan.name,
        storage=_storage(ready, setup),
        sampler=sampling.sampler(plan.sampler, seed=_mix(plan.seed, index), space=plan.space),
        pruner=sampling.pruner(plan.pruner, iterations=plan.iterations),
    )
    run = _TrialRun(setup, ready, task)
    try:
        study.optimize(run, n_trials=1, catch=(TrialFailed,))
    except _Unheard as unheard:
        raise _told(unheard.__cause__) from None
    except PtydaskError:
        raise
    except Exception as error:
        # The trial is over and its file written; what failed is telling Optuna. Where somebody else has closed the
        # trial meanwhile, the driver finds the file and decides.
        raise _told(error) from None
    assert run.done is not None
    return run.done


def _told(error: BaseException | None) -> PtydaskError:
    what = redact(one_line(f"{type(error).__name__}: {error}"))
    if urls.is_trouble(error) or isinstance(error, UpdateFinishedTrialError):
        return StorageError(f"a trial could not reach its storage: {what}")
    return PtydaskError(f"Optuna refused a trial: {what}")


def _mix(seed: int, index: int) -> int:
    """A seed of 32 bits for the sampler of one trial (Knuth's multiplicative hash)."""
    return (seed * 2654435761 + index * 40503 + 12345) % 2**32


class _TrialRun:
    """The objective that Optuna calls, once."""

    def __init__(self, setup: RunSetup, ready: _Open, task: str) -> None:
        self.setup, self.ready, self.task = setup, ready, task
        self.done: TrialDone | None = None

    def __call__(self, trial: Trial) -> float:
        worker = get_worker()
        with _heard():
            record = self._begin(trial, str(worker.name))
            params = {name: _suggest(trial, name, d) for name, d in self.setup.plan.space.items()}
        record = replace(record, params=params)
        begin = time.monotonic()
        watch = _Watch(trial, self.setup.plan)
        try:
            output = self.ready.session.run(TrialInput(trial.number, params, self.setup.plan.seed), watch.report)
            error = float(output.metrics[self.setup.plan.metric])
            if not math.isfinite(error):
                raise ArithmeticError(f"the trial's {self.setup.plan.metric} is {error}")
            ended = replace(
                record,
                state=TrialState.PRUNED if watch.pruned else TrialState.COMPLETE,
                reason=Reason.PRUNED if watch.pruned else Reason.NONE,
                error=error,
                metrics=dict(output.metrics),
                seconds=time.monotonic() - begin,
            )
        except Exception as caught:  # whatever it is, the study goes on and the store has the traceback
            ended = replace(
                _failed(record, caught),
                error=watch.last.get(self.setup.plan.metric),
                metrics=dict(watch.last),
                seconds=time.monotonic() - begin,
            )
            self._write(ended, None)
            with _heard():
                trial.set_user_attr("reason", Reason.FAILED.value)
            raise TrialFailed(ended.message) from None
        self._write(ended, output)
        if watch.pruned:
            raise optuna.TrialPruned
        return error

    def _begin(self, trial: Trial, worker: str) -> TrialRecord:
        host, job = socket.gethostname(), os.environ.get("SLURM_JOB_ID", "")
        trial.set_user_attr("lease", reconcile.lease(self.setup.store_id, self.task, worker, host, job))
        attrs: Mapping[str, Any] = trial.user_attrs
        return TrialRecord(
            number=trial.number,
            state=TrialState.FAIL,
            error=None,
            params={},
            attempt=int(attrs.get("attempt", 1)),
            retry_of=attrs.get("retry_of"),
            origin=str(attrs.get("origin", "sampler")),
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            worker=worker,
            host=host,
            job=job,
            device=f"cuda:{self.ready.slot.cuda}" if self.ready.slot.cuda else "cpu",
            seed=self.setup.plan.seed,
        )

    def _write(self, record: TrialRecord, output: TrialOutput | None) -> None:
        from ptydask.store import shard

        plan = self.setup.plan
        written = shard.write(
            self.setup.shards, record, output, plan.keep, direction=plan.direction, metric=plan.metric
        )
        self.done = TrialDone(record, written.sha256, written.lost)


def _suggest(trial: Trial, name: str, among: Distribution) -> Scalar:
    match among:
        case FloatRange(low, high, step, log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntRange(low, high, step, log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case Choice(choices):
            return trial.suggest_categorical(name, choices)


class _Watch:
    """Hears of every step: tells Optuna, and says when the pruner wants the trial to end."""

    def __init__(self, trial: Trial, plan: StudyPlan) -> None:
        self._trial, self._plan = trial, plan
        self.pruned = False
        self.last: Mapping[str, float] = {}

    def report(self, step: int, metrics: Mapping[str, float]) -> bool:
        """See :class:`ptydask.engines.Report`."""
        self.last = dict(metrics)
        last = self._plan.iterations is not None and step >= self._plan.iterations
        with _heard():
            self._trial.report(float(metrics[self._plan.metric]), step)
            self.pruned = self._plan.pruner is not None and not last and self._trial.should_prune()
        return self.pruned


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Unheard from error


def _failed(record: TrialRecord, error: Exception) -> TrialRecord:
    name = type(error).__name__
    return replace(
        record,
        state=TrialState.FAIL,
        reason=Reason.FAILED,
        message=one_line(f"{name}: {error}")[:500],
        traceback="".join(traceback.format_exception(error)),
    )
