"""Optuna's JournalStorage for studies of many thousand trials: what a call costs does not grow with them.

A trial that has ended never changes. So it is looked at once, kept in lists by its state, and shares its distributions
and texts with the others, of which Optuna makes anew those of each trial. What a process replays that joins late is
bounded by a snapshot that is taken less and less often, so that all of them together cost a trial the same at any time.
"""

from __future__ import annotations

import copy
import pickle
from bisect import insort
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as State

from ptydask.interning import intern_text, intern_texts
from ptydask.storage.ahead import AheadBackend
from ptydask.storage.journal import PIECE
from ptydask.storage.replay import BatchReplay
from ptydask.trial.reconcile import TASK

SNAPSHOT_EVERY = 100
"""Trials from one snapshot to the next in a study that is small: as Optuna's own."""
_PARTS = 8
"""And in a large one so many, about, in the time that the study takes to double."""


def snapshot_due(number: int) -> bool:
    """Whether the process that begins this trial keeps what it has replayed for those who join late.

    Every 100 trials up to 1600, then every 200 up to 3200, and so on: none replays more than an eighth of the study.
    """
    steps = number // (SNAPSHOT_EVERY * _PARTS)
    every = SNAPSHOT_EVERY << max(0, steps.bit_length() - 1)
    return number > 0 and number % every == 0


@dataclass(slots=True)
class _TrialLists:
    """The trials of one study in the order of their numbers, by their states."""

    trials: list[FrozenTrial] = field(default_factory=list)
    """All; those in ``under_way`` as they were when they were last looked at."""
    under_way: list[int] = field(default_factory=list)
    """The numbers of those that wait or run."""
    ended: dict[State, list[FrozenTrial]] = field(default_factory=dict)
    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    """Of the trial that ended last."""

    def update(self, ids: Sequence[int], by_id: Mapping[int, FrozenTrial]) -> None:
        """Look at what may have changed: trials that are new, and those under way."""
        known = len(self.trials)
        self.trials += [by_id[trial] for trial in ids[known:]]
        looked_at, self.under_way = [*self.under_way, *range(known, len(self.trials))], []
        for number in looked_at:
            trial = self.trials[number] = by_id[ids[number]]
            if trial.state.is_finished():
                self._share_distributions(trial)
                _share_texts(trial)
                insort(self.ended.setdefault(trial.state, []), trial, key=attrgetter("number"))
            else:
                self.under_way.append(number)

    def _share_distributions(self, trial: FrozenTrial) -> None:
        own = trial.distributions
        if own == self.distributions and [*own] == [*self.distributions]:
            trial.distributions = self.distributions
        else:
            self.distributions = own

    def select(self, states: Container[State] | None) -> list[FrozenTrial]:
        """Those in one of the states, in the order of their numbers; a list of the caller's own."""
        if states is None:
            return self.trials.copy()
        parts = [trials for state, trials in self.ended.items() if state in states]
        parts.append([trial for trial in map(self.trials.__getitem__, self.under_way) if trial.state in states])
        parts = [part for part in parts if part]
        if len(parts) == 1:
            return parts[0].copy()
        return sorted((trial for part in parts for trial in part), key=attrgetter("number"))


def _share_texts(trial: FrozenTrial) -> None:
    """Have names, choices and what stands in the lease be the same objects in all trials."""
    trial.params = intern_texts(trial.params)
    trial.user_attrs = {intern_text(name): _share_parts(value) for name, value in trial.user_attrs.items()}


def _share_parts(value: Any) -> Any:
    if type(value) is not dict:
        return intern_text(value)
    # A task's key is one trial's own: it would only fill Python's table of interned texts.
    return {intern_text(key): part if key == TASK else _share_parts(part) for key, part in value.items()}


class StudyJournal(JournalStorage):
    """See the module. Its backend's snapshots, where it has some, are taken and restored here."""

    def __init__(self, backend: BaseJournalBackend) -> None:
        self._lists: dict[int, _TrialLists] = {}
        self._restored = False
        super().__init__(backend)

    def restore_replay_result(self, snapshot: bytes) -> None:
        """Begin with a snapshot."""
        self._lists = {}
        super().restore_replay_result(snapshot)

    def _sync_with_backend(self) -> None:
        if not self._restored:
            self._restored = True
            self._replay_result = BatchReplay(self._worker_id_prefix)
            snapshot = self._backend.load_snapshot() if isinstance(self._backend, AheadBackend) else None
            if snapshot is not None:
                self.restore_replay_result(snapshot)
        entries = iter(self._backend.read_logs(self._replay_result.log_number_read))
        while piece := list(islice(entries, PIECE)):
            self._replay_result.apply_logs(piece)
            if len(piece) == PIECE:  # else it would stay three times as large, with distributions of each trial's own
                self._look_at_all()

    def save_snapshot(self) -> None:
        """Keep what was replayed for those who join later."""
        with self._thread_lock:
            if not isinstance(self._backend, AheadBackend) or not self._backend.is_level:
                return
            self._look_at_all()  # with the distributions of each trial it would be twice as large
            self._backend.save_snapshot(pickle.dumps(self._replay_result, pickle.HIGHEST_PROTOCOL))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """A new trial, and now and then a snapshot."""
        trial_id = super().create_new_trial(study_id, template_trial)
        if snapshot_due(trial_id):
            self.save_snapshot()
        return trial_id

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[State] | None = None
    ) -> list[FrozenTrial]:
        """See Optuna's."""
        with self._thread_lock:
            self._sync_with_backend()
            trials = self._look_at(study_id).select(states)
            return copy.deepcopy(trials) if deepcopy else trials

    def _look_at_all(self) -> None:
        for study in self._replay_result.get_all_studies():
            self._look_at(study._study_id)

    def _look_at(self, study_id: int) -> _TrialLists:
        """The lists of a study, up to date with the replay. Raises KeyError where there is none, or no more."""
        replayed = self._replay_result
        replayed.get_study(study_id)
        lists = self._lists.setdefault(study_id, _TrialLists())
        lists.update(replayed._study_id_to_trial_ids[study_id], replayed._trials)
        return lists
