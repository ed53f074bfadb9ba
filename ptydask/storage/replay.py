"""Optuna's replay of a journal, where most entries are of other processes' trials: their number, times a trial.

Optuna copies a trial with each of its entries, as whoever was given it is not to see it change. Nobody is given one
amid a batch of entries: here a trial is copied once for all of them. And a parameter's distribution, the same text in
all trials, is read and compared with that of the trials before once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial


class BatchReplay(JournalStorageReplayResult):
    """The same trials from the same entries, and the same errors."""

    def __init__(self, worker_id_prefix: str) -> None:
        super().__init__(worker_id_prefix)
        self._copied: dict[int, FrozenTrial] = {}
        """Copies made in this batch, which nobody else has yet; by trial id."""
        self._accepted: dict[tuple[int, str], tuple[str, BaseDistribution]] = {}
        """The distribution that goes with the trials before, and its text; by study id and parameter."""

    def __getstate__(self) -> dict[str, Any]:
        """For a snapshot: the trials have all that is remembered here."""
        return {**vars(self), "_copied": {}, "_accepted": {}}

    def apply_logs(self, logs: Iterable[dict[str, Any]]) -> None:
        """Replay a batch of entries."""
        try:
            super().apply_logs(logs)
        finally:
            self._copied = {}

    def _copy_for_batch(self, trial_id: int) -> FrozenTrial:
        trial, current = self._copied.get(trial_id), self._trials[trial_id]
        if trial is not current:  # none yet, or Optuna has made another of it
            trial = copy.copy(current)
            trial.params, trial.distributions = dict(current.params), dict(current.distributions)
            trial.intermediate_values = dict(current.intermediate_values)
            trial.user_attrs, trial.system_attrs = dict(current.user_attrs), dict(current.system_attrs)
            self._copied[trial_id] = self._trials[trial_id] = trial
        return trial

    def _apply_create_trial(self, log: dict[str, Any]) -> None:
        trial_id = len(self._trials)
        super()._apply_create_trial(log)
        if "state" not in log and trial_id in self._trials:  # without a template nothing in it is of the entry
            self._copied[trial_id] = self._trials[trial_id]

    def _apply_set_trial_param(self, log: dict[str, Any]) -> None:
        trial_id, name, text = log["trial_id"], log["param_name"], log["distribution"]
        before = self._trials.get(trial_id)
        study_id = self._trial_id_to_study_id.get(trial_id, -1)
        known, distribution = self._accepted.get((study_id, name), ("", None))
        if distribution is None or known != text:
            super()._apply_set_trial_param(log)
            if self._trials.get(trial_id) is not before:
                self._accepted[study_id, name] = text, self._trials[trial_id].distributions[name]
        elif self._trial_exists_and_updatable(trial_id, log):
            trial = self._copy_for_batch(trial_id)
            trial.params[name] = distribution.to_external_repr(log["param_value_internal"])
            trial.distributions[name] = distribution

    def _apply_set_trial_intermediate_value(self, log: dict[str, Any]) -> None:
        if self._trial_exists_and_updatable(log["trial_id"], log):
            self._copy_for_batch(log["trial_id"]).intermediate_values[log["step"]] = log["intermediate_value"]

    def _apply_set_trial_user_attr(self, log: dict[str, Any]) -> None:
        if self._trial_exists_and_updatable(log["trial_id"], log):
            self._copy_for_batch(log["trial_id"]).user_attrs.update(log["user_attr"])

    def _apply_set_trial_system_attr(self, log: dict[str, Any]) -> None:
        if self._trial_exists_and_updatable(log["trial_id"], log):
            self._copy_for_batch(log["trial_id"]).system_attrs.update(log["system_attr"])
