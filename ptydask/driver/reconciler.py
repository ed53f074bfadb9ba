"""Bringing Optuna and the store into agreement, as :mod:`ptydask.trial.reconcile` decides."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from ptydask.driver.optuna_study import OptunaStudy
from ptydask.model import Reason, TrialRecord, TrialState
from ptydask.store import Store, checkpoints, shard
from ptydask.trial import reconcile
from ptydask.trial.reconcile import BegunTrial, ReconcileAction, ReconcileStep


class ReconcileListener(Protocol):
    """Hears of what becomes of trials."""

    def record(self, record: TrialRecord) -> None:
        """A trial is in the store now."""

    def note_loss(self, text: str) -> None:
        """An attempt lost its worker and is tried again."""


@dataclass(slots=True)
class Reconciler:
    """Carries out what is to be done about trials that nobody works on."""

    optuna_study: OptunaStudy
    store: Store
    progress: ReconcileListener
    retries: int
    exclusive: bool
    """Whether nobody but this run writes the study."""

    def reconcile_trials(self, reason: Reason, in_flight: Collection[str] = ()) -> bool:
        """Put right whatever disagrees; ``reason`` is why trials that are found RUNNING ended.

        Returns whether another look is owed, as a task in flight has not signed its trial yet.
        """
        trials = self.optuna_study.begun()
        store, recorded = self.store.id, self.store.records.keys()
        for number in reconcile.to_adopt(trials, store=store, recorded=recorded, in_flight=in_flight):
            record = self.store.find(number)
            if record is not None:
                self.add(record, first=trials[number].first)
        for step in reconcile.steps(
            trials,
            store=store,
            recorded=recorded,
            in_flight=in_flight,
            retries=self.retries,
            reason=reason,
            exclusive=self.exclusive,
            progress=lambda first: checkpoints.step(self.store.folder, first),
        ):
            self._carry_out(step, reason)
        return reconcile.look_owed(trials, store=store, in_flight=in_flight, exclusive=self.exclusive)

    def add(self, record: TrialRecord, *, first: int, written: shard.Shard | None = None) -> None:
        """Record a trial whose file is there, ``written`` where its worker told of it.

        The checkpoint, under the first attempt's number, has served.
        """
        self.store.add(record, written)
        checkpoints.drop(self.store.folder, first)
        self.progress.record(record)

    def _carry_out(self, step: ReconcileStep, reason: Reason) -> None:
        trial = step.trial
        match step.action:
            case ReconcileAction.ADOPT:
                self.optuna_study.tell(self.store.records[trial.number])
            case ReconcileAction.REFUSE:
                self.store.discard(trial.number)
            case ReconcileAction.CLOSE:
                self.optuna_study.close(trial, reason)
            case ReconcileAction.RETRY:
                self.optuna_study.retry(trial)
                if trial.reason == Reason.LOST:
                    text = f"trial {trial.number} lost its worker; its parameters are tried again"
                    if trial.progress:
                        text += f" from step {trial.progress} on"
                    self.progress.note_loss(text)
            case ReconcileAction.GIVE_UP:
                self._record_numbers(trial, TrialState.FAIL, Reason.LOST, f"its worker was lost {trial.spent} times")
            case ReconcileAction.RECOVER:
                state = TrialState(trial.state) if trial.state != "RUNNING" else TrialState.FAIL
                reasons = {TrialState.PRUNED: Reason.PRUNED, TrialState.FAIL: Reason.FAILED}
                ended = reasons.get(state, Reason.NONE)
                self._record_numbers(trial, state, ended, "its file was lost; the numbers are from the Optuna study")

    def _record_numbers(self, trial: BegunTrial, state: TrialState, reason: Reason, message: str) -> None:
        record = self.optuna_study.record_of(trial, state=state, reason=reason, message=message)
        plan, folder = self.optuna_study.plan, self.store.folder
        written = shard.write(folder, record, None, plan.keep, direction=plan.direction, metric=plan.metric)
        self.add(record, first=trial.first, written=written)
